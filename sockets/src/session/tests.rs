//! What a REQ gets for what it sent, and a graph's one outcome.

use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::base::Limits;
use mpreg_patterns::ops::{Delivery, Event, GraphReply};
use mpreg_patterns::outbox::Parcel as _;
use mpreg_patterns::values::{Body, Value};
use rstest::rstest;

use super::*;

/// A session that has heard a frame, with what the door refused pushed as the core does.
fn asked(is_req: bool, body: &str) -> Session {
    let mut session = Session::default();
    session.begin(is_req, Prefix::None);
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut refused = Vec::new();
    let decoded = envelope::decode(&body, Vec::new(), &Limits::default(), &mut |item| {
        refused.extend(session.admit(item).err().map(|refused| refused.reply));
    });
    match decoded {
        Ok(decoded) => session.heard(&decoded),
        Err(refusal) => {
            session.unreadable();
            refused.push(error_reply(None, None, refusal));
        }
    }
    refused.iter().for_each(|reply| session.push(reply).unwrap());
    session
}

fn result(id: &str, value: Value) -> Reply {
    Reply::Result { id: id.into(), body: Body::plain(value).into(), track: None }
}

fn published(id: &str) -> Reply {
    Reply::Published { id: id.into(), message: RunId(7) }
}

fn of_queue(id: &str) -> Reply {
    let durability = mpreg_patterns::ops::Durability::Fsync;
    Reply::Sent { id: id.into(), message: RunId(7), durability, queues: 1, near: false }
}

fn acked(id: &str) -> Reply {
    Reply::Acked { id: id.into(), ids: vec![], unknown: vec![] }
}

fn pong(id: &str) -> Reply {
    Reply::Pong { id: Some(id.into()) }
}

/// The next message, as op, id, item and code of each reply in it.
fn sent(session: &mut Session) -> Option<String> {
    let parcel = session.take()?;
    assert!(parcel.bytes() > 0);
    let (mut lines, body) = (Vec::new(), Bytes::copy_from_slice(parcel.body()));
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let items = told.as_array().cloned().unwrap_or_else(|| vec![told.clone()]);
    for item in items {
        let mut words: Vec<String> = vec![item["op"].as_str().unwrap().into()];
        words.extend(item["id"].as_str().map(Into::into));
        words.extend(item["item"].as_u64().map(|item| format!("item={item}")));
        words.extend(item["error"]["op"].as_str().map(|op| format!("({op})")));
        words.extend(item["error"]["code"].as_str().map(Into::into));
        lines.push(words.join(" "));
    }
    Some(lines.join(", "))
}

/// Outcomes stand in the order of the items, whatever the ids and whoever refused them.
#[rstest]
#[case::refused_before_its_namesake(
    r#"[{"op":"call","id":"a","fun":"f"},{"op":"cancel","id":"a"}]"#,
    vec![result("a", Value::null())],
    "result a, error a (cancel) needs_dealer"
)]
#[case::a_bad_item_with_the_id_of_a_good_one(
    r#"[{"op":"call","id":"a","fun":"f"},{"op":"call","id":"a","fun":""},{"op":"ping","id":"p"}]"#,
    vec![pong("p"), result("a", Value::null())],
    "result a, error a (call) bad_name, pong p"
)]
#[case::without_ids(
    r#"[{"op":"call","id":"a","fun":"f"},7,{"op":"call","fun":"f"}]"#,
    vec![result("a", Value::null())],
    "result a, error item=1 bad_field, error item=2 (call) bad_field"
)]
#[case::a_ping_and_a_call_of_one_id(
    r#"[{"op":"call","id":"a","fun":"f"},{"op":"ping","id":"a"}]"#,
    vec![pong("a"), result("a", Value::null())],
    "result a, pong a"
)]
#[case::all_refused(
    r#"[{"op":"offer","functions":[]},{"op":"nope"}]"#,
    vec![],
    "error item=0 (offer) needs_dealer, error item=1 (nope) unknown_op"
)]
#[case::published(
    r#"[{"op":"publish","id":"a","topic":"t","payload":1},
        {"op":"publish","id":"b","topic":"t","payload":1}]"#,
    vec![published("b"), published("a")],
    "published a, published b"
)]
#[case::sent_and_acked(
    r#"[{"op":"send","id":"a","queue":"q","payload":1},
        {"op":"ack","id":"b","ids":["01HGW2BBG0000000000000000A"]},
        {"op":"send","id":"c","queue":"q","payload":1}]"#,
    vec![of_queue("c"), acked("b"), of_queue("a")],
    "sent a, acked b, sent c"
)]
#[case::what_of_queues_has_no_reply(
    r#"[{"op":"send","id":"a","queue":"q","payload":1,"confirm":false},
        {"op":"consume","id":"c","queue":"q"},
        {"op":"ack","ids":["01HGW2BBG0000000000000000A"]},
        {"op":"nack","ids":["01HGW2BBG0000000000000000A"]},
        {"op":"extend","ids":["01HGW2BBG0000000000000000A"]}]"#,
    vec![],
    "error a (send) needs_dealer, error c (consume) needs_dealer, \
     error item=2 (ack) needs_dealer, error item=3 (nack) needs_dealer, \
     error item=4 (extend) needs_dealer"
)]
#[case::events_and_their_like(
    r#"[{"op":"publish","id":"a","topic":"t","payload":1,"confirm":false},
        {"op":"ack","events":1},{"op":"subscribe","id":"s","patterns":[]},
        {"op":"unsubscribe","patterns":[]}]"#,
    vec![],
    "error a (publish) needs_dealer, error item=1 (ack) needs_dealer, \
     error s (subscribe) needs_dealer, error item=3 (unsubscribe) needs_dealer"
)]
#[case::alone(r#"{"op":"cancel","id":"a"}"#, vec![], "error a (cancel) needs_dealer")]
#[case::alone_without_an_id(r#"{"op":"bye","id":7}"#, vec![], "error (bye) bad_field")]
#[case::unreadable(r#"[{"op":"cancel","id":"a"},"#, vec![], "error bad_encoding")]
fn a_req_hears_outcomes_in_order(
    #[case] body: &str,
    #[case] replies: Vec<Reply>,
    #[case] expected: &str,
) {
    let mut session = asked(true, body);
    for reply in replies {
        assert_eq!(sent(&mut session), None, "not before the last outcome");
        session.push(&reply).unwrap();
    }
    assert_eq!(sent(&mut session).as_deref(), Some(expected));
    assert_eq!(sent(&mut session), None);
}

