//! What is sent to queues and becomes of it: ops to messages, checked, and back.

use std::borrow::Cow;
use std::sync::Arc;

use mpreg_patterns::base::limits::NAME_BYTES;
use mpreg_patterns::base::names::fits;
use mpreg_patterns::base::{Refusal, RunId};
use mpreg_patterns::ops::{
    Delivered, Durability, Event, Reply, Request, Send, SendOptions, Settle, Verdict,
};
use mpreg_patterns::store::Message;
use mpreg_patterns::values::Fault;
use smol_str::SmolStr;

use super::op::{DeliverOp, Ids, Op, Raw, SendOp, SentOp, Text};
use super::request::{Context, Visit, bad_field, id, name, note, optional_id, text};
use super::topics::{self, free_name, headers, payload};

/// Deliveries that one `ack`, `nack` or `extend` names at most.
pub(crate) const IDS_AT_ONCE: usize = 8_192;
/// The highest priority.
const URGENT: u8 = 9;

#[inline]
pub(super) fn send(op: &SendOp<'_>, context: &Context<'_>) -> Result<Send, Refusal> {
    let id = id(op.id.as_str())?;
    let (queue, topic) = match (&op.queue, &op.topic) {
        (Some(queue), None) => (Some(free_name("queue", queue)?), SmolStr::default()),
        (None, Some(topic)) => (None, free_name("topic", topic)?),
        _ => return Err(bad_field("queue", "`send` takes either `queue` or `topic`")),
    };
    let event = Event {
        topic,
        payload: payload(&op.payload, context)?,
        headers: headers(op.headers.as_ref(), context)?,
        message: RunId(0),
    };
    let options = SendOptions {
        delay_ms: op.delay_ms,
        priority: priority(op.priority)?,
        key: label("key", op.key.as_ref())?,
        dedup: label("dedup", op.dedup.as_ref())?,
    };
    Ok(Send { id, confirm: op.confirm, queue, event: Arc::new(event), options })
}

fn priority(priority: u8) -> Result<u8, Refusal> {
    if priority > URGENT {
        return Err(bad_field("priority", "`priority` takes 0 to 9"));
    }
    Ok(priority)
}

/// What is compared with its like and means nothing else.
pub(super) fn label(
    field: &'static str,
    text: Option<&Text<'_>>,
) -> Result<Option<SmolStr>, Refusal> {
    match text.map(Text::as_str) {
        Some(text) if !fits(text) => {
            let why = format!("`{field}` takes a string of 1 to {NAME_BYTES} bytes");
            Err(bad_field(field, &why))
        }
        other => Ok(other.map(SmolStr::new)),
    }
}

pub(super) fn consume(op: &Op<'_>, context: &Context<'_>) -> Result<Request, Refusal> {
    let Op::Consume { id, queue, group, credit } = op else { return Ok(Request::Stray) };
    let most = context.limits.credit;
    if *credit > most {
        return Err(bad_field("credit", &format!("`credit` takes 0 to {most}")));
    }
    Ok(Request::Consume {
        id: optional_id(id.as_ref())?,
        queue: free_name("queue", queue)?,
        group: group.as_ref().map(|group| name("group", group)).transpose()?,
        credit: *credit,
    })
}

/// `ack`, `nack` and `extend`.
pub(super) fn settle(op: &Op<'_>) -> Result<Request, Refusal> {
    let (id, ids, verdict) = match op {
        Op::AckIds { id, ids } => (id, ids, Verdict::Ack),
        Op::Extend { id, ids } => (id, ids, Verdict::Extend),
        Op::Nack { id, ids, delay_ms, reason, dead } => {
            let (delay_ms, reason, dead) = (*delay_ms, note(reason.as_ref()), *dead);
            (id, ids, Verdict::Nack { delay_ms, reason, dead })
        }
        _ => return Ok(Request::Stray),
    };
    if !(1..=IDS_AT_ONCE).contains(&ids.0.len()) {
        return Err(bad_field("ids", &format!("`ids` takes an array of 1 to {IDS_AT_ONCE} ULIDs")));
    }
    let id = optional_id(id.as_ref())?;
    Ok(Request::Settle(Settle { id, ids: ids.0.to_vec(), verdict }))
}

/// The op that a reply about queues is sent as.
pub(super) fn reply_op(reply: &Reply) -> Op<'_> {
    match reply {
        Reply::Sent { id, message, durability, queues, near } => {
            let fsync = *durability == Durability::Fsync;
            let sent = SentOp { id: Text::new(id), message: message.0, fsync, queues: *queues };
            if *near { Op::SentNear(sent) } else { Op::Sent(sent) }
        }
        Reply::Consumed { id, epoch, queue, group, credit } => Op::Consumed {
            id: text(id.as_ref()),
            epoch: *epoch,
            queue: Text::new(queue),
            group: text(group.as_ref()),
            credit: *credit,
        },
        Reply::Deliver(delivered) => deliver_op(delivered),
        Reply::HandOver(delivered) => hand_over_op(delivered),
        Reply::Acked { id, ids, unknown } => {
            Op::Acked { id: Text::new(id), ids: self::ids(ids), unknown: self::ids(unknown) }
        }
        Reply::Consume { id, queue, group, credit } => Op::Consume {
            id: Some(Text(id.to_string().into())),
            queue: Text::new(queue),
            group: text(group.as_ref()),
            credit: *credit,
        },
        Reply::Settle(settle) => settle_op(settle),
        other => unreachable!("{other:?} is not about queues"),
    }
}

