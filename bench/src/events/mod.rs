//! Events: one process publishes, another subscribes, once or eight times.
//!
//! PUB and SUB hold nobody back: a publisher that runs ahead loses what it publishes. So the
//! subscribers tell the publisher how far they are, over a connection of their own and in the same
//! way for every contender, and it keeps a bounded number of events on their way. What is measured
//! is what gets through.

pub(crate) mod ears;
pub(crate) mod holder;
pub(crate) mod pace;
pub(crate) mod plain;
pub(crate) mod queue;
pub(crate) mod rust;
pub(crate) mod websocket;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::plan::Load;
use crate::tally::Watch;
use pace::Flow;

/// The pattern of our subscribers, and what a prefix can say of it.
pub(crate) const PATTERN: &str = "orders.*.created";
pub(crate) const PREFIX: &str = "orders.";
/// Topics in use, one after the other.
const TOPICS: u64 = 1_000;
/// The number of an event that only shows that somebody listens.
const PROBE: u64 = u64::MAX;
/// Bytes that each payload needs: a number and a time.
pub(crate) const HEAD: usize = 16;

/// How the peers of a bench publish and subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    /// PUB and SUB of any ZeroMQ binding, two frames an event.
    Plain,
    /// One binary message an event.
    Websocket,
    /// Our Rust library: bincode batches.
    Rust,
    /// The same, by a queue that keeps them so.
    Queue,
}

/// A listener's first line: where it tells how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listens {
    pub(crate) reports: String,
}

/// A listener's last line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// Events that each subscriber got, warm-up included.
    pub(crate) received: Vec<u64>,
    /// Events that came again, or behind a later one.
    pub(crate) disorder: u64,
    /// From before an event was published to after it was read, those of the window alone.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
}

/// Publishes to `at` as fast as the subscribers behind `reports` hear it.
pub(crate) fn publish(
    kind: EventKind,
    (at, reports): (&str, &str),
    load: Load,
    watch: Watch,
) -> Outcome<Flow> {
    match kind {
        EventKind::Plain => plain::publisher(at, reports, load, watch),
        EventKind::Websocket => websocket::publisher(at, reports, load, watch),
        EventKind::Rust => rust::publisher(at, reports, load, watch),
        EventKind::Queue => Err("a queue has a producer".into()),
    }
}

fn topics() -> Vec<String> {
    (0..TOPICS).map(|number| format!("orders.{number}.created")).collect()
}

/// The time, the same for all processes. Never 0.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Writes number and time to the front of a payload; the time is 0 where none is wanted.
fn stamp(payload: &mut [u8], number: u64, at_ns: u64) {
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload[8..HEAD].copy_from_slice(&at_ns.to_le_bytes());
}

/// Reads them.
fn read_stamp(payload: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = payload.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), u64::from_le_bytes(*rest.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_carries_its_number_and_time() {
        let mut payload = [b'x'; 64];
        stamp(&mut payload, 7, 9);
        assert_eq!(read_stamp(&payload), Some((7, 9)));
        assert_eq!(read_stamp(&payload[..15]), None);
        assert_eq!(payload[HEAD..], [b'x'; 48]);
    }

    #[test]
    fn the_pattern_and_the_prefix_are_of_all_topics() {
        let pattern = mpreg_patterns::names::Pattern::parse(PATTERN).unwrap();
        assert!(topics().iter().all(|t| pattern.matches(t) && t.starts_with(PREFIX)));
    }
}
