//! An event that many peers get is written once.

use std::sync::Arc;

use mpreg_patterns::base::Refusal;
use mpreg_patterns::ops::{Delivery, Event, Reply};
use smol_str::SmolStr;

use super::{Session, refuse};
use crate::envelope::{self, Encoding, Message};

/// The event that was written last, for the next peer that gets the same one.
#[derive(Debug, Default)]
pub struct LastEvent(Option<Written>);

#[derive(Debug)]
struct Written {
    event: Arc<Event>,
    pattern: SmolStr,
    seq: u64,
    missed: u64,
    encoding: Encoding,
    message: Message,
}

impl Written {
    fn is(&self, delivery: &Delivery, encoding: Encoding) -> bool {
        Arc::ptr_eq(&self.event, &delivery.event)
            && (self.seq, self.missed) == (delivery.seq, delivery.missed)
            && self.encoding == encoding
            && self.pattern == delivery.pattern
    }
}

impl LastEvent {
    /// Lets go of it.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    fn message(&mut self, reply: &Reply, of: &Delivery, to: Encoding) -> Result<Message, Refusal> {
        if let Some(written) = self.0.as_ref().filter(|written| written.is(of, to)) {
            return Ok(written.message.clone());
        }
        let message = envelope::lone(to, reply).map_err(refuse)?;
        self.0 = Some(Written {
            event: of.event.clone(),
            pattern: of.pattern.clone(),
            seq: of.seq,
            missed: of.missed,
            encoding: to,
            message: message.clone(),
        });
        Ok(message)
    }
}

impl Session {
    /// As [`push`](Self::push). An event in a frame of its own is the same message for all peers
    /// that hold its pattern, so it is written for the first of them alone.
    pub fn push_sharing(&mut self, reply: &Reply, last: &mut LastEvent) -> Result<(), Refusal> {
        match reply {
            Reply::Event(delivery)
                if !self.is_req && !self.coalesces && Arc::strong_count(&delivery.event) > 1 =>
            {
                let message = last.message(reply, delivery, self.batch.encoding())?;
                self.ready(message, 1);
                Ok(())
            }
            _ => self.push(reply),
        }
    }
}
