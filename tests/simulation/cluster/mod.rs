//! Several whole brokers, joined by links that fall, with peers at each of them.

mod events;
mod guests;
mod ledger;
mod member;
mod wires;

use std::collections::{BTreeMap, BTreeSet};

use mpreg_patterns::base::{Rng, Time};
use mpreg_patterns::federation::{self, Message};
use mpreg_patterns::ops::{Reply, Request};

use self::guests::{Guest, Role, Said};
use self::ledger::Ledger;
pub(crate) use self::ledger::Tally;
use self::member::{Effect, Member};
use self::wires::Wire;
use crate::peers::MS;
use crate::store::Store;
use crate::workload::one_in;

/// Nothing goes wrong before this time,
const CALM_NS: u64 = 500 * MS;
/// nor after this, when nothing new is asked any more.
const TROUBLE_NS: u64 = 6_000 * MS;
/// Then all comes to rest within this time.
const REST_NS: u64 = 120_000 * MS;
/// Whether it does is looked at this often.
const LOOK_NS: u64 = 2_000 * MS;
/// An end of a dead link that says nothing finds out within this time.
const SILENCE: usize = 4_000;
/// What passes between a peer and its broker takes this long.
const NEAR_NS: u64 = MS / 5;
/// Turns in which no time passes, at most.
const TURNS: usize = 100_000;

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Brokers, at least and at most.
    pub(crate) brokers: (usize, usize),
    /// Milliseconds between two faults, at most; none where it is 0.
    pub(crate) fault_ms: usize,
    /// One fault in so many ends a broker; none does where it is 0.
    pub(crate) restart: usize,
    /// One commit in so many goes wrong.
    pub(crate) disk: usize,
    /// Messages a link holds.
    pub(crate) room: usize,
}

#[derive(Debug)]
enum Event {
    /// Something arrives at an end of a link.
    Heard {
        wire: usize,
        session: u32,
        end: usize,
        message: Message,
    },
    /// An end of a link finds out that it has fallen.
    Noticed {
        wire: usize,
        session: u32,
        end: usize,
    },
    /// A link is dialled anew.
    Join {
        wire: usize,
    },
    Asked {
        guest: usize,
        life: u32,
        request: Request,
    },
    Answered {
        guest: usize,
        life: u32,
        reply: Reply,
    },
    /// A broker that was killed begins anew.
    Begin {
        member: usize,
    },
}

/// A broker that runs, or what a killed one has left.
enum Place {
    Up(Box<Member>),
    Down { store: Box<Store>, epoch: u64 },
}

