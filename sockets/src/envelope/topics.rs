//! What is published and who asks for it: ops to messages, checked, and back.
//!
//! A payload is stored as compact JSON text or as bytes, and headers as compact JSON text. They are
//! made so here, once, whatever they came as.

use std::sync::Arc;

use mpreg_patterns::base::{Code, Culprit, Refusal, RunId};
use mpreg_patterns::names::is_reserved;
use mpreg_patterns::ops::{Delivery, Event, Publish, Replay, Request, Subscribe};
use mpreg_patterns::values::{self, Fault, Frames, Kind, Value, compact};
use smol_str::SmolStr;

use super::op::{EventOp, Op, Past, PublishOp, Raw, Text};
use super::request::{Context, Role, Visit, bad_field, id, name, optional_id, text};

/// Whether a value is compact JSON text as it came.
///
/// What a bincode batch says to be JSON is taken as it is, like all of its values. Other JSON has
/// been checked with its frame: white space can stand in it, and nothing else below an exclamation
/// mark.
#[inline]
fn is_stored(value: &Value, context: &Context<'_>) -> bool {
    let no_space = || value.bytes.iter().all(|&byte| byte > b' ');
    value.kind == Kind::Json && (context.binary || no_space())
}

/// What is wrong with a value of a peer's own, which is no worker's.
#[cold]
fn wrong(field: &'static str, fault: &Fault) -> Refusal {
    let field = Some(SmolStr::new_static(field));
    Refusal { field, culprit: Culprit::Caller, ..fault.refusal() }
}

#[inline]
pub(super) fn payload(raw: &Raw<'_>, context: &Context<'_>) -> Result<Value, Refusal> {
    let value = context.value(raw);
    if is_stored(&value, context) {
        return Ok(value);
    }
    // Attachments are shared out later.
    values::payload(value, &Frames::new()).map_err(|fault| wrong("payload", &fault))
}

#[inline]
pub(super) fn headers(
    raw: Option<&Raw<'_>>,
    context: &Context<'_>,
) -> Result<Option<Value>, Refusal> {
    let Some(raw) = raw else { return Ok(None) };
    match (raw.kind.0, raw.bytes.0.first()) {
        (Kind::Json, Some(b'{')) | (Kind::MsgPack, Some(0x80..=0x8F | 0xDE | 0xDF)) => {
            let value = context.value(raw);
            if is_stored(&value, context) {
                return Ok(Some(value));
            }
            compact(value).map(Some).map_err(|fault| wrong("headers", &fault))
        }
        _ => Err(bad_field("headers", "`headers` takes an object")),
    }
}

/// A topic or queue that is not the broker's own.
#[inline]
pub(super) fn free_name(field: &'static str, text: &Text<'_>) -> Result<SmolStr, Refusal> {
    let name = name(field, text)?;
    if is_reserved(&name) {
        let message = format!("`{name}` is the broker's");
        return Err(Refusal::field(Code::ReservedName, field, message));
    }
    Ok(name)
}

#[inline]
pub(super) fn publish(op: &PublishOp<'_>, context: &Context<'_>) -> Result<Publish, Refusal> {
    let id = id(op.id.as_str())?;
    let event = Event {
        topic: free_name("topic", &op.topic)?,
        payload: payload(&op.payload, context)?,
        headers: headers(op.headers.as_ref(), context)?,
        message: RunId(0),
    };
    Ok(Publish { id, confirm: op.confirm, event: Arc::new(event) })
}

#[inline]
pub(super) fn event(op: &EventOp<'_>, context: &Context<'_>) -> Result<Delivery, Refusal> {
    let event = Event {
        topic: SmolStr::new(op.topic.as_str()),
        payload: payload(&op.payload, context)?,
        headers: headers(op.headers.as_ref(), context)?,
        message: RunId(op.message),
    };
    let pattern = SmolStr::new(op.pattern.as_str());
    Ok(Delivery { event: Arc::new(event), pattern, seq: op.seq, missed: op.missed })
}

