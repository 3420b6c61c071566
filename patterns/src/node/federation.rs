//! Other brokers: each stands where a peer stands, and says and hears what peers do.

#[cfg(test)]
mod tests;

use serde_json::{Value as Json, json};
use smol_str::{SmolStr, format_smolstr};

use super::{Envelope, LinkTask, Node, Output};
use crate::base::{Code, Map, Out, PeerId, Refusal, RunId, Time};
use crate::builtins::FederationAsk;
use crate::federation::{Fact, Input, Key, Output as Told};
use crate::ops::{Settle, Verdict};
use crate::queues;
use crate::rpc::{self, News, Shared};
use crate::topics::{self, Family};

/// Messages on their way to the broker that keeps their queue, of each queue at once.
const HANDED_OVER: u32 = 1_024;
/// What is sent to a topic that another broker has bound waits for it in a queue of this name, with
/// the broker's after it.
pub(super) const TOWARDS: &str = "mpreg.broker.";
/// How long a message waits that the broker of its queue could not take, milliseconds.
const LATER_MS: u64 = 1_000;

/// What a broker says about itself: none where it is gone.
type Change = (Key, Option<Fact>);

/// The brokers that can be reached.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    by_node: Map<SmolStr, Other>,
    by_slot: Map<u32, (PeerId, SmolStr)>,
}

/// One of them.
#[derive(Debug)]
struct Other {
    cost_us: u32,
    /// What it is among the peers, once the driver has made room for it.
    peer: Option<PeerId>,
    /// What it said before.
    said: Vec<Change>,
    /// What came from it before.
    early: Vec<Envelope>,
}

impl Beyond {
    /// The broker a peer stands for.
    fn node(&self, peer: PeerId) -> Option<&SmolStr> {
        if self.by_slot.is_empty() {
            return None;
        }
        self.by_slot.get(&peer.slot).filter(|(of, _)| *of == peer).map(|(_, node)| node)
    }
}

impl Node {
    /// Whether a peer stands for another broker.
    pub(super) fn is_far(&self, peer: PeerId) -> bool {
        self.beyond.node(peer).is_some()
    }

    /// There is news of a link. With the first, others are to hear what this broker wants.
    pub(super) fn link(&mut self, now: Time, news: Input) {
        if matches!(news, Input::Up { .. }) {
            let door = self.about.endpoints["door"].as_str().unwrap_or_default().into();
            let (cluster, version) = (self.about.cluster.clone(), self.about.version.clone());
            let fact = Some(Fact::About { cluster, version, door });
            self.federate(now, Input::Own { key: Key::About, fact });
            self.topic(now, topics::Input::Share);
            self.queue(now, queues::Input::Share);
            self.rpc.handle(now, rpc::Input::Share, &mut self.rpc_out);
        }
        self.federate(now, news);
    }

    pub(super) fn federate(&mut self, now: Time, input: Input) {
        self.federation.handle(now, input, &mut self.federation_out);
    }

    /// The driver has made room for a broker among the peers.
    pub(super) fn joined(
        &mut self,
        now: Time,
        node: &SmolStr,
        peer: PeerId,
        out: &mut Out<Output>,
    ) {
        // Meanwhile it may be lost, or lost and found again.
        let other = self.beyond.by_node.get_mut(node).filter(|other| other.peer.is_none());
        let Some(other) = other else { return out.push(Output::Parted { peer }) };
        other.peer = Some(peer);
        let (said, early) = (std::mem::take(&mut other.said), std::mem::take(&mut other.early));
        let cost_us = other.cost_us;
        self.beyond.by_slot.insert(peer.slot, (peer, node.clone()));
        self.news(now, peer, News::Reached { node: node.clone(), cost_us });
        self.afar.reached(now, node, peer, &mut self.afar_out);
        self.says(now, (node, peer), said);
        for queue in self.queues.leading_to(node) {
            self.take_over(now, peer, queue);
        }
        for envelope in early {
            out.push(Output::Received { peer, envelope });
        }
    }

    /// A queue is sent to: if another broker keeps it, what is sent goes there.
    pub(super) fn lead(&mut self, now: Time, queue: &SmolStr) {
        if !self.federation.knows_queues() || self.queues.is_queue(queue) {
            return;
        }
        if let Some(home) = self.federation.home(queue) {
            self.lead_to(now, queue, home);
        }
    }

