//! Some brokers, the links between them, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use smol_str::{SmolStr, format_smolstr};

use crate::base::{Out, Rng, RunId, Time};
use crate::federation::{Fact, Federation, Input, Key, Life, LinkId, Message, Output};
use crate::ops::Event;
use crate::values::Value;

/// A message takes this long over a link at most.
pub(super) const SLOWEST_MS: u64 = 5;
const MS: u64 = 1_000_000;

struct Broker {
    life: Life,
    federation: Federation,
    reached: BTreeMap<usize, Life>,
    says: BTreeMap<usize, BTreeSet<Key>>,
    /// Envelopes of this life that nobody has received yet: to whom, which.
    open: BTreeSet<(usize, u64)>,
    received: Vec<(usize, u64)>,
    /// Events: from whom, which, and how many were lost just before.
    gathered: Vec<(usize, u64, u64)>,
}

/// One session of a link.
struct Session {
    ends: [usize; 2],
    delay_ns: u64,
}

pub(super) struct World {
    now: Time,
    rng: Rng,
    seed: u64,
    brokers: Vec<Broker>,
    sessions: BTreeMap<u32, Session>,
    serial: u32,
    on_the_way: BTreeMap<(u64, u64), (u32, usize, Message)>,
    sent: u64,
    /// Which event has crossed which link for whom.
    crossings: BTreeSet<(u64, u32, SmolStr)>,
    crossed: BTreeMap<u64, usize>,
    next_id: u64,
}

fn name(node: usize) -> SmolStr {
    format_smolstr!("n{node}")
}

fn number(node: &str) -> usize {
    node[1..].parse().unwrap()
}

impl World {
    pub(super) fn new(brokers: usize, seed: u64) -> Self {
        let mut world = Self {
            now: Time { mono_ns: MS, wall_ms: 1_700_000_000_000 },
            rng: Rng::new(seed),
            seed,
            brokers: Vec::new(),
            sessions: BTreeMap::new(),
            serial: 0,
            on_the_way: BTreeMap::new(),
            sent: 0,
            crossings: BTreeSet::new(),
            crossed: BTreeMap::new(),
            next_id: 1_000,
        };
        for node in 0..brokers {
            let broker = world.begin(node, 1);
            world.brokers.push(broker);
            world.introduce(node);
        }
        world
    }

    fn begin(&self, node: usize, epoch: u64) -> Broker {
        let life = Life { node: name(node), epoch };
        let federation = Federation::new(life.clone(), self.seed + node as u64);
        let (reached, says, open, received, gathered) = Default::default();
        Broker { life, federation, reached, says, open, received, gathered }
    }

    fn introduce(&mut self, node: usize) {
        let (cluster, version, door) = Default::default();
        let fact = Some(Fact::About { cluster, version, door });
        self.input(node, Input::Own { key: Key::About, fact });
    }

