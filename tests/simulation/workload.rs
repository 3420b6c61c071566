//! What clients ask: calls and graphs of all kinds, some of them wrong.

use std::collections::BTreeSet;

use mpreg_patterns::base::{Rng, RunId};
use mpreg_patterns::ops::{
    Call, CallOptions, Function, GraphOptions, GraphPart, Offer, OnError, Request, Returns,
};
use mpreg_patterns::values::Value;
use smol_str::SmolStr;

use crate::plans::{Plan, Plans};

/// Functions: name, versions, whether they are offered as idempotent.
const FUNCTIONS: [(&str, &[&str], bool); 4] = [
    ("f0", &["1.0.0"], true),
    ("f1", &["1.0.0"], false),
    ("f2", &["1.0.0", "1.1.0", "2.0.0"], true),
    ("f3", &["1.0.0"], false),
];
const RANGES: [&str; 3] = ["^1", ">=1.1", "2"];
const LOCS: [&str; 2] = ["x", "y"];

/// One in `of`.
pub(crate) fn one_in(rng: &mut Rng, of: usize) -> bool {
    rng.below(of) == 0
}

fn some_locs(rng: &mut Rng) -> Vec<SmolStr> {
    LOCS.iter().filter(|_| one_in(rng, 2)).map(SmolStr::new).collect()
}

/// What a worker offers; all of it, to anyone, when `everything`.
pub(crate) fn offer(rng: &mut Rng, everything: bool) -> Offer {
    let mut functions = Vec::new();
    for (name, versions, idempotent) in FUNCTIONS {
        if everything || !one_in(rng, 3) {
            let version = Some(SmolStr::new(versions[rng.below(versions.len())]));
            let name = SmolStr::new(name);
            functions.push(Function { name, version, idempotent, ..Function::default() });
        }
    }
    let credit = if everything { 2 } else { [0, 1, 1, 2, 3, 8][rng.below(6)] };
    Offer { functions, locs: some_locs(rng), credit: Some(credit), id: None }
}

/// A call of one function and its plan, under `key`.
pub(crate) fn probe(id: &str, key: &str, function: usize, plans: &mut Plans) -> Request {
    let fun = FUNCTIONS[function % FUNCTIONS.len()].0;
    plans.add(key, Plan { fun: fun.into(), ..Plan::default() });
    let call = Call {
        id: id.into(),
        fun: fun.into(),
        args: Some(Value::json(format!("[\"{key}\"]"))),
        options: CallOptions { timeout_ms: Some(3_000), ..CallOptions::default() },
        ..Call::default()
    };
    Request::Call(call.into())
}

fn options(rng: &mut Rng, plan: &mut Plan, fun: &str, fussy: usize) -> CallOptions {
    let mut options = CallOptions::default();
    if one_in(rng, fussy) {
        options.locs = some_locs(rng);
        plan.locs = options.locs.iter().map(ToString::to_string).collect();
    }
    if one_in(rng, fussy) && fun == "f2" {
        let range = RANGES[rng.below(RANGES.len())];
        options.version = Some(range.into());
        plan.version = Some(range.into());
    }
    if one_in(rng, 6) {
        options.idempotent = Some(one_in(rng, 2));
        plan.idempotent = options.idempotent;
    }
    options.wait = one_in(rng, 3);
    options
}

/// A call like any.
pub(crate) fn call(rng: &mut Rng, id: &str, key: &str, plans: &mut Plans) -> Request {
    let fun = FUNCTIONS[rng.below(FUNCTIONS.len())].0;
    let mut plan = Plan { fun: fun.into(), ..Plan::default() };
    let options = options(rng, &mut plan, fun, 4);
    let timeout_ms = Some([50, 300, 1_000, 5_000][rng.below(4)]);
    plans.add(key, plan);
    let call = Call {
        id: id.into(),
        fun: fun.into(),
        args: Some(Value::json(format!("[\"{key}\"]"))),
        options: CallOptions { timeout_ms, ..options },
        progress: one_in(rng, 5),
        ..Call::default()
    };
    Request::Call(call.into())
}

