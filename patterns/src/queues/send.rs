//! Sending: to which queues, whether there is room, and what the sender is told.

use std::sync::Arc;

use smol_str::SmolStr;

use super::lane::Entry;
use super::settings::{Kind, Settings, WhenFull};
use super::{Output, Queues, Seen, Sender, Sent};
use crate::base::limits::DEDUP_ENTRIES;
use crate::base::{Code, Out, Refusal, RunId, Time};
use crate::ops::{Durability, Event, SendOptions};
use crate::store::{Load, Message, Place};

impl Queues {
    pub(super) fn send(
        &mut self,
        now: Time,
        by: Sender,
        (queue, also): (Option<SmolStr>, Vec<SmolStr>),
        mut event: Arc<Event>,
        options: SendOptions,
        out: &mut Out<Output>,
    ) {
        if event.message == RunId(0) {
            // Nobody else has it yet, so nothing is copied.
            Arc::make_mut(&mut event).message = self.ids.next(now);
        }
        let message = event.message;
        let taken = match queue {
            Some(name) => self.send_to(now, &name, &event, &options, out),
            None => {
                let is_told = matches!(by, Sender::Origin(_) | Sender::Peer { .. });
                self.route(now, (&event, &options, is_told), &also, out)
            }
        };
        let outcome =
            taken.map(|taken| (taken.repeats.unwrap_or(message), taken.durability, taken.queues));
        if outcome.is_err() {
            self.counters.refused += 1;
        }
        let wanted = matches!(by, Sender::Origin(_)) || outcome.is_err();
        if !wanted {
            return;
        }
        let stored = matches!(outcome, Ok((_, Durability::Fsync, _)));
        self.when_safe(stored, Output::Sent { by, outcome }, out);
    }

