//! What transcripts say of topics.
//!
//! ```text
//! keep orders.# count=3
//! c1 subscribes orders.* credit=2
//! → c1 subscribed 1, credit 2
//! socket listens orders.#
//! c2 publishes p orders.new {"n":1}
//! → c1 event orders.* orders.new #1 {"n":1}
//! → socket orders.# orders.new {"n":1}
//! → c2 published p
//! ```

use std::fmt::Write as _;
use std::sync::Arc;

use super::Words;
use super::told::value_text;
use crate::base::{Code, Refusal, RunId};
use crate::names::{Key, Pattern};
use crate::node::Input;
use crate::ops::{Delivery, Event, Publish, Replay, Request, Subscribe};
use crate::topics::{Broadcast, Retain};
use crate::values::{Kind, Value};

/// `keep orders.# count=3 bytes=1000 age=100 stored`, before anything else.
pub(super) fn rule(line: &str) -> Option<Retain> {
    let mut words = Words { rest: line.strip_prefix("keep ")? };
    let pattern = Pattern::parse(words.word()).expect("a pattern");
    let (max_age_ms, max_count, max_bytes) = (u64::MAX / 2, 1_000, 1_000_000);
    let mut rule = Retain { pattern, max_age_ms, max_count, max_bytes, stored: false };
    while !words.rest.is_empty() {
        let word = words.word().to_owned();
        if word == "stored" {
            rule.stored = true;
            continue;
        }
        match word.split_once('=').expect("key=value") {
            ("count", count) => rule.max_count = count.parse().expect("a number"),
            ("bytes", bytes) => rule.max_bytes = bytes.parse().expect("a number"),
            ("age", ms) => rule.max_age_ms = ms.parse().expect("a number"),
            other => panic!("{other:?} is no option of keep"),
        }
    }
    Some(rule)
}

/// What sockets that cannot be answered do: `socket listens orders.*`.
pub(super) fn of_socket(words: &mut Words<'_>) -> Input {
    let verb = words.word().to_owned();
    let key = |words: &mut Words<'_>| Key::parse(words.word().as_bytes()).expect("a key");
    match verb.as_str() {
        "listens" => Input::Listen(key(words)),
        "unlistens" => Input::Unlisten(key(words)),
        "publishes" => Input::Publish { event: words.event() },
        "refuses" => {
            let refusal = Refusal::new(Code::BadFrame, "one frame");
            Input::Refused { endpoint: "publish", topic: words.id(), refusal }
        }
        other => panic!("sockets do not {other}"),
    }
}

/// What a peer asks of topics.
pub(super) fn request(verb: &str, words: &mut Words<'_>) -> Option<Request> {
    Some(match verb {
        "subscribes" => Request::Subscribe(Box::new(words.subscribe())),
        "unsubscribes" => {
            let Subscribe { id, patterns, .. } = words.subscribe();
            Request::Unsubscribe { id, patterns }
        }
        "acks" => Request::Ack { events: words.word().parse().expect("a number") },
        "publishes" => {
            let id = words.word().into();
            let event = words.event();
            Request::Publish(Publish { id, confirm: !words.flag("quietly"), event })
        }
        _ => return None,
    })
}

impl Words<'_> {
    /// `topic payload`; a payload that is no JSON is bytes.
    pub(super) fn event(&mut self) -> Arc<Event> {
        let topic = self.word().into();
        let bytes = |word: &str| Value::new(Kind::Bytes, word.to_owned().into_bytes().into());
        let payload = self.value().unwrap_or_else(|| bytes(self.word()));
        let headers = self.option("headers").map(Value::json);
        Arc::new(Event { topic, payload, headers, message: RunId(0) })
    }

    /// `pattern … credit=2 replay=last:3 id=s`; `''` is the empty pattern.
    fn subscribe(&mut self) -> Subscribe {
        let mut ask = Subscribe::default();
        let mut patterns: Vec<String> = Vec::new();
        while !self.rest.is_empty() {
            let word = self.word().to_owned();
            match word.split_once('=') {
                Some(("credit", number)) => ask.credit = number.parse().ok(),
                Some(("id", id)) => ask.id = Some(id.into()),
                Some(("replay", from)) => ask.replay = Some(replay(from)),
                _ => patterns.push(word.trim_matches('\'').to_owned()),
            }
        }
        ask.patterns = (!patterns.is_empty()).then(|| Value::from_serialize(&patterns));
        ask
    }
}

fn replay(from: &str) -> Replay {
    let (what, number) = from.split_once(':').unwrap_or((from, "0"));
    let number: u64 = number.parse().expect("a number");
    match what {
        "all" => Replay::All,
        "seq" => Replay::Seq(number),
        "ms" => Replay::Ms(number),
        "last" => Replay::Last(number as u32),
        other => panic!("{other} is no beginning"),
    }
}

pub(super) fn event_text(told: &Delivery) -> String {
    let event = &told.event;
    let payload = value_text(&event.payload);
    let mut text = format!("event {} {} #{} {payload}", told.pattern, event.topic, told.seq);
    if let Some(headers) = &event.headers {
        write!(text, " headers {}", value_text(headers)).unwrap();
    }
    if told.missed > 0 {
        write!(text, " missed {}", told.missed).unwrap();
    }
    text
}

pub(super) fn broadcast_text(told: &Broadcast) -> String {
    let payload = value_text(&told.event.payload);
    let seq = told.seq.map_or(String::new(), |seq| format!(" #{seq}"));
    format!("→ socket {} {}{seq} {payload}", told.text, told.event.topic)
}

/// Puts `ULID` where the broker made one.
pub(super) fn without_ulids(line: &str) -> String {
    let mut text = line.to_owned();
    while let Some(at) = text.find("\"01H") {
        if !text.is_char_boundary(at + 27) || RunId::parse(&text[at + 1..at + 27]).is_none() {
            break;
        }
        text.replace_range(at + 1..at + 27, "ULID");
    }
    text
}