pub(crate) struct World {
    scenario: Scenario,
    rng: Rng,
    now: Time,
    places: Vec<Place>,
    /// When each broker next has something to do.
    wakes_ns: Vec<u64>,
    wires: Vec<Wire>,
    guests: Vec<Guest>,
    ledger: Ledger,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    sessions: u32,
    next_fault_ns: u64,
    log: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64, logs: bool) -> Self {
        let mut rng = Rng::new(seed);
        let now = Time { mono_ns: MS, wall_ms: 1_700_000_000_000 };
        let (least, most) = scenario.brokers;
        let count = least + rng.below(most - least + 1);
        let places = (0..count).map(|number| {
            let store = Store::new(rng.next_u64(), 0);
            Place::Up(Box::new(Member::new(now, number, 1, store)))
        });
        let places: Vec<Place> = places.collect();
        let mut world = Self {
            scenario,
            rng,
            now,
            wakes_ns: vec![0; places.len()],
            places,
            wires: Vec::new(),
            guests: Vec::new(),
            ledger: Ledger::default(),
            events: BTreeMap::new(),
            serial: 0,
            sessions: 0,
            next_fault_ns: u64::MAX,
            log: logs.then(Vec::new),
        };
        world.wire();
        world.invite();
        world
    }

    pub(crate) fn log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10} µs  {}", self.now.mono_ns / 1_000, text()));
        }
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.serial += 1;
        self.events.insert((at_ns, self.serial), event);
    }

    fn after_ms(&mut self, below_ms: usize) -> u64 {
        self.now.mono_ns + MS * (1 + self.rng.below(below_ms) as u64)
    }

    /// Everybody is joined to somebody before, and some to one more.
    fn wire(&mut self) {
        let mut ends = Vec::new();
        for one in 1..self.places.len() {
            ends.push([self.rng.below(one), one]);
            let other = self.rng.below(one);
            if one_in(&mut self.rng, 2) && !ends.contains(&[other, one]) {
                ends.push([other, one]);
            }
        }
        for ends in ends {
            let wire = self.wires.len();
            self.wires.push(Wire::new(ends, &mut self.rng));
            let at_ns = self.after_ms(20);
            self.at(at_ns, Event::Join { wire });
        }
    }

    /// One of each kind at each broker, and for most queues two who consume them.
    fn invite(&mut self) {
        let count = self.places.len();
        let mut roles = Vec::new();
        for at in 0..count {
            roles.push((at, Role::Caller { open: BTreeMap::new() }));
            roles.push((at, Role::Sender { open: BTreeMap::new() }));
            let functions = vec![at % guests::FUNCTIONS, (at + 1) % guests::FUNCTIONS];
            roles.push((at, Role::Worker { functions }));
            if at < events::PUBLISHERS {
                roles.push((at, Role::Publisher { open: BTreeSet::new() }));
            }
            if at < events::LISTENERS {
                roles.push((at, Role::Listener));
            }
            if at.is_multiple_of(2) {
                roles.push((at, Role::Fetcher { asked: None, in_hand: BTreeMap::new() }));
            } else {
                roles.push((at, Role::Planner { asked: None }));
            }
        }
        for (place, queue) in guests::queues().enumerate() {
            self.declare(place % count, &queue);
            let takers = if guests::has_takers(&queue) { 2 } else { 0 };
            for _ in 0..takers {
                let role = Role::Taker { queue: queue.clone(), in_hand: BTreeMap::new() };
                roles.push((self.rng.below(count), role));
            }
        }
        for (at, role) in roles {
            let next_ns = self.after_ms(500);
            let guest = self.guests.len();
            self.guests.push(Guest { at, life: 0, role, next_ns });
            self.connect(guest);
        }
    }

    fn declare(&mut self, member: usize, queue: &str) {
        let bind = if queue.starts_with("bound") { r#","bind":["t.*"]"# } else { "" };
        let about = format!(r#"{{"name":"{queue}","max_attempts":1000{bind}}}"#);
        let now = self.now;
        let Place::Up(member) = &mut self.places[member] else { panic!("it runs") };
        member.ask(now, "mpreg.queue.declare", about);
    }

    fn connect(&mut self, guest: usize) {
        let said = self.guests[guest].connected();
        self.say(guest, said);
    }

    fn say(&mut self, guest: usize, said: Said) {
        let life = self.guests[guest].life;
        for (after_ns, request) in said {
            let at_ns = self.now.mono_ns + NEAR_NS + after_ns;
            self.at(at_ns, Event::Asked { guest, life, request });
        }
    }

    /// Plays to the end.
    pub(crate) fn run(&mut self) -> Tally {
        self.until(CALM_NS, |_| false);
        self.trouble();
        self.until(TROUBLE_NS, |_| false);
        self.calm();
        let emptied = self.until(TROUBLE_NS + REST_NS, |world| world.left().is_empty());
        assert!(emptied, "something is left: {}", self.left());
        self.last_words();
        let rested = self.until(self.now.mono_ns + REST_NS, |world| world.unrest().is_empty());
        assert!(rested, "it does not come to rest: {}", self.unrest());
        let stores = self.members().map(|member| &member.store);
        let damaged = stores.flat_map(|store| &store.damaged);
        let damaged = damaged.map(|message| guests::number_of(&message.event.payload)).collect();
        self.ledger.close(&damaged)
    }

    /// All who publish do so once more, and then nobody begins anything.
    fn last_words(&mut self) {
        for guest in 0..self.guests.len() {
            if matches!(self.guests[guest].role, Role::Publisher { .. }) {
                self.guests[guest].next_ns = self.now.mono_ns;
                self.wake(guest);
            }
            self.guests[guest].next_ns = u64::MAX;
        }
    }

    /// Until it is so, or that time. Looked at once in a while.
    fn until(&mut self, until_ns: u64, is_done: impl Fn(&mut Self) -> bool) -> bool {
        let (mut turns, mut look_ns) = (0, 0);
        loop {
            let Some(next_ns) = self.wake_at().filter(|at_ns| *at_ns <= until_ns) else {
                self.pass_to(until_ns);
                return is_done(self);
            };
            turns = if next_ns > self.now.mono_ns { 0 } else { turns + 1 };
            assert!(turns < TURNS, "time stands still");
            self.pass_to(next_ns.max(self.now.mono_ns));
            self.turn();
            if self.now.mono_ns >= look_ns {
                look_ns = self.now.mono_ns + LOOK_NS;
                if is_done(self) {
                    return true;
                }
            }
        }
    }

    fn wake_at(&self) -> Option<u64> {
        let events = self.events.keys().next().map(|key| key.0);
        let members = self.wakes_ns.iter().copied();
        let guests = self.guests.iter().map(|guest| guest.next_ns);
        members.chain(events).chain(guests).chain([self.next_fault_ns]).min()
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.places.iter().filter_map(|place| match place {
            Place::Up(member) => Some(&**member),
            Place::Down { .. } => None,
        })
    }

    fn pass_to(&mut self, mono_ns: u64) {
        self.now.wall_ms += mono_ns / MS - self.now.mono_ns / MS;
        self.now.mono_ns = mono_ns;
    }

    fn turn(&mut self) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now.mono_ns
        {
            let event = entry.remove();
            self.happens(event);
        }
        for guest in 0..self.guests.len() {
            self.wake(guest);
        }
        for member in 0..self.places.len() {
            if self.wakes_ns[member] <= self.now.mono_ns {
                self.with(member, Member::turn);
            }
        }
        if self.next_fault_ns <= self.now.mono_ns {
            self.next_fault_ns = self.after_ms(self.scenario.fault_ms);
            self.fault();
        }
    }

    fn wake(&mut self, guest: usize) {
        let Guest { next_ns, at, .. } = self.guests[guest];
        if next_ns > self.now.mono_ns {
            return;
        }
        if matches!(self.places[at], Place::Down { .. }) {
            self.guests[guest].next_ns = self.after_ms(100);
            return;
        }
        let said = self.guests[guest].wake(self.now.mono_ns, &mut self.rng, &mut self.ledger);
        self.say(guest, said);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Heard { wire, session, end, message } => {
                if self.wires[wire].session == session && self.wires[wire].passes(end) {
                    self.wires[wire].arrived(end);
                    self.note(|| format!("link {session} to end {end}: {message:?}"));
                    let (link, to) = (self.wires[wire].link(), self.wires[wire].ends[end]);
                    let news = federation::Input::Heard { link, message };
                    self.with(to, |member, now| member.link(now, news));
                }
            }
            Event::Noticed { wire, session, end } if self.wires[wire].session == session => {
                self.notice(wire, end);
            }
            Event::Noticed { .. } => {}
            Event::Join { wire } => self.join(wire),
            Event::Asked { guest, life, request } => {
                let at = self.guests[guest].at;
                if self.guests[guest].life == life {
                    self.note(|| format!("guest {guest} to n{at}: {request:?}"));
                    self.with(at, |member, now| member.request(now, guest, request));
                }
            }
            Event::Answered { guest, life, reply } => {
                if self.guests[guest].life == life {
                    self.note(|| format!("guest {guest} hears: {reply:?}"));
                    let said = self.guests[guest].hear(self.now.mono_ns, &reply, &mut self.ledger);
                    self.say(guest, said);
                }
            }
            Event::Begin { member } => self.begin(member),
        }
    }

    /// A broker does something, if it runs; what it wants is done.
    fn with(&mut self, member: usize, does: impl FnOnce(&mut Member, Time)) {
        self.wakes_ns[member] = u64::MAX;
        let Place::Up(broker) = &mut self.places[member] else { return };
        broker.logs = self.log.is_some();
        does(broker, self.now);
        let effects = std::mem::take(&mut broker.effects);
        self.wakes_ns[member] = broker.wake_at().unwrap_or(u64::MAX);
        for effect in effects {
            match effect {
                Effect::Note(text) => self.note(|| text),
                Effect::Told { guest, reply } => {
                    let life = self.guests[guest].life;
                    let at_ns = self.now.mono_ns + NEAR_NS;
                    self.at(at_ns, Event::Answered { guest, life, reply });
                }
                Effect::Tell { link, message } => self.tell(member, link.0, message),
            }
        }
    }

    fn tell(&mut self, from: usize, session: u32, message: Message) {
        let (now_ns, room) = (self.now.mono_ns, self.scenario.room);
        let Some(wire) = self.wires.iter().position(|wire| wire.session == session) else { return };
        let link = &mut self.wires[wire];
        let end = usize::from(link.ends[0] == from);
        if link.is_full(end, room) {
            self.ledger.tally.full += 1;
            let news = federation::Input::Refused { message };
            return self.with(from, |member, now| member.link(now, news));
        }
        if let Some(at_ns) = link.send(now_ns, end, &mut self.rng) {
            self.at(at_ns, Event::Heard { wire, session, end, message });
        }
    }

    fn join(&mut self, wire: usize) {
        let ends = self.wires[wire].ends;
        let lives = ends.map(|end| match &self.places[end] {
            Place::Up(member) => Some(member.life()),
            Place::Down { .. } => None,
        });
        let [Some(one), Some(other)] = lives else {
            let at_ns = self.after_ms(300);
            return self.at(at_ns, Event::Join { wire });
        };
        self.sessions += 1;
        self.wires[wire].join(self.sessions);
        self.note(|| format!("n{} and n{} are joined", ends[0], ends[1]));
        let (link, cost_us) = (self.wires[wire].link(), self.wires[wire].cost_us());
        for (end, peer) in [(ends[0], other), (ends[1], one)] {
            let news = federation::Input::Up { link, peer, cost_us };
            self.with(end, |member, now| member.link(now, news));
        }
    }

    /// A link falls, perhaps in one direction only; its ends find out, each in its own time.
    fn part(&mut self, wire: usize, below_ms: usize) {
        let ends = [&[0, 1][..], &[0], &[1]][self.rng.below(3)];
        if !self.wires[wire].fall(ends) {
            return;
        }
        let (session, ends) = (self.wires[wire].session, self.wires[wire].ends);
        self.note(|| format!("n{} and n{} are parted", ends[0], ends[1]));
        for end in 0..2 {
            let at_ns = self.after_ms(below_ms);
            self.at(at_ns, Event::Noticed { wire, session, end });
        }
    }

    fn notice(&mut self, wire: usize, end: usize) {
        if !self.wires[wire].give_up(end) {
            return;
        }
        let (link, member) = (self.wires[wire].link(), self.wires[wire].ends[end]);
        self.note(|| format!("n{member} finds out about link {}", link.0));
        self.with(member, |member, now| member.link(now, federation::Input::Down { link }));
        if self.wires[wire].is_over() {
            let at_ns = self.after_ms(1_000);
            self.at(at_ns, Event::Join { wire });
        }
    }

    fn fault(&mut self) {
        self.ledger.tally.faults += 1;
        let restart = self.scenario.restart;
        if restart > 0 && one_in(&mut self.rng, restart) {
            let member = self.rng.below(self.places.len());
            return self.kill(member);
        }
        let wire = self.rng.below(self.wires.len());
        let below_ms = [20, SILENCE][self.rng.below(2)];
        self.part(wire, below_ms);
    }

    /// A broker is killed. Its neighbours hear of it, or must find out.
    fn kill(&mut self, member: usize) {
        let down = Place::Down { store: Box::new(Store::new(0, 0)), epoch: 0 };
        match std::mem::replace(&mut self.places[member], down) {
            down @ Place::Down { .. } => return self.places[member] = down,
            Place::Up(broker) => {
                let Member { store, epoch, .. } = *broker;
                self.places[member] = Place::Down { store: Box::new(store), epoch };
            }
        }
        self.note(|| format!("n{member} is killed"));
        self.ledger.forgetful = true;
        for wire in 0..self.wires.len() {
            let end = self.wires[wire].ends.iter().position(|end| *end == member);
            let Some(end) = end else { continue };
            let below_ms = [20, SILENCE][self.rng.below(2)];
            self.part(wire, below_ms);
            self.notice(wire, end);
        }
        let here = |guest: &&mut Guest| guest.at == member;
        for guest in self.guests.iter_mut().filter(here) {
            guest.lost(self.now.mono_ns, &mut self.ledger);
        }
        let at_ns = self.after_ms(1_500);
        self.at(at_ns, Event::Begin { member });
    }

    fn begin(&mut self, member: usize) {
        let down = Place::Down { store: Box::new(Store::new(0, 0)), epoch: 0 };
        let Place::Down { store, epoch } = std::mem::replace(&mut self.places[member], down) else {
            panic!("n{member} runs")
        };
        self.note(|| format!("n{member} begins anew"));
        let broker = Member::new(self.now, member, epoch + 1, *store);
        self.places[member] = Place::Up(Box::new(broker));
        self.with(member, |_, _| ());
        self.ledger.events.begun(self.now.mono_ns, member);
        for guest in 0..self.guests.len() {
            if self.guests[guest].at == member {
                self.connect(guest);
            }
        }
    }

    /// From now on things go wrong.
    fn trouble(&mut self) {
        if self.scenario.fault_ms > 0 {
            self.next_fault_ns = self.after_ms(self.scenario.fault_ms);
        }
        for place in &mut self.places {
            let Place::Up(member) = place else { continue };
            member.store.wear_out(self.scenario.disk);
        }
        (self.ledger.forgetful, self.ledger.worn) =
            (self.scenario.disk > 0, self.scenario.disk > 0);
    }

    /// Nothing goes wrong any more, and nothing new is asked.
    fn calm(&mut self) {
        self.note(|| "all is calm".into());
        self.next_fault_ns = u64::MAX;
        for guest in self.guests.iter_mut().filter(|guest| !guest.empties()) {
            guest.next_ns = u64::MAX;
        }
        for place in &mut self.places {
            match place {
                Place::Up(member) => member.store.settle(),
                Place::Down { store, .. } => store.settle(),
            }
        }
    }

    /// What is not yet as it should be, but for those who ask for messages until there are none.
    fn left(&mut self) -> String {
        let mut found = String::new();
        let count = self.places.len();
        if self.members().count() < count || !self.wires.iter().all(Wire::is_up) {
            return "a link or a broker is down".into();
        }
        // What is on a disk that has failed is in no queue until it is opened again.
        if !self.members().all(|member| member.store.is_open()) {
            return "a store is closed".into();
        }
        let now = self.now;
        for (number, place) in self.places.iter_mut().enumerate() {
            let Place::Up(member) = place else { continue };
            let nodes = member.audit(now, "mpreg.nodes");
            let nodes = nodes["nodes"].as_array().expect("a list");
            let reached = nodes.iter().filter(|node| node["state"] == "reached").count();
            if reached + 1 != count {
                found += &format!("n{number} reaches {reached}; ");
            }
            let queues = member.audit(now, "mpreg.queues");
            for queue in queues["queues"].as_array().expect("a list") {
                let held = ["ready", "in_flight", "delayed", "dead"];
                if held.iter().any(|of| queue[of] != 0) {
                    found += &format!("n{number} has {queue}; ");
                }
            }
        }
        found
    }

    /// What is not yet as it should be.
    fn unrest(&mut self) -> String {
        let listeners = self.guests.iter().filter(|guest| matches!(guest.role, Role::Listener));
        let unheard = self.ledger.events.unheard(listeners.map(|guest| guest.at));
        let mut found = unheard + &self.left();
        for (number, guest) in self.guests.iter().enumerate() {
            if !guest.is_idle() {
                found += &format!("guest {number} waits; ");
            }
        }
        for (number, member) in self.members().enumerate() {
            if member.in_flight() > 0 {
                found += &format!("n{number} has {} in flight; ", member.in_flight());
            }
        }
        found
    }
}
