//! Frames to items: one refusal for the whole frame, or each item with its own outcome.
//!
//! JSON and MessagePack are read to their end before the first item is handed out, so that no part
//! of a frame that cannot be read has happened. A bincode batch, which only our own peers write, is
//! handed out op by op: those before a fault have happened.

use bytes::Bytes;
use mpreg_patterns::base::{Code, Limits, Refusal};
use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::values::{Cursor, Fault, Frames, Kind, Shape};

use super::op::Op;
use super::request::{Context, Incoming, checked};
use super::{Bad, Decoded, Encoding, Item, attach, binary, read};

/// The encoding a frame says it has by its first byte that counts, and whether it is a batch.
#[must_use]
pub fn detect(body: &[u8]) -> Option<(Encoding, bool)> {
    match body.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))? {
        b'{' => Some((Encoding::Json, false)),
        b'[' => Some((Encoding::Json, true)),
        0x80..=0x8F | 0xDE | 0xDF => Some((Encoding::MsgPack, false)),
        0x90..=0x9F | 0xDC | 0xDD => Some((Encoding::MsgPack, true)),
        &binary::FIRST => Some((Encoding::Bincode, true)),
        _ => None,
    }
}

/// Decodes what a peer sent to the broker.
///
/// Each item goes to `sink` in its place. An error means that none did, and is answered without
/// an id; in a bincode batch, those before the fault did.
pub fn decode(
    body: &Bytes,
    frames: Frames,
    limits: &Limits,
    sink: &mut dyn FnMut(Item<Request>),
) -> Result<Decoded, Refusal> {
    decode_any(body, &frames, limits, sink)
}

/// Decodes what the broker sent to a peer.
pub fn decode_reply(
    body: &Bytes,
    frames: Frames,
    limits: &Limits,
    sink: &mut dyn FnMut(Item<Reply>),
) -> Result<Decoded, Refusal> {
    decode_any(body, &frames, limits, sink)
}

fn decode_any<M: Incoming>(
    body: &Bytes,
    frames: &Frames,
    limits: &Limits,
    sink: &mut dyn FnMut(Item<M>),
) -> Result<Decoded, Refusal> {
    if body.len() > limits.envelope_bytes {
        let text = format!("{} bytes; {} at most", body.len(), limits.envelope_bytes);
        return Err(Refusal::new(Code::TooLarge, text));
    }
    attach::check(frames, limits)?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = body.iter().position(|byte| !blank(byte)).unwrap_or(body.len());
    let binary = body.get(start) == Some(&binary::FIRST);
    let reading = Reading { context: Context { body, limits, binary }, frames, start };
    match body.get(start) {
        Some(b'{') => reading.lone(Kind::Json, sink),
        Some(b'[') => reading.batch(Kind::Json, sink),
        Some(0x80..=0x8F | 0xDE | 0xDF) => reading.lone(Kind::MsgPack, sink),
        Some(0x90..=0x9F | 0xDC | 0xDD) => reading.batch(Kind::MsgPack, sink),
        Some(&binary::FIRST) => reading.binary(sink),
        Some(byte) => Err(bad_encoding(format!("no encoding begins with the byte 0x{byte:02x}"))),
        None => Err(bad_encoding("the frame is empty".to_owned())),
    }
}

fn bad_encoding(text: String) -> Refusal {
    Refusal::new(Code::BadEncoding, text)
}

fn unreadable(fault: Fault) -> Refusal {
    match fault {
        // A key that is no string, where only objects with names make sense.
        Fault::BadValue(text) => bad_encoding(text.into()),
        other => other.refusal(),
    }
}

const fn encoding(kind: Kind) -> Encoding {
    match kind {
        Kind::MsgPack => Encoding::MsgPack,
        Kind::Json | Kind::Bytes => Encoding::Json,
    }
}

/// One frame being read.
struct Reading<'r> {
    context: Context<'r>,
    frames: &'r Frames,
    /// Where the first byte that counts stands.
    start: usize,
}

