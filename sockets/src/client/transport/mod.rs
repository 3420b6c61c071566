//! A connection to one address, over ZeroMQ or WebSocket. Both connect anew by themselves.

mod websocket;
mod zeromq;

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mpreg_patterns::values::Frames;

use super::Error;
use crate::envelope::Message;
use websocket::WebSocket;
use zeromq::ZeroMq;

/// How often a peer asks whether the broker is there, and how long its silence may last.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(3);
/// The pause before it connects anew: the first, and the longest.
const RECONNECT: Duration = Duration::from_millis(50);
const LONGEST_RECONNECT: Duration = Duration::from_secs(1);
/// How long what was sent may take to leave once the peer has ended.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What came in.
pub(super) enum Heard {
    /// Envelope and attachments.
    Message(Bytes, Frames),
    /// The connection was lost, behind everything that came over it.
    Lost,
}

/// A connection, or the attempt at one.
pub(super) enum Transport {
    ZeroMq(ZeroMq),
    WebSocket(Box<WebSocket>),
}

impl Transport {
    /// Begins to connect.
    pub(super) fn connect(address: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Address { address: address.into(), why: why.into() };
        if address.starts_with("ws://") {
            let socket = WebSocket::connect(address).map_err(|why| wrong(why.into()))?;
            return Ok(Self::WebSocket(Box::new(socket)));
        }
        if address.starts_with("wss://") {
            return Err(wrong("TLS is not spoken here; what ends it takes ws://".into()));
        }
        ZeroMq::connect(address).map(Self::ZeroMq).map_err(|why| wrong(why.to_string()))
    }

    /// What somebody at the address said who does not let it in.
    pub(super) fn refusal(&self) -> Option<&str> {
        match self {
            Self::ZeroMq(_) => None,
            Self::WebSocket(socket) => socket.refusal(),
        }
    }

    /// What is there, without waiting.
    pub(super) fn receive(&mut self) -> Option<Heard> {
        match self {
            Self::ZeroMq(socket) => socket.receive(),
            Self::WebSocket(socket) => socket.receive(),
        }
    }

    /// Sends one message, whole or not at all. Whether there was room for it.
    pub(super) fn send(&mut self, message: &Message) -> bool {
        match self {
            Self::ZeroMq(socket) => socket.send(message),
            Self::WebSocket(socket) => socket.send(message),
        }
    }

    /// What was sent leaves.
    pub(super) fn flush(&mut self) {
        if let Self::WebSocket(socket) = self {
            socket.flush();
        }
    }

    /// Whether there is more to receive, or room if that is waited for.
    pub(super) fn is_ready(&mut self, wants_room: bool) -> bool {
        match self {
            Self::ZeroMq(socket) => socket.is_ready(wants_room),
            Self::WebSocket(socket) => socket.is_ready(wants_room),
        }
    }

    /// Waits until [`Transport::is_ready`] may say something else.
    pub(super) fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::ZeroMq(socket) => socket.poll_changed(context),
            Self::WebSocket(socket) => socket.poll(context).map(Ok),
        }
    }
}
