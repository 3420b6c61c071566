//! One simulation: a broker, its peers and the network in virtual time, and what goes wrong.

use std::collections::BTreeMap;

use mpreg_patterns::base::{Limits, Rng, RunId, Time};
use mpreg_patterns::node::Input;
use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::topics::Retain;
use mpreg_patterns::values::{Body, Value};

use crate::account::Queues;
use crate::brief;
use crate::broker::{Broker, Wire};
use crate::checkers::Checker;
use crate::network::{Parcel, STEP_NS, Sent, State};
use crate::peers::{MS, Worker};
use crate::producers::Pusher;
use crate::queues;
use crate::roles::{self, Peer, Role};
use crate::sockets::Sockets;
use crate::spelling;
use crate::store::Store;
use crate::tally::Tally;
use crate::workload::one_in;

/// How long things go wrong, and how long they may take to come to rest.
const CHAOS_NS: u64 = 6_000 * MS;
const REST_NS: u64 = 14_000 * MS;
/// Turns that may follow each other, each with something left to do, before the broker is held to
/// be running in a circle.
const TURNS: usize = 10_000;
/// Moments between two audits.
const AUDIT: u64 = 100;

/// What goes wrong: weights, of which nothing happening has `calm`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) calm: usize,
    pub(crate) silent: usize,
    pub(crate) reset: usize,
    pub(crate) replaced: usize,
    pub(crate) stall: usize,
    pub(crate) kill: usize,
    pub(crate) restart: usize,
    pub(crate) outbox_bytes: usize,
    /// Whether there are topics too, and whoever publishes, subscribes, listens and waits.
    pub(crate) topics: bool,
    /// Whether there are queues too, and whoever sends and takes.
    pub(crate) queues: bool,
    /// One in so many commits of the store goes wrong; 0 for none.
    pub(crate) disk: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Calm,
    Silent,
    Reset,
    Replaced,
    Stall,
    Kill,
    Restart,
}

#[derive(Debug)]
enum Event {
    ToBroker { life: u32, request: Box<Request> },
    ToPeer { life: u32, parcel: Parcel },
    BrokerNotices { life: u32 },
    PeerNotices { life: u32 },
    Reconnects { life: u32, aware: bool },
    Reads,
}

impl Event {
    fn brief(&self) -> String {
        match self {
            Self::ToBroker { request, .. } => format!("→ {}", brief::request(request)),
            Self::ToPeer { parcel, .. } => format!("hears {}", brief::replies(&parcel.replies)),
            other => format!("{other:?}"),
        }
    }
}

struct Links {
    now_ns: u64,
    rng: Rng,
    peers: Vec<Peer>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    serial: u64,
    log: Option<Vec<String>>,
}

