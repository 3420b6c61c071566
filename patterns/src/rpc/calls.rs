//! One call from its submission to its one outcome.

use std::borrow::Cow;
use std::sync::Arc;

use super::far::{TURNED_DOWN, nearest};
use super::registry::{Candidate, DemandId, DemandRef};
use super::workers::{Worker, Workers};
use super::{Input, Origin, Output, Rpc, Submit};
use crate::base::{CallId, Code, Out, PeerId, Refusal, Rng, RunId, Set, Time, TimerId};
use crate::ops::{Call, Run};
use crate::values::Body;

/// A call that takes this many workers down with it is not given to another.
const WORKERS_LOST: u32 = 3;

#[derive(Clone, Copy, Debug)]
enum Place {
    Waiting,
    Running { worker: u32, run: RunId },
}

/// A call in flight, or a run whose outcome nobody waits for but whose worker has not answered.
#[derive(Debug)]
pub(super) struct Live {
    serial: u32,
    /// None once the outcome is out and only the worker's answer is missing.
    origin: Option<Origin>,
    timer: Option<TimerId>,
    place: Place,
    pub(super) demand: DemandId,
    call: Arc<Call>,
    pub(super) deadline_ns: u64,
    pub(super) attempt: u32,
    /// Position in its worker's `in_hand`.
    hand: u32,
    may_repeat: bool,
    /// How often other brokers would not have it.
    turned_down: u32,
}

impl Live {
    /// Whether it asked to wait for a worker that is not there yet.
    pub(super) fn waits(&self) -> bool {
        self.call.options.wait
    }
}

impl Rpc {
    pub(super) fn submit(&mut self, now: Time, submit: Submit, out: &mut Out<Output>) {
        let origin = submit.origin;
        if let Err(refusal) = self.admit(origin) {
            return out.push(Output::Done { origin, outcome: Err(Box::new(refusal)) });
        }
        let options = &submit.call.options;
        let mut locs = Cow::Borrowed(&options.locs[..]);
        if locs.len() > 1 {
            locs.to_mut().sort_unstable();
            locs.to_mut().dedup();
        }
        let (fun, here) = (&submit.call.fun, submit.here);
        let (version, cluster) = (options.version.as_deref(), options.cluster.as_deref());
        let wanted = DemandRef { fun, version, locs: &locs, cluster, here };
        let demand = self.registry.find(&wanted, &self.workers);
        if self.registry.demand(demand).candidates.is_empty() && !options.wait {
            let refusal = self.registry.nobody(demand, &self.workers);
            self.counters.failed += 1;
            return out.push(Output::Done { origin, outcome: Err(Box::new(refusal)) });
        }
        let slot = self.insert(demand, submit);
        out.push(Output::Begun { origin, call: self.id(slot) });
        self.place(now, slot, out);
    }

    fn admit(&self, origin: Origin) -> Result<(), Refusal> {
        // A graph that was accepted may end; its steps are nothing new.
        if self.draining && matches!(origin, Origin::Request(_)) {
            return Err(Refusal::new(Code::Draining, "the broker is going down"));
        }
        if self.calls.len() >= self.limits.calls {
            let message = format!("{} calls are in flight", self.calls.len());
            return Err(Refusal::new(Code::Busy, message));
        }
        Ok(())
    }

