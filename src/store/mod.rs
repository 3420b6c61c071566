//! What outlives the process: LMDB behind two lanes of plain data.
//!
//! In reading order: this file (the handle), [`worker`] (the thread: gather, apply, sync, tell;
//! what failed is opened anew), [`batch`] (asks within one transaction), [`lines`] and [`record`]
//! (what stands on disk), [`room`] (what there is of it), [`opening`], [`lmdb`] (files and maps),
//! [`pages`] (the file read without LMDB), [`check`] (damage, and less of a file).
//!
//! The handle never waits. It decides nothing: what is asked is bounded by the rules that ask.

mod batch;
mod check;
mod lines;
mod lmdb;
mod opening;
mod pages;
mod record;
mod room;
mod worker;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mpreg_patterns::store::{Ask, Line, Told};

pub use check::{Damage, LineReport, Report, check, compact, salvage};
use worker::{Stamped, Teller, Worker};

/// Asks that the thread is told of at once, at most: it begins while others are still gathered.
const ASKS_AT_ONCE: usize = 256;

/// The least that `max_bytes` may be.
pub const MIN_BYTES: u64 = 1 << 20;

/// What a store may take, and how patient it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data file grows to this many bytes at most, but to [`MIN_BYTES`] in any case.
    pub max_bytes: Option<u64>,
    /// Address space to begin with, bytes. It is doubled in good time.
    pub map_bytes: u64,
    /// How long after a failure, and between attempts, before what failed is opened again.
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_bytes: None, map_bytes: 1 << 30, retry: Duration::from_secs(1) }
    }
}

/// Why a store cannot be used. Nothing in it has changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another broker, or a command, has the folder.
    #[error("another process uses the data in {folder}: stop it, or choose another folder")]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be made, or not written to.
    #[error("cannot use the folder {folder}: {why}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file cannot be opened, read or written.
    #[error("cannot use {file}: {why}")]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What LMDB or the system said.
        why: String,
    },
    /// The file is damaged where everything hangs on it.
    #[error("{file} is damaged: {why}; `mpreg store check --salvage` rescues what can be read")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where, and what is wrong there.
        why: String,
    },
    /// Another version of the program wrote the file.
    #[error(
        "{file} has layout {layout}, this program knows {}: use the one that wrote it",
        opening::LAYOUT
    )]
    Layout {
        /// The file.
        file: PathBuf,
        /// Its layout.
        layout: u32,
    },
}

impl StoreError {
    /// A stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "data_taken",
            Self::Folder { .. } | Self::Unusable { .. } => "cannot_use_data",
            Self::Damaged { .. } => "data_damaged",
            Self::Layout { .. } => "data_layout",
        }
    }
}

/// The folder of the store within the broker's data folder.
#[must_use]
pub fn folder(data: &Path) -> PathBuf {
    data.join("store")
}

/// An open store: the core's end of the two lanes to its thread.
///
/// Dropping it waits until all that was asked is on disk.
#[derive(Debug)]
pub struct Store {
    asks: Option<Sender<Stamped<Vec<Ask>>>>,
    /// What the thread has not been told of yet.
    gathered: Vec<Ask>,
    told: Receiver<Stamped<Told>>,
    rung: Arc<AtomicBool>,
    epoch: u64,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store of a folder, which is made if it is missing, and tells what lines are in it.
    ///
    /// `waker` is called on the store's thread when there is something to hear, once until
    /// [`Store::told`] has said that there is nothing more.
    ///
    /// # Errors
    /// Where the folder or its file cannot be used; nothing has changed then.
    pub fn open(
        folder: &Path,
        options: &Options,
        waker: impl Fn() + Send + 'static,
    ) -> Result<(Self, Vec<Line>), StoreError> {
        let lock = lock(folder)?;
        let ((asks, from_core), (to_core, told)) = (unbounded(), unbounded());
        let rung = Arc::new(AtomicBool::new(false));
        let teller = Teller { lane: to_core, rung: rung.clone(), waker: Box::new(waker) };
        let (options, asks) = (options.clone(), Some(asks));
        let worker =
            Worker { folder: folder.to_owned(), options, asks: from_core, teller, epoch: 0, lock };
        let (opened, first) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("mpreg-store".into())
            .spawn(move || worker.run(&opened))
            .map_err(|why| StoreError::Folder { folder: folder.to_owned(), why })?;
        let gathered = Vec::new();
        let store = Self { asks, gathered, told, rung, epoch: 0, thread: Some(thread) };
        let lines = first.recv().unwrap_or_else(|_| {
            let (file, why) = (lmdb::data_file(folder), "its thread has ended".into());
            Err(StoreError::Unusable { file, why })
        })?;
        Ok((store, lines))
    }

    /// Asks, with the next [`Self::send`] or [`Self::told`] at the latest. Never waits.
    pub fn ask(&mut self, ask: Ask) {
        self.gathered.push(ask);
        if self.gathered.len() >= ASKS_AT_ONCE {
            self.send();
        }
    }

    /// Lets the thread know what was asked.
    pub fn send(&mut self) {
        if let Some(asks) = &self.asks
            && !self.gathered.is_empty()
        {
            // The next turn asks for about as much.
            let next = Vec::with_capacity(self.gathered.len());
            let asked = std::mem::replace(&mut self.gathered, next);
            // A thread that panicked has said so; what it would have told is never told.
            _ = asks.send((self.epoch, asked));
        }
    }

    /// What the store tells next, if there is anything. Never waits.
    ///
    /// What is asked after `Failed` was told and before `Opened` is, is dropped, fetches included.
    pub fn told(&mut self) -> Option<Told> {
        self.send();
        let (epoch, told) = self.told.try_recv().ok().or_else(|| {
            // Looked at once more after this: whoever tells from now on rings.
            self.rung.store(false, Ordering::SeqCst);
            self.told.try_recv().ok()
        })?;
        if matches!(told, Told::Opened { .. }) {
            self.epoch = epoch;
        }
        Some(told)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.send();
        self.asks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the store's thread panicked");
        }
    }
}

/// Makes the folder if it is missing and locks it against everybody else.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let failed = |why| StoreError::Folder { folder: folder.to_owned(), why };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let options = File::options().write(true).create(true).truncate(false).to_owned();
    let lock = options.open(folder.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Taken { folder: folder.to_owned() }),
        Err(TryLockError::Error(why)) => Err(failed(why)),
    }
}
