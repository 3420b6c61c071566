//! How a delivery ends: by its consumer's word, by its time, or with its consumer.

use std::sync::Arc;

use super::lane::Entry;
use super::settings::Kind;
use super::{Holder, Output, Queues, Timer};
use crate::base::{Out, PeerId, Refusal, RunId, Time, WaitId};
use crate::ops::{Settle, Verdict};
use crate::store::{Ask, Death, LANE_DEAD, LANE_DELAYED, Message, Place};

/// The longest a message waits between two attempts unless its queue begins with more.
const BACKOFF_MOST_MS: u64 = 600_000;

/// How a delivery came to nothing.
struct Failure<'a> {
    /// How long the message waits, as its consumer said.
    delay_ms: Option<u64>,
    /// Whether it waits at all.
    backs_off: bool,
    /// Words for a person.
    note: &'a str,
    /// Why it is a dead letter at once.
    dead: Option<&'static str>,
}

impl Queues {
    pub(super) fn settle(
        &mut self,
        now: Time,
        peer: PeerId,
        settle: Settle,
        out: &mut Out<Output>,
    ) {
        let Settle { id, ids, verdict } = settle;
        let (mut done, mut unknown) = (Vec::new(), Vec::new());
        let mut stored = false;
        for lease in ids {
            if !self.consumers.holds(peer, lease) {
                if id.is_some() {
                    unknown.push(lease);
                }
                continue;
            }
            stored |= self.settle_one(now, lease, &verdict, out);
            if id.is_some() {
                done.push(lease);
            }
        }
        if let Some(id) = id {
            let acked = Output::Acked { to: peer, id, outcome: Ok((done, unknown)) };
            self.when_safe(stored, acked, out);
        }
    }

    /// A graph has ended: what it took is done if it did well, else it goes back.
    pub(super) fn graph_ended(
        &mut self,
        now: Time,
        graph: u32,
        failure: Option<Refusal>,
        out: &mut Out<Output>,
    ) {
        let (consumers, lost) = self.consumers.graph_ended(graph);
        let outcome = lost.clone().map_or(Ok(()), Err);
        let (mut stored, done) = (false, failure.is_none() && lost.is_none());
        let verdict = match failure.or(lost) {
            None => Verdict::Ack,
            Some(why) => {
                let reason = Some(format!("the graph failed: {why}").into());
                Verdict::Nack { delay_ms: None, reason, dead: false }
            }
        };
        for at in consumers {
            while let Some((id, _)) = self.consumers.oldest(at) {
                stored |= self.settle_one(now, id, &verdict, out);
            }
            if let Some(line) = self.consumers.get(at).map(|consumer| consumer.line) {
                self.end_waits_of(at, line, out);
                self.lines[line as usize].consumers -= 1;
            }
            self.consumers.remove(at);
        }
        // What goes back is as safe as it was; what is done has to be so after a crash.
        self.when_safe(stored && done, Output::Settled { graph, outcome }, out);
    }

    /// Whether it is the store's to make it so.
    fn settle_one(
        &mut self,
        now: Time,
        id: RunId,
        verdict: &Verdict,
        out: &mut Out<Output>,
    ) -> bool {
        let Some(at) = self.consumers.find(id).map(|lease| lease.consumer) else { return false };
        let Some(line) = self.consumers.get(at).map(|consumer| consumer.line) else { return false };
        let queue = self.lines[line as usize].queue;
        let stored = self.queues[queue as usize].stored();
        match verdict {
            Verdict::Ack => {
                self.counters.acked += 1;
                self.queues[queue as usize].counters().acked += 1;
                if let Some(entry) = self.take_back(id, line) {
                    if self.heard {
                        let of = (&*entry.message, entry.message.attempts + 1);
                        self.tell_message("acked", line, of, ("", ""), out);
                    }
                    self.forget(line, &entry, out);
                }
            }
            Verdict::Nack { delay_ms, reason, dead } => {
                self.counters.nacked += 1;
                self.queues[queue as usize].counters().nacked += 1;
                let failure = Failure {
                    delay_ms: *delay_ms,
                    backs_off: true,
                    note: reason.as_deref().unwrap_or_default(),
                    dead: dead.then_some("rejected"),
                };
                if let Some(entry) = self.take_back(id, line) {
                    self.fail(now, line, entry, &failure, out);
                }
            }
            Verdict::Extend => {
                let lease_ms = self.queues[queue as usize].settings.lease_ms;
                self.consumers.extend(now, id, lease_ms);
                return false;
            }
        }
        self.queue_up(at);
        stored
    }

    /// Takes a delivery out of its consumer's hands.
    fn take_back(&mut self, id: RunId, line: u32) -> Option<Entry> {
        let lease = self.consumers.end(id)?;
        self.lines[line as usize].in_hand -= 1;
        Some(lease.entry)
    }

