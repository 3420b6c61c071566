//! Handing out: who takes from a line, in turn, as far as credit and the turn's budget reach.

use smol_str::SmolStr;

use super::lane::Entry;
use super::line::Taken;
use super::settings::Settings;
use super::{Fetch, Holder, Output, Queues, Timer, Wait};
use crate::base::limits::{DELIVERIES_PER_TURN, MESSAGES_PER_GRAPH};
use crate::base::{Code, Origin, Out, PeerId, Refusal, RunId, Time, TimerId, WaitId};
use crate::ops::Delivered;
use crate::values::Body;

/// Messages one line hands out before the next one's turn.
const IN_A_ROW: usize = 64;

/// Who takes the next message of a line.
enum Taker {
    Consumer(u32),
    Wait(WaitId),
}

impl Queues {
    pub(super) fn consume(
        &mut self,
        peer: PeerId,
        id: Option<SmolStr>,
        of: (SmolStr, Option<SmolStr>),
        credit: u32,
        out: &mut Out<Output>,
    ) {
        let line = match self.line_of(&of.0, of.1.as_ref(), out) {
            Ok(line) => line,
            Err(refusal) => {
                return out.push(Output::Consumed { to: peer, id, of, outcome: Err(refusal) });
            }
        };
        let at = self.attach(Holder::Peer(peer), line);
        if let Some(consumer) = self.consumers.get(at) {
            consumer.credit = credit;
        }
        out.push(Output::Consumed { to: peer, id, of, outcome: Ok(credit) });
        self.queue_up(at);
    }

    pub(super) fn attach(&mut self, holder: Holder, line: u32) -> u32 {
        let (at, new) = self.consumers.of(holder, line);
        if new {
            self.lines[line as usize].consumers += 1;
        }
        at
    }

    /// The line of a group, made where it may be.
    pub(super) fn line_of(
        &mut self,
        name: &SmolStr,
        group: Option<&SmolStr>,
        out: &mut Out<Output>,
    ) -> Result<u32, Refusal> {
        let queue = match self.find(name) {
            Ok(at) => at,
            Err(refusal) if !self.rules.auto_create => return Err(refusal),
            Err(_) => self.create(name, Settings::default(), out)?,
        };
        let lines = &self.queues[queue as usize].lines;
        let found = lines.iter().find(|at| self.lines[**at as usize].group.as_ref() == group);
        if let Some(&at) = found {
            return Ok(at);
        }
        if lines.len() >= self.limits.groups_per_queue {
            let message = format!("{name} has {} groups", lines.len());
            return Err(Refusal::field(Code::Busy, "group", message));
        }
        let alone = lines.first().copied().filter(|_| lines.len() == 1 && group.is_some());
        if let Some(at) = alone
            && self.lines[at as usize].group.is_none()
            && self.lines[at as usize].consumers == 0
        {
            // What waited for anybody is the first group's.
            self.lines[at as usize].group = group.cloned();
            self.tell_line(at, out);
            return Ok(at);
        }
        Ok(self.add_line(queue, group.cloned(), out))
    }

    pub(super) fn next(
        &mut self,
        now: Time,
        origin: Origin,
        holder: Holder,
        of: (&SmolStr, Option<&SmolStr>),
        deadline_ns: u64,
        out: &mut Out<Output>,
    ) {
        let line = match self.line_to_wait_in(holder, of, out) {
            Ok(line) => line,
            Err(refusal) => return out.push(Output::Done { origin, outcome: Err(refusal) }),
        };
        let consumer = self.attach(holder, line);
        if let Some(consumer) = self.consumers.get(consumer) {
            consumer.waits += 1;
        }
        let slot = self.waits.vacant_key() as u32;
        self.serial = self.serial.wrapping_add(1);
        let id = WaitId { slot, serial: self.serial };
        let timer = self.deadlines.set(deadline_ns.max(now.mono_ns), Timer::Wait(id));
        self.waits.insert(Wait { id, origin, consumer, timer });
        self.lines[line as usize].waits.push_back((id.slot, id.serial));
        out.push(Output::Begun { origin, wait: id });
        self.wake(line);
    }

    /// The line a call takes from. Asking for a message makes no queue.
    fn line_to_wait_in(
        &mut self,
        holder: Holder,
        (name, group): (&SmolStr, Option<&SmolStr>),
        out: &mut Out<Output>,
    ) -> Result<u32, Refusal> {
        self.find(name)?;
        if self.waits.len() >= self.limits.calls {
            return Err(Refusal::new(Code::Busy, format!("{} wait already", self.waits.len())));
        }
        if let Holder::Graph(graph) = holder
            && self.consumers.taken_by(graph) >= MESSAGES_PER_GRAPH
        {
            let message = format!("the graph takes {MESSAGES_PER_GRAPH} messages already");
            return Err(Refusal::new(Code::Busy, message));
        }
        self.line_of(name, group, out)
    }

