//! Deliveries: to whom, when, in which order, and what was said of each.

use mpreg_patterns::base::{PeerId, RunId, Time};
use mpreg_patterns::ops::{Delivered, Settle, Verdict};
use mpreg_patterns::queues::{Kind, WhenFull};
use serde_json::Value as Json;

use super::queues::{Name, Queues};
use crate::peers::MS;
use crate::store::Store;

/// A lease may end this long after its time: ticks are a millisecond wide.
const LATE_NS: u64 = 20_000_000;

/// A message for one group.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// Whoever had it in hand said that it is done, in this life of the broker and its store.
    done: bool,
    /// It is a dead letter.
    dead: bool,
    /// The broker has said that it knows one or the other.
    sure: bool,
    /// Somebody said once that it is done, and may have been heard.
    perhaps: bool,
    lease: Option<u128>,
    /// Of the last delivery, in this life, and whether it never left.
    attempt: Option<u32>,
    returned: bool,
    /// It was a dead letter, so it may stand elsewhere than where it was sent.
    moved: bool,
    /// It comes no earlier than this.
    due_ms: u64,
}

impl Copy {
    /// Whether all is over with it, so that nothing of it needs to be on the disk.
    pub(super) const fn ended(&self) -> bool {
        self.done || self.perhaps
    }
}

/// A delivery in somebody's hands.
#[derive(Debug)]
pub(super) struct Lease {
    peer: PeerId,
    name: Name,
    message: u128,
    group: String,
    ends_ns: u64,
    /// It may be in hand until then.
    late_ns: u64,
}

/// What was said of deliveries, and of which it should be so.
#[derive(Debug)]
pub(super) struct Settled {
    verdict: Verdict,
    held: Vec<(u128, Name, u128, String)>,
    /// Their leases were about to end, or had just ended.
    perhaps: Vec<u128>,
    unknown: Vec<u128>,
}

impl Queues {
    fn copy(&mut self, name: &Name, message: u128, group: &str) -> &mut Copy {
        let sent = self.sent.get_mut(name).expect("it was sent");
        let message = sent.messages.get_mut(&message).expect("it is bound");
        message.copies.entry(group.to_owned()).or_default()
    }

    /// A message leaves for a consumer.
    pub(super) fn delivers(&mut self, now: Time, to: PeerId, told: &Delivered) {
        self.tally.delivered += 1;
        self.lapse(now);
        let queue = self.queue(&told.queue);
        let event = &told.message.event;
        let name = (queue, String::from_utf8_lossy(&event.payload.bytes).into_owned());
        self.bind(&name, event.message);
        let taker = self.takers.get(&(to, queue));
        let taker = taker.unwrap_or_else(|| panic!("{to} does not consume, and gets {name:?}"));
        let (group, credit) = (taker.group.clone(), taker.credit as usize);
        let hands = self.leases.values().filter(|lease| lease.ends_ns > now.mono_ns);
        let mut in_hand = 0;
        for lease in hands.filter(|lease| lease.name.0 == queue) {
            in_hand += usize::from(lease.peer == to);
            let twice = lease.message == event.message.0 && lease.group == group;
            assert!(!twice, "{name:?} is in the hands of {} already", lease.peer);
        }
        assert!(in_hand < credit, "{to} has {in_hand} of {credit} and gets {name:?}");
        self.in_time(now, &name, told);
        self.in_order(now, &name, &group, told);
        let loose = self.is_redriving(queue);
        let settings = &self.plans[queue].settings;
        // Some die without a word to anybody, and are sent again.
        let dies = settings.ttl_ms.is_some() || settings.when_full == WhenFull::DeadLetter;
        let anew = dies && self.redrove.contains(&queue) && told.attempt == 1;
        let settings = &self.plans[queue].settings;
        let (max_attempts, lease_ms) = (settings.max_attempts, settings.lease_ms);
        let copy = self.copy(&name, event.message.0, &group);
        assert!(!copy.done, "{name:?} is done, and comes again: {copy:?}");
        assert!(!copy.dead || loose, "{name:?} is a dead letter, and comes again: {copy:?}");
        assert!(copy.dead || now.wall_ms >= copy.due_ms, "{name:?} is to wait: {copy:?}");
        let attempt = told.attempt;
        let goes_on = match copy.attempt {
            Some(last) => attempt == last + 1 || copy.returned && attempt == last,
            None => true,
        } || copy.dead
            || anew;
        if std::mem::take(&mut copy.dead) {
            (copy.sure, copy.due_ms) = (false, 0);
        }
        assert!(
            goes_on && (1..=max_attempts).contains(&attempt),
            "{attempt} of {told:?}: {copy:?}"
        );
        let again = copy.attempt.is_some();
        (copy.attempt, copy.returned) = (Some(attempt), false);
        copy.lease = Some(told.id.0);
        self.tally.duplicated += u64::from(again);
        let ends_ns = now.mono_ns + lease_ms * MS;
        let late_ns = ends_ns + LATE_NS;
        let lease = Lease { peer: to, name, message: event.message.0, group, ends_ns, late_ns };
        let twice = self.leases.insert(told.id.0, lease);
        assert!(twice.is_none(), "a delivery's id is used twice");
    }

