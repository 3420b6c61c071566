//! A queue, durable and in memory, between one producer and one consumer; beside LMDB alone with
//! the same records and as many of them a sync.
//!
//! Contenders take turns within a round, as those of `rpc` do.

mod text;

use std::path::{Path, PathBuf};

use clap::Args;
use mpreg_sockets::client::Durability;
use serde::Serialize;

use super::stage::{Folder, START};
use crate::baseline::lmdb::Loop;
use crate::events::queue::{Produced, declare, stats};
use crate::events::{EventKind, Heard, Listens, pace};
use crate::machine::{self, Machine};
use crate::plan::{self, Load};
use crate::process::Process;
use crate::report::{Goal, Told, figure};
use crate::role::{HubKind, Place, Role};
use crate::statistics::{median, median_ratio, range};
use crate::tally::Watch;
use crate::{Outcome, disk};

/// Records a sync for LMDB where the broker does not take part.
const BATCH: f64 = 1_024.0;
/// What the goal of a rate asks of a disk, microseconds for a sync of 256 KiB.
const QUICK_SYNC_US: f64 = 2_000.0;

/// Who takes part. LMDB follows the queue whose records it has.
const CONTENDERS: [Contender; 6] = [
    Contender { name: "mpreg_durable_256", kind: Kind::Queue(Durability::Fsync), size: 256 },
    Contender { name: "lmdb_256", kind: Kind::Lmdb, size: 256 },
    Contender { name: "mpreg_durable_4k", kind: Kind::Queue(Durability::Fsync), size: 4_096 },
    Contender { name: "lmdb_4k", kind: Kind::Lmdb, size: 4_096 },
    Contender { name: "mpreg_memory_256", kind: Kind::Queue(Durability::Memory), size: 256 },
    Contender { name: "mpreg_memory_4k", kind: Kind::Queue(Durability::Memory), size: 4_096 },
];

/// The arguments: those all have, and where the data goes.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    plan: plan::Options,
    /// A folder on the disk to measure; by default the one this program is in.
    #[arg(long)]
    #[serde(skip)]
    data: Option<PathBuf>,
}

/// What is measured, with payloads of so many bytes.
#[derive(Clone, Copy, Debug, Serialize)]
struct Contender {
    name: &'static str,
    kind: Kind,
    size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A broker, a producer and a consumer.
    Queue(Durability),
    /// A loop in one process.
    Lmdb,
}

impl Contender {
    /// Whether it is LMDB with the records of a durable queue.
    fn is_base_of(&self, other: &Self) -> bool {
        let durable = other.kind == Kind::Queue(Durability::Fsync);
        self.kind == Kind::Lmdb && durable && self.size == other.size
    }
}

/// One window of one contender.
#[derive(Clone, Debug, Default, Serialize)]
struct Measure {
    /// Confirmed to the producer and acked by the consumer, inside the window.
    messages_s: f64,
    /// Messages a sync, 0 where there is none.
    per_sync: f64,
    /// From one sync to the next; of LMDB alone what the commit takes.
    sync_us: f64,
    /// What 256 KiB and their `fdatasync` took on that disk just before.
    disk_us: f64,
    /// Written to the disk a message.
    bytes: f64,
    produced: Produced,
    heard: Heard,
    /// Sent and never taken, or never confirmed.
    lost: u64,
    /// Taken again, or out of order.
    disorder: u64,
    /// Taken, and not done after all.
    left: u64,
}

/// One contender's rounds and their medians.
#[derive(Debug, Serialize)]
struct Standing {
    contender: Contender,
    messages_s: f64,
    messages_s_range: (f64, f64),
    per_sync: f64,
    sync_us: f64,
    disk_us: f64,
    bytes: f64,
    /// Latencies of `sent`.
    confirm_p50_us: f64,
    confirm_p99_us: f64,
    /// Latencies of the delivery.
    deliver_p50_us: f64,
    deliver_p99_us: f64,
    /// Core time a message.
    hub_ns: f64,
    consumer_ns: f64,
    producer_ns: f64,
    hub_mib: f64,
    /// These over all rounds.
    lost: u64,
    disorder: u64,
    left: u64,
    /// Rate, relative to LMDB's.
    rate_to_lmdb: Option<f64>,
    rounds: Vec<Measure>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    /// Where the data was.
    file_system: String,
    options: Options,
    standings: Vec<Standing>,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    let machine = Machine::read();
    let plan = &options.plan;
    let contenders: Vec<Contender> =
        CONTENDERS.into_iter().filter(|contender| plan.wants(contender.name)).collect();
    if contenders.is_empty() {
        return Err(plan.nobody(CONTENDERS.map(|contender| contender.name)));
    }
    let place = place(options)?;
    let file_system = disk::file_system(&place)?;
    if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
        let place = place.display();
        return Err(format!("{place} is in memory: name a folder on a disk with --data").into());
    }
    let standings = contest(&contenders, &place, plan.saturated(), plan.rounds)?;
    let goals = goals(&standings);
    let (load_after, options) = (machine::load(), options.clone());
    let bench = "queue";
    let report = Report { bench, machine, load_after, file_system, options, standings, goals };
    Told::of(&report, report.text()?)
}

