//! What goes out, and in how many frames.

use mpreg_patterns::base::Code;
use mpreg_patterns::ops::{Call, CallOptions, Run};
use mpreg_patterns::values::Kind;
use rstest::rstest;

use super::*;

fn message_line(message: &Message) -> String {
    body_line(&Value::json(message.body.clone()), &message.frames)
}

#[rstest]
#[case(0, "nothing")]
#[case(1, r#"{"op":"pong","id":"0"}"#)]
#[case(2, r#"[{"op":"pong","id":"0"},{"op":"pong","id":"1"}]"#)]
fn replies_are_coalesced(#[case] count: usize, #[case] line: &str) {
    for encoding in [Encoding::Json, Encoding::MsgPack, Encoding::Bincode] {
        let mut batch = Batch::new(encoding);
        for number in 0..count {
            let id = Some(number.to_string().into());
            assert_eq!(batch.push(&Reply::Pong { id }).unwrap(), Pushed::Joined);
        }
        let frame = batch.finish();
        assert!(batch.is_empty() && batch.finish().is_none());
        let Some(frame) = frame else {
            assert_eq!(line, "nothing");
            continue;
        };
        if encoding == Encoding::Json {
            assert_eq!(frame, line);
        }
        let mut ids = Vec::new();
        let decoded = decode_reply(&frame, vec![], &Limits::default(), &mut |item| {
            let Ok(Reply::Pong { id }) = item.result else { panic!("{item:?}") };
            ids.push(id.unwrap());
        });
        assert_eq!(decoded.unwrap().encoding, encoding);
        assert_eq!(ids, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

/// What reaches a peer of each encoding: in which, of which kind, with which attachments.
#[rstest]
#[case(
    plain("[1.50]"),
    ["Json Json [1.50]", "MsgPack MsgPack 91cb3ff8000000000000", "Bincode Json [1.50]"]
)]
#[case(
    Body::bytes(Bytes::from_static(b"raw")),
    ["Json Bytes raw", "MsgPack Bytes raw", "Bincode Bytes raw"]
)]
#[case(
    Body { value: json("[{\"$frame\":1}]"), frames: frames(&["f"]) },
    [
        "Json Json [{\"$frame\":1}] +f",
        "MsgPack MsgPack 9181a6246672616d6501 +f",
        "Json Json [{\"$frame\":1}] +f",
    ]
)]
#[case(
    Body::plain(Value::msgpack(unhex("91c401ff"))),
    ["Json Json [{\"$frame\":1}] +\u{fffd}", "MsgPack MsgPack 91c401ff", "Bincode MsgPack 91c401ff"]
)]
#[case(
    Body::plain(Value::msgpack(unhex("92c401ff81a6246672616d6501"))),
    [
        "Json Json [{\"$frame\":1},{\"$lit\":{\"$frame\":1}}] +\u{fffd}",
        "MsgPack MsgPack 92c401ff81a6246672616d6501",
        "Bincode MsgPack 92c401ff81a6246672616d6501",
    ]
)]
#[case(
    plain("{\"$frame\":-1}"),
    [
        "Json Json {\"$frame\":-1}",
        "MsgPack MsgPack 81a6246672616d65ff",
        "Bincode Json {\"$frame\":-1}",
    ]
)]
fn bodies_find_their_form(#[case] body: Body, #[case] lines: [&str; 3]) {
    let reply = result("a", body);
    for (encoding, line) in
        [Encoding::Json, Encoding::MsgPack, Encoding::Bincode].into_iter().zip(lines)
    {
        let message = lone(encoding, &reply).unwrap();
        let mut batch = Batch::new(encoding);
        match batch.push(&reply).unwrap() {
            Pushed::Joined => assert_eq!(batch.finish().unwrap(), message.body),
            Pushed::Alone(alone) => {
                assert_eq!(alone, message);
                assert!(batch.finish().is_none());
            }
        }
        let mut got = None;
        let Message { body, frames } = message;
        let decoded = decode_reply(&body, frames, &Limits::default(), &mut |item| {
            got = Some(item.result);
        });
        let Some(Ok(Reply::Result { body, .. })) = got else { panic!("{got:?}") };
        let value = body_line(&body.value, &body.frames);
        assert_eq!(format!("{:?} {:?} {value}", decoded.unwrap().encoding, body.value.kind), line);
    }
}

