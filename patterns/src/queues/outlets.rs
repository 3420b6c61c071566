//! Outlets: PUSH sockets of queues, for PULL sockets, which say nothing back.
//!
//! An outlet takes from the unnamed group as a consumer does, in turn with the others. What it
//! takes is deleted, and leaves once that is safe, so it comes at most once, whatever is killed.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use super::lane::Entry;
use super::{Declaration, Holder, OutletNews, OutletTask, Output, Queue, Queues, Timer};
use crate::base::limits::{OUTLET_WINDOW, OUTLETS};
use crate::base::{Code, Origin, Out, PeerId, Refusal, Time, TimerId};

/// How long after a socket could not be bound it is tried again, nanoseconds.
const BIND_AGAIN_NS: u64 = 1_000_000_000;

/// What an outlet belongs to.
#[derive(Debug)]
enum Of {
    /// A queue's that is there once the socket is bound.
    Declared { origin: Origin, name: SmolStr, declaration: Box<Declaration> },
    /// A queue's.
    Queue(u32),
}

/// A PUSH socket of a queue.
#[derive(Debug)]
pub(super) struct Outlet {
    at: PeerId,
    of: Of,
    /// Where it is to be bound.
    address: SmolStr,
    /// Where it is bound, or why it is not.
    bound: Result<SmolStr, Refusal>,
    /// Its consumer, once it has been bound.
    consumer: Option<u32>,
    again: Option<TimerId>,
    /// What is on its way through it.
    messages: u32,
    bytes: u64,
    sent: u64,
}

impl Queues {
    /// Has the outlet of a queue bound that is not there yet. The rest follows with the news.
    pub(super) fn declare_outlet(
        &mut self,
        origin: Origin,
        name: &SmolStr,
        (declaration, address): (&Declaration, &SmolStr),
        out: &mut Out<Output>,
    ) {
        let (name, declaration) = (name.clone(), Box::new(declaration.clone()));
        let refused = match () {
            () if self.outlets.len() >= OUTLETS => {
                Err(Refusal::new(Code::Busy, format!("{OUTLETS} queues have an outlet")))
            }
            () => self.may_bind(address),
        };
        if let Err(refusal) = refused {
            return out.push(Output::Done { origin, outcome: Err(refusal) });
        }
        self.bind(Of::Declared { origin, name, declaration }, address.clone(), out);
    }

    /// Outlets that a queue brought along from an earlier life.
    pub(super) fn bind_outlets(&mut self, out: &mut Out<Output>) {
        let outlet = |queue: &Queue| queue.settings.outlet.clone();
        let all = self.queues.iter().map(|(at, queue)| (at as u32, outlet(queue)));
        let all: Vec<_> = all.filter_map(|(at, outlet)| Some((at, outlet?))).collect();
        for (queue, address) in all {
            if self.outlet_of(queue).is_some() {
                continue;
            }
            match self.may_bind(&address) {
                Ok(()) => self.bind(Of::Queue(queue), address, out),
                // It was allowed once. The queue is as one without an outlet.
                Err(refusal) => _ = self.add_outlet(Of::Queue(queue), address, refusal),
            }
        }
    }

    /// Whether a socket may be bound where whoever reaches it gets the messages.
    fn may_bind(&self, address: &str) -> Result<(), Refusal> {
        let ip = address.strip_prefix("tcp://").and_then(|text| text.parse::<SocketAddr>().ok());
        let ip = ip.map(|address| address.ip());
        if self.rules.open_outlets || ip.as_ref().is_some_and(IpAddr::is_loopback) {
            return Ok(());
        }
        let message = format!(
            "{address} can be reached from other machines and nothing protects it yet; start the \
             broker with --insecure if the network is trusted"
        );
        Err(Refusal::field(Code::NotSupported, "outlet", message))
    }

    fn bind(&mut self, of: Of, address: SmolStr, out: &mut Out<Output>) {
        let not_yet = Refusal::new(Code::CannotBind, "it is being bound");
        let at = self.add_outlet(of, address.clone(), not_yet);
        out.push(Output::Outlet { at, task: OutletTask::Bind(address) });
    }

