//! Plain calls, runs, results, events and messages of queues in bincode, straight between a message
//! and its bytes.
//!
//! They are nearly all that a busy broker reads and writes. What is not plain (an option, an
//! attachment, anything wrong) goes the way of every other op, through `binary` and its checks.

mod queues;

use std::sync::Arc;

use mpreg_patterns::base::RunId;
use mpreg_patterns::base::names::is_name;
use mpreg_patterns::names::is_reserved;
use mpreg_patterns::ops::{Call, CallOptions, Delivery, Event, Publish, Reply, Request, Run};
use mpreg_patterns::values::{Body, Kind, Value};
use smol_str::SmolStr;

use super::encode::Outgoing;
use super::op::Raw;
use super::request::{Context, is_id, may_be_args, may_be_kwargs, timeout};

/// Their variants, and those of the two kinds of ids.
const CALL: [u8; 4] = [4, 0, 0, 0];
const RESULT: [u8; 4] = [5, 0, 0, 0];
const RUN: [u8; 4] = [9, 0, 0, 0];
const PUBLISH: [u8; 4] = [15, 0, 0, 0];
const EVENT: [u8; 4] = [20, 0, 0, 0];
const SEND: [u8; 4] = [22, 0, 0, 0];
const SENT: [u8; 4] = [23, 0, 0, 0];
const DELIVER: [u8; 4] = [26, 0, 0, 0];
const ACK: [u8; 4] = [27, 0, 0, 0];
const DELIVER_FOR: [u8; 4] = [31, 0, 0, 0];
const NAMED: [u8; 4] = [0; 4];
const OF_A_RUN: [u8; 4] = [1, 0, 0, 0];
/// What follows the arguments of a plain call: no `kwargs`, no locs, no version,
const NOT_WHERE: [u8; 10] = [0; 10];
/// and after the time for it and whether it may be repeated: no `wait`, no `progress`, no `track`.
const NOT_HOW: [u8; 3] = [0; 3];

/// Appends a message that is one of these; false, and nothing is appended, for any other.
#[inline]
pub(super) fn put(message: Outgoing<'_>, out: &mut Vec<u8>) -> bool {
    match message {
        Outgoing::Reply(Reply::Run(run)) if run.frames.is_empty() => put_run(run, out),
        Outgoing::Reply(Reply::Result { id, body, track: None }) if body.frames.is_empty() => {
            out.extend_from_slice(&pair(RESULT, NAMED));
            put_bytes(id.as_bytes(), out);
            put_outcome(&body.value, out);
        }
        Outgoing::Request(Request::Result { run, body }) if body.frames.is_empty() => {
            out.extend_from_slice(&pair(RESULT, OF_A_RUN));
            out.extend_from_slice(&run.0.to_le_bytes());
            put_outcome(&body.value, out);
        }
        Outgoing::Request(Request::Call(call)) if is_plain(call) && is_anywhere(call) => {
            put_call(&call.id, call, call.options.timeout_ms, out);
        }
        Outgoing::Call(call) if is_plain(call) && is_anywhere(call) => {
            put_call(&call.id, call, call.options.timeout_ms, out);
        }
        Outgoing::Reply(Reply::Call(run)) if is_plain(&run.call) => {
            put_call(run.id.text(&mut [0; 26]), &run.call, Some(run.deadline_ms), out);
        }
        Outgoing::Reply(Reply::Event(delivery)) => put_event(delivery, out),
        Outgoing::Request(Request::Publish(publish)) => put_publish(publish, out),
        _ => return queues::put(message, out),
    }
    true
}

/// Whether it may run at any broker, now or not at all.
const fn is_anywhere(call: &Call) -> bool {
    call.options.cluster.is_none() && !call.options.wait
}

fn is_plain(call: &Call) -> bool {
    let any = call.options.version.is_some() || !call.options.locs.is_empty();
    !(any || call.progress || call.track.is_some())
        && call.kwargs.is_none()
        && call.frames.is_empty()
}

#[inline]
fn put_call(id: &str, call: &Call, timeout_ms: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(&CALL);
    put_bytes(id.as_bytes(), out);
    put_bytes(call.fun.as_bytes(), out);
    put_optional(call.args.as_ref(), out);
    out.extend_from_slice(&NOT_WHERE);
    match timeout_ms {
        None => out.push(0),
        Some(ms) => {
            out.push(1);
            out.extend_from_slice(&ms.to_le_bytes());
        }
    }
    match call.options.idempotent {
        None => out.push(0),
        Some(idempotent) => out.extend_from_slice(&[1, u8::from(idempotent)]),
    }
    out.extend_from_slice(&NOT_HOW);
}

