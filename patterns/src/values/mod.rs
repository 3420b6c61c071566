//! Values as they cross the wire: bytes with a kind, never trees.
//!
//! A value is carried byte for byte within one encoding. Whatever has to look inside (a tag, a
//! pointer, another encoding) does so with a [`Cursor`], which walks the bytes once.
//!
//! In reading order: [`Cursor`] reads, [`find`] finds the tags in a value, [`locate`] follows a
//! pointer, [`compose()`] puts values into others, [`json_to_msgpack`] and its opposite convert,
//! [`compact()`] makes the JSON text that is stored, [`payload()`] that or bytes.
//! [`json`] and [`msgpack`] know their bytes; [`Fault`] is what all of them say about bad ones.
//!
//! Not here: what a reference means and when its step has run. No value is larger than 4 GiB.

mod compact;
mod compose;
mod cursor;
mod fault;
pub mod json;
pub mod msgpack;
mod payload;
mod pointer;
mod tags;
mod transcode;

#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;

pub use compact::compact;
pub use compose::{
    Arguments, Target, Template, append, append_value, arguments, carries_frames, compose,
};
pub use cursor::{ArrayState, Cursor, MapState, Shape};
pub use fault::Fault;
pub use payload::payload;
pub use pointer::{Place, locate, locate_in};
pub use tags::{Mark, Mode, VALUE_BYTES, What, check_frames, find};
pub use transcode::{json_to_msgpack, msgpack_to_json};

/// The encoding of a value's bytes. The numbers are on the wire, in the bincode batch.
///
/// It stands in every value, and half a word of it is moved in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// Bytes that nobody looks into.
    Bytes = 0,
    /// JSON text without space around it.
    Json = 1,
    /// MessagePack.
    MsgPack = 2,
}

/// One value, as it came.
#[derive(Clone, Debug)]
pub struct Value {
    /// How `bytes` are encoded.
    pub kind: Kind,
    /// The encoded value.
    pub bytes: Bytes,
    /// Whether every byte is known to be as the encoding wants it, so that nobody looks again.
    checked: Checked,
}

/// Beside the [`Kind`], as large as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Checked {
    No = 0,
    Yes = 1,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.bytes) == (other.kind, &other.bytes)
    }
}

impl Eq for Value {}

impl Value {
    /// A value that is checked when it is looked into, or goes into another.
    #[inline]
    #[must_use]
    pub const fn new(kind: Kind, bytes: Bytes) -> Self {
        Self { kind, bytes, checked: Checked::No }
    }

    /// A value every byte of which was checked as it was read.
    #[inline]
    #[must_use]
    pub const fn checked(kind: Kind, bytes: Bytes) -> Self {
        Self { kind, bytes, checked: Checked::Yes }
    }

    /// A value of JSON text without space around it.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self::new(Kind::Json, text.into())
    }

    /// A value of encoded MessagePack.
    pub fn msgpack(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::MsgPack, bytes.into())
    }

    /// The JSON text of something of the broker's own.
    ///
    /// # Panics
    /// Where JSON cannot hold it: a map whose keys are not text.
    #[must_use]
    pub fn from_serialize<T: Serialize + ?Sized>(of: &T) -> Self {
        let text = serde_json::to_vec(of).expect("the broker's own types are JSON");
        Self::checked(Kind::Json, text.into())
    }

    /// Nothing.
    #[must_use]
    pub const fn null() -> Self {
        Self::checked(Kind::Json, Bytes::from_static(b"null"))
    }

    fn is_checked(&self) -> bool {
        self.checked == Checked::Yes
    }

    /// Checks every byte of it, if nobody has.
    pub fn check(&self) -> Result<(), Fault> {
        if self.is_checked() {
            return Ok(());
        }
        let mut cursor = Cursor::of(self);
        cursor.skip().and_then(|_| cursor.end()).map_err(Fault::in_value)
    }
}

/// Binary attachments, named inside values as `{"$frame":n}` from 1.
pub type Frames = Vec<Bytes>;

/// A value with its attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The value.
    pub value: Value,
    /// What its `$frame` tags name.
    pub frames: Frames,
}

impl Body {
    /// A value without attachments.
    #[must_use]
    pub const fn plain(value: Value) -> Self {
        Self { value, frames: Frames::new() }
    }

    /// Bytes that nobody looks into.
    #[must_use]
    pub const fn bytes(bytes: Bytes) -> Self {
        Self::plain(Value::new(Kind::Bytes, bytes))
    }
}

/// A part of a frame that outlives it: shared if it is most of the frame, else copied, so that a
/// small value does not keep a large frame alive.
#[inline]
#[must_use]
pub fn share(frame: &Bytes, range: Range<usize>) -> Bytes {
    if range.len() * 4 >= frame.len() {
        frame.slice(range)
    } else {
        Bytes::copy_from_slice(&frame[range])
    }
}
