//! The bytes every language must agree on: `sockets/golden/ops.json`.
//!
//! Each case is one message, in all three encodings and with its attachments. The file is frozen;
//! `MPREG_GOLDEN=write cargo test` writes it anew after a case was added.

use std::sync::Arc;

use mpreg_patterns::base::{Code, Culprit, Refusal};
use mpreg_patterns::ops::{
    Call, CallOptions, Delivery, Event, Function, GraphOptions, GraphPart, GraphReply, Hello,
    Offer, OnError, ProgressReply, Publish, Refs, Replay, Returns, Run, StepOutcome, StepState,
    Subscribe,
};
use mpreg_patterns::values::Kind;
use serde::{Deserialize, Serialize};

use super::*;

mod queues;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/ops.json");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Case {
    name: String,
    /// Who says it: `peer` or `broker`.
    from: String,
    json: String,
    msgpack: String,
    /// None where the message has attachments, which bincode has not.
    bincode: Option<String>,
    /// The attachments, in hexadecimal.
    frames: Vec<String>,
}

fn calls() -> Vec<(&'static str, Request)> {
    let call = Call {
        id: "c1".into(),
        fun: "math.add".into(),
        args: Some(json("[1,2.5,\"é\"]")),
        ..Call::default()
    };
    let full = Call {
        kwargs: Some(json("{\"z\":null,\"a\":[true]}")),
        options: CallOptions {
            locs: vec!["db".into(), "gpu/0".into()],
            version: Some("^1.2".into()),
            cluster: None,
            timeout_ms: Some(5_000),
            idempotent: Some(false),
            wait: true,
        },
        progress: true,
        track: Some(run()),
        ..call.clone()
    };
    let afar = Call {
        options: CallOptions { cluster: Some("eu".into()), ..CallOptions::default() },
        ..call.clone()
    };
    let framed = Call {
        args: Some(json("[{\"$frame\":1},{\"$lit\":{\"$frame\":9}}]")),
        kwargs: Some(json("{\"k\":{\"$frame\":2}}")),
        frames: frames(&["one", "two"]),
        ..call.clone()
    };
    vec![
        ("call", Request::Call(call.into())),
        ("call with everything", Request::Call(full.into())),
        ("call with attachments", Request::Call(framed.into())),
        ("call in a cluster", Request::Call(afar.into())),
    ]
}

fn requests() -> Vec<(&'static str, Request)> {
    let error = Refusal::by_worker(Some("no_luck"), "out of luck", true);
    let mut all = vec![
        ("ping", Request::Ping { id: None }),
        ("ping with an id", Request::Ping { id: Some("p1".into()) }),
        ("hello", Request::Hello(Hello::default())),
        (
            "hello of a worker",
            Request::Hello(Hello {
                id: Some("h1".into()),
                batch: Some(true),
                name: Some("worker 1".into()),
                token: false,
            }),
        ),
    ];
    all.extend(calls());
    all.extend([
        ("cancel", Request::Cancel { id: "c1".into() }),
        ("offer", Request::Offer(offer().into())),
        ("result", Request::Result { run: run(), body: plain("{\"rows\":[1,2.0,-3]}").into() }),
        ("result of bytes", Request::Result { run: run(), body: Body::bytes("raw".into()).into() }),
        ("error", Request::Failed { run: run(), error: error.into() }),
        (
            "progress",
            Request::Progress { run: run(), percent: Some(12.5), note: Some("half way".into()) },
        ),
        ("bye", Request::Bye { id: None }),
        ("graph", Request::Graph(graph().into())),
        (
            "part of a graph",
            Request::Graph(Box::new(GraphPart {
                options: GraphOptions::default(),
                part: 1,
                more: true,
                ..graph()
            })),
        ),
    ]);
    all
}

fn event(payload: Value, headers: Option<&str>, message: RunId) -> Arc<Event> {
    let (topic, headers) = ("orders.eu.created".into(), headers.map(json));
    Arc::new(Event { topic, payload, headers, message })
}

