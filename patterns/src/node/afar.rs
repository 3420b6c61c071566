//! Queues of other brokers: who takes from them here, and what their brokers say.

use std::sync::Arc;

use smol_str::SmolStr;

use super::federation::TOWARDS;
use super::{Node, Output, error_reply, send};
use crate::base::{Code, JobId, Origin, Out, PeerId, Refusal, RunId, Time};
use crate::builtins::QueueAsk;
use crate::ops::{Call, Delivered, Reply, Request, Settle};
use crate::queues::afar::{Errand, Output as Told};
use crate::queues::{self, Holder};

impl Node {
    /// Who keeps a queue, if it is another broker.
    fn kept_by(&self, queue: &SmolStr) -> Option<SmolStr> {
        self.queues.home(queue).cloned().or_else(|| {
            let unknown = self.federation.knows_queues() && !self.queues.is_queue(queue);
            unknown.then(|| self.federation.home(queue)).flatten()
        })
    }

    /// A peer takes messages.
    pub(super) fn consume(
        &mut self,
        now: Time,
        peer: PeerId,
        id: Option<SmolStr>,
        of: (SmolStr, Option<SmolStr>),
        credit: u32,
        out: &mut Out<Output>,
    ) {
        let home = self.kept_by(&of.0);
        if self.is_far(peer) {
            if home.is_some() || !self.queues.is_queue(&of.0) || !self.gives(peer, &of.0) {
                let error = no_queue(&of.0);
                return send(out, peer, error_reply(id, Some("consume"), error));
            }
        } else {
            self.known.entry(peer.slot).or_insert((peer, None));
            if let Some(home) = home {
                let of = (of, home);
                return self.afar.consume(now, peer, id, of, credit, &mut self.afar_out);
            }
        }
        let (queue, group) = of;
        self.queue(now, queues::Input::Consume { peer, id, queue, group, credit });
    }

    /// A peer says what became of messages.
    pub(super) fn settle_messages(&mut self, now: Time, peer: PeerId, settle: Settle) {
        if let Some(settle) = self.afar.settle(now, peer, settle, &mut self.afar_out) {
            self.queue(now, queues::Input::Settle { peer, settle });
        }
    }

    /// A graph that took messages has ended.
    pub(super) fn settle_graph(&mut self, now: Time, graph: u32, failure: Option<Refusal>) {
        if let Some(failure) = self.afar.ended(now, graph, failure, &mut self.afar_out) {
            self.queue(now, queues::Input::Ended { graph, failure });
        }
    }

    /// A delivery could not be handed to its consumer's connection.
    pub(super) fn returned(&mut self, now: Time, id: RunId, refusal: Option<Refusal>) {
        if !self.afar.undelivered(now, id, refusal.as_ref(), &mut self.afar_out) {
            self.queue(now, queues::Input::Undelivered { id, refusal });
        }
    }

    /// A call about a queue that another broker keeps is that broker's to answer. The ask, if it is
    /// not such a call.
    pub(super) fn errand(
        &mut self,
        now: Time,
        origin: Origin,
        (peer, deadline_ns): (PeerId, u64),
        ask: QueueAsk,
        call: &Call,
    ) -> Option<QueueAsk> {
        // What waits here for another broker's topics is here alone.
        let named = ask.queue().filter(|queue| !queue.starts_with(TOWARDS));
        let Some(home) = named.and_then(|queue| self.kept_by(queue)) else {
            return Some(ask);
        };
        let (taker, deadline_ns) = match (&ask, origin) {
            (QueueAsk::Next { timeout_ms, .. }, origin) => {
                let own =
                    timeout_ms.map(|ms| now.mono_ns.saturating_add(ms.saturating_mul(1_000_000)));
                let holder = match origin {
                    Origin::Step { graph, .. } => Holder::Graph(graph),
                    Origin::Request(_) => Holder::Peer(peer),
                };
                (Some(holder), deadline_ns.min(own.unwrap_or(u64::MAX)))
            }
            _ => (None, deadline_ns),
        };
        if self.is_far(peer) || (taker.is_none() && !self.is_reached(&home)) {
            // Of what is here for it: messages that are still on their way.
            return Some(ask);
        }
        let call = Arc::new(call.clone());
        let errand = Errand { origin, call, home, taker, deadline_ns };
        self.afar.errand(now, errand, &mut self.afar_out);
        None
    }

    /// What another broker says of its queues, or of what was sent to them from here.
    pub(super) fn heard_of_queue(
        &mut self,
        now: Time,
        peer: PeerId,
        request: Request,
        out: &mut Out<Output>,
    ) {
        if !self.is_far(peer) {
            let op = match request {
                Request::Sent { .. } => "sent",
                Request::Delivered(_) => "deliver",
                Request::Consumed { .. } => "consumed",
                _ => "acked",
            };
            return send(out, peer, error_reply(None, Some(op), Refusal::brokers_own(op)));
        }
        match request {
            Request::Sent { id } => self.handed_over(now, peer, id),
            Request::Delivered(told) => self.afar.delivered(peer, told, &mut self.afar_out),
            Request::Consumed { id, .. } => self.afar.consumed(id, &mut self.afar_out),
            Request::Acked { id, ids, unknown } => {
                self.afar.acked(id, (ids, unknown), &mut self.afar_out);
            }
            _ => {}
        }
    }

    /// A message of a queue for somebody.
    pub(super) fn deliver(&self, to: PeerId, mut delivered: Box<Delivered>, out: &mut Out<Output>) {
        if !self.is_far(to) || self.queues.home(&delivered.queue).is_none() {
            return send(out, to, Reply::Deliver(delivered));
        }
        if delivered.queue.starts_with(TOWARDS) {
            // It is for whatever is bound to its topic there.
            delivered.queue = SmolStr::default();
        }
        send(out, to, Reply::HandOver(delivered));
    }

    pub(super) fn afar_output(&mut self, now: Time, output: Told, out: &mut Out<Output>) {
        match output {
            Told::Send { to, reply } => send(out, to, reply),
            Told::Begun { origin, wait } => self.begun(now, origin, JobId::Errand(wait)),
            Told::Done { origin, outcome } => self.done(now, origin, outcome, out),
            Told::Ended { graph, failure } => {
                self.queue(now, queues::Input::Ended { graph, failure });
            }
        }
    }
}

/// Why another broker may not use a name.
pub(super) fn not_shared(field: &str, name: &str) -> Refusal {
    let message = format!("{name} is not for the brokers that this one is linked to there");
    Refusal::field(Code::NotShared, field, message)
}

/// Why another broker gets nothing of a queue.
pub(super) fn no_queue(queue: &str) -> Refusal {
    let message = format!("there is no queue {queue} here any more");
    Refusal::field(Code::UnknownQueue, "queue", message)
}
