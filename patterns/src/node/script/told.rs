//! What the broker answers, as lines.

use std::fmt::Write as _;

use smol_str::SmolStr;

use super::{queues, topics};
use crate::base::{Code, Culprit, Refusal};
use crate::ops::{GraphReply, Reply};
use crate::values::{Body, Frames, Kind, Value};

/// A reply as one line.
pub(super) fn told(reply: &Reply) -> String {
    let named = |id: &Option<SmolStr>| id.as_ref().map_or(String::new(), |id| format!(" {id}"));
    match reply {
        Reply::Welcome { .. } => "welcome".into(),
        Reply::Pong { id } => format!("pong{}", named(id)),
        Reply::Bye { id } => format!("bye{}", named(id)),
        Reply::Result { id, body, .. } => format!("result {id} {}", body_text(body)),
        Reply::Error { id, error, .. } => format!("error{} {}", named(id), error_text(error)),
        Reply::Offered { id, functions, credit, .. } => {
            format!("offered{} {functions}, credit {credit}", named(id))
        }
        Reply::Run(run) | Reply::Call(run) => {
            let verb = if matches!(reply, Reply::Run(_)) { "run" } else { "call" };
            let mut text = format!("{verb} {}", run.fun);
            for value in [&run.args, &run.kwargs].into_iter().flatten() {
                write!(text, " {}", value_text(value)).unwrap();
            }
            text += &frames_text(&run.frames);
            if run.attempt > 1 {
                write!(text, " attempt {}", run.attempt).unwrap();
            }
            if run.deadline_ms != 30_000 {
                write!(text, " {}ms left", run.deadline_ms).unwrap();
            }
            text
        }
        Reply::Cancel { .. } => "cancel".into(),
        Reply::Progress(told) => {
            let mut text = format!("progress {}", told.id);
            if let Some(step) = &told.step {
                write!(text, " {step}").unwrap();
            }
            write!(text, " {}", told.event).unwrap();
            if let Some(percent) = told.percent {
                write!(text, " {percent}%").unwrap();
            }
            if let Some(note) = &told.note {
                write!(text, " {note}").unwrap();
            }
            text
        }
        Reply::Graph(reply) => graph_text(reply),
        Reply::Published { id, .. } => format!("published {id}"),
        Reply::Subscribed { id, patterns, credit, .. } => {
            let credit = credit.map_or(String::new(), |credit| format!(", credit {credit}"));
            format!("subscribed{} {patterns}{credit}", named(id))
        }
        Reply::Event(told) => topics::event_text(told),
        Reply::Sent { .. }
        | Reply::Consumed { .. }
        | Reply::Deliver(_)
        | Reply::HandOver(_)
        | Reply::Acked { .. }
        | Reply::Consume { .. }
        | Reply::Settle(_) => queues::told(reply),
    }
}

pub(super) fn graph_text(reply: &GraphReply) -> String {
    let mut text = format!("graph {}", reply.id);
    if let Some(part) = reply.part {
        write!(text, " part {part}{}", if reply.more { " more" } else { "" }).unwrap();
    }
    if let Some((error, step)) = &reply.error {
        let at = step.as_ref().map_or(String::new(), |step| format!(" at {step}"));
        write!(text, " error{at} {}", error_text(error)).unwrap();
    }
    if reply.ran || !reply.results.is_empty() {
        let results =
            reply.results.iter().map(|(name, body)| format!("{name}={}", body_text(body)));
        write!(text, " results {{{}}}", results.collect::<Vec<_>>().join(", ")).unwrap();
    }
    if !reply.steps.is_empty() {
        let steps = reply.steps.iter().map(|step| match &step.code {
            Some(code) => format!("{} {} {code}", step.name, step.state.as_str()),
            None => format!("{} {}", step.name, step.state.as_str()),
        });
        write!(text, " steps {{{}}}", steps.collect::<Vec<_>>().join(", ")).unwrap();
    }
    text
}

pub(super) fn error_text(error: &Refusal) -> String {
    let refused = error.refused.map_or(String::new(), |what| format!(" (refused: {what})"));
    // Whose fault it is and whether to try again are told where they are not the code's own.
    let code = Code::find(&error.code);
    let usual = code.map_or((Culprit::Worker, false), |code| (code.culprit(), code.retry()));
    let told = if (error.culprit, error.retry) == usual {
        String::new()
    } else {
        format!(" ({}, retry {})", error.culprit.as_str(), error.retry)
    };
    let field = error.field.as_ref().map_or(String::new(), |field| format!(" [{field}]"));
    format!("{}: {}{field}{told}{refused}", error.code, error.message)
}

pub(super) fn body_text(body: &Body) -> String {
    value_text(&body.value) + &frames_text(&body.frames)
}

pub(super) fn value_text(value: &Value) -> String {
    match value.kind {
        Kind::Json => String::from_utf8_lossy(&value.bytes).into_owned(),
        _ => format!("{:?}", value.bytes),
    }
}

pub(super) fn frames_text(frames: &Frames) -> String {
    let frames: Vec<_> = frames.iter().map(|frame| String::from_utf8_lossy(frame)).collect();
    if frames.is_empty() { String::new() } else { format!(" frames={}", frames.join(",")) }
}
