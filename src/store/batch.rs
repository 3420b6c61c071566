//! Asks applied in order within one transaction.

use std::ops::Bound;
use std::sync::Arc;

use heed::{Env, MdbError, PutFlags, RoTxn, RwTxn};
use mpreg_patterns::base::Map;
use mpreg_patterns::store::{Ask, Message, Place, Told};

use super::lines::{About, Draft, Lane, Lines, Row};
use super::lmdb::{self, Tables};
use super::record::{self, Key, Shelf};

/// Records of lanes that were cleared, removed by one transaction.
const SWEEP: usize = 1_000;

/// One transaction. Dropped without [`Batch::commit`], it changes nothing.
pub(super) struct Batch<'a> {
    tables: Tables,
    write: RwTxn<'a>,
    lines: &'a Lines,
    draft: Draft,
    /// What the pages in use may come to, bytes.
    limit: Option<u64>,
    buffer: Vec<u8>,
    /// No key of a message is above it.
    last: Key,
    /// A lane, and rising keys of what is to be deleted in it.
    run: ((u32, u8), Vec<Key>),
    /// What fetches found.
    pub(super) told: Vec<Told>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        env: &'a Env,
        tables: Tables,
        lines: &'a Lines,
        limit: Option<u64>,
    ) -> heed::Result<Self> {
        let (write, draft) = (env.write_txn()?, Draft::default());
        let last = tables.messages.last(&write)?.and_then(|(key, _)| key.try_into().ok());
        let (last, buffer, told) = (last.unwrap_or([0; 24]), Vec::new(), Vec::new());
        let run = ((0, 0), Vec::new());
        Ok(Self { tables, write, lines, draft, limit, buffer, last, run, told })
    }

    /// Applies asks until one finds no room within the limit; says how many come before that one.
    pub(super) fn apply(&mut self, asks: &[Ask]) -> heed::Result<usize> {
        let mut passing = passing(asks);
        for (index, ask) in asks.iter().enumerate() {
            if !matches!(ask, Ask::Put { .. } | Ask::Delete { .. }) {
                self.delete_run()?;
            }
            let passes = if passing.is_empty() { None } else { passing.remove(&index) };
            match ask {
                Ask::Put { place, message } => match passes {
                    Some(delete) if self.is_new(place) => _ = passing.insert(delete, delete),
                    Some(_) => {}
                    None if self.is_full()? => return Ok(index),
                    None => self.put(place, message)?,
                },
                Ask::Delete { .. } if passes.is_some() => {}
                Ask::Move { from, to, message } => {
                    self.delete(from)?;
                    self.put(to, message)?;
                }
                Ask::Delete { place } => self.delete(place)?,
                Ask::Line { line, about } => {
                    let about = About::new(about, self.before(*line).map(|row| &row.about));
                    self.row(*line).about = about;
                }
                Ask::Clear { line, lane, keep } if self.known(*line).is_some() => {
                    let lane = std::mem::take(self.lane(*line, *lane));
                    self.discard([lane])?;
                    for (place, message) in keep {
                        self.put(place, message)?;
                    }
                }
                Ask::Drop { line } if self.known(*line).is_some() => {
                    let lanes = self.row(*line).lanes.all();
                    self.draft.rows.insert(*line, None);
                    self.discard(lanes)?;
                }
                Ask::Clear { .. } | Ask::Drop { .. } => {}
                Ask::Fetch { .. } => self.fetch(ask)?,
            }
        }
        self.delete_run()?;
        Ok(asks.len())
    }

    /// Removes some of what stands on shelves of lanes that were cleared.
    pub(super) fn sweep(&mut self) -> heed::Result<()> {
        let mut room = SWEEP;
        for &shelf in &self.lines.garbage {
            if room == 0 {
                break;
            }
            let found = keys(self.tables, &self.write, shelf, room)?;
            if let (Some(first), Some(last)) = (found.first(), found.last()) {
                let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
                self.tables.messages.delete_range(&mut self.write, &range)?;
            }
            if found.len() < room {
                self.tables.garbage.delete(&mut self.write, &shelf.to_be_bytes())?;
                self.draft.emptied += 1;
            }
            room -= found.len();
        }
        Ok(())
    }

    /// Makes it last: returns once it is safe from a loss of power.
    pub(super) fn commit(mut self) -> heed::Result<Draft> {
        for (&line, row) in &self.draft.rows {
            let key = line.to_be_bytes();
            match row {
                Some(row) if self.lines.rows.get(&line) == Some(row) => {}
                Some(row) => self.tables.lines.put(&mut self.write, &key, &row.encode(line))?,
                None => _ = self.tables.lines.delete(&mut self.write, &key)?,
            }
        }
        self.write.commit()?;
        Ok(self.draft)
    }

    /// A line as this transaction has it, if there is one.
    fn known(&self, line: u32) -> Option<&Row> {
        self.draft.rows.get(&line).map_or_else(|| self.lines.rows.get(&line), Option::as_ref)
    }

    /// A line with a number below, which was most likely declared like this one.
    fn before(&self, line: u32) -> Option<&Row> {
        let drafted = self.draft.rows.range(..line).next_back().and_then(|(_, row)| row.as_ref());
        drafted.or_else(|| self.lines.rows.range(..line).next_back().map(|(_, row)| row))
    }

    /// The same, to be changed; one nobody has told of yet is empty.
    fn row(&mut self, line: u32) -> &mut Row {
        let lines = self.lines;
        let row = self.draft.rows.entry(line).or_insert_with(|| lines.rows.get(&line).cloned());
        row.get_or_insert_default()
    }

    fn lane(&mut self, line: u32, lane: u8) -> &mut Lane {
        self.row(line).lanes.of_mut(lane)
    }

    /// Whether nothing can stand at a place, since its number is above all in the line.
    fn is_new(&self, place: &Place) -> bool {
        self.known(place.line).is_none_or(|row| place.seq >= row.next_seq)
    }

    fn is_full(&mut self) -> heed::Result<bool> {
        let Some(limit) = self.limit else { return Ok(false) };
        self.delete_run()?;
        Ok(self.tables.used_bytes(&self.write)? > limit)
    }

    fn put(&mut self, place: &Place, message: &Message) -> heed::Result<()> {
        let fresh = self.lines.next_shelf + self.draft.shelves;
        let row = self.row(place.line);
        let is_new = place.seq >= row.next_seq;
        let lane = row.lanes.of_mut(place.lane);
        let is_first = lane.shelf == 0;
        if is_first {
            lane.shelf = fresh;
        }
        let shelf = lane.shelf;
        self.draft.shelves += u64::from(is_first);
        if !is_new {
            // It may stand where something is to be deleted.
            self.delete_run()?;
        }
        let key = record::key(shelf, place.at_ms, place.seq);
        if !is_new && let Some(before) = self.tables.messages.get(&self.write, &key)? {
            let bytes = record::load_bytes(before);
            self.lane(place.line, place.lane).take(1, bytes);
        }
        record::encode(&key, place, message, &mut self.buffer);
        // What is put behind all else fills its page; between others it would leave halves.
        let flags = if key > self.last { PutFlags::APPEND } else { PutFlags::empty() };
        self.last = self.last.max(key);
        self.tables.messages.put_with_flags(&mut self.write, flags, &key, &self.buffer)?;
        let row = self.row(place.line);
        row.lanes.of_mut(place.lane).add(message.bytes() as u64);
        row.next_seq = row.next_seq.max(place.seq.saturating_add(1));
        Ok(())
    }

    fn delete(&mut self, place: &Place) -> heed::Result<()> {
        let lane = (place.line, place.lane);
        let Some(row) = self.known(place.line) else { return Ok(()) };
        let key = record::key(row.lanes.of(place.lane).shelf, place.at_ms, place.seq);
        if self.run.0 != lane || self.run.1.last().is_some_and(|last| *last >= key) {
            self.delete_run()?;
            self.run.0 = lane;
        }
        self.run.1.push(key);
        Ok(())
    }

    /// Deletes what was gathered: what stands side by side is found at once.
    fn delete_run(&mut self) -> heed::Result<()> {
        if self.run.1.is_empty() {
            return Ok(());
        }
        let ((line, lane), mut keys) = std::mem::take(&mut self.run);
        let (mut count, mut bytes) = (0, 0);
        lmdb::delete_run(self.tables.messages, &mut self.write, &keys, |record| {
            count += 1;
            bytes += record::load_bytes(record);
        })?;
        self.lane(line, lane).take(count, bytes);
        keys.clear();
        self.run = ((line, lane), keys);
        Ok(())
    }

    /// Leaves what is in lanes to be swept, slice by slice: no lane shows it any more.
    fn discard(&mut self, lanes: impl IntoIterator<Item = Lane>) -> heed::Result<()> {
        for lane in lanes.into_iter().filter(|lane| lane.shelf != 0) {
            self.tables.garbage.put(&mut self.write, &lane.shelf.to_be_bytes(), &[])?;
            self.draft.garbage.push(lane.shelf);
        }
        Ok(())
    }

    fn fetch(&mut self, ask: &Ask) -> heed::Result<()> {
        let Some(want) = Want::of(ask, |line| self.known(line)) else { return Ok(()) };
        let found = find(self.tables, &self.write, &want)?;
        for place in &found.damaged {
            self.set_aside(&want, place)?;
        }
        self.told.push(found.told(want.fetch));
        Ok(())
    }

    /// Moves a record that cannot be read out of its lane.
    fn set_aside(&mut self, want: &Want, place: &Place) -> heed::Result<()> {
        let key = record::key(want.shelf, place.at_ms, place.seq);
        let Some(record) = self.tables.messages.get(&self.write, &key)?.map(<[u8]>::to_vec) else {
            return Ok(());
        };
        self.tables.damaged.put(&mut self.write, &damaged_key(place), &record)?;
        self.tables.messages.delete(&mut self.write, &key)?;
        self.lane(place.line, place.lane).take(1, record::load_bytes(&record));
        Ok(())
    }
}

