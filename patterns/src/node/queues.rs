//! Queues in the broker: who sends, who takes, and what the store tells.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Node, Output, error_reply, send};
use crate::base::{JobId, Origin, Out, PeerId, Refusal, RunId, Time};
use crate::builtins::{QueueAsk, RouteAsk};
use crate::federation::{self, Fact, Key};
use crate::graph;
use crate::ops::{Call, Durability, Event, Reply, Send, SendOptions};
use crate::queues::{Holder, Input, Output as Told, Sender};
use crate::requests::{Requests, Target};
use crate::store::{self, Ask, LOGS, Ledger};
use crate::topics::{self, Family};
use crate::values::{Body, Value};

impl Node {
    pub(super) fn queue(&mut self, now: Time, input: Input) {
        self.queues.listen(self.topics.hears(Family::Queues));
        self.queues.handle(now, input, &mut self.queue_out);
    }

    pub(super) fn send_to_queue(
        &mut self,
        now: Time,
        peer: PeerId,
        ask: Send,
        out: &mut Out<Output>,
    ) {
        let Send { id, confirm, queue, mut event, options } = ask;
        if self.is_far(peer)
            && let Some(message) = options.dedup.as_deref().and_then(RunId::parse)
        {
            // What another broker hands over keeps the ULID that its sender was told.
            Arc::make_mut(&mut event).message = message;
        }
        if let Some(queue) = &queue {
            if self.is_far(peer) && !self.queues.is_queue(queue) {
                let error = super::afar::no_queue(queue);
                return send(out, peer, error_reply(Some(id), Some("send"), error));
            }
            self.lead(now, queue);
        }
        let name = queue.as_ref().unwrap_or(&event.topic);
        if !self.gives(peer, name) {
            // It stays where it waits, and is tried again.
            let error = super::afar::not_shared("queue", name);
            return send(out, peer, error_reply(Some(id), Some("send"), error));
        }
        let also = self.lead_on(now, Some(peer), queue.as_ref(), &event.topic);
        let by = if confirm {
            // Its outcome may be a while, so that its id is in flight until then.
            match self.requests.begin(now, peer, &id, None, false) {
                Ok(key) => {
                    let near = !also.is_empty()
                        || queue.as_ref().is_some_and(|queue| self.queues.home(queue).is_some());
                    self.requests.became(key, Target::Send { near });
                    Sender::Origin(Origin::Request(key))
                }
                Err(error) => return send(out, peer, error_reply(Some(id), Some("send"), error)),
            }
        } else if self.requests.find(peer, &id).is_some() {
            let error = Requests::duplicate(&id);
            return send(out, peer, error_reply(Some(id), Some("send"), error));
        } else {
            Sender::Peer { peer, id }
        };
        self.queue(now, Input::Send { by, queue, also, event, options });
    }

    /// What is published goes to the queues bound to its topic too. It has its ULID.
    pub(super) fn publish_to_queues(&mut self, now: Time, event: &Arc<Event>) {
        if self.queues.binds() {
            let (by, event) = (Sender::Publisher, event.clone());
            let (also, options) = Default::default();
            self.queue(now, Input::Send { by, queue: None, also, event, options });
        }
    }

