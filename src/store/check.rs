//! What is damaged in a store, what can be rescued of it, and a smaller file for what is left.
//!
//! The file is read by [`Pages`], so damage leads to a report and never to a crash.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::store::{Ask, LANE_DEAD, LANE_DELAYED, Message, Place, ROUTES, Told};
use serde::Serialize;

use super::lines::Row;
use super::pages::{Entry, Pages, Walk};
use super::record::{self, Record, Shelf};
use super::{Options, Store, StoreError, lmdb, lock};

/// Messages on their way into a rescued store at once.
const RESCUED_AT_ONCE: u64 = 4_096;

/// What is in a store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Every line.
    pub lines: Vec<LineReport>,
    /// Routes in their table.
    pub routes: u64,
    /// What is damaged; nothing of it has been changed.
    pub damaged: Vec<Damage>,
    /// Records that were set aside earlier, when they were to be read.
    pub set_aside: Vec<Damage>,
}

/// What is in a line.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LineReport {
    /// Its number.
    pub line: u32,
    /// The queue it belongs to, if that is known.
    pub queue: Option<String>,
    /// Messages that are ready.
    pub ready: u64,
    /// Messages that wait until they are due.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Something that cannot be read, or is not what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The line it belongs to, if it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The queue, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The message's number, if it is a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// Whom every message that can be read is shown to.
type Visit<'a> = &'a mut dyn FnMut(Place, Arc<Message>);

/// Reads everything in a folder's store and changes nothing.
///
/// # Errors
/// Where there is no store, somebody uses it, or its first pages are damaged.
pub fn check(folder: &Path) -> Result<Report, StoreError> {
    let _lock = lock_store(folder)?;
    let file = lmdb::data_file(folder);
    let scan = Scan::read(&Pages::open(&file)?, &mut |_, _| {});
    Ok(scan.report(file))
}

/// Copies what can be read in a folder's store into a new file, which can take the place of the
/// store's own. The report is that of [`check`].
///
/// # Errors
/// As for [`check`]; where `to` is there already; and where it cannot be written.
pub fn salvage(folder: &Path, to: &Path) -> Result<Report, StoreError> {
    let _lock = lock_store(folder)?;
    let file = lmdb::data_file(folder);
    let pages = Pages::open(&file)?;
    let failed = |why: std::io::Error| unusable(to, why.to_string());
    if to.exists() {
        return Err(unusable(to, "it is there already".into()));
    }
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    // What an earlier attempt left is not mixed into this one.
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut rescue = Rescue::new(&part)?;
    let scan = Scan::read(&pages, &mut |place, message| rescue.put(place, message));
    for (&line, row) in &scan.rows {
        rescue.ask(Ask::Line { line, about: row.about.whole() });
    }
    rescue.finish()?;
    std::fs::rename(lmdb::data_file(&part), to).map_err(failed)?;
    std::fs::remove_dir_all(&part).map_err(failed)?;
    sync_folder(to).map_err(failed)?;
    Ok(scan.report(file))
}

/// Writes a folder's store anew without the room that is free in it. Tells the bytes of the file
/// before and after.
///
/// # Errors
/// Where there is no store, somebody uses it, it is damaged, or there is no room for the new file
/// beside the old one. The old one is as it was then.
pub fn compact(folder: &Path) -> Result<(u64, u64), StoreError> {
    let _lock = lock_store(folder)?;
    let file = lmdb::data_file(folder);
    // LMDB would follow damage wherever it leads.
    Pages::open(&file)?.survey()?;
    let part = file.with_extension("part");
    let length = |path: &Path| path.metadata().map(|about| about.len());
    let failed = |why: std::io::Error| unusable(&file, why.to_string());
    let before = length(&file).map_err(failed)?;
    let copied = lmdb::open(folder, before as usize).and_then(|env| lmdb::copy(&env, &part));
    if let Err(error) = copied {
        _ = std::fs::remove_file(&part);
        return Err(unusable(&part, error.to_string()));
    }
    std::fs::rename(&part, &file).map_err(failed)?;
    sync_folder(&file).map_err(failed)?;
    Ok((before, length(&file).map_err(failed)?))
}

fn unusable(file: &Path, why: String) -> StoreError {
    StoreError::Unusable { file: file.to_owned(), why }
}

