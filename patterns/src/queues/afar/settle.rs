//! What became of messages that came from other brokers: their word is waited for.

use std::collections::BTreeMap;

use smol_str::{SmolStr, ToSmolStr};

use super::{Afar, Output};
use crate::base::{Code, Out, PeerId, Refusal, RunId, Time};
use crate::node::error_reply;
use crate::ops::{Reply, Settle, Verdict};
use crate::queues::Holder;

/// Of which deliveries it is so now, and which were not in hand; or why it is not.
type Word = Result<(Vec<RunId>, Vec<RunId>), Refusal>;

/// One who waits to hear that what was said of messages is so.
#[derive(Debug)]
pub(super) struct Settling {
    whose: Whose,
    ids: Vec<RunId>,
    unknown: Vec<RunId>,
    error: Option<Refusal>,
    /// Brokers that have not answered, this one included.
    parts: u32,
}

#[derive(Debug)]
enum Whose {
    Peer(PeerId, SmolStr),
    Graph(u32),
}

impl Afar {
    /// A connection says what became of messages. What is left is about queues of this broker.
    pub fn settle(
        &mut self,
        now: Time,
        peer: PeerId,
        settle: Settle,
        out: &mut Out<Output>,
    ) -> Option<Settle> {
        let Some(held) = self.held.get(&Holder::Peer(peer)) else { return Some(settle) };
        let Settle { id, ids, verdict } = settle;
        let (far, near): (Vec<RunId>, Vec<RunId>) =
            ids.into_iter().partition(|delivery| held.contains(delivery));
        if far.is_empty() {
            return Some(Settle { id, ids: near, verdict });
        }
        let whose = id.clone().map(|id| Whose::Peer(peer, id));
        self.pass_on(now, far, &verdict, (whose, !near.is_empty()), out);
        (!near.is_empty()).then_some(Settle { id, ids: near, verdict })
    }

    /// A graph that has taken messages has ended. How, unless another broker is to answer first.
    pub fn ended(
        &mut self,
        now: Time,
        graph: u32,
        failure: Option<Refusal>,
        out: &mut Out<Output>,
    ) -> Option<Option<Refusal>> {
        let failure = failure.or_else(|| self.lost.get(&graph).cloned());
        let held = self.held.get(&Holder::Graph(graph)).cloned().unwrap_or_default();
        if held.is_empty() {
            return Some(failure);
        }
        let held = held.into_iter().collect();
        match failure {
            None => {
                let whose = Some(Whose::Graph(graph));
                self.pass_on(now, held, &Verdict::Ack, (whose, false), out);
                None
            }
            // What goes back is as safe as it was.
            Some(why) => {
                let reason = Some(format!("the graph failed: {why}").into());
                let verdict = Verdict::Nack { delay_ms: None, reason, dead: false };
                self.pass_on(now, held, &verdict, (None, false), out);
                Some(Some(why))
            }
        }
    }

    /// Why the end of a graph does not count, if it does not.
    pub fn take_lost(&mut self, graph: u32) -> Option<Refusal> {
        self.lost.remove(&graph)
    }

    fn pass_on(
        &mut self,
        now: Time,
        ids: Vec<RunId>,
        verdict: &Verdict,
        (whose, near): (Option<Whose>, bool),
        out: &mut Out<Output>,
    ) {
        let mut by_home: BTreeMap<PeerId, Vec<RunId>> = BTreeMap::new();
        let mut served = Vec::new();
        for id in ids {
            let Some(home) = self.hands.get(&id).map(|hand| hand.home) else { continue };
            by_home.entry(home).or_default().push(id);
            if *verdict != Verdict::Extend {
                // In nobody's hands here, whatever its queue's broker says.
                served.extend(self.release(id).and_then(|hand| hand.of));
            }
        }
        let parts = by_home.len() as u32 + u32::from(near);
        let (ids, unknown, error) = Default::default();
        let named = match &whose {
            Some(Whose::Peer(peer, id)) if near => Some((*peer, id.clone())),
            _ => None,
        };
        let key =
            whose.map(|whose| self.settles.insert(Settling { whose, ids, unknown, error, parts }));
        if let (Some(named), Some(key)) = (named, key) {
            self.settles_here.entry(named).or_default().push_back(key);
        }
        for (home, ids) in by_home {
            let part = key.map(|key| {
                let part = self.ids.next(now);
                self.parts.insert(part, (home, key));
                part.to_smolstr()
            });
            let settle = Settle { id: part, ids, verdict: verdict.clone() };
            out.push(Output::Send { to: home, reply: Reply::Settle(settle) });
        }
        served.sort_unstable();
        served.dedup();
        for of in served {
            self.serve(&of, out);
        }
    }

