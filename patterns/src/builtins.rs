//! The broker's own functions: what they are called and what they take.

mod federation;
mod queues;
mod routes;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;

use smol_str::SmolStr;

use crate::base::{Code, Refusal, RunId};
use crate::graph::CheckAsk;
use crate::ops::{Call, Event, GraphOptions, GraphPart, Refs, Returns};
use crate::topics::{HistoryAsk, WaitAsk};
use crate::values::{Cursor, Fault, Shape, Value};
pub use federation::FederationAsk;
pub use queues::QueueAsk;
pub use routes::RouteAsk;

/// The names, in the order of the documents.
pub const NAMES: &[&str] = &[
    "mpreg.functions",
    "mpreg.workers",
    "mpreg.status",
    "mpreg.graphs",
    "mpreg.graph.check",
    "mpreg.graph.explain",
    "mpreg.topics",
    "mpreg.topic.publish",
    "mpreg.topic.next",
    "mpreg.topic.history",
    "mpreg.queues",
    "mpreg.queue.declare",
    "mpreg.queue.stats",
    "mpreg.queue.peek",
    "mpreg.queue.purge",
    "mpreg.queue.redrive",
    "mpreg.queue.delete",
    "mpreg.queue.send",
    "mpreg.queue.next",
    "mpreg.route.add",
    "mpreg.route.list",
    "mpreg.route.remove",
    "mpreg.route.explain",
    "mpreg.nodes",
    "mpreg.link.add",
    "mpreg.link.list",
    "mpreg.link.remove",
    "mpreg.link.rule",
    "mpreg.link.rules",
];

/// A call of one of them, its arguments read.
#[derive(Debug)]
pub enum Builtin {
    /// Every function on offer.
    Functions,
    /// Every worker.
    Workers,
    /// The broker's counters and gauges.
    Status,
    /// The running and recent graphs.
    Graphs,
    /// Checks a graph and runs nothing.
    Check {
        /// The graph.
        part: Box<GraphPart>,
        /// What to tell beside the verdict.
        ask: CheckAsk,
    },
    /// Why a graph is where it is.
    Explain {
        /// Which graph.
        track: RunId,
    },
    /// The patterns with the most events, and what is kept.
    Topics {
        /// How many of the patterns.
        top: usize,
    },
    /// An event for everybody who subscribed to its topic.
    Publish(Arc<Event>),
    /// The next event or events.
    Next {
        /// Which.
        ask: WaitAsk,
        /// How long to wait for them.
        timeout_ms: Option<u64>,
    },
    /// A piece of a log.
    History(HistoryAsk),
    /// Something about queues.
    Queue(QueueAsk),
    /// Something about routes.
    Route(RouteAsk),
    /// Something about other brokers.
    Federation(FederationAsk),
}

/// Whether there is such a built-in, for a step that would call it.
pub fn placement(fun: &str) -> Result<(), Refusal> {
    if NAMES.contains(&fun) {
        return Ok(());
    }
    let message = format!("{fun} is not one of {}", NAMES.join(", "));
    Err(Refusal::field(Code::UnknownFunction, "fun", message))
}

/// Reads a call of a built-in.
pub fn parse(call: &Call) -> Result<Builtin, Refusal> {
    placement(&call.fun)?;
    if call.args.as_ref().is_some_and(|args| !is_empty(args)) {
        let message = format!("{} takes `kwargs` only", call.fun);
        return Err(Refusal::field(Code::BadArgs, "args", message));
    }
    match call.fun.as_str() {
        "mpreg.functions" => none(call, Builtin::Functions),
        "mpreg.workers" => none(call, Builtin::Workers),
        "mpreg.status" => none(call, Builtin::Status),
        "mpreg.graphs" => none(call, Builtin::Graphs),
        "mpreg.graph.explain" => explain(call),
        "mpreg.topics" => topics::list(call),
        "mpreg.topic.publish" => topics::publish(call),
        "mpreg.topic.next" => topics::next(call),
        "mpreg.topic.history" => topics::history(call),
        "mpreg.graph.check" => check(call),
        "mpreg.route.add" | "mpreg.route.list" | "mpreg.route.remove" => {
            routes::parse(call).map(Builtin::Route)
        }
        "mpreg.nodes"
        | "mpreg.route.explain"
        | "mpreg.link.add"
        | "mpreg.link.list"
        | "mpreg.link.remove"
        | "mpreg.link.rule"
        | "mpreg.link.rules" => federation::parse(call).map(Builtin::Federation),
        _ => queues::parse(call).map(Builtin::Queue),
    }
}