impl<'r> Reading<'r> {
    fn cursor(&self, kind: Kind) -> Cursor<'r> {
        let mut cursor = Cursor::new(kind, self.context.body, self.context.limits.depth);
        cursor.jump(self.start);
        cursor
    }

    /// Reads one object that stands at the cursor.
    fn object<M: Incoming>(&self, cursor: &mut Cursor<'r>) -> Result<Result<M, Box<Bad>>, Refusal> {
        let then = |op: &Op<'_>| checked(op, &self.context);
        let read = read::object(cursor, self.context.limits, then).map_err(unreadable)?;
        Ok(read.map_err(|mut bad| {
            // Whatever else is wrong with it.
            if let Some(op) = bad.op.as_deref().filter(|op| !M::says(op)) {
                bad.refusal = Refusal::brokers_own(op);
            }
            bad
        }))
    }

    fn lone<M: Incoming>(
        &self,
        kind: Kind,
        sink: &mut dyn FnMut(Item<M>),
    ) -> Result<Decoded, Refusal> {
        let mut cursor = self.cursor(kind);
        let mut result = self.object::<M>(&mut cursor)?;
        cursor.end().map_err(unreadable)?;
        if !self.frames.is_empty()
            && let Ok(message) = &mut result
            && let Err(fault) = attach::hand(message, self.frames)
        {
            result = Err(message.bad(fault.refusal()));
        }
        sink(Item { index: None, result });
        Ok(Decoded { encoding: encoding(kind), batch: false, items: 1 })
    }

    fn batch<M: Incoming>(
        &self,
        kind: Kind,
        sink: &mut dyn FnMut(Item<M>),
    ) -> Result<Decoded, Refusal> {
        let mut cursor = self.cursor(kind);
        let mut items = Vec::new();
        let mut array = cursor.array().map_err(unreadable)?;
        while cursor.item(&mut array).map_err(unreadable)? {
            self.room(items.len() as u64 + 1)?;
            let result = if cursor.peek().map_err(unreadable)? == Shape::Map {
                self.object(&mut cursor)?
            } else {
                cursor.skip().map_err(unreadable)?;
                let refusal = Refusal::new(Code::BadField, "an item of a batch is an object");
                Err(Box::new(Bad { id: None, op: None, run: None, refusal }))
            };
            items.push(Item { index: Some(items.len() as u32), result });
        }
        cursor.end().map_err(unreadable)?;
        if !self.frames.is_empty() {
            attach::share(&mut items, self.frames)?;
        }
        deliver(encoding(kind), items, sink)
    }

    fn binary<M: Incoming>(&self, sink: &mut dyn FnMut(Item<M>)) -> Result<Decoded, Refusal> {
        if !self.frames.is_empty() {
            let text = "a bincode batch has no attachments";
            return Err(Refusal::new(Code::BadFrame, text));
        }
        let (mut ops, count) = binary::Ops::open(&self.context.body[self.start..])?;
        self.room(count)?;
        if count == 0 {
            return Err(empty());
        }
        // Handed on one by one: a list of all would go through memory twice.
        let mut items = 0;
        while ops.more()? {
            let index = Some(items);
            items += 1;
            if let Some(message) = M::plain(&mut ops, &self.context) {
                sink(Item { index, result: Ok(message) });
            } else {
                sink(Item { index, result: checked(&ops.op()?, &self.context) });
            }
        }
        Ok(Decoded { encoding: Encoding::Bincode, batch: true, items })
    }

    /// Checks that a batch may have so many items.
    fn room(&self, items: u64) -> Result<(), Refusal> {
        let most = self.context.limits.batch_items as u64;
        if items > most {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("a batch holds {most} items at most"),
            ));
        }
        Ok(())
    }
}

fn empty() -> Refusal {
    Refusal::new(Code::EmptyBatch, "the batch has no items")
}

fn deliver<M>(
    encoding: Encoding,
    items: Vec<Item<M>>,
    sink: &mut dyn FnMut(Item<M>),
) -> Result<Decoded, Refusal> {
    if items.is_empty() {
        return Err(empty());
    }
    let count = items.len() as u32;
    items.into_iter().for_each(sink);
    Ok(Decoded { encoding, batch: true, items: count })
}
