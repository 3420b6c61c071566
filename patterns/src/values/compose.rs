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

/// Appends a whole body, checked, to a larger message in the encoding `to` (JSON or MessagePack).
///
/// `quoting` tells whether the message has attachments. A body may bring the first ones, by what
/// [`carries_frames`] sees and by bytes of MessagePack that go into JSON: if `frames` was empty
/// before and is not afterwards, and `quoting` was not set, write the message again with it set.
pub fn append(
    body: &Body,
    to: Kind,
    quoting: bool,
    out: &mut Vec<u8>,
    frames: &mut Frames,
) -> Result<(), Fault> {
    put_body(body, None, Target { to, quoting, out, frames })
}

/// Where a substituted value goes.
struct Target<'o> {
    to: Kind,
    quoting: bool,
    out: &'o mut Vec<u8>,
    frames: &'o mut Frames,
}

fn put_body(body: &Body, at: Option<&str>, target: Target<'_>) -> Result<(), Fault> {
    let Target { to, quoting, out, frames } = target;
    let Body { value, frames: own } = body;
    if value.kind == Kind::Bytes {
        if let Some(path) = at.filter(|path| !path.is_empty()) {
            return Err(Fault::MissingPath {
                step: None,
                path: path.into(),
                reached: 0,
                found: "bytes",
            });
        }
        frames.push(value.bytes.clone());
        put_frame_tag(to, frames.len(), out);
        return Ok(());
    }
    let (mut part, mut tagged) = (value.clone(), !own.is_empty());
    if let Some(path) = at {
        let place = pointer::locate_in(body, path).map_err(Fault::in_value)?;
        part.bytes = value.bytes.slice(place.range);
        tagged &= !place.quoted;
    }
    let marks = if tagged || quoting { frame_marks(&part) } else { Ok(Vec::new()) };
    let marks = marks.map_err(Fault::in_value)?;
    let own = tagged.then_some(&own[..]);
    let source = &part.bytes[..];
    let emission =
        Emission { source, from: part.kind, to, marks: &marks, own, quoting, out, frames };
    emission.whole().map_err(Fault::in_value)
}

/// Builds `value` with what its `marks` name in their places, in the encoding it has.
///
/// `own_frames` are the attachments its own `$frame` tags name: without any, those are data.
/// `get` yields the result of a step. Attachments are appended to `out_frames`, whose places are
/// the new numbers. `quoting` is what [`append`] says about it; [`arguments`] finds it out.
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
                put_body(get(*step), at.as_deref(), target)
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
    Ok(Value { kind: value.kind, bytes: out.into() })
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
    let body = Body { value: Value { kind: value.kind, bytes }, frames: Frames::new() };
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
