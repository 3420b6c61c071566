//! Links between brokers: in order while they live, and what is on them is lost when they fall.

use mpreg_patterns::base::Rng;
use mpreg_patterns::federation::LinkId;

use crate::peers::MS;

/// A link, over all the sessions it has.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) ends: [usize; 2],
    /// Which session this is: its number at both ends.
    pub(super) session: u32,
    /// Whether anything gets to each end.
    passes: [bool; 2],
    /// Which ends take the session for up.
    trusted: [bool; 2],
    delay_ns: u64,
    /// Of what travels to each end: how much there is, and when the last of it arrives.
    to: [(usize, u64); 2],
}

impl Wire {
    pub(super) fn new(ends: [usize; 2], rng: &mut Rng) -> Self {
        let delay_ns = MS / 10 * (1 + rng.below(200) as u64);
        let (session, passes, trusted, to) = Default::default();
        Self { ends, session, passes, trusted, delay_ns, to }
    }

    pub(super) const fn link(&self) -> LinkId {
        LinkId(self.session)
    }

    /// Microseconds there and back.
    pub(super) const fn cost_us(&self) -> u32 {
        (2 * self.delay_ns / 1_000) as u32
    }

    pub(super) const fn passes(&self, end: usize) -> bool {
        self.passes[end]
    }

    pub(super) fn is_up(&self) -> bool {
        self.passes == [true; 2] && self.trusted == [true; 2]
    }

    /// Neither end thinks of it any more.
    pub(super) fn is_over(&self) -> bool {
        self.trusted == [false; 2]
    }

    /// A new session: what was said in the one before is lost.
    pub(super) fn join(&mut self, session: u32) {
        self.session = session;
        self.passes = [true; 2];
        self.trusted = [true; 2];
        self.to = Default::default();
    }

    /// Nothing gets to these ends any more. True if it did to both.
    pub(super) fn fall(&mut self, ends: &[usize]) -> bool {
        let was_whole = self.passes == [true; 2];
        ends.iter().for_each(|end| self.passes[*end] = false);
        was_whole
    }

    /// An end gives the session up. True if it did not know.
    pub(super) const fn give_up(&mut self, end: usize) -> bool {
        self.passes = [false; 2];
        std::mem::replace(&mut self.trusted[end], false)
    }

    /// When something arrives at an end; none if it never does.
    pub(super) fn send(&mut self, now_ns: u64, end: usize, rng: &mut Rng) -> Option<u64> {
        let (count, last_ns) = &mut self.to[end];
        *count += 1;
        let jitter_ns = rng.below(self.delay_ns as usize / 4 + 1) as u64;
        *last_ns = (*last_ns).max(now_ns + self.delay_ns + jitter_ns);
        self.passes[end].then_some(*last_ns)
    }

    /// Whether as much as is allowed is under way to an end, or will never be read.
    pub(super) const fn is_full(&self, end: usize, room: usize) -> bool {
        self.to[end].0 >= room
    }

    pub(super) const fn arrived(&mut self, end: usize) {
        self.to[end].0 -= 1;
    }
}