fn is_empty(array: &Value) -> bool {
    let mut cursor = Cursor::of(array);
    cursor.array().and_then(|mut state| cursor.item(&mut state)).is_ok_and(|more| !more)
}

/// Goes over the keyword arguments; a name that `take` does not know is refused, and `null` is as
/// good as leaving one out.
fn kwargs(
    call: &Call,
    mut take: impl FnMut(&str, &mut Cursor<'_>) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    let Some(kwargs) = &call.kwargs else { return Ok(()) };
    let bad = |fault: Fault| Refusal { field: Some("kwargs".into()), ..fault.refusal() };
    let mut cursor = Cursor::of(kwargs);
    let mut map = cursor.map().map_err(bad)?;
    while let Some(key) = cursor.key(&mut map).map_err(bad)? {
        if cursor.null().map_err(bad)? {
            continue;
        }
        if !take(&key, &mut cursor)? {
            let message = format!("{} takes no {key}", call.fun);
            return Err(Refusal::field(Code::BadArgs, &key, message));
        }
    }
    Ok(())
}

fn bad_args(field: &'static str) -> impl Fn(Fault) -> Refusal {
    move |fault| Refusal::field(Code::BadArgs, field, fault.message())
}

fn none(call: &Call, builtin: Builtin) -> Result<Builtin, Refusal> {
    kwargs(call, |_, _| Ok(false))?;
    Ok(builtin)
}

fn explain(call: &Call) -> Result<Builtin, Refusal> {
    let mut track = None;
    kwargs(call, |key, cursor| {
        if key != "track" {
            return Ok(false);
        }
        track = RunId::parse(&cursor.string().map_err(bad_args("track"))?);
        Ok(true)
    })?;
    let missing = || Refusal::field(Code::BadArgs, "track", "needs the ULID of a graph");
    Ok(Builtin::Explain { track: track.ok_or_else(missing)? })
}

fn check(call: &Call) -> Result<Builtin, Refusal> {
    let (mut part, mut ask) = (GraphPart::default(), CheckAsk::default());
    let source = call.kwargs.clone();
    kwargs(call, |key, cursor| {
        match key {
            "steps" => {
                if cursor.peek().map_err(bad_args("steps"))? != Shape::Array {
                    return Err(Refusal::field(Code::BadArgs, "steps", "must be an array"));
                }
                let range = cursor.skip().map_err(bad_args("steps"))?;
                let steps = source.as_ref();
                part.steps = steps.map(|all| Value::new(all.kind, all.bytes.slice(range)));
            }
            "refs" => part.options.refs = refs(&cursor.string().map_err(bad_args("refs"))?)?,
            "return" => part.options.returns = returns(cursor)?,
            "dot" => ask.dot = cursor.bool().map_err(bad_args("dot"))?,
            "impact" => {
                ask.impact = Some(SmolStr::new(cursor.string().map_err(bad_args("impact"))?));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    part.frames = call.frames.clone();
    part.options = GraphOptions { timeout_ms: call.options.timeout_ms, ..part.options };
    Ok(Builtin::Check { part: Box::new(part), ask })
}

fn refs(text: &str) -> Result<Refs, Refusal> {
    match text {
        "tagged" => Ok(Refs::Tagged),
        "names" => Ok(Refs::Names),
        _ => Err(Refusal::field(Code::BadArgs, "refs", "is `tagged` or `names`")),
    }
}

fn returns(cursor: &mut Cursor<'_>) -> Result<Returns, Refusal> {
    let bad = bad_args("return");
    if cursor.peek().map_err(&bad)? == Shape::String {
        return match &*cursor.string().map_err(&bad)? {
            "sinks" => Ok(Returns::Sinks),
            "all" => Ok(Returns::All),
            _ => Err(Refusal::field(Code::BadArgs, "return", "is `sinks`, `all` or names")),
        };
    }
    let (mut names, mut array) = (Vec::new(), cursor.array().map_err(&bad)?);
    while cursor.item(&mut array).map_err(&bad)? {
        names.push(SmolStr::new(cursor.string().map_err(&bad)?));
    }
    Ok(Returns::Names(names))
}
