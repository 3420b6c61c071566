//! Frames to requests, replies to frames.
//!
//! A message is a frame and the attachments behind it. The frame's first byte tells its encoding:
//! `{` or `[` JSON, a map or an array of MessagePack, 0x01 a bincode batch. An array is a batch of
//! objects. One set of ops is behind all three: `op` holds it, as it stands in the bincode batch;
//! `read` and `write` are JSON and MessagePack, `binary` is bincode, `common` a short cut of it;
//! `request` and `reply` turn ops into what the broker works with, and check them, `topics` those
//! that are about events and `queues` those about messages of queues; `attach` shares attachments
//! out.
//!
//! In: [`decode`] for the broker, [`decode_reply`] for its peers. Out: [`Batch`] coalesces,
//! [`lone`] does not, [`outcomes`] answers a batch of a REQ peer. [`salvage`] tells which runs a
//! frame that cannot be read was about.
//!
//! Values are checked as they come in and as they go out, and never built into trees. What two
//! bincode peers say to each other in values is not read at all.

mod attach;
mod binary;
mod common;
mod decode;
mod encode;
mod op;
mod queues;
mod read;
mod reply;
mod request;
mod salvage;
mod topics;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use mpreg_patterns::base::{Refusal, RunId};
use mpreg_patterns::ops::Request;
use mpreg_patterns::values::{Frames, Kind};
use smol_str::SmolStr;

pub use decode::{decode, decode_reply, detect};
pub use encode::{Batch, Outgoing, Pushed, lone, outcomes};
pub(crate) use queues::IDS_AT_ONCE;
pub use salvage::{Salvaged, salvage};

/// How a frame is encoded. A peer is answered in the one it spoke last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON text.
    #[default]
    Json,
    /// MessagePack.
    MsgPack,
    /// The bincode batch.
    Bincode,
}

impl Encoding {
    /// The kind of value that needs no conversion in it; bincode takes any.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Json => Some(Kind::Json),
            Self::MsgPack => Some(Kind::MsgPack),
            Self::Bincode => None,
        }
    }
}

/// What a frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its encoding.
    pub encoding: Encoding,
    /// Whether it was a batch, if only of one.
    pub batch: bool,
    /// How many items it had.
    pub items: u32,
}

/// One item of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Item<M = Request> {
    /// Its place in the batch; none in a frame that is no batch.
    pub index: Option<u32>,
    /// What it asks, or why it cannot be taken.
    pub result: Result<M, Box<Bad>>,
}

/// An item that cannot be taken. Nothing has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Bad {
    /// Its id, if it had a readable one.
    pub id: Option<SmolStr>,
    /// Its op, if it had a readable one.
    pub op: Option<SmolStr>,
    /// The run whose outcome it was to be: that run will get no other one.
    pub run: Option<RunId>,
    /// Why.
    pub refusal: Refusal,
}

/// A frame and its attachments, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The frame.
    pub body: Bytes,
    /// The attachments, from 1.
    pub frames: Frames,
}
