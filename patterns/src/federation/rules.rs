//! Which names cross a link: what each end of it gives to the other, and what it takes.
//!
//! A rule is a fact that its broker tells of itself, so every broker knows all of them, and judges
//! a name by the links of the way that leads to whoever has it. What a rule keeps back is known and
//! not used; the broker that has it refuses it as well.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::catalog::Entry;
use super::wire::{Fact, Key};
use super::{Federation, Output};
use crate::base::{Code, Out, Refusal};
use crate::names::Pattern;

/// Patterns in one list of a rule.
pub(super) const PATTERNS: usize = 64;
/// Neighbours that one broker has rules for.
const NEIGHBOURS: usize = 128;
/// Stands for every neighbour that has no rule of its own.
const ANYBODY: &str = "*";

/// Names as a list of patterns. One that begins with `!` takes out what it matches; a list of those
/// alone, or of none, begins with everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    with: Vec<Pattern>,
    without: Vec<Pattern>,
}

impl Names {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// [`Code::BadPattern`] for one that is no pattern, [`Code::BadArgs`] for too many.
    pub fn parse(texts: &[SmolStr]) -> Result<Self, Refusal> {
        if texts.len() > PATTERNS {
            let message = format!("takes {PATTERNS} patterns at most");
            return Err(Refusal::new(Code::BadArgs, message));
        }
        let mut names = Self::default();
        for text in texts {
            match text.strip_prefix('!') {
                Some(text) => names.without.push(Pattern::parse(text)?),
                None => names.with.push(Pattern::parse(text)?),
            }
        }
        Ok(names)
    }

    /// Of another broker, whose list should be one: what cannot be read lets nothing through.
    fn of(texts: &[SmolStr]) -> Self {
        let nothing = || Self::parse(&["!#".into()]);
        Self::parse(texts).or_else(|_| nothing()).unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.matches(name);
        (self.with.is_empty() || self.with.iter().any(matches)) && !self.without.iter().any(matches)
    }

    const fn has_all(&self) -> bool {
        self.with.is_empty() && self.without.is_empty()
    }
}

/// What one broker gives to a neighbour, and takes from it.
#[derive(Debug)]
struct Rule {
    export: Names,
    import: Names,
}

/// The rules of all brokers: whose, for which neighbour.
#[derive(Debug, Default)]
pub(super) struct Rules {
    by_node: BTreeMap<SmolStr, BTreeMap<SmolStr, Rule>>,
}

impl Rules {
    /// A broker says what it gives to a neighbour and takes from it, or says so no longer.
    pub(super) fn set(&mut self, node: &SmolStr, neighbour: &SmolStr, fact: Option<&Fact>) {
        if let Some(Fact::Rule { export, import }) = fact {
            let rule = Rule { export: Names::of(export), import: Names::of(import) };
            self.by_node.entry(node.clone()).or_default().insert(neighbour.clone(), rule);
        } else if let Some(rules) = self.by_node.get_mut(node) {
            rules.remove(neighbour);
            if rules.is_empty() {
                self.by_node.remove(node);
            }
        }
    }

    /// Nothing a broker has said counts any more.
    pub(super) fn forget(&mut self, node: &str) {
        self.by_node.remove(node);
    }

    fn has_room(&self, node: &str, neighbour: &str) -> bool {
        let rules = self.by_node.get(node);
        rules.is_none_or(|rules| rules.len() < NEIGHBOURS || rules.contains_key(neighbour))
    }

    fn rule(&self, node: &str, neighbour: &str) -> Option<&Rule> {
        let rules = self.by_node.get(node)?;
        rules.get(neighbour).or_else(|| rules.get(ANYBODY))
    }

    /// What goes along a path, its first broker's end first.
    pub(super) fn passage(&self, path: &[SmolStr]) -> Passage {
        let mut passage = Passage::default();
        if self.by_node.is_empty() {
            return passage;
        }
        for ends in path.windows(2) {
            let (near, far) = (self.rule(&ends[0], &ends[1]), self.rule(&ends[1], &ends[0]));
            let there = [near.map(|rule| &rule.export), far.map(|rule| &rule.import)];
            let back = [near.map(|rule| &rule.import), far.map(|rule| &rule.export)];
            for (names, side) in [(there, &mut passage.there), (back, &mut passage.back)] {
                side.extend(names.into_iter().flatten().filter(|names| !names.has_all()).cloned());
            }
        }
        passage
    }
}

/// What the links of the way to a broker let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Passage {
    there: Vec<Names>,
    back: Vec<Names>,
}