    /// Others are to have deliveries: they were in nobody's hands, or in those of one who is gone.
    pub(super) fn give_back(
        home: PeerId,
        ids: Vec<RunId>,
        why: Option<&Refusal>,
        out: &mut Out<Output>,
    ) {
        let reason = why.map(|why| why.to_string().into());
        let delay_ms = why.is_none().then_some(0);
        let verdict = Verdict::Nack { delay_ms, reason, dead: false };
        let reply = Reply::Settle(Settle { id: None, ids, verdict });
        out.push(Output::Send { to: home, reply });
    }

    /// A broker says what is so.
    pub fn acked(
        &mut self,
        part: RunId,
        (ids, unknown): (Vec<RunId>, Vec<RunId>),
        out: &mut Out<Output>,
    ) {
        if let Some((_, key)) = self.parts.remove(&part) {
            self.part(key, Ok((ids, unknown)), out);
        }
    }

    /// The queues of this broker say what is so. Gives it back where nobody else was asked too.
    pub fn acked_here(
        &mut self,
        peer: PeerId,
        id: &SmolStr,
        outcome: Word,
        out: &mut Out<Output>,
    ) -> Option<Word> {
        if self.settles_here.is_empty() {
            return Some(outcome);
        }
        let named = (peer, id.clone());
        let Some(keys) = self.settles_here.get_mut(&named) else { return Some(outcome) };
        let key = keys.pop_front();
        if keys.is_empty() {
            self.settles_here.remove(&named);
        }
        if let Some(key) = key {
            self.part(key, outcome, out);
        }
        None
    }

    pub(super) fn part_refused(
        &mut self,
        part: RunId,
        why: &Refusal,
        out: &mut Out<Output>,
    ) -> bool {
        let Some((_, key)) = self.parts.remove(&part) else { return false };
        self.part(key, Err(why.clone()), out);
        true
    }

    fn part(&mut self, key: usize, outcome: Word, out: &mut Out<Output>) {
        let Some(settling) = self.settles.get_mut(key) else { return };
        match outcome {
            Ok((ids, unknown)) => {
                settling.ids.extend(ids);
                settling.unknown.extend(unknown);
            }
            Err(why) => settling.error = Some(why),
        }
        settling.parts -= 1;
        if settling.parts > 0 {
            return;
        }
        let Settling { whose, ids, unknown, error, .. } = self.settles.remove(key);
        match (whose, error) {
            (Whose::Peer(to, id), None) => {
                out.push(Output::Send { to, reply: Reply::Acked { id, ids, unknown } });
            }
            (Whose::Peer(to, id), Some(error)) => {
                let reply = error_reply(Some(id), Some("ack"), error);
                out.push(Output::Send { to, reply });
            }
            (Whose::Graph(graph), error) => {
                let late = || {
                    let message = "a message that the graph had taken was in its hands no longer";
                    Refusal::new(Code::OutcomeUnknown, message)
                };
                let failure = error.or_else(|| (!unknown.is_empty()).then(late));
                if let Some(failure) = &failure {
                    self.lost.insert(graph, failure.clone());
                }
                out.push(Output::Ended { graph, failure });
            }
        }
    }
}
