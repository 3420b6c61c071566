//! Options and calls of libzmq that the `zmq` crate lacks. One of the few places with `unsafe`.
#![expect(unsafe_code, reason = "libzmq options without a safe method in the zmq crate")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use zmq::{Error, Socket};

/// Waits until one of the descriptors is ready. None is, if a signal came first.
pub fn poll(descriptors: &mut [libc::pollfd], ms: c_int) {
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: as many descriptors as are said, which nobody else writes to meanwhile.
    if unsafe { libc::poll(descriptors.as_mut_ptr(), count, ms) } < 0 {
        descriptors.iter_mut().for_each(|of| of.revents = 0);
    }
}

/// Gives memory back to the system that libzmq has freed: glibc keeps it, and after a crowd has
/// gone that is tens of kilobytes a connection. Some 10 ms for 10,000 connections.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called from any thread at any time, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Connections that may wait to be taken in. At libzmq's 100 a crowd that comes at one moment loses
/// some of its first packets, and each is sent again only after 1, 3, 7, 15 … seconds.
const BACKLOG: i32 = 4_096;

/// Binds a socket whose other options are set. The address peers connect to, with the port the
/// system picked; EADDRINUSE when somebody has the port.
pub(crate) fn bind(socket: &Socket, address: &str) -> Result<String, Error> {
    socket.set_backlog(BACKLOG)?;
    socket.set_ipv6(address.starts_with("tcp://["))?;
    socket.bind(address)?;
    Ok(socket.get_last_endpoint()?.unwrap_or_else(|_| address.to_owned()))
}

/// Asks a ROUTER to tell when a peer connects, by `[id, empty]`, and when one is gone, by
/// `[id, gone]` (draft API). Both come without metadata, unlike everything a peer sends.
///
/// ROUTER_NOTIFY has a notice of its own for peers that are gone, but it is lost when the queue
/// is full; this one is not.
pub fn set_notices(socket: &mut Socket, gone: &[u8]) -> Result<(), Error> {
    set_int(socket, option(zmq_sys::ZMQ_ROUTER_NOTIFY), option(zmq_sys::ZMQ_NOTIFY_CONNECT))?;
    set(socket, option(zmq_sys::ZMQ_DISCONNECT_MSG), gone.as_ptr().cast(), gone.len())
}

/// Asks a connecting socket to hand out `lost` when its connection was lost and it connects anew
/// (draft API), behind everything that came over the old one.
pub fn set_lost_notice(socket: &mut Socket, lost: &[u8]) -> Result<(), Error> {
    set(socket, option(zmq_sys::ZMQ_HICCUP_MSG), lost.as_ptr().cast(), lost.len())
}

/// Reads and writes larger pieces than 8 KiB at once (draft API).
pub fn set_batch_size(socket: &mut Socket, bytes: c_int) -> Result<(), Error> {
    set_in_batch_size(socket, bytes)?;
    set_out_batch_size(socket, bytes)
}

/// Reads larger pieces than 8 KiB at once (draft API).
pub fn set_in_batch_size(socket: &mut Socket, bytes: c_int) -> Result<(), Error> {
    set_int(socket, option(zmq_sys::ZMQ_IN_BATCH_SIZE), bytes)
}

/// Writes larger pieces than 8 KiB at once (draft API).
pub fn set_out_batch_size(socket: &mut Socket, bytes: c_int) -> Result<(), Error> {
    set_int(socket, option(zmq_sys::ZMQ_OUT_BATCH_SIZE), bytes)
}

/// Lets a socket tell nobody any more what becomes of its connections. To be called before whoever
/// listened goes: libzmq would wait for a listener, and with it all sockets of its I/O thread.
pub fn stop_monitor(socket: &mut Socket) {
    // SAFETY: the socket is alive, and no address is how libzmq is asked to stop.
    unsafe {
        zmq_sys::zmq_socket_monitor(socket.as_mut_ptr(), std::ptr::null(), 0);
    }
}

/// Asks an XPUB to tell every subscription and to apply none by itself. SUBSCRIBE and UNSUBSCRIBE
/// then go to the connection whose message was received last.
pub fn set_manual(socket: &mut Socket) -> Result<(), Error> {
    set_int(socket, option(zmq_sys::ZMQ_XPUB_MANUAL), 1)
}

/// Ends a TCP connection whose peer has taken nothing of what waits for it for so long.
pub fn set_stall_limit(socket: &mut Socket, ms: c_int) -> Result<(), Error> {
    set_int(socket, option(zmq_sys::ZMQ_TCP_MAXRT), ms)
}