    /// A delivery came to nothing: it is tried again, or is a dead letter.
    fn fail(
        &mut self,
        now: Time,
        at: u32,
        entry: Entry,
        failure: &Failure<'_>,
        out: &mut Out<Output>,
    ) {
        let attempts = entry.message.attempts + 1;
        if self.heard {
            let of = (&*entry.message, attempts);
            self.tell_message("nacked", at, of, ("", failure.note), out);
        }
        let line = &mut self.lines[at as usize];
        let settings = &self.queues[line.queue as usize].settings;
        if let Some(reason) = failure.dead {
            return self.die(now, at, &entry, (reason, failure.note), out);
        }
        if attempts >= settings.max_attempts {
            return self.die(now, at, &entry, ("attempts", failure.note), out);
        }
        let delay_ms = match failure.delay_ms {
            Some(delay_ms) => delay_ms,
            None if failure.backs_off => {
                let most = BACKOFF_MOST_MS.max(settings.backoff_ms);
                let doubled = settings.backoff_ms.saturating_mul(1 << (attempts - 1).min(40));
                let backoff = doubled.min(most);
                // Up to a fifth less, so that what failed together does not come back together.
                backoff - self.rng.below(backoff as usize / 5 + 1) as u64
            }
            None => 0,
        };
        let message = Message { attempts, ..(*entry.message).clone() };
        let entry = Entry { place: entry.place, message: Arc::new(message) };
        if delay_ms == 0 {
            let kind = settings.kind;
            line.put_back(kind, entry, &mut self.memory);
            return self.wake(at);
        }
        self.delay(now, at, entry, delay_ms, out);
    }

    /// Lets a message wait; the store is told, so that its attempts are known after a restart.
    fn delay(&mut self, now: Time, at: u32, entry: Entry, delay_ms: u64, out: &mut Out<Output>) {
        let line = &mut self.lines[at as usize];
        let at_ms = now.wall_ms.saturating_add(delay_ms);
        let place = Place { lane: LANE_DELAYED, at_ms, ..entry.place };
        let moved = Entry { place, message: entry.message };
        let stored = self.queues[line.queue as usize].stored();
        line.enter(moved.clone(), stored, &mut self.memory);
        if stored {
            self.write(Some(entry.place), moved, out);
        }
        self.ripen(now, at);
    }

    /// A message is done with.
    pub(super) fn forget(&mut self, at: u32, entry: &Entry, out: &mut Out<Output>) {
        self.leave(at, entry);
        if self.queues[self.lines[at as usize].queue as usize].stored() {
            self.ask(Ask::Delete { place: entry.place }, out);
        }
    }

    /// A message is none of those that are held any more.
    fn leave(&mut self, at: u32, entry: &Entry) {
        let line = &mut self.lines[at as usize];
        line.forget(entry);
        line.release(entry, &mut self.memory);
        self.wake(at);
    }