fn topic_requests() -> Vec<(&'static str, Request)> {
    let publish = |payload: Value, headers: Option<&str>, confirm| {
        let event = event(payload, headers, RunId(0));
        Request::Publish(Publish { id: "e1".into(), confirm, event })
    };
    let subscribe = |patterns: Option<&str>, credit, replay| {
        let (id, patterns) = (Some("s1".into()), patterns.map(json));
        Request::Subscribe(Box::new(Subscribe { id, patterns, credit, replay }))
    };
    let raw = Value::new(Kind::Bytes, "raw".into());
    let (texts, eu) = ("[\"orders.*.created\",\"#\"]", Some("[\"orders.eu.#\"]"));
    vec![
        ("publish", publish(json("{\"total\":12.5}"), None, true)),
        ("publish with everything", publish(json("null"), Some("{\"k\":[1]}"), false)),
        ("publish of bytes", publish(raw, Some("{\"$frame\":7}"), true)),
        ("subscribe", subscribe(Some(texts), None, None)),
        ("subscribe with everything", subscribe(eu, Some(256), Some(Replay::Seq(7)))),
        ("subscribe from the oldest", subscribe(eu, None, Some(Replay::All))),
        ("subscribe from a time", subscribe(eu, None, Some(Replay::Ms(1_700_000_000_000)))),
        ("subscribe to the last", subscribe(eu, None, Some(Replay::Last(10)))),
        ("credit alone", subscribe(None, Some(0), None)),
        ("unsubscribe", Request::Unsubscribe { id: None, patterns: Some(json(texts)) }),
        ("ack", Request::Ack { events: 64 }),
    ]
}

fn topic_replies() -> Vec<(&'static str, Reply)> {
    let subscribed = |credit| {
        let (id, epoch) = (Some("s1".into()), 1_234_567_890_123);
        Reply::Subscribed { id, epoch, patterns: 2, credit }
    };
    let delivery = |payload: Value, headers: Option<&str>, missed| {
        let (event, pattern) = (event(payload, headers, run()), "orders.#".into());
        Reply::Event(Delivery { event, pattern, seq: 41, missed })
    };
    let raw = Value::new(Kind::Bytes, "raw".into());
    vec![
        ("published", Reply::Published { id: "e1".into(), message: run() }),
        ("subscribed", subscribed(None)),
        ("subscribed with credit", subscribed(Some(256))),
        ("event", delivery(json("{\"total\":12.5}"), None, 0)),
        ("event with everything", delivery(json("[null]"), Some("{\"k\":\"é\"}"), 3)),
        ("event of bytes", delivery(raw, Some("{\"$frame\":7}"), 0)),
    ]
}

fn offer() -> Offer {
    Offer {
        id: Some("o1".into()),
        functions: vec![
            Function { name: "math.add".into(), ..Function::default() },
            Function {
                name: "load".into(),
                version: Some("1.2.3".into()),
                idempotent: true,
                doc: Some("Loads.".into()),
                input: Some(json("{\"type\":\"object\"}")),
                output: Some(json("true")),
                cache_ms: Some(1_000),
            },
        ],
        locs: vec!["db".into()],
        credit: Some(16),
    }
}

fn graph() -> GraphPart {
    GraphPart {
        id: "g1".into(),
        steps: Some(json(
            "[{\"name\":\"load\",\"fun\":\"load\"},{\"name\":\"fit\",\"fun\":\"fit\",\
             \"args\":[{\"$ref\":\"load\",\"at\":\"/rows\"}]}]",
        )),
        frames: vec![],
        part: 0,
        more: false,
        options: GraphOptions {
            returns: Returns::Names(vec!["fit".into()]),
            on_error: OnError::Continue,
            refs: Refs::Names,
            timeout_ms: Some(60_000),
            progress: true,
            track: Some(run()),
        },
    }
}

fn error(id: Option<&str>, error: Refusal) -> Reply {
    let (id, error) = (id.map(Into::into), Box::new(error));
    Reply::Error { id, op: None, item: None, error, track: None }
}