/// Shows the payload of an event that has just come: nobody else has it yet.
pub(super) fn attach(event: &mut Arc<Event>, visit: &mut Visit<'_>) -> Result<(), Fault> {
    let event = Arc::make_mut(event);
    // What it names becomes the payload itself.
    visit(Role::Payload, &mut [&mut event.payload], &mut Frames::new())
}

/// The array of patterns, whose items are the rules' to look at.
fn patterns(raw: Option<&Raw<'_>>, context: &Context<'_>) -> Result<Option<Value>, Refusal> {
    match raw.map(|raw| (raw.kind.0, raw.bytes.0.first())) {
        None
        | Some((Kind::Json, Some(b'[')) | (Kind::MsgPack, Some(0x90..=0x9F | 0xDC | 0xDD))) => {
            Ok(raw.map(|raw| context.value(raw)))
        }
        Some(_) => Err(bad_field("patterns", "`patterns` takes an array")),
    }
}

pub(super) fn subscribe(op: &Op<'_>, context: &Context<'_>) -> Result<Request, Refusal> {
    let Op::Subscribe { id, patterns: texts, credit, replay } = op else {
        return Ok(Request::Stray);
    };
    let id = optional_id(id.as_ref())?;
    let most = context.limits.credit;
    if credit.is_some_and(|credit| credit > most) {
        return Err(bad_field("credit", &format!("`credit` takes 0 to {most}")));
    }
    if texts.is_none() && credit.is_none() {
        return Err(bad_field("patterns", "`patterns` is missing, and so is `credit`"));
    }
    let replay = replay.map(|replay| match replay {
        Past::All => Replay::All,
        Past::Seq(seq) => Replay::Seq(seq),
        Past::Ms(ms) => Replay::Ms(ms),
        Past::Last(last) => Replay::Last(last),
    });
    let patterns = patterns(texts.as_ref(), context)?;
    Ok(Request::Subscribe(Box::new(Subscribe { id, patterns, credit: *credit, replay })))
}

pub(super) fn unsubscribe(op: &Op<'_>, context: &Context<'_>) -> Result<Request, Refusal> {
    let Op::Unsubscribe { id, patterns: texts } = op else { return Ok(Request::Stray) };
    let id = optional_id(id.as_ref())?;
    if texts.is_none() {
        return Err(bad_field("patterns", "`patterns` is missing"));
    }
    Ok(Request::Unsubscribe { id, patterns: patterns(texts.as_ref(), context)? })
}

pub(super) fn ack(events: u32) -> Result<Request, Refusal> {
    if events == 0 {
        return Err(bad_field("events", "`events` takes a whole number from 1"));
    }
    Ok(Request::Ack { events })
}

pub(super) fn publish_op(publish: &Publish) -> Op<'_> {
    let Publish { id, confirm, event } = publish;
    Op::Publish(PublishOp {
        id: Text::new(id),
        topic: Text::new(&event.topic),
        payload: Raw::of(&event.payload, &[]),
        headers: event.headers.as_ref().map(|headers| Raw::of(headers, &[])),
        confirm: *confirm,
    })
}

pub(super) fn subscribe_op(of: &Subscribe) -> Op<'_> {
    Op::Subscribe {
        id: text(of.id.as_ref()),
        patterns: of.patterns.as_ref().map(|patterns| Raw::of(patterns, &[])),
        credit: of.credit,
        replay: of.replay.map(|replay| match replay {
            Replay::All => Past::All,
            Replay::Seq(seq) => Past::Seq(seq),
            Replay::Ms(ms) => Past::Ms(ms),
            Replay::Last(last) => Past::Last(last),
        }),
    }
}

pub(super) fn event_op(delivery: &Delivery) -> Op<'_> {
    let Delivery { event, pattern, seq, missed } = delivery;
    Op::Event(EventOp {
        pattern: Text::new(pattern),
        topic: Text::new(&event.topic),
        seq: *seq,
        missed: *missed,
        message: event.message.0,
        payload: Raw::of(&event.payload, &[]),
        headers: event.headers.as_ref().map(|headers| Raw::of(headers, &[])),
    })
}
