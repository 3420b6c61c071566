//! A store in memory for tests: does what it is asked when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::{Ask, LANE_DEAD, Line, Load, Message, Place, Told};
use crate::base::{Code, Refusal};

/// What is on the disk.
#[derive(Clone, Debug, Default)]
struct Disk {
    lines: BTreeMap<u32, (Bytes, u64)>,
    messages: BTreeMap<Place, Arc<Message>>,
}

/// A store that is as quick, and fails as often, as a test wants.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    synced: Disk,
    written: Disk,
    asked: VecDeque<Ask>,
    writes: u64,
}

impl Shelf {
    pub(crate) fn ask(&mut self, ask: Ask) {
        self.asked.push_back(ask);
    }

    /// Whether something is to be done.
    pub(crate) fn is_busy(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Does all that is asked, and syncs.
    pub(crate) fn sync(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(ask) = self.asked.pop_front() {
            told.extend(self.apply(ask));
        }
        self.synced = self.written.clone();
        told.push(Told::Synced { writes: self.writes });
        told
    }

    /// Does the first that is asked, which is a write, and syncs.
    pub(crate) fn step(&mut self) -> Told {
        let ask = self.asked.pop_front().expect("something is asked");
        self.apply(ask);
        self.synced = self.written.clone();
        Told::Synced { writes: self.writes }
    }

    /// Has room for nothing new.
    pub(crate) fn full(&self) -> Told {
        Told::Full { refusal: Refusal::new(Code::StoreFull, "little room is left") }
    }

    /// Loses what was not synced.
    pub(crate) fn fail(&mut self) -> Told {
        self.asked.clear();
        self.written = self.synced.clone();
        Told::Failed { refusal: Refusal::new(Code::StoreFull, "no space left") }
    }

    /// Begins anew with what was synced.
    pub(crate) fn open(&mut self) -> Told {
        self.asked.clear();
        self.written = self.synced.clone();
        self.writes = 0;
        let mut lines: Vec<Line> = Vec::new();
        for (line, (about, next_seq)) in &self.synced.lines {
            let mut lanes = [Load::default(); LANE_DEAD as usize + 1];
            for (place, message) in self.synced.messages.iter().filter(|of| of.0.line == *line) {
                lanes[place.lane as usize].count += 1;
                lanes[place.lane as usize].bytes += message.bytes() as u64;
            }
            lines.push(Line { line: *line, about: about.clone(), lanes, next_seq: *next_seq });
        }
        Told::Opened { lines }
    }

    fn apply(&mut self, ask: Ask) -> Option<Told> {
        let Disk { lines, messages } = &mut self.written;
        if !matches!(ask, Ask::Fetch { .. }) {
            self.writes += 1;
        }
        match ask {
            Ask::Line { line, about } => {
                lines.entry(line).or_insert_with(|| (Bytes::new(), 1)).0 = about;
            }
            Ask::Drop { line } => {
                lines.remove(&line);
                messages.retain(|place, _| place.line != line);
            }
            Ask::Put { place, message } => {
                let (_, next_seq) = lines.get_mut(&place.line).expect("a line");
                *next_seq = (*next_seq).max(place.seq + 1);
                messages.insert(place, message);
            }
            Ask::Move { from, to, message } => {
                let (_, next_seq) = lines.get_mut(&to.line).expect("a line");
                *next_seq = (*next_seq).max(to.seq + 1);
                messages.remove(&from);
                messages.insert(to, message);
            }
            Ask::Delete { place } => {
                messages.remove(&place);
            }
            Ask::Clear { line, lane, keep } => {
                messages.retain(|place, _| (place.line, place.lane) != (line, lane));
                messages.extend(keep);
            }
            Ask::Fetch { fetch, line, lane, after, count, .. } => {
                let of_lane = messages.iter().filter(|(place, _)| {
                    let order = (place.at_ms, place.seq);
                    (place.line, place.lane) == (line, lane) && Some(order) > after
                });
                let mut found = of_lane.map(|(place, message)| (*place, message.clone()));
                let messages = found.by_ref().take(count as usize).collect();
                let end = found.next().is_none();
                return Some(Told::Fetched { fetch, messages, end, damaged: Vec::new() });
            }
        }
        None
    }

    /// Whether a message is safe.
    pub(crate) fn has(&self, message: crate::base::RunId) -> bool {
        self.synced.messages.values().any(|of| of.event.message == message)
    }

    /// Messages on the disk.
    pub(crate) fn len(&self) -> usize {
        self.synced.messages.len()
    }
}
