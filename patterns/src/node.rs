//! The broker as one machine: owns every system and passes one's outputs to the next.
//!
//! Wiring only: a rule that belongs to one system is not here.

mod builtin;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use crate::base::limits::DEFAULT_TIMEOUT_MS;
use crate::base::{Code, Ids, Limits, Map, Out, PeerId, Refusal, RunId, Time};
use crate::graph::{self, Graphs};
use crate::ops::{Call, GraphPart, GraphReply, Hello, Offer, ProgressReply, Reply, Request};
use crate::requests::{Requests, Target};
use crate::rpc::{self, Origin, Rpc};
use crate::values::{Body, Value};

/// What happens to the broker.
#[derive(Debug)]
pub enum Input {
    /// A peer asks something.
    Request {
        /// Who.
        peer: PeerId,
        /// What.
        request: Request,
    },
    /// A connection's life has ended; these runs never left for it.
    Gone {
        /// Whose.
        peer: PeerId,
        /// The runs.
        unsent: Vec<RunId>,
    },
    /// A run could not be handed to its worker's connection.
    Unsent {
        /// The run.
        run: RunId,
        /// Why, where another worker would fare no better.
        refusal: Option<Refusal>,
    },
    /// The broker is going down.
    Drain,
    /// It goes down now: what is in flight gets its outcome.
    End,
}

/// What the broker wants done: one message to one peer.
#[derive(Debug)]
pub struct Output {
    /// To whom.
    pub to: PeerId,
    /// What.
    pub reply: Reply,
}

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
    ids: Ids,
    /// Peers that said who they are, by slot: they hear when the broker goes down.
    known: Map<u32, (PeerId, Option<SmolStr>)>,
    cancels_ignored: u64,
    started_ms: Option<u64>,
    draining: bool,
    gauges: Json,
}

impl Node {
    /// A broker without peers.
    #[must_use]
    pub fn new(about: About, limits: Limits, seed: u64) -> Self {
        Self {
            about,
            requests: Requests::new(&limits, seed),
            rpc: Rpc::new(limits.clone(), seed),
            rpc_out: Out::new(),
            graphs: Graphs::new(limits.clone(), seed),
            graph_out: Out::new(),
            ids: Ids::new(seed ^ 0x55),
            known: Map::default(),
            cancels_ignored: 0,
            started_ms: None,
            draining: false,
            gauges: Json::Null,
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
            Input::Drain => self.drain(now, out),
            Input::End => {
                self.graphs.handle(now, graph::Input::End, &mut self.graph_out);
                self.rpc.handle(now, rpc::Input::End, &mut self.rpc_out);
            }
        }
        self.settle(now, out);
    }