/// Whether a ROUTER still knows a peer (draft API). Nothing is sent.
#[must_use]
pub fn has_peer(socket: &mut Socket, routing_id: &[u8]) -> bool {
    // SAFETY: the pointer is a live socket of this thread, the slice is valid for its length.
    let state = unsafe {
        zmq_sys::zmq_socket_get_peer_state(
            socket.as_mut_ptr(),
            routing_id.as_ptr().cast::<c_void>(),
            routing_id.len(),
        )
    };
    state >= 0
}

/// The constants are unsigned, the functions take an int.
const fn option(constant: u32) -> c_int {
    constant as c_int
}

fn set_int(socket: &mut Socket, name: c_int, value: c_int) -> Result<(), Error> {
    set(socket, name, (&raw const value).cast::<c_void>(), size_of_val(&value))
}

fn set(socket: &mut Socket, name: c_int, value: *const c_void, len: usize) -> Result<(), Error> {
    // SAFETY: the pointer is a live socket of this thread; libzmq copies `len` bytes of the value,
    // which both callers point to a live object of that size.
    let failed = unsafe { zmq_sys::zmq_setsockopt(socket.as_mut_ptr(), name, value, len) };
    if failed == 0 { Ok(()) } else { Err(last_error()) }
}

/// Why the last call on this thread failed.
fn last_error() -> Error {
    // SAFETY: reads a number of this thread.
    Error::from_raw(unsafe { zmq_sys::zmq_errno() })
}

/// Bytes that libzmq sends without a copy of its own. They count as held for as long as it, or
/// anybody else, keeps them.
#[derive(Debug)]
pub struct Shared {
    bytes: Bytes,
    held: Arc<AtomicUsize>,
}

impl Shared {
    /// Shares `bytes`, adding their number to `held` until they are dropped.
    #[must_use]
    pub fn new(bytes: Bytes, held: &Arc<AtomicUsize>) -> Arc<Self> {
        held.fetch_add(bytes.len(), Ordering::Relaxed);
        Arc::new(Self { bytes, held: Arc::clone(held) })
    }

    /// What is shared.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Sends one frame without copying it.
pub fn send_shared(socket: &mut Socket, frame: &Arc<Shared>, flags: c_int) -> Result<(), Error> {
    let (data, len) = (frame.bytes.as_ptr().cast_mut().cast::<c_void>(), frame.bytes.len());
    let hint = Arc::into_raw(Arc::clone(frame));
    let mut message = zmq_sys::zmq_msg_t::default();
    // SAFETY: `data` is valid for `len` bytes and is not written to, here or by libzmq, for as
    // long as the count behind `hint` stands, which only `release` gives back.
    let failed = unsafe {
        let hint = hint.cast_mut().cast::<c_void>();
        zmq_sys::zmq_msg_init_data(&raw mut message, data, len, Some(release), hint)
    };
    if failed != 0 {
        let error = last_error();
        // SAFETY: there is no message, so nobody else will give this count back.
        drop(unsafe { Arc::from_raw(hint) });
        return Err(error);
    }
    // SAFETY: a message and a live socket of this thread. A message that was sent is libzmq's.
    if unsafe { zmq_sys::zmq_msg_send(&raw mut message, socket.as_mut_ptr(), flags) } >= 0 {
        return Ok(());
    }
    let error = last_error();
    // SAFETY: it was not sent, so it is still a message of ours; this calls `release`.
    unsafe { zmq_sys::zmq_msg_close(&raw mut message) };
    Err(error)
}

/// Called once for each message of [`send_shared`], by whichever thread drops the last reference.
unsafe extern "C" fn release(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` came from `Arc::into_raw` of this type and is given back here alone. What it
    // owns may be dropped by any thread: `Shared` is Send and Sync.
    drop(unsafe { Arc::from_raw(hint.cast_const().cast::<Shared>()) });
}

/// Fails to compile if [`Shared`] must not be dropped by libzmq's threads.
const _: fn() = || {
    fn any_thread<T: Send + Sync + 'static>() {}
    any_thread::<Shared>();
};

/// ZeroMQ's descriptor for a socket: it becomes readable when something has changed.
#[derive(Debug)]
struct Descriptor(RawFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// A socket whose changes a tokio task can wait for.
pub struct Watched {
    // Before the socket, so that it is taken out of tokio's poll while the descriptor is open.
    ready: AsyncFd<Descriptor>,
    socket: Socket,
}

impl Watched {
    /// Registers a socket with the tokio runtime it is called in.
    pub fn new(socket: Socket) -> io::Result<Self> {
        let descriptor = Descriptor(socket.get_fd().map_err(io::Error::other)?);
        // SAFETY: the socket owns the descriptor, which is the same for all its life; it lives in
        // the same struct and is dropped after the registration.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { ready, socket })
    }

    /// The socket.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Waits until something may have changed. The news is taken: read until nothing is left.
    pub fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = ready!(self.ready.poll_read_ready(context));
        Poll::Ready(ready.map(|mut guard| guard.clear_ready()))
    }
}
