//! What queues tell of themselves, and what is looked up in them: `stats`, `peek`, `redrive`.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::lane::Entry;
use super::{Fetch, Output, Queues};
use crate::base::limits::{DEAD_PER_FETCH, REPLY_PART_BYTES};
use crate::base::{Code, Origin, Out, Refusal, Set, Time};
use crate::ops::Delivered;
use crate::store::{Ask, LANE_DEAD, Message, Place};
use crate::values::{self, Body, Fault, Frames, Kind, Value, json};

/// Somebody who wants something of what is stored.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) origin: Origin,
    name: smol_str::SmolStr,
    /// Lines, by number, and lanes that are still to be looked at, the last first.
    lanes: Vec<(u32, u8)>,
    after: Option<(u64, u64)>,
    left: u64,
    /// What a `redrive` has moved, or none for a `peek`.
    moved: Option<u64>,
    found: Vec<Entry>,
}

/// A message as JSON text; `quoting` is whether the whole has attachments.
fn write_message(
    message: &Message,
    lead: &str,
    quoting: bool,
    out: &mut Vec<u8>,
    frames: &mut Frames,
) -> Result<(), Fault> {
    out.push(b'{');
    out.extend_from_slice(lead.as_bytes());
    out.extend_from_slice(b"\"message\":");
    json::put_string(out, message.event.message.text(&mut [0; 26]));
    out.extend_from_slice(b",\"at_ms\":");
    json::put_u64(out, (message.event.message.0 >> 80) as u64);
    if !message.event.topic.is_empty() {
        out.extend_from_slice(b",\"topic\":");
        json::put_string(out, &message.event.topic);
    }
    if let Some(key) = &message.key {
        out.extend_from_slice(b",\"key\":");
        json::put_string(out, key);
    }
    if message.priority > 0 {
        out.extend_from_slice(b",\"priority\":");
        json::put_u64(out, message.priority.into());
    }
    if let Some(death) = &message.death {
        out.extend_from_slice(b",\"reason\":");
        json::put_string(out, &death.reason);
        out.extend_from_slice(b",\"note\":");
        json::put_string(out, &death.note);
    }
    out.extend_from_slice(b",\"payload\":");
    let target = values::Target { to: Kind::Json, quoting, out, frames };
    values::append_value(&message.event.payload, &[], target)?;
    if let Some(headers) = &message.event.headers {
        out.extend_from_slice(b",\"headers\":");
        let target = values::Target { to: Kind::Json, quoting, out, frames };
        values::append_value(headers, &[], target)?;
    }
    out.push(b'}');
    Ok(())
}

/// The result of `mpreg.queue.next`.
pub(super) fn delivered(of: &Delivered) -> Result<Body, Fault> {
    let (mut out, mut frames) = (Vec::new(), Frames::new());
    let lead = format!(
        "\"queue\":{},\"id\":\"{}\",\"attempt\":{},",
        Json::from(of.queue.as_str()),
        of.id,
        of.attempt
    );
    let quoting = of.message.event.payload.kind == Kind::Bytes;
    write_message(&of.message, &lead, quoting, &mut out, &mut frames)?;
    Ok(Body { value: Value::json(out), frames })
}

/// The result of `mpreg.queue.peek`: as many as fit into an answer.
fn shown(entries: &[Entry]) -> Result<Body, Fault> {
    let (mut out, mut frames) = (b"{\"messages\":[".to_vec(), Frames::new());
    let is_bytes = |entry: &Entry| entry.message.event.payload.kind == Kind::Bytes;
    let quoting = entries.iter().any(is_bytes);
    let mut bytes = 0;
    for (index, entry) in entries.iter().enumerate() {
        bytes += entry.message.bytes();
        if index > 0 {
            if bytes > REPLY_PART_BYTES || frames.len() >= 32 {
                break;
            }
            out.push(b',');
        }
        let lead = format!("\"attempts\":{},", entry.message.attempts);
        write_message(&entry.message, &lead, quoting, &mut out, &mut frames)?;
    }
    out.extend_from_slice(b"]}");
    Ok(Body { value: Value::json(out), frames })
}

impl Queues {
    /// One queue, all of its groups together.
    pub fn stats(&self, now: Time, name: &str) -> Result<Json, Refusal> {
        let at = self.find(name)?;
        Ok(self.row(now, at, true))
    }

