//! Where any SUB socket subscribes: a bound XPUB that decides itself what each connection gets.
//!
//! libzmq matches by prefix, our patterns by words. So a connection that subscribes to a text is
//! given the key `text NUL`, and a message for those who hold the text begins with
//! `text NUL topic`. No valid text has a NUL in it, so the key matches exactly; and the SUB, which
//! filters again by the text that it subscribed to, lets the message pass.
//!
//! What is told of a text is a count: one more for each connection that begins to hold it, one less
//! for each that ends, whether it says so or dies (with the corrections of `zmq-sys`). A connection
//! holds a text once, however often it subscribes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mpreg_patterns::base::Refusal;
use mpreg_patterns::base::limits::NAME_BYTES;
use mpreg_patterns::base::refusal::{Culprit, cut};
use mpreg_patterns::names::Key;
use serde::Serialize;
use smol_str::SmolStr;
use zmq::{Context, DONTWAIT, Message, SNDMORE, Socket};

use crate::raw::{self, Shared};
use crate::wait::Listens;

/// Messages that wait for one subscriber before it loses some: two batches of events, or one that
/// matches two of its patterns, taken in by one turn. Small ones hold about 20 MB at most.
const SEND_MESSAGES: i32 = 16_384;
/// Payloads below this size are copied for each pattern, larger ones are shared by everybody.
const COPY_BYTES: usize = 1 << 10;
/// Bytes of shared payloads that may wait, whoever they wait for.
const HELD_BYTES: usize = 256 << 20;
/// From here on fewer messages wait for each subscriber: who has more than that waiting already
/// loses what comes, until it reads. So large payloads are the loss of those who do not read, and
/// of nobody else.
const MUCH_BYTES: usize = HELD_BYTES / 2;
/// Longest subscription, and message of an XSUB's user, before libzmq closes the connection. A
/// valid text is far shorter; one up to this length is told what is wrong with it.
const TEXT_BYTES: i64 = 4 << 10;
/// A subscriber whose own queue is full answers no heartbeats, and then takes nothing from TCP. It
/// may pause so long before its connection, and what waits for it, goes: the heartbeats of the door
/// would end it after a second.
const STALL_MS: i32 = 30_000;
const HEARTBEAT_MS: i32 = 5_000;
const LINGER_MS: i32 = 500;
const SOCKET_BATCH_BYTES: i32 = 64 << 10;
/// The topic of the message that a SUB gets for an invalid text.
const ERROR_TOPIC: &str = "mpreg.error";

/// What a subscriber did.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// One more connection holds the text, and gets what is published for it from now on.
    Subscribed(Key),
    /// One connection less holds the text.
    Unsubscribed(Key),
    /// Somebody subscribed to an invalid text, and was told so.
    Refused {
        /// The text, as far as it can be shown.
        text: SmolStr,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// Nothing to act on: the end of an invalid subscription, or a message of an XSUB's user.
    Nothing,
}

/// A bound XPUB socket.
pub struct SubscribeSocket {
    socket: Socket,
    endpoint: String,
    message: Message,
    /// The first frame, or the key, while it is written.
    buffer: Vec<u8>,
    /// The last payload that was shared: an event goes out once for each pattern.
    last: Option<Arc<Shared>>,
    held: Arc<AtomicUsize>,
    /// Messages that may wait for one subscriber now.
    room: i32,
    strays: u64,
}

