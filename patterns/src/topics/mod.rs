//! Topics: who hears what is published, what of it is kept, and who waits for it.
//!
//! Every interest is a pattern in one index: of a peer at the door, of the SUB sockets that wrote
//! the same text, of a log that keeps events, of somebody who waits for one. An event is looked up
//! once and handed to each. It decides who gets it, with which sequence number, and who does not
//! for lack of credit; what was lost is counted. It never looks into payloads, except where
//! somebody who waits gave a condition.
//!
//! A turn has a budget, and all that takes long is paid from it: looking an event up, handing it
//! on, conditions, patterns that come and go. What is more waits, in order: events until those
//! before them are with everybody, and what is left of one event in line.

mod asks;
mod describe;
mod handing;
#[cfg(test)]
mod model;
mod replay;
mod retained;
mod stored;
mod subscribers;
mod taxonomy;
#[cfg(test)]
mod tests;
mod waits;

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;
use smol_str::SmolStr;

use crate::base::chunks::{Chunks, Shelf};
use crate::base::limits::DELIVERIES_PER_TURN;
use crate::base::{
    Deadlines, Ids, Limits, Map, Origin, Out, PeerId, Refusal, RunId, Time, WaitId, seeded,
};
use crate::expr::Seen;
use crate::names::{Key, PatternIndex, Wants};
use crate::ops::{Delivery, Event, Subscribe};
use crate::store::{self, Told};
use crate::values::{Body, Value};

use asks::Ask;
pub use describe::HistoryAsk;
use handing::Handing;
use retained::Log;
pub use retained::Retain;
use subscribers::{Held, Listener, Peer, Subscription};
pub use taxonomy::Family;
use taxonomy::Interest;
use waits::Wait;
pub use waits::WaitAsk;

/// Who published, and so who hears whether it was taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Publisher {
    /// A peer at the door.
    Peer {
        /// Who.
        peer: PeerId,
        /// What it calls the request.
        id: SmolStr,
        /// Whether it wants to hear that it was taken.
        confirm: bool,
    },
    /// A call of the built-in.
    Origin(Origin),
    /// A PUB socket, which hears nothing.
    Socket,
    /// The broker itself, of what happens in it.
    Broker,
}

impl Publisher {
    /// Whether it hears that its event was taken.
    const fn listens(&self) -> bool {
        matches!(self, Self::Peer { confirm: true, .. } | Self::Origin(_))
    }
}

/// What happens to the system.
#[derive(Debug)]
pub enum Input {
    /// An event for everybody who wants it.
    Publish {
        /// Who published it.
        by: Publisher,
        /// What. Its `message` is given here unless it has one.
        event: Arc<Event>,
    },
    /// The broker's own event, of which somebody may want to hear.
    Tell {
        /// Where, below `mpreg.`.
        topic: SmolStr,
        /// What, as JSON text.
        payload: Value,
    },
    /// A peer wants the events of patterns.
    Subscribe {
        /// Who.
        peer: PeerId,
        /// Which, and how.
        ask: Subscribe,
    },
    /// A peer wants them no longer.
    Unsubscribe {
        /// Who.
        peer: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
        /// An array of texts.
        patterns: Option<Value>,
    },
    /// A peer has handled events.
    Ack {
        /// Who.
        peer: PeerId,
        /// How many.
        events: u32,
    },
    /// Another SUB socket holds this text.
    Listen(Key),
    /// One SUB socket fewer holds it.
    Unlisten(Key),
    /// An event could not be handed to its peer's connection.
    Undelivered {
        /// Whose.
        peer: PeerId,
        /// Its pattern, as the peer wrote it.
        pattern: SmolStr,
    },
    /// A connection takes nothing more for now.
    Stalled {
        /// Whose.
        peer: PeerId,
    },
    /// It does again.
    Flows {
        /// Whose.
        peer: PeerId,
    },
    /// A connection's life has ended.
    Gone {
        /// Whose.
        peer: PeerId,
    },
    /// Somebody waits for events.
    Wait {
        /// Who gets the outcome.
        origin: Origin,
        /// For which.
        ask: WaitAsk,
        /// Monotonic nanoseconds after which nobody waits.
        deadline_ns: u64,
    },
    /// The outcome is no longer wanted.
    CancelWait(WaitId),
    /// The store has come further with the logs.
    Stored(Told),
    /// Other brokers are to hear of the patterns that are held.
    Share,
    /// The broker goes down now: who waits gets an outcome.
    End,
}

