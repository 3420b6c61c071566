//! Attachments: which item's values name which, and what they are called there.
//!
//! Over a whole message attachments count from 1, across the items of a batch. Each item gets its
//! own, counted from 1 again. A message with attachments names each of them exactly once; without
//! any, nothing in it is a tag.

use bytes::Bytes;
use mpreg_patterns::base::{Code, Limits, Refusal};
use mpreg_patterns::values::{
    Body, Fault, Frames, Kind, Mark, Mode, Value, What, check_frames, compose, find,
};

use super::Item;
use super::request::{Incoming, Role};

/// Checks number and size of the attachments of one message.
pub(super) fn check(frames: &[Bytes], limits: &Limits) -> Result<(), Refusal> {
    if frames.len() > limits.attachments {
        let text = format!("{} attachments; {} at most", frames.len(), limits.attachments);
        return Err(Refusal::new(Code::TooLarge, text));
    }
    match frames.iter().position(|frame| frame.len() > limits.attachment_bytes) {
        Some(index) => {
            let most = limits.attachment_bytes;
            let text = format!("attachment {} is over {most} bytes", index + 1);
            Err(Refusal::new(Code::TooLarge, text))
        }
        None => Ok(()),
    }
}

/// Gives the only item of a message all of its attachments.
pub(super) fn hand<M: Incoming>(item: &mut M, frames: &Frames) -> Result<(), Fault> {
    let mut sets = 0;
    item.attach(&mut |_, _, _| {
        sets += 1;
        Ok(())
    })?;
    if sets != 1 {
        let mut share = Share::new(frames);
        item.attach(&mut |role, values, own| share.set(role, values, own))?;
        return share.all_named();
    }
    item.attach(&mut |role, values, own| {
        if role != Role::Steps {
            let marks = marks_of(values)?;
            check_frames(marks.iter().flatten(), frames.len())?;
        }
        own.clone_from(frames);
        unwrap(role, values, own)
    })
}

/// Shares the attachments of a message out among its items.
pub(super) fn share<M: Incoming>(items: &mut [Item<M>], frames: &Frames) -> Result<(), Refusal> {
    let mut share = Share::new(frames);
    let mut bad = false;
    for item in items {
        if let Ok(message) = &mut item.result
            && let Err(fault) =
                message.attach(&mut |role, values, own| share.set(role, values, own))
        {
            item.result = Err(message.bad(fault.refusal()));
        }
        bad |= item.result.is_err();
    }
    // What a bad item named is not known.
    if bad { Ok(()) } else { share.all_named().map_err(|fault| fault.refusal()) }
}

fn marks_of(values: &[&mut Value]) -> Result<Vec<Vec<Mark>>, Fault> {
    values.iter().map(|value| find(value, Mode::FramesOnly, &mut |_| None)).collect()
}

/// An outcome or a payload that is one attachment and nothing else is bytes, whatever the encoding.
/// In a payload there is no other way to name one.
fn unwrap(role: Role, values: &mut [&mut Value], own: &mut Frames) -> Result<(), Fault> {
    let (Role::Outcome | Role::Payload, [value]) = (role, values) else { return Ok(()) };
    if own.len() == 1 {
        let marks = find(value, Mode::FramesOnly, &mut |_| None)?;
        if let [mark] = &marks[..]
            && matches!(mark.what, What::Frame(_))
            && mark.range() == (0..value.bytes.len())
            && let Some(bytes) = own.pop()
        {
            **value = Value::new(Kind::Bytes, bytes);
        }
    }
    if role == Role::Payload && !own.is_empty() {
        let text = "a payload is one attachment and nothing else, or names none";
        return Err(Fault::BadFrame(text.into()));
    }
    Ok(())
}

/// The attachments of a message, and which of them have been named.
struct Share<'f> {
    frames: &'f Frames,
    named: Vec<bool>,
}

impl<'f> Share<'f> {
    fn new(frames: &'f Frames) -> Self {
        Self { frames, named: vec![false; frames.len()] }
    }

    /// Gives `values` what they name, counted from 1, in the order it is named.
    fn set(
        &mut self,
        role: Role,
        values: &mut [&mut Value],
        own: &mut Frames,
    ) -> Result<(), Fault> {
        let mut marks = marks_of(values)?;
        let is_frame = |mark: &Mark| matches!(mark.what, What::Frame(_));
        let framed = marks.iter().flatten().any(is_frame);
        for mark in marks.iter().flatten() {
            self.name(mark)?;
        }
        // Values that name none go on in a message without attachments, in which nothing is quoted.
        // A graph reads `$lit` in any case.
        if framed || role == Role::Steps {
            marks.iter_mut().for_each(|marks| marks.retain(is_frame));
        }
        let none = Body::plain(Value::null());
        for (value, marks) in values.iter_mut().zip(&marks) {
            **value = compose(value, marks, self.frames, &mut |_| &none, framed, own)?;
        }
        unwrap(role, values, own)
    }

    fn name(&mut self, mark: &Mark) -> Result<(), Fault> {
        let What::Frame(number) = mark.what else { return Ok(()) };
        let place = (number as usize).checked_sub(1).and_then(|index| self.named.get_mut(index));
        let text = match place {
            Some(named @ false) => {
                *named = true;
                return Ok(());
            }
            Some(_) => format!("frame {number} is named twice"),
            None if number == 0 => "`$frame` takes a whole number from 1".to_owned(),
            None => format!("frame {number} is named, but {} came", self.frames.len()),
        };
        Err(Fault::BadFrame(text.into()))
    }

    fn all_named(&self) -> Result<(), Fault> {
        match self.named.iter().position(|named| !named) {
            Some(index) => Err(Fault::BadFrame(format!("frame {} is not named", index + 1).into())),
            None => Ok(()),
        }
    }
}
