//! Which queues and routes a topic concerns.

use smol_str::SmolStr;

use crate::names::{Pattern, PatternId, PatternIndex, Wants};

/// Who is bound to a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// A queue, by its slot.
    Queue(u32),
    /// A route, by its slot.
    Route(u32),
}

/// All that is bound to a topic.
#[derive(Debug, Default)]
pub(super) struct Found {
    patterns: Vec<PatternId>,
    /// Queues, each once, in the order in which they were made.
    pub(super) queues: Vec<u32>,
    /// Routes, each once, in no order.
    pub(super) routes: Vec<u32>,
}

/// Queues and routes by the patterns they are bound to.
#[derive(Debug)]
pub(super) struct Bindings {
    index: PatternIndex,
    holders: Vec<Vec<Bound>>,
    /// Of which patterns other brokers hear.
    pub(super) wants: Wants,
}

impl Bindings {
    pub(super) fn new(seed: u64) -> Self {
        Self { index: PatternIndex::new(seed), holders: Vec::new(), wants: Wants::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Patterns were checked when they were read.
    pub(super) fn add(&mut self, texts: &[SmolStr], holder: Bound) {
        for pattern in texts.iter().filter_map(|text| Pattern::parse(text).ok()) {
            let (id, is_new) = self.index.insert(&pattern);
            if self.holders.len() <= id.0 as usize {
                self.holders.resize_with(id.0 as usize + 1, Vec::new);
            }
            if is_new {
                self.wants.came(pattern.as_str(), &self.index, self.holders.len());
            }
            let holders = &mut self.holders[id.0 as usize];
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }

    pub(super) fn remove(&mut self, texts: &[SmolStr], holder: Bound) {
        for pattern in texts.iter().filter_map(|text| Pattern::parse(text).ok()) {
            let Some(id) = self.index.find(&pattern) else { continue };
            let holders = &mut self.holders[id.0 as usize];
            holders.retain(|other| *other != holder);
            if holders.is_empty() {
                self.index.remove(id);
                self.wants.left(pattern.as_str(), &self.index, self.holders.len());
            }
        }
    }

    /// Other brokers are to hear of the patterns.
    pub(super) fn share(&mut self) {
        self.wants.begin(&self.index, self.holders.len());
    }

    /// Who is bound to a topic.
    pub(super) fn find(&mut self, topic: &str, found: &mut Found) {
        found.patterns.clear();
        found.queues.clear();
        found.routes.clear();
        self.index.matches(topic, &mut found.patterns);
        for holder in found.patterns.iter().flat_map(|id| &self.holders[id.0 as usize]) {
            match *holder {
                Bound::Queue(at) => found.queues.push(at),
                Bound::Route(slot) => found.routes.push(slot),
            }
        }
        for of in [&mut found.queues, &mut found.routes] {
            of.sort_unstable();
            of.dedup();
        }
    }
}
