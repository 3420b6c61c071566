//! Which events go to which subscription of a client, and what the broker is told of it.
//!
//! A pattern that several subscriptions name is held once at the broker; each gets a copy. What
//! comes in goes to a subscription a chunk at a time, and counts against the connection's window
//! until the chunk has been taken out to its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mpreg_patterns::base::{Code, Refusal};
use mpreg_patterns::ops::{Delivery, Replay, Request, Subscribe};
use mpreg_patterns::values::Value;
use smol_str::{SmolStr, ToSmolStr};
use tokio::sync::mpsc;

use super::connection::{Command, Lane};
use super::topics::Event;

/// How often the broker is asked whether it still holds the patterns.
const REFRESH: Duration = Duration::from_millis(2_000);
/// Text of patterns in one `subscribe`, bytes.
const PIECE_BYTES: usize = 256 << 10;
/// What that question is called.
const PROBE: &str = "probe";
/// What a repeated `subscribe` is called.
const AGAIN: &str = "again";

/// What a subscription and the driver both know.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Events that wait to be taken out.
    queued: AtomicUsize,
    /// Events that are known to be lost.
    pub(super) lost: AtomicU64,
    charges: Mutex<Charges>,
}

impl Tally {
    fn charges(&self) -> MutexGuard<'_, Charges> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which part of the window a subscription has.
#[derive(Debug, Default)]
struct Charges {
    /// The connection all of this is about.
    life: u32,
    /// Events that wait, and count against the window.
    out: u32,
    /// How many of them the broker was told to be handled, so that others get something.
    forgiven: u32,
}

impl Charges {
    /// So many were handled: how many of them the broker does not know of.
    fn give(&mut self, life: u32, events: u32) -> u32 {
        if self.life != life {
            return 0;
        }
        self.out -= events;
        let forgiven = self.forgiven.min(events);
        self.forgiven -= forgiven;
        events - forgiven
    }

    /// Leaves a part of the window to others: how much.
    fn forgive(&mut self, bound: usize) -> u32 {
        let bound = u32::try_from(bound).unwrap_or(u32::MAX);
        let excess = (self.out - self.forgiven).saturating_sub(bound);
        self.forgiven += excess;
        excess
    }
}

/// Events that were taken out and not told yet.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The connection they came on: another one does not know of them.
    life: AtomicU32,
    due: AtomicU32,
    /// How many are told at once.
    step: AtomicU32,
}

impl Window {
    /// Counts events as handled. Whether it is time to tell.
    fn give(&self, life: u32, events: u32) -> bool {
        if events == 0 || self.life.load(Ordering::Acquire) != life {
            return false;
        }
        let due = self.due.fetch_add(events, Ordering::AcqRel) + events;
        due >= self.step.load(Ordering::Relaxed)
    }

    /// The connection that is there now.
    pub(super) fn life(&self) -> u32 {
        self.life.load(Ordering::Acquire)
    }

    /// What is to be told now.
    pub(super) fn take(&self) -> u32 {
        self.due.swap(0, Ordering::AcqRel)
    }
}

/// Events on their way to one subscription.
#[derive(Debug)]
pub(super) struct Chunk {
    events: std::vec::IntoIter<Event>,
    count: usize,
    /// How many of them count against the window.
    charged: u32,
    life: u32,
    lane: Arc<Lane>,
    tally: Arc<Tally>,
}

impl Chunk {
    pub(super) fn next(&mut self) -> Option<Event> {
        self.events.next()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.tally.queued.fetch_sub(self.count, Ordering::Relaxed);
        let handled = self.tally.charges().give(self.life, self.charged);
        if self.lane.window.give(self.life, handled) {
            self.lane.push(Command::Acknowledge);
        }
    }
}

/// One subscription, as the driver sees it.
#[derive(Debug)]
pub(super) struct Route {
    patterns: Vec<SmolStr>,
    replay: Option<Replay>,
    to: mpsc::UnboundedSender<Chunk>,
    tally: Arc<Tally>,
    /// The most events that may wait, and the most the broker lets a connection have.
    credit: u32,
    most: u32,
    /// The most that may wait while there are others.
    bound: usize,
    /// The chunk that is being filled.
    events: Vec<Event>,
    charged: u32,
    /// Lost since the last event that was handed over.
    missed: u64,
}

impl Route {
    pub(super) fn new(
        patterns: Vec<SmolStr>,
        (credit, most): (u32, u32),
        replay: Option<Replay>,
        (to, tally): (mpsc::UnboundedSender<Chunk>, Arc<Tally>),
    ) -> Self {
        let (bound, events) = (credit as usize, Vec::new());
        Self { patterns, replay, to, tally, credit, most, bound, events, charged: 0, missed: 0 }
    }

