//! Where any PUB socket publishes: a bound SUB that takes everything, and reads it as events.
//!
//! A message is `[topic][payload]`, and a third frame of headers if it likes. A PUB hears nothing
//! back, so what is wrong with a message is told here, to be counted and published.

use std::str;
use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::base::limits::{ATTACHMENT_BYTES, ENVELOPE_BYTES, FRAME_BYTES, NAME_BYTES};
use mpreg_patterns::base::names::{is_name, no_name};
use mpreg_patterns::base::refusal::cut;
use mpreg_patterns::base::{Code, Refusal, RunId};
use mpreg_patterns::names::is_reserved;
use mpreg_patterns::ops::Event;
use mpreg_patterns::values::{Fault, Kind, Value, compact};
use smol_str::SmolStr;
use zmq::{Context, DONTWAIT, Message, Socket};

use crate::raw;
use crate::router::into_bytes;

/// Messages that libzmq reads ahead from one publisher. They may be large, so no more than a few
/// milliseconds of small ones; beyond that TCP holds the publisher back, and then it drops.
const RECEIVE_MESSAGES: i32 = 1_000;
/// While a publisher is held back its answers to heartbeats are not read either, so a silence has
/// to be longer than any pause of the broker: at its end, what was on its way is lost. A publisher
/// that is gone costs no more than a descriptor until then.
const HEARTBEAT_MS: i32 = 5_000;
const SILENCE_MS: i32 = 30_000;
const SOCKET_BATCH_BYTES: i32 = 64 << 10;

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// An event, without an id of its own yet.
    Event(Arc<Event>),
    /// A message that is none.
    Refused {
        /// Its topic, cut to the length of a name, if it is text.
        topic: Option<SmolStr>,
        /// What is wrong with it.
        refusal: Refusal,
    },
}

/// A bound SUB socket.
pub struct PublishSocket {
    socket: Socket,
    endpoint: String,
    topic: Message,
    bytes: usize,
}

