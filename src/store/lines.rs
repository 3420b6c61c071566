//! What is known of each line: on disk a row with a checksum, in memory all rows at once, so that
//! opening costs nothing however much waits.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mpreg_patterns::store::{LANE_DEAD, Line, Load};

use super::record::{Shelf, u32_at, u64_at};

/// Lanes of a line.
pub(super) const LANES: usize = LANE_DEAD as usize + 1;
/// Of this layout of a row.
const VERSION: u8 = 1;
/// Version, checksum, next number and lanes: what stands before `about`.
const HEAD: usize = 16 + LANES * 24;

/// One lane of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// Where its messages stand; 0 until the first one comes.
    pub(super) shelf: Shelf,
    /// How much is in it.
    pub(super) load: Load,
}

impl Lane {
    pub(super) const fn add(&mut self, bytes: u64) {
        self.load.count += 1;
        self.load.bytes += bytes;
    }

    /// An empty lane holds no bytes, also where a damaged record told a wrong number of them.
    pub(super) const fn take(&mut self, count: u64, bytes: u64) {
        self.load.count = self.load.count.saturating_sub(count);
        self.load.bytes = match self.load.count {
            0 => 0,
            _ => self.load.bytes.saturating_sub(bytes),
        };
    }
}

/// The lanes of one line: of most lines nothing, ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lanes(Option<Box<[Lane; LANES]>>);

impl Lanes {
    fn new(lanes: &[Lane; LANES]) -> Self {
        Self((*lanes != [Lane::default(); LANES]).then(|| Box::new(*lanes)))
    }

    pub(super) fn of(&self, lane: u8) -> Lane {
        self.0.as_ref().map_or_else(Lane::default, |lanes| lanes[usize::from(lane)])
    }

    pub(super) fn of_mut(&mut self, lane: u8) -> &mut Lane {
        &mut self.0.get_or_insert_default()[usize::from(lane)]
    }

    pub(super) fn all(&self) -> [Lane; LANES] {
        self.0.as_ref().map_or_else(Default::default, |lanes| **lanes)
    }
}

/// What was asked to be known of a line. A hundred thousand queues may be there and be idle, with
/// the same settings, so the end is shared with others that end alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    own: Box<[u8]>,
    shared: Bytes,
}

/// An end is shared if it is as long.
const SHARED_BYTES: usize = 64;

impl About {
    /// Splits it where it begins to end as `other` does.
    pub(super) fn new(about: &[u8], other: Option<&Self>) -> Self {
        let Some(other) = other else {
            return Self { own: about.into(), shared: Bytes::new() };
        };
        if !other.shared.is_empty() && about.ends_with(&other.shared) {
            let own = about[..about.len() - other.shared.len()].into();
            return Self { own, shared: other.shared.clone() };
        }
        let whole = other.whole();
        let alike = about.iter().rev().zip(whole.iter().rev()).take_while(|(one, of)| one == of);
        let (own, end) = about.split_at(about.len() - alike.count());
        if end.len() < SHARED_BYTES {
            return Self { own: about.into(), shared: Bytes::new() };
        }
        Self { own: own.into(), shared: Bytes::copy_from_slice(end) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }

    /// All of it.
    pub(super) fn whole(&self) -> Bytes {
        [&self.own[..], &self.shared[..]].concat().into()
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// What was asked to be known of it.
    pub(super) about: About,
    /// Its lanes.
    pub(super) lanes: Lanes,
    /// Above every number that was ever written in it.
    pub(super) next_seq: u64,
}

impl Row {
    /// The row as bytes, under the key `line`.
    pub(super) fn encode(&self, line: u32) -> Vec<u8> {
        let about = &self.about;
        let mut row = Vec::with_capacity(HEAD + about.own.len() + about.shared.len());
        row.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
        row.extend_from_slice(&self.next_seq.to_le_bytes());
        for lane in &self.lanes.all() {
            for number in [lane.shelf, lane.load.count, lane.load.bytes] {
                row.extend_from_slice(&number.to_le_bytes());
            }
        }
        row.extend_from_slice(&about.own);
        row.extend_from_slice(&about.shared);
        let sum = checksum(line, &row);
        row[4..8].copy_from_slice(&sum.to_le_bytes());
        row
    }

    /// Reads a row. Nothing where a bit of it, or of its key, is not as it was written. `other` is
    /// one that it may share something with.
    pub(super) fn decode(key: &[u8], row: &[u8], other: Option<&Self>) -> Option<(u32, Self)> {
        let line = u32::from_be_bytes(key.try_into().ok()?);
        if row.len() < HEAD || row[0] != VERSION || u32_at(row, 4) != checksum(line, row) {
            return None;
        }
        let lane = |index: usize| {
            let at = 16 + index * 24;
            let load = Load { count: u64_at(row, at + 8), bytes: u64_at(row, at + 16) };
            Lane { shelf: u64_at(row, at), load }
        };
        let about = About::new(&row[HEAD..], other.map(|other| &other.about));
        let lanes = Lanes::new(&std::array::from_fn(lane));
        Some((line, Self { about, lanes, next_seq: u64_at(row, 8) }))
    }

    /// The line as it is told.
    pub(super) fn line(&self, line: u32) -> Line {
        let lanes = self.lanes.all().map(|lane| lane.load);
        Line { line, about: self.about.whole(), lanes, next_seq: self.next_seq }
    }
}

fn checksum(line: u32, row: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&line.to_be_bytes());
    sum.update(&row[..4]);
    sum.update(&row[8..]);
    sum.finalize()
}

/// All lines, as the last commit left them.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// By number.
    pub(super) rows: BTreeMap<u32, Row>,
    /// Shelves to be emptied, in order.
    pub(super) garbage: VecDeque<Shelf>,
    /// Above every shelf in use.
    pub(super) next_shelf: Shelf,
}

