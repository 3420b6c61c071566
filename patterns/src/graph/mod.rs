//! Dependency graphs: checked whole, then each step as soon as its own inputs are there.
//!
//! Decides what may start, what a failure means for the rest, and what is returned. Who runs a
//! step is not decided here: a step that is ready leaves as an [`Output::Call`] and comes back as
//! an [`Input::Done`]. Work on large graphs is cut into slices, so that no input holds the core
//! long: [`Graphs::wake_at`] says "now" while a slice is left.

mod answer;
mod describe;
mod load;
mod parse;
mod plan;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value as Json;
use slab::Slab;
use smol_str::SmolStr;

use crate::base::limits::STEPS_PER_TURN;
use crate::base::{
    Deadlines, GraphId, Ids, JobId, Limits, Map, Out, PeerId, Refusal, Rng, RunId, Time,
};
use crate::ops::{Call, CallOptions, GraphPart, GraphReply};
use crate::values::Body;
pub use describe::{StepReport, Why};
use plan::{Graph, Phase, Purpose};

/// What happens to the system.
#[derive(Debug)]
pub enum Input {
    /// A part of a graph has come.
    Part {
        /// The key of the request it belongs to.
        request: u32,
        /// Whose memory it counts against.
        peer: PeerId,
        /// The graph, once its first part was accepted.
        graph: Option<GraphId>,
        /// The part.
        part: GraphPart,
    },
    /// Check a graph, run nothing.
    Check {
        /// The key of the request that is answered.
        request: u32,
        /// Whose memory it counts against.
        peer: PeerId,
        /// The whole graph.
        part: GraphPart,
        /// What to tell beside the verdict.
        ask: CheckAsk,
    },
    /// What placing the steps of a graph would meet: `None` where a worker is there.
    Placed {
        /// The graph.
        graph: GraphId,
        /// For each question of `Output::Place`, in its order.
        answers: Vec<Result<String, Refusal>>,
    },
    /// A step's call was accepted.
    Begun {
        /// The graph's slot, as in `Output::Call`.
        graph: u32,
        /// The step.
        step: u32,
        /// The call.
        job: JobId,
    },
    /// A step was handed to a worker.
    Started {
        /// The graph's slot.
        graph: u32,
        /// The step.
        step: u32,
    },
    /// A worker's progress in a step.
    Progress {
        /// The graph's slot.
        graph: u32,
        /// The step.
        step: u32,
        /// 0 to 100.
        percent: Option<f64>,
        /// Words for a person.
        note: Option<Box<str>>,
    },
    /// A step's one outcome.
    Done {
        /// The graph's slot.
        graph: u32,
        /// The step.
        step: u32,
        /// What it returned, or why not.
        outcome: Result<Body, Refusal>,
    },
    /// What became of the messages a graph has taken.
    Settled {
        /// The graph's slot, as in `Output::Settle`.
        graph: u32,
        /// Whether it is so; if not, the graph has failed after all.
        outcome: Result<(), Refusal>,
    },
    /// The request was cancelled. `quiet` when nobody is left to answer.
    Cancel {
        /// The graph.
        graph: GraphId,
        /// Whether the caller's connection is gone.
        quiet: bool,
    },
    /// The broker goes down now: every graph ends.
    End,
}

/// What a check is to tell beside its verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckAsk {
    /// The graph in DOT.
    pub dot: bool,
    /// Everything that hangs off this step.
    pub impact: Option<SmolStr>,
}

/// A step on its way to a worker.
#[derive(Debug)]
pub struct StepCall {
    /// The graph's slot.
    pub graph: u32,
    /// The step.
    pub step: u32,
    /// What to run, its references replaced. It has no id: the origin stands for it.
    pub call: Arc<Call>,
    /// Monotonic nanoseconds after which nobody waits for it.
    pub deadline_ns: u64,
}

/// What the system wants done.
#[derive(Debug)]
pub enum Output {
    /// The first part was accepted; later parts and a cancel name this graph.
    Accepted {
        /// The request.
        request: u32,
        /// The graph.
        graph: GraphId,
    },
    /// Say where calls like these would go now.
    Place {
        /// The graph.
        graph: GraphId,
        /// Distinct functions with what they ask of a worker.
        asks: Vec<(SmolStr, CallOptions)>,
    },
    /// Run a step.
    Call(StepCall),
    /// A step's outcome is no longer wanted.
    CancelCall(JobId),
    /// A graph that has taken messages of queues is at its end: they are done, or go back.
    Settle {
        /// The graph's slot.
        graph: u32,
        /// Why they go back, if so.
        failure: Option<Refusal>,
    },
    /// The reply, or a part of it; the request ends with the one that has no `more`.
    Reply {
        /// The request.
        request: u32,
        /// All but the id.
        reply: GraphReply,
    },
    /// The answer to a check.
    Checked {
        /// The request.
        request: u32,
        /// The report, or why the graph would be refused.
        outcome: Result<Json, (Refusal, Option<SmolStr>)>,
    },
    /// Something has happened to a graph whose caller wants to follow it.
    Progress {
        /// The request.
        request: u32,
        /// The graph's ULID.
        track: RunId,
        /// The step and its ULID; none for the graph as a whole.
        step: Option<(SmolStr, RunId)>,
        /// See `ops::ProgressReply`.
        event: &'static str,
        /// 0 to 100.
        percent: Option<f64>,
        /// Words for a person.
        note: Option<Box<str>>,
    },
}