#[inline]
fn put_run(run: &Run, out: &mut Vec<u8>) {
    out.extend_from_slice(&RUN);
    out.extend_from_slice(&run.id.0.to_le_bytes());
    put_bytes(run.fun.as_bytes(), out);
    put_optional(run.args.as_ref(), out);
    put_optional(run.kwargs.as_ref(), out);
    out.extend_from_slice(&run.deadline_ms.to_le_bytes());
    out.extend_from_slice(&run.attempt.to_le_bytes());
}

/// One event that is published becomes many of these.
#[inline]
fn put_event(delivery: &Delivery, out: &mut Vec<u8>) {
    let Delivery { event, pattern, seq, missed } = delivery;
    out.extend_from_slice(&EVENT);
    put_bytes(pattern.as_bytes(), out);
    put_bytes(event.topic.as_bytes(), out);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&missed.to_le_bytes());
    out.extend_from_slice(&event.message.0.to_le_bytes());
    put_value(&event.payload, out);
    put_optional(event.headers.as_ref(), out);
}

#[inline]
fn put_publish(publish: &Publish, out: &mut Vec<u8>) {
    let Publish { id, confirm, event } = publish;
    out.extend_from_slice(&PUBLISH);
    put_bytes(id.as_bytes(), out);
    put_bytes(event.topic.as_bytes(), out);
    put_value(&event.payload, out);
    put_optional(event.headers.as_ref(), out);
    out.push(u8::from(*confirm));
}

#[inline]
fn put_value(value: &Value, out: &mut Vec<u8>) {
    out.push(value.kind as u8);
    put_bytes(&value.bytes, out);
}

#[inline]
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[inline]
fn put_optional(value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put_value(value, out);
        }
    }
}

/// The value of a result, and no `track`.
#[inline]
fn put_outcome(value: &Value, out: &mut Vec<u8>) {
    put_value(value, out);
    out.push(0);
}

