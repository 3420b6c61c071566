//! Patterns with `*`s, and with one `#` at most, by their shape.
//!
//! The shape of a pattern is where its wildcards stand: `a.*.b` and `c.*.d` have one. A topic
//! matches a pattern exactly if both agree in the words between, so one look for each shape finds
//! all its patterns, however many there are (Srinivasan, Suri, Varghese 1999: tuple space search).
//! People use few shapes. Since nobody has to, only so many are kept here, and patterns of others
//! are left to the tree.
//!
//! The hash of a pattern is a sum: of its shape, and of every word with its place. So those of all
//! patterns that could match a topic come from sums over its words, by taking out what a `*` hides.

use std::hash::BuildHasher;
use std::hint::black_box;

use super::index::PatternId;
use super::pattern::{ANY, ONE, Words};
use super::table::Slot;
use super::texts::Texts;
use super::topic::{Topic, Word};
use crate::base::map::{Seeded, seeded};

/// Shapes without `#` for each number of words, and shapes with one: a match takes a look for each.
pub(super) const SHAPES: usize = 32;
/// Words of a pattern, without a `#`.
const WORDS: usize = 32;

/// Where the wildcards of a pattern stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Whether there is a `#`.
    any: bool,
    /// Words before the `#`, or all.
    before: u8,
    /// Words after it.
    after: u8,
    /// A bit for each of these words: whether it is a `*`.
    ones: u32,
}

impl Shape {
    /// None for a pattern that is not of this kind.
    fn of(pattern: &str) -> Option<Self> {
        let mut shape = Self { any: false, before: 0, after: 0, ones: 0 };
        for word in Words::of(pattern) {
            if word == ANY {
                if shape.any {
                    return None;
                }
                shape.any = true;
                continue;
            }
            if shape.words() == WORDS {
                return None;
            }
            shape.ones |= u32::from(word == ONE) << shape.words();
            *(if shape.any { &mut shape.after } else { &mut shape.before }) += 1;
        }
        Some(shape)
    }

    /// Words of its patterns, without `#`.
    fn words(self) -> usize {
        usize::from(self.before) + usize::from(self.after)
    }

    fn is_one(self, at: usize) -> bool {
        self.ones >> at & 1 != 0
    }

    /// Which term of [`Sums`] word `at` has.
    fn term(self, at: usize) -> usize {
        if at < usize::from(self.before) { at } else { WORDS + self.words() - 1 - at }
    }

    /// Whether a text is the pattern of this shape that matches a topic.
    #[inline]
    fn spells(self, topic: &Topic<'_>, text: &[u8]) -> bool {
        let mut rest = text;
        let mut take = |word: &str| {
            let begins = rest.len() == text.len();
            let from = if begins { Some(rest) } else { rest.strip_prefix(b".") };
            let after = from.and_then(|from| from.strip_prefix(word.as_bytes()));
            rest = after.unwrap_or_default();
            after.is_some()
        };
        let fits = (0..=self.words()).all(|at| {
            let any = !(self.any && at == usize::from(self.before)) || take(ANY);
            let word = |at| if self.is_one(at) { ONE } else { topic.word(self.place(at, topic)) };
            any && (at == self.words() || take(word(at)))
        });
        fits && rest.is_empty()
    }

    /// Which word of the topic stands where the pattern has word `at`.
    fn place(self, at: usize, topic: &Topic<'_>) -> usize {
        if at < usize::from(self.before) { at } else { topic.words.len() - self.words() + at }
    }
}

/// A shape that some patterns have.
#[derive(Debug)]
struct Kind {
    shape: Shape,
    /// The hash of the shape, part of those of its patterns.
    salt: u64,
    /// The terms of [`Sums`] that stand where it has a `*`.
    ones: u64,
    patterns: usize,
}

impl Kind {
    fn new(shape: Shape, salt: u64) -> Self {
        let ones = (0..shape.words()).filter(|&at| shape.is_one(at));
        let ones = ones.fold(0, |ones, at| ones | (1 << shape.term(at)));
        Self { shape, salt, ones, patterns: 1 }
    }

