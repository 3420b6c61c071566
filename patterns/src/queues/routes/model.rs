//! Routes against a plain model: whatever happens to the table in whatever order, each message goes
//! where the table of that moment leads it, and what was confirmed is there after a failure.
//!
//! The model is a list of routes, one in memory and one on disk, gone through with loops. Which
//! queue is full, and how much waits in it, it reads from the queues themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use smol_str::{SmolStr, format_smolstr};

use super::super::{Declaration, Input, Output, Queues, RouteSettings, Rules, Sender, WhenFull};
use super::Strategy as How;
use crate::base::{Limits, Origin, Out, RunId, Time};
use crate::ops::{Event, SendOptions};
use crate::store::Ask;
use crate::store::shelf::Shelf;
use crate::values::Value;

const NOW: Time = Time { mono_ns: 1_000_000_000, wall_ms: 1_700_000_000_000 };
const STRATEGIES: [How; 5] =
    [How::Fanout, How::RoundRobin, How::Priority, How::LeastLoaded, How::Random];
/// Queues, how much they hold, and what becomes of more.
const QUEUES: [(&str, u64, WhenFull); 4] = [
    ("q0", 2, WhenFull::Refuse),
    ("q1", 3, WhenFull::Refuse),
    ("q2", 2, WhenFull::DropOldest),
    ("q3", 1_000, WhenFull::Refuse),
];
/// Bound to `a` by itself.
const BOUND: &str = "q3";

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Add { name: usize, spec: Spec, if_version: Option<u64> },
    Remove { name: usize, if_version: Option<u64> },
    Send { topic: &'static str, number: u64 },
    Purge { queue: usize },
    Delete { queue: usize },
    Declare { queue: usize },
    Sync,
    Fail,
}

#[derive(Clone, Debug, PartialEq)]
struct Spec {
    bind: &'static str,
    below: Option<u64>,
    to: Vec<usize>,
    how: How,
}

fn step() -> impl Strategy<Value = Step> {
    let to = Just(vec![0, 1, 2, 3_usize]).prop_shuffle();
    let to = (to, 1..=4_usize).prop_map(|(to, most)| to[..most].to_vec());
    let spec =
        (select(&["a", "b", "*"][..]), prop::option::of(0..5_u64), to, select(&STRATEGIES[..]));
    let spec = spec.prop_map(|(bind, below, to, how)| Spec { bind, below, to, how });
    let version = || prop_oneof![3 => Just(None), 1 => (0..4_u64).prop_map(Some)];
    prop_oneof![
        3 => (0..4_usize, spec, version())
            .prop_map(|(name, spec, if_version)| Step::Add { name, spec, if_version }),
        1 => (0..4_usize, version())
            .prop_map(|(name, if_version)| Step::Remove { name, if_version }),
        8 => (select(&["a", "b", "c"][..]), 0..6_u64)
            .prop_map(|(topic, number)| Step::Send { topic, number }),
        1 => (0..4_usize).prop_map(|queue| Step::Purge { queue }),
        1 => (0..4_usize).prop_map(|queue| Step::Delete { queue }),
        2 => (0..4_usize).prop_map(|queue| Step::Declare { queue }),
        2 => Just(Step::Sync),
        1 => Just(Step::Fail),
    ]
}

/// A route as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    version: u64,
    spec: Spec,
    next: usize,
}

#[derive(Clone, Debug, Default)]
struct Table {
    version: u64,
    routes: BTreeMap<SmolStr, Known>,
}

