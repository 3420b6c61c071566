//! The ops of the wire, in both directions, borrowing from the frame they came in.
//!
//! This is the layout of the bincode batch, and what the other encodings are read into and written
//! from. **The order of the variants and of their fields is frozen** by the golden bytes: a new op
//! goes to the end, a changed one takes a new first byte for the whole batch. `binary` reads the
//! same order by hand.

use std::borrow::Cow;

use bytes::Bytes;
use mpreg_patterns::base::RunId;
use mpreg_patterns::values::{Kind, Value};
use serde::{Serialize, Serializer};

/// Text that stands in the frame, or had to be unescaped.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'a> Text<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Bytes that stand in the frame, written in one piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Blob<'a>(pub(super) &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

/// The encoding of a value: 0, 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tag(pub(super) Kind);

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.0 as u8)
    }
}

/// A value that is not looked into.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Raw<'a> {
    pub(super) kind: Tag,
    pub(super) bytes: Blob<'a>,
    /// The same, on the way out, where it may become an attachment without being copied.
    #[serde(skip)]
    pub(super) value: Option<&'a Value>,
    /// What its `$frame` tags name, on the way out.
    #[serde(skip)]
    pub(super) frames: &'a [Bytes],
}

impl<'a> Raw<'a> {
    /// A value that came in.
    pub(super) const fn borrowed(kind: Kind, bytes: &'a [u8]) -> Self {
        Self { kind: Tag(kind), bytes: Blob(bytes), value: None, frames: &[] }
    }

    /// A value that goes out.
    pub(super) fn of(value: &'a Value, frames: &'a [Bytes]) -> Self {
        Self { kind: Tag(value.kind), bytes: Blob(&value.bytes), value: Some(value), frames }
    }
}

/// A request's id as its sender chose it, or the broker's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) enum Id<'a> {
    Name(Text<'a>),
    Run(u128),
}

impl Id<'_> {
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Name(text) => Cow::Borrowed(text.as_str()),
            Self::Run(run) => Cow::Owned(RunId(*run).to_string()),
        }
    }

    /// The run it names, if it is one's.
    pub(super) fn run(&self) -> Option<RunId> {
        match self {
            Self::Name(text) => RunId::parse(text.as_str()),
            Self::Run(run) => Some(RunId(*run)),
        }
    }
}

/// `error`: an empty code is the worker's lack of one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Failure<'a> {
    pub(super) code: Text<'a>,
    pub(super) message: Text<'a>,
    pub(super) culprit: Blame,
    pub(super) retry: bool,
    pub(super) op: Option<Text<'a>>,
    pub(super) field: Option<Text<'a>>,
    pub(super) refused: Option<Text<'a>>,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Blame {
    Caller,
    Worker,
    Broker,
}

/// One function of an offer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Offered<'a> {
    pub(super) name: Text<'a>,
    pub(super) version: Option<Text<'a>>,
    pub(super) idempotent: bool,
    pub(super) doc: Option<Text<'a>>,
    pub(super) input: Option<Raw<'a>>,
    pub(super) output: Option<Raw<'a>>,
    pub(super) cache_ms: Option<u64>,
}

/// `return` of a graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) enum Wanted<'a> {
    Sinks,
    All,
    Names(Vec<Text<'a>>),
}

/// The outcome of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Step<'a> {
    pub(super) name: Text<'a>,
    /// The word on the wire.
    pub(super) state: Text<'a>,
    pub(super) code: Option<Text<'a>>,
}

/// `call`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct CallOp<'a> {
    pub(super) id: Text<'a>,
    pub(super) fun: Text<'a>,
    pub(super) args: Option<Raw<'a>>,
    pub(super) kwargs: Option<Raw<'a>>,
    pub(super) locs: Vec<Text<'a>>,
    pub(super) version: Option<Text<'a>>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) idempotent: Option<bool>,
    pub(super) wait: bool,
    pub(super) progress: bool,
    pub(super) track: Option<u128>,
}

/// `result` of a call or a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ResultOp<'a> {
    pub(super) id: Id<'a>,
    pub(super) result: Raw<'a>,
    pub(super) track: Option<u128>,
}

/// `run`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RunOp<'a> {
    pub(super) id: u128,
    pub(super) fun: Text<'a>,
    pub(super) args: Option<Raw<'a>>,
    pub(super) kwargs: Option<Raw<'a>>,
    pub(super) deadline_ms: u64,
    pub(super) attempt: u32,
}

/// `publish`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PublishOp<'a> {
    pub(super) id: Text<'a>,
    pub(super) topic: Text<'a>,
    pub(super) payload: Raw<'a>,
    pub(super) headers: Option<Raw<'a>>,
    pub(super) confirm: bool,
}

/// `event`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct EventOp<'a> {
    pub(super) pattern: Text<'a>,
    pub(super) topic: Text<'a>,
    pub(super) seq: u64,
    pub(super) missed: u64,
    pub(super) message: u128,
    pub(super) payload: Raw<'a>,
    pub(super) headers: Option<Raw<'a>>,
}

