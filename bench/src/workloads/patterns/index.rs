//! One process with an index: fills it, asks it, empties a part of it.

use std::time::Instant;

use hdrhistogram::Histogram;
use mpreg_patterns::base::Rng;
use mpreg_patterns::names::{Pattern, PatternId, PatternIndex};
use serde::{Deserialize, Serialize};

use super::names::Names;
use crate::Outcome;
use crate::machine::Usage;

/// Patterns that are inserted between two matches.
pub(super) const CHUNK: u64 = 1_024;
/// Patterns of which a time is told.
pub(super) const MILLION: u64 = 1_000_000;
/// Matches that are timed.
const MATCHES: usize = 1_000_000;

/// What the process saw. Times in nanoseconds, sizes in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// Distinct patterns in the index.
    pub(super) patterns: u64,
    /// How far the resident memory of the process rose with them.
    pub(super) resident: u64,
    /// What the index says it holds.
    pub(super) counted: u64,
    /// Mean length of a pattern's text.
    pub(super) text: f64,
    /// One for each million, in order; the last may be of less.
    pub(super) filled: Vec<Filled>,
    /// One match of a topic drawn from all names in the index, the clock included.
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p999_ns: u64,
    pub(super) max_ns: u64,
    /// Two readings of the clock, nothing between: part of each time above.
    pub(super) clock_ns: u64,
    /// Patterns a topic matched, on average.
    pub(super) found: f64,
    /// How many were removed at random, and in what time.
    pub(super) removed: u64,
    pub(super) removed_ns: u64,
}

/// Inserting one million, with a match after each chunk.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Filled {
    /// Patterns that were new.
    pub(super) patterns: u64,
    /// Reading the texts, inserting, and the matches in between.
    pub(super) ns: u64,
    /// The longest time from one match to the next.
    pub(super) pause_ns: u64,
    /// The same without the time in which others had the core.
    pub(super) busy_ns: u64,
}

impl Filled {
    pub(super) fn second_a_million(&self) -> f64 {
        second_a_million(self.ns, self.patterns)
    }
}

impl Measure {
    /// The last million that is whole, or what there is.
    pub(super) fn last(&self) -> Filled {
        let whole = self.filled.iter().rfind(|filled| filled.patterns == MILLION);
        whole.or_else(|| self.filled.last()).copied().unwrap_or_default()
    }

    /// The longest pauses of all millions, with and without the wait for a core.
    pub(super) fn longest(&self) -> (u64, u64) {
        let longest = |of: fn(&Filled) -> u64| self.filled.iter().map(of).max().unwrap_or(0);
        (longest(|filled| filled.pause_ns), longest(|filled| filled.busy_ns))
    }

    pub(super) fn resident_a_pattern(&self) -> f64 {
        self.resident as f64 / self.patterns as f64
    }

    pub(super) fn removal_second_a_million(&self) -> f64 {
        second_a_million(self.removed_ns, self.removed)
    }
}

fn second_a_million(ns: u64, patterns: u64) -> f64 {
    ns as f64 / 1e3 / patterns.max(1) as f64
}

/// Does it all with `count` patterns.
pub(crate) fn measure(count: u64) -> Outcome<Measure> {
    let mut bench = Bench::new();
    let before = Usage::of(std::process::id())?.resident;
    let mut filled = Vec::new();
    while bench.held() < count {
        let million = bench.fill((count - bench.held()).min(MILLION));
        filled.push(million);
        eprintln!("{} patterns: {:.2} s", bench.held(), million.ns as f64 / 1e9);
    }
    let resident = Usage::of(std::process::id())?.resident.saturating_sub(before);
    let counted = bench.index.bytes() as u64;
    let mut measure = Measure {
        patterns: bench.held(),
        resident,
        counted,
        text: bench.bytes as f64 / bench.held() as f64,
        filled,
        clock_ns: clock(),
        ..Measure::default()
    };
    bench.ask(&mut measure)?;
    bench.remove(&mut measure);
    Ok(measure)
}

