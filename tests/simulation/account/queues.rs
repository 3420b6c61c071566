//! What must hold of queues, checked where inputs enter the broker and outputs leave it, and
//! against the disk itself where something is said to be safe.
//!
//! What was answered `sent` is delivered, or is a dead letter, or is still there; what was answered
//! `acked` never comes back; nothing comes that nobody sent. After a failure of the store, and
//! after the broker was killed, what was not confirmed may be so or not.

use std::collections::{BTreeMap, BTreeSet};

use mpreg_patterns::base::{Code, PeerId, Refusal, RunId, Time};
use mpreg_patterns::node::Input;
use mpreg_patterns::ops::{Call, Durability, Event, Reply, Request, Send, SendOptions, Settle};
use mpreg_patterns::queues::WhenFull;
use mpreg_patterns::store::Told;
use serde_json::Value as Json;

use super::copies::{Copy, Lease, Settled};
use crate::queues::Plan;
use crate::store::Store;

/// A message of a queue, by what was sent: sent again it is the same one.
pub(super) type Name = (usize, String);

/// What somebody waits to hear of.
#[derive(Debug)]
enum Asked {
    /// Whether it is the first of its `dedup`, and whether it names its queue.
    Send {
        name: Name,
        first: bool,
        named: bool,
    },
    Consume {
        queue: usize,
        group: String,
        credit: u32,
    },
    Settle(Settled),
    /// Of the queue whose dead letters are to be sent again, if that is what it is.
    Call(Option<usize>),
}

/// What was sent under one name.
#[derive(Debug)]
pub(super) struct Sent {
    /// When it first came, by a count of all that came.
    pub(super) at: usize,
    pub(super) options: SendOptions,
    pub(super) expires_ms: Option<u64>,
    pub(super) due_ms: u64,
    /// How often it came, and how often it may have been taken.
    pub(super) came: usize,
    times: usize,
    /// The queue was purged since.
    pub(super) purged: bool,
    /// Groups that have to have it.
    groups: BTreeSet<String>,
    /// What it is called; more than one where it was taken more than once.
    pub(super) messages: BTreeMap<u128, Message>,
}

/// One that was taken.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) confirmed: bool,
    /// It was thrown away, or cannot be read any more, and somebody was told.
    pub(super) excused: bool,
    pub(super) copies: BTreeMap<String, Copy>,
}

/// Who takes from a queue.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) group: String,
    pub(super) credit: u32,
}

/// What a simulation amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) attempted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) delivered: u64,
    pub(crate) acked: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) unexpected: u64,
    pub(crate) dead: u64,
    /// Given up by order: the oldest of a full queue, and dead letters without room.
    pub(crate) dropped: u64,
    /// Set aside by the store, since it could not be read.
    pub(crate) damaged: u64,
}

impl Verdict {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.acked += other.acked;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.unexpected += other.unexpected;
        self.dead += other.dead;
        self.dropped += other.dropped;
        self.damaged += other.damaged;
    }
}

/// The account of the queues. It outlives the broker's lives.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(super) plans: Vec<Plan>,
    open: BTreeMap<(PeerId, String), Asked>,
    /// Messages that are answered only if they are refused.
    quiet: BTreeMap<(PeerId, String), Name>,
    count: usize,
    pub(super) sent: BTreeMap<Name, Sent>,
    /// Names of what has a ULID.
    pub(super) names: BTreeMap<(usize, u128), Name>,
    pub(super) takers: BTreeMap<(PeerId, usize), Taker>,
    pub(super) leases: BTreeMap<u128, Lease>,
    /// The last that was delivered for the first time, in each line and of each priority and key.
    pub(super) last: BTreeMap<(usize, String, u8, Option<String>), usize>,
    /// Which message of a key is on its way, in each line.
    pub(super) keys: BTreeMap<(usize, String, String), u128>,
    /// What is known to be sent before, until when, and whether that is sure.
    seen: BTreeMap<(usize, String), (u64, bool)>,
    groups: BTreeMap<usize, BTreeSet<String>>,
    damaged: BTreeSet<u128>,
    /// Queues whose dead letters were sent again, and those where that may be going on although
    /// nobody waits for it.
    pub(super) redrove: BTreeSet<usize>,
    orphans: BTreeSet<usize>,
    /// Counted by the broker's lives that ended.
    pub(super) dropped: BTreeMap<usize, u64>,
    pub(crate) tally: Verdict,
}