    /// Whether it takes one more. A replay always does: it is the broker that waits.
    fn has_room(&self) -> bool {
        let waiting = self.tally.queued.load(Ordering::Relaxed) + self.events.len();
        self.replay.is_some() || waiting < self.bound
    }

    fn lose(&mut self, events: u64) {
        if events > 0 {
            self.missed += events;
            self.tally.lost.fetch_add(events, Ordering::Relaxed);
        }
    }
}

/// A pattern that some subscription names.
#[derive(Debug)]
struct Held {
    text: SmolStr,
    /// The subscriptions, by their place. None means that the entry is free.
    routes: Vec<u32>,
    replay: Option<Replay>,
    /// The last sequence number.
    last: Option<u64>,
}

impl Held {
    /// How many events of the pattern were lost before this one.
    fn gap(&mut self, seq: u64) -> u64 {
        let last = self.last.replace(seq);
        // A log counts all it keeps; and a count that went back has begun anew.
        match last.filter(|_| self.replay.is_none()) {
            Some(last) => seq.saturating_sub(last).saturating_sub(1),
            None => 0,
        }
    }
}

/// All subscriptions of one client.
#[derive(Debug)]
pub(super) struct Routes {
    lane: Arc<Lane>,
    /// By place, with gaps.
    routes: Vec<Option<Route>>,
    by_id: HashMap<u64, u32>,
    /// By place, with gaps.
    held: Vec<Held>,
    free: Vec<u32>,
    by_text: HashMap<SmolStr, u32>,
    /// Where the pattern of the last event was found.
    recent: u32,
    /// Routes whose chunk is being filled.
    filling: Vec<u32>,
    /// Events that nobody takes.
    unwanted: u32,
    /// Parts of a `subscribe` that were not answered yet.
    pieces: HashMap<u64, u32>,
    epoch: Option<u64>,
    /// When the broker was last asked, and how many patterns it should hold then.
    probed: Instant,
    expected: usize,
}

