//! One pattern: how it is read, what it matches, and how it stands to another.
//!
//! All three questions are answered on the text itself, without allocation, in at most words times
//! words steps, so a pattern made to be slow is only as slow as it is long.

use std::fmt;

use smol_str::SmolStr;

use crate::base::limits::NAME_BYTES;
use crate::base::names::is_name;
use crate::base::refusal::cut;
use crate::base::{Code, Refusal};

/// Stands for exactly one word.
pub(super) const ONE: &str = "*";
/// Stands for any number of words, none included.
pub(super) const ANY: &str = "#";

/// A pattern of topics, checked and normalised.
///
/// Of every run of wildcards the `*`s come first and then at most one `#`, so patterns that match
/// the same topics are spelt the same: `a.#.*.#` is `a.*.#`. Since no topic is without words,
/// `*.#` alone is `#`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: SmolStr,
}

impl Pattern {
    /// Reads a pattern. An empty text is `#`; one that ends in `.` is all below that prefix, and
    /// the prefix itself: `orders.` is `orders.#`.
    ///
    /// # Errors
    ///
    /// [`Code::BadPattern`] where a word is empty, a control character stands in it, `*` or `#` is
    /// part of a longer word, or it has more than 255 bytes, as given or normalised.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let whole = match text {
            "" => SmolStr::new_static(ANY),
            prefix if prefix.ends_with('.') => smol_str::format_smolstr!("{prefix}{ANY}"),
            whole => SmolStr::new(whole),
        };
        if !is_name(&whole) || whole.split('.').any(|word| word.len() > 1 && has_wildcard(word)) {
            return Err(no_pattern(text));
        }
        let text = if has_wildcard(&whole) { normalise(&whole) } else { whole };
        Ok(Self { text })
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no wildcard, so that it matches the topic it spells and no other.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !has_wildcard(&self.text)
    }

    /// Whether it matches `topic`, which must be a name. Words of the topic are never wildcards.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.look(topic).0
    }

    /// Whether it matches `topic`, and how many words were looked at: what it has cost.
    #[must_use]
    pub fn look(&self, topic: &str) -> (bool, usize) {
        holds(&self.text, topic, false)
    }

    /// Whether it matches every topic that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        holds(&self.text, &other.text, true).0
    }

    /// Whether some topic is matched by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        meet(&self.text, &other.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cold]
fn no_pattern(text: &str) -> Refusal {
    let message = format!("`{}` is no pattern", cut(text, NAME_BYTES).escape_debug());
    Refusal::new(Code::BadPattern, message)
}

fn has_wildcard(text: &str) -> bool {
    memchr::memchr2(b'*', b'#', text.as_bytes()).is_some()
}

/// Within each run of wildcards, moves `*` before `#` and keeps one `#`.
fn normalise(text: &str) -> SmolStr {
    let mut words = Vec::new();
    let mut any = false;
    for word in text.split('.') {
        if word == ANY {
            any = true;
            continue;
        }
        if word != ONE && std::mem::take(&mut any) {
            words.push(ANY);
        }
        words.push(word);
    }
    words.extend(any.then_some(ANY));
    // No topic is without words.
    if words == [ONE, ANY] {
        words.remove(0);
    }
    SmolStr::new(words.join("."))
}

/// What is left of a text, word by word; nothing left is not the same as an empty word.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(Option<&'a str>);

impl<'a> Words<'a> {
    /// The words of `text`, which has at least one.
    pub(super) fn of(text: &'a str) -> Self {
        Self(Some(text))
    }

    /// The first word, and the others.
    fn split(self) -> (Option<&'a str>, Self) {
        let Some(text) = self.0 else { return (None, self) };
        match memchr::memchr(b'.', text.as_bytes()) {
            Some(at) => (Some(&text[..at]), Self(Some(&text[at + 1..]))),
            None => (Some(text), Self(None)),
        }
    }

    /// Whether `*`s and then a `#` stand at its head.
    fn is_open(mut self) -> bool {
        loop {
            match self.split() {
                (Some(ONE), rest) => self = rest,
                (word, _) => return word == Some(ANY),
            }
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.split();
        *self = rest;
        word
    }
}

/// Whether all that `narrow` spells is matched by the pattern `wide`, and the steps it took.
///
/// The words between two `#` are tried where they fit first, and one word later if the rest does
/// not fit; a place found for them is never given up for a later one, which would leave less room.
///
/// With `wild`, `narrow` is a pattern too. Its `*` is a word that `wide` cannot know. Of its `#`
/// only the worst reading counts: where `wide` needs `*`s and then has a `#`, every further word
/// helps, so the worst is none; elsewhere it is more unknown words than `wide` has words, which
/// nothing but a `#` takes.
fn holds(wide: &str, narrow: &str, wild: bool) -> (bool, usize) {
    let (mut wide, mut narrow) = (Words::of(wide), Words::of(narrow));
    // After the last `#` of `wide`, and what of `narrow` has not been tried there.
    let mut retry: Option<(Words<'_>, Words<'_>)> = None;
    let mut steps = 0;
    loop {
        steps += 1;
        let ((want, wide_rest), (have, narrow_rest)) = (wide.split(), narrow.split());
        match (want, have) {
            (Some(ANY), _) => {
                retry = Some((wide_rest, narrow));
                wide = wide_rest;
            }
            (None, None) => return (true, steps),
            (Some(_), None) => return (false, steps),
            (_, Some(ANY)) if wild && wide.is_open() => narrow = narrow_rest,
            (Some(want), Some(have)) if want == have || (want == ONE && !(wild && have == ANY)) => {
                (wide, narrow) = (wide_rest, narrow_rest);
            }
            _ => {
                let Some((after, untried)) = retry else { return (false, steps) };
                let (_, untried) = untried.split();
                retry = Some((after, untried));
                (wide, narrow) = (after, untried);
            }
        }
    }
}

/// Words a text of 255 bytes can have.
const MOST_WORDS: usize = NAME_BYTES.div_ceil(2);

/// Whether two patterns have a topic in common.
///
/// Row by row over the words of `left`: `row[n]` says whether they and the first `n` words of
/// `right` have one in common.
fn meet(left: &str, right: &str) -> bool {
    let mut row = [false; MOST_WORDS + 1];
    row[0] = true;
    for (at, word) in Words::of(right).enumerate() {
        row[at + 1] = row[at] && word == ANY;
    }
    for mine in Words::of(left) {
        let mut before = row[0];
        row[0] &= mine == ANY;
        for (at, other) in Words::of(right).enumerate() {
            let above = row[at + 1];
            row[at + 1] = match (mine, other) {
                (ANY, _) | (_, ANY) => above || row[at],
                (ONE, _) | (_, ONE) => before,
                (mine, other) => before && mine == other,
            };
            before = above;
        }
    }
    row[Words::of(right).count()]
}
