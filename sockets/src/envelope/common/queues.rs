//! Sends, deliveries and acks.

use std::sync::Arc;

use mpreg_patterns::base::RunId;
use mpreg_patterns::base::names::is_name;
use mpreg_patterns::names::is_reserved;
use mpreg_patterns::ops::{
    Delivered, Durability, Event, Reply, Request, Send, SendOptions, Settle, Verdict,
};
use smol_str::SmolStr;

use super::super::queues::{IDS_AT_ONCE, received};
use super::{
    ACK, Context, DELIVER, DELIVER_FOR, Last, Outgoing, SEND, SENT, array, put_bytes, put_optional,
    put_value, take_bytes, take_id, take_payload,
};

/// What follows the payload of a plain message: no headers, no delay, priority 0, no key, no dedup.
const PLAIN: [u8; 12] = [0; 12];
/// The bytes of a ULID.
const ULID: usize = 16;

#[inline]
pub(super) fn put(message: Outgoing<'_>, out: &mut Vec<u8>) -> bool {
    match message {
        Outgoing::Reply(Reply::Deliver(delivered)) => put_deliver(delivered, out),
        Outgoing::Reply(Reply::Sent { id, message, durability, queues, near: false }) => {
            out.extend_from_slice(&SENT);
            put_bytes(id.as_bytes(), out);
            out.extend_from_slice(&message.0.to_le_bytes());
            out.push(u8::from(*durability == Durability::Fsync));
            out.extend_from_slice(&queues.to_le_bytes());
        }
        Outgoing::Request(Request::Send(send)) => put_send(send, out),
        Outgoing::Request(Request::Settle(Settle { id, ids, verdict: Verdict::Ack })) => {
            out.extend_from_slice(&ACK);
            put_text(id.as_ref(), out);
            out.extend_from_slice(&(ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
        }
        _ => return false,
    }
    true
}

#[inline]
fn put_text(text: Option<&SmolStr>, out: &mut Vec<u8>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_bytes(text.as_bytes(), out);
        }
    }
}

#[inline]
fn put_send(send: &Send, out: &mut Vec<u8>) {
    let Send { id, confirm, queue, event, options } = send;
    out.extend_from_slice(&SEND);
    put_bytes(id.as_bytes(), out);
    put_text(queue.as_ref(), out);
    put_text(queue.is_none().then_some(&event.topic), out);
    put_value(&event.payload, out);
    put_optional(event.headers.as_ref(), out);
    out.extend_from_slice(&options.delay_ms.to_le_bytes());
    out.push(options.priority);
    put_text(options.key.as_ref(), out);
    put_text(options.dedup.as_ref(), out);
    out.push(u8::from(*confirm));
}

#[inline]
fn put_deliver(delivered: &Delivered, out: &mut Vec<u8>) {
    let Delivered { queue, group, id, attempt, message } = delivered;
    let event = &message.event;
    match group {
        None => out.extend_from_slice(&DELIVER),
        Some(group) => {
            out.extend_from_slice(&DELIVER_FOR);
            put_bytes(group.as_bytes(), out);
        }
    }
    put_bytes(queue.as_bytes(), out);
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&attempt.to_le_bytes());
    out.extend_from_slice(&event.message.0.to_le_bytes());
    put_bytes(event.topic.as_bytes(), out);
    put_text(message.key.as_ref(), out);
    out.push(message.priority);
    put_value(&event.payload, out);
    put_optional(event.headers.as_ref(), out);
}

/// A message to a queue by name, without anything else.
#[inline]
pub(super) fn take_send(
    rest: &mut &[u8],
    last: &mut Last,
    context: &Context<'_>,
) -> Option<Request> {
    let id = take_id(rest)?;
    let [1] = *array(rest)? else { return None };
    let queue = last.name(take_bytes(rest)?, is_name).filter(|queue| !is_reserved(queue))?;
    let [0] = *array(rest)? else { return None };
    let payload = take_payload(rest, context)?;
    let (PLAIN, [confirm @ (0 | 1)]) = (*array(rest)?, *array(rest)?) else { return None };
    let event = Event { topic: SmolStr::default(), payload, headers: None, message: RunId(0) };
    Some(Request::Send(Box::new(Send {
        id: SmolStr::new(id),
        confirm: confirm == 1,
        queue: Some(queue.clone()),
        event: Arc::new(event),
        options: SendOptions::default(),
    })))
}

/// An ack that nobody waits for the answer of.
#[inline]
pub(super) fn take_ack(rest: &mut &[u8]) -> Option<Request> {
    let [0] = *array(rest)? else { return None };
    let count = usize::try_from(u64::from_le_bytes(*array(rest)?)).ok()?;
    if !(1..=IDS_AT_ONCE).contains(&count) {
        return None;
    }
    let (taken, after) = rest.split_at_checked(count * ULID)?;
    *rest = after;
    let (ids, _) = taken.as_chunks();
    let ids = ids.iter().map(|id| RunId(u128::from_le_bytes(*id))).collect();
    Some(Request::Settle(Settle { id: None, ids, verdict: Verdict::Ack }))
}

/// A delivery without group, key, priority and headers.
#[inline]
pub(super) fn take_deliver(
    rest: &mut &[u8],
    last: &mut Last,
    context: &Context<'_>,
) -> Option<Reply> {
    let queue = last.name(take_bytes(rest)?, |_| true)?;
    let id = RunId(u128::from_le_bytes(*array(rest)?));
    let attempt = u32::from_le_bytes(*array(rest)?);
    let message = RunId(u128::from_le_bytes(*array(rest)?));
    let topic = SmolStr::new(std::str::from_utf8(take_bytes(rest)?).ok()?);
    let [0, 0] = *array(rest)? else { return None };
    let payload = take_payload(rest, context)?;
    let [0] = *array(rest)? else { return None };
    let event = Event { topic, payload, headers: None, message };
    let message = Arc::new(received(event, None, 0, attempt));
    let (queue, group) = (queue.clone(), None);
    Some(Reply::Deliver(Box::new(Delivered { queue, group, id, attempt, message })))
}

#[inline]
pub(super) fn take_sent(rest: &mut &[u8]) -> Option<Reply> {
    let id = SmolStr::new(take_id(rest)?);
    let message = RunId(u128::from_le_bytes(*array(rest)?));
    let durability = match *array(rest)? {
        [0] => Durability::Memory,
        [1] => Durability::Fsync,
        _ => return None,
    };
    let queues = u32::from_le_bytes(*array(rest)?);
    Some(Reply::Sent { id, message, durability, queues, near: false })
}