    /// A built-in of queues.
    pub(super) fn queue_builtin(
        &mut self,
        now: Time,
        origin: Origin,
        (peer, deadline_ns): (PeerId, u64),
        (ask, call): (QueueAsk, &Call),
        out: &mut Out<Output>,
    ) {
        if let Some(queue) = ask.queue().filter(|queue| !self.gives(peer, queue)) {
            let error = super::afar::not_shared("name", queue);
            return self.done(now, origin, Err(Box::new(error)), out);
        }
        let Some(ask) = self.errand(now, origin, (peer, deadline_ns), ask, call) else { return };
        let told = match ask {
            QueueAsk::List { top } => Ok(self.queues.list(now, top)),
            QueueAsk::Stats { name } => self.queues.stats(now, &name),
            QueueAsk::Declare { name, declaration } => {
                return self.queue(now, Input::Declare { origin, name, declaration });
            }
            QueueAsk::Delete { name } => return self.queue(now, Input::Delete { origin, name }),
            QueueAsk::Purge { name, dead } => {
                return self.queue(now, Input::Purge { origin, name, dead });
            }
            QueueAsk::Peek { name, count, dead } => {
                return self.queue(now, Input::Peek { origin, name, count, dead });
            }
            QueueAsk::Redrive { name, count } => {
                return self.queue(now, Input::Redrive { origin, name, count });
            }
            QueueAsk::Send(ask) => {
                let Send { queue, event, options, .. } = *ask;
                queue.iter().for_each(|queue| self.lead(now, queue));
                let also = self.lead_on(now, Some(peer), queue.as_ref(), &event.topic);
                let by = Sender::Origin(origin);
                return self.queue(now, Input::Send { by, queue, also, event, options });
            }
            QueueAsk::Next { name, group, timeout_ms } => {
                let holder = match origin {
                    Origin::Step { graph, .. } => Holder::Graph(graph),
                    Origin::Request(_) => Holder::Peer(peer),
                };
                let own = timeout_ms.map(|ms| ms.saturating_mul(1_000_000));
                let own = own.map_or(u64::MAX, |ns| now.mono_ns.saturating_add(ns));
                let deadline_ns = deadline_ns.min(own);
                let input = Input::Next { origin, holder, name, group, deadline_ns };
                return self.queue(now, input);
            }
        };
        let told = told.map(|json| Box::new(Body::plain(Value::from_serialize(&json))));
        self.done(now, origin, told.map_err(Box::new), out);
    }

    /// A built-in of routes.
    pub(super) fn route_builtin(&mut self, now: Time, origin: Origin, ask: RouteAsk) {
        let input = match ask {
            RouteAsk::Add { name, settings, if_version } => {
                Input::AddRoute { origin, name, settings, if_version }
            }
            RouteAsk::List => Input::ListRoutes { origin },
            RouteAsk::Remove { name, if_version } => {
                Input::RemoveRoute { origin, name, if_version }
            }
        };
        self.queue(now, input);
    }

    pub(super) fn queue_output(&mut self, now: Time, output: Told, out: &mut Out<Output>) {
        match output {
            Told::Store(ask) => {
                if !matches!(ask, Ask::Fetch { .. }) {
                    self.ledger.queues_write();
                }
                out.push(Output::Store(ask));
            }
            Told::Wants { pattern, wanted } => {
                let (key, fact) = (Key::Bound(pattern.clone()), wanted.then_some(Fact::Bound));
                self.federate(now, federation::Input::Own { key, fact });
                self.federate(now, federation::Input::Want { pattern, wanted });
            }
            Told::Outlet { at, task } => out.push(Output::Outlet { at, task }),
            Told::Deliver { to, delivered } => self.deliver(to, delivered, out),
            Told::Lapsed { to, id } if self.is_far(to) => send(out, to, Reply::Cancel { run: id }),
            Told::Lapsed { .. } => {}
            Told::Kept { queue, kept } => {
                let fact = kept.then_some(Fact::Queue);
                self.federate(now, federation::Input::Own { key: Key::Queue(queue), fact });
            }
            // A broker that takes its messages is not told so.
            Told::Consumed { to, id: None, .. } if self.is_far(to) => {}
            Told::Sent { by, outcome } => self.sent(now, by, outcome, out),
            Told::Consumed { to, id, of: (queue, group), outcome: Ok(credit) } => {
                let epoch = self.about.epoch;
                send(out, to, Reply::Consumed { id, epoch, queue, group, credit });
            }
            Told::Consumed { to, id, outcome: Err(error), .. } => {
                send(out, to, error_reply(id, Some("consume"), error));
            }
            Told::Acked { to, id, outcome } => {
                let afar = &mut self.afar_out;
                let reply = match self.afar.acked_here(to, &id, outcome, afar) {
                    None => return,
                    Some(Ok((ids, unknown))) => Reply::Acked { id, ids, unknown },
                    Some(Err(error)) => error_reply(Some(id), Some("ack"), error),
                };
                send(out, to, reply);
            }
            Told::Life(life) => self.tell_life(now, &life),
            Told::Settled { graph, outcome } => {
                let outcome = self.afar.take_lost(graph).map_or(outcome, Err);
                let input = graph::Input::Settled { graph, outcome };
                self.graphs.handle(now, input, &mut self.graph_out);
            }
            Told::Begun { origin, wait } => self.begun(now, origin, JobId::Take(wait)),
            Told::Done { origin, outcome } => {
                self.done(now, origin, outcome.map(Box::new).map_err(Box::new), out);
            }
        }
    }

