//! Messages to frames: many in one, one alone, or the outcomes of one batch.

use bytes::Bytes;
use mpreg_patterns::ops::{Call, Reply, Request};
use mpreg_patterns::values::{Fault, Frames, Kind};

use super::op::Op;
use super::{Encoding, Message, binary, common, reply, request, write};

/// A message as it goes out.
#[derive(Clone, Copy, Debug)]
pub enum Outgoing<'m> {
    /// From the broker.
    Reply(&'m Reply),
    /// From a peer.
    Request(&'m Request),
    /// From a peer: a call that nothing else shares.
    Call(&'m Call),
}

impl<'m> From<&'m Reply> for Outgoing<'m> {
    fn from(reply: &'m Reply) -> Self {
        Self::Reply(reply)
    }
}

impl<'m> From<&'m Request> for Outgoing<'m> {
    fn from(request: &'m Request) -> Self {
        Self::Request(request)
    }
}

impl<'m> From<&'m Call> for Outgoing<'m> {
    fn from(call: &'m Call) -> Self {
        Self::Call(call)
    }
}

impl<'m> Outgoing<'m> {
    fn op(self) -> Result<Op<'m>, Fault> {
        match self {
            Self::Reply(reply) => Ok(reply::to_op(reply)),
            Self::Call(call) => Ok(request::call_op(call)),
            Self::Request(request) => request::to_op(request)
                .ok_or_else(|| Fault::BadValue("an outcome of no run is not sent".into())),
        }
    }
}

/// What became of a message that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the batch.
    Joined,
    /// It has attachments, and is to be sent by itself.
    Alone(Message),
}

/// Messages to one peer on their way into one frame.
#[derive(Clone, Debug)]
pub struct Batch {
    encoding: Encoding,
    out: Vec<u8>,
    items: u32,
    /// What the frames before took, so that this one need not grow into it.
    room: usize,
}

/// More than this is not kept ready for a frame: what is coalesced ends a little above its bound.
const ROOM: usize = (64 << 10) + (4 << 10);

/// What an object takes beside its values, most often.
const OBJECT: usize = 160;

/// The head of an array of MessagePack whose count is patched in later.
const ARRAY: usize = 5;

impl Batch {
    /// An empty batch.
    #[must_use]
    pub const fn new(encoding: Encoding) -> Self {
        Self { encoding, out: Vec::new(), items: 0, room: 0 }
    }

    /// The encoding the frame will have.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How many messages it holds.
    #[must_use]
    pub const fn items(&self) -> u32 {
        self.items
    }

    /// How many bytes it holds.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Adds a message. One with attachments is handed back as a frame of its own.
    ///
    /// After a fault the batch is as it was before.
    #[inline]
    pub fn push<'m>(&mut self, message: impl Into<Outgoing<'m>>) -> Result<Pushed, Fault> {
        let message = message.into();
        if self.encoding == Encoding::Bincode && self.join(message) {
            return Ok(Pushed::Joined);
        }
        self.push_any(message)
    }

    /// Adds a message that has a short way into bincode, if it has.
    fn join(&mut self, message: Outgoing<'_>) -> bool {
        if self.items == 0 {
            self.open();
        }
        let joined = common::put(message, &mut self.out);
        if joined {
            self.items += 1;
        } else if self.items == 0 {
            self.out.clear();
        }
        joined
    }

    fn push_any(&mut self, message: Outgoing<'_>) -> Result<Pushed, Fault> {
        let op = message.op()?;
        if carries(&op, self.encoding) {
            return alone(&op, self.encoding).map(Pushed::Alone);
        }
        let before = self.out.len();
        self.open();
        let Some(kind) = self.encoding.kind() else {
            binary::put(&op, &mut self.out);
            self.items += 1;
            return Ok(Pushed::Joined);
        };
        let mut frames = Frames::new();
        let put = write::put(&op, kind, false, &mut self.out, &mut frames);
        if put.is_err() || !frames.is_empty() {
            self.out.truncate(before);
            put?;
            // Bytes of MessagePack became the first attachments.
            return alone(&op, self.encoding).map(Pushed::Alone);
        }
        self.items += 1;
        Ok(Pushed::Joined)
    }

    /// Writes what stands before the next message.
    fn open(&mut self) {
        if self.items == 0 {
            self.out.reserve(self.room);
        }
        match (self.encoding, self.items) {
            (Encoding::Json, 0) => self.out.push(b'['),
            (Encoding::Json, _) => self.out.push(b','),
            (Encoding::MsgPack, 0) => self.out.extend_from_slice(&[0xDD, 0, 0, 0, 0]),
            (Encoding::Bincode, 0) => binary::open(&mut self.out),
            (Encoding::MsgPack | Encoding::Bincode, _) => {}
        }
    }

    /// Takes the frame and leaves an empty batch: nothing, one bare object, or an array.
    pub fn finish(&mut self) -> Option<Bytes> {
        let items = std::mem::take(&mut self.items);
        if items == 0 {
            return None;
        }
        let mut out = std::mem::take(&mut self.out);
        // Less by and by, if no frame is as large any more.
        self.room = (self.room - self.room / 64).max(out.len() + out.len() / 16).min(ROOM);
        Some(match (self.encoding, items) {
            (Encoding::Json, 1) => Bytes::from(out).slice(1..),
            (Encoding::MsgPack, 1) => Bytes::from(out).slice(ARRAY..),
            _ => {
                close(self.encoding, items, &mut out);
                Bytes::from(out)
            }
        })
    }
}

