//! What the store tells: what is there, how far it has come, what was read.

use std::sync::Arc;

use serde::Deserialize;
use smol_str::SmolStr;

use super::bindings::Bound;
use super::line::{Found, Line};
use super::settings::Settings;
use super::{Fetch, Output, Queues};
use crate::base::{Code, Out, Refusal, Time};
use crate::store::{self, Ask, LANE_DELAYED, Message, Place, ROUTES, Told};

/// What is known of a line, as `Queues::tell_line` writes it.
#[derive(Deserialize)]
struct About {
    queue: SmolStr,
    group: Option<SmolStr>,
    settings: Settings,
}

impl Queues {
    pub(super) fn stored(&mut self, now: Time, told: Told, out: &mut Out<Output>) {
        match told {
            Told::Synced { writes } => self.confirm.synced(writes, out),
            Told::Fetched { fetch, messages, end, damaged } => {
                self.counters.damaged += damaged.len() as u64;
                self.fetched(now, fetch, messages, (end, &damaged), out);
            }
            Told::Full { refusal } => self.full = Some(refusal),
            Told::Room => self.full = None,
            Told::Failed { refusal } => self.store_failed(&refusal, out),
            Told::Opened { lines } => self.opened(&lines, out),
        }
    }

    fn fetched(
        &mut self,
        now: Time,
        fetch: u32,
        messages: Vec<(Place, Arc<Message>)>,
        (end, damaged): (bool, &[Place]),
        out: &mut Out<Output>,
    ) {
        match self.fetches.remove(&fetch) {
            Some(Fetch::Lane { line: at, lane }) => {
                let Some(line) = self.lines.get_mut(at as usize) else { return };
                let found = Found { messages, damaged, end };
                if line.fill(lane, fetch, found, &mut self.memory) {
                    if lane == LANE_DELAYED {
                        self.ripen(now, at);
                    }
                    self.wake(at);
                }
            }
            Some(Fetch::Search(search)) => {
                self.set_aside(damaged);
                let end = end || messages.is_empty() && damaged.is_empty();
                self.search_on(now, search, messages, end, out);
            }
            None => {}
        }
    }

    /// What a search could not read is there no more, but for what is in memory.
    fn set_aside(&mut self, damaged: &[Place]) {
        for place in damaged {
            let Some(&at) = self.by_number.get(&place.line) else { continue };
            let in_hand = self.consumers.held(at).any(|entry| entry.place == *place);
            self.lines[at as usize].set_aside(place, in_hand);
        }
    }

    /// What is not safe yet may be lost, so that only the store knows what there is.
    fn store_failed(&mut self, refusal: &Refusal, out: &mut Out<Output>) {
        self.failed = Some(refusal.clone());
        self.keep_back();
        self.confirm.fail(refusal, out);
        self.forget_unsafe();
        for (_, search) in std::mem::take(&mut self.searches) {
            out.push(Output::Done { origin: search.origin, outcome: Err(refusal.clone()) });
        }
        self.void_stored(refusal);
    }

    /// Nothing is known any more of what the store has.
    fn void_stored(&mut self, why: &Refusal) {
        self.fetches.clear();
        for at in self.stored_lines() {
            self.void(at, why);
            self.lines[at as usize].restore(&[], 1, &mut self.memory);
        }
    }

    fn stored_lines(&self) -> Vec<u32> {
        let stored = |line: &Line| self.queues[line.queue as usize].stored();
        let lines = self.lines.iter().filter(|(_, line)| stored(line));
        lines.map(|(at, _)| at as u32).collect()
    }

    /// The store is open: what it has is what there is.
    fn opened(&mut self, found: &[store::Line], out: &mut Out<Output>) {
        let why = self
            .failed
            .take()
            .unwrap_or_else(|| Refusal::new(Code::StoreFailed, "the store was opened again"));
        self.full = None;
        self.confirm.reopened();
        self.void_stored(&why);
        let (table, found) = match found.split_first() {
            Some((first, rest)) if first.line == ROUTES => (Some(&first.about), rest),
            _ => (None, found),
        };
        self.routes_found(table);
        let highest = found.iter().map(|line| line.line).max().unwrap_or(0);
        self.next_number = self.next_number.max(highest + 1);
        for line in found {
            if let Some(at) = self.line_found(line, found, out) {
                let of = &mut self.lines[at as usize];
                of.restore(&line.lanes, line.next_seq, &mut self.memory);
            }
        }
        // What was made or taken over while it failed, or just before, is so again.
        for at in self.stored_lines() {
            let number = self.lines[at as usize].number;
            let found = found.binary_search_by_key(&number, |line| line.line).map(|of| &found[of]);
            if found.map_or(true, |found| found.about != self.about(at)) {
                self.tell_line(at, out);
            }
            for consumer in self.consumers.of_line(at) {
                self.queue_up(consumer);
            }
            self.wake(at);
        }
        self.bind_outlets(out);
    }

    /// The line of that number, made if it is new here.
    fn line_found(
        &mut self,
        line: &store::Line,
        found: &[store::Line],
        out: &mut Out<Output>,
    ) -> Option<u32> {
        if let Some(&at) = self.by_number.get(&line.line) {
            return Some(at);
        }
        let Ok(about) = serde_json::from_slice::<About>(&line.about) else {
            self.counters.damaged += 1;
            return None;
        };
        let queue = match self.by_name.get(&about.queue) {
            // It was deleted, which is not safe, and made anew in memory, which is so.
            Some(&queue) if !self.queues[queue as usize].stored() => {
                self.ask(Ask::Drop { line: line.line }, out);
                return None;
            }
            Some(&queue) => match self.line_anew(queue, about.group.as_ref(), found) {
                Some(at) => return Some(self.renumber(at, line.line, about.settings)),
                None => queue,
            },
            None => self.add_queue(about.queue, about.settings),
        };
        let at =
            self.lines.insert(Box::new(Line::new(line.line, queue, about.group, self.seed))) as u32;
        self.by_number.insert(line.line, at);
        self.queues[queue as usize].lines.push(at);
        Some(at)
    }

    /// The line of a group that the store knows nothing of.
    fn line_anew(&self, queue: u32, group: Option<&SmolStr>, found: &[store::Line]) -> Option<u32> {
        let is_stored = |number: u32| found.binary_search_by_key(&number, |line| line.line).is_ok();
        let mut lines = self.queues[queue as usize].lines.iter().copied();
        lines.find(|at| {
            let line = &self.lines[*at as usize];
            line.group.as_ref() == group && !is_stored(line.number)
        })
    }

    /// A queue was deleted and made anew, and neither is safe: it is the one of before.
    fn renumber(&mut self, at: u32, number: u32, settings: Settings) -> u32 {
        let line = &mut self.lines[at as usize];
        self.by_number.remove(&line.number);
        line.number = number;
        self.by_number.insert(number, at);
        let queue = line.queue;
        let settings = self.shared_settings(settings);
        let old = std::mem::replace(&mut self.queues[queue as usize].settings, settings);
        self.bindings.remove(&old.bind, Bound::Queue(queue));
        self.bindings.add(&self.queues[queue as usize].settings.bind, Bound::Queue(queue));
        at
    }
}
