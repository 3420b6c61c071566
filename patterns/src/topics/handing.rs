//! How an event gets to everybody who wants it, over as many turns as that takes.
//!
//! One event is on its way at a time; those behind it wait and are not looked up before. It goes
//! to who was there when it was looked up, pattern by pattern: who came since hears what comes
//! next. A call that waits for an event gets none that was taken before it asked.

use std::collections::VecDeque;
use std::sync::Arc;

use super::subscribers::Target;
use super::{Broadcast, Output, Publisher, Topics};
use crate::base::limits::DELIVERIES_WAITING;
use crate::base::{Code, Out, Refusal, RunId, Set, Time};
use crate::names::PatternId;
use crate::ops::Event;

/// Nodes and shapes a topic is held against for the price of one delivery.
const LOOKS_PER_DELIVERY: usize = 16;

/// A delivery that waits for its turn.
#[derive(Debug)]
pub(super) struct Due {
    target: Target,
    serial: u32,
    pub(super) seq: u64,
    pub(super) event: Arc<Event>,
}

/// What is being handed on, and what waits behind it.
#[derive(Debug, Default)]
pub(super) struct Handing {
    /// The event, while patterns are left.
    event: Option<Arc<Event>>,
    /// The patterns it matches, and how many of them are through.
    found: Vec<PatternId>,
    through: usize,
    /// The last that had come when the event was taken.
    taken_at: u32,
    /// Those that came to a pattern meanwhile.
    newcomers: Set<u32>,
    /// Who else holds the pattern that comes next to last.
    line: VecDeque<Due>,
    /// Events that were taken and not yet looked up, and who had come last by then.
    backlog: VecDeque<(Publisher, Arc<Event>, u32)>,
    /// What one event has cost lately, in deliveries.
    usual_cost: usize,
}

impl Handing {
    /// Whether there is anything to go on with.
    pub(super) fn is_busy(&self) -> bool {
        self.event.is_some() || !self.line.is_empty() || !self.backlog.is_empty()
    }

    /// Deliveries that wait, about.
    fn waiting(&self) -> usize {
        let left = self.found.len() - self.through;
        left + self.line.len() + self.backlog.len() * self.usual_cost.max(1)
    }

    /// Whether the event that was looked up matches a pattern.
    pub(super) fn found(&self, pattern: PatternId) -> bool {
        self.found.contains(&pattern)
    }

    /// Somebody came who wants events from the next on.
    pub(super) fn came(&mut self, serial: u32) {
        if self.event.is_some() {
            self.newcomers.insert(serial);
        }
    }
}