/// What the system wants done.
#[derive(Debug)]
pub enum Output {
    /// An event for one peer.
    Event {
        /// Who.
        to: PeerId,
        /// What.
        delivery: Delivery,
    },
    /// An event for all SUB sockets that hold a text.
    Broadcast(Broadcast),
    /// Whether an event was taken: its ULID, or why not.
    Published {
        /// Who published it.
        by: Publisher,
        /// What came of it.
        outcome: Result<RunId, Refusal>,
    },
    /// Answers `subscribe` and `unsubscribe`.
    Subscribed {
        /// Who.
        to: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
        /// Which op it answers.
        op: &'static str,
        /// Patterns held and credit in force, or why not all of it was done.
        outcome: Result<(u32, Option<u32>), Refusal>,
    },
    /// Something for the store.
    Store(store::Ask),
    /// A pattern that is held, or is no longer.
    Wants {
        /// As it is in the index.
        pattern: SmolStr,
        /// Whether it is held now.
        wanted: bool,
    },
    /// The wait was accepted under this id. Always before its `Done`.
    Begun {
        /// Who waits.
        origin: Origin,
        /// Names it in `Input::CancelWait`.
        wait: WaitId,
    },
    /// The one outcome of a wait.
    Done {
        /// Who waits.
        origin: Origin,
        /// The event or events, or why there are none.
        outcome: Result<Body, Refusal>,
    },
}

/// An event for all SUB sockets that hold a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// The text.
    pub text: SmolStr,
    /// Counts the events of its pattern; some where the frame of headers is wanted.
    pub seq: Option<u64>,
    /// What was published.
    pub event: Arc<Event>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Events taken.
    pub published: u64,
    /// Events that were not, for any reason.
    pub refused: u64,
    /// Events handed to peers and texts.
    pub delivered: u64,
    /// Events that peers at the door did not get, for lack of credit or of room.
    pub dropped: u64,
    /// Events of replays that were gone from the log before they could be sent.
    pub missed: u64,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// Nobody waits for it any more, or what was met is to be told.
    Wait(WaitId),
    /// Some of a log has become too old.
    Age(u32),
    /// A peer has lost events since a while.
    Losses(PeerId),
}

/// The system of topics.
#[derive(Debug)]
pub struct Topics {
    limits: Limits,
    index: PatternIndex,
    /// By pattern.
    held: Chunks<Held>,
    subscriptions: Shelf<Subscription>,
    listeners: Slab<Listener>,
    by_text: Map<SmolStr, u32>,
    /// By the slot of the connection.
    peers: Vec<Option<Box<Peer>>>,
    logs: Vec<Log>,
    /// Logs that the store is to be told of.
    unwritten: Vec<u32>,
    store_is_open: bool,
    store_is_full: bool,
    waits: Slab<Wait>,
    serial: u32,
    asks: VecDeque<Ask>,
    asked_bytes: usize,
    handing: Handing,
    /// Replays that can go on.
    lagging: VecDeque<u32>,
    /// Patterns of connections that are gone.
    leaving: VecDeque<u32>,
    /// What conditions see of the event that is handed on.
    seen: Seen,
    /// Waits whose last event has come.
    met: Vec<u32>,
    deadlines: Deadlines<Timer>,
    ids: Ids,
    interest: Interest,
    /// Of which patterns other brokers hear.
    wants: Wants,
    counters: Counters,
    /// The turn, and how much it may still do.
    turn: Time,
    budget: usize,
    seed: u64,
}

