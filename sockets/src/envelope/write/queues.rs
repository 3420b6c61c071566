//! The ops of queues.

use mpreg_patterns::ops::Durability;

use super::super::op::{DeliverOp, Ids, SendOp, SentOp, Text};
use super::{Fault, Op, RunId, Writer};

impl Writer<'_> {
    /// An op of queues.
    pub(super) fn of_queues(&mut self, op: &Op<'_>) -> Result<(), Fault> {
        match op {
            Op::Send(op) => self.send(op)?,
            Op::Deliver(op) => self.deliver(None, op)?,
            Op::DeliverFor(group, op) => self.deliver(Some(group), op)?,
            Op::Sent(op) => self.sent(op),
            Op::SentNear(op) => {
                self.sent(op);
                self.field("at", "near");
            }
            Op::Consume { id, queue, group, credit } => {
                self.text("id", id.as_ref());
                self.field("queue", queue.as_str());
                self.text("group", group.as_ref());
                self.number("credit", Some(u64::from(*credit)));
            }
            Op::Consumed { id, epoch, queue, group, credit } => {
                self.text("id", id.as_ref());
                self.number("epoch", Some(*epoch));
                self.field("queue", queue.as_str());
                self.text("group", group.as_ref());
                self.number("credit", Some(u64::from(*credit)));
            }
            Op::AckIds { id, ids } | Op::Extend { id, ids } => {
                self.text("id", id.as_ref());
                self.ids("ids", ids);
            }
            Op::Nack { id, ids, delay_ms, reason, dead } => {
                self.text("id", id.as_ref());
                self.ids("ids", ids);
                self.number("delay_ms", *delay_ms);
                self.text("reason", reason.as_ref());
                self.set("dead", *dead);
            }
            Op::Acked { id, ids, unknown } => {
                self.field("id", id.as_str());
                self.ids("ids", ids);
                if !unknown.0.is_empty() {
                    self.ids("unknown", unknown);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn send(&mut self, op: &SendOp<'_>) -> Result<(), Fault> {
        self.field("id", op.id.as_str());
        self.text("queue", op.queue.as_ref());
        self.text("topic", op.topic.as_ref());
        self.raw("payload", Some(&op.payload))?;
        self.headers(op.headers.as_ref())?;
        self.number("delay_ms", Some(op.delay_ms).filter(|ms| *ms > 0));
        self.priority(op.priority);
        self.text("key", op.key.as_ref());
        self.text("dedup", op.dedup.as_ref());
        self.flag("confirm", (!op.confirm).then_some(false));
        Ok(())
    }

    fn sent(&mut self, op: &SentOp<'_>) {
        let durability = if op.fsync { Durability::Fsync } else { Durability::Memory };
        self.field("id", op.id.as_str());
        self.ulid("message", Some(op.message));
        self.field("durability", durability.as_str());
        self.number("queues", Some(u64::from(op.queues)));
    }

    fn deliver(&mut self, group: Option<&Text<'_>>, op: &DeliverOp<'_>) -> Result<(), Fault> {
        self.field("queue", op.queue.as_str());
        self.text("group", group);
        self.ulid("id", Some(op.id));
        self.number("attempt", Some(u64::from(op.attempt)));
        self.ulid("message", Some(op.message));
        self.text("topic", Some(&op.topic).filter(|topic| !topic.as_str().is_empty()));
        self.text("key", op.key.as_ref());
        self.priority(op.priority);
        self.raw("payload", Some(&op.payload))?;
        self.headers(op.headers.as_ref())
    }

    fn priority(&mut self, priority: u8) {
        self.number("priority", Some(u64::from(priority)).filter(|priority| *priority > 0));
    }

    fn ids(&mut self, key: &'static str, ids: &Ids<'_>) {
        self.key(key);
        self.array(&ids.0, |writer, id: &RunId| {
            writer.string(id.text(&mut [0; 26]));
            Ok(())
        })
        .unwrap_or_default();
    }
}
