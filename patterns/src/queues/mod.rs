//! Queues: what is sent waits until somebody has taken it and says so.
//!
//! A queue has a *line* for each of its groups, and each line its own messages. What is ready goes
//! to the consumers of the line in turn, as far as their credit reaches; each delivery is a *lease*
//! that ends with `ack`, `nack`, its time, or its consumer. Of a long line only the front is in
//! memory. What is to survive is asked of the store ([`crate::store`]) as it happens, and answers
//! that say so wait until the store has come that far.
//!
//! What is sent to a topic goes to the queues bound to it, and by *routes* to others.
//!
//! A queue may have an *outlet*, a PUSH socket of its own, which takes like a consumer and says
//! nothing back.

mod admin;
pub mod afar;
mod beyond;
mod bindings;
mod confirm;
mod consumers;
mod describe;
mod io;
mod lane;
mod life;
mod line;
#[cfg(test)]
mod model;
mod outlets;
mod routes;
mod send;
mod serve;
mod settings;
mod settle;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;
use smol_str::SmolStr;

use crate::base::limits::DELIVERIES_PER_TURN;
use crate::base::{
    Code, Deadlines, Ids, Limits, Map, Origin, Out, Refusal, Rng, RunId, Time, TimerId, WaitId,
    seeded,
};
use crate::ops::Durability;
use crate::store::Ask;
use bindings::{Bindings, Found};
use confirm::Confirm;
use consumers::Consumers;
use describe::Search;
pub use io::{Holder, Input, OutletNews, OutletTask, Output, Sender};
pub use life::Life;
use line::Line;
use outlets::Outlet;
use routes::Routes;
pub use routes::{HeaderTexts, RouteSettings, SetTexts, Strategy};
pub use settings::{Declaration, Kind, Settings, WhenFull};

/// What is to be done at a time.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// Look for what is due in a line.
    Line(u32),
    /// Look for leases of a consumer that have ended.
    Consumer(u32),
    /// A call has waited long enough.
    Wait(WaitId),
    /// Try to bind an outlet again.
    Outlet(u32),
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counters {
    /// Messages taken in, one for each queue.
    pub enqueued: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries of a message that had been delivered before.
    pub redelivered: u64,
    /// Messages done.
    pub acked: u64,
    /// Messages that came back by `nack`.
    pub nacked: u64,
    /// Leases that ended by their time.
    pub lapsed: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Messages that were given up: the oldest of a full queue, and dead letters beyond its bound.
    pub dropped: u64,
    /// Messages that were not taken.
    pub refused: u64,
    /// Messages that had been sent before.
    pub repeated: u64,
    /// Messages no queue was bound for and no route took.
    pub unroutable: u64,
    /// Messages in the store that could not be read.
    pub damaged: u64,
}

/// Lately sent, by what they gave as `dedup`; the oldest is forgotten first.
#[derive(Debug)]
struct Sent {
    seen: Map<SmolStr, RunId>,
    seen_until: VecDeque<Seen>,
}

impl Sent {
    fn new(seed: u64) -> Self {
        Self { seen: Map::with_hasher(seeded(seed)), seen_until: VecDeque::new() }
    }
}

/// A `dedup` that was sent.
#[derive(Debug)]
struct Seen {
    until_ms: u64,
    /// The writes after which its message is safe.
    writes: u64,
    dedup: SmolStr,
}

/// One queue.
#[derive(Debug)]
struct Queue {
    name: SmolStr,
    /// Shared by those that were declared alike one after the other: of most there are few kinds.
    settings: Arc<Settings>,
    /// Its lines: the first has no name unless a group took it over.
    lines: Vec<u32>,
    /// Of few queues a `dedup` is known.
    sent: Option<Box<Sent>>,
    /// None while all are 0.
    counters: Option<Box<Counters>>,
}

impl Queue {
    fn stored(&self) -> bool {
        matches!(self.settings.durability, Durability::Fsync)
    }

    fn counters(&mut self) -> &mut Counters {
        self.counters.get_or_insert_default()
    }
}

/// A call of `mpreg.queue.next`.
#[derive(Debug)]
struct Wait {
    id: WaitId,
    origin: Origin,
    consumer: u32,
    timer: TimerId,
}

