//! Echo calls: at saturation, and one at a time.
//!
//! Contenders take turns within a round (A B C D, A B C D …), so whatever else the machine does
//! meets all of them alike, and every ratio is taken within one round.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::stage::Stage;
use crate::Outcome;
use crate::machine::{self, Machine};
use crate::plan::{Load, Options};
use crate::report::{self, Goal, Table, Told, figure, ratio};
use crate::role::{HubKind, PeerKind, Role};
use crate::statistics::{median, median_ratio, range};
use crate::tally::Measure;

/// Rounds with one call in flight: latencies differ more from round to round than rates do.
const SINGLE_ROUNDS: u32 = 9;

/// Who takes part, baselines first.
const CONTENDERS: [Contender; 7] = [
    Contender { name: "zmq_proxy", hub: HubKind::ZmqProxy, peers: PeerKind::Frame },
    Contender { name: "websocket", hub: HubKind::WebsocketRelay, peers: PeerKind::Websocket },
    Contender { name: "mpreg_rust", hub: HubKind::Broker, peers: PeerKind::Rust },
    Contender { name: "mpreg_ipc", hub: HubKind::BrokerIpc, peers: PeerKind::Rust },
    Contender { name: "mpreg_ws", hub: HubKind::BrokerWeb, peers: PeerKind::Rust },
    Contender { name: "mpreg_json", hub: HubKind::Broker, peers: PeerKind::Json },
    Contender { name: "mpreg_ws_json", hub: HubKind::BrokerWeb, peers: PeerKind::Websocket },
];

/// What the others are compared with.
const BASELINES: [&str; 2] = ["zmq_proxy", "websocket"];

/// A process in the middle, and how its peers speak.
#[derive(Clone, Copy)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) hub: HubKind,
    pub(super) peers: PeerKind,
}

/// One contender's rounds and their medians.
#[derive(Debug, Serialize)]
pub(super) struct Standing {
    pub(super) name: &'static str,
    pub(super) round_trips_s: f64,
    round_trips_s_range: (f64, f64),
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    p999_us: f64,
    /// Core time a round trip.
    pub(super) hub_ns: f64,
    worker_ns: f64,
    client_ns: f64,
    hub_mib: f64,
    /// Sent and never answered, over all rounds.
    pub(super) lost: u64,
    /// Answered with something else than the result, over all rounds.
    pub(super) failed: u64,
    /// Rate, relative to each baseline.
    pub(super) rate_to: BTreeMap<&'static str, f64>,
    /// Median latency, relative to each baseline.
    pub(super) p50_to: BTreeMap<&'static str, f64>,
    rounds: Vec<Measure>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    pub(super) saturated: Vec<Standing>,
    pub(super) single: Vec<Standing>,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    Report::of("rpc", CONTENDERS, &BASELINES, options, goals)?.tell(tables)
}

/// All rounds of one load.
fn contest(
    contenders: &[Contender],
    baselines: &[&str],
    (load, rounds): (Load, u32),
) -> Outcome<Vec<Standing>> {
    let mut seen: Vec<Vec<Measure>> = vec![Vec::new(); contenders.len()];
    for round in 1..=rounds {
        for (contender, seen) in contenders.iter().zip(&mut seen) {
            let measure = measure(contender, load)?;
            let (name, in_flight) = (contender.name, load.in_flight);
            eprintln!(
                "{in_flight} in flight, round {round}/{rounds}: {name} {}/s, p50 {} µs",
                figure(rate(&measure)),
                figure(measure.p50_ns as f64 / 1e3),
            );
            seen.push(measure);
        }
    }
    let mut standings: Vec<Standing> =
        contenders.iter().zip(seen).map(|(c, rounds)| Standing::new(c.name, rounds)).collect();
    for (index, contender) in contenders.iter().enumerate() {
        if baselines.contains(&contender.name) {
            compare(&mut standings, index);
        }
    }
    Ok(standings)
}

/// One window of one contender, with processes of its own.
fn measure(contender: &Contender, load: Load) -> Outcome<Measure> {
    let (kind, credit) = (contender.peers, load.in_flight as u32);
    let stage = Stage::set(contender.hub, kind, credit)?;
    let client = Role::Client { kind, at: stage.at(), load, watch: stage.watch() };
    let measure: Measure = stage.play(&client, load.patience())?;
    if measure.round_trips == 0 {
        return Err(format!("{} answered nothing: {measure:?}", contender.name).into());
    }
    Ok(measure)
}

fn rate(measure: &Measure) -> f64 {
    measure.round_trips as f64 * 1e9 / measure.elapsed_ns.max(1) as f64
}

