//! What a graph is in memory: steps in chunks, arrows as one flat list.

use std::collections::VecDeque;

use hashbrown::HashTable;
use smol_str::SmolStr;

use super::CheckAsk;
use crate::base::chunks::Chunks;
use crate::base::limits::NAME_BYTES;
use crate::base::{GraphId, JobId, PeerId, Refusal, RunId, TimerId};
use crate::ops::{CallOptions, GraphOptions, GraphReply};
use crate::values::{Body, Frames, Mark, Value};

/// What a graph is doing. Each phase goes over the steps once, in slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Steps are read from the parts that came.
    Parse,
    /// Names are put into the table.
    Index,
    /// References are found and resolved.
    Link,
    /// Arrows out of each step are counted …
    Count,
    /// … given room …
    Spread,
    /// … and written down.
    Fill,
    /// Steps are put in order, which finds circles.
    Order,
    /// Waits to hear where the steps would go.
    Placing,
    /// Checked; about to start.
    Ready,
    /// Steps run.
    Run,
    /// All steps have ended; messages that were taken are being settled.
    Settle,
    /// The reply is put together.
    Answer,
}

/// Why a graph is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Run,
    Check(CheckAsk),
}

/// Where a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its inputs are not all there.
    Pending,
    /// It may start and is in line.
    Ready,
    /// It is with a worker, or waits for one.
    Running,
    /// It failed and is tried again later.
    Backoff,
    Done,
    Degraded,
    Failed,
    Skipped,
    Cancelled,
    Unknown,
}

impl State {
    pub(super) const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Ready | Self::Running | Self::Backoff)
    }
}

/// A value as it was sent, and the references in it.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) value: Value,
    pub(super) marks: Box<[Mark]>,
}

impl From<Value> for Template {
    fn from(value: Value) -> Self {
        Self { value, marks: Box::default() }
    }
}

/// How often to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// Attempts after the first.
    pub(super) times: u32,
    /// Wait before the second attempt; doubles with each further one.
    pub(super) backoff_ms: u64,
}

/// What stands in for a failed step.
#[derive(Debug)]
pub(super) enum Fallback {
    Value(Template),
    Call { fun: SmolStr, args: Option<Template>, kwargs: Option<Template> },
}

/// What most steps do not have.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) options: CallOptions,
    pub(super) after: Vec<SmolStr>,
    pub(super) after_steps: Box<[u32]>,
    pub(super) retry: Option<Retry>,
    pub(super) fallback: Option<Fallback>,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: SmolStr,
    pub(super) fun: SmolStr,
    pub(super) args: Option<Template>,
    pub(super) kwargs: Option<Template>,
    pub(super) extras: Option<Box<Extras>>,
    /// Index of the part it came in, whose attachments it names.
    pub(super) part: u32,
    /// Steps it waits for, each counted as often as it is named.
    pub(super) unfinished: u32,
    /// References to its result that may still be followed.
    pub(super) uses: u32,
    /// First arrow to a step that waits for it, in `Graph::arrows`.
    pub(super) arrows: u32,
    pub(super) attempt: u32,
    pub(super) state: State,
    pub(super) returned: bool,
    /// Whether what runs is its fallback.
    pub(super) falling_back: bool,
    pub(super) call: Option<JobId>,
    /// Ends the wait before another attempt.
    pub(super) timer: Option<TimerId>,
    pub(super) result: Option<Box<Body>>,
    pub(super) failure: Option<Box<Refusal>>,
}

