//! `mpreg.topic.next`: somebody waits for the next events of a pattern.

use std::sync::Arc;

use smol_str::SmolStr;

use super::describe::write_event;
use super::subscribers::Target;
use super::{Output, Timer, Topics};
use crate::base::limits::REPLY_PART_BYTES;
use crate::base::{Code, Origin, Out, Refusal, Time, TimerId, WaitId};
use crate::expr::Expression;
use crate::names::{Pattern, PatternId};
use crate::ops::Event;
use crate::values::{Body, Frames, Kind, Value};

/// What somebody waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitAsk {
    /// Events of these topics.
    pub pattern: Pattern,
    /// In CEL, on `payload`, `headers` and `topic`; none takes every event.
    pub condition: Option<SmolStr>,
    /// How many; the answer is then an array. None is one, by itself.
    pub count: Option<u32>,
    /// How long after the last of them the answer is given, milliseconds.
    pub delay_ms: u64,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) id: WaitId,
    pub(super) place: u32,
    pattern: PatternId,
    origin: Origin,
    condition: Option<Expression>,
    count: Option<u32>,
    delay_ms: u64,
    got: Vec<(u64, Arc<Event>)>,
    bytes: usize,
    timer: TimerId,
    state: State,
}

/// How far a wait is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More events are to come.
    Open,
    /// All are there; the answer leaves at the end of what is going on.
    Met,
    /// All are there; the answer waits for its delay.
    Delayed,
    /// What came does not fit into an answer.
    Overfull,
}

impl Topics {
    pub(super) fn wait(
        &mut self,
        now: Time,
        origin: Origin,
        ask: WaitAsk,
        deadline_ns: u64,
        out: &mut Out<Output>,
    ) {
        let read = |text: &str| Expression::read("where", text);
        let condition = match ask.condition.as_deref().map(read).transpose() {
            Ok(condition) => condition,
            Err(refusal) => return out.push(Output::Done { origin, outcome: Err(refusal) }),
        };
        if self.waits.len() >= self.limits.calls {
            let message = format!("{} wait already", self.waits.len());
            let outcome = Err(Refusal::new(Code::Busy, message));
            return out.push(Output::Done { origin, outcome });
        }
        let slot = self.waits.vacant_key() as u32;
        let id = WaitId { slot, serial: self.next_serial() };
        let (pattern, place) = self.attach(&ask.pattern, Target::Wait(slot));
        let timer = self.deadlines.set(deadline_ns.max(now.mono_ns), Timer::Wait(id));
        self.waits.insert(Wait {
            id,
            place,
            pattern,
            origin,
            condition,
            count: ask.count,
            delay_ms: ask.delay_ms,
            got: Vec::new(),
            bytes: 0,
            timer,
            state: State::Open,
        });
        out.push(Output::Begun { origin, wait: id });
    }

    /// An event for somebody who waits.
    pub(super) fn hand_wait(&mut self, now: Time, at: u32, seq: u64, event: Arc<Event>) {
        let Some(wait) = self.waits.get_mut(at as usize) else { return };
        if wait.state != State::Open {
            return;
        }
        if let Some(condition) = &wait.condition {
            self.budget = self.budget.saturating_sub(condition.cost(&event));
            if !condition.holds(&event, &mut self.seen) {
                return;
            }
        }
        wait.bytes += event.bytes();
        wait.got.push((seq, event));
        if wait.bytes > REPLY_PART_BYTES && wait.got.len() > 1 {
            wait.state = State::Overfull;
            self.met.push(at);
        } else if wait.got.len() as u32 == wait.count.unwrap_or(1) {
            wait.state = if wait.delay_ms == 0 { State::Met } else { State::Delayed };
            if wait.delay_ms == 0 {
                return self.met.push(at);
            }
            let (id, due_ns) = (wait.id, now.mono_ns + wait.delay_ms * 1_000_000);
            let over =
                std::mem::replace(&mut wait.timer, self.deadlines.set(due_ns, Timer::Wait(id)));
            self.deadlines.cancel(over);
        }
    }

    /// Answers those whose last event has come, once nobody goes over the tables any more.
    pub(super) fn finish_waits(&mut self, out: &mut Out<Output>) {
        while let Some(at) = self.met.pop() {
            let timer = self.waits[at as usize].timer;
            self.deadlines.cancel(timer);
            self.answer(at, out);
        }
    }

    /// A deadline has passed: of the wait, or of the delay behind what was waited for.
    pub(super) fn wait_due(&mut self, id: WaitId, out: &mut Out<Output>) {
        if self.waits.get(id.slot as usize).is_some_and(|wait| wait.id == id) {
            self.answer(id.slot, out);
        }
    }

    fn answer(&mut self, at: u32, out: &mut Out<Output>) {
        let Some(wait) = self.take_wait(at) else { return };
        let outcome = match wait.state {
            State::Open => {
                let message = format!(
                    "{} of {} events came in time",
                    wait.got.len(),
                    wait.count.unwrap_or(1)
                );
                Err(Refusal::new(Code::Timeout, message))
            }
            State::Overfull => {
                let message =
                    format!("{} events are over {REPLY_PART_BYTES} bytes", wait.got.len());
                Err(Refusal::new(Code::ResultTooLarge, message))
            }
            State::Met | State::Delayed => wait.body(),
        };
        out.push(Output::Done { origin: wait.origin, outcome });
    }

    fn take_wait(&mut self, at: u32) -> Option<Wait> {
        let wait = self.waits.try_remove(at as usize)?;
        self.detach(wait.pattern, wait.place);
        Some(wait)
    }

    pub(super) fn cancel_wait(&mut self, id: WaitId, out: &mut Out<Output>) {
        if self.waits.get(id.slot as usize).is_none_or(|wait| wait.id != id) {
            return;
        }
        let Some(wait) = self.take_wait(id.slot) else { return };
        self.deadlines.cancel(wait.timer);
        let outcome = Err(Refusal::new(Code::Cancelled, "the wait was given up"));
        out.push(Output::Done { origin: wait.origin, outcome });
    }

    pub(super) fn end_waits(&mut self, out: &mut Out<Output>) {
        let open: Vec<u32> = self.waits.iter().map(|(at, _)| at as u32).collect();
        for at in open {
            let Some(wait) = self.take_wait(at) else { continue };
            self.deadlines.cancel(wait.timer);
            out.push(Output::Done { origin: wait.origin, outcome: Err(Refusal::cut_off(false)) });
        }
    }
}

impl Wait {
    /// One event, or an array of them.
    fn body(&self) -> Result<Body, Refusal> {
        let bytes = self.got.iter().any(|(_, event)| event.payload.kind == Kind::Bytes);
        let (mut out, mut frames) = (Vec::new(), Frames::new());
        let array = self.count.is_some();
        if array {
            out.push(b'[');
        }
        for (index, (seq, event)) in self.got.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_event(event, *seq, bytes, &mut out, &mut frames)
                .map_err(|fault| fault.refusal())?;
        }
        if array {
            out.push(b']');
        }
        Ok(Body { value: Value::json(out), frames })
    }
}
