//! The ops of queues.

use mpreg_patterns::ops::{Delivered, Durability, Send, SendOptions, Settle, Verdict};
use mpreg_patterns::store::Message;

use super::*;

fn message(topic: &str, payload: Value, headers: Option<&str>, message: RunId) -> Arc<Event> {
    Arc::new(Event { topic: topic.into(), payload, headers: headers.map(json), message })
}

fn raw() -> Value {
    Value::new(Kind::Bytes, "raw".into())
}

pub(super) fn requests() -> Vec<(&'static str, Request)> {
    let plain = Send {
        id: "m1".into(),
        confirm: true,
        queue: Some("thumbnails".into()),
        event: message("", json("{\"image\":17}"), None, RunId(0)),
        options: SendOptions::default(),
    };
    let bytes = Send { event: message("", raw(), None, RunId(0)), ..plain.clone() };
    let full = Send {
        confirm: false,
        queue: None,
        event: message("orders.eu", json("null"), Some("{\"k\":[1]}"), RunId(0)),
        options: SendOptions {
            delay_ms: 5_000,
            priority: 9,
            key: Some("album 3".into()),
            dedup: Some("é".into()),
        },
        ..plain.clone()
    };
    let consume = |id: Option<&str>, group: Option<&str>, credit| Request::Consume {
        id: id.map(Into::into),
        queue: "thumb/nails".into(),
        group: group.map(Into::into),
        credit,
    };
    let settle = |id: Option<&str>, ids: Vec<RunId>, verdict| {
        Request::Settle(Settle { id: id.map(Into::into), ids, verdict })
    };
    let nack = |delay_ms, reason: Option<&str>, dead| Verdict::Nack {
        delay_ms,
        reason: reason.map(Into::into),
        dead,
    };
    let both = vec![run(), RunId(run().0 + 1)];
    vec![
        ("send", Request::Send(plain.into())),
        ("send of bytes", Request::Send(bytes.into())),
        ("send with everything", Request::Send(full.into())),
        ("consume", consume(None, None, 1)),
        ("consume with everything", consume(Some("q1"), Some("audit"), 0)),
        ("ack of a delivery", settle(None, vec![run()], Verdict::Ack)),
        ("ack of deliveries", settle(Some("a1"), both.clone(), Verdict::Ack)),
        ("nack", settle(None, vec![run()], nack(None, None, false))),
        ("nack with everything", settle(Some("a2"), both, nack(Some(0), Some("no luck"), true))),
        ("extend", settle(None, vec![run()], Verdict::Extend)),
    ]
}

pub(super) fn replies() -> Vec<(&'static str, Reply)> {
    let sent = |durability, queues, near| {
        let (id, message) = ("m1".into(), run());
        Reply::Sent { id, message, durability, queues, near }
    };
    let consumed = |group: Option<&str>| Reply::Consumed {
        id: Some("q1".into()),
        epoch: 1_234_567_890_123,
        queue: "thumb/nails".into(),
        group: group.map(Into::into),
        credit: 16,
    };
    let deliver = |group: Option<&str>, event, key: Option<&str>, priority, attempt: u32| {
        let (key, attempts) = (key.map(Into::into), attempt - 1);
        let (expires_ms, death) = (None, None);
        let message = Message { event, key, priority, attempts, expires_ms, death };
        let (queue, id) = ("thumbnails".into(), RunId(run().0 + 1));
        let group = group.map(Into::into);
        Reply::Deliver(Box::new(Delivered { queue, group, id, attempt, message: message.into() }))
    };
    let acked = |unknown| Reply::Acked { id: "a1".into(), ids: vec![run()], unknown };
    let full = message("orders.eu", json("[null]"), Some("{\"k\":\"é\"}"), run());
    vec![
        ("sent", sent(Durability::Fsync, 1, false)),
        ("sent to memory", sent(Durability::Memory, 3, false)),
        ("sent, and kept near", sent(Durability::Fsync, 1, true)),
        ("consumed", consumed(None)),
        ("consumed by a group", consumed(Some("audit"))),
        ("deliver", deliver(None, message("", json("{\"image\":17}"), None, run()), None, 0, 1)),
        ("deliver with everything", deliver(None, full.clone(), Some("album 3"), 9, 2)),
        ("deliver for a group", deliver(Some("copies"), full, Some("album 3"), 9, 2)),
        ("deliver of bytes", deliver(None, message("", raw(), None, run()), None, 0, 1)),
        ("acked", acked(Vec::new())),
        ("acked but for one", acked(vec![RunId(run().0 + 1)])),
    ]
}