/// `send`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SendOp<'a> {
    pub(super) id: Text<'a>,
    pub(super) queue: Option<Text<'a>>,
    pub(super) topic: Option<Text<'a>>,
    pub(super) payload: Raw<'a>,
    pub(super) headers: Option<Raw<'a>>,
    pub(super) delay_ms: u64,
    pub(super) priority: u8,
    pub(super) key: Option<Text<'a>>,
    pub(super) dedup: Option<Text<'a>>,
    pub(super) confirm: bool,
}

/// `sent`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SentOp<'a> {
    pub(super) id: Text<'a>,
    pub(super) message: u128,
    pub(super) fsync: bool,
    pub(super) queues: u32,
}

/// `deliver`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct DeliverOp<'a> {
    pub(super) queue: Text<'a>,
    pub(super) id: u128,
    pub(super) attempt: u32,
    pub(super) message: u128,
    /// Empty where it was sent to a queue by name.
    pub(super) topic: Text<'a>,
    pub(super) key: Option<Text<'a>>,
    pub(super) priority: u8,
    pub(super) payload: Raw<'a>,
    pub(super) headers: Option<Raw<'a>>,
}

/// The ids of deliveries.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ids<'a>(pub(super) Cow<'a, [RunId]>);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|id| id.0))
    }
}

/// Where in a log a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Past {
    All,
    Seq(u64),
    Ms(u64),
    Last(u32),
}

