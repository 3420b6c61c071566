//! Subscriptions at the door: who may hear what, what is lost, and whether it had to be.

use mpreg_patterns::base::{Code, PeerId, Refusal, Time};
use mpreg_patterns::ops::{Delivery, Replay, Subscribe};
use mpreg_patterns::values::Value;

use super::logs::Place;
use super::{Account, Mask};
use crate::spelling::{is_pattern, is_wide, matches, normal};

/// What one connection takes.
#[derive(Debug, Default)]
pub(super) struct Window {
    credit: Option<u32>,
    in_hand: u32,
    /// Events that were given back in this moment: until the broker knew that they were in hand.
    back: u32,
    /// When it was last full.
    full: u64,
    /// The moment since when it takes nothing, if the broker was told so.
    stalled: Option<u64>,
    /// Events that left for it.
    handed: u64,
}

impl Window {
    fn is_full(&self) -> bool {
        self.credit.is_some_and(|credit| self.in_hand >= credit)
    }

    /// Notes whether it is full, or may have been, before that changes.
    fn note(&mut self, clock: u64) {
        if self.credit.is_some_and(|credit| self.in_hand + self.back >= credit) {
            self.full = clock;
        }
    }
}

/// `subscribe` or `unsubscribe` without an answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) peer: PeerId,
    pub(super) id: String,
    texts: Vec<String>,
    holds: bool,
    replay: Option<Replay>,
    /// How many events there were.
    facts: usize,
}

/// A pattern of a peer, as it is written.
#[derive(Debug)]
pub(super) struct Subscription {
    /// What all spellings of it have in common.
    pub(super) normal: String,
    mask: Mask,
    pub(super) wide: bool,
    pub(super) open: bool,
    /// Events before are accounted for; those from `sure` on and before `until` it has to get.
    at: usize,
    sure: usize,
    until: usize,
    /// The number of the last that is accounted for, if it is known.
    seq: Option<u64>,
    place: Option<Place>,
}

/// The log that keeps all of a pattern. Of our patterns, the first word says it.
fn log_of(text: &str) -> Option<usize> {
    match text.split('.').next() {
        Some("k") => Some(0),
        Some("t") => Some(1),
        Some("b") => Some(2),
        _ => None,
    }
}

fn texts_of(patterns: Option<&Value>) -> Vec<String> {
    let texts = patterns.map(|texts| serde_json::from_slice(&texts.bytes).expect("texts"));
    texts.unwrap_or_default()
}

impl Account {
    pub(super) fn subscribes(&mut self, now: Time, peer: PeerId, ask: &Subscribe) {
        let texts = texts_of(ask.patterns.as_ref());
        let window = self.windows.entry(peer).or_default();
        window.note(self.clock);
        if let Some(credit) = ask.credit {
            window.in_hand = if window.credit.is_some() { window.in_hand } else { 0 };
            window.credit = Some(credit);
        }
        for text in &texts {
            self.opens(now, peer, text, ask.replay);
        }
        let (id, replay) = (ask.id.as_deref().expect("an id").to_owned(), ask.replay);
        let facts = self.facts.len();
        self.asks.push_back(Ask { peer, id, texts, holds: true, replay, facts });
    }

    pub(super) fn unsubscribes(&mut self, peer: PeerId, id: Option<&str>, texts: Option<&Value>) {
        let (texts, facts) = (texts_of(texts), self.facts.len());
        for text in &texts {
            if let Some(held) = self.subscriptions.get_mut(&(peer, text.clone())) {
                held.until = held.until.min(facts);
            }
        }
        let id = id.expect("an id").to_owned();
        self.asks.push_back(Ask { peer, id, texts, holds: false, replay: None, facts });
    }

    /// A subscription may hold from now on, if it is new.
    fn opens(&mut self, now: Time, peer: PeerId, text: &str, replay: Option<Replay>) {
        if !is_pattern(text) || self.subscriptions.contains_key(&(peer, text.to_owned())) {
            return;
        }
        let mask = Mask::of(text);
        let place = match (replay, log_of(text)) {
            (Some(replay), Some(log)) => {
                Some(Place::new(log, self.logs[log].start(now, mask, replay), replay))
            }
            (Some(_), None) => return,
            (None, _) => None,
        };
        let (wide, at, seq) = (is_wide(text), self.facts.len(), None);
        let (sure, until) = (usize::MAX, usize::MAX);
        let normal = normal(text);
        let new = Subscription { normal, mask, wide, open: false, at, sure, until, seq, place };
        self.subscriptions.insert((peer, text.to_owned()), new);
    }

