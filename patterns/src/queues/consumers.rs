//! Who takes messages, and what each has in hand.

use slab::Slab;

use super::lane::Entry;
use crate::base::{Ids, Map, PeerId, RunId, Time, TimerId};

const NONE: u32 = u32::MAX;

/// A connection that takes the messages of one line.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) peer: PeerId,
    /// The line's index.
    pub(super) line: u32,
    pub(super) credit: u32,
    /// Deliveries that its credit was used for.
    pub(super) in_hand: u32,
    /// Whether it stands in the line's turn.
    pub(super) queued: bool,
    /// When the first of its leases ends, as far as a timer is set.
    pub(super) timer: Option<TimerId>,
    oldest: u32,
    newest: u32,
}

/// A message in hand.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: RunId,
    pub(super) consumer: u32,
    pub(super) entry: Entry,
    /// Whether it used credit: what `mpreg.queue.next` takes does not.
    pub(super) on_credit: bool,
    pub(super) ends_ns: u64,
    prev: u32,
    next: u32,
}

#[derive(Debug)]
struct Peer {
    peer: PeerId,
    consumers: Vec<u32>,
    stalled: bool,
}

/// All consumers and all leases.
///
/// The leases of a consumer form a chain in the order in which they end, since all are as long: so
/// one timer is enough for each consumer, and settling one costs the same whatever is in hand.
#[derive(Debug)]
pub(super) struct Consumers {
    all: Slab<Consumer>,
    leases: Slab<Lease>,
    peers: Map<u32, Peer>,
    /// By the slots of their connections, and their lines.
    by_line: Map<(u32, u32), u32>,
    ids: Ids,
    /// Of the messages in hand.
    pub(super) bytes: u64,
}

impl Consumers {
    pub(super) fn new(seed: u64) -> Self {
        let (all, leases) = (Slab::new(), Slab::new());
        let (peers, by_line) = (Map::default(), Map::default());
        Self { all, leases, peers, by_line, ids: Ids::new(seed), bytes: 0 }
    }

    /// The consumer of a connection and a line, made if it is new. Whether it is.
    pub(super) fn of(&mut self, peer: PeerId, line: u32) -> (u32, bool) {
        let known = self.peers.entry(peer.slot).or_insert_with(|| Peer {
            peer,
            consumers: Vec::new(),
            stalled: false,
        });
        debug_assert_eq!(known.peer, peer, "an earlier life was not ended");
        if let Some(&at) = self.by_line.get(&(peer.slot, line)) {
            return (at, false);
        }
        let (credit, in_hand, queued, timer) = (0, 0, false, None);
        let (oldest, newest) = (NONE, NONE);
        let consumer = Consumer { peer, line, credit, in_hand, queued, timer, oldest, newest };
        let at = self.all.insert(consumer) as u32;
        known.consumers.push(at);
        self.by_line.insert((peer.slot, line), at);
        (at, true)
    }

    pub(super) fn get(&mut self, at: u32) -> Option<&mut Consumer> {
        self.all.get_mut(at as usize)
    }

    /// Whether a connection takes nothing for now.
    pub(super) fn is_stalled(&self, at: u32) -> bool {
        let peer = self.all.get(at as usize).and_then(|of| self.peers.get(&of.peer.slot));
        peer.is_some_and(|peer| peer.stalled)
    }

    /// Notes whether a connection takes anything. Its consumers.
    pub(super) fn stall(&mut self, peer: PeerId, stalled: bool) -> Vec<u32> {
        // It may consume later, and be stalled still.
        let known = self.peers.entry(peer.slot);
        let known = known.or_insert_with(|| Peer { peer, consumers: Vec::new(), stalled });
        if known.peer != peer {
            return Vec::new();
        }
        known.stalled = stalled;
        known.consumers.clone()
    }

    /// The consumers of a connection that has ended. They get nothing more, and are forgotten with
    /// [`Self::remove`] once they have nothing in hand.
    pub(super) fn gone(&mut self, peer: PeerId) -> Vec<u32> {
        if self.peers.get(&peer.slot).is_none_or(|known| known.peer != peer) {
            return Vec::new();
        }
        let known = self.peers.remove(&peer.slot);
        let consumers = known.map(|known| known.consumers).unwrap_or_default();
        for &at in &consumers {
            let consumer = &mut self.all[at as usize];
            consumer.credit = 0;
            self.by_line.remove(&(peer.slot, consumer.line));
        }
        consumers
    }

