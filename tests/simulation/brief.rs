//! Requests and replies in a few words, for whoever reads a replay.

use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::values::Value;

pub(crate) fn request(request: &Request) -> String {
    match request {
        Request::Call(call) => format!("call {} {} {}", call.id, call.fun, text(&call.args)),
        Request::Graph(part) => {
            let more = if part.more { " and more" } else { "" };
            format!("graph {} part {}{more} {}", part.id, part.part, text(&part.steps))
        }
        Request::Offer(offer) => {
            let names: Vec<&str> = offer.functions.iter().map(|f| f.name.as_str()).collect();
            format!("offer {names:?} {:?} credit {:?}", offer.locs, offer.credit)
        }
        Request::Result { run, body } => format!("result {run} {}", text(&Some(&body.value))),
        Request::Failed { run, .. } => format!("failed {run}"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Run(run) => {
            format!("run {} {} {} attempt {}", run.id, run.fun, text(&run.args), run.attempt)
        }
        Reply::Result { id, body, .. } => format!("result {id} {}", text(&Some(&body.value))),
        Reply::Error { id, error, .. } => format!("error {id:?} {error}"),
        Reply::Graph(reply) => {
            let error = reply.error.as_ref().map(|(error, step)| format!("{step:?} {error}"));
            let steps = reply.steps.iter().map(|step| format!("{} {:?}", step.name, step.state));
            let steps: Vec<String> = steps.collect();
            format!("graph {} {error:?} {} results {steps:?}", reply.id, reply.results.len())
        }
        Reply::Progress(told) => format!("progress {} {:?} {}", told.id, told.step, told.event),
        other => format!("{other:?}"),
    }
}

pub(crate) fn replies(replies: &[Reply]) -> String {
    replies.iter().map(reply).collect::<Vec<_>>().join("; ")
}

fn text<V: std::borrow::Borrow<Value>>(value: &Option<V>) -> String {
    let bytes = value.as_ref().map(|value| &value.borrow().bytes[..]);
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