    /// It is due, and worth something still.
    fn in_time(&self, now: Time, name: &Name, told: &Delivered) {
        let sent = &self.sent[name];
        // Of one that is sent again, and of one that was dead, it is not known since when.
        if sent.messages.len() == 1 && told.message.expires_ms.is_some() {
            let worth = sent.expires_ms.is_none_or(|at_ms| now.wall_ms < at_ms);
            assert!(worth, "{name:?} has outlived its time");
        }
        // A dead letter that is sent again is ready at once.
        let full = self.plans[name.0].settings.when_full == WhenFull::DeadLetter;
        let revived = full && self.redrove.contains(&name.0);
        assert!(revived || now.wall_ms >= sent.due_ms, "{name:?} comes before its time");
        assert_eq!(told.message.key, sent.options.key, "{name:?} has another key");
        assert_eq!(told.message.priority, sent.options.priority, "{name:?} has another priority");
    }

    /// What was sent before it has come before it, and nothing else of its key is on its way.
    fn in_order(&mut self, now: Time, name: &Name, group: &str, told: &Delivered) {
        let message = told.message.event.message.0;
        let sent = &self.sent[name];
        let copy = sent.messages[&message].copies.get(group);
        let first = copy.is_none_or(|copy| copy.attempt.is_none()) && told.attempt == 1;
        let key = told.message.key.as_ref().map(ToString::to_string);
        let settings = &self.plans[name.0].settings;
        let moved = copy.is_some_and(|copy| copy.moved)
            || settings.ttl_ms.is_some()
            || settings.when_full == WhenFull::DeadLetter
            || settings.kind == Kind::Delay;
        let once = sent.options.delay_ms == 0 && sent.came == 1;
        if first && once && !moved {
            let line = (name.0, group.to_owned(), told.message.priority, key.clone());
            let last = self.last.entry(line).or_default();
            assert!(sent.at > *last, "{name:?} comes behind what was sent after it");
            *last = sent.at;
        }
        let Some(key) = key else { return };
        let line = (name.0, group.to_owned(), key);
        if let Some(owner) = self.keys.insert(line, message).filter(|owner| *owner != message) {
            let of = self.names.get(&(name.0, owner)).and_then(|name| self.sent.get(name));
            let copy = of.and_then(|sent| sent.messages[&owner].copies.get(group));
            let lease = copy.and_then(|copy| copy.lease).and_then(|id| self.leases.get(&id));
            let busy = lease.is_some_and(|lease| lease.ends_ns > now.mono_ns);
            assert!(!busy, "{name:?} comes although one of its key is in hand: {copy:?}");
        }
    }

    /// A delivery never left; `refused` if it never could.
    pub(crate) fn returned(&mut self, id: RunId, refused: bool) {
        let Some(lease) = self.leases.remove(&{ id.0 }) else { return };
        if refused {
            return self.fail(&lease);
        }
        let copy = self.copy(&lease.name, lease.message, &lease.group);
        (copy.lease, copy.returned) = (None, true);
    }

    /// A delivery left for a connection that was gone by then: it may count as an attempt.
    pub(crate) fn left_for_nobody(&mut self, told: &Delivered) {
        let message = told.message.event.message.0;
        let name = self.names.get(&(self.queue(&told.queue), message));
        let sent = name.and_then(|name| self.sent.get_mut(name));
        let Some(of) = sent.and_then(|sent| sent.messages.get_mut(&message)) else { return };
        of.copies.values_mut().for_each(|copy| (copy.attempt, copy.moved) = (None, true));
    }

    /// A delivery came to nothing.
    fn fail(&mut self, lease: &Lease) {
        let max_attempts = self.plans[lease.name.0].settings.max_attempts;
        let copy = self.copy(&lease.name, lease.message, &lease.group);
        copy.lease = None;
        copy.dead = copy.attempt >= Some(max_attempts);
        copy.moved |= copy.dead;
        let died = copy.dead;
        self.tally.dead += u64::from(died);
    }

