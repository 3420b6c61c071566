//! The thread that owns the sockets and the rules: poll, read, decide, write, sleep.

mod control;
mod far;
mod gauges;
mod links;
mod memory;
mod outlets;
mod peers;
mod queues;
mod sleep;
mod topics;
mod web;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mpreg_patterns::base::limits::COALESCE_BYTES;
use mpreg_patterns::base::{Code, Limits, Map, Out, PeerId, Refusal, RunId, Time, seeded};
use mpreg_patterns::federation::links::Links;
use mpreg_patterns::node::{self, Node, error_reply};
use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::outbox::{self, Outbox};
use mpreg_patterns::store::{Line, Told};
use mpreg_sockets::envelope;
use mpreg_sockets::inlet::Inlet;
use mpreg_sockets::router::{Incoming, Prefix, Router, Sent};
use mpreg_sockets::session::{LastEvent, Parcel, Refused};
use mpreg_sockets::subscribe::SubscribeSocket;
use mpreg_sockets::wait::Wait;
use smol_str::SmolStr;

use crate::broker::{Sockets, seed};
use crate::store::Store;
use crate::web::Arrivals;

pub(crate) use control::Control;
use control::{DRAIN, RUN};
use gauges::{Traffic, Turns};
pub(crate) use links::Ends;
use links::Wiring;
pub(crate) use memory::begin_small;
use outlets::Outlets;
use peers::{Peer, Way};
use sleep::Stirred;
use web::Web;

/// Messages read before anything is answered: bounds both latency and memory of a turn.
const MESSAGES_PER_TURN: usize = 1_024;
/// The same in bytes of envelopes: a few large ones take as long as many small ones.
const BYTES_PER_TURN: u64 = 1 << 20;
/// The same in items of batches, each of which may be a call to place.
const ITEMS_PER_TURN: u64 = 4_096;
/// How often peers are looked after and gauges refreshed.
const SWEEP: Duration = Duration::from_secs(1);

/// Everything the core's thread owns.
pub(crate) struct Core {
    node: Node,
    limits: Arc<Limits>,
    peers: Vec<Option<Box<Peer>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_routing_id: Map<Box<[u8]>, u32>,
    dirty: Vec<u32>,
    outbox: Outbox<Parcel>,
    out: Out<node::Output>,
    outbox_out: Out<outbox::Output<Parcel>>,
    last_event: LastEvent,
    traffic: Traffic,
    bytes_read: u64,
    items_read: u64,
    /// Connections and texts that ended since memory was given back, and at the last sweep.
    ended: [u64; 2],
    started: Instant,
    control: Arc<Control>,
    drain: Duration,
    routing_id: zmq::Message,
    router: Router,
    publish: Inlet,
    subscribe: SubscribeSocket,
    push: Inlet,
    outlets: Outlets,
    wiring: Wiring,
    web: Web,
    store: Store,
    ear: zmq::Socket,
    wait: Wait,
    stirred: Stirred,
    /// Whether there is so much memory that it comes in huge pages.
    huge_pages: bool,
    turns: Turns,
}

impl Core {
    pub(crate) fn new(
        sockets: Sockets,
        (store, lines): (Store, Vec<Line>),
        (links, name, ends): (Links, SmolStr, Ends),
        (control, ear, arrivals): (Arc<Control>, zmq::Socket, Arrivals),
        node: Node,
        limits: Limits,
        drain: Duration,
    ) -> Self {
        let mut core = Self {
            node,
            outbox: Outbox::new(limits.outbox_bytes),
            limits: Arc::new(limits),
            peers: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_routing_id: Map::with_hasher(seeded(seed())),
            dirty: Vec::new(),
            out: Out::new(),
            outbox_out: Out::new(),
            last_event: LastEvent::default(),
            traffic: Traffic::default(),
            bytes_read: 0,
            items_read: 0,
            ended: [0; 2],
            started: Instant::now(),
            control,
            drain,
            routing_id: zmq::Message::new(),
            router: sockets.door,
            publish: sockets.publish,
            subscribe: sockets.subscribe,
            push: sockets.push,
            outlets: Outlets::new(sockets.context.clone()),
            wiring: Wiring::new(sockets.context, sockets.bridge, links, name, ends),
            web: Web::new(arrivals),
            store,
            ear,
            wait: Wait::default(),
            stirred: Stirred::ALL,
            huge_pages: false,
            turns: Turns::default(),
        };
        let opened = node::Input::Stored(Told::Opened { lines });
        core.node.handle(core.now(), opened, &mut core.out);
        core
    }

