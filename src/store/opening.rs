//! Opening what is in a folder: looked over first, since LMDB trusts the pages it reads.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::Path;

use heed::Env;

use super::lines::{Lines, Row};
use super::lmdb::{self, Tables};
use super::pages::Pages;
use super::{MIN_BYTES, Options, StoreError};

/// The layout this program reads and writes.
pub(super) const LAYOUT: u32 = 1;

/// Opens the store of a folder, or makes one. Looks at so many of its pages, and shows with a small
/// write and its sync that both work.
pub(super) fn open(
    folder: &Path,
    options: &Options,
    look: usize,
) -> Result<(Env, Tables, Lines), StoreError> {
    let file = lmdb::data_file(folder);
    let held = file.metadata().map_or(0, |about| about.len());
    if held > 0 {
        Pages::open(&file)?.glance(look)?;
    }
    let map = options.map_bytes.max(MIN_BYTES).max(held.saturating_mul(2));
    let most = options.max_bytes.unwrap_or(u64::MAX).max(MIN_BYTES).max(held);
    let failed =
        |error: heed::Error| StoreError::Unusable { file: file.clone(), why: error.to_string() };
    let env = lmdb::open(folder, map.min(most) as usize).map_err(failed)?;
    let tables = Tables::open(&env).map_err(failed)?;
    let lines = read(&env, tables, &file)?;
    prove(&env, tables).map_err(failed)?;
    if held == 0 {
        // A new file is safe once its name is, and its folder's.
        let folders =
            [Some(folder), folder.parent().filter(|parent| !parent.as_os_str().is_empty())];
        for folder in folders.into_iter().flatten() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| failed(error.into()))?;
        }
    }
    Ok((env, tables, lines))
}

/// Reads what is kept in memory.
fn read(env: &Env, tables: Tables, file: &Path) -> Result<Lines, StoreError> {
    let failed =
        |error: heed::Error| StoreError::Unusable { file: file.to_owned(), why: error.to_string() };
    let damaged = |why: String| StoreError::Damaged { file: file.to_owned(), why };
    let read = env.read_txn().map_err(failed)?;
    if let Some(layout) = tables.meta.get(&read, b"layout").map_err(failed)? {
        let layout = layout.try_into().map_or(u32::MAX, u32::from_le_bytes);
        if layout != LAYOUT {
            return Err(StoreError::Layout { file: file.to_owned(), layout });
        }
    }
    let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
    for entry in tables.lines.iter(&read).map_err(failed)? {
        let (key, row) = entry.map_err(failed)?;
        let (line, row) = Row::decode(key, row, rows.values().next_back())
            .ok_or_else(|| damaged(format!("the row of line {} cannot be read", hex(key))))?;
        rows.insert(line, row);
    }
    let mut garbage = VecDeque::new();
    for entry in tables.garbage.iter(&read).map_err(failed)? {
        let (key, _) = entry.map_err(failed)?;
        let shelf = key.try_into().map(u64::from_be_bytes);
        garbage.push_back(shelf.map_err(|_| damaged(format!("{} is no shelf", hex(key))))?);
    }
    Ok(Lines::new(rows, garbage))
}

/// A small write and its sync, different each time.
pub(super) fn prove(env: &Env, tables: Tables) -> heed::Result<()> {
    let mut write = env.write_txn()?;
    let times = tables.meta.get(&write, b"opened")?.and_then(|times| times.try_into().ok());
    let times = times.map_or(0, u64::from_le_bytes).wrapping_add(1);
    tables.meta.put(&mut write, b"opened", &times.to_le_bytes())?;
    tables.meta.put(&mut write, b"layout", &LAYOUT.to_le_bytes())?;
    write.commit()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
