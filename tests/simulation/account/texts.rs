//! Texts of SUB sockets: each event once for each, as long as somebody holds it.

use mpreg_patterns::names::Key;
use mpreg_patterns::topics::Broadcast;

use super::{Account, Mask};
use crate::spelling::{matches, normal};

/// A text that SUB sockets hold.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) pattern: String,
    pub(super) normal: String,
    mask: Mask,
    headers: bool,
    pub(super) sockets: u32,
    /// Events before that were told.
    at: usize,
    seq: Option<u64>,
}

impl Account {
    pub(super) fn listens(&mut self, key: &Key) {
        if let Some(text) = self.texts.get_mut(key.text.as_str()) {
            text.sockets += 1;
            return;
        }
        let pattern = key.text.strip_suffix("?headers").unwrap_or(&key.text).to_owned();
        self.attach(&pattern);
        let headers = pattern.len() < key.text.len();
        let (mask, at) = (Mask::of(&pattern), self.facts.len());
        let normal = normal(&pattern);
        let text = Text { pattern, normal, mask, headers, sockets: 1, at, seq: None };
        self.texts.insert(key.text.to_string(), text);
    }

    pub(super) fn unlistens(&mut self, key: &str) {
        let text = self.texts.get_mut(key).expect("a text that is held");
        text.sockets -= 1;
        if text.sockets == 0 {
            let pattern = std::mem::take(&mut text.pattern);
            self.texts.remove(key);
            self.detach(&pattern, false);
        }
    }

    /// An event leaves for all who hold a text.
    pub(crate) fn broadcast(&mut self, told: &Broadcast) {
        self.clock += 1;
        self.delivered += 1;
        self.tally.broadcast += 1;
        let fact = self.fact(&told.event);
        let key = &told.text;
        let text = self.texts.get_mut(key.as_str());
        let text = text.unwrap_or_else(|| panic!("{key} is told, and nobody holds it"));
        let topic = &told.event.topic;
        assert!(matches(&text.pattern, topic), "{key} is told of {topic}");
        assert_eq!(text.headers, told.seq.is_some(), "{key}: are there headers?");
        if let (Some(seq), Some(last)) = (told.seq, text.seq) {
            assert_eq!(seq, last + 1, "{key} counts on");
        }
        text.seq = told.seq;
        let Some(fact) = fact else { return };
        assert!(fact >= text.at, "{key}: {} comes late or twice", self.facts[fact].payload);
        let left = self.facts[text.at..fact].iter().find(|fact| text.mask.has(fact.topic));
        assert!(left.is_none(), "{key} was not told of {left:?}");
        text.at = fact + 1;
    }

    pub(super) fn texts_settled(&mut self) {
        for (key, text) in &mut self.texts {
            let left = self.facts[text.at..].iter().find(|fact| text.mask.has(fact.topic));
            assert!(left.is_none(), "{key} was never told of {left:?}");
            text.at = self.facts.len();
        }
    }
}