/// What the owner of the broker has decided of queues.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether `send` and `consume` make a queue that is not there.
    pub auto_create: bool,
    /// Whether outlets may be bound where other machines reach them.
    pub open_outlets: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { auto_create: true, open_outlets: false }
    }
}

/// Every queue.
#[derive(Debug)]
pub struct Queues {
    limits: Limits,
    rules: Rules,
    // In boxes: a table that grows moves no queue, and leaves no hole of its size behind.
    queues: Slab<Box<Queue>>,
    by_name: Map<SmolStr, u32>,
    /// The settings of the queue declared last.
    declared: Arc<Settings>,
    lines: Slab<Box<Line>>,
    by_number: Map<u32, u32>,
    next_number: u32,
    bindings: Bindings,
    /// Queues that came and went since other brokers were told, if they are.
    shared: Option<Vec<(SmolStr, bool)>>,
    routes: Routes,
    /// Who is bound to the topic of the message that is sent.
    found: Found,
    consumers: Consumers,
    /// Consumers whose connections are gone, with what they had in hand.
    leaving: VecDeque<u32>,
    waits: Slab<Wait>,
    outlets: Slab<Outlet>,
    /// Of waits and outlets.
    serial: u32,
    /// Lines that may have something to hand out.
    hungry: VecDeque<u32>,
    budget: usize,
    /// Whether anybody listens to what happens here.
    heard: bool,
    deadlines: Deadlines<Timer>,
    confirm: Confirm,
    /// Why nothing is stored now, if so.
    failed: Option<Refusal>,
    /// Why the store has no room for what is new, if so.
    full: Option<Refusal>,
    /// What is asked of the store, by number: whose lane, or which search.
    fetches: Map<u32, Fetch>,
    next_fetch: u32,
    searches: Slab<Search>,
    /// Bytes of what is ready and in memory.
    memory: u64,
    /// Of the hashes of what peers choose.
    seed: u64,
    ids: Ids,
    rng: Rng,
    counters: Counters,
}

/// What a fetch is for.
#[derive(Clone, Copy, Debug)]
enum Fetch {
    /// The front of a lane.
    Lane { line: u32, lane: u8 },
    /// Somebody who asked.
    Search(usize),
}

