//! The ops of topics.

use mpreg_patterns::values::Frames;

use super::super::op::{EventOp, Past, PublishOp};
use super::{Fault, Op, Raw, Target, Writer, append_value};

impl Writer<'_> {
    /// An op of topics.
    pub(super) fn of_topics(&mut self, op: &Op<'_>) -> Result<(), Fault> {
        match op {
            Op::Publish(op) => self.publish(op)?,
            Op::Event(op) => self.event(op)?,
            Op::Published { id, message } => {
                self.field("id", id.as_str());
                self.ulid("message", Some(*message));
                self.field("durability", "memory");
            }
            Op::Subscribe { id, patterns, credit, replay } => {
                self.text("id", id.as_ref());
                self.raw("patterns", patterns.as_ref())?;
                self.number("credit", credit.map(u64::from));
                self.replay(*replay);
            }
            Op::Subscribed { id, epoch, patterns, credit } => {
                self.text("id", id.as_ref());
                self.number("epoch", Some(*epoch));
                self.number("patterns", Some(u64::from(*patterns)));
                self.number("credit", credit.map(u64::from));
            }
            Op::Unsubscribe { id, patterns } => {
                self.text("id", id.as_ref());
                self.raw("patterns", patterns.as_ref())?;
            }
            Op::Ack { events } => self.number("events", Some(u64::from(*events))),
            _ => {}
        }
        Ok(())
    }

    fn publish(&mut self, op: &PublishOp<'_>) -> Result<(), Fault> {
        self.field("id", op.id.as_str());
        self.field("topic", op.topic.as_str());
        self.raw("payload", Some(&op.payload))?;
        self.headers(op.headers.as_ref())?;
        self.flag("confirm", (!op.confirm).then_some(false));
        Ok(())
    }

    fn event(&mut self, op: &EventOp<'_>) -> Result<(), Fault> {
        self.field("pattern", op.pattern.as_str());
        self.field("topic", op.topic.as_str());
        self.number("seq", Some(op.seq));
        self.number("missed", Some(op.missed).filter(|missed| *missed > 0));
        self.ulid("message", Some(op.message));
        self.raw("payload", Some(&op.payload))?;
        self.headers(op.headers.as_ref())
    }

    /// Headers, in which nothing is a tag: they go into a message with attachments as they are.
    pub(super) fn headers(&mut self, raw: Option<&Raw<'_>>) -> Result<(), Fault> {
        let Some(value) = raw.and_then(|raw| raw.value) else { return Ok(()) };
        self.key("headers");
        let (to, out, mut frames) = (self.kind, &mut *self.out, Frames::new());
        append_value(value, &[], Target { to, quoting: false, out, frames: &mut frames })?;
        if frames.is_empty() {
            return Ok(());
        }
        let why = "bytes in headers";
        Err(Fault::Unencodable { step: None, path: Box::default(), why })
    }

    fn replay(&mut self, replay: Option<Past>) {
        let (key, number) = match replay {
            None => return,
            Some(Past::All) => return self.field("replay", "all"),
            Some(Past::Seq(seq)) => ("from_seq", seq),
            Some(Past::Ms(ms)) => ("since_ms", ms),
            Some(Past::Last(last)) => ("last", u64::from(last)),
        };
        self.key("replay");
        let open = self.open();
        self.number(key, Some(number));
        self.close(&open);
    }
}
