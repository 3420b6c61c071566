//! What a hop costs: echo calls through one broker, and through two with a link between them.

use std::fmt::Write;

use super::rpc::{Contender, Report, Standing};
use crate::Outcome;
use crate::plan::Options;
use crate::report::{Goal, Table, Told, figure, ratio};
use crate::role::{HubKind, PeerKind};

const CONTENDERS: [Contender; 4] = [
    Contender { name: "rust_local", hub: HubKind::Broker, peers: PeerKind::Rust },
    Contender { name: "rust_one_hop", hub: HubKind::OneHop, peers: PeerKind::Rust },
    Contender { name: "json_local", hub: HubKind::Broker, peers: PeerKind::Json },
    Contender { name: "json_one_hop", hub: HubKind::OneHop, peers: PeerKind::Json },
];

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    Report::of("federation", CONTENDERS, &["rust_local", "json_local"], options, goals)?
        .tell(tables)
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

fn tables(report: &Report, text: &mut String) -> std::fmt::Result {
    write!(text, "\n{} in flight\n{}", report.in_flight(), table(&report.saturated, "rate"))?;
    write!(text, "\none in flight\n{}", table(&report.single, "p50"))
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