impl Queues {
    /// No queues; what the store has comes as `Input::Stored`.
    #[must_use]
    pub fn new(limits: Limits, rules: Rules, seed: u64) -> Self {
        Self {
            limits,
            rules,
            queues: Slab::new(),
            by_name: Map::with_hasher(seeded(seed)),
            declared: Arc::default(),
            lines: Slab::new(),
            by_number: Map::default(),
            next_number: 1,
            bindings: Bindings::new(seed ^ 0x71),
            shared: None,
            routes: Routes::default(),
            found: Found::default(),
            consumers: Consumers::new(seed ^ 0x72),
            leaving: VecDeque::new(),
            waits: Slab::new(),
            outlets: Slab::new(),
            serial: 0,
            hungry: VecDeque::new(),
            budget: DELIVERIES_PER_TURN,
            heard: false,
            deadlines: Deadlines::default(),
            confirm: Confirm::default(),
            failed: Some(Refusal::new(Code::StoreFailed, "the store is not open yet")),
            full: None,
            fetches: Map::default(),
            next_fetch: 0,
            searches: Slab::new(),
            memory: 0,
            seed,
            ids: Ids::new(seed ^ 0x73),
            rng: Rng::new(seed ^ 0x74),
            counters: Counters::default(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        match input {
            Input::Send { by, queue, also, event, options } => {
                self.send(now, by, (queue, also), event, options, out);
            }
            Input::Settle { peer, settle } => self.settle(now, peer, settle, out),
            Input::Stored(told) => self.stored(now, told, out),
            Input::Declare { origin, name, declaration } => {
                self.declare(origin, &name, &declaration, out);
            }
            Input::Delete { origin, name } => self.delete(origin, &name, out),
            Input::Purge { origin, name, dead } => self.purge(origin, &name, dead, out),
            Input::Peek { origin, name, count, dead } => {
                self.peek(origin, &name, count, dead, out);
            }
            Input::Redrive { origin, name, count } => self.redrive(now, origin, &name, count, out),
            Input::Consume { peer, id, queue, group, credit } => {
                self.consume(peer, id, (queue, group), credit, out);
            }
            Input::Next { origin, holder, name, group, deadline_ns } => {
                self.next(now, origin, holder, (&name, group.as_ref()), deadline_ns, out);
            }
            Input::Ended { graph, failure } => self.graph_ended(now, graph, failure, out),
            Input::CancelWait(id) => self.cancel_wait(id, out),
            Input::Undelivered { id, refusal } => self.undelivered(now, id, refusal, out),
            Input::Stalled { peer } => _ = self.consumers.stall(peer, true),
            Input::Flows { peer } => self.flows(peer),
            Input::Outlet { at, news } => self.outlet(now, at, news, out),
            Input::Gone { peer } => self.gone(peer, out),
            Input::AddRoute { origin, name, settings, if_version } => {
                self.add_route(origin, (name, *settings), if_version, out);
            }
            Input::RemoveRoute { origin, name, if_version } => {
                self.remove_route(origin, &name, if_version, out);
            }
            Input::ListRoutes { origin } => self.list_routes(origin, out),
            Input::Share => self.share(),
            Input::Lead { name, home } => self.lead(&name, home, out),
            Input::End => self.end(out),
        }
        self.serve(now, out);
        if self.shared.is_some() {
            self.tell_brokers(out);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        self.budget = DELIVERIES_PER_TURN;
        while self.budget > 0
            && let Some(timer) = self.deadlines.due(now.mono_ns)
        {
            self.budget -= 1;
            match timer {
                Timer::Line(at) => {
                    if let Some(line) = self.lines.get_mut(at as usize) {
                        line.timer = None;
                    }
                    self.ripen(now, at);
                }
                Timer::Consumer(at) => {
                    if let Some(consumer) = self.consumers.get(at) {
                        consumer.timer = None;
                    }
                    self.lapse(now, at, out);
                }
                Timer::Wait(id) => self.wait_due(id, out),
                Timer::Outlet(slot) => self.bind_again(slot, out),
            }
        }
        self.serve(now, out);
    }

    /// When `tick` next has work, in monotonic nanoseconds; 0 when there is work now.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        if !self.leaving.is_empty() || (!self.hungry.is_empty() && !self.is_full()) {
            return Some(0);
        }
        self.deadlines.next_ns()
    }

    /// Whether a topic may have queues or routes bound to it.
    #[must_use]
    pub fn binds(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// Whether there is a queue of that name.
    #[must_use]
    pub fn is_queue(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether so much is in hand that nothing more is handed out.
    fn is_full(&self) -> bool {
        self.consumers.bytes >= self.limits.queue_memory_bytes as u64
    }

    /// A queue that can be changed now.
    fn find_open(&self, name: &str) -> Result<u32, Refusal> {
        let at = self.find(name)?;
        let failed = self.failed.as_ref().filter(|_| self.queues[at as usize].stored());
        failed.map_or(Ok(at), |refusal| Err(refusal.clone()))
    }

    fn find(&self, name: &str) -> Result<u32, Refusal> {
        self.by_name.get(name).copied().ok_or_else(|| {
            Refusal::field(Code::UnknownQueue, "queue", format!("there is no queue {name}"))
        })
    }

    /// Asks the store for something, and counts it if it is a write.
    fn ask(&mut self, ask: Ask, out: &mut Out<Output>) {
        if !matches!(ask, Ask::Fetch { .. }) {
            self.confirm.write();
        }
        out.push(Output::Store(ask));
    }

    /// Lets an answer go: what the store has to know first is waited for.
    fn when_safe(&mut self, stored: bool, answer: Output, out: &mut Out<Output>) {
        if stored && let Some(why) = &self.failed {
            // What is counted now is void: it would wait for a number that means another write.
            return out.push(confirm::refused(answer, why));
        }
        let need = if stored { self.confirm.writes() } else { 0 };
        self.confirm.hold(need, answer, out);
    }

    fn end(&mut self, out: &mut Out<Output>) {
        let open: Vec<WaitId> = self.waits.iter().map(|(_, wait)| wait.id).collect();
        for id in open {
            self.end_wait(id, Err(Refusal::cut_off(false)), out);
        }
        self.confirm.fail(&Refusal::cut_off(true), out);
    }
}
