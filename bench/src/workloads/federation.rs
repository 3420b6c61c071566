//! What a hop costs: echo calls through one broker, and through two with a link between them.

use std::fmt::Write;

use serde::Serialize;

use super::rpc::{Contender, SINGLE_ROUNDS, Standing, contest};
use crate::Outcome;
use crate::machine::{self, Machine};
use crate::plan::Options;
use crate::report::{self, Goal, Table, figure, ratio};
use crate::role::{HubKind, PeerKind};

const CONTENDERS: [Contender; 4] = [
    Contender { name: "rust_local", hub: HubKind::Broker, peers: PeerKind::Rust },
    Contender { name: "rust_one_hop", hub: HubKind::OneHop, peers: PeerKind::Rust },
    Contender { name: "json_local", hub: HubKind::Broker, peers: PeerKind::Json },
    Contender { name: "json_one_hop", hub: HubKind::OneHop, peers: PeerKind::Json },
];

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    saturated: Vec<Standing>,
    single: Vec<Standing>,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<String> {
    let machine = Machine::read();
    let contenders: Vec<Contender> =
        CONTENDERS.into_iter().filter(|contender| options.wants(contender.name)).collect();
    if contenders.is_empty() {
        return Err(options.nobody(CONTENDERS.map(|contender| contender.name)));
    }
    let baselines = ["rust_local", "json_local"];
    let saturated = contest(&contenders, &baselines, (options.saturated(), options.rounds))?;
    let rounds = SINGLE_ROUNDS.max(options.rounds);
    let single = contest(&contenders, &baselines, (options.single(), rounds))?;
    let goals = goals(&saturated, &single);
    let load_after = machine::load();
    let (options, json, bench) = (options.clone(), options.json, "federation");
    let report = Report { bench, machine, load_after, options, saturated, single, goals };
    if json { Ok(serde_json::to_string_pretty(&report)?) } else { report.text() }
}

/// What the project promised of one hop.
fn goals(saturated: &[Standing], single: &[Standing]) -> Vec<Goal> {
    let one_hop = |list: &'_ [Standing]| list.iter().position(|of| of.name == "rust_one_hop");
    let mut goals = Vec::new();
    if let Some(rate) = one_hop(saturated).and_then(|at| saturated[at].rate_to.get("rust_local")) {
        goals.push(Goal::at_least("rust_one_hop: times the rate of rust_local", 0.7, *rate));
    }
    if let Some(p50) = one_hop(single).and_then(|at| single[at].p50_to.get("rust_local")) {
        goals.push(Goal::at_most("rust_one_hop: one in flight, times the p50", 1.6, *p50));
    }
    goals
}

impl Report {
    fn text(&self) -> Outcome<String> {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let Options { rounds, seconds, in_flight, size, .. } = &self.options;
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             echo of {size} B; {rounds} rounds of {seconds} s each, interleaved; medians\n",
            self.load_after
        );
        write!(text, "\n{in_flight} in flight\n{}", table(&self.saturated, "rate"))?;
        write!(text, "\none in flight\n{}", table(&self.single, "p50"))?;
        write!(text, "{}", report::goals(&self.goals))?;
        Ok(text.trim_end().to_owned())
    }
}

fn table(standings: &[Standing], what: &str) -> Table {
    let title = format!("x {what} of local");
    let head =
        ["", "round trips/s", "p50 µs", "p99", "near broker ns", "lost", "failed", title.as_str()];
    let mut table = Table::new(&head);
    for standing in standings {
        let local = standing.name.replace("one_hop", "local");
        let ratios = if what == "rate" { &standing.rate_to } else { &standing.p50_to };
        let figures = [standing.round_trips_s, standing.p50_us, standing.p99_us, standing.hub_ns];
        let mut row = vec![standing.name.to_owned()];
        row.extend(figures.map(figure));
        row.extend([standing.lost, standing.failed].map(|count| count.to_string()));
        row.push(ratio(ratios.get(local.as_str()).copied()));
        table.row(row);
    }
    table
}