pub(crate) struct World {
    now: Time,
    scenario: Scenario,
    seed: u64,
    broker: Broker,
    limits: Limits,
    rules: Vec<Retain>,
    sockets: Sockets,
    links: Links,
    check: Checker,
    next_fault_ns: u64,
    turns: usize,
    tally: Tally,
}

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x51_0000);
        let limits = Limits {
            outbox_bytes: scenario.outbox_bytes,
            graph_window: 1 + rng.below(8),
            calls_per_peer: 40,
            calls: 200,
            ..Limits::default()
        };
        let plans = if scenario.queues { queues::plans(&mut rng) } else { Vec::new() };
        let peers = roles::all(scenario, &plans, seed, &mut rng).into_iter().map(Peer::new);
        let peers = peers.collect();
        let rules = if scenario.topics { spelling::rules(&mut rng) } else { Vec::new() };
        let mut check = Checker::default();
        check.topics.begin(&rules);
        check.queues = Queues::new(&plans);
        let store = Store::new(seed * 67, scenario.disk);
        let pusher = Pusher::new(seed * 71, &plans);
        let mut world = Self {
            now: Time { mono_ns: MS, wall_ms: 1_700_000_000_000 },
            scenario,
            seed,
            broker: Broker::new(1, &limits, &rules, seed, store),
            limits,
            rules,
            sockets: Sockets::new(if scenario.topics { 3 } else { 0 }, seed * 47, pusher),
            links: Links {
                now_ns: MS,
                rng,
                peers,
                events: BTreeMap::new(),
                serial: 0,
                log: verbose.then(Vec::new),
            },
            check,
            next_fault_ns: 100 * MS,
            turns: 0,
            tally: Tally::default(),
        };
        world.broker.open(world.now, &mut world.check);
        for peer in 0..world.links.peers.len() {
            world.links.at(MS, peer, Event::Reconnects { life: 0, aware: true });
        }
        world
    }

    /// Runs to the end. Everything that must not be panics.
    pub(crate) fn run(&mut self) -> Tally {
        while self.step(CHAOS_NS) {}
        self.calm_down();
        while self.step(CHAOS_NS + REST_NS) {}
        self.probe();
        // Less than the probes' timeout: a deadline that is still set then has leaked.
        while self.step(CHAOS_NS + REST_NS + 2_000 * MS) {}
        self.assert_quiet();
        self.leave();
        self.tally.topics = self.check.topics.tally;
        self.tally.queues = self.check.queues.tally;
        self.tally.disk = self.broker.store.wear;
        self.tally.outcomes = self.check.outcomes;
        self.tally.lost = self.check.lost;
        self.tally.again = self.check.again;
        self.tally.unsent = self.check.unsent;
        for peer in &self.links.peers {
            match &peer.role {
                Role::Client(client) => {
                    self.tally.answered += client.answered;
                    self.tally.unknown += client.unknown;
                }
                Role::Worker(worker) => self.tally.ran += worker.ran,
                _ => {}
            }
        }
        self.tally
    }

    /// What happened, if somebody wants to read it.
    pub(crate) fn log(&mut self) -> Vec<String> {
        self.links.log.take().unwrap_or_default()
    }

    /// Goes to the next moment at which something happens, if that is before `end_ns`.
    fn step(&mut self, end_ns: u64) -> bool {
        let event_ns = self.links.events.keys().next().map_or(u64::MAX, |key| key.0);
        let peers = self.links.peers.iter().filter(|peer| peer.alive);
        let peer_ns = peers.map(|peer| peer.role.wake_at()).min().unwrap_or(u64::MAX);
        let fault_ns = if end_ns == CHAOS_NS { self.next_fault_ns } else { u64::MAX };
        let broker_ns = self.broker.wake_at().unwrap_or(u64::MAX).min(self.sockets.wake_at());
        let next_ns = event_ns.min(peer_ns).min(fault_ns).min(broker_ns).max(self.now.mono_ns);
        if next_ns > end_ns {
            self.pass_to(end_ns.max(self.now.mono_ns));
            return false;
        }
        self.pass_to(next_ns);
        while let Some(entry) = self.links.events.first_entry() {
            if entry.key().0 > next_ns {
                break;
            }
            let (peer, event) = entry.remove();
            self.tally.events += 1;
            self.event(peer, event);
        }
        for peer in 0..self.links.peers.len() {
            self.wake(peer);
        }
        let done = self.sockets.wake(next_ns);
        self.beside(done);
        if fault_ns <= next_ns {
            self.next_fault_ns = next_ns + MS * (1 + self.links.rng.below(250) as u64);
            self.fault();
        }
        self.turn();
        true
    }

    fn pass_to(&mut self, mono_ns: u64) {
        self.now.wall_ms += mono_ns / MS - self.now.mono_ns / MS;
        self.now.mono_ns = mono_ns;
        self.links.now_ns = mono_ns;
    }

    /// One turn of the broker. False if it has left something to do, and others may come first.
    fn turn(&mut self) -> bool {
        self.broker.turn(self.now, &mut self.links, &mut self.check);
        if self.broker.wake_at().is_some_and(|at_ns| at_ns <= self.now.mono_ns) {
            self.turns += 1;
            assert!(self.turns < TURNS, "the broker has work without end");
            // Long enough for others to be heard before it goes on.
            self.pass_to(self.now.mono_ns + STEP_NS);
            return false;
        }
        self.turns = 0;
        self.check.nobody_idles();
        self.check.nothing_overdue(self.now);
        if self.check.topics.settled(self.now).is_multiple_of(AUDIT) {
            self.check.topics.audit(self.now, &self.broker.audit(self.now, "mpreg.topics"));
            self.audit_queues(false);
        }
        true
    }

    fn audit_queues(&mut self, rests: bool) {
        let told = self.broker.audit(self.now, "mpreg.queues");
        self.check.queues.audit(self.now, &told, &self.broker.store, rests);
    }

    /// Sockets beside the door have done something.
    fn beside(&mut self, done: Vec<Input>) {
        for input in done {
            self.links.note(usize::MAX, || format!("→ {}", brief::input(&input)));
            self.broker.socket(self.now, input, &mut self.links, &mut self.check);
        }
    }

    fn event(&mut self, peer: usize, event: Event) {
        let now = self.now;
        self.links.note(peer, || event.brief());
        match event {
            Event::ToBroker { life, request } => {
                if self.links.peers[peer].link.life == life {
                    let (links, check) = (&mut self.links, &mut self.check);
                    self.broker.request(now, (peer, life), *request, links, check);
                }
            }
            Event::ToPeer { life, parcel } => {
                let to = &mut self.links.peers[peer];
                if to.link.life != life || to.link.state != State::Up {
                    return;
                }
                to.unread.push_back(parcel);
                self.read(peer);
            }
            Event::BrokerNotices { life } => {
                let (links, check) = (&mut self.links, &mut self.check);
                self.broker.disconnected(now, (peer, life), links, check);
            }
            Event::PeerNotices { life } => {
                if self.links.peers[peer].link.life == life && self.links.peers[peer].alive {
                    self.links.peers[peer].lost();
                    let at_ns = now.mono_ns + MS * (1 + self.links.rng.below(300) as u64);
                    self.links.at(at_ns, peer, Event::Reconnects { life, aware: true });
                }
            }
            Event::Reconnects { life, aware } => {
                if self.links.peers[peer].link.life == life {
                    self.reconnect(peer, aware);
                }
            }
            Event::Reads => {
                self.links.peers[peer].link.reading = true;
                self.read(peer);
            }
        }
    }

    /// A peer's connection begins another life, whether the broker knows of the last one's end
    /// or not. A peer that is not aware of it goes on as if nothing had been.
    fn reconnect(&mut self, peer: usize, aware: bool) {
        let it = &mut self.links.peers[peer];
        it.link.connect();
        it.unread.clear();
        it.disturbed_ns = self.now.mono_ns;
        it.role.connected();
        if self.scenario.topics && self.scenario.stall > 0 && one_in(&mut self.links.rng, 3) {
            // It has much to do before it reads.
            it.link.reading = false;
            self.links.at(self.now.mono_ns + 900 * MS, peer, Event::Reads);
        }
        let it = &mut self.links.peers[peer];
        if !it.alive {
            it.alive = true;
            it.role.killed(self.now.mono_ns);
        } else if aware {
            it.role.reconnected(self.now.mono_ns);
        }
    }

    /// The peer reads what has arrived, and may speak at once.
    fn read(&mut self, peer: usize) {
        while self.links.peers[peer].link.reading && self.links.peers[peer].alive {
            let Some(parcel) = self.links.peers[peer].unread.pop_front() else { return };
            self.links.peers[peer].link.in_pipe -= 1;
            for reply in parcel.replies {
                let said = self.links.peers[peer].role.hear(self.now.mono_ns, &reply);
                self.say(peer, said);
                if let Reply::Run(run) = &reply
                    && one_in(&mut self.links.rng, 50)
                {
                    self.forge(run.id);
                }
            }
        }
    }

    /// Some peer answers a run that may not be its own.
    fn forge(&mut self, run: RunId) {
        let forger = self.links.rng.below(self.links.peers.len());
        let body = Box::new(Body::plain(Value::json("\"forged\"")));
        if matches!(self.links.peers[forger].role, Role::Worker(Worker { .. })) {
            self.say(forger, [Request::Result { run, body }]);
        }
    }

    fn wake(&mut self, peer: usize) {
        let it = &mut self.links.peers[peer];
        if !it.alive || it.role.wake_at() > self.now.mono_ns {
            return;
        }
        let said = it.wake(self.now.mono_ns, &mut self.check.plans);
        self.say(peer, said);
    }

    fn say(&mut self, peer: usize, said: impl IntoIterator<Item = Request>) {
        let now_ns = self.now.mono_ns;
        for request in said {
            let (link, rng) = (&mut self.links.peers[peer].link, &mut self.links.rng);
            let life = link.life;
            match link.up(now_ns, rng) {
                Some(at_ns) => {
                    let request = Box::new(request);
                    self.links.at(at_ns, peer, Event::ToBroker { life, request });
                }
                None => self.links.peers[peer].disturbed_ns = now_ns,
            }
        }
    }

    /// Something goes wrong.
    fn fault(&mut self) {
        let fault = self.draw();
        let peer = self.links.rng.below(self.links.peers.len());
        let (now_ns, life) = (self.now.mono_ns, self.links.peers[peer].link.life);
        if matches!(fault, Fault::Calm) || !self.links.peers[peer].alive {
            return;
        }
        self.tally.faults += 1;
        self.links.note(peer, || format!("{fault:?}"));
        match fault {
            Fault::Calm => {}
            Fault::Silent => self.links.cut(peer, State::Silent, 750),
            Fault::Reset => self.links.cut(peer, State::Down, 5),
            Fault::Replaced => {
                // The same identity connects again before the broker has missed it.
                self.links.peers[peer].lost();
                self.reconnect(peer, true);
            }
            Fault::Stall => {
                self.links.peers[peer].link.reading = false;
                let ns = MS * (1 + self.links.rng.below(2_000) as u64);
                self.links.at(now_ns + ns, peer, Event::Reads);
            }
            Fault::Kill => {
                let silent = one_in(&mut self.links.rng, 5);
                let state = if silent { State::Silent } else { State::Down };
                self.links.peers[peer].link.state = state;
                self.links.peers[peer].alive = false;
                self.links.peers[peer].lost();
                self.links.peers[peer].disturbed_ns = now_ns;
                let notice_ns = now_ns + MS * if silent { 900 } else { 3 };
                self.links.at(notice_ns, peer, Event::BrokerNotices { life });
                let back_ns = now_ns + MS * (50 + self.links.rng.below(2_000) as u64);
                self.links.at(back_ns, peer, Event::Reconnects { life, aware: true });
            }
            Fault::Restart => self.restart(),
        }
    }

    fn draw(&mut self) -> Fault {
        let Scenario { calm, silent, reset, replaced, stall, kill, restart, .. } = self.scenario;
        let all = [
            (Fault::Calm, calm),
            (Fault::Silent, silent),
            (Fault::Reset, reset),
            (Fault::Replaced, replaced),
            (Fault::Stall, stall),
            (Fault::Kill, kill),
            (Fault::Restart, restart),
        ];
        let mut at = self.links.rng.below(all.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in all {
            if at < weight {
                return fault;
            }
            at -= weight;
        }
        Fault::Calm
    }

    /// The broker is killed and comes up again, knowing nothing. Half of the peers do not notice:
    /// their sockets connect again by themselves, under another routing id.
    fn restart(&mut self) {
        self.check.queues.ended(&self.broker.audit(self.now, "mpreg.queues"));
        self.check.restarted();
        let epoch = self.broker.epoch + 1;
        let store = std::mem::replace(&mut self.broker.store, Store::new(0, 0));
        self.broker = Broker::new(epoch, &self.limits, &self.rules, self.seed ^ epoch, store);
        self.broker.open(self.now, &mut self.check);
        self.check.topics.begin(&self.rules);
        let held = self.sockets.connect();
        self.beside(held);
        for peer in 0..self.links.peers.len() {
            let it = &mut self.links.peers[peer];
            it.disturbed_ns = self.now.mono_ns;
            it.link.state = State::Down;
            let life = it.link.life;
            if !it.alive {
                continue;
            }
            let aware = one_in(&mut self.links.rng, 2);
            if aware {
                self.links.peers[peer].lost();
            }
            let back_ns = self.now.mono_ns + MS * (10 + self.links.rng.below(400) as u64);
            self.links.at(back_ns, peer, Event::Reconnects { life, aware });
        }
    }

    /// Nothing goes wrong any more: who is gone comes back, who stalls reads.
    fn calm_down(&mut self) {
        let now_ns = self.now.mono_ns;
        self.sockets.settle();
        self.broker.settle();
        for peer in 0..self.links.peers.len() {
            let it = &mut self.links.peers[peer];
            it.role.settle(now_ns);
            let (fine, life) = (it.alive && it.link.state == State::Up, it.link.life);
            self.links.at(now_ns + 10 * MS, peer, Event::Reads);
            if !fine {
                self.links.peers[peer].lost();
                self.links.at(now_ns + 1_500 * MS, peer, Event::Reconnects { life, aware: true });
            }
        }
    }

    fn probe(&mut self) {
        for peer in 0..self.links.peers.len() {
            let said = match &mut self.links.peers[peer].role {
                Role::Client(client) => client.probe(self.now.mono_ns, &mut self.check.plans),
                Role::Producer(producer) => producer.probe(self.now.mono_ns),
                _ => Vec::new(),
            };
            self.say(peer, said);
        }
    }

    fn assert_quiet(&mut self) {
        self.check.assert_quiet();
        self.broker.assert_quiet();
        self.check.queues.ended(&self.broker.audit(self.now, "mpreg.queues"));
        self.check.queues.assert_quiet();
        self.audit_queues(true);
        if !self.scenario.topics {
            self.broker.assert_idle();
        }
        for (at, peer) in self.links.peers.iter().enumerate() {
            peer.role.assert_quiet();
            let id = self.broker.id_of(at, peer.link.life);
            // Whoever holds the broker's own topics may be about to hear what it has lost.
            let flows = peer.link.in_pipe == 0;
            if let (true, Role::Subscriber(subscriber), Some(id)) = (flows, &peer.role, id) {
                let handed = self.check.topics.handed(id);
                assert_eq!(subscriber.events, handed, "{id} did not hear all that left for it");
            }
        }
    }

    /// Everybody goes, and nothing is left of them.
    fn leave(&mut self) {
        let held = self.sockets.leave();
        self.beside(held);
        for peer in 0..self.links.peers.len() {
            let life = self.links.peers[peer].link.life;
            let (links, check) = (&mut self.links, &mut self.check);
            self.broker.disconnected(self.now, (peer, life), links, check);
        }
        while !self.turn() {}
        let told = self.broker.audit(self.now, "mpreg.topics");
        self.check.topics.audit(self.now, &told);
        self.check.topics.assert_left(&told);
        // What somebody has lost who is gone would still be told.
        self.pass_to(self.now.mono_ns + 1_100 * MS);
        while !self.turn() {}
        self.broker.assert_quiet();
        self.broker.assert_idle();
    }
}

