//! The ops of topics.

use super::super::op::{EventOp, Past, PublishOp};
use super::{Field, Fields, Op, Raw, Refusal, Shape, Text, missing, takes};

/// What `replay` takes.
const REPLAY: &str = "\"all\", or an object with one of `from_seq`, `since_ms` and `last`";

impl<'a> Fields<'a> {
    pub(super) fn publish(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Publish(PublishOp {
            id: self.some_text(Field::Id)?,
            topic: self.some_text(Field::Topic)?,
            payload: self.payload()?,
            headers: self.raw(Field::Headers, Some(Shape::Map))?,
            confirm: self.flag(Field::Confirm)?.unwrap_or(true),
        }))
    }

    pub(super) fn payload(&self) -> Result<Raw<'a>, Refusal> {
        self.raw(Field::Payload, None)?.ok_or_else(|| missing(Field::Payload))
    }

    pub(super) fn message(&self) -> Result<u128, Refusal> {
        self.ulid(Field::Message)?.ok_or_else(|| missing(Field::Message))
    }

    pub(super) fn published(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Published { id: self.some_text(Field::Id)?, message: self.message()? })
    }

    pub(super) fn subscribe(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Subscribe {
            id: self.text(Field::Id)?,
            patterns: self.raw(Field::Patterns, Some(Shape::Array))?,
            credit: self.small(Field::Credit)?,
            replay: self.replay()?,
        })
    }

    fn replay(&self) -> Result<Option<Past>, Refusal> {
        let Some(mut cursor) = self.at(Field::Replay) else { return Ok(None) };
        let wrong = || takes(Field::Replay, REPLAY);
        if cursor.peek() == Ok(Shape::String) {
            let word = self.text(Field::Replay)?;
            let all = word.as_ref().map(Text::as_str) == Some("all");
            return if all { Ok(Some(Past::All)) } else { Err(wrong()) };
        }
        let of = Self::read(&mut cursor).map_err(|_| wrong())?;
        let inside = |mut refusal: Refusal| {
            let field = refusal.field.unwrap_or_default();
            refusal.field = Some(smol_str::format_smolstr!("replay/{field}"));
            refusal
        };
        let seq = of.number(Field::FromSeq).map_err(inside)?;
        let ms = of.number(Field::SinceMs).map_err(inside)?;
        let last = of.small(Field::Last).map_err(inside)?;
        match (seq, ms, last) {
            (Some(seq), None, None) => Ok(Some(Past::Seq(seq))),
            (None, Some(ms), None) => Ok(Some(Past::Ms(ms))),
            (None, None, Some(last)) => Ok(Some(Past::Last(last))),
            _ => Err(wrong()),
        }
    }

    pub(super) fn subscribed(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Subscribed {
            id: self.text(Field::Id)?,
            epoch: self.number(Field::Epoch)?.ok_or_else(|| missing(Field::Epoch))?,
            patterns: self.small(Field::Patterns)?.unwrap_or(0),
            credit: self.small(Field::Credit)?,
        })
    }

    pub(super) fn unsubscribe(&self) -> Result<Op<'a>, Refusal> {
        let patterns = self.raw(Field::Patterns, Some(Shape::Array))?;
        Ok(Op::Unsubscribe { id: self.text(Field::Id)?, patterns })
    }

    pub(super) fn event(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Event(EventOp {
            pattern: self.some_text(Field::Pattern)?,
            topic: self.some_text(Field::Topic)?,
            seq: self.number(Field::Seq)?.ok_or_else(|| missing(Field::Seq))?,
            missed: self.number(Field::Missed)?.unwrap_or(0),
            message: self.message()?,
            payload: self.payload()?,
            headers: self.raw(Field::Headers, Some(Shape::Map))?,
        }))
    }
}