fn errors() -> Vec<(&'static str, Reply)> {
    let unknown = Refusal::field(Code::UnknownFunction, "fun", "no worker offers `math.sub`");
    let unknown = Reply::Error {
        id: Some("c1".into()),
        op: Some("call".into()),
        item: None,
        error: unknown.into(),
        track: Some(run()),
    };
    let nameless = Reply::Error {
        id: None,
        op: None,
        item: Some(3),
        error: Refusal::field(Code::BadField, "op", "`op` is missing").into(),
        track: None,
    };
    let duplicate = Refusal::new(Code::DuplicateId, "`c1` is in flight");
    let duplicate = Refusal { refused: Some("duplicate"), ..duplicate };
    vec![
        ("error", unknown),
        ("error without an id", nameless),
        ("error for a duplicate", error(Some("c1"), duplicate)),
    ]
}

fn a_run(args: &str, kwargs: Option<&str>, attached: &[&str]) -> Reply {
    let call = Call {
        fun: "math.add".into(),
        args: Some(json(args)),
        kwargs: kwargs.map(json),
        frames: frames(attached),
        ..Call::default()
    };
    Reply::Run(Run { id: run(), call: call.into(), deadline_ms: 29_999, attempt: 2 })
}

fn progress() -> ProgressReply {
    ProgressReply {
        id: "g1".into(),
        track: run(),
        step: Some("fit".into()),
        step_id: Some(RunId(run().0 + 1)),
        event: "started",
        percent: Some(50.0),
        note: None,
    }
}

fn replies() -> Vec<(&'static str, Reply)> {
    let about = json("{\"node\":\"n\",\"version\":\"0.1.0\",\"limits\":{\"depth\":128}}");
    let welcome = Reply::Welcome { id: Some("h1".into()), about };
    let tracked = Reply::Result { id: "c1".into(), body: plain("7").into(), track: Some(run()) };
    let framed = Body {
        value: json("{\"a\":[{\"$frame\":1},{\"$frame\":2}]}"),
        frames: frames(&["one", "two"]),
    };
    let epoch = 1_234_567_890_123;
    let offered = Reply::Offered { id: Some("o1".into()), epoch, functions: 2, credit: 16 };
    let mut replies = vec![
        ("welcome", welcome),
        ("pong", Reply::Pong { id: Some("p1".into()) }),
        ("result", result("c1", plain("[3.5,\"é\",null]"))),
        ("result with a track", tracked),
        ("result of bytes", result("c1", Body::bytes("raw".into()))),
        ("result with attachments", result("c1", framed)),
    ];
    replies.extend(errors());
    replies.extend([
        ("graph result", Reply::Graph(Box::new(graph_result()))),
        ("graph error", Reply::Graph(Box::new(graph_error()))),
        ("progress", Reply::Progress(Box::new(progress()))),
        ("offered", offered),
        ("run", a_run("[1,2]", Some("{\"k\":1}"), &[])),
        ("run with an attachment", a_run("[{\"$frame\":1}]", None, &["one"])),
        ("cancel", Reply::Cancel { run: run() }),
        ("bye", Reply::Bye { id: None }),
    ]);
    replies
}

fn graph_result() -> GraphReply {
    GraphReply {
        id: "g1".into(),
        results: vec![("fit".into(), plain("{\"w\":[0.1]}")), ("ns/x".into(), plain("null"))],
        steps: vec![StepOutcome {
            name: "fit".into(),
            state: StepState::Degraded,
            code: Some("timeout".into()),
        }],
        error: None,
        ran: true,
        track: Some(run()),
        part: Some(0),
        more: true,
    }
}

