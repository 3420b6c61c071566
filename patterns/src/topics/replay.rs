//! Replays: a subscription that reads a log, first what is there, then what comes.
//!
//! Such a subscription has one place in one log and moves through it in order, so nothing is
//! missing and nothing comes twice where the past meets the present. It waits for credit, and for
//! a connection that does not read; what the log drops meanwhile is counted as missed.

use std::sync::Arc;

use super::retained::Log;
use super::subscribers::Target;
use super::{Output, Topics};
use crate::base::{Out, PeerId};
use crate::names::Pattern;
use crate::ops::{Delivery, Event, Replay};

/// Entries of a log that are passed over for the price of one delivery.
const PASSED: usize = 8;
/// Steps of looking whether a topic matches for the price of one entry.
const STEPS: usize = 8;
/// Entries that one replay looks at before it is another's turn.
const SLICE: usize = 4_096;
/// Events that one replay hands on before it is another's turn.
const HANDED: usize = 512;

/// A place in a log.
#[derive(Debug)]
pub(super) struct Cursor {
    log: u32,
    pattern: Pattern,
    /// The next entry to look at.
    next: u64,
    /// While the beginning is looked for, backwards from `next`: so many matches further.
    back: Option<u32>,
    /// Whether it is at the end, so that events are handed on as they come.
    live: bool,
    /// Whether it stands among those that can go on.
    queued: bool,
    /// Events that were gone before they could be handed on.
    pub(super) missed: u64,
}

/// Whether a pattern matches an entry, and what that has cost, in entries.
pub(super) fn look(pattern: &Pattern, event: &Event) -> (bool, usize) {
    if event.topic.is_empty() {
        // A hole, which `#` must not match.
        return (false, 1);
    }
    let (matches, steps) = pattern.look(&event.topic);
    (matches, steps.div_ceil(STEPS))
}

/// How a slice of a replay ended.
enum Slice {
    /// At the end of the log.
    Live,
    /// The peer takes nothing for now.
    Paused,
    /// There is more.
    More,
}

impl Cursor {
    pub(super) fn new(log: u32, kept: &Log, pattern: Pattern, replay: Replay) -> Self {
        let (next, back) = match replay {
            Replay::All => (kept.first(), None),
            Replay::Seq(seq) => (seq.clamp(1, kept.next()), None),
            Replay::Ms(ms) => (kept.since(ms), None),
            Replay::Last(count) => (kept.next(), Some(count)),
        };
        // What was asked for and is gone already is missed.
        Self { log, pattern, next, back, live: false, queued: false, missed: 0 }
    }

    /// Looks for the beginning of the last so many, and tells how many entries it has seen.
    fn seek(&mut self, kept: &Log) -> usize {
        let mut seen = 0;
        while let Some(left) = self.back {
            if left == 0 || self.next <= kept.first() {
                self.back = None;
            } else if seen >= SLICE {
                break;
            } else {
                self.next -= 1;
                let Some(event) = kept.get(self.next) else { break };
                let (matches, price) = look(&self.pattern, event);
                seen += price;
                if matches {
                    self.back = Some(left - 1);
                }
            }
        }
        seen
    }

    /// The next event of the pattern, and how many entries were seen on the way.
    fn find(&mut self, kept: &Log, most: usize) -> (Option<(u64, Arc<Event>)>, usize) {
        if self.next < kept.first() {
            self.missed += kept.first() - self.next;
            self.next = kept.first();
        }
        let mut seen = 0;
        while seen < most
            && let Some(event) = kept.get(self.next)
        {
            let (matches, price) = look(&self.pattern, event);
            seen += price;
            if matches {
                return (Some((self.next, event.clone())), seen);
            }
            self.next += 1;
        }
        (None, seen)
    }
}

impl Topics {
    /// Whether a target takes its events from a log.
    pub(super) fn reads_log(&self, target: Target) -> bool {
        let Target::Peer(at) = target else { return false };
        self.subscriptions.get(at).is_some_and(|of| of.cursor.is_some())
    }

