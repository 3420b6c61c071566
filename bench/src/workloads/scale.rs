//! What a broker takes for what is idle, and whether one active peer notices.

use std::fmt::Write;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::stage::{Folder, START, Stage};
use crate::Outcome;
use crate::machine::{self, Machine, Usage};
use crate::peers::crowd::Saying;
use crate::plan::Load;
use crate::process::Process;
use crate::report::{self, Goal, Table, Told, figure, ratio};
use crate::role::{HubKind, PeerKind, Place, Ready, Role};
use crate::statistics::{median, median_ratio};
use crate::tally::Measure;

/// How long a crowd may take to be there.
const GATHERING: Duration = Duration::from_secs(120);
/// How often memory is read until it rests, how long it has to, and how long that may take.
const LOOK: Duration = Duration::from_millis(250);
const REST: Duration = Duration::from_secs(2);
const REST_WITHIN: Duration = Duration::from_secs(20);
/// One call at a time, in turns: at a broker with the crowd, and at another without.
const ALONE: Load = Load { in_flight: 1, size: 64, warm_ms: 100, measure_ms: 400, rate: None };

/// How much of each.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    /// Connections that have said one thing each.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Workers, each with a function of its own.
    #[arg(long, default_value_t = 1_000)]
    workers: usize,
    /// Queues that are empty.
    #[arg(long, default_value_t = 100_000)]
    queues: usize,
    /// Events of 64 B in a log, in memory.
    #[arg(long, default_value_t = 1_000_000)]
    retained: usize,
    /// Windows with one call in flight, at each of the two brokers.
    #[arg(long, default_value_t = 9)]
    windows: u32,
}

/// What is idle.
#[derive(Clone, Copy)]
enum Idle {
    Connections,
    Workers,
    Queues,
    Events,
}

struct Case {
    name: &'static str,
    hub: HubKind,
    idle: Idle,
}

const CASES: [Case; 6] = [
    Case { name: "router_connection", hub: HubKind::ZmqRouter, idle: Idle::Connections },
    Case { name: "mpreg_connection", hub: HubKind::Broker, idle: Idle::Connections },
    Case { name: "mpreg_ws_connection", hub: HubKind::BrokerWeb, idle: Idle::Connections },
    Case { name: "mpreg_worker", hub: HubKind::Broker, idle: Idle::Workers },
    Case { name: "mpreg_queue", hub: HubKind::Broker, idle: Idle::Queues },
    Case { name: "mpreg_event", hub: HubKind::BrokerKept, idle: Idle::Events },
];

/// What one case showed.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    count: usize,
    /// Memory that is the process's own (`RssAnon`).
    bytes_each: f64,
    /// Pages of its files that are in memory, which the system takes back as it likes (`RssFile`).
    file_bytes_each: f64,
    hub_mib: f64,
    gathered_s: f64,
    /// One call in flight, without the crowd, with it, and the median of the ratios. None where
    /// nobody calls.
    p50_us: Option<(f64, f64, f64)>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    let machine = Machine::read();
    let mut rows = Vec::new();
    for case in &CASES {
        let row = measure(case, options)?;
        eprintln!("{}: {} B each", row.name, figure(row.bytes_each));
        rows.push(row);
    }
    let (goals, load_after, options) = (goals(&rows), machine::load(), options.clone());
    let report = Report { bench: "scale", machine, load_after, options, rows, goals };
    Told::of(&report, report.text()?)
}

impl Idle {
    fn crowd(self, at: String, options: &Options) -> (usize, Role) {
        match self {
            Self::Connections => {
                let (count, saying) = (options.connections, Saying::Ping);
                (count, Role::Crowd { at, count, saying })
            }
            Self::Workers => {
                let (count, saying) = (options.workers, Saying::Offer);
                (count, Role::Crowd { at, count, saying })
            }
            Self::Queues => (options.queues, Role::Declarer { at, queues: options.queues }),
            Self::Events => (options.retained, Role::Keeper { at, events: options.retained }),
        }
    }
}

fn measure(case: &Case, options: &Options) -> Outcome<Row> {
    if case.hub == HubKind::ZmqRouter {
        let data = Folder::new();
        let hub = Process::start(&Role::Hub { kind: case.hub, data: data.0.clone() })?;
        let place: Place = hub.hear(START)?;
        let (_crowd, row) = gather(case, options, hub.pid(), place.clients)?;
        return Ok(row);
    }
    let data = Folder::new();
    let other = Stage::within(&data.0, case.hub, PeerKind::Rust, 64)?;
    let stage = Stage::set(case.hub, PeerKind::Rust, 64)?;
    let (_crowd, row) = gather(case, options, stage.watch().hub, stage.at())?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..options.windows {
        without.push(alone(&other)?);
        with.push(alone(&stage)?);
    }
    let times = median_ratio(&with, &without).unwrap_or(0.0);
    Ok(Row { p50_us: Some((median(without), median(with), times)), ..row })
}

