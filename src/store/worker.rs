//! The store's thread: takes what waits, applies it, commits, tells; and opens anew what failed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use heed::{Env, MdbError};
use mpreg_patterns::base::{Code, Refusal};
use mpreg_patterns::store::{Ask, Line, Told};

use super::batch::{Batch, Want, peek};
use super::lines::Lines;
use super::lmdb::{self, MAP_STEP, Tables};
use super::room::{self, Room, Used};
use super::{Options, StoreError, opening};

/// Asks of one commit, at most.
const BATCH_ASKS: usize = 8_192;
/// The same in bytes of their messages.
const BATCH_BYTES: usize = 8 << 20;
/// With less than this left, a write that failed without a reason failed for want of room.
const ROOM: u64 = 1 << 20;

/// Small commits tried before a full file counts as full.
const TURNS: u32 = 3;

/// Pages looked at before the first opening, from the top of the trees: some milliseconds.
const GLANCE: usize = 1_024;

/// What the handle sends: an ask, and the epoch it was asked in.
pub(super) type Stamped<T> = (u64, T);

/// The lane to the core.
pub(super) struct Teller {
    pub(super) lane: Sender<Stamped<Told>>,
    pub(super) rung: Arc<AtomicBool>,
    pub(super) waker: Box<dyn Fn() + Send>,
}

impl Teller {
    /// Rings once until the core has looked.
    fn tell(&self, epoch: u64, told: Told) {
        if self.lane.send((epoch, told)).is_ok() && !self.rung.swap(true, Ordering::SeqCst) {
            (self.waker)();
        }
    }
}

/// Everything the store's thread owns, but the environment.
pub(super) struct Worker {
    pub(super) folder: PathBuf,
    pub(super) options: Options,
    pub(super) asks: Receiver<Stamped<Vec<Ask>>>,
    pub(super) teller: Teller,
    /// Of what is open now. What was asked of an earlier one is dropped: the core asked before it
    /// knew.
    pub(super) epoch: u64,
    /// Held as long as the thread lives.
    pub(super) lock: File,
}

impl Worker {
    /// Tells `opened` once how the first opening went, then serves until the handle is gone.
    pub(super) fn run(mut self, opened: &Sender<Result<Vec<Line>, StoreError>>) {
        let first = Open::new(&self.folder, &self.options, GLANCE);
        let (told, mut open) = match first {
            Ok(open) => (Ok(open.lines.told()), Some(open)),
            Err(error) => (Err(error), None),
        };
        _ = opened.send(told);
        while let Some(now) = open.take() {
            let Err(refusal) = self.serve(now) else { break };
            // Whatever else went wrong may have been the file.
            let look = if refusal.is(Code::StoreFull) { GLANCE } else { usize::MAX };
            log::error!("the store in {} stopped: {refusal}", self.folder.display());
            self.teller.tell(self.epoch, Told::Failed { refusal });
            open = self.reopen(look);
        }
        _ = self.lock.unlock();
    }