    /// A topic is sent to: where other brokers have queues or routes bound to it, it goes there
    /// too, but not from one broker on to the next.
    pub(super) fn lead_on(
        &mut self,
        now: Time,
        from: Option<PeerId>,
        queue: Option<&SmolStr>,
        topic: &str,
    ) -> Vec<SmolStr> {
        if queue.is_some() || from.is_some_and(|peer| self.is_far(peer)) {
            return Vec::new();
        }
        let homes = self.federation.bound(topic);
        let lead = |home: SmolStr| {
            let name = format_smolstr!("{TOWARDS}{home}");
            self.lead_to(now, &name, home);
            name
        };
        homes.into_iter().map(lead).collect()
    }

    /// There is to be a queue here that leads to another broker.
    fn lead_to(&mut self, now: Time, queue: &SmolStr, home: SmolStr) {
        if self.queues.is_queue(queue) {
            return;
        }
        self.queue(now, queues::Input::Lead { name: queue.clone(), home: home.clone() });
        let other = self.beyond.by_node.get(&home);
        if let Some(peer) = other.and_then(|other| other.peer) {
            self.take_over(now, peer, queue.clone());
        }
    }

    /// A broker takes what is sent here to a queue of its own.
    fn take_over(&mut self, now: Time, peer: PeerId, queue: SmolStr) {
        let (id, group, credit) = (None, None, HANDED_OVER.min(self.limits.credit));
        self.queue(now, queues::Input::Consume { peer, id, queue, group, credit });
    }

    /// Whether a peer may use a name here: another broker, what the rules between them let it.
    pub(super) fn gives(&self, peer: PeerId, name: &str) -> bool {
        self.beyond.node(peer).is_none_or(|node| self.federation.gives(node, name))
    }

    /// Whether a broker can be asked something now.
    pub(super) fn is_reached(&self, node: &str) -> bool {
        self.beyond.by_node.get(node).is_some_and(|other| other.peer.is_some())
    }

    /// Another broker has a message, as safe as its queue is.
    pub(super) fn handed_over(&mut self, now: Time, peer: PeerId, id: RunId) {
        let settle = Settle { id: None, ids: vec![id], verdict: Verdict::Ack };
        self.queue(now, queues::Input::Settle { peer, settle });
    }

    /// Another broker does not take a message: later perhaps, or never.
    pub(super) fn not_handed_over(&mut self, now: Time, peer: PeerId, id: RunId, why: &Refusal) {
        // Nothing is bound to its topic there any more: it has arrived where nobody takes it.
        if why.is(Code::Unroutable) {
            return self.handed_over(now, peer, id);
        }
        let (delay_ms, reason) = (why.retry.then_some(LATER_MS), Some(why.to_string().into()));
        let verdict = Verdict::Nack { delay_ms, reason, dead: !why.retry };
        let settle = Settle { id: None, ids: vec![id], verdict };
        self.queue(now, queues::Input::Settle { peer, settle });
    }

    /// A peer that stood for a broker is gone.
    pub(super) fn parted(&mut self, peer: PeerId) {
        if self.is_far(peer) {
            self.beyond.by_slot.remove(&peer.slot);
        }
    }

    /// Whether more may be sent to the broker a peer stands for.
    #[must_use]
    pub fn has_room(&self, peer: PeerId) -> bool {
        self.beyond.node(peer).is_some_and(|node| self.federation.has_room(node))
    }

    /// Sends an envelope to the broker a peer stands for.
    pub(super) fn carry(&mut self, now: Time, peer: PeerId, envelope: Envelope) {
        let Some(to) = self.beyond.node(peer).cloned() else { return };
        let Envelope { body, frames } = envelope;
        self.federate(now, Input::Send { to, body, frames });
    }

    /// Tells other brokers what this one's workers run.
    pub(super) fn share(&mut self, now: Time, function: Shared, idempotent: Option<bool>) {
        let Shared { name, version, locs } = function;
        let fact = idempotent.map(|idempotent| Fact::Function { idempotent });
        self.federate(now, Input::Own { key: Key::Function { name, version, locs }, fact });
    }

    /// Tells other brokers how busy this one is.
    pub fn report_load(&mut self, now: Time, out: &mut Out<Output>) {
        let (in_flight, credit) = self.rpc.load();
        let fact = Some(Fact::Load { in_flight, credit });
        self.federate(now, Input::Own { key: Key::Load, fact });
        self.settle(now, out);
    }

