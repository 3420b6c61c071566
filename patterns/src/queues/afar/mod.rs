//! Queues that other brokers keep, for those who take their messages here.
//!
//! The queue's broker sees one consumer, this broker, with the credit of all who take here. What it
//! delivers goes to them in turn, under its own id, and what they say of it goes back: `acked` is
//! the word of the queue's broker, and nothing is promised here.

mod errands;
mod settle;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use slab::Slab;
use smol_str::SmolStr;

use super::Holder;
use crate::base::{
    Code, Deadlines, Ids, Limits, Map, Origin, Out, PeerId, Refusal, RunId, Time, WaitId,
};
use crate::node::error_reply;
use crate::ops::{Delivered, Reply};
use crate::values::Body;
pub use errands::Errand;
use errands::UnderWay;
use settle::Settling;

/// Queues and groups that are taken from here.
const POSTS: usize = 65_536;
/// How long what a connection had no room for waits, nanoseconds.
const LATER_NS: u64 = 10_000_000;

/// A queue, and which of its groups.
type Of = (SmolStr, Option<SmolStr>);

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Something for a peer, or for the broker that a peer stands for.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        reply: Reply,
    },
    /// A call waits for another broker, and can be given up.
    Begun {
        /// Whose.
        origin: Origin,
        /// Its name from now on.
        wait: WaitId,
    },
    /// The outcome of a call.
    Done {
        /// Whose.
        origin: Origin,
        /// What came of it.
        outcome: Result<Box<Body>, Box<Refusal>>,
    },
    /// What a graph that has ended took from other brokers is settled.
    Ended {
        /// The graph's slot.
        graph: u32,
        /// Why it failed, or why its end does not count.
        failure: Option<Refusal>,
    },
}

/// Who takes from one group of one queue here.
#[derive(Debug)]
struct Post {
    home: SmolStr,
    takers: Vec<Taker>,
    /// Whose turn it is.
    turn: usize,
    /// The credit that the queue's broker knows of.
    credit: u32,
    /// What has come and nobody has room for.
    waiting: VecDeque<Box<Delivered>>,
    /// Who is to hear that it consumes.
    answers: Vec<(PeerId, Option<SmolStr>)>,
}

#[derive(Debug)]
struct Taker {
    peer: PeerId,
    credit: u32,
    in_hand: u32,
}

/// A delivery of another broker's.
#[derive(Debug)]
struct Hand {
    home: PeerId,
    /// None while it waits.
    holder: Option<Holder>,
    /// Where it uses credit: what a call takes does not.
    of: Option<Of>,
    /// What it is, while it may still have to be delivered again.
    delivered: Option<Box<Delivered>>,
}

/// All of it.
#[derive(Debug)]
pub struct Afar {
    epoch: u64,
    most_credit: u32,
    ids: Ids,
    serial: u32,
    /// The brokers that can be reached.
    homes: BTreeMap<SmolStr, PeerId>,
    posts: BTreeMap<Of, Post>,
    /// What each connection takes from.
    takes: BTreeMap<PeerId, BTreeSet<Of>>,
    /// Questions to other brokers, by the ids of the answers.
    asked: Map<RunId, Of>,
    hands: BTreeMap<RunId, Hand>,
    held: BTreeMap<Holder, BTreeSet<RunId>>,
    stalled: BTreeSet<PeerId>,
    /// Those that have waiting messages which found no room, and when they are tried again.
    later: BTreeSet<Of>,
    later_ns: Option<u64>,
    settles: Slab<Settling>,
    /// Those that this broker's own queues have a part in, by who waits and the id it gave.
    settles_here: Map<(PeerId, SmolStr), VecDeque<usize>>,
    parts: BTreeMap<RunId, (PeerId, usize)>,
    errands: Slab<UnderWay>,
    runs: BTreeMap<RunId, u32>,
    deadlines: Deadlines<WaitId>,
    /// Why ends of graphs do not count.
    lost: Map<u32, Refusal>,
}

impl Afar {
    /// Nobody takes anything.
    #[must_use]
    pub fn new(epoch: u64, limits: &Limits, seed: u64) -> Self {
        let (homes, posts, takes, hands, held) = Default::default();
        let (asked, stalled, later, parts, runs, lost) = Default::default();
        Self {
            epoch,
            most_credit: limits.credit,
            ids: Ids::new(seed),
            serial: 0,
            homes,
            posts,
            takes,
            asked,
            hands,
            held,
            stalled,
            later,
            later_ns: None,
            settles: Slab::new(),
            settles_here: Map::default(),
            parts,
            errands: Slab::new(),
            runs,
            deadlines: Deadlines::default(),
            lost,
        }
    }

