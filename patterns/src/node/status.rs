//! `mpreg.status`: what the broker has done, how long it took, and what it holds.

use serde_json::{Value as Json, json};

use super::Node;
use crate::base::{JobId, Latency, Time};
use crate::requests::{InFlight, Target};

/// How long requests took, from when they came to when their outcomes leave.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    calls: Latency,
    graphs: Latency,
    sends: Latency,
}

impl Latencies {
    /// A request has its outcome. What it waits for is for somebody else to do, as with
    /// `mpreg.topic.next`, is not counted.
    pub(super) fn ended(&mut self, now: Time, request: &InFlight) {
        let of = match request.target {
            Target::Job(JobId::Call(_)) => &mut self.calls,
            Target::Graph(_) => &mut self.graphs,
            Target::Send { .. } => &mut self.sends,
            Target::New | Target::Job(_) => return,
        };
        of.record_ns(now.mono_ns.saturating_sub(request.begun_ns));
    }
}

impl Node {
    pub(super) fn status(&self, now: Time) -> Json {
        let started_ms = self.started_ms.unwrap_or(now.wall_ms);
        json!({
            "node": self.about.node.as_str(),
            "version": self.about.version.as_str(),
            "epoch": self.about.epoch,
            "endpoints": self.about.endpoints,
            "uptime_ms": now.wall_ms.saturating_sub(started_ms),
            "requests": self.requests.len(),
            "calls": self.rpc.counters(),
            "graphs": self.graphs.counters(),
            "graphs_in_flight": self.graphs.in_flight(),
            "topics": self.topics.counters(),
            "patterns": self.topics.patterns(),
            "waiting": self.topics.waiting(),
            "queues": self.queues.status(),
            "refused": self.refused_counts(),
            "cancels_ignored": self.cancels_ignored,
            "latency": {
                "calls": self.latencies.calls.describe(),
                "graphs": self.latencies.graphs.describe(),
                "sends": self.latencies.sends.describe(),
            },
            "memory": self.memory(),
            "process": self.gauges,
        })
    }

    /// Bytes of what others sent, by who keeps them.
    fn memory(&self) -> Json {
        let (queue_fronts, queue_in_flight) = self.queues.held_bytes();
        json!({
            "graphs": self.graphs.held_bytes(),
            "logs": self.topics.log_bytes(),
            "queue_fronts": queue_fronts,
            "queue_in_flight": queue_in_flight,
            "brokers": self.federation.kept_bytes(),
        })
    }

    /// What was not taken where no reply is possible, by endpoint and code.
    fn refused_counts(&self) -> Json {
        let mut counts: Vec<_> = self.refusals.iter().collect();
        counts.sort_unstable();
        let mut told = json!({});
        for ((endpoint, code), count) in counts {
            told[*endpoint][code.as_str()] = (*count).into();
        }
        told
    }
}