    /// A built-in of other brokers.
    pub(super) fn federation_builtin(
        &mut self,
        now: Time,
        ask: FederationAsk,
        out: &mut Out<Output>,
    ) -> Result<Json, Refusal> {
        match ask {
            FederationAsk::Nodes => Ok(self.federation.describe()),
            FederationAsk::Explain { node, name } => {
                self.federation.explain(&node, name.as_deref())
            }
            FederationAsk::Rules => Ok(self.federation.rules()),
            FederationAsk::Rule { neighbour, rule } => {
                if rule.is_some() && !self.federation.has_room_for_rule(&neighbour) {
                    let message = "there are rules for as many neighbours as there may be";
                    return Err(Refusal::field(Code::BadArgs, "neighbour", message));
                }
                let told = json!({ "neighbour": neighbour, "rule": rule.is_some() });
                self.federate(now, Input::Own { key: Key::Rule(neighbour), fact: rule });
                Ok(told)
            }
            FederationAsk::Links => Ok(self.links.clone()),
            FederationAsk::Link(task) => {
                let told = match &task {
                    LinkTask::Add { address, price_us } => {
                        json!({ "address": address, "price_us": price_us })
                    }
                    LinkTask::Remove { address } => json!({ "address": address }),
                };
                out.push(Output::Link(task));
                Ok(told)
            }
        }
    }

    pub(super) fn federation_output(&mut self, now: Time, output: Told, out: &mut Out<Output>) {
        match output {
            Told::Tell { link, message } => out.push(Output::Tell { link, message }),
            Told::Reached { life } => {
                let (cost_us, peer, said, early) = Default::default();
                let other = Other { cost_us, peer, said, early };
                self.beyond.by_node.insert(life.node.clone(), other);
                self.tell_federation(now, &life.node, "reached");
                out.push(Output::Reached { node: life.node });
            }
            Told::Says { node, changes } => {
                let Some(other) = self.beyond.by_node.get_mut(&node) else { return };
                match other.peer {
                    Some(peer) => self.says(now, (&node, peer), changes),
                    None => other.said.extend(changes),
                }
            }
            Told::Cost { node, cost_us } => {
                let Some(other) = self.beyond.by_node.get_mut(&node) else { return };
                other.cost_us = cost_us;
                if let Some(peer) = other.peer {
                    self.news(now, peer, News::Cost(cost_us));
                }
            }
            Told::Lost { life } => {
                self.tell_federation(now, &life.node, "lost");
                let other = self.beyond.by_node.remove(&life.node);
                if let Some(peer) = other.and_then(|other| other.peer) {
                    out.push(Output::Parted { peer });
                }
            }
            Told::Rival { epoch } => {
                let node = self.about.node.clone();
                if self.topics.hears(Family::Federation) {
                    let told = json!({ "node": node, "epoch": epoch });
                    self.tell(now, format_smolstr!("mpreg.federation.{node}.taken"), &told);
                }
                out.push(Output::Taken { node });
            }
            Told::Event { event, lost, from } => {
                if lost > 0 && self.topics.hears(Family::Federation) {
                    let told = json!({ "from": from, "lost": lost });
                    self.tell(now, format_smolstr!("mpreg.federation.{from}.gap"), &told);
                }
                self.publish_to_queues(now, &event);
                let by = topics::Publisher::Socket;
                self.topic(now, topics::Input::Publish { by, event });
            }
            Told::Received { from, body, frames } => {
                let Some(other) = self.beyond.by_node.get_mut(&from.node) else { return };
                let envelope = Envelope { body, frames };
                match other.peer {
                    Some(peer) => out.push(Output::Received { peer, envelope }),
                    None => other.early.push(envelope),
                }
            }
        }
    }

    fn tell_federation(&mut self, now: Time, node: &str, event: &str) {
        if self.topics.hears(Family::Federation) {
            let topic = format_smolstr!("mpreg.federation.{node}.{event}");
            self.tell(now, topic, &json!({ "node": node }));
        }
    }

    fn news(&mut self, now: Time, peer: PeerId, news: News) {
        self.rpc.handle(now, rpc::Input::Far { peer, news }, &mut self.rpc_out);
    }

    fn says(&mut self, now: Time, (node, peer): (&SmolStr, PeerId), changes: Vec<Change>) {
        let mut runs = Vec::new();
        for (key, fact) in changes {
            match (key, fact) {
                (Key::Function { name, version, locs }, fact) => {
                    let idempotent = match fact {
                        Some(Fact::Function { idempotent }) => Some(idempotent),
                        _ => None,
                    };
                    runs.push((Shared { name, version, locs }, idempotent));
                }
                (Key::About, Some(Fact::About { cluster, .. })) => {
                    self.news(now, peer, News::Cluster(cluster));
                }
                (Key::Load, Some(Fact::Load { in_flight, credit })) => {
                    self.news(now, peer, News::Load { in_flight, credit });
                }
                (Key::Queue(queue), fact) => {
                    self.afar.kept(now, node, &queue, fact.is_some(), &mut self.afar_out);
                }
                _ => {}
            }
        }
        if !runs.is_empty() {
            self.news(now, peer, News::Runs(runs));
        }
    }
}
