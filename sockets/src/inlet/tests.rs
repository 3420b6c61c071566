//! What plain PUB and PUSH sockets send, and what it is received as.

use rstest::rstest;

use super::*;
use Source::{Publishers, Pushers};

const WAIT_MS: i64 = 10_000;

/// The socket of a peer.
fn socket(context: &Context, source: Source) -> Socket {
    let kind = if source == Pushers { zmq::PUSH } else { zmq::PUB };
    context.socket(kind).unwrap()
}

fn pair(source: Source, address: &str) -> (Context, Inlet, Socket) {
    let context = Context::new();
    let inlet = Inlet::bind(&context, source, address).unwrap();
    let peer = socket(&context, source);
    peer.set_sndhwm(0).unwrap();
    peer.set_linger(0).unwrap();
    peer.connect(inlet.endpoint()).unwrap();
    (context, inlet, peer)
}

fn receive(inlet: &mut Inlet) -> Received {
    loop {
        if let Some(published) = inlet.receive().unwrap() {
            return published;
        }
        let ready = zmq::poll(&mut [inlet.poll_item()], WAIT_MS).unwrap();
        assert_eq!(ready, 1, "nothing came");
    }
}

/// Sends until something comes: a PUB drops what it has before it is told a subscription.
fn introduce(inlet: &mut Inlet, peer: &Socket) {
    while zmq::poll(&mut [inlet.poll_item()], 1).unwrap() == 0 {
        peer.send_multipart(["first", "x"], 0).unwrap();
    }
    peer.send_multipart(["last", "x"], 0).unwrap();
    while !matches!(receive(inlet), Received::Event(event) if event.topic == "last") {}
}

#[track_caller]
fn event(inlet: &mut Inlet) -> Arc<Event> {
    match receive(inlet) {
        Received::Event(event) => event,
        refused @ Received::Refused { .. } => panic!("{refused:?}"),
    }
}

#[rstest]
fn stock_peers_are_heard_over_every_transport(#[values(Publishers, Pushers)] source: Source) {
    let folder =
        std::env::temp_dir().join(format!("mpreg-inlet-{source:?}-{}", std::process::id()));
    let ipc = format!("ipc://{}", folder.display());
    for address in ["tcp://127.0.0.1:*", "inproc://all", &ipc] {
        let (_context, mut inlet, peer) = pair(source, address);
        introduce(&mut inlet, &peer);
        peer.send_multipart(["orders.eu", "\x00any"], 0).unwrap();
        peer.send_multipart(["orders", ""], 0).unwrap();
        let first = event(&mut inlet);
        assert_eq!(inlet.bytes(), 13);
        assert_eq!(first.topic, "orders.eu");
        assert_eq!(first.payload, Value::new(Kind::Bytes, "\x00any".into()));
        assert_eq!((&first.headers, first.message), (&None, RunId(0)));
        assert!(event(&mut inlet).payload.bytes.is_empty());
        assert_eq!(inlet.receive(), Ok(None));
    }
    std::fs::remove_file(folder).unwrap_or_default();
}

#[rstest]
fn headers_are_kept_as_compact_json(#[values(Publishers, Pushers)] source: Source) {
    let (_context, mut inlet, peer) = pair(source, "tcp://127.0.0.1:*");
    introduce(&mut inlet, &peer);
    for headers in [&b"\t{ \"a\": [1, 2.50] }"[..], b"\x81\xA1a\x92\x01\xCB\x40\x04\0\0\0\0\0\0"] {
        peer.send_multipart([b"t", b"p", headers], 0).unwrap();
    }
    let text = |event: Arc<Event>| event.headers.clone().map(|headers| headers.bytes);
    assert_eq!(text(event(&mut inlet)), Some("{\"a\":[1,2.50]}".into()));
    assert_eq!(text(event(&mut inlet)), Some("{\"a\":[1,2.5]}".into()));
}

#[rstest]
fn a_large_payload_comes_whole(#[values(Publishers, Pushers)] source: Source) {
    let (_context, mut inlet, peer) = pair(source, "tcp://127.0.0.1:*");
    introduce(&mut inlet, &peer);
    let payload: Vec<u8> = (0..ATTACHMENT_BYTES).map(|at| (at % 251) as u8).collect();
    peer.send_multipart([b"t", &payload[..]], 0).unwrap();
    assert!(event(&mut inlet).payload.bytes == payload);
    assert_eq!(inlet.bytes(), ATTACHMENT_BYTES + 1);
}

/// Frames, the code they are refused with, and the topic that is told.
type Case<'a> = (&'a [&'a [u8]], Code, Option<&'a str>);

