//! The report for people.

use std::fmt::Write;

use super::{Kind, QUICK_SYNC_US, Report, Standing};
use crate::Outcome;
use crate::machine::Machine;
use crate::report::{self, Table, figure, ratio};
use crate::statistics::median;

impl Report {
    pub(super) fn text(&self) -> Outcome<String> {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let plan = &self.options.plan;
        let (rounds, seconds, in_flight) = (plan.rounds, plan.seconds, plan.in_flight);
        let all = self.standings.iter().flat_map(|standing| &standing.rounds);
        let disk_us = median(all.map(|measure| measure.disk_us));
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             data on {}, where 256 KiB and their fdatasync take {} µs\n\
             {in_flight} messages on their way at most; {rounds} rounds of {seconds} s each, \
             interleaved; medians\n\n{}",
            self.load_after,
            self.file_system,
            figure(disk_us),
            table(&self.standings)
        );
        for standing in &self.standings {
            writeln!(text, "{}", limit(standing))?;
        }
        if disk_us > QUICK_SYNC_US {
            writeln!(text, "  no durable rate is promised where such a sync takes above 2,000 µs")?;
        }
        write!(text, "{}", report::goals(&self.goals))?;
        Ok(text.trim_end().to_owned())
    }
}

fn table(standings: &[Standing]) -> Table {
    let mut table = Table::new(&[
        "",
        "messages/s",
        "a sync",
        "sync µs",
        "disk B",
        "sent p50 µs",
        "p99",
        "deliver p50 µs",
        "p99",
        "hub ns",
        "consumer ns",
        "producer ns",
        "hub MiB",
        "lost",
        "disorder",
        "left",
        "x lmdb",
    ]);
    for standing in standings {
        table.row(row(standing));
    }
    table
}

/// A dash stands for what there is nothing of.
fn row(standing: &Standing) -> Vec<String> {
    let some = |number: f64| if number > 0.0 { figure(number) } else { "-".to_owned() };
    let mut row = vec![standing.contender.name.to_owned(), figure(standing.messages_s)];
    row.extend([standing.per_sync, standing.sync_us, standing.bytes].map(some));
    row.extend(
        [
            standing.confirm_p50_us,
            standing.confirm_p99_us,
            standing.deliver_p50_us,
            standing.deliver_p99_us,
            standing.hub_ns,
            standing.consumer_ns,
            standing.producer_ns,
            standing.hub_mib,
        ]
        .map(some),
    );
    let alone = standing.contender.kind == Kind::Lmdb;
    let count = |count: u64| if alone { "-".to_owned() } else { count.to_string() };
    row.extend([standing.lost, standing.disorder, standing.left].map(count));
    row.push(ratio(standing.rate_to_lmdb));
    row
}

/// Where the cores' time went, which says what limits the rate.
fn limit(standing: &Standing) -> String {
    let name = standing.contender.name;
    let (low, high) = standing.messages_s_range;
    let rounds = format!("rounds {} to {}/s", figure(low), figure(high));
    if standing.contender.kind == Kind::Lmdb {
        return format!("  {name}: {rounds}");
    }
    let cores = |ns: f64| ns * standing.messages_s / 1e9;
    format!(
        "  {name}: busy cores: hub {:.2}, consumer {:.2}, producer {:.2}; {rounds}",
        cores(standing.hub_ns),
        cores(standing.consumer_ns),
        cores(standing.producer_ns),
    )
}
