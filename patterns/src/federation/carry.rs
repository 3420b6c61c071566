//! Envelopes and events on their way over this broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use super::conversation::Sense;
use super::wire::{Cargo, Life, Message, Packet, Spread, Talk};
use super::{Federation, LinkId, Output, flow};
use crate::base::{Out, RunId, Time};
use crate::names::is_reserved;
use crate::ops::Event;
use crate::values::{Kind, Value};

/// Brokers that a packet or an event passes at most.
pub(super) const HOPS: usize = 16;

impl Federation {
    /// Sends an envelope of this broker's own.
    pub(super) fn send(
        &mut self,
        now: Time,
        to: &SmolStr,
        body: Bytes,
        frames: Vec<Bytes>,
        out: &mut Out<Output>,
    ) {
        let Some(reached) = self.reached.get_mut(to) else { return };
        self.counters.sent += 1;
        let life = reached.life.clone();
        if let Some(cargo) = reached.conversation.say(now, body, frames) {
            self.packet(&life, cargo, out);
        }
    }

    pub(super) fn packet(&mut self, to: &Life, cargo: Cargo, out: &mut Out<Output>) {
        let (from, path) = (self.me.clone(), vec![self.me.node.clone()]);
        self.pass(Packet { from, to: to.clone(), path, cargo }, out);
    }

    /// Puts a packet onto the link that its way begins with.
    fn pass(&mut self, packet: Packet, out: &mut Out<Output>) {
        let way = flow(&packet.from.node, &packet.to.node);
        let next = self.routes.next(&packet.to.node, way);
        let next = next.filter(|next| !packet.path.contains(next) && packet.path.len() <= HOPS);
        match next.and_then(|next| self.link_to(next)) {
            Some(link) => out.push(Output::Tell { link, message: Message::Packet(packet) }),
            // Whoever sent it keeps it until it has arrived.
            None => self.counters.dropped += 1,
        }
    }

    fn link_to(&self, neighbour: &SmolStr) -> Option<LinkId> {
        let mut links = self.links.iter();
        links.find(|(_, of)| of.life.node == *neighbour).map(|(link, _)| *link)
    }

    /// A packet has come: for this broker, or to be passed on.
    pub(super) fn arrived(&mut self, now: Time, mut packet: Packet, out: &mut Out<Output>) {
        if packet.to.node != self.me.node {
            self.counters.relayed += 1;
            packet.path.push(self.me.node.clone());
            return self.pass(packet, out);
        }
        let Packet { from, to, cargo, .. } = packet;
        let known = self.reached.get_mut(&from.node).filter(|reached| reached.life == from);
        let (true, Some(reached)) = (to == self.me, known) else {
            // Of an earlier life, or of one that is not known yet: it will be said again.
            self.counters.dropped += 1;
            return;
        };
        let (Cargo::Envelope { talk, .. } | Cargo::Ack { talk, .. }) = cargo;
        match reached.conversation.sense(now, talk) {
            Sense::Now => {}
            Sense::Stale => {
                self.counters.dropped += 1;
                return;
            }
            Sense::Anew => self.begin_anew(now, &from, talk, out),
        }
        let Some(reached) = self.reached.get_mut(&from.node) else { return };
        match cargo {
            Cargo::Ack { seq, .. } => reached.conversation.acked(now, seq),
            Cargo::Envelope { seq, body, frames, .. } => {
                if reached.conversation.is_next(now, seq) {
                    self.counters.received += 1;
                    out.push(Output::Received { from, body, frames });
                }
            }
        }
    }

    /// The other has lost the conversation: what was under way is over on both sides.
    fn begin_anew(&mut self, now: Time, from: &Life, talk: Talk, out: &mut Out<Output>) {
        let Some(reached) = self.reached.get_mut(&from.node) else { return };
        reached.conversation.begin_anew(now, talk.mine);
        let cost_us = reached.cost_us;
        out.push(Output::Lost { life: from.clone() });
        self.introduce(from.node.clone(), from.clone(), cost_us, out);
    }

