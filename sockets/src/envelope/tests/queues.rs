//! Messages for queues and what becomes of them, in and out.

use std::sync::Arc;

use mpreg_patterns::base::Code;
use mpreg_patterns::ops::{Delivered, Durability, Event, Send, SendOptions, Settle, Verdict};
use mpreg_patterns::store;
use mpreg_patterns::values::Kind;
use proptest::prelude::*;
use rstest::rstest;

use super::*;

const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::MsgPack, Encoding::Bincode];

fn heard_json(text: &str, attached: &[&str]) -> String {
    heard(text.as_bytes().to_vec(), frames(attached), &Limits::default())
}

fn bytes(of: &'static str) -> Value {
    Value::new(Kind::Bytes, Bytes::from_static(of.as_bytes()))
}

fn event(topic: &str, payload: Value, headers: Option<&str>, message: RunId) -> Arc<Event> {
    Arc::new(Event { topic: topic.into(), payload, headers: headers.map(json), message })
}

fn to_queue(payload: Value, headers: Option<&str>) -> Send {
    let event = event("", payload, headers, RunId(0));
    let (id, queue, options) = ("m".into(), Some("a.b".into()), SendOptions::default());
    Send { id, confirm: true, queue, event, options }
}

fn delivery(payload: Value, headers: Option<&str>) -> Reply {
    let event = event("", payload, headers, run());
    let message = store::Message {
        event,
        key: None,
        priority: 0,
        attempts: 0,
        expires_ms: None,
        death: None,
    };
    let (queue, group, id) = ("q".into(), None, RunId(7));
    Reply::Deliver(Box::new(Delivered { queue, group, id, attempt: 1, message: message.into() }))
}

