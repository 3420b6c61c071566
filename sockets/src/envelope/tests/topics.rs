//! Events and who asks for them, in and out.

use std::sync::Arc;

use mpreg_patterns::base::Code;
use mpreg_patterns::ops::{Delivery, Event, Publish};
use mpreg_patterns::values::Kind;
use rstest::rstest;

use super::*;

fn heard_json(text: &str, attached: &[&str]) -> String {
    heard(text.as_bytes().to_vec(), frames(attached), &Limits::default())
}

fn event(payload: Value, headers: Option<&str>) -> Event {
    Event { topic: "a.b".into(), payload, headers: headers.map(json), message: run() }
}

fn delivery(payload: Value, headers: Option<&str>) -> Reply {
    let event = Arc::new(event(payload, headers));
    Reply::Event(Delivery { event, pattern: "a.#".into(), seq: 7, missed: 0 })
}

fn bytes(of: &'static str) -> Value {
    Value::new(Kind::Bytes, Bytes::from_static(of.as_bytes()))
}

#[rstest]
#[case(r#""payload":1"#, "publish p a.b Json 1")]
#[case(r#""payload":null,"confirm":false"#, "publish p a.b Json null unconfirmed")]
#[case(r#""payload":1,"headers":{"k":2}"#, r#"publish p a.b Json 1 headers {"k":2}"#)]
#[case(r#""payload":1,"headers":null"#, "publish p a.b Json 1")]
#[case("", "publish id=p bad_field(payload): `payload` is missing")]
#[case(r#""payload":1,"topic":7"#, "publish id=p bad_field(topic): `topic` takes a string")]
#[case(r#""payload":1,"topic":"a..b""#, "publish id=p bad_name(topic): `a..b` is no name")]
#[case(
    r#""payload":1,"topic":"mpreg""#,
    "publish id=p reserved_name(topic): `mpreg` is the broker's"
)]
#[case(
    r#""payload":1,"topic":"mpreg.x""#,
    "publish id=p reserved_name(topic): `mpreg.x` is the broker's"
)]
#[case(r#""payload":1,"topic":"mpregs.é/ü""#, "publish p mpregs.é/ü Json 1")]
#[case(r#""payload":1,"topic":null"#, "publish id=p bad_field(topic): `topic` is missing")]
#[case(r#""payload":1,"headers":[]"#, "publish id=p bad_field(headers): `headers` takes an object")]
#[case(
    r#""payload":1,"confirm":1"#,
    "publish id=p bad_field(confirm): `confirm` takes true or false"
)]
#[case(r#""payload":1,"id":null"#, "publish bad_field(id): `id` is missing")]
fn fields_of_a_publish(#[case] fields: &str, #[case] line: &str) {
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!(r#"{{"op":"publish","id":"p","topic":"a.b"{comma}{fields}}}"#);
    assert_eq!(heard_json(&text, &[]), line);
}

/// What is stored has no space between its parts; within strings and numbers nothing changes.
#[rstest]
#[case("[ 1 , 2.50 ]", "[1,2.50]")]
#[case(
    " { \"b\" : \" x  y\" ,\r\n\t\"a\" : [ ] , \"b\" : 1E+2 } ",
    "{\"b\":\" x  y\",\"a\":[],\"b\":1E+2}"
)]
#[case("1180591620717411303424", "1180591620717411303424")]
#[case("\"\\ud800 \\\" \"", "\"\\ud800 \\\" \"")]
fn payloads_and_headers_become_compact(#[case] value: &str, #[case] stored: &str) {
    let text = format!(
        r#"{{"op":"publish","id":"p","topic":"a","payload":{value},"headers":{{"h":{value}}}}}"#
    );
    let line = format!(r#"publish p a Json {stored} headers {{"h":{stored}}}"#);
    assert_eq!(heard_json(&text, &[]), line);
}

#[rstest]
#[case("{\"$frame\":1}", "publish p a Bytes one")]
#[case(" { \"$frame\" : 1 } ", "publish p a Bytes one")]
#[case("[{\"$frame\":1}]", BAD_FRAME)]
#[case("{\"$lit\":{\"$frame\":1}}", "publish id=p bad_frame: frame 1 is not named")]
#[case("{\"$frame\":2}", "publish id=p bad_frame: frame 2 is named, but 1 came")]
#[case("1", "publish id=p bad_frame: frame 1 is not named")]
fn a_payload_may_be_one_attachment(#[case] value: &str, #[case] line: &str) {
    let text = format!(r#"{{"op":"publish","id":"p","topic":"a","payload":{value}}}"#);
    assert_eq!(heard_json(&text, &["one"]), line);
    let compact: String = value.split(' ').collect();
    assert_eq!(heard_json(&text, &[]), format!("publish p a Json {compact}"), "data without any");
    let batch = format!("[{text},{{\"op\":\"ping\"}}]");
    let first = heard_json(&batch, &["one"]);
    let first = first.lines().next().unwrap().trim_start_matches("0 ");
    match line.contains("not named") {
        // Without a name for it the whole message is refused.
        true => assert_eq!(first, "frame bad_frame: frame 1 is not named"),
        false => assert_eq!(first, line),
    }
}

const BAD_FRAME: &str =
    "publish id=p bad_frame: a payload is one attachment and nothing else, or names none";

#[test]
fn attachments_are_shared_out_among_events() {
    let item = |id: u32, payload: &str, headers: &str| {
        format!(
            r#"{{"op":"publish","id":"{id}","topic":"a","payload":{payload},"headers":{headers}}}"#
        )
    };
    let text = format!(
        "[{},{},{},{}]",
        item(1, "{\"$frame\":2}", "{\"h\":{\"$frame\":9}}"),
        item(2, "[{\"$lit\":{\"$frame\":1}}]", "{\"h\":{\"$lit\":1}}"),
        item(3, "{\"$frame\":1}", "{}"),
        item(4, "[1,{\"$frame\":3}]", "{}"),
    );
    let lines = [
        // Nothing in headers is a tag.
        "0 publish 1 a Bytes two headers {\"h\":{\"$frame\":9}}",
        "1 publish 2 a Json [{\"$frame\":1}] headers {\"h\":{\"$lit\":1}}",
        "2 publish 3 a Bytes one headers {}",
        "3 publish id=4 bad_frame: a payload is one attachment and nothing else, or names none",
    ];
    assert_eq!(heard_json(&text, &["one", "two", "three"]), lines.join("\n"));
}

/// A value of MessagePack in a `publish` of it.
fn packed_publish(payload: &str, headers: Option<&str>) -> String {
    let mut body = vec![if headers.is_some() { 0x85 } else { 0x84 }];
    for text in ["op", "publish", "id", "p", "topic", "a", "payload"] {
        mpreg_patterns::values::msgpack::put_string(&mut body, text);
    }
    body.extend(unhex(payload));
    if let Some(headers) = headers {
        mpreg_patterns::values::msgpack::put_string(&mut body, "headers");
        body.extend(unhex(headers));
    }
    heard(body, Frames::new(), &Limits::default())
}

#[rstest]
#[case("c0", None, "publish p a Json null")]
#[case("9201cb3ff8000000000000", None, "publish p a Json [1,1.5]")]
#[case("c403726177", None, "publish p a Bytes raw")]
#[case("c50003726177", None, "publish p a Bytes raw")]
#[case("c600000003726177", None, "publish p a Bytes raw")]
#[case("81a16101", Some("81a168c3"), "publish p a Json {\"a\":1} headers {\"h\":true}")]
#[case("01", Some("90"), "publish id=p bad_field(headers): `headers` takes an object")]
#[case("91c7010100", None, "publish id=p unencodable_value(payload): `/0`: an extension type")]
#[case(
    "01",
    Some("81a168cb7ff8000000000000"),
    "publish id=p unencodable_value(headers): `/h`: a float that JSON does not have"
)]
#[case(
    "91c403726177",
    None,
    "publish id=p unencodable_value(payload): bytes in it, which JSON does not have"
)]
fn messagepack_becomes_json(
    #[case] payload: &str,
    #[case] headers: Option<&str>,
    #[case] line: &str,
) {
    assert_eq!(packed_publish(payload, headers), line);
}

