//! Those who send to queues: confirmed or not, again where the outcome is unknown, and by PUSH.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mpreg_patterns::base::{Code, Rng, RunId};
use mpreg_patterns::node::Input;
use mpreg_patterns::ops::{Event, Reply, Request, Send, SendOptions};
use mpreg_patterns::queues::Kind;
use mpreg_patterns::values::Value;
use smol_str::SmolStr;

use crate::peers::MS;
use crate::publishers::builtin;
use crate::queues::{BOUND_TOPIC, Plan};
use crate::workload::one_in;

/// What is not answered by then has an unknown outcome.
const PATIENCE_NS: u64 = 6_000 * MS;
/// Queues are declared again this often: a broker that restarts has forgotten those in memory.
const REFRESH_NS: u64 = 700 * MS;
const IN_FLIGHT: usize = 40;

#[derive(Debug)]
struct Flight {
    give_up_ns: u64,
    /// What is sent again, if it can be without harm.
    again: Option<Send>,
}

/// A DEALER that sends.
#[derive(Debug)]
pub(crate) struct Producer {
    index: usize,
    rng: Rng,
    plans: Vec<Plan>,
    serial: u64,
    messages: u64,
    flights: BTreeMap<String, Flight>,
    again: VecDeque<Send>,
    next_ns: u64,
    refresh_ns: u64,
    pub(crate) active: bool,
}

impl Producer {
    pub(crate) fn new(index: usize, seed: u64, plans: Vec<Plan>) -> Self {
        Self {
            index,
            rng: Rng::new(seed),
            plans,
            serial: 0,
            messages: 0,
            flights: BTreeMap::new(),
            again: VecDeque::new(),
            next_ns: 0,
            refresh_ns: 0,
            active: true,
        }
    }

    pub(crate) fn wake_at(&self) -> u64 {
        let ends = self.flights.values().map(|flight| flight.give_up_ns);
        let next = self.active.then(|| self.next_ns.min(self.refresh_ns));
        ends.chain(next).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Request> {
        let late = |flight: &Flight| flight.give_up_ns <= now_ns;
        let ids = self.flights.iter().filter(|(_, flight)| late(flight));
        for id in ids.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.unknown(&id);
        }
        let mut said = Vec::new();
        if self.active && self.refresh_ns <= now_ns {
            self.refresh_ns = now_ns + REFRESH_NS;
            for at in 0..self.plans.len() {
                let id = self.id(now_ns, None);
                said.push(self.plans[at].declare(&id));
            }
        }
        if self.active && self.next_ns <= now_ns {
            self.next_ns = now_ns + MS * (1 + self.rng.below(120) as u64);
            self.speak(now_ns, &mut said);
        }
        said
    }

    fn speak(&mut self, now_ns: u64, said: &mut Vec<Request>) {
        while let Some(send) = self.again.pop_front() {
            said.push(self.send(now_ns, send));
        }
        if one_in(&mut self.rng, 25) {
            self.look_after(now_ns, said);
        }
        let count = if one_in(&mut self.rng, 10) { 12 } else { 1 + self.rng.below(3) };
        for _ in 0..count {
            if self.flights.len() >= IN_FLIGHT {
                break;
            }
            let send = self.message();
            said.push(self.send(now_ns, send));
        }
    }

    /// What somebody does who sees to the queues: at times twice, since it seems to take long.
    fn look_after(&mut self, now_ns: u64, said: &mut Vec<Request>) {
        let name = self.plans[self.rng.below(self.plans.len())].name;
        let (fun, more) = match self.rng.below(10) {
            0 => ("mpreg.queue.purge", ""),
            1 => ("mpreg.queue.peek", ",\"dead\":true"),
            2 => ("mpreg.queue.peek", ""),
            _ => ("mpreg.queue.redrive", ""),
        };
        for _ in 0..1 + self.rng.below(2) {
            let id = self.id(now_ns, None);
            said.push(builtin(&id, fun, format!("{{\"name\":\"{name}\"{more}}}"), 30_000));
        }
    }

    fn id(&mut self, now_ns: u64, again: Option<Send>) -> String {
        self.serial += 1;
        let id = format!("p{}", self.serial);
        self.flights.insert(id.clone(), Flight { give_up_ns: now_ns + PATIENCE_NS, again });
        id
    }