#[rstest]
#[case("", "send m to a/b Json 1")]
#[case(r#""queue":null,"topic":"o.é""#, "send m by topic o.é Json 1")]
#[case(r#""payload":null,"confirm":false"#, "send m to a/b Json null unconfirmed")]
#[case(
    r#""headers":{"k":2},"delay_ms":5,"priority":9,"key":"k","dedup":"d""#,
    r#"send m to a/b Json 1 headers {"k":2} after 5 ms at 9 key k dedup d"#
)]
#[case(r#""queue":null"#, "send id=m bad_field(queue): `send` takes either `queue` or `topic`")]
#[case(r#""topic":"t""#, "send id=m bad_field(queue): `send` takes either `queue` or `topic`")]
#[case(r#""queue":7"#, "send id=m bad_field(queue): `queue` takes a string")]
#[case(r#""queue":"a..b""#, "send id=m bad_name(queue): `a..b` is no name")]
#[case(r#""queue":"mpreg.x""#, "send id=m reserved_name(queue): `mpreg.x` is the broker's")]
#[case(
    r#""queue":null,"topic":"mpreg.x""#,
    "send id=m reserved_name(topic): `mpreg.x` is the broker's"
)]
#[case(r#""delay_ms":-1"#, "send id=m bad_field(delay_ms): `delay_ms` takes a whole number from 0")]
#[case(r#""priority":10"#, "send id=m bad_field(priority): `priority` takes 0 to 9")]
#[case(r#""priority":256"#, "send id=m bad_field(priority): `priority` takes 0 to 9")]
#[case(
    r#""priority":0.5"#,
    "send id=m bad_field(priority): `priority` takes a whole number from 0"
)]
#[case(r#""key":"""#, "send id=m bad_field(key): `key` takes a string of 1 to 255 bytes")]
#[case(r#""dedup":"""#, "send id=m bad_field(dedup): `dedup` takes a string of 1 to 255 bytes")]
#[case(r#""headers":[]"#, "send id=m bad_field(headers): `headers` takes an object")]
#[case(r#""id":null"#, "send bad_field(id): `id` is missing")]
fn fields_of_a_send(#[case] fields: &str, #[case] line: &str) {
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!(r#"{{"op":"send","id":"m","queue":"a/b","payload":1{comma}{fields}}}"#);
    assert_eq!(heard_json(&text, &[]), line);
}

#[test]
fn labels_end_at_255_bytes() {
    let line = |length: usize| {
        let key = "k".repeat(length);
        let text = format!(r#"{{"op":"send","id":"m","queue":"q","payload":1,"key":"{key}"}}"#);
        heard_json(&text, &[])
    };
    assert_eq!(line(255), format!("send m to q Json 1 key {}", "k".repeat(255)));
    assert_eq!(line(256), "send id=m bad_field(key): `key` takes a string of 1 to 255 bytes");
}

#[rstest]
#[case(r#"{"$frame":1}"#, "send m to q Bytes one")]
#[case(
    r#"[{"$frame":1}]"#,
    "send id=m bad_frame: a payload is one attachment and nothing else, or names none"
)]
#[case("1", "send id=m bad_frame: frame 1 is not named")]
fn a_payload_may_be_one_attachment(#[case] payload: &str, #[case] line: &str) {
    let text = format!(r#"{{"op":"send","id":"m","queue":"q","payload":{payload}}}"#);
    assert_eq!(heard_json(&text, &["one"]), line);
}

#[rstest]
#[case("", "Consume { id: None, queue: \"q\", group: None, credit: 1 }")]
#[case(
    r#","id":"c","group":"g","credit":0"#,
    "Consume { id: Some(\"c\"), queue: \"q\", group: Some(\"g\"), credit: 0 }"
)]
#[case(r#","credit":65537"#, "consume bad_field(credit): `credit` takes 0 to 65536")]
#[case(r#","queue":null"#, "consume bad_field(queue): `queue` is missing")]
#[case(r#","queue":"mpreg""#, "consume reserved_name(queue): `mpreg` is the broker's")]
#[case(r#","queue":".""#, "consume bad_name(queue): `.` is no name")]
#[case(r#","group":"""#, "consume bad_name(group): `` is no name")]
fn fields_of_a_consume(#[case] fields: &str, #[case] line: &str) {
    assert_eq!(heard_json(&format!(r#"{{"op":"consume","queue":"q"{fields}}}"#), &[]), line);
}

const IDS: &str = "bad_field(ids): `ids` takes an array of 1 to 8192 ULIDs";

#[rstest]
#[case(r#"{"op":"ack","ids":["RUN"]}"#, "Settle(Settle { id: None, ids: [RUN], verdict: Ack })")]
#[case(
    r#"{"op":"extend","id":"x","ids":["RUN","RUN"]}"#,
    "Settle(Settle { id: Some(\"x\"), ids: [RUN, RUN], verdict: Extend })"
)]
#[case(
    r#"{"op":"nack","ids":["RUN"]}"#,
    "Settle(Settle { id: None, ids: [RUN], \
     verdict: Nack { delay_ms: None, reason: None, dead: false } })"
)]
#[case(
    r#"{"op":"nack","ids":["RUN"],"delay_ms":0,"reason":"r","dead":true}"#,
    "Settle(Settle { id: None, ids: [RUN], \
     verdict: Nack { delay_ms: Some(0), reason: Some(\"r\"), dead: true } })"
)]
#[case(r#"{"op":"ack","id":"x","ids":[]}"#, &format!("ack id=x {IDS}"))]
#[case(r#"{"op":"ack","id":"x","ids":["RUN","y"]}"#, &format!("ack id=x {IDS}"))]
#[case(r#"{"op":"nack","ids":"RUN"}"#, &format!("nack {IDS}"))]
#[case(r#"{"op":"nack","id":"x"}"#, &format!("nack id=x {IDS}"))]
#[case(r#"{"op":"extend","ids":[1]}"#, &format!("extend {IDS}"))]
#[case(
    r#"{"op":"ack","ids":["RUN"],"events":1}"#,
    "ack bad_field(ids): `ack` takes either `ids` or `events`"
)]
#[case(
    r#"{"op":"nack","ids":["RUN"],"delay_ms":"1"}"#,
    "nack bad_field(delay_ms): `delay_ms` takes a whole number from 0"
)]
#[case(
    r#"{"op":"deliver","id":"x"}"#,
    "deliver id=x unknown_op(op): `deliver` is what a broker says"
)]
#[case(r#"{"op":"sent"}"#, "sent unknown_op(op): `sent` is what a broker says")]
#[case(r#"{"op":"consumed"}"#, "consumed unknown_op(op): `consumed` is what a broker says")]
#[case(r#"{"op":"acked"}"#, "acked unknown_op(op): `acked` is what a broker says")]
fn what_becomes_of_deliveries(#[case] text: &str, #[case] line: &str) {
    let text = text.replace("RUN", RUN);
    assert_eq!(heard_json(&text, &[]).replace(RUN, "RUN"), line);
}