    /// `subscribe` or `unsubscribe` is answered.
    pub(super) fn subscribed(
        &mut self,
        now: Time,
        to: PeerId,
        id: &str,
        outcome: Result<(u32, Option<u32>), &Refusal>,
    ) {
        let ask = self.asks.pop_front().unwrap_or_else(|| panic!("{to} has asked nothing"));
        assert_eq!((ask.peer, &*ask.id), (to, id), "answers come in another order");
        let mut expected = Ok(());
        for (at, text) in ask.texts.iter().enumerate() {
            let key = (to, text.clone());
            if !ask.holds {
                if self.subscriptions.get(&key).is_some_and(|held| held.open) {
                    self.release(&key, false);
                }
                self.reopen(now, &key);
            } else if let Err(code) = self.opened(now, &ask, &key) {
                expected = Err((code, at));
                break;
            }
        }
        if let (true, Err((_, at))) = (ask.holds, &expected) {
            // Those behind it are not held by this.
            for text in &ask.texts[*at..] {
                let key = (to, text.clone());
                if self.subscriptions.get(&key).is_some_and(|held| !held.open) {
                    self.subscriptions.remove(&key);
                    self.reopen(now, &key);
                }
            }
        }
        match (outcome, expected) {
            (Ok(told), Ok(())) => {
                let held = |(key, it): &(&(PeerId, String), &Subscription)| key.0 == to && it.open;
                let held = self.subscriptions.iter().filter(held).count() as u32;
                let credit = self.windows.get(&to).and_then(|window| window.credit);
                assert_eq!(told, (held, credit), "{to} is told what it holds");
            }
            (Err(error), Err((code, at))) => {
                let field = Some(format!("patterns/{at}"));
                assert!(error.is(code), "{error}, not {code:?}");
                assert_eq!(error.field.as_deref(), field.as_deref(), "{error}");
            }
            (outcome, expected) => panic!("{outcome:?} for {ask:?}: {expected:?}"),
        }
    }

    /// A pattern holds by now, or does not, and so on with the next.
    fn opened(&mut self, now: Time, ask: &Ask, key: &(PeerId, String)) -> Result<(), Code> {
        let text = &key.1;
        if self.subscriptions.get(key).is_some_and(|held| held.open) {
            return Ok(());
        }
        if !is_pattern(text) {
            return Err(Code::BadPattern);
        }
        if ask.replay.is_some() && log_of(text).is_none() {
            return Err(Code::NotRetained);
        }
        let queued = ask.facts != self.facts.len();
        let facts = self.facts.len();
        self.attach(text);
        let held = self.subscriptions.get_mut(key).expect("it was opened");
        (held.open, held.sure) = (true, facts);
        if let (Some(place), Some(replay)) = (&mut held.place, ask.replay) {
            let start = self.logs[place.log].start(now, held.mask, replay);
            place.opened(start);
        }
        if queued {
            self.unsure(text);
        }
        Ok(())
    }

    /// Somebody who lets a pattern go may have asked for it again since.
    fn reopen(&mut self, now: Time, key: &(PeerId, String)) {
        let again = |ask: &&Ask| ask.peer == key.0 && ask.holds && ask.texts.contains(&key.1);
        if let Some(replay) = self.asks.iter().find(again).map(|ask| ask.replay) {
            self.opens(now, key.0, &key.1, replay);
        }
    }

    /// A subscription is gone.
    pub(super) fn release(&mut self, key: &(PeerId, String), fades: bool) {
        let held = self.subscriptions.remove(key).expect("a subscription");
        if !held.open {
            return;
        }
        if held.place.is_none() && self.facts[held.at..].iter().any(|f| held.mask.has(f.topic)) {
            // Whether these were dropped nobody asks any more.
            self.unsure(&key.1);
        }
        self.detach(&key.1, fades);
    }

    pub(super) fn acked(&mut self, peer: PeerId, events: u32) {
        let window = self.windows.entry(peer).or_default();
        window.note(self.clock);
        window.in_hand = window.in_hand.saturating_sub(events);
    }

    /// The broker is told whether a connection takes anything.
    pub(crate) fn stalled(&mut self, peer: PeerId, stalled: bool) {
        self.clock += 1;
        let moment = stalled.then_some(self.moment);
        let window = self.windows.entry(peer).or_default();
        window.stalled = if stalled { window.stalled.or(moment) } else { None };
    }

    /// The broker is told that an event was not handed on.
    pub(crate) fn undelivered(&mut self, peer: PeerId, text: &str) {
        self.clock += 1;
        let window = self.windows.entry(peer).or_default();
        window.note(self.clock);
        window.handed -= 1;
        if window.credit.is_some() {
            window.in_hand = window.in_hand.saturating_sub(1);
            window.back += 1;
        }
        let held = self.subscriptions.get_mut(&(peer, text.to_owned()));
        let held = held.expect("what it was for is held");
        if let Some(place) = &mut held.place {
            place.undelivered(self.moment);
        }
        if held.open { self.dropped(text, 1) } else { self.unsure(text) }
    }