    pub(super) fn cancel_wait(&mut self, id: WaitId, out: &mut Out<Output>) {
        let refusal = Refusal::new(Code::Cancelled, "the wait was given up");
        self.end_wait(id, Err(refusal), out);
    }

    pub(super) fn wait_due(&mut self, id: WaitId, out: &mut Out<Output>) {
        let refusal = Refusal::new(Code::Timeout, "no message came in time");
        self.forget_wait(id, Err(refusal), out);
    }

    pub(super) fn end_wait(
        &mut self,
        id: WaitId,
        outcome: Result<Body, Refusal>,
        out: &mut Out<Output>,
    ) {
        if let Some(timer) = self.forget_wait(id, outcome, out) {
            self.deadlines.cancel(timer);
        }
    }

    /// Answers a call that waits, if it still does. Its timer, which has fired or is to be
    /// cancelled.
    fn forget_wait(
        &mut self,
        id: WaitId,
        outcome: Result<Body, Refusal>,
        out: &mut Out<Output>,
    ) -> Option<TimerId> {
        self.waits.get(id.slot as usize).filter(|wait| wait.id == id)?;
        let wait = self.waits.remove(id.slot as usize);
        if let Some(consumer) = self.consumers.get(wait.consumer) {
            consumer.waits -= 1;
        }
        out.push(Output::Done { origin: wait.origin, outcome });
        Some(wait.timer)
    }

    /// Lets a consumer stand in its line's turn, if it has credit.
    pub(super) fn queue_up(&mut self, at: u32) {
        let stalled = self.consumers.is_stalled(at);
        let Some(consumer) = self.consumers.get(at) else { return };
        if stalled || consumer.queued || consumer.in_hand >= consumer.credit {
            return;
        }
        consumer.queued = true;
        let (line, holder) = (consumer.line, consumer.holder);
        self.lines[line as usize].takers.push_back((at, holder));
        self.wake(line);
    }

    /// A connection takes something again.
    pub(super) fn flows(&mut self, peer: PeerId) {
        for at in self.consumers.stall(peer, false) {
            self.queue_up(at);
        }
    }

    /// A line may have something to hand out.
    pub(super) fn wake(&mut self, at: u32) {
        let line = &mut self.lines[at as usize];
        let wanted = !line.takers.is_empty() || !line.waits.is_empty();
        if wanted && !line.hungry {
            line.hungry = true;
            self.hungry.push_back(at);
        }
    }

    /// Hands out what can be, a turn's worth at most.
    pub(super) fn serve(&mut self, now: Time, out: &mut Out<Output>) {
        if !self.leaving.is_empty() {
            self.let_go(now, out);
        }
        while self.budget > 0 && !self.is_full() {
            let Some(at) = self.hungry.pop_front() else { break };
            self.lines[at as usize].hungry = false;
            let more = self.serve_line(now, at, out);
            if more {
                self.wake(at);
            }
        }
    }

    /// A few messages of one line. Whether there may be more.
    fn serve_line(&mut self, now: Time, at: u32, out: &mut Out<Output>) -> bool {
        for _ in 0..IN_A_ROW.min(self.budget) {
            if self.is_full() {
                return true;
            }
            let Some(taker) = self.taker(at) else { return false };
            let taken = self.lines[at as usize].take(now.wall_ms, &mut self.memory);
            self.budget -= 1;
            match (taken, taker) {
                (Taken::Nothing, taker) => {
                    self.give_back(at, taker);
                    self.fetch(at, out);
                    return false;
                }
                (Taken::Expired(entry), taker) => {
                    self.give_back(at, taker);
                    self.die(now, at, &entry, ("expired", ""), out);
                }
                (Taken::Entry(entry), Taker::Consumer(consumer)) => {
                    self.deliver(now, at, consumer, entry, out);
                }
                (Taken::Entry(entry), Taker::Wait(id)) => self.answer(now, at, id, entry, out),
            }
        }
        self.fetch(at, out);
        true
    }

    /// Whose turn it is.
    fn taker(&mut self, at: u32) -> Option<Taker> {
        let line = &mut self.lines[at as usize];
        while let Some((slot, serial)) = line.waits.pop_front() {
            let id = WaitId { slot, serial };
            if self.waits.get(slot as usize).is_some_and(|wait| wait.id == id) {
                return Some(Taker::Wait(id));
            }
        }
        while let Some((of, holder)) = line.takers.pop_front() {
            let stalled = self.consumers.is_stalled(of);
            let consumer = self.consumers.get(of).filter(|it| it.holder == holder && it.line == at);
            let Some(consumer) = consumer else { continue };
            consumer.queued = false;
            if !stalled && consumer.in_hand < consumer.credit {
                return Some(Taker::Consumer(of));
            }
        }
        None
    }

