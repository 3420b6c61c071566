//! Logs: topics whose events are kept, within limits of age, number and size.
//!
//! In memory, and behind it [on disk](super::stored) unless the rule says otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use super::stored::Disk;
use super::subscribers::Target;
use super::{Timer, Topics};
use crate::base::{Code, Refusal, Time};
use crate::names::{Pattern, PatternId};
use crate::ops::Event;

/// Events that one append or look drops at most for age: what is left goes soon after.
const TRIM: usize = 1_024;
/// How often the age of a log is looked at, at least, milliseconds.
const LOOK_MS: u64 = 86_400_000;

/// A rule: keep the events of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Retain {
    /// Of which topics.
    pub pattern: Pattern,
    /// How long, milliseconds.
    pub max_age_ms: u64,
    /// How many.
    pub max_count: usize,
    /// How much, bytes of topics, payloads and headers, with what each costs beside.
    pub max_bytes: usize,
    /// Whether they are on disk too, and outlive the process.
    pub stored: bool,
}

/// The events that were kept by one rule, oldest first.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) rule: Retain,
    /// Its pattern.
    id: PatternId,
    events: VecDeque<Arc<Event>>,
    /// The sequence number of the oldest; the first event ever has 1.
    first: u64,
    pub(super) bytes: usize,
    /// Whether a deadline for its age is set.
    aging: bool,
    /// Whether it has changed since the store was told.
    pub(super) unwritten: bool,
    /// Where it stands on disk, if it is to.
    pub(super) disk: Option<Disk>,
}

impl Log {
    pub(super) fn new(rule: Retain, id: PatternId) -> Self {
        let disk = rule.stored.then(Disk::default);
        let (events, first, bytes) = (VecDeque::new(), 1, 0);
        Self { rule, id, events, first, bytes, aging: false, unwritten: false, disk }
    }

    /// Lets an empty log go on counting.
    pub(super) fn begin_at(&mut self, first: u64) {
        if self.events.is_empty() {
            self.first = first;
        }
    }

    /// Puts older events before all others.
    pub(super) fn lead(&mut self, first: u64, mut older: VecDeque<Arc<Event>>) {
        self.bytes += older.iter().map(|event| event.bytes()).sum::<usize>();
        older.append(&mut self.events);
        (self.first, self.events) = (first, older);
    }

    /// The sequence number of the oldest event.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The sequence number the next event will get.
    pub(super) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Arc<Event>> {
        self.events.get(seq.checked_sub(self.first)? as usize)
    }

    /// The first event that was taken at `ms` or later.
    pub(super) fn since(&self, ms: u64) -> u64 {
        self.first + self.events.partition_point(|event| wall_ms(event) < ms) as u64
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    fn append(&mut self, wall_ms: u64, event: Arc<Event>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        self.trim(wall_ms);
    }

    /// Drops what is beyond the limits. What one look leaves of the too old goes with the next.
    pub(super) fn trim(&mut self, now_ms: u64) {
        let oldest_ms = now_ms.saturating_sub(self.rule.max_age_ms);
        for _ in 0..TRIM {
            let Some(event) = self.events.front() else { return };
            let over = self.events.len() > self.rule.max_count || self.bytes > self.rule.max_bytes;
            if !over && wall_ms(event) >= oldest_ms {
                return;
            }
            self.bytes -= event.bytes();
            self.events.pop_front();
            self.first += 1;
        }
    }

    /// How long until the oldest is too old.
    fn left_ms(&self, now_ms: u64) -> Option<u64> {
        let oldest_ms = wall_ms(self.events.front()?);
        Some((oldest_ms + self.rule.max_age_ms + 1).saturating_sub(now_ms))
    }
}

/// When an event was taken: its ULID says it.
pub(super) fn wall_ms(event: &Event) -> u64 {
    (event.message.0 >> 80) as u64
}

impl Topics {
    /// Adds a log.
    pub(super) fn keep(&mut self, rule: &Retain) {
        let log = self.logs.len() as u32;
        let (pattern, _) = self.attach(&rule.pattern, Target::Log(log));
        self.logs.push(Log::new(rule.clone(), pattern));
    }

    /// Puts an event that was looked up into the logs whose patterns it matches.
    pub(super) fn keep_event(&mut self, now: Time, event: &Arc<Event>) {
        for log in 0..self.logs.len() {
            if self.handing.found(self.logs[log].id) {
                self.logs[log].append(now.wall_ms, event.clone());
                self.changed(log as u32);
                self.watch_age(now, log as u32);
            }
        }
    }

    /// The store is to be told of a log, at the end of the turn.
    pub(super) fn changed(&mut self, log: u32) {
        let kept = &mut self.logs[log as usize];
        if kept.disk.is_some() && !std::mem::replace(&mut kept.unwritten, true) {
            self.unwritten.push(log);
        }
    }

    pub(super) fn watch_age(&mut self, now: Time, log: u32) {
        let kept = &mut self.logs[log as usize];
        if !kept.aging
            && let Some(left_ms) = kept.left_ms(now.wall_ms)
        {
            kept.aging = true;
            let at_ns = now.mono_ns + left_ms.clamp(1, LOOK_MS) * 1_000_000;
            self.deadlines.set(at_ns, Timer::Age(log));
        }
    }

    pub(super) fn aged(&mut self, now: Time, log: u32) {
        let kept = &mut self.logs[log as usize];
        kept.aging = false;
        kept.trim(now.wall_ms);
        self.changed(log);
        self.watch_age(now, log);
    }

    /// The first log that keeps every topic of a pattern.
    pub(super) fn log_of(&self, pattern: &Pattern) -> Result<u32, Refusal> {
        let found = self.logs.iter().position(|log| log.rule.pattern.covers(pattern));
        found.map(|at| at as u32).ok_or_else(|| {
            let kept: Vec<&str> = self.logs.iter().map(|log| log.rule.pattern.as_str()).collect();
            let kept = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
            let message = format!("`{}` is not kept; {kept} is", pattern.as_str());
            Refusal::new(Code::NotRetained, message)
        })
    }
}
