//! Which topics are wanted where, or bound to queues: the patterns of this broker, and those of the
//! others.

use smol_str::SmolStr;

use super::{Fact, Key};
use crate::base::{Map, seeded};
use crate::names::{Pattern, PatternId, PatternIndex};

/// A change of what this broker says about itself.
type Change = (Key, Option<Fact>);

/// What this broker and the others want.
#[derive(Debug)]
pub(super) struct Interest {
    /// This broker's patterns, and how many hold each.
    own: Map<SmolStr, u32>,
    index: PatternIndex,
    /// By pattern: who wants it.
    holders: Vec<Vec<SmolStr>>,
    found: Vec<PatternId>,
}

impl Interest {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            own: Map::with_hasher(seeded(seed)),
            index: PatternIndex::new(seed),
            holders: Vec::new(),
            found: Vec::new(),
        }
    }

    /// A system here wants a pattern, or wants it no longer: what the others are to be told.
    pub(super) fn want(&mut self, pattern: &SmolStr, wanted: bool) -> Option<Change> {
        let change = (Key::Interest(pattern.clone()), wanted.then_some(Fact::Interest));
        if wanted {
            let count = self.own.entry(pattern.clone()).or_default();
            *count += 1;
            return (*count == 1).then_some(change);
        }
        let count = self.own.get_mut(pattern)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.own.remove(pattern);
        Some(change)
    }

    /// Another broker wants a pattern, or does no longer.
    pub(super) fn set(&mut self, node: &SmolStr, pattern: &str, wanted: bool) {
        let Ok(pattern) = Pattern::parse(pattern) else { return };
        if !wanted {
            let Some(id) = self.index.find(&pattern) else { return };
            return self.release(node, id);
        }
        let (id, _) = self.index.insert(&pattern);
        let at = id.0 as usize;
        if self.holders.len() <= at {
            self.holders.resize_with(at + 1, Vec::new);
        }
        if !self.holders[at].contains(node) {
            self.holders[at].push(node.clone());
        }
    }

    /// Another broker can be reached no longer.
    pub(super) fn forget(&mut self, node: &SmolStr) {
        for at in 0..self.holders.len() {
            if self.holders[at].contains(node) {
                self.release(node, PatternId(at as u32));
            }
        }
    }

    fn release(&mut self, node: &SmolStr, id: PatternId) {
        let holders = &mut self.holders[id.0 as usize];
        holders.retain(|other| other != node);
        if holders.is_empty() {
            self.index.remove(id);
        }
    }

    /// Who wants a topic: each broker once.
    pub(super) fn who(&mut self, topic: &str) -> Vec<SmolStr> {
        if self.index.is_empty() {
            return Vec::new();
        }
        self.found.clear();
        self.index.matches(topic, &mut self.found);
        let holders = self.found.iter().flat_map(|id| &self.holders[id.0 as usize]);
        let mut nodes: Vec<SmolStr> = holders.cloned().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Whether any other broker wants anything.
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The others hear of the first who wants a pattern and of the last.
    #[test]
    fn what_is_told() {
        let mut interest = Interest::new(1);
        let mut want =
            |wanted| interest.want(&"a.*".into(), wanted).map(|(_, fact)| fact.is_some());
        let told = [true, true, false, false, false].map(&mut want);
        assert_eq!(told, [Some(true), None, None, Some(false), None]);
    }

    #[test]
    fn who_wants_it() {
        let mut interest = Interest::new(1);
        let (b, c) = (SmolStr::new("b"), SmolStr::new("c"));
        interest.set(&b, "a.#", true);
        interest.set(&b, "a.*", true);
        interest.set(&c, "a.*", true);
        interest.set(&c, "..", true);
        assert_eq!(interest.who("a.x"), ["b", "c"]);
        assert_eq!(interest.who("a.x.y"), ["b"]);
        assert_eq!(interest.who("x"), [""; 0]);
        interest.set(&c, "a.*", false);
        assert_eq!(interest.who("a.x"), ["b"]);
        interest.forget(&b);
        assert!(interest.who("a.x").is_empty() && interest.is_empty());
    }
}
