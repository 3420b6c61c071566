//! Topics against a plain model: whatever happens in whatever order, who gets what.
//!
//! The model knows every event that was published, in order, and matches with a recursion of ten
//! lines. A replay must get exactly what matches from its beginning on, in order, once; what it
//! does not get must have been gone from the log, and be told. A live subscription gets what
//! matches while it is held, but for what is counted as dropped.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Counters, Input, Output, Publisher, Retain, Topics};
use crate::base::{Limits, Out, PeerId, RunId, Time};
use crate::names::Pattern;
use crate::ops::{Event, Replay, Subscribe};
use crate::values::Value;

const TOPICS: [&str; 5] = ["a", "a.x", "a.y", "a.x.y", "b.x"];
const PATTERNS: [&str; 6] = ["a.#", "a.*", "a.x", "a.#.y", "a", "a.*.#"];
const PEERS: u32 = 3;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Publish { topic: usize, times: u8 },
    Subscribe { peer: u32, pattern: usize, from: Option<Replay>, credit: Option<u32> },
    Unsubscribe { peer: u32, pattern: usize },
    Ack { peer: u32, events: u32 },
    Stall { peer: u32, stalled: bool },
    Die { peer: u32 },
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let from = prop_oneof![
        Just(None),
        Just(Some(Replay::All)),
        (0..30_u64).prop_map(|seq| Some(Replay::Seq(seq))),
        (0..8_u32).prop_map(|last| Some(Replay::Last(last))),
    ];
    let credit = prop_oneof![2 => Just(None), 1 => (0..6_u32).prop_map(Some)];
    prop_oneof![
        6 => (0..TOPICS.len(), 1..6_u8).prop_map(|(topic, times)| Step::Publish { topic, times }),
        3 => (0..PEERS, 0..PATTERNS.len(), from, credit).prop_map(
            |(peer, pattern, from, credit)| Step::Subscribe { peer, pattern, from, credit }
        ),
        1 => (0..PEERS, 0..PATTERNS.len())
            .prop_map(|(peer, pattern)| Step::Unsubscribe { peer, pattern }),
        3 => (0..PEERS, 1..5_u32).prop_map(|(peer, events)| Step::Ack { peer, events }),
        2 => (0..PEERS, any::<bool>()).prop_map(|(peer, stalled)| Step::Stall { peer, stalled }),
        1 => (0..PEERS).prop_map(|peer| Step::Die { peer }),
        4 => Just(Step::Pass),
    ]
}

/// Whether a pattern matches, word by word.
fn matches(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([], []) => true,
        (["#", rest @ ..], _) => {
            matches(rest, topic) || (!topic.is_empty() && matches(pattern, &topic[1..]))
        }
        (["*", rest @ ..], [_, topic @ ..]) => matches(rest, topic),
        ([word, rest @ ..], [first, topic @ ..]) => word == first && matches(rest, topic),
        _ => false,
    }
}

fn is_in(pattern: usize, topic: usize) -> bool {
    let words = |text: &'static str| text.split('.').collect::<Vec<_>>();
    matches(&words(PATTERNS[pattern]), &words(TOPICS[topic]))
}

/// What a subscription has got so far.
#[derive(Clone, Debug)]
struct Got {
    from: Option<Replay>,
    /// Events of the log, and of all, when it began.
    logged: u64,
    published: usize,
    /// Sequence number, number of the event, and `missed`.
    events: Vec<(u64, usize, u64)>,
}

/// The system, and what is known of it from outside.
struct World {
    topics: Topics,
    out: Out<Output>,
    now: Time,
    keep: usize,
    /// The topic of each event, and its number in the log, from 1, if it is kept.
    events: Vec<(usize, Option<u64>)>,
    logged: u64,
    lives: [u32; PEERS as usize],
    credit: [Option<u32>; PEERS as usize],
    in_hand: [u32; PEERS as usize],
    held: Vec<Vec<Option<Got>>>,
}