impl Topics {
    /// A system that keeps what `retain` says.
    #[must_use]
    pub fn new(limits: Limits, retain: &[Retain], seed: u64) -> Self {
        let mut topics = Self {
            limits,
            index: PatternIndex::new(seed),
            held: Chunks::default(),
            subscriptions: Shelf::default(),
            listeners: Slab::new(),
            by_text: Map::with_hasher(seeded(seed)),
            peers: Vec::new(),
            logs: Vec::new(),
            unwritten: Vec::new(),
            store_is_open: false,
            store_is_full: false,
            waits: Slab::new(),
            serial: 0,
            asks: VecDeque::new(),
            asked_bytes: 0,
            handing: Handing::default(),
            lagging: VecDeque::new(),
            leaving: VecDeque::new(),
            seen: Seen::default(),
            met: Vec::new(),
            deadlines: Deadlines::default(),
            ids: Ids::new(seed ^ 0x3b9),
            interest: Interest::default(),
            wants: Wants::default(),
            counters: Counters::default(),
            turn: Time::default(),
            budget: DELIVERIES_PER_TURN,
            seed,
        };
        retain.iter().for_each(|rule| topics.keep(rule));
        topics
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        self.begin_turn(now);
        match input {
            Input::Publish { by, event } => self.publish(now, by, event, out),
            Input::Tell { topic, payload } => {
                let event = Event { topic, payload, headers: None, message: RunId(0) };
                self.publish(now, Publisher::Broker, Arc::new(event), out);
            }
            Input::Subscribe { peer, ask } => self.subscribe(now, peer, ask, out),
            Input::Unsubscribe { peer, id, patterns } => {
                self.unsubscribe(now, peer, id, patterns, out);
            }
            Input::Ack { peer, events } => self.acked(peer, events),
            Input::Listen(key) => self.listen(key),
            Input::Unlisten(key) => self.unlisten(&key),
            Input::Undelivered { peer, pattern } => self.undelivered(now, peer, &pattern),
            Input::Stalled { peer } => self.stall(peer, true),
            Input::Flows { peer } => self.stall(peer, false),
            Input::Gone { peer } => {
                self.report_losses(now, peer, out);
                self.gone(peer);
            }
            Input::Wait { origin, ask, deadline_ns } => {
                self.wait(now, origin, ask, deadline_ns, out);
            }
            Input::CancelWait(wait) => self.cancel_wait(wait, out),
            Input::Stored(told) => self.stored(now, told, out),
            Input::Share => self.wants.begin(&self.index, self.held.len()),
            Input::End => self.end_waits(out),
        }
        self.end_turn(out);
    }

    /// Goes on with what one turn could not do, and does what is due.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        self.begin_turn(now);
        while let Some(timer) = self.deadlines.due(now.mono_ns) {
            match timer {
                Timer::Wait(wait) => self.wait_due(wait, out),
                Timer::Age(log) => self.aged(now, log),
                Timer::Losses(peer) => self.report_losses(now, peer, out),
            }
        }
        self.hand_on(now, out);
        self.take_in(now, out);
        self.let_go();
        // Last: no log is read on while its last event is still being handed to those who are live.
        self.replay(out);
        self.end_turn(out);
    }

    /// When `tick` next has work, in monotonic nanoseconds; 0 when there is work now.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let busy = self.is_behind()
            || !self.asks.is_empty()
            || !self.lagging.is_empty()
            || !self.leaving.is_empty();
        if busy { Some(0) } else { self.deadlines.next_ns() }
    }

    /// Whether anybody might want to hear of something the broker can tell.
    #[must_use]
    pub const fn hears(&self, family: Family) -> bool {
        self.interest.any(family)
    }

    /// Counts since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Patterns that somebody holds.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.index.len()
    }

    /// Those who wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    fn end_turn(&mut self, out: &mut Out<Output>) {
        self.write_logs(out);
        if !self.wants.is_empty() {
            for (pattern, wanted) in self.wants.take() {
                out.push(Output::Wants { pattern, wanted });
            }
        }
    }

    /// A turn is a moment: what happens at the same time shares what may be done in it.
    fn begin_turn(&mut self, now: Time) {
        if now != self.turn {
            self.turn = now;
            self.budget = DELIVERIES_PER_TURN;
        }
    }
}
