//! Those who publish, and those who wait for what is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use mpreg_patterns::base::{Rng, RunId};
use mpreg_patterns::ops::{
    Call, CallOptions, Event, GraphOptions, GraphPart, Publish, Reply, Request, Returns,
};
use mpreg_patterns::values::Value;

use crate::peers::MS;
use crate::spelling::{OWN_TOPIC, some_narrow_pattern, some_topic};
use crate::workload::one_in;

/// More patterns than one turn reads: whoever comes in the same turn has to wait for the next.
const TIRING: usize = 4_200;
/// Waits that one peer has open at most.
const WAITS: usize = 8;
/// What a condition may ask, beside where the text it speaks of stands in the payload.
pub(crate) const CONDITIONS: [&str; 3] = [
    "payload.endsWith(\"7\")",
    "payload.contains(\"|a\") && headers == null",
    "topic == \"k.a\" || topic.startsWith(\"t\")",
];

/// Whether one of [`CONDITIONS`] holds.
pub(crate) fn holds(condition: &str, topic: &str, payload: &str) -> bool {
    match CONDITIONS.iter().position(|known| *known == condition) {
        Some(0) => payload.ends_with('7'),
        Some(1) => payload.contains("|a"),
        Some(2) => topic == "k.a" || topic.starts_with('t'),
        _ => panic!("{condition} is none of the conditions"),
    }
}

/// Numbers what one publisher publishes to each topic. A payload says who, where and which.
#[derive(Debug)]
pub(crate) struct Numbers {
    who: String,
    last: BTreeMap<&'static str, u64>,
}

impl Numbers {
    pub(crate) const fn of(who: String) -> Self {
        Self { who, last: BTreeMap::new() }
    }

    pub(crate) fn payload(&mut self, topic: &'static str) -> Value {
        let number = self.last.entry(topic).or_default();
        *number += 1;
        Value::json(format!("\"{}|{topic}|{number}\"", self.who))
    }

    pub(crate) fn event(&mut self, topic: &'static str) -> Arc<Event> {
        let payload = self.payload(topic);
        Arc::new(Event { topic: topic.into(), payload, headers: None, message: RunId(0) })
    }
}

/// A request to let go of more patterns than one turn reads, none of which is held.
pub(crate) fn tiring(id: &str) -> Request {
    let patterns = vec!["z"; TIRING];
    Request::Unsubscribe { id: Some(id.into()), patterns: Some(Value::from_serialize(&patterns)) }
}

/// A peer that publishes: by `publish` and by `mpreg.topic.publish`, alone and in bursts.
#[derive(Debug)]
pub(crate) struct Publisher {
    rng: Rng,
    serial: u64,
    numbers: Numbers,
    next_ns: u64,
    pub(crate) active: bool,
}

impl Publisher {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        let numbers = Numbers::of(format!("p{index}"));
        Self { rng: Rng::new(seed), serial: 0, numbers, next_ns: 0, active: true }
    }

    pub(crate) const fn wake_at(&self) -> u64 {
        if self.active { self.next_ns } else { u64::MAX }
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Request> {
        self.next_ns = now_ns + MS * (1 + self.rng.below(160) as u64);
        let count = match self.rng.below(20) {
            0 => 40,
            1..=4 => 1 + self.rng.below(12),
            _ => 1,
        };
        let mut said = Vec::new();
        if one_in(&mut self.rng, 60) {
            self.serial += 1;
            said.push(tiring(&format!("r{}", self.serial)));
        }
        for _ in 0..count {
            let request = self.publish();
            said.push(request);
        }
        said
    }

    fn publish(&mut self) -> Request {
        self.serial += 1;
        let id = format!("r{}", self.serial);
        let topic = some_topic(&mut self.rng);
        if one_in(&mut self.rng, 12) {
            let payload = self.numbers.payload(topic);
            let payload = String::from_utf8_lossy(&payload.bytes);
            let kwargs = format!("{{\"topic\":\"{topic}\",\"payload\":{payload}}}");
            return builtin(&id, "mpreg.topic.publish", kwargs, 1_000);
        }
        let (confirm, event) = (one_in(&mut self.rng, 2), self.numbers.event(topic));
        Request::Publish(Publish { id: id.into(), confirm, event })
    }
}

pub(crate) fn builtin(id: &str, fun: &str, kwargs: String, timeout_ms: u64) -> Request {
    let call = Call {
        id: id.into(),
        fun: fun.into(),
        kwargs: Some(Value::json(kwargs)),
        options: CallOptions { timeout_ms: Some(timeout_ms), ..CallOptions::default() },
        ..Call::default()
    };
    Request::Call(call.into())
}