/// Bincode's JSON is not looked into; its MessagePack is, since it has to be converted.
#[rstest]
#[case(json("[1 ,"), None, "publish p a.b Json [1 ,")]
#[case(bytes("raw"), None, "publish p a.b Bytes raw")]
#[case(Value::msgpack(unhex("9101")), None, "publish p a.b Json [1]")]
#[case(Value::msgpack(unhex("c40131")), None, "publish p a.b Bytes 1")]
#[case(
    Value::msgpack(unhex("91")),
    None,
    "publish id=p bad_value(payload): byte 1: the bytes end where a value is expected"
)]
#[case(json("1"), Some(json("{x")), "publish p a.b Json 1 headers {x")]
#[case(json("1"), Some(Value::msgpack(unhex("80"))), "publish p a.b Json 1 headers {}")]
#[case(json("1"), Some(json("1")), "publish id=p bad_field(headers): `headers` takes an object")]
#[case(json("1"), Some(bytes("{}")), "publish id=p bad_field(headers): `headers` takes an object")]
fn values_of_a_bincode_publish(
    #[case] payload: Value,
    #[case] headers: Option<Value>,
    #[case] line: &str,
) {
    let event = Arc::new(Event { headers, ..event(payload, None) });
    let publish = Request::Publish(Publish { id: "p".into(), confirm: true, event });
    let body = lone(Encoding::Bincode, &publish).unwrap().body;
    assert_eq!(heard(body, Frames::new(), &Limits::default()), format!("0 {line}"));
}