struct World {
    queues: Queues,
    store: Shelf,
    out: Out<Output>,
    table: Table,
    disk: Table,
    calls: u32,
    /// Calls that have had no answer.
    open: Vec<u32>,
    answered: Vec<(u32, bool)>,
    /// Queues that have got the message that is sent.
    got: Vec<SmolStr>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            queues: Queues::new(Limits::default(), Rules::default(), 1),
            store: Shelf::default(),
            out: Out::new(),
            table: Table::default(),
            disk: Table::default(),
            calls: 0,
            open: Vec::new(),
            answered: Vec::new(),
            got: Vec::new(),
        };
        let told = world.store.open();
        world.input(Input::Stored(told));
        (0..QUEUES.len()).for_each(|queue| world.play(Step::Declare { queue }));
        world.play(Step::Sync);
        world
    }

    fn input(&mut self, input: Input) {
        self.queues.handle(NOW, input, &mut self.out);
        let outputs: Vec<Output> = self.out.drain().collect();
        for output in outputs {
            match output {
                Output::Store(ask) => {
                    if let Ask::Put { place, .. } = &ask {
                        let line = self.queues.by_number[&place.line];
                        let queue = self.queues.lines[line as usize].queue;
                        self.got.push(self.queues.queues[queue as usize].name.clone());
                    }
                    self.store.ask(ask);
                }
                Output::Done { origin: Origin::Step { graph, .. }, outcome } => {
                    self.answered.push((graph, outcome.is_ok()));
                }
                _ => {}
            }
        }
    }

    fn origin(&mut self) -> Origin {
        self.calls += 1;
        Origin::Step { graph: self.calls, step: 0 }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Add { name, spec, if_version } => self.add(name, spec, if_version),
            Step::Remove { name, if_version } => self.remove(name, if_version),
            Step::Send { topic, number } => self.send(topic, number),
            Step::Purge { queue } => {
                let (origin, name) = (self.origin(), QUEUES[queue].0.into());
                self.input(Input::Purge { origin, name, dead: false });
            }
            Step::Delete { queue } => {
                let (origin, name) = (self.origin(), QUEUES[queue].0.into());
                self.input(Input::Delete { origin, name });
            }
            Step::Declare { queue } => {
                let (name, count, when_full) = QUEUES[queue];
                let declaration = Box::new(Declaration {
                    max_count: Some(count),
                    when_full: Some(when_full),
                    bind: (name == BOUND).then(|| vec!["a".into()]),
                    ..Declaration::default()
                });
                let origin = self.origin();
                self.input(Input::Declare { origin, name: name.into(), declaration });
            }
            Step::Sync => {
                for told in self.store.sync() {
                    self.input(Input::Stored(told));
                }
                self.disk = self.table.clone();
                self.end_calls(true);
            }
            Step::Fail => {
                let told = self.store.fail();
                self.input(Input::Stored(told));
                self.end_calls(false);
                let told = self.store.open();
                self.input(Input::Stored(told));
                if self.disk.version != self.table.version {
                    self.table = self.disk.clone();
                    self.table.routes.values_mut().for_each(|known| known.next = 0);
                }
            }
        }
        let is: Vec<_> = self.queues.routes.by_name.iter().collect();
        let is: Vec<_> = is
            .into_iter()
            .map(|(name, slot)| (name, self.queues.routes.slots[*slot as usize].version))
            .collect();
        let expected: Vec<_> =
            self.table.routes.iter().map(|(name, known)| (name, known.version)).collect();
        assert_eq!(is, expected);
    }

    /// All that was asked of the table has its answer now, and this one.
    fn end_calls(&mut self, well: bool) {
        for call in std::mem::take(&mut self.open) {
            assert!(self.answered.contains(&(call, well)), "{call} {:?}", self.answered);
        }
        self.answered.clear();
    }

    fn expected(&self, name: &str, if_version: Option<u64>) -> bool {
        let is = self.table.routes.get(name).map_or(0, |known| known.version);
        if_version.is_none_or(|version| version == is)
    }

    /// Says what is to come of a change: an answer later, or a refusal now.
    fn changed(&mut self, origin: Origin, input: Input, is_taken: bool) {
        let Origin::Step { graph, .. } = origin else { return };
        self.input(input);
        match is_taken {
            true => self.open.push(graph),
            false => assert!(self.answered.contains(&(graph, false))),
        }
    }

    fn add(&mut self, name: usize, spec: Spec, if_version: Option<u64>) {
        let (origin, name) = (self.origin(), format_smolstr!("r{name}"));
        let settings = Box::new(RouteSettings {
            bind: vec![spec.bind.into()],
            when: spec.below.map(|below| format_smolstr!("payload < {below}")),
            to: spec.to.iter().map(|queue| QUEUES[*queue].0.into()).collect(),
            strategy: spec.how,
            set: None,
        });
        let is_taken = self.expected(&name, if_version);
        if is_taken {
            self.table.version += 1;
            let known = Known { version: self.table.version, spec, next: 0 };
            self.table.routes.insert(name.clone(), known);
        }
        let input = Input::AddRoute { origin, name, settings, if_version };
        self.changed(origin, input, is_taken);
    }

    fn remove(&mut self, name: usize, if_version: Option<u64>) {
        let (origin, name) = (self.origin(), format_smolstr!("r{name}"));
        let is_taken =
            self.expected(&name, if_version) && self.table.routes.remove(&name).is_some();
        self.table.version += u64::from(is_taken);
        self.changed(origin, Input::RemoveRoute { origin, name, if_version }, is_taken);
    }

    /// Messages of a queue, if it is there.
    fn held(&self, name: &str) -> Option<u64> {
        let at = *self.queues.by_name.get(name)?;
        let line = self.queues.queues[at as usize].lines[0];
        Some(self.queues.lines[line as usize].held.count)
    }

    fn send(&mut self, topic: &'static str, number: u64) {
        let before: Vec<_> = QUEUES.iter().map(|(name, ..)| self.held(name)).collect();
        let room: Vec<_> = QUEUES.map(|(name, ..)| self.queues.by_name.get(name).copied()).into();
        let room = |at: usize| {
            let full = |at: u32| self.queues.queues[at as usize].settings.max_count;
            room[at].is_some_and(|slot| before[at] < Some(full(slot)))
        };
        let has_room: Vec<bool> = (0..QUEUES.len()).map(room).collect();
        // Those that were made for a route have the defaults.
        let drops: Vec<bool> = QUEUES
            .iter()
            .map(|(name, ..)| {
                let at = self.queues.by_name.get(*name);
                at.is_some_and(|at| {
                    self.queues.queues[*at as usize].settings.when_full == WhenFull::DropOldest
                })
            })
            .collect();
        let is_bound = {
            let at = self.queues.by_name.get(BOUND);
            at.is_some_and(|at| !self.queues.queues[*at as usize].settings.bind.is_empty())
        };
        self.got.clear();
        let payload = Value::json(number.to_string());
        let (headers, message) = (None, RunId(0));
        let event = Arc::new(Event { topic: topic.into(), payload, headers, message });
        let (by, options) = (Sender::Socket, SendOptions::default());
        self.input(Input::Send { by, queue: None, event, options });
        let got: Vec<usize> =
            self.got.iter().map(|name| name[1..].parse().expect("a queue's number")).collect();

        let (mut reached, mut asked) = (0, Vec::new());
        let take = |queue: usize, asked: &mut Vec<usize>, reached: &mut usize| {
            asked.push(queue);
            if has_room[queue] {
                assert_eq!(got.get(*reached), Some(&queue), "{number} at {topic}: {got:?}");
            }
            // What is to be dropped may have to be read first, and then there is no room yet.
            if has_room[queue] || (drops[queue] && got.get(*reached) == Some(&queue)) {
                *reached += 1;
            }
        };
        for known in self.table.routes.values_mut() {
            let Spec { bind, below, to, how } = &known.spec;
            let matches = *bind == topic || *bind == "*";
            if !matches || below.is_some_and(|below| number >= below) {
                continue;
            }
            let first = if *how == How::RoundRobin { known.next % to.len() } else { 0 };
            let mut open: Vec<(usize, usize)> = (first..to.len())
                .chain(0..first)
                .map(|place| (place, to[place]))
                .filter(|(_, queue)| before[*queue].is_some() && !asked.contains(queue))
                .collect();
            match how {
                How::Fanout => {
                    open.iter().for_each(|(_, queue)| take(*queue, &mut asked, &mut reached));
                    continue;
                }
                How::LeastLoaded => open.sort_by_key(|(_, queue)| before[*queue]),
                _ => {}
            }
            let with = |of: &[bool]| open.iter().filter(|it| of[it.1]).copied().collect::<Vec<_>>();
            let choices = [with(&has_room), with(&drops), open.clone()];
            let Some(choices) = choices.into_iter().find(|some| !some.is_empty()) else { continue };
            let chosen = match how {
                // Any of them, as it came.
                How::Random => choices.iter().find(|(_, queue)| got.get(reached) == Some(queue)),
                _ => choices.first(),
            };
            // All refuse, and which was asked is not to be seen.
            let Some(chosen) = chosen else { return };
            let (place, queue) = *chosen;
            known.next = place + 1;
            take(queue, &mut asked, &mut reached);
        }
        let bound = QUEUES.iter().position(|(name, ..)| *name == BOUND).expect("it is there");
        if topic == "a" && is_bound && !asked.contains(&bound) {
            take(bound, &mut asked, &mut reached);
        }
        assert_eq!(reached, got.len(), "{number} at {topic}: {got:?}, asked {asked:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn each_message_goes_where_the_table_leads(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
        }
    }
}