    /// Forgets a consumer, which must have nothing in hand.
    pub(super) fn remove(&mut self, at: u32) -> Option<Consumer> {
        let consumer = self.all.try_remove(at as usize)?;
        let slot = consumer.peer.slot;
        if let Some(known) = self.peers.get_mut(&slot).filter(|known| known.peer == consumer.peer) {
            known.consumers.retain(|other| *other != at);
            self.by_line.remove(&(slot, consumer.line));
        }
        Some(consumer)
    }

    /// Puts a message into a consumer's hands.
    pub(super) fn lease(
        &mut self,
        now: Time,
        at: u32,
        entry: Entry,
        on_credit: bool,
        lease_ms: u64,
    ) -> RunId {
        let slot = self.leases.vacant_key() as u32;
        let id = self.ids.marked(now, slot);
        self.bytes += entry.bytes();
        let ends_ns = now.mono_ns.saturating_add(lease_ms.saturating_mul(1_000_000));
        let lease = Lease { id, consumer: at, entry, on_credit, ends_ns, prev: NONE, next: NONE };
        self.leases.insert(lease);
        self.link(slot);
        if on_credit && let Some(consumer) = self.all.get_mut(at as usize) {
            consumer.in_hand += 1;
        }
        id
    }

    /// A delivery, if it is in hand.
    pub(super) fn find(&self, id: RunId) -> Option<&Lease> {
        self.leases.get(id.mark() as usize).filter(|lease| lease.id == id)
    }

    /// Whether a connection has a delivery in hand.
    pub(super) fn holds(&self, peer: PeerId, id: RunId) -> bool {
        let lease = self.find(id);
        let consumer = lease.and_then(|lease| self.all.get(lease.consumer as usize));
        consumer.is_some_and(|consumer| consumer.peer == peer)
    }

    /// Takes a delivery out of its consumer's hands.
    pub(super) fn end(&mut self, id: RunId) -> Option<Lease> {
        self.find(id)?;
        self.unlink(id.mark());
        let lease = self.leases.try_remove(id.mark() as usize)?;
        self.bytes -= lease.entry.bytes();
        if lease.on_credit
            && let Some(consumer) = self.all.get_mut(lease.consumer as usize)
        {
            consumer.in_hand -= 1;
        }
        Some(lease)
    }

    /// Lets a lease begin anew.
    pub(super) fn extend(&mut self, now: Time, id: RunId, lease_ms: u64) {
        self.unlink(id.mark());
        if let Some(lease) = self.leases.get_mut(id.mark() as usize) {
            lease.ends_ns = now.mono_ns.saturating_add(lease_ms.saturating_mul(1_000_000));
        }
        self.link(id.mark());
    }

    /// The delivery of a consumer whose lease ends first, and when.
    pub(super) fn oldest(&self, at: u32) -> Option<(RunId, u64)> {
        let consumer = self.all.get(at as usize)?;
        self.leases.get(consumer.oldest as usize).map(|lease| (lease.id, lease.ends_ns))
    }

    /// The consumers of a line.
    pub(super) fn of_line(&self, line: u32) -> Vec<u32> {
        let of_line = self.all.iter().filter(|(_, consumer)| consumer.line == line);
        of_line.map(|(at, _)| at as u32).collect()
    }

    /// Messages in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where the messages stand that consumers of a line have in hand.
    pub(super) fn places(&self, line: u32) -> impl Iterator<Item = (&Entry, PeerId)> {
        self.leases.iter().filter_map(move |(_, lease)| {
            let consumer = self.all.get(lease.consumer as usize)?;
            (consumer.line == line).then_some((&lease.entry, consumer.peer))
        })
    }

    /// Appends a lease to its consumer's chain.
    fn link(&mut self, slot: u32) {
        let consumer = &mut self.all[self.leases[slot as usize].consumer as usize];
        let newest = std::mem::replace(&mut consumer.newest, slot);
        if newest == NONE {
            consumer.oldest = slot;
        } else {
            self.leases[newest as usize].next = slot;
        }
        let lease = &mut self.leases[slot as usize];
        (lease.prev, lease.next) = (newest, NONE);
    }

    fn unlink(&mut self, slot: u32) {
        let lease = &self.leases[slot as usize];
        let (prev, next, at) = (lease.prev, lease.next, lease.consumer);
        let consumer = &mut self.all[at as usize];
        if prev == NONE {
            consumer.oldest = next;
        } else {
            self.leases[prev as usize].next = next;
        }
        if next == NONE {
            consumer.newest = prev;
        } else {
            self.leases[next as usize].prev = prev;
        }
    }
}
