//! Queues come and go: declaring, deleting, purging.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use smol_str::SmolStr;

use super::bindings::Bound;
use super::describe::so_many;
use super::line::Line;
use super::{Declaration, Fetch, Output, Queue, Queues, Settings, lane};
use crate::base::{Code, Origin, Out, Refusal, WaitId};
use crate::ops::Durability;
use crate::store::{Ask, LANE_DEAD};
use crate::values::{Body, Value};

impl Queues {
    pub(super) fn declare(
        &mut self,
        origin: Origin,
        name: &SmolStr,
        declaration: &Declaration,
        out: &mut Out<Output>,
    ) {
        let known = self.by_name.get(name).copied();
        let made = match (known, &declaration.outlet) {
            (Some(at), _) => declaration.agrees(&self.queues[at as usize].settings).map(|()| at),
            (None, Some(address)) => {
                return self.declare_outlet(origin, name, (declaration, address), out);
            }
            (None, None) => self.create(name, declaration.settings(), out),
        };
        match made {
            Ok(at) => self.declared_as(origin, at, known.is_none(), out),
            Err(refusal) => out.push(Output::Done { origin, outcome: Err(refusal) }),
        }
    }

    /// Answers a declaration: it is so.
    pub(super) fn declared_as(
        &mut self,
        origin: Origin,
        at: u32,
        created: bool,
        out: &mut Out<Output>,
    ) {
        let queue = &self.queues[at as usize];
        let mut told = json!({
            "queue": queue.name.as_str(),
            "created": created,
            "settings": queue.settings,
        });
        if let Some(outlet) = self.about_outlet(at) {
            told["outlet"] = outlet;
        }
        // Another may have declared it a moment ago.
        let stored = queue.stored();
        let outcome = Ok(Body::plain(Value::from_serialize(&told)));
        self.when_safe(stored, Output::Done { origin, outcome }, out);
    }

    /// Makes a queue with its one unnamed line.
    pub(super) fn create(
        &mut self,
        name: &SmolStr,
        settings: Settings,
        out: &mut Out<Output>,
    ) -> Result<u32, Refusal> {
        if self.queues.len() >= self.limits.queues {
            let message = format!("{} queues are declared", self.limits.queues);
            return Err(Refusal::new(Code::Busy, message));
        }
        if settings.durability == Durability::Fsync
            && let Some(refusal) = &self.failed
        {
            return Err(refusal.clone());
        }
        let at = self.add_queue(name.clone(), settings);
        self.add_line(at, None, out);
        self.tell_queue("declared", name, None, out);
        Ok(at)
    }

    pub(super) fn add_queue(&mut self, name: SmolStr, settings: Settings) -> u32 {
        let at = self.queues.vacant_key() as u32;
        self.bindings.add(&settings.bind, Bound::Queue(at));
        self.by_name.insert(name.clone(), at);
        self.note_kept(&name, &settings, true);
        let settings = self.shared_settings(settings);
        self.queues.insert(Box::new(Queue {
            name,
            settings,
            lines: Vec::new(),
            sent: None,
            counters: None,
        }));
        at
    }

    /// Settings, in one place if they are those of the queue declared last.
    pub(super) fn shared_settings(&mut self, settings: Settings) -> Arc<Settings> {
        if *self.declared != settings {
            self.declared = Arc::new(settings);
        }
        self.declared.clone()
    }