/// Deadlines of the system.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Deadline(GraphId),
    NextPart(GraphId),
    Retry(GraphId, u32),
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Graphs that were checked and began to run.
    pub started: u64,
    /// Graphs whose reply was a result.
    pub done: u64,
    /// Graphs whose reply was an error, refused ones included.
    pub failed: u64,
    /// Steps that were handed out, retries and fallbacks included.
    pub steps: u64,
    /// Steps that were tried again.
    pub retried: u64,
}

/// What one connection has in the broker.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    graphs: usize,
    bytes: usize,
}

/// The system of graphs.
#[derive(Debug)]
pub struct Graphs {
    limits: Limits,
    graphs: Slab<Box<Graph>>,
    serial: u32,
    shares: Map<PeerId, Share>,
    deadlines: Deadlines<Timer>,
    /// Graphs with a slice of work left, in turn.
    busy: VecDeque<GraphId>,
    /// Ended graphs whose memory is given back slice by slice.
    #[expect(clippy::vec_box, reason = "a graph comes from the table without being copied")]
    buried: Vec<Box<Graph>>,
    recent: VecDeque<describe::Summary>,
    by_track: Map<RunId, GraphId>,
    ids: Ids,
    rng: Rng,
    counters: Counters,
}

impl Graphs {
    /// An empty system.
    #[must_use]
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            graphs: Slab::new(),
            serial: 0,
            shares: Map::default(),
            deadlines: Deadlines::default(),
            busy: VecDeque::new(),
            buried: Vec::new(),
            recent: VecDeque::new(),
            by_track: Map::default(),
            ids: Ids::new(seed ^ 0x36f),
            rng: Rng::new(seed ^ 0x418),
            counters: Counters::default(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        match input {
            Input::Part { request, peer, graph: None, part } => {
                self.begin(now, request, peer, part, Purpose::Run, out);
            }
            Input::Part { graph: Some(graph), part, .. } => self.part(now, graph, part),
            Input::Check { request, peer, part, ask } => {
                self.begin(now, request, peer, part, Purpose::Check(ask), out);
            }
            Input::Placed { graph, answers } => self.placed(graph, answers),
            Input::Begun { graph, step, job } => self.begun(graph, step, job, out),
            Input::Started { graph, step } => self.tell(graph, step, "started", out),
            Input::Progress { graph, step, percent, note } => {
                self.step_progress(graph, step, percent, note, out);
            }
            Input::Done { graph, step, outcome } => self.step_done(now, graph, step, outcome, out),
            Input::Settled { graph, outcome } => self.settled(graph, outcome),
            Input::Cancel { graph, quiet } => {
                self.cancel(graph, quiet);
                // At once, so that credit that comes free is not given to a step nobody wants.
                let mut budget = STEPS_PER_TURN;
                self.advance(now, graph, &mut budget, out);
            }
            Input::End => self.end_all(),
        }
    }

    /// Does what is due, and one slice of the work that is left.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        while let Some(timer) = self.deadlines.due(now.mono_ns) {
            match timer {
                Timer::Deadline(graph) => self.deadline(graph),
                Timer::NextPart(graph) => self.silent(graph),
                Timer::Retry(graph, step) => self.retry(graph, step),
            }
        }
        let mut budget = STEPS_PER_TURN;
        for _ in 0..self.busy.len() {
            let Some(id) = self.busy.pop_front() else { break };
            if self.find(id).is_some() {
                self.advance(now, id, &mut budget, out);
            }
            if budget == 0 {
                break;
            }
        }
        self.bury(budget.max(STEPS_PER_TURN / 4));
    }

    /// When `tick` next has work, in monotonic nanoseconds; 0 when there is work now.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        if !self.busy.is_empty() || !self.buried.is_empty() {
            return Some(0);
        }
        self.deadlines.next_ns()
    }

    /// Counts since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Graphs in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.graphs.len()
    }

    /// Bytes of the graphs in flight, as they were sent.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.graphs.iter().map(|(_, graph)| graph.bytes).sum()
    }

    fn find(&mut self, id: GraphId) -> Option<&mut Graph> {
        let graph = self.graphs.get_mut(id.slot as usize)?;
        (graph.id == id).then_some(&mut **graph)
    }

    /// Puts a graph in line for a slice of work.
    fn wake(&mut self, id: GraphId) {
        if let Some(graph) = self.find(id)
            && !graph.in_line
        {
            graph.in_line = true;
            self.busy.push_back(id);
        }
    }

    /// Does slices of a graph's work until it waits for something or the budget is used up.
    fn advance(&mut self, now: Time, id: GraphId, budget: &mut usize, out: &mut Out<Output>) {
        if let Some(graph) = self.find(id) {
            graph.handed_out = false;
        }
        while let Some(graph) = self.find(id) {
            graph.in_line = false;
            if *budget == 0 {
                return self.wake(id);
            }
            let waits = match graph.phase {
                Phase::Parse => self.parse(id, budget),
                Phase::Index
                | Phase::Link
                | Phase::Count
                | Phase::Spread
                | Phase::Fill
                | Phase::Order => self.build(id, budget, out),
                Phase::Placing | Phase::Settle => true,
                Phase::Ready => self.launch(now, id, out),
                Phase::Run => self.step_slice(now, id, budget, out),
                Phase::Answer => self.answer_slice(id, budget, out),
            };
            if waits {
                return;
            }
        }
    }

    /// Gives memory of ended graphs back, some steps at a time.
    fn bury(&mut self, steps: usize) {
        if let Some(graph) = self.buried.last_mut()
            && graph.release(steps)
        {
            self.buried.pop();
        }
    }
}