    /// Every queue by name, so many at most.
    #[must_use]
    pub fn list(&self, now: Time, top: usize) -> Json {
        let mut names: Vec<_> = self.by_name.iter().collect();
        names.sort_unstable();
        let rows = names.iter().take(top);
        let rows = rows.map(|(_, at)| self.row(now, **at, false));
        json!({ "queues": rows.collect::<Vec<_>>(), "count": names.len() })
    }

    /// Sums for `mpreg.status`.
    #[must_use]
    pub fn status(&self) -> Json {
        json!({
            "queues": self.queues.len(),
            "routes": self.routes.len(),
            "consumers": self.consumers.len(),
            "in_flight": self.consumers.in_hand(),
            "unconfirmed": self.confirm.len(),
            "store": self.store_state(),
            "counters": self.counters,
        })
    }

    /// Bytes of messages that are ready and in memory, and of those in the hands of consumers.
    #[must_use]
    pub const fn held_bytes(&self) -> (u64, u64) {
        (self.memory, self.consumers.bytes)
    }

    const fn store_state(&self) -> &'static str {
        match (&self.failed, &self.full) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "full",
            (None, None) => "open",
        }
    }

    fn row(&self, now: Time, at: u32, whole: bool) -> Json {
        let queue = &self.queues[at as usize];
        let lines = || queue.lines.iter().map(|at| &*self.lines[*at as usize]);
        let sum = |of: &dyn Fn(&super::Line) -> u64| lines().map(of).sum::<u64>();
        let fronts = lines().flat_map(|line| line.iter(false).next());
        let oldest = fronts.map(|entry| (entry.message.event.message.0 >> 80) as u64).min();
        let mut row = json!({
            "queue": queue.name.as_str(),
            "durability": queue.settings.durability,
            "ready": sum(&super::Line::ready),
            "in_flight": sum(&|line| line.in_hand.into()),
            "delayed": sum(&super::Line::delayed),
            "dead": sum(&|line| line.dead_load.count),
            "bytes": sum(&|line| line.held.bytes),
            "consumers": sum(&|line| line.consumers.into()),
            "oldest_ms": oldest.map(|at_ms| now.wall_ms.saturating_sub(at_ms)),
            "counters": queue.counters.as_deref().copied().unwrap_or_default(),
        });
        // Nothing is known of what is on a disk until it is opened again.
        if self.failed.is_some() && queue.stored() {
            row["store"] = self.store_state().into();
        }
        if whole {
            let group = |line: &super::Line| {
                json!({
                    "group": line.group.as_deref(),
                    "ready": line.ready(),
                    "in_flight": line.in_hand,
                    "delayed": line.delayed(),
                    "dead": line.dead_load.count,
                    "consumers": line.consumers,
                })
            };
            row["groups"] = lines().map(group).collect();
            row["settings"] = json!(queue.settings);
            if let Some(outlet) = self.about_outlet(at) {
                row["outlet"] = outlet;
            }
        }
        row
    }

    pub(super) fn peek(
        &mut self,
        origin: Origin,
        name: &str,
        count: u32,
        dead: bool,
        out: &mut Out<Output>,
    ) {
        let queue = match self.find_open(name) {
            Ok(at) => &self.queues[at as usize],
            Err(refusal) => return out.push(Output::Done { origin, outcome: Err(refusal) }),
        };
        let lines = queue.lines.iter().map(|at| (*at, &*self.lines[*at as usize]));
        if !queue.stored() {
            let entries = lines.flat_map(|(_, line)| line.iter(dead));
            let found: Vec<Entry> = entries.take(count as usize).cloned().collect();
            let outcome = shown(&found).map_err(|fault| fault.refusal());
            return out.push(Output::Done { origin, outcome });
        }
        let lanes_of = |(_, line): (u32, &super::Line)| {
            let (number, lanes) = (line.number, if dead { vec![LANE_DEAD] } else { line.lanes() });
            lanes.into_iter().map(move |lane| (number, lane))
        };
        let mut lanes: Vec<(u32, u8)> = lines.flat_map(lanes_of).collect();
        lanes.reverse();
        let (name, left) = (queue.name.clone(), count.into());
        let search =
            Search { origin, name, lanes, after: None, left, moved: None, found: Vec::new() };
        self.search(search, out);
    }

    pub(super) fn redrive(
        &mut self,
        now: Time,
        origin: Origin,
        name: &str,
        count: u64,
        out: &mut Out<Output>,
    ) {
        let at = match self.find_open(name) {
            Ok(at) => at,
            Err(refusal) => return out.push(Output::Done { origin, outcome: Err(refusal) }),
        };
        let queue = &self.queues[at as usize];
        let (name, lines) = (queue.name.clone(), queue.lines.clone());
        if queue.stored() {
            if self.searches.iter().any(|(_, search)| search.moved.is_some() && search.name == name)
            {
                // It would read what the first is about to move, and move it once more.
                let refusal = Refusal::new(Code::Busy, format!("{name} is being redriven already"));
                return out.push(Output::Done { origin, outcome: Err(refusal) });
            }
            let number = |line: &u32| (self.lines[*line as usize].number, LANE_DEAD);
            let lanes = lines.iter().rev().map(number).collect();
            let (moved, found) = (Some(0), Vec::new());
            let search = Search { origin, name, lanes, after: None, left: count, moved, found };
            return self.search(search, out);
        }
        let mut moved = 0;
        for line in lines {
            while moved < count
                && let Some(entry) = self.lines[line as usize].exhume(&mut self.memory)
            {
                moved += 1;
                self.revive(now, line, &entry, out);
            }
        }
        self.tell_queue("redriven", &name, Some(moved), out);
        out.push(Output::Done { origin, outcome: Ok(so_many(&name, moved)) });
    }

    /// A dead letter is sent again, at the end of its line.
    fn revive(&mut self, now: Time, at: u32, dead: &Entry, out: &mut Out<Output>) {
        let again =
            Message { attempts: 0, death: None, expires_ms: None, ..(*dead.message).clone() };
        self.put(now, at, (Arc::new(again), Some(dead.place)), 0, out);
    }

    /// Asks for the next piece of what somebody wants to know, or tells what was found.
    fn search(&mut self, mut search: Search, out: &mut Out<Output>) {
        let next = search.lanes.last().copied().filter(|_| search.left > 0);
        let Some((number, lane)) = next else { return self.search_ends(search, out) };
        if !self.by_number.contains_key(&number) {
            search.lanes.pop();
            return self.search(search, out);
        }
        let fetch = self.next_fetch;
        self.next_fetch = self.next_fetch.wrapping_add(1);
        let count = search.left.min(DEAD_PER_FETCH) as u32;
        let after = search.after;
        let slot = self.searches.insert(search);
        self.fetches.insert(fetch, Fetch::Search(slot));
        let bytes = REPLY_PART_BYTES as u32;
        self.ask(Ask::Fetch { fetch, line: number, lane, after, count, bytes }, out);
    }

    /// A piece of it has come.
    pub(super) fn search_on(
        &mut self,
        now: Time,
        slot: usize,
        messages: Vec<(Place, Arc<Message>)>,
        end: bool,
        out: &mut Out<Output>,
    ) {
        let Some(mut search) = self.searches.try_remove(slot) else { return };
        let Some(&(number, _)) = search.lanes.last() else { return self.search_ends(search, out) };
        // Its queue may be gone by now.
        let Some(&at) = self.by_number.get(&number) else { return self.search(search, out) };
        let last = messages.last().map(|(place, _)| (place.at_ms, place.seq));
        search.after = last.or(search.after);
        let read = messages.len() as u64;
        if search.moved.is_some() {
            for (place, message) in messages {
                let entry = Entry { place, message };
                if let Some(line) = self.lines.get_mut(at as usize) {
                    line.rise(&entry);
                    self.revive(now, at, &entry, out);
                }
            }
            search.moved = search.moved.map(|moved| moved + read);
        } else {
            // What is in somebody's hands stands in its lane still.
            let in_hand: Set<Place> = self.consumers.held(at).map(|entry| entry.place).collect();
            let ready = messages.into_iter().filter(|(place, _)| !in_hand.contains(place));
            search.found.extend(ready.map(|(place, message)| Entry { place, message }));
        }
        search.left = search.left.saturating_sub(read);
        if end {
            search.lanes.pop();
            search.after = None;
        }
        self.search(search, out);
    }

    fn search_ends(&mut self, search: Search, out: &mut Out<Output>) {
        let Search { origin, name, moved, found, .. } = search;
        let outcome = match moved {
            Some(moved) => {
                self.tell_queue("redriven", &name, Some(moved), out);
                Ok(so_many(&name, moved))
            }
            None => shown(&found).map_err(|fault| fault.refusal()),
        };
        self.when_safe(moved.is_some(), Output::Done { origin, outcome }, out);
    }
}

/// What was done to so many messages of a queue, as its caller is told.
pub(super) fn so_many(name: &str, messages: u64) -> Body {
    Body::plain(Value::from_serialize(&json!({ "queue": name, "messages": messages })))
}