    /// Joins two brokers by a link, if they are not.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        if a == b || self.between(a, b).is_some() {
            return;
        }
        self.serial += 1;
        let link = LinkId(self.serial);
        let delay_ns = MS + self.rng.below((SLOWEST_MS * MS) as usize) as u64 / 2;
        self.sessions.insert(self.serial, Session { ends: [a, b], delay_ns });
        for (end, other) in [(a, b), (b, a)] {
            let peer = self.brokers[other].life.clone();
            let cost_us = 2 * (delay_ns / 1_000) as u32;
            self.input(end, Input::Up { link, peer, cost_us });
        }
    }

    fn between(&self, a: usize, b: usize) -> Option<u32> {
        let mut sessions = self.sessions.iter();
        sessions.find(|(_, of)| of.ends == [a, b] || of.ends == [b, a]).map(|(serial, _)| *serial)
    }

    /// A link falls, with what is on it.
    pub(super) fn part(&mut self, a: usize, b: usize) {
        let Some(serial) = self.between(a, b) else { return };
        self.sessions.remove(&serial);
        self.on_the_way.retain(|_, (of, ..)| *of != serial);
        for end in [a, b] {
            self.input(end, Input::Down { link: LinkId(serial) });
        }
    }

    /// A broker is killed and begins anew, without links.
    pub(super) fn restart(&mut self, node: usize) {
        for other in 0..self.brokers.len() {
            self.part(node, other);
        }
        for broker in &mut self.brokers {
            broker.open.retain(|(to, _)| *to != node);
        }
        self.brokers[node] = self.begin(node, self.brokers[node].life.epoch + 1);
        self.introduce(node);
    }

    /// Enough links that all hang together, and some more.
    pub(super) fn wire_at_random(&mut self, each: usize) {
        for node in 1..self.brokers.len() {
            for _ in 0..each {
                let other = self.rng.below(node);
                self.join(node, other);
            }
        }
    }

    pub(super) fn offer(&mut self, node: usize, function: &str) {
        let (key, fact) = (function_key(function), Some(Fact::Function { idempotent: true }));
        self.input(node, Input::Own { key, fact });
    }

    pub(super) fn want(&mut self, node: usize, pattern: &str) {
        self.input(node, Input::Want { pattern: pattern.into(), wanted: true });
    }

    pub(super) fn send(&mut self, from: usize, to: usize, id: u64) {
        if self.brokers[from].reached.contains_key(&to) {
            self.brokers[from].open.insert((to, id));
            let body = Bytes::from(id.to_string());
            self.input(from, Input::Send { to: name(to), body, frames: Vec::new() });
        }
    }

    pub(super) fn publish(&mut self, from: usize, topic: &str, id: u64) {
        let payload = Value::json(id.to_string());
        let message = RunId(id.into());
        let event = Event { topic: topic.into(), payload, headers: None, message };
        self.input(from, Input::Spread { event: Arc::new(event) });
    }

    fn input(&mut self, node: usize, input: Input) {
        let mut out = Out::new();
        self.brokers[node].federation.handle(self.now, input, &mut out);
        self.outputs(node, out);
    }

    fn outputs(&mut self, node: usize, mut out: Out<Output>) {
        for output in out.drain() {
            match output {
                Output::Tell { link, message } => self.tell(node, link, message),
                Output::Reached { life } => {
                    let other = number(&life.node);
                    let broker = &mut self.brokers[node];
                    assert!(broker.reached.insert(other, life).is_none());
                    broker.says.insert(other, BTreeSet::new());
                }
                Output::Lost { life } => {
                    let other = number(&life.node);
                    let broker = &mut self.brokers[node];
                    assert_eq!(broker.reached.remove(&other), Some(life));
                    // Whoever sent them knows that they may not have come.
                    broker.open.retain(|(to, _)| *to != other);
                }
                Output::Says { node: other, changes } => {
                    let says = self.brokers[node].says.get_mut(&number(&other)).unwrap();
                    for (key, fact) in changes {
                        _ = if fact.is_some() { says.insert(key) } else { says.remove(&key) };
                    }
                }
                Output::Received { from, body, .. } => {
                    let from = number(&from.node);
                    let id: u64 = std::str::from_utf8(&body).unwrap().parse().unwrap();
                    let broker = &mut self.brokers[node];
                    let before = broker.received.iter().rev().find(|(of, _)| *of == from);
                    assert!(before.is_none_or(|(_, before)| *before < id), "{id} out of order");
                    broker.received.push((from, id));
                    self.brokers[from].open.remove(&(node, id));
                }
                Output::Event { from, event, lost } => {
                    let message = event.message.0 as u64;
                    let gathered = &mut self.brokers[node].gathered;
                    assert!(gathered.iter().all(|(_, known, _)| *known != message), "twice");
                    gathered.push((number(&from), message, lost));
                }
                Output::Rival { epoch } => panic!("{node} has a name of its own, and not {epoch}"),
                Output::Cost { .. } => {}
            }
        }
    }

    fn tell(&mut self, from: usize, link: LinkId, message: Message) {
        let session = &self.sessions[&link.0];
        let to = session.ends[usize::from(session.ends[0] == from)];
        let at_ns = self.now.mono_ns + session.delay_ns;
        let path = match &message {
            Message::Packet(packet) => &packet.path[..],
            Message::Spread(spread) => {
                let event = spread.message as u64;
                *self.crossed.entry(event).or_default() += 1;
                for (node, _) in &spread.to {
                    let is_first = self.crossings.insert((event, link.0, node.clone()));
                    assert!(is_first, "an event crosses a link twice for {node}");
                }
                &spread.path
            }
            Message::Digest(_) | Message::Delta(_) => &[],
        };
        let passed: BTreeSet<_> = path.iter().collect();
        assert!(passed.len() == path.len() && !path.contains(&name(to)), "a loop: {path:?}, {to}");
        self.sent += 1;
        self.on_the_way.insert((at_ns, self.sent), (link.0, to, message));
    }

    pub(super) fn run_ms(&mut self, ms: u64) {
        let until_ns = self.now.mono_ns + ms * MS;
        loop {
            let message_ns = self.on_the_way.keys().next().map(|key| key.0);
            let wakes = self.brokers.iter().filter_map(|broker| broker.federation.wake_at());
            let Some(next_ns) = wakes.chain(message_ns).min().filter(|at| *at <= until_ns) else {
                break;
            };
            self.pass_to(next_ns.max(self.now.mono_ns));
            self.turn();
        }
        self.pass_to(until_ns);
    }

    fn pass_to(&mut self, mono_ns: u64) {
        self.now.wall_ms += mono_ns / MS - self.now.mono_ns / MS;
        self.now.mono_ns = mono_ns;
    }

    fn turn(&mut self) {
        while let Some(entry) = self.on_the_way.first_entry()
            && entry.key().0 <= self.now.mono_ns
        {
            let (link, to, message) = entry.remove();
            self.input(to, Input::Heard { link: LinkId(link), message });
        }
        for node in 0..self.brokers.len() {
            let federation = &mut self.brokers[node].federation;
            if federation.wake_at().is_some_and(|at| at <= self.now.mono_ns) {
                let mut out = Out::new();
                federation.tick(self.now, &mut out);
                self.outputs(node, out);
            }
        }
    }

    /// Things go wrong, and things are said, so many times.
    pub(super) fn trouble(&mut self, times: usize) {
        let count = self.brokers.len();
        for _ in 0..times {
            let (a, b) = (self.rng.below(count), self.rng.below(count));
            self.next_id += 1;
            let id = self.next_id;
            match self.rng.below(20) {
                0..=2 => self.part(a, b),
                3..=6 => self.join(a, b),
                7 => self.restart(a),
                8 => self.offer(a, ["f", "g", "h"][b % 3]),
                9 => self.input(a, Input::Own { key: function_key("f"), fact: None }),
                10 => self.want(a, ["a.*", "b", "#"][b % 3]),
                11..=13 => self.publish(a, ["a.b", "b", "c"][b % 3], id),
                _ => self.send(a, b, id),
            }
            let ms = self.rng.below(30) as u64;
            self.run_ms(ms);
        }
    }

    /// Who hangs together with a broker.
    fn component(&self, node: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([node]);
        loop {
            let ends = self.sessions.values().map(|session| session.ends);
            let touching = ends.filter(|ends| ends.iter().any(|end| found.contains(end)));
            let more: BTreeSet<usize> = touching.flatten().collect();
            if more.is_subset(&found) {
                return found;
            }
            found.extend(more);
        }
    }

    pub(super) fn has_converged(&self) -> bool {
        (0..self.brokers.len()).all(|node| {
            let others = self.component(node);
            let reached: BTreeSet<usize> = self.brokers[node].reached.keys().copied().collect();
            let same = |other: &usize| {
                let of = &self.brokers[*other].life.node;
                let theirs = self.brokers[*other].federation.catalog.get(of).unwrap();
                let mine = self.brokers[node].federation.catalog.get(of);
                mine.is_some_and(|mine| mine.life == theirs.life && mine.facts().eq(theirs.facts()))
            };
            others.iter().filter(|other| **other != node).copied().eq(reached)
                && others.iter().all(same)
        })
    }

    /// What has to hold once nothing happens any more.
    pub(super) fn assert_at_rest(&mut self) {
        let seed = self.seed;
        assert!(self.has_converged(), "seed {seed}");
        for (node, broker) in self.brokers.iter().enumerate() {
            assert!(broker.open.is_empty(), "seed {seed}: {node} waits for {:?}", broker.open);
            for (other, life) in &broker.reached {
                assert_eq!(*life, self.brokers[*other].life, "seed {seed}");
                let of = &self.brokers[*other];
                let facts = of.federation.catalog.get(&life.node).unwrap();
                let keys: BTreeSet<Key> = facts.facts().map(|(key, _)| key.clone()).collect();
                assert_eq!(
                    broker.says[other], keys,
                    "seed {seed}: what {node} was told of {other}"
                );
            }
        }
        self.probe();
    }

    /// Everybody says something to everybody, and it comes.
    fn probe(&mut self) {
        let count = self.brokers.len();
        for node in 0..count {
            self.want(node, "probe");
        }
        self.run_ms(500);
        for from in 0..count {
            for to in 0..count {
                self.next_id += 1;
                self.send(from, to, self.next_id);
            }
            self.next_id += 1;
            self.publish(from, "probe", self.next_id);
        }
        let first = self.next_id - count as u64;
        self.run_ms(500);
        for node in 0..count {
            assert!(self.brokers[node].open.is_empty(), "seed {}", self.seed);
            let others = self.component(node).len() - 1;
            let heard = self.brokers[node].gathered.iter().rev().take(others);
            let ids: BTreeSet<u64> = heard.map(|(_, id, _)| *id).collect();
            let fresh = ids.iter().all(|id| *id + (count * count) as u64 > first);
            assert!(ids.len() == others && fresh, "seed {}: {node} heard {ids:?}", self.seed);
        }
    }

    pub(super) fn nodes_reached(&self, node: usize) -> Vec<usize> {
        self.brokers[node].reached.keys().copied().collect()
    }

    pub(super) fn path(&self, from: usize, to: usize) -> Vec<SmolStr> {
        self.brokers[from].federation.routes.path(&name(to)).unwrap_or_default()
    }

    pub(super) fn knows(&self, node: usize, other: usize, function: &str) -> bool {
        let says = self.brokers[node].says.get(&other);
        says.is_some_and(|says| says.contains(&function_key(function)))
    }

    pub(super) fn received(&self, node: usize) -> &[(usize, u64)] {
        &self.brokers[node].received
    }

    pub(super) fn gathered(&self, node: usize) -> &[(usize, u64, u64)] {
        &self.brokers[node].gathered
    }

    /// How often an event has crossed a link.
    pub(super) fn crossings(&self, message: u64) -> usize {
        self.crossed.get(&message).copied().unwrap_or_default()
    }
}

fn function_key(name: &str) -> Key {
    Key::Function { name: name.into(), version: "1.0.0".into(), locs: Vec::new() }
}
