//! Logs, and replays: complete from where they begin, each event once.

use mpreg_patterns::base::Time;
use mpreg_patterns::ops::{Delivery, Replay};
use mpreg_patterns::topics::Retain;
use serde_json::Value as Json;

use super::Mask;

/// An event may be kept this long after it is too old: ticks are a millisecond wide.
const LATE_MS: u64 = 20;

/// An event in a log.
#[derive(Debug)]
struct Entry {
    fact: usize,
    topic: usize,
    wall_ms: u64,
    bytes: usize,
}

/// Everything that one rule ever kept.
#[derive(Debug)]
pub(super) struct Log {
    rule: Retain,
    mask: Mask,
    entries: Vec<Entry>,
    /// The oldest that is kept, by number.
    first: u64,
    bytes: usize,
}

impl Log {
    pub(super) fn new(rule: &Retain) -> Self {
        let mask = Mask::of(rule.pattern.as_str());
        Self { rule: rule.clone(), mask, entries: Vec::new(), first: 1, bytes: 0 }
    }

    pub(super) const fn next(&self) -> u64 {
        self.entries.len() as u64 + 1
    }

    pub(super) fn append(&mut self, now: Time, topic: usize, fact: usize, bytes: usize) {
        if self.mask.has(topic) {
            self.bytes += bytes;
            self.entries.push(Entry { fact, topic, wall_ms: now.wall_ms, bytes });
            self.first(now);
        }
    }

    /// The oldest that has to be there. What is too old may be there for a while.
    pub(super) fn first(&mut self, now: Time) -> u64 {
        let oldest_ms = now.wall_ms - self.rule.max_age_ms;
        while let Some(entry) = self.entries.get(self.first as usize - 1) {
            let kept = (self.next() - self.first) as usize;
            let over = kept > self.rule.max_count || self.bytes > self.rule.max_bytes;
            if !over && entry.wall_ms >= oldest_ms {
                break;
            }
            self.bytes -= entry.bytes;
            self.first += 1;
        }
        self.first
    }

    /// What the broker keeps: all that has to be there, and no more than the rule allows.
    pub(super) fn audit(&mut self, now: Time, told: &Json) {
        let number = |name: &str| told[name].as_u64().expect("a number");
        let first = number("first_seq");
        assert_eq!(number("next_seq"), self.next(), "{told}");
        assert!(first <= self.first(now), "{told}, and {} should be there", self.first);
        let kept = &self.entries[first as usize - 1..];
        let bytes: usize = kept.iter().map(|entry| entry.bytes).sum();
        assert_eq!(number("events"), kept.len() as u64, "{told}");
        assert_eq!(number("bytes"), bytes as u64, "{told}");
        let fits = kept.len() <= self.rule.max_count && bytes <= self.rule.max_bytes;
        assert!(fits, "{told} is more than {:?}", self.rule);
        let oldest_ms = now.wall_ms - self.rule.max_age_ms - LATE_MS;
        let young = kept.first().is_none_or(|entry| entry.wall_ms >= oldest_ms);
        assert!(young, "{told} is older than {:?}", self.rule);
    }

    /// Where a replay begins that is asked for now.
    pub(super) fn start(&mut self, now: Time, mask: Mask, replay: Replay) -> u64 {
        let first = self.first(now);
        match replay {
            Replay::All => first,
            Replay::Seq(seq) => seq.clamp(1, self.next()),
            Replay::Ms(ms) => {
                let young = |seq: &u64| self.entries[*seq as usize - 1].wall_ms >= ms;
                (first..self.next()).find(young).unwrap_or_else(|| self.next())
            }
            Replay::Last(count) => {
                let wanted = |seq: &u64| mask.has(self.entries[*seq as usize - 1].topic);
                let mut last = (first..self.next()).rev().filter(wanted).take(count as usize);
                let mut from = self.next();
                last.by_ref().for_each(|seq| from = seq);
                // Fewer than that: from the beginning.
                if (first..self.next()).filter(wanted).count() < count as usize {
                    first
                } else {
                    from
                }
            }
        }
    }
}

/// Where a replay is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) log: usize,
    /// The next number that may come, and from which on none may be left out.
    next: u64,
    sure: u64,
    /// Up to where nothing is left to be told.
    looked: u64,
    /// Whether it asked for the last so many, of which some may go while they are looked for.
    last: bool,
    /// Events it has not got that are not told as missed: at least, and at most.
    owed: (u64, u64),
    /// When an event of it was last not delivered.
    disturbed: Option<u64>,
}

impl Place {
    /// A replay that is asked for, and may begin at `start` or later.
    pub(super) const fn new(log: usize, start: u64, replay: Replay) -> Self {
        let last = matches!(replay, Replay::Last(_));
        let (sure, owed, disturbed) = (u64::MAX, (0, 0), None);
        Self { log, next: start, sure, looked: start, last, owed, disturbed }
    }

    /// It holds from now on, and begins at `start` at the latest.
    pub(super) const fn opened(&mut self, start: u64) {
        self.sure = start;
    }

    /// An event was handed out, and could not be handed on.
    pub(super) const fn undelivered(&mut self, moment: u64) {
        self.owed = (self.owed.0 + 1, self.owed.1 + 1);
        self.disturbed = Some(moment);
    }

    /// An event leaves the broker.
    pub(super) fn event(
        &mut self,
        (now, moment): (Time, u64),
        mask: Mask,
        log: &mut Log,
        fact: usize,
        told: &Delivery,
    ) {
        let (seq, text) = (told.seq, &told.pattern);
        let entry = log.entries.get(seq as usize - 1);
        let entry = entry.unwrap_or_else(|| panic!("{text}: the log has no {seq}"));
        assert_eq!(entry.fact, fact, "{text}: {seq} of the log is another event");
        assert!(seq >= self.next, "{text}: {seq} comes after {}", self.next);
        let first = log.first(now);
        for passed in self.next..seq {
            let gone = passed < first;
            if mask.has(log.entries[passed as usize - 1].topic) && passed >= self.sure {
                assert!(gone, "{text}: {seq} comes, and {passed} has not come");
                self.owed.0 += u64::from(!self.last);
            }
            self.owed.1 += u64::from(gone);
        }
        (self.next, self.looked, self.last) = (seq + 1, self.looked.max(seq + 1), false);
        let (least, most) = self.owed;
        assert!(told.missed <= most, "{text}: {} of {most} are told as missed", told.missed);
        let left = least.saturating_sub(told.missed);
        let in_time = self.disturbed == Some(moment);
        assert!(left == 0 || in_time, "{text}: {left} are missed before {seq}, and not told");
        self.owed = (left, left);
    }

    /// Whether something that is kept should have come by now, given that its peer takes it.
    pub(super) fn lags(&mut self, now: Time, mask: Mask, log: &mut Log) -> Option<u64> {
        let from = self.looked.max(self.sure).max(log.first(now));
        let wanted = |seq: &u64| mask.has(log.entries[*seq as usize - 1].topic);
        let lags = (from..log.next()).find(wanted);
        self.looked = log.next();
        lags
    }
}
