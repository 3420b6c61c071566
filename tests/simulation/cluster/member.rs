//! One of several brokers: the rules, a store, and sessions for the brokers it reaches, through
//! which everything goes as bytes.

use std::collections::BTreeSet;

use mpreg_patterns::base::{Limits, Out, PeerId, Time};
use mpreg_patterns::federation::{self, Life, LinkId, Message};
use mpreg_patterns::node::{About, Envelope, Input, Node, Output, Rules};
use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::outbox::Parcel as _;
use mpreg_patterns::queues;
use mpreg_sockets::envelope::{self, Encoding};
use mpreg_sockets::router::Prefix;
use mpreg_sockets::session::Session;
use serde_json::Value as Json;
use smol_str::{SmolStr, format_smolstr};

use crate::publishers::builtin;
use crate::store::Store;

/// Who asks for audits: no connection has this place.
const AUDITOR: PeerId = PeerId { slot: 1_000, generation: 1 };

/// What a broker wants of the others, and of its own peers.
#[derive(Debug)]
pub(super) enum Effect {
    /// For whoever reads what happened: what another broker says.
    Note(String),
    Told {
        guest: usize,
        reply: Reply,
    },
    Tell {
        link: LinkId,
        message: Message,
    },
}

/// Who has a place among the peers.
enum Who {
    Guest(usize),
    Far(Box<Session>),
}

pub(super) struct Member {
    pub(super) epoch: u64,
    name: SmolStr,
    node: Node,
    pub(super) store: Store,
    peers: Vec<Option<(PeerId, Who)>>,
    generations: Vec<u32>,
    /// Those for whom something waits.
    spoken_to: BTreeSet<u32>,
    limits: Limits,
    out: Out<Output>,
    pub(super) effects: Vec<Effect>,
    asked: u64,
    pub(super) logs: bool,
    audited: Option<Json>,
}

pub(super) fn name(number: usize) -> SmolStr {
    format_smolstr!("n{number}")
}

impl Member {
    pub(super) fn new(now: Time, number: usize, epoch: u64, mut store: Store) -> Self {
        let (name, version) = (name(number), "0.1.0".into());
        let endpoints = serde_json::Value::Null;
        let about = About { node: name.clone(), version, epoch, endpoints, cluster: "sim".into() };
        let limits = Limits::default();
        let of_queues = queues::Rules { auto_create: false, ..queues::Rules::default() };
        let rules = Rules { queues: of_queues, ..Rules::default() };
        let mut node = Node::new(about, limits.clone(), &rules, epoch * 977 + number as u64);
        let mut out = Out::new();
        node.handle(now, Input::Stored(store.open()), &mut out);
        let (peers, generations, spoken_to, effects, asked, logs, audited) = Default::default();
        Self {
            epoch,
            name,
            node,
            store,
            peers,
            generations,
            spoken_to,
            limits,
            out,
            effects,
            asked,
            logs,
            audited,
        }
    }

    pub(super) fn life(&self) -> Life {
        Life { node: self.name.clone(), epoch: self.epoch }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.logs {
            self.effects.push(Effect::Note(format!("{} {}", self.name, text())));
        }
    }