    /// An outlet that is not bound, and why.
    fn add_outlet(&mut self, of: Of, address: SmolStr, why: Refusal) -> PeerId {
        self.serial = self.serial.wrapping_add(1);
        let at = PeerId::outlet(self.outlets.vacant_key() as u32, self.serial);
        let (bound, consumer, again) = (Err(why), None, None);
        let (messages, bytes, sent) = (0, 0, 0);
        let outlet = Outlet { at, of, address, bound, consumer, again, messages, bytes, sent };
        self.outlets.insert(outlet);
        at
    }

    /// The slot of a queue's outlet.
    fn outlet_of(&self, queue: u32) -> Option<usize> {
        let of = |outlet: &Outlet| matches!(outlet.of, Of::Queue(at) if at == queue);
        self.outlets.iter().find(|(_, outlet)| of(outlet)).map(|(slot, _)| slot)
    }

    pub(super) fn outlet(
        &mut self,
        now: Time,
        at: PeerId,
        news: OutletNews,
        out: &mut Out<Output>,
    ) {
        let Some(slot) = self.slot_of(at) else { return };
        match news {
            OutletNews::Bound(bound) => self.outlet_bound(now, slot, bound, out),
            OutletNews::Flows => self.flows(at),
            OutletNews::Stalled => _ = self.consumers.stall(at, true),
            OutletNews::Sent { messages, bytes } => {
                self.outlets[slot].sent += u64::from(messages);
                self.left(slot, messages, bytes);
            }
        }
    }

    fn slot_of(&self, at: PeerId) -> Option<usize> {
        let slot = at.as_outlet()? as usize;
        self.outlets.get(slot).is_some_and(|outlet| outlet.at == at).then_some(slot)
    }

    fn outlet_bound(
        &mut self,
        now: Time,
        slot: usize,
        bound: Result<SmolStr, Refusal>,
        out: &mut Out<Output>,
    ) {
        let failed = bound.as_ref().err().cloned();
        let outlet = &mut self.outlets[slot];
        outlet.bound = bound;
        match (&outlet.of, failed) {
            (Of::Queue(queue), None) => {
                let queue = *queue;
                self.attach_outlet(slot, queue, out);
            }
            (Of::Queue(_), Some(_)) => {
                let again = now.mono_ns.saturating_add(BIND_AGAIN_NS);
                outlet.again = Some(self.deadlines.set(again, Timer::Outlet(slot as u32)));
            }
            (Of::Declared { .. }, failed) => self.declared(slot, failed, out),
        }
    }

    /// A queue is made as soon as its outlet is bound.
    fn declared(&mut self, slot: usize, failed: Option<Refusal>, out: &mut Out<Output>) {
        let outlet = &mut self.outlets[slot];
        let Of::Declared { origin, name, declaration } =
            std::mem::replace(&mut outlet.of, Of::Queue(u32::MAX))
        else {
            return;
        };
        let refused = match failed {
            Some(refusal) => Err(refusal),
            // Somebody was quicker.
            None if self.by_name.contains_key(&name) => {
                self.close_outlet(slot, out);
                return self.declare(origin, &name, &declaration, out);
            }
            None => self.create(&name, declaration.settings(), out),
        };
        match refused {
            Ok(queue) => {
                self.outlets[slot].of = Of::Queue(queue);
                self.attach_outlet(slot, queue, out);
                self.declared_as(origin, queue, true, out);
            }
            Err(refusal) => {
                self.close_outlet(slot, out);
                out.push(Output::Done { origin, outcome: Err(refusal) });
            }
        }
    }

    /// Lets an outlet take from its queue, once its socket says that somebody listens.
    fn attach_outlet(&mut self, slot: usize, queue: u32, out: &mut Out<Output>) {
        let name = self.queues[queue as usize].name.clone();
        match self.line_of(&name, None, out) {
            Ok(line) => {
                let at = self.outlets[slot].at;
                let consumer = self.attach(Holder::Peer(at), line);
                self.consumers.stall(at, true);
                if let Some(consumer) = self.consumers.get(consumer) {
                    consumer.credit = OUTLET_WINDOW;
                }
                self.outlets[slot].consumer = Some(consumer);
            }
            Err(refusal) => self.outlets[slot].bound = Err(refusal),
        }
    }