/// `sent`, `consumed` and `acked`.
pub(super) fn answer(op: &Op<'_>) -> Result<Reply, Refusal> {
    Ok(match op {
        Op::Sent(sent) | Op::SentNear(sent) => Reply::Sent {
            id: id(sent.id.as_str())?,
            message: RunId(sent.message),
            durability: if sent.fsync { Durability::Fsync } else { Durability::Memory },
            queues: sent.queues,
            near: matches!(op, Op::SentNear(_)),
        },
        Op::Consumed { id, epoch, queue, group, credit } => Reply::Consumed {
            id: optional_id(id.as_ref())?,
            epoch: *epoch,
            queue: SmolStr::new(queue.as_str()),
            group: group.as_ref().map(|group| SmolStr::new(group.as_str())),
            credit: *credit,
        },
        Op::Acked { id: of, ids, unknown } => {
            Reply::Acked { id: id(of.as_str())?, ids: ids.0.to_vec(), unknown: unknown.0.to_vec() }
        }
        _ => return Err(bad_field("op", "not an answer")),
    })
}

#[inline]
pub(super) fn deliver(
    group: Option<&Text<'_>>,
    op: &DeliverOp<'_>,
    context: &Context<'_>,
) -> Result<Delivered, Refusal> {
    let event = Event {
        topic: SmolStr::new(op.topic.as_str()),
        payload: payload(&op.payload, context)?,
        headers: headers(op.headers.as_ref(), context)?,
        message: RunId(op.message),
    };
    let key = op.key.as_ref().map(|key| SmolStr::new(key.as_str()));
    let message = received(event, key, op.priority, op.attempt);
    let queue = SmolStr::new(op.queue.as_str());
    let group = group.map(|group| SmolStr::new(group.as_str()));
    let (id, message) = (RunId(op.id), Arc::new(message));
    Ok(Delivered { queue, group, id, attempt: op.attempt, message })
}

/// A message as its consumer knows it.
#[inline]
pub(super) fn received(event: Event, key: Option<SmolStr>, priority: u8, attempt: u32) -> Message {
    let (event, attempts) = (Arc::new(event), attempt.saturating_sub(1));
    Message { event, key, priority, attempts, expires_ms: None, death: None }
}

/// Shows the payload of a message that has just come: nobody else has it yet.
pub(super) fn attach(delivered: &mut Delivered, visit: &mut Visit<'_>) -> Result<(), Fault> {
    topics::attach(&mut Arc::make_mut(&mut delivered.message).event, visit)
}

pub(super) fn send_op(send: &Send) -> Op<'_> {
    let Send { id, confirm, queue, event, options } = send;
    Op::Send(SendOp {
        id: Text::new(id),
        queue: text(queue.as_ref()),
        topic: queue.is_none().then(|| Text::new(&event.topic)),
        payload: Raw::of(&event.payload, &[]),
        headers: event.headers.as_ref().map(|headers| Raw::of(headers, &[])),
        delay_ms: options.delay_ms,
        priority: options.priority,
        key: text(options.key.as_ref()),
        dedup: text(options.dedup.as_ref()),
        confirm: *confirm,
    })
}

pub(super) fn settle_op(settle: &Settle) -> Op<'_> {
    let (id, ids) = (text(settle.id.as_ref()), ids(&settle.ids));
    match &settle.verdict {
        Verdict::Ack => Op::AckIds { id, ids },
        Verdict::Extend => Op::Extend { id, ids },
        Verdict::Nack { delay_ms, reason, dead } => {
            let reason = reason.as_deref().map(Text::new);
            Op::Nack { id, ids, delay_ms: *delay_ms, reason, dead: *dead }
        }
    }
}

pub(super) const fn ids(ids: &[RunId]) -> Ids<'_> {
    Ids(Cow::Borrowed(ids))
}

/// A message for a queue that another broker keeps, or without one for those bound to its topic
/// there: sent under the delivery's id. If it comes twice, it is known by its ULID.
pub(super) fn hand_over_op(delivered: &Delivered) -> Op<'_> {
    let Delivered { queue, id, message, .. } = delivered;
    let event = &message.event;
    Op::Send(SendOp {
        id: Text(id.to_string().into()),
        queue: (!queue.is_empty()).then(|| Text::new(queue)),
        topic: queue.is_empty().then(|| Text::new(&event.topic)),
        payload: Raw::of(&event.payload, &[]),
        headers: event.headers.as_ref().map(|headers| Raw::of(headers, &[])),
        delay_ms: 0,
        priority: message.priority,
        key: text(message.key.as_ref()),
        dedup: Some(Text(event.message.to_string().into())),
        confirm: true,
    })
}

pub(super) fn deliver_op(delivered: &Delivered) -> Op<'_> {
    let Delivered { queue, group, id, attempt, message } = delivered;
    let event = &message.event;
    let op = DeliverOp {
        queue: Text::new(queue),
        id: id.0,
        attempt: *attempt,
        message: event.message.0,
        topic: Text::new(&event.topic),
        key: text(message.key.as_ref()),
        priority: message.priority,
        payload: Raw::of(&event.payload, &[]),
        headers: event.headers.as_ref().map(|headers| Raw::of(headers, &[])),
    };
    match text(group.as_ref()) {
        Some(group) => Op::DeliverFor(group, op),
        None => Op::Deliver(op),
    }
}