    fn now(&self) -> Time {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { mono_ns: self.started.elapsed().as_nanos() as u64, wall_ms: wall.as_millis() as u64 }
    }

    /// Runs until told to end, or until a drain is through.
    pub(crate) fn run(mut self) {
        let mut next_sweep = Instant::now() + SWEEP;
        let mut drain_until = None;
        loop {
            let now = self.now();
            self.turns.begin(now);
            let mut more = self.read_store(now);
            if !self.node.is_beginning() {
                self.control.serves();
                more |= self.read_stirred(now);
                more |= self.read_links(now);
                more |= self.read_web(now);
            }
            self.tick(now);
            more |= self.write_outlets(now);
            self.write(now);
            self.write_links(now);
            match self.control.state() {
                RUN => {}
                DRAIN => {
                    let until = *drain_until.get_or_insert_with(|| Instant::now() + self.drain);
                    if self.drained(now) {
                        self.leave_links(now);
                        break;
                    }
                    if Instant::now() >= until {
                        self.cut_off();
                        self.leave_links(now);
                        break;
                    }
                }
                _ => break,
            }
            if Instant::now() >= next_sweep {
                self.sweep(now);
                next_sweep = Instant::now() + SWEEP;
            }
            if !more {
                self.turns.end(self.now());
                self.sleep(drain_until.map_or(next_sweep, |until| until.min(next_sweep)));
            }
        }
    }

    /// Reads from the sockets that may have something. True when more may be waiting.
    fn read_stirred(&mut self, now: Time) -> bool {
        if self.stirred.door {
            self.stirred.door = self.read(now);
        }
        let mut more = self.stirred.door;
        if self.stirred.publish {
            let some = self.read_publishers(now);
            self.stirred.publish = some || self.node.awaits_disk();
            more |= some;
        }
        if self.stirred.subscribe {
            self.stirred.subscribe = self.read_subscribers(now);
            more |= self.stirred.subscribe;
        }
        if self.stirred.push {
            let some = self.read_pushers(now);
            self.stirred.push = some || self.node.awaits_disk();
            more |= some;
        }
        more
    }

    /// Reads what is waiting, up to a bound. True when more may be waiting.
    fn read(&mut self, now: Time) -> bool {
        let enough = self.bytes_read + BYTES_PER_TURN;
        let enough_items = self.items_read + ITEMS_PER_TURN;
        for _ in 0..MESSAGES_PER_TURN {
            if self.bytes_read >= enough || self.items_read >= enough_items {
                break;
            }
            let mut routing_id = std::mem::replace(&mut self.routing_id, zmq::Message::new());
            let received = self.router.receive(&mut routing_id);
            match received {
                Ok(Some(incoming)) => self.incoming(now, &routing_id, incoming),
                Ok(None) => {
                    self.routing_id = routing_id;
                    return false;
                }
                Err(error) => {
                    log::error!("reading the door failed: {error}");
                    self.routing_id = routing_id;
                    return false;
                }
            }
            self.routing_id = routing_id;
        }
        true
    }

    fn incoming(&mut self, now: Time, routing_id: &[u8], incoming: Incoming) {
        match incoming {
            Incoming::Connected => {
                // Under a routing id that is known, an earlier life has been replaced.
                self.disconnected(now, routing_id);
                self.connected(routing_id);
            }
            Incoming::Disconnected => self.disconnected(now, routing_id),
            Incoming::Message { is_req, prefix, body, frames } => {
                self.traffic.messages_in += 1;
                self.bytes_read += body.len() as u64;
                let known = self.by_routing_id.get(routing_id).copied();
                match known.or_else(|| self.connected(routing_id)) {
                    Some(slot) => self.message(now, slot, is_req, prefix, &body, frames),
                    None => self.turn_away(routing_id, prefix),
                }
            }
        }
    }

