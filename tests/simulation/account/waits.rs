//! Waits: each has one outcome, which is what was published since, in order, or why it is not.

use mpreg_patterns::base::{Code, PeerId, RunId, Time};
use mpreg_patterns::ops::{Call, Event, GraphPart, GraphReply, Reply};
use mpreg_patterns::values::{Body, Value};
use serde_json::Value as Json;

use super::{Account, Fact, Mask};
use crate::publishers::holds;
use crate::spelling::{TOPICS, matches, normal};

/// An outcome may come this long after it is due: ticks are a millisecond wide.
const LATE_NS: u64 = 20_000_000;
const MS: u64 = 1_000_000;

/// Somebody waits.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) pattern: String,
    pub(super) normal: String,
    /// Whether it is a graph's, of which only the graph's own outcome is seen.
    pub(super) is_graph: bool,
    mask: Mask,
    condition: Option<String>,
    count: Option<usize>,
    delay_ns: u64,
    due_ns: u64,
    /// Events before were looked at; those that count; when the last that was wanted came.
    at: usize,
    got: Vec<usize>,
    met_ns: Option<u64>,
    pub(super) given_up: bool,
}

impl Wait {
    fn of(now: Time, kwargs: &Json, timeout_ms: u64, at: usize) -> Self {
        let pattern = kwargs["pattern"].as_str().expect("a pattern").to_owned();
        let own_ms = kwargs["timeout_ms"].as_u64().unwrap_or(u64::MAX);
        Self {
            mask: Mask::of(&pattern),
            normal: normal(&pattern),
            pattern,
            is_graph: false,
            condition: kwargs["where"].as_str().map(str::to_owned),
            count: kwargs["count"].as_u64().map(|count| count as usize),
            delay_ns: kwargs["delay_ms"].as_u64().unwrap_or(0) * MS,
            due_ns: now.mono_ns + own_ms.min(timeout_ms) * MS,
            at,
            got: Vec::new(),
            met_ns: None,
            given_up: false,
        }
    }

    fn counts(&self, fact: &Fact) -> bool {
        let payload = fact.payload.trim_matches('"');
        let holds = |of: &String| holds(of, TOPICS[fact.topic], payload);
        self.mask.has(fact.topic) && self.condition.as_ref().is_none_or(holds)
    }

    /// Looks at what was published since.
    fn look(&mut self, facts: &[Fact]) {
        let from = std::mem::replace(&mut self.at, facts.len());
        for (at, fact) in facts.iter().enumerate().skip(from) {
            if self.met_ns.is_none() && self.counts(fact) {
                self.got.push(at);
                let all = self.got.len() == self.count.unwrap_or(1);
                self.met_ns = all.then_some(fact.mono_ns);
            }
        }
    }
}

fn timeout_ms(of: Option<u64>) -> u64 {
    of.expect("every wait has a timeout")
}

fn json(body: &Body) -> Json {
    serde_json::from_slice(&body.value.bytes).expect("JSON")
}

impl Account {
    /// A call of a function of the broker's own.
    pub(super) fn calls(&mut self, now: Time, peer: PeerId, call: &Call) {
        let kwargs = call.kwargs.as_ref().expect("built-ins take them");
        let kwargs: Json = serde_json::from_slice(&kwargs.bytes).expect("JSON");
        let id = (peer, call.id.to_string());
        if call.fun == "mpreg.topic.publish" {
            let topic = kwargs["topic"].as_str().expect("a topic").into();
            let payload = Value::from_serialize(&kwargs["payload"]);
            let event = Event { topic, payload, headers: None, message: RunId(0) };
            self.published(now, &event);
            self.confirms.insert(id, true);
            return;
        }
        let wait = Wait::of(now, &kwargs, timeout_ms(call.options.timeout_ms), self.facts.len());
        self.attach(&wait.pattern);
        assert!(self.waits.insert(id, wait).is_none(), "an id is used twice");
    }

