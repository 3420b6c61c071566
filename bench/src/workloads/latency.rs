//! Latency against rate: calls are made at their own moments, however long answers take.
//!
//! A closed loop asks less of whoever is slow, and its worst latencies are missing (coordinated
//! omission). Here each call has the moment it is due, and its latency counts from then.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::rpc::Contender;
use super::stage::Stage;
use crate::Outcome;
use crate::machine::{self, Machine};
use crate::plan::Load;
use crate::plot::{self, Line};
use crate::report::{Table, Told, figure};
use crate::role::{HubKind, PeerKind, Role};
use crate::statistics::median;
use crate::tally::Measure;

/// The most that may be in flight; beyond it calls are made late, and their latency says so.
const IN_FLIGHT: usize = 32_768;

const CONTENDERS: [Contender; 5] = [
    Contender { name: "zmq_proxy", hub: HubKind::ZmqProxy, peers: PeerKind::Frame },
    Contender { name: "websocket", hub: HubKind::WebsocketRelay, peers: PeerKind::Websocket },
    Contender { name: "mpreg_rust", hub: HubKind::Broker, peers: PeerKind::Rust },
    Contender { name: "mpreg_ws", hub: HubKind::BrokerWeb, peers: PeerKind::Rust },
    Contender { name: "mpreg_json", hub: HubKind::Broker, peers: PeerKind::Json },
];

/// The arguments of `latency`.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    /// Calls a second, one after the other
    #[arg(long, value_delimiter = ',', default_value = "5000,20000,50000,100000,200000,400000")]
    rates: Vec<u64>,
    /// Interleaved rounds; every figure is the median over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Length of each measured window, after a warm-up of a quarter of it.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Bytes of payload in a call.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    size: u32,
    /// Only the contenders whose name contains one of these (comma between them).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Draws 99th percentiles against rates
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    svg: Option<PathBuf>,
}

/// One contender at one rate.
#[derive(Debug, Serialize)]
struct Standing {
    name: String,
    rate: u64,
    /// Answered a second.
    answered_s: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    p9999_us: f64,
    hub_ns: f64,
    /// Sent and never answered, and answered with something else, over all rounds.
    lost: u64,
    failed: u64,
    rounds: Vec<Measure>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    standings: Vec<Standing>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    let machine = Machine::read();
    let wants = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    let contenders: Vec<Contender> =
        CONTENDERS.into_iter().filter(|contender| wants(contender.name)).collect();
    let cases: Vec<(u64, Contender)> = options
        .rates
        .iter()
        .flat_map(|rate| contenders.iter().map(|contender| (*rate, *contender)))
        .collect();
    let mut seen: Vec<Vec<Measure>> = vec![Vec::new(); cases.len()];
    for round in 1..=options.rounds {
        for ((rate, contender), seen) in cases.iter().zip(&mut seen) {
            let measure = measure(contender, options.load(*rate))?;
            let (name, p99) = (contender.name, figure(measure.p99_ns as f64 / 1e3));
            eprintln!("{rate}/s, round {round}/{}: {name} p99 {p99} µs", options.rounds);
            seen.push(measure);
        }
    }
    let standings = cases.iter().zip(seen);
    let standings = standings.map(|((rate, of), rounds)| Standing::new(of.name, *rate, rounds));
    let (standings, load_after) = (standings.collect(), machine::load());
    let options = options.clone();
    let report = Report { bench: "latency", machine, load_after, options, standings };
    if let Some(path) = &report.options.svg {
        std::fs::write(path, report.plot())?;
    }
    Told::of(&report, report.text()?)
}

impl Options {
    fn load(&self, rate: u64) -> Load {
        let measure_ms = self.seconds.clamp(0.05, 600.0) * 1_000.0;
        Load {
            in_flight: IN_FLIGHT,
            size: self.size as usize,
            warm_ms: (measure_ms / 4.0) as u64,
            measure_ms: measure_ms as u64,
            rate: Some(rate),
        }
    }
}

fn measure(contender: &Contender, load: Load) -> Outcome<Measure> {
    let kind = contender.peers;
    let stage = Stage::set(contender.hub, kind, IN_FLIGHT as u32)?;
    let client = Role::Client { kind, at: stage.at(), load, watch: stage.watch() };
    stage.play(&client, load.patience())
}

impl Standing {
    fn new(name: &str, rate: u64, rounds: Vec<Measure>) -> Self {
        let of = |read: fn(&Measure) -> f64| median(rounds.iter().map(read));
        Self {
            name: format!("{name} at {rate}"),
            rate,
            answered_s: of(|m| m.round_trips as f64 * 1e9 / m.elapsed_ns.max(1) as f64),
            p50_us: of(|m| m.p50_ns as f64 / 1e3),
            p90_us: of(|m| m.p90_ns as f64 / 1e3),
            p99_us: of(|m| m.p99_ns as f64 / 1e3),
            p999_us: of(|m| m.p999_ns as f64 / 1e3),
            p9999_us: of(|m| m.p9999_ns as f64 / 1e3),
            hub_ns: of(|m| m.hub_cpu_ns as f64 / m.round_trips.max(1) as f64),
            lost: rounds.iter().map(|m| m.sent - m.answered).sum(),
            failed: rounds.iter().map(|m| m.failed).sum(),
            rounds,
        }
    }
}

impl Report {
    fn text(&self) -> Outcome<String> {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let Options { rounds, seconds, size, .. } = &self.options;
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             echo of {size} B, made at fixed rates; {rounds} rounds of {seconds} s each, \
             interleaved; medians\n\n",
            self.load_after
        );
        let mut table = Table::new(&[
            "calls/s",
            "answered/s",
            "p50 µs",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "hub ns",
            "lost",
            "failed",
        ]);
        for standing in &self.standings {
            let figures = [
                standing.answered_s,
                standing.p50_us,
                standing.p90_us,
                standing.p99_us,
                standing.p999_us,
                standing.p9999_us,
                standing.hub_ns,
            ];
            let mut row = vec![standing.name.clone()];
            row.extend(figures.map(figure));
            row.extend([standing.lost, standing.failed].map(|count| count.to_string()));
            table.row(row);
        }
        write!(text, "{table}")?;
        Ok(text)
    }

    /// A line for each contender, up to the rate it keeps up with.
    fn plot(&self) -> String {
        let contender = |standing: &Standing| standing.name.split(' ').next().unwrap_or("").into();
        let mut lines: Vec<Line> = Vec::new();
        for standing in &self.standings {
            let name: String = contender(standing);
            let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
                lines.push(Line { name, points: Vec::new() });
                lines.len() - 1
            });
            if standing.answered_s >= 0.98 * standing.rate as f64 {
                lines[at].points.push((standing.rate as f64, standing.p99_us));
            }
        }
        let Machine { cpu, cores, .. } = &self.machine;
        let title = format!("99th percentile of a call by rate; {cpu}, {cores} cores");
        plot::draw(&title, ["calls a second", "µs"], &lines)
    }
}