    fn sent(
        &mut self,
        now: Time,
        by: Sender,
        outcome: Result<(RunId, Durability, u32), Refusal>,
        out: &mut Out<Output>,
    ) {
        match (by, outcome) {
            (Sender::Origin(Origin::Request(key)), outcome) if self.requests.is_send(key) => {
                let Some(request) = self.requests.end(key) else { return };
                self.latencies.ended(now, &request);
                let id = request.id;
                let reply = match outcome {
                    Ok((message, durability, queues)) => {
                        let near = request.target == Target::Send { near: true };
                        Reply::Sent { id, message, durability, queues, near }
                    }
                    Err(error) => error_reply(Some(id), Some("send"), error),
                };
                send(out, request.peer, reply);
            }
            (Sender::Origin(origin), outcome) => {
                let outcome = outcome.map(|(message, durability, queues)| {
                    let told = serde_json::json!({
                        "message": message.to_string(),
                        "durability": durability,
                        "queues": queues,
                    });
                    Box::new(Body::plain(Value::from_serialize(&told)))
                });
                self.done(now, origin, outcome.map_err(Box::new), out);
            }
            (Sender::Peer { peer, id }, Err(error)) => {
                send(out, peer, error_reply(Some(id), Some("send"), error));
            }
            (Sender::Socket, Err(error)) => self.refused(now, "push", None, &error),
            (_, _) => {}
        }
    }

    /// What the store tells goes to whom it is about.
    pub(super) fn stored(&mut self, now: Time, told: store::Told) {
        let for_queues = match told {
            store::Told::Opened { lines } => {
                self.ledger = Ledger::default();
                let (logs, queues) = lines.into_iter().partition(|line| line.line >= LOGS);
                let opened = store::Told::Opened { lines: logs };
                self.topic(now, topics::Input::Stored(opened));
                store::Told::Opened { lines: queues }
            }
            store::Told::Synced { writes } => {
                store::Told::Synced { writes: self.ledger.synced(writes) }
            }
            store::Told::Fetched { fetch, .. } if fetch >= LOGS => {
                return self.topic(now, topics::Input::Stored(told));
            }
            store::Told::Failed { refusal } => {
                self.ledger = Ledger::default();
                let failed = store::Told::Failed { refusal: refusal.clone() };
                self.topic(now, topics::Input::Stored(failed));
                store::Told::Failed { refusal }
            }
            told @ (store::Told::Full { .. } | store::Told::Room) => {
                self.topic(now, topics::Input::Stored(told.clone()));
                told
            }
            told @ store::Told::Fetched { .. } => told,
        };
        self.queue(now, Input::Stored(for_queues));
    }

    /// What a PUSH socket sent: to the queue of that name if there is one, else to a topic.
    pub(super) fn push(&mut self, now: Time, mut event: Arc<Event>) {
        let name = event.topic.clone();
        self.lead(now, &name);
        let queue = self.queues.is_queue(&name).then_some(name);
        if queue.is_some() {
            Arc::make_mut(&mut event).topic = SmolStr::default();
        }
        let also = self.lead_on(now, None, queue.as_ref(), &event.topic);
        let (by, options) = (Sender::Socket, SendOptions::default());
        self.queue(now, Input::Send { by, queue, also, event, options });
    }
}
