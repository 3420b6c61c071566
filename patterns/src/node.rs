//! The broker as one machine: owns every system and passes one's outputs to the next.
//!
//! Wiring only: a rule that belongs to one system is not here.

mod afar;
mod builtin;
mod ends;
mod federation;
mod graphs;
mod io;
mod life;
mod queues;
#[cfg(test)]
pub(crate) mod script;
mod status;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use crate::base::limits::DEFAULT_TIMEOUT_MS;
use crate::base::{Code, Culprit, Ids, JobId, Limits, Map, Out, PeerId, Refusal, RunId, Time};
use crate::federation::{Federation, Life};
use crate::graph::{self, Graphs};
use crate::ops::{Call, Hello, Offer, ProgressReply, Reply, Request};
use crate::queues::afar::Afar;
use crate::queues::{self as queue, Queues};
use crate::requests::{Requests, Target};
use crate::rpc::{self, Origin, Rpc};
use crate::store::Ledger;
use crate::topics::{self as topic, Family, Retain, Topics};
use crate::values::{Body, Value};
use federation::Beyond;
pub use io::{Envelope, Input, LinkTask, Output};
use life::Watched;
use status::Latencies;

/// Who this broker is.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub node: SmolStr,
    /// The version of the program.
    pub version: SmolStr,
    /// Which life of the broker this is.
    pub epoch: u64,
    /// Name and address of every endpoint.
    pub endpoints: Json,
    /// The cluster it belongs to.
    pub cluster: SmolStr,
}

/// What the owner of the broker has decided.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Which topics are kept.
    pub retain: Vec<Retain>,
    /// What queues may do.
    pub queues: queue::Rules,
}

/// Does what a system wants done. What is passed on may ask for more, so the buffers change hands
/// while they drain.
macro_rules! pass_on {
    ($node:ident, $buffer:ident, $take:ident, $now:ident, $out:ident) => {
        if !$node.$buffer.is_empty() {
            let mut buffer = std::mem::take(&mut $node.$buffer);
            for output in buffer.drain() {
                $node.$take($now, output, $out);
            }
            if $node.$buffer.is_empty() {
                $node.$buffer = buffer;
            }
        }
    };
}

