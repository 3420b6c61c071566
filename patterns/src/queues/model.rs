//! Queues against a plain model: whatever happens in whatever order, nothing is lost.
//!
//! The model knows every message that was sent, who has it in hand, and what was said of it. What
//! was confirmed as `fsync` outlasts every crash; what was confirmed as done never comes back; no
//! two hold one message, or two of one key; nobody gets more than its credit; a graph that is told
//! that all it took is done has lost none of it. In the end everything
//! has been done or is a dead letter, and the store is empty when those are done too.

use std::sync::Arc;

use proptest::prelude::*;
use smol_str::{SmolStr, format_smolstr};

use super::{Declaration, Holder, Input, Kind, Output, Queues, Rules, Sender};
use crate::base::{Code, Limits, Origin, Out, PeerId, Refusal, RunId, Time};
use crate::ops::{Delivered, Durability, Event, SendOptions, Settle, Verdict};
use crate::store::shelf::Shelf;
use crate::values::Value;

const PEERS: u32 = 3;
const LEASE_MS: u64 = 1_000;
const GRAPHS: u32 = 2;
/// Calls of the model itself are numbered from 1, those of its graphs from here.
const OF_GRAPHS: u32 = 1 << 31;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Send { times: u8, priority: u8, delay_ms: u64, key: Option<u8> },
    Consume { peer: u32, credit: u32 },
    Settle { peer: u32, which: usize, verdict: Verdict },
    Lose { peer: u32, which: usize },
    Stall { peer: u32, stalled: bool },
    Die { peer: u32 },
    Take { graph: u32 },
    End { graph: u32, failed: bool },
    Pass { ms: u64 },
    Sync,
    Fail,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let delay = prop_oneof![4 => Just(0), 1 => 1..500_u64];
    let key = prop_oneof![2 => Just(None), 1 => (0..2_u8).prop_map(Some)];
    let nack = (prop_oneof![Just(None), (0..50_u64).prop_map(Some)], any::<bool>());
    let verdict = prop_oneof![
        6 => Just(Verdict::Ack),
        2 => nack.prop_map(|(delay_ms, dead)| Verdict::Nack {
            delay_ms,
            reason: None,
            dead: dead && delay_ms.is_none(),
        }),
        1 => Just(Verdict::Extend),
    ];
    prop_oneof![
        6 => (1..6_u8, 0..10_u8, delay, key).prop_map(|(times, priority, delay_ms, key)| {
            Step::Send { times, priority, delay_ms, key }
        }),
        3 => (0..PEERS, 0..9_u32).prop_map(|(peer, credit)| Step::Consume { peer, credit }),
        8 => (0..PEERS, 0..4_usize, verdict)
            .prop_map(|(peer, which, verdict)| Step::Settle { peer, which, verdict }),
        1 => (0..PEERS, 0..4_usize).prop_map(|(peer, which)| Step::Lose { peer, which }),
        1 => (0..PEERS, any::<bool>()).prop_map(|(peer, stalled)| Step::Stall { peer, stalled }),
        1 => (0..PEERS).prop_map(|peer| Step::Die { peer }),
        3 => (0..GRAPHS).prop_map(|graph| Step::Take { graph }),
        2 => (0..GRAPHS, any::<bool>()).prop_map(|(graph, failed)| Step::End { graph, failed }),
        2 => (1..1_500_u64).prop_map(|ms| Step::Pass { ms }),
        4 => Just(Step::Sync),
        1 => Just(Step::Fail),
        1 => Just(Step::Crash),
    ]
}

/// A message as the model knows it.
#[derive(Clone, Debug, Default)]
struct Known {
    message: RunId,
    key: Option<u8>,
    /// The broker said that it has it.
    confirmed: bool,
    /// Its consumer said that it is done.
    done: bool,
    /// The broker said that it knows.
    done_confirmed: bool,
    in_hand: Option<Hand>,
}

