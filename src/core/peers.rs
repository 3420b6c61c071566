//! Connections that come and go, and what stands for other brokers among them.

use mpreg_patterns::base::{Out, PeerId, Time};
use mpreg_patterns::node::{self, error_reply};
use mpreg_patterns::outbox;
use mpreg_sockets::envelope;
use mpreg_sockets::router::Prefix;
use mpreg_sockets::session::Session;

use super::Core;
use crate::web::{ConnectionId, Line};

/// How a peer is reached.
pub(super) enum Way {
    /// Through the door, under its routing id.
    Door(Box<[u8]>),
    /// Over WebSocket or HTTP.
    Web(ConnectionId, Line),
    /// It stands for another broker.
    Far,
}

pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) way: Way,
    pub(super) session: Session,
    pub(super) dirty: bool,
}

impl Core {
    /// Makes room for a peer, if there is any.
    pub(super) fn connected(&mut self, routing_id: &[u8]) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let slot = self.take_slot(Way::Door(routing_id.into()));
        self.by_routing_id.insert(routing_id.into(), slot);
        Some(slot)
    }

    pub(super) fn take_slot(&mut self, way: Way) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.generations.push(0);
            self.peers.len() as u32 - 1
        });
        self.generations[slot as usize] += 1;
        let id = PeerId { slot, generation: self.generations[slot as usize] };
        let session = Session::default();
        self.peers[slot as usize] = Some(Box::new(Peer { id, way, session, dirty: false }));
        slot
    }

    /// Answers a peer there is no room for.
    pub(super) fn turn_away(&mut self, routing_id: &[u8], prefix: Prefix) {
        let reply = error_reply(None, None, self.no_room());
        self.stirred.door = true;
        if let Ok(message) = envelope::lone(envelope::Encoding::Json, &reply) {
            let _ = self.router.send(routing_id, prefix, &message.body, &message.frames);
        }
    }

    pub(super) fn disconnected(&mut self, now: Time, routing_id: &[u8]) {
        if let Some(slot) = self.by_routing_id.get(routing_id).copied() {
            self.gone(now, slot);
        }
    }

    /// Ends a connection's life: what it offered and asked for goes with it.
    pub(super) fn gone(&mut self, now: Time, slot: u32) {
        let Some(mut peer) = self.peers[slot as usize].take() else { return };
        match &peer.way {
            Way::Door(routing_id) => _ = self.by_routing_id.remove(routing_id),
            Way::Web(connection, _) => self.web.forget(*connection),
            Way::Far => {}
        }
        self.free.push(slot);
        self.ended[0] += 1;
        let mut unsent = peer.session.unsent();
        // Not into the buffer of sends: what waits there for other peers stays.
        let mut left = Out::new();
        self.outbox.handle(now, outbox::Input::Gone { peer: peer.id }, &mut left);
        for output in left.drain() {
            if let outbox::Output::Unsent { runs, .. } = output {
                unsent.extend(runs);
            }
        }
        let gone = node::Input::Gone { peer: peer.id, unsent };
        self.node.handle(now, gone, &mut self.out);
    }
}
