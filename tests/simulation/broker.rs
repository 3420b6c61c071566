//! Drives `Node` and `Outbox` as the core's thread does, on links instead of sockets.

use std::collections::BTreeMap;

use mpreg_patterns::base::{Code, Limits, Out, PeerId, Refusal, RunId, Time};
use mpreg_patterns::node::{About, Input, Node, Output, Rules, error_reply};
use mpreg_patterns::ops::{Delivered, Delivery, Reply, Request};
use mpreg_patterns::outbox::{self, Outbox, Parcel as _};
use mpreg_patterns::queues;
use mpreg_patterns::topics::Retain;

use crate::checkers::Checker;
use crate::network::{Parcel, Sent, reply_bytes};
use crate::publishers::builtin;
use crate::store::Store;

/// Replies that one frame holds.
const COALESCED: usize = 8;
/// Who asks for audits: no connection has this place.
const AUDITOR: PeerId = PeerId { slot: 63, generation: 1 };

/// What the broker needs of the world.
pub(crate) trait Wire {
    /// Sends to the given life of a peer's connection.
    fn send(&mut self, to: usize, life: u32, parcel: Parcel) -> Sent;
    /// Notes that a reply was dropped, since too much waited for its peer.
    fn dropped(&mut self, to: usize, reply: &Reply);
    /// Notes what passes between the broker and its store.
    fn note(&mut self, text: impl FnOnce() -> String);
}

struct Connection {
    id: PeerId,
    peer: usize,
    life: u32,
    waiting: Vec<Reply>,
}

/// One life of the broker.
pub(crate) struct Broker {
    pub(crate) node: Node,
    pub(crate) outbox: Outbox<Parcel>,
    pub(crate) epoch: u64,
    connections: Vec<Option<Connection>>,
    generations: Vec<u32>,
    by_peer: BTreeMap<usize, u32>,
    limits: Limits,
    out: Out<Output>,
    outbox_out: Out<outbox::Output<Parcel>>,
    /// Whether outputs are being put where they wait.
    answering: bool,
    pub(crate) store: Store,
    /// Whether some peers cannot hold some messages.
    picky: bool,
}

impl Broker {
    pub(crate) fn new(
        epoch: u64,
        limits: &Limits,
        rules: &[Retain],
        seed: u64,
        store: Store,
    ) -> Self {
        let endpoints = serde_json::Value::Null;
        let (node, cluster) = ("sim".into(), "sim".into());
        let version = "0.1.0".into();
        let about = About { node, version, epoch, endpoints, cluster };
        Self {
            node: Node::new(
                about,
                limits.clone(),
                &Rules {
                    retain: rules.to_vec(),
                    queues: queues::Rules { auto_create: false, ..queues::Rules::default() },
                },
                seed,
            ),
            outbox: Outbox::new(limits.outbox_bytes),
            epoch,
            connections: Vec::new(),
            generations: Vec::new(),
            by_peer: BTreeMap::new(),
            limits: limits.clone(),
            out: Out::new(),
            outbox_out: Out::new(),
            answering: false,
            store,
            picky: true,
        }
    }

    /// Takes over what the store has.
    pub(crate) fn open(&mut self, now: Time, check: &mut Checker) {
        let told = self.store.open();
        check.queues.stored(&told, &self.store);
        self.node.handle(now, Input::Stored(told), &mut self.out);
    }

    /// Nothing goes wrong any more.
    pub(crate) const fn settle(&mut self) {
        self.store.settle();
        self.picky = false;
    }

    fn connection(&mut self, peer: usize) -> Option<&mut Connection> {
        let slot = *self.by_peer.get(&peer)?;
        self.connections[slot as usize].as_mut()
    }

