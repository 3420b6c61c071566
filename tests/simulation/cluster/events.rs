//! Events that are published at some brokers and heard at others: each once, in order, and every
//! gap told.

use std::collections::BTreeMap;

use mpreg_patterns::ops::{Delivery, Event, Publish, Request, Subscribe};
use mpreg_patterns::values::Value;
use serde_json::Value as Json;
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use super::guests::number_of;
use crate::peers::MS;

/// What those who listen hold.
const PATTERNS: [&str; 2] = ["e.#", "mpreg.federation.*.gap"];
/// Brokers where somebody publishes, at most,
pub(super) const PUBLISHERS: usize = 6;
/// and where somebody listens.
pub(super) const LISTENERS: usize = 12;
/// A broker that has begun anew is known everywhere, and what is wanted there, after this time.
const KNOWN_NS: u64 = 1_000 * MS;

/// What is heard at one broker of what another publishes.
#[derive(Debug, Default)]
struct Heard {
    last: u64,
    /// So many were lost since then, it was told.
    told: u64,
    /// One of both brokers has begun anew, and is known to the other at this time: of what was lost
    /// before the first event that is heard then, nobody has counted all.
    known_ns: Option<u64>,
}

/// All that was published and heard.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// By broker: the last number.
    published: BTreeMap<usize, u64>,
    /// By the broker where it is heard, and the one where it was published.
    heard: BTreeMap<(usize, usize), Heard>,
    pub(super) count: u64,
    pub(super) lost: u64,
}

/// Subscribes.
pub(super) fn listen() -> Request {
    let patterns = Some(Value::from_serialize(&PATTERNS));
    let (id, credit, replay) = Default::default();
    Request::Subscribe(Box::new(Subscribe { id, patterns, credit, replay }))
}

impl Events {
    /// The next event of a broker's publisher.
    pub(super) fn publish(&mut self, at: usize) -> (SmolStr, Request) {
        let last = self.published.entry(at).or_default();
        *last += 1;
        let (id, payload) = (last.to_smolstr(), Value::json(last.to_string()));
        let topic = format_smolstr!("e.{at}");
        let event = Event { topic, payload, headers: None, message: Default::default() };
        (id.clone(), Request::Publish(Publish { id, confirm: true, event: event.into() }))
    }

    /// A broker begins anew, and everybody there subscribes anew.
    pub(super) fn begun(&mut self, now_ns: u64, member: usize) {
        for ((at, from), heard) in &mut self.heard {
            if [*at, *from].contains(&member) {
                (heard.told, heard.known_ns) = (0, Some(now_ns + KNOWN_NS));
            }
        }
    }

    pub(super) fn heard(&mut self, now_ns: u64, at: usize, told: &Delivery) {
        let topic = told.event.topic.as_str();
        if topic.starts_with("mpreg.") {
            let gap: Json = serde_json::from_slice(&told.event.payload.bytes).expect("JSON");
            let from = gap["from"].as_str().and_then(|name| name.strip_prefix('n'));
            let from = from.and_then(|number| number.parse().ok()).expect("a broker");
            self.heard.entry((at, from)).or_default().told +=
                gap["lost"].as_u64().expect("so many");
            return;
        }
        let from = topic.strip_prefix("e.").and_then(|number| number.parse().ok());
        let (from, number) = (from.expect("a broker"), number_of(&told.event.payload));
        let heard = self.heard.entry((at, from)).or_default();
        assert!(number > heard.last, "n{at} hears {number} of n{from} after {heard:?}");
        let missed = number - heard.last - 1;
        let counts = heard.last > 0 && heard.known_ns.is_none();
        assert!(!counts || missed == heard.told, "n{at} hears {number} of n{from}: {heard:?}");
        (heard.last, heard.told) = (number, 0);
        heard.known_ns = heard.known_ns.filter(|known_ns| now_ns < *known_ns);
        self.count += 1;
        self.lost += if counts { missed } else { 0 };
    }

    /// Who has not heard the last of what was published, of those who listen.
    pub(super) fn unheard(&self, listeners: impl Iterator<Item = usize>) -> String {
        let mut found = String::new();
        for at in listeners {
            for (from, last) in &self.published {
                let heard = self.heard.get(&(at, *from)).map_or(0, |heard| heard.last);
                if heard < *last {
                    found += &format!("n{at} has heard {heard} of {last} of n{from}; ");
                }
            }
        }
        found
    }
}