impl Queues {
    pub(crate) fn new(plans: &[Plan]) -> Self {
        Self { plans: plans.to_vec(), ..Self::default() }
    }

    pub(super) fn queue(&self, name: &str) -> usize {
        let found = self.plans.iter().position(|plan| plan.name == name);
        found.unwrap_or_else(|| panic!("{name} is no queue"))
    }

    /// A request enters the broker. Whether it is about queues.
    pub(crate) fn asked(&mut self, now: Time, peer: PeerId, request: &Request) -> bool {
        match request {
            Request::Send(send) => self.sends(now, peer, send),
            Request::Consume { id, queue, group, credit } => {
                let queue = self.queue(queue);
                let group = group.as_deref().unwrap_or_default().to_owned();
                let asked = Asked::Consume { queue, group, credit: *credit };
                self.open(peer, id.as_deref().expect("an id"), asked);
            }
            Request::Settle(settle) => self.settles(now, peer, settle),
            Request::Call(call) if call.fun.starts_with("mpreg.queue.") => {
                self.calls(now, peer, call)
            }
            _ => return false,
        }
        true
    }

    fn open(&mut self, peer: PeerId, id: &str, asked: Asked) {
        let twice = self.open.insert((peer, id.to_owned()), asked);
        assert!(twice.is_none(), "{id} of {peer} is used twice");
    }

    fn sends(&mut self, now: Time, peer: PeerId, send: &Send) {
        let at = match &send.queue {
            Some(name) => Some(self.queue(name)),
            None => self.plans.iter().position(Plan::is_bound),
        };
        let queue = at.expect("somebody is bound");
        let name = self.comes(now, queue, &send.event, &send.options);
        let dedup = send.options.dedup.as_deref().map(|text| (queue, text.to_owned()));
        let known = dedup.as_ref().and_then(|key| self.seen.get(key));
        let known = known.filter(|(until_ms, _)| *until_ms > now.wall_ms).copied();
        let repeats = matches!(known, Some((_, true)));
        if known.is_none()
            && let Some(key) = &dedup
            && self.plans[queue].settings.dedup_ms > 0
        {
            let until_ms = now.wall_ms + self.plans[queue].settings.dedup_ms;
            self.seen.insert(key.clone(), (until_ms, true));
        }
        if let (true, Some(sent)) = (repeats, self.sent.get_mut(&name)) {
            sent.times -= 1;
        }
        if send.confirm {
            let (first, named) = (dedup.is_some() && known.is_none(), send.queue.is_some());
            self.open(peer, &send.id, Asked::Send { name, first, named });
        } else {
            self.quiet.insert((peer, send.id.to_string()), name);
        }
    }

    /// A message comes, and may be taken.
    fn comes(&mut self, now: Time, queue: usize, event: &Event, options: &SendOptions) -> Name {
        self.tally.attempted += 1;
        self.count += 1;
        let payload = String::from_utf8_lossy(&event.payload.bytes).into_owned();
        let (name, at) = ((queue, payload), self.count);
        let ttl_ms = self.plans[queue].settings.ttl_ms;
        let due_ms = now.wall_ms + options.delay_ms;
        let groups = self.groups.get(&queue).cloned().unwrap_or_default();
        let sent = self.sent.entry(name.clone()).or_insert_with(|| Sent {
            at,
            options: options.clone(),
            expires_ms: None,
            due_ms,
            came: 0,
            times: 0,
            purged: false,
            groups: groups.clone(),
            messages: BTreeMap::new(),
        });
        // Of one that is sent again it is not known which of them comes.
        sent.expires_ms = ttl_ms.map(|ttl| due_ms + ttl);
        (sent.came, sent.times) = (sent.came + 1, sent.times + 1);
        sent.groups.retain(|group| groups.contains(group));
        name
    }

    /// A PUSH socket has sent a message.
    pub(crate) fn socket(&mut self, now: Time, input: &Input) -> bool {
        let Input::Push { event } = input else { return false };
        let named = self.plans.iter().position(|plan| plan.name == event.topic);
        if let Some(queue) = named.or_else(|| self.plans.iter().position(Plan::is_bound)) {
            self.comes(now, queue, event, &SendOptions::default());
        }
        true
    }

    fn settles(&mut self, now: Time, peer: PeerId, settle: &Settle) {
        let settled = self.settle(now, peer, settle);
        if let Some(id) = &settle.id {
            self.open(peer, id, Asked::Settle(settled));
        }
    }

