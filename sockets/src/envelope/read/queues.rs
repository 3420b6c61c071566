//! The ops of queues, and `ack` of both kinds.

use std::borrow::Cow;

use mpreg_patterns::base::RunId;
use mpreg_patterns::values::Fault;

use super::super::op::{DeliverOp, Ids, SendOp, SentOp};
use super::super::queues::IDS_AT_ONCE;
use super::{Field, Fields, Op, Refusal, Shape, Text, missing, takes};

impl<'a> Fields<'a> {
    pub(super) fn send(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Send(SendOp {
            id: self.some_text(Field::Id)?,
            queue: self.text(Field::Queue)?,
            topic: self.text(Field::Topic)?,
            payload: self.payload()?,
            headers: self.raw(Field::Headers, Some(Shape::Map))?,
            delay_ms: self.number(Field::DelayMs)?.unwrap_or(0),
            priority: self.priority()?,
            key: self.text(Field::Key)?,
            dedup: self.text(Field::Dedup)?,
            confirm: self.flag(Field::Confirm)?.unwrap_or(true),
        }))
    }

    /// What is too large for the type is too large for the rule as well.
    fn priority(&self) -> Result<u8, Refusal> {
        let number = self.number(Field::Priority)?.unwrap_or(0);
        Ok(u8::try_from(number).unwrap_or(u8::MAX))
    }

    pub(super) fn sent(&self) -> Result<Op<'a>, Refusal> {
        let durability = self.some_text(Field::Durability)?;
        let fsync = match durability.as_str() {
            "fsync" => true,
            "memory" => false,
            _ => return Err(takes(Field::Durability, "\"memory\" or \"fsync\"")),
        };
        let near = self.text(Field::At)?.is_some_and(|at| at.as_str() == "near");
        let sent = SentOp {
            id: self.some_text(Field::Id)?,
            message: self.message()?,
            fsync,
            queues: self.small(Field::Queues)?.unwrap_or(0),
        };
        Ok(if near { Op::SentNear(sent) } else { Op::Sent(sent) })
    }

    pub(super) fn consume(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Consume {
            id: self.text(Field::Id)?,
            queue: self.some_text(Field::Queue)?,
            group: self.text(Field::Group)?,
            credit: self.small(Field::Credit)?.unwrap_or(1),
        })
    }

    pub(super) fn consumed(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Consumed {
            id: self.text(Field::Id)?,
            epoch: self.number(Field::Epoch)?.ok_or_else(|| missing(Field::Epoch))?,
            queue: self.some_text(Field::Queue)?,
            group: self.text(Field::Group)?,
            credit: self.small(Field::Credit)?.unwrap_or(0),
        })
    }

    pub(super) fn deliver(&self) -> Result<Op<'a>, Refusal> {
        let deliver = DeliverOp {
            queue: self.some_text(Field::Queue)?,
            id: self.ulid(Field::Id)?.ok_or_else(|| missing(Field::Id))?,
            attempt: self.small(Field::Attempt)?.unwrap_or(1),
            message: self.message()?,
            topic: self.text(Field::Topic)?.unwrap_or(Text::new("")),
            key: self.text(Field::Key)?,
            priority: self.priority()?,
            payload: self.payload()?,
            headers: self.raw(Field::Headers, Some(Shape::Map))?,
        };
        Ok(match self.text(Field::Group)? {
            Some(group) => Op::DeliverFor(group, deliver),
            None => Op::Deliver(deliver),
        })
    }

    pub(super) fn ack(&self) -> Result<Op<'a>, Refusal> {
        match (self.at(Field::Ids), self.small(Field::Events)?) {
            (None, Some(events)) => Ok(Op::Ack { events }),
            (Some(_), None) => {
                Ok(Op::AckIds { id: self.text(Field::Id)?, ids: self.ids(Field::Ids)? })
            }
            _ => {
                Err(super::super::request::bad_field("ids", "`ack` takes either `ids` or `events`"))
            }
        }
    }

    pub(super) fn nack(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Nack {
            id: self.text(Field::Id)?,
            ids: self.ids(Field::Ids)?,
            delay_ms: self.number(Field::DelayMs)?,
            reason: self.text(Field::Reason)?,
            dead: self.is_set(Field::Dead)?,
        })
    }

    pub(super) fn acked(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Acked {
            id: self.some_text(Field::Id)?,
            ids: self.ids(Field::Ids)?,
            unknown: self.ids(Field::Unknown)?,
        })
    }

    /// An array of ULIDs, empty where there is none.
    pub(super) fn ids(&self, field: Field) -> Result<Ids<'a>, Refusal> {
        let Some(mut cursor) = self.at(field) else { return Ok(Ids(Cow::Borrowed(&[]))) };
        let mut read = || {
            let mut ids = Vec::new();
            let mut array = cursor.array()?;
            while cursor.item(&mut array)? {
                let id = RunId::parse(&cursor.string()?).filter(|_| ids.len() < IDS_AT_ONCE);
                ids.push(id.ok_or(Fault::BadTag("no ULID, or too many"))?);
            }
            Ok(Ids(Cow::Owned(ids)))
        };
        let what = || format!("an array of 1 to {IDS_AT_ONCE} ULIDs");
        read().map_err(|_: Fault| takes(field, &what()))
    }
}
