//! LMDB by itself: no names, no network, nobody to tell. A batch of records is appended and the one
//! before deleted, record by record, in one transaction with its sync, over and over.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags, RwTxn};
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::disk::written;
use crate::plan::Load;
use crate::statistics::median;

/// Bytes of the broker's records before the payload.
const HEAD: usize = 76;
/// Bytes of the broker's keys.
const KEY: usize = 24;
/// Far more than two batches need.
const MAP_BYTES: usize = 1 << 30;

/// What one loop did in one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Loop {
    /// Records that were appended and synced inside the window, and as many deleted.
    pub(crate) records: u64,
    /// Length of the window.
    pub(crate) elapsed_ns: u64,
    /// Transactions inside the window.
    pub(crate) commits: u64,
    /// The median of what a commit took, the sync within.
    pub(crate) commit_us: f64,
    /// Bytes written to the disk inside the window.
    pub(crate) written: u64,
}

/// Appends and deletes through warm-up and window, `batch` records of `load.size` at a time.
pub(crate) fn run(folder: &Path, load: Load, batch: u64) -> Outcome<Loop> {
    fs::create_dir_all(folder)?;
    let mut shelf = Shelf::open(folder, load.size)?;
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(load.warm_ms) {
        shelf.turn(batch)?;
    }
    let pid = std::process::id();
    let (before, since) = (written(pid)?, Instant::now());
    let mut commits = Vec::new();
    while since.elapsed() < Duration::from_millis(load.measure_ms) {
        commits.push(shelf.turn(batch)?.as_nanos() as f64 / 1e3);
    }
    Ok(Loop {
        records: commits.len() as u64 * batch,
        elapsed_ns: since.elapsed().as_nanos() as u64,
        commits: commits.len() as u64,
        commit_us: median(commits),
        written: written(pid)? - before,
    })
}

/// An environment with one table, and what stands in it.
struct Shelf {
    env: Env,
    table: Database<'static, Bytes, Bytes>,
    record: Vec<u8>,
    /// Records from here to `next` stand in the table.
    first: u64,
    next: u64,
}

impl Shelf {
    fn open(folder: &Path, size: usize) -> Outcome<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        #[expect(unsafe_code, reason = "the folder is this process's alone")]
        // SAFETY: the folder was made for this process, so nobody else changes the mapped file.
        let env = unsafe { options.open(folder) }?;
        let made =
            env.create_databases_and_commit(env.write_txn()?, |opener, write: &mut RwTxn<'_>| {
                let table = opener.create_database::<Bytes, Bytes>(write, None)?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(table))
            })?;
        let table = made.unwrap_commit();
        Ok(Self { env, table, record: vec![b'x'; HEAD + size], first: 0, next: 0 })
    }

    /// Appends a batch, deletes the one before, syncs; what the commit took.
    fn turn(&mut self, batch: u64) -> Outcome<Duration> {
        let mut write = self.env.write_txn()?;
        let (first, next) = (self.next, self.next + batch);
        for number in first..next {
            // No two are alike, as no two messages are.
            self.record[..8].copy_from_slice(&number.to_le_bytes());
            self.table.put_with_flags(&mut write, PutFlags::APPEND, &key(number), &self.record)?;
        }
        for number in self.first..first {
            self.table.delete(&mut write, &key(number))?;
        }
        (self.first, self.next) = (first, next);
        let since = Instant::now();
        write.commit()?;
        Ok(since.elapsed())
    }
}

/// Keys sort by number.
fn key(number: u64) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[KEY - 8..].copy_from_slice(&number.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::commits;
    use crate::workloads::stage::Folder;

    #[test]
    fn the_batch_before_is_gone_and_every_commit_is_seen_from_outside() {
        let name = format!("mpreg-bench-lmdb-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        let mut shelf = Shelf::open(&folder.0, 256).unwrap();
        let file = folder.0.join("data.mdb");
        let before = commits(&file).unwrap();
        (0..5).for_each(|_| _ = shelf.turn(10).unwrap());
        assert_eq!(commits(&file).unwrap() - before, 5);
        let read = shelf.env.read_txn().unwrap();
        assert_eq!(shelf.table.len(&read).unwrap(), 10);
        let last = shelf.table.last(&read).unwrap().unwrap();
        assert_eq!((last.0.to_vec(), last.1.len()), (key(49).to_vec(), 332));
    }
}
