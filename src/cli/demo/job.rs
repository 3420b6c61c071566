//! The work of the demo: which files, and what each function does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mpreg_patterns::base::Refusal;
use mpreg_patterns::values::{Body, Value};
use mpreg_sockets::client::{Job, Worker};

/// What counts as text.
const ENDINGS: &[&str] = &["md", "txt", "rs", "toml", "py", "js", "mjs", "ts", "c", "h", "go"];
/// Folders of other people's files, or made by tools.
const SKIPPED: &[&str] = &["target", "node_modules", "__pycache__"];
const MOST_FILES: usize = 400;
const MOST_BYTES: u64 = 512 << 10;
/// Shorter words say little.
const LETTERS: usize = 3;

/// One file to read.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The text files of a folder and the folders in it, by name.
pub(super) fn text_files(folder: &Path) -> io::Result<Vec<File>> {
    let (mut files, mut folders) = (Vec::new(), vec![super::absolute(folder)]);
    while let Some(folder) = folders.pop() {
        let mut entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && is_text(&path) {
                let bytes = entry.metadata()?.len();
                if bytes > 0 && bytes <= MOST_BYTES && files.len() < MOST_FILES {
                    files.push(File { path, bytes });
                }
            }
        }
    }
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    let ending = path.extension().and_then(std::ffi::OsStr::to_str);
    ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

/// A worker with every function of the demo.
pub(super) fn worker() -> Worker {
    Worker::new()
        .function("demo.read", async |job| read(&job))
        .idempotent()
        .function("demo.tokenise", async |job| tokenise(&job))
        .idempotent()
        .function("demo.count", async |job| {
            let (words,): (Vec<String>,) = job.args()?;
            let mut counts = BTreeMap::<String, u64>::new();
            words.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
            job.returns(&counts)
        })
        .idempotent()
        .function("demo.merge", async |job| {
            let all: Vec<BTreeMap<String, u64>> = job.args()?;
            let mut merged = BTreeMap::<String, u64>::new();
            for (word, count) in all.into_iter().flatten() {
                *merged.entry(word).or_default() += count;
            }
            job.returns(&merged)
        })
        .idempotent()
        .function("demo.rank", async |job| {
            let (counts, most): (BTreeMap<String, u64>, usize) = job.args()?;
            let mut ranks: Vec<_> = counts.into_iter().collect();
            ranks.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            ranks.truncate(most);
            job.returns(&ranks)
        })
        .idempotent()
        .credit(8)
        .name("demo")
}

/// The file as an attachment: it crosses the broker without being looked at.
fn read(job: &Job) -> Result<Body, Refusal> {
    let (path,): (PathBuf,) = job.args()?;
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Body::bytes(bytes.into())),
        Err(error) => job.fails(&format!("{}: {error}", path.display())),
    }
}

fn tokenise(job: &Job) -> Result<Body, Refusal> {
    let Some(text) = job.run.frames.first() else {
        return job.fails("the text comes as an attachment");
    };
    let text = String::from_utf8_lossy(text);
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() >= LETTERS);
    let words: Vec<String> = words.map(str::to_lowercase).collect();
    Ok(Body::plain(Value::from_serialize(&words)))
}
