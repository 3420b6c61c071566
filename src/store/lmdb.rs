//! The environment and its tables: all that is said to LMDB about files and maps.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, CompactionOption, Database, Env, EnvOpenOptions, RoTxn, RwTxn};

/// What a map is a multiple of, bytes: above any system's page.
pub(super) const MAP_STEP: usize = 1 << 16;
/// Records between two that are deleted beyond which the second is looked up.
const STRANGERS: usize = 8;
/// Tables that one environment may have.
const TABLES: u32 = 8;

/// Keys and values are bytes.
pub(super) type Table = Database<'static, Bytes, Bytes>;

/// The tables of one environment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    /// By shelf, time and number: the records.
    pub(super) messages: Table,
    /// By number: what is known of each line.
    pub(super) lines: Table,
    /// Shelves whose lanes have been cleared, with records on them still.
    pub(super) garbage: Table,
    /// By place: records that could not be read, as they were found.
    pub(super) damaged: Table,
    /// The layout's version.
    pub(super) meta: Table,
}

/// Their names in the file.
pub(super) const NAMES: [&str; 5] = ["messages", "lines", "garbage", "damaged", "meta"];

/// The file in a folder that holds everything.
pub(super) fn data_file(folder: &Path) -> PathBuf {
    folder.join("data.mdb")
}

/// Opens the environment of a folder with room for so many bytes.
pub(super) fn open(folder: &Path, map_bytes: usize) -> heed::Result<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(map_bytes.next_multiple_of(MAP_STEP)).max_dbs(TABLES);
    #[expect(unsafe_code, reason = "the folder is locked: nobody else changes the mapped file")]
    // SAFETY: the caller holds the folder's lock, so no other broker writes or cuts the file.
    unsafe {
        options.open(folder)
    }
}

/// Gives the map another size.
pub(super) fn resize(env: &Env, map_bytes: usize) -> heed::Result<()> {
    #[expect(unsafe_code, reason = "no transaction is open: the one thread that has any is here")]
    // SAFETY: the environment belongs to the calling thread, which has no transaction now.
    unsafe {
        env.resize(map_bytes.next_multiple_of(MAP_STEP))
    }
}

impl Tables {
    /// Opens every table, and makes those that are missing.
    pub(super) fn open(env: &Env) -> heed::Result<Self> {
        let write = env.write_txn()?;
        let tables = env.create_databases_and_commit(write, |opener, write: &mut RwTxn<'_>| {
            let mut table = |name| opener.create_database::<Bytes, Bytes>(write, Some(name));
            let [a, b, c, d, e] = NAMES;
            let tables = (table(a)?, table(b)?, table(c)?, table(d)?, table(e)?);
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        let (messages, lines, garbage, damaged, meta) = tables.unwrap_commit();
        Ok(Self { messages, lines, garbage, damaged, meta })
    }

    /// Bytes of pages in use, without those that are free for what comes.
    pub(super) fn used_bytes(&self, read: &RoTxn<'_>) -> heed::Result<u64> {
        let all = [self.messages, self.lines, self.garbage, self.damaged];
        let mut bytes = 0;
        for table in all {
            bytes += table.stat(read)?.non_free_page_size() as u64;
        }
        Ok(bytes)
    }
}

/// Deletes what stands under `keys`, which rise, and hands over each record that did.
pub(super) fn delete_run<K: AsRef<[u8]>>(
    table: Table,
    write: &mut RwTxn<'_>,
    keys: &[K],
    mut gone: impl FnMut(&[u8]),
) -> heed::Result<()> {
    let mut keys = keys.iter().map(AsRef::as_ref).peekable();
    while let Some(&first) = keys.peek() {
        let range = (Bound::Included(first), Bound::Unbounded);
        let mut cursor = table.range_mut(write, &range)?;
        let mut strangers = 0;
        while strangers < STRANGERS {
            let Some((key, record)) = cursor.next().transpose()? else { return Ok(()) };
            while keys.next_if(|wanted| *wanted < key).is_some() {}
            match keys.peek() {
                None => return Ok(()),
                Some(wanted) if *wanted == key => {
                    gone(record);
                    keys.next();
                    #[expect(unsafe_code, reason = "nothing read from the table is kept")]
                    // SAFETY: key and record, which point into the page, are not used any more.
                    unsafe {
                        cursor.del_current()?;
                    }
                }
                Some(_) => strangers += 1,
            }
        }
    }
    Ok(())
}

/// Writes what is in use of `env` to a file, without gaps.
pub(super) fn copy(env: &Env, to: &Path) -> heed::Result<()> {
    let file = env.copy_to_path(to, CompactionOption::Enabled)?;
    Ok(file.sync_all()?)
}