/// So many ids and no more, whatever they come in; a reason is cut.
#[test]
fn ids_have_a_bound_in_every_encoding() {
    for encoding in ENCODINGS {
        let settle = |count: usize, verdict| {
            let ids = vec![run(); count];
            let request = Request::Settle(Settle { id: None, ids, verdict });
            heard(lone(encoding, &request).unwrap().body, Frames::new(), &Limits::default())
        };
        for count in [0, 8_193] {
            assert!(settle(count, Verdict::Ack).ends_with(&format!("ack {IDS}")));
        }
        let taken = settle(8_192, Verdict::Ack);
        assert_eq!(taken.matches(RUN).count(), 8_192, "{encoding:?}");
        let reason = Some("r".repeat(10_000).into());
        let nack = settle(1, Verdict::Nack { delay_ms: None, reason, dead: false });
        assert!(nack.contains(&format!("Some(\"{}\")", "r".repeat(8_192))), "{encoding:?}");
    }
}

#[rstest]
#[case(Send { queue: Some("mpreg.x".into()), ..to_queue(json("1"), None) }, "reserved_name(queue)")]
#[case(Send { queue: Some("..".into()), ..to_queue(json("1"), None) }, "bad_name(queue)")]
#[case(
    Send {
        options: SendOptions { priority: 10, ..SendOptions::default() },
        ..to_queue(json("1"), None)
    },
    "bad_field(priority)"
)]
#[case(to_queue(json("1"), Some("[]")), "bad_field(headers)")]
#[case(to_queue(Value::msgpack(unhex("91")), None), "bad_value(payload)")]
fn a_bincode_send_is_checked_as_well(#[case] send: Send, #[case] why: &str) {
    let body = lone(Encoding::Bincode, &Request::Send(send.into())).unwrap().body;
    let line = heard(body, Frames::new(), &Limits::default());
    assert!(line.starts_with(&format!("0 send id=m {why}: ")), "{line}");
}

#[rstest]
#[case(json("{\"$frame\":1}"), "{\"$frame\":1}", &[])]
#[case(bytes("raw"), "{\"$frame\":1}", &["raw"])]
fn deliveries_find_their_form(
    #[case] payload: Value,
    #[case] text: &str,
    #[case] attached: &[&str],
) {
    let reply = delivery(payload, None);
    let message = lone(Encoding::Json, &reply).unwrap();
    let id = RunId(7);
    let head = format!(r#"{{"op":"deliver","queue":"q","id":"{id}","attempt":1,"#);
    assert_eq!(message.body, format!("{head}\"message\":\"{RUN}\",\"payload\":{text}}}"));
    assert_eq!(message.frames, frames(attached));
}

#[test]
fn a_delivery_that_does_not_fit_leaves_the_batch_alone() {
    let mut batch = Batch::new(Encoding::MsgPack);
    batch.push(&delivery(json("1"), None)).unwrap();
    let before = batch.bytes();
    let fault = batch.push(&delivery(json("[1180591620717411303424]"), None)).unwrap_err();
    assert_eq!(fault.code(), Code::UnencodableValue);
    assert_eq!((batch.bytes(), batch.items()), (before, 1));
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&["q", "a.b", "é/ü.z", "mpregs"][..]).prop_map(str::to_owned)
}

fn label() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[a-zé \"\\\\]{1,40}")
}

fn payload() -> impl Strategy<Value = Value> {
    let texts = &["1", "null", "{\"a\":[1.5,\"é\"]}", "{\"$lit\":1}"][..];
    prop_oneof![prop::sample::select(texts).prop_map(json), Just(bytes("raw"))]
}

fn id() -> impl Strategy<Value = RunId> {
    any::<u128>().prop_map(RunId)
}

prop_compose! {
    fn message()(
        topic in name(), payload in payload(), headers in prop::option::of(Just("{\"k\":[1]}")),
        message in id(),
    ) -> Event {
        Event { topic: topic.into(), payload, headers: headers.map(json), message }
    }
}

