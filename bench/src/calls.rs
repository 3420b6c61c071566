//! The rules alone with plain calls, for `scripts/instructions` to count what one costs.

use std::sync::Arc;

use mpreg_patterns::base::{Limits, Out, PeerId, Time};
use mpreg_patterns::node::{About, Input, Node, Output, Rules};
use mpreg_patterns::ops::{Call, Function, Offer, Reply, Request};
use mpreg_patterns::values::{Body, Value};

use crate::Outcome;

const WORKER: PeerId = PeerId { slot: 0, generation: 1 };
const CALLER: PeerId = PeerId { slot: 1, generation: 1 };

fn ask(node: &mut Node, peer: PeerId, request: Request, out: &mut Out<Output>) {
    let now = Time { mono_ns: 1_000, wall_ms: 1_700_000_000_000 };
    node.handle(now, Input::Request { peer, request }, out);
}

/// Lets a worker answer so many calls, one after the other.
pub(crate) fn run(count: u64) -> Outcome<()> {
    let endpoints = serde_json::json!({});
    let about = About {
        node: "n".into(),
        version: "0.1.0".into(),
        epoch: 1,
        endpoints,
        cluster: "".into(),
    };
    let (mut node, mut out) =
        (Node::new(about, Limits::default(), &Rules::default(), 1), Out::new());
    let functions = vec![Function { name: "echo".into(), ..Function::default() }];
    let offer = Offer { functions, credit: Some(1_024), ..Offer::default() };
    ask(&mut node, WORKER, Request::Offer(Box::new(offer)), &mut out);
    out.clear();
    for number in 0..count {
        let (id, fun) = (number.to_string().into(), "echo".into());
        let args = Some(Value::json(&b"[1]"[..]));
        let call = Arc::new(Call { id, fun, args, ..Call::default() });
        ask(&mut node, CALLER, Request::Call(call), &mut out);
        let sent = out.drain().find_map(Output::sent);
        let Some((WORKER, Reply::Run(run))) = sent else { return Err("no run came".into()) };
        let body = Box::new(Body::plain(Value::json(&b"1"[..])));
        ask(&mut node, WORKER, Request::Result { run: run.id, body }, &mut out);
        let sent = out.drain().find_map(Output::sent);
        let Some((CALLER, Reply::Result { .. })) = sent else { return Err("no result".into()) };
    }
    Ok(())
}
