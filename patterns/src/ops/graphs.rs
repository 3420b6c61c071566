//! Graphs: what callers ask, and what they are answered.

use serde::Serialize;
use smol_str::SmolStr;

use crate::base::{Refusal, RunId};
use crate::values::{Body, Frames, Value};

/// `graph`: a part of a dependency graph. Options stand in part 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphPart {
    /// Chosen by the caller; the same for all parts.
    pub id: SmolStr,
    /// The array of steps as it came; read in slices, never as a tree.
    pub steps: Option<Value>,
    /// The attachments of this part.
    pub frames: Frames,
    /// Position among the parts.
    pub part: u32,
    /// Whether more parts follow.
    pub more: bool,
    /// What is returned and how failures spread.
    pub options: GraphOptions,
}

/// The options of a graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphOptions {
    /// Which results are returned.
    pub returns: Returns,
    /// What a failed step does to its siblings.
    pub on_error: OnError,
    /// How references are written.
    pub refs: Refs,
    /// Time for the whole graph.
    pub timeout_ms: Option<u64>,
    /// Whether the caller wants progress.
    pub progress: bool,
    /// The caller's own ULID for the graph.
    pub track: Option<RunId>,
}

/// Which results a graph returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Returns {
    /// Every step nothing depends on.
    #[default]
    Sinks,
    /// Every step.
    All,
    /// Exactly these.
    Names(Vec<SmolStr>),
}

/// What a failed step does to its siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// They are cancelled.
    #[default]
    Fail,
    /// They finish.
    Continue,
}

/// How references are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refs {
    /// `{"$ref":"step","at":"/pointer"}`.
    #[default]
    Tagged,
    /// Any string equal to a step's name, or `name.path.0.field`.
    Names,
}

/// How a step of a graph ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// It ran and returned.
    Done,
    /// It failed, and its fallback stands in.
    Degraded,
    /// It ran and failed, or could not run.
    Failed,
    /// It never began, since something before it failed.
    Skipped,
    /// It was told to stop, or never began, since the graph ended.
    Cancelled,
    /// Its worker was lost with it in hand.
    Unknown,
}

impl StepState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

/// The outcome of one step, as the reply of its graph tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOutcome {
    /// Its name.
    pub name: SmolStr,
    /// How it ended.
    pub state: StepState,
    /// The code, unless it is done.
    pub code: Option<SmolStr>,
}

/// The outcome of a graph: `result`, or `error` when `error` is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphReply {
    /// The graph's id.
    pub id: SmolStr,
    /// Name and value of what finished of what is to be returned.
    pub results: Vec<(SmolStr, Body)>,
    /// Outcomes of the steps, when they are to be told.
    pub steps: Vec<StepOutcome>,
    /// The first cause, and its step.
    pub error: Option<(Refusal, Option<SmolStr>)>,
    /// Whether the graph ran at all: a graph refused in validation has no `results`.
    pub ran: bool,
    /// The graph's ULID.
    pub track: Option<RunId>,
    /// Position, when the reply comes in parts.
    pub part: Option<u32>,
    /// Whether more parts follow.
    pub more: bool,
}