impl World {
    fn new(keep: usize) -> Self {
        let pattern = Pattern::parse("a.#").unwrap();
        let (max_age_ms, max_bytes) = (1 << 40, 1 << 30);
        let rule = Retain { pattern, max_age_ms, max_count: keep, max_bytes, stored: false };
        Self {
            topics: Topics::new(Limits::default(), &[rule], 1),
            out: Out::new(),
            now: Time { mono_ns: 1, wall_ms: 1_700_000_000_000 },
            keep,
            events: Vec::new(),
            logged: 0,
            lives: [0; PEERS as usize],
            credit: [None; PEERS as usize],
            in_hand: [0; PEERS as usize],
            held: vec![vec![None; PATTERNS.len()]; PEERS as usize],
        }
    }

    fn id(&self, peer: u32) -> PeerId {
        PeerId { slot: peer, generation: self.lives[peer as usize] }
    }

    fn input(&mut self, input: Input) {
        self.topics.handle(self.now, input, &mut self.out);
        self.look();
    }

    /// Another moment: what waits goes on.
    fn pass(&mut self) {
        self.now.mono_ns += 1_000_000;
        self.topics.tick(self.now, &mut self.out);
        self.look();
    }

    fn look(&mut self) {
        for output in self.out.drain() {
            let Output::Event { to, delivery } = output else { continue };
            let peer = to.slot as usize;
            assert_eq!(to.generation, self.lives[peer], "to a connection that is gone");
            let number: usize =
                std::str::from_utf8(&delivery.event.payload.bytes).unwrap().parse().unwrap();
            let pattern = PATTERNS.iter().position(|text| *text == delivery.pattern).unwrap();
            assert!(is_in(pattern, self.events[number].0), "it does not match");
            let got = self.held[peer][pattern].as_mut().expect("it is held");
            got.events.push((delivery.seq, number, delivery.missed));
            if let Some(credit) = self.credit[peer] {
                self.in_hand[peer] += 1;
                assert!(self.in_hand[peer] <= credit, "more than its credit");
            }
        }
    }

    fn publish(&mut self, topic: usize) {
        let number = self.events.len();
        let kept = TOPICS[topic].starts_with('a');
        self.logged += u64::from(kept);
        self.events.push((topic, kept.then_some(self.logged)));
        let payload = Value::json(number.to_string().into_bytes());
        let topic = TOPICS[topic].into();
        let event = Arc::new(Event { topic, payload, headers: None, message: RunId(0) });
        self.input(Input::Publish { by: Publisher::Socket, event });
    }