impl Topics {
    /// Whether events wait that were taken: it is too early to take more where none has to be.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.handing.is_busy()
    }

    /// Takes an event, and hands it on at once if it is its turn.
    pub(super) fn publish(
        &mut self,
        now: Time,
        by: Publisher,
        mut event: Arc<Event>,
        out: &mut Out<Output>,
    ) {
        let at_once = self.budget > 0 && !self.is_behind();
        if !at_once && self.handing.waiting() >= DELIVERIES_WAITING {
            self.counters.refused += 1;
            let message = format!("{DELIVERIES_WAITING} deliveries wait for their turn");
            let outcome = Err(Refusal::new(Code::Busy, message));
            return out.push(Output::Published { by, outcome });
        }
        if event.message == RunId(0) {
            // Nobody else has it yet, so nothing is copied.
            Arc::make_mut(&mut event).message = self.ids.next(now);
        }
        self.counters.published += 1;
        let taken_at = self.serial;
        if at_once {
            self.look_up(now, by, event, taken_at, out);
        } else if let Publisher::Origin(_) = by {
            // The call might be given up before its event's turn: it hears at once.
            out.push(Output::Published { by, outcome: Ok(event.message) });
            self.handing.backlog.push_back((Publisher::Broker, event, taken_at));
        } else {
            self.handing.backlog.push_back((by, event, taken_at));
        }
    }

    /// Goes on with events that were taken, as far as this turn goes.
    pub(super) fn hand_on(&mut self, now: Time, out: &mut Out<Output>) {
        while self.budget > 0 {
            if let Some(due) = self.handing.line.pop_front() {
                self.budget -= 1;
                self.hand(now, due, out);
                self.finish_waits(out);
            } else if self.handing.event.is_some() {
                self.hand_patterns(now, out);
            } else if let Some((by, event, taken_at)) = self.handing.backlog.pop_front() {
                self.look_up(now, by, event, taken_at, out);
            } else {
                return;
            }
        }
    }

    /// Finds who wants an event, keeps it where it is to be kept, and begins to hand it on.
    fn look_up(
        &mut self,
        now: Time,
        by: Publisher,
        event: Arc<Event>,
        taken_at: u32,
        out: &mut Out<Output>,
    ) {
        let (message, handing) = (event.message, &mut self.handing);
        handing.taken_at = taken_at;
        let looks = self.index.matches(&event.topic, &mut handing.found) / LOOKS_PER_DELIVERY;
        handing.usual_cost = (handing.usual_cost * 7 + looks + handing.found.len()).div_ceil(8);
        self.budget = self.budget.saturating_sub(looks);
        self.keep_event(now, &event);
        self.handing.event = Some(event);
        self.hand_patterns(now, out);
        if by.listens() {
            out.push(Output::Published { by, outcome: Ok(message) });
        }
    }

    /// Goes on with one event, pattern by pattern.
    fn hand_patterns(&mut self, now: Time, out: &mut Out<Output>) {
        while let Some(&pattern) = self.handing.found.get(self.handing.through) {
            if self.budget == 0 || !self.handing.line.is_empty() {
                return;
            }
            self.handing.through += 1;
            // The last one gets it without a count of its own: an event often has one taker.
            let is_last = self.handing.through == self.handing.found.len();
            let event = &mut self.handing.event;
            let Some(event) = (if is_last { event.take() } else { event.clone() }) else { break };
            self.hand_holders(now, pattern, event, out);
        }
        let handing = &mut self.handing;
        (handing.event, handing.through) = (None, 0);
        handing.found.clear();
        if !handing.newcomers.is_empty() {
            handing.newcomers.clear();
        }
    }

    fn hand_holders(
        &mut self,
        now: Time,
        pattern: PatternId,
        event: Arc<Event>,
        out: &mut Out<Output>,
    ) {
        let targets = self.held[pattern.0 as usize].targets.len();
        let (mut seq, mut event) = (None, Some(event));
        for at in 0..targets {
            let held = &self.held[pattern.0 as usize];
            let (target, next) = (held.targets[at], held.seq + 1);
            let serial = self.serial_of(target);
            if serial.is_some_and(|serial| self.is_newcomer(target, serial)) {
                continue;
            }
            let seq = *seq.get_or_insert(next);
            self.held[pattern.0 as usize].seq = seq;
            let Some(serial) = serial else { continue };
            let taken = if at + 1 == targets { event.take() } else { event.clone() };
            let Some(event) = taken else { break };
            let due = Due { target, serial, seq, event };
            if self.handing.line.is_empty() && self.budget > 0 {
                self.budget -= 1;
                self.hand(now, due, out);
            } else if !self.reads_log(target) {
                self.handing.line.push_back(due);
            } else if let Target::Peer(subscription) = target {
                self.fall_behind(subscription);
            }
        }
        self.finish_waits(out);
    }

    /// Whether a target came after the event that is handed on.
    fn is_newcomer(&self, target: Target, serial: u32) -> bool {
        if matches!(target, Target::Wait(_)) {
            // By how many came since then: serials begin anew one day.
            let since = self.serial.wrapping_sub(self.handing.taken_at);
            return self.serial.wrapping_sub(serial) < since;
        }
        let newcomers = &self.handing.newcomers;
        !newcomers.is_empty() && newcomers.contains(&serial)
    }

    /// Hands one event to one of those who want it.
    fn hand(&mut self, now: Time, due: Due, out: &mut Out<Output>) {
        if self.serial_of(due.target) != Some(due.serial) {
            return;
        }
        match due.target {
            Target::Peer(subscription) => self.hand_peer(now, subscription, due, out),
            Target::Text(listener) => {
                let Some(listener) = self.listeners.get(listener as usize) else { return };
                let seq = listener.headers.then_some(due.seq);
                let (text, event) = (listener.text.clone(), due.event);
                self.counters.delivered += 1;
                out.push(Output::Broadcast(Broadcast { text, seq, event }));
            }
            Target::Wait(wait) => self.hand_wait(now, wait, due.seq, due.event),
            Target::Log(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Input, Retain};
    use super::*;
    use crate::base::limits::DELIVERIES_PER_TURN;
    use crate::base::{Limits, PeerId, RunId};
    use crate::names::{Key, Pattern};
    use crate::ops::{Replay, Subscribe};
    use crate::values::Value;

    const WORDS: u32 = 13;
    /// All patterns that match the topic below with `*` and `a` alone: two turns' worth.
    const PATTERNS: usize = 1 << WORDS;

    struct Rig {
        topics: Topics,
        now: Time,
        told: Vec<String>,
    }

    impl Rig {
        fn new() -> Self {
            let pattern = Pattern::parse("a.#").unwrap();
            let (max_age_ms, max_count, max_bytes) = (1_000, 10, 10_000);
            let keep = Retain { pattern, max_age_ms, max_count, max_bytes, stored: false };
            let topics = Topics::new(Limits::default(), &[keep], 7);
            Self { topics, now: Time { mono_ns: 1, wall_ms: 1 }, told: Vec::new() }
        }

        fn take(&mut self, input: Input) {
            let mut out = Out::new();
            self.topics.handle(self.now, input, &mut out);
            self.tell(out);
        }

        /// Another turn.
        fn turn(&mut self) {
            let mut out = Out::new();
            self.now.mono_ns += 1;
            self.topics.tick(self.now, &mut out);
            self.tell(out);
        }

        fn turns(&mut self) {
            while self.topics.wake_at() == Some(0) {
                self.turn();
            }
        }

        fn tell(&mut self, mut out: Out<Output>) {
            self.told.extend(out.drain().filter_map(|output| match output {
                Output::Event { to, delivery } => {
                    Some(format!("{} {} #{}", to.slot, delivery.pattern, delivery.seq))
                }
                Output::Broadcast(of) => Some(format!("socket {} #{:?}", of.text, of.seq)),
                Output::Published { outcome, .. } => Some(format!("published {}", outcome.is_ok())),
                _ => None,
            }));
        }

        fn subscribe(&mut self, slot: u32, texts: &[String], replay: Option<Replay>) {
            let peer = PeerId { slot, generation: 1 };
            let patterns = Some(Value::from_serialize(&texts));
            let ask = Subscribe { patterns, replay, ..Subscribe::default() };
            self.take(Input::Subscribe { peer, ask });
        }

        fn publish(&mut self) {
            let peer = PeerId { slot: 9, generation: 1 };
            let by = Publisher::Peer { peer, id: "p".into(), confirm: true };
            let topic = ["a"; WORDS as usize].join(".").into();
            let payload = Value::json(&b"1"[..]);
            let event = Arc::new(Event { topic, payload, headers: None, message: RunId(0) });
            self.take(Input::Publish { by, event });
        }

        /// How much was told of this sort since the last time.
        fn count(&self, what: &str) -> usize {
            self.told.iter().filter(|line| line.contains(what)).count()
        }
    }

    /// Two events that need several turns each: the second is not looked up before the first is
    /// with everybody, who came meanwhile hears the second alone, and a replay each once.
    #[test]
    fn events_go_one_behind_the_other_to_who_was_there() {
        let word = |number: usize, at: u32| if number >> at & 1 == 1 { "*" } else { "a" };
        let text = |number| (0..WORDS).map(|at| word(number, at)).collect::<Vec<_>>().join(".");
        let mut rig = Rig::new();
        rig.subscribe(1, &(0..PATTERNS).map(text).collect::<Vec<_>>(), None);
        rig.subscribe(2, &["a.#".into()], Some(Replay::All));
        rig.turns();
        rig.turn();
        rig.publish();
        rig.publish();
        // Fewer than a turn's deliveries: looking it up was paid from the same.
        let told = rig.count("1 ");
        assert!((1..DELIVERIES_PER_TURN).contains(&told), "{told} in the first turn");
        assert_eq!(rig.count("published true"), 1);
        rig.take(Input::Listen(Key::parse(b"#?headers").unwrap()));
        rig.take(Input::Listen(Key::parse(b"a.#?headers").unwrap()));
        rig.turns();
        assert_eq!((rig.count("1 "), rig.count("published true")), (2 * PATTERNS, 2));
        assert_eq!(rig.count("socket #?headers #Some(1)"), 1);
        assert_eq!(rig.count("socket a.#?headers #Some(2)"), 1);
        let replay: Vec<_> = rig.told.iter().filter(|line| line.starts_with("2 ")).collect();
        assert_eq!(replay, ["2 a.# #1", "2 a.# #2"]);
        assert!(!rig.topics.is_behind() && rig.topics.handing.newcomers.is_empty());
    }
}