    fn send(&mut self, now_ns: u64, mut send: Send) -> Request {
        if send.confirm {
            let again = send.options.dedup.is_some().then(|| send.clone());
            send.id = self.id(now_ns, again).into();
        } else {
            self.serial += 1;
            send.id = format!("p{}", self.serial).into();
        }
        Request::Send(send.into())
    }

    fn message(&mut self) -> Send {
        self.messages += 1;
        let plan = &self.plans[self.rng.below(self.plans.len())];
        let payload = format!("\"{}-{}\"", self.index, self.messages);
        let (rng, mut options) = (&mut self.rng, SendOptions::default());
        if one_in(rng, 6) {
            options.delay_ms = 1 + rng.below(400) as u64;
        }
        if plan.settings.kind == Kind::Priority || one_in(rng, 60) {
            options.priority = rng.below(4) as u8;
        }
        if plan.keyed && !one_in(rng, 3) {
            options.key = Some(["x", "y", "z"][rng.below(3)].into());
        }
        if one_in(rng, 3) {
            options.dedup = Some(payload.trim_matches('"').into());
        }
        let confirm = options.dedup.is_some() || !one_in(rng, 4);
        let by_topic = plan.is_bound() && one_in(rng, 2);
        let queue = (!by_topic).then(|| plan.name.into());
        let topic = if by_topic { BOUND_TOPIC } else { "" };
        Send { id: SmolStr::default(), confirm, queue, event: event(topic, payload), options }
    }

    pub(crate) fn hear(&mut self, reply: &Reply) {
        let Some(id) = answers(reply) else { return };
        let Some(flight) = self.flights.remove(id.as_str()) else { return };
        if let Reply::Error { error, .. } = reply
            && error.retry
            && self.active
            && one_in(&mut self.rng, 2)
        {
            self.again.extend(flight.again);
        }
        if let Reply::Error { error, .. } = reply
            && error.is(Code::UnknownQueue)
        {
            self.refresh_ns = 0;
        }
    }

    /// Nobody knows what became of it; it is sent again if that does no harm.
    fn unknown(&mut self, id: &str) {
        let flight = self.flights.remove(id);
        self.again.extend(flight.and_then(|flight| flight.again));
    }

    /// The connection has died: what was in flight has an unknown outcome.
    pub(crate) fn lost(&mut self) {
        for id in self.flights.keys().cloned().collect::<Vec<_>>() {
            self.unknown(&id);
        }
        self.refresh_ns = 0;
    }

    /// All dead letters are to be taken after all.
    pub(crate) fn probe(&mut self, now_ns: u64) -> Vec<Request> {
        let names: Vec<&str> = self.plans.iter().map(|plan| plan.name).collect();
        let redrive = |name| {
            let id = self.id(now_ns, None);
            builtin(&id, "mpreg.queue.redrive", format!("{{\"name\":\"{name}\"}}"), 30_000)
        };
        names.into_iter().map(redrive).collect()
    }

    pub(crate) fn waits(&self) -> usize {
        self.flights.len()
    }
}

/// What is answered, if it is something.
const fn answers(reply: &Reply) -> Option<&SmolStr> {
    match reply {
        Reply::Sent { id, .. } | Reply::Result { id, .. } => Some(id),
        Reply::Error { id, .. } => id.as_ref(),
        _ => None,
    }
}

fn event(topic: &str, payload: String) -> Arc<Event> {
    let (topic, payload) = (topic.into(), Value::json(payload));
    Arc::new(Event { topic, payload, headers: None, message: RunId(0) })
}

/// A PUSH socket: nobody answers it.
#[derive(Debug)]
pub(crate) struct Pusher {
    rng: Rng,
    names: Vec<&'static str>,
    messages: u64,
    next_ns: u64,
    pub(crate) active: bool,
}

impl Pusher {
    pub(crate) fn new(seed: u64, plans: &[Plan]) -> Self {
        let mut names: Vec<&'static str> = plans.iter().map(|plan| plan.name).collect();
        let active = !names.is_empty();
        names.push(BOUND_TOPIC);
        Self { rng: Rng::new(seed), names, messages: 0, next_ns: 0, active }
    }

    pub(crate) const fn wake_at(&self) -> u64 {
        if self.active { self.next_ns } else { u64::MAX }
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Option<Input> {
        if self.wake_at() > now_ns {
            return None;
        }
        self.next_ns = now_ns + MS * (1 + self.rng.below(200) as u64);
        self.messages += 1;
        let name = self.names[self.rng.below(self.names.len())];
        Some(Input::Push { event: event(name, format!("\"push-{}\"", self.messages)) })
    }
}