    pub(super) fn bind_again(&mut self, slot: u32, out: &mut Out<Output>) {
        if let Some(outlet) = self.outlets.get_mut(slot as usize) {
            outlet.again = None;
            let task = OutletTask::Bind(outlet.address.clone());
            out.push(Output::Outlet { at: outlet.at, task });
        }
    }

    /// The outlet of a queue that goes.
    pub(super) fn end_outlet(&mut self, queue: u32, out: &mut Out<Output>) {
        if let Some(slot) = self.outlet_of(queue) {
            self.close_outlet(slot, out);
        }
    }

    fn close_outlet(&mut self, slot: usize, out: &mut Out<Output>) {
        let outlet = self.outlets.remove(slot);
        if let Some(timer) = outlet.again {
            self.deadlines.cancel(timer);
        }
        self.consumers.bytes -= outlet.bytes;
        self.gone(outlet.at, out);
        out.push(Output::Outlet { at: outlet.at, task: OutletTask::Close });
    }

    /// A message leaves through an outlet.
    pub(super) fn push_out(&mut self, line: u32, at: PeerId, entry: &Entry, out: &mut Out<Output>) {
        let Some(slot) = self.slot_of(at) else { return };
        if self.heard {
            let of = (&*entry.message, entry.message.attempts + 1);
            self.tell_message("delivered", line, of, ("", ""), out);
            self.tell_message("acked", line, of, ("", ""), out);
        }
        let queue = &mut self.queues[self.lines[line as usize].queue as usize];
        for counters in [queue.counters(), &mut self.counters] {
            counters.delivered += 1;
            counters.acked += 1;
        }
        let (stored, message) = (queue.stored(), entry.message.clone());
        let topic = &message.event.topic;
        let name = if topic.is_empty() { queue.name.clone() } else { topic.clone() };
        let outlet = &mut self.outlets[slot];
        outlet.messages += 1;
        outlet.bytes += entry.bytes();
        self.consumers.bytes += entry.bytes();
        if let Some(consumer) = outlet.consumer.and_then(|at| self.consumers.get(at)) {
            consumer.in_hand += 1;
        }
        self.forget(line, entry, out);
        let task = OutletTask::Push { name, message };
        self.when_safe(stored, Output::Outlet { at, task }, out);
        if let Some(consumer) = self.outlets[slot].consumer {
            self.queue_up(consumer);
        }
    }

    /// Room for so much more in an outlet's window.
    fn left(&mut self, slot: usize, messages: u32, bytes: u64) {
        let outlet = &mut self.outlets[slot];
        outlet.messages -= messages;
        outlet.bytes -= bytes;
        self.consumers.bytes -= bytes;
        let Some(at) = outlet.consumer else { return };
        if let Some(consumer) = self.consumers.get(at) {
            consumer.in_hand -= messages;
        }
        self.queue_up(at);
    }

    /// What was to leave after the store had deleted it, which it may not have done, does not.
    pub(super) fn keep_back(&mut self) {
        for (at, bytes) in self.confirm.take_pushes() {
            if let Some(slot) = self.slot_of(at) {
                self.left(slot, 1, bytes);
            }
        }
    }

    /// What `mpreg.queue.stats` tells of a queue's outlet.
    pub(super) fn about_outlet(&self, queue: u32) -> Option<Json> {
        let outlet = &self.outlets[self.outlet_of(queue)?];
        Some(json!({
            "endpoint": outlet.bound.as_ref().ok().map(SmolStr::as_str),
            "error": outlet.bound.as_ref().err().map(|refusal| &*refusal.message),
            "delivery": "at_most_once",
            "on_their_way": outlet.messages,
            "sent": outlet.sent,
        }))
    }
}
