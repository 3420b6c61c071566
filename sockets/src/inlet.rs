//! Where plain sockets bring messages in: a bound SUB for any PUB, and a bound PULL for any PUSH.
//!
//! A message is `[name][payload]`, and a third frame of headers if it likes. From a PUB the name is
//! a topic, from a PUSH a topic or a queue: the rules tell which. Neither hears anything back, so
//! what is wrong with a message is told here, to be counted and published.

impl Listens for Inlet {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

#[cfg(test)]
mod tests;

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
use crate::wait::Listens;

/// Messages that libzmq reads ahead from one peer. They may be large, so no more than a few
/// milliseconds of small ones; beyond that TCP holds the peer back: a PUB then drops, a PUSH waits.
const RECEIVE_MESSAGES: i32 = 1_000;
/// While a peer is held back its answers to heartbeats are not read either, so a silence has to be
/// longer than any pause of the broker: at its end, what was on its way is lost. A peer that is
/// gone costs no more than a descriptor until then.
const HEARTBEAT_MS: i32 = 5_000;
const SILENCE_MS: i32 = 30_000;
const SOCKET_BATCH_BYTES: i32 = 64 << 10;

/// Who brings messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// PUB sockets.
    Publishers,
    /// PUSH sockets.
    Pushers,
}

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A message, without an id of its own yet. Its topic is what its first frame names.
    Event(Arc<Event>),
    /// A message that is none.
    Refused {
        /// What its first frame names, cut to the length of a name, if it is text.
        topic: Option<SmolStr>,
        /// What is wrong with it.
        refusal: Refusal,
    },
}

/// A bound SUB or PULL socket.
pub struct Inlet {
    socket: Socket,
    endpoint: String,
    name: Message,
    bytes: usize,
}

impl std::fmt::Debug for Inlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inlet").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Inlet {
    /// Binds a SUB that takes everything, or a PULL. Errors are libzmq's: EADDRINUSE when somebody
    /// has the port.
    pub fn bind(context: &Context, source: Source, address: &str) -> Result<Self, zmq::Error> {
        let mut socket = context.socket(match source {
            Source::Publishers => zmq::SUB,
            Source::Pushers => zmq::PULL,
        })?;
        socket.set_linger(0)?;
        socket.set_rcvhwm(RECEIVE_MESSAGES)?;
        socket.set_maxmsgsize(FRAME_BYTES as i64)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(SILENCE_MS)?;
        raw::set_in_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        if source == Source::Publishers {
            socket.set_subscribe(b"")?;
        }
        let endpoint = raw::bind(&socket, address)?;
        Ok(Self { socket, endpoint, name: Message::new(), bytes: 0 })
    }

    /// The address peers connect to, with the port the system picked.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many bytes the message had that was received last, with all its frames.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next message, or `None` when none is waiting.
    pub fn receive(&mut self) -> Result<Option<Received>, zmq::Error> {
        match next(&self.socket, &mut self.name) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
        self.bytes = self.name.len();
        let (frames, payload, headers) = self.rest()?;
        let event = event(&self.name, frames, payload, headers);
        Ok(Some(event.map_or_else(
            |refusal| {
                let topic = str::from_utf8(&self.name).ok();
                let topic = topic.map(|topic| SmolStr::new(cut(topic, NAME_BYTES)));
                Received::Refused { topic, refusal }
            },
            |event| Received::Event(Arc::new(event)),
        )))
    }

    /// Hands over what is waiting until there were `messages` of them or more than `bytes` bytes.
    /// Returns whether it stopped there, so that more may be waiting.
    pub fn receive_some(
        &mut self,
        messages: usize,
        bytes: usize,
        mut each: impl FnMut(Received),
    ) -> Result<bool, zmq::Error> {
        let mut total = 0;
        for _ in 0..messages {
            let Some(received) = self.receive()? else { return Ok(false) };
            each(received);
            total += self.bytes;
            if total > bytes {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// The frames behind the first: how many there were with it, and the two that may mean
    /// something. What follows is read and dropped.
    fn rest(&mut self) -> Result<(usize, Bytes, Bytes), zmq::Error> {
        let (mut frames, mut payload, mut headers) = (1, Bytes::new(), Bytes::new());
        let mut more = self.name.get_more();
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
        let message = format!("a name, a payload and headers are 2 or 3 frames, not {frames}");
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
    let payload = Value::new(Kind::Bytes, payload);
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