    fn subscribe(&mut self, peer: u32, pattern: usize, from: Option<Replay>, credit: Option<u32>) {
        let at = peer as usize;
        if let Some(credit) = credit {
            if self.credit[at].is_none() {
                self.in_hand[at] = 0;
            }
            self.credit[at] = Some(credit);
        }
        // What is in hand already may be more than a window that shrinks.
        self.in_hand[at] = self.in_hand[at].min(self.credit[at].unwrap_or(u32::MAX));
        let (logged, published) = (self.logged, self.events.len());
        let new = Got { from, logged, published, events: Vec::new() };
        self.held[at][pattern].get_or_insert(new);
        let patterns = Some(Value::from_serialize(&[PATTERNS[pattern]]));
        let ask = Subscribe { id: None, patterns, credit, replay: from };
        self.input(Input::Subscribe { peer: self.id(peer), ask });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { topic, times } => (0..times).for_each(|_| self.publish(topic)),
            Step::Subscribe { peer, pattern, from, credit } => {
                self.subscribe(peer, pattern, from, credit);
            }
            Step::Unsubscribe { peer, pattern } => {
                let patterns = Some(Value::from_serialize(&[PATTERNS[pattern]]));
                let (peer, at) = (self.id(peer), peer as usize);
                self.input(Input::Unsubscribe { peer, id: None, patterns });
                self.check(at, pattern, false);
                self.held[at][pattern] = None;
            }
            Step::Ack { peer, events } => {
                let in_hand = &mut self.in_hand[peer as usize];
                *in_hand = in_hand.saturating_sub(events);
                self.input(Input::Ack { peer: self.id(peer), events });
            }
            Step::Stall { peer, stalled: true } => {
                self.input(Input::Stalled { peer: self.id(peer) });
            }
            Step::Stall { peer, stalled: false } => {
                self.input(Input::Flows { peer: self.id(peer) });
            }
            Step::Die { peer } => {
                let at = peer as usize;
                self.input(Input::Gone { peer: self.id(peer) });
                (0..PATTERNS.len()).for_each(|pattern| self.check(at, pattern, false));
                self.held[at] = vec![None; PATTERNS.len()];
                self.lives[at] += 1;
                (self.credit[at], self.in_hand[at]) = (None, 0);
            }
            Step::Pass => self.pass(),
        }
    }

    /// Everybody takes everything there is.
    fn settle(&mut self) {
        for peer in 0..PEERS {
            self.input(Input::Flows { peer: self.id(peer) });
        }
        for _ in 0..500 {
            for peer in 0..PEERS {
                if self.credit[peer as usize] == Some(0) {
                    self.credit[peer as usize] = Some(1);
                    let ask = Subscribe { credit: Some(1), ..Subscribe::default() };
                    self.input(Input::Subscribe { peer: self.id(peer), ask });
                }
                self.in_hand[peer as usize] = 0;
                self.input(Input::Ack { peer: self.id(peer), events: u32::MAX });
            }
            self.pass();
        }
    }

    /// Compares what one subscription has got with what it should have; `ended` if all is there.
    fn check(&self, peer: usize, pattern: usize, ended: bool) {
        let Some(got) = &self.held[peer][pattern] else { return };
        match got.from {
            Some(from) => self.check_replay(got, pattern, from, ended),
            None => {
                let seqs: Vec<u64> = got.events.iter().map(|event| event.0).collect();
                assert!(seqs.windows(2).all(|two| two[0] < two[1]), "{seqs:?}");
                let first = got.events.iter().map(|event| event.1).min();
                assert!(first.is_none_or(|first| first >= got.published), "from before");
            }
        }
    }

    fn check_replay(&self, got: &Got, pattern: usize, from: Replay, ended: bool) {
        let matching =
            |&&(topic, seq): &&(usize, Option<u64>)| seq.is_some() && is_in(pattern, topic);
        let all: Vec<u64> =
            self.events.iter().filter(matching).filter_map(|event| event.1).collect();
        let oldest = (got.logged + 1).saturating_sub(self.keep as u64).max(1);
        let begin = match from {
            Replay::Seq(seq) => seq.clamp(1, got.logged + 1).max(oldest),
            Replay::Last(last) => {
                let before = all.iter().rev().filter(|seq| (oldest..=got.logged).contains(seq));
                before.take(last as usize).last().copied().unwrap_or(got.logged + 1)
            }
            _ => oldest,
        };
        let seqs: Vec<u64> = got.events.iter().map(|event| event.0).collect();
        // The last so many are looked for in a turn of their own, when some may be gone.
        let looked = matches!(from, Replay::Last(_)) && self.logged > self.keep as u64;
        let begin = if looked { seqs.first().map_or(u64::MAX, |&at| at.max(begin)) } else { begin };
        let wanted: Vec<u64> = all.into_iter().filter(|&seq| seq >= begin).collect();
        assert!(got.events.iter().all(|event| self.events[event.1].1 == Some(event.0)));
        assert!(seqs.windows(2).all(|two| two[0] < two[1]), "in order and once: {seqs:?}");
        let last = seqs.last().copied().unwrap_or(0);
        let gaps = wanted.iter().filter(|seq| **seq < last && !seqs.contains(seq)).count() as u64;
        let missed: u64 = got.events.iter().map(|event| event.2).sum();
        assert!(gaps <= missed, "gaps that were not told: {seqs:?} of {wanted:?}");
        assert!(seqs.iter().all(|seq| wanted.contains(seq)), "{seqs:?} of {wanted:?}");
        // What is missing at the end is gone from the log; the next event would tell.
        let kept = (self.logged + 1).saturating_sub(self.keep as u64);
        let rest = wanted.iter().filter(|seq| **seq > last && **seq >= kept).count();
        assert!(!ended || rest == 0, "the end: {seqs:?} of {wanted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_what_is_theirs(
        keep in prop_oneof![Just(1_000_usize), Just(4)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(keep);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        for peer in 0..PEERS as usize {
            (0..PATTERNS.len()).for_each(|pattern| world.check(peer, pattern, true));
        }
        let Counters { published, .. } = world.topics.counters();
        prop_assert_eq!(published, world.events.len() as u64);
        for peer in 0..PEERS {
            world.step(&Step::Die { peer });
        }
        for _ in 0..10 {
            world.pass();
        }
        prop_assert_eq!(world.topics.patterns(), 1, "the log's alone");
    }
}