/// Under which key a damaged record is set aside: line, lane, time and number, big-endian.
fn damaged_key(place: &Place) -> [u8; 21] {
    let mut key = [0; 21];
    key[..4].copy_from_slice(&place.line.to_be_bytes());
    key[4] = place.lane;
    key[5..13].copy_from_slice(&place.at_ms.to_be_bytes());
    key[13..].copy_from_slice(&place.seq.to_be_bytes());
    key
}

/// Puts that need not be written, each with the delete that undoes it, by their indices. A fetch
/// of the lane in between has to see the message.
fn passing(asks: &[Ask]) -> Map<usize, usize> {
    let mut put: Map<(u32, u8), Map<(u64, u64), usize>> = Map::default();
    let mut passing = Map::default();
    let (mut first_put, mut last_deleted) = (u64::MAX, 0);
    for ask in asks {
        match ask {
            Ask::Put { place, .. } => first_put = first_put.min(place.seq),
            Ask::Delete { place } => last_deleted = last_deleted.max(place.seq),
            _ => {}
        }
    }
    if last_deleted < first_put {
        return passing;
    }
    for (index, ask) in asks.iter().enumerate() {
        match ask {
            Ask::Put { place, .. } => {
                let lane = put.entry((place.line, place.lane)).or_default();
                lane.insert((place.at_ms, place.seq), index);
            }
            Ask::Delete { place } => {
                let lane = put.get_mut(&(place.line, place.lane));
                if let Some(put) = lane.and_then(|lane| lane.remove(&(place.at_ms, place.seq))) {
                    passing.insert(put, index);
                }
            }
            Ask::Move { from, to, .. } => {
                for place in [from, to] {
                    let lane = put.get_mut(&(place.line, place.lane));
                    lane.and_then(|lane| lane.remove(&(place.at_ms, place.seq)));
                }
            }
            Ask::Fetch { line, lane, .. } | Ask::Clear { line, lane, .. } => {
                put.remove(&(*line, *lane));
            }
            Ask::Drop { line } => put.retain(|(of, _), _| of != line),
            Ask::Line { .. } => {}
        }
    }
    passing
}

