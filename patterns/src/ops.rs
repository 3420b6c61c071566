//! What peers ask and what the broker answers, decoded: one enum each way.
//!
//! The wire form is `docs/PROTOCOL.md`; the sockets crate turns bytes into these and back.

mod graphs;
mod queues;

use std::ops::Deref;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::base::{Refusal, RunId};
use crate::values::{Body, Frames, Value};

pub use graphs::{
    GraphOptions, GraphPart, GraphReply, OnError, Refs, Returns, StepOutcome, StepState,
};
pub use queues::{Delivered, Durability, Send, SendOptions, Settle, Verdict};

/// A peer's request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Says who the peer is and what it can take.
    Hello(Hello),
    /// Asks for a `pong`.
    Ping {
        /// Echoed.
        id: Option<SmolStr>,
    },
    /// Calls one function.
    Call(Arc<Call>),
    /// One part of a dependency graph; most graphs have one part only.
    Graph(Box<GraphPart>),
    /// Gives a request up.
    Cancel {
        /// The request's id.
        id: SmolStr,
    },
    /// Says what a worker can run.
    Offer(Box<Offer>),
    /// A worker's outcome of a run.
    Result {
        /// The run.
        run: RunId,
        /// What the function returned.
        body: Box<Body>,
    },
    /// A worker's failure of a run.
    Failed {
        /// The run.
        run: RunId,
        /// The worker's words, culprit `worker`.
        error: Box<Refusal>,
    },
    /// A worker's progress in a run.
    Progress {
        /// The run.
        run: RunId,
        /// 0 to 100.
        percent: Option<f64>,
        /// Words for a person.
        note: Option<Box<str>>,
    },
    /// A worker (or client) finishes what is in hand and takes no more.
    Bye {
        /// Echoed.
        id: Option<SmolStr>,
    },
    /// Publishes one event.
    Publish(Publish),
    /// Asks for the events of patterns.
    Subscribe(Box<Subscribe>),
    /// Asks for the events of patterns no longer.
    Unsubscribe {
        /// Echoed.
        id: Option<SmolStr>,
        /// An array of texts as it came, read in slices.
        patterns: Option<Value>,
    },
    /// Gives credit for events back.
    Ack {
        /// How many events are handled.
        events: u32,
    },
    /// Sends one message to a queue, or to the queues bound to a topic.
    Send(Box<Send>),
    /// Asks for the messages of a queue.
    Consume {
        /// Echoed.
        id: Option<SmolStr>,
        /// Which queue.
        queue: SmolStr,
        /// Which of its groups; none for the one without a name.
        group: Option<SmolStr>,
        /// The most messages in hand at once; 0 pauses.
        credit: u32,
    },
    /// Says what became of messages in hand.
    Settle(Settle),
    /// Another broker has a message that was handed over to it, as safe as its queue is.
    Sent {
        /// The delivery.
        id: RunId,
    },
    /// Another broker delivers a message of a queue of its own.
    Delivered(Box<Delivered>),
    /// Another broker's answer to a [`Reply::Consume`].
    Consumed {
        /// Its id.
        id: RunId,
        /// The credit in force.
        credit: u32,
    },
    /// Another broker's answer to a [`Reply::Settle`].
    Acked {
        /// Its id.
        id: RunId,
        /// Deliveries of which it is so now.
        ids: Vec<RunId>,
        /// Those that were not in hand.
        unknown: Vec<RunId>,
    },
    /// A `result`, `error` or `progress` whose id is not a run's: counted, never answered.
    Stray,
}

/// `publish`: one event for everybody who subscribed to its topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Chosen by the publisher, unique among what is in flight on its connection.
    pub id: SmolStr,
    /// Whether `published` is wanted; a refusal is told in any case.
    pub confirm: bool,
    /// The event; its `message` is the broker's to give.
    pub event: Arc<Event>,
}

/// What is published, shared by everybody it goes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// A name that is not the broker's own, unless the broker published it.
    pub topic: SmolStr,
    /// Compact JSON text, or bytes as they came.
    pub payload: Value,
    /// A map, as compact JSON text.
    pub headers: Option<Value>,
    /// The message's own ULID, whose time is when the broker took it.
    pub message: RunId,
}

impl Event {
    /// Bytes it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.as_ref().map_or(0, |headers| headers.bytes.len());
        self.topic.len() + self.payload.bytes.len() + headers + size_of::<Self>()
    }
}