    /// It is its turn still.
    fn give_back(&mut self, at: u32, taker: Taker) {
        let line = &mut self.lines[at as usize];
        match taker {
            Taker::Wait(id) => line.waits.push_front((id.slot, id.serial)),
            Taker::Consumer(of) => {
                if let Some(consumer) = self.consumers.get(of) {
                    line.takers.push_front((of, consumer.holder));
                    consumer.queued = true;
                }
            }
        }
    }

    /// Asks the store for more of a line whose front runs out.
    fn fetch(&mut self, at: u32, out: &mut Out<Output>) {
        let fetch = self.next_fetch;
        let line = &mut self.lines[at as usize];
        if let Some(ask) = line.wanted(fetch) {
            self.next_fetch = self.next_fetch.wrapping_add(1);
            if let crate::store::Ask::Fetch { lane, .. } = ask {
                self.fetches.insert(fetch, Fetch::Lane { line: at, lane });
            }
            self.ask(ask, out);
        }
    }

    fn deliver(&mut self, now: Time, at: u32, consumer: u32, entry: Entry, out: &mut Out<Output>) {
        // A graph has no credit.
        let Some(Holder::Peer(to)) = self.consumers.get(consumer).map(|of| of.holder) else {
            return;
        };
        if to.as_outlet().is_some() {
            return self.push_out(at, to, &entry, out);
        }
        let message = entry.message.clone();
        let id = self.lease(now, at, consumer, entry, true, out);
        let line = &self.lines[at as usize];
        let queue = self.queues[line.queue as usize].name.clone();
        let attempt = message.attempts + 1;
        let group = line.group.clone();
        let delivered = Box::new(Delivered { queue, group, id, attempt, message });
        out.push(Output::Deliver { to, delivered });
        self.queue_up(consumer);
    }

    fn answer(&mut self, now: Time, at: u32, id: WaitId, entry: Entry, out: &mut Out<Output>) {
        let Some(consumer) = self.waits.get(id.slot as usize).map(|wait| wait.consumer) else {
            return;
        };
        let message = entry.message.clone();
        let lease = self.lease(now, at, consumer, entry, false, out);
        let queue = self.queues[self.lines[at as usize].queue as usize].name.clone();
        let attempt = message.attempts + 1;
        let group = self.lines[at as usize].group.clone();
        let delivered = Delivered { queue, group, id: lease, attempt, message };
        let body = super::describe::delivered(&delivered).map_err(|fault| fault.refusal());
        if let Err(refusal) = &body {
            // Nobody has seen it, so that nobody can say what became of it.
            self.undelivered(now, lease, Some(refusal.clone()), out);
        }
        self.end_wait(id, body, out);
    }

    fn lease(
        &mut self,
        now: Time,
        at: u32,
        consumer: u32,
        entry: Entry,
        on_credit: bool,
        out: &mut Out<Output>,
    ) -> RunId {
        if self.heard {
            let of = (&*entry.message, entry.message.attempts + 1);
            self.tell_message("delivered", at, of, ("", ""), out);
        }
        let line = &mut self.lines[at as usize];
        line.in_hand += 1;
        let queue = &mut self.queues[line.queue as usize];
        queue.counters().delivered += 1;
        self.counters.delivered += 1;
        if entry.message.attempts > 0 {
            queue.counters().redelivered += 1;
            self.counters.redelivered += 1;
        }
        let lease_ms = queue.settings.lease_ms;
        let id = self.consumers.lease(now, consumer, entry, on_credit, lease_ms);
        let end = self.consumers.find(id).map(|lease| lease.ends_ns);
        if let Some(consumer_of) = self.consumers.get(consumer)
            && consumer_of.timer.is_none()
            && let Some(end) = end.filter(|end| *end < u64::MAX)
        {
            consumer_of.timer = Some(self.deadlines.set(end, Timer::Consumer(consumer)));
        }
        id
    }

    /// Makes ready what is due in a line, and sets its timer for the next.
    pub(super) fn ripen(&mut self, now: Time, at: u32) {
        let Some(line) = self.lines.get_mut(at as usize) else { return };
        if let Some((due_ms, timer)) = line.timer.take() {
            if line.first_due_ms() == Some(due_ms) && due_ms > now.wall_ms {
                line.timer = Some((due_ms, timer));
                return;
            }
            self.deadlines.cancel(timer);
        }
        let kind = self.queues[line.queue as usize].settings.kind;
        line.ripen(kind, now.wall_ms, DELIVERIES_PER_TURN, &mut self.memory);
        if let Some(due_ms) = line.first_due_ms() {
            let wait_ns = due_ms.saturating_sub(now.wall_ms).saturating_mul(1_000_000);
            let timer = self.deadlines.set(now.mono_ns.saturating_add(wait_ns), Timer::Line(at));
            line.timer = Some((due_ms, timer));
        }
        self.wake(at);
    }
}