#[rstest]
fn what_is_no_message_is_refused_and_read_to_its_end(
    #[values(Publishers, Pushers)] source: Source,
) {
    let (_context, mut inlet, peer) = pair(source, "tcp://127.0.0.1:*");
    introduce(&mut inlet, &peer);
    let large = vec![0; ATTACHMENT_BYTES + 1];
    let wide = vec![b' '; ENVELOPE_BYTES + 1];
    let long = "x".repeat(300);
    let deep = "{\"a\":".repeat(200) + "1" + &"}".repeat(200);
    let many = vec![&b"x"[..]; 1_000];
    let cases: &[Case<'_>] = &[
        (&[b"alone"], Code::BadFrame, Some("alone")),
        (&[b"t", b"p", b"{}", b"more"], Code::BadFrame, Some("t")),
        (&many, Code::BadFrame, Some("x")),
        (&[b"", b"p"], Code::BadName, Some("")),
        (&[b"a..b", b"p"], Code::BadName, Some("a..b")),
        (&[b"a\0b", b"p"], Code::BadName, Some("a\0b")),
        (&[b"\xFF", b"p"], Code::BadName, None),
        (&[long.as_bytes(), b"p"], Code::BadName, Some(&long[..255])),
        (&[b"mpreg", b"p"], Code::ReservedName, Some("mpreg")),
        (&[b"mpreg.x", b"p"], Code::ReservedName, Some("mpreg.x")),
        (&[b"t", &large], Code::TooLarge, Some("t")),
        (&[b"t", b"p", &wide], Code::TooLarge, Some("t")),
        (&[b"t", b"p", b""], Code::BadField, Some("t")),
        (&[b"t", b"p", b"[]"], Code::BadField, Some("t")),
        (&[b"t", b"p", b"{\"a\":}"], Code::BadEncoding, Some("t")),
        (&[b"t", b"p", b"\x81\xA1"], Code::BadEncoding, Some("t")),
        (&[b"t", b"p", deep.as_bytes()], Code::TooDeep, Some("t")),
        (&[b"t", b"p", b"\x81\xA1a\xC4\x01x"], Code::UnencodableValue, Some("t")),
    ];
    for (frames, code, told) in cases {
        peer.send_multipart(frames.iter(), 0).unwrap();
        peer.send_multipart(["mpreg_is_free", "p"], 0).unwrap();
        let Received::Refused { topic, refusal } = receive(&mut inlet) else {
            panic!("{code} was taken");
        };
        assert_eq!((refusal.code.as_str(), topic.as_deref()), (code.as_str(), *told));
        let total: usize = frames.iter().map(|frame| frame.len()).sum();
        assert_eq!(inlet.bytes(), total);
        assert_eq!(event(&mut inlet).topic, "mpreg_is_free");
    }
}

#[rstest]
fn a_bound_is_kept_when_much_is_waiting(#[values(Publishers, Pushers)] source: Source) {
    let (_context, mut inlet, peer) = pair(source, "inproc://much");
    introduce(&mut inlet, &peer);
    for _ in 0..100 {
        peer.send_multipart(["topic", "12345"], 0).unwrap();
    }
    let mut some = |messages, bytes| {
        let mut taken = 0;
        let more = inlet.receive_some(messages, bytes, |_| taken += 1).unwrap();
        (taken, more)
    };
    assert_eq!(some(10, usize::MAX), (10, true));
    assert_eq!(some(usize::MAX, 99), (10, true));
    assert_eq!(some(usize::MAX, usize::MAX), (80, false));
}

#[rstest]
fn many_peers_and_one_that_leaves(#[values(Publishers, Pushers)] source: Source) {
    let (context, mut inlet, peer) = pair(source, "tcp://127.0.0.1:*");
    introduce(&mut inlet, &peer);
    let other = socket(&context, source);
    other.connect(inlet.endpoint()).unwrap();
    introduce(&mut inlet, &other);
    drop(other);
    peer.send_multipart(["t", "still here"], 0).unwrap();
    assert_eq!(event(&mut inlet).payload.bytes, "still here");
}

#[rstest]
fn two_cannot_have_one_port(#[values(Publishers, Pushers)] source: Source) {
    let (context, inlet, _peer) = pair(source, "tcp://127.0.0.1:*");
    let second = Inlet::bind(&context, source, inlet.endpoint());
    assert_eq!(second.err(), Some(zmq::Error::EADDRINUSE));
}

/// What a PUSH has handed over before anybody listens, or while nobody reads, is not lost.
#[test]
fn a_push_waits_and_loses_nothing() {
    let context = Context::new();
    let peer = context.socket(zmq::PUSH).unwrap();
    peer.set_sndhwm(10).unwrap();
    peer.connect("inproc://later").unwrap();
    peer.send_multipart(["q", "0"], 0).unwrap();
    let mut inlet = Inlet::bind(&context, Pushers, "inproc://later").unwrap();
    let mut count = 1;
    while peer.send_multipart(["q", &count.to_string()], DONTWAIT).is_ok() {
        count += 1;
        assert!(count < 100_000, "it is held back");
    }
    for number in 0..count {
        assert_eq!(event(&mut inlet).payload.bytes, number.to_string());
    }
    peer.send_multipart(["q", "again"], 0).unwrap();
    assert_eq!(event(&mut inlet).payload.bytes, "again");
}
