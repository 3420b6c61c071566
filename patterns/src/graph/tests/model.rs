//! Random graphs against a model that evaluates step by step in order, knowing nothing of slices,
//! workers or time.

use proptest::prelude::*;

use crate::base::{Limits, Out, PeerId, Refusal, Rng, Time};
use crate::node::{About, Input, Node, Rules};
use crate::ops::{
    Function, GraphOptions, GraphPart, GraphReply, Offer, OnError, Reply, Request, Returns, Run,
};
use crate::values::{Body, Value};

/// What stands in for a step that fails.
#[derive(Clone, Debug)]
enum StandIn {
    None,
    Value,
    /// The value holds a reference to an earlier step, if there is one.
    Reference,
    Function {
        fails: bool,
    },
}

#[derive(Clone, Debug)]
struct Plan {
    /// Earlier steps it refers to; `true` points at something that is not there.
    args: Vec<(usize, bool)>,
    after: Vec<usize>,
    /// Attempts that fail before one succeeds.
    failures: u32,
    retries: u32,
    stand_in: StandIn,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Done(String),
    Degraded(String),
    Failed,
    Skipped,
}

impl End {
    fn value(&self) -> Option<&str> {
        match self {
            Self::Done(value) | Self::Degraded(value) => Some(value),
            Self::Failed | Self::Skipped => None,
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Degraded(_) => "degraded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What a function returns: a number that depends on its name and arguments.
fn returned(fun: &str, args: &str) -> String {
    let bytes = fun.bytes().chain(args.bytes());
    let hash = bytes
        .fold(0xCBF2_9CE4_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_string()
}

/// A reference as it is written, and what it becomes.
fn reference(step: usize, missing: bool) -> String {
    match missing {
        true => format!("{{\"$ref\":\"s{step}\",\"at\":\"/no\"}}"),
        false => format!("{{\"$ref\":\"s{step}\"}}"),
    }
}

impl Plan {
    fn inputs(&self) -> Vec<usize> {
        let mut inputs: Vec<usize> = self.args.iter().map(|arg| arg.0).collect();
        inputs.extend(&self.after);
        inputs.extend(self.stand_in_reference());
        inputs
    }

    fn stand_in_reference(&self) -> Option<usize> {
        let first = self.args.first().map(|arg| arg.0);
        first.filter(|_| !matches!(self.stand_in, StandIn::None | StandIn::Value))
    }

    fn text(&self, at: usize) -> String {
        let args: Vec<_> =
            self.args.iter().map(|&(step, missing)| reference(step, missing)).collect();
        let after: Vec<_> = self.after.iter().map(|step| format!("\"s{step}\"")).collect();
        let referred =
            self.stand_in_reference().map_or_else(|| "0".into(), |step| reference(step, false));
        let stand_in = match self.stand_in {
            StandIn::None => String::new(),
            StandIn::Value => ",\"fallback\":{\"value\":5}".into(),
            StandIn::Reference => format!(",\"fallback\":{{\"value\":[{referred}]}}"),
            StandIn::Function { .. } => {
                format!(",\"fallback\":{{\"fun\":\"f{at}\",\"args\":[{referred}]}}")
            }
        };
        format!(
            "{{\"name\":\"s{at}\",\"fun\":\"s{at}\",\"args\":[{}],\"after\":[{}],\
             \"retry\":{{\"times\":{},\"backoff_ms\":5}}{stand_in}}}",
            args.join(","),
            after.join(","),
            self.retries
        )
    }

    /// The model: how this step ends, given how the ones before it did.
    fn end(&self, at: usize, ends: &[End]) -> End {
        if self.inputs().iter().any(|&input| ends[input].value().is_none()) {
            return End::Skipped;
        }
        let value = |step: usize| ends[step].value().unwrap_or_default();
        let missing = self.args.iter().any(|arg| arg.1);
        if !missing && self.failures <= self.retries {
            let args: Vec<_> = self.args.iter().map(|arg| value(arg.0)).collect();
            return End::Done(returned(&format!("s{at}"), &format!("[{}]", args.join(","))));
        }
        let referred = self.stand_in_reference().map_or("0", value);
        match self.stand_in {
            StandIn::None | StandIn::Function { fails: true } => End::Failed,
            StandIn::Value => End::Degraded("5".into()),
            StandIn::Reference => End::Degraded(format!("[{referred}]")),
            StandIn::Function { fails: false } => {
                End::Degraded(returned(&format!("f{at}"), &format!("[{referred}]")))
            }
        }
    }
}

fn plan(at: usize) -> impl Strategy<Value = Plan> {
    let earlier = 0..at.max(1);
    let refs = if at == 0 { 0..1 } else { 0..4 };
    let afters = if at == 0 { 0..1 } else { 0..2 };
    let stand_in = prop_oneof![
        3 => Just(StandIn::None),
        1 => Just(StandIn::Value),
        1 => Just(StandIn::Reference),
        1 => any::<bool>().prop_map(|fails| StandIn::Function { fails }),
    ];
    (
        prop::collection::vec((earlier.clone(), prop::bool::weighted(0.05)), refs),
        prop::collection::vec(earlier, afters),
        prop_oneof![4 => Just(0_u32), 1 => 1_u32..4],
        0_u32..3,
        stand_in,
    )
        .prop_map(|(args, after, failures, retries, stand_in)| Plan {
            args,
            after,
            failures,
            retries,
            stand_in,
        })
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    (1_usize..16).prop_flat_map(|count| (0..count).map(plan).collect::<Vec<_>>())
}

const CALLER: PeerId = PeerId { slot: 0, generation: 0 };
const WORKER: PeerId = PeerId { slot: 1, generation: 0 };

/// Runs the graph with a worker that answers in random order; returns the reply.
fn run(plans: &[Plan], on_error: OnError, credit: u32, seed: u64) -> GraphReply {
    let about = About {
        node: "n".into(),
        version: "0".into(),
        epoch: 1,
        endpoints: serde_json::Value::Null,
        cluster: "".into(),
    };
    let mut node = Node::new(about, Limits::default(), &Rules::default(), seed);
    let (mut now, mut out) = (Time { mono_ns: 1, wall_ms: 1 }, Out::new());
    let (mut rng, mut hands) = (Rng::new(seed), Vec::<Run>::new());
    let mut attempts = vec![0_u32; plans.len()];
    let names = (0..plans.len()).flat_map(|at| [format!("s{at}"), format!("f{at}")]);
    let function = |name: String| Function { name: name.into(), ..Function::default() };
    let functions = names.map(function).collect();
    let offer = Offer { functions, credit: Some(credit), ..Offer::default() };
    node.handle(
        now,
        Input::Request { peer: WORKER, request: Request::Offer(offer.into()) },
        &mut out,
    );
    // Steps need not stand in order: here they stand backwards.
    let steps: Vec<_> = plans.iter().enumerate().rev().map(|(at, plan)| plan.text(at)).collect();
    let part = GraphPart {
        id: "g".into(),
        steps: Some(Value::json(format!("[{}]", steps.join(",")))),
        options: GraphOptions { returns: Returns::All, on_error, ..GraphOptions::default() },
        ..GraphPart::default()
    };
    let request = Request::Graph(part.into());
    node.handle(now, Input::Request { peer: CALLER, request }, &mut out);
    let mut reply = None;
    loop {
        for output in out.drain() {
            match output.sent().expect("a reply").1 {
                Reply::Run(run) => hands.push(run),
                Reply::Cancel { run } => hands.retain(|held| held.id != run),
                Reply::Graph(told) => assert!(reply.replace(*told).is_none(), "two outcomes"),
                Reply::Offered { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        match node.wake_at() {
            Some(at_ns) if at_ns <= now.mono_ns => node.tick(now, &mut out),
            _ if !hands.is_empty() => {
                let run = hands.swap_remove(rng.below(hands.len()));
                let request = answer(&run, plans, &mut attempts);
                node.handle(now, Input::Request { peer: WORKER, request }, &mut out);
            }
            Some(at_ns) if reply.is_none() => {
                now.mono_ns = at_ns;
                node.tick(now, &mut out);
            }
            _ => return reply.expect("an outcome"),
        }
    }
}

/// What the worker makes of a run.
fn answer(run: &Run, plans: &[Plan], attempts: &mut [u32]) -> Request {
    let at: usize = run.fun[1..].parse().expect("a number");
    let fails = if run.fun.starts_with('f') {
        matches!(plans[at].stand_in, StandIn::Function { fails: true })
    } else {
        attempts[at] += 1;
        attempts[at] <= plans[at].failures
    };
    if fails {
        return Request::Failed {
            run: run.id,
            error: Box::new(Refusal::by_worker(None, "no", false)),
        };
    }
    let args = run.args.as_ref().map_or(&[][..], |args| &args.bytes);
    let value = returned(&run.fun, std::str::from_utf8(args).expect("JSON"));
    Request::Result { run: run.id, body: Box::new(Body::plain(Value::json(value))) }
}

fn expected(plans: &[Plan]) -> Vec<End> {
    let mut ends = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        let end = plan.end(at, &ends);
        ends.push(end);
    }
    ends
}

fn number(name: &str) -> usize {
    name[1..].parse().expect("a step")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// With `continue` every step ends as in the model, in whatever order workers answer.
    #[test]
    fn every_step_ends_as_in_the_model(
        plans in plans(), credit in 1_u32..9, seed in any::<u64>(),
    ) {
        let ends = expected(&plans);
        let reply = run(&plans, OnError::Continue, credit, seed);
        let all_done = ends.iter().all(|end| matches!(end, End::Done(_)));
        prop_assert_eq!(reply.steps.len(), if all_done { 0 } else { plans.len() });
        for step in &reply.steps {
            prop_assert_eq!(step.state.as_str(), ends[number(&step.name)].word(), "{}", step.name);
        }
        let good = ends.iter().filter(|end| end.value().is_some()).count();
        prop_assert_eq!(reply.results.len(), good);
        for (name, body) in &reply.results {
            let meant = ends[number(name)].value();
            prop_assert_eq!(Some(&*body.value.bytes), meant.map(str::as_bytes));
        }
        prop_assert_eq!(reply.error.is_some(), good < plans.len());
    }

    /// With `fail` a step ends as in the model or is cancelled, and nothing else is made up.
    #[test]
    fn a_failing_graph_only_cancels(
        plans in plans(), credit in 1_u32..9, seed in any::<u64>(),
    ) {
        let ends = expected(&plans);
        let reply = run(&plans, OnError::Fail, credit, seed);
        let failing = ends.iter().any(|end| matches!(end, End::Failed));
        prop_assert_eq!(reply.error.is_some(), failing);
        for step in &reply.steps {
            let (told, meant) = (step.state.as_str(), ends[number(&step.name)].word());
            prop_assert!(told == meant || failing && told == "cancelled", "{}: {told}", step.name);
        }
        for (name, body) in &reply.results {
            let meant = ends[number(name)].value();
            prop_assert_eq!(Some(&*body.value.bytes), meant.map(str::as_bytes));
        }
        if let Some((_, step)) = &reply.error {
            let cause = step.as_ref().map(|name| &ends[number(name)]);
            prop_assert_eq!(cause, Some(&End::Failed));
        }
    }
}

#[test]
fn the_model_sees_every_kind_of_end() {
    // Guards the generator, not the broker: a model that never fails would prove nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = [0; 4];
    for _ in 0..200 {
        let tree = plans().new_tree(&mut runner).expect("a graph");
        for end in expected(&proptest::strategy::ValueTree::current(&tree)) {
            let word = end.word();
            let words = ["done", "degraded", "failed", "skipped"];
            seen[words.iter().position(|known| *known == word).expect("a word")] += 1;
        }
    }
    assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
}