/// The whole broker, without sockets.
#[derive(Debug)]
pub struct Node {
    about: About,
    limits: Limits,
    requests: Requests,
    rpc: Rpc,
    rpc_out: Out<rpc::Output>,
    graphs: Graphs,
    graph_out: Out<graph::Output>,
    topics: Topics,
    topic_out: Out<topic::Output>,
    queues: Queues,
    queue_out: Out<queue::Output>,
    afar: Afar,
    afar_out: Out<queue::afar::Output>,
    ledger: Ledger,
    federation: Federation,
    federation_out: Out<crate::federation::Output>,
    beyond: Beyond,
    ids: Ids,
    /// Peers that said who they are, by slot: they hear when the broker goes down.
    known: Map<u32, (PeerId, Option<SmolStr>)>,
    /// What connections that are gone had in flight, by the keys of the requests.
    abandoned: VecDeque<(PeerId, u32)>,
    cancels_ignored: u64,
    /// Requests whose life somebody follows through topics, by their key.
    watched: Map<u32, Watched>,
    /// What was not taken where no reply is possible, by endpoint and code.
    refusals: Map<(&'static str, SmolStr), u64>,
    latencies: Latencies,
    started_ms: Option<u64>,
    draining: bool,
    gauges: Json,
    links: Json,
}

impl Node {
    /// A broker without peers.
    #[must_use]
    pub fn new(about: About, limits: Limits, rules: &Rules, seed: u64) -> Self {
        let me = Life { node: about.node.clone(), epoch: about.epoch };
        Self {
            requests: Requests::new(&limits, seed),
            rpc: Rpc::new(about.cluster.clone(), limits.clone(), seed),
            rpc_out: Out::new(),
            graphs: Graphs::new(limits.clone(), seed),
            graph_out: Out::new(),
            topics: Topics::new(limits.clone(), &rules.retain, seed),
            topic_out: Out::new(),
            queues: Queues::new(limits.clone(), rules.queues, seed ^ 0x56),
            queue_out: Out::new(),
            afar: Afar::new(about.epoch, &limits, seed ^ 0x58),
            afar_out: Out::new(),
            ledger: Ledger::default(),
            federation: Federation::new(me, seed ^ 0x57),
            federation_out: Out::new(),
            beyond: Beyond::default(),
            ids: Ids::new(seed ^ 0x55),
            known: Map::default(),
            abandoned: VecDeque::new(),
            cancels_ignored: 0,
            watched: Map::default(),
            refusals: Map::default(),
            latencies: Latencies::default(),
            started_ms: None,
            draining: false,
            gauges: Json::Null,
            links: Json::Array(Vec::new()),
            about,
            limits,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        self.started_ms.get_or_insert(now.wall_ms);
        match input {
            Input::Request { peer, request } => {
                self.request(now, peer, request, out);
                // Afterwards: it may have said that it takes less.
                if self.rpc.any_stalled() {
                    self.rpc.handle(now, rpc::Input::Spoke { peer }, &mut self.rpc_out);
                }
            }
            Input::Gone { peer, unsent } => self.gone(now, peer, unsent),
            Input::Unsent { run, refusal } => {
                self.rpc.handle(now, rpc::Input::Unsent { run, refusal }, &mut self.rpc_out);
            }
            Input::Publish { mut event } => {
                self.publish_beyond(now, &mut event);
                let by = topic::Publisher::Socket;
                self.topic(now, topic::Input::Publish { by, event });
            }
            Input::Refused { endpoint, topic, refusal } => {
                self.refused(now, endpoint, topic, &refusal);
            }
            Input::Listen(key) => self.topic(now, topic::Input::Listen(key)),
            Input::Unlisten(key) => self.topic(now, topic::Input::Unlisten(key)),
            Input::Undelivered { peer, pattern } => {
                self.topic(now, topic::Input::Undelivered { peer, pattern });
            }
            Input::Push { event } => self.push(now, event),
            Input::Returned { id, refusal } => self.returned(now, id, refusal),
            Input::Stored(told) => self.stored(now, told),
            Input::Outlet { at, news } => self.queue(now, queue::Input::Outlet { at, news }),
            Input::Stalled { peer } => {
                self.topic(now, topic::Input::Stalled { peer });
                self.afar.stalled(now, peer, true, &mut self.afar_out);
                self.queue(now, queue::Input::Stalled { peer });
            }
            Input::Flows { peer } => {
                self.topic(now, topic::Input::Flows { peer });
                self.afar.stalled(now, peer, false, &mut self.afar_out);
                self.queue(now, queue::Input::Flows { peer });
            }
            Input::Link(news) => self.link(now, news),
            Input::Joined { node, peer } => self.joined(now, &node, peer, out),
            Input::Carry { peer, envelope } => self.carry(now, peer, envelope),
            Input::Drain => self.drain(now, out),
            Input::End => {
                self.topic(now, topic::Input::End);
                self.queue(now, queue::Input::End);
                self.afar.end(&mut self.afar_out);
                self.graphs.handle(now, graph::Input::End, &mut self.graph_out);
                self.rpc.handle(now, rpc::Input::End, &mut self.rpc_out);
            }
        }
        self.settle(now, out);
    }

    /// Does what is due in every system.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        self.abandon(now);
        self.graphs.tick(now, &mut self.graph_out);
        self.settle(now, out);
        self.rpc.tick(now, &mut self.rpc_out);
        self.settle(now, out);
        self.topics.tick(now, &mut self.topic_out);
        self.settle(now, out);
        self.queues.listen(self.topics.hears(Family::Queues));
        self.queues.tick(now, &mut self.queue_out);
        self.settle(now, out);
        self.afar.tick(now, &mut self.afar_out);
        self.federation.tick(now, &mut self.federation_out);
        self.settle(now, out);
    }