    fn insert(&mut self, demand: DemandId, submit: Submit) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.counters.accepted += 1;
        self.registry.demand_mut(demand).users += 1;
        let entry = self.calls.vacant_entry();
        let slot = entry.key() as u32;
        let id = CallId { slot, serial: self.serial };
        entry.insert(Live {
            serial: self.serial,
            origin: Some(submit.origin),
            timer: Some(self.deadlines.set(submit.deadline_ns, id)),
            place: Place::Waiting,
            demand,
            call: submit.call,
            deadline_ns: submit.deadline_ns,
            attempt: 0,
            hand: 0,
            may_repeat: false,
            turned_down: 0,
        });
        slot
    }

    /// A call in flight, and the worker that has it in hand.
    pub(super) fn whereabouts(&self, id: CallId) -> Option<(&Live, Option<String>)> {
        let call = self.calls.get(id.slot as usize).filter(|call| call.serial == id.serial)?;
        let worker = match call.place {
            Place::Waiting => None,
            Place::Running { worker, .. } => self.workers.get(worker).map(Worker::title),
        };
        Some((call, worker))
    }

    fn id(&self, slot: u32) -> CallId {
        CallId { slot, serial: self.calls[slot as usize].serial }
    }

    /// Hands a call to the best worker with credit, or puts it in line.
    fn place(&mut self, now: Time, slot: u32, out: &mut Out<Output>) {
        let demand = self.calls[slot as usize].demand;
        // A line means that every candidate was busy, and credit that comes free serves it first.
        if !self.registry.demand(demand).has_waiting()
            && let Some(candidate) = self.choose(demand)
        {
            return self.start(now, slot, candidate, out);
        }
        let id = self.id(slot);
        let begins = !self.registry.demand(demand).has_waiting();
        self.registry.demand_mut(demand).line.push_back(id);
        if begins {
            self.announce(demand);
        }
    }

    /// Tells a demand's candidates that calls wait in its line.
    pub(super) fn announce(&mut self, demand: DemandId) {
        for candidate in &self.registry.demand(demand).candidates {
            let Some(worker) = self.workers.get_mut(candidate.worker) else { continue };
            if !worker.waiting.contains(&demand) {
                worker.waiting.push_back(demand);
            }
        }
    }

    /// A worker of this broker while one has credit, else the nearest broker.
    pub(super) fn choose(&mut self, demand: DemandId) -> Option<Candidate> {
        let demand = self.registry.demand(demand);
        let (near, far) = demand.candidates.split_at(demand.near);
        let chosen = less_loaded(near, &self.workers, &mut self.rng);
        if far.is_empty() { chosen } else { chosen.or_else(|| nearest(far, &self.workers)) }
    }

    /// Hands a call to a worker that has credit.
    fn start(&mut self, now: Time, slot: u32, candidate: Candidate, out: &mut Out<Output>) {
        let run = self.ids.marked(now, slot);
        let Some(worker) = self.workers.get_mut(candidate.worker) else { return };
        let call = &mut self.calls[slot as usize];
        call.place = Place::Running { worker: candidate.worker, run };
        call.attempt += 1;
        call.hand = worker.in_hand.len() as u32;
        call.may_repeat = call.call.options.idempotent.unwrap_or(candidate.idempotent);
        worker.in_hand.push(slot);
        if call.call.progress
            && let Some(origin) = call.origin
        {
            out.push(Output::Started { origin, attempt: call.attempt });
        }
        let run = Run {
            id: run,
            call: call.call.clone(),
            // Less than a millisecond is left, not none: another broker would refuse that.
            deadline_ms: (call.deadline_ns.saturating_sub(now.mono_ns) / 1_000_000).max(1),
            attempt: call.attempt,
        };
        out.push(Output::Run { to: worker.peer, run, far: worker.far.is_some() });
    }

    /// Gives waiting calls to a worker while it has credit, its demands in turn.
    pub(super) fn pump(&mut self, now: Time, slot: u32, out: &mut Out<Output>) {
        while let Some(worker) = self.workers.get_mut(slot) {
            if !worker.has_credit() {
                return;
            }
            let Some(demand) = worker.waiting.pop_front() else { return };
            if !self.registry.knows(demand) {
                continue;
            }
            let calls = &self.calls;
            let waits = |id: CallId| waits(calls, id);
            let call = self.registry.pop_waiting(demand, waits);
            let found = self.registry.demand(demand);
            let candidate = found.candidates.iter().copied().find(|c| c.worker == slot);
            match (call, candidate) {
                (Some(call), Some(candidate)) => {
                    if found.has_waiting() {
                        worker.waiting.push_back(demand);
                    }
                    self.start(now, call.slot, candidate, out);
                }
                // The worker no longer serves this demand: the call goes back to its place.
                (Some(call), None) => self.registry.demand_mut(demand).line.push_front(call),
                (None, _) => {}
            }
        }
    }

    pub(super) fn result(
        &mut self,
        now: Time,
        peer: PeerId,
        run: RunId,
        outcome: Result<Box<Body>, Box<Refusal>>,
        out: &mut Out<Output>,
    ) {
        let Some(slot) = self.in_hand_of(peer, run) else {
            self.counters.stray += 1;
            return;
        };
        self.take(slot, peer.slot);
        let turned_down = self.calls[slot as usize].turned_down < TURNED_DOWN
            && outcome.as_ref().is_err_and(|refusal| self.turns_down(peer, refusal));
        if turned_down {
            let call = &mut self.calls[slot as usize];
            (call.attempt, call.turned_down) = (call.attempt - 1, call.turned_down + 1);
            self.replace(now, slot, out);
        } else if let Some(origin) = self.forget(slot) {
            self.done(origin, outcome, out);
        }
        self.pump(now, peer.slot, out);
        self.farewell(peer, out);
    }

    pub(super) fn progress(
        &mut self,
        peer: PeerId,
        run: RunId,
        percent: Option<f64>,
        note: Option<Box<str>>,
        out: &mut Out<Output>,
    ) {
        let Some(slot) = self.in_hand_of(peer, run) else {
            self.counters.stray += 1;
            return;
        };
        let call = &self.calls[slot as usize];
        if call.call.progress
            && let Some(origin) = call.origin
        {
            out.push(Output::Progress { origin, percent, note });
        }
    }

    /// The call that is in hand as a run, and the slot of its worker.
    fn holder(&self, run: RunId) -> Option<(u32, u32)> {
        let slot = run.mark();
        match self.calls.get(slot as usize)?.place {
            Place::Running { worker, run: this } if this == run => Some((slot, worker)),
            _ => None,
        }
    }

    /// The call behind a run, if this very connection has it in hand.
    fn in_hand_of(&self, peer: PeerId, run: RunId) -> Option<u32> {
        let (slot, holder) = self.holder(run).filter(|(_, holder)| *holder == peer.slot)?;
        self.workers.get(holder).filter(|worker| worker.peer == peer).map(|_| slot)
    }

    /// Takes a call that is running out of its worker's hands; it keeps its slot and is in no line.
    fn take(&mut self, slot: u32, worker: u32) {
        let call = &mut self.calls[slot as usize];
        call.place = Place::Waiting;
        let hand = call.hand as usize;
        let Some(worker) = self.workers.get_mut(worker) else { return };
        worker.in_hand.swap_remove(hand);
        if let Some(&moved) = worker.in_hand.get(hand) {
            self.calls[moved as usize].hand = hand as u32;
        }
    }

    /// Ends a call that no worker has in hand.
    fn forget(&mut self, slot: u32) -> Option<Origin> {
        let call = self.calls.remove(slot as usize);
        self.registry.demand_mut(call.demand).users -= 1;
        if let Some(timer) = call.timer {
            self.deadlines.cancel(timer);
        }
        call.origin
    }

    fn done(
        &mut self,
        origin: Origin,
        outcome: Result<Box<Body>, Box<Refusal>>,
        out: &mut Out<Output>,
    ) {
        match outcome {
            Ok(_) => self.counters.done += 1,
            Err(_) => self.counters.failed += 1,
        }
        out.push(Output::Done { origin, outcome });
    }

    pub(super) fn cancel(&mut self, id: CallId, out: &mut Out<Output>) {
        self.give_up(id, Refusal::new(Code::Cancelled, "cancelled by the caller"), out);
    }

    pub(super) fn expire(&mut self, id: CallId, out: &mut Out<Output>) {
        let Some(call) = self.calls.get_mut(id.slot as usize) else { return };
        call.timer = None;
        let message = match call.place {
            Place::Waiting => format!("{} waited for a worker until its deadline", call.call.fun),
            Place::Running { worker, .. } => {
                let worker = self.workers.get(worker).map(Worker::title);
                let worker = worker.unwrap_or_default();
                format!("{} was still running on {worker} at its deadline", call.call.fun)
            }
        };
        self.give_up(id, Refusal::new(Code::Timeout, message), out);
    }

    /// The broker ends: requests get their outcome. Those of steps belong to their graphs.
    pub(super) fn end_all(&mut self, out: &mut Out<Output>) {
        let waits = |live: &Live| matches!(live.origin, Some(Origin::Request(_)));
        let calls = self.calls.iter().filter(|(_, live)| waits(live));
        let calls: Vec<u32> = calls.map(|(slot, _)| slot as u32).collect();
        for slot in calls {
            let refusal = Refusal::cut_off(self.calls[slot as usize].attempt > 0);
            self.give_up(self.id(slot), refusal, out);
        }
    }

    /// The run a call is in hand as.
    pub(crate) fn run_of(&self, slot: u32) -> Option<RunId> {
        match self.calls.get(slot as usize)?.place {
            Place::Running { run, .. } => Some(run),
            Place::Waiting => None,
        }
    }

    /// Answers a call whose outcome is no longer awaited. A run in hand keeps its credit until
    /// the worker answers, since until then the worker is not free.
    fn give_up(&mut self, id: CallId, refusal: Refusal, out: &mut Out<Output>) {
        let live = self.calls.get_mut(id.slot as usize).filter(|call| call.serial == id.serial);
        let Some(call) = live else { return };
        let Some(origin) = call.origin.take() else { return };
        let demand = call.demand;
        match call.place {
            Place::Waiting => {
                self.forget(id.slot);
                let calls = &self.calls;
                self.registry.gave_up(demand, |id| waits(calls, id));
            }
            Place::Running { worker, run } => {
                call.call = self.nothing.clone();
                if let Some(timer) = call.timer.take() {
                    self.deadlines.cancel(timer);
                }
                if let Some(worker) = self.workers.get(worker) {
                    out.push(Output::Stop { to: worker.peer, run });
                }
            }
        }
        self.done(origin, Err(Box::new(refusal)), out);
    }

    /// A run that never reached its worker's connection goes elsewhere, or fails if it must.
    pub(super) fn unsent(
        &mut self,
        now: Time,
        run: RunId,
        refusal: Option<Refusal>,
        out: &mut Out<Output>,
    ) {
        let Some((slot, worker)) = self.holder(run) else { return };
        self.take(slot, worker);
        match refusal {
            Some(refusal) => {
                if let Some(origin) = self.forget(slot) {
                    self.done(origin, Err(Box::new(refusal)), out);
                }
            }
            None => {
                self.workers.stall(worker);
                self.calls[slot as usize].attempt -= 1;
                self.replace(now, slot, out);
            }
        }
    }

    pub(super) fn gone(
        &mut self,
        now: Time,
        peer: PeerId,
        unsent: &[RunId],
        out: &mut Out<Output>,
    ) {
        let Some(worker) = self.workers.remove(peer) else { return };
        if worker.far.is_none() {
            out.push(Output::Left { peer });
        }
        if !worker.in_hand.is_empty() {
            self.counters.lost_workers += 1;
        }
        // Its functions go first, so that nothing moves back to it.
        let names = worker.names();
        for name in &names {
            self.registry.withdraw(name, peer.slot);
        }
        for name in &names {
            self.refresh_one(name, None, now, out);
        }
        let title = worker.title();
        let unsent: Set<RunId> = unsent.iter().copied().collect();
        for slot in worker.in_hand {
            let Place::Running { run, .. } = self.calls[slot as usize].place else { continue };
            self.calls[slot as usize].place = Place::Waiting;
            self.lost(now, slot, &title, unsent.contains(&run), out);
        }
    }

    /// Decides about one run whose worker is gone.
    fn lost(
        &mut self,
        now: Time,
        slot: u32,
        worker: &str,
        never_sent: bool,
        out: &mut Out<Output>,
    ) {
        let call = &mut self.calls[slot as usize];
        if never_sent {
            call.attempt -= 1;
            return self.replace(now, slot, out);
        }
        let refusal = if !call.may_repeat {
            format!("{worker} was lost while it ran {}", call.call.fun)
        } else if call.attempt >= WORKERS_LOST {
            format!("{WORKERS_LOST} workers were lost while they ran {}", call.call.fun)
        } else {
            self.counters.moved += 1;
            return self.replace(now, slot, out);
        };
        if let Some(origin) = self.forget(slot) {
            let refusal = Refusal::new(Code::OutcomeUnknown, refusal);
            self.done(origin, Err(Box::new(refusal)), out);
        }
    }

    /// Places a call again that was with a worker; it goes before those that never were.
    fn replace(&mut self, now: Time, slot: u32, out: &mut Out<Output>) {
        let call = &self.calls[slot as usize];
        let (demand, wait) = (call.demand, call.waits());
        if call.origin.is_none() {
            self.forget(slot);
            return;
        }
        if let Some(candidate) = self.choose(demand) {
            return self.start(now, slot, candidate, out);
        }
        if self.registry.demand(demand).candidates.is_empty() && !wait {
            return self.refuse_unplaced(slot, out);
        }
        let id = self.id(slot);
        self.registry.demand_mut(demand).line.push_front(id);
        self.announce(demand);
    }

    pub(super) fn refuse_unplaced(&mut self, slot: u32, out: &mut Out<Output>) {
        let call = &self.calls[slot as usize];
        let refusal = if call.attempt == 0 {
            self.registry.nobody(call.demand, &self.workers)
        } else {
            let message = format!("its worker was lost and nobody else offers {}", call.call.fun);
            Refusal::new(Code::OutcomeUnknown, message)
        };
        if let Some(origin) = self.forget(slot) {
            self.done(origin, Err(Box::new(refusal)), out);
        }
    }
}

