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
        let routes = &self.queues.routes;
        let is = routes.by_name.iter();
        let is = is.map(|(name, slot)| (name, routes.slots[*slot as usize].version));
        let is: Vec<(&SmolStr, u64)> = is.collect();
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

    /// The queues as they are.
    fn view(&self) -> Vec<View> {
        let view = |(name, ..): &(&str, u64, WhenFull)| {
            let Some(&at) = self.queues.by_name.get(*name) else { return View::default() };
            let queue = &self.queues.queues[at as usize];
            let held = self.queues.lines[queue.lines[0] as usize].held.count;
            View {
                held: Some(held),
                has_room: held < queue.settings.max_count,
                // One that was made for a route has the defaults.
                drops: queue.settings.when_full == WhenFull::DropOldest,
                is_bound: !queue.settings.bind.is_empty(),
            }
        };
        QUEUES.iter().map(view).collect()
    }

    /// Whose turn it is, where that could not be followed.
    fn learn_turns(&mut self) {
        for (name, known) in &mut self.table.routes {
            let slot = self.queues.routes.by_name[name];
            known.next = self.queues.routes.slots[slot as usize].next;
        }
    }

    fn send(&mut self, topic: &'static str, number: u64) {
        let queues = self.view();
        self.got.clear();
        let payload = Value::json(number.to_string());
        let (headers, message) = (None, RunId(0));
        let event = Arc::new(Event { topic: topic.into(), payload, headers, message });
        let (by, options) = (Sender::Socket, SendOptions::default());
        self.input(Input::Send { by, queue: None, also: Vec::new(), event, options });
        let number_of = |name: &SmolStr| name[1..].parse().expect("a queue's number");
        let got = self.got.iter().map(number_of).collect();
        let mut followed = Followed { queues, got, reached: 0, asked: Vec::new() };
        for known in self.table.routes.values_mut() {
            let Spec { bind, below, .. } = &known.spec;
            let matches = *bind == topic || *bind == "*";
            if matches && below.is_none_or(|below| number < below) && !followed.by(known) {
                return self.learn_turns();
            }
        }
        let is_bound = |at: &usize| topic == "a" && followed.queues[*at].is_bound;
        let bound: Vec<usize> = (0..QUEUES.len()).filter(is_bound).collect();
        bound.into_iter().for_each(|at| followed.take(at));
        assert_eq!(followed.reached, followed.got.len(), "{number} at {topic}: {followed:?}");
    }
}

/// A queue before a message is sent; nothing of it where it is not there.
#[derive(Debug, Default)]
struct View {
    held: Option<u64>,
    has_room: bool,
    drops: bool,
    is_bound: bool,
}

/// A message on its way through the table.
#[derive(Debug)]
struct Followed {
    queues: Vec<View>,
    /// Those that have got it, in order.
    got: Vec<usize>,
    /// How many of them are accounted for.
    reached: usize,
    asked: Vec<usize>,
}

impl Followed {
    /// It is a queue's, unless that was asked before or has no room.
    fn take(&mut self, queue: usize) {
        if self.asked.contains(&queue) {
            return;
        }
        self.asked.push(queue);
        let (view, has_it) = (&self.queues[queue], self.got.get(self.reached) == Some(&queue));
        assert!(has_it || !view.has_room, "{queue} should have it: {self:?}");
        // What is to be dropped may have to be read first, and then there is no room yet.
        self.reached += usize::from(has_it && (view.has_room || view.drops));
    }

    /// A route takes it. False where it cannot be seen which queue refused.
    fn by(&mut self, known: &mut Known) -> bool {
        let Spec { to, how, .. } = &known.spec;
        let first = if *how == How::RoundRobin { known.next % to.len() } else { 0 };
        let turns = (first..to.len()).chain(0..first).map(|place| (place, to[place]));
        let is_open = |at: usize| self.queues[at].held.is_some() && !self.asked.contains(&at);
        let mut open: Vec<(usize, usize)> = turns.filter(|(_, at)| is_open(*at)).collect();
        if *how == How::Fanout {
            open.into_iter().for_each(|(_, at)| self.take(at));
            return true;
        }
        if *how == How::LeastLoaded {
            open.sort_by_key(|(_, at)| self.queues[*at].held);
        }
        let those = |wanted: &dyn Fn(&View) -> bool| -> Vec<(usize, usize)> {
            open.iter().copied().filter(|(_, at)| wanted(&self.queues[*at])).collect()
        };
        let choices = [those(&|view| view.has_room), those(&|view| view.drops), those(&|_| true)];
        let Some(choices) = choices.into_iter().find(|some| !some.is_empty()) else { return true };
        let got = self.got.get(self.reached);
        let chosen = match how {
            // Any of them, as it came.
            How::Random => choices.iter().find(|(_, at)| Some(at) == got),
            _ => choices.first(),
        };
        let Some(&(place, at)) = chosen else { return false };
        known.next = place + 1;
        self.take(at);
        true
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
