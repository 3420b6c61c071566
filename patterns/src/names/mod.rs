//! Patterns of names: what one says, and which of many a topic matches.
//!
//! [`Pattern`] is AMQP's topic pattern: words parted by `.`, `*` for exactly one word, `#` for any
//! number, none included. [`PatternIndex`] answers for millions of them at once. Both decide
//! spelling only: who may use a name, and what follows from a match, belongs to the systems.

mod index;
mod key;
mod pattern;
mod pool;
mod shapes;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod topic;
mod trie;
mod wants;

pub use index::{PatternId, PatternIndex};
pub use key::Key;
pub use pattern::Pattern;
pub use wants::Wants;

/// Whether a topic is the broker's own to publish.
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    topic.strip_prefix("mpreg").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