impl Passage {
    /// Whether a name of this side may be used on the other.
    pub(super) fn gives(&self, name: &str) -> bool {
        self.there.iter().all(|names| names.has(name))
    }

    /// Whether a name of the other side may be used on this one.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.back.iter().all(|names| names.has(name))
    }

    /// The same of what is said under a key: functions and queues have names.
    pub(super) fn tells(&self, key: &Key) -> bool {
        match key {
            Key::Function { name, .. } | Key::Queue(name) => self.takes(name),
            _ => true,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.there.is_empty() && self.back.is_empty()
    }
}

impl Federation {
    /// Whether this broker may have a rule for a neighbour.
    #[must_use]
    pub fn has_room_for_rule(&self, neighbour: &str) -> bool {
        self.rules.has_room(&self.me.node, neighbour)
    }

    /// Whether the rules let a name of this side be used by another broker.
    #[must_use]
    pub fn gives(&self, node: &str, name: &str) -> bool {
        self.passages.get(node).is_none_or(|passage| passage.gives(name))
    }

    /// Whether the rules let a name of another broker be used here.
    pub(super) fn takes(&self, node: &str, name: &str) -> bool {
        self.passages.get(node).is_none_or(|passage| passage.takes(name))
    }

    /// Works out what the ways let through. Of brokers that stay reachable it is told what that
    /// changes.
    pub(super) fn review(&mut self, out: &mut Out<Output>) {
        let nodes: Vec<SmolStr> = self.routes.ways().keys().cloned().collect();
        for node in nodes {
            let path = self.routes.path(&node).unwrap_or_default();
            let passage = self.rules.passage(&path);
            let before = match passage.is_open() {
                true => self.passages.remove(&node).unwrap_or_default(),
                false => self.passages.insert(node.clone(), passage.clone()).unwrap_or_default(),
            };
            if passage == before || !self.reached.contains_key(&node) {
                continue;
            }
            let facts = self.catalog.get(&node).into_iter().flat_map(Entry::facts);
            let turned = facts.filter(|(key, _)| passage.tells(key) != before.tells(key));
            let changes = turned
                .map(|(key, fact)| (key.clone(), passage.tells(key).then(|| fact.clone())))
                .collect();
            out.push(Output::Says { node, changes });
        }
    }

    /// What a broker says, without what the rules keep back.
    pub(super) fn usable(
        &self,
        node: &str,
        mut changes: Vec<(Key, Option<Fact>)>,
    ) -> Vec<(Key, Option<Fact>)> {
        if let Some(passage) = self.passages.get(node) {
            changes.retain(|(key, _)| passage.tells(key));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn texts(list: &str) -> Vec<SmolStr> {
        list.split_whitespace().map(SmolStr::new).collect()
    }

    #[rstest]
    #[case::everything("", "a.b", true)]
    #[case::these("a.# b", "a.b", true)]
    #[case::not_those("a.# b", "c", false)]
    #[case::without("a.# !a.secret.#", "a.secret.x", false)]
    #[case::without_alone("!a.#", "b", true)]
    #[case::nothing("!#", "b", false)]
    #[case::unreadable("a.b*", "a.b", false)]
    fn a_list(#[case] list: &str, #[case] name: &str, #[case] has: bool) {
        assert_eq!(Names::of(&texts(list)).has(name), has);
    }

    /// Both ends of each link judge, and each direction by itself.
    #[test]
    fn along_a_path() {
        let mut rules = Rules::default();
        let fact = |export: &str, import: &str| Fact::Rule {
            export: texts(export),
            import: texts(import),
        };
        let path = texts("a b c");
        let judged = |rules: &Rules, name: &str| {
            let passage = rules.passage(&path);
            (passage.gives(name), passage.takes(name))
        };
        assert_eq!(judged(&rules, "x"), (true, true));
        rules.set(&"b".into(), &"c".into(), Some(&fact("x.#", "")));
        assert_eq!(judged(&rules, "x.y"), (true, true));
        assert_eq!(judged(&rules, "y"), (false, true), "b gives it to nobody there");
        rules.set(&"a".into(), &"*".into(), Some(&fact("", "!y")));
        assert_eq!(judged(&rules, "y"), (false, false), "a takes it from nobody");
        rules.set(&"a".into(), &"b".into(), Some(&fact("", "")));
        assert_eq!(judged(&rules, "y"), (false, true), "but from b, which has a rule of its own");
        rules.forget("b");
        assert!(rules.passage(&path).is_open());
    }
}