#[derive(Clone, Copy, Debug)]
struct Hand {
    holder: Holder,
    id: RunId,
    ends_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Consumer {
    generation: u32,
    credit: u32,
    stalled: bool,
}

/// A graph that takes messages.
#[derive(Clone, Debug, Default)]
struct Taker {
    /// It has lost some of what it had in hand.
    lost: bool,
    /// What it has said is done, until it hears that this is safe.
    said: Vec<usize>,
}

struct World {
    queues: Queues,
    kind: Kind,
    durability: Durability,
    store: Shelf,
    out: Out<Output>,
    now: Time,
    known: Vec<Known>,
    consumers: Vec<Consumer>,
    graphs: Vec<Taker>,
    calls: u32,
    answers: Vec<(u32, String)>,
}

impl World {
    fn new(kind: Kind, durability: Durability) -> Self {
        let mut world = Self {
            queues: Queues::new(Limits::default(), Rules::default(), 1),
            kind,
            durability,
            store: Shelf::default(),
            out: Out::new(),
            now: Time { mono_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 },
            known: Vec::new(),
            consumers: vec![Consumer::default(); PEERS as usize],
            graphs: vec![Taker::default(); GRAPHS as usize],
            calls: 0,
            answers: Vec::new(),
        };
        world.open();
        world.declare();
        world.sync();
        world
    }

    fn declare(&mut self) {
        let declaration = Box::new(Declaration {
            durability: Some(self.durability),
            kind: Some(self.kind),
            max_attempts: Some(5),
            lease_ms: Some(LEASE_MS),
            backoff_ms: Some(10),
            ..Declaration::default()
        });
        let origin = self.origin();
        self.input(Input::Declare { origin, name: "q".into(), declaration });
    }

    fn origin(&mut self) -> Origin {
        self.calls += 1;
        // Those of messages are their numbers.
        Origin::Step { graph: self.calls, step: 0 }
    }

    fn peer(&self, peer: u32) -> PeerId {
        PeerId { slot: peer, generation: self.consumers[peer as usize].generation }
    }

    fn input(&mut self, input: Input) {
        self.queues.handle(self.now, input, &mut self.out);
        self.look();
        while self.queues.wake_at().is_some_and(|at| at <= self.now.mono_ns) {
            self.queues.tick(self.now, &mut self.out);
            self.look();
        }
    }

    fn look(&mut self) {
        let outputs: Vec<Output> = self.out.drain().collect();
        for output in outputs {
            match output {
                Output::Store(ask) => self.store.ask(ask),
                Output::Deliver { to, delivered } => self.delivered(to, &delivered),
                Output::Sent { by: Sender::Origin(Origin::Request(number)), outcome } => {
                    let Ok((message, durability, 1)) = outcome else { continue };
                    assert_eq!(durability, self.durability);
                    let known = &mut self.known[number as usize];
                    (known.message, known.confirmed) = (message, true);
                    let safe = durability == Durability::Memory || known.done;
                    assert!(safe || self.store.has(message), "{number} is said to be safe");
                }
                Output::Acked { id, outcome: Ok((ids, _)), .. } => {
                    let number: usize = id.parse().unwrap();
                    if !ids.is_empty() && self.known[number].done {
                        self.known[number].done_confirmed = true;
                    }
                }
                Output::Done { origin: Origin::Step { graph: OF_GRAPHS, step }, outcome } => {
                    let Ok(body) = outcome else { continue };
                    self.taken(step, &body.value.bytes);
                }
                Output::Settled { graph, outcome } => {
                    let said = std::mem::take(&mut self.graphs[graph as usize].said);
                    for number in said.into_iter().filter(|_| outcome.is_ok()) {
                        self.known[number].done_confirmed = true;
                    }
                }
                Output::Done { origin: Origin::Step { graph, .. }, outcome } => {
                    let text = outcome.map(|body| body.value.bytes).unwrap_or_default();
                    self.answers.push((graph, String::from_utf8_lossy(&text).into_owned()));
                }
                _ => {}
            }
        }
    }

