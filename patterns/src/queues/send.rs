//! Sending: to which queues, whether there is room, and what the sender is told.

use std::sync::Arc;

use smol_str::SmolStr;

use super::lane::Entry;
use super::settings::{Kind, Settings, WhenFull};
use super::{Output, Queues, Sender};
use crate::base::limits::DEDUP_ENTRIES;
use crate::base::{Code, Out, Refusal, RunId, Time};
use crate::ops::{Durability, Event, SendOptions};
use crate::store::{Ask, Message};

impl Queues {
    pub(super) fn send(
        &mut self,
        now: Time,
        by: Sender,
        queue: Option<SmolStr>,
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
            None => self.route(now, &event, &options, out),
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
        let need = if stored { self.confirm.writes() } else { 0 };
        self.confirm.hold(need, Output::Sent { by, outcome }, out);
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
            Err(refusal) if !self.auto_create => return Err(refusal),
            Err(_) => self.create(name, Settings::default(), out)?,
        };
        self.enqueue(now, at, event, options, out)
    }

    /// To every queue that is bound to the topic.
    fn route(
        &mut self,
        now: Time,
        event: &Arc<Event>,
        options: &SendOptions,
        out: &mut Out<Output>,
    ) -> Result<Taken, Refusal> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        self.bound.matches(&event.topic, &mut found);
        let holders = found.iter().flat_map(|id| self.holders[id.0 as usize].iter().copied());
        let mut queues: Vec<u32> = holders.collect();
        self.found = found;
        queues.sort_unstable();
        queues.dedup();
        let (mut all, mut no) = (None::<Taken>, None);
        for at in queues {
            match self.enqueue(now, at, event, options, out) {
                Ok(taken) => {
                    let all = all.get_or_insert(Taken { queues: 0, ..taken });
                    all.queues += taken.queues;
                    all.durability = all.durability.min(taken.durability);
                }
                Err(refusal) => no = Some(refusal),
            }
        }
        match (all, no) {
            (Some(taken), _) => Ok(taken),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => {
                self.counters.unroutable += 1;
                let message = format!("no queue is bound to {}", event.topic);
                Err(Refusal::field(Code::Unroutable, "topic", message))
            }
        }
    }

    /// Puts a message into one queue: once for each of its groups.
    fn enqueue(
        &mut self,
        now: Time,
        at: u32,
        event: &Arc<Event>,
        options: &SendOptions,
        out: &mut Out<Output>,
    ) -> Result<Taken, Refusal> {
        let queue = &self.queues[at as usize];
        if options.priority > 0 && queue.settings.kind != Kind::Priority {
            let message = format!("{} was not declared with kind `priority`", queue.name);
            return Err(Refusal::field(Code::BadField, "priority", message));
        }
        let durability = queue.settings.durability;
        if durability == Durability::Fsync
            && let Some(refusal) = &self.failed
        {
            return Err(refusal.clone());
        }
        let mut taken = Taken { durability, queues: 1, repeats: None };
        if let Some(first) = self.repeats(now, at, options) {
            self.counters.repeated += 1;
            taken.repeats = Some(first);
            return Ok(taken);
        }
        let message = self.message(now, at, event, options);
        let lines = self.lines_for(at);
        self.make_room(now, at, &lines, &message, out)?;
        if let Some(dedup) = &options.dedup {
            self.remember(now, at, dedup, event.message);
        }
        for line in lines {
            self.put(now, line, message.clone(), options.delay_ms, out);
        }
        Ok(taken)
    }

    fn message(
        &self,
        now: Time,
        at: u32,
        event: &Arc<Event>,
        options: &SendOptions,
    ) -> Arc<Message> {
        let ttl_ms = self.queues[at as usize].settings.ttl_ms;
        Arc::new(Message {
            event: event.clone(),
            key: options.key.clone(),
            priority: options.priority,
            attempts: 0,
            expires_ms: ttl_ms.map(|ttl| (now.wall_ms + options.delay_ms).saturating_add(ttl)),
            death: None,
        })
    }

    /// The lines of a queue that get what is sent now: its groups, and the one without a name if
    /// somebody takes from it or there is no other.
    fn lines_for(&self, at: u32) -> Vec<u32> {
        let lines = &self.queues[at as usize].lines;
        if let [only] = lines[..] {
            return vec![only];
        }
        let gets = |line: &&u32| {
            let line = &self.lines[**line as usize];
            line.group.is_some() || line.consumers > 0
        };
        lines.iter().filter(gets).copied().collect()
    }

    /// Sees to it that every line has room for a message, or says why not.
    fn make_room(
        &mut self,
        now: Time,
        at: u32,
        lines: &[u32],
        message: &Arc<Message>,
        out: &mut Out<Output>,
    ) -> Result<(), Refusal> {
        let bytes = message.bytes() as u64;
        for &line in lines {
            loop {
                let settings = &self.queues[at as usize].settings;
                if self.lines[line as usize].has_room(settings, bytes) {
                    break;
                }
                if settings.when_full == WhenFull::DropOldest
                    && let Some(oldest) = self.lines[line as usize].oldest(&mut self.memory)
                {
                    self.counters.dropped += 1;
                    self.forget(line, &oldest, out);
                    continue;
                }
                if settings.when_full == WhenFull::DeadLetter {
                    let dead =
                        Entry { place: self.place_dead(now, line), message: message.clone() };
                    self.bury(line, &dead, "full", "the queue had no room", out);
                }
                let line = &self.lines[line as usize];
                let message = format!(
                    "{} holds {} messages of {} bytes",
                    self.queues[at as usize].name, line.held.count, line.held.bytes
                );
                return Err(Refusal::new(Code::QueueFull, message));
            }
        }
        Ok(())
    }

    /// Puts a new message into a line.
    pub(super) fn put(
        &mut self,
        now: Time,
        at: u32,
        message: Arc<Message>,
        delay_ms: u64,
        out: &mut Out<Output>,
    ) {
        let line = &mut self.lines[at as usize];
        let queue = &mut self.queues[line.queue as usize];
        let (kind, stored) = (queue.settings.kind, queue.stored());
        queue.counters.enqueued += 1;
        self.counters.enqueued += 1;
        let waits = delay_ms > 0 || kind == Kind::Delay;
        let due_ms = if waits { now.wall_ms.saturating_add(delay_ms) } else { 0 };
        let place = line.place(kind, message.priority, due_ms);
        line.add(Entry { place, message: message.clone() }, stored, &mut self.memory);
        if stored {
            self.ask(Ask::Put { place, message }, out);
        }
        if waits {
            self.ripen(now, at);
        } else {
            self.wake(at);
        }
    }

    /// The message that was sent with the same `dedup`, lately.
    fn repeats(&mut self, now: Time, at: u32, options: &SendOptions) -> Option<RunId> {
        let dedup = options.dedup.as_ref()?;
        let queue = &mut self.queues[at as usize];
        while queue.seen_until.front().is_some_and(|(until, _)| *until <= now.wall_ms) {
            if let Some((_, over)) = queue.seen_until.pop_front() {
                queue.seen.remove(&over);
            }
        }
        queue.seen.get(dedup).copied()
    }

    fn remember(&mut self, now: Time, at: u32, dedup: &SmolStr, message: RunId) {
        let queue = &mut self.queues[at as usize];
        if queue.settings.dedup_ms == 0 {
            return;
        }
        if queue.seen_until.len() >= DEDUP_ENTRIES
            && let Some((_, oldest)) = queue.seen_until.pop_front()
        {
            queue.seen.remove(&oldest);
        }
        queue.seen.insert(dedup.clone(), message);
        queue.seen_until.push_back((now.wall_ms + queue.settings.dedup_ms, dedup.clone()));
    }
}

/// What became of a message.
struct Taken {
    durability: Durability,
    queues: u32,
    /// The message it repeats.
    repeats: Option<RunId>,
}