    fn send_to(
        &mut self,
        now: Time,
        name: &SmolStr,
        event: &Arc<Event>,
        options: &SendOptions,
        out: &mut Out<Output>,
    ) -> Result<Taken, Refusal> {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(refusal) if !self.rules.auto_create => return Err(refusal),
            Err(_) => self.create(name, Settings::default(), out)?,
        };
        self.enqueue(now, at, event, options, out)
    }

    /// To every queue that is bound to the topic, by itself or by a route, here or elsewhere.
    fn route(
        &mut self,
        now: Time,
        (event, options, is_told): (&Arc<Event>, &SendOptions, bool),
        also: &[SmolStr],
        out: &mut Out<Output>,
    ) -> Result<Taken, Refusal> {
        let mut found = std::mem::take(&mut self.found);
        self.bindings.find(&event.topic, &mut found);
        let mut reached = Reached::default();
        let mut judged = Ok(());
        if !found.routes.is_empty() {
            let message = (event, options, is_told);
            judged = self.send_by_routes(now, &mut found, message, &mut reached, out);
        }
        if judged.is_ok() {
            for &at in &found.queues {
                if !reached.asked.contains(&at) {
                    reached.note(self.enqueue(now, at, event, options, out));
                }
            }
            for name in also {
                let to = self.find(name);
                reached.note(to.and_then(|at| self.enqueue(now, at, event, options, out)));
            }
        }
        self.found = found;
        judged?;
        match reached {
            Reached { all: Some(taken), .. } => Ok(taken),
            Reached { no, .. } => {
                let refusal = no.unwrap_or_else(|| {
                    let routed = match self.found.routes.is_empty() {
                        true => "",
                        false => ", and no route takes it",
                    };
                    let message = format!("no queue is bound to {}{routed}", event.topic);
                    Refusal::field(Code::Unroutable, "topic", message)
                });
                self.counters.unroutable += u64::from(refusal.is(Code::Unroutable));
                Err(refusal)
            }
        }
    }

    /// Puts a message into one queue, and tells of it.
    pub(super) fn enqueue(
        &mut self,
        now: Time,
        at: u32,
        event: &Arc<Event>,
        options: &SendOptions,
        out: &mut Out<Output>,
    ) -> Result<Taken, Refusal> {
        let taken = self.take_in(now, at, event, options, out);
        if self.heard && !matches!(taken, Ok(Taken { repeats: Some(_), .. })) {
            self.tell_taken(at, event.message, taken.as_ref().err(), out);
        }
        taken
    }

    /// Once for each of its groups.
    fn take_in(
        &mut self,
        now: Time,
        at: u32,
        event: &Arc<Event>,
        options: &SendOptions,
        out: &mut Out<Output>,
    ) -> Result<Taken, Refusal> {
        if let Some(refusal) = self.turns_away(at, options) {
            return Err(refusal);
        }
        let durability = self.queues[at as usize].settings.durability;
        let mut taken = Taken { durability, queues: 1, repeats: None };
        if let Some(first) = self.repeats(now, at, options) {
            self.counters.repeated += 1;
            taken.repeats = Some(first);
            return Ok(taken);
        }
        let message = self.message(now, at, event, options);
        for line in 0..self.queues[at as usize].lines.len() {
            if let Some(line) = self.line_that_gets(at, line) {
                self.make_room(now, at, line, &message, out)?;
            }
        }
        for line in 0..self.queues[at as usize].lines.len() {
            if let Some(line) = self.line_that_gets(at, line) {
                self.put(now, line, (message.clone(), None), options.delay_ms, out);
            }
        }
        if let Some(dedup) = &options.dedup {
            self.remember(now, at, dedup, event.message);
        }
        Ok(taken)
    }

    /// Why a queue takes no such message, whatever room it has itself.
    pub(super) fn turns_away(&self, at: u32, options: &SendOptions) -> Option<Refusal> {
        let queue = &self.queues[at as usize];
        if options.priority > 0 && queue.settings.kind != Kind::Priority {
            let message = format!("{} was not declared with kind `priority`", queue.name);
            return Some(Refusal::field(Code::BadField, "priority", message));
        }
        self.failed.as_ref().or(self.full.as_ref()).filter(|_| queue.stored()).cloned()
    }

    fn message(
        &self,
        now: Time,
        at: u32,
        event: &Arc<Event>,
        options: &SendOptions,
    ) -> Arc<Message> {
        let ttl_ms = self.queues[at as usize].settings.ttl_ms;
        let due_ms = now.wall_ms.saturating_add(options.delay_ms);
        Arc::new(Message {
            event: event.clone(),
            key: options.key.clone(),
            priority: options.priority,
            attempts: 0,
            expires_ms: ttl_ms.map(|ttl| due_ms.saturating_add(ttl)),
            death: None,
        })
    }

    /// A line of a queue, if it gets what is sent now: each group's does, and the one without a
    /// name if somebody takes from it or there is no other.
    pub(super) fn line_that_gets(&self, at: u32, index: usize) -> Option<u32> {
        let lines = &self.queues[at as usize].lines;
        let (at, is_only) = (lines[index], lines.len() == 1);
        let line = &self.lines[at as usize];
        (is_only || line.group.is_some() || line.consumers > 0).then_some(at)
    }

    /// Sees to it that a line has room for a message, or says why not.
    fn make_room(
        &mut self,
        now: Time,
        at: u32,
        line: u32,
        message: &Arc<Message>,
        out: &mut Out<Output>,
    ) -> Result<(), Refusal> {
        let bytes = message.bytes() as u64;
        loop {
            let settings = &self.queues[at as usize].settings;
            if self.lines[line as usize].has_room(settings, bytes) {
                return Ok(());
            }
            let when_full = settings.when_full;
            if when_full == WhenFull::DropOldest
                && let Some(oldest) = self.lines[line as usize].oldest(&mut self.memory)
            {
                self.counters.dropped += 1;
                self.queues[at as usize].counters().dropped += 1;
                if self.heard {
                    let of = (&*oldest.message, oldest.message.attempts);
                    self.tell_message("dropped", line, of, ("full", ""), out);
                }
                self.forget(line, &oldest, out);
                continue;
            }
            if when_full == WhenFull::DeadLetter {
                let dead = ((**message).clone(), None);
                self.bury(now, line, dead, ("full", "the queue had no room"), out);
            }
            let (line, name) = (&self.lines[line as usize], &self.queues[at as usize].name);
            let Load { count, bytes } = line.held;
            let message = format!("{name} holds {count} messages of {bytes} bytes");
            return Err(Refusal::new(Code::QueueFull, message));
        }
    }

    /// Puts a new message into a line; in the store it may stand somewhere already.
    pub(super) fn put(
        &mut self,
        now: Time,
        at: u32,
        (message, from): (Arc<Message>, Option<Place>),
        delay_ms: u64,
        out: &mut Out<Output>,
    ) {
        let line = &mut self.lines[at as usize];
        let queue = &mut self.queues[line.queue as usize];
        let (kind, stored) = (queue.settings.kind, queue.stored());
        queue.counters().enqueued += 1;
        self.counters.enqueued += 1;
        let waits = delay_ms > 0 || kind == Kind::Delay;
        let due_ms = if waits { now.wall_ms.saturating_add(delay_ms) } else { 0 };
        let place = line.place(kind, message.priority, due_ms);
        let entry = Entry { place, message };
        line.add(entry.clone(), stored, &mut self.memory);
        if stored {
            self.write(from, entry, out);
        }
        if waits {
            self.ripen(now, at);
        } else {
            self.wake(at);
        }
    }

    /// The message that was sent with the same `dedup`, lately.
    pub(super) fn repeats(&mut self, now: Time, at: u32, options: &SendOptions) -> Option<RunId> {
        let dedup = options.dedup.as_ref()?;
        let sent = self.queues[at as usize].sent.as_mut()?;
        while sent.seen_until.front().is_some_and(|seen| seen.until_ms <= now.wall_ms) {
            if let Some(over) = sent.seen_until.pop_front() {
                sent.seen.remove(&over.dedup);
            }
        }
        sent.seen.get(dedup).copied()
    }

    fn remember(&mut self, now: Time, at: u32, dedup: &SmolStr, message: RunId) {
        let queue = &mut self.queues[at as usize];
        if queue.settings.dedup_ms == 0 {
            return;
        }
        let seed = self.seed;
        let sent = queue.sent.get_or_insert_with(|| Box::new(Sent::new(seed)));
        if sent.seen_until.len() >= DEDUP_ENTRIES
            && let Some(oldest) = sent.seen_until.pop_front()
        {
            sent.seen.remove(&oldest.dedup);
        }
        sent.seen.insert(dedup.clone(), message);
        let (until_ms, writes) =
            (now.wall_ms.saturating_add(queue.settings.dedup_ms), self.confirm.writes());
        sent.seen_until.push_back(Seen { until_ms, writes, dedup: dedup.clone() });
    }

    /// The store has failed: what it may not have was not sent, so that it can be sent again.
    pub(super) fn forget_unsafe(&mut self) {
        let confirm = &self.confirm;
        for (_, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.stored()) {
            let Some(Sent { seen, seen_until }) = queue.sent.as_deref_mut() else { continue };
            seen_until.retain_mut(|of| {
                let kept = confirm.is_safe(of.writes);
                if kept {
                    // The store begins to count anew.
                    of.writes = 0;
                } else {
                    seen.remove(&of.dedup);
                }
                kept
            });
        }
    }
}

/// What became of a message.
pub(super) struct Taken {
    durability: Durability,
    queues: u32,
    /// The message it repeats.
    repeats: Option<RunId>,
}

/// What became of a message that goes to several queues.
#[derive(Default)]
pub(super) struct Reached {
    /// Of those that took it, if any did.
    all: Option<Taken>,
    /// Why one of the others did not.
    pub(super) no: Option<Refusal>,
    /// Queues that are settled.
    pub(super) asked: Vec<u32>,
}

impl Reached {
    pub(super) fn note(&mut self, taken: Result<Taken, Refusal>) {
        match taken {
            Ok(taken) => {
                let all = self.all.get_or_insert(Taken { queues: 0, ..taken });
                all.queues += taken.queues;
                all.durability = all.durability.min(taken.durability);
            }
            Err(refusal) => self.no = Some(refusal),
        }
    }
}
