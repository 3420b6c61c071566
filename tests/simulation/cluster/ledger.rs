//! What was asked of several brokers, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use mpreg_patterns::base::RunId;
use smol_str::SmolStr;

use super::events::Events;
use super::guests::{self, Target};

#[derive(Debug, Default)]
struct Called {
    idempotent: bool,
    ran: u32,
    outcomes: u32,
    /// Its caller's broker was killed.
    lost: bool,
}

/// What became of a message in one queue.
#[derive(Debug, Default)]
struct Copies {
    delivered: u32,
    settled: u32,
    /// Which attempt was settled.
    attempt: u32,
    /// It may be settled: the broker was lost that could have told.
    unsure: bool,
    /// It came again after that.
    late: bool,
}

/// What was counted, of all seeds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) done: u64,
    pub(crate) moved: u64,
    pub(crate) sent: u64,
    pub(crate) copies: u64,
    pub(crate) again: u64,
    pub(crate) twice: u64,
    pub(crate) faults: u64,
    pub(crate) full: u64,
    pub(crate) heard: u64,
    pub(crate) lost: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.done += other.done;
        self.moved += other.moved;
        self.sent += other.sent;
        self.copies += other.copies;
        self.again += other.again;
        self.twice += other.twice;
        self.faults += other.faults;
        self.full += other.full;
        self.heard += other.heard;
        self.lost += other.lost;
    }
}

/// A message that is safe: where it was sent, how many queues were said to have it, and whether
/// it was to be handed over to another broker.
#[derive(Debug)]
struct Safe {
    queue: Option<SmolStr>,
    queues: u32,
    near: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    calls: BTreeMap<u64, Called>,
    sent: BTreeMap<u64, Safe>,
    copies: BTreeMap<(SmolStr, u64), Copies>,
    names: BTreeMap<u64, RunId>,
    /// How many messages of a queue may be settled, nobody knows which.
    taken: BTreeMap<String, u32>,
    next: u64,
    pub(super) refused: u64,
    pub(super) events: Events,
    /// Whether a message may come again that was settled: its queue's broker was killed, and has
    /// forgotten that it was handed over already.
    pub(super) forgetful: bool,
    /// Whether disks fail, so that it may have been settled in vain.
    pub(super) worn: bool,
    pub(super) tally: Tally,
}

impl Ledger {
    /// One that nothing else has.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn call(&mut self, idempotent: bool) -> u64 {
        let number = self.number();
        self.calls.insert(number, Called { idempotent, ..Called::default() });
        number
    }

    /// A step of a graph: of its outcome nobody hears.
    pub(super) fn step(&mut self, idempotent: bool) -> u64 {
        let number = self.number();
        self.calls.insert(number, Called { idempotent, lost: true, ..Called::default() });
        number
    }

    pub(super) fn ran(&mut self, number: u64) {
        let call = self.calls.get_mut(&number).expect("a call");
        call.ran += 1;
        assert!(call.idempotent || call.ran == 1, "{number} ran twice: {call:?}");
        self.tally.moved += u64::from(call.ran > 1);
    }

    pub(super) fn call_done(&mut self, number: u64, result: Option<u64>) {
        let call = self.calls.get_mut(&number).expect("a call");
        call.outcomes += 1;
        assert_eq!(call.outcomes, 1, "{number}");
        assert!(result.is_none_or(|result| result == number && call.ran > 0), "{number}: {call:?}");
        self.tally.done += u64::from(result.is_some());
    }

    pub(super) fn call_lost(&mut self, number: u64) {
        self.calls.get_mut(&number).expect("a call").lost = true;
    }

    pub(super) fn sent(&mut self, target: &Target, message: RunId, queues: u32, near: bool) {
        assert!(queues > 0 && (target.queue.is_none() || queues == 1), "{target:?}: {queues}");
        self.named(target.number, message);
        let safe = Safe { queue: target.queue.clone(), queues, near };
        let twice = self.sent.insert(target.number, safe);
        assert!(twice.is_none(), "{target:?} was confirmed twice");
    }

    /// It has the same ULID everywhere.
    fn named(&mut self, number: u64, message: RunId) {
        let name = self.names.entry(number).or_insert(message);
        assert_eq!(*name, message, "{number}");
    }

    pub(super) fn delivered(&mut self, queue: &SmolStr, number: u64, attempt: u32, message: RunId) {
        self.named(number, message);
        let copy = self.copies.entry((queue.clone(), number)).or_default();
        copy.delivered += 1;
        self.tally.again += u64::from(copy.delivered > 1);
        self.tally.twice += u64::from(copy.settled > 0);
        // What was under way to a broker that was lost may come late.
        copy.late |= copy.settled > 0 && attempt >= copy.attempt;
        assert!(!copy.late || self.forgetful, "{number} came again from {queue}: {copy:?}");
    }

    pub(super) fn acked(&mut self, queue: &SmolStr, number: u64, attempt: u32) {
        let copy = self.copies.get_mut(&(queue.clone(), number)).expect("it was delivered");
        (copy.settled, copy.attempt) = (copy.settled + 1, attempt);
        assert!(copy.settled == 1 || self.forgetful, "{number} of {queue} was settled twice");
    }

    pub(super) fn unsure(&mut self, queue: &str, number: u64) {
        let copy = self.copies.get_mut(&(queue.into(), number)).expect("it was delivered");
        copy.unsure = true;
    }

    /// A message of a queue may have been settled.
    pub(super) fn may_have_taken(&mut self, queue: &str) {
        *self.taken.entry(queue.into()).or_default() += 1;
    }

    /// Everything has come to rest. What was on a damaged page may be lost.
    pub(super) fn close(&mut self, damaged: &BTreeSet<u64>) -> Tally {
        for (number, call) in &self.calls {
            assert!(call.lost || call.outcomes == 1, "call {number} has no outcome: {call:?}");
        }
        for (number, Safe { queue, queues, near }) in &self.sent {
            let of = guests::queues().filter(|of| queue.as_ref().is_none_or(|queue| of == queue));
            let copies = of.filter_map(|of| self.copies.get(&(of, *number)));
            let copies: Vec<&Copies> = copies.collect();
            let late = copies.iter().any(|copy| copy.late);
            assert!(!late || *near || self.worn, "{number} was settled in vain: {copies:?}");
            let copies = copies.iter();
            let copies = copies.filter(|copy| copy.settled > 0 || copy.unsure).count();
            if copies < *queues as usize && !damaged.contains(number) {
                let spare = queue.as_ref().and_then(|queue| self.taken.get_mut(queue.as_str()));
                let spare = spare.filter(|spare| **spare > 0);
                let spare =
                    spare.unwrap_or_else(|| panic!("{number} to {queue:?}: {copies} of {queues}"));
                *spare -= 1;
            }
        }
        self.tally.calls = self.calls.len() as u64;
        self.tally.sent = self.sent.len() as u64;
        self.tally.copies = self.copies.len() as u64;
        (self.tally.heard, self.tally.lost) = (self.events.count, self.events.lost);
        self.tally
    }
}
