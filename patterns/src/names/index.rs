//! Which of many patterns a topic matches.
//!
//! A pattern without wildcards matches one topic, so all of them take one look together. Those
//! with wildcards take one look for each shape they come in ([`super::shapes`]), and what has no
//! usual shape forms a tree ([`super::trie`]). Nothing here is ever moved as a whole: tables grow
//! shard by shard and lists chunk by chunk, so that no insertion stops the core.
//!
//! Among millions of patterns all time is waiting for memory. So a match goes in three rounds
//! (buckets, texts, comparison), each of which first reads all it will need.

use std::hash::BuildHasher;
use std::hint::black_box;

use super::Pattern;
use super::pool::Pool;
use super::shapes::{SHAPES, Shapes};
use super::texts::Texts;
use super::topic::{Topic, Word};
use super::trie::Trie;
use crate::base::map::{Seeded, seeded};

/// Names a pattern in its index. Dense, and used again after removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternId(pub u32);

/// Where a pattern is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In no use.
    Nowhere,
    /// A text without wildcards.
    Literal(u32),
    /// A text of a shape.
    Shaped(u32),
    /// A node of the tree.
    Wild(u32),
}

/// Patterns that a topic is held against all at once.
///
/// Inserting and removing cost a few look-ups each. A match costs one for all patterns without
/// wildcards together, one for each of at most 64 shapes, and one or two for each node of the tree
/// that part of the topic reaches.
#[derive(Debug)]
pub struct PatternIndex {
    places: Pool<Place>,
    /// Beside each text, its pattern's id.
    literals: Texts,
    shapes: Shapes,
    wild: Trie,
    seed: Seeded,
    /// Of the topic.
    words: Vec<Word>,
}

impl PatternIndex {
    /// An empty index. `seed` starts its hashes, so that nobody can aim for one bucket.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_shapes(seed, SHAPES)
    }

    /// The same with another bound of shapes: see [`Shapes`].
    pub(super) fn with_shapes(seed: u64, shapes: usize) -> Self {
        Self {
            places: Pool::default(),
            literals: Texts::default(),
            shapes: Shapes::new(seed, shapes),
            wild: Trie::new(seed),
            seed: seeded(seed),
            words: Vec::new(),
        }
    }

    /// Adds a pattern. Returns its id, which is the same for the same pattern, and whether it is
    /// new.
    ///
    /// # Panics
    ///
    /// Beyond 2^32 patterns, 2^32 nodes or 16 GiB of text.
    pub fn insert(&mut self, pattern: &Pattern) -> (PatternId, bool) {
        if let Some(id) = self.find(pattern) {
            return (id, false);
        }
        let id = self.places.add(Place::Nowhere);
        let text = pattern.as_str();
        *self.places.get_mut(id) = if pattern.is_literal() {
            Place::Literal(self.literals.add(self.seed.hash_one(text), text, id))
        } else if let Some(at) = self.shapes.add(text, id) {
            Place::Shaped(at)
        } else {
            Place::Wild(self.wild.add(text, id))
        };
        (PatternId(id), true)
    }

    /// The id of a pattern that is in it.
    #[must_use]
    pub fn find(&self, pattern: &Pattern) -> Option<PatternId> {
        let text = pattern.as_str();
        if pattern.is_literal() {
            let is = |literal: &[u8]| literal == text.as_bytes();
            let at = self.literals.find(self.seed.hash_one(text), is)?;
            return Some(PatternId(self.literals.number(at)));
        }
        // A pattern stays where it came, so one with a shape that found no room is in the tree.
        let shaped = self.shapes.find(text).map(|at| self.shapes.id(at));
        shaped.or_else(|| Some(self.wild.id(self.wild.find(text)?))).map(PatternId)
    }

    /// Takes a pattern out, with all that only it needed. False if there is none with that id.
    pub fn remove(&mut self, id: PatternId) -> bool {
        match self.place(id) {
            Place::Nowhere => return false,
            Place::Literal(at) => {
                self.literals.remove(self.seed.hash_one(self.literals.text(at)), at);
            }
            Place::Shaped(at) => self.shapes.remove(at),
            Place::Wild(at) => self.wild.remove(at),
        }
        *self.places.get_mut(id.0) = Place::Nowhere;
        self.places.free(id.0);
        true
    }

    /// The normalised text of a pattern.
    #[must_use]
    pub fn text(&self, id: PatternId) -> Option<String> {
        match self.place(id) {
            Place::Nowhere => None,
            Place::Literal(at) => Some(self.literals.text(at).to_owned()),
            Place::Shaped(at) => Some(self.shapes.text(at).to_owned()),
            Place::Wild(at) => Some(self.wild.text(at)),
        }
    }

    /// Appends the patterns that match `topic`, which must be a name: each once, in no order.
    /// Words of the topic are never wildcards.
    ///
    /// Returns how many shapes and nodes were looked at: what it has cost.
    pub fn matches(&mut self, topic: &str, found: &mut Vec<PatternId>) -> usize {
        let Self { literals, shapes, wild, seed, words, .. } = self;
        let whole = seed.hash_one(topic);
        black_box(literals.touch(whole));
        let split = Topic::read(topic, seed, words);
        shapes.prepare(&split);
        let literal = literals.guess(whole);
        shapes.guess();
        let text = literal.map_or(0, |guess| literals.touch_text(whole, guess));
        black_box(text ^ shapes.touch_texts());
        let looks = shapes.looks() + wild.matches(&split, found);
        shapes.matches(&split, found);
        let is = |text: &[u8]| text == topic.as_bytes();
        let literal = literal.and_then(|guess| literals.confirm(whole, guess, is));
        found.extend(literal.map(|at| PatternId(literals.number(at))));
        looks
    }

    /// How many patterns are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it holds no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory it holds, bytes, with what it keeps free for more.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (literals, wild) = (self.literals.bytes(), self.shapes.bytes() + self.wild.bytes());
        let words = self.words.capacity() * size_of::<Word>();
        size_of::<Self>() + self.places.bytes() + literals + wild + words
    }

    fn place(&self, id: PatternId) -> Place {
        self.places.find(id.0).copied().unwrap_or(Place::Nowhere)
    }

    /// Patterns without wildcards; those with a shape, and shapes; nodes, edges and words of the
    /// tree.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, [usize; 2], [usize; 3]) {
        (self.literals.len(), self.shapes.counts(), self.wild.counts())
    }

    /// Memory that is kept for the next match, bytes.
    #[cfg(test)]
    pub(super) fn scratch(&self) -> usize {
        let words = self.words.capacity() * size_of::<Word>();
        self.wild.scratch() + self.shapes.scratch() + words
    }
}
