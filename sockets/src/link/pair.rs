//! One side of one session: a PAIR, made for it and gone with it.
//!
//! A bound PAIR takes one peer in its life, and a connected one never connects anew here, so that
//! what a session is never changes. That it is over is told by the socket's monitor, at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mpreg_patterns::base::limits::FRAME_BYTES;
use mpreg_patterns::federation::Message;
use mpreg_patterns::federation::links::Frame;
use zmq::{Context, DONTWAIT, Error, POLLIN, POLLOUT, Socket, SocketEvent};

use super::frames::{self, NoFrame};
use super::host;
use crate::raw;
use crate::wait::Listens;

/// Frames that libzmq holds for the other side, or reads ahead from it.
const FRAMES: i32 = 64;
const HEARTBEAT_MS: i32 = 250;
const SILENCE_MS: i32 = 1_000;
const CONNECT_MS: i32 = 1_000;
/// How long the last word may take to leave.
const LINGER_MS: i32 = 200;
const SOCKET_BATCH_BYTES: i32 = 64 << 10;
/// Frames of this size are not copied once more for libzmq.
const MOVED_BYTES: usize = 4 << 10;

/// What a session brings.
#[derive(Debug)]
pub enum Heard {
    /// Something that was said.
    Frame(Frame),
    /// Bytes that are nothing of the kind.
    NoFrame(NoFrame),
}

/// A PAIR.
pub struct Pair {
    socket: Socket,
    monitor: Socket,
    endpoint: String,
    /// Who connected: the descriptor of the connection that the PAIR took, where it is bound.
    taken: Option<i32>,
    /// The descriptor of the last that connected.
    accepted: i32,
    bound: bool,
    packs: bool,
    /// What the socket did not take.
    waiting: VecDeque<Vec<u8>>,
    /// Whether there may be something to receive.
    stirred: bool,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        raw::stop_monitor(&mut self.socket);
    }
}

/// Each monitor has an address of its own.
static MONITORS: AtomicU64 = AtomicU64::new(0);

