//! What is told of topics: what a log holds, and who listens to what.

use serde_json::{Value as Json, json};

use super::Topics;
use super::replay::look;
use super::retained::wall_ms;
use super::subscribers::Target;
use crate::base::limits::{EVENTS_PER_ANSWER, HISTORY_SCAN, REPLY_PART_BYTES};
use crate::base::{Refusal, Set, Time};
use crate::names::{Pattern, PatternId};
use crate::ops::{Event, Replay};
use crate::values::{self, Body, Fault, Frames, Kind, Value, json};

/// Patterns that one list looks at.
const PATTERNS_SEEN: usize = 65_536;

/// What of a log is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryAsk {
    /// Events of these topics, which one log must keep all of.
    pub pattern: Pattern,
    /// From where on.
    pub from: Replay,
    /// The last event of each topic alone.
    pub per_topic: bool,
    /// How many at most.
    pub limit: usize,
}

/// The entries an answer is made of, and how it goes on.
#[derive(Default)]
struct Found {
    seqs: Vec<u64>,
    bytes: usize,
    /// Entries that were looked at, those that took many steps counted as several.
    seen: usize,
    /// Where the next answer has to begin, if this one is not all.
    next: Option<u64>,
}

/// Appends an event as a JSON object.
///
/// Bytes become attachments; `quoting` is whether the whole has any, so that tags are read in it.
pub(super) fn write_event(
    event: &Event,
    seq: u64,
    quoting: bool,
    out: &mut Vec<u8>,
    frames: &mut Frames,
) -> Result<(), Fault> {
    out.extend_from_slice(b"{\"topic\":");
    json::put_string(out, &event.topic);
    out.extend_from_slice(b",\"seq\":");
    json::put_u64(out, seq);
    out.extend_from_slice(b",\"message\":");
    json::put_string(out, event.message.text(&mut [0; 26]));
    out.extend_from_slice(b",\"at_ms\":");
    json::put_u64(out, wall_ms(event));
    out.extend_from_slice(b",\"payload\":");
    let target = values::Target { to: Kind::Json, quoting, out, frames };
    values::append_value(&event.payload, &[], target)?;
    if let Some(headers) = &event.headers {
        out.extend_from_slice(b",\"headers\":");
        let target = values::Target { to: Kind::Json, quoting, out, frames };
        values::append_value(headers, &[], target)?;
    }
    out.push(b'}');
    Ok(())
}

impl Topics {
    /// A piece of a log.
    pub fn history(&mut self, now: Time, ask: &HistoryAsk) -> Result<Body, Refusal> {
        let log = self.log_of(&ask.pattern)?;
        self.logs[log as usize].trim(now.wall_ms);
        self.changed(log);
        let found = match ask.from {
            _ if ask.per_topic => self.last_of_each(log, ask),
            Replay::Last(count) => self.last(log, ask, count as usize),
            Replay::All => self.forwards(log, ask, 0),
            Replay::Seq(seq) => self.forwards(log, ask, seq),
            Replay::Ms(ms) => self.forwards(log, ask, self.logs[log as usize].since(ms)),
        };
        self.told(log, &found).map_err(|fault| fault.refusal())
    }