    fn delivered(&mut self, to: PeerId, told: &Delivered) {
        let text = String::from_utf8_lossy(&told.message.event.payload.bytes).into_owned();
        let number: usize = text.parse().unwrap();
        let of = self.consumers[to.slot as usize];
        assert_eq!(of.generation, to.generation, "{number} goes to one that is gone");
        let ends_ms = self.now.wall_ms + LEASE_MS;
        let hand = Hand { holder: Holder::Peer(to), id: told.id, ends_ms };
        let in_hand = self.held_by(number, hand, told.attempt);
        assert!(in_hand < of.credit && !of.stalled, "{number} beside {in_hand} of {of:?}");
    }

    /// A graph has got a message.
    fn taken(&mut self, graph: u32, told: &[u8]) {
        let told: serde_json::Value = serde_json::from_slice(told).unwrap();
        let number = told["payload"].as_u64().unwrap() as usize;
        let id = RunId::parse(told["id"].as_str().unwrap()).unwrap();
        let hand = Hand { holder: Holder::Graph(graph), id, ends_ms: u64::MAX };
        self.held_by(number, hand, told["attempt"].as_u64().unwrap() as u32);
    }

    /// Notes who has a message in hand, which nobody has. How many others it has.
    fn held_by(&mut self, number: usize, hand: Hand, attempt: u32) -> u32 {
        let now_ms = self.now.wall_ms;
        let held = |known: &Known| known.in_hand.filter(|hand| hand.ends_ms > now_ms);
        let known = &self.known[number];
        assert!(!known.done, "{number} is done");
        assert!(held(known).is_none(), "{number} is in somebody's hands");
        assert!((1..=5).contains(&attempt), "attempt {attempt}");
        let (mut in_hand, key) = (0, known.key);
        for (other, known) in self.known.iter().enumerate() {
            let Some(its) = held(known) else { continue };
            in_hand += u32::from(its.holder == hand.holder);
            assert!(key.is_none() || known.key != key, "{number} and {other} have one key");
        }
        self.known[number].in_hand = Some(hand);
        in_hand
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Send { times, priority, delay_ms, key } => {
                (0..times).for_each(|_| self.send(priority, delay_ms, key));
            }
            Step::Consume { peer, credit } => {
                self.consumers[peer as usize].credit = credit;
                let (peer, queue) = (self.peer(peer), "q".into());
                self.input(Input::Consume { peer, id: None, queue, group: None, credit });
            }
            Step::Settle { peer, which, verdict } => self.settle(peer, which, verdict),
            Step::Lose { peer, which } => {
                if let Some((number, hand)) = self.in_hand(peer, which) {
                    self.known[number].in_hand = None;
                    self.input(Input::Undelivered { id: hand.id, refusal: None });
                }
            }
            Step::Stall { peer, stalled } => {
                self.consumers[peer as usize].stalled = stalled;
                let peer = self.peer(peer);
                self.input(match stalled {
                    true => Input::Stalled { peer },
                    false => Input::Flows { peer },
                });
            }
            Step::Die { peer } => self.die(peer),
            Step::Take { graph } => {
                let origin = Origin::Step { graph: OF_GRAPHS, step: graph };
                let (holder, name) = (Holder::Graph(graph), "q".into());
                let deadline_ns = self.now.mono_ns + 300_000_000;
                let next = Input::Next { origin, holder, name, group: None, deadline_ns };
                self.input(next);
            }
            Step::End { graph, failed } => self.end_graph(graph, failed),
            Step::Pass { ms } => self.pass(ms),
            Step::Sync => self.sync(),
            Step::Fail => {
                let told = self.store.fail();
                self.void();
                self.input(Input::Stored(told));
                self.open();
            }
            Step::Crash => self.crash(),
        }
    }

    fn send(&mut self, priority: u8, delay_ms: u64, key: Option<u8>) {
        let number = self.known.len() as u32;
        self.known.push(Known { key, ..Known::default() });
        let payload = Value::json(number.to_string());
        let (topic, message) = (SmolStr::default(), RunId(0));
        let event = Arc::new(Event { topic, payload, headers: None, message });
        let priority = if self.kind == Kind::Priority { priority } else { 0 };
        let key = key.map(|key| format_smolstr!("{key}"));
        let options = SendOptions { delay_ms, priority, key, dedup: None };
        let by = Sender::Origin(Origin::Request(number));
        self.input(Input::Send { by, queue: Some("q".into()), also: Vec::new(), event, options });
    }

