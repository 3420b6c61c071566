//! What must hold after every step, checked where inputs enter the broker and outputs leave it.
//!
//! The checker keeps its own small account of requests, runs and credit. It never asks the broker.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use mpreg_patterns::base::{Code, PeerId, RunId, Time};
use mpreg_patterns::ops::{
    Call, Function, GraphPart, GraphReply, Offer, Reply, Request, Run, StepState,
};
use mpreg_patterns::values::{Body, Value};
use semver::{Version, VersionReq};

use crate::account::{Account, Queues};
use crate::plans::{Plan, Plans};

/// An outcome may come this long after the deadline: ticks are a millisecond wide.
const LATE_NS: u64 = 20_000_000;

#[derive(Debug)]
struct Open {
    /// Of the call, or of the graph, whose steps add `/name`.
    key: String,
    due_ns: u64,
    is_graph: bool,
}

#[derive(Debug)]
struct RunRecord {
    key: String,
    peer: PeerId,
    /// Whether it may run elsewhere after its worker is lost.
    may_repeat: bool,
    sent: bool,
    /// Whether its worker is still expected to answer it.
    in_hand: bool,
    /// Its worker reported a failure.
    failed: bool,
    stopped: bool,
}

#[derive(Debug)]
struct Worker {
    offer: Offer,
    leaving: bool,
    /// A run for it came back unsent, and it has not spoken since.
    stalled: bool,
}

/// The account of one simulation. It outlives the broker's lives.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) plans: Plans,
    pub(crate) topics: Account,
    pub(crate) queues: Queues,
    open: BTreeMap<(PeerId, String), Open>,
    /// Errors that may come beside outcomes: second uses of an id, parts without a beginning.
    allowed_errors: BTreeMap<(PeerId, String), u32>,
    runs: BTreeMap<u128, RunRecord>,
    in_hand: BTreeMap<PeerId, BTreeSet<u128>>,
    workers: BTreeMap<PeerId, Worker>,
    /// Runs of each key, in the order they were handed over.
    starts: BTreeMap<String, Vec<u128>>,
    values: BTreeMap<String, BTreeSet<String>>,
    /// Keys with a run that was handed over to a worker that was lost.
    lost_runs: BTreeSet<String>,
    /// Calls whose outcome must be out before the turn ends, since their worker died.
    must_end: Vec<String>,
    pub(crate) outcomes: u64,
    pub(crate) again: u64,
    pub(crate) lost: u64,
    pub(crate) unsent: u64,
}

impl Checker {
    /// The broker has forgotten everything.
    pub(crate) fn restarted(&mut self) {
        self.open.clear();
        self.allowed_errors.clear();
        self.runs.clear();
        self.in_hand.clear();
        self.workers.clear();
        self.must_end.clear();
        self.queues.restarted();
    }

