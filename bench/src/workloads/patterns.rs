//! The pattern index: what a pattern costs in memory and time, and how long a match takes among
//! millions of them. Beside it, what libzmq's own XPUB adds for a text.

mod index;
mod names;
mod xpub;

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::machine::{self, Machine};
use crate::process::{Process, say};
use crate::report::{self, Goal, Table, Told, figure};
use crate::role::{Place, Role};

/// Texts that the XPUB is given.
const TEXTS: u64 = 100_000;
/// How long one process may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// The arguments of `patterns`.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    /// Patterns in the index.
    #[arg(long, default_value_t = 10_000_000,
        value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub(crate) patterns: u64,
}

/// What one process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub(crate) enum Part {
    /// Fills an index and asks it.
    Index { patterns: u64 },
    /// Is an XPUB until it has this many subscriptions.
    Xpub { texts: u64 },
    /// Is a SUB with this many.
    Sub { texts: u64, at: String },
}

/// Is one process of it.
pub(crate) fn play(part: &Part) -> Outcome<()> {
    match part {
        Part::Index { patterns } => say(&index::measure(*patterns)?),
        Part::Xpub { texts } => xpub::xpub(*texts),
        Part::Sub { texts, at } => xpub::sub(*texts, at),
    }
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    index: index::Measure,
    xpub: xpub::Measure,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    let machine = Machine::read();
    let start = |part| Process::start(&Role::Patterns { part });
    let index: index::Measure =
        start(Part::Index { patterns: options.patterns })?.hear(PATIENCE)?;
    let load_after = machine::load();
    let xpub = beside(start(Part::Xpub { texts: TEXTS })?)?;
    let (goals, options) = (goals(&index), options.clone());
    let report = Report { bench: "patterns", machine, load_after, options, index, xpub, goals };
    Told::of(&report, report.text())
}

fn beside(xpub: Process) -> Outcome<xpub::Measure> {
    let place: Place = xpub.hear(PATIENCE)?;
    let part = Part::Sub { texts: TEXTS, at: place.clients };
    let _sub = Process::start(&Role::Patterns { part })?;
    xpub.hear(PATIENCE)
}

/// What the project promised.
fn goals(index: &index::Measure) -> Vec<Goal> {
    let last = index.last();
    let seconds = |filled: &index::Filled| filled.second_a_million();
    vec![
        Goal::at_most("match p50, µs", 1.0, index.p50_ns as f64 / 1e3),
        Goal::at_most("match p99, µs", 5.0, index.p99_ns as f64 / 1e3),
        Goal::at_most("resident, bytes a pattern", 120.0, index.resident_a_pattern()),
        Goal::at_most("first million, s", 2.0, index.filled.first().map_or(0.0, seconds)),
        Goal::at_most("last million, s", 2.0, seconds(&last)),
        Goal::at_most("longest pause, last million, ms", 5.0, last.pause_ns as f64 / 1e6),
    ]
}

impl Report {
    fn text(&self) -> String {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let (index, last) = (&self.index, self.index.last());
        let mut table = Table::new(&["", ""]);
        let mut row = |what: &str, number: f64| table.row([what.to_owned(), figure(number)]);
        row("patterns", index.patterns as f64);
        row("a pattern's text, bytes", index.text);
        row("resident a pattern, bytes", index.resident_a_pattern());
        row("counted a pattern, bytes", index.counted as f64 / index.patterns as f64);
        row("XPUB: resident a text, bytes", self.xpub.resident as f64 / self.xpub.texts as f64);
        row("first million, s", index.filled.first().map_or(0.0, |all| all.second_a_million()));
        row("last million, s", last.second_a_million());
        row("longest pause, last million, ms", last.pause_ns as f64 / 1e6);
        row("  the wait for a core not counted", last.busy_ns as f64 / 1e6);
        let (pause, busy) = index.longest();
        row("longest pause of all, ms", pause as f64 / 1e6);
        row("  the wait for a core not counted", busy as f64 / 1e6);
        row("match p50, µs", index.p50_ns as f64 / 1e3);
        row("match p99, µs", index.p99_ns as f64 / 1e3);
        row("match p99.9, µs", index.p999_ns as f64 / 1e3);
        row("  the clock's part, µs", index.clock_ns as f64 / 1e3);
        row("patterns found a topic", index.found);
        row("removing a million, s", index.removal_second_a_million());
        let text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             {table}{}",
            self.load_after,
            report::goals(&self.goals),
        );
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_about_the_first_and_the_last_million() {
        let filled = [1, 9, 3].map(|seconds| index::Filled {
            patterns: index::MILLION,
            ns: seconds * 1_000_000_000,
            pause_ns: seconds * 1_000_000,
            busy_ns: seconds * 900_000,
        });
        let index = index::Measure {
            patterns: 3 * index::MILLION,
            resident: 300 * index::MILLION,
            filled: filled.into(),
            p50_ns: 900,
            p99_ns: 6_000,
            ..index::Measure::default()
        };
        let met = goals(&index).iter().map(|goal| goal.met).collect::<Vec<_>>();
        assert_eq!(met, [true, false, true, true, false, true]);
        assert_eq!(index.longest(), (9_000_000, 8_100_000));
    }
}