fn graph_error() -> GraphReply {
    let cause = Refusal {
        code: "no_luck".into(),
        message: "out of luck".into(),
        culprit: Culprit::Worker,
        retry: false,
        field: None,
        refused: None,
    };
    let step = |name: &str, state, code: Option<&str>| StepOutcome {
        name: name.into(),
        state,
        code: code.map(Into::into),
    };
    GraphReply {
        id: "g1".into(),
        results: vec![],
        steps: vec![
            step("load", StepState::Done, None),
            step("fit", StepState::Failed, Some("no_luck")),
            step("show", StepState::Skipped, Some("input_failed")),
        ],
        error: Some((cause, Some("fit".into()))),
        ran: true,
        track: None,
        part: None,
        more: false,
    }
}

fn case<'m>(name: &str, from: &str, message: impl Into<Outgoing<'m>> + Copy) -> Case {
    let json = lone(Encoding::Json, message).unwrap();
    let msgpack = lone(Encoding::MsgPack, message).unwrap();
    assert_eq!(json.frames, msgpack.frames);
    let bincode = lone(Encoding::Bincode, message).unwrap();
    Case {
        name: name.to_owned(),
        from: from.to_owned(),
        json: String::from_utf8(json.body.to_vec()).unwrap(),
        msgpack: hex(&msgpack.body),
        bincode: (bincode.body[0] == 1).then(|| hex(&bincode.body)),
        frames: json.frames.iter().map(|frame| hex(frame)).collect(),
    }
}

fn all_requests() -> Vec<(&'static str, Request)> {
    [requests(), topic_requests(), queues::requests()].concat()
}

fn all_replies() -> Vec<(&'static str, Reply)> {
    [replies(), topic_replies(), queues::replies()].concat()
}

fn cases() -> Vec<Case> {
    let (requests, replies) = (all_requests(), all_replies());
    let peer = requests.iter().map(|(name, request)| case(name, "peer", request));
    peer.chain(replies.iter().map(|(name, reply)| case(name, "broker", reply))).collect()
}

#[test]
fn the_bytes_are_what_they_were() {
    let now = cases();
    if std::env::var("MPREG_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(FILE, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
    let frozen: Vec<Case> = serde_json::from_slice(&std::fs::read(FILE).unwrap()).unwrap();
    assert_eq!(frozen.len(), now.len());
    for (frozen, now) in frozen.iter().zip(&now) {
        assert_eq!(frozen, now);
    }
}

/// Reads a case in one encoding and writes it again as JSON.
fn read_again(
    case: &Case,
    body: Vec<u8>,
    frames: Frames,
) -> (String, Option<Request>, Option<Reply>) {
    let (mut request, mut reply) = (None, None);
    let limits = Limits::default();
    let body = Bytes::from(body);
    if case.from == "peer" {
        decode(&body, frames, &limits, &mut |item| request = Some(item.result.unwrap())).unwrap();
    } else {
        decode_reply(&body, frames, &limits, &mut |item| reply = Some(item.result.unwrap()))
            .unwrap();
    }
    let message = match (&request, &reply) {
        (Some(request), _) => lone(Encoding::Json, request),
        (_, Some(reply)) => lone(Encoding::Json, reply),
        _ => unreachable!(),
    };
    (String::from_utf8(message.unwrap().body.to_vec()).unwrap(), request, reply)
}

#[test]
fn every_encoding_is_read_as_the_same() {
    let (requests, replies) = (all_requests(), all_replies());
    let messages = requests.iter().map(|(_, r)| (Some(r), None));
    let messages = messages.chain(replies.iter().map(|(_, r)| (None, Some(r))));
    for (case, (request, reply)) in cases().iter().zip(messages) {
        let frames: Frames = case.frames.iter().map(|frame| unhex(frame).into()).collect();
        let (text, got, heard) = read_again(case, case.json.clone().into(), frames.clone());
        assert_eq!(text, case.json);
        assert_eq!((got.as_ref(), heard.as_ref()), (request, reply), "{}", case.name);
        let (text, _, _) = read_again(case, unhex(&case.msgpack), frames);
        assert_eq!(text, case.json);
        if let Some(bincode) = &case.bincode {
            let (_, got, heard) = read_again(case, unhex(bincode), vec![]);
            assert_eq!((got.as_ref(), heard.as_ref()), (request, reply), "{}", case.name);
        }
    }
}
