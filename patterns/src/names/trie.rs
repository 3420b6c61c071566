//! Patterns with wildcards, as a tree of words: for those of more than one `#`, and of rare shapes.
//!
//! A topic is followed down all branches at once, word by word. A node is looked at once for each
//! word at most: one without a `#` above it can be reached by one way and at one depth only, and a
//! `#` that was reached once stays reached, since it takes every further word.

use std::hash::BuildHasher;

use super::index::PatternId;
use super::pattern::{ANY, ONE, Words};
use super::pool::Pool;
use super::table::{NONE, Table};
use super::texts::{TOP, Texts};
use super::topic::Topic;
use crate::base::map::{Seeded, seeded};

/// What leads from a node to the next: the place of a word, or one of these.
const WORD_ONE: u32 = TOP;
const WORD_ANY: u32 = TOP + 1;
/// A word that no pattern has.
const WORD_UNKNOWN: u32 = TOP + 2;
/// The state of a `#` in the match that runs, in place of the `*` that never follows one.
const REACHED: u32 = 0;

/// One prefix of patterns, 32 bytes.
#[derive(Debug)]
struct Node {
    parent: u32,
    /// What leads here from the parent.
    word: u32,
    /// The node behind `*`. A `#` has none (normalised), and is [`REACHED`] or not here.
    one: u32,
    /// The node behind `#`.
    any: u32,
    /// How many nodes are behind words.
    edges: u32,
    /// One of them, since most nodes have no other: its word and itself. The others are in
    /// [`Trie::edges`].
    first_word: u32,
    first: u32,
    /// The pattern that ends here.
    id: u32,
}

impl Node {
    fn new(parent: u32, word: u32) -> Self {
        Self {
            parent,
            word,
            one: NONE,
            any: NONE,
            edges: 0,
            first_word: NONE,
            first: NONE,
            id: NONE,
        }
    }

    fn is_idle(&self) -> bool {
        self.id == NONE && self.edges == 0 && self.one == NONE && self.any == NONE
    }
}

/// Patterns with wildcards.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Pool<Node>,
    root: u32,
    /// Nodes behind words, under their parent and word, but for the first of each parent.
    edges: Table,
    /// Every word that leads somewhere; beside it, to how many nodes.
    words: Texts,
    seed: Seeded,
    walk: Walk,
}

/// Where a match stands; empty in between, kept for its room.
#[derive(Debug, Default)]
struct Walk {
    /// Reached by exactly the words so far.
    now: Vec<u32>,
    next: Vec<u32>,
    /// Every `#` reached so far.
    open: Vec<u32>,
    /// The topic's words.
    words: Vec<u32>,
}