    fn told(&self, log: u32, found: &Found) -> Result<Body, Fault> {
        let log = &self.logs[log as usize];
        let is_bytes = |seq: &u64| log.get(*seq).is_some_and(|e| e.payload.kind == Kind::Bytes);
        let quoting = found.seqs.iter().any(is_bytes);
        let (mut out, mut frames) = (b"{\"events\":[".to_vec(), Frames::new());
        for (index, &seq) in found.seqs.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if let Some(event) = log.get(seq) {
                write_event(event, seq, quoting, &mut out, &mut frames)?;
            }
        }
        out.extend_from_slice(b"],\"first_seq\":");
        json::put_u64(&mut out, log.first());
        out.extend_from_slice(b",\"next_seq\":");
        json::put_u64(&mut out, found.next.unwrap_or_else(|| log.next()));
        out.extend_from_slice(b",\"more\":");
        out.extend_from_slice(if found.next.is_some() { b"true" } else { b"false" });
        out.push(b'}');
        Ok(Body { value: Value::json(out), frames })
    }

    /// From a sequence number on.
    fn forwards(&self, log: u32, ask: &HistoryAsk, from: u64) -> Found {
        let log = &self.logs[log as usize];
        let mut found = Found::default();
        let first = from.max(log.first());
        for seq in first..log.next() {
            let Some(event) = log.get(seq) else { break };
            let full = found.seen >= HISTORY_SCAN;
            if full || found.looks(ask, event) && !found.take(seq, event, ask.limit) {
                found.next = Some(seq);
                break;
            }
        }
        found
    }

    /// The last so many, as far back as one look goes.
    fn last(&self, log: u32, ask: &HistoryAsk, count: usize) -> Found {
        let mut found = Found::default();
        let log = &self.logs[log as usize];
        for seq in (log.first()..log.next()).rev() {
            let Some(event) = log.get(seq) else { break };
            let enough = found.seqs.len() >= count || found.seen >= HISTORY_SCAN;
            if enough || found.looks(ask, event) && !found.take(seq, event, ask.limit) {
                break;
            }
        }
        found.seqs.reverse();
        found
    }

    /// The last of each topic, as far back as one look goes.
    fn last_of_each(&self, log: u32, ask: &HistoryAsk) -> Found {
        let (mut found, mut seen) =
            (Found::default(), Set::with_hasher(crate::base::seeded(self.seed)));
        let log = &self.logs[log as usize];
        for seq in (log.first()..log.next()).rev() {
            let Some(event) = log.get(seq) else { break };
            let full = found.seen >= HISTORY_SCAN;
            let new = !full && found.looks(ask, event) && seen.insert(&event.topic);
            if full || new && !found.take(seq, event, ask.limit) {
                break;
            }
        }
        found.seqs.reverse();
        found
    }

    /// The patterns with the most events, and what is kept.
    #[must_use]
    pub fn list(&self, top: usize) -> Json {
        let held = self.held.iter().enumerate().filter(|(_, held)| !held.targets.is_empty());
        let mut rows: Vec<(u64, usize)> =
            held.take(PATTERNS_SEEN).map(|(at, held)| (held.seq, at)).collect();
        rows.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        rows.truncate(top);
        let rows = rows.into_iter().map(|(_, at)| self.row(at)).collect::<Vec<_>>();
        let logs = self.logs.iter().map(|log| {
            json!({
                "pattern": log.rule.pattern.as_str(),
                "events": log.len(),
                "bytes": log.bytes,
                "first_seq": log.first(),
                "next_seq": log.next(),
            })
        });
        json!({
            "patterns": self.index.len(),
            "top": rows,
            "logs": logs.collect::<Vec<_>>(),
            "counters": self.counters,
        })
    }

    /// Bytes of the events that logs keep.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.logs.iter().map(|log| log.bytes).sum()
    }

    fn row(&self, at: usize) -> Json {
        let held = &self.held[at];
        let count = |wanted: fn(&Target) -> bool| held.targets.iter().filter(|t| wanted(t)).count();
        let sockets = held.targets.iter().map(|target| match target {
            Target::Text(at) => self.listeners[*at as usize].sockets,
            _ => 0,
        });
        json!({
            "pattern": self.index.text(PatternId(at as u32)),
            "events": held.seq,
            "dropped": held.dropped,
            "peers": count(|target| matches!(target, Target::Peer(_))),
            "sockets": sockets.sum::<u32>(),
            "waiting": count(|target| matches!(target, Target::Wait(_))),
            "kept": count(|target| matches!(target, Target::Log(_))) > 0,
        })
    }
}

impl Found {
    /// Whether an entry is of what is asked for.
    fn looks(&mut self, ask: &HistoryAsk, event: &Event) -> bool {
        let (matches, price) = look(&ask.pattern, event);
        self.seen += price;
        matches
    }

    /// Takes an entry if the answer has room for it.
    fn take(&mut self, seq: u64, event: &Event, limit: usize) -> bool {
        let bytes = self.bytes + event.bytes();
        let room = self.seqs.is_empty() || bytes <= REPLY_PART_BYTES;
        let fits = room && self.seqs.len() < limit.min(EVENTS_PER_ANSWER);
        if fits {
            self.bytes = bytes;
            self.seqs.push(seq);
        }
        fits
    }
}