    /// One of the messages a peer has in hand.
    fn in_hand(&self, peer: u32, which: usize) -> Option<(usize, Hand)> {
        self.of_holder(Holder::Peer(self.peer(peer))).nth(which)
    }

    fn of_holder(&self, holder: Holder) -> impl Iterator<Item = (usize, Hand)> {
        let hands = self.known.iter().enumerate();
        let hands = hands.filter_map(|(at, known)| Some((at, known.in_hand?)));
        hands.filter(move |(_, hand)| hand.holder == holder)
    }

    fn settle(&mut self, peer: u32, which: usize, verdict: Verdict) {
        let Some((number, hand)) = self.in_hand(peer, which) else { return };
        // Leases end a moment late.
        let in_time = self.queues.consumers.holds(self.peer(peer), hand.id);
        let known = &mut self.known[number];
        match verdict {
            Verdict::Extend if in_time => {
                known.in_hand = Some(Hand { ends_ms: self.now.wall_ms + LEASE_MS, ..hand });
            }
            Verdict::Extend => {}
            _ => known.in_hand = None,
        }
        if verdict == Verdict::Ack && in_time {
            known.done = true;
        }
        let (id, ids) = (Some(format_smolstr!("{number}")), vec![hand.id]);
        let (peer, settle) = (self.peer(peer), Settle { id, ids, verdict });
        self.input(Input::Settle { peer, settle });
    }

    /// A graph's outcome is known, and its slot is another's from then on.
    fn end_graph(&mut self, graph: u32, failed: bool) {
        if !self.graphs[graph as usize].said.is_empty() {
            // One before it waits for the disk.
            return;
        }
        let lost = std::mem::take(&mut self.graphs[graph as usize].lost);
        let hands: Vec<_> = self.of_holder(Holder::Graph(graph)).collect();
        for (number, _) in hands {
            self.known[number].in_hand = None;
            if !failed && !lost {
                self.known[number].done = true;
                self.graphs[graph as usize].said.push(number);
            }
        }
        let failure = failed.then(|| Refusal::new(Code::Failed, "no"));
        self.input(Input::Ended { graph, failure });
    }

    fn die(&mut self, peer: u32) {
        let gone = self.peer(peer);
        for known in &mut self.known {
            known.in_hand.take_if(|hand| hand.holder == Holder::Peer(gone));
        }
        let generation = gone.generation + 1;
        self.consumers[peer as usize] = Consumer { generation, ..Consumer::default() };
        self.input(Input::Gone { peer: gone });
    }

    /// Lets time pass, stopping wherever the queues want to be woken.
    fn pass(&mut self, ms: u64) {
        let until_ns = self.now.mono_ns + ms * 1_000_000;
        while let Some(at) = self.queues.wake_at().filter(|&at| at <= until_ns) {
            self.pass_to(at.max(self.now.mono_ns));
            self.queues.tick(self.now, &mut self.out);
            self.look();
        }
        self.pass_to(until_ns);
    }

    fn pass_to(&mut self, mono_ns: u64) {
        self.now.wall_ms += mono_ns / 1_000_000 - self.now.mono_ns / 1_000_000;
        self.now.mono_ns = mono_ns;
    }

    fn sync(&mut self) {
        for told in self.store.sync() {
            self.input(Input::Stored(told));
        }
    }

    fn open(&mut self) {
        let told = self.store.open();
        self.input(Input::Stored(told));
    }

    /// What was not confirmed may be so or not.
    fn void(&mut self) {
        if self.durability == Durability::Memory {
            return;
        }
        for known in &mut self.known {
            if let Some(Hand { holder: Holder::Graph(graph), .. }) = known.in_hand.take() {
                self.graphs[graph as usize].lost = true;
            }
            known.done = known.done_confirmed;
        }
    }

