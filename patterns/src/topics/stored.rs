//! Logs on disk: what is kept in memory is written behind, and read when the broker starts.
//!
//! A log is a line of the store with one lane, and an event's number in the log is its number
//! there. While the store fails nothing is written, and nothing new while it is full; afterwards it
//! is told what it has missed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use smol_str::SmolStr;

use super::Topics;
use super::retained::Log;
use crate::base::{Out, Time};
use crate::ops::Event;
use crate::store::{Ask, LOGS, Line, Message, Place, Told};
use crate::topics::Output;
use crate::values::Value;

/// The one lane of a log.
const LANE: u8 = 0;
/// Events read at once.
const READ_COUNT: u32 = 8_192;
/// Bytes read at once, about.
const READ_BYTES: u32 = 4 << 20;

/// What the store knows of a log.
#[derive(Deserialize)]
struct About {
    log: SmolStr,
}

/// Where a log stands on disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Its line; none until the store has been open.
    line: Option<u32>,
    /// What has been read so far, while it is read.
    reading: Option<Vec<(u64, Arc<Event>)>>,
    /// What the disk is to hold: from here on, up to there.
    first: u64,
    next: u64,
}

impl Topics {
    /// Whether logs are still read, so that nobody can be told yet what is in them.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        let reads = |log: &Log| log.disk.as_ref().is_some_and(|disk| disk.reading.is_some());
        self.logs.iter().any(reads)
    }

    pub(super) fn stored(&mut self, now: Time, told: Told, out: &mut Out<Output>) {
        match told {
            Told::Opened { lines } => self.opened(&lines, out),
            Told::Fetched { fetch, messages, end, .. } => {
                self.read(now, (fetch - LOGS) as usize, messages, end, out);
            }
            Told::Failed { .. } => self.store_is_open = false,
            Told::Full { .. } => self.store_is_full = true,
            Told::Room => {
                self.store_is_full = false;
                (0..self.logs.len()).for_each(|at| self.write(at, out));
            }
            Told::Synced { .. } => {}
        }
    }

    fn opened(&mut self, lines: &[Line], out: &mut Out<Output>) {
        (self.store_is_open, self.store_is_full) = (true, false);
        let mut number = lines.iter().map(|line| line.line + 1).max().unwrap_or(LOGS);
        for at in 0..self.logs.len() {
            let log = &mut self.logs[at];
            let first = log.first();
            let Some(disk) = &mut log.disk else { continue };
            let pattern = log.rule.pattern.as_str();
            let found = lines.iter().find(|line| name(line).is_some_and(|name| name == pattern));
            match found {
                Some(line) if disk.line.is_none() || disk.reading.is_some() => {
                    // What comes meanwhile goes on counting behind what is there.
                    log.begin_at(line.next_seq);
                    let disk = log.disk.get_or_insert_default();
                    (disk.line, disk.reading) = (Some(line.line), Some(Vec::new()));
                    (disk.first, disk.next) = (line.next_seq, line.next_seq);
                    self.fetch(at, line.line, None, out);
                }
                Some(line) => {
                    disk.next = line.next_seq.max(disk.first);
                    self.write(at, out);
                }
                None => {
                    let line = *disk.line.insert(number);
                    number += 1;
                    (disk.first, disk.next) = (first, first);
                    let about = Bytes::from(json!({ "log": pattern }).to_string());
                    out.push(Output::Store(Ask::Line { line, about }));
                    self.write(at, out);
                }
            }
        }
    }

    fn fetch(&self, at: usize, line: u32, after: Option<(u64, u64)>, out: &mut Out<Output>) {
        let (fetch, lane) = (LOGS + at as u32, LANE);
        let (count, bytes) = (READ_COUNT, READ_BYTES);
        out.push(Output::Store(Ask::Fetch { fetch, line, lane, after, count, bytes }));
    }

    /// A piece of a log has come from the disk.
    fn read(
        &mut self,
        now: Time,
        at: usize,
        messages: Vec<(Place, Arc<Message>)>,
        end: bool,
        out: &mut Out<Output>,
    ) {
        let Some(disk) = self.logs.get_mut(at).and_then(|log| log.disk.as_mut()) else { return };
        let (Some(line), Some(reading)) = (disk.line, &mut disk.reading) else { return };
        let last = messages.last().map(|(place, _)| (place.at_ms, place.seq));
        let events = messages.into_iter().map(|(place, of)| (place.seq, of.event.clone()));
        reading.extend(events);
        if !end && last.is_some() {
            return self.fetch(at, line, last, out);
        }
        let events = disk.reading.take().unwrap_or_default();
        disk.first = events.first().map_or(disk.first, |(first, _)| *first);
        self.logs[at].lead_in(events);
        self.logs[at].trim(now.wall_ms);
        self.watch_age(now, at as u32);
        self.write(at, out);
    }

    /// Tells the store what has changed in the logs.
    pub(super) fn write_logs(&mut self, out: &mut Out<Output>) {
        while let Some(at) = self.unwritten.pop() {
            self.write(at as usize, out);
        }
    }

    /// Tells the store what it does not have of a log yet, and what it need not have any more.
    fn write(&mut self, at: usize, out: &mut Out<Output>) {
        let log = &mut self.logs[at];
        log.unwritten = false;
        let (first, next) = (log.first(), log.next());
        let Some(mut disk) = log.disk.take() else { return };
        if let (true, Some(line), None) = (self.store_is_open, disk.line, &disk.reading) {
            let place = |seq| Place { line, lane: LANE, at_ms: 0, seq };
            for seq in disk.first..disk.next.min(first) {
                out.push(Output::Store(Ask::Delete { place: place(seq) }));
            }
            // What is kept meanwhile is written once there is room.
            let next = if self.store_is_full { disk.next } else { next };
            for seq in disk.next.max(first)..next {
                let Some(event) = log.get(seq).cloned() else { continue };
                let (place, message) = (place(seq), Arc::new(bare(event)));
                out.push(Output::Store(Ask::Put { place, message }));
            }
            (disk.first, disk.next) = (first, next);
        }
        log.disk = Some(disk);
    }
}

