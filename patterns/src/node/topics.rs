//! Topics in the broker: who publishes, and what the broker itself tells.

use serde_json::json;
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::{Node, Output, error_reply, send};
use crate::base::{JobId, Out, PeerId, Refusal, RunId, Time};
use crate::ops::{Event, Publish, Reply, Subscribe};
use crate::requests::Requests;
use crate::rpc::Origin;
use crate::store::Ask;
use crate::topics::{Family, Input, Output as Told, Publisher, WaitAsk};
use crate::values::{Body, Value};

/// What an acknowledged event has reached: the broker, which may be killed.
const DURABILITY: &str = "memory";

impl Node {
    pub(super) fn topic(&mut self, now: Time, input: Input) {
        self.topics.handle(now, input, &mut self.topic_out);
    }

    pub(super) fn publish(
        &mut self,
        now: Time,
        peer: PeerId,
        publish: Publish,
        out: &mut Out<Output>,
    ) {
        let Publish { id, confirm, mut event } = publish;
        if self.requests.find(peer, &id).is_some() {
            let error = Requests::duplicate(&id);
            return send(out, peer, error_reply(Some(id), Some("publish"), error));
        }
        self.publish_beyond(now, &mut event);
        let by = Publisher::Peer { peer, id, confirm };
        self.topic(now, Input::Publish { by, event });
    }

    /// What is published goes to the queues bound to its topic, and to the brokers that want it.
    pub(super) fn publish_beyond(&mut self, now: Time, event: &mut Arc<Event>) {
        let spreads = self.federation.spreads();
        if !self.queues.binds() && !spreads {
            return;
        }
        // Nobody else has it yet, so nothing is copied.
        Arc::make_mut(event).message = self.ids.next(now);
        self.publish_to_queues(now, event);
        if spreads {
            let event = event.clone();
            self.federate(now, crate::federation::Input::Spread { event });
        }
    }

    pub(super) fn subscribe(&mut self, now: Time, peer: PeerId, ask: Subscribe) {
        self.known.entry(peer.slot).or_insert((peer, None));
        self.topic(now, Input::Subscribe { peer, ask });
    }

    /// A call of `mpreg.topic.next`: its own timeout counts if it is the shorter.
    pub(super) fn next_event(
        &mut self,
        now: Time,
        origin: Origin,
        ask: WaitAsk,
        (timeout_ms, deadline_ns): (Option<u64>, u64),
    ) {
        let own = timeout_ms.map(|ms| now.mono_ns.saturating_add(ms.saturating_mul(1_000_000)));
        let deadline_ns = own.map_or(deadline_ns, |own| own.min(deadline_ns));
        self.topic(now, Input::Wait { origin, ask, deadline_ns });
    }

    pub(super) fn topic_output(&mut self, now: Time, output: Told, out: &mut Out<Output>) {
        match output {
            Told::Event { to, delivery } => send(out, to, Reply::Event(delivery)),
            Told::Broadcast(broadcast) => out.push(Output::Broadcast(broadcast)),
            Told::Published { by, outcome } => self.published(now, by, outcome, out),
            Told::Subscribed { to, id, outcome: Ok((patterns, credit)), .. } => {
                let epoch = self.about.epoch;
                send(out, to, Reply::Subscribed { id, epoch, patterns, credit });
            }
            Told::Subscribed { to, id, op, outcome: Err(error) } => {
                send(out, to, error_reply(id, Some(op), error));
            }
            Told::Store(ask) => {
                if !matches!(ask, Ask::Fetch { .. }) {
                    self.ledger.log_writes();
                }
                out.push(Output::Store(ask));
            }
            Told::Wants { pattern, wanted } => {
                self.federate(now, crate::federation::Input::Want { pattern, wanted });
            }
            Told::Begun { origin, wait } => self.begun(now, origin, JobId::Wait(wait)),
            Told::Done { origin, outcome } => {
                self.done(now, origin, outcome.map(Box::new).map_err(Box::new), out);
            }
        }
    }

    fn published(
        &mut self,
        now: Time,
        by: Publisher,
        outcome: Result<RunId, Refusal>,
        out: &mut Out<Output>,
    ) {
        match (by, outcome) {
            (Publisher::Peer { peer, id, .. }, Ok(message)) => {
                send(out, peer, Reply::Published { id, message });
            }
            (Publisher::Peer { peer, id, .. }, Err(error)) => {
                send(out, peer, error_reply(Some(id), Some("publish"), error));
            }
            (Publisher::Origin(origin), outcome) => {
                let outcome = outcome.map(|message| {
                    let told = json!({ "message": message.to_string(), "durability": DURABILITY });
                    Body::plain(Value::from_serialize(&told))
                });
                self.done(now, origin, outcome.map(Box::new).map_err(Box::new), out);
            }
            // What it tells is counted where it is not taken; telling of that would be more of it.
            (Publisher::Socket, Ok(_)) | (Publisher::Broker, _) => {}
            (Publisher::Socket, Err(error)) => self.refused(now, "publish", None, &error),
        }
    }

    /// Counts what was not taken at an endpoint that cannot answer, and tells who listens.
    pub(super) fn refused(
        &mut self,
        now: Time,
        endpoint: &'static str,
        topic: Option<SmolStr>,
        refusal: &Refusal,
    ) {
        *self.refusals.entry((endpoint, refusal.code.clone())).or_default() += 1;
        if self.topics.hears(Family::Refusals) {
            let told = json!({
                "endpoint": endpoint,
                "topic": topic,
                "code": refusal.code,
                "message": refusal.message,
            });
            self.tell(now, format_smolstr!("mpreg.refused.{endpoint}"), &told);
        }
    }

    /// Publishes something of the broker's own.
    pub(super) fn tell(&mut self, now: Time, topic: SmolStr, told: &serde_json::Value) {
        let payload = Value::from_serialize(told);
        self.topic(now, Input::Tell { topic, payload });
    }
}