impl std::fmt::Debug for SubscribeSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscribeSocket").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl SubscribeSocket {
    /// Binds an XPUB. Errors are libzmq's: EADDRINUSE when somebody has the port.
    pub fn bind(context: &Context, address: &str) -> Result<Self, zmq::Error> {
        let mut socket = context.socket(zmq::XPUB)?;
        socket.set_linger(LINGER_MS)?;
        socket.set_sndhwm(SEND_MESSAGES)?;
        socket.set_maxmsgsize(TEXT_BYTES)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(STALL_MS)?;
        raw::set_stall_limit(&mut socket, STALL_MS)?;
        raw::set_out_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        raw::set_manual(&mut socket)?;
        let endpoint = raw::bind(&socket, address)?;
        Ok(Self {
            socket,
            endpoint,
            message: Message::new(),
            buffer: Vec::new(),
            last: None,
            held: Arc::default(),
            room: SEND_MESSAGES,
            strays: 0,
        })
    }

    /// The address peers connect to, with the port the system picked.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Frames that were neither a subscription nor its end, so far.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// Bytes of shared payloads that wait for subscribers.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What the next subscriber did, or `None` when nothing is waiting. It has taken effect.
    pub fn receive(&mut self) -> Result<Option<Heard>, zmq::Error> {
        loop {
            match self.socket.recv(&mut self.message, DONTWAIT) {
                Ok(()) => return self.hear().map(Some),
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn hear(&mut self) -> Result<Heard, zmq::Error> {
        let (begins, text) = match self.message.split_first() {
            Some((1, text)) => (true, text),
            Some((0, text)) => (false, text),
            _ => {
                self.strays += 1;
                return Ok(Heard::Nothing);
            }
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(text);
        self.buffer.push(0);
        match Key::parse(text) {
            Ok(key) if begins => {
                self.socket.set_subscribe(&self.buffer)?;
                Ok(Heard::Subscribed(key))
            }
            Ok(key) => {
                self.socket.set_unsubscribe(&self.buffer)?;
                Ok(Heard::Unsubscribed(key))
            }
            Err(refusal) if begins => {
                let text = String::from_utf8_lossy(text);
                let text = SmolStr::new(cut(&text, NAME_BYTES));
                self.refuse(&refusal)?;
                Ok(Heard::Refused { text, refusal })
            }
            Err(_) => Ok(Heard::Nothing),
        }
    }

    /// Tells the subscriber whose message came last that its text, which is in the buffer, is no
    /// pattern. It holds the key for as long as that takes.
    fn refuse(&mut self, refusal: &Refusal) -> Result<(), zmq::Error> {
        let key = self.buffer.len();
        if self.buffer[..key - 1].contains(&0) {
            // What stands before the NUL may be a key that others hold: they would get it too.
            return Ok(());
        }
        self.socket.set_subscribe(&self.buffer)?;
        self.buffer.extend_from_slice(ERROR_TOPIC.as_bytes());
        self.socket.send(&self.buffer[..], DONTWAIT | SNDMORE)?;
        self.socket.send(Failure::text(refusal), DONTWAIT)?;
        self.socket.set_unsubscribe(&self.buffer[..key])
    }

    /// Sends an event to everybody who holds `text`, a key's. Never blocks: a subscriber whose
    /// queue is full loses it, without a word to anybody.
    ///
    /// EAGAIN where nobody gets it: too many bytes of large payloads wait for subscribers that do
    /// not read.
    pub fn publish(
        &mut self,
        text: &str,
        topic: &str,
        payload: &Bytes,
        headers: Option<&[u8]>,
    ) -> Result<(), zmq::Error> {
        let shared = if payload.len() < COPY_BYTES { None } else { Some(self.share(payload)?) };
        self.buffer.clear();
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
        self.buffer.extend_from_slice(topic.as_bytes());
        self.socket.send(&self.buffer[..], DONTWAIT | SNDMORE)?;
        let flags = if headers.is_some() { DONTWAIT | SNDMORE } else { DONTWAIT };
        match shared {
            Some(shared) => raw::send_shared(&mut self.socket, &shared, flags)?,
            None => self.socket.send(&payload[..], flags)?,
        }
        headers.map_or(Ok(()), |headers| self.socket.send(headers, DONTWAIT))
    }

    /// The payload in a form that everybody shares; the same as the last time if it is the same.
    fn share(&mut self, payload: &Bytes) -> Result<Arc<Shared>, zmq::Error> {
        let same = |last: &&Arc<Shared>| std::ptr::eq(&last.bytes()[..], &payload[..]);
        if let Some(last) = self.last.as_ref().filter(same) {
            return Ok(Arc::clone(last));
        }
        self.last = None;
        self.make_room(payload.len())?;
        if self.held_bytes() > HELD_BYTES {
            return Err(zmq::Error::EAGAIN);
        }
        let shared = Shared::new(payload.clone(), &self.held);
        self.last = Some(Arc::clone(&shared));
        Ok(shared)
    }

    /// Lets fewer messages wait for each subscriber while much is held, as many as a quarter of
    /// what is left would hold, and all again once little is. libzmq tells every connection of a
    /// change, so there are few.
    fn make_room(&mut self, bytes: usize) -> Result<(), zmq::Error> {
        let held = self.held_bytes();
        let room = if held >= MUCH_BYTES {
            let fit = HELD_BYTES.saturating_sub(held) / 4 / bytes;
            self.room.min(1 << fit.clamp(1, SEND_MESSAGES as usize).ilog2())
        } else if held < MUCH_BYTES / 2 {
            SEND_MESSAGES
        } else {
            self.room
        };
        if room != self.room {
            self.room = room;
            self.socket.set_sndhwm(room)?;
        }
        Ok(())
    }
}

/// The object under `error` in the op of that name.
#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
    culprit: Culprit,
    retry: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Failure<'_> {
    fn text(refusal: &Refusal) -> Vec<u8> {
        let failure = Failure {
            code: &refusal.code,
            message: &refusal.message,
            culprit: refusal.culprit,
            retry: refusal.retry,
            field: refusal.field.as_deref(),
        };
        serde_json::to_vec(&failure).unwrap_or_default()
    }
}

impl Listens for SubscribeSocket {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

#[cfg(test)]
mod tests;
