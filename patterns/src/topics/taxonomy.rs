//! The broker's own topics: which there are, and whether anybody listens.

use crate::names::Pattern;

/// What the broker can tell of, each below a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `mpreg.rpc.command.{id}.started|progress|completed|failed`.
    Calls,
    /// `mpreg.rpc.graph.{id}.started|progress|completed|failed`.
    Graphs,
    /// `mpreg.worker.{id}.joined|left`.
    Workers,
    /// `mpreg.queue.{name}.enqueued|delivered|acked|nacked|dead|dropped|refused`, and
    /// `….declared|deleted|purged|redriven`.
    Queues,
    /// `mpreg.topic.dropped.{peer}`.
    Losses,
    /// `mpreg.refused.{endpoint}`.
    Refusals,
    /// `mpreg.federation.{node}.reached|lost|gap`.
    Federation,
}

const ROOTS: [(Family, &str); 7] = [
    (Family::Calls, "mpreg.rpc.command.#"),
    (Family::Graphs, "mpreg.rpc.graph.#"),
    (Family::Workers, "mpreg.worker.#"),
    (Family::Queues, "mpreg.queue.#"),
    (Family::Losses, "mpreg.topic.dropped.#"),
    (Family::Refusals, "mpreg.refused.#"),
    (Family::Federation, "mpreg.federation.#"),
];

/// How many patterns might match something of each family: what nobody hears is not told.
#[derive(Debug, Default)]
pub(super) struct Interest {
    patterns: [u32; ROOTS.len()],
}

impl Interest {
    pub(super) const fn any(&self, family: Family) -> bool {
        self.patterns[family as usize] > 0
    }

    pub(super) fn add(&mut self, pattern: &Pattern) {
        self.each(pattern, |count| *count += 1);
    }

    pub(super) fn remove(&mut self, pattern: &Pattern) {
        self.each(pattern, |count| *count -= 1);
    }

    fn each(&mut self, pattern: &Pattern, change: impl Fn(&mut u32)) {
        let first = pattern.as_str().split('.').next();
        if !matches!(first, Some("mpreg" | "*" | "#")) {
            return;
        }
        for (family, root) in ROOTS {
            if Pattern::parse(root).is_ok_and(|root| root.overlaps(pattern)) {
                change(&mut self.patterns[family as usize]);
            }
        }
    }
}