impl Log {
    /// Puts what was read before what has come since. What could not be read leaves a hole.
    fn lead_in(&mut self, read: Vec<(u64, Arc<Event>)>) {
        let Some(&(first, _)) = read.first() else { return };
        let mut events = VecDeque::with_capacity(read.len());
        let end = self.first();
        for (seq, event) in read.into_iter().chain([(end, hole())]) {
            // A log is without gaps, so one that is longer than the log may be is no hole in it.
            if seq - first > (events.len() + self.rule.max_count) as u64 {
                return;
            }
            while first + (events.len() as u64) < seq {
                let last = events.back().map_or(event.message, |last: &Arc<Event>| last.message);
                events.push_back(Arc::new(Event { message: last, ..(*hole()).clone() }));
            }
            if seq < end {
                events.push_back(event);
            }
        }
        self.lead(first, events);
    }
}

/// An event as a message of the store.
const fn bare(event: Arc<Event>) -> Message {
    let (key, expires_ms, death) = (None, None, None);
    Message { event, key, priority: 0, attempts: 0, expires_ms, death }
}

/// What stands for an event that could not be read: no pattern matches it.
fn hole() -> Arc<Event> {
    let (topic, payload) = (SmolStr::default(), Value::json("null"));
    Arc::new(Event { topic, payload, headers: None, message: crate::base::RunId(0) })
}

fn name(line: &Line) -> Option<SmolStr> {
    serde_json::from_slice::<About>(&line.about).ok().map(|about| about.log)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::names::{Pattern, PatternIndex};
    use crate::topics::Retain;

    fn event(seq: u64) -> (u64, Arc<Event>) {
        let topic = SmolStr::new(format!("a.{seq}"));
        (seq, Arc::new(Event { topic, ..(*hole()).clone() }))
    }

    #[rstest]
    #[case::whole(&[3, 4, 5], "a.3 a.4 a.5")]
    #[case::nothing(&[], "")]
    #[case::holes(&[2, 4], "a.2 - a.4 -")]
    #[case::torn_off(&[1], "")]
    fn what_could_not_be_read_leaves_a_hole(#[case] read: &[u64], #[case] log: &str) {
        let pattern = Pattern::parse("a.#").unwrap();
        let (id, _) = PatternIndex::new(1).insert(&pattern);
        let (max_age_ms, max_count, max_bytes) = (1, 3, 1);
        let rule = Retain { pattern, max_age_ms, max_count, max_bytes, stored: true };
        let mut kept = Log::new(rule, id);
        kept.begin_at(6);
        kept.lead_in(read.iter().copied().map(event).collect());
        let topics = (kept.first()..kept.next()).map(|seq| kept.get(seq).unwrap().topic.as_str());
        let told: Vec<_> = topics.map(|topic| if topic.is_empty() { "-" } else { topic }).collect();
        assert_eq!(told.join(" "), log);
        assert_eq!(kept.next(), 6);
    }
}