const fn pair(a: [u8; 4], b: [u8; 4]) -> [u8; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// The name that the op before had, checked: most ops of a batch have the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Last(Option<SmolStr>);

impl Last {
    #[inline]
    fn name(&mut self, bytes: &[u8], check: impl FnOnce(&str) -> bool) -> Option<&SmolStr> {
        if self.0.as_ref().is_none_or(|last| last.as_bytes() != bytes) {
            let text = std::str::from_utf8(bytes).ok().filter(|text| check(text))?;
            self.0 = Some(SmolStr::new(text));
        }
        self.0.as_ref()
    }
}

/// Takes a plain call, result, publish, send or ack off `rest`; none, and nothing is taken, for any
/// other op.
#[inline]
pub(super) fn take_request(
    rest: &mut &[u8],
    last: &mut Last,
    context: &Context<'_>,
) -> Option<Request> {
    let mut ahead = *rest;
    let request = match *array(&mut ahead)? {
        CALL => take_call(&mut ahead, last, context)?,
        RESULT => {
            let run = match *array(&mut ahead)? {
                OF_A_RUN => RunId(u128::from_le_bytes(*array(&mut ahead)?)),
                // As other brokers and JSON have it.
                NAMED => RunId::parse(take_id(&mut ahead)?)?,
                _ => return None,
            };
            Request::Result { run, body: take_outcome(&mut ahead, context)? }
        }
        PUBLISH => take_publish(&mut ahead, last, context)?,
        SEND => queues::take_send(&mut ahead, last, context)?,
        ACK => queues::take_ack(&mut ahead)?,
        _ => return None,
    };
    *rest = ahead;
    Some(request)
}

/// Takes a run, result of a call, event, delivery or `sent` off `rest`; none, and nothing is taken,
/// for any other op.
#[inline]
pub(super) fn take_reply(
    rest: &mut &[u8],
    last: &mut Last,
    context: &Context<'_>,
) -> Option<Reply> {
    let mut ahead = *rest;
    let reply = match *array(&mut ahead)? {
        RUN => take_run(&mut ahead, last, context)?,
        RESULT => {
            let NAMED = *array(&mut ahead)? else { return None };
            let id = take_id(&mut ahead)?;
            let body = take_outcome(&mut ahead, context)?;
            Reply::Result { id: SmolStr::new(id), body, track: None }
        }
        EVENT => take_event(&mut ahead, last, context)?,
        DELIVER => queues::take_deliver(&mut ahead, last, context)?,
        SENT => queues::take_sent(&mut ahead)?,
        _ => return None,
    };
    *rest = ahead;
    Some(reply)
}

// What is built is built at the end and in its place: moving it costs more than reading it.

#[inline]
fn take_call(rest: &mut &[u8], last: &mut Last, context: &Context<'_>) -> Option<Request> {
    let id = take_id(rest)?;
    let fun = last.name(take_bytes(rest)?, is_name)?;
    let args = take_optional(rest)?;
    if *array(rest)? != NOT_WHERE || !args.as_ref().is_none_or(may_be_args) {
        return None;
    }
    let timeout_ms = match *array(rest)? {
        [0] => None,
        [1] => timeout(Some(u64::from_le_bytes(*array(rest)?)), context.limits).ok()?,
        _ => return None,
    };
    let idempotent = match *array(rest)? {
        [0] => None,
        [1] => match *array(rest)? {
            [repeats @ (0 | 1)] => Some(repeats == 1),
            _ => return None,
        },
        _ => return None,
    };
    if *array(rest)? != NOT_HOW {
        return None;
    }
    Some(Request::Call(Arc::new(Call {
        id: SmolStr::new(id),
        fun: fun.clone(),
        args: args.map(|args| context.value(&args)),
        options: CallOptions { timeout_ms, idempotent, ..CallOptions::default() },
        ..Call::default()
    })))
}

#[inline]
fn take_run(rest: &mut &[u8], last: &mut Last, context: &Context<'_>) -> Option<Reply> {
    let id = RunId(u128::from_le_bytes(*array(rest)?));
    let fun = last.name(take_bytes(rest)?, |_| true)?;
    let (args, kwargs) = (take_optional(rest)?, take_optional(rest)?);
    let deadline_ms = u64::from_le_bytes(*array(rest)?);
    let attempt = u32::from_le_bytes(*array(rest)?);
    if !args.as_ref().is_none_or(may_be_args) || !kwargs.as_ref().is_none_or(may_be_kwargs) {
        return None;
    }
    let call = Arc::new(Call {
        fun: fun.clone(),
        args: args.map(|args| context.value(&args)),
        kwargs: kwargs.map(|kwargs| context.value(&kwargs)),
        ..Call::default()
    });
    Some(Reply::Run(Run { id, call, deadline_ms, attempt }))
}

#[inline]
fn take_publish(rest: &mut &[u8], last: &mut Last, context: &Context<'_>) -> Option<Request> {
    let id = SmolStr::new(take_id(rest)?);
    let topic = last.name(take_bytes(rest)?, is_name).filter(|topic| !is_reserved(topic))?;
    let payload = take_payload(rest, context)?;
    let ([0], [confirm @ (0 | 1)]) = (*array(rest)?, *array(rest)?) else { return None };
    let topic = topic.clone();
    let event = Event { topic, payload, headers: None, message: RunId(0) };
    Some(Request::Publish(Publish { id, confirm: confirm == 1, event: Arc::new(event) }))
}

#[inline]
fn take_event(rest: &mut &[u8], last: &mut Last, context: &Context<'_>) -> Option<Reply> {
    let pattern = last.name(take_bytes(rest)?, |_| true)?;
    let topic = SmolStr::new(std::str::from_utf8(take_bytes(rest)?).ok()?);
    let (seq, missed) = (u64::from_le_bytes(*array(rest)?), u64::from_le_bytes(*array(rest)?));
    let message = RunId(u128::from_le_bytes(*array(rest)?));
    let payload = take_payload(rest, context)?;
    let [0] = *array(rest)? else { return None };
    let event = Arc::new(Event { topic, payload, headers: None, message });
    let pattern = pattern.clone();
    Some(Reply::Event(Delivery { event, pattern, seq, missed }))
}

/// A payload in the form that is stored.
#[inline]
fn take_payload(rest: &mut &[u8], context: &Context<'_>) -> Option<Value> {
    let payload = take_value(rest)?;
    (payload.kind.0 != Kind::MsgPack).then(|| context.value(&payload))
}

#[inline]
fn array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}

#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u64::from_le_bytes(*array(rest)?)).ok()?;
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

#[inline]
fn take_id<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok().filter(|id| is_id(id))
}

#[inline]
fn take_value<'a>(rest: &mut &'a [u8]) -> Option<Raw<'a>> {
    let kind = match *array(rest)? {
        [0] => Kind::Bytes,
        [1] => Kind::Json,
        [2] => Kind::MsgPack,
        _ => return None,
    };
    Some(Raw::borrowed(kind, take_bytes(rest)?))
}

#[inline]
fn take_optional<'a>(rest: &mut &'a [u8]) -> Option<Option<Raw<'a>>> {
    match *array(rest)? {
        [0] => Some(None),
        [1] => take_value(rest).map(Some),
        _ => None,
    }
}

#[inline]
fn take_outcome(rest: &mut &[u8], context: &Context<'_>) -> Option<Box<Body>> {
    let value = take_value(rest)?;
    let [0] = *array(rest)? else { return None };
    Some(Box::new(Body::plain(context.value(&value))))
}