/// `subscribe`: patterns, how much is taken at once, and what of the past.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribe {
    /// Echoed.
    pub id: Option<SmolStr>,
    /// An array of texts as it came, read in slices.
    pub patterns: Option<Value>,
    /// The most events in hand at once on this connection; none leaves it as it is.
    pub credit: Option<u32>,
    /// Where in the log to begin; none for what comes from now on.
    pub replay: Option<Replay>,
}

/// Where in a log to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// With the oldest event that is kept.
    All,
    /// With this sequence number of the log.
    Seq(u64),
    /// With the first event since then, milliseconds since 1970.
    Ms(u64),
    /// With the last so many events that match.
    Last(u32),
}

/// `event`: an event on its way to one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What was published.
    pub event: Arc<Event>,
    /// The pattern, as the peer wrote it.
    pub pattern: SmolStr,
    /// Counts the events of the pattern; in a replay, those of the log.
    pub seq: u64,
    /// Events of a replay that were gone from the log before they could be sent.
    pub missed: u64,
}

/// `hello`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    /// Echoed.
    pub id: Option<SmolStr>,
    /// Whether replies may be coalesced into batches.
    pub batch: Option<bool>,
    /// What people call this peer.
    pub name: Option<SmolStr>,
    /// Whether a token came with it.
    pub token: bool,
}

/// `call`: one function by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// Chosen by the caller, unique among what is in flight on its connection.
    pub id: SmolStr,
    /// The function.
    pub fun: SmolStr,
    /// The arguments by position: an array.
    pub args: Option<Value>,
    /// The arguments by name: an object.
    pub kwargs: Option<Value>,
    /// The attachments `args` and `kwargs` name, from 1.
    pub frames: Frames,
    /// Where and how it may run.
    pub options: CallOptions,
    /// Whether the caller wants progress.
    pub progress: bool,
    /// The caller's own ULID for the call's topics.
    pub track: Option<RunId>,
}

/// What a call and a step of a graph have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallOptions {
    /// Data the worker must have.
    pub locs: Vec<SmolStr>,
    /// A range in Cargo's syntax.
    pub version: Option<SmolStr>,
    /// Whose brokers may run it.
    pub cluster: Option<SmolStr>,
    /// Time for the whole call.
    pub timeout_ms: Option<u64>,
    /// Overrides what the offer says.
    pub idempotent: Option<bool>,
    /// Whether to wait for a worker that is not there yet.
    pub wait: bool,
}

/// `offer`: what a worker can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// Echoed.
    pub id: Option<SmolStr>,
    /// The functions; those of an earlier offer that are not here are withdrawn.
    pub functions: Vec<Function>,
    /// The data this worker has.
    pub locs: Vec<SmolStr>,
    /// The most runs in hand at once; 0 pauses.
    pub credit: Option<u32>,
}

/// One function of an offer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: SmolStr,
    /// Semver; 1.0.0 when absent.
    pub version: Option<SmolStr>,
    /// Whether running it twice is as good as once.
    pub idempotent: bool,
    /// What it does, for people.
    pub doc: Option<SmolStr>,
    /// JSON Schema of the arguments, as it came.
    pub input: Option<Value>,
    /// JSON Schema of the result, as it came.
    pub output: Option<Value>,
    /// How long a result may be reused, milliseconds.
    pub cache_ms: Option<u64>,
}