#[test]
fn a_value_that_does_not_fit_is_named_and_leaves_the_batch_alone() {
    let mut batch = Batch::new(Encoding::MsgPack);
    batch.push(&Reply::Pong { id: None }).unwrap();
    let fault = batch.push(&result("a", plain("{\"n\":[1180591620717411303424]}"))).unwrap_err();
    assert_eq!(fault.code(), Code::UnencodableValue);
    assert_eq!(fault.message(), "`/n/0`: a whole number beyond 64 bits");
    batch.push(&Reply::Pong { id: None }).unwrap();
    assert_eq!(batch.items(), 2);
    assert_eq!(hex(&batch.finish().unwrap()), "dd0000000281a26f70a4706f6e6781a26f70a4706f6e67");
}

/// A bincode peer's value is not read before it goes into another object.
#[rstest]
#[case("[1", "byte 2: expected a comma or the end of a container")]
#[case("1}],\"op\":\"x\"", "byte 1: something follows the value")]
fn a_broken_value_cannot_break_out(#[case] value: &str, #[case] text: &str) {
    let reply = result("a", plain(value));
    let fault = lone(Encoding::Json, &reply).unwrap_err();
    assert_eq!((fault.code(), fault.message().as_str()), (Code::BadValue, text));
    assert!(lone(Encoding::Bincode, &reply).is_ok());
}

#[test]
fn bytes_as_arguments_are_one_argument() {
    let args = Value::new(Kind::Bytes, Bytes::from_static(b"raw"));
    let call = Call { fun: "f".into(), args: Some(args), ..Call::default() };
    let run = Reply::Run(Run { id: run(), call: call.into(), deadline_ms: 5, attempt: 1 });
    let message = lone(Encoding::Json, &run).unwrap();
    let line = message_line(&message);
    let args = line.split("\"args\":").nth(1);
    assert_eq!(args, Some("[{\"$frame\":1}],\"deadline_ms\":5,\"attempt\":1} +raw"));
}

/// A bincode batch is not looked into as it comes: what goes into an object is checked then.
#[rstest]
#[case("[1]", None)]
#[case("[1", Some(Code::BadValue))]
#[case("[1],\"fun\":\"g\"", Some(Code::BadValue))]
fn what_came_in_bincode_is_checked_where_it_goes(#[case] args: &str, #[case] code: Option<Code>) {
    let call = Call { id: "a".into(), fun: "f".into(), args: Some(json(args)), ..Call::default() };
    let frame = lone(Encoding::Bincode, &call).unwrap().body;
    let mut came = None;
    let taken = decode(&frame, vec![], &Limits::default(), &mut |item| came = item.result.ok());
    let (Ok(_), Some(Request::Call(call))) = (taken, came) else { panic!("it is a call") };
    let run = Reply::Run(Run { id: run(), call, deadline_ms: 5, attempt: 1 });
    let mut batch = Batch::new(Encoding::Json);
    assert_eq!(
        batch.push(&run).err().map(|fault| fault.refusal().code),
        code.map(|code| code.as_str().into())
    );
}

fn with(options: CallOptions) -> Call {
    Call { options, ..Call::default() }
}

