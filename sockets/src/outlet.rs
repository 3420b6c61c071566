//! Where any PULL socket takes what a queue lets out: a bound PUSH.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use zmq::{Context, DONTWAIT, Error, POLLOUT, SNDMORE, Socket};

use crate::raw::{self, Shared};

/// Messages that wait for one PULL, beside what TCP holds: they are lost with it.
const SEND_MESSAGES: i32 = 256;
/// Payloads below this size are copied, larger ones are shared with the socket.
const COPY_BYTES: usize = 1 << 10;
/// Bytes of shared payloads that may wait, whichever PULL they wait for.
const HELD_BYTES: usize = 32 << 20;
/// A PULL that takes nothing for so long is gone, and what waits for it.
const SILENCE_MS: i32 = 30_000;
const HEARTBEAT_MS: i32 = 5_000;
const LINGER_MS: i32 = 500;
const SOCKET_BATCH_BYTES: i32 = 64 << 10;

/// A bound PUSH socket.
pub struct Outlet {
    socket: Socket,
    endpoint: String,
    held: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Outlet {
    /// Binds a PUSH at `tcp://ADDRESS:PORT`; port 0 lets the system choose. Errors are libzmq's:
    /// EADDRINUSE when somebody has the port.
    pub fn bind(context: &Context, address: &str) -> Result<Self, Error> {
        let mut socket = context.socket(zmq::PUSH)?;
        socket.set_linger(LINGER_MS)?;
        socket.set_sndhwm(SEND_MESSAGES)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(SILENCE_MS)?;
        raw::set_out_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        let address = match address.strip_suffix(":0") {
            Some(host) => format!("{host}:*"),
            None => address.to_owned(),
        };
        let endpoint = raw::bind(&socket, &address)?;
        Ok(Self { socket, endpoint, held: Arc::default() })
    }

    /// The address peers connect to, with the port the system picked.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// For `zmq::poll`: there is a PULL that takes more.
    #[must_use]
    pub fn poll_item(&self) -> zmq::PollItem<'_> {
        self.socket.as_poll_item(POLLOUT)
    }

    /// Whether there is a PULL that takes more.
    pub fn flows(&self) -> Result<bool, Error> {
        Ok(!self.is_full() && self.socket.get_events()?.contains(POLLOUT))
    }

    /// Whether so many bytes wait that no more are taken, though a PULL might.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= HELD_BYTES
    }

    /// Hands a message to one of the PULL sockets, in turn. False where none takes it now.
    pub fn send(
        &mut self,
        name: &str,
        payload: &Bytes,
        headers: Option<&[u8]>,
    ) -> Result<bool, Error> {
        if self.is_full() {
            return Ok(false);
        }
        match self.send_frames(name, payload, headers) {
            Ok(()) => Ok(true),
            Err(Error::EAGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Frames behind the first go where that went, and find room there.
    fn send_frames(
        &mut self,
        name: &str,
        payload: &Bytes,
        headers: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.socket.send(name, DONTWAIT | SNDMORE)?;
        let flags = if headers.is_some() { DONTWAIT | SNDMORE } else { DONTWAIT };
        if payload.len() < COPY_BYTES {
            self.socket.send(&payload[..], flags)?;
        } else {
            let shared = Shared::new(payload.clone(), &self.held);
            raw::send_shared(&mut self.socket, &shared, flags)?;
        }
        headers.map_or(Ok(()), |headers| self.socket.send(headers, DONTWAIT))
    }
}