struct Bench {
    names: Names,
    index: PatternIndex,
    rng: Rng,
    /// Patterns drawn so far, those included that were there already.
    drawn: u64,
    /// Bytes of all texts.
    bytes: u64,
    texts: Vec<String>,
    topic: String,
    found: Vec<PatternId>,
}

impl Bench {
    fn new() -> Self {
        Self {
            names: Names::new(),
            index: PatternIndex::new(11),
            rng: Rng::new(12),
            drawn: 0,
            bytes: 0,
            texts: vec![String::new(); CHUNK as usize],
            topic: String::new(),
            found: Vec::new(),
        }
    }

    fn held(&self) -> u64 {
        self.index.len() as u64
    }

    /// Inserts until there are `count` more; the texts come ready, as from a socket.
    fn fill(&mut self, count: u64) -> Filled {
        let (mut filled, until) = (Filled::default(), self.held() + count);
        while self.held() < until {
            let chunk = CHUNK.min(until - self.held()) as usize;
            for text in &mut self.texts[..chunk] {
                self.names.write(self.drawn, text);
                self.drawn += 1;
            }
            self.draw_topic();
            let (waited_before, started) = (waited(), Instant::now());
            for text in &self.texts[..chunk] {
                let pattern = Pattern::parse(text).expect("the generator writes patterns");
                if self.index.insert(&pattern).1 {
                    filled.patterns += 1;
                    self.bytes += pattern.as_str().len() as u64;
                }
            }
            self.found.clear();
            self.index.matches(&self.topic, &mut self.found);
            let ns = started.elapsed().as_nanos() as u64;
            filled.ns += ns;
            filled.pause_ns = filled.pause_ns.max(ns);
            let elsewhere = waited().saturating_sub(waited_before);
            filled.busy_ns = filled.busy_ns.max(ns.saturating_sub(elsewhere));
        }
        filled
    }

    /// A name among all that were drawn so far.
    fn draw_topic(&mut self) {
        loop {
            let number = self.rng.below(self.drawn as usize) as u64;
            if self.names.write(number, &mut self.topic) {
                return;
            }
        }
    }

    fn ask(&mut self, measure: &mut Measure) -> Outcome<()> {
        let mut times = Histogram::<u64>::new(3)?;
        let mut matched = 0;
        for _ in 0..MATCHES {
            self.draw_topic();
            self.found.clear();
            let started = Instant::now();
            self.index.matches(&self.topic, &mut self.found);
            times.record(started.elapsed().as_nanos() as u64)?;
            matched += self.found.len();
            assert!(!self.found.is_empty(), "{} is in the index", self.topic);
        }
        measure.p50_ns = times.value_at_quantile(0.5);
        measure.p99_ns = times.value_at_quantile(0.99);
        measure.p999_ns = times.value_at_quantile(0.999);
        measure.max_ns = times.max();
        measure.found = matched as f64 / MATCHES as f64;
        Ok(())
    }

    /// Takes a million out, at most half: ids drawn at random, those that are gone not counted.
    fn remove(&mut self, measure: &mut Measure) {
        let (bound, until) = (self.index.len(), MILLION.min(self.held() / 2));
        let started = Instant::now();
        while measure.removed < until {
            let id = PatternId(self.rng.below(bound) as u32);
            measure.removed += u64::from(self.index.remove(id));
        }
        measure.removed_ns = started.elapsed().as_nanos() as u64;
    }
}

/// How long this thread has waited for a core so far, nanoseconds; 0 where nobody tells.
fn waited() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// What reading the clock twice takes, at the median.
fn clock() -> u64 {
    let mut times: Vec<_> = (0..10_001).map(|_| Instant::now().elapsed().as_nanos()).collect();
    times.sort_unstable();
    times[times.len() / 2] as u64
}