    fn message(
        &mut self,
        now: Time,
        slot: u32,
        is_req: bool,
        prefix: Prefix,
        body: &bytes::Bytes,
        frames: Vec<bytes::Bytes>,
    ) {
        let Some(id) = self.peers[slot as usize].as_ref().map(|peer| peer.id) else { return };
        if self.outbox.is_stalled(id) {
            self.outbox.handle(now, outbox::Input::Spoke { peer: id }, &mut self.outbox_out);
            self.post(now);
        }
        let Some(peer) = self.peers[slot as usize].as_mut().filter(|peer| peer.id == id) else {
            return;
        };
        peer.session.begin(is_req, prefix);
        let before = peer.session.manner();
        if !matches!(peer.way, Way::Far)
            && let Some((encoding, batch)) = envelope::detect(body)
        {
            peer.session.speak(encoding, batch || before.1);
        }
        let limits = self.limits.clone();
        let decoded = envelope::decode(body, frames, &limits, &mut |item| {
            self.item(now, id, item);
            if !is_req {
                // At once, while what was decided is still in the processor's cache. A REQ's
                // outcomes wait until it is known how many there are.
                self.encode(now);
            }
        });
        let Some(peer) = self.peers[slot as usize].as_mut().filter(|peer| peer.id == id) else {
            return;
        };
        match decoded {
            Ok(decoded) => {
                self.items_read += u64::from(decoded.items);
                peer.session.heard(&decoded);
            }
            Err(refusal) => {
                self.traffic.bad_messages += 1;
                peer.session.unreadable();
                peer.session.speak(before.0, before.1);
                self.unreadable(now, id, body, &refusal);
                self.answer(id, error_reply(None, None, refusal));
            }
        }
        self.encode(now);
    }

    /// Runs that a worker has answered in a frame that cannot be read get no other answer.
    fn unreadable(&mut self, now: Time, id: PeerId, body: &bytes::Bytes, refusal: &Refusal) {
        if !self.node.has_runs(id) {
            return;
        }
        let found = envelope::salvage(body, &self.limits);
        let only = self.node.only_run(id).filter(|_| found.may_answer);
        let code = match () {
            () if refusal.is(Code::TooLarge) => Code::ResultTooLarge.as_str(),
            () if refusal.is(Code::BadEncoding) => Code::BadValue.as_str(),
            () => refusal.code.as_str(),
        };
        for run in found.runs.into_iter().chain(only) {
            let message = format!("the worker's answer could not be read: {refusal}");
            let error = Refusal::by_worker(Some(code), &message, false);
            let request = Request::Failed { run, error: Box::new(error) };
            self.node.handle(now, node::Input::Request { peer: id, request }, &mut self.out);
        }
    }

    /// Lets the rules decide about one item.
    fn item(&mut self, now: Time, id: PeerId, item: envelope::Item) {
        let peer = self.peers[id.slot as usize].as_mut().filter(|peer| peer.id == id);
        let Some(peer) = peer else { return };
        match peer.session.admit(item) {
            Ok(request) => {
                let input = node::Input::Request { peer: id, request };
                self.node.handle(now, input, &mut self.out);
            }
            Err(refused) => {
                let Refused { reply, run } = *refused;
                self.traffic.bad_messages += 1;
                if let Some((run, error)) = run {
                    // The run will get no other outcome than this failure to tell it.
                    let request = Request::Failed { run, error: Box::new(error) };
                    let input = node::Input::Request { peer: id, request };
                    self.node.handle(now, input, &mut self.out);
                }
                self.answer(id, reply);
            }
        }
    }