    /// A link had no room for it.
    pub(super) fn refused(&mut self, message: &Message) {
        match message {
            // It is kept by whoever sent it.
            Message::Packet(_) => self.counters.dropped += 1,
            Message::Spread(spread) => self.counters.lost += spread.to.len() as u64,
            Message::Digest(_) | Message::Delta(_) => {}
        }
    }

    /// Spreads an event that was published here to every broker that wants it.
    pub(super) fn publish(&mut self, event: &Arc<Event>, out: &mut Out<Output>) {
        let mut to = Vec::new();
        for node in self.interest.who(&event.topic) {
            if !self.gives(&node, &event.topic) {
                self.counters.withheld += 1;
                continue;
            }
            let count = self.spread.entry(node.clone()).or_insert(self.forgotten);
            *count += 1;
            to.push((node, *count));
        }
        if to.is_empty() {
            return;
        }
        self.spread(
            Spread {
                from: self.me.clone(),
                to,
                path: vec![self.me.node.clone()],
                topic: event.topic.clone(),
                kind: event.payload.kind as u8,
                payload: event.payload.bytes.clone(),
                headers: event.headers.as_ref().map(|headers| headers.bytes.clone()),
                message: event.message.0,
            },
            out,
        );
    }

    /// Puts an event onto each link that some of those who want it are behind.
    fn spread(&mut self, mut spread: Spread, out: &mut Out<Output>) {
        let mut branches: BTreeMap<LinkId, Vec<(SmolStr, u64)>> = BTreeMap::new();
        for (node, count) in std::mem::take(&mut spread.to) {
            let next = self.routes.next(&node, flow(&spread.from.node, &node));
            let next = next.filter(|next| !spread.path.contains(next) && spread.path.len() <= HOPS);
            match next.and_then(|next| self.link_to(next)) {
                Some(link) => branches.entry(link).or_default().push((node, count)),
                None => self.counters.lost += 1,
            }
        }
        let mut branches = branches.into_iter().peekable();
        while let Some((link, to)) = branches.next() {
            if branches.peek().is_none() {
                let message = Message::Spread(Spread { to, ..spread });
                return out.push(Output::Tell { link, message });
            }
            let message = Message::Spread(Spread { to, ..spread.clone() });
            out.push(Output::Tell { link, message });
        }
    }

    /// An event has come: for this broker, for others behind it, or for both.
    pub(super) fn gather(&mut self, mut spread: Spread, out: &mut Out<Output>) {
        if is_reserved(&spread.topic) {
            self.counters.nonsense += 1;
            return;
        }
        let mine = spread.to.iter().position(|(node, _)| *node == self.me.node);
        let mine = mine.map(|at| spread.to.swap_remove(at).1);
        if let Some(count) = mine {
            self.take_event(&spread, count, out);
        }
        if !spread.to.is_empty() {
            self.counters.relayed += 1;
            spread.path.push(self.me.node.clone());
            self.spread(spread, out);
        }
    }

    fn take_event(&mut self, spread: &Spread, count: u64, out: &mut Out<Output>) {
        let Life { node, epoch } = &spread.from;
        let last = self.gathered.get(node).copied();
        // What comes late was told as a gap already.
        if last.is_some_and(|last| (*epoch, count) <= last) {
            self.counters.dropped += 1;
            return;
        }
        self.gathered.insert(node.clone(), (*epoch, count));
        if !self.takes(node, &spread.topic) {
            self.counters.withheld += 1;
            return;
        }
        // Whoever begins anew counts from 1; where it was when this broker began is not known.
        let before = |(of, last)| if of == *epoch { last } else { 0 };
        let lost = last.map_or(0, |last| count.saturating_sub(before(last) + 1));
        let kind = if spread.kind == Kind::Json as u8 { Kind::Json } else { Kind::Bytes };
        let headers = spread.headers.clone();
        let event = Event {
            topic: spread.topic.clone(),
            payload: Value::new(kind, spread.payload.clone()),
            headers: headers.map(|bytes| Value::new(Kind::Json, bytes)),
            message: RunId(spread.message),
        };
        out.push(Output::Event { from: node.clone(), event: Arc::new(event), lost });
    }
}