/// The folder in which every window has one of its own.
fn place(options: &Options) -> Outcome<PathBuf> {
    if let Some(data) = &options.data {
        std::fs::create_dir_all(data)?;
        return Ok(data.clone());
    }
    let program = std::env::current_exe()?;
    Ok(program.parent().ok_or("this program is in no folder")?.to_owned())
}

/// All rounds.
fn contest(
    contenders: &[Contender],
    place: &Path,
    load: Load,
    rounds: u32,
) -> Outcome<Vec<Standing>> {
    let mut seen: Vec<Vec<Measure>> = vec![Vec::new(); contenders.len()];
    for round in 1..=rounds {
        for at in 0..contenders.len() {
            let contender = &contenders[at];
            let same = contenders.iter().zip(&seen).find(|(of, _)| contender.is_base_of(of));
            let batch = same.and_then(|(_, seen)| seen.last()).map_or(BATCH, |last| last.per_sync);
            let measure = measure(contender, place, load, batch)?;
            eprintln!(
                "round {round}/{rounds}: {} {}/s, {} a sync, lost {}",
                contender.name,
                figure(measure.messages_s),
                figure(measure.per_sync),
                measure.lost,
            );
            seen[at].push(measure);
        }
    }
    let standings = contenders.iter().zip(seen).map(|(c, rounds)| Standing::new(*c, rounds));
    let mut standings: Vec<Standing> = standings.collect();
    compare(&mut standings);
    Ok(standings)
}

/// One window of one contender, with processes and a folder of its own.
fn measure(contender: &Contender, place: &Path, load: Load, batch: f64) -> Outcome<Measure> {
    let data = Folder::within(place);
    let disk_us = disk::sync_us(&data.0)?;
    let load = Load { size: contender.size, ..load };
    let measure = match contender.kind {
        Kind::Queue(durability) => measure_queue(&data.0, durability, load)?,
        Kind::Lmdb => measure_lmdb(&data.0, load, batch)?,
    };
    match measure.messages_s {
        0.0 => Err(format!("{} brought nothing: {measure:?}", contender.name).into()),
        _ => Ok(Measure { disk_us, ..measure }),
    }
}

fn measure_lmdb(data: &Path, load: Load, batch: f64) -> Outcome<Measure> {
    let batch = (batch.round() as u64).max(1);
    let role = Role::Lmdb { data: data.to_owned(), load, batch };
    let done: Loop = Process::start(&role)?.hear(load.patience())?;
    Ok(Measure {
        messages_s: done.records as f64 * 1e9 / done.elapsed_ns.max(1) as f64,
        per_sync: batch as f64,
        sync_us: done.commit_us,
        bytes: done.written as f64 / done.records.max(1) as f64,
        ..Measure::default()
    })
}