impl Pair {
    fn new(context: &Context) -> Result<Self, Error> {
        let mut socket = context.socket(zmq::PAIR)?;
        socket.set_linger(LINGER_MS)?;
        socket.set_sndhwm(FRAMES)?;
        socket.set_rcvhwm(FRAMES)?;
        socket.set_maxmsgsize(FRAME_BYTES as i64 + 64)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(SILENCE_MS)?;
        socket.set_reconnect_ivl(-1)?;
        socket.set_connect_timeout(CONNECT_MS)?;
        raw::set_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        let at = format!("inproc://session-{}", MONITORS.fetch_add(1, Ordering::Relaxed));
        let events = [
            SocketEvent::ACCEPTED,
            SocketEvent::HANDSHAKE_SUCCEEDED,
            SocketEvent::HANDSHAKE_FAILED_NO_DETAIL,
            SocketEvent::HANDSHAKE_FAILED_PROTOCOL,
            SocketEvent::HANDSHAKE_FAILED_AUTH,
            SocketEvent::DISCONNECTED,
            SocketEvent::CLOSED,
        ];
        let events = events.iter().fold(0, |all, event| all | i32::from(event.to_raw()));
        socket.monitor(&at, events)?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&at)?;
        Ok(Self {
            socket,
            monitor,
            endpoint: String::new(),
            taken: None,
            accepted: -1,
            bound: false,
            packs: false,
            waiting: VecDeque::new(),
            stirred: true,
        })
    }

    /// Binds a PAIR. Errors are libzmq's: EADDRINUSE when somebody has the port.
    pub fn bind(context: &Context, address: &str) -> Result<Self, Error> {
        let mut pair = Self::new(context)?;
        pair.endpoint = raw::bind(&pair.socket, address)?;
        (pair.bound, pair.packs) = (true, is_far(&pair.endpoint));
        Ok(pair)
    }

    /// Connects a PAIR to one that is bound.
    pub fn connect(context: &Context, endpoint: &str) -> Result<Self, Error> {
        let mut pair = Self::new(context)?;
        pair.socket.set_ipv6(endpoint.starts_with("tcp://["))?;
        pair.socket.connect(endpoint)?;
        (pair.endpoint, pair.packs) = (endpoint.to_owned(), is_far(endpoint));
        Ok(pair)
    }

    /// Where it is bound, with the port the system picked, or connected.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// For `zmq::poll`: something came, or the connection is lost, or more can be said.
    pub fn poll_items(&self) -> [zmq::PollItem<'_>; 2] {
        let events = if self.waiting.is_empty() { POLLIN } else { POLLIN | POLLOUT };
        [self.socket.as_poll_item(events), self.monitor.as_poll_item(POLLIN)]
    }

    /// What tells that something came, and that the connection is lost.
    #[must_use]
    pub const fn listeners(&self) -> [&Socket; 2] {
        [&self.socket, &self.monitor]
    }

    /// Something may have come.
    pub const fn stir(&mut self) {
        self.stirred = true;
    }

    /// Whether something may have come.
    #[must_use]
    pub const fn is_stirred(&self) -> bool {
        self.stirred
    }

    /// Looks whether something has come while it was used for something else.
    pub fn look(&mut self) -> bool {
        self.stirred = self.stirred && self.socket.has_input();
        self.stirred
    }

    /// What came next, with its size, or `None` when nothing is waiting.
    pub fn receive(&mut self) -> Result<Option<(Heard, usize)>, Error> {
        let message = match self.socket.recv_msg(DONTWAIT) {
            Ok(message) => message,
            Err(Error::EAGAIN) => {
                self.stirred = false;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let heard = match frames::decode(&message) {
            Ok(frame) if !message.get_more() => Heard::Frame(frame),
            Ok(_) => Heard::NoFrame(NoFrame::PARTS),
            Err(why) => Heard::NoFrame(why),
        };
        Ok(Some((heard, message.len())))
    }

    /// Says something. False where it waits here, with all that is said after it.
    pub fn send(&mut self, frame: &Frame<Arc<Message>>) -> Result<bool, Error> {
        let bytes = frames::encode(frame, self.packs).ok_or(Error::EMSGSIZE)?;
        self.waiting.push_back(bytes);
        self.flush()
    }

    /// Says what waits here. False where some of it still does.
    pub fn flush(&mut self) -> Result<bool, Error> {
        self.stirred = true;
        while let Some(bytes) = self.waiting.front_mut() {
            if bytes.len() < MOVED_BYTES {
                match self.socket.send(&bytes[..], DONTWAIT) {
                    Ok(()) => {}
                    Err(Error::EAGAIN) => return Ok(false),
                    Err(error) => return Err(error),
                }
            } else if self.socket.get_events()?.contains(POLLOUT) {
                // What is not taken would be gone, and nobody else takes this room.
                self.socket.send(zmq::Message::from(std::mem::take(bytes)), DONTWAIT)?;
            } else {
                return Ok(false);
            }
            self.waiting.pop_front();
        }
        Ok(true)
    }

    /// Whether something waits here.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether its connection was lost, or never came about. What came over it can still be
    /// received.
    pub fn is_lost(&mut self) -> Result<bool, Error> {
        loop {
            let event = match self.monitor.recv_bytes(DONTWAIT) {
                Ok(event) => event,
                Err(Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(error),
            };
            while self.monitor.get_rcvmore()? {
                drop(self.monitor.recv_bytes(DONTWAIT)?);
            }
            let Some((&[a, b, c, d, e, f], _)) = event.split_first_chunk() else { continue };
            let kind = SocketEvent::from_raw(u16::from_ne_bytes([a, b]));
            let descriptor = i32::from_ne_bytes([c, d, e, f]);
            match kind {
                SocketEvent::ACCEPTED => self.accepted = descriptor,
                // It does not say whose it was. Whoever comes later is not heard, and can break
                // nothing.
                SocketEvent::HANDSHAKE_SUCCEEDED => _ = self.taken.get_or_insert(self.accepted),
                _ if !self.bound || self.taken == Some(descriptor) => return Ok(true),
                _ => {}
            }
        }
    }
}

/// Whether bytes on the way there cost more than the work to make them fewer.
fn is_far(endpoint: &str) -> bool {
    host(endpoint).is_some_and(|host| !host.starts_with("127.") && host != "[::1]")
}