    /// An event has come that stands at the end of the log by now.
    pub(super) fn live(&mut self, at: u32, event: Arc<Event>, out: &mut Out<Output>) {
        let subscription = &mut self.subscriptions[at];
        let to = subscription.peer;
        let Some(cursor) = &mut subscription.cursor else { return };
        let peer = self.peers.get_mut(to.slot as usize).and_then(Option::as_deref_mut);
        let Some(peer) = peer.filter(|peer| peer.id == to) else { return };
        if !cursor.live || peer.is_stalled() || !peer.take() {
            return self.fall_behind(at);
        }
        let seq = self.logs[cursor.log as usize].next() - 1;
        cursor.next = seq + 1;
        let (pattern, missed) = (subscription.text.clone(), std::mem::take(&mut cursor.missed));
        self.counters.missed += missed;
        self.counters.delivered += 1;
        out.push(Output::Event { to, delivery: Delivery { event, pattern, seq, missed } });
    }

    /// A subscription goes on from the log, when its turn comes.
    pub(super) fn fall_behind(&mut self, at: u32) {
        let Some(subscription) = self.subscriptions.get_mut(at) else { return };
        let Some(cursor) = &mut subscription.cursor else { return };
        if std::mem::replace(&mut cursor.live, false) {
            // The first that did not go out is the last of the log.
            cursor.next = self.logs[cursor.log as usize].next() - 1;
        }
        if !std::mem::replace(&mut cursor.queued, true) {
            self.lagging.push_back(at);
        }
    }

    /// What waited for credit or for the connection goes on.
    pub(super) fn resume(&mut self, id: PeerId) {
        let Some(peer) = self.peer(id).filter(|peer| !peer.is_stalled()) else { return };
        for at in std::mem::take(&mut peer.paused) {
            // It may have been let go meanwhile, and its place be another's.
            let subscription = self.subscriptions.get_mut(at).filter(|of| of.peer == id);
            if let Some(cursor) = subscription.and_then(|of| of.cursor.as_mut())
                && !cursor.live
                && !std::mem::replace(&mut cursor.queued, true)
            {
                self.lagging.push_back(at);
            }
        }
    }

    /// Takes those on that are behind, each a slice at a time.
    pub(super) fn replay(&mut self, out: &mut Out<Output>) {
        while self.budget > 0
            && let Some(at) = self.lagging.pop_front()
        {
            let Some(subscription) = self.subscriptions.get_mut(at) else { continue };
            let Some(mut cursor) = subscription.cursor.take() else { continue };
            let id = subscription.peer;
            cursor.queued = false;
            match self.slice(at, &mut cursor, out) {
                Slice::Live => cursor.live = true,
                Slice::More => {
                    cursor.queued = true;
                    self.lagging.push_back(at);
                }
                Slice::Paused => {
                    if let Some(peer) = self.peer(id) {
                        peer.paused.push(at);
                    }
                }
            }
            self.subscriptions[at].cursor = Some(cursor);
        }
    }

    fn slice(&mut self, at: u32, cursor: &mut Cursor, out: &mut Out<Output>) -> Slice {
        let kept = &self.logs[cursor.log as usize];
        let mut seen = cursor.seek(kept);
        let subscription = &self.subscriptions[at];
        let to = subscription.peer;
        let peer = self.peers.get_mut(to.slot as usize).and_then(Option::as_deref_mut);
        let Some(peer) = peer.filter(|peer| peer.id == to) else { return Slice::Paused };
        let mut handed = 0;
        let end = loop {
            if seen >= SLICE || handed == HANDED || cursor.back.is_some() {
                break Slice::More;
            }
            let (found, passed) = cursor.find(kept, SLICE - seen);
            seen += passed;
            let Some((seq, event)) = found else {
                if cursor.next < kept.next() {
                    break Slice::More;
                }
                break Slice::Live;
            };
            if peer.is_stalled() || !peer.take() {
                break Slice::Paused;
            }
            cursor.next = seq + 1;
            handed += 1;
            let (pattern, missed) = (subscription.text.clone(), std::mem::take(&mut cursor.missed));
            self.counters.missed += missed;
            self.counters.delivered += 1;
            out.push(Output::Event { to, delivery: Delivery { event, pattern, seq, missed } });
        };
        self.budget = self.budget.saturating_sub(1 + handed + seen / PASSED);
        end
    }
}