    /// The pattern of this shape that matches a topic with these words.
    #[inline]
    fn look(&self, sums: &Sums) -> Look {
        let Shape { before, after, .. } = self.shape;
        let (heads, tails) = (sums.heads[usize::from(before)], sums.tails[usize::from(after)]);
        let (mut hash, mut ones) = (self.salt.wrapping_add(heads).wrapping_add(tails), self.ones);
        while ones != 0 {
            hash = hash.wrapping_sub(sums.terms[ones.trailing_zeros() as usize % TERMS]);
            ones &= ones - 1;
        }
        Look { hash, shape: self.shape }
    }
}

/// What a match looks for: the pattern of this shape with this hash.
#[derive(Clone, Copy, Debug)]
struct Look {
    hash: u64,
    shape: Shape,
}

/// Terms of a topic: of its first words, and of its last.
const TERMS: usize = 2 * WORDS;

/// What a topic's words add to the hashes of patterns.
#[derive(Debug)]
struct Sums {
    /// Of each of the first words, and of each of the last, backwards.
    terms: [u64; TERMS],
    /// Of the first 0, 1, 2 … words together.
    heads: [u64; WORDS + 1],
    /// Of the last.
    tails: [u64; WORDS + 1],
}

impl Sums {
    const EMPTY: Self = Self { terms: [0; TERMS], heads: [0; WORDS + 1], tails: [0; WORDS + 1] };

    fn set(&mut self, words: &[Word]) {
        let (heads, tails) = self.terms.split_at_mut(WORDS);
        let ends = words.iter().zip(words.iter().rev()).enumerate().take(WORDS);
        for (at, (first, last)) in ends {
            heads[at] = term(at, first.hash);
            tails[at] = term(WORDS + at, last.hash);
            self.heads[at + 1] = self.heads[at].wrapping_add(heads[at]);
            self.tails[at + 1] = self.tails[at].wrapping_add(tails[at]);
        }
    }
}

/// What a word adds to a hash: another thing at every place.
fn term(place: usize, hash: u64) -> u64 {
    hash.wrapping_mul(2 * place as u64 + 1)
}

/// Patterns by their shape.
#[derive(Debug)]
pub(super) struct Shapes {
    /// Beside each text, its pattern's id.
    texts: Texts,
    /// Shapes with a `#`, in the order of their number of words.
    open: Vec<Kind>,
    /// Shapes without, by their number of words.
    closed: Vec<Vec<Kind>>,
    /// How many of the first, and for each number of words of the second.
    most: usize,
    seed: Seeded,
    /// Of the topic.
    sums: Sums,
    looks: Vec<Look>,
    /// Those that will be found, and where.
    likely: Vec<(Look, Slot)>,
}

impl Shapes {
    /// Without patterns, and later with `most` shapes of a sort.
    pub(super) fn new(seed: u64, most: usize) -> Self {
        Self {
            most,
            texts: Texts::default(),
            closed: (0..=WORDS).map(|_| Vec::new()).collect(),
            open: Vec::new(),
            seed: seeded(seed),
            sums: Sums::EMPTY,
            looks: Vec::new(),
            likely: Vec::new(),
        }
    }

    /// The place of a pattern.
    pub(super) fn find(&self, pattern: &str) -> Option<u32> {
        let shape = Shape::of(pattern)?;
        self.kinds(shape).iter().find(|kind| kind.shape == shape)?;
        self.texts.find(self.hash(shape, pattern), |text| text == pattern.as_bytes())
    }

    /// Adds a pattern that is not in it, and says its place; none if it has to go elsewhere.
    pub(super) fn add(&mut self, pattern: &str, id: u32) -> Option<u32> {
        let shape = Shape::of(pattern)?;
        let (salt, most) = (self.seed.hash_one(shape), self.most);
        let kinds = self.kinds_mut(shape);
        match kinds.iter().position(|kind| kind.shape == shape) {
            Some(kind) => kinds[kind].patterns += 1,
            None if kinds.len() == most => return None,
            None => {
                let at = kinds.partition_point(|kind| kind.shape.words() < shape.words());
                kinds.insert(at, Kind::new(shape, salt));
            }
        }
        Some(self.texts.add(self.hash(shape, pattern), pattern, id))
    }