/// A batch takes the short cut where there is one, a frame of its own never does.
#[rstest]
#[case(Call::default())]
#[case(Call { args: Some(json("[1]")), ..Call::default() })]
#[case(Call { args: Some(Value::msgpack(unhex("9101"))), ..Call::default() })]
#[case(Call { kwargs: Some(json("{}")), ..Call::default() })]
#[case(Call { progress: true, ..Call::default() })]
#[case(Call { track: Some(run()), ..Call::default() })]
#[case(with(CallOptions { wait: true, ..CallOptions::default() }))]
#[case(with(CallOptions { timeout_ms: Some(7), ..CallOptions::default() }))]
#[case(with(CallOptions { idempotent: Some(true), ..CallOptions::default() }))]
#[case(with(CallOptions { locs: vec!["x".into()], ..CallOptions::default() }))]
#[case(with(CallOptions { cluster: Some("x".into()), ..CallOptions::default() }))]
fn the_short_cut_leads_to_the_same(#[case] call: Call) {
    let call = Call { id: "a".into(), fun: "f".into(), ..call };
    let run = Run { id: run(), call: call.clone().into(), deadline_ms: 5, attempt: 2 };
    let same = |message: Outgoing<'_>| {
        let mut batch = Batch::new(Encoding::Bincode);
        assert_eq!(batch.push(message).unwrap(), Pushed::Joined);
        let frame = batch.finish().unwrap();
        assert_eq!(frame, lone(Encoding::Bincode, message).unwrap().body);
        frame
    };
    let request = Request::Call(call.into());
    let frame = same((&request).into());
    decode(&frame, vec![], &Limits::default(), &mut |item| {
        assert_eq!(item.result, Ok(request.clone()))
    })
    .unwrap();
    same((&Reply::Run(run.clone())).into());
    same((&Reply::Call(run)).into());
    same((&Request::Result { run: self::run(), body: plain("1").into() }).into());
    same((&result("a", plain("1"))).into());
    same(
        (&Reply::Result { id: "a".into(), body: plain("1").into(), track: Some(self::run()) })
            .into(),
    );
    // As one broker answers another: the outcome of the run that it names.
    let named = same((&result(&self::run().to_string(), plain("1"))).into());
    let of_it = Request::Result { run: self::run(), body: plain("1").into() };
    decode(&named, vec![], &Limits::default(), &mut |item| {
        assert_eq!(item.result, Ok(of_it.clone()))
    })
    .unwrap();
}

#[test]
fn a_req_peer_gets_one_array() {
    let replies = [
        result("a", plain("1")),
        result("b", Body::bytes(Bytes::from_static(b"raw"))),
        result("c", plain("{\"$frame\":1}")),
        Reply::Bye { id: None },
    ];
    let message = outcomes(Encoding::Json, &replies).unwrap();
    let text = [
        r#"[{"op":"result","id":"a","result":1}"#,
        r#"{"op":"result","id":"b","result":{"$frame":1}}"#,
        r#"{"op":"result","id":"c","result":{"$lit":{"$frame":1}}}"#,
        r#"{"op":"bye"}] +raw"#,
    ];
    assert_eq!(message_line(&message), text.join(","));
    let message = outcomes(Encoding::Json, &replies[..1]).unwrap();
    assert_eq!(message.body, r#"[{"op":"result","id":"a","result":1}]"#);
    let message = outcomes(Encoding::Bincode, &replies).unwrap();
    assert_eq!((message.body[0], message.frames.len()), (1, 0));
    let broken = [replies[0].clone(), result("b", plain("["))];
    assert_eq!(outcomes(Encoding::Json, &broken).unwrap_err().0, 1);
}

#[test]
fn a_welcome_says_what_it_is_about() {
    let about = json(r#"{"node":"n","limits":{"depth":128},"x":1.0}"#);
    let reply = Reply::Welcome { id: Some("h".into()), about };
    let text = r#"{"op":"welcome","id":"h","node":"n","limits":{"depth":128},"x":1.0}"#;
    assert_eq!(lone(Encoding::Json, &reply).unwrap().body, text);
    for encoding in [Encoding::Json, Encoding::MsgPack, Encoding::Bincode] {
        let frame = lone(encoding, &reply).unwrap().body;
        decode_reply(&frame, vec![], &Limits::default(), &mut |item| {
            assert_eq!(item.result.unwrap(), reply);
        })
        .unwrap();
    }
}