    fn crash(&mut self) {
        if self.durability == Durability::Memory {
            return;
        }
        self.void();
        for consumer in &mut self.consumers {
            *consumer = Consumer { generation: consumer.generation + 1, ..Consumer::default() };
        }
        self.graphs = vec![Taker::default(); GRAPHS as usize];
        self.queues = Queues::new(Limits::default(), Rules::default(), self.calls.into());
        self.open();
        self.declare();
        self.sync();
    }

    /// Takes all there is, as long as it takes.
    fn drain(&mut self) {
        for peer in 0..PEERS {
            self.die(peer);
        }
        for graph in 0..GRAPHS {
            self.sync();
            self.end_graph(graph, true);
        }
        self.play(Step::Consume { peer: 0, credit: 1_000 });
        for _ in 0..20 {
            self.sync();
            while self.in_hand(0, 0).is_some() {
                self.settle(0, 0, Verdict::Ack);
                self.sync();
            }
            self.pass(1_000);
        }
    }

    fn call(&mut self, input: impl Fn(Origin) -> Input) -> String {
        let origin = self.origin();
        self.input(input(origin));
        while self.store.is_busy() {
            self.sync();
        }
        let answer = self.answers.iter().find(|(call, _)| *call == self.calls);
        answer.expect("an answer").1.clone()
    }

    fn end(mut self) {
        self.drain();
        let stats = |world: &Self| world.queues.stats(world.now, "q").unwrap();
        let dead = stats(&self)["dead"].as_u64().unwrap();
        let lost: Vec<usize> = (0..self.known.len())
            .filter(|at| self.known[*at].confirmed && !self.known[*at].done)
            .collect();
        assert!(lost.len() as u64 <= dead, "{lost:?} are lost, {dead} dead");
        let name = SmolStr::new_static("q");
        let redrive = |origin| Input::Redrive { origin, name: name.clone(), count: 10_000 };
        let told = self.call(redrive);
        assert_eq!(told, format!("{{\"queue\":\"q\",\"messages\":{dead}}}"));
        self.drain();
        let open = self.known.iter().filter(|known| known.confirmed && !known.done);
        assert_eq!(open.count(), 0, "{:?}", stats(&self));
        let left = stats(&self);
        for figure in ["ready", "in_flight", "delayed", "dead", "bytes"] {
            assert_eq!(left[figure], 0, "{left}");
        }
        assert_eq!(self.store.len(), 0, "the store is empty");
        assert_eq!(self.queues.held_bytes(), (0, 0), "{}", self.queues.status());
    }
}

fn check(kind: Kind, durability: Durability, steps: Vec<Step>) {
    let mut world = World::new(kind, durability);
    for step in steps {
        world.play(step);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost(
        kind in prop_oneof![Just(Kind::Fifo), Just(Kind::Priority), Just(Kind::Delay)],
        durability in prop_oneof![Just(Durability::Fsync), Just(Durability::Memory)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(kind, durability, steps);
    }
}

/// First deliveries come in the order sent, within each priority, however long the backlog.
#[test]
fn in_order() {
    for (kind, priorities) in [(Kind::Fifo, 1_u8), (Kind::Priority, 3), (Kind::Delay, 1)] {
        let mut world = World::new(kind, Durability::Fsync);
        for number in 0..100 {
            world.send(number % priorities, 0, None);
        }
        world.sync();
        world.play(Step::Consume { peer: 0, credit: 1 });
        let mut got = Vec::new();
        while got.len() < 100 {
            world.sync();
            let (number, _) = world.in_hand(0, 0).expect("a message");
            got.push(number);
            world.settle(0, 0, Verdict::Ack);
        }
        let priorities = usize::from(priorities);
        for priority in 0..priorities {
            let of: Vec<_> = got.iter().filter(|at| **at % priorities == priority).collect();
            assert!(of.is_sorted(), "{kind:?}: {of:?}");
        }
        assert_eq!(got[0], priorities - 1, "{kind:?}: {got:?}");
    }
}