    pub(super) fn add_line(
        &mut self,
        queue: u32,
        group: Option<SmolStr>,
        out: &mut Out<Output>,
    ) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let at = self.lines.insert(Box::new(Line::new(number, queue, group, self.seed))) as u32;
        self.by_number.insert(number, at);
        self.queues[queue as usize].lines.push(at);
        self.tell_line(at, out);
        at
    }

    /// Lets the store know what a line is.
    pub(super) fn tell_line(&mut self, at: u32, out: &mut Out<Output>) {
        let line = &self.lines[at as usize];
        if self.queues[line.queue as usize].stored() {
            let (line, about) = (line.number, self.about(at));
            self.ask(Ask::Line { line, about }, out);
        }
    }

    /// What is to be known of a line after a restart.
    pub(super) fn about(&self, at: u32) -> Bytes {
        let line = &self.lines[at as usize];
        let queue = &self.queues[line.queue as usize];
        let about = json!({
            "queue": queue.name.as_str(),
            "group": line.group.as_deref(),
            "settings": queue.settings,
        });
        // As long as it is, and no longer: the store holds it for as long as the line is there.
        about.to_string().into_bytes().into_boxed_slice().into()
    }

    pub(super) fn delete(&mut self, origin: Origin, name: &str, out: &mut Out<Output>) {
        let at = match self.find_open(name) {
            Ok(at) => at,
            Err(refusal) => return out.push(Output::Done { origin, outcome: Err(refusal) }),
        };
        self.bindings.remove(&self.queues[at as usize].settings.bind, Bound::Queue(at));
        self.end_outlet(at, out);
        if let Some((name, _)) = self.by_name.remove_entry(name) {
            let settings = self.queues[at as usize].settings.clone();
            self.note_kept(&name, &settings, false);
        }
        let lines = self.queues[at as usize].lines.clone();
        let stored = self.queues[at as usize].stored();
        let mut messages = 0;
        for line in lines {
            messages += self.lines[line as usize].held.count;
            self.drop_line(line, stored, out);
        }
        self.queues.remove(at as usize);
        self.tell_queue("deleted", name, Some(messages), out);
        let outcome = Ok(so_many(name, messages));
        self.when_safe(stored, Output::Done { origin, outcome }, out);
    }

    fn drop_line(&mut self, at: u32, stored: bool, out: &mut Out<Output>) {
        let waits: Vec<_> = self.lines[at as usize].waits.iter().copied().collect();
        for (slot, serial) in waits {
            let gone = Refusal::new(Code::UnknownQueue, "the queue was deleted");
            self.end_wait(WaitId { slot, serial }, Err(gone), out);
        }
        self.detach(at);
        let mut line = self.lines.remove(at as usize);
        self.by_number.remove(&line.number);
        line.clear(&mut self.memory);
        line.clear_dead(&mut self.memory);
        if let Some((_, timer)) = line.timer {
            self.deadlines.cancel(timer);
        }
        self.hungry.retain(|other| *other != at);
        self.fetches.retain(|_, fetch| !matches!(fetch, Fetch::Lane { line, .. } if *line == at));
        if stored {
            self.ask(Ask::Drop { line: line.number }, out);
        }
    }

    pub(super) fn purge(&mut self, origin: Origin, name: &str, dead: bool, out: &mut Out<Output>) {
        let at = match self.find_open(name) {
            Ok(at) => at,
            Err(refusal) => return out.push(Output::Done { origin, outcome: Err(refusal) }),
        };
        let (lines, stored) = {
            let queue = &self.queues[at as usize];
            (queue.lines.clone(), queue.stored())
        };
        let mut messages = 0;
        for line in lines {
            messages += self.purge_line(line, dead, stored, out);
        }
        self.tell_queue("purged", name, Some(messages), out);
        let outcome = Ok(so_many(name, messages));
        self.when_safe(stored, Output::Done { origin, outcome }, out);
    }

    pub(super) fn purge_line(
        &mut self,
        at: u32,
        dead: bool,
        stored: bool,
        out: &mut Out<Output>,
    ) -> u64 {
        let line = &mut self.lines[at as usize];
        let number = line.number;
        if dead {
            let count = line.dead_load.count;
            line.clear_dead(&mut self.memory);
            if stored {
                let keep = Vec::new();
                self.ask(Ask::Clear { line: number, lane: LANE_DEAD, keep }, out);
            }
            return count;
        }
        let before = line.held.count;
        let lanes = line.clear(&mut self.memory);
        // What is in hand stays.
        let kept: Vec<_> = self.consumers.held(at).cloned().collect();
        let line = &mut self.lines[at as usize];
        line.release_all_but(&kept);
        line.held.count = kept.len() as u64;
        line.held.bytes = kept.iter().map(lane::Entry::bytes).sum();
        let purged = before.saturating_sub(line.held.count);
        if stored {
            for &lane in &lanes {
                let stays = kept.iter().filter(|entry| entry.place.lane == lane);
                let keep = stays.map(|entry| (entry.place, entry.message.clone())).collect();
                self.ask(Ask::Clear { line: number, lane, keep }, out);
            }
        }
        purged
    }
}
