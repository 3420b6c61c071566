//! Answers that say that something is safe, held until it is.

use std::collections::VecDeque;

use super::{OutletTask, Output};
use crate::base::{Out, PeerId, Refusal};

/// What waits for the store, in order.
#[derive(Debug, Default)]
pub(super) struct Confirm {
    writes: u64,
    synced: u64,
    held: VecDeque<(u64, Output)>,
}

impl Confirm {
    /// Counts a write that is asked of the store.
    pub(super) const fn write(&mut self) {
        self.writes += 1;
    }

    /// The writes asked for so far.
    pub(super) const fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether so many writes are safe.
    pub(super) const fn is_safe(&self, writes: u64) -> bool {
        writes <= self.synced
    }

    /// Lets an answer go once so many writes are safe.
    pub(super) fn hold(&mut self, writes: u64, answer: Output, out: &mut Out<Output>) {
        if self.is_safe(writes) {
            return out.push(answer);
        }
        self.held.push_back((writes, answer));
    }

    /// So many writes are safe.
    pub(super) fn synced(&mut self, writes: u64, out: &mut Out<Output>) {
        self.synced = writes;
        while self.held.front().is_some_and(|(need, _)| *need <= writes) {
            out.extend(self.held.pop_front().map(|(_, answer)| answer));
        }
    }

    /// Nothing that is held will be safe.
    pub(super) fn fail(&mut self, why: &Refusal, out: &mut Out<Output>) {
        out.extend(self.held.drain(..).map(|(_, answer)| refused(answer, why)));
    }

    /// Takes out what was to leave through outlets: to which, and its bytes.
    pub(super) fn take_pushes(&mut self) -> Vec<(PeerId, u64)> {
        let mut pushes = Vec::new();
        self.held.retain(|(_, answer)| match answer {
            Output::Outlet { at, task: OutletTask::Push { message, .. } } => {
                pushes.push((*at, message.bytes() as u64));
                false
            }
            _ => true,
        });
        pushes
    }

    /// The store begins to count anew.
    pub(super) fn reopened(&mut self) {
        (self.writes, self.synced) = (0, 0);
    }

    /// Answers that wait.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

/// An answer that says why it is not so.
pub(super) fn refused(answer: Output, why: &Refusal) -> Output {
    let refusal = why.clone();
    match answer {
        Output::Sent { by, .. } => Output::Sent { by, outcome: Err(refusal) },
        Output::Acked { to, id, .. } => Output::Acked { to, id, outcome: Err(refusal) },
        Output::Settled { graph, .. } => Output::Settled { graph, outcome: Err(refusal) },
        Output::Done { origin, .. } => Output::Done { origin, outcome: Err(refusal) },
        other => other,
    }
}
