//! What two brokers say to each other, whatever is between them: numbered, kept until the other
//! has it, and said again when the way has changed.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;

use super::wire::{Cargo, Talk};
use crate::base::Time;

/// Bytes that one broker may have on the way to another.
const KEPT_BYTES: usize = 16 << 20;
/// Without a word of what has arrived it is said again, nanoseconds.
const AGAIN_NS: u64 = 1_000_000_000;
/// As long as the other's number is not known it is asked for this often, nanoseconds.
const MEET_NS: u64 = 50_000_000;
/// How long an acknowledgement may wait for more, nanoseconds.
const ACK_NS: u64 = 20_000_000;
/// So many envelopes are acknowledged at once.
const ACK_EVERY: u64 = 64;

/// What an envelope or an acknowledgement is to the one who hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    /// It belongs to this conversation.
    Now,
    /// It belongs to an earlier one.
    Stale,
    /// The other has begun anew: what was under way is lost, on both sides.
    Anew,
}

/// One side of a conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Which conversation it is: this side's number, and the other's, 0 until it is known.
    talk: Talk,
    said: u64,
    kept: VecDeque<(u64, Bytes, Vec<Bytes>)>,
    kept_bytes: usize,
    again_at_ns: Option<u64>,
    heard: u64,
    acked: u64,
    ack_at_ns: Option<u64>,
    /// Envelopes that were said again.
    pub(super) repeats: u64,
}

impl Conversation {
    /// A conversation that this side begins, under a number it has never used before. The other
    /// hears of it with the first acknowledgement, which acknowledges nothing.
    pub(super) fn new(now: Time, number: u64) -> Self {
        let talk = Talk { mine: number, yours: 0 };
        Self { talk, ack_at_ns: Some(now.mono_ns), ..Self::default() }
    }

    /// Whether more may be said.
    pub(super) const fn has_room(&self) -> bool {
        self.kept_bytes < KEPT_BYTES
    }

    /// Bytes that the other side does not have yet.
    pub(super) const fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Numbers an envelope and keeps it. It can go at once if it is known to whom.
    pub(super) fn say(&mut self, now: Time, body: Bytes, frames: Vec<Bytes>) -> Option<Cargo> {
        self.said += 1;
        self.kept_bytes += size(&body, &frames);
        self.kept.push_back((self.said, body.clone(), frames.clone()));
        if self.talk.yours == 0 {
            return None;
        }
        self.again_at_ns.get_or_insert(now.mono_ns + AGAIN_NS);
        Some(Cargo::Envelope { talk: self.talk, seq: self.said, body, frames })
    }

    /// Whether what is heard belongs to this conversation.
    ///
    /// It is named by both numbers. Only the side that has lost it takes another; the other side
    /// keeps its own, so that they do not drive each other on.
    pub(super) fn sense(&mut self, now: Time, talk: Talk) -> Sense {
        if talk.yours != 0 && talk.yours != self.talk.mine {
            return Sense::Stale;
        }
        if talk.yours == 0 {
            // It wants to know this side's number.
            self.ack_at_ns = Some(now.mono_ns);
        }
        if self.talk.yours == 0 {
            self.talk.yours = talk.mine;
            self.hurry(now);
        }
        match talk.mine.cmp(&self.talk.yours) {
            Ordering::Less => Sense::Stale,
            Ordering::Equal => Sense::Now,
            Ordering::Greater => Sense::Anew,
        }
    }

    /// The other has begun anew: so does this side, with nothing said or heard.
    pub(super) fn begin_anew(&mut self, now: Time, yours: u64) {
        let talk = Talk { mine: self.talk.mine, yours };
        *self = Self { talk, ack_at_ns: Some(now.mono_ns), ..Self::default() };
    }

    /// Whether an envelope is the next. One that is not will be said again, or has been heard.
    pub(super) fn is_next(&mut self, now: Time, seq: u64) -> bool {
        let is_next = seq == self.heard + 1;
        self.heard += u64::from(is_next);
        let at_once = !is_next || self.heard - self.acked >= ACK_EVERY;
        let due_ns = if at_once { now.mono_ns } else { now.mono_ns + ACK_NS };
        self.ack_at_ns = Some(self.ack_at_ns.map_or(due_ns, |at| at.min(due_ns)));
        is_next
    }

    /// The other has everything up to a number. A word that brings nothing new puts nothing off:
    /// what it lacks is as lost as before.
    pub(super) fn acked(&mut self, now: Time, seq: u64) {
        if self.kept.front().is_none_or(|(first, ..)| *first > seq) {
            return;
        }
        while let Some((first, body, frames)) = self.kept.front()
            && *first <= seq
        {
            self.kept_bytes -= size(body, frames);
            self.kept.pop_front();
        }
        self.again_at_ns = (!self.kept.is_empty()).then_some(now.mono_ns + AGAIN_NS);
    }

    /// The way has changed: what may have been lost on it is due again.
    pub(super) fn hurry(&mut self, now: Time) {
        if !self.kept.is_empty() {
            self.again_at_ns = Some(now.mono_ns);
        }
    }

    /// What is due: an acknowledgement, and everything that nobody has acknowledged.
    pub(super) fn due(&mut self, now: Time) -> Vec<Cargo> {
        let mut due = Vec::new();
        if self.ack_at_ns.is_some_and(|at| at <= now.mono_ns) {
            self.ack_at_ns = None;
            self.acked = self.heard;
            due.push(Cargo::Ack { talk: self.talk, seq: self.heard });
            if self.talk.yours == 0 {
                self.ack_at_ns = Some(now.mono_ns + MEET_NS);
            }
        }
        if self.talk.yours != 0 && self.again_at_ns.is_some_and(|at| at <= now.mono_ns) {
            self.again_at_ns = Some(now.mono_ns + AGAIN_NS);
            self.repeats += self.kept.len() as u64;
            let talk = self.talk;
            due.extend(self.kept.iter().map(|(seq, body, frames)| {
                let (seq, body, frames) = (*seq, body.clone(), frames.clone());
                Cargo::Envelope { talk, seq, body, frames }
            }));
        }
        due
    }

    /// When something is due next, in monotonic nanoseconds.
    pub(super) fn wake_at(&self) -> Option<u64> {
        let again = self.again_at_ns.filter(|_| self.talk.yours != 0);
        [self.ack_at_ns, again].into_iter().flatten().min()
    }
}

fn size(body: &Bytes, frames: &[Bytes]) -> usize {
    64 + body.len() + frames.iter().map(Bytes::len).sum::<usize>()
}