    /// A connection takes from a queue that another broker keeps.
    pub fn consume(
        &mut self,
        now: Time,
        peer: PeerId,
        id: Option<SmolStr>,
        (of, home): ((SmolStr, Option<SmolStr>), SmolStr),
        credit: u32,
        out: &mut Out<Output>,
    ) {
        if !self.posts.contains_key(&of) && self.posts.len() >= POSTS {
            let message = format!("{POSTS} queues of other brokers are taken from here");
            let reply = error_reply(id, Some("consume"), Refusal::new(Code::Busy, message));
            return out.push(Output::Send { to: peer, reply });
        }
        let post = self.posts.entry(of.clone()).or_insert_with(|| Post {
            home,
            takers: Vec::new(),
            turn: 0,
            credit: 0,
            waiting: VecDeque::new(),
            answers: Vec::new(),
        });
        match post.takers.iter_mut().find(|taker| taker.peer == peer) {
            Some(taker) => taker.credit = credit,
            None => post.takers.push(Taker { peer, credit, in_hand: 0 }),
        }
        post.answers.push((peer, id));
        self.takes.entry(peer).or_default().insert(of.clone());
        self.ask(now, &of, out);
        self.serve(&of, out);
    }

    /// Tells the queue's broker how much is taken here, if that has changed. Who waits for an
    /// answer has it when that broker has answered, or at once if there is nothing to ask.
    fn ask(&mut self, now: Time, of: &Of, out: &mut Out<Output>) {
        let Some(post) = self.posts.get_mut(of) else { return };
        let stalled = &self.stalled;
        let credit = |taker: &Taker| match stalled.contains(&taker.peer) {
            true => taker.in_hand.min(taker.credit),
            false => taker.credit,
        };
        let wanted = post.takers.iter().map(credit).fold(0, u32::saturating_add);
        let wanted = wanted.min(self.most_credit);
        let home = self.homes.get(&post.home).copied();
        match home.filter(|_| wanted != post.credit) {
            Some(to) => {
                post.credit = wanted;
                let id = self.ids.next(now);
                self.asked.insert(id, of.clone());
                let (queue, group) = of.clone();
                let reply = Reply::Consume { id, queue, group, credit: wanted };
                out.push(Output::Send { to, reply });
            }
            // It is told as soon as it can be reached.
            None => self.answer(of, out),
        }
    }

    fn answer(&mut self, of: &Of, out: &mut Out<Output>) {
        let Some(post) = self.posts.get_mut(of) else { return };
        for (to, id) in std::mem::take(&mut post.answers) {
            let Some(taker) = post.takers.iter().find(|taker| taker.peer == to) else { continue };
            let ((queue, group), credit) = (of.clone(), taker.credit);
            let reply = Reply::Consumed { id, epoch: self.epoch, queue, group, credit };
            out.push(Output::Send { to, reply });
        }
    }

    /// A broker has answered what it was asked.
    pub fn consumed(&mut self, id: RunId, out: &mut Out<Output>) {
        if let Some(of) = self.asked.remove(&id) {
            self.answer(&of, out);
        }
    }

    /// A broker has refused something. Whether that was asked here.
    pub fn refused(
        &mut self,
        now: Time,
        id: RunId,
        refusal: &Refusal,
        out: &mut Out<Output>,
    ) -> bool {
        if let Some(of) = self.asked.remove(&id) {
            let answers = self.posts.get_mut(&of).map(|post| {
                post.credit = 0;
                std::mem::take(&mut post.answers)
            });
            for (to, id) in answers.into_iter().flatten() {
                let reply = error_reply(id, Some("consume"), refusal.clone());
                out.push(Output::Send { to, reply });
                self.leave(now, to, &of, out);
            }
            return true;
        }
        self.part_refused(id, refusal, out) || self.errand_refused(id, refusal, out)
    }