    /// A graph that waits in its step `w`, and publishes that in `p`.
    pub(super) fn graph(&mut self, now: Time, peer: PeerId, part: &GraphPart) {
        let steps = part.steps.as_ref().expect("steps");
        let steps: Json = serde_json::from_slice(&steps.bytes).expect("JSON");
        let timeout_ms = timeout_ms(part.options.timeout_ms);
        let wait = Wait::of(now, &steps[0]["kwargs"], timeout_ms, self.facts.len());
        self.attach(&wait.pattern);
        let due_ns = now.mono_ns + timeout_ms * MS;
        let wait = Wait { is_graph: true, due_ns, ..wait };
        // It begins when its graph does, and ends before it.
        self.unsure(&wait.pattern);
        let id = (peer, part.id.to_string());
        assert!(self.waits.insert(id, wait).is_none(), "an id is used twice");
    }

    /// The one outcome of a wait.
    pub(super) fn wait_ended(&mut self, now: Time, mut wait: Wait, reply: &Reply) {
        self.detach(&wait.pattern, false);
        self.tally.waited += 1;
        wait.look(&self.facts);
        match reply {
            Reply::Graph(graph) => self.graph_ended(&wait, graph),
            Reply::Result { body, .. } => self.came(now, &wait, &json(body)),
            Reply::Error { error, .. } if error.is(Code::Cancelled) => {
                assert!(wait.given_up, "nobody gave {wait:?} up");
            }
            Reply::Error { error, .. } => {
                assert!(error.is(Code::Timeout), "{error} for {wait:?}");
                self.tally.late += 1;
                assert!(now.mono_ns >= wait.due_ns, "{wait:?} ended early");
                let in_time = wait.met_ns.is_some_and(|met_ns| met_ns < wait.due_ns);
                assert!(!in_time, "all came in time for {wait:?}");
            }
            other => panic!("{other:?} for {wait:?}"),
        }
    }

    fn came(&self, now: Time, wait: &Wait, told: &Json) {
        let Some(met_ns) = wait.met_ns else { panic!("{told} came too early for {wait:?}") };
        assert!(now.mono_ns >= met_ns + wait.delay_ns, "{wait:?} was not delayed");
        let events = match wait.count {
            Some(_) => told.as_array().expect("an array").clone(),
            None => vec![told.clone()],
        };
        let told: Vec<String> = events.iter().map(|event| event["payload"].to_string()).collect();
        let meant: Vec<&String> = wait.got.iter().map(|at| &self.facts[*at].payload).collect();
        assert!(told.iter().eq(meant.iter().copied()), "{told:?}, not {meant:?}, for {wait:?}");
        let seqs: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?} for {wait:?}");
    }

    fn graph_ended(&self, wait: &Wait, graph: &GraphReply) {
        if let Some((error, _)) = &graph.error {
            let known = error.is(Code::Timeout) || error.is(Code::Cancelled) && wait.given_up;
            return assert!(known, "{error} for {wait:?}");
        }
        let told = graph.results.iter().find(|result| result.0 == "w").map(|(_, body)| json(body));
        let told = told.expect("what it waited for");
        let (topic, payload) = (told["topic"].as_str().unwrap_or_default(), &told["payload"]);
        assert!(matches(&wait.pattern, topic), "{topic} for {wait:?}");
        let at = self.by_payload.get(&payload.to_string());
        // The broker begins graphs in a turn of their own: not always with the very first.
        assert!(at.is_some_and(|at| wait.counts(&self.facts[*at])), "{payload} for {wait:?}");
        assert!(at >= wait.got.first(), "{payload} is from before {wait:?}");
    }

    pub(super) fn waits_settled(&mut self, now: Time) {
        for (id, wait) in &mut self.waits {
            wait.look(&self.facts);
            let met_ns = wait.met_ns.filter(|_| !wait.is_graph);
            let due_ns = met_ns.map_or(wait.due_ns, |met_ns| met_ns + wait.delay_ns);
            let late_ns = if met_ns.is_some() && wait.delay_ns == 0 { 0 } else { LATE_NS };
            assert!(now.mono_ns <= due_ns + late_ns, "{id:?} has no outcome: {wait:?}");
        }
    }
}