/// A graph in one part or more; what is wrong with it, if anything, shows in its reply.
pub(crate) fn graph(rng: &mut Rng, id: &str, track: RunId, plans: &mut Plans) -> Vec<GraphPart> {
    let key = track.to_string();
    let count = 1 + rng.below(12);
    let mut sinks: BTreeSet<String> = (0..count).map(|step| format!("s{step}")).collect();
    let mut steps: Vec<String> = (0..count)
        .map(|at| {
            let (text, plan) = step(rng, &key, at);
            for input in plan.refs.iter().chain(&plan.after) {
                sinks.remove(input.rsplit('/').next().unwrap_or_default());
            }
            plans.add(&format!("{key}/s{at}"), plan);
            text
        })
        .collect();
    match rng.below(40) {
        0 => steps.push(steps[0].clone()),
        1 => steps.push(r#"{"name":"x","fun":"f0","after":["x"]}"#.into()),
        2 => steps.push(r#"{"name":"x","fun":"nobody"}"#.into()),
        3 => steps.push(r#"{"name":"x"}"#.into()),
        _ => {}
    }
    let returns = match rng.below(3) {
        0 => Returns::Sinks,
        1 => Returns::All,
        _ => Returns::Names(vec!["s0".into()]),
    };
    plans.returns(
        &key,
        match returns {
            Returns::Sinks => sinks,
            Returns::All => (0..count).map(|step| format!("s{step}")).collect(),
            Returns::Names(_) => BTreeSet::from(["s0".to_owned()]),
        },
    );
    let options = GraphOptions {
        returns,
        on_error: if one_in(rng, 2) { OnError::Fail } else { OnError::Continue },
        timeout_ms: Some([300, 2_000, 5_000][rng.below(3)]),
        progress: one_in(rng, 4),
        track: Some(track),
        ..GraphOptions::default()
    };
    parts(rng, id, &steps, options)
}

fn parts(rng: &mut Rng, id: &str, steps: &[String], options: GraphOptions) -> Vec<GraphPart> {
    let size = if one_in(rng, 4) { 1 + rng.below(steps.len()) } else { steps.len() };
    let mut parts: Vec<GraphPart> = steps
        .chunks(size)
        .enumerate()
        .map(|(part, steps)| GraphPart {
            id: id.into(),
            steps: Some(Value::json(format!("[{}]", steps.join(",")))),
            part: part as u32,
            more: true,
            ..GraphPart::default()
        })
        .collect();
    parts[0].options = options;
    let last = parts.len() - 1;
    parts[last].more = false;
    if parts.len() > 2 && one_in(rng, 4) {
        parts.remove(1);
    }
    parts
}

fn step(rng: &mut Rng, graph: &str, at: usize) -> (String, Plan) {
    let fun = FUNCTIONS[rng.below(FUNCTIONS.len())].0;
    let mut plan = Plan { fun: fun.into(), ..Plan::default() };
    let options = options(rng, &mut plan, fun, 30);
    let key = format!("{graph}/s{at}");
    let mut text = format!("{{\"name\":\"s{at}\",\"fun\":\"{fun}\",\"args\":[\"{key}\"");
    for _ in 0..if at == 0 { 0 } else { rng.below(4) } {
        let input = rng.below(at);
        let at = if one_in(rng, 40) { ",\"at\":\"/no\"" } else { "" };
        plan.never |= !at.is_empty();
        text += &format!(",{{\"$ref\":\"s{input}\"{at}}}");
        plan.refs.push(format!("{graph}/s{input}"));
    }
    text.push(']');
    if at > 0 && one_in(rng, 5) {
        let input = rng.below(at);
        text += &format!(",\"after\":[\"s{input}\"]");
        plan.after.push(format!("{graph}/s{input}"));
    }
    if one_in(rng, 4) {
        plan.retries = 1 + rng.below(2) as u32;
        text += &format!(",\"retry\":{{\"times\":{},\"backoff_ms\":20}}", plan.retries);
    }
    match rng.below(8) {
        0 => {
            let value = format!("{key}?");
            text += &format!(",\"fallback\":{{\"value\":\"{value}\"}}");
            plan.fallback_value = Some(value);
        }
        1 => {
            text += &format!(",\"fallback\":{{\"fun\":\"f0\",\"args\":[\"{key}!\"]}}");
            plan.fallback_function = true;
        }
        _ => {}
    }
    if one_in(rng, 8) {
        text.push_str(",\"timeout_ms\":200");
    }
    text += &format!(",\"wait\":{}", options.wait);
    if let Some(idempotent) = options.idempotent {
        text += &format!(",\"idempotent\":{idempotent}");
    }
    if let Some(version) = &options.version {
        text += &format!(",\"version\":\"{version}\"");
    }
    let locs: Vec<_> = options.locs.iter().map(|loc| format!("\"{loc}\"")).collect();
    text += &format!(",\"locs\":[{}]}}", locs.join(","));
    (text, plan)
}
