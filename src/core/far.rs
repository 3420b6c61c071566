//! Other brokers among the peers: what is for them goes to the links, what they say to the rules.

use mpreg_patterns::base::{PeerId, Time};
use mpreg_patterns::node::{self, Envelope};
use mpreg_sockets::envelope::Encoding;
use mpreg_sockets::router::{Prefix, Sent};
use mpreg_sockets::session::Parcel;
use smol_str::SmolStr;

use super::{Core, Way};

impl Core {
    /// Makes room among the peers for a broker that can be reached. There are few of them, so the
    /// bound on peers is not theirs.
    pub(super) fn reached(&mut self, now: Time, node: &SmolStr) {
        let slot = self.take_slot(Way::Far);
        let Some(peer) = self.peers[slot as usize].as_mut() else { return };
        peer.session.speak(Encoding::Bincode, true);
        let joined = node::Input::Joined { node: node.clone(), peer: peer.id };
        self.node.handle(now, joined, &mut self.out);
    }

    /// A broker can be reached no longer.
    pub(super) fn parted(&mut self, now: Time, id: PeerId) {
        if self.peers[id.slot as usize].as_ref().is_some_and(|peer| peer.id == id) {
            self.gone(now, id.slot);
        }
    }

    /// Reads what another broker says.
    pub(super) fn received(&mut self, now: Time, id: PeerId, envelope: &Envelope) {
        if self.peers[id.slot as usize].as_ref().is_some_and(|peer| peer.id == id) {
            let Envelope { body, frames } = envelope;
            self.message(now, id.slot, false, Prefix::None, body, frames.clone());
        }
    }

    /// Hands what is for another broker to the rules, which know the way.
    pub(super) fn carry(&mut self, now: Time, peer: PeerId, parcel: &Parcel) -> Sent {
        if !self.node.has_room(peer) {
            return Sent::Blocked;
        }
        let envelope = parcel.envelope();
        self.node.handle(now, node::Input::Carry { peer, envelope }, &mut self.out);
        Sent::Done
    }
}
