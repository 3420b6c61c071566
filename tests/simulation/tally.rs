//! What a run amounted to: a scenario that tests nothing shows here.

use crate::account::{Counts, Verdict};
use crate::store::Wear;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) outcomes: u64,
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) ran: u64,
    pub(crate) lost: u64,
    pub(crate) again: u64,
    pub(crate) unsent: u64,
    pub(crate) events: u64,
    pub(crate) faults: u64,
    pub(crate) topics: Counts,
    pub(crate) queues: Verdict,
    pub(crate) disk: Wear,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.outcomes += other.outcomes;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.ran += other.ran;
        self.lost += other.lost;
        self.again += other.again;
        self.unsent += other.unsent;
        self.events += other.events;
        self.faults += other.faults;
        self.topics.add(&other.topics);
        self.queues.add(&other.queues);
        self.disk.add(&other.disk);
    }
}