    /// A broker delivers.
    pub fn delivered(&mut self, home: PeerId, told: Box<Delivered>, out: &mut Out<Output>) {
        let of = (told.queue.clone(), told.group.clone());
        let Some(post) = self.posts.get_mut(&of) else {
            return Self::give_back(home, vec![told.id], None, out);
        };
        let hand = Hand { home, holder: None, of: Some(of.clone()), delivered: None };
        self.hands.insert(told.id, hand);
        post.waiting.push_back(told);
        self.serve(&of, out);
    }

    /// Hands on what waits, as far as there is credit.
    fn serve(&mut self, of: &Of, out: &mut Out<Output>) {
        let Some(post) = self.posts.get_mut(of) else { return };
        while !post.waiting.is_empty() {
            let takers = post.takers.len();
            let free = (0..takers).map(|step| (post.turn + step) % takers).find(|at| {
                let taker = &post.takers[*at];
                taker.in_hand < taker.credit && !self.stalled.contains(&taker.peer)
            });
            let Some(at) = free else { break };
            let Some(told) = post.waiting.pop_front() else { break };
            post.turn = (at + 1) % takers;
            let taker = &mut post.takers[at];
            taker.in_hand += 1;
            let (to, holder) = (taker.peer, Holder::Peer(taker.peer));
            self.held.entry(holder).or_default().insert(told.id);
            if let Some(hand) = self.hands.get_mut(&told.id) {
                (hand.holder, hand.delivered) = (Some(holder), Some(told.clone()));
            }
            out.push(Output::Send { to, reply: Reply::Deliver(told) });
        }
    }

    /// A delivery did not get to its connection. Whether it is one of another broker's.
    pub fn undelivered(
        &mut self,
        now: Time,
        id: RunId,
        refusal: Option<&Refusal>,
        out: &mut Out<Output>,
    ) -> bool {
        let Some(hand) = self.release(id) else { return false };
        match (refusal, hand.of, hand.delivered) {
            (None, Some(of), Some(told)) => {
                let (home, delivered) = (hand.home, None);
                let back = Hand { home, holder: None, of: Some(of.clone()), delivered };
                self.hands.insert(id, back);
                if let Some(post) = self.posts.get_mut(&of) {
                    post.waiting.push_front(told);
                }
                self.later.insert(of);
                self.later_ns.get_or_insert(now.mono_ns + LATER_NS);
            }
            (refusal, of, _) => {
                Self::give_back(hand.home, vec![id], refusal, out);
                if let Some(of) = of {
                    self.serve(&of, out);
                }
            }
        }
        true
    }

    /// The lease of a delivery has ended at its queue's broker. Whether it was one of these.
    pub fn lapsed(&mut self, id: RunId, out: &mut Out<Output>) -> bool {
        let Some(hand) = self.release(id) else { return false };
        if let Some(Holder::Graph(graph)) = hand.holder {
            let message = "a message that the graph had taken is in its hands no longer";
            self.lost.insert(graph, Refusal::new(Code::OutcomeUnknown, message));
        }
        if let Some(of) = hand.of {
            self.serve(&of, out);
        }
        true
    }