    /// A message becomes a dead letter, for a reason and with words for a person.
    pub(super) fn die(
        &mut self,
        now: Time,
        at: u32,
        entry: &Entry,
        why: (&'static str, &str),
        out: &mut Out<Output>,
    ) {
        self.leave(at, entry);
        let attempts = entry.message.attempts + u32::from(why.0 != "expired");
        let message = Message { attempts, ..(*entry.message).clone() };
        self.bury(now, at, (message, Some(entry.place)), why, out);
    }

    /// Lays a dead letter down, if there is room for one more; it may stand somewhere already.
    pub(super) fn bury(
        &mut self,
        now: Time,
        at: u32,
        (message, from): (Message, Option<Place>),
        (reason, note): (&'static str, &str),
        out: &mut Out<Output>,
    ) {
        let line = &mut self.lines[at as usize];
        let queue = &mut self.queues[line.queue as usize];
        let full = line.dead_load.count >= queue.settings.max_count
            || line.dead_load.bytes + message.bytes() as u64 > queue.settings.max_bytes;
        if full {
            self.counters.dropped += 1;
            queue.counters().dropped += 1;
            let gone = from.filter(|_| queue.stored());
            if self.heard {
                let (of, why) = ((&message, message.attempts), "no room for one more dead letter");
                self.tell_message("dropped", at, of, (reason, why), out);
            }
            if let Some(place) = gone {
                self.ask(Ask::Delete { place }, out);
            }
            return;
        }
        self.counters.dead += 1;
        queue.counters().dead += 1;
        let stored = queue.stored();
        if self.heard {
            self.tell_message("dead", at, (&message, message.attempts), (reason, note), out);
        }
        let line = &mut self.lines[at as usize];
        let death = Some(Box::new(Death { reason: reason.into(), note: note.into() }));
        let message = Arc::new(Message { death, ..message });
        let place = line.place(Kind::Fifo, 0, now.wall_ms);
        let dead = Entry { place: Place { lane: LANE_DEAD, ..place }, message };
        line.bury(&dead, stored, &mut self.memory);
        if stored {
            self.write(from, dead, out);
        }
    }

    /// Asks the store to have a message where it is now, and nowhere else.
    pub(super) fn write(&mut self, from: Option<Place>, entry: Entry, out: &mut Out<Output>) {
        let Entry { place, message } = entry;
        let ask = match from {
            Some(from) => Ask::Move { from, to: place, message },
            None => Ask::Put { place, message },
        };
        self.ask(ask, out);
    }

    /// Leases of a consumer have ended by their time.
    pub(super) fn lapse(&mut self, now: Time, at: u32, out: &mut Out<Output>) {
        let Some(line) = self.consumers.get(at).map(|consumer| consumer.line) else { return };
        let failure = Failure {
            delay_ms: None,
            backs_off: true,
            note: "nobody said what became of it in time",
            dead: None,
        };
        while let Some((id, ends_ns)) = self.consumers.oldest(at) {
            if ends_ns > now.mono_ns || self.budget == 0 {
                let timer = self.deadlines.set(ends_ns.max(now.mono_ns), Timer::Consumer(at));
                if let Some(consumer) = self.consumers.get(at) {
                    consumer.timer = Some(timer);
                }
                break;
            }
            self.budget -= 1;
            self.counters.lapsed += 1;
            if let Some(Holder::Peer(to)) = self.consumers.get(at).map(|of| of.holder) {
                out.push(Output::Lapsed { to, id });
            }
            if let Some(entry) = self.take_back(id, line) {
                self.fail(now, line, entry, &failure, out);
            }
        }
        self.queue_up(at);
    }

    /// A delivery never left: somebody else has it, unless nobody could take it.
    pub(super) fn undelivered(
        &mut self,
        now: Time,
        id: RunId,
        refusal: Option<Refusal>,
        out: &mut Out<Output>,
    ) {
        let Some(at) = self.consumers.find(id).map(|lease| lease.consumer) else { return };
        let Some(line) = self.consumers.get(at).map(|consumer| consumer.line) else { return };
        let Some(entry) = self.take_back(id, line) else { return };
        match refusal {
            Some(refusal) => {
                let note = refusal.to_string();
                let failure = Failure { delay_ms: None, backs_off: true, note: &note, dead: None };
                self.fail(now, line, entry, &failure, out);
            }
            None => {
                let kind = self.queues[self.lines[line as usize].queue as usize].settings.kind;
                self.lines[line as usize].put_back(kind, entry, &mut self.memory);
                self.wake(line);
            }
        }
        self.queue_up(at);
    }

    /// A connection has ended: what it had in hand goes to others, a turn's worth at a time.
    pub(super) fn gone(&mut self, peer: PeerId, out: &mut Out<Output>) {
        for at in self.consumers.gone(peer) {
            if let Some(line) = self.consumers.get(at).map(|consumer| consumer.line) {
                self.lines[line as usize].consumers -= 1;
                self.leaving.push_back(at);
                self.end_waits_of(at, line, out);
            }
        }
    }

    /// Nobody takes for a consumer that is gone: its calls get nothing more.
    fn end_waits_of(&mut self, at: u32, line: u32, out: &mut Out<Output>) {
        if self.consumers.get(at).is_none_or(|consumer| consumer.waits == 0) {
            return;
        }
        let waits = self.lines[line as usize].waits.iter();
        let ids = waits.map(|&(slot, serial)| WaitId { slot, serial });
        let of = |id: &WaitId| {
            let wait = self.waits.get(id.slot as usize);
            wait.is_some_and(|wait| wait.id == *id && wait.consumer == at)
        };
        for id in ids.filter(of).collect::<Vec<_>>() {
            self.cancel_wait(id, out);
        }
    }

    /// Lets go what consumers that are gone had in hand.
    pub(super) fn let_go(&mut self, now: Time, out: &mut Out<Output>) {
        let failure = Failure {
            delay_ms: None,
            backs_off: false,
            note: "its consumer was lost with it in hand",
            dead: None,
        };
        while let Some(&at) = self.leaving.front() {
            let line = self.consumers.get(at).map(|consumer| consumer.line);
            while let (Some(line), Some((id, _))) = (line, self.consumers.oldest(at)) {
                if self.budget == 0 {
                    return;
                }
                self.budget -= 1;
                if let Some(entry) = self.take_back(id, line) {
                    self.fail(now, line, entry, &failure, out);
                }
            }
            self.leaving.pop_front();
            if let Some(timer) = self.consumers.remove(at).and_then(|consumer| consumer.timer) {
                self.deadlines.cancel(timer);
            }
        }
    }

    /// A line is about to go: nobody has anything of it in hand, nobody takes from it.
    pub(super) fn detach(&mut self, line: u32) {
        for at in self.consumers.of_line(line) {
            while let Some((id, _)) = self.consumers.oldest(at) {
                self.take_back(id, line);
            }
            self.leaving.retain(|other| *other != at);
            if let Some(timer) = self.consumers.remove(at).and_then(|consumer| consumer.timer) {
                self.deadlines.cancel(timer);
            }
        }
    }

    /// Nothing of a line is in hand any more: the store says what there is.
    pub(super) fn void(&mut self, line: u32, why: &Refusal) {
        for at in self.consumers.of_line(line) {
            self.consumers.lose(at, why);
            while let Some((id, _)) = self.consumers.oldest(at) {
                self.take_back(id, line);
            }
            self.queue_up(at);
        }
    }
}