/// A peer that waits for events: in calls, and in graphs that publish what has come.
#[derive(Debug)]
pub(crate) struct Waiter {
    rng: Rng,
    serial: u64,
    open: Vec<String>,
    numbers: Numbers,
    next_ns: u64,
    pub(crate) active: bool,
}

impl Waiter {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        let numbers = Numbers::of(format!("w{index}"));
        let (serial, open, next_ns, active) = (0, Vec::new(), 0, true);
        Self { rng: Rng::new(seed), serial, open, numbers, next_ns, active }
    }

    pub(crate) const fn wake_at(&self) -> u64 {
        if self.active { self.next_ns } else { u64::MAX }
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Request> {
        self.next_ns = now_ns + MS * (1 + self.rng.below(100) as u64);
        let some = self.open.get(self.rng.below(self.open.len().max(1))).cloned();
        match (self.rng.below(10), some) {
            (0, Some(known)) => vec![Request::Cancel { id: known.into() }],
            (1, Some(known)) => {
                // An id that is in use: refused, and nothing of it is published.
                let event = self.numbers.event("a");
                vec![Request::Publish(Publish { id: known.into(), confirm: true, event })]
            }
            _ if self.open.len() >= WAITS => Vec::new(),
            (2..=4, _) => vec![self.graph()],
            _ => vec![self.next()],
        }
    }

    fn id(&mut self, kind: char) -> String {
        self.serial += 1;
        let id = format!("{kind}{}", self.serial);
        self.open.push(id.clone());
        id
    }

    /// What is waited for, as the text of an object.
    fn wanted(&mut self) -> String {
        let pattern = some_narrow_pattern(&mut self.rng);
        let mut kwargs = format!("{{\"pattern\":\"{pattern}\"");
        if one_in(&mut self.rng, 3) {
            let condition = CONDITIONS[self.rng.below(CONDITIONS.len())].replace('"', "\\\"");
            kwargs += &format!(",\"where\":\"{condition}\"");
        }
        if one_in(&mut self.rng, 3) {
            kwargs += &format!(",\"delay_ms\":{}", 1 + self.rng.below(300));
        }
        if one_in(&mut self.rng, 3) {
            kwargs += &format!(",\"timeout_ms\":{}", 20 + self.rng.below(600));
        }
        kwargs
    }

    fn next(&mut self) -> Request {
        let id = self.id('n');
        let mut kwargs = self.wanted();
        if one_in(&mut self.rng, 3) {
            kwargs += &format!(",\"count\":{}", 1 + self.rng.below(12));
        }
        kwargs.push('}');
        builtin(&id, "mpreg.topic.next", kwargs, [100, 1_000, 4_000][self.rng.below(3)])
    }

    fn graph(&mut self) -> Request {
        let id = self.id('g');
        let wanted = self.wanted();
        let payload = r#"{"$ref":"w","at":"/payload"}"#;
        let steps = format!(
            r#"[{{"name":"w","fun":"mpreg.topic.next","kwargs":{wanted}}}}},
               {{"name":"p","fun":"mpreg.topic.publish",
                 "kwargs":{{"topic":"{OWN_TOPIC}","payload":{payload}}}}}]"#
        );
        let timeout_ms = Some([100, 1_000, 4_000][self.rng.below(3)]);
        let options = GraphOptions { returns: Returns::All, timeout_ms, ..GraphOptions::default() };
        let steps = Some(Value::json(steps));
        let part = GraphPart { id: id.into(), steps, options, ..GraphPart::default() };
        Request::Graph(part.into())
    }

    pub(crate) fn hear(&mut self, reply: &Reply) {
        let id = match reply {
            Reply::Result { id, .. } => id,
            Reply::Error { id: Some(id), error, .. } if error.refused.is_none() => id,
            Reply::Graph(reply) if !reply.more => &reply.id,
            _ => return,
        };
        let at = self.open.iter().position(|open| open == id.as_str());
        let at = at.unwrap_or_else(|| panic!("a waiter hears of {id}, which is not open"));
        self.open.remove(at);
    }

    /// What was open has an unknown outcome.
    pub(crate) fn lost(&mut self) {
        self.open.clear();
    }

    pub(crate) fn waits(&self) -> usize {
        self.open.len()
    }
}