    fn place(&mut self, who: Who) -> PeerId {
        let free = self.peers.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.peers.push(None);
            self.generations.push(0);
            self.peers.len() - 1
        });
        self.generations[slot] += 1;
        let id = PeerId { slot: slot as u32, generation: self.generations[slot] };
        self.peers[slot] = Some((id, who));
        id
    }

    fn peer(&mut self, id: PeerId) -> Option<&mut Who> {
        let peer = self.peers.get_mut(id.slot as usize)?.as_mut();
        peer.filter(|(of, _)| *of == id).map(|(_, who)| who)
    }

    pub(super) fn request(&mut self, now: Time, guest: usize, request: Request) {
        let mut all = self.peers.iter().flatten();
        let known = all.find(|(_, who)| matches!(who, Who::Guest(of) if *of == guest));
        let known = known.map(|(id, _)| *id);
        let peer = known.unwrap_or_else(|| self.place(Who::Guest(guest)));
        self.node.handle(now, Input::Request { peer, request }, &mut self.out);
        self.settle(now);
    }

    pub(super) fn link(&mut self, now: Time, news: federation::Input) {
        self.node.handle(now, Input::Link(news), &mut self.out);
        self.settle(now);
    }

    pub(super) fn wake_at(&self) -> Option<u64> {
        self.node.wake_at().into_iter().chain(self.store.wake_at()).min()
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Time) {
        while let Some(told) = self.store.told(now.mono_ns) {
            self.node.handle(now, Input::Stored(told), &mut self.out);
            self.settle(now);
        }
        if self.node.wake_at().is_some_and(|at_ns| at_ns <= now.mono_ns) {
            self.node.tick(now, &mut self.out);
        }
        self.settle(now);
    }

    /// Until nothing is left to pass on: then what is for other brokers leaves.
    fn settle(&mut self, now: Time) {
        loop {
            while !self.out.is_empty() {
                let outputs: Vec<Output> = self.out.drain().collect();
                outputs.into_iter().for_each(|output| self.output(now, output));
            }
            self.flush(now);
            if self.out.is_empty() {
                return;
            }
        }
    }

    fn output(&mut self, now: Time, output: Output) {
        match output {
            Output::Send { to: AUDITOR, reply } => self.hear(reply),
            Output::Send { to, reply } => self.answer(now, to, reply),
            Output::Store(ask) => self.store.ask(ask),
            Output::Tell { link, message } => self.effects.push(Effect::Tell { link, message }),
            Output::Reached { node } => {
                self.note(|| format!("reaches {node:?}"));
                let mut session = Box::<Session>::default();
                session.speak(Encoding::Bincode, true);
                let peer = self.place(Who::Far(session));
                self.node.handle(now, Input::Joined { node, peer }, &mut self.out);
            }
            Output::Parted { peer } => self.parted(now, peer),
            Output::Received { peer, envelope } => self.received(now, peer, &envelope),
            Output::Broadcast(_) => {}
            Output::Outlet { .. } | Output::Link(_) | Output::Taken { .. } => {
                panic!("nobody asked for {output:?}")
            }
        }
    }

    fn answer(&mut self, now: Time, to: PeerId, reply: Reply) {
        match self.peer(to) {
            Some(Who::Guest(guest)) => {
                let guest = *guest;
                self.effects.push(Effect::Told { guest, reply });
            }
            Some(Who::Far(session)) => {
                session.push(&reply).expect("brokers encode everything");
                self.spoken_to.insert(to.slot);
            }
            None => {
                let input = match reply {
                    Reply::Run(run) | Reply::Call(run) => {
                        Input::Unsent { run: run.id, refusal: None }
                    }
                    Reply::Deliver(told) | Reply::HandOver(told) => {
                        Input::Returned { id: told.id, refusal: None }
                    }
                    _ => return,
                };
                self.node.handle(now, input, &mut self.out);
            }
        }
    }

    /// A broker can be reached no longer: what had not left for it is placed anew.
    fn parted(&mut self, now: Time, peer: PeerId) {
        self.note(|| format!("has lost {peer:?}"));
        let Some(Who::Far(session)) = self.peer(peer) else { return };
        let mut unsent = session.unsent();
        while let Some(mut parcel) = session.take() {
            unsent.extend(parcel.take_runs());
        }
        self.peers[peer.slot as usize] = None;
        self.node.handle(now, Input::Gone { peer, unsent }, &mut self.out);
    }

    fn received(&mut self, now: Time, peer: PeerId, envelope: &Envelope) {
        let limits = self.limits.clone();
        let Some(Who::Far(session)) = self.peer(peer) else { return };
        session.begin(false, Prefix::None);
        let Envelope { body, frames } = envelope;
        let mut requests = Vec::new();
        let decoded = envelope::decode(body, frames.clone(), &limits, &mut |item| {
            let admitted = session.admit(item);
            requests.push(admitted.unwrap_or_else(|no| panic!("a broker said {no:?}")));
        });
        session.heard(&decoded.expect("brokers write what can be read"));
        for request in requests {
            self.note(|| format!("hears from {peer:?}: {request:?}"));
            self.node.handle(now, Input::Request { peer, request }, &mut self.out);
        }
    }

    fn flush(&mut self, now: Time) {
        for slot in self.spoken_to.clone() {
            if self.flush_to(now, slot) {
                self.spoken_to.remove(&slot);
            }
        }
    }

    /// True when nothing is left.
    fn flush_to(&mut self, now: Time, slot: u32) -> bool {
        let Some((id, Who::Far(session))) = &mut self.peers[slot as usize] else { return true };
        while self.node.has_room(*id) {
            let Some(parcel) = session.take() else { return true };
            let carry = Input::Carry { peer: *id, envelope: parcel.envelope() };
            self.node.handle(now, carry, &mut self.out);
        }
        false
    }

    /// What one of its own functions says.
    pub(super) fn audit(&mut self, now: Time, fun: &str) -> Json {
        self.ask(now, fun, "{}".into());
        self.audited.take().expect("an answer at once")
    }

    /// Calls one of its own functions.
    pub(super) fn ask(&mut self, now: Time, fun: &str, about: String) {
        self.asked += 1;
        let request = builtin(&self.asked.to_string(), fun, about, 1_000);
        self.node.handle(now, Input::Request { peer: AUDITOR, request }, &mut self.out);
        self.settle(now);
    }

    fn hear(&mut self, reply: Reply) {
        let Reply::Result { body, .. } = reply else { panic!("no audit: {reply:?}") };
        self.audited = Some(serde_json::from_slice(&body.value.bytes).expect("JSON"));
    }

    /// Requests without an outcome.
    pub(super) fn in_flight(&self) -> usize {
        self.node.in_flight()
    }
}
