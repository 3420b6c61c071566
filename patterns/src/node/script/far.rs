//! Other brokers in transcripts: a neighbour that speaks over its link, and stands among the peers
//! under its own name.
//!
//! ```text
//! b1 links cost=500 cluster=eu
//! b1 has f@1.0.0! eu
//! b1 has no f@1.0.0 eu
//! b1 load 3/4
//! b1 refuses f busy too much to do
//! b1 has queue jobs
//! b1 wants orders.#
//! b1 binds orders.#
//! b1 gives n1 a.#,!a.b
//! b1 publishes orders.eu 1
//! b1 took jobs
//! b1 consumed
//! b1 delivers jobs 1
//! b1 acked
//! b1 lapses jobs
//! b1 unlinks
//! ```

use std::sync::Arc;

use smol_str::{SmolStr, ToSmolStr};

use super::{Peer, Stage, Words};
use crate::base::{Code, PeerId, Refusal, RunId};
use crate::federation::{self, Delta, Fact, Key, Life, LinkId, Message as Told, Spread};
use crate::node::Input;
use crate::ops::{Delivered, Event, Request};
use crate::store::Message;

/// A neighbour at the other end of a link.
#[derive(Debug)]
pub(super) struct Neighbour {
    life: Life,
    link: LinkId,
    version: u64,
    events: u64,
}

impl Stage {
    /// Plays what a neighbour does, if that is what the line says.
    pub(super) fn play_neighbour(&mut self, name: &str, verb: &str, words: &mut Words<'_>) -> bool {
        match verb {
            "links" => {
                let cost_us = words.option("cost").and_then(|text| text.parse().ok());
                let cluster = words.option("cluster").unwrap_or_else(|| "main".into());
                self.link(name, cost_us.unwrap_or(1_000), &cluster);
            }
            "unlinks" => {
                let at =
                    self.neighbours.iter().position(|of| of.life.node == name).expect("a link");
                let link = self.neighbours.remove(at).link;
                self.input(Input::Link(federation::Input::Down { link }));
            }
            "has" | "wants" | "binds" | "gives" => {
                let fact = said(verb, words);
                self.says(name, vec![fact]);
            }
            "publishes" if self.neighbours.iter().any(|of| of.life.node == name) => {
                self.spread(name, words);
            }
            "took" => {
                let peer = self.peer(name);
                let id = self.take(peer, words.word());
                let peer = self.peers[peer].id;
                self.input(Input::Request { peer, request: Request::Sent { id } });
            }
            "consumed" => {
                let peer = self.peer(name);
                let id = self.take(peer, "consume");
                let request = Request::Consumed { id, credit: 1 };
                self.input(Input::Request { peer: self.peers[peer].id, request });
            }
            "delivers" => self.deliver_from(name, words),
            "acked" => self.ack_from(name, words),
            "lapses" => {
                let peer = self.peer(name);
                let id = self.take(peer, words.word()).to_smolstr();
                let request = Request::Cancel { id };
                self.input(Input::Request { peer: self.peers[peer].id, request });
            }
            "load" => {
                let (in_flight, credit) = words.word().split_once('/').expect("in flight/credit");
                let number = |text: &str| text.parse().expect("a number");
                let (in_flight, credit) = (number(in_flight), number(credit));
                self.says(name, vec![(Key::Load, Some(Fact::Load { in_flight, credit }))]);
            }
            "refuses" => {
                let peer = self.peer(name);
                let run = self.take(peer, words.word());
                let code = Code::find(words.word()).expect("a code");
                let error = Box::new(Refusal::new(code, words.rest.trim()));
                let request = Request::Failed { run, error };
                self.input(Input::Request { peer: self.peers[peer].id, request });
            }
            _ => return false,
        }
        true
    }

    fn link(&mut self, name: &str, cost_us: u32, cluster: &str) {
        self.links += 1;
        let life = Life { node: name.into(), epoch: self.links.into() };
        let link = LinkId(self.links);
        self.neighbours.push(Neighbour { life: life.clone(), link, version: 0, events: 0 });
        self.input(Input::Link(federation::Input::Up { link, peer: life, cost_us }));
        let about = Fact::About {
            cluster: cluster.into(),
            version: "0.1.0".into(),
            door: SmolStr::default(),
        };
        let back = Key::Link("n1".into());
        let facts = vec![(Key::About, Some(about)), (back, Some(Fact::Link { epoch: 7, cost_us }))];
        self.says(name, facts);
    }

    fn spread(&mut self, name: &str, words: &mut Words<'_>) {
        let who = self.neighbours.iter_mut().find(|of| of.life.node == name).expect("a link");
        who.events += 1 + words.option("lost").map_or(0, |lost| lost.parse().expect("a number"));
        let (link, from) = (who.link, who.life.clone());
        let message = Told::Spread(Spread {
            path: vec![from.node.clone()],
            from,
            to: vec![("n1".into(), who.events)],
            topic: words.word().into(),
            kind: 1,
            payload: words.value().expect("a payload").bytes,
            headers: None,
            message: 1_000 + u128::from(who.events),
        });
        self.input(Input::Link(federation::Input::Heard { link, message }));
    }

