//! The ROUTER at the door: messages in with who sent them, messages out without ever blocking.

use bytes::Bytes;
use mpreg_patterns::base::limits::FRAME_BYTES;
use mpreg_patterns::values::Frames;
use zmq::{Context, DONTWAIT, Message, SNDMORE, Socket};

use crate::raw;
use crate::wait::Listens;

/// Frames below this size are copied out of libzmq's buffer, larger ones share it.
const COPY_BYTES: usize = 1 << 10;
/// What the ROUTER hands out when a connection is gone. A peer can send the same bytes, but not
/// without metadata.
const GONE: &[u8] = b"\0gone";
/// Frames of one message that are kept: the body, its delimiter, and more attachments than any
/// limit allows. What follows is read and dropped.
pub(crate) const FRAMES_KEPT: usize = 256;
const HEARTBEAT_MS: i32 = 250;
const SILENCE_MS: i32 = 750;
/// Coalesced frames that libzmq may hold for one peer.
const SEND_FRAMES: i32 = 64;
/// Messages that libzmq reads ahead from one peer: each may be an envelope of several MiB.
const RECEIVE_FRAMES: i32 = 64;
const LINGER_MS: i32 = 500;
const SOCKET_BATCH_BYTES: i32 = 64 << 10;

/// What stood before the body, to be returned as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// A DEALER's message: nothing.
    #[default]
    None,
    /// A REQ's empty delimiter.
    Empty,
    /// A REQ's request id (REQ_CORRELATE) and empty delimiter.
    Correlated([u8; 4]),
}

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A connection has begun; one under the same routing id has ended.
    Connected,
    /// The connection has ended.
    Disconnected,
    /// A message.
    Message {
        /// Whether the peer is a REQ socket, which hears one message for each it sends.
        is_req: bool,
        /// What stood before the body.
        prefix: Prefix,
        /// The envelope.
        body: Bytes,
        /// The attachments.
        frames: Frames,
    },
}

/// How a send went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// libzmq has the message.
    Done,
    /// Its queue for the peer is full. Nothing was sent.
    Blocked,
    /// There is no such peer any more.
    Unreachable,
}

/// A bound ROUTER socket.
pub struct Router {
    socket: Socket,
    endpoint: String,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Router {
    /// Binds a ROUTER. Errors are libzmq's: EADDRINUSE when somebody has the port.
    pub fn bind(context: &Context, address: &str) -> Result<Self, zmq::Error> {
        let mut socket = context.socket(zmq::ROUTER)?;
        socket.set_linger(LINGER_MS)?;
        socket.set_router_mandatory(true)?;
        socket.set_router_handover(true)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(SILENCE_MS)?;
        socket.set_sndhwm(SEND_FRAMES)?;
        socket.set_rcvhwm(RECEIVE_FRAMES)?;
        socket.set_maxmsgsize(FRAME_BYTES as i64)?;
        raw::set_notices(&mut socket, GONE)?;
        raw::set_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        let endpoint = raw::bind(&socket, address)?;
        Ok(Self { socket, endpoint })
    }

    /// The address peers connect to, with the port the system picked.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next message, or `None` when none is waiting. Fills `routing_id` with who sent it.
    pub fn receive(&mut self, routing_id: &mut Message) -> Result<Option<Incoming>, zmq::Error> {
        loop {
            match self.socket.recv(routing_id, DONTWAIT) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(error),
            }
            // A message of nothing else is none.
            if routing_id.get_more() {
                return self.rest().map(Some);
            }
        }
    }