#[rstest]
#[case(r#""patterns":[ "a.#" ]"#, r#"subscribe [ "a.#" ]"#)]
#[case(r#""patterns":[1],"credit":0"#, "subscribe [1] credit=0")]
#[case(r#""credit":65536"#, "subscribe credit=65536")]
#[case("", "subscribe id=s bad_field(patterns): `patterns` is missing, and so is `credit`")]
#[case(r#""patterns":"a""#, "subscribe id=s bad_field(patterns): `patterns` takes an array")]
#[case(r#""credit":65537"#, "subscribe id=s bad_field(credit): `credit` takes 0 to 65536")]
#[case(
    r#""credit":4294967296"#,
    "subscribe id=s bad_field(credit): `credit` takes a whole number below 2^32"
)]
#[case(r#""patterns":[],"replay":"all""#, "subscribe [] replay=All")]
#[case(r#""patterns":[],"replay":{"from_seq":5}"#, "subscribe [] replay=Seq(5)")]
#[case(r#""patterns":[],"replay":{"since_ms":6,"x":[]}"#, "subscribe [] replay=Ms(6)")]
#[case(r#""patterns":[],"replay":{"last":7,"from_seq":null}"#, "subscribe [] replay=Last(7)")]
#[case(r#""patterns":[],"replay":null"#, "subscribe []")]
#[case(r#""patterns":[],"replay":{"last":1,"from_seq":1}"#, REPLAY)]
#[case(r#""patterns":[],"replay":{}"#, REPLAY)]
#[case(r#""patterns":[],"replay":"some""#, REPLAY)]
#[case(r#""patterns":[],"replay":7"#, REPLAY)]
#[case(
    r#""patterns":[],"replay":{"last":4294967296}"#,
    "subscribe id=s bad_field(replay/last): `last` takes a whole number below 2^32"
)]
#[case(
    r#""patterns":[],"replay":{"from_seq":-1}"#,
    "subscribe id=s bad_field(replay/from_seq): `from_seq` takes a whole number from 0"
)]
fn fields_of_a_subscribe(#[case] fields: &str, #[case] line: &str) {
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!(r#"{{"op":"subscribe","id":"s"{comma}{fields}}}"#);
    assert_eq!(heard_json(&text, &[]), line);
}

const REPLAY: &str = "subscribe id=s bad_field(replay): `replay` takes \"all\", or an object with \
     one of `from_seq`, `since_ms` and `last`";

#[rstest]
#[case(r#"{"op":"unsubscribe","patterns":["a"]}"#, r#"unsubscribe ["a"]"#)]
#[case(
    r#"{"op":"unsubscribe","id":"u"}"#,
    "unsubscribe id=u bad_field(patterns): `patterns` is missing"
)]
#[case(
    r#"{"op":"unsubscribe","patterns":{}}"#,
    "unsubscribe bad_field(patterns): `patterns` takes an array"
)]
#[case(r#"{"op":"ack","events":3}"#, "Ack { events: 3 }")]
#[case(r#"{"op":"ack","events":0}"#, "ack bad_field(events): `events` takes a whole number from 1")]
#[case(r#"{"op":"ack"}"#, "ack bad_field(ids): `ack` takes either `ids` or `events`")]
#[case(r#"{"op":"event","id":"x"}"#, "event id=x unknown_op(op): `event` is what a broker says")]
#[case(r#"{"op":"published"}"#, "published unknown_op(op): `published` is what a broker says")]
#[case(r#"{"op":"subscribed"}"#, "subscribed unknown_op(op): `subscribed` is what a broker says")]
fn the_other_ops_of_topics(#[case] text: &str, #[case] line: &str) {
    assert_eq!(heard_json(text, &[]), line);
}

#[rstest]
#[case(r#"{"op":"unsubscribe","patterns":["a"]}"#)]
#[case(r#"{"op":"publish","id":"u","topic":"a","payload":[{"$frame":1}]}"#)]
#[case(r#"{"op":"subscribe","id":"u","patterns":["a"]}"#)]
#[case(r#"{"op":"ack","events":3}"#)]
fn ops_without_attachments_name_none(#[case] text: &str) {
    let line = heard_json(text, &["one"]);
    assert!(line.contains("bad_frame"), "{line}");
}