    /// Serves until the handle is gone. Ends with what failed; the environment is closed then.
    fn serve(&self, mut open: Open) -> Result<(), Refusal> {
        let mut batch = Vec::new();
        let mut writes = 0;
        loop {
            if let Some(told) = open.look().map_err(|error| open.refusal(&error.into()))? {
                self.teller.tell(self.epoch, told);
            }
            // What is to be swept is a reason for a commit without any ask.
            let wait = open.lines.garbage.is_empty();
            if !self.gather(&mut batch, wait.then(|| open.patience(self.options.retry))) {
                return Ok(());
            }
            let (mut rest, mut heard) = (&batch[..], 0);
            let mut tell = |told| self.teller.tell(self.epoch, told);
            loop {
                let done = open.advance(rest, &mut heard, &mut tell);
                let (now, later) = rest.split_at(done.map_err(|error| open.refusal(&error))?);
                let written = now.iter().filter(|ask| !matches!(ask, Ask::Fetch { .. })).count();
                if written > 0 {
                    writes += written as u64;
                    tell(Told::Synced { writes });
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            batch.clear();
        }
    }

    /// Takes what waits, up to a bound; waits for the first of it if that is wanted, so long at
    /// most. False once the handle is gone and all is taken.
    fn gather(&self, batch: &mut Vec<Ask>, wait: Option<Duration>) -> bool {
        let mut bytes = 0;
        let mut take = |(epoch, asks): Stamped<Vec<Ask>>| {
            if epoch == self.epoch {
                bytes += asks.iter().map(bytes_of).sum::<usize>();
                batch.extend(asks);
            }
            batch.len() < BATCH_ASKS && bytes < BATCH_BYTES
        };
        if let Some(patience) = wait {
            match self.asks.recv_timeout(patience) {
                Ok(first) => _ = take(first),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match self.asks.try_recv() {
                Ok(next) => {
                    if !take(next) {
                        return true;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                // What is to be swept can wait for the next life.
                Err(TryRecvError::Disconnected) => return wait.is_some() || !batch.is_empty(),
            }
        }
    }

    /// Tries once in a while until what is there can be read and written again. Nothing once the
    /// handle is gone.
    fn reopen(&mut self, look: usize) -> Option<Open> {
        loop {
            self.pause()?;
            match Open::new(&self.folder, &self.options, look) {
                Ok(open) => {
                    log::warn!("the store in {} is open again", self.folder.display());
                    self.epoch += 1;
                    self.teller.tell(self.epoch, Told::Opened { lines: open.lines.told() });
                    return Some(open);
                }
                Err(error) => log::warn!("cannot open the store again: {error}"),
            }
        }
    }

    /// Waits, and drops what is asked meanwhile. Nothing once the handle is gone.
    fn pause(&self) -> Option<()> {
        let until = Instant::now() + self.options.retry;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.asks.recv_timeout(left) {
                Ok(_) if left > Duration::ZERO => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => return Some(()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

fn bytes_of(ask: &Ask) -> usize {
    match ask {
        Ask::Put { message, .. } | Ask::Move { message, .. } => message.bytes(),
        Ask::Line { about, .. } => about.len(),
        Ask::Clear { keep, .. } => keep.iter().map(|(_, message)| message.bytes()).sum(),
        _ => 0,
    }
}

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The room the store may take is used up.
    Full,
    /// LMDB or the system said no.
    Heed(heed::Error),
}

impl From<heed::Error> for Stopped {
    fn from(error: heed::Error) -> Self {
        Self::Heed(error)
    }
}

/// An environment, open.
pub(super) struct Open {
    folder: PathBuf,
    env: Env,
    tables: Tables,
    lines: Lines,
    max_bytes: Option<u64>,
    room: Room,
}

impl Open {
    /// Opens what is in the folder, or makes it. Looks at so many of its pages, and shows with a
    /// small write and its sync that both work.
    fn new(folder: &Path, options: &Options, look: usize) -> Result<Self, StoreError> {
        let (env, tables, lines) = opening::open(folder, options, look)?;
        let max_bytes = options.max_bytes.map(|most| most.max(super::MIN_BYTES));
        let file = lmdb::data_file(folder);
        let room = Room::new(&file, max_bytes)
            .map_err(|error| StoreError::Unusable { file, why: error.to_string() })?;
        Ok(Self { folder: folder.to_owned(), env, tables, lines, max_bytes, room })
    }

    /// Sees to room for what is to come. What is to be told of it, if that has changed.
    fn look(&mut self) -> heed::Result<Option<Told>> {
        let page = u64::from(self.env.unnamed_database_stat().page_size);
        let end = (self.env.info().last_page_number as u64 + 1) * page;
        let read = self.env.read_txn()?;
        let pages = self.tables.used_bytes(&read)?;
        let changed = self.room.look(&lmdb::data_file(&self.folder), Used { end, pages });
        Ok(changed.map(|room| match room {
            Ok(()) => Told::Room,
            Err(refusal) => Told::Full { refusal },
        }))
    }

    /// How long to wait for something to do: a full disk is looked at again.
    const fn patience(&self, retry: Duration) -> Duration {
        if self.room.is_full() { retry } else { Duration::MAX }
    }

    /// Applies as much of `asks` as there is room for, at least one if there is any, in one
    /// transaction, and says how many that were. What fetches find is told before the sync;
    /// `heard` says how many of the first ones were told by an attempt that came to nothing.
    fn advance(
        &mut self,
        asks: &[Ask],
        heard: &mut usize,
        tell: &mut dyn FnMut(Told),
    ) -> Result<usize, Stopped> {
        if *heard == 0 && !asks.is_empty() && self.read(asks, tell)? {
            return Ok(asks.len());
        }
        let (mut most, mut turns) = (asks.len(), 0);
        loop {
            match self.attempt(&asks[..most], heard, tell) {
                Ok(done) if done == most => {
                    self.grow_in_time()?;
                    return Ok(done);
                }
                Ok(0) if self.lines.garbage.is_empty() => return Err(Stopped::Full),
                // Sweeping makes room.
                Ok(0) => _ = self.attempt(&[], &mut 0, tell)?,
                Ok(done) => most = done,
                Err(heed::Error::Mdb(MdbError::MapFull)) if self.grow()? => {}
                // Pages that were given back can be used again two commits later.
                Err(heed::Error::Mdb(MdbError::MapFull)) if turns < TURNS => {
                    turns += 1;
                    opening::prove(&self.env, self.tables)?;
                }
                Err(heed::Error::Mdb(MdbError::MapFull)) if most <= 1 => return Err(Stopped::Full),
                // Fewer at once need fewer pages at once.
                Err(heed::Error::Mdb(MdbError::MapFull)) => most /= 2,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers fetches alone without a write; false if there is a reason for one.
    fn read(&self, asks: &[Ask], tell: &mut dyn FnMut(Told)) -> Result<bool, Stopped> {
        if !asks.iter().all(|ask| matches!(ask, Ask::Fetch { .. })) {
            return Ok(false);
        }
        let mut found = Vec::new();
        for want in asks.iter().filter_map(|ask| Want::of(ask, |line| self.lines.rows.get(&line))) {
            let read = self.env.read_txn()?;
            match peek(self.tables, &read, &want)? {
                Some(told) => found.push(told),
                None => return Ok(false),
            }
        }
        found.into_iter().for_each(tell);
        Ok(true)
    }

    /// One transaction for all of `asks`. Where there is no room for one of them, nothing changes,
    /// and it says how many come before that one: what passes by within a transaction depends on
    /// where it ends.
    fn attempt(
        &mut self,
        asks: &[Ask],
        heard: &mut usize,
        tell: &mut dyn FnMut(Told),
    ) -> heed::Result<usize> {
        // An eighth is for deletes, which need new pages before they give back old ones.
        let limit = self.max_bytes.map(|most| most - most / 8);
        let mut batch = Batch::new(&self.env, self.tables, &self.lines, limit)?;
        let done = batch.apply(asks)?;
        if done < asks.len() {
            return Ok(done);
        }
        batch.sweep()?;
        let found = batch.told.len();
        batch.told.drain(..).skip(*heard).for_each(tell);
        *heard = found.max(*heard);
        let draft = batch.commit()?;
        *heard -= found;
        self.lines.adopt(draft);
        Ok(done)
    }

    /// Doubles the map once half of it is used, so that no transaction has to be done twice.
    fn grow_in_time(&self) -> heed::Result<()> {
        let info = self.env.info();
        let used = info.last_page_number * self.env.unnamed_database_stat().page_size as usize;
        if used > info.map_size / 2 { self.grow().map(|_| ()) } else { Ok(()) }
    }

    /// Doubles the map. False if it is as large as it may be.
    fn grow(&self) -> heed::Result<bool> {
        let now = self.env.info().map_size;
        let most = self.max_bytes.map_or(usize::MAX, |most| most as usize);
        let next = now.saturating_mul(2).min(most).next_multiple_of(MAP_STEP);
        if next <= now {
            return Ok(false);
        }
        lmdb::resize(&self.env, next)?;
        Ok(true)
    }

    fn refusal(&self, stopped: &Stopped) -> Refusal {
        let file = lmdb::data_file(&self.folder).display().to_string();
        match stopped {
            Stopped::Full => {
                let most = self.max_bytes.unwrap_or_default();
                let message = format!("{file} has the {most} bytes that store.max_bytes allows");
                Refusal::new(Code::StoreFull, message)
            }
            Stopped::Heed(error) if self.is_disk_full(error) => {
                Refusal::new(Code::StoreFull, format!("no room on the disk of {file}: {error}"))
            }
            Stopped::Heed(error) => {
                Refusal::new(Code::StoreFailed, format!("cannot use {file}: {error}"))
            }
        }
    }

    /// LMDB reports a write cut short by a full disk as a plain failure.
    fn is_disk_full(&self, error: &heed::Error) -> bool {
        let heed::Error::Io(error) = error else { return false };
        let space = rustix::fs::statvfs(&self.folder);
        room::is_full(error)
            || self.room.is_short()
            || space.is_ok_and(|space| space.f_bavail * space.f_frsize < ROOM)
    }
}