/// Writes every standing's ratios to the one at `baseline`.
fn compare(standings: &mut [Standing], baseline: usize) {
    let name = standings[baseline].name;
    let [rates, latencies] = series(&standings[baseline].rounds);
    for standing in standings {
        let [ours, p50s] = series(&standing.rounds);
        standing.rate_to.extend(median_ratio(&ours, &rates).map(|ratio| (name, ratio)));
        standing.p50_to.extend(median_ratio(&p50s, &latencies).map(|ratio| (name, ratio)));
    }
}

/// Rates and median latencies, by round.
fn series(rounds: &[Measure]) -> [Vec<f64>; 2] {
    let latencies = rounds.iter().map(|measure| measure.p50_ns as f64);
    [rounds.iter().map(rate).collect(), latencies.collect()]
}

impl Standing {
    fn new(name: &'static str, rounds: Vec<Measure>) -> Self {
        let of = |read: fn(&Measure) -> f64| median(rounds.iter().map(read));
        let [rates, _] = series(&rounds);
        Self {
            name,
            round_trips_s: median(rates.iter().copied()),
            round_trips_s_range: range(&rates),
            p50_us: of(|m| m.p50_ns as f64 / 1e3),
            p99_us: of(|m| m.p99_ns as f64 / 1e3),
            p999_us: of(|m| m.p999_ns as f64 / 1e3),
            hub_ns: of(|m| m.hub_cpu_ns as f64 / m.round_trips as f64),
            worker_ns: of(|m| m.worker_cpu_ns as f64 / m.round_trips as f64),
            client_ns: of(|m| m.client_cpu_ns as f64 / m.round_trips as f64),
            hub_mib: of(|m| m.hub_resident as f64 / 1_048_576.0),
            lost: rounds.iter().map(|m| m.sent - m.answered).sum(),
            failed: rounds.iter().map(|m| m.failed).sum(),
            rate_to: BTreeMap::new(),
            p50_to: BTreeMap::new(),
            rounds,
        }
    }
}

/// What the project promised, as far as those who take part can show it.
fn goals(saturated: &[Standing], single: &[Standing]) -> Vec<Goal> {
    let find = |list: &'static str, name| {
        let list = if list == "single" { single } else { saturated };
        list.iter().find(|standing| standing.name == name)
    };
    let mut goals = Vec::new();
    let rate = |name, to| find("saturated", name).and_then(|ours| ours.rate_to.get(to).copied());
    let rates = [
        ("mpreg_rust", "zmq_proxy", 4.0),
        ("mpreg_rust", "websocket", 5.0),
        ("mpreg_json", "zmq_proxy", 0.5),
        ("mpreg_json", "websocket", 0.8),
    ];
    for (name, to, wanted) in rates {
        let goal =
            |ratio| Goal::at_least(&format!("{name}: times the rate of {to}"), wanted, ratio);
        goals.extend(rate(name, to).map(goal));
    }
    if let Some(rust) = find("saturated", "mpreg_rust") {
        let what = "mpreg_rust: broker CPU a round trip, ns";
        goals.push(Goal::at_most(what, 400.0, rust.hub_ns));
    }
    if let Some(p50) = find("single", "mpreg_rust").and_then(|rust| rust.p50_to.get("zmq_proxy")) {
        let what = "mpreg_rust: one in flight, times the p50 of zmq_proxy";
        goals.push(Goal::at_most(what, 1.25, *p50));
    }
    goals
}

impl Report {
    /// Lets those take part that are wanted, and holds them against what was promised.
    pub(super) fn of<const N: usize>(
        bench: &'static str,
        all: [Contender; N],
        baselines: &[&str],
        options: &Options,
        goals: fn(&[Standing], &[Standing]) -> Vec<Goal>,
    ) -> Outcome<Self> {
        let machine = Machine::read();
        let contenders: Vec<Contender> =
            all.into_iter().filter(|contender| options.wants(contender.name)).collect();
        if contenders.is_empty() {
            return Err(options.nobody(all.map(|contender| contender.name)));
        }
        let saturated = (options.saturated(), options.rounds);
        let saturated = contest(&contenders, baselines, saturated)?;
        let single = (options.single(), SINGLE_ROUNDS.max(options.rounds));
        let single = contest(&contenders, baselines, single)?;
        let goals = goals(&saturated, &single);
        let (options, load_after) = (options.clone(), machine::load());
        Ok(Self { bench, machine, load_after, options, saturated, single, goals })
    }

