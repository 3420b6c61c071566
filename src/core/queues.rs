//! The store, and what PUSH sockets send.

use mpreg_patterns::base::{Refusal, Time};
use mpreg_patterns::node;
use mpreg_patterns::ops::Delivered;
use mpreg_sockets::inlet::Received;

use super::{BYTES_PER_TURN, Core, MESSAGES_PER_TURN};

/// What the store tells that is heard in one turn: a piece of a lane may be among it.
const TOLD_PER_TURN: usize = 64;

impl Core {
    /// Hears what the store tells. True when there may be more.
    pub(super) fn read_store(&mut self, now: Time) -> bool {
        for _ in 0..TOLD_PER_TURN {
            let Some(told) = self.store.told() else { return false };
            self.node.handle(now, node::Input::Stored(told), &mut self.out);
            self.encode(now);
        }
        true
    }

    /// Reads what PUSH sockets have sent, up to a bound. True when more may be waiting.
    pub(super) fn read_pushers(&mut self, now: Time) -> bool {
        if self.node.awaits_disk() {
            // The store rings when it has come further.
            return false;
        }
        let Self { push, node, out, traffic, .. } = self;
        let read = push.receive_some(MESSAGES_PER_TURN, BYTES_PER_TURN as usize, |received| {
            traffic.pushed_in += 1;
            let input = match received {
                Received::Event(event) => node::Input::Push { event },
                Received::Refused { topic, refusal } => {
                    node::Input::Refused { endpoint: "push", topic, refusal }
                }
            };
            node.handle(now, input, out);
        });
        self.encode(now);
        read.unwrap_or_else(|error| {
            log::error!("reading the push endpoint failed: {error}");
            false
        })
    }

    /// A message that its consumer's connection does not take.
    pub(super) fn returned(&mut self, now: Time, delivered: &Delivered, refusal: Option<Refusal>) {
        let input = node::Input::Returned { id: delivered.id, refusal };
        self.node.handle(now, input, &mut self.out);
    }
}
