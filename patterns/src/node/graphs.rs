//! Graphs in the broker: their parts come in, their steps become calls, their replies leave.

use super::life::Watched;
use super::{Node, Output, error_reply, send};
use crate::base::{Code, Out, PeerId, Refusal, Time};
use crate::graph;
use crate::ops::{GraphPart, GraphReply, ProgressReply, Reply};
use crate::requests::{Requests, Target};
use crate::rpc::{self, Origin};
use crate::topics::Family;
use crate::values::{Body, Value};

impl Node {
    pub(super) fn graph(
        &mut self,
        now: Time,
        peer: PeerId,
        part: GraphPart,
        out: &mut Out<Output>,
    ) {
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

    pub(super) fn first_part(
        &mut self,
        now: Time,
        peer: PeerId,
        mut part: GraphPart,
    ) -> Result<(), Refusal> {
        let (track, progress) = (part.options.track, part.options.progress);
        let request = self.requests.begin(now, peer, &part.id, track, progress)?;
        if self.rpc.is_draining() {
            self.requests.end(request);
            return Err(Refusal::new(Code::Draining, "the broker is going down"));
        }
        if self.topics.hears(Family::Graphs) {
            part.options.progress = true;
            self.watched.insert(request, Watched::Graph);
        }
        let input = graph::Input::Part { request, peer, graph: None, part };
        self.graphs.handle(now, input, &mut self.graph_out);
        Ok(())
    }

    pub(super) fn later_part(
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
            Some(_) => Err(Requests::duplicate(&part.id)),
            None => {
                let message = format!("part {} came without the parts before it", part.part);
                Err(Refusal::field(Code::IncompleteGraph, "part", message))
            }
        }
    }

    pub(super) fn graph_output(&mut self, now: Time, output: graph::Output, out: &mut Out<Output>) {
        match output {
            graph::Output::Call(call) => self.step(now, call, out),
            graph::Output::CancelCall(job) => self.give_up_job(now, job),
            graph::Output::Settle { graph, failure } => {
                self.settle_graph(now, graph, failure);
            }
            graph::Output::Accepted { request, graph } => {
                self.requests.became(request, Target::Graph(graph));
            }
            graph::Output::Place { graph, asks } => {
                let answers = asks.iter().map(|(fun, options)| self.place(fun, options)).collect();
                let input = graph::Input::Placed { graph, answers };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            graph::Output::Reply { request, reply } => self.graph_reply(now, request, reply, out),
            graph::Output::Checked { request, outcome } => {
                let Some(ended) = self.requests.end(request) else { return };
                let reply = match outcome {
                    Ok(report) => Reply::Result {
                        id: ended.id,
                        body: Box::new(Body::plain(Value::from_serialize(&report))),
                        track: None,
                    },
                    Err((error, _)) => error_reply(Some(ended.id), Some("call"), error),
                };
                send(out, ended.peer, reply);
            }
            graph::Output::Progress { request, track, step, event, percent, note } => {
                let Some(asked) = self.requests.get(request) else { return };
                let (step, step_id) = step.unzip();
                let (id, peer, progress) = (asked.id.clone(), asked.peer, asked.progress);
                let told = ProgressReply { id, track, step, step_id, event, percent, note };
                if self.watched.contains_key(&request) {
                    self.tell_graph(now, &told);
                }
                if progress {
                    send(out, peer, Reply::Progress(Box::new(told)));
                }
            }
        }
    }

    pub(super) fn graph_reply(
        &mut self,
        now: Time,
        key: u32,
        mut reply: GraphReply,
        out: &mut Out<Output>,
    ) {
        let Some(request) = self.requests.get(key) else { return };
        let (peer, more) = (request.peer, reply.more);
        reply.id = request.id.clone();
        if !more {
            if let Some(ended) = self.requests.end(key) {
                self.latencies.ended(now, &ended);
            }
            if self.watched.remove(&key).is_some() {
                self.tell_graph_outcome(now, &reply);
            }
        }
        send(out, peer, Reply::Graph(Box::new(reply)));
    }

    pub(super) fn step(&mut self, now: Time, step: graph::StepCall, out: &mut Out<Output>) {
        let origin = Origin::Step { graph: step.graph, step: step.step };
        let (call, deadline_ns) = (step.call, step.deadline_ns);
        if call.fun.starts_with("mpreg.") {
            let peer = PeerId { slot: u32::MAX, generation: 0 };
            return self.builtin(now, origin, (peer, deadline_ns), &call, out);
        }
        let submit = rpc::Submit { origin, call, deadline_ns, here: false };
        self.rpc.handle(now, rpc::Input::Call(submit), &mut self.rpc_out);
    }
}