    /// When `tick` next has work, in monotonic nanoseconds; 0 when there is work now.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let abandoned = (!self.abandoned.is_empty()).then_some(0);
        let systems = [self.graphs.wake_at(), self.rpc.wake_at(), self.topics.wake_at()];
        let others = [self.queues.wake_at(), self.afar.wake_at(), self.federation.wake_at()];
        systems.into_iter().chain(others).chain([abandoned]).flatten().min()
    }

    /// What the driver measures and `mpreg.status` tells.
    pub fn set_gauges(&mut self, gauges: Json) {
        self.gauges = gauges;
    }

    /// What the driver says of its links, for `mpreg.link.list`.
    pub fn set_links(&mut self, links: Json) {
        self.links = links;
    }

    /// Whether no request waits for an outcome and no worker has a run in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.rpc.in_flight() == 0 && self.graphs.in_flight() == 0
    }

    /// Whether a connection has runs in hand.
    #[must_use]
    pub fn has_runs(&self, peer: PeerId) -> bool {
        !self.rpc.in_hand(peer).is_empty()
    }

    /// The run a connection has in hand, if it is the only one.
    #[must_use]
    pub fn only_run(&self, peer: PeerId) -> Option<RunId> {
        match self.rpc.in_hand(peer) {
            &[call] => self.rpc.run_of(call),
            _ => None,
        }
    }

    /// Whether events of publishers wait already, so that no more of them should be read.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.topics.is_behind()
    }

    /// Whether so much waits for the disk that no more should be read where nobody is answered.
    #[must_use]
    pub const fn awaits_disk(&self) -> bool {
        self.ledger.is_behind()
    }

    /// Whether it begins, and does not know yet what it has: nothing should be read from peers.
    #[must_use]
    pub fn is_beginning(&self) -> bool {
        self.topics.is_reading()
    }

    /// Whether it takes nothing new.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Requests without an outcome.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    fn request(&mut self, now: Time, peer: PeerId, request: Request, out: &mut Out<Output>) {
        let rpc_input = match request {
            Request::Call(call) => return self.call(now, peer, call, out),
            Request::Result { run, body } => {
                let answered = self.afar.answered(peer, run, body, &mut self.afar_out);
                let Some(body) = answered else { return };
                rpc::Input::Result { peer, run, outcome: Ok(body) }
            }
            Request::Failed { run, mut error } => {
                if self.is_far(peer) && self.queues.has_in_hand(peer, run) {
                    return self.not_handed_over(now, peer, run, &error);
                }
                if self.is_far(peer) && self.afar.refused(now, run, &error, &mut self.afar_out) {
                    return;
                }
                if !self.is_far(peer) {
                    // Only a broker can say that somebody else is to blame.
                    error.culprit = Culprit::Worker;
                }
                rpc::Input::Result { peer, run, outcome: Err(error) }
            }
            Request::Progress { run, percent, note } => {
                rpc::Input::Progress { peer, run, percent, note }
            }
            Request::Graph(part) => return self.graph(now, peer, *part, out),
            Request::Cancel { id } => return self.cancel(now, peer, &id),
            Request::Offer(offer) => return self.offer(now, peer, offer),
            Request::Hello(hello) => return self.hello(peer, hello, out),
            Request::Ping { id } => return send(out, peer, Reply::Pong { id }),
            Request::Bye { id } => rpc::Input::Bye { peer, id },
            Request::Publish(publish) => return self.publish(now, peer, publish, out),
            Request::Subscribe(ask) => return self.subscribe(now, peer, *ask),
            Request::Unsubscribe { id, patterns } => {
                return self.topic(now, topic::Input::Unsubscribe { peer, id, patterns });
            }
            Request::Send(ask) => return self.send_to_queue(now, peer, *ask, out),
            Request::Consume { id, queue, group, credit } => {
                return self.consume(now, peer, id, (queue, group), credit, out);
            }
            Request::Settle(settle) => return self.settle_messages(now, peer, settle),
            Request::Sent { .. }
            | Request::Delivered(_)
            | Request::Consumed { .. }
            | Request::Acked { .. } => return self.heard_of_queue(now, peer, request, out),
            Request::Ack { events } => return self.topic(now, topic::Input::Ack { peer, events }),
            Request::Stray => rpc::Input::Result {
                peer,
                run: RunId(0),
                outcome: Err(Box::new(Refusal::new(Code::Failed, ""))),
            },
        };
        self.rpc.handle(now, rpc_input, &mut self.rpc_out);
    }

    fn hello(&mut self, peer: PeerId, hello: Hello, out: &mut Out<Output>) {
        if hello.token {
            let message = "this broker has no security yet; leave `token` out";
            let error = Refusal::field(Code::NotSupported, "token", message);
            return send(out, peer, error_reply(hello.id, Some("hello"), error));
        }
        self.known.insert(peer.slot, (peer, hello.name));
        let about = json!({
            "node": self.about.node.as_str(),
            "version": self.about.version.as_str(),
            "epoch": self.about.epoch,
            "endpoints": self.about.endpoints,
            "limits": self.limits,
        });
        let about = Value::from_serialize(&about);
        send(out, peer, Reply::Welcome { id: hello.id, about });
    }

    fn offer(&mut self, now: Time, peer: PeerId, offer: Box<Offer>) {
        self.known.entry(peer.slot).or_insert((peer, None));
        self.rpc.handle(now, rpc::Input::Offer { peer, offer }, &mut self.rpc_out);
    }

    fn call(&mut self, now: Time, peer: PeerId, mut call: Arc<Call>, out: &mut Out<Output>) {
        let track = call.track.or_else(|| call.progress.then(|| self.ids.next(now)));
        let key = match self.requests.begin(now, peer, &call.id, track, call.progress) {
            Ok(key) => key,
            Err(error) => {
                return send(out, peer, error_reply(Some(call.id.clone()), Some("call"), error));
            }
        };
        let origin = Origin::Request(key);
        if call.fun.starts_with("mpreg.") {
            let deadline_ns = deadline(now, &call);
            return self.builtin(now, origin, (peer, deadline_ns), &call, out);
        }
        let here = self.is_far(peer);
        if here && !self.gives(peer, &call.fun) {
            // As if nobody ran it: it is placed elsewhere then.
            let message = format!("nobody here runs {}", call.fun);
            let error = Refusal::field(Code::UnknownFunction, "fun", message);
            return self.done(now, origin, Err(Box::new(error)), out);
        }
        let deadline_ns = deadline(now, &call);
        if self.topics.hears(Family::Calls) {
            self.watch_call(now, key, &mut call);
        }
        let submit = rpc::Submit { origin, call, deadline_ns, here };
        self.rpc.handle(now, rpc::Input::Call(submit), &mut self.rpc_out);
    }

    fn drain(&mut self, now: Time, out: &mut Out<Output>) {
        self.draining = true;
        self.rpc.handle(now, rpc::Input::Drain, &mut self.rpc_out);
        let mut known: Vec<PeerId> = self.known.values().map(|(peer, _)| *peer).collect();
        known.sort_unstable();
        for peer in known {
            send(out, peer, Reply::Bye { id: None });
        }
    }

    /// Passes outputs on until every system is quiet.
    fn settle(&mut self, now: Time, out: &mut Out<Output>) {
        while !self.is_settled() {
            pass_on!(self, rpc_out, rpc_output, now, out);
            pass_on!(self, graph_out, graph_output, now, out);
            pass_on!(self, topic_out, topic_output, now, out);
            pass_on!(self, queue_out, queue_output, now, out);
            pass_on!(self, afar_out, afar_output, now, out);
            pass_on!(self, federation_out, federation_output, now, out);
        }
    }

    fn is_settled(&self) -> bool {
        self.rpc_out.is_empty()
            && self.graph_out.is_empty()
            && self.topic_out.is_empty()
            && self.queue_out.is_empty()
            && self.afar_out.is_empty()
            && self.federation_out.is_empty()
    }

    fn rpc_output(&mut self, now: Time, output: rpc::Output, out: &mut Out<Output>) {
        match output {
            rpc::Output::Run { to, run, far: false } => send(out, to, Reply::Run(run)),
            rpc::Output::Run { to, run, far: true } => send(out, to, Reply::Call(run)),
            rpc::Output::Shared { function, idempotent } => self.share(now, function, idempotent),
            rpc::Output::Done { origin, outcome } => self.done(now, origin, outcome, out),
            rpc::Output::Begun { origin, call } => self.begun(now, origin, JobId::Call(call)),
            rpc::Output::Started { origin, attempt } => {
                let note = (attempt > 1).then(|| format!("attempt {attempt}").into());
                self.progress(now, origin, "started", None, note, out);
            }
            rpc::Output::Progress { origin, percent, note } => {
                self.progress(now, origin, "progress", percent, note, out);
            }
            rpc::Output::Stop { to, run } => send(out, to, Reply::Cancel { run }),
            rpc::Output::Offered { to, id, outcome: Ok((functions, credit)) } => {
                let epoch = self.about.epoch;
                send(out, to, Reply::Offered { id, epoch, functions, credit });
            }
            rpc::Output::Offered { to, id, outcome: Err(error) } => {
                send(out, to, error_reply(id, Some("offer"), *error));
            }
            rpc::Output::Bye { to, id } => send(out, to, Reply::Bye { id }),
            rpc::Output::Joined { peer } => self.tell_worker(now, peer, "joined"),
            rpc::Output::Left { peer } => self.tell_worker(now, peer, "left"),
        }
    }

    /// Notes what a request or a step waits for, so that it can be given up.
    fn begun(&mut self, now: Time, origin: Origin, job: JobId) {
        match origin {
            Origin::Request(key) => self.requests.became(key, Target::Job(job)),
            Origin::Step { graph, step } => {
                let input = graph::Input::Begun { graph, step, job };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
        }
    }

    /// Gives a call's one outcome to whoever called.
    fn done(
        &mut self,
        now: Time,
        origin: Origin,
        outcome: Result<Box<Body>, Box<Refusal>>,
        out: &mut Out<Output>,
    ) {
        match origin {
            Origin::Step { graph, step } => {
                let outcome = outcome.map(|body| *body).map_err(|error| *error);
                let input = graph::Input::Done { graph, step, outcome };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            Origin::Request(key) => {
                let Some(request) = self.requests.end(key) else { return };
                self.latencies.ended(now, &request);
                if !self.watched.is_empty() {
                    self.tell_outcome(now, key, outcome.as_ref().err().map(|error| &**error));
                }
                let reply = match outcome {
                    Ok(body) => Reply::Result { id: request.id, body, track: request.track },
                    Err(error) => Reply::Error {
                        id: Some(request.id),
                        op: Some(SmolStr::new_static("call")),
                        item: None,
                        error,
                        track: request.track,
                    },
                };
                send(out, request.peer, reply);
            }
        }
    }

    fn progress(
        &mut self,
        now: Time,
        origin: Origin,
        event: &'static str,
        percent: Option<f64>,
        note: Option<Box<str>>,
        out: &mut Out<Output>,
    ) {
        match origin {
            Origin::Step { graph, step } => {
                let input = match event {
                    "started" => graph::Input::Started { graph, step },
                    _ => graph::Input::Progress { graph, step, percent, note },
                };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            Origin::Request(key) => {
                self.tell_call(now, key, event, percent, note.as_deref());
                let Some(request) = self.requests.get(key).filter(|of| of.progress) else { return };
                let Some(track) = request.track else { return };
                let (id, step, step_id) = (request.id.clone(), None, None);
                let told = ProgressReply { id, track, step, step_id, event, percent, note };
                send(out, request.peer, Reply::Progress(Box::new(told)));
            }
        }
    }
}

/// When nobody waits for a call any more.
fn deadline(now: Time, call: &Call) -> u64 {
    let timeout_ms = call.options.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    now.mono_ns.saturating_add(timeout_ms.saturating_mul(1_000_000))
}

fn send(out: &mut Out<Output>, to: PeerId, reply: Reply) {
    out.push(Output::Send { to, reply });
}

/// An error that answers one request.
#[must_use]
pub fn error_reply(id: Option<SmolStr>, op: Option<&'static str>, error: Refusal) -> Reply {
    let (op, error) = (op.map(SmolStr::new_static), Box::new(error));
    Reply::Error { id, op, item: None, error, track: None }
}