    /// Writes what was decided into the buffers of the peers it is for.
    fn encode(&mut self, now: Time) {
        while !self.out.is_empty() {
            let mut out = std::mem::take(&mut self.out);
            for output in out.items() {
                match output {
                    node::Output::Send { to, reply } => self.encode_one(now, *to, reply),
                    node::Output::Broadcast(event) => self.broadcast(event),
                    node::Output::Store(ask) => self.store.ask(ask.clone()),
                    node::Output::Tell { link, message } => self.tell(now, *link, message),
                    node::Output::Link(task) => self.link_task(now, task),
                    node::Output::Reached { node } => self.reached(now, node),
                    node::Output::Taken { node } => links::warn_of_rival(node),
                    node::Output::Parted { peer } => self.parted(now, *peer),
                    node::Output::Received { peer, envelope } => {
                        self.received(now, *peer, envelope);
                    }
                    node::Output::Outlet { at, task } => self.outlet(now, *at, task),
                }
            }
            out.clear();
            if self.out.is_empty() {
                self.out = out;
            }
        }
    }

    fn encode_one(&mut self, now: Time, to: PeerId, reply: &Reply) {
        let peer = self.peers.get_mut(to.slot as usize).and_then(Option::as_deref_mut);
        let Some(peer) = peer.filter(|peer| peer.id == to) else {
            match reply {
                Reply::Run(run) | Reply::Call(run) => self.unsent(now, run.id, None),
                Reply::Deliver(delivered) | Reply::HandOver(delivered) => {
                    self.returned(now, delivered, None);
                }
                _ => {}
            }
            return;
        };
        if self.outbox.bytes(to) > self.limits.outbox_bytes / 2 {
            // The other half is for what answers the peer.
            match reply {
                Reply::Event(delivery) => return self.undelivered(now, to, delivery),
                Reply::Deliver(delivered) | Reply::HandOver(delivered) => {
                    return self.returned(now, delivered, None);
                }
                _ => {}
            }
        }
        if let Err(refusal) = peer.session.push_sharing(reply, &mut self.last_event) {
            return self.unencodable(now, to, reply, refusal);
        }
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push(to.slot);
        }
        if peer.session.waiting_bytes() >= COALESCE_BYTES {
            self.flush(now, to.slot);
        }
    }

    /// The receiver's encoding cannot hold a value: whoever sent it is told instead.
    fn unencodable(&mut self, now: Time, to: PeerId, reply: &Reply, refusal: Refusal) {
        let (id, op) = match reply {
            Reply::Run(run) | Reply::Call(run) => {
                return self.unsent(now, run.id, Some(refusal));
            }
            // The queue says in its dead letter why nobody could have it.
            Reply::Deliver(delivered) | Reply::HandOver(delivered) => {
                return self.returned(now, delivered, Some(refusal));
            }
            Reply::Result { id, .. } => (Some(id.clone()), Some("call")),
            Reply::Graph(graph) => (Some(graph.id.clone()), Some("graph")),
            Reply::Event(delivery) => {
                self.undelivered(now, to, delivery);
                (None, Some("event"))
            }
            _ => (None, None),
        };
        self.answer(to, error_reply(id, op, refusal));
    }

    fn answer(&mut self, to: PeerId, reply: Reply) {
        self.out.push(node::Output::Send { to, reply });
    }

    fn unsent(&mut self, now: Time, run: RunId, refusal: Option<Refusal>) {
        self.node.handle(now, node::Input::Unsent { run, refusal }, &mut self.out);
    }

    /// Does what is due.
    fn tick(&mut self, now: Time) {
        if self.node.wake_at().is_some_and(|at| at <= now.mono_ns) {
            self.node.tick(now, &mut self.out);
            self.encode(now);
        }
        if self.outbox.wake_at().is_some_and(|at| at <= now.mono_ns) {
            self.outbox.tick(now, &mut self.outbox_out);
        }
    }

    /// Hands everything over that waits to be sent.
    fn write(&mut self, now: Time) {
        // What a lost connection led to came with no message to answer.
        self.encode(now);
        loop {
            self.post(now);
            let Some(slot) = self.dirty.pop() else { break };
            self.flush(now, slot);
        }
        self.last_event.clear();
        self.store.send();
    }

    fn flush(&mut self, now: Time, slot: u32) {
        let Some(peer) = self.peers[slot as usize].as_mut() else { return };
        peer.dirty = false;
        let id = peer.id;
        while let Some(parcel) = self.peers[slot as usize].as_mut().and_then(|p| p.session.take()) {
            let push = outbox::Input::Push { peer: id, parcel };
            self.outbox.handle(now, push, &mut self.outbox_out);
            self.post(now);
        }
    }

    /// Does what the outbox asks for.
    fn post(&mut self, now: Time) {
        while !self.outbox_out.is_empty() {
            let mut outputs = std::mem::take(&mut self.outbox_out);
            for output in outputs.drain() {
                match output {
                    outbox::Output::Send { peer, parcel } => self.send(now, peer, parcel),
                    outbox::Output::Full { parcel, .. } => self.full(now, parcel),
                    outbox::Output::Unsent { runs, .. } => {
                        runs.into_iter().for_each(|run| self.unsent(now, run, None));
                    }
                }
            }
            if self.outbox_out.is_empty() {
                self.outbox_out = outputs;
            }
            self.encode(now);
        }
    }

    fn send(&mut self, now: Time, id: PeerId, parcel: Parcel) {
        let peer = self.peers[id.slot as usize].as_deref().filter(|peer| peer.id == id);
        let sent = match peer.map(|peer| &peer.way) {
            None => return,
            Some(Way::Door(to)) => {
                self.stirred.door = true;
                self.router.send(to, parcel.prefix(), parcel.body(), parcel.frames())
            }
            Some(Way::Web(_, line)) => Ok(line.send(parcel.envelope())),
            Some(Way::Far) => Ok(self.carry(now, id, &parcel)),
        };
        match sent {
            Ok(Sent::Done) => {
                self.traffic.messages_out += 1;
                if self.outbox.is_stalled(id) {
                    self.outbox.handle(now, outbox::Input::Sent { peer: id }, &mut self.outbox_out);
                    if !self.outbox.is_stalled(id) {
                        self.node.handle(now, node::Input::Flows { peer: id }, &mut self.out);
                    }
                }
            }
            Ok(Sent::Blocked) => {
                let blocked = outbox::Input::Blocked { peer: id, parcel };
                self.outbox.handle(now, blocked, &mut self.outbox_out);
                self.node.handle(now, node::Input::Stalled { peer: id }, &mut self.out);
            }
            Ok(Sent::Unreachable) => self.cut(now, id.slot, parcel),
            Err(error) => {
                log::error!("sending to {id} failed: {error}");
                self.cut(now, id.slot, parcel);
            }
        }
    }

    /// A connection is gone, with a message for it in hand.
    fn cut(&mut self, now: Time, slot: u32, parcel: Parcel) {
        if let Some(peer) = self.peers[slot as usize].as_mut() {
            peer.session.put_back(parcel);
        }
        self.gone(now, slot);
    }

    /// Too much waits for a peer: its runs go elsewhere, its replies are dropped and counted.
    fn full(&mut self, now: Time, mut parcel: Parcel) {
        use outbox::Parcel as _;
        self.traffic.replies_dropped += parcel.replies();
        for run in parcel.take_runs() {
            self.unsent(now, run, None);
        }
    }

    /// Looks for peers that are gone without a word, and refreshes the gauges.
    fn sweep(&mut self, now: Time) {
        self.stirred = Stirred::ALL;
        let gone: Vec<u32> = self
            .peers
            .iter()
            .flatten()
            .filter(|peer| match &peer.way {
                Way::Door(routing_id) => !self.router.has_peer(routing_id),
                Way::Web(..) | Way::Far => false,
            })
            .map(|peer| peer.id.slot)
            .collect();
        for slot in gone {
            self.gone(now, slot);
        }
        self.refresh_gauges(now);
        self.encode(now);
        self.write(now);
        self.give_memory_back();
    }
}