    /// A connection is up; under an identity that is known it ends the earlier life.
    pub(crate) fn connected(&mut self, now: Time, peer: usize, life: u32, check: &mut Checker) {
        if self.connection(peer).is_some_and(|connection| connection.life == life) {
            return;
        }
        self.gone(now, peer, check);
        let free = self.connections.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.generations.push(0);
            self.connections.len() - 1
        });
        self.generations[slot] += 1;
        let id = PeerId { slot: slot as u32, generation: self.generations[slot] };
        self.connections[slot] = Some(Connection { id, peer, life, waiting: Vec::new() });
        self.by_peer.insert(peer, slot as u32);
    }

    /// A life of a connection has ended.
    pub(crate) fn disconnected(
        &mut self,
        now: Time,
        (peer, life): (usize, u32),
        wire: &mut impl Wire,
        check: &mut Checker,
    ) {
        if self.connection(peer).is_some_and(|connection| connection.life == life) {
            self.gone(now, peer, check);
            self.answers(now, wire, check);
            check.settled();
        }
    }

    fn gone(&mut self, now: Time, peer: usize, check: &mut Checker) {
        let Some(slot) = self.by_peer.remove(&peer) else { return };
        let Some(connection) = self.connections[slot as usize].take() else { return };
        let mut unsent = Parcel { replies: connection.waiting }.take_runs();
        let mut ended = Out::new();
        let id = connection.id;
        self.outbox.handle(now, outbox::Input::Gone { peer: id }, &mut ended);
        for output in ended.drain() {
            if let outbox::Output::Unsent { runs, .. } = output {
                unsent.extend(runs);
            }
        }
        check.gone(id, &unsent);
        self.node.handle(now, Input::Gone { peer: id, unsent }, &mut self.out);
    }

    /// A request has arrived.
    pub(crate) fn request(
        &mut self,
        now: Time,
        (peer, life): (usize, u32),
        request: Request,
        wire: &mut impl Wire,
        check: &mut Checker,
    ) {
        self.connected(now, peer, life, check);
        let Some(connection) = self.connection(peer) else { return };
        let id = connection.id;
        if self.outbox.is_stalled(id) {
            self.outbox.handle(now, outbox::Input::Spoke { peer: id }, &mut self.outbox_out);
            // At once: what the outbox has let go is nobody's if the peer is gone before it leaves.
            self.post(now, wire, check);
        }
        if self.connection(peer).is_none_or(|connection| connection.id != id) {
            return;
        }
        check.asked(now, id, &request);
        self.node.handle(now, Input::Request { peer: id, request }, &mut self.out);
        self.answers(now, wire, check);
        check.settled();
    }

    /// A socket beside the door has done something.
    pub(crate) fn socket(
        &mut self,
        now: Time,
        input: Input,
        wire: &mut impl Wire,
        check: &mut Checker,
    ) {
        if !check.queues.socket(now, &input) {
            check.topics.socket(now, &input);
        }
        self.node.handle(now, input, &mut self.out);
        self.answers(now, wire, check);
        check.settled();
    }

    /// Puts what was decided where it waits for its peer.
    fn answers(&mut self, now: Time, wire: &mut impl Wire, check: &mut Checker) {
        // What comes of a frame that leaves meanwhile comes behind what is there already.
        if std::mem::replace(&mut self.answering, true) {
            return;
        }
        while !self.out.is_empty() {
            let outputs: Vec<Output> = self.out.drain().collect();
            for output in outputs {
                match output {
                    Output::Send { to, reply } => self.answer(now, to, reply, wire, check),
                    Output::Broadcast(told) => check.topics.broadcast(&told),
                    Output::Outlet { task, .. } => panic!("nobody has an outlet here: {task:?}"),
                    Output::Tell { .. }
                    | Output::Link(_)
                    | Output::Reached { .. }
                    | Output::Taken { .. }
                    | Output::Parted { .. }
                    | Output::Received { .. } => panic!("there is no other broker: {output:?}"),
                    Output::Store(ask) => {
                        wire.note(|| format!("asks {ask:?}"));
                        self.store.ask(ask);
                    }
                }
            }
        }
        self.answering = false;
    }

    fn answer(
        &mut self,
        now: Time,
        to: PeerId,
        reply: Reply,
        wire: &mut impl Wire,
        check: &mut Checker,
    ) {
        let connection = self.connections.get_mut(to.slot as usize);
        let Some(connection) = connection.and_then(Option::as_mut).filter(|c| c.id == to) else {
            match &reply {
                Reply::Run(run) => self.unsent(now, run.id, check),
                Reply::Event(delivery) => check.topics.left_for_nobody(delivery),
                Reply::Deliver(delivered) => {
                    check.queues.left_for_nobody(delivered);
                    self.returned(now, delivered, None, check);
                }
                _ => {}
            }
            return;
        };
        if !check.queues.answered(now, to, &reply, &self.store) {
            check.answered(now, to, &reply);
        }
        if let Reply::Deliver(delivered) = &reply {
            if self.outbox.bytes(to) > self.limits.outbox_bytes / 2 {
                return self.returned(now, delivered, None, check);
            }
            if self.picky && is_odd(to, &delivered.message.event.payload.bytes) {
                let refusal = Refusal::new(Code::UnencodableValue, "not for this peer");
                return self.returned(now, delivered, Some(refusal), check);
            }
            connection.waiting.push(reply);
            if connection.waiting.len() >= COALESCED {
                self.flush(now, to, wire, check);
            }
            return;
        }
        if let Reply::Event(delivery) = &reply {
            if self.outbox.bytes(to) > self.limits.outbox_bytes / 2 {
                check.topics.tally.undelivered += 1;
                return self.undelivered(now, to, delivery, check);
            }
            if is_odd(to, &delivery.event.payload.bytes) {
                let error = Refusal::new(Code::UnencodableValue, "not for this peer");
                connection.waiting.push(error_reply(None, Some("event"), error));
                return self.undelivered(now, to, delivery, check);
            }
            connection.waiting.push(reply);
            if connection.waiting.len() >= COALESCED {
                self.flush(now, to, wire, check);
            }
            return;
        }
        connection.waiting.push(reply);
    }

    /// An event that its peer's connection does not take.
    fn undelivered(&mut self, now: Time, to: PeerId, delivery: &Delivery, check: &mut Checker) {
        let pattern = delivery.pattern.clone();
        check.topics.undelivered(to, &pattern);
        self.node.handle(now, Input::Undelivered { peer: to, pattern }, &mut self.out);
    }

    /// A message that its consumer's connection does not take.
    fn returned(
        &mut self,
        now: Time,
        delivered: &Delivered,
        refusal: Option<Refusal>,
        check: &mut Checker,
    ) {
        check.queues.returned(delivered.id, refusal.is_some());
        let input = Input::Returned { id: delivered.id, refusal };
        self.node.handle(now, input, &mut self.out);
    }

    /// Hands over what waits for a connection, a frame at a time.
    fn flush(&mut self, now: Time, id: PeerId, wire: &mut impl Wire, check: &mut Checker) {
        while let Some(connection) =
            self.connections[id.slot as usize].as_mut().filter(|c| c.id == id)
            && !connection.waiting.is_empty()
        {
            let some = connection.waiting.len().min(COALESCED);
            let parcel = Parcel { replies: connection.waiting.drain(..some).collect() };
            self.outbox.handle(now, outbox::Input::Push { peer: id, parcel }, &mut self.outbox_out);
            self.post(now, wire, check);
        }
    }

    fn unsent(&mut self, now: Time, run: RunId, check: &mut Checker) {
        check.unsent(run);
        let refusal: Option<Refusal> = None;
        self.node.handle(now, Input::Unsent { run, refusal }, &mut self.out);
    }

    /// When the broker next has work.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        let all = [self.node.wake_at(), self.outbox.wake_at(), self.store.wake_at()];
        all.into_iter().flatten().min()
    }

    /// One turn: what is due, then everything out.
    pub(crate) fn turn(&mut self, now: Time, wire: &mut impl Wire, check: &mut Checker) {
        while let Some(told) = self.store.told(now.mono_ns) {
            wire.note(|| format!("hears {told:?}"));
            check.queues.stored(&told, &self.store);
            self.node.handle(now, Input::Stored(told), &mut self.out);
            self.answers(now, wire, check);
        }
        if self.node.wake_at().is_some_and(|at_ns| at_ns <= now.mono_ns) {
            self.node.tick(now, &mut self.out);
            self.answers(now, wire, check);
        }
        if self.outbox.wake_at().is_some_and(|at_ns| at_ns <= now.mono_ns) {
            self.outbox.tick(now, &mut self.outbox_out);
        }
        // What a lost connection led to came with no message to answer.
        self.answers(now, wire, check);
        loop {
            self.post(now, wire, check);
            let waiting = |c: &&Connection| !c.waiting.is_empty();
            let Some(id) = self.connections.iter().flatten().find(waiting).map(|c| c.id) else {
                break;
            };
            self.flush(now, id, wire, check);
        }
        check.settled();
    }

    /// Does what the outbox asks for.
    fn post(&mut self, now: Time, wire: &mut impl Wire, check: &mut Checker) {
        while !self.outbox_out.is_empty() {
            let outputs: Vec<outbox::Output<Parcel>> = self.outbox_out.drain().collect();
            for output in outputs {
                match output {
                    outbox::Output::Send { peer, parcel } => {
                        self.send(now, peer, parcel, wire, check);
                    }
                    outbox::Output::Full { peer, parcel } => {
                        self.full(now, peer, parcel, wire, check);
                    }
                    outbox::Output::Unsent { runs, .. } => {
                        runs.into_iter().for_each(|run| self.unsent(now, run, check));
                    }
                }
            }
            self.answers(now, wire, check);
        }
    }

    fn send(
        &mut self,
        now: Time,
        id: PeerId,
        parcel: Parcel,
        wire: &mut impl Wire,
        check: &mut Checker,
    ) {
        let connection = self.connections[id.slot as usize].as_mut().filter(|c| c.id == id);
        let Some(connection) = connection else {
            panic!("the outbox sends {} bytes to a life that ended", parcel.bytes())
        };
        let (peer, life) = (connection.peer, connection.life);
        let runs: Vec<RunId> = parcel.replies.iter().filter_map(run_of).collect();
        match wire.send(peer, life, parcel) {
            Sent::Done { .. } => {
                runs.into_iter().for_each(|run| check.sent(run));
                if self.outbox.is_stalled(id) {
                    self.outbox.handle(now, outbox::Input::Sent { peer: id }, &mut self.outbox_out);
                    if !self.outbox.is_stalled(id) {
                        check.topics.stalled(id, false);
                        self.node.handle(now, Input::Flows { peer: id }, &mut self.out);
                    }
                }
            }
            Sent::Blocked(parcel) => {
                let blocked = outbox::Input::Blocked { peer: id, parcel };
                self.outbox.handle(now, blocked, &mut self.outbox_out);
                check.topics.stalled(id, true);
                self.node.handle(now, Input::Stalled { peer: id }, &mut self.out);
            }
            Sent::Unreachable(parcel) => {
                connection.waiting.extend(parcel.replies);
                self.gone(now, peer, check);
            }
        }
    }

    /// Too much waits for a peer: its runs go elsewhere, its replies are dropped.
    fn full(
        &mut self,
        now: Time,
        id: PeerId,
        mut parcel: Parcel,
        wire: &mut impl Wire,
        check: &mut Checker,
    ) {
        let connection = self.connections[id.slot as usize].as_ref().filter(|c| c.id == id);
        let peer = connection.map(|connection| connection.peer);
        for run in parcel.take_runs() {
            self.unsent(now, run, check);
        }
        for reply in &parcel.replies {
            // Nobody would count it. Events fit, since they may use half of the outbox only.
            let counts = matches!(reply, Reply::Event(_) | Reply::Deliver(_));
            assert!(!counts, "an event or a message was in a frame too much");
            if let Some(peer) = peer {
                wire.dropped(peer, reply);
            }
        }
    }

    /// Who a peer is to the broker in this life, if it is anybody.
    pub(crate) fn id_of(&mut self, peer: usize, life: u32) -> Option<PeerId> {
        self.connection(peer).filter(|it| it.life == life).map(|connection| connection.id)
    }

    /// What a built-in says of all there is.
    pub(crate) fn audit(&mut self, now: Time, fun: &str) -> serde_json::Value {
        let request = builtin("audit", fun, "{\"top\":1000}".into(), 1_000);
        self.node.handle(now, Input::Request { peer: AUDITOR, request }, &mut self.out);
        let outputs: Vec<Output> = self.out.drain().collect();
        match &outputs[..] {
            [Output::Send { to: AUDITOR, reply: Reply::Result { body, .. } }] => {
                serde_json::from_slice(&body.value.bytes).expect("JSON")
            }
            other => panic!("an audit led to {other:?}"),
        }
    }

    /// Nothing waits anywhere.
    pub(crate) fn assert_quiet(&self) {
        assert!(self.node.is_idle(), "not idle: {} in flight", self.node.in_flight());
        assert_eq!(self.outbox.load(), (0, 0), "something still waits for a peer");
        let waiting = self.connections.iter().flatten().flat_map(|c| &c.waiting);
        assert_eq!(waiting.map(reply_bytes).sum::<usize>(), 0, "something was not flushed");
    }

    /// Nothing is to be done, ever.
    pub(crate) fn assert_idle(&self) {
        assert_eq!(self.wake_at(), None, "a deadline is set with nothing in flight");
    }
}

/// Whether a peer's encoding cannot hold a payload: for some of the peers, every tenth.
fn is_odd(to: PeerId, payload: &[u8]) -> bool {
    to.slot % 2 == 1 && payload.ends_with(b"3\"")
}

fn run_of(reply: &Reply) -> Option<RunId> {
    match reply {
        Reply::Run(run) => Some(run.id),
        _ => None,
    }
}
