//! Room for what is to come, taken from the disk before it is needed: that a disk is full is found
//! out while nothing is at stake, and what is done with messages has room when nothing new has.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use mpreg_patterns::base::{Code, Refusal};
use rustix::fs::{FallocateFlags, fallocate};

/// The least and the most that is kept ahead of the pages in use, bytes.
const AHEAD: (u64, u64) = (1 << 20, 64 << 20);

/// How much of the file is in use, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// Up to the end of the last page that ever was.
    pub(super) end: u64,
    /// Without those that are free again.
    pub(super) pages: u64,
}

/// The room of one data file.
#[derive(Debug)]
pub(super) struct Room {
    file: File,
    /// The disk has given the file this much.
    end: u64,
    max_bytes: Option<u64>,
    is_full: bool,
    /// It has refused more.
    is_short: bool,
}

impl Room {
    pub(super) fn new(path: &Path, max_bytes: Option<u64>) -> io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        Ok(Self { end: file.metadata()?.len(), file, max_bytes, is_full: false, is_short: false })
    }

    /// Whether nothing new is to come.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether a write cut short was so for want of room.
    pub(super) const fn is_short(&self) -> bool {
        self.is_short
    }

    /// What has changed, if anything: why there is no room, or that there is.
    pub(super) fn look(&mut self, name: &Path, used: Used) -> Option<Result<(), Refusal>> {
        let why = self.bound_reached(name, used).or_else(|| self.disk_full(name, used));
        if why.is_some() == self.is_full {
            return None;
        }
        self.is_full = why.is_some();
        Some(why.map_or(Ok(()), Err))
    }

    /// Three quarters may be used by what is new; the rest is for what becomes of it.
    fn bound_reached(&self, name: &Path, used: Used) -> Option<Refusal> {
        let most = self.max_bytes?;
        // Less than was too much, so that it does not go to and fro with each message.
        let enough = most / 16 * if self.is_full { 11 } else { 12 };
        (used.pages > enough).then(|| {
            let (pages, name) = (used.pages, name.display());
            let message =
                format!("{name} uses {pages} of the {most} bytes that store.max_bytes allows");
            Refusal::new(Code::StoreFull, message)
        })
    }

    /// Takes more from the disk where there is little ahead.
    fn disk_full(&mut self, name: &Path, used: Used) -> Option<Refusal> {
        let ahead = (used.end / 8).clamp(AHEAD.0, AHEAD.1);
        let most = self.max_bytes.unwrap_or(u64::MAX);
        let (need, want) = ((used.end + ahead).min(most), (used.end + 2 * ahead).min(most));
        self.is_short = false;
        if self.end >= need {
            return None;
        }
        let error = self.take(want).or_else(|_| self.take(need)).err()?;
        self.is_short = true;
        // Pages that are free again serve as well, though not all: a large message needs some in
        // a row.
        let free = self.end.saturating_sub(used.pages);
        let enough = self.end / if self.is_full { 3 } else { 4 };
        (free < enough.max(ahead)).then(|| {
            let message = format!("no room on the disk of {}: {error}", name.display());
            Refusal::new(Code::StoreFull, message)
        })
    }

    fn take(&mut self, end: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), self.end, end - self.end) {
            Err(error) if is_full(&error.into()) => Err(error.into()),
            // Where the system cannot do that, it shows when something is written.
            Ok(()) | Err(_) => {
                self.end = end;
                Ok(())
            }
        }
    }
}

/// Whether the system says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    kinds.contains(&error.kind())
}
