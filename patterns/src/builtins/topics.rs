//! What the built-ins of topics take.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Builtin, bad_args, kwargs};
use crate::base::limits::EVENTS_PER_ANSWER;
use crate::base::names::{is_name, no_name};
use crate::base::{Code, Refusal, RunId};
use crate::names::{Pattern, is_reserved};
use crate::ops::{Call, Event, Replay};
use crate::topics::{HistoryAsk, WaitAsk};
use crate::values::{Cursor, Fault, Value, compact, payload};

/// Rows of `mpreg.topics` unless more are asked for.
const TOP: usize = 100;
/// Events of a history unless another number is asked for.
const HISTORY: usize = 1_000;

pub(super) fn missing(field: &str) -> Refusal {
    Refusal::field(Code::BadArgs, field, format!("`{field}` is missing"))
}

fn pattern(cursor: &mut Cursor<'_>) -> Result<Pattern, Refusal> {
    let text = cursor.string().map_err(bad_args("pattern"))?;
    let refuse = |refusal| Refusal { field: Some("pattern".into()), ..refusal };
    Pattern::parse(&text).map_err(refuse)
}

pub(super) fn small(
    field: &'static str,
    cursor: &mut Cursor<'_>,
    most: usize,
) -> Result<u32, Refusal> {
    let number = cursor.u64().map_err(bad_args(field))?;
    if (1..=most as u64).contains(&number) {
        return Ok(number as u32);
    }
    Err(Refusal::field(Code::BadArgs, field, format!("`{field}` takes 1 to {most}")))
}

/// The value the cursor stands before.
pub(super) fn value(of: &Value, cursor: &mut Cursor<'_>) -> Result<Value, Fault> {
    Ok(Value::new(of.kind, of.bytes.slice(cursor.skip()?)))
}

pub(super) fn publish(call: &Call) -> Result<Builtin, Refusal> {
    let mut read = Sending::default();
    kwargs(call, |key, cursor| read.take(call, key, cursor))?;
    let topic = read.topic.take().ok_or_else(|| missing("topic"))?;
    read.event(call, topic).map(|event| Builtin::Publish(Arc::new(event)))
}

/// What is published or sent by a call, as it is read.
#[derive(Default)]
pub(super) struct Sending {
    pub(super) topic: Option<SmolStr>,
    body: Option<Value>,
    headers: Option<Value>,
}

impl Sending {
    /// Reads one argument. False if it is none of these.
    pub(super) fn take(
        &mut self,
        call: &Call,
        key: &str,
        cursor: &mut Cursor<'_>,
    ) -> Result<bool, Refusal> {
        let Some(source) = &call.kwargs else { return Ok(false) };
        match key {
            "topic" => self.topic = Some(topic(cursor)?),
            "payload" => self.body = Some(value(source, cursor).map_err(bad_args("payload"))?),
            "headers" => {
                cursor.clone().map().map_err(bad_args("headers"))?;
                self.headers = Some(value(source, cursor).map_err(bad_args("headers"))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The message, as it is stored.
    pub(super) fn event(self, call: &Call, topic: SmolStr) -> Result<Event, Refusal> {
        let wrong = |field: &'static str| {
            move |fault: Fault| Refusal { field: Some(field.into()), ..fault.refusal() }
        };
        let body = self.body.unwrap_or_else(Value::null);
        Ok(Event {
            topic,
            payload: payload(body, &call.frames).map_err(wrong("payload"))?,
            headers: self.headers.map(compact).transpose().map_err(wrong("headers"))?,
            message: RunId(0),
        })
    }
}

/// A topic that is not the broker's own.
fn topic(cursor: &mut Cursor<'_>) -> Result<SmolStr, Refusal> {
    let text = cursor.string().map_err(bad_args("topic"))?;
    if !is_name(&text) {
        return Err(no_name("topic", &text));
    }
    if is_reserved(&text) {
        let message = "topics that begin with `mpreg.` are the broker's own";
        return Err(Refusal::field(Code::ReservedName, "topic", message));
    }
    Ok(SmolStr::new(text))
}

pub(super) fn next(call: &Call) -> Result<Builtin, Refusal> {
    let (mut found, mut timeout_ms) = (None, None);
    let (mut condition, mut count, mut delay_ms) = (None, None, 0);
    kwargs(call, |key, cursor| {
        match key {
            "pattern" => found = Some(pattern(cursor)?),
            "where" => {
                condition = Some(SmolStr::new(cursor.string().map_err(bad_args("where"))?));
            }
            "count" => count = Some(small("count", cursor, EVENTS_PER_ANSWER)?),
            "delay_ms" => delay_ms = cursor.u64().map_err(bad_args("delay_ms"))?,
            "timeout_ms" => timeout_ms = Some(cursor.u64().map_err(bad_args("timeout_ms"))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let pattern = found.ok_or_else(|| missing("pattern"))?;
    let ask = WaitAsk { pattern, condition, count, delay_ms };
    Ok(Builtin::Next { ask, timeout_ms })
}

pub(super) fn history(call: &Call) -> Result<Builtin, Refusal> {
    let (mut found, mut from) = (None, None);
    let (mut per_topic, mut limit) = (false, HISTORY);
    kwargs(call, |key, cursor| {
        let begin = match key {
            "from_seq" => Replay::Seq(cursor.u64().map_err(bad_args("from_seq"))?),
            "since_ms" => Replay::Ms(cursor.u64().map_err(bad_args("since_ms"))?),
            "last" => Replay::Last(small("last", cursor, EVENTS_PER_ANSWER)?),
            other => {
                match other {
                    "pattern" => found = Some(pattern(cursor)?),
                    "per_topic" => per_topic = cursor.bool().map_err(bad_args("per_topic"))?,
                    "limit" => limit = small("limit", cursor, EVENTS_PER_ANSWER)? as usize,
                    _ => return Ok(false),
                }
                return Ok(true);
            }
        };
        if from.replace(begin).is_some() {
            let message = "takes one of `from_seq`, `since_ms` and `last`";
            return Err(Refusal::field(Code::BadArgs, key, message));
        }
        Ok(true)
    })?;
    let from = from.unwrap_or(Replay::All);
    let limit = if let Replay::Last(count) = from { count as usize } else { limit };
    let pattern = found.ok_or_else(|| missing("pattern"))?;
    Ok(Builtin::History(HistoryAsk { pattern, from, per_topic, limit }))
}

pub(super) fn list(call: &Call) -> Result<Builtin, Refusal> {
    let mut top = TOP;
    kwargs(call, |key, cursor| {
        if key == "top" {
            top = small("top", cursor, EVENTS_PER_ANSWER)? as usize;
        }
        Ok(key == "top")
    })?;
    Ok(Builtin::Topics { top })
}