/// What of bincode is no array is no list of patterns.
#[rstest]
#[case(json("[1"), "subscribe [1")]
#[case(Value::msgpack(unhex("90")), "subscribe 90")]
#[case(json("{}"), "subscribe bad_field(patterns): `patterns` takes an array")]
#[case(bytes("[]"), "subscribe bad_field(patterns): `patterns` takes an array")]
fn patterns_of_a_bincode_subscribe(#[case] patterns: Value, #[case] line: &str) {
    let of = mpreg_patterns::ops::Subscribe { patterns: Some(patterns), ..Default::default() };
    let body = lone(Encoding::Bincode, &Request::Subscribe(of.into())).unwrap().body;
    let line = line.replace(" 90", " \u{fffd}");
    let got = heard(body, Frames::new(), &Limits::default());
    assert_eq!(got.replace(" 90", " \u{fffd}"), format!("0 {line}"));
}

/// What reaches a peer in JSON, and how it ends in MessagePack.
#[rstest]
#[case(json("[1.5]"), None, "[1.5]", "91cb3ff8000000000000")]
#[case(json("{\"$frame\":1}"), None, "{\"$frame\":1}", "81a6246672616d6501")]
#[case(bytes("raw"), None, "{\"$frame\":1}", "81a6246672616d6501")]
#[case(
    bytes("raw"),
    Some("{\"h\":{\"$frame\":1}}"),
    "{\"$frame\":1},\"headers\":{\"h\":{\"$frame\":1}}",
    "81a6246672616d6501a76865616465727381a16881a6246672616d6501"
)]
fn events_find_their_form(
    #[case] payload: Value,
    #[case] headers: Option<&str>,
    #[case] text: &str,
    #[case] packed: &str,
) {
    let attached = if payload.kind == Kind::Bytes { frames(&["raw"]) } else { Frames::new() };
    let reply = delivery(payload, headers);
    let head = r#"{"op":"event","pattern":"a.#","topic":"a.b","seq":7,"message":"#;
    let message = lone(Encoding::Json, &reply).unwrap();
    assert_eq!(message.body, format!("{head}\"{RUN}\",\"payload\":{text}}}"));
    assert_eq!(message.frames, attached);
    let message = lone(Encoding::MsgPack, &reply).unwrap();
    assert!(hex(&message.body).ends_with(packed), "{}", hex(&message.body));
    assert_eq!(message.frames, attached);
    // Whatever the encoding, the peer reads the same event.
    for encoding in [Encoding::Json, Encoding::MsgPack, Encoding::Bincode] {
        let Message { body, frames } = lone(encoding, &reply).unwrap();
        decode_reply(&body, frames, &Limits::default(), &mut |item| {
            assert_eq!(item.result.as_ref(), Ok(&reply));
        })
        .unwrap();
    }
}

/// The short way into a batch writes what the long one does.
#[rstest]
#[case(json("1"), None, true)]
#[case(bytes("raw"), Some("{\"k\":1}"), false)]
fn the_short_way_writes_the_same(
    #[case] payload: Value,
    #[case] headers: Option<&str>,
    #[case] confirm: bool,
) {
    let event = Arc::new(event(payload.clone(), headers));
    let publish = Request::Publish(Publish { id: "p".into(), confirm, event });
    let event = delivery(payload, headers);
    for message in [Outgoing::from(&event), Outgoing::from(&publish)] {
        let mut batch = Batch::new(Encoding::Bincode);
        assert_eq!(batch.push(message).unwrap(), Pushed::Joined);
        assert_eq!(batch.finish().unwrap(), lone(Encoding::Bincode, message).unwrap().body);
    }
}

#[test]
fn an_event_that_does_not_fit_leaves_the_batch_alone() {
    let mut batch = Batch::new(Encoding::MsgPack);
    batch.push(&delivery(json("1"), None)).unwrap();
    let before = batch.bytes();
    let fault = batch.push(&delivery(json("[1180591620717411303424]"), None)).unwrap_err();
    assert_eq!(fault.code(), Code::UnencodableValue);
    let fault = batch.push(&delivery(json("1"), Some("{\"h\":1e999}"))).unwrap_err();
    assert_eq!(fault.code(), Code::UnencodableValue);
    assert_eq!((batch.bytes(), batch.items()), (before, 1));
    let mut batch = Batch::new(Encoding::Json);
    let fault = batch.push(&delivery(json("[1"), None)).unwrap_err();
    assert_eq!(fault.code(), Code::BadValue, "a bincode publisher's text is not read before");
}
