//! Requests and replies in a few words, for whoever reads a replay.

use mpreg_patterns::node::Input;
use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::values::Value;

pub(crate) fn request(request: &Request) -> String {
    match request {
        Request::Call(call) => {
            let (args, kwargs) = (text(&call.args), text(&call.kwargs));
            format!("call {} {} {args}{kwargs}", call.id, call.fun)
        }
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
        Request::Publish(publish) => {
            let (event, confirm) = (&publish.event, publish.confirm);
            format!("publish {} {} {confirm}", publish.id, text(&Some(&event.payload)))
        }
        Request::Subscribe(ask) => {
            let (patterns, credit) = (text(&ask.patterns), ask.credit);
            format!("subscribe {:?} {patterns} credit {credit:?} {:?}", ask.id, ask.replay)
        }
        Request::Unsubscribe { id, patterns } => {
            let mut patterns = text(patterns);
            patterns.truncate(60);
            format!("unsubscribe {id:?} {patterns}")
        }
        other => format!("{other:?}"),
    }
}

/// What a socket beside the door has done.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Publish { event } => {
            format!("publish {} {}", event.topic, text(&Some(&event.payload)))
        }
        Input::Listen(key) => format!("listen {:?}", key.text),
        Input::Unlisten(key) => format!("unlisten {:?}", key.text),
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
        Reply::Event(told) => {
            let (payload, missed) = (text(&Some(&told.event.payload)), told.missed);
            format!("event {:?} #{} {payload} missed {missed}", told.pattern, told.seq)
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
