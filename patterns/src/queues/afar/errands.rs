//! Calls about queues that other brokers keep: they are asked, and their answer is the outcome.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Afar, Hand, Output};
use crate::base::{Code, Origin, Out, PeerId, Refusal, RunId, Time, TimerId, WaitId};
use crate::ops::{Call, Reply, Run};
use crate::queues::Holder;
use crate::values::Body;

/// A call about a queue.
#[derive(Debug)]
pub struct Errand {
    /// Whose outcome it is.
    pub origin: Origin,
    /// The call, of one of the broker's own functions.
    pub call: Arc<Call>,
    /// The broker that keeps the queue.
    pub home: SmolStr,
    /// Who is to have the message in hand that the call takes, if it takes one.
    pub taker: Option<Holder>,
    /// Monotonic nanoseconds after which nobody waits for it.
    pub deadline_ns: u64,
}

/// One that has no answer yet.
#[derive(Debug)]
pub(super) struct UnderWay {
    wait: WaitId,
    errand: Errand,
    run: RunId,
    /// None once nobody waits for it: then only what it has taken counts.
    timer: Option<TimerId>,
}

impl Afar {
    /// Asks the broker that keeps a queue.
    pub fn errand(&mut self, now: Time, errand: Errand, out: &mut Out<Output>) {
        let home = self.homes.get(&errand.home).copied();
        self.serial = self.serial.wrapping_add(1);
        let wait = WaitId { slot: self.errands.vacant_key() as u32, serial: self.serial };
        let timer = Some(self.deadlines.set(errand.deadline_ns.max(now.mono_ns), wait));
        let run = self.ids.next(now);
        out.push(Output::Begun { origin: errand.origin, wait });
        self.runs.insert(run, wait.slot);
        self.errands.insert(UnderWay { wait, errand, run, timer });
        if let Some(home) = home {
            self.set_out(now, wait.slot, home, out);
        }
    }

    fn set_out(&self, now: Time, slot: u32, home: PeerId, out: &mut Out<Output>) {
        let Some(under_way) = self.errands.get(slot as usize) else { return };
        let left_ns = under_way.errand.deadline_ns.saturating_sub(now.mono_ns);
        let (id, call) = (under_way.run, under_way.errand.call.clone());
        let run = Run { id, call, deadline_ms: (left_ns / 1_000_000).max(1), attempt: 1 };
        out.push(Output::Send { to: home, reply: Reply::Call(run) });
    }

    /// A broker can be reached: what waits for its messages asks it, again if need be.
    pub(super) fn send_again(
        &self,
        now: Time,
        node: &SmolStr,
        home: PeerId,
        out: &mut Out<Output>,
    ) {
        let waiting = self.errands.iter().filter(|(_, of)| of.errand.home == *node);
        for slot in waiting.map(|(slot, _)| slot as u32).collect::<Vec<_>>() {
            self.set_out(now, slot, home, out);
        }
    }

    /// A broker was lost. Whoever waits for a message goes on: nothing has been done for it.
    pub(super) fn errands_lost(&mut self, node: &SmolStr, why: &Refusal, out: &mut Out<Output>) {
        let lost = self.errands.iter().filter(|(_, of)| {
            of.errand.home == *node && (of.errand.taker.is_none() || of.timer.is_none())
        });
        for slot in lost.map(|(slot, _)| slot as u32).collect::<Vec<_>>() {
            self.back(slot, Err(Box::new(why.clone())), out);
        }
    }

    /// A broker's answer to a call. Gives it back where the call was another system's.
    pub fn answered(
        &mut self,
        from: PeerId,
        run: RunId,
        body: Box<Body>,
        out: &mut Out<Output>,
    ) -> Option<Box<Body>> {
        let Some(&slot) = self.runs.get(&run) else { return Some(body) };
        let Some(under_way) = self.errands.get(slot as usize) else { return Some(body) };
        if let Some(holder) = under_way.errand.taker
            && let Some(id) = taken(&body)
        {
            if under_way.timer.is_none() {
                Self::give_back(from, vec![id], None, out);
            } else {
                let hand = Hand { home: from, holder: Some(holder), of: None, delivered: None };
                self.hands.insert(id, hand);
                self.held.entry(holder).or_default().insert(id);
            }
        }
        self.back(slot, Ok(body), out);
        None
    }

    pub(super) fn errand_refused(
        &mut self,
        run: RunId,
        why: &Refusal,
        out: &mut Out<Output>,
    ) -> bool {
        let Some(&slot) = self.runs.get(&run) else { return false };
        self.back(slot, Err(Box::new(why.clone())), out);
        true
    }

    /// It is over: whoever waits still has the outcome.
    fn back(&mut self, slot: u32, outcome: Result<Box<Body>, Box<Refusal>>, out: &mut Out<Output>) {
        let Some(under_way) = self.errands.try_remove(slot as usize) else { return };
        self.runs.remove(&under_way.run);
        if let Some(timer) = under_way.timer {
            self.deadlines.cancel(timer);
            out.push(Output::Done { origin: under_way.errand.origin, outcome });
        }
    }

    /// Somebody does not wait any longer.
    pub fn give_up(&mut self, wait: WaitId, out: &mut Out<Output>) {
        let Some(under_way) = self.errands.get_mut(wait.slot as usize) else { return };
        if under_way.wait == wait
            && let Some(timer) = under_way.timer.take()
        {
            self.deadlines.cancel(timer);
            self.abandon(wait, Refusal::new(Code::Cancelled, "the wait was given up"), out);
        }
    }

    pub(super) fn errand_due(&mut self, wait: WaitId, out: &mut Out<Output>) {
        let Some(under_way) = self.errands.get_mut(wait.slot as usize) else { return };
        if under_way.wait == wait && under_way.timer.take().is_some() {
            let message = match under_way.errand.taker {
                Some(_) => "no message came in time",
                None => "the broker that keeps the queue did not answer in time",
            };
            self.abandon(wait, Refusal::new(Code::Timeout, message), out);
        }
    }

    /// Nobody waits any longer. The other broker has the last word: it may have taken a message.
    fn abandon(&mut self, wait: WaitId, why: Refusal, out: &mut Out<Output>) {
        let Some(under_way) = self.errands.get(wait.slot as usize) else { return };
        let (origin, run) = (under_way.errand.origin, under_way.run);
        out.push(Output::Done { origin, outcome: Err(Box::new(why)) });
        match self.homes.get(&under_way.errand.home) {
            Some(&to) => out.push(Output::Send { to, reply: Reply::Cancel { run } }),
            None => {
                self.errands.remove(wait.slot as usize);
                self.runs.remove(&run);
            }
        }
    }

    /// The broker goes down: whoever waits hears so.
    pub fn end(&mut self, out: &mut Out<Output>) {
        let waiting: Vec<u32> = self.errands.iter().map(|(slot, _)| slot as u32).collect();
        for slot in waiting {
            self.back(slot, Err(Box::new(Refusal::cut_off(true))), out);
        }
    }
}

/// The delivery that an answer of `mpreg.queue.next` names.
fn taken(body: &Body) -> Option<RunId> {
    #[derive(serde::Deserialize)]
    struct Taken<'a> {
        #[serde(borrow)]
        id: std::borrow::Cow<'a, str>,
    }
    let taken: Taken<'_> = serde_json::from_slice(&body.value.bytes).ok()?;
    RunId::parse(&taken.id)
}