    /// An event leaves for a connection that was lost while it was handed out.
    pub(crate) const fn left_for_nobody(&mut self, told: &Delivery) {
        self.delivered += 1;
        self.missed += told.missed;
    }

    /// How many events have left for a connection.
    pub(crate) fn handed(&self, peer: PeerId) -> u64 {
        self.windows.get(&peer).map_or(0, |window| window.handed)
    }

    /// An event leaves for a peer.
    pub(super) fn event(&mut self, now: Time, to: PeerId, told: &Delivery) {
        let (text, topic) = (&told.pattern, &told.event.topic);
        let fact = self.fact(&told.event);
        let key = (to, text.to_string());
        let held = self.subscriptions.get_mut(&key);
        let held = held.unwrap_or_else(|| panic!("{to} hears of {text}, which it does not hold"));
        assert!(matches(text, topic), "{to} holds {text} and hears of {topic}");
        let window = self.windows.entry(to).or_default();
        assert!(!window.is_full(), "{to} gets more than it takes: {window:?}");
        window.in_hand += u32::from(window.credit.is_some());
        window.note(self.clock);
        window.handed += 1;
        self.delivered += 1;
        self.tally.heard += 1;
        let Some(place) = &mut held.place else { return self.live(key, told.seq, fact) };
        self.tally.replayed += 1;
        self.tally.missed += told.missed;
        self.missed += told.missed;
        assert!(window.stalled.is_none_or(|at| at == self.moment), "{to} does not read: {told:?}");
        let fact = fact.unwrap_or_else(|| panic!("{text} is no log's: {told:?}"));
        let log = &mut self.logs[place.log];
        place.event((now, self.moment), held.mask, log, fact, told);
    }

    /// An event of a subscription that reads no log.
    fn live(&mut self, key: (PeerId, String), seq: u64, fact: Option<usize>) {
        let held = &self.subscriptions[&key];
        assert!(held.seq.is_none_or(|last| seq > last), "{key:?} goes back to {seq}");
        let Some(fact) = fact else {
            assert!(held.wide, "{key:?} hears of the broker's own");
            self.subscriptions.get_mut(&key).expect("it is held").seq = Some(seq);
            return;
        };
        assert!(fact >= held.at, "{key:?}: {} comes late or twice", self.facts[fact].payload);
        self.pass(&key, fact);
        let held = self.subscriptions.get_mut(&key).expect("it is held");
        if let Some(last) = held.seq.filter(|_| !held.wide) {
            assert_eq!(seq, last + 1, "{key:?} counts on");
        }
        (held.at, held.seq) = (fact + 1, Some(seq));
    }

    /// Accounts for what a subscription did not get, up to an event.
    fn pass(&mut self, key: &(PeerId, String), until: usize) {
        let held = self.subscriptions.get_mut(key).expect("it is held");
        let window = self.windows.entry(key.0).or_default();
        window.note(self.clock);
        let (mut lost, mut unknown) = (0, false);
        for (at, fact) in self.facts.iter().enumerate().take(until).skip(held.at) {
            if !held.mask.has(fact.topic) {
                continue;
            }
            if at < held.sure || at >= held.until {
                unknown = true;
                continue;
            }
            assert!(window.full >= fact.clock, "{key:?} lost {fact:?} for nothing: {window:?}");
            lost += 1;
            // Of a wide one the broker's own events are counted too, and not known.
            held.seq = held.seq.map(|seq| seq + u64::from(!held.wide));
        }
        held.at = until;
        if unknown {
            held.seq = None;
        }
        if held.open && lost > 0 {
            self.dropped(&key.1, lost);
        }
        if unknown {
            self.unsure(&key.1);
        }
    }

    pub(super) fn subscriptions_settled(&mut self, now: Time) {
        let facts = self.facts.len();
        let behind = self.subscriptions.iter().filter(|(_, held)| held.place.is_none());
        let behind = behind.filter(|(_, held)| held.at < facts).map(|(key, _)| key.clone());
        for key in behind.collect::<Vec<_>>() {
            self.pass(&key, facts);
        }
        self.windows.values_mut().for_each(|window| window.back = 0);
        for (key, held) in &mut self.subscriptions {
            let Some(place) = &mut held.place else { continue };
            let window = &self.windows[&key.0];
            if window.is_full() || window.stalled.is_some() {
                continue;
            }
            let lags = place.lags(now, held.mask, &mut self.logs[place.log]);
            assert_eq!(lags, None, "{key:?} is behind, and takes more: {window:?}, {place:?}");
        }
    }

    /// Subscriptions that hold a pattern in any spelling.
    pub(super) fn holders(&self, normal: &str) -> usize {
        self.subscriptions.values().filter(|held| held.normal == normal).count()
    }
}
