//! Federation: brokers joined by links, what each has to offer, and the way to it.

mod carry;
mod catalog;
mod conversation;
mod describe;
mod homes;
mod interest;
pub mod links;
mod routes;
mod rules;
pub mod stream;
#[cfg(test)]
mod tests;
mod wire;

pub use rules::Names;
pub use wire::{Cargo, Delta, Fact, Key, Known, Life, Message, Packet, Spread, Talk};

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::base::{Out, Rng, Time};
use crate::ops::Event;
use catalog::{Catalog, Entry, Taken};
use conversation::Conversation;
use homes::Homes;
use interest::Interest;
use routes::Routes;
use rules::{Passage, Rules};

/// News is gathered for so long, except after a calm time, nanoseconds.
const TELL_NS: u64 = 10_000_000;
/// How often catalogs are compared with one of the neighbours, nanoseconds.
const COMPARE_NS: u64 = 5_000_000_000;
/// How long a broker is remembered that cannot be reached, nanoseconds.
const AWAY_NS: u64 = 600_000_000_000;

/// A link to a neighbour, by a number of this broker's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// What happens to the system.
#[derive(Debug)]
pub enum Input {
    /// A link is up: nothing that was said over an earlier one counts.
    Up {
        /// Which.
        link: LinkId,
        /// Who is at the other end.
        peer: Life,
        /// What it costs: microseconds there and back, and its price.
        cost_us: u32,
    },
    /// A link costs something else now.
    Cost {
        /// Which.
        link: LinkId,
        /// How much.
        cost_us: u32,
    },
    /// A link is down: what was not received is lost.
    Down {
        /// Which.
        link: LinkId,
    },
    /// The neighbour at the other end says something.
    Heard {
        /// Which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A link has no room for a message.
    Refused {
        /// Which.
        message: Message,
    },
    /// What this broker says about itself changes.
    Own {
        /// What.
        key: Key,
        /// None where it is gone.
        fact: Option<Fact>,
    },
    /// A system of this broker wants the events of a pattern, or wants them no longer.
    Want {
        /// Normalised.
        pattern: SmolStr,
        /// Whether it wants them now.
        wanted: bool,
    },
    /// An event for every other broker that wants it.
    Spread {
        /// What was published here.
        event: Arc<Event>,
    },
    /// An envelope for a broker that is reachable.
    Send {
        /// Whom.
        to: SmolStr,
        /// The first frame.
        body: bytes::Bytes,
        /// The attachments.
        frames: Vec<bytes::Bytes>,
    },
}

/// What the system wants done.
#[derive(Debug)]
pub enum Output {
    /// Tell a neighbour something.
    Tell {
        /// Over which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A broker can be reached.
    Reached {
        /// Which.
        life: Life,
    },
    /// What a reachable broker says about itself. Just after `Reached`: all of it.
    Says {
        /// Who.
        node: SmolStr,
        /// None where it is gone.
        changes: Vec<(Key, Option<Fact>)>,
    },
    /// The way to a broker that is reachable costs this much now.
    Cost {
        /// Which.
        node: SmolStr,
        /// Microseconds there and back, and the prices on the way.
        cost_us: u32,
    },
    /// A broker can be reached no longer, or not in that life.
    Lost {
        /// Which.
        life: Life,
    },
    /// Another broker has this one's name, and began later: it is the one that others reach.
    Rival {
        /// When it began.
        epoch: u64,
    },
    /// An event from another broker that this one wants.
    Event {
        /// Where it was published.
        from: SmolStr,
        /// What.
        event: Arc<Event>,
        /// Events for this broker that were lost on the way, just before it.
        lost: u64,
    },
    /// An envelope for this broker.
    Received {
        /// From whom.
        from: Life,
        /// The first frame.
        body: bytes::Bytes,
        /// The attachments.
        frames: Vec<bytes::Bytes>,
    },
}
/// The system of other brokers.
#[derive(Debug)]
pub struct Federation {
    me: Life,
    /// When another broker of the same name began, if that was later.
    rival: Option<u64>,
    links: BTreeMap<LinkId, Neighbour>,
    catalog: Catalog,
    routes: Routes,
    interest: Interest,
    bound: Interest,
    homes: Homes,
    rules: Rules,
    /// What the way to each broker lets through, where that is not everything.
    passages: BTreeMap<SmolStr, Passage>,
    reached: BTreeMap<SmolStr, Reached>,
    /// Events that were for each broker, and those that came from each, with its epoch.
    spread: BTreeMap<SmolStr, u64>,
    /// The most that were for a broker which is forgotten: if it comes again and has not forgotten
    /// this one, it must not take what is new for what it has.
    forgotten: u64,
    gathered: BTreeMap<SmolStr, (u64, u64)>,
    /// When brokers were last reachable that are not any more.
    away: BTreeMap<SmolStr, u64>,
    /// Conversations that were begun.
    conversations: u64,
    /// When changes are told, and when they were last.
    tell_at_ns: Option<u64>,
    told_at_ns: u64,
    compare_at_ns: Option<u64>,
    /// Whether who can be reached may have changed.
    is_stale: bool,
    rng: Rng,
    counters: Counters,
}

/// The other end of a link.
#[derive(Debug)]
struct Neighbour {
    life: Life,
    cost_us: u32,
}

/// A broker that can be reached.
#[derive(Debug)]
struct Reached {
    life: Life,
    cost_us: u32,
    next: Option<SmolStr>,
    conversation: Conversation,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Counters {
    /// Envelopes for other brokers.
    sent: u64,
    /// Envelopes from other brokers.
    received: u64,
    /// Packets and events passed on.
    relayed: u64,
    /// Packets that nobody here knew what to do with.
    dropped: u64,
    /// Events that were wanted elsewhere and did not get onto a link.
    lost: u64,
    /// Events that a rule kept back.
    withheld: u64,
    /// Deltas that made no sense.
    nonsense: u64,
}

impl Federation {
    /// A broker without links.
    #[must_use]
    pub fn new(me: Life, seed: u64) -> Self {
        let (links, reached, spread, gathered, away) = Default::default();
        Self {
            catalog: Catalog::new(me.clone()),
            routes: Routes::new(&me),
            interest: Interest::new(seed),
            bound: Interest::new(seed ^ 0xb0),
            homes: Homes::default(),
            rules: Rules::default(),
            passages: BTreeMap::new(),
            me,
            rival: None,
            links,
            reached,
            spread,
            forgotten: 0,
            gathered,
            away,
            conversations: 0,
            tell_at_ns: None,
            told_at_ns: 0,
            compare_at_ns: None,
            is_stale: false,
            rng: Rng::new(seed ^ 0xfed),
            counters: Counters::default(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        match input {
            Input::Up { link, peer, cost_us } => self.up(now, link, peer, cost_us, out),
            Input::Cost { link, cost_us } => self.cost(now, link, cost_us),
            Input::Down { link } => self.down(now, link),
            Input::Heard { link, message } => self.heard(now, link, message, out),
            Input::Refused { message } => self.refused(&message),
            Input::Own { key, fact } => self.own(now, key, fact),
            Input::Want { pattern, wanted } => {
                if let Some((key, fact)) = self.interest.want(&pattern, wanted) {
                    self.own(now, key, fact);
                }
            }
            Input::Spread { event } => self.publish(&event, out),
            Input::Send { to, body, frames } => self.send(now, &to, body, frames, out),
        }
        self.look(now, out);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        if self.tell_at_ns.is_some_and(|at| at <= now.mono_ns) {
            self.told_at_ns = now.mono_ns;
            for (link, delta) in self.catalog.tell() {
                out.push(Output::Tell { link, message: Message::Delta(delta) });
            }
            self.tell_at_ns = self.catalog.has_news().then_some(now.mono_ns + TELL_NS);
        }
        if self.compare_at_ns.is_some_and(|at| at <= now.mono_ns) {
            self.compare(now, out);
        }
        let due: Vec<SmolStr> = self
            .reached
            .iter()
            .filter(|(_, of)| of.conversation.wake_at().is_some_and(|at| at <= now.mono_ns))
            .map(|(node, _)| node.clone())
            .collect();
        for node in due {
            let Some(reached) = self.reached.get_mut(&node) else { continue };
            let to = reached.life.clone();
            for cargo in reached.conversation.due(now) {
                self.packet(&to, cargo, out);
            }
        }
        self.look(now, out);
    }

    /// When `tick` next has work, in monotonic nanoseconds.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let talks = self.reached.values().filter_map(|of| of.conversation.wake_at());
        talks.chain(self.tell_at_ns).chain(self.compare_at_ns).min()
    }

    /// Whether more may be sent to a broker now.
    #[must_use]
    pub fn has_room(&self, node: &str) -> bool {
        self.reached.get(node).is_some_and(|reached| reached.conversation.has_room())
    }

    /// Whether other brokers want events at all.
    #[must_use]
    pub fn spreads(&self) -> bool {
        !self.interest.is_empty()
    }

    /// Whether other brokers keep queues at all.
    #[must_use]
    pub fn knows_queues(&self) -> bool {
        !self.homes.is_empty()
    }

    /// The broker that keeps a queue: the nearest, or one that was there lately.
    #[must_use]
    pub fn home(&self, queue: &str) -> Option<SmolStr> {
        let cost =
            |node: &&SmolStr| self.reached.get(*node).map_or(u32::MAX, |reached| reached.cost_us);
        let homes = self.homes.of(queue).filter(|node| self.takes(node, queue));
        homes.min_by_key(cost).cloned()
    }

    /// The brokers whose queues or routes are bound to a topic, by name.
    #[must_use]
    pub fn bound(&mut self, topic: &str) -> Vec<SmolStr> {
        let mut nodes = self.bound.who(topic);
        nodes.retain(|node| self.gives(node, topic));
        nodes
    }

    fn up(&mut self, now: Time, link: LinkId, peer: Life, cost_us: u32, out: &mut Out<Output>) {
        self.is_stale = true;
        let (me, to, epoch) = (self.me.node.clone(), peer.node.clone(), peer.epoch);
        self.links.insert(link, Neighbour { life: peer, cost_us });
        self.catalog.cut(link);
        self.routes.set(&me, &to, Some((epoch, cost_us)));
        self.own(now, Key::Link(to), Some(Fact::Link { epoch, cost_us }));
        let message = Message::Digest(self.catalog.digest());
        out.push(Output::Tell { link, message });
        self.compare_at_ns.get_or_insert(now.mono_ns + COMPARE_NS);
    }

    fn cost(&mut self, now: Time, link: LinkId, cost_us: u32) {
        let Some(neighbour) = self.links.get_mut(&link) else { return };
        neighbour.cost_us = cost_us;
        self.is_stale = true;
        let (me, Life { node: to, epoch }) = (self.me.node.clone(), neighbour.life.clone());
        self.routes.set(&me, &to, Some((epoch, cost_us)));
        self.own(now, Key::Link(to), Some(Fact::Link { epoch, cost_us }));
    }

    fn down(&mut self, now: Time, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        self.is_stale = true;
        self.catalog.cut(link);
        let to = gone.life.node;
        if self.links.values().any(|other| other.life.node == to) {
            return;
        }
        let me = self.me.node.clone();
        self.routes.set(&me, &to, None);
        self.own(now, Key::Link(to), None);
    }

    fn own(&mut self, now: Time, key: Key, fact: Option<Fact>) {
        if let Key::Rule(neighbour) = &key {
            self.rules.set(&self.me.node, neighbour, fact.as_ref());
            self.is_stale = true;
        }
        if self.catalog.own(key, fact) {
            self.news(now);
        }
    }

    /// There is something to tell: at once after a calm time, else together with what follows.
    fn news(&mut self, now: Time) {
        let at_ns = (self.told_at_ns + TELL_NS).max(now.mono_ns);
        self.tell_at_ns.get_or_insert(at_ns);
    }

    fn heard(&mut self, now: Time, link: LinkId, message: Message, out: &mut Out<Output>) {
        if !self.links.contains_key(&link) {
            return;
        }
        match message {
            Message::Digest(digest) => {
                let mine = self.catalog.heard(link, digest);
                self.compare_lives(mine, out);
                self.news(now);
            }
            Message::Delta(delta) => self.delta(now, link, delta, out),
            Message::Packet(packet) => self.arrived(now, packet, out),
            Message::Spread(spread) => self.gather(spread, out),
        }
    }

    /// A neighbour knows a broker of this one's name in a life that began then. A later life than
    /// this one is another broker's: whoever hears of both forgets the earlier.
    fn compare_lives(&mut self, epoch: Option<u64>, out: &mut Out<Output>) {
        let Some(epoch) = epoch else { return };
        let rival = Some(epoch).filter(|epoch| *epoch > self.me.epoch);
        let before = std::mem::replace(&mut self.rival, rival);
        if let Some(epoch) = rival.filter(|_| before != rival) {
            out.push(Output::Rival { epoch });
        }
    }

    /// What another broker says about itself has come.
    fn delta(&mut self, now: Time, link: LinkId, delta: Delta, out: &mut Out<Output>) {
        let life = delta.life.clone();
        if life.node == self.me.node {
            self.compare_lives(Some(life.epoch), out);
        }
        match self.catalog.take(link, delta) {
            Taken::Known => {}
            Taken::Nonsense => self.counters.nonsense += 1,
            Taken::Gap => {
                let message = Message::Digest(self.catalog.digest());
                out.push(Output::Tell { link, message });
            }
            Taken::News { anew, changes } => {
                self.news(now);
                self.is_stale = true;
                if anew {
                    self.routes.begin(&life);
                    self.interest.forget(&life.node);
                    self.bound.forget(&life.node);
                    self.homes.forget(&life.node);
                    self.rules.forget(&life.node);
                }
                for (key, fact) in &changes {
                    self.learn(&life.node, key, fact.as_ref());
                }
                let reached = self.reached.get(&life.node);
                if reached.is_some_and(|reached| reached.life == life) {
                    let changes = self.usable(&life.node, changes);
                    out.push(Output::Says { node: life.node, changes });
                }
            }
        }
    }

    fn learn(&mut self, node: &SmolStr, key: &Key, fact: Option<&Fact>) {
        match (key, fact) {
            (Key::Link(to), Some(Fact::Link { epoch, cost_us })) => {
                self.routes.set(node, to, Some((*epoch, *cost_us)));
            }
            (Key::Link(to), None) => self.routes.set(node, to, None),
            (Key::Interest(pattern), fact) => self.interest.set(node, pattern, fact.is_some()),
            (Key::Bound(pattern), fact) => self.bound.set(node, pattern, fact.is_some()),
            (Key::Queue(queue), fact) => self.homes.set(node, queue, fact.is_some()),
            (Key::Rule(neighbour), fact) => self.rules.set(node, neighbour, fact),
            _ => {}
        }
    }

    /// Compares catalogs with a neighbour: a message that got lost is found out so.
    fn compare(&mut self, now: Time, out: &mut Out<Output>) {
        self.compare_at_ns = (!self.links.is_empty()).then_some(now.mono_ns + COMPARE_NS);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        if !links.is_empty() {
            let link = links[self.rng.below(links.len())];
            let message = Message::Digest(self.catalog.digest());
            out.push(Output::Tell { link, message });
        }
        let forgotten: Vec<SmolStr> = self
            .away
            .iter()
            .filter(|(_, since_ns)| now.mono_ns.saturating_sub(**since_ns) > AWAY_NS)
            .map(|(node, _)| node.clone())
            .collect();
        for node in forgotten {
            self.away.remove(&node);
            self.is_stale = true;
            self.catalog.forget(&node);
            self.routes.forget(&node);
            self.interest.forget(&node);
            self.bound.forget(&node);
            self.homes.forget(&node);
            self.rules.forget(&node);
            self.passages.remove(&node);
            self.forgotten = self.forgotten.max(self.spread.remove(&node).unwrap_or_default());
            self.gathered.remove(&node);
        }
    }

    /// Looks who can be reached now, if something has changed.
    fn look(&mut self, now: Time, out: &mut Out<Output>) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.routes.refresh();
        let known = |node: &SmolStr| {
            let entry = self.catalog.get(node)?;
            entry.fact(&Key::About).map(|_| entry.life.clone())
        };
        let ways = self.routes.ways().iter();
        let found: BTreeMap<SmolStr, (Life, u32)> = ways
            .filter_map(|(node, way)| Some((node.clone(), (known(node)?, way.cost_us))))
            .collect();
        let lost: Vec<SmolStr> = self
            .reached
            .iter()
            .filter(|(node, of)| found.get(*node).is_none_or(|(life, _)| *life != of.life))
            .map(|(node, _)| node.clone())
            .collect();
        for node in lost {
            self.lose(now, &node, out);
        }
        self.review(out);
        for (node, (life, cost_us)) in found {
            self.find(now, node, life, cost_us, out);
        }
    }

