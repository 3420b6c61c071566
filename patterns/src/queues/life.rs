//! What is told of queues while somebody listens; nothing is made of it otherwise.

use serde::{Serialize, Serializer};
use smol_str::SmolStr;

use super::{Output, Queues};
use crate::base::{Out, Refusal, RunId};
use crate::store::Message;

/// Something that has happened to a queue, or to a message of it.
#[derive(Debug, Default, Serialize)]
pub struct Life {
    /// What, in a word.
    #[serde(skip)]
    pub event: &'static str,
    /// To which queue.
    pub queue: SmolStr,
    /// To the messages of which group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<SmolStr>,
    /// To which message.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_words")]
    pub message: Option<RunId>,
    /// Deliveries of it, this one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<SmolStr>,
    /// Words for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
    /// How many messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
}

fn in_words<S: Serializer>(id: &Option<RunId>, to: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => to.collect_str(id),
        None => to.serialize_none(),
    }
}

impl Queues {
    /// Says whether anybody listens to the life of queues.
    pub const fn listen(&mut self, heard: bool) {
        self.heard = heard;
    }

    /// Tells of a queue as a whole, and of how many messages.
    pub(super) fn tell_queue(
        &self,
        event: &'static str,
        queue: &str,
        messages: Option<u64>,
        out: &mut Out<Output>,
    ) {
        if self.heard {
            let life = Life { event, queue: queue.into(), messages, ..Life::default() };
            out.push(Output::Life(Box::new(life)));
        }
    }

    /// Tells whether a queue has taken a message.
    #[cold]
    pub(super) fn tell_taken(
        &self,
        queue: u32,
        message: RunId,
        refusal: Option<&Refusal>,
        out: &mut Out<Output>,
    ) {
        let queue = self.queues[queue as usize].name.clone();
        let mut life = Life { event: "enqueued", queue, message: Some(message), ..Life::default() };
        if let Some(refusal) = refusal {
            life.event = "refused";
            life.reason = Some(refusal.code.clone());
            life.note = Some((*refusal.message).into());
        }
        out.push(Output::Life(Box::new(life)));
    }

    /// Tells of a message in a line; `attempt` counts from 1, and is 0 where there was none.
    #[cold]
    pub(super) fn tell_message(
        &self,
        event: &'static str,
        line: u32,
        (message, attempt): (&Message, u32),
        (reason, note): (&str, &str),
        out: &mut Out<Output>,
    ) {
        let line = &self.lines[line as usize];
        let life = Life {
            event,
            queue: self.queues[line.queue as usize].name.clone(),
            group: line.group.clone(),
            message: Some(message.event.message),
            attempt: (attempt > 0).then_some(attempt),
            reason: (!reason.is_empty()).then(|| reason.into()),
            note: (!note.is_empty()).then(|| note.into()),
            messages: None,
        };
        out.push(Output::Life(Box::new(life)));
    }
}