impl Routes {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self {
            lane,
            routes: Vec::new(),
            by_id: HashMap::new(),
            held: Vec::new(),
            free: Vec::new(),
            by_text: HashMap::new(),
            recent: 0,
            filling: Vec::new(),
            unwanted: 0,
            pieces: HashMap::new(),
            epoch: None,
            probed: Instant::now(),
            expected: 0,
        }
    }

    /// Takes a subscription in: what is to be said to the broker.
    pub(super) fn add(&mut self, id: u64, route: Route) -> Result<Vec<Request>, Refusal> {
        self.refuse_shared_replays(&route)?;
        let place = self.routes.iter().position(Option::is_none).unwrap_or(self.routes.len());
        for text in &route.patterns {
            let held = self.hold(text, route.replay);
            self.held[held as usize].routes.push(place as u32);
        }
        let (texts, replay) = (route.patterns.clone(), route.replay);
        route.tally.charges().life = self.lane.window.life.load(Ordering::Relaxed);
        self.by_id.insert(id, place as u32);
        match self.routes.get_mut(place) {
            Some(free) => *free = Some(route),
            None => self.routes.push(Some(route)),
        }
        let credit = self.set_bounds();
        self.flush();
        let requests = requests(&texts, Some(id.to_smolstr()), credit, replay);
        self.pieces.insert(id, requests.len() as u32);
        Ok(requests)
    }

    fn refuse_shared_replays(&self, route: &Route) -> Result<(), Refusal> {
        let shared = route.patterns.iter().find(|text| {
            let held = self.by_text.get(*text).map(|&at| &self.held[at as usize]);
            held.is_some_and(|held| held.replay.is_some() || route.replay.is_some())
        });
        let Some(text) = shared else { return Ok(()) };
        let message = format!("`{text}` is held by this client already; replay it from another");
        Err(Refusal::field(Code::NotSupported, "replay", message))
    }

    fn hold(&mut self, text: &SmolStr, replay: Option<Replay>) -> u32 {
        if let Some(&at) = self.by_text.get(text) {
            return at;
        }
        let held = Held { text: text.clone(), routes: Vec::new(), replay, last: None };
        let at = match self.free.pop() {
            Some(at) => {
                self.held[at as usize] = held;
                at
            }
            None => {
                self.held.push(held);
                self.held.len() as u32 - 1
            }
        };
        self.by_text.insert(text.clone(), at);
        at
    }

    /// Lets a subscription go: what is to be said to the broker.
    pub(super) fn remove(&mut self, id: u64) -> Vec<Request> {
        let Some(place) = self.by_id.remove(&id) else { return Vec::new() };
        self.pieces.remove(&id);
        let Some(route) = self.routes[place as usize].take() else { return Vec::new() };
        self.filling.retain(|&filling| filling != place);
        self.unwanted += route.charged;
        let mut gone = Vec::new();
        for text in route.patterns {
            let Some(&at) = self.by_text.get(&text) else { continue };
            let held = &mut self.held[at as usize];
            held.routes.retain(|&of| of != place);
            if held.routes.is_empty() {
                self.by_text.remove(&text);
                self.free.push(at);
                gone.push(text);
            }
        }
        self.set_bounds();
        pieces(&gone)
            .map(|patterns| Request::Unsubscribe { id: None, patterns: Some(patterns) })
            .collect()
    }

    /// Shares the window out among the subscriptions, and tells what is asked of the broker.
    fn set_bounds(&mut self) -> u32 {
        let routes = || self.routes.iter().flatten();
        let (count, most) = (routes().count().max(1), routes().map(|route| route.most).min());
        let most = most.unwrap_or(0);
        let wanted: u64 = routes().map(|route| u64::from(route.credit)).sum();
        let share = (most as usize / count).max(1);
        let fits = wanted <= u64::from(most);
        for route in self.routes.iter_mut().flatten() {
            let own = route.credit as usize;
            route.bound = if fits { own } else { own.min(share) };
            if route.replay.is_none() {
                // What waits already may be more than its share now.
                self.unwanted += route.tally.charges().forgive(route.bound);
            }
        }
        let credit = if fits { wanted as u32 } else { most };
        self.lane.window.step.store((credit / 4).max(1), Ordering::Relaxed);
        credit
    }

    /// Where a pattern's entry is.
    fn find(&mut self, text: &str) -> Option<u32> {
        let recent = self.held.get(self.recent as usize);
        // A freed entry has no subscriptions.
        if recent.is_some_and(|held| held.text == text && !held.routes.is_empty()) {
            return Some(self.recent);
        }
        let at = *self.by_text.get(text)?;
        self.recent = at;
        Some(at)
    }

    /// Takes an event in; [`Routes::flush`] hands it over.
    pub(super) fn take(&mut self, delivery: Delivery) {
        let Delivery { event, pattern, seq, missed } = delivery;
        let Some(at) = self.find(&pattern) else {
            self.unwanted += 1;
            return;
        };
        let held = &mut self.held[at as usize];
        let missed = missed + held.gap(seq);
        let routes = std::mem::take(&mut held.routes);
        if let Some((&last, others)) = routes.split_last() {
            for &place in others {
                let (published, pattern) = (event.clone(), pattern.clone());
                self.hand(place, Event { published, pattern, seq, missed }, false);
            }
            self.hand(last, Event { published: event, pattern, seq, missed }, true);
        }
        self.held[at as usize].routes = routes;
    }

    /// Gives an event to a subscription. One of the copies counts against the window.
    fn hand(&mut self, place: u32, mut event: Event, charge: bool) {
        let Some(Some(route)) = self.routes.get_mut(place as usize) else { return };
        route.lose(event.missed);
        if !route.has_room() {
            route.lose(1);
            self.unwanted += u32::from(charge);
            return;
        }
        event.missed = std::mem::take(&mut route.missed);
        if route.events.is_empty() {
            self.filling.push(place);
        }
        route.events.push(event);
        route.charged += u32::from(charge);
    }

    /// Hands over what was taken in.
    pub(super) fn flush(&mut self) {
        let life = self.lane.window.life.load(Ordering::Relaxed);
        for place in self.filling.drain(..) {
            let Some(Some(route)) = self.routes.get_mut(place as usize) else { continue };
            let count = route.events.len();
            let next = Vec::with_capacity(count);
            let events = std::mem::replace(&mut route.events, next).into_iter();
            let charged = std::mem::take(&mut route.charged);
            route.tally.queued.fetch_add(count, Ordering::Relaxed);
            route.tally.charges().out += charged;
            let (lane, tally) = (self.lane.clone(), route.tally.clone());
            // If nobody takes it out any more, dropping it gives it back.
            let _ = route.to.send(Chunk { events, count, charged, life, lane, tally });
        }
        if self.lane.window.give(life, std::mem::take(&mut self.unwanted)) {
            self.lane.push(Command::Acknowledge);
        }
    }

    /// The connection was lost: asks the new one what it holds, which is nothing.
    pub(super) fn lost(&mut self) -> Option<Request> {
        self.flush();
        self.pieces.clear();
        self.lane.window.life.fetch_add(1, Ordering::AcqRel);
        self.lane.window.take();
        let life = self.lane.window.life.load(Ordering::Relaxed);
        for route in self.routes.iter().flatten() {
            *route.tally.charges() = Charges { life, ..Charges::default() };
        }
        (!self.by_text.is_empty()).then(|| self.probe())
    }

    /// Asks now and then whether the broker holds what it should.
    pub(super) fn refresh(&mut self, now: Instant) -> Option<Request> {
        let due = !self.by_text.is_empty() && now.duration_since(self.probed) >= REFRESH;
        due.then(|| self.probe())
    }

    fn probe(&mut self) -> Request {
        self.probed = Instant::now();
        self.expected = self.by_text.len();
        let (id, patterns) = (Some(PROBE.into()), Some(Value::json(&b"[]"[..])));
        let credit = Some(self.set_bounds());
        Request::Subscribe(Box::new(Subscribe { id, patterns, credit, replay: None }))
    }

    /// The broker has answered. Whose subscription it was, if that is complete now, and what the
    /// broker has to be told again.
    pub(super) fn subscribed(
        &mut self,
        id: &str,
        epoch: u64,
        patterns: u32,
    ) -> (Option<u64>, Vec<Request>) {
        if id == PROBE {
            let again =
                self.epoch.is_some_and(|of| of != epoch) || patterns as usize != self.expected;
            return (None, if again { self.again(epoch) } else { Vec::new() });
        }
        self.epoch = self.epoch.or(Some(epoch));
        let Some(key) = id.parse().ok() else { return (None, Vec::new()) };
        let Some(left) = self.pieces.get_mut(&key) else { return (None, Vec::new()) };
        *left -= 1;
        if *left > 0 {
            return (None, Vec::new());
        }
        self.pieces.remove(&key);
        (Some(key), Vec::new())
    }

    /// Everything the broker should hold, from where it was.
    fn again(&mut self, epoch: u64) -> Vec<Request> {
        let anew = self.epoch.replace(epoch).is_some_and(|of| of != epoch);
        let credit = self.set_bounds();
        let (mut live, mut all) = (Vec::new(), Vec::new());
        for held in self.held.iter_mut().filter(|held| !held.routes.is_empty()) {
            let seen = held.last;
            if anew {
                // Another broker's counts have nothing to do with these.
                held.last = None;
            }
            let Some(replay) = held.replay else {
                live.push(held.text.clone());
                continue;
            };
            let replay = match seen {
                // Its log is new, and so is all that is in it.
                Some(_) if anew => Replay::All,
                Some(seq) => Replay::Seq(seq + 1),
                None => replay,
            };
            let text = std::slice::from_ref(&held.text);
            all.extend(requests(text, Some(AGAIN.into()), credit, Some(replay)));
        }
        if !live.is_empty() {
            all.extend(requests(&live, Some(AGAIN.into()), credit, None));
        }
        all
    }

    /// The broker has refused to take a subscription up again. Whether it was one.
    pub(super) fn refused(id: &str, error: &Refusal) -> bool {
        let own = id == AGAIN || id == PROBE;
        if own {
            log::warn!("the broker does not take a subscription up again: {error}");
        }
        own
    }
}

/// Arrays of patterns, none of them long.
fn pieces(texts: &[SmolStr]) -> impl Iterator<Item = Value> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut fits = |text: &SmolStr| {
            bytes += text.len() + 3;
            bytes <= PIECE_BYTES
        };
        let count = rest.iter().take_while(|text| fits(text)).count().max(1).min(rest.len());
        let (piece, left) = rest.split_at(count);
        rest = left;
        (!piece.is_empty()).then(|| Value::from_serialize(piece))
    })
}

/// What says to the broker that these patterns are wanted: one request at least.
fn requests(
    texts: &[SmolStr],
    id: Option<SmolStr>,
    credit: u32,
    replay: Option<Replay>,
) -> Vec<Request> {
    let mut patterns: Vec<Value> = pieces(texts).collect();
    if patterns.is_empty() {
        patterns.push(Value::json(&b"[]"[..]));
    }
    let request = |patterns| {
        let (id, patterns, credit) = (id.clone(), Some(patterns), Some(credit));
        Request::Subscribe(Box::new(Subscribe { id, patterns, credit, replay }))
    };
    patterns.into_iter().map(request).collect()
}