/// One op. The order is frozen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) enum Op<'a> {
    Ping {
        id: Option<Text<'a>>,
    },
    Pong {
        id: Option<Text<'a>>,
    },
    Hello {
        id: Option<Text<'a>>,
        batch: Option<bool>,
        name: Option<Text<'a>>,
        token: bool,
    },
    Welcome {
        id: Option<Text<'a>>,
        about: Raw<'a>,
    },
    Call(CallOp<'a>),
    Result(ResultOp<'a>),
    Error {
        id: Option<Id<'a>>,
        item: Option<u32>,
        error: Failure<'a>,
        track: Option<u128>,
    },
    Offer {
        id: Option<Text<'a>>,
        functions: Vec<Offered<'a>>,
        locs: Vec<Text<'a>>,
        credit: Option<u32>,
    },
    Offered {
        id: Option<Text<'a>>,
        epoch: u64,
        functions: u32,
        credit: u32,
    },
    Run(RunOp<'a>),
    Progress {
        id: Id<'a>,
        event: Option<Text<'a>>,
        step: Option<Text<'a>>,
        step_id: Option<u128>,
        percent: Option<f64>,
        note: Option<Text<'a>>,
        track: Option<u128>,
    },
    Cancel {
        id: Id<'a>,
    },
    Bye {
        id: Option<Text<'a>>,
    },
    Graph {
        id: Text<'a>,
        steps: Option<Raw<'a>>,
        part: u32,
        more: bool,
        returns: Wanted<'a>,
        on_error_continue: bool,
        refs_by_name: bool,
        timeout_ms: Option<u64>,
        progress: bool,
        track: Option<u128>,
    },
    GraphReply {
        id: Text<'a>,
        results: Option<Vec<(Text<'a>, Raw<'a>)>>,
        steps: Vec<Step<'a>>,
        error: Option<Failure<'a>>,
        step: Option<Text<'a>>,
        part: Option<u32>,
        more: bool,
        track: Option<u128>,
    },
    Publish(PublishOp<'a>),
    Published {
        id: Text<'a>,
        message: u128,
    },
    Subscribe {
        id: Option<Text<'a>>,
        patterns: Option<Raw<'a>>,
        credit: Option<u32>,
        replay: Option<Past>,
    },
    Subscribed {
        id: Option<Text<'a>>,
        epoch: u64,
        patterns: u32,
        credit: Option<u32>,
    },
    Unsubscribe {
        id: Option<Text<'a>>,
        patterns: Option<Raw<'a>>,
    },
    Event(EventOp<'a>),
    Ack {
        events: u32,
    },
    Send(SendOp<'a>),
    Sent(SentOp<'a>),
    Consume {
        id: Option<Text<'a>>,
        queue: Text<'a>,
        group: Option<Text<'a>>,
        credit: u32,
    },
    Consumed {
        id: Option<Text<'a>>,
        epoch: u64,
        queue: Text<'a>,
        group: Option<Text<'a>>,
        credit: u32,
    },
    Deliver(DeliverOp<'a>),
    AckIds {
        id: Option<Text<'a>>,
        ids: Ids<'a>,
    },
    Nack {
        id: Option<Text<'a>>,
        ids: Ids<'a>,
        delay_ms: Option<u64>,
        reason: Option<Text<'a>>,
        dead: bool,
    },
    Extend {
        id: Option<Text<'a>>,
        ids: Ids<'a>,
    },
    Acked {
        id: Text<'a>,
        ids: Ids<'a>,
        unknown: Ids<'a>,
    },
    /// `deliver` to a consumer of a group, which comes first.
    DeliverFor(Text<'a>, DeliverOp<'a>),
    /// `sent` for what waits here for a broker that cannot be reached.
    SentNear(SentOp<'a>),
    /// `call` for the brokers of a cluster, which comes first.
    CallIn(Text<'a>, CallOp<'a>),
}

impl<'a> Op<'a> {
    /// The word on the wire.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Hello { .. } => "hello",
            Self::Welcome { .. } => "welcome",
            Self::Call(_) | Self::CallIn(..) => "call",
            Self::Result(_) | Self::GraphReply { error: None, .. } => "result",
            Self::Error { .. } | Self::GraphReply { .. } => "error",
            Self::Offer { .. } => "offer",
            Self::Offered { .. } => "offered",
            Self::Run(_) => "run",
            Self::Progress { .. } => "progress",
            Self::Cancel { .. } => "cancel",
            Self::Bye { .. } => "bye",
            Self::Graph { .. } => "graph",
            Self::Publish(_) => "publish",
            Self::Published { .. } => "published",
            Self::Subscribe { .. } => "subscribe",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Event(_) => "event",
            Self::Ack { .. } | Self::AckIds { .. } => "ack",
            Self::Send(_) => "send",
            Self::Sent(_) | Self::SentNear(_) => "sent",
            Self::Consume { .. } => "consume",
            Self::Consumed { .. } => "consumed",
            Self::Deliver(_) | Self::DeliverFor(..) => "deliver",
            Self::Nack { .. } => "nack",
            Self::Extend { .. } => "extend",
            Self::Acked { .. } => "acked",
        }
    }

    /// The id, as text.
    pub(super) fn id(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Ping { id }
            | Self::Pong { id }
            | Self::Hello { id, .. }
            | Self::Welcome { id, .. }
            | Self::Offer { id, .. }
            | Self::Offered { id, .. }
            | Self::Subscribe { id, .. }
            | Self::Subscribed { id, .. }
            | Self::Unsubscribe { id, .. }
            | Self::Consume { id, .. }
            | Self::Consumed { id, .. }
            | Self::AckIds { id, .. }
            | Self::Nack { id, .. }
            | Self::Extend { id, .. }
            | Self::Bye { id } => id.as_ref().map(|id| Cow::Borrowed(id.as_str())),
            Self::Call(CallOp { id, .. })
            | Self::CallIn(_, CallOp { id, .. })
            | Self::Publish(PublishOp { id, .. })
            | Self::Published { id, .. }
            | Self::Send(SendOp { id, .. })
            | Self::Sent(SentOp { id, .. })
            | Self::SentNear(SentOp { id, .. })
            | Self::Acked { id, .. }
            | Self::Graph { id, .. }
            | Self::GraphReply { id, .. } => Some(Cow::Borrowed(id.as_str())),
            Self::Result(ResultOp { id, .. }) | Self::Progress { id, .. } | Self::Cancel { id } => {
                Some(id.text())
            }
            Self::Error { id, .. } => id.as_ref().map(Id::text),
            Self::Run(RunOp { id, .. })
            | Self::Deliver(DeliverOp { id, .. })
            | Self::DeliverFor(_, DeliverOp { id, .. }) => Some(Cow::Owned(RunId(*id).to_string())),
            Self::Event(_) | Self::Ack { .. } => None,
        }
    }

    /// The run a worker speaks of.
    pub(super) fn run(&self) -> Option<RunId> {
        match self {
            Self::Result(ResultOp { id, .. }) | Self::Error { id: Some(id), .. } => id.run(),
            _ => None,
        }
    }

    /// The values that may have attachments.
    pub(super) fn values(&self) -> impl Iterator<Item = &Raw<'a>> {
        let (pair, many): ([Option<&Raw<'a>>; 2], &[(Text<'a>, Raw<'a>)]) = match self {
            Self::Call(CallOp { args, kwargs, .. })
            | Self::CallIn(_, CallOp { args, kwargs, .. })
            | Self::Run(RunOp { args, kwargs, .. }) => ([args.as_ref(), kwargs.as_ref()], &[]),
            Self::Result(ResultOp { result, .. }) => ([Some(result), None], &[]),
            Self::Publish(PublishOp { payload, .. })
            | Self::Event(EventOp { payload, .. })
            | Self::Send(SendOp { payload, .. })
            | Self::Deliver(DeliverOp { payload, .. })
            | Self::DeliverFor(_, DeliverOp { payload, .. }) => ([Some(payload), None], &[]),
            Self::Graph { steps, .. } => ([steps.as_ref(), None], &[]),
            Self::GraphReply { results: Some(results), .. } => ([None, None], results),
            _ => ([None, None], &[]),
        };
        pair.into_iter().flatten().chain(many.iter().map(|(_, value)| value))
    }
}
