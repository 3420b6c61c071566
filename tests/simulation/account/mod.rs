//! What must hold of topics, checked where inputs enter the broker and outputs leave it.
//!
//! An account of its own: every event that was published, and how far each of those who want it
//! is. It asks the broker only in audits, to compare. What is in the middle of being done is not
//! judged before the broker has nothing left to do at that time.

mod audit;
mod copies;
mod logs;
mod queues;
mod subscriptions;
mod texts;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mpreg_patterns::base::{Code, PeerId, Time};
use mpreg_patterns::node::Input;
use mpreg_patterns::ops::{Event, Reply, Request};
use mpreg_patterns::topics::Retain;

use crate::spelling::{OWN_TOPIC, TOPICS, is_wide, matches, normal};
use logs::Log;
pub(crate) use queues::{Queues, Verdict};
use subscriptions::{Ask, Subscription, Window};
use texts::Text;
use waits::Wait;

/// An event that was published by somebody the account knows.
#[derive(Debug)]
struct Fact {
    /// Which of [`TOPICS`].
    topic: usize,
    payload: String,
    /// When, by what the account counts.
    clock: u64,
    mono_ns: u64,
}

/// Which topics a pattern matches, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mask(u64);

impl Mask {
    fn of(pattern: &str) -> Self {
        let bit = |at: usize| u64::from(matches(pattern, TOPICS[at])) << at;
        Self((0..TOPICS.len()).map(bit).sum())
    }

    const fn has(self, topic: usize) -> bool {
        self.0 >> topic & 1 == 1
    }
}

/// What is known of a pattern in all its spellings.
#[derive(Debug, Default)]
struct Pattern {
    /// Subscriptions, texts, rules and waits that hold it.
    holders: usize,
    dropped: u64,
    /// Whether `dropped` cannot be known: something was asked in the middle of what happened.
    unsure: bool,
}

/// What was published and who has got it, in one life of the broker.
#[derive(Debug, Default)]
pub(crate) struct Account {
    facts: Vec<Fact>,
    by_payload: BTreeMap<String, usize>,
    logs: Vec<Log>,
    patterns: BTreeMap<String, Pattern>,
    /// Patterns of connections that are gone, which may still be being let go.
    fading: BTreeSet<String>,
    subscriptions: BTreeMap<(PeerId, String), Subscription>,
    windows: BTreeMap<PeerId, Window>,
    asks: VecDeque<Ask>,
    texts: BTreeMap<String, Text>,
    waits: BTreeMap<(PeerId, String), Wait>,
    /// Confirmations that are to come before what is being done is done.
    confirms: BTreeMap<(PeerId, String), bool>,
    /// Counts all that the account sees.
    clock: u64,
    /// Counts the times at which nothing was left to do.
    moment: u64,
    delivered: u64,
    missed: u64,
    pub(crate) tally: Counts,
}

/// What a simulation amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) heard: u64,
    pub(crate) replayed: u64,
    pub(crate) lost: u64,
    pub(crate) undelivered: u64,
    pub(crate) missed: u64,
    pub(crate) broadcast: u64,
    pub(crate) waited: u64,
    pub(crate) late: u64,
    pub(crate) audits: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.heard += other.heard;
        self.replayed += other.replayed;
        self.lost += other.lost;
        self.undelivered += other.undelivered;
        self.missed += other.missed;
        self.broadcast += other.broadcast;
        self.waited += other.waited;
        self.late += other.late;
        self.audits += other.audits;
    }
}

impl Account {
    /// A broker begins, which keeps what `rules` say.
    pub(crate) fn begin(&mut self, rules: &[Retain]) {
        *self = Self { tally: self.tally, ..Self::default() };
        for rule in rules {
            self.attach(rule.pattern.as_str());
            self.logs.push(Log::new(rule));
        }
    }

    /// A request enters the broker. Whether it is about topics.
    pub(crate) fn asked(&mut self, now: Time, peer: PeerId, request: &Request) -> bool {
        self.clock += 1;
        match request {
            Request::Publish(publish) => {
                let id = (peer, publish.id.to_string());
                if self.waits.contains_key(&id) {
                    self.confirms.insert(id, false);
                    return true;
                }
                self.published(now, &publish.event);
                if publish.confirm {
                    self.confirms.insert(id, true);
                }
            }
            Request::Subscribe(ask) => self.subscribes(now, peer, ask),
            Request::Unsubscribe { id, patterns } => {
                self.unsubscribes(peer, id.as_deref(), patterns.as_ref());
            }
            Request::Ack { events } => self.acked(peer, *events),
            Request::Call(call) if call.fun.starts_with("mpreg.") => {
                self.calls(now, peer, call);
            }
            // Those of clients are `r`.
            Request::Graph(part) if part.id.starts_with('g') => self.graph(now, peer, part),
            Request::Cancel { id } => {
                let Some(wait) = self.waits.get_mut(&(peer, id.to_string())) else { return false };
                wait.given_up = true;
            }
            _ => return false,
        }
        true
    }

    /// A socket beside the door has done something.
    pub(crate) fn socket(&mut self, now: Time, input: &Input) {
        self.clock += 1;
        match input {
            Input::Publish { event } => self.published(now, event),
            Input::Listen(key) => self.listens(key),
            Input::Unlisten(key) => self.unlistens(&key.text),
            _ => {}
        }
    }