    /// Takes out the pattern at `at`.
    pub(super) fn remove(&mut self, at: u32) {
        let pattern = self.texts.text(at);
        let shape = Shape::of(pattern).expect("it was taken");
        self.texts.remove(self.hash(shape, pattern), at);
        let kinds = self.kinds_mut(shape);
        let kind = kinds.iter().position(|kind| kind.shape == shape).expect("of its patterns");
        kinds[kind].patterns -= 1;
        if kinds[kind].patterns == 0 {
            kinds.remove(kind);
        }
        if kinds.is_empty() {
            *kinds = Vec::new();
        }
    }

    /// The text of the pattern at `at`.
    pub(super) fn text(&self, at: u32) -> &str {
        self.texts.text(at)
    }

    /// The pattern at `at`.
    pub(super) fn id(&self, at: u32) -> u32 {
        self.texts.number(at)
    }

    /// Sets out to match a topic: where the search begins is on its way into the cache then.
    pub(super) fn prepare(&mut self, topic: &Topic<'_>) {
        self.sums.set(topic.words);
        let count = topic.words.len();
        let closed = self.closed.get(count).map_or(&[][..], Vec::as_slice);
        let open = self.open.partition_point(|kind| kind.shape.words() <= count);
        self.looks.clear();
        self.looks.extend(closed.iter().map(|kind| kind.look(&self.sums)));
        self.looks.extend(self.open[..open].iter().map(|kind| kind.look(&self.sums)));
        // Reads wait side by side only if little else stands between them.
        black_box(self.looks.iter().fold(0, |sum, look| sum ^ self.texts.touch(look.hash)));
    }

    /// How many shapes the topic is held against.
    pub(super) const fn looks(&self) -> usize {
        self.looks.len()
    }

    /// Goes on with it: finds what is probably there.
    pub(super) fn guess(&mut self) {
        let guess = |look: &Look| Some((*look, self.texts.guess(look.hash)?));
        self.likely.clear();
        self.likely.extend(self.looks.iter().filter_map(guess));
    }

    /// Reads the texts that were guessed ahead.
    pub(super) fn touch_texts(&self) -> u32 {
        let touch = |(look, guess): &(Look, Slot)| self.texts.touch_text(look.hash, *guess);
        self.likely.iter().map(touch).fold(0, |sum, number| sum ^ number)
    }

    /// Appends the patterns that match the topic.
    pub(super) fn matches(&self, topic: &Topic<'_>, found: &mut Vec<PatternId>) {
        for &(Look { hash, shape }, guess) in &self.likely {
            let at = self.texts.confirm(hash, guess, |text| shape.spells(topic, text));
            found.extend(at.map(|at| PatternId(self.texts.number(at))));
        }
    }

    fn kinds(&self, shape: Shape) -> &Vec<Kind> {
        if shape.any { &self.open } else { &self.closed[shape.words()] }
    }

    fn kinds_mut(&mut self, shape: Shape) -> &mut Vec<Kind> {
        if shape.any { &mut self.open } else { &mut self.closed[shape.words()] }
    }

    /// The same as [`Kind::hash`] of any topic that matches.
    fn hash(&self, shape: Shape, pattern: &str) -> u64 {
        let words = Words::of(pattern).filter(|&word| word != ANY).enumerate();
        let words = words.filter(|&(at, _)| !shape.is_one(at));
        words.fold(self.seed.hash_one(shape), |sum, (at, word)| {
            sum.wrapping_add(term(shape.term(at), self.seed.hash_one(word)))
        })
    }

    /// How many patterns are in it, and of how many shapes.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 2] {
        let closed: usize = self.closed.iter().map(Vec::len).sum();
        [self.texts.len(), closed + self.open.len()]
    }

    /// Memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        let kinds = self.closed.iter().chain([&self.open]).map(Vec::capacity).sum::<usize>();
        let lists = self.closed.capacity() * size_of::<Vec<Kind>>();
        self.texts.bytes() + kinds * size_of::<Kind>() + lists + self.scratch()
    }

    /// Memory that is kept for the next match, bytes.
    pub(super) fn scratch(&self) -> usize {
        let likely = self.likely.capacity() * size_of::<(Look, Slot)>();
        self.looks.capacity() * size_of::<Look>() + likely
    }
}