/// Locks a store that is there; makes none.
fn lock_store(folder: &Path) -> Result<File, StoreError> {
    let file = lmdb::data_file(folder);
    match file.exists() {
        true => lock(folder),
        false => Err(unusable(&file, "there is no store".into())),
    }
}

/// A file's new name is safe from a loss of power.
fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Everything but the messages themselves.
#[derive(Debug, Default)]
struct Scan {
    rows: BTreeMap<u32, Row>,
    counts: BTreeMap<(u32, u8), u64>,
    damaged: Vec<Damage>,
    set_aside: Vec<Damage>,
}

impl Scan {
    fn read(pages: &Pages, visit: Visit<'_>) -> Self {
        let (mut scan, mut walk) = (Self::default(), Walk::new(pages, usize::MAX));
        let mut seen = HashSet::new();
        let tables = walk.tables(&mut seen);
        let mut tree = |name: &str, visit: &mut dyn FnMut(&Entry<'_>)| {
            if let Some(&root) = tables.get(name) {
                walk.tree(root, &mut seen, visit);
            }
        };
        tree("lines", &mut |entry| scan.row(pages, entry));
        let mut garbage = HashSet::new();
        tree("garbage", &mut |entry| garbage.extend(shelf(entry.key)));
        let shelves = scan.shelves();
        tree("messages", &mut |entry| scan.message(pages, &shelves, &garbage, entry, visit));
        tree("damaged", &mut |entry| scan.set_aside.extend(set_aside(entry.key)));
        tree("meta", &mut |_| {});
        for fault in walk.faults {
            let what = format!("page {} {}", fault.page, fault.why);
            scan.damaged.push(Damage { what, ..Damage::default() });
        }
        scan.compare();
        scan
    }

    fn row(&mut self, pages: &Pages, entry: &Entry<'_>) {
        let row = pages.value(entry).ok().and_then(|row| Row::decode(entry.key, &row, None));
        if let Some((line, row)) = row {
            self.rows.insert(line, row);
            return;
        }
        let line = entry.key.try_into().map(u32::from_be_bytes).ok();
        let what = match line {
            Some(ROUTES) => "the table of routes cannot be read",
            _ => "what is known of the line cannot be read",
        };
        let what = what.into();
        self.damaged.push(Damage { line, what, ..Damage::default() });
    }

    /// Which lane stands on which shelf.
    fn shelves(&self) -> HashMap<Shelf, (u32, u8)> {
        let mut shelves = HashMap::new();
        for (&line, row) in &self.rows {
            for (lane, known) in
                row.lanes.all().iter().enumerate().filter(|(_, lane)| lane.shelf != 0)
            {
                shelves.insert(known.shelf, (line, lane as u8));
            }
        }
        shelves
    }

    fn message(
        &mut self,
        pages: &Pages,
        shelves: &HashMap<Shelf, (u32, u8)>,
        garbage: &HashSet<Shelf>,
        entry: &Entry<'_>,
        visit: Visit<'_>,
    ) {
        let key = record::read_key(entry.key);
        let known = key.and_then(|(shelf, ..)| shelves.get(&shelf).copied());
        if key.is_some_and(|(shelf, ..)| garbage.contains(&shelf)) {
            return;
        }
        let value = pages.value(entry).map_err(|fault| fault.why);
        let record = value.and_then(|value| {
            record::decode(entry.key, &value).ok_or("the message differs from what was written")
        });
        match (record, key) {
            (Ok(record), Some((_, at_ms, seq))) => {
                // The record itself says where it stood, should its line's row be lost.
                let Record { line, lane, message } = record;
                if known.is_none() && self.rows.get(&line).is_some_and(|row| !row.about.is_empty())
                {
                    return self.stray(Some(line), Some(seq));
                }
                self.rows.entry(line).or_default();
                *self.counts.entry((line, lane)).or_default() += 1;
                visit(Place { line, lane, at_ms, seq }, message);
            }
            (Ok(_), None) => self.stray(None, None),
            (Err(what), _) => {
                let line = known.map(|(line, _)| line);
                let (queue, seq) = (self.queue(line), key.map(|(.., seq)| seq));
                self.damaged.push(Damage { line, queue, seq, what: what.into() });
            }
        }
    }

    fn stray(&mut self, line: Option<u32>, seq: Option<u64>) {
        let what = "the message is in no lane".into();
        self.damaged.push(Damage { line, queue: self.queue(line), seq, what });
    }

