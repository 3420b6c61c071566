//! Workers: what each offers, has in hand, and may still take.

use std::collections::VecDeque;

use smol_str::SmolStr;

use super::far::Far;
use super::registry::DemandId;
use crate::base::PeerId;
use crate::ops::Offer;

/// One worker: a connection that has offered functions.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) peer: PeerId,
    pub(super) offer: Offer,
    pub(super) credit: u32,
    /// Slots of the calls it has in hand, cancelled ones included, until it answers.
    pub(super) in_hand: Vec<u32>,
    /// Demands it could serve that had calls waiting; may name some that have none any more.
    pub(super) waiting: VecDeque<DemandId>,
    /// Set by `bye`: it takes no more, and hears `bye` when nothing is in hand.
    pub(super) leaving: Option<Option<SmolStr>>,
    /// A run could not be handed to its connection: it is asked again once it has spoken.
    pub(super) stalled: bool,
    /// Set where it stands for another broker.
    pub(super) far: Option<Box<Far>>,
}

impl Worker {
    pub(super) fn has_credit(&self) -> bool {
        self.leaving.is_none()
            && !self.stalled
            && (self.in_hand.len() as u64) < u64::from(self.credit)
    }

    /// Whether this worker is relatively less loaded than another.
    pub(super) fn less_loaded_than(&self, other: &Self) -> bool {
        let mine = self.in_hand.len() as u64 * u64::from(other.credit.max(1));
        let theirs = other.in_hand.len() as u64 * u64::from(self.credit.max(1));
        mine < theirs
    }

    /// A worker that has offered nothing yet.
    pub(super) fn new(peer: PeerId, credit: u32) -> Self {
        let (offer, in_hand, waiting, leaving, stalled, far) = Default::default();
        Self { peer, offer, credit, in_hand, waiting, leaving, stalled, far }
    }

    /// The names of what it runs.
    pub(super) fn names(&self) -> Vec<SmolStr> {
        match &self.far {
            Some(far) => far.names(),
            None => self.offer.functions.iter().map(|function| function.name.clone()).collect(),
        }
    }

    /// What people know it by.
    pub(super) fn title(&self) -> String {
        self.far.as_ref().map_or_else(|| self.peer.to_string(), |far| far.node.to_string())
    }
}

/// Workers by the slot of their connection.
#[derive(Debug, Default)]
pub(super) struct Workers {
    /// That of this broker, and of its own workers.
    cluster: SmolStr,
    slots: Vec<Option<Box<Worker>>>,
    stalled: usize,
}

impl Workers {
    pub(super) fn new(cluster: SmolStr) -> Self {
        Self { cluster, ..Self::default() }
    }

    /// The cluster of the broker that a worker is at.
    pub(super) fn cluster<'a>(&'a self, worker: &'a Worker) -> &'a str {
        worker.far.as_ref().map_or(&self.cluster, |far| &far.cluster)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Worker> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Worker> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The worker of exactly this life of the connection.
    pub(super) fn of(&mut self, peer: PeerId) -> Option<&mut Worker> {
        self.get_mut(peer.slot).filter(|worker| worker.peer == peer)
    }

    pub(super) fn insert(&mut self, worker: Worker) {
        let slot = worker.peer.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Box::new(worker));
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Box<Worker>> {
        let slot = self.slots.get_mut(peer.slot as usize)?;
        let worker = slot.take_if(|worker| worker.peer == peer)?;
        self.stalled -= usize::from(worker.stalled);
        Some(worker)
    }

    /// Passes a worker over until it speaks.
    pub(super) fn stall(&mut self, slot: u32) {
        if let Some(Some(worker)) = self.slots.get_mut(slot as usize) {
            self.stalled += usize::from(!worker.stalled);
            worker.stalled = true;
        }
    }

    /// The end of `stall`; false if it was not.
    pub(super) fn recover(&mut self, peer: PeerId) -> bool {
        let was = self.of(peer).is_some_and(|worker| std::mem::take(&mut worker.stalled));
        self.stalled -= usize::from(was);
        was
    }

    /// Whether any worker is passed over.
    pub(super) const fn any_stalled(&self) -> bool {
        self.stalled > 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().filter_map(Option::as_deref)
    }
}