    /// A request enters the broker.
    pub(crate) fn asked(&mut self, now: Time, peer: PeerId, request: &Request) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.stalled = false;
        }
        if self.queues.asked(now, peer, request) || self.topics.asked(now, peer, request) {
            return;
        }
        match request {
            Request::Call(call) => {
                let ns = call.options.timeout_ms.unwrap_or(30_000) * 1_000_000;
                let (key, is_graph) = (call_key(call), false);
                let open = Open { key, due_ns: now.mono_ns + ns, is_graph };
                self.begin(peer, &call.id, open);
            }
            Request::Graph(part) if part.part == 0 => {
                let ns = part.options.timeout_ms.unwrap_or(30_000) * 1_000_000;
                let (key, is_graph) = (graph_key(part), true);
                let open = Open { key, due_ns: now.mono_ns + ns, is_graph };
                self.begin(peer, &part.id, open);
            }
            Request::Graph(part) => {
                // A part without its beginning, whose id may even be a call's by now.
                let id = (peer, part.id.to_string());
                if self.open.get(&id).is_none_or(|open| !open.is_graph) {
                    *self.allowed_errors.entry(id).or_default() += 1;
                }
            }
            Request::Offer(offer) => {
                let worker = Worker { offer: (**offer).clone(), leaving: false, stalled: false };
                self.workers.insert(peer, worker);
            }
            Request::Bye { .. } => {
                if let Some(worker) = self.workers.get_mut(&peer) {
                    worker.leaving = true;
                }
            }
            Request::Result { run, body } => {
                if let Some(run) = self.answered_by(peer, *run) {
                    let (key, value) = (run.key.clone(), text(&body.value));
                    self.values.entry(key).or_default().insert(value);
                }
            }
            Request::Failed { run, .. } => {
                if let Some(run) = self.answered_by(peer, *run) {
                    run.failed = true;
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, peer: PeerId, id: &str, open: Open) {
        match self.open.entry((peer, id.to_owned())) {
            Entry::Occupied(entry) => {
                *self.allowed_errors.entry(entry.key().clone()).or_default() += 1;
            }
            Entry::Vacant(entry) => {
                entry.insert(open);
            }
        }
    }

    /// Takes a run out of its worker's hand, if it is there.
    fn answered_by(&mut self, peer: PeerId, run: RunId) -> Option<&mut RunRecord> {
        let record = self.runs.get_mut(&{ run.0 })?;
        if record.peer != peer || !record.in_hand {
            return None;
        }
        record.in_hand = false;
        self.in_hand.entry(peer).or_default().remove(&{ run.0 });
        Some(record)
    }

    /// A connection's life has ended, with these runs never handed over.
    pub(crate) fn gone(&mut self, peer: PeerId, unsent: &[RunId]) {
        self.topics.gone(peer);
        self.queues.gone(peer);
        self.open.retain(|(of, _), _| *of != peer);
        self.allowed_errors.retain(|(of, _), _| *of != peer);
        self.workers.remove(&peer);
        for run in self.in_hand.remove(&peer).unwrap_or_default() {
            let record = self.runs.get_mut(&run).expect("a run in hand is known");
            record.in_hand = false;
            let never_sent = unsent.contains(&RunId(run));
            assert_eq!(never_sent, !record.sent, "{}: was it handed over?", record.key);
            if !never_sent && !record.may_repeat {
                self.must_end.push(record.key.clone());
            }
            self.lost += u64::from(!never_sent);
            self.unsent += u64::from(never_sent);
            if !never_sent {
                self.lost_runs.insert(record.key.clone());
            }
        }
    }

    /// A run was not handed over and comes back.
    pub(crate) fn unsent(&mut self, run: RunId) {
        let Some(record) = self.runs.get_mut(&{ run.0 }) else { return };
        record.in_hand = false;
        let peer = record.peer;
        self.in_hand.entry(peer).or_default().remove(&{ run.0 });
        self.unsent += 1;
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.stalled = true;
        }
    }

    /// A run was handed over: from here on it may be running.
    pub(crate) fn sent(&mut self, run: RunId) {
        let Some(record) = self.runs.get_mut(&{ run.0 }) else { return };
        record.sent = true;
        let key = record.key.clone();
        let retried = self.plans.get(&key).is_some_and(|plan| plan.retries > 0);
        let repeatable = self.plans.get(&key).and_then(|plan| plan.idempotent) == Some(true);
        for before in self.starts.get(&key).into_iter().flatten() {
            // A run of an earlier life of the broker: nobody may start its call again.
            let Some(before) = self.runs.get(before) else {
                panic!("{key} was started in two lives of the broker");
            };
            let told = before.failed && retried;
            assert!(told || before.may_repeat, "{key} is not idempotent and was started twice");
            let over = !before.in_hand || before.stopped && retried && repeatable;
            assert!(over, "{key} was started twice at the same time");
        }
        self.again += u64::from(self.starts.contains_key(&key));
        self.starts.entry(key).or_default().push(run.0);
    }

    /// An output leaves the broker.
    pub(crate) fn answered(&mut self, now: Time, to: PeerId, reply: &Reply) {
        if self.topics.answered(now, to, reply) {
            return;
        }
        match reply {
            Reply::Run(run) => self.handed_out(now, to, run),
            Reply::Result { id, body, .. } => {
                let open = self.end(now, to, id);
                self.check_value(&open.key, &open.key, body);
            }
            Reply::Error { id: Some(id), error, .. } => {
                let id = (to, id.to_string());
                if let Some(allowed) = self.allowed_errors.get_mut(&id) {
                    let beside = error.refused.is_some() || !self.open.contains_key(&id);
                    if beside && *allowed > 0 {
                        *allowed -= 1;
                        return;
                    }
                }
                assert_eq!(error.refused, None, "{id:?} was refused without a cause");
                let open = self.end(now, to, &id.1);
                let lost = !error.is(Code::OutcomeUnknown) || self.lost_runs.contains(&open.key);
                assert!(lost, "{} never began, so its outcome is known", open.key);
            }
            Reply::Graph(reply) => self.graph_answered(now, to, reply),
            Reply::Progress(told) => {
                assert!(self.open.contains_key(&(to, told.id.to_string())), "{told:?} to nobody");
            }
            Reply::Cancel { run } => {
                let record = self.runs.get_mut(&{ run.0 }).expect("a run that was handed out");
                assert!(record.in_hand && record.peer == to, "{} is not there", record.key);
                assert!(!record.stopped, "{} was stopped twice", record.key);
                record.stopped = true;
            }
            Reply::Bye { .. } => {
                let left = self.in_hand.get(&to).map_or(0, BTreeSet::len);
                assert_eq!(left, 0, "{to} may go with runs in hand");
                self.workers.remove(&to);
            }
            _ => {}
        }
    }

    /// A request has its one outcome.
    fn end(&mut self, now: Time, peer: PeerId, id: &str) -> Open {
        self.outcomes += 1;
        let Some(open) = self.open.remove(&(peer, id.to_owned())) else {
            panic!("{id} of {peer} has no outcome to get");
        };
        let late_ns = now.mono_ns.saturating_sub(open.due_ns);
        assert!(late_ns <= LATE_NS, "{} ended {late_ns} ns late", open.key);
        open
    }

    fn handed_out(&mut self, now: Time, to: PeerId, run: &Run) {
        let args = run_args(run);
        let key = args[0].clone();
        let worker = self.workers.get(&to).unwrap_or_else(|| panic!("{to} is no worker: {key}"));
        assert!(!worker.leaving, "{to} takes no more, least of all {key}");
        let credit = worker.offer.credit.unwrap_or(1) as usize;
        let held = self.in_hand.entry(to).or_default();
        assert!(held.len() < credit, "{to} has {} of {credit} and gets {key}", held.len());
        let function = worker.offer.functions.iter().find(|offered| offered.name == run.fun);
        let function = function.unwrap_or_else(|| panic!("{to} does not offer {}", run.fun));
        let plan = self.plans.get(&key).unwrap_or_else(|| panic!("nobody planned {key}"));
        let version = version_of(function);
        let range = plan.version.as_deref().map_or(VersionReq::STAR, range_of);
        assert!(range.matches(&version), "{key} wants {range}, {to} has {version}");
        let has = |loc: &String| worker.offer.locs.iter().any(|had| had == loc);
        assert!(plan.locs.iter().all(has), "{key} wants {:?}, {to} lacks some", plan.locs);
        assert!(!plan.never, "{key} cannot run");
        let may_repeat = plan.idempotent.unwrap_or(function.idempotent);
        held.insert(run.id.0);
        let open = self.open.values().find(|open| open.key == root(&key));
        let open = open.unwrap_or_else(|| panic!("{key} runs for nobody"));
        // Less than a millisecond is one: no broker takes a call with none.
        let left_ms = (open.due_ns.saturating_sub(now.mono_ns) / 1_000_000).max(1);
        assert!(run.deadline_ms <= left_ms, "{key} has more time than its request");
        self.check_inputs(&key, &args[1..]);
        let (sent, in_hand, failed, stopped) = (false, true, false, false);
        let record = RunRecord { key, peer: to, may_repeat, sent, in_hand, failed, stopped };
        assert!(self.runs.insert(run.id.0, record).is_none(), "a run id was used twice");
    }

    /// A step has what its inputs returned, and they have returned.
    fn check_inputs(&self, key: &str, args: &[String]) {
        let Some(plan) = self.plans.get(key) else { return };
        assert_eq!(args.len(), plan.refs.len(), "{key} has other arguments than it was sent with");
        for (input, arg) in plan.refs.iter().zip(args) {
            assert!(self.may_return(input, arg), "{key} was given {arg} for {input}");
        }
        for input in &plan.after {
            let came = self.values.contains_key(input) || self.stood_in(input).is_some();
            assert!(came, "{key} began before {input} had ended");
        }
    }

    /// Whether a step can have ended with this value.
    fn may_return(&self, key: &str, value: &str) -> bool {
        let returned = |key: &str| self.values.get(key).is_some_and(|all| all.contains(value));
        returned(key)
            || self.stood_in(key).is_some_and(|plan| {
                plan.fallback_value.as_deref() == Some(value) || returned(&format!("{key}!"))
            })
    }

    /// The plan of a step whose fallback may have been used.
    fn stood_in(&self, key: &str) -> Option<&Plan> {
        self.plans.get(key).filter(|plan| plan.has_fallback())
    }

    fn check_value(&self, key: &str, what: &str, body: &Body) {
        let value = text(&body.value);
        assert!(self.may_return(key, &value), "{what} is said to be {value}");
    }

    fn graph_answered(&mut self, now: Time, to: PeerId, reply: &GraphReply) {
        let id = (to, reply.id.to_string());
        let Some(open) = self.open.get(&id) else { panic!("{id:?} has no outcome to get") };
        assert!(open.is_graph, "a graph's reply for the call {}", open.key);
        let graph = open.key.clone();
        for (name, body) in &reply.results {
            self.check_value(&format!("{graph}/{name}"), name, body);
        }
        for step in &reply.steps {
            let key = format!("{graph}/{}", step.name);
            let holds = match step.state {
                StepState::Done => self.values.contains_key(&key),
                StepState::Degraded => self.stood_in(&key).is_some(),
                StepState::Skipped => {
                    let plan = self.plans.get(&key).expect("a plan");
                    !plan.refs.is_empty() || !plan.after.is_empty()
                }
                StepState::Unknown => self.lost_runs.contains(&key),
                StepState::Failed | StepState::Cancelled => step.code.is_some(),
            };
            assert!(holds, "{key} is said to be {:?}", step.state);
        }
        if reply.error.is_none() {
            let meant = self.plans.returned(&graph);
            let told: BTreeSet<String> = reply.results.iter().map(|r| r.0.to_string()).collect();
            assert_eq!(told, meant, "{graph} returns other steps");
        }
        if !reply.more {
            self.end(now, to, &id.1);
        }
    }

    /// The broker has done what an input asked for, but for slices of graphs.
    pub(crate) fn settled(&mut self) {
        for key in std::mem::take(&mut self.must_end) {
            let open = self.open.values().any(|open| !open.is_graph && open.key == key);
            assert!(!open, "{key} was lost with its worker and has no outcome");
        }
    }

    /// Nothing waits beyond its deadline.
    pub(crate) fn nothing_overdue(&self, now: Time) {
        let overdue = self.open.values().find(|open| open.due_ns + LATE_NS < now.mono_ns);
        assert!(overdue.is_none(), "{overdue:?} has had no outcome");
    }

    /// No call waits while a worker that may take it has credit to spare.
    pub(crate) fn nobody_idles(&self) {
        if self.open.values().all(|open| open.is_graph) {
            return;
        }
        let held: BTreeSet<&String> =
            self.in_hand.values().flatten().map(|run| &self.runs[run].key).collect();
        for open in self.open.values().filter(|open| !open.is_graph && !held.contains(&open.key)) {
            let plan = self.plans.get(&open.key).expect("a plan");
            let free = |peer: &&PeerId| {
                let worker = &self.workers[peer];
                let held = self.in_hand.get(peer).map_or(0, BTreeSet::len);
                !worker.stalled && held < worker.offer.credit.unwrap_or(1) as usize
            };
            let idle = self.candidates(plan).into_iter().find(free);
            assert_eq!(idle, None, "{} waits, and a worker has credit", open.key);
        }
    }

    /// The workers that may take a call: without a range, those of the highest version.
    fn candidates(&self, plan: &Plan) -> Vec<&PeerId> {
        let range = plan.version.as_deref().map(range_of);
        let mut able: Vec<(&PeerId, Version)> = Vec::new();
        for (peer, worker) in self.workers.iter().filter(|(_, worker)| !worker.leaving) {
            let function = worker.offer.functions.iter().find(|f| f.name == plan.fun);
            let Some(function) = function else { continue };
            let version = version_of(function);
            let has = |loc: &String| worker.offer.locs.iter().any(|had| had == loc);
            let in_range = range.as_ref().is_none_or(|range| range.matches(&version));
            if in_range && plan.locs.iter().all(has) {
                able.push((peer, version));
            }
        }
        let highest = able.iter().map(|(_, version)| version).max().cloned();
        let wanted = |version: &Version| range.is_some() || highest.as_ref() == Some(version);
        able.into_iter().filter(|(_, version)| wanted(version)).map(|(peer, _)| peer).collect()
    }

    /// Everything has ended.
    pub(crate) fn assert_quiet(&self) {
        assert!(self.open.is_empty(), "without an outcome: {:?}", self.open);
        let held: Vec<_> = self.in_hand.iter().filter(|(_, runs)| !runs.is_empty()).collect();
        assert!(held.is_empty(), "still in hand: {held:?}");
    }
}

/// The key of the request that a step belongs to.
fn root(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

fn version_of(function: &Function) -> Version {
    Version::parse(function.version.as_deref().unwrap_or("1.0.0")).expect("a version")
}

fn range_of(text: &str) -> VersionReq {
    VersionReq::parse(text).expect("a range")
}

fn text(value: &Value) -> String {
    serde_json::from_slice(&value.bytes).expect("every value of the simulation is a string")
}

fn call_key(call: &Call) -> String {
    let args = call.args.as_ref().expect("every call has arguments");
    let args: Vec<String> = serde_json::from_slice(&args.bytes).expect("strings");
    args[0].clone()
}

/// Graphs are named by their ULID's text in `track`, which the client chose.
fn graph_key(part: &GraphPart) -> String {
    part.options.track.expect("every graph is tracked").to_string()
}

fn run_args(run: &Run) -> Vec<String> {
    let args = run.args.as_ref().expect("every run has arguments");
    serde_json::from_slice(&args.bytes).expect("strings")
}