impl Trie {
    /// Without patterns.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: Pool::default(),
            root: NONE,
            edges: Table::default(),
            words: Texts::default(),
            seed: seeded(seed),
            walk: Walk::default(),
        }
    }

    /// The node where a pattern ends.
    pub(super) fn find(&self, pattern: &str) -> Option<u32> {
        let mut at = self.root;
        for word in Words::of(pattern) {
            if at == NONE {
                return None;
            }
            at = self.child(self.nodes.get(at), at, self.word(word));
        }
        (at != NONE && self.nodes.get(at).id != NONE).then_some(at)
    }

    /// The pattern that ends at a node.
    pub(super) fn id(&self, at: u32) -> u32 {
        self.nodes.get(at).id
    }

    /// Adds a pattern that is not in it; the node where it ends.
    pub(super) fn add(&mut self, pattern: &str, id: u32) -> u32 {
        if self.root == NONE {
            self.root = self.nodes.add(Node::new(NONE, NONE));
        }
        let mut at = self.root;
        for text in Words::of(pattern) {
            let word = self.word(text);
            let child = self.child(self.nodes.get(at), at, word);
            at = if child == NONE { self.grow(at, word, text) } else { child };
        }
        self.nodes.get_mut(at).id = id;
        at
    }

    /// Takes out the pattern that ends at a node, and the nodes that only it needed.
    pub(super) fn remove(&mut self, at: u32) {
        self.nodes.get_mut(at).id = NONE;
        let mut at = at;
        while self.nodes.get(at).is_idle() {
            let &Node { parent, word, .. } = self.nodes.get(at);
            if parent == NONE {
                self.root = NONE;
            } else {
                self.cut(parent, word, at);
            }
            self.nodes.free(at);
            if parent == NONE {
                return;
            }
            at = parent;
        }
    }

    /// The text of the pattern that ends at a node.
    pub(super) fn text(&self, mut at: u32) -> String {
        let mut words = Vec::new();
        loop {
            let &Node { parent, word, .. } = self.nodes.get(at);
            if parent == NONE {
                break;
            }
            words.push(match word {
                WORD_ONE => ONE,
                WORD_ANY => ANY,
                word => self.words.text(word),
            });
            at = parent;
        }
        words.reverse();
        words.join(".")
    }

    /// Appends the patterns that match a topic, each once. Says how many nodes it looked at.
    pub(super) fn matches(&mut self, topic: &Topic<'_>, found: &mut Vec<PatternId>) -> usize {
        if self.root == NONE {
            return 0;
        }
        let mut steps = 0;
        let mut walk = std::mem::take(&mut self.walk);
        walk.words.clear();
        walk.words.extend(topic.words.iter().enumerate().map(|(at, word)| {
            let known = self.words.find(word.hash, |known| known == topic.word(at).as_bytes());
            known.unwrap_or(WORD_UNKNOWN)
        }));
        walk.now.push(self.root);
        self.open(&mut walk);
        for at in 0..walk.words.len() {
            if walk.now.is_empty() && walk.open.is_empty() {
                break;
            }
            steps += walk.now.len() + walk.open.len();
            self.step(&mut walk, at);
            self.open(&mut walk);
        }
        steps += walk.now.len() + walk.open.len();
        for at in walk.now.drain(..).chain(walk.open.iter().copied()) {
            let id = self.nodes.get(at).id;
            found.extend((id != NONE).then_some(PatternId(id)));
        }
        for at in walk.open.drain(..) {
            self.nodes.get_mut(at).one = NONE;
        }
        self.walk = walk;
        steps
    }

    /// Follows one word from every node that is reached.
    fn step(&self, walk: &mut Walk, level: usize) {
        let word = walk.words[level];
        for &at in &walk.now {
            let node = self.nodes.get(at);
            if node.one != NONE {
                walk.next.push(node.one);
            }
            let child = self.child_by_word(node, at, word);
            if child != NONE {
                walk.next.push(child);
            }
        }
        for &at in &walk.open {
            let child = self.child_by_word(self.nodes.get(at), at, word);
            if child != NONE {
                walk.next.push(child);
            }
        }
        walk.now.clear();
        std::mem::swap(&mut walk.now, &mut walk.next);
    }

    /// Reaches what is behind a `#`, which may take no word at all.
    fn open(&mut self, walk: &mut Walk) {
        for &at in &walk.now {
            let any = self.nodes.get(at).any;
            if any != NONE && self.nodes.get(any).one != REACHED {
                self.nodes.get_mut(any).one = REACHED;
                walk.open.push(any);
            }
        }
    }

    /// What a word is called here.
    fn word(&self, text: &str) -> u32 {
        match text {
            ONE => WORD_ONE,
            ANY => WORD_ANY,
            text => self.find_word(text).unwrap_or(WORD_UNKNOWN),
        }
    }

    fn find_word(&self, text: &str) -> Option<u32> {
        self.words.find(self.seed.hash_one(text), |word| word == text.as_bytes())
    }

    fn child(&self, node: &Node, at: u32, word: u32) -> u32 {
        match word {
            WORD_ONE => node.one,
            WORD_ANY => node.any,
            word => self.child_by_word(node, at, word),
        }
    }

    #[inline]
    fn child_by_word(&self, node: &Node, at: u32, word: u32) -> u32 {
        if node.first_word == word {
            return node.first;
        }
        if word == WORD_UNKNOWN || node.edges <= u32::from(node.first != NONE) {
            return NONE;
        }
        let is = |child| {
            let child = self.nodes.get(child);
            child.parent == at && child.word == word
        };
        self.edges.find(self.hash(at, word), is).unwrap_or(NONE)
    }

    fn hash(&self, parent: u32, word: u32) -> u64 {
        self.seed.hash_one((u64::from(parent) << 32) | u64::from(word))
    }

    /// A new node behind `word`, which is spelt `text`.
    fn grow(&mut self, parent: u32, word: u32, text: &str) -> u32 {
        let word = match word {
            WORD_UNKNOWN => self.words.add(self.seed.hash_one(text), text, 0),
            word => word,
        };
        let at = self.nodes.add(Node::new(parent, word));
        let node = self.nodes.get_mut(parent);
        match word {
            WORD_ONE => node.one = at,
            WORD_ANY => node.any = at,
            word => {
                node.edges += 1;
                if node.first == NONE {
                    (node.first_word, node.first) = (word, at);
                } else {
                    self.edges.insert(self.hash(parent, word), at);
                }
                self.words.set_number(word, self.words.number(word) + 1);
            }
        }
        at
    }

    /// Takes the node behind `word` from its parent.
    fn cut(&mut self, parent: u32, word: u32, at: u32) {
        let node = self.nodes.get_mut(parent);
        match word {
            WORD_ONE => node.one = NONE,
            WORD_ANY => node.any = NONE,
            word => {
                node.edges -= 1;
                if node.first == at {
                    (node.first_word, node.first) = (NONE, NONE);
                } else {
                    self.edges.remove(self.hash(parent, word), at);
                }
                self.unuse(word);
            }
        }
    }

    fn unuse(&mut self, word: u32) {
        match self.words.number(word) {
            1 => self.words.remove(self.seed.hash_one(self.words.text(word)), word),
            uses => self.words.set_number(word, uses - 1),
        }
    }

    /// Memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes() + self.edges.bytes() + self.words.bytes() + self.scratch()
    }

    /// Memory that is kept for the next match, bytes.
    pub(super) fn scratch(&self) -> usize {
        let Walk { now, next, open, words, .. } = &self.walk;
        [now, next, open, words].map(|list| list.capacity() * size_of::<u32>()).iter().sum()
    }

    /// Nodes, edges beside the first ones, and words.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 3] {
        [self.nodes.len(), self.edges.len(), self.words.len()]
    }
}