/// What a fetch asks for, and of which shelf.
#[derive(Debug)]
pub(super) struct Want {
    fetch: u32,
    line: u32,
    lane: u8,
    shelf: Shelf,
    /// Messages in the lane.
    holds: usize,
    after: Option<(u64, u64)>,
    count: usize,
    bytes: usize,
}

impl Want {
    /// Nothing for what is no fetch.
    pub(super) fn of<'a>(ask: &Ask, row: impl FnOnce(u32) -> Option<&'a Row>) -> Option<Self> {
        let &Ask::Fetch { fetch, line, lane, after, count, bytes } = ask else { return None };
        let (count, bytes) = (count as usize, bytes as usize);
        let Lane { shelf, load } = row(line).map_or_else(Lane::default, |row| row.lanes.of(lane));
        Some(Self { fetch, line, lane, shelf, holds: load.count as usize, after, count, bytes })
    }

    /// Whether a key is one of the lane's, behind the last one.
    fn follows(&self, last: Option<(u64, u64)>, &(shelf, at_ms, seq): &(Shelf, u64, u64)) -> bool {
        shelf == self.shelf && last.is_none_or(|last| (at_ms, seq) > last)
    }

    /// The shelf's keys behind `after`.
    fn range(&self) -> (Bound<Key>, Bound<Key>) {
        let from = match self.after {
            Some((at_ms, seq)) => Bound::Excluded(record::key(self.shelf, at_ms, seq)),
            None => Bound::Included(record::key(self.shelf, 0, 0)),
        };
        (from, Bound::Included(record::key(self.shelf, u64::MAX, u64::MAX)))
    }
}