/// Ends an array of `items`.
fn close(encoding: Encoding, items: u32, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => out.push(b']'),
        Encoding::MsgPack => out[1..ARRAY].copy_from_slice(&items.to_be_bytes()),
        Encoding::Bincode => binary::close(out, 0, u64::from(items)),
    }
}

/// Whether an op brings attachments of itself into that encoding.
fn carries(op: &Op<'_>, encoding: Encoding) -> bool {
    let bytes_are_attached = encoding != Encoding::Bincode;
    op.values()
        .any(|raw| !raw.frames.is_empty() || (bytes_are_attached && raw.kind.0 == Kind::Bytes))
}

/// The encoding for a message with attachments, which bincode does not have: its value's own.
fn with_frames(op: &Op<'_>, encoding: Encoding) -> Kind {
    encoding.kind().unwrap_or_else(|| {
        let packed = op.values().any(|raw| raw.kind.0 == Kind::MsgPack);
        if packed { Kind::MsgPack } else { Kind::Json }
    })
}

/// One message as an object, with whatever attachments it brings.
fn alone(op: &Op<'_>, encoding: Encoding) -> Result<Message, Fault> {
    let kind = with_frames(op, encoding);
    let values: usize = op.values().map(|raw| raw.bytes.0.len()).sum();
    let (mut out, mut frames) = (Vec::with_capacity(values + OBJECT), Frames::new());
    if !carries(op, encoding) {
        write::put(op, kind, false, &mut out, &mut frames)?;
        if frames.is_empty() {
            return Ok(Message { body: out.into(), frames });
        }
        out.clear();
        frames.clear();
    }
    write::put(op, kind, true, &mut out, &mut frames)?;
    Ok(Message { body: out.into(), frames })
}

/// One message in a frame of its own, for a peer that takes no batches.
pub fn lone<'m>(encoding: Encoding, message: impl Into<Outgoing<'m>>) -> Result<Message, Fault> {
    let op = message.into().op()?;
    if encoding != Encoding::Bincode || carries(&op, encoding) {
        return alone(&op, encoding);
    }
    let mut out = Vec::new();
    binary::open(&mut out);
    binary::put(&op, &mut out);
    binary::close(&mut out, 0, 1);
    Ok(Message { body: out.into(), frames: Frames::new() })
}

/// All outcomes of a REQ peer's batch as one array, with the attachments of all of them.
///
/// A fault comes with the index of the reply that has it: put an error in its place and try again.
pub fn outcomes(encoding: Encoding, replies: &[Reply]) -> Result<Message, (usize, Fault)> {
    let ops: Vec<Op<'_>> = replies.iter().map(reply::to_op).collect();
    let carrying = ops.iter().find(|op| carries(op, encoding));
    if let (Encoding::Bincode, None) = (encoding, carrying) {
        let mut out = Vec::new();
        binary::open(&mut out);
        ops.iter().for_each(|op| binary::put(op, &mut out));
        binary::close(&mut out, 0, ops.len() as u64);
        return Ok(Message { body: out.into(), frames: Frames::new() });
    }
    let kind = match carrying {
        Some(op) => with_frames(op, encoding),
        None => encoding.kind().unwrap_or(Kind::Json),
    };
    let plain = array(&ops, kind, carrying.is_some())?;
    if plain.frames.is_empty() || carrying.is_some() { Ok(plain) } else { array(&ops, kind, true) }
}

fn array(ops: &[Op<'_>], kind: Kind, quoting: bool) -> Result<Message, (usize, Fault)> {
    let encoding = if kind == Kind::MsgPack { Encoding::MsgPack } else { Encoding::Json };
    let mut batch = Batch::new(encoding);
    let mut frames = Frames::new();
    for (index, op) in ops.iter().enumerate() {
        batch.open();
        write::put(op, kind, quoting, &mut batch.out, &mut frames)
            .map_err(|fault| (index, fault))?;
        batch.items += 1;
    }
    if batch.items == 0 {
        batch.open();
    }
    close(encoding, batch.items, &mut batch.out);
    Ok(Message { body: batch.out.into(), frames })
}
