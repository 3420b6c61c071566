//! Who wants the events of which pattern, and what a peer may have in hand.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use smol_str::SmolStr;

use super::asks::PATTERN_COST;
use super::handing::Due;
use super::replay::Cursor;
use super::{Input, Output, Timer, Topics};
use crate::base::{Code, Out, PeerId, Refusal, Set, Time, seeded};
use crate::names::{Key, Pattern, PatternId};
use crate::ops::Delivery;
use crate::values::Value;

/// How long losses are gathered before they are told.
const LOSSES_MS: u64 = 1_000;
/// Patterns that one report of losses names.
const LOSSES_NAMED: usize = 100;

/// One who wants the events of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A log that keeps them.
    Log(u32),
    /// A subscription of a peer.
    Peer(u32),
    /// The SUB sockets that wrote one text.
    Text(u32),
    /// Somebody who waits for the next.
    Wait(u32),
}

/// What is known of a pattern that somebody holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// How many events matched it since somebody holds it.
    pub(super) seq: u64,
    /// Of those, how many deliveries were not made.
    pub(super) dropped: u64,
    /// Logs first: they are there from the start, and never leave.
    pub(super) targets: Vec<Target>,
}

/// One pattern of one peer.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) peer: PeerId,
    /// As the peer wrote it.
    pub(super) text: SmolStr,
    pub(super) pattern: PatternId,
    pub(super) place: u32,
    pub(super) serial: u32,
    pub(super) dropped: u64,
    /// Where in a log it is, if it reads one.
    pub(super) cursor: Option<Box<Cursor>>,
}

/// All SUB sockets that hold one text.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) text: SmolStr,
    pub(super) headers: bool,
    pub(super) sockets: u32,
    pattern: PatternId,
    place: u32,
    serial: u32,
}

/// One connection that subscribes.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// Its subscriptions, by their text: beside each the hash, so that growing looks at nothing
    /// else.
    pub(super) texts: HashTable<(u32, u32)>,
    pub(super) credit: Option<u32>,
    in_hand: u32,
    stalled: bool,
    /// Replays that wait for credit or for the connection.
    pub(super) paused: Vec<u32>,
    /// Events it did not get.
    pub(super) dropped: u64,
    /// Those that were not told yet, and the subscriptions they were for.
    untold: u64,
    losing: Set<u32>,
}

impl Peer {
    /// Whether an event may be handed to it, and if so, that it is.
    pub(super) const fn take(&mut self) -> bool {
        match self.credit {
            Some(credit) if self.in_hand >= credit => false,
            Some(_) => {
                self.in_hand += 1;
                true
            }
            None => true,
        }
    }

    pub(super) const fn is_stalled(&self) -> bool {
        self.stalled
    }
}