fn part(number: u32, more: bool, value: Value) -> Reply {
    let results = vec![("s".into(), Body::plain(value))];
    let (id, part) = ("g".into(), Some(number));
    Reply::Graph(Box::new(GraphReply { id, results, ran: true, part, more, ..Default::default() }))
}

/// A NaN in MessagePack, which JSON cannot hold.
fn nan() -> Value {
    Value::msgpack([&[0xCB], &f64::NAN.to_be_bytes()[..]].concat())
}

/// A part that cannot be encoded ends the reply: nothing more of it, and one error at its end.
#[rstest]
#[case::the_first(0)]
#[case::one_in_between(1)]
#[case::the_last(3)]
fn a_graph_has_one_outcome(#[case] bad: u32, #[values(false, true)] coalesces: bool) {
    let mut session = asked(false, r#"{"op":"ping"}"#);
    session.speak(Encoding::Json, coalesces);
    let mut refused = Vec::new();
    for number in 0..4 {
        let value = if number == bad { nan() } else { Value::null() };
        refused.push(session.push(&part(number, number < 3, value)).err());
    }
    let last = refused.pop().flatten().expect("the last part is refused");
    assert!(last.is(Code::UnencodableValue), "{last}");
    assert_eq!(refused, [None, None, None]);
    let mut sent_parts = 0;
    while let Some(line) = sent(&mut session) {
        sent_parts += line.matches("result g").count() as u32;
    }
    assert_eq!(sent_parts, bad, "what came before it is out, nothing behind it");
    session.push(&part(0, false, Value::null())).expect("a later graph of that id is well");
}

/// An event is written once for all who hold its pattern in one encoding; each gets what it would
/// have got by itself.
#[test]
fn an_event_is_one_message_for_many() {
    let event = |payload: &'static str| {
        let (topic, payload) = ("a.b".into(), Value::json(payload));
        Arc::new(Event { topic, payload, headers: None, message: RunId(7) })
    };
    let (first, second) = (event("1"), event("2"));
    let told = |event: &Arc<Event>, pattern: &str, seq| {
        let (event, pattern) = (event.clone(), pattern.into());
        Reply::Event(Delivery { event, pattern, seq, missed: 0 })
    };
    let (mut last, mut addresses) = (LastEvent::default(), Vec::new());
    for (encoding, reply) in [
        (Encoding::Json, told(&first, "a.*", 1)),
        (Encoding::Json, told(&first, "a.*", 1)),
        (Encoding::Json, told(&first, "a.*", 2)),
        (Encoding::Json, told(&first, "#", 2)),
        (Encoding::MsgPack, told(&first, "#", 2)),
        (Encoding::MsgPack, told(&second, "#", 2)),
        (Encoding::MsgPack, told(&second, "#", 2)),
    ] {
        let [mut shares, mut alone] = [(), ()].map(|()| {
            let mut session = Session::default();
            session.speak(encoding, false);
            session
        });
        shares.push_sharing(&reply, &mut last).unwrap();
        alone.push(&reply).unwrap();
        let (got, wanted) = (shares.take().unwrap(), alone.take().unwrap());
        assert_eq!(got.body(), wanted.body());
        // Kept, so that no other message is put in its place.
        addresses.push(got);
    }
    let addresses: Vec<_> = addresses.iter().map(|parcel| parcel.body().as_ptr()).collect();
    let same: Vec<_> = addresses.windows(2).map(|pair| pair[0] == pair[1]).collect();
    assert_eq!(same, [true, false, false, false, false, true]);
}
