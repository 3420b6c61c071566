//! Who takes messages, and what each has in hand.

use slab::Slab;

use super::Holder;
use super::lane::Entry;
use crate::base::{Ids, Map, PeerId, Refusal, RunId, Time, TimerId};

const NONE: u32 = u32::MAX;

/// Who takes the messages of one line: a connection, or a graph that asks for one at a time.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) holder: Holder,
    /// The line's index.
    pub(super) line: u32,
    pub(super) credit: u32,
    /// Deliveries that its credit was used for.
    pub(super) in_hand: u32,
    /// Calls of `mpreg.queue.next` that wait for it.
    pub(super) waits: u32,
    /// Whether it stands in the line's turn.
    pub(super) queued: bool,
    /// When the first of its leases ends, as far as a timer is set.
    pub(super) timer: Option<TimerId>,
    oldest: u32,
    newest: u32,
}

impl Consumer {
    const fn new(holder: Holder, line: u32) -> Self {
        Self {
            holder,
            line,
            credit: 0,
            in_hand: 0,
            waits: 0,
            queued: false,
            timer: None,
            oldest: NONE,
            newest: NONE,
        }
    }
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

/// What a graph has taken.
#[derive(Debug, Default)]
struct Taken {
    consumers: Vec<u32>,
    messages: usize,
    /// Why it has not all of it any more.
    lost: Option<Refusal>,
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
    /// Graphs by their slots.
    graphs: Map<u32, Taken>,
    /// By the slots of their connections, and their lines.
    by_line: Map<(u32, u32), u32>,
    ids: Ids,
    /// Of the messages in hand.
    pub(super) bytes: u64,
}

impl Consumers {
    pub(super) fn new(seed: u64) -> Self {
        let (all, leases) = (Slab::new(), Slab::new());
        let (peers, graphs, by_line) = (Map::default(), Map::default(), Map::default());
        Self { all, leases, peers, graphs, by_line, ids: Ids::new(seed), bytes: 0 }
    }

    /// The consumer of a line, made if it is new. Whether it is.
    pub(super) fn of(&mut self, holder: Holder, line: u32) -> (u32, bool) {
        let at = match holder {
            Holder::Peer(peer) => self.of_peer(peer, line),
            Holder::Graph(graph) => self.of_graph(graph, line),
        };
        if let Some(at) = at {
            return (at, false);
        }
        let at = self.all.insert(Consumer::new(holder, line)) as u32;
        match holder {
            Holder::Peer(peer) => {
                self.by_line.insert((peer.slot, line), at);
                if let Some(known) = self.peers.get_mut(&peer.slot) {
                    known.consumers.push(at);
                }
            }
            Holder::Graph(graph) => self.graphs.entry(graph).or_default().consumers.push(at),
        }
        (at, true)
    }

    fn of_graph(&self, graph: u32, line: u32) -> Option<u32> {
        let of_line = |at: &&u32| self.all.get(**at as usize).is_some_and(|of| of.line == line);
        self.graphs.get(&graph)?.consumers.iter().find(of_line).copied()
    }

    fn of_peer(&mut self, peer: PeerId, line: u32) -> Option<u32> {
        let known = self.peers.entry(peer.slot).or_insert_with(|| Peer {
            peer,
            consumers: Vec::new(),
            stalled: false,
        });
        debug_assert_eq!(known.peer, peer, "an earlier life was not ended");
        self.by_line.get(&(peer.slot, line)).copied()
    }

    pub(super) fn get(&mut self, at: u32) -> Option<&mut Consumer> {
        self.all.get_mut(at as usize)
    }

    /// Whether a connection takes nothing for now.
    pub(super) fn is_stalled(&self, at: u32) -> bool {
        match self.all.get(at as usize).map(|of| of.holder) {
            Some(Holder::Peer(peer)) => {
                self.peers.get(&peer.slot).is_some_and(|known| known.stalled)
            }
            Some(Holder::Graph(_)) | None => false,
        }
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
        match consumer.holder {
            Holder::Peer(peer) => {
                let known = self.peers.get_mut(&peer.slot);
                if let Some(known) = known.filter(|known| known.peer == peer) {
                    known.consumers.retain(|other| *other != at);
                    self.by_line.remove(&(peer.slot, consumer.line));
                }
            }
            Holder::Graph(graph) => {
                if let Some(taken) = self.graphs.get_mut(&graph) {
                    taken.consumers.retain(|other| *other != at);
                }
            }
        }
        Some(consumer)
    }

    /// Messages a graph has taken or waits for.
    pub(super) fn taken_by(&self, graph: u32) -> usize {
        let Some(taken) = self.graphs.get(&graph) else { return 0 };
        let waits = taken.consumers.iter().filter_map(|at| self.all.get(*at as usize));
        taken.messages + waits.map(|of| of.waits as usize).sum::<usize>()
    }

    /// Notes that a consumer has lost what it has in hand, which matters to a graph alone.
    pub(super) fn lose(&mut self, at: u32, why: &Refusal) {
        let Some(consumer) = self.all.get(at as usize).filter(|of| of.oldest != NONE) else {
            return;
        };
        if let Holder::Graph(graph) = consumer.holder
            && let Some(taken) = self.graphs.get_mut(&graph)
        {
            taken.lost = Some(why.clone());
        }
    }

    /// A graph has ended: its consumers, which may have messages in hand still, and why some of
    /// what it took is lost to it, if so.
    pub(super) fn graph_ended(&mut self, graph: u32) -> (Vec<u32>, Option<Refusal>) {
        let taken = self.graphs.remove(&graph).unwrap_or_default();
        (taken.consumers, taken.lost)
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
        let graph = if on_credit { None } else { self.graph_of(at) };
        // That of a graph ends with the graph, which ends in time.
        let lease_ns = graph.map_or_else(|| lease_ms.saturating_mul(1_000_000), |_| u64::MAX);
        let ends_ns = now.mono_ns.saturating_add(lease_ns);
        let lease = Lease { id, consumer: at, entry, on_credit, ends_ns, prev: NONE, next: NONE };
        self.leases.insert(lease);
        self.link(slot);
        if on_credit && let Some(consumer) = self.all.get_mut(at as usize) {
            consumer.in_hand += 1;
        }
        if let Some(taken) = graph.and_then(|graph| self.graphs.get_mut(&graph)) {
            taken.messages += 1;
        }
        id
    }

    /// The graph that a consumer is, if it is one.
    fn graph_of(&self, at: u32) -> Option<u32> {
        match self.all.get(at as usize)?.holder {
            Holder::Graph(graph) => Some(graph),
            Holder::Peer(_) => None,
        }
    }

    /// A delivery, if it is in hand.
    pub(super) fn find(&self, id: RunId) -> Option<&Lease> {
        self.leases.get(id.mark() as usize).filter(|lease| lease.id == id)
    }

    /// Whether a connection has a delivery in hand.
    pub(super) fn holds(&self, peer: PeerId, id: RunId) -> bool {
        let lease = self.find(id);
        let consumer = lease.and_then(|lease| self.all.get(lease.consumer as usize));
        consumer.is_some_and(|consumer| consumer.holder == Holder::Peer(peer))
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

    /// The messages of a line that somebody has in hand.
    pub(super) fn held(&self, line: u32) -> impl Iterator<Item = &Entry> {
        self.leases.iter().filter_map(move |(_, lease)| {
            let consumer = self.all.get(lease.consumer as usize)?;
            (consumer.line == line).then_some(&lease.entry)
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