    /// Does what is due in every system.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        self.graphs.tick(now, &mut self.graph_out);
        self.settle(now, out);
        self.rpc.tick(now, &mut self.rpc_out);
        self.settle(now, out);
    }

    /// When `tick` next has work, in monotonic nanoseconds; 0 when there is work now.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        [self.graphs.wake_at(), self.rpc.wake_at()].into_iter().flatten().min()
    }

    /// What the driver measures and `mpreg.status` tells.
    pub fn set_gauges(&mut self, gauges: Json) {
        self.gauges = gauges;
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
            Request::Result { run, body } => rpc::Input::Result { peer, run, outcome: Ok(body) },
            Request::Failed { run, error } => rpc::Input::Result { peer, run, outcome: Err(error) },
            Request::Progress { run, percent, note } => {
                rpc::Input::Progress { peer, run, percent, note }
            }
            Request::Graph(part) => return self.graph(now, peer, *part, out),
            Request::Cancel { id } => return self.cancel(now, peer, &id),
            Request::Offer(offer) => return self.offer(now, peer, offer),
            Request::Hello(hello) => return self.hello(peer, hello, out),
            Request::Ping { id } => return send(out, peer, Reply::Pong { id }),
            Request::Bye { id } => rpc::Input::Bye { peer, id },
            Request::Stray => rpc::Input::Result {
                peer,
                run: RunId(0),
                outcome: Err(Refusal::new(Code::Failed, "")),
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

    fn offer(&mut self, now: Time, peer: PeerId, offer: Offer) {
        self.known.entry(peer.slot).or_insert((peer, None));
        self.rpc.handle(now, rpc::Input::Offer { peer, offer }, &mut self.rpc_out);
    }

    fn call(&mut self, now: Time, peer: PeerId, call: Arc<Call>, out: &mut Out<Output>) {
        let track = call.track.or_else(|| call.progress.then(|| self.ids.next(now)));
        let key = match self.requests.begin(peer, &call.id, track) {
            Ok(key) => key,
            Err(error) => {
                return send(out, peer, error_reply(Some(call.id.clone()), Some("call"), error));
            }
        };
        let origin = Origin::Request(key);
        if call.fun.starts_with("mpreg.") {
            return self.builtin(now, origin, peer, &call, out);
        }
        let timeout_ms = call.options.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        let deadline_ns = now.mono_ns.saturating_add(timeout_ms.saturating_mul(1_000_000));
        let submit = rpc::Submit { origin, call, deadline_ns };
        self.rpc.handle(now, rpc::Input::Call(submit), &mut self.rpc_out);
    }

    fn graph(&mut self, now: Time, peer: PeerId, part: GraphPart, out: &mut Out<Output>) {
        let (id, first, more) = (part.id.clone(), part.part == 0, part.more);
        let refusal = if first {
            let refusal = self.first_part(now, peer, part).err();
            self.requests.part(peer, &id, first, more);
            refusal
        } else {
            let known = self.requests.part(peer, &id, first, more);
            self.later_part(now, peer, part, known).err()
        };
        if let Some(error) = refusal {
            send(out, peer, error_reply(Some(id), Some("graph"), error));
        }
    }

    fn first_part(&mut self, now: Time, peer: PeerId, part: GraphPart) -> Result<(), Refusal> {
        let request = self.requests.begin(peer, &part.id, part.options.track)?;
        if self.rpc.is_draining() {
            self.requests.end(request);
            return Err(Refusal::new(Code::Draining, "the broker is going down"));
        }
        let input = graph::Input::Part { request, peer, graph: None, part };
        self.graphs.handle(now, input, &mut self.graph_out);
        Ok(())
    }

    fn later_part(
        &mut self,
        now: Time,
        peer: PeerId,
        part: GraphPart,
        known: bool,
    ) -> Result<(), Refusal> {
        let request = self.requests.find(peer, &part.id).and_then(|key| self.requests.get(key));
        match request.map(|request| request.target) {
            Some(Target::Graph(graph)) => {
                let input = graph::Input::Part { request: 0, peer, graph: Some(graph), part };
                self.graphs.handle(now, input, &mut self.graph_out);
                Ok(())
            }
            // The graph has had its outcome, which this part crossed on its way.
            _ if known => Ok(()),
            Some(_) => {
                let message = format!("{} is in flight on this connection, and no graph", part.id);
                let error = Refusal::field(Code::DuplicateId, "id", message);
                Err(Refusal { refused: Some("duplicate"), ..error })
            }
            None => {
                let message = format!("part {} came without the parts before it", part.part);
                Err(Refusal::field(Code::IncompleteGraph, "part", message))
            }
        }
    }

    fn cancel(&mut self, now: Time, peer: PeerId, id: &str) {
        let request = self.requests.find(peer, id).and_then(|key| self.requests.get(key));
        match request.map(|request| request.target) {
            Some(target) => self.give_up(now, target, false),
            None => self.cancels_ignored += 1,
        }
    }

    fn give_up(&mut self, now: Time, target: Target, quiet: bool) {
        match target {
            Target::Call(call) => {
                self.rpc.handle(now, rpc::Input::Cancel(call), &mut self.rpc_out);
            }
            Target::Graph(graph) => {
                let input = graph::Input::Cancel { graph, quiet };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            Target::New => {}
        }
    }

    fn gone(&mut self, now: Time, peer: PeerId, unsent: Vec<RunId>) {
        self.known.remove(&peer.slot);
        for request in self.requests.gone(peer) {
            self.give_up(now, request.target, true);
        }
        self.rpc.handle(now, rpc::Input::Gone { peer, unsent }, &mut self.rpc_out);
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
        while !self.rpc_out.is_empty() || !self.graph_out.is_empty() {
            // What is passed on may ask for more, so the buffers change hands while they drain.
            let mut rpc_out = std::mem::take(&mut self.rpc_out);
            for output in rpc_out.drain() {
                self.rpc_output(now, output, out);
            }
            if self.rpc_out.is_empty() {
                self.rpc_out = rpc_out;
            }
            let mut graph_out = std::mem::take(&mut self.graph_out);
            for output in graph_out.drain() {
                self.graph_output(now, output, out);
            }
            if self.graph_out.is_empty() {
                self.graph_out = graph_out;
            }
        }
    }

    fn rpc_output(&mut self, now: Time, output: rpc::Output, out: &mut Out<Output>) {
        match output {
            rpc::Output::Run { to, run } => send(out, to, Reply::Run(run)),
            rpc::Output::Done { origin, outcome } => self.done(now, origin, outcome, out),
            rpc::Output::Begun { origin: Origin::Request(key), call } => {
                self.requests.became(key, Target::Call(call));
            }
            rpc::Output::Begun { origin: Origin::Step { graph, step }, call } => {
                let input = graph::Input::Begun { graph, step, call };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
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
                send(out, to, error_reply(id, Some("offer"), error));
            }
            rpc::Output::Bye { to, id } => send(out, to, Reply::Bye { id }),
        }
    }

    /// Gives a call's one outcome to whoever called.
    fn done(
        &mut self,
        now: Time,
        origin: Origin,
        outcome: Result<Body, Refusal>,
        out: &mut Out<Output>,
    ) {
        match origin {
            Origin::Step { graph, step } => {
                let input = graph::Input::Done { graph, step, outcome };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            Origin::Request(key) => {
                let Some(request) = self.requests.end(key) else { return };
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
                let Some(request) = self.requests.get(key) else { return };
                let Some(track) = request.track else { return };
                let (id, step, step_id) = (request.id.clone(), None, None);
                let told = ProgressReply { id, track, step, step_id, event, percent, note };
                send(out, request.peer, Reply::Progress(Box::new(told)));
            }
        }
    }

    fn graph_output(&mut self, now: Time, output: graph::Output, out: &mut Out<Output>) {
        match output {
            graph::Output::Call(call) => self.step(now, call, out),
            graph::Output::CancelCall(call) => {
                self.rpc.handle(now, rpc::Input::Cancel(call), &mut self.rpc_out);
            }
            graph::Output::Accepted { request, graph } => {
                self.requests.became(request, Target::Graph(graph));
            }
            graph::Output::Place { graph, asks } => {
                let answers = asks.iter().map(|(fun, options)| self.place(fun, options)).collect();
                let input = graph::Input::Placed { graph, answers };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            graph::Output::Reply { request, reply } => self.graph_reply(request, reply, out),
            graph::Output::Checked { request, outcome } => {
                let Some(ended) = self.requests.end(request) else { return };
                let reply = match outcome {
                    Ok(report) => Reply::Result {
                        id: ended.id,
                        body: Body::plain(Value::from_serialize(&report)),
                        track: None,
                    },
                    Err((error, _)) => error_reply(Some(ended.id), Some("call"), error),
                };
                send(out, ended.peer, reply);
            }
            graph::Output::Progress { request, track, step, event, percent, note } => {
                let Some(request) = self.requests.get(request) else { return };
                let (step, step_id) = step.unzip();
                let id = request.id.clone();
                let told = ProgressReply { id, track, step, step_id, event, percent, note };
                send(out, request.peer, Reply::Progress(Box::new(told)));
            }
        }
    }

    fn graph_reply(&mut self, key: u32, mut reply: GraphReply, out: &mut Out<Output>) {
        let Some(request) = self.requests.get(key) else { return };
        let (peer, more) = (request.peer, reply.more);
        reply.id = request.id.clone();
        if !more {
            self.requests.end(key);
        }
        send(out, peer, Reply::Graph(Box::new(reply)));
    }

    fn step(&mut self, now: Time, step: graph::StepCall, out: &mut Out<Output>) {
        let origin = Origin::Step { graph: step.graph, step: step.step };
        let (call, deadline_ns) = (step.call, step.deadline_ns);
        if call.fun.starts_with("mpreg.") {
            let peer = PeerId { slot: u32::MAX, generation: 0 };
            return self.builtin(now, origin, peer, &call, out);
        }
        let submit = rpc::Submit { origin, call, deadline_ns };
        self.rpc.handle(now, rpc::Input::Call(submit), &mut self.rpc_out);
    }
}

fn send(out: &mut Out<Output>, to: PeerId, reply: Reply) {
    out.push(Output { to, reply });
}

/// An error that answers one request.
#[must_use]
pub fn error_reply(id: Option<SmolStr>, op: Option<&'static str>, error: Refusal) -> Reply {
    Reply::Error { id, op: op.map(SmolStr::new_static), item: None, error, track: None }
}
