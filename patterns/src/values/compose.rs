//! Values built from others: references replaced, attachments renumbered, lookalikes quoted.
//!
//! A peer reads `$frame` and `$lit` only in a message that came with attachments. So the same data
//! is written in two ways: as it is into a message without, and in a `$lit` where it looks like a
//! tag into a message with some. What was substituted is never looked into for references.

use bytes::Bytes;

use super::fault::Fault;
use super::tags::{Mark, What, frame_marks};
use super::transcode::{Emission, put_frame_tag};
use super::{Body, Frames, Kind, Value, pointer};

/// Whether a message that holds `body` has attachments, unless both ends speak bincode.
#[must_use]
pub fn carries_frames(body: &Body) -> bool {
    body.value.kind == Kind::Bytes || !body.frames.is_empty()
}

/// Where a value goes: a larger message that is being written.
///
/// A value may bring the message's first attachments, by what [`carries_frames`] sees and by bytes
/// of MessagePack that go into JSON: if `frames` is not empty afterwards and `quoting` was not set,
/// write the message again with it set.
#[derive(Debug)]
pub struct Target<'o> {
    /// The encoding of the message: JSON or MessagePack.
    pub to: Kind,
    /// Whether the message has attachments, so that its reader reads tags.
    pub quoting: bool,
    /// The message so far.
    pub out: &'o mut Vec<u8>,
    /// Its attachments so far.
    pub frames: &'o mut Frames,
}

/// Appends a whole body, checked, to a larger message. See [`Target`] for what the others mean.
pub fn append(
    body: &Body,
    to: Kind,
    quoting: bool,
    out: &mut Vec<u8>,
    frames: &mut Frames,
) -> Result<(), Fault> {
    append_value(&body.value, &body.frames, Target { to, quoting, out, frames })
}

/// Appends a whole value, whose tags name `own` if there are any, checked, to a larger message.
pub fn append_value(value: &Value, own: &[Bytes], target: Target<'_>) -> Result<(), Fault> {
    let Target { to, quoting, out, frames } = target;
    if value.kind == Kind::Bytes {
        frames.push(value.bytes.clone());
        put_frame_tag(to, frames.len(), out);
        return Ok(());
    }
    let own = (!own.is_empty()).then_some(own);
    let marks = if own.is_some() || quoting { frame_marks(value) } else { Ok(Vec::new()) };
    let marks = marks.map_err(Fault::in_value)?;
    let (source, from, checked) = (&value.bytes[..], value.kind, value.is_checked());
    let emission = Emission { source, from, checked, to, marks: &marks, own, quoting, out, frames };
    emission.whole().map_err(Fault::in_value)
}

/// Appends what the pointer `at` names in `body`.
fn append_part(body: &Body, at: Option<&str>, target: Target<'_>) -> Result<(), Fault> {
    let Some(path) = at else { return append_value(&body.value, &body.frames, target) };
    let place = pointer::locate_in(body, path).map_err(Fault::in_value)?;
    let own = if place.quoted { &[] } else { &body.frames[..] };
    let bytes = body.value.bytes.slice(place.range);
    append_value(&Value::new(body.value.kind, bytes), own, target)
}

/// Builds `value` with what its `marks` name in their places, in the encoding it has.
///
/// `own_frames` are the attachments its own `$frame` tags name: without any, those are data.
/// `get` yields the result of a step. Attachments are appended to `out_frames`, whose places are
/// the new numbers. `quoting` is what [`Target`] says about it; [`arguments`] finds it out.
pub fn compose<'b>(
    value: &Value,
    marks: &[Mark],
    own_frames: &[Bytes],
    get: &mut dyn FnMut(u32) -> &'b Body,
    quoting: bool,
    out_frames: &mut Frames,
) -> Result<Value, Fault> {
    if marks.is_empty() {
        return Ok(value.clone());
    }
    let mut out = Vec::with_capacity(value.bytes.len() + 64 * marks.len().min(64));
    let mut from = 0;
    for mark in marks {
        out.extend_from_slice(&value.bytes[from..mark.start as usize]);
        from = mark.end as usize;
        match &mark.what {
            What::Ref { step, at } => {
                let frames = &mut *out_frames;
                let target = Target { to: value.kind, quoting, out: &mut out, frames };
                append_part(get(*step), at.as_deref(), target)
                    .map_err(|fault| fault.of_step(*step))?;
            }
            What::Frame(number) if !own_frames.is_empty() => {
                let index = (*number as usize).wrapping_sub(1);
                let Some(frame) = own_frames.get(index) else {
                    return Err(Fault::BadFrame(format!("frame {number} did not come").into()));
                };
                out_frames.push(frame.clone());
                put_frame_tag(value.kind, out_frames.len(), &mut out);
            }
            What::Frame(_) => put_data(value, mark.start, mark.end, quoting, &mut out)?,
            What::Lit { start, end } => put_data(value, *start, *end, quoting, &mut out)?,
        }
    }
    out.extend_from_slice(&value.bytes[from..]);
    Ok(Value::new(value.kind, out.into()))
}

/// Writes a part of `value` so that whoever reads the message sees it as it is.
fn put_data(
    value: &Value,
    start: u32,
    end: u32,
    quoting: bool,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let bytes = value.bytes.slice(start as usize..end as usize);
    let body = Body { value: Value::new(value.kind, bytes), frames: Frames::new() };
    append(&body, value.kind, quoting, out, &mut Frames::new())
}

/// The arguments of one run, with the attachments both name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// By position.
    pub args: Option<Value>,
    /// By name.
    pub kwargs: Option<Value>,
    /// From 1.
    pub frames: Frames,
}

/// A value to build and what was found in it.
pub type Template<'t> = Option<(&'t Value, &'t [Mark])>;

/// Builds the arguments of one run: quoted if, and only if, they turn out to have attachments.
pub fn arguments<'b>(
    args: Template<'_>,
    kwargs: Template<'_>,
    own_frames: &[Bytes],
    get: &mut dyn FnMut(u32) -> &'b Body,
) -> Result<Arguments, Fault> {
    let mut build = |quoting: bool| -> Result<Arguments, Fault> {
        let mut frames = Frames::new();
        let mut part = |template: Template<'_>| match template {
            None => Ok(None),
            Some((value, marks)) => {
                compose(value, marks, own_frames, get, quoting, &mut frames).map(Some)
            }
        };
        Ok(Arguments { args: part(args)?, kwargs: part(kwargs)?, frames })
    };
    let plain = build(false)?;
    if plain.frames.is_empty() { Ok(plain) } else { build(true) }
}