    fn calls(&mut self, now: Time, peer: PeerId, call: &Call) {
        let kwargs = call.kwargs.as_ref().expect("built-ins take them");
        let kwargs: Json = serde_json::from_slice(&kwargs.bytes).expect("JSON");
        let queue = self.queue(kwargs["name"].as_str().expect("a name"));
        if call.fun == "mpreg.queue.purge" {
            self.purged(queue);
        }
        let redrives = call.fun == "mpreg.queue.redrive";
        if redrives {
            self.redriven(now, queue);
            self.redrove.insert(queue);
        }
        self.open(peer, &call.id, Asked::Call(redrives.then_some(queue)));
    }

    /// An output leaves the broker. Whether it is about queues.
    pub(crate) fn answered(&mut self, now: Time, to: PeerId, reply: &Reply, store: &Store) -> bool {
        let id = match reply {
            Reply::Deliver(delivered) => {
                self.delivers(now, to, delivered);
                return true;
            }
            Reply::Sent { id, .. }
            | Reply::Acked { id, .. }
            | Reply::Result { id, .. }
            | Reply::Consumed { id: Some(id), .. }
            | Reply::Error { id: Some(id), .. } => id,
            _ => return false,
        };
        let id = (to, id.to_string());
        let Some(asked) = self.open.remove(&id) else {
            let (Some(name), Reply::Error { error, .. }) = (self.quiet.remove(&id), reply) else {
                return false;
            };
            self.refused(&name, error);
            return true;
        };
        match (asked, reply) {
            (Asked::Send { name, .. }, Reply::Sent { message, durability, queues, .. }) => {
                assert_eq!(*queues, 1, "{name:?} is in one queue");
                let is_fsync = *durability == Durability::Fsync;
                assert_eq!(is_fsync, self.plans[name.0].is_stored(), "{name:?}");
                self.sent(&name, *message, store);
            }
            (Asked::Send { name, first, named }, Reply::Error { error, .. }) => {
                if first && let Some(text) = &self.sent[&name].options.dedup {
                    self.seen.remove(&(name.0, text.to_string()));
                }
                assert!(!error.is(Code::Unroutable) || !named, "{name:?} has a queue");
                self.refused(&name, error);
            }
            (Asked::Consume { queue, group, credit }, Reply::Consumed { credit: told, .. }) => {
                assert_eq!(credit, *told, "{to} asked for another");
                self.groups.entry(queue).or_default().insert(group.clone());
                self.takers.insert((to, queue), Taker { group, credit });
            }
            (Asked::Settle(settled), Reply::Acked { ids, unknown, .. }) => {
                self.acked(settled, ids, unknown, store);
            }
            (Asked::Call(Some(queue)), _) => self.redriven(now, queue),
            (Asked::Call(None), Reply::Result { .. }) | (_, Reply::Error { .. }) => {}
            (asked, reply) => panic!("{reply:?} answers {asked:?}"),
        }
        true
    }

    /// It is said to be taken, and to be safe.
    fn sent(&mut self, name: &Name, message: RunId, store: &Store) {
        self.tally.acknowledged += 1;
        self.bind(name, message);
        let (stored, max_count) = {
            let plan = &self.plans[name.0];
            (plan.is_stored(), plan.settings.max_count)
        };
        let sent = self.sent.get_mut(name).expect("it was sent");
        let need = sent.groups.len().max(1);
        let message_of = sent.messages.get_mut(&{ message.0 }).expect("it is bound");
        message_of.confirmed = true;
        if !stored || message_of.excused || max_count < 100 {
            return;
        }
        let mut safe: BTreeSet<String> =
            store.copies(message).into_iter().map(|(_, group, _)| group).collect();
        let gone = message_of.copies.iter().filter(|(_, copy)| copy.ended());
        safe.extend(gone.map(|(group, _)| group.clone()));
        assert!(safe.len() >= need, "{name:?} is said to be safe, and is in {safe:?} only");
    }

    /// What was sent under a name is called so.
    pub(super) fn bind(&mut self, name: &Name, message: RunId) {
        let sent = self
            .sent
            .get_mut(name)
            .unwrap_or_else(|| panic!("nobody sent {name:?} in {:?}", self.plans[name.0].name));
        let excused = sent.purged || self.damaged.contains(&{ message.0 });
        sent.messages.entry(message.0).or_insert_with(|| Message { excused, ..<_>::default() });
        let (taken, times) = (sent.messages.len(), sent.times);
        assert!(taken <= times, "{name:?} came {times} times and was taken {taken} times");
        self.names.insert((name.0, message.0), name.clone());
    }

