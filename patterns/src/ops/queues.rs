//! What peers say and hear of messages in queues.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::Event;
use crate::base::RunId;
use crate::store::Message;

/// `send`: one message for a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// Chosen by the sender, unique among what is in flight on its connection.
    pub id: SmolStr,
    /// Whether `sent` is wanted; a refusal is told in any case.
    pub confirm: bool,
    /// The queue; none to reach every queue that is bound to the event's topic.
    pub queue: Option<SmolStr>,
    /// Its topic is empty where a queue is named; its `message` is the broker's to give.
    pub event: Arc<Event>,
    /// When and in what order it is to be delivered.
    pub options: SendOptions,
}

/// When and in what order a message is to be delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// How long it waits first, milliseconds.
    pub delay_ms: u64,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// Of those with the same key one is in hand at a time, in the order sent.
    pub key: Option<SmolStr>,
    /// A message with the same text, lately sent, is not taken again.
    pub dedup: Option<SmolStr>,
}

/// `ack`, `nack` or `extend`: what became of messages in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Settle {
    /// Echoed by `acked`, which is not sent without.
    pub id: Option<SmolStr>,
    /// The ids of the deliveries.
    pub ids: Vec<RunId>,
    /// What became of them.
    pub verdict: Verdict,
}

/// What became of a message in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done: the queue forgets it.
    Ack,
    /// It is not: somebody is to have it again.
    Nack {
        /// How long it waits first, milliseconds; none for what the queue says.
        delay_ms: Option<u64>,
        /// Words for a person.
        reason: Option<Box<str>>,
        /// Nobody is to have it again: it is a dead letter.
        dead: bool,
    },
    /// It takes longer: its lease begins anew.
    Extend,
}

impl Verdict {
    /// The op that says it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Nack { .. } => "nack",
            Self::Extend => "extend",
        }
    }
}

/// How safe something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The broker has it, and may be killed.
    Memory,
    /// The disk has it.
    Fsync,
}

impl Durability {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Fsync => "fsync",
        }
    }
}

/// `deliver`: a message on its way to one consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// Which queue it comes from.
    pub queue: SmolStr,
    /// For which of its groups; none for the one without a name.
    pub group: Option<SmolStr>,
    /// Names this delivery, for `ack`, `nack` and `extend`.
    pub id: RunId,
    /// From 1.
    pub attempt: u32,
    /// What was sent.
    pub message: Arc<Message>,
}
