//! A message that routes take goes to their queues.
//!
//! No queue is asked twice for one message: what an earlier route has given it, or it has refused,
//! is settled. Of a route's queues that take turns, one that has no room is passed over; where
//! none has any, one that makes room in its own way gets the message, else the first says no.

use std::sync::Arc;

use smol_str::SmolStr;

use super::super::bindings::Found;
use super::super::send::Reached;
use super::super::{Output, Queues, WhenFull};
use super::{Plan, Strategy};
use crate::base::{Code, Out, Refusal, Time};
use crate::ops::{Event, SendOptions};
use crate::store::Message;

/// A queue of a route, and its place among them.
type Candidate = (usize, u32);

impl Queues {
    /// Gives a message to the queues of all routes that take it. Nobody has it where this fails.
    pub(in super::super) fn send_by_routes(
        &mut self,
        now: Time,
        found: &mut Found,
        (event, options, is_told): (&Arc<Event>, &SendOptions, bool),
        reached: &mut Reached,
        out: &mut Out<Output>,
    ) -> Result<(), Refusal> {
        let mut plans = std::mem::take(&mut self.routes.plans);
        plans.clear();
        let judged = self.routes.plan(&mut found.routes, (event, options), is_told, &mut plans);
        if judged.is_ok() {
            for Plan { slot, changed } in plans.drain(..) {
                let (event, options) =
                    changed.as_ref().map_or((event, options), |(event, options)| (event, options));
                self.send_by(now, slot, (event, options), reached, out);
            }
        }
        plans.clear();
        self.routes.plans = plans;
        reached.no = judged?.or_else(|| reached.no.take());
        Ok(())
    }

    /// Gives a message to the queues of one route.
    fn send_by(
        &mut self,
        now: Time,
        slot: u32,
        (event, options): (&Arc<Event>, &SendOptions),
        reached: &mut Reached,
        out: &mut Out<Output>,
    ) {
        let mut candidates = self.candidates(slot);
        let route = &mut self.routes.slots[slot as usize];
        let (all, strategy) = (route.settings.to.len(), route.settings.strategy);
        route.counters.missing += (all - candidates.len()) as u64;
        if candidates.is_empty() {
            route.counters.failed += 1;
            let message = format!("no queue of route {} is there", route.name);
            reached.no = Some(Refusal::field(Code::Unroutable, "topic", message));
            return;
        }
        candidates.retain(|(_, at)| !reached.asked.contains(at));
        if candidates.is_empty() {
            return;
        }
        if strategy != Strategy::Fanout {
            let chosen = self.choose(now, strategy, &mut candidates, (event, options));
            self.routes.slots[slot as usize].next = chosen.0 + 1;
            candidates.clear();
            candidates.push(chosen);
        }
        let mut sent = 0;
        for (_, at) in candidates {
            let taken = self.enqueue(now, at, event, options, out);
            sent += u64::from(taken.is_ok());
            reached.asked.push(at);
            reached.note(taken);
        }
        let counters = &mut self.routes.slots[slot as usize].counters;
        counters.sent += sent;
        counters.failed += u64::from(sent == 0);
    }

    /// The queues of a route that are there, the one whose turn it is first where they take turns.
    fn candidates(&self, slot: u32) -> Vec<Candidate> {
        let route = &self.routes.slots[slot as usize];
        let queues = &route.settings.to;
        let first = match route.settings.strategy {
            Strategy::RoundRobin => route.next % queues.len(),
            _ => 0,
        };
        let places = (first..queues.len()).chain(0..first);
        let found = |place: usize| Some((place, *self.by_name.get(&queues[place])?));
        places.filter_map(found).collect()
    }

    /// The one of some queues that gets a message.
    fn choose(
        &mut self,
        now: Time,
        strategy: Strategy,
        among: &mut [Candidate],
        (event, options): (&Event, &SendOptions),
    ) -> Candidate {
        match strategy {
            Strategy::Random => {
                for at in (1..among.len()).rev() {
                    among.swap(at, self.rng.below(at + 1));
                }
            }
            Strategy::LeastLoaded => among.sort_by_key(|(_, at)| self.load(*at)),
            Strategy::Fanout | Strategy::RoundRobin | Strategy::Priority => {}
        }
        // One that knows the message as a repeated one says so.
        let has_it = |(_, at): &&Candidate| self.repeats(now, *at, options).is_some();
        if options.dedup.is_some()
            && let Some(first) = among.iter().find(has_it)
        {
            return *first;
        }
        let bytes = Message::bytes_of(event, options.key.as_ref()) as u64;
        let open = || among.iter().filter(|(_, at)| self.turns_away(*at, options).is_none());
        let settings = |at: u32| &self.queues[at as usize].settings;
        let with_room = open().find(|(_, at)| self.has_room(*at, bytes));
        let makes_room = || open().find(|(_, at)| settings(*at).when_full != WhenFull::Refuse);
        *with_room.or_else(makes_room).unwrap_or(&among[0])
    }

    /// Messages of a queue that are ready or in hand, in all its groups.
    fn load(&self, at: u32) -> u64 {
        let lines = self.queues[at as usize].lines.iter().map(|at| &self.lines[*at as usize]);
        lines.map(|line| line.ready() + u64::from(line.in_hand)).sum()
    }

    fn has_room(&self, at: u32, bytes: u64) -> bool {
        let queue = &self.queues[at as usize];
        let gets = (0..queue.lines.len()).filter_map(|index| self.line_that_gets(at, index));
        let mut lines = gets.map(|line| &self.lines[line as usize]);
        lines.all(|line| line.has_room(&queue.settings, bytes))
    }

    /// Names among `queues` of which there is none.
    pub(super) fn missing<'a>(&self, queues: &'a [SmolStr]) -> Vec<&'a SmolStr> {
        queues.iter().filter(|name| !self.by_name.contains_key(*name)).collect()
    }
}
