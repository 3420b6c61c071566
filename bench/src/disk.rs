//! What a disk does, seen from outside of who uses it: how long a sync takes, what a process has
//! written, how often an LMDB file was committed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::Outcome;
use crate::statistics::median;

/// What is written before each sync.
const WRITE: usize = 256 << 10;
/// Syncs of one measurement.
const SYNCS: usize = 21;
/// Where page size and transaction stand in one of LMDB's two meta pages (data version 1).
const META_BYTES: usize = 152;
const META_PAGE_SIZE: usize = 40;
const META_TRANSACTION: usize = 144;

/// Microseconds that 256 KiB and their `fdatasync` take in a folder, the median of some. They go
/// over what is there already, as LMDB's do once its file has grown.
pub(crate) fn sync_us(folder: &Path) -> Outcome<f64> {
    fs::create_dir_all(folder)?;
    let path = folder.join("sync");
    let file = File::create(&path)?;
    let mut took = Vec::new();
    for turn in 0..=SYNCS {
        let bytes = vec![turn as u8; WRITE];
        let since = Instant::now();
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        took.push(since.elapsed().as_nanos() as f64 / 1e3);
    }
    fs::remove_file(path)?;
    // The first one made the file as large as it is.
    Ok(median(took.into_iter().skip(1)))
}

/// Bytes that a process has had written to disks, or will once they are synced.
pub(crate) fn written(pid: u32) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("the system does not tell what is written")?.parse()?)
}

/// Transactions that were committed to an LMDB file since it was made: the newer of its metas
/// tells. A transaction without a write is none, and needs no sync.
pub(crate) fn commits(file: &Path) -> Outcome<u64> {
    let first = read_meta(file, 0)?;
    let size = u32::from_le_bytes(part(&first, META_PAGE_SIZE));
    let second = read_meta(file, u64::from(size))?;
    let number = |meta| u64::from_le_bytes(part(meta, META_TRANSACTION));
    Ok(number(&first).max(number(&second)))
}

fn read_meta(file: &Path, at: u64) -> Outcome<[u8; META_BYTES]> {
    let mut meta = [0; META_BYTES];
    File::open(file)?.read_exact_at(&mut meta, at)?;
    Ok(meta)
}

fn part<const N: usize>(meta: &[u8; META_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&meta[at..at + N]);
    part
}

/// What kind of file system a folder is on, as `/proc/mounts` calls it.
pub(crate) fn file_system(folder: &Path) -> Outcome<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let rows = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let on = rows.filter(|(at, _)| folder.starts_with(at));
    let (_, kind) = on.max_by_key(|(at, _)| at.len()).ok_or("the folder is on no file system")?;
    Ok(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::stage::Folder;

    #[test]
    fn a_sync_takes_time_and_is_written() {
        let name = format!("mpreg-bench-sync-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        assert!(sync_us(&folder.0).unwrap() > 0.0);
        // Nothing is written on a file system in memory.
        assert!(written(std::process::id()).is_ok());
        assert!(!file_system(&folder.0).unwrap().is_empty());
    }
}