    fn lose(&mut self, now: Time, node: &SmolStr, out: &mut Out<Output>) {
        if let Some(reached) = self.reached.remove(node) {
            self.away.insert(node.clone(), now.mono_ns);
            out.push(Output::Lost { life: reached.life });
        }
    }

    fn find(&mut self, now: Time, node: SmolStr, life: Life, cost_us: u32, out: &mut Out<Output>) {
        let next = self.routes.next(&node, flow(&self.me.node, &node)).cloned();
        if let Some(reached) = self.reached.get_mut(&node) {
            if reached.next != next {
                reached.next = next;
                reached.conversation.hurry(now);
            }
            if reached.cost_us != cost_us {
                reached.cost_us = cost_us;
                out.push(Output::Cost { node, cost_us });
            }
            return;
        }
        self.away.remove(&node);
        self.conversations += 1;
        let conversation = Conversation::new(now, self.conversations);
        self.reached
            .insert(node.clone(), Reached { life: life.clone(), cost_us, next, conversation });
        self.introduce(node, life, cost_us, out);
    }

    fn introduce(&self, node: SmolStr, life: Life, cost_us: u32, out: &mut Out<Output>) {
        let facts = self.catalog.get(&node).into_iter().flat_map(Entry::facts);
        let changes = facts.map(|(key, fact)| (key.clone(), Some(fact.clone()))).collect();
        let changes = self.usable(&node, changes);
        out.push(Output::Reached { life });
        out.push(Output::Cost { node: node.clone(), cost_us });
        out.push(Output::Says { node, changes });
    }
}

/// What belongs together takes the same of several ways that are as good.
fn flow(from: &SmolStr, to: &SmolStr) -> u64 {
    let bytes = from.bytes().chain([0]).chain(to.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