/// The median of one call in flight, microseconds.
fn alone(stage: &Stage) -> Outcome<f64> {
    let (kind, at, watch) = (PeerKind::Rust, stage.at(), stage.watch());
    let client = Role::Client { kind, at, load: ALONE, watch };
    let seen: Measure = stage.play(&client, ALONE.patience())?;
    Ok(seen.p50_ns as f64 / 1e3)
}

/// A crowd, and what it takes.
fn gather(case: &Case, options: &Options, hub: u32, at: String) -> Outcome<(Process, Row)> {
    let before = rest(hub)?;
    let (count, role) = case.idle.crowd(at, options);
    let begun = Instant::now();
    let crowd = Process::start(&role)?;
    let Ready {} = crowd.hear(GATHERING)?;
    let gathered_s = begun.elapsed().as_secs_f64();
    let with = rest(hub)?;
    let each = |with: u64, before: u64| with.saturating_sub(before) as f64 / count.max(1) as f64;
    let row = Row {
        name: case.name,
        count,
        bytes_each: each(with.anonymous, before.anonymous),
        file_bytes_each: each(with.resident - with.anonymous, before.resident - before.anonymous),
        hub_mib: with.resident as f64 / 1_048_576.0,
        gathered_s,
        p50_us: None,
    };
    Ok((crowd, row))
}

/// Memory of a process once it has stopped to change.
fn rest(pid: u32) -> Outcome<Usage> {
    let begun = Instant::now();
    let (mut last, mut since) = (Usage::of(pid)?.resident, begun);
    while since.elapsed() < REST && begun.elapsed() < REST_WITHIN {
        std::thread::sleep(LOOK);
        let now = Usage::of(pid)?.resident;
        if now.abs_diff(last) > last / 200 {
            (last, since) = (now, Instant::now());
        }
    }
    Usage::of(pid)
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let each = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.bytes_each);
    let mut goals = Vec::new();
    if let (Some(ours), Some(bare)) = (each("mpreg_connection"), each("router_connection")) {
        let what = "an idle connection: bytes above what a bare ROUTER takes";
        goals.push(Goal::at_most(what, 6_144.0, ours - bare));
    }
    if let Some(queue) = each("mpreg_queue") {
        goals.push(Goal::at_most("an idle queue: bytes", 1_024.0, queue));
    }
    for row in rows {
        if let Some((_, _, times)) = row.p50_us {
            let what = format!("{}: times the p50 of one caller without", row.name);
            goals.push(Goal::at_most(&what, 1.1, times));
        }
    }
    goals
}

impl Report {
    fn text(&self) -> Outcome<String> {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, \
             {} after\n\n",
            self.load_after
        );
        let mut table = Table::new(&[
            "",
            "count",
            "bytes each",
            "of files",
            "hub MiB",
            "p50 µs without",
            "with",
            "x",
            "s",
        ]);
        for row in &self.rows {
            let p50 = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), figure);
            table.row([
                row.name.to_owned(),
                figure(row.count as f64),
                figure(row.bytes_each),
                figure(row.file_bytes_each),
                figure(row.hub_mib),
                p50(row.p50_us.map(|(without, ..)| without)),
                p50(row.p50_us.map(|(_, with, _)| with)),
                ratio(row.p50_us.map(|(.., times)| times)),
                figure(row.gathered_s),
            ]);
        }
        write!(text, "{table}{}", report::goals(&self.goals))?;
        Ok(text.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, bytes_each: f64, p50_us: Option<(f64, f64, f64)>) -> Row {
        let (file_bytes_each, hub_mib, gathered_s) = (0.0, 1.0, 0.1);
        Row { name, count: 1, bytes_each, file_bytes_each, hub_mib, gathered_s, p50_us }
    }

    #[test]
    fn a_connection_is_held_against_a_bare_one() {
        let rows = [
            row("router_connection", 28_000.0, None),
            row("mpreg_connection", 33_000.0, Some((40.0, 41.0, 1.02))),
            row("mpreg_queue", 1_100.0, Some((40.0, 50.0, 1.25))),
        ];
        let told: Vec<(f64, bool)> = goals(&rows).iter().map(|g| (g.measured, g.met)).collect();
        assert_eq!(told, [(5_000.0, true), (1_100.0, false), (1.02, true), (1.25, false)]);
    }

    #[test]
    fn what_rests_is_read_at_once() {
        let told = rest(std::process::id()).unwrap();
        assert!(told.anonymous > 0 && told.resident >= told.anonymous);
    }
}
