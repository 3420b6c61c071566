//! Losses of power: the broker is killed, and what it had not synced is gone.
//!
//! A kill alone proves little of a store: the system keeps what was written for whoever opens the
//! file next. So the broker runs with `shim/power.c`, which remembers what stood where something
//! was written since the last sync, and after each kill all of that is put back, or one sector and
//! not the other, as a disk does that writes in an order of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mpreg_patterns::base::Rng;

use crate::ledger::{Shared, consume, drain, produce};
use crate::rig::{Broker, is_long, serve, text, turn};

/// What a disk writes as a whole, bytes.
const SECTOR: usize = 512;
/// Offset, length, length of the file: each of 8 bytes.
const HEAD: usize = 24;

/// Losses of power in a row, on one data folder.
fn losses() -> usize {
    if is_long() { 200 } else { 10 }
}

/// A data folder on a disk that loses what is not synced.
struct Disk {
    folder: tempfile::TempDir,
    shim: PathBuf,
    /// Whether syncs do what they say.
    syncs: bool,
}

impl Disk {
    fn new(syncs: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join("power.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/shim/power.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-shared", "-fPIC", "-pthread", source, "-o"]);
        let compiled = compiler.arg(&shim).output().expect("a C compiler");
        assert!(compiled.status.success(), "{}", text(&compiled.stderr));
        Self { folder, shim, syncs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn broker(&self) -> Broker {
        let mut command = serve(&["--port", "0"], &self.path("data"));
        command.env("LD_PRELOAD", &self.shim).env("POWER_FILE", "/store/data.mdb");
        command.env("POWER_JOURNAL", self.path("journal"));
        if !self.syncs {
            command.env("POWER_NOSYNC", "1");
        }
        Broker::run(&mut command)
    }

    /// Puts back what was written and not synced: all of it, or each sector by the toss of a coin.
    /// How many bytes that was.
    fn lose_power(&self, coin: Option<&mut Rng>) -> usize {
        let journal = std::fs::read(self.path("journal")).unwrap();
        let file = File::options().write(true).open(self.path("data/store/data.mdb")).unwrap();
        put_back(&file, &records(&journal), coin)
    }
}

/// What stood at a place before something was written there.
struct Record<'a> {
    offset: u64,
    /// Of the file, before.
    length: u64,
    before: &'a [u8],
}

/// The records of a journal, in order. After one that is cut short nothing was written.
fn records(mut journal: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    while let Some((head, rest)) = journal.split_at_checked(HEAD) {
        let [offset, count, length] =
            [0, 8, 16].map(|at| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap()));
        let Some((before, rest)) = rest.split_at_checked(count as usize) else { break };
        records.push(Record { offset, length, before });
        journal = rest;
    }
    records
}

fn put_back(file: &File, records: &[Record<'_>], mut coin: Option<&mut Rng>) -> usize {
    let mut lost = 0;
    for record in records.iter().rev() {
        let (mut at, mut before) = (record.offset, record.before);
        while !before.is_empty() {
            let to_end = SECTOR - at as usize % SECTOR;
            let (sector, rest) = before.split_at(to_end.min(before.len()));
            if coin.as_deref_mut().is_none_or(|coin| coin.below(2) == 0) {
                file.write_all_at(sector, at).unwrap();
                lost += sector.len();
            }
            (at, before) = (at + sector.len() as u64, rest);
        }
        if coin.is_none() {
            file.set_len(record.length).unwrap();
        }
    }
    lost
}

/// What is known of a queue that is taken from, and of one where all stays until the end.
#[derive(Default)]
struct Ledgers {
    taken: Shared,
    kept: Shared,
}

/// One life of a broker under load, which a loss of power ends. How much of the file that took.
async fn live(disk: &Disk, ledgers: &Ledgers, rng: &mut Rng) -> usize {
    let mut broker = disk.broker();
    let tasks = [
        tokio::spawn(produce(broker.client().await, "taken", ledgers.taken.clone())),
        tokio::spawn(produce(broker.client().await, "kept", ledgers.kept.clone())),
        tokio::spawn(consume(broker.client().await, "taken", ledgers.taken.clone())),
    ];
    // Some moment of a life, at any point of a commit.
    tokio::time::sleep(Duration::from_micros(50_000 + rng.below(200_000) as u64)).await;
    broker.process.kill();
    for task in tasks {
        task.abort();
        _ = task.await;
    }
    // Some sectors of what was never synced make no file that can be read.
    let whole = !disk.syncs || rng.below(2) == 0;
    disk.lose_power(if whole { None } else { Some(rng) })
}

/// Whether a quarter of the losses came in the middle of a commit.
fn are_hits(lost: &[usize]) -> bool {
    lost.iter().filter(|bytes| **bytes > 0).count() * 4 >= lost.len()
}

/// Lives in a row, more of them where few end in the middle of a commit, then one that loses
/// nothing, in which all that is left is taken.
async fn live_and_drain(disk: &Disk, lives: usize, seed: u64) -> (Ledgers, Vec<usize>) {
    let (ledgers, mut rng) = (Ledgers::default(), Rng::new(seed));
    let mut lost = Vec::new();
    while lost.len() < lives || (!are_hits(&lost) && lost.len() < 4 * lives) {
        lost.push(live(disk, &ledgers, &mut rng).await);
    }
    let broker = disk.broker();
    drain(&broker, "taken", &ledgers.taken).await;
    drain(&broker, "kept", &ledgers.kept).await;
    for (name, ledger) in [("taken", &ledgers.taken), ("kept", &ledgers.kept)] {
        println!("{name}: {}", ledger.lock().unwrap());
    }
    (ledgers, lost)
}

/// The power is lost again and again while messages are sent and taken. Whatever was confirmed is
/// delivered afterwards, and what was confirmed as done never comes back.
///
/// On many threads, since a client whose broker is gone holds its own for a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn what_was_confirmed_outlasts_a_loss_of_power() {
    let _turn = turn();
    let (ledgers, lost) = live_and_drain(&Disk::new(true), losses(), 1).await;
    println!("bytes lost with each loss of power: {lost:?}");
    let taken = ledgers.taken.lock().unwrap();
    let kept = ledgers.kept.lock().unwrap();
    let enough = 10 * losses();
    assert!(taken.acknowledged() > enough && kept.acknowledged() > enough, "hardly at work");
    assert!(are_hits(&lost), "the power was hardly lost in the middle of a commit");
    taken.check();
    kept.check();
}

/// The same with a disk that only says it has synced, which must lose what was confirmed: else the
/// test above proves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn what_was_never_synced_is_lost_with_the_power() {
    let _turn = turn();
    let (ledgers, lost) = live_and_drain(&Disk::new(false), 2, 1).await;
    println!("bytes lost with each loss of power: {lost:?}");
    let kept = ledgers.kept.lock().unwrap();
    assert_eq!(kept.lost().len(), kept.acknowledged(), "all of it, since nothing was synced");
    assert!(!kept.lost().is_empty());
}