    /// The frames after the routing id.
    fn rest(&self) -> Result<Incoming, zmq::Error> {
        let mut first = self.next()?;
        let more = first.get_more();
        // What a REQ sends begins with a frame that is empty, or the number of its request. Nobody
        // else is asked for the type of his socket: that is a search through text.
        let may_be_req = more && (first.is_empty() || first.len() == 4);
        let may_be_notice = !more && (first.is_empty() || &*first == GONE);
        let socket_type =
            if may_be_req || may_be_notice { first.gets("Socket-Type") } else { None };
        if may_be_notice && socket_type.is_none() {
            // No metadata: libzmq's own notice.
            let is_empty = first.is_empty();
            return Ok(if is_empty { Incoming::Connected } else { Incoming::Disconnected });
        }
        let is_req = may_be_req && socket_type == Some("REQ");
        let mut prefix = Prefix::None;
        let mut body = first;
        if is_req && body.len() == 4 && body.get_more() {
            prefix = Prefix::Correlated([body[0], body[1], body[2], body[3]]);
            body = self.next()?;
        }
        if body.is_empty() && body.get_more() {
            if prefix == Prefix::None {
                prefix = Prefix::Empty;
            }
            body = self.next()?;
        }
        let mut frames = Frames::new();
        let mut more = body.get_more();
        while more {
            let frame = self.next()?;
            more = frame.get_more();
            if frames.len() < FRAMES_KEPT {
                frames.push(into_bytes(frame));
            }
        }
        Ok(Incoming::Message { is_req, prefix, body: into_bytes(body), frames })
    }

    fn next(&self) -> Result<Message, zmq::Error> {
        let mut message = Message::new();
        self.socket.recv(&mut message, DONTWAIT)?;
        Ok(message)
    }

    /// Sends one message, whole or not at all.
    pub fn send(
        &self,
        routing_id: &[u8],
        prefix: Prefix,
        body: &[u8],
        frames: &[Bytes],
    ) -> Result<Sent, zmq::Error> {
        // Whether there is room is decided by the first frame: the rest follows without fail.
        match self.socket.send(routing_id, DONTWAIT | SNDMORE) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) => return Ok(Sent::Blocked),
            Err(zmq::Error::EHOSTUNREACH) => return Ok(Sent::Unreachable),
            Err(error) => return Err(error),
        }
        match prefix {
            Prefix::None => {}
            Prefix::Empty => self.part("", true)?,
            Prefix::Correlated(id) => {
                self.part(&id[..], true)?;
                self.part("", true)?;
            }
        }
        self.part(body, !frames.is_empty())?;
        for (index, frame) in frames.iter().enumerate() {
            self.part(&frame[..], index + 1 < frames.len())?;
        }
        Ok(Sent::Done)
    }

    fn part(&self, bytes: impl zmq::Sendable, more: bool) -> Result<(), zmq::Error> {
        self.socket.send(bytes, if more { DONTWAIT | SNDMORE } else { DONTWAIT })
    }

    /// Whether the ROUTER still knows a peer. A hint: a send tells for certain.
    pub fn has_peer(&mut self, routing_id: &[u8]) -> bool {
        raw::has_peer(&mut self.socket, routing_id)
    }
}

/// A frame as shared bytes.
#[must_use]
pub fn into_bytes(message: Message) -> Bytes {
    struct Owner(Message);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    if message.len() < COPY_BYTES {
        Bytes::copy_from_slice(&message)
    } else {
        Bytes::from_owner(Owner(message))
    }
}

impl Listens for Router {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that writes without end while nobody reads is alive: with heartbeats, libzmq would
    /// hang up after [`SILENCE_MS`].
    #[test]
    fn a_peer_that_is_kept_waiting_is_not_dead() {
        const MESSAGES: usize = 4_000;
        let context = Context::new();
        let mut router = Router::bind(&context, "tcp://127.0.0.1:*").unwrap();
        let peer = context.socket(zmq::DEALER).unwrap();
        peer.set_sndhwm(0).unwrap();
        peer.set_linger(0).unwrap();
        peer.connect(router.endpoint()).unwrap();
        for _ in 0..MESSAGES {
            peer.send(&[7; 4_096][..], 0).unwrap();
        }
        // Nothing ever comes for the peer: this is how long nobody reads.
        peer.poll(zmq::POLLIN, 3 * i64::from(SILENCE_MS)).unwrap();
        let (mut routing_id, mut messages, mut ends) = (Message::new(), 0, 0);
        while messages < MESSAGES && ends == 0 {
            zmq::poll(&mut [router.poll_item()], 5_000).unwrap();
            match router.receive(&mut routing_id).unwrap() {
                Some(Incoming::Message { .. }) => messages += 1,
                Some(Incoming::Disconnected) => ends += 1,
                Some(Incoming::Connected) => {}
                None => break,
            }
        }
        assert_eq!((messages, ends), (MESSAGES, 0));
    }
}
