//! A topic that is being matched: its words and their hashes.

use std::hash::BuildHasher;

use crate::base::map::Seeded;

/// One word of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// Its hash.
    pub(super) hash: u64,
    /// Where in the topic it stands.
    start: u32,
    end: u32,
}

/// A topic and its words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic<'a> {
    text: &'a str,
    /// The words, in order; one at least.
    pub(super) words: &'a [Word],
}

impl<'a> Topic<'a> {
    /// Reads a topic; `words` is room for its words.
    pub(super) fn read(text: &'a str, seed: &Seeded, words: &'a mut Vec<Word>) -> Self {
        words.clear();
        let mut start = 0;
        for end in memchr::memchr_iter(b'.', text.as_bytes()).chain([text.len()]) {
            let hash = seed.hash_one(&text[start..end]);
            words.push(Word { hash, start: start as u32, end: end as u32 });
            start = end + 1;
        }
        Self { text, words }
    }

    /// One of its words.
    pub(super) fn word(&self, at: usize) -> &'a str {
        let Word { start, end, .. } = self.words[at];
        &self.text[start as usize..end as usize]
    }
}