    /// The tables stand between the machine and the goals.
    pub(super) fn tell(&self, tables: fn(&Self, &mut String) -> std::fmt::Result) -> Outcome<Told> {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let Options { rounds, seconds, size, .. } = &self.options;
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             echo of {size} B; {rounds} rounds of {seconds} s each, interleaved; medians\n",
            self.load_after
        );
        tables(self, &mut text)?;
        write!(text, "{}", report::goals(&self.goals))?;
        Told::of(self, text)
    }

    /// How many calls were in flight at saturation.
    pub(super) const fn in_flight(&self) -> u32 {
        self.options.in_flight
    }
}

fn tables(report: &Report, text: &mut String) -> std::fmt::Result {
    let saturated = table(&report.saturated, |s| &s.rate_to);
    write!(text, "\n{} in flight\n{saturated}", report.in_flight())?;
    for standing in &report.saturated {
        writeln!(text, "{}", limit(standing))?;
    }
    write!(text, "\none in flight (ratios of p50)\n{}", table(&report.single, |s| &s.p50_to))
}

fn table(standings: &[Standing], ratios: fn(&Standing) -> &BTreeMap<&'static str, f64>) -> Table {
    let mut table = Table::new(&[
        "",
        "round trips/s",
        "p50 µs",
        "p99",
        "p99.9",
        "hub ns",
        "worker ns",
        "client ns",
        "hub MiB",
        "lost",
        "failed",
        "x zmq_proxy",
        "x websocket",
    ]);
    for standing in standings {
        let ratios = ratios(standing);
        let figures = [
            standing.round_trips_s,
            standing.p50_us,
            standing.p99_us,
            standing.p999_us,
            standing.hub_ns,
            standing.worker_ns,
            standing.client_ns,
            standing.hub_mib,
        ];
        let mut row = vec![standing.name.to_owned()];
        row.extend(figures.map(figure));
        row.extend([standing.lost, standing.failed].map(|count| count.to_string()));
        row.extend(["zmq_proxy", "websocket"].map(|name| ratio(ratios.get(name).copied())));
        table.row(row);
    }
    table
}

/// Where the cores' time went, which says what limits the rate.
fn limit(standing: &Standing) -> String {
    let cores = |ns: f64| ns * standing.round_trips_s / 1e9;
    let (low, high) = standing.round_trips_s_range;
    format!(
        "  {}: busy cores: hub {:.2}, worker {:.2}, client {:.2}; rounds {} to {}/s",
        standing.name,
        cores(standing.hub_ns),
        cores(standing.worker_ns),
        cores(standing.client_ns),
        figure(low),
        figure(high),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(rate: u64, p50_us: u64) -> Measure {
        Measure {
            round_trips: rate,
            elapsed_ns: 1_000_000_000,
            p50_ns: p50_us * 1_000,
            sent: rate + 2,
            answered: rate + 1,
            hub_cpu_ns: rate * 300,
            ..Measure::default()
        }
    }

    fn standings() -> Vec<Standing> {
        // The second round was disturbed for both.
        let theirs = vec![measure(100, 50), measure(20, 250), measure(100, 50)];
        let ours = vec![measure(500, 60), measure(100, 300), measure(510, 60)];
        let mut standings =
            vec![Standing::new("zmq_proxy", theirs), Standing::new("mpreg_rust", ours)];
        compare(&mut standings, 0);
        standings
    }

    #[test]
    fn a_standing_is_the_median_of_its_rounds() {
        let standings = standings();
        assert_eq!(standings[1].round_trips_s, 500.0);
        assert_eq!(standings[1].round_trips_s_range, (100.0, 510.0));
        assert_eq!((standings[1].p50_us, standings[1].hub_ns), (60.0, 300.0));
        assert_eq!(standings[1].lost, 3);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let standings = standings();
        assert_eq!(standings[1].rate_to["zmq_proxy"], 5.0);
        assert_eq!(standings[1].p50_to["zmq_proxy"], 1.2);
        assert_eq!(standings[0].rate_to["zmq_proxy"], 1.0);
    }

    #[test]
    fn goals_are_named_for_those_who_took_part() {
        let goals = goals(&standings(), &standings());
        let met: Vec<(&str, bool)> = goals.iter().map(|g| (g.what.as_str(), g.met)).collect();
        assert_eq!(
            met,
            [
                ("mpreg_rust: times the rate of zmq_proxy, at least", true),
                ("mpreg_rust: broker CPU a round trip, ns, at most", true),
                ("mpreg_rust: one in flight, times the p50 of zmq_proxy, at most", true),
            ]
        );
    }
}