/// What a fetch found.
#[derive(Debug, Default)]
pub(super) struct Found {
    messages: Vec<(Place, Arc<Message>)>,
    end: bool,
    /// What could not be read; it is in its lane still.
    pub(super) damaged: Vec<Place>,
}

impl Found {
    /// As it is told.
    pub(super) fn told(self, fetch: u32) -> Told {
        let Self { messages, end, damaged } = self;
        Told::Fetched { fetch, messages, end, damaged }
    }
}

/// The answer to a fetch that finds nothing damaged; nothing if it does, since that is a write.
pub(super) fn peek(tables: Tables, read: &RoTxn<'_>, want: &Want) -> heed::Result<Option<Told>> {
    let found = find(tables, read, want)?;
    Ok(found.damaged.is_empty().then(|| found.told(want.fetch)))
}

fn find(tables: Tables, read: &RoTxn<'_>, want: &Want) -> heed::Result<Found> {
    let mut found = Found::default();
    let range = want.range();
    let range = (slice(&range.0), slice(&range.1));
    let (mut bytes, mut last) = (0, want.after);
    for entry in tables.messages.range(read, &range)? {
        let (key, value) = entry?;
        if found.messages.len() + found.damaged.len() >= want.count || bytes >= want.bytes {
            return Ok(found);
        }
        let Some((_, at_ms, seq)) = record::read_key(key).filter(|key| want.follows(last, key))
        else {
            return Err(damaged_pages());
        };
        last = Some((at_ms, seq));
        let place = Place { line: want.line, lane: want.lane, at_ms, seq };
        match record::decode(key, value) {
            Some(record) => {
                bytes += record.message.bytes();
                found.messages.push((place, record.message));
            }
            None => found.damaged.push(place),
        }
    }
    if want.after.is_none() && found.messages.len() + found.damaged.len() != want.holds {
        return Err(damaged_pages());
    }
    // The way down from the root must lead to the same last message.
    let end = record::key(want.shelf, u64::MAX, u64::MAX);
    let tail = tables.messages.get_lower_than_or_equal_to(read, &end)?;
    if tail.and_then(|(key, _)| record::read_key(key)).is_some_and(|key| want.follows(last, &key)) {
        return Err(damaged_pages());
    }
    found.end = true;
    Ok(found)
}

/// What LMDB reads off a damaged page is no error to it, but not what is in the lane.
const fn damaged_pages() -> heed::Error {
    heed::Error::Mdb(MdbError::Corrupted)
}

/// The first keys of a shelf.
fn keys(tables: Tables, read: &RoTxn<'_>, shelf: Shelf, most: usize) -> heed::Result<Vec<Vec<u8>>> {
    let prefix = shelf.to_be_bytes();
    let entries = tables.messages.prefix_iter(read, &prefix)?.take(most);
    entries.map(|entry| entry.map(|(key, _)| key.to_vec())).collect()
}

fn slice(bound: &Bound<Key>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}
