//! Peers over WebSocket and HTTP: another thread has their connections, this one their sessions.

use mpreg_patterns::base::{Code, Map, Refusal, Time, seeded};
use mpreg_patterns::node::{Envelope, error_reply};
use mpreg_sockets::envelope;
use mpreg_sockets::router::Prefix;

use super::peers::Way;
use super::{BYTES_PER_TURN, Core, ITEMS_PER_TURN, MESSAGES_PER_TURN};
use crate::broker::seed;
use crate::web::{Arrival, Arrivals, ConnectionId, Line};

/// The connections, and where they speak.
pub(super) struct Web {
    arrivals: Arrivals,
    slots: Map<ConnectionId, u32>,
}

impl Web {
    pub(super) fn new(arrivals: Arrivals) -> Self {
        Self { arrivals, slots: Map::with_hasher(seeded(seed())) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// One of them is over.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.slots.remove(&connection);
    }
}

impl Core {
    /// Reads what connections say, up to a bound. True when more may be waiting.
    pub(super) fn read_web(&mut self, now: Time) -> bool {
        self.web.arrivals.look();
        let enough = self.bytes_read + BYTES_PER_TURN;
        let enough_items = self.items_read + ITEMS_PER_TURN;
        for _ in 0..MESSAGES_PER_TURN {
            if self.bytes_read >= enough || self.items_read >= enough_items {
                return true;
            }
            match self.web.arrivals.next() {
                None => return false,
                Some(Arrival::Came(connection, line)) => self.came(connection, line),
                Some(Arrival::Said(connection, said, _room)) => self.said(now, connection, said),
                Some(Arrival::Gone(connection)) => {
                    if let Some(&slot) = self.web.slots.get(&connection) {
                        self.gone(now, slot);
                    }
                }
            }
        }
        true
    }

    fn came(&mut self, connection: ConnectionId, line: Line) {
        if self.is_full() {
            let reply = error_reply(None, None, self.no_room());
            if let Ok(message) = envelope::lone(envelope::Encoding::Json, &reply) {
                line.send(Envelope { body: message.body, frames: message.frames });
            }
            return;
        }
        let slot = self.take_slot(Way::Web(connection, line));
        self.web.slots.insert(connection, slot);
    }

    fn said(&mut self, now: Time, connection: ConnectionId, said: Envelope) {
        self.traffic.messages_in += 1;
        self.bytes_read += said.body.len() as u64;
        if let Some(&slot) = self.web.slots.get(&connection) {
            self.message(now, slot, false, Prefix::None, &said.body, said.frames);
        }
    }

    /// Whether no more peers are taken.
    pub(super) fn is_full(&self) -> bool {
        self.by_routing_id.len() + self.web.len() >= self.limits.peers
    }

    /// What is said to one peer too many.
    pub(super) fn no_room(&mut self) -> Refusal {
        self.traffic.peers_refused += 1;
        Refusal::new(Code::Busy, format!("{} peers are connected", self.limits.peers))
    }
}