    /// What was said of messages of its queues last is so now, or they were not in hand.
    fn ack_from(&mut self, name: &str, words: &mut Words<'_>) {
        let peer = self.peer(name);
        let settle = self.peers[peer].settled.take().expect("something was settled");
        let id = settle.id.as_deref().and_then(RunId::parse).expect("an answer is wanted");
        let (ids, unknown) = match words.flag("unknown") {
            true => (Vec::new(), settle.ids),
            false => (settle.ids, Vec::new()),
        };
        let request = Request::Acked { id, ids, unknown };
        self.input(Input::Request { peer: self.peers[peer].id, request });
    }

    /// A message of one of its queues.
    fn deliver_from(&mut self, name: &str, words: &mut Words<'_>) {
        let peer = self.peer(name);
        self.links += 1;
        let (queue, id) = (SmolStr::new(words.word()), RunId(u128::from(self.links) << 64));
        let group = words.option("group").map(SmolStr::from);
        let event = Arc::new(Event {
            topic: SmolStr::default(),
            payload: words.value().expect("a payload"),
            headers: None,
            message: id,
        });
        let (attempts, expires_ms, death) = Default::default();
        let message = Message { event, key: None, priority: 0, attempts, expires_ms, death };
        self.peers[peer].runs.push((queue.to_string(), id, true));
        let told = Delivered { queue, group, id, attempt: 1, message: Arc::new(message) };
        let request = Request::Delivered(Box::new(told));
        self.input(Input::Request { peer: self.peers[peer].id, request });
    }

    fn says(&mut self, name: &str, changes: Vec<(Key, Option<Fact>)>) {
        let who = self.neighbours.iter_mut().find(|of| of.life.node == name).expect("a link");
        let (from, link, life) = (who.version, who.link, who.life.clone());
        who.version += changes.len() as u64;
        let message = Told::Delta(Delta { life, from, to: who.version, changes });
        self.input(Input::Link(federation::Input::Heard { link, message }));
    }

    /// Makes room for a broker among the peers.
    pub(super) fn reached(&mut self, node: SmolStr) {
        let known = self.peers.iter_mut().find(|peer| peer.name == node);
        let id = match known {
            Some(peer) => {
                peer.id.generation += 1;
                peer.id
            }
            None => {
                let id = PeerId { slot: self.peers.len() as u32, generation: 0 };
                let (runs, settled) = Default::default();
                self.peers.push(Peer { name: node.to_string(), id, runs, settled });
                id
            }
        };
        self.node.handle(self.now, Input::Joined { node, peer: id }, &mut self.out);
    }

    /// The peer that stood for a broker is gone.
    pub(super) fn parted(&mut self, id: PeerId) {
        for peer in self.peers.iter_mut().filter(|peer| peer.id == id) {
            peer.runs.iter_mut().for_each(|run| run.2 = false);
        }
        self.node.handle(self.now, Input::Gone { peer: id, unsent: Vec::new() }, &mut self.out);
    }
}

/// What a neighbour is told, as far as it is not about the catalogs.
pub(super) fn told(all: &[Neighbour], link: LinkId, message: &Told) -> Option<String> {
    let Told::Spread(spread) = message else { return None };
    let who = all.iter().find(|of| of.link == link)?;
    let payload = String::from_utf8_lossy(&spread.payload);
    let to: Vec<_> = spread.to.iter().map(|(node, _)| node.as_str()).collect();
    Some(format!("→ {} event {} {payload} for {}", who.life.node, spread.topic, to.join(", ")))
}

/// What a neighbour says of itself.
fn said(verb: &str, words: &mut Words<'_>) -> (Key, Option<Fact>) {
    match verb {
        "wants" | "binds" => {
            let gone = words.flag("no");
            let pattern = words.word().into();
            let (key, fact) = match verb {
                "wants" => (Key::Interest(pattern), Fact::Interest),
                _ => (Key::Bound(pattern), Fact::Bound),
            };
            (key, (!gone).then_some(fact))
        }
        "gives" => {
            let key = Key::Rule(words.word().into());
            let export = words.word().split(',').map(SmolStr::new).collect();
            (key, Some(Fact::Rule { export, import: Vec::new() }))
        }
        _ => has(words),
    }
}

/// `f@1.0.0! loc loc` or `no f@1.0.0 loc`, `queue jobs`.
fn has(words: &mut Words<'_>) -> (Key, Option<Fact>) {
    let mut first = words.word().to_owned();
    let gone = first == "no";
    if gone {
        first = words.word().to_owned();
    }
    if first == "queue" {
        return (Key::Queue(words.word().into()), (!gone).then_some(Fact::Queue));
    }
    let idempotent = first.ends_with('!');
    let (name, version) = first.trim_end_matches('!').split_once('@').expect("name@version");
    let (name, version) = (name.into(), version.into());
    let locs = words.rest.split_whitespace().map(SmolStr::new).collect();
    (Key::Function { name, version, locs }, (!gone).then_some(Fact::Function { idempotent }))
}