impl Step {
    /// Every value of the step that may hold references.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let (value, args, kwargs) = match self.fallback() {
            Some(Fallback::Value(value)) => (Some(value), None, None),
            Some(Fallback::Call { args, kwargs, .. }) => (None, args.as_ref(), kwargs.as_ref()),
            None => (None, None, None),
        };
        [self.args.as_ref(), self.kwargs.as_ref(), value, args, kwargs].into_iter().flatten()
    }

    pub(super) fn templates_mut(&mut self) -> impl Iterator<Item = &mut Template> {
        let fallback = self.extras.as_deref_mut().and_then(|extras| extras.fallback.as_mut());
        let (value, args, kwargs) = match fallback {
            Some(Fallback::Value(value)) => (Some(value), None, None),
            Some(Fallback::Call { args, kwargs, .. }) => (None, args.as_mut(), kwargs.as_mut()),
            None => (None, None, None),
        };
        [self.args.as_mut(), self.kwargs.as_mut(), value, args, kwargs].into_iter().flatten()
    }

    pub(super) fn fallback(&self) -> Option<&Fallback> {
        self.extras.as_deref().and_then(|extras| extras.fallback.as_ref())
    }

    /// The steps this one refers to, each as often as it does.
    pub(super) fn references(&self) -> impl Iterator<Item = u32> {
        self.templates().flat_map(|template| template.marks.iter()).filter_map(Mark::step)
    }

    /// The steps this one waits for, each as often as it is named.
    pub(super) fn inputs(&self) -> impl Iterator<Item = u32> {
        let after = self.extras.as_deref().map_or(&[][..], |extras| &extras.after_steps);
        self.references().chain(after.iter().copied())
    }
}

/// A graph in flight.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) id: GraphId,
    pub(super) request: u32,
    pub(super) peer: PeerId,
    pub(super) purpose: Purpose,
    pub(super) options: GraphOptions,
    pub(super) track: RunId,
    pub(super) phase: Phase,
    /// Whether it is in the line of graphs with work left.
    pub(super) in_line: bool,
    /// Nobody is left to answer.
    pub(super) quiet: bool,
    /// Some step has asked for a message of a queue.
    pub(super) takes: bool,
    /// Bytes counted against the peer.
    pub(super) bytes: usize,
    pub(super) parts: VecDeque<PartReader>,
    pub(super) next_part: u32,
    pub(super) complete: bool,
    /// The attachments of each part.
    pub(super) frames: Vec<Frames>,
    pub(super) steps: Chunks<Step>,
    /// Which attachments of each part were named, while references are found.
    pub(super) frames_used: Vec<Vec<bool>>,
    pub(super) names: HashTable<u32>,
    /// A bit for each length that some name has.
    pub(super) lengths: [u64; NAME_BYTES / 64 + 1],
    pub(super) arrows: Vec<u32>,
    /// Where the current phase is.
    pub(super) cursor: usize,
    /// Steps in order (`Order`), or ready to start (`Run`).
    pub(super) queue: VecDeque<u32>,
    /// Arrows still to be followed from steps that ended: step and next arrow.
    pub(super) ended: VecDeque<(u32, u32)>,
    /// Steps without inputs.
    pub(super) starts: VecDeque<u32>,
    /// Inputs not yet put in order, for each step.
    pub(super) counts: Vec<u32>,
    /// Longest way from a start, for each step: a report, no barrier.
    pub(super) levels: Vec<u32>,
    pub(super) asks: Vec<Ask>,
    pub(super) ask_table: HashTable<u32>,
    pub(super) placements: Vec<Result<String, Refusal>>,
    pub(super) remaining: usize,
    pub(super) running: usize,
    /// Steps that ended otherwise than done.
    pub(super) not_done: usize,
    /// Steps whose results are returned, and those of them that have one.
    pub(super) returned: usize,
    pub(super) returned_good: usize,
    pub(super) deadline_ns: u64,
    pub(super) deadline: Option<TimerId>,
    pub(super) part_timer: Option<TimerId>,
    pub(super) begun_ms: u64,
    /// The first cause of failure and its step.
    pub(super) failure: Option<(Refusal, Option<u32>)>,
    /// Whether steps that have not begun are given up.
    pub(super) stopping: bool,
    /// Whether this slice has handed steps out, whose calls have no ids yet.
    pub(super) handed_out: bool,
    /// Whether it was checked and steps could start.
    pub(super) began: bool,
    pub(super) reply_part: u32,
    /// The part of the reply that is being put together, and its bytes so far.
    pub(super) draft: Option<Box<(GraphReply, usize)>>,
}