/// What one transaction changes of them. Nothing of it holds until it is adopted.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Lines that have changed, or are gone.
    pub(super) rows: BTreeMap<u32, Option<Row>>,
    /// Shelves that are to be emptied from now on.
    pub(super) garbage: Vec<Shelf>,
    /// How many of the first shelves to be emptied are so now.
    pub(super) emptied: usize,
    /// Shelves taken into use.
    pub(super) shelves: u64,
}

impl Lines {
    /// Of what was read.
    pub(super) fn new(rows: BTreeMap<u32, Row>, garbage: VecDeque<Shelf>) -> Self {
        let lanes = rows.values().flat_map(|row| row.lanes.all().map(|lane| lane.shelf));
        let next_shelf = 1 + lanes.chain(garbage.iter().copied()).max().unwrap_or(0);
        Self { rows, garbage, next_shelf }
    }

    /// Every line, as it is told.
    pub(super) fn told(&self) -> Vec<Line> {
        self.rows.iter().map(|(&line, row)| row.line(line)).collect()
    }

    /// What a transaction changed is on disk now.
    pub(super) fn adopt(&mut self, draft: Draft) {
        for (line, row) in draft.rows {
            match row {
                Some(row) => self.rows.insert(line, row),
                None => self.rows.remove(&line),
            };
        }
        self.garbage.drain(..draft.emptied);
        self.garbage.extend(draft.garbage);
        self.next_shelf += draft.shelves;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_end_alike_share_their_ends() {
        let about = |queue: &str| format!("{{\"queue\":\"{queue}\",{}}}", "x".repeat(100));
        let (one, two, three) = (about("a"), about("bb"), about("ccc"));
        let first = About::new(one.as_bytes(), None);
        let second = About::new(two.as_bytes(), Some(&first));
        let third = About::new(three.as_bytes(), Some(&second));
        for (about, text) in [(&first, &one), (&second, &two), (&third, &three)] {
            assert_eq!(about.whole(), text.as_bytes());
        }
        assert_eq!(third.shared.as_ptr(), second.shared.as_ptr());
        assert_eq!((first.shared.len(), &third.own[..]), (0, &b"{\"queue\":\"ccc"[..]));
        let other = About::new(b"short", Some(&third));
        assert_eq!((&other.own[..], other.shared.len()), (&b"short"[..], 0));
        assert!(About::new(b"", Some(&third)).is_empty());
    }
}