fn measure_queue(data: &Path, durability: Durability, load: Load) -> Outcome<Measure> {
    let hub = Process::start(&Role::Hub { kind: HubKind::Broker, data: data.to_owned() })?;
    let Place { clients, .. } = hub.hear(START)?;
    let file = mpreg::store::folder(data).join("data.mdb");
    declare(&clients, durability)?;
    let before = (disk::commits(&file)?, disk::written(hub.pid())?);
    let (kind, step) = (EventKind::Queue, pace::step(load));
    let (at, pattern) = (clients.clone(), String::new());
    let listener = Process::start(&Role::Listener { kind, at, pattern, subscribers: 1, step })?;
    let Listens { reports } = listener.hear(START)?;
    let watch = Watch { hub: hub.pid(), worker: listener.pid() };
    let producer = Role::Producer { at: clients.clone(), reports, load, watch };
    let produced: Produced = Process::start(&producer)?.hear(load.patience())?;
    let heard: Heard = listener.hear(START)?;
    let stats = stats(&clients)?;
    let told = |name: &str| stats.pointer(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let (commits, written) = (disk::commits(&file)?, disk::written(hub.pid())?);
    let enqueued = told("/counters/enqueued") as f64;
    let flow = &produced.flow;
    let messages_s = flow.events as f64 * 1e9 / flow.elapsed_ns.max(1) as f64;
    let per_sync = match (durability, commits - before.0) {
        (Durability::Memory, _) | (_, 0) => 0.0,
        (Durability::Fsync, commits) => enqueued / commits as f64,
    };
    let (disorder, received) = (heard.disorder, heard.received.iter().sum::<u64>());
    let taken = received.saturating_sub(disorder);
    Ok(Measure {
        messages_s,
        per_sync,
        sync_us: per_sync * 1e6 / messages_s.max(1.0),
        bytes: (written - before.1) as f64 / enqueued.max(1.0),
        lost: flow.sent.saturating_sub(taken.min(produced.confirmed)),
        disorder,
        left: told("/ready") + told("/in_flight") + told("/delayed"),
        produced,
        heard,
        ..Measure::default()
    })
}

/// Writes the ratios to LMDB.
fn compare(standings: &mut [Standing]) {
    for at in 0..standings.len() {
        let of = standings[at].contender;
        let base = standings.iter().find(|base| base.contender.is_base_of(&of));
        let ratio =
            base.and_then(|base| median_ratio(&rates(&standings[at].rounds), &rates(&base.rounds)));
        standings[at].rate_to_lmdb = ratio;
    }
}

fn rates(rounds: &[Measure]) -> Vec<f64> {
    rounds.iter().map(|measure| measure.messages_s).collect()
}

impl Standing {
    fn new(contender: Contender, rounds: Vec<Measure>) -> Self {
        let of = |read: fn(&Measure) -> f64| median(rounds.iter().map(read));
        let us = |read: fn(&Measure) -> u64| median(rounds.iter().map(|m| read(m) as f64 / 1e3));
        let each = |read: fn(&Measure) -> u64| {
            let a_message = |m: &Measure| read(m) as f64 / m.produced.flow.events.max(1) as f64;
            median(rounds.iter().map(a_message))
        };
        let sum = |read: fn(&Measure) -> u64| rounds.iter().map(read).sum::<u64>();
        Self {
            contender,
            messages_s: of(|m| m.messages_s),
            messages_s_range: range(&rates(&rounds)),
            per_sync: of(|m| m.per_sync),
            sync_us: of(|m| m.sync_us),
            disk_us: of(|m| m.disk_us),
            bytes: of(|m| m.bytes),
            confirm_p50_us: us(|m| m.produced.p50_ns),
            confirm_p99_us: us(|m| m.produced.p99_ns),
            deliver_p50_us: us(|m| m.heard.p50_ns),
            deliver_p99_us: us(|m| m.heard.p99_ns),
            hub_ns: each(|m| m.produced.flow.hub_cpu_ns),
            consumer_ns: each(|m| m.produced.flow.listener_cpu_ns),
            producer_ns: each(|m| m.produced.flow.publisher_cpu_ns),
            hub_mib: of(|m| m.produced.flow.hub_resident as f64 / 1_048_576.0),
            lost: sum(|m| m.lost),
            disorder: sum(|m| m.disorder),
            left: sum(|m| m.left),
            rate_to_lmdb: None,
            rounds,
        }
    }
}

/// What the project promised, as far as those who take part can show it.
fn goals(standings: &[Standing]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for standing in standings {
        let Standing { contender, messages_s, disk_us, rate_to_lmdb, .. } = standing;
        let (name, rate) = (contender.name, format!("{}: messages a second", contender.name));
        match (contender.kind, contender.size) {
            (Kind::Queue(Durability::Fsync), 256) => {
                let ratio = rate_to_lmdb.map(|ratio| {
                    Goal::at_least(&format!("{name}: times the rate of LMDB alone"), 0.4, ratio)
                });
                goals.extend(ratio);
                // On a slower disk nothing is promised.
                if *disk_us <= QUICK_SYNC_US {
                    goals.push(Goal::at_least(&rate, 150_000.0, *messages_s));
                }
            }
            (Kind::Queue(Durability::Memory), 256) => {
                goals.push(Goal::at_least(&rate, 600_000.0, *messages_s));
            }
            _ => {}
        }
    }
    if standings.iter().any(|standing| standing.contender.kind != Kind::Lmdb) {
        let wrong = standings.iter().map(|of| of.lost + of.disorder + of.left).sum::<u64>();
        let what = "lost, twice, out of order or left, all together";
        goals.push(Goal::at_most(what, 0.0, wrong as f64));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(messages_s: f64, disk_us: f64) -> Measure {
        Measure { messages_s, disk_us, lost: 1, ..Measure::default() }
    }

    fn standings(disk_us: f64) -> Vec<Standing> {
        let [durable, lmdb, .., memory, _] = CONTENDERS;
        let rounds = |rate| vec![measure(rate, disk_us), measure(rate / 9.0, disk_us)];
        let mut standings = vec![
            Standing::new(durable, rounds(120_000.0)),
            Standing::new(lmdb, rounds(240_000.0)),
            Standing::new(memory, vec![measure(700_000.0, disk_us)]),
        ];
        compare(&mut standings);
        standings
    }

    #[test]
    fn a_queue_is_compared_with_lmdb_of_its_size() {
        let ratios = standings(1_000.0).iter().map(|of| of.rate_to_lmdb).collect::<Vec<_>>();
        assert_eq!(ratios, [Some(0.5), None, None]);
        assert!(CONTENDERS[3].is_base_of(&CONTENDERS[2]));
        assert!(!CONTENDERS[3].is_base_of(&CONTENDERS[0]));
    }

    #[test]
    fn a_rate_is_promised_where_the_disk_is_quick() {
        let met = |disk_us| {
            let goals = goals(&standings(disk_us));
            goals.iter().map(|goal| (goal.wanted, goal.met)).collect::<Vec<_>>()
        };
        let (ratio, memory, wrong) = ((0.4, true), (600_000.0, true), (0.0, false));
        assert_eq!(met(2_001.0), [ratio, memory, wrong]);
        assert_eq!(met(2_000.0), [ratio, (150_000.0, false), memory, wrong]);
    }
}