/// The less loaded of two random candidates, or whichever has credit.
fn less_loaded(candidates: &[Candidate], workers: &Workers, rng: &mut Rng) -> Option<Candidate> {
    let count = candidates.len();
    let free =
        |candidate: &Candidate| workers.get(candidate.worker).filter(|worker| worker.has_credit());
    if count <= 1 {
        return candidates.first().copied().filter(|candidate| free(candidate).is_some());
    }
    let first = rng.below(count);
    let second = (first + 1 + rng.below(count - 1)) % count;
    let (a, b) = (candidates[first], candidates[second]);
    match (free(&a), free(&b)) {
        (Some(x), Some(y)) => Some(if y.less_loaded_than(x) { b } else { a }),
        (Some(_), None) => Some(a),
        (None, Some(_)) => Some(b),
        (None, None) => {
            let rotated = candidates[first..].iter().chain(&candidates[..first]);
            rotated.copied().find(|candidate| free(candidate).is_some())
        }
    }
}

/// Whether a call is still in line.
pub(super) fn waits(calls: &slab::Slab<Live>, id: CallId) -> bool {
    calls
        .get(id.slot as usize)
        .is_some_and(|call| call.serial == id.serial && matches!(call.place, Place::Waiting))
}

impl From<Submit> for Input {
    fn from(submit: Submit) -> Self {
        Self::Call(submit)
    }
}