    /// Leases have ended by their time. What is said of them in the next moment may still be heard.
    pub(super) fn lapse(&mut self, now: Time) {
        let ended = self.leases.iter().filter(|(_, lease)| lease.ends_ns <= now.mono_ns);
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            let lease = self.leases.remove(&id).expect("it is there");
            if self.copy(&lease.name, lease.message, &lease.group).lease == Some(id) {
                self.fail(&lease);
            }
            if lease.late_ns > now.mono_ns {
                self.leases.insert(id, lease);
            }
        }
    }

    /// Somebody says what became of deliveries.
    pub(super) fn settle(&mut self, now: Time, peer: PeerId, settle: &Settle) -> Settled {
        self.lapse(now);
        let Settle { ids, verdict, .. } = settle;
        let mut settled = Settled {
            verdict: verdict.clone(),
            held: Vec::new(),
            perhaps: Vec::new(),
            unknown: Vec::new(),
        };
        for id in ids.iter().map(|id| id.0) {
            let lease = self.leases.get_mut(&id).filter(|lease| lease.peer == peer);
            let Some(lease) = lease else {
                settled.unknown.push(id);
                continue;
            };
            let in_time = lease.ends_ns > now.mono_ns;
            let late = !in_time && lease.late_ns > now.mono_ns;
            let what = (id, lease.name.clone(), lease.message, lease.group.clone());
            if late {
                settled.perhaps.push(id);
            } else if !in_time {
                settled.unknown.push(id);
                continue;
            }
            if *verdict == Verdict::Extend {
                let lease_ms = self.plans[lease.name.0].settings.lease_ms;
                let ends_ns = now.mono_ns + lease_ms * MS;
                lease.late_ns = ends_ns + LATE_NS;
                if in_time {
                    lease.ends_ns = ends_ns;
                }
            } else {
                self.leases.remove(&id);
                self.say(now, &what, verdict, late);
            }
            settled.held.push(what);
        }
        settled
    }

    fn say(
        &mut self,
        now: Time,
        (id, name, message, group): &(u128, Name, u128, String),
        verdict: &Verdict,
        late: bool,
    ) {
        let (max_attempts, backoff_ms) = {
            let settings = &self.plans[name.0].settings;
            (settings.max_attempts, settings.backoff_ms)
        };
        let copy = self.copy(name, *message, group);
        if copy.lease.take_if(|lease| lease == id).is_none() {
            // It ended by its time, and somebody else may have it already; or this was in time.
            copy.perhaps |= *verdict == Verdict::Ack;
            (copy.attempt, copy.moved, copy.due_ms) = (None, true, 0);
            return;
        }
        match verdict {
            Verdict::Ack => (copy.done, copy.perhaps) = (!late, true),
            _ if late => {}
            Verdict::Nack { dead, delay_ms, .. } => {
                let attempt = copy.attempt.unwrap_or(0);
                copy.dead = *dead || attempt >= max_attempts;
                copy.moved |= copy.dead;
                let doubled = backoff_ms << attempt.saturating_sub(1).min(20);
                copy.due_ms = now.wall_ms + delay_ms.unwrap_or(doubled - doubled / 5);
                let died = copy.dead;
                self.tally.dead += u64::from(died);
            }
            Verdict::Extend => {}
        }
    }

    /// The broker says of which it is so.
    pub(super) fn acked(
        &mut self,
        settled: Settled,
        ids: &[RunId],
        unknown: &[RunId],
        store: &Store,
    ) {
        let Settled { verdict, held, perhaps, unknown: strange } = settled;
        for id in ids.iter().map(|id| id.0) {
            let was_held = held.iter().any(|(of, ..)| *of == id);
            assert!(was_held, "{} was not in hand", RunId(id));
        }
        for id in unknown.iter().map(|id| id.0) {
            let may_be = strange.contains(&id) || perhaps.contains(&id);
            assert!(may_be, "{} was in hand", RunId(id));
        }
        assert_eq!(ids.len() + unknown.len(), held.len() + strange.len(), "all have an answer");
        let is_ack = verdict == Verdict::Ack;
        let rejects = matches!(verdict, Verdict::Nack { dead: true, .. });
        for (id, name, message, group) in held {
            if !(is_ack || rejects) || !ids.contains(&RunId(id)) {
                continue;
            }
            let stored = self.plans[name.0].is_stored();
            let queue = self.plans[name.0].name;
            // A dead letter may have been sent again before the disk knew that it was one.
            let redrove = self.redrove.contains(&name.0);
            let copy = self.copy(&name, message, &group);
            copy.done |= is_ack;
            copy.sure |= is_ack || copy.dead;
            if stored && (is_ack || !redrove) {
                let kept = store.copies(RunId(message));
                let alive = kept
                    .iter()
                    .find(|(of, line, dead)| of == queue && *line == group && (is_ack || !dead));
                assert!(alive.is_none(), "{name:?} is said to be over, and is on disk: {alive:?}");
            }
            self.tally.acked += u64::from(is_ack);
        }
    }

    /// A consumer is lost: what it had in hand is ready at once.
    pub(super) fn lose(&mut self, peer: PeerId) {
        let held = self.leases.iter().filter(|(_, lease)| lease.peer == peer);
        for id in held.map(|(id, _)| *id).collect::<Vec<_>>() {
            let lease = self.leases.remove(&id).expect("it is there");
            self.fail(&lease);
        }
    }

    /// Nothing that was not confirmed of what is stored is known any more.
    pub(super) fn void(&mut self) {
        let plans = &self.plans;
        self.leases.retain(|_, lease| !plans[lease.name.0].is_stored());
        self.last.retain(|(queue, ..), _| !plans[*queue].is_stored());
        self.keys.retain(|(queue, ..), _| !plans[*queue].is_stored());
        for ((queue, _), sent) in &mut self.sent {
            if !plans[*queue].is_stored() {
                continue;
            }
            let most = Some(plans[*queue].settings.max_attempts);
            for copy in sent.messages.values_mut().flat_map(|of| of.copies.values_mut()) {
                // It may have died a moment ago.
                copy.moved |= copy.attempt >= most;
                copy.done &= copy.sure;
                copy.dead &= copy.sure;
                (copy.lease, copy.attempt, copy.due_ms) = (None, None, 0);
            }
        }
    }

    /// What is ready or delayed is about to be thrown away, and somebody is told.
    pub(super) fn purged(&mut self, queue: usize) {
        for (_, sent) in self.sent.iter_mut().filter(|((of, _), _)| *of == queue) {
            sent.messages.values_mut().for_each(|message| message.excused = true);
            // What has no ULID yet is excused once it has one.
            sent.purged = true;
        }
    }

    /// Dead letters may be sent again.
    pub(super) fn redriven(&mut self, now: Time, queue: usize) {
        self.lapse(now);
        self.revive(queue);
    }

    pub(super) fn revive(&mut self, queue: usize) {
        for (_, sent) in self.sent.iter_mut().filter(|((of, _), _)| *of == queue) {
            for copy in sent.messages.values_mut().flat_map(|of| of.copies.values_mut()) {
                if std::mem::take(&mut copy.dead) {
                    (copy.sure, copy.attempt, copy.due_ms) = (copy.done, None, 0);
                }
            }
        }
    }

    /// What the broker says of its queues, beside what is known and what the disk has.
    pub(crate) fn audit(&self, now: Time, told: &Json, store: &Store, rests: bool) {
        let rows = told["queues"].as_array().expect("rows");
        for row in rows {
            let queue = self.queue(row["queue"].as_str().expect("a name"));
            let settings = &self.plans[queue].settings;
            let number = |field: &str| row[field].as_u64().expect("a number");
            let of = || self.leases.values().filter(|lease| lease.name.0 == queue);
            let least = of().filter(|lease| lease.ends_ns > now.mono_ns).count() as u64;
            let most = of().filter(|lease| lease.late_ns > now.mono_ns).count() as u64;
            let in_flight = number("in_flight");
            assert!((least..=most).contains(&in_flight), "{least} to {most} are in hand: {row}");
            let held = number("ready") + in_flight + number("delayed");
            // What is redriven comes back without asking for room.
            let fits = held <= settings.max_count || self.redrove.contains(&queue);
            assert!(fits, "more than it may hold: {row}");
            assert!(number("dead") <= settings.max_count, "more than it may hold: {row}");
            if rests {
                let left = held + number("dead");
                assert_eq!(left, 0, "something is left: {row}");
                assert_eq!(
                    store.holds(self.plans[queue].name).0,
                    0,
                    "on disk, and not there: {row}"
                );
            }
        }
    }

    /// What a life of the broker has dropped by order.
    pub(crate) fn ended(&mut self, told: &Json) {
        for row in told["queues"].as_array().expect("rows") {
            let queue = self.queue(row["queue"].as_str().expect("a name"));
            let dropped = row["counters"]["dropped"].as_u64().expect("a number");
            *self.dropped.entry(queue).or_default() += dropped;
        }
    }
}