prop_compose! {
    fn send()(
        event in message(), by_name: bool, confirm: bool,
        delay_ms in prop_oneof![Just(0), any::<u64>()],
        priority in 0_u8..10, key in label(), dedup in label(),
    ) -> Request {
        let queue = by_name.then(|| event.topic.clone());
        let topic = if by_name { Default::default() } else { event.topic.clone() };
        let event = Arc::new(Event { topic, message: RunId(0), ..event });
        let (key, dedup) = (key.map(Into::into), dedup.map(Into::into));
        let options = SendOptions { delay_ms, priority, key, dedup };
        Request::Send(Box::new(Send { id: "m".into(), confirm, queue, event, options }))
    }
}

fn settle() -> impl Strategy<Value = Request> {
    let nack =
        (any::<Option<u64>>(), label(), any::<bool>()).prop_map(|(delay_ms, reason, dead)| {
            Verdict::Nack { delay_ms, reason: reason.map(Into::into), dead }
        });
    let verdict = prop_oneof![Just(Verdict::Ack), Just(Verdict::Extend), nack];
    (prop::option::of(Just("x".into())), prop::collection::vec(id(), 1..4), verdict)
        .prop_map(|(id, ids, verdict)| Request::Settle(Settle { id, ids, verdict }))
}

fn request() -> impl Strategy<Value = Request> {
    let consume =
        (name(), prop::option::of(name()), 0_u32..65_537).prop_map(|(q, group, credit)| {
            let (queue, group) = (q.into(), group.map(Into::into));
            Request::Consume { id: None, queue, group, credit }
        });
    prop_oneof![send(), consume, settle()]
}

prop_compose! {
    fn deliver()(
        event in message(), queue in name(), group in prop::option::of(name()), id in id(),
        attempt in 1_u32.., key in label(), priority in 0_u8..10,
    ) -> Reply {
        let (event, key, attempts) = (Arc::new(event), key.map(Into::into), attempt - 1);
        let (expires_ms, death) = (None, None);
        let message = store::Message { event, key, priority, attempts, expires_ms, death };
        let (queue, group, message) = (queue.into(), group.map(Into::into), Arc::new(message));
        Reply::Deliver(Box::new(Delivered { queue, group, id, attempt, message }))
    }
}

fn reply() -> impl Strategy<Value = Reply> {
    let sent = (id(), any::<bool>(), any::<u32>()).prop_map(|(message, fsync, queues)| {
        let durability = if fsync { Durability::Fsync } else { Durability::Memory };
        Reply::Sent { id: "m".into(), message, durability, queues, near: false }
    });
    let consumed = (any::<u64>(), name(), prop::option::of(name()), any::<u32>());
    let consumed = consumed.prop_map(|(epoch, queue, group, credit)| {
        let (queue, group) = (queue.into(), group.map(Into::into));
        Reply::Consumed { id: Some("c".into()), epoch, queue, group, credit }
    });
    let ids = || prop::collection::vec(id(), 0..4);
    let acked =
        (ids(), ids()).prop_map(|(ids, unknown)| Reply::Acked { id: "a".into(), ids, unknown });
    prop_oneof![sent, consumed, deliver(), acked]
}

/// In a batch, where bincode has its short way, and alone, in every encoding.
fn every_way<'m>(message: Outgoing<'m>) -> Vec<Message> {
    let mut all = Vec::new();
    for encoding in ENCODINGS {
        let lone = lone(encoding, message).unwrap();
        let mut batch = Batch::new(encoding);
        let pushed = match batch.push(message).unwrap() {
            Pushed::Joined => Message { body: batch.finish().unwrap(), frames: Frames::new() },
            Pushed::Alone(alone) => alone,
        };
        if encoding != Encoding::MsgPack {
            assert_eq!(pushed.body, lone.body, "the short way writes the same");
        }
        all.extend([lone, pushed]);
    }
    all
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        for Message { body, frames } in every_way(Outgoing::from(&request)) {
            decode(&body, frames, &Limits::default(), &mut |item| {
                assert_eq!(item.result.as_ref(), Ok(&request));
            })
            .unwrap();
        }
    }

    #[test]
    fn replies_come_back(reply in reply()) {
        for Message { body, frames } in every_way(Outgoing::from(&reply)) {
            decode_reply(&body, frames, &Limits::default(), &mut |item| {
                assert_eq!(item.result.as_ref(), Ok(&reply));
            })
            .unwrap();
        }
    }
}