impl Topics {
    /// The connection's subscriptions, if it has any.
    pub(super) fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(id.slot as usize)?.as_deref_mut();
        peer.filter(|peer| peer.id == id)
    }

    /// The same, made if it is new.
    pub(super) fn peer_or_new(&mut self, id: PeerId) -> &mut Peer {
        let slot = id.slot as usize;
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        self.peers[slot].get_or_insert_with(|| {
            Box::new(Peer {
                id,
                texts: HashTable::new(),
                credit: None,
                in_hand: 0,
                stalled: false,
                paused: Vec::new(),
                dropped: 0,
                untold: 0,
                losing: Set::default(),
            })
        })
    }

    /// Names another life of a place. It hears of no event that was there before it.
    pub(super) fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.handing.came(self.serial);
        self.serial
    }

    /// Which life of its place a target is; none for logs, which live as long as the broker.
    pub(super) fn serial_of(&self, target: Target) -> Option<u32> {
        match target {
            Target::Log(_) => None,
            Target::Peer(at) => self.subscriptions.get(at).map(|of| of.serial),
            Target::Text(at) => self.listeners.get(at as usize).map(|of| of.serial),
            Target::Wait(at) => self.waits.get(at as usize).map(|of| of.id.serial),
        }
    }

    /// Puts a target to a pattern, which is made if it is new. Gives the pattern and the place.
    pub(super) fn attach(&mut self, pattern: &Pattern, target: Target) -> (PatternId, u32) {
        let (id, is_new) = self.index.insert(pattern);
        let at = id.0 as usize;
        while self.held.len() <= at {
            self.held.push(Held::default());
        }
        if is_new {
            self.held[at] = Held::default();
            self.interest.add(pattern);
            self.wants.came(pattern.as_str(), &self.index, self.held.len());
        }
        self.held[at].targets.push(target);
        (id, self.held[at].targets.len() as u32 - 1)
    }

    /// Takes a target away, and the pattern with the last.
    pub(super) fn detach(&mut self, pattern: PatternId, place: u32) {
        let held = &mut self.held[pattern.0 as usize];
        held.targets.swap_remove(place as usize);
        if held.targets.is_empty() {
            *held = Held::default();
            let text = self.index.text(pattern).unwrap_or_default();
            if let Ok(pattern) = Pattern::parse(&text) {
                self.interest.remove(&pattern);
            }
            self.index.remove(pattern);
            self.wants.left(&text, &self.index, self.held.len());
            return;
        }
        match held.targets.get(place as usize) {
            Some(&Target::Peer(moved)) => self.subscriptions[moved].place = place,
            Some(&Target::Text(moved)) => self.listeners[moved as usize].place = place,
            Some(&Target::Wait(moved)) => self.waits[moved as usize].place = place,
            Some(Target::Log(_)) | None => {}
        }
    }

    pub(super) fn listen(&mut self, key: Key) {
        if let Some(&at) = self.by_text.get(&key.text) {
            self.listeners[at as usize].sockets += 1;
            return;
        }
        let at = self.listeners.vacant_key() as u32;
        let (pattern, place) = self.attach(&key.pattern, Target::Text(at));
        let (text, headers, serial) = (key.text, key.headers, self.next_serial());
        self.by_text.insert(text.clone(), at);
        self.listeners.insert(Listener { text, headers, sockets: 1, pattern, place, serial });
    }

    pub(super) fn unlisten(&mut self, key: &Key) {
        let Some(&at) = self.by_text.get(&key.text) else { return };
        let listener = &mut self.listeners[at as usize];
        listener.sockets -= 1;
        if listener.sockets == 0 {
            let (pattern, place) = (listener.pattern, listener.place);
            self.by_text.remove(&key.text);
            self.listeners.remove(at as usize);
            self.detach(pattern, place);
        }
    }

    /// Hands an event to a peer, if it takes one.
    pub(super) fn hand_peer(&mut self, now: Time, at: u32, due: Due, out: &mut Out<Output>) {
        if self.reads_log(Target::Peer(at)) {
            return self.live(at, due.event, out);
        }
        let subscription = &self.subscriptions[at];
        let to = subscription.peer;
        let peer = self.peers.get_mut(to.slot as usize).and_then(Option::as_deref_mut);
        let Some(peer) = peer.filter(|peer| peer.id == to) else { return };
        if !peer.take() {
            return self.lose(now, at);
        }
        let (pattern, event) = (subscription.text.clone(), due.event);
        self.counters.delivered += 1;
        out.push(Output::Event {
            to,
            delivery: Delivery { event, pattern, seq: due.seq, missed: 0 },
        });
    }

    /// Counts an event that a peer does not get, and tells of it before long.
    fn lose(&mut self, now: Time, at: u32) {
        let subscription = &mut self.subscriptions[at];
        subscription.dropped += 1;
        self.held[subscription.pattern.0 as usize].dropped += 1;
        self.counters.dropped += 1;
        let id = subscription.peer;
        let Some(peer) = self.peer(id) else { return };
        peer.dropped += 1;
        peer.untold += 1;
        if peer.losing.len() < LOSSES_NAMED {
            peer.losing.insert(at);
        }
        if peer.untold == 1 {
            let at_ns = now.mono_ns + LOSSES_MS * 1_000_000;
            self.deadlines.set(at_ns, Timer::Losses(id));
        }
    }

    /// Tells what a peer has lost since the last time.
    pub(super) fn report_losses(&mut self, now: Time, id: PeerId, out: &mut Out<Output>) {
        let Some(peer) = self.peer(id) else { return };
        let lost = std::mem::take(&mut peer.untold);
        let losing = std::mem::take(&mut peer.losing);
        if lost == 0 || !self.hears(super::Family::Losses) {
            return;
        }
        let texts = losing.iter().filter_map(|&at| {
            let subscription = self.subscriptions.get(at)?;
            (subscription.peer == id).then(|| subscription.text.as_str())
        });
        let mut patterns: Vec<&str> = texts.collect();
        patterns.sort_unstable();
        let told = serde_json::json!({
            "peer": id.to_string(), "dropped": lost, "patterns": patterns,
        });
        let topic = smol_str::format_smolstr!("mpreg.topic.dropped.{id}");
        self.handle(now, Input::Tell { topic, payload: Value::from_serialize(&told) }, out);
    }

    /// An event that was handed on did not leave: the peer does not read.
    pub(super) fn undelivered(&mut self, now: Time, id: PeerId, text: &str) {
        let Some(peer) = self.peer(id) else { return };
        if peer.credit.is_some() {
            peer.in_hand = peer.in_hand.saturating_sub(1);
            // Its credit may be all that a replay waits for.
            self.resume(id);
        }
        let Some(at) = self.subscription(id, text) else { return };
        if let Some(cursor) = &mut self.subscriptions[at].cursor {
            cursor.missed += 1;
        }
        self.lose(now, at);
    }

    pub(super) fn acked(&mut self, id: PeerId, events: u32) {
        let Some(peer) = self.peer(id) else { return };
        peer.in_hand = peer.in_hand.saturating_sub(events);
        self.resume(id);
    }

    pub(super) fn stall(&mut self, id: PeerId, stalled: bool) {
        if stalled {
            // One that holds nothing yet may subscribe before it reads again.
            self.peer_or_new(id).stalled = true;
        } else if let Some(peer) = self.peer(id) {
            peer.stalled = false;
            self.resume(id);
        }
    }

    /// Sets a connection's window.
    pub(super) fn set_credit(&mut self, id: PeerId, credit: u32) {
        let peer = self.peer_or_new(id);
        if peer.credit.is_none() {
            peer.in_hand = 0;
        }
        peer.credit = Some(credit);
        self.resume(id);
    }

    /// Takes one subscription of a peer in. Whether it is a new one.
    pub(super) fn hold(
        &mut self,
        id: PeerId,
        text: &str,
        pattern: &Pattern,
        cursor: Option<Cursor>,
    ) -> Result<(), Refusal> {
        let most = self.limits.patterns_per_peer;
        let all = self.subscriptions.len() + self.listeners.len();
        if self.peer_or_new(id).texts.len() >= most {
            let message = format!("this connection holds {most} patterns");
            return Err(Refusal::new(Code::TooManyPatterns, message));
        }
        if all >= self.limits.patterns {
            let message = format!("the broker holds {all} patterns");
            return Err(Refusal::new(Code::TooManyPatterns, message));
        }
        let at = self.subscriptions.next();
        let (pattern, place) = self.attach(pattern, Target::Peer(at));
        let (text, serial) = (SmolStr::new(text), self.next_serial());
        let behind = cursor.is_some();
        let (peer, dropped, cursor) = (id, 0, cursor.map(Box::new));
        let hash = self.hash(&text);
        self.subscriptions.insert(Subscription {
            peer,
            text,
            pattern,
            place,
            serial,
            dropped,
            cursor,
        });
        if let Some(peer) = &mut self.peers[id.slot as usize] {
            peer.texts.insert_unique(wide(hash), (hash, at), |&(hash, _)| wide(hash));
        }
        if behind {
            self.fall_behind(at);
        }
        Ok(())
    }

    /// The subscription that a peer wrote so.
    pub(super) fn subscription(&self, id: PeerId, text: &str) -> Option<u32> {
        let peer = self.peers.get(id.slot as usize)?.as_deref().filter(|peer| peer.id == id)?;
        let hash = self.hash(text);
        let is_it =
            |&(other, at): &(u32, u32)| other == hash && self.subscriptions[at].text == text;
        peer.texts.find(wide(hash), is_it).map(|&(_, at)| at)
    }

    fn hash(&self, text: &str) -> u32 {
        seeded(self.seed).hash_one(text) as u32
    }

    /// Takes a subscription away that its peer no longer wants.
    pub(super) fn drop_text(&mut self, id: PeerId, text: &str) {
        let Some(found) = self.subscription(id, text) else { return };
        let hash = self.hash(text);
        if let Some(peer) = self.peer(id)
            && let Ok(entry) = peer.texts.find_entry(wide(hash), |&(_, at)| at == found)
        {
            entry.remove();
        }
        self.release(found);
    }

    /// Takes a subscription away.
    pub(super) fn release(&mut self, at: u32) {
        let Some(gone) = self.subscriptions.remove(at) else { return };
        self.detach(gone.pattern, gone.place);
    }

    /// A connection is gone; its patterns follow, a bounded number at a time.
    pub(super) fn gone(&mut self, id: PeerId) {
        let slot = self.peers.get_mut(id.slot as usize);
        let Some(peer) = slot.and_then(|slot| slot.take_if(|peer| peer.id == id)) else { return };
        self.asks.retain(|ask| ask.peer != id);
        self.asked_bytes = self.asks.iter().map(super::Ask::bytes).sum();
        self.leaving.extend(peer.texts.into_iter().map(|(_, at)| at));
    }

    pub(super) fn let_go(&mut self) {
        while self.budget > 0
            && let Some(at) = self.leaving.pop_front()
        {
            self.budget = self.budget.saturating_sub(PATTERN_COST);
            self.release(at);
        }
    }
}

/// For a table, which reads a hash from both ends.
const fn wide(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}