impl Links {
    fn at(&mut self, at_ns: u64, peer: usize, event: Event) {
        self.serial += 1;
        self.events.insert((at_ns, self.serial), (peer, event));
    }

    /// A link breaks; each end notices by itself, later.
    fn cut(&mut self, peer: usize, state: State, notice_ms: u64) {
        let it = &mut self.peers[peer];
        if it.link.state != State::Up {
            return;
        }
        it.link.state = state;
        it.disturbed_ns = self.now_ns;
        let life = it.link.life;
        for event in [Event::BrokerNotices { life }, Event::PeerNotices { life }] {
            let wait_ms = notice_ms + self.rng.below(notice_ms as usize / 2) as u64;
            self.at(self.now_ns + MS * wait_ms, peer, event);
        }
    }

    fn note(&mut self, peer: usize, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let (ms, us) = (self.now_ns / MS, self.now_ns / 1_000 % 1_000);
            let who = if peer == usize::MAX { "sockets".into() } else { format!("p{peer}") };
            log.push(format!("{ms:>6}.{us:03} {who} {}", text()));
        }
    }
}

impl Wire for Links {
    fn send(&mut self, to: usize, life: u32, parcel: Parcel) -> Sent {
        if self.peers[to].link.life != life {
            return Sent::Unreachable(parcel);
        }
        let text = self.log.as_ref().map(|_| brief::replies(&parcel.replies));
        let (now_ns, link) = (self.now_ns, &mut self.peers[to].link);
        let (sent, carried) = link.down(now_ns, &mut self.rng, parcel);
        let how = match &sent {
            Sent::Done { arrives_ns: Some(at_ns) } => {
                let parcel = carried.expect("what arrives is carried");
                self.at(*at_ns, to, Event::ToPeer { life, parcel });
                "sent"
            }
            Sent::Done { arrives_ns: None } => "lost",
            Sent::Blocked(_) => "blocked",
            Sent::Unreachable(_) => "unreachable",
        };
        self.note(to, || format!("← {how} {}", text.unwrap_or_default()));
        sent
    }

    fn dropped(&mut self, to: usize, reply: &Reply) {
        self.peers[to].disturbed_ns = self.now_ns;
        self.peers[to].role.dropped(reply);
        self.note(to, || format!("← dropped {}", brief::reply(reply)));
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        Self::note(self, usize::MAX, text);
    }
}