/// What the broker sends to one peer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Answers `hello`.
    Welcome {
        /// Echoed.
        id: Option<SmolStr>,
        /// The fields beside `op` and `id`: an object as JSON text.
        about: Value,
    },
    /// Answers `ping`.
    Pong {
        /// Echoed.
        id: Option<SmolStr>,
    },
    /// The outcome of a call.
    Result {
        /// The call's id.
        id: SmolStr,
        /// What it returned.
        body: Box<Body>,
        /// The call's ULID, where it was asked for.
        track: Option<RunId>,
    },
    /// A refusal, or the outcome of a call that did not succeed.
    Error {
        /// The request's id where there was a readable one.
        id: Option<SmolStr>,
        /// The op at fault, if it was readable.
        op: Option<SmolStr>,
        /// Position in the batch, where there is no id.
        item: Option<u32>,
        /// What went wrong.
        error: Box<Refusal>,
        /// The call's ULID, where it was asked for.
        track: Option<RunId>,
    },
    /// The outcome of a graph, or a part of it.
    Graph(Box<GraphReply>),
    /// What has happened to a request so far.
    Progress(Box<ProgressReply>),
    /// Answers `offer`.
    Offered {
        /// Echoed.
        id: Option<SmolStr>,
        /// The broker's life; another one than before means that all earlier offers are forgotten.
        epoch: u64,
        /// How many functions are offered now.
        functions: u32,
        /// The credit in force.
        credit: u32,
    },
    /// A call for a worker.
    Run(Run),
    /// A call for another broker, which knows it by the run's id.
    Call(Run),
    /// Tells a worker that a run's outcome is no longer wanted.
    Cancel {
        /// The run.
        run: RunId,
    },
    /// Answers `bye` when nothing is in hand; sent unasked by a draining broker.
    Bye {
        /// Echoed.
        id: Option<SmolStr>,
    },
    /// Answers `publish`.
    Published {
        /// Echoed.
        id: SmolStr,
        /// The message's own ULID.
        message: RunId,
    },
    /// Answers `subscribe` and `unsubscribe`.
    Subscribed {
        /// Echoed.
        id: Option<SmolStr>,
        /// The broker's life; another one than before means that all subscriptions are forgotten.
        epoch: u64,
        /// How many patterns the connection holds now.
        patterns: u32,
        /// The credit in force; none where there is no bound.
        credit: Option<u32>,
    },
    /// An event of a pattern the peer holds.
    Event(Delivery),
    /// Answers `send`.
    Sent {
        /// Echoed.
        id: SmolStr,
        /// The message's own ULID.
        message: RunId,
        /// How safe it is in the least safe of its queues.
        durability: Durability,
        /// How many queues have it.
        queues: u32,
        /// Whether it is still on its way to the broker that keeps its queue.
        near: bool,
    },
    /// Answers `consume`.
    Consumed {
        /// Echoed.
        id: Option<SmolStr>,
        /// The broker's life; another one than before means that all consumers are forgotten.
        epoch: u64,
        /// Which queue.
        queue: SmolStr,
        /// Which of its groups.
        group: Option<SmolStr>,
        /// The credit in force.
        credit: u32,
    },
    /// A message for a consumer.
    Deliver(Box<Delivered>),
    /// A message for another broker, which keeps its queue and knows it by the delivery's id. If it
    /// names no queue it is for those bound to its topic there.
    HandOver(Box<Delivered>),
    /// Asks another broker for the messages of a queue of its own, for all that take them here.
    Consume {
        /// Names its answer.
        id: RunId,
        /// Which queue.
        queue: SmolStr,
        /// Which of its groups.
        group: Option<SmolStr>,
        /// The most messages in hand at once.
        credit: u32,
    },
    /// Tells another broker what became of messages of a queue of its own.
    Settle(Settle),
    /// Answers `ack`, `nack` and `extend` that carry an id.
    Acked {
        /// Echoed.
        id: SmolStr,
        /// The deliveries of which it is so now.
        ids: Vec<RunId>,
        /// Those that were not in hand.
        unknown: Vec<RunId>,
    },
}

impl Reply {
    /// The run it hands over, if it does.
    #[must_use]
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Run(run) | Self::Call(run) => Some(run.id),
            _ => None,
        }
    }
}

/// A call on its way to a worker. What it is to run reads as if it were the run's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The broker's own id for this attempt.
    pub id: RunId,
    /// Function and arguments. One call is shared from its frame to the last of its runs.
    pub call: Arc<Call>,
    /// Time left.
    pub deadline_ms: u64,
    /// From 1.
    pub attempt: u32,
}

impl Deref for Run {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

/// `progress`, to a caller.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressReply {
    /// The request's id.
    pub id: SmolStr,
    /// The ULID of the call or graph.
    pub track: RunId,
    /// The step, in a graph.
    pub step: Option<SmolStr>,
    /// The ULID of the step, in a graph.
    pub step_id: Option<RunId>,
    /// What happened: `accepted`, `started`, `progress`, `retrying`, `done`, `degraded`, `failed`,
    /// `skipped`, `cancelled`.
    pub event: &'static str,
    /// 0 to 100: of the run in a `progress` from a worker, else of the graph.
    pub percent: Option<f64>,
    /// Words for a person.
    pub note: Option<Box<str>>,
}
