//! The report for people.

use std::fmt::Write;

use super::{Report, Standing};
use crate::Outcome;
use crate::machine::Machine;
use crate::plan::Options;
use crate::report::{self, Table, figure, ratio};

impl Report {
    pub(super) fn text(&self) -> Outcome<String> {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let Options { rounds, seconds, in_flight, size, .. } = &self.options;
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             events of {size} B, {in_flight} on their way at most; {rounds} rounds of {seconds} s \
             each, interleaved; medians\n\n{}",
            self.load_after,
            table(&self.standings)
        );
        for standing in &self.standings {
            writeln!(text, "{}", limit(standing))?;
        }
        write!(text, "{}", report::goals(&self.goals))?;
        Ok(text.trim_end().to_owned())
    }
}

fn table(standings: &[Standing]) -> Table {
    let mut table = Table::new(&[
        "",
        "events/s",
        "deliveries/s",
        "p50 µs",
        "p99",
        "hub ns",
        "a delivery",
        "listener ns",
        "publisher ns",
        "hub MiB",
        "lost",
        "disorder",
        "x zmq_proxy",
        "x websocket",
    ]);
    for standing in standings {
        let figures = [
            standing.events_s,
            standing.deliveries_s,
            standing.p50_us,
            standing.p99_us,
            standing.hub_ns,
            standing.hub_ns_delivery,
            standing.listener_ns,
            standing.publisher_ns,
            standing.hub_mib,
        ];
        let mut row = vec![standing.contender.name.to_owned()];
        row.extend(figures.map(figure));
        row.extend([standing.lost, standing.disorder].map(|count| count.to_string()));
        row.extend(["zmq_proxy", "websocket"].map(|base| {
            let mut ratios = standing.rate_to.iter();
            ratio(ratios.find(|(name, _)| name.starts_with(base)).map(|(_, ratio)| *ratio))
        }));
        table.row(row);
    }
    table
}

/// Where the cores' time went, which says what limits the rate.
fn limit(standing: &Standing) -> String {
    let cores = |ns: f64| ns * standing.events_s / 1e9;
    let (low, high) = standing.events_s_range;
    format!(
        "  {}: busy cores: hub {:.2}, listener {:.2}, publisher {:.2}; rounds {} to {}/s",
        standing.contender.name,
        cores(standing.hub_ns),
        cores(standing.listener_ns),
        cores(standing.publisher_ns),
        figure(low),
        figure(high),
    )
}