    /// An event is published, and taken.
    fn published(&mut self, now: Time, event: &Event) {
        let payload = String::from_utf8_lossy(&event.payload.bytes).into_owned();
        let topic = TOPICS.iter().position(|topic| *topic == event.topic).expect("a topic");
        for log in &mut self.logs {
            log.append(now, topic, self.facts.len(), event.bytes());
        }
        let at = self.facts.len();
        assert!(self.by_payload.insert(payload.clone(), at).is_none(), "{payload} comes twice");
        let (clock, mono_ns) = (self.clock, now.mono_ns);
        self.facts.push(Fact { topic, payload, clock, mono_ns });
        self.tally.published += 1;
    }

    /// Which event it is; none if the broker has published it by itself.
    fn fact(&self, event: &Event) -> Option<usize> {
        if event.topic == OWN_TOPIC || event.topic.starts_with("mpreg.") {
            return None;
        }
        let payload = String::from_utf8_lossy(&event.payload.bytes);
        let at = self.by_payload.get(&*payload).copied();
        let at = at.unwrap_or_else(|| panic!("{payload} was never published"));
        assert_eq!(TOPICS[self.facts[at].topic], event.topic, "{payload} is on another topic");
        Some(at)
    }

    /// An output leaves the broker. Whether it is about topics.
    pub(crate) fn answered(&mut self, now: Time, to: PeerId, reply: &Reply) -> bool {
        self.clock += 1;
        let id = match reply {
            Reply::Event(delivery) => {
                self.event(now, to, delivery);
                return true;
            }
            Reply::Subscribed { id: Some(id), patterns, credit, .. } => {
                self.subscribed(now, to, id, Ok((*patterns, *credit)));
                return true;
            }
            Reply::Published { id, .. } => {
                let confirm = self.confirms.remove(&(to, id.to_string()));
                assert_eq!(confirm, Some(true), "{to} hears that {id} was published");
                return true;
            }
            Reply::Result { id, .. } | Reply::Error { id: Some(id), .. } => id.to_string(),
            Reply::Graph(graph) => graph.id.to_string(),
            _ => return false,
        };
        if matches!(reply, Reply::Result { .. }) && self.confirms.contains_key(&(to, id.clone())) {
            // The outcome of `mpreg.topic.publish`.
            assert_eq!(self.confirms.remove(&(to, id)), Some(true), "{reply:?}");
            return true;
        }
        if let Reply::Error { error, .. } = reply {
            if self.asks.front().is_some_and(|ask| ask.peer == to && ask.id == id) {
                self.subscribed(now, to, &id, Err(error));
                return true;
            }
            if error.is(Code::DuplicateId) && self.confirms.get(&(to, id.clone())) == Some(&false) {
                self.confirms.remove(&(to, id));
                return true;
            }
        }
        let Some(wait) = self.waits.remove(&(to, id)) else { return false };
        self.wait_ended(now, wait, reply);
        true
    }

    /// A connection's life has ended.
    pub(crate) fn gone(&mut self, peer: PeerId) {
        self.clock += 1;
        let held = self.subscriptions.keys().filter(|key| key.0 == peer).cloned();
        for key in held.collect::<Vec<_>>() {
            self.release(&key, true);
        }
        self.windows.remove(&peer);
        self.asks.retain(|ask| ask.peer != peer);
        self.confirms.retain(|id, _| id.0 != peer);
        let waits = self.waits.keys().filter(|id| id.0 == peer).cloned();
        for id in waits.collect::<Vec<_>>() {
            if let Some(wait) = self.waits.remove(&id) {
                self.detach(&wait.pattern, true);
            }
        }
    }

    /// Nothing is left to do at this time: whatever is not done now is not done at all. How many
    /// such moments there were.
    pub(crate) fn settled(&mut self, now: Time) -> u64 {
        self.clock += 1;
        assert!(self.confirms.is_empty(), "never confirmed: {:?}", self.confirms);
        assert!(self.asks.is_empty(), "never answered: {:?}", self.asks);
        self.subscriptions_settled(now);
        self.texts_settled();
        self.waits_settled(now);
        self.fading.clear();
        self.patterns.retain(|_, pattern| pattern.holders > 0);
        self.moment += 1;
        self.moment
    }

    /// Somebody holds a pattern from now on.
    fn attach(&mut self, text: &str) {
        let text = normal(text);
        let fading = self.fading.contains(&text);
        let pattern = self.patterns.entry(text).or_default();
        if pattern.holders == 0 && !fading {
            *pattern = Pattern::default();
        }
        pattern.unsure |= fading;
        pattern.holders += 1;
    }

    /// Somebody holds it no longer. The broker may take its time to let it go.
    fn detach(&mut self, text: &str, fades: bool) {
        let text = normal(text);
        let pattern = self.patterns.get_mut(&text).expect("a pattern that is held");
        pattern.holders -= 1;
        if fades {
            self.fading.insert(text);
        }
    }

    /// What is dropped of it cannot be known.
    fn unsure(&mut self, text: &str) {
        if let Some(pattern) = self.patterns.get_mut(&normal(text)) {
            pattern.unsure = true;
        }
    }

    /// Somebody has lost an event.
    fn dropped(&mut self, text: &str, count: u64) {
        let pattern = self.patterns.get_mut(&normal(text)).expect("a pattern that is held");
        pattern.dropped += count;
        pattern.unsure |= is_wide(text);
        self.tally.lost += count;
    }
}
