//! The broker's own functions: what they see of the systems.

use serde_json::{Value as Json, json};

use super::{Node, Output};
use crate::base::{Code, JobId, Out, PeerId, Refusal, RunId, Time};
use crate::builtins::{self, Builtin};
use crate::graph;
use crate::ops::{Call, CallOptions};
use crate::rpc::{self, Origin};
use crate::topics::{self as topic, Publisher};
use crate::values::{Body, Value};

impl Node {
    /// Where a step would go now, in words.
    pub(super) fn place(&mut self, fun: &str, options: &CallOptions) -> Result<String, Refusal> {
        if fun.starts_with("mpreg.") {
            return builtins::placement(fun).map(|()| self.about.node.to_string());
        }
        Ok(match self.rpc.placement(fun, options)? {
            rpc::Placement::Worker(worker) => worker,
            rpc::Placement::Line(ahead) => format!("all busy, {ahead} in line"),
        })
    }

    /// Runs a function of the broker's own.
    pub(super) fn builtin(
        &mut self,
        now: Time,
        origin: Origin,
        (peer, deadline_ns): (PeerId, u64),
        call: &Call,
        out: &mut Out<Output>,
    ) {
        let outcome = match builtins::parse(call) {
            Err(refusal) => Err(refusal),
            Ok(Builtin::Functions) => {
                let body = Box::new(Body::plain(self.rpc.functions()));
                return self.done(now, origin, Ok(body), out);
            }
            Ok(Builtin::Workers) => Ok(self.workers()),
            Ok(Builtin::Status) => Ok(self.status(now)),
            Ok(Builtin::Graphs) => Ok(self.graphs.list()),
            Ok(Builtin::Explain { track }) => self.explain(now, track),
            Ok(Builtin::Topics { top }) => Ok(self.topics.list(top)),
            Ok(Builtin::Publish(mut event)) => {
                self.publish_beyond(now, &mut event);
                let by = Publisher::Origin(origin);
                return self.topic(now, topic::Input::Publish { by, event });
            }
            Ok(Builtin::Next { ask, timeout_ms }) => {
                return self.next_event(now, origin, ask, (timeout_ms, deadline_ns));
            }
            Ok(Builtin::Queue(ask)) => {
                return self.queue_builtin(now, origin, (peer, deadline_ns), (ask, call), out);
            }
            Ok(Builtin::Federation(ask)) => self.federation_builtin(now, ask, out),
            Ok(Builtin::Route(ask)) => return self.route_builtin(now, origin, ask),
            Ok(Builtin::History(ask)) => {
                let outcome = self.topics.history(now, &ask);
                return self.done(now, origin, outcome.map(Box::new).map_err(Box::new), out);
            }
            Ok(Builtin::Check { part, ask }) => match origin {
                Origin::Request(request) => {
                    let input = graph::Input::Check { request, peer, part: *part, ask };
                    return self.graphs.handle(now, input, &mut self.graph_out);
                }
                Origin::Step { .. } => {
                    Err(Refusal::new(Code::NotSupported, "a step cannot check a graph"))
                }
            },
        };
        let outcome = outcome.map(|json| Box::new(Body::plain(Value::from_serialize(&json))));
        self.done(now, origin, outcome.map_err(Box::new), out);
    }

    fn workers(&self) -> Json {
        let mut workers = self.rpc.workers();
        for row in workers.as_array_mut().into_iter().flatten() {
            let peer = row["worker"].as_str().unwrap_or_default();
            let known = self.known.values().find(|(known, _)| known.to_string() == peer);
            row["name"] = known.and_then(|(_, name)| name.as_deref()).into();
        }
        workers
    }

    fn explain(&self, now: Time, track: RunId) -> Result<Json, Refusal> {
        let (mut about, steps) = self.graphs.explain(track)?;
        let rows = steps.into_iter().map(|step| {
            let why = match step.why {
                graph::Why::Says(words) => words,
                graph::Why::Called(JobId::Wait(_)) => "waits for events".into(),
                graph::Why::Called(JobId::Take(_)) => "waits for a message".into(),
                graph::Why::Called(JobId::Errand(_)) => "waits for another broker".into(),
                graph::Why::Called(JobId::Call(call)) => {
                    self.rpc.explain(now, call).unwrap_or_else(|| "is ending".into())
                }
            };
            json!({ "step": step.name.as_str(), "state": step.state, "why": why })
        });
        about["open"] = rows.collect::<Vec<_>>().into();
        Ok(about)
    }
}