impl std::fmt::Debug for PublishSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishSocket").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl PublishSocket {
    /// Binds a SUB. Errors are libzmq's: EADDRINUSE when somebody has the port.
    pub fn bind(context: &Context, address: &str) -> Result<Self, zmq::Error> {
        let mut socket = context.socket(zmq::SUB)?;
        socket.set_linger(0)?;
        socket.set_rcvhwm(RECEIVE_MESSAGES)?;
        socket.set_maxmsgsize(FRAME_BYTES as i64)?;
        socket.set_backlog(raw::BACKLOG)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(SILENCE_MS)?;
        socket.set_ipv6(address.starts_with("tcp://["))?;
        raw::set_in_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        socket.set_subscribe(b"")?;
        socket.bind(address)?;
        let endpoint = socket.get_last_endpoint()?.unwrap_or_else(|_| address.to_owned());
        Ok(Self { socket, endpoint, topic: Message::new(), bytes: 0 })
    }

    /// The address peers connect to, with the port the system picked.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// For `zmq::poll`.
    #[must_use]
    pub fn poll_item(&self) -> zmq::PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }

    /// How many bytes the message had that was received last, with all its frames.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next message, or `None` when none is waiting.
    pub fn receive(&mut self) -> Result<Option<Published>, zmq::Error> {
        match next(&self.socket, &mut self.topic) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
        self.bytes = self.topic.len();
        let (frames, payload, headers) = self.rest()?;
        let event = event(&self.topic, frames, payload, headers);
        Ok(Some(event.map_or_else(
            |refusal| {
                let topic = str::from_utf8(&self.topic).ok();
                let topic = topic.map(|topic| SmolStr::new(cut(topic, NAME_BYTES)));
                Published::Refused { topic, refusal }
            },
            |event| Published::Event(Arc::new(event)),
        )))
    }

    /// Hands over what is waiting until there were `messages` of them or more than `bytes` bytes.
    /// Returns whether it stopped there, so that more may be waiting.
    pub fn receive_some(
        &mut self,
        messages: usize,
        bytes: usize,
        mut each: impl FnMut(Published),
    ) -> Result<bool, zmq::Error> {
        let mut total = 0;
        for _ in 0..messages {
            let Some(published) = self.receive()? else { return Ok(false) };
            each(published);
            total += self.bytes;
            if total > bytes {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// The frames behind the topic: how many there were with it, and the two that may mean
    /// something. What follows is read and dropped.
    fn rest(&mut self) -> Result<(usize, Bytes, Bytes), zmq::Error> {
        let (mut frames, mut payload, mut headers) = (1, Bytes::new(), Bytes::new());
        let mut more = self.topic.get_more();
        while more {
            // A new one each time: kept, it would hold on to what libzmq reads into next.
            let mut frame = Message::new();
            next(&self.socket, &mut frame)?;
            more = frame.get_more();
            self.bytes += frame.len();
            frames += 1;
            match frames {
                2 => payload = into_bytes(frame),
                3 => headers = into_bytes(frame),
                _ => {}
            }
        }
        Ok((frames, payload, headers))
    }
}

/// Reads one frame. The first of a message may not be there; then the others are.
fn next(socket: &Socket, frame: &mut Message) -> Result<(), zmq::Error> {
    loop {
        match socket.recv(frame, DONTWAIT) {
            Err(zmq::Error::EINTR) => {}
            done => return done,
        }
    }
}

/// The event that these frames are.
fn event(topic: &[u8], frames: usize, payload: Bytes, headers: Bytes) -> Result<Event, Refusal> {
    if !(2..=3).contains(&frames) {
        let message = format!("a topic, a payload and headers are 2 or 3 frames, not {frames}");
        return Err(Refusal::new(Code::BadFrame, message));
    }
    let Ok(topic) = str::from_utf8(topic) else {
        return Err(Refusal::field(Code::BadName, "topic", "a topic is text in UTF-8"));
    };
    if !is_name(topic) {
        return Err(no_name("topic", topic));
    }
    if is_reserved(topic) {
        let message = format!("`{topic}` is the broker's own");
        return Err(Refusal::field(Code::ReservedName, "topic", message));
    }
    bound("payload", payload.len(), ATTACHMENT_BYTES)?;
    let headers = if frames == 3 { Some(read_headers(headers)?) } else { None };
    let payload = Value { kind: Kind::Bytes, bytes: payload };
    Ok(Event { topic: SmolStr::new(topic), payload, headers, message: RunId(0) })
}

/// Refuses what has too many bytes.
fn bound(what: &str, bytes: usize, most: usize) -> Result<(), Refusal> {
    if bytes <= most {
        return Ok(());
    }
    let message = format!("{what} of {bytes} bytes; {most} at most");
    Err(Refusal::field(Code::TooLarge, what, message))
}

/// A map of JSON or MessagePack, told by its first byte, as compact JSON text.
fn read_headers(frame: Bytes) -> Result<Value, Refusal> {
    bound("headers", frame.len(), ENVELOPE_BYTES)?;
    let first = frame.iter().find(|byte| !byte.is_ascii_whitespace());
    let value = match first {
        Some(b'{') => Value::json(frame),
        Some(0x80..=0x8F | 0xDE | 0xDF) => Value::msgpack(frame),
        _ => {
            let message = "headers are a map of JSON or of MessagePack";
            return Err(Refusal::field(Code::BadField, "headers", message));
        }
    };
    compact(value).map_err(|fault| {
        let code = match fault {
            Fault::BadValue(_) => Code::BadEncoding,
            _ => fault.code(),
        };
        Refusal::field(code, "headers", fault.message())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MS: i64 = 10_000;

    fn pair(address: &str) -> (Context, PublishSocket, Socket) {
        let context = Context::new();
        let publish = PublishSocket::bind(&context, address).unwrap();
        let publisher = context.socket(zmq::PUB).unwrap();
        publisher.set_sndhwm(0).unwrap();
        publisher.set_linger(0).unwrap();
        publisher.connect(publish.endpoint()).unwrap();
        (context, publish, publisher)
    }

    fn receive(publish: &mut PublishSocket) -> Published {
        loop {
            if let Some(published) = publish.receive().unwrap() {
                return published;
            }
            let ready = zmq::poll(&mut [publish.poll_item()], WAIT_MS).unwrap();
            assert_eq!(ready, 1, "nothing came");
        }
    }

    /// Publishes until something comes: a PUB drops what it has before it is told a subscription.
    fn introduce(publish: &mut PublishSocket, publisher: &Socket) {
        while zmq::poll(&mut [publish.poll_item()], 1).unwrap() == 0 {
            publisher.send_multipart(["first", "x"], 0).unwrap();
        }
        publisher.send_multipart(["last", "x"], 0).unwrap();
        while !matches!(receive(publish), Published::Event(event) if event.topic == "last") {}
    }

    #[track_caller]
    fn event(publish: &mut PublishSocket) -> Arc<Event> {
        match receive(publish) {
            Published::Event(event) => event,
            refused @ Published::Refused { .. } => panic!("{refused:?}"),
        }
    }

    #[test]
    fn stock_publishers_publish_over_every_transport() {
        let folder = std::env::temp_dir().join(format!("mpreg-publish-{}", std::process::id()));
        let ipc = format!("ipc://{}", folder.display());
        for address in ["tcp://127.0.0.1:*", "inproc://publish", &ipc] {
            let (_context, mut publish, publisher) = pair(address);
            introduce(&mut publish, &publisher);
            publisher.send_multipart(["orders.eu", "\x00any"], 0).unwrap();
            publisher.send_multipart(["orders", ""], 0).unwrap();
            let first = event(&mut publish);
            assert_eq!(publish.bytes(), 13);
            assert_eq!(first.topic, "orders.eu");
            assert_eq!(first.payload, Value { kind: Kind::Bytes, bytes: "\x00any".into() });
            assert_eq!((&first.headers, first.message), (&None, RunId(0)));
            assert!(event(&mut publish).payload.bytes.is_empty());
            assert_eq!(publish.receive(), Ok(None));
        }
        std::fs::remove_file(folder).unwrap_or_default();
    }

    #[test]
    fn headers_are_kept_as_compact_json() {
        let (_context, mut publish, publisher) = pair("tcp://127.0.0.1:*");
        introduce(&mut publish, &publisher);
        for headers in
            [&b"\t{ \"a\": [1, 2.50] }"[..], b"\x81\xA1a\x92\x01\xCB\x40\x04\0\0\0\0\0\0"]
        {
            publisher.send_multipart([b"t", b"p", headers], 0).unwrap();
        }
        let text = |event: Arc<Event>| event.headers.clone().map(|headers| headers.bytes);
        assert_eq!(text(event(&mut publish)), Some("{\"a\":[1,2.50]}".into()));
        assert_eq!(text(event(&mut publish)), Some("{\"a\":[1,2.5]}".into()));
    }

    #[test]
    fn a_large_payload_comes_whole() {
        let (_context, mut publish, publisher) = pair("tcp://127.0.0.1:*");
        introduce(&mut publish, &publisher);
        let payload: Vec<u8> = (0..ATTACHMENT_BYTES).map(|at| (at % 251) as u8).collect();
        publisher.send_multipart([b"t", &payload[..]], 0).unwrap();
        assert!(event(&mut publish).payload.bytes == payload);
        assert_eq!(publish.bytes(), ATTACHMENT_BYTES + 1);
    }

    /// Frames, the code they are refused with, and the topic that is told.
    type Case<'a> = (&'a [&'a [u8]], Code, Option<&'a str>);

    #[test]
    fn what_is_no_event_is_refused_and_read_to_its_end() {
        let (_context, mut publish, publisher) = pair("tcp://127.0.0.1:*");
        introduce(&mut publish, &publisher);
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
            publisher.send_multipart(frames.iter(), 0).unwrap();
            publisher.send_multipart(["mpreg_is_free", "p"], 0).unwrap();
            let Published::Refused { topic, refusal } = receive(&mut publish) else {
                panic!("{code} was taken");
            };
            assert_eq!((refusal.code.as_str(), topic.as_deref()), (code.as_str(), *told));
            let total: usize = frames.iter().map(|frame| frame.len()).sum();
            assert_eq!(publish.bytes(), total);
            assert_eq!(event(&mut publish).topic, "mpreg_is_free");
        }
    }

    #[test]
    fn a_bound_is_kept_when_much_is_waiting() {
        let (_context, mut publish, publisher) = pair("inproc://much");
        introduce(&mut publish, &publisher);
        for _ in 0..100 {
            publisher.send_multipart(["topic", "12345"], 0).unwrap();
        }
        let mut some = |messages, bytes| {
            let mut taken = 0;
            let more = publish.receive_some(messages, bytes, |_| taken += 1).unwrap();
            (taken, more)
        };
        assert_eq!(some(10, usize::MAX), (10, true));
        assert_eq!(some(usize::MAX, 99), (10, true));
        assert_eq!(some(usize::MAX, usize::MAX), (80, false));
    }

    #[test]
    fn many_publishers_and_one_that_leaves() {
        let (context, mut publish, publisher) = pair("tcp://127.0.0.1:*");
        introduce(&mut publish, &publisher);
        let other = context.socket(zmq::PUB).unwrap();
        other.connect(publish.endpoint()).unwrap();
        introduce(&mut publish, &other);
        drop(other);
        publisher.send_multipart(["t", "still here"], 0).unwrap();
        assert_eq!(event(&mut publish).payload.bytes, "still here");
    }

    #[test]
    fn two_cannot_have_one_port() {
        let (context, publish, _publisher) = pair("tcp://127.0.0.1:*");
        let second = PublishSocket::bind(&context, publish.endpoint());
        assert_eq!(second.err(), Some(zmq::Error::EADDRINUSE));
    }
}