    /// Where everything could be read, there must be as much as the lines say.
    fn compare(&mut self) {
        if !self.damaged.is_empty() {
            return;
        }
        for (&line, row) in &self.rows {
            for (lane, known) in row.lanes.all().iter().enumerate() {
                let (says, found) = (known.load.count, self.count(line, lane as u8));
                if says != found {
                    let what = format!("lane {lane} should have {says} messages and has {found}");
                    let queue = queue(&row.about.whole());
                    self.damaged.push(Damage { line: Some(line), queue, seq: None, what });
                }
            }
        }
    }

    fn count(&self, line: u32, lane: u8) -> u64 {
        self.counts.get(&(line, lane)).copied().unwrap_or_default()
    }

    fn queue(&self, line: Option<u32>) -> Option<String> {
        self.rows.get(&line?).and_then(|row| queue(&row.about.whole()))
    }

    fn report(self, file: PathBuf) -> Report {
        let of = |(&line, row): (&u32, &Row)| LineReport {
            line,
            queue: queue(&row.about.whole()),
            ready: (0..LANE_DELAYED).map(|lane| self.count(line, lane)).sum(),
            delayed: self.count(line, LANE_DELAYED),
            dead: self.count(line, LANE_DEAD),
        };
        let lines = self.rows.iter().filter(|(line, _)| **line != ROUTES).map(of).collect();
        let routes = self.rows.get(&ROUTES).map_or(0, |row| routes(&row.about.whole()));
        let name = |damage: &Damage| Damage { queue: self.queue(damage.line), ..damage.clone() };
        let set_aside = self.set_aside.iter().map(name).collect();
        Report { file, lines, routes, damaged: self.damaged, set_aside }
    }
}

fn shelf(key: &[u8]) -> Option<Shelf> {
    key.try_into().ok().map(Shelf::from_be_bytes)
}

/// Under the key of what was set aside: line, lane, time, number.
fn set_aside(key: &[u8]) -> Option<Damage> {
    let line = key.get(..4)?.try_into().ok().map(u32::from_be_bytes);
    let seq = key.get(13..)?.try_into().ok().map(u64::from_be_bytes);
    Some(Damage { line, queue: None, seq, what: "set aside when it was read".into() })
}

/// The queue that a line says it belongs to, or the pattern of a log.
fn queue(about: &Bytes) -> Option<String> {
    let about: serde_json::Value = serde_json::from_slice(about).ok()?;
    about["queue"].as_str().or_else(|| about["log"].as_str()).map(str::to_owned)
}

/// How many routes their table has.
fn routes(about: &Bytes) -> u64 {
    let table: serde_json::Value = serde_json::from_slice(about).unwrap_or_default();
    table["routes"].as_array().map_or(0, |routes| routes.len() as u64)
}

/// A new store that takes what was rescued.
struct Rescue {
    store: Store,
    bell: std::sync::mpsc::Receiver<()>,
    asked: u64,
    synced: u64,
    refused: Option<String>,
}

impl Rescue {
    fn new(folder: &Path) -> Result<Self, StoreError> {
        let (ring, bell) = std::sync::mpsc::channel();
        let (store, _) = Store::open(folder, &Options::default(), move || _ = ring.send(()))?;
        Ok(Self { store, bell, asked: 0, synced: 0, refused: None })
    }

    fn put(&mut self, place: Place, message: Arc<Message>) {
        self.ask(Ask::Put { place, message });
    }

    fn ask(&mut self, ask: Ask) {
        self.store.ask(ask);
        self.asked += 1;
        if self.asked - self.synced >= RESCUED_AT_ONCE {
            self.wait(self.asked - RESCUED_AT_ONCE / 2);
        }
    }

    /// Waits until so many are on disk, or one could not be written.
    fn wait(&mut self, writes: u64) {
        while self.synced < writes && self.refused.is_none() {
            match self.store.told() {
                Some(Told::Synced { writes }) => self.synced = writes,
                Some(Told::Failed { refusal }) => self.refused = Some(refusal.message.into()),
                None if self.bell.recv().is_err() => {
                    self.refused = Some("the new store's thread has ended".into());
                }
                Some(_) | None => {}
            }
        }
    }

    fn finish(mut self) -> Result<(), StoreError> {
        self.wait(self.asked);
        match self.refused {
            Some(why) => Err(unusable(Path::new("the new file"), why)),
            None => Ok(()),
        }
    }
}
