//! What frames are read as, and what messages are written as, as transcripts.

mod decoding;
mod encoding;
mod fuzz;
mod golden;
mod queues;
mod robustness;
mod salvage;
mod topics;

use std::fmt::Write as _;

use bytes::Bytes;
use mpreg_patterns::base::{Limits, Refusal, RunId};
use mpreg_patterns::ops::{Reply, Request};
use mpreg_patterns::values::{Body, Frames, Value, json_to_msgpack};

use super::*;

/// A run's id, and its text.
const RUN: &str = "01HGW2BBG0000000000000000A";

fn run() -> RunId {
    RunId::parse(RUN).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn json(text: &str) -> Value {
    Value::json(text.as_bytes().to_vec())
}

fn packed(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    json_to_msgpack(text.as_bytes(), &mut out).unwrap();
    out
}

fn frames(of: &[&str]) -> Frames {
    of.iter().map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect()
}

fn refusal_line(refusal: &Refusal) -> String {
    let field = refusal.field.as_ref().map(|field| format!("({field})")).unwrap_or_default();
    format!("{}{field}: {}", refusal.code, refusal.message)
}

fn bad_line(bad: &Bad) -> String {
    let mut line = String::new();
    if let Some(op) = &bad.op {
        write!(line, "{op} ").unwrap();
    }
    if let Some(id) = &bad.id {
        write!(line, "id={id} ").unwrap();
    }
    if bad.run.is_some() {
        line.push_str("of a run ");
    }
    line + &refusal_line(&bad.refusal)
}

/// Everything a frame says to the broker, in lines.
fn heard(body: impl Into<Bytes>, frames: Frames, limits: &Limits) -> String {
    let mut lines = String::new();
    let mut sink = |item: Item| {
        if let Some(index) = item.index {
            write!(lines, "{index} ").unwrap();
        }
        match item.result {
            Ok(request) => writeln!(lines, "{}", request_line(&request)).unwrap(),
            Err(bad) => writeln!(lines, "{}", bad_line(&bad)).unwrap(),
        }
    };
    let body = body.into();
    match decode(&body, frames, limits, &mut sink) {
        Ok(_) => lines.trim_end().to_owned(),
        Err(refusal) => {
            let bincode = body.first() == Some(&1);
            assert!(bincode || lines.is_empty(), "items before a refusal: {lines}");
            format!("{lines}frame {}", refusal_line(&refusal))
        }
    }
}

fn value_line(value: &Value) -> String {
    match std::str::from_utf8(&value.bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => hex(&value.bytes),
    }
}

fn body_line(value: &Value, frames: &Frames) -> String {
    let mut line = value_line(value);
    for frame in frames {
        write!(line, " +{}", String::from_utf8_lossy(frame)).unwrap();
    }
    line
}

fn request_line(request: &Request) -> String {
    match request {
        Request::Call(call) => {
            let mut line = format!("call {} {}", call.id, call.fun);
            for value in call.args.iter().chain(&call.kwargs) {
                write!(line, " {}", value_line(value)).unwrap();
            }
            for frame in &call.frames {
                write!(line, " +{}", String::from_utf8_lossy(frame)).unwrap();
            }
            line
        }
        Request::Graph(part) => {
            let steps = part.steps.as_ref().map(|steps| body_line(steps, &part.frames));
            format!("graph {} {}", part.id, steps.unwrap_or_default())
        }
        Request::Result { body, .. } => {
            format!("result {:?} {}", body.value.kind, body_line(&body.value, &body.frames))
        }
        Request::Failed { error, .. } => {
            format!("failed {} retry={}", refusal_line(error), error.retry)
        }
        Request::Publish(publish) => {
            let event = &publish.event;
            let (kind, payload) = (event.payload.kind, value_line(&event.payload));
            let mut line = format!("publish {} {} {kind:?} {payload}", publish.id, event.topic);
            if let Some(headers) = &event.headers {
                write!(line, " headers {}", value_line(headers)).unwrap();
            }
            line + if publish.confirm { "" } else { " unconfirmed" }
        }
        Request::Subscribe(of) => {
            let mut line = "subscribe".to_owned();
            if let Some(patterns) = &of.patterns {
                write!(line, " {}", value_line(patterns)).unwrap();
            }
            if let Some(credit) = of.credit {
                write!(line, " credit={credit}").unwrap();
            }
            if let Some(replay) = of.replay {
                write!(line, " replay={replay:?}").unwrap();
            }
            line
        }
        Request::Send(send) => send_line(send),
        Request::Unsubscribe { patterns, .. } => {
            let patterns = patterns.as_ref().map(value_line);
            format!("unsubscribe {}", patterns.unwrap_or_default())
        }
        other => format!("{other:?}"),
    }
}

fn send_line(send: &mpreg_patterns::ops::Send) -> String {
    let event = &send.event;
    let (kind, payload) = (event.payload.kind, value_line(&event.payload));
    let place = send.queue.as_ref().unwrap_or(&event.topic);
    let by = if send.queue.is_some() { "to" } else { "by topic" };
    let mut line = format!("send {} {by} {place} {kind:?} {payload}", send.id);
    if let Some(headers) = &event.headers {
        write!(line, " headers {}", value_line(headers)).unwrap();
    }
    let options = &send.options;
    if options.delay_ms > 0 || options.priority > 0 {
        write!(line, " after {} ms at {}", options.delay_ms, options.priority).unwrap();
    }
    for (what, text) in [("key", &options.key), ("dedup", &options.dedup)] {
        if let Some(text) = text {
            write!(line, " {what} {text}").unwrap();
        }
    }
    line + if send.confirm { "" } else { " unconfirmed" }
}

fn plain(text: &str) -> Body {
    Body::plain(json(text))
}

fn result(id: &str, body: Body) -> Reply {
    Reply::Result { id: id.into(), body: body.into(), track: None }
}