    fn refused(&mut self, name: &Name, error: &Refusal) {
        self.tally.refused += 1;
        let buried = self.plans[name.0].settings.when_full == WhenFull::DeadLetter;
        let codes = [Code::StoreFull, Code::StoreFailed];
        let may_be_there =
            codes.into_iter().any(|code| error.is(code)) || error.is(Code::QueueFull) && buried;
        if !may_be_there {
            let sent = self.sent.get_mut(name).expect("it was sent");
            sent.times -= 1;
            assert!(sent.messages.len() <= sent.times, "{name:?} was taken and refused: {error}");
        }
    }

    /// The store tells something, which the broker is about to hear.
    pub(crate) fn stored(&mut self, told: &Told, store: &Store) {
        let damaged = store.damaged[self.damaged.len()..].iter();
        for message in damaged.map(|message| message.event.message.0) {
            self.damaged.insert(message);
            for sent in self.sent.values_mut() {
                if let Some(message) = sent.messages.get_mut(&{ message }) {
                    message.excused = true;
                }
            }
        }
        self.tally.damaged = self.damaged.len() as u64;
        if matches!(told, Told::Failed { .. } | Told::Opened { .. }) {
            for ((queue, _), seen) in &mut self.seen {
                // The broker may have forgotten it, if it was not safe yet.
                seen.1 &= !self.plans[*queue].is_stored();
            }
            self.end_redrives();
            self.void();
        }
    }

    /// The broker is killed: it knows nothing any more but what the store has.
    pub(crate) fn restarted(&mut self) {
        self.end_redrives();
        self.open.clear();
        self.quiet.clear();
        self.takers.clear();
        self.seen.clear();
        self.groups.clear();
        let plans = &self.plans;
        self.sent.retain(|(queue, _), _| plans[*queue].is_stored());
        self.names.retain(|(queue, _), _| plans[*queue].is_stored());
        self.leases.clear();
        self.keys.clear();
        self.last.clear();
        self.void();
    }

    /// A connection's life has ended.
    pub(crate) fn gone(&mut self, peer: PeerId) {
        for (_, asked) in self.open.iter().filter(|((of, _), _)| *of == peer) {
            if let Asked::Call(Some(queue)) = asked {
                self.orphans.insert(*queue);
            }
        }
        self.open.retain(|(of, _), _| *of != peer);
        self.quiet.retain(|(of, _), _| *of != peer);
        self.takers.retain(|(of, _), _| *of != peer);
        self.lose(peer);
    }

    /// Whether dead letters may be on their way back.
    pub(super) fn is_redriving(&self, queue: usize) -> bool {
        let redrives = |asked: &Asked| matches!(asked, Asked::Call(Some(of)) if *of == queue);
        self.orphans.contains(&queue) || self.open.values().any(redrives)
    }

    /// Redrives end with whatever they were about to do: that may be done or not.
    fn end_redrives(&mut self) {
        let redriving = (0..self.plans.len()).filter(|queue| self.is_redriving(*queue));
        for queue in redriving.collect::<Vec<_>>() {
            self.revive(queue);
        }
        self.orphans.clear();
    }

    /// Everything has been done: what was said to be safe was taken by everybody who had to.
    pub(crate) fn assert_quiet(&mut self) {
        assert!(self.open.is_empty(), "without an outcome: {:?}", self.open);
        for (queue, plan) in self.plans.iter().enumerate() {
            let mut missing = Vec::new();
            for ((_, payload), sent) in self.sent.iter().filter(|((of, _), _)| *of == queue) {
                for message in sent.messages.values().filter(|of| of.confirmed && !of.excused) {
                    let taken = |group: &String| message.copies.get(group).is_some_and(Copy::ended);
                    let all = sent.groups.iter().all(taken);
                    if !all || !message.copies.values().any(Copy::ended) {
                        missing.push(payload);
                    }
                }
            }
            let dropped = self.dropped.get(&queue).copied().unwrap_or(0);
            self.tally.dropped += dropped;
            let lost = (missing.len() as u64).saturating_sub(dropped);
            self.tally.lost += lost;
            assert_eq!(lost, 0, "{} has lost some of {missing:?}, {dropped} dropped", plan.name);
        }
    }
}