    /// Takes a delivery out of the hands it is in.
    fn release(&mut self, id: RunId) -> Option<Hand> {
        let hand = self.hands.remove(&id)?;
        let post = hand.of.as_ref().and_then(|of| self.posts.get_mut(of));
        match (hand.holder, post) {
            (None, Some(post)) => post.waiting.retain(|told| told.id != id),
            (Some(Holder::Peer(peer)), Some(post)) => {
                if let Some(taker) = post.takers.iter_mut().find(|taker| taker.peer == peer) {
                    taker.in_hand -= 1;
                }
            }
            _ => {}
        }
        if let Some(holder) = hand.holder
            && let Some(ids) = self.held.get_mut(&holder)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.held.remove(&holder);
            }
        }
        Some(hand)
    }

    /// A connection takes nothing more for now, or does again.
    pub fn stalled(&mut self, now: Time, peer: PeerId, stalled: bool, out: &mut Out<Output>) {
        match stalled {
            true => _ = self.stalled.insert(peer),
            false => _ = self.stalled.remove(&peer),
        }
        for of in self.takes.get(&peer).cloned().unwrap_or_default() {
            self.ask(now, &of, out);
            self.serve(&of, out);
        }
    }

    /// A connection has ended: others are to have what it had in hand.
    pub fn gone(&mut self, now: Time, peer: PeerId, out: &mut Out<Output>) {
        self.stalled.remove(&peer);
        self.away(peer, out);
        let held = self.held.get(&Holder::Peer(peer)).cloned().unwrap_or_default();
        for id in held {
            if let Some(hand) = self.release(id) {
                Self::give_back(hand.home, vec![id], None, out);
            }
        }
        for of in self.takes.remove(&peer).unwrap_or_default() {
            self.leave(now, peer, &of, out);
        }
    }

    /// A connection takes from a queue no longer.
    fn leave(&mut self, now: Time, peer: PeerId, of: &Of, out: &mut Out<Output>) {
        let Some(post) = self.posts.get_mut(of) else { return };
        post.takers.retain(|taker| taker.peer != peer);
        post.turn = 0;
        let is_over = post.takers.is_empty();
        if let Some(takes) = self.takes.get_mut(&peer) {
            takes.remove(of);
        }
        self.ask(now, of, out);
        if !is_over {
            return self.serve(of, out);
        }
        let Some(post) = self.posts.remove(of) else { return };
        for told in post.waiting {
            if let Some(hand) = self.hands.remove(&told.id) {
                Self::give_back(hand.home, vec![told.id], None, out);
            }
        }
    }

    /// A broker can be reached.
    pub fn reached(&mut self, now: Time, node: &SmolStr, home: PeerId, out: &mut Out<Output>) {
        self.homes.insert(node.clone(), home);
        let posts = self.posts.iter().filter(|(_, post)| post.home == *node);
        for of in posts.map(|(of, _)| of.clone()).collect::<Vec<_>>() {
            self.ask(now, &of, out);
        }
        self.send_again(now, node, home, out);
    }

    /// A broker keeps a queue, or does no longer.
    pub fn kept(
        &mut self,
        now: Time,
        node: &SmolStr,
        queue: &SmolStr,
        kept: bool,
        out: &mut Out<Output>,
    ) {
        let posts = self.posts.range((queue.clone(), None)..);
        let of_queue = posts.take_while(|((name, _), _)| name == queue);
        for of in of_queue.map(|(of, _)| of.clone()).collect::<Vec<_>>() {
            let Some(post) = self.posts.get_mut(&of) else { continue };
            if kept {
                if !self.homes.contains_key(&post.home) {
                    post.home = node.clone();
                }
                self.ask(now, &of, out);
            } else if post.home == *node {
                self.void(&of);
            }
        }
    }

    /// What came of a queue is void: its broker has forgotten who consumes.
    fn void(&mut self, of: &Of) {
        let ids = self.hands.iter().filter(|(_, hand)| hand.of.as_ref() == Some(of));
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.release(id);
        }
        if let Some(post) = self.posts.get_mut(of) {
            post.credit = 0;
        }
    }

    /// A peer may have stood for a broker, which can be reached no longer.
    fn away(&mut self, peer: PeerId, out: &mut Out<Output>) {
        let node = self.homes.iter().find(|(_, home)| **home == peer).map(|(node, _)| node.clone());
        let Some(node) = node else { return };
        self.homes.remove(&node);
        let posts = self.posts.iter().filter(|(_, post)| post.home == node);
        for of in posts.map(|(of, _)| of.clone()).collect::<Vec<_>>() {
            self.void(&of);
            self.asked.retain(|_, asked| *asked != of);
            self.answer(&of, out);
        }
        let taken = self.hands.iter().filter(|(_, hand)| hand.home == peer).map(|(id, _)| *id);
        for id in taken.collect::<Vec<_>>() {
            self.lapsed(id, out);
        }
        let why = format!("the broker {node} was lost before it answered");
        let why = Refusal::new(Code::OutcomeUnknown, why);
        let parts = self.parts.iter().filter(|(_, (home, _))| *home == peer).map(|(id, _)| *id);
        for part in parts.collect::<Vec<_>>() {
            self.part_refused(part, &why, out);
        }
        self.errands_lost(&node, &why, out);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        if self.later_ns.is_some_and(|at| at <= now.mono_ns) {
            self.later_ns = None;
            for of in std::mem::take(&mut self.later) {
                self.serve(&of, out);
            }
        }
        while let Some(wait) = self.deadlines.due(now.mono_ns) {
            self.errand_due(wait, out);
        }
    }

    /// When `tick` next has work, in monotonic nanoseconds.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        self.later_ns.into_iter().chain(self.deadlines.next_ns()).min()
    }
}