/// Something that steps ask of workers, and the first step that does.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) fun: SmolStr,
    pub(super) options: CallOptions,
    pub(super) step: u32,
}

impl Ask {
    pub(super) fn asks(&self, fun: &SmolStr, options: &CallOptions) -> bool {
        let mine = &self.options;
        self.fun == *fun
            && mine.version == options.version
            && mine.locs == options.locs
            && mine.cluster == options.cluster
            && mine.wait == options.wait
    }

    pub(super) fn hash(fun: &SmolStr, options: &CallOptions) -> u64 {
        use std::hash::BuildHasher;
        let CallOptions { version, locs, cluster, wait, .. } = options;
        crate::base::seeded(0x2f5).hash_one((fun, version, locs, cluster, wait))
    }
}

/// A part that is being read.
#[derive(Debug)]
pub(super) struct PartReader {
    pub(super) steps: Value,
    pub(super) resume: super::parse::Resume,
    pub(super) index: u32,
}

/// What is known of a graph before any of it is read.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: GraphId,
    pub(super) request: u32,
    pub(super) peer: PeerId,
    pub(super) purpose: Purpose,
    pub(super) options: GraphOptions,
    pub(super) track: RunId,
    pub(super) deadline_ns: u64,
    pub(super) deadline: TimerId,
    pub(super) begun_ms: u64,
}

impl Graph {
    /// A graph without steps. It gets its first slice without standing in line.
    pub(super) fn open(opening: Opening) -> Self {
        let Opening { id, request, peer, purpose, options, track, .. } = opening;
        Self {
            id,
            request,
            peer,
            purpose,
            options,
            track,
            phase: Phase::Parse,
            in_line: true,
            quiet: false,
            takes: false,
            bytes: 0,
            parts: VecDeque::new(),
            next_part: 0,
            complete: false,
            frames: Vec::new(),
            steps: Chunks::default(),
            frames_used: Vec::new(),
            names: HashTable::new(),
            lengths: [0; NAME_BYTES / 64 + 1],
            arrows: Vec::new(),
            cursor: 0,
            queue: VecDeque::new(),
            ended: VecDeque::new(),
            starts: VecDeque::new(),
            counts: Vec::new(),
            levels: Vec::new(),
            asks: Vec::new(),
            ask_table: HashTable::new(),
            placements: Vec::new(),
            remaining: 0,
            running: 0,
            not_done: 0,
            returned: 0,
            returned_good: 0,
            deadline_ns: opening.deadline_ns,
            deadline: Some(opening.deadline),
            part_timer: None,
            begun_ms: opening.begun_ms,
            failure: None,
            stopping: false,
            handed_out: false,
            began: false,
            reply_part: 0,
            draft: None,
        }
    }

    /// The ULID of a step: the graph's, counted on, so that it need not be kept.
    pub(super) const fn step_id(&self, step: u32) -> RunId {
        RunId(self.track.0.wrapping_add(1 + step as u128))
    }

    pub(super) fn hash(name: &str) -> u64 {
        use std::hash::BuildHasher;
        crate::base::seeded(0x9e1).hash_one(name)
    }

    /// The step of that name.
    pub(super) fn lookup(&self, name: &str) -> Option<u32> {
        // Where any string may be a name, many are asked about, and most are as long as none.
        let bits = self.lengths.get(name.len() / 64)?;
        if bits >> (name.len() % 64) & 1 == 0 {
            return None;
        }
        let same = |&index: &u32| self.steps[index as usize].name == name;
        self.names.find(Self::hash(name), same).copied()
    }

    /// The arrows out of a step.
    pub(super) fn arrows_of(&self, step: usize) -> &[u32] {
        let start = self.steps[step].arrows as usize;
        let end = self.steps.get(step + 1).map_or(self.arrows.len(), |next| next.arrows as usize);
        &self.arrows[start..end]
    }

    /// Gives memory back; true once all of it is.
    pub(super) fn release(&mut self, steps: usize) -> bool {
        self.steps.truncate(self.steps.len().saturating_sub(steps));
        self.steps.len() == 0
    }
}
