//! libzmq 4.3.5, built from source, and the declarations that use it.
//!
//! This crate stands in for the published `zmq-sys` 0.12 under the crate `zmq` 0.10, through
//! `[patch.crates-io]`. It exists because the published one always builds libzmq 4.3.4
//!
//! * without CURVE, so without encryption;
//! * with an empty platform configuration (no eventfd, TCP keepalive a silent no-op, descriptors
//!   that leak into child processes);
//! * without the draft API (ROUTER_NOTIFY, batch sizes, peer state);
//! * with an XPUB that, in manual mode, uses a pipe after it was freed. Any client triggers it by
//!   subscribing and leaving before the broker has read the subscription.
//!
//! Here CURVE (libsodium) and the draft API are on, Linux is configured, and the XPUB is
//! corrected; `build.rs` tells how. The declarations are those that `zmq` 0.10 names, and a few
//! that it lacks. Names and meanings are those of `zmq.h`, whose manual is at
//! <https://libzmq.readthedocs.io>. Constants are `u32`, as `zmq` expects them; functions take
//! `c_int`, so a constant is cast where it is used.
//!
//! Nothing here is safe or convenient. Use `zmq`, and this only for what `zmq` does not offer.

// Linked for its static library, which libzmq calls; no name of it is used here.
use libsodium_sys as _;

use libc::{c_char, c_int, c_long, c_short, c_void, size_t};

mod constants;
pub mod errno;

pub use constants::*;

/// A file descriptor, as `zmq_poll` takes it and ZMQ_FD gives it.
pub type RawFd = c_int;

/// Frees the data of a message made by [`zmq_msg_init_data`]: called with data and hint, once,
/// possibly on a thread of libzmq.
#[expect(non_camel_case_types, reason = "the name in zmq.h")]
pub type zmq_free_fn = Option<unsafe extern "C" fn(data: *mut c_void, hint: *mut c_void)>;

/// One frame. Opaque; valid between one of the `zmq_msg_init` functions and [`zmq_msg_close`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct zmq_msg_t {
    opaque: [u8; 64],
}

impl Default for zmq_msg_t {
    /// Zeroes: storage for a message, not yet a message.
    fn default() -> Self {
        Self { opaque: [0; 64] }
    }
}

/// One thing that [`zmq_poll`] waits for: a socket or, if that is null, a descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct zmq_pollitem_t {
    /// The socket, or null.
    pub socket: *mut c_void,
    /// The descriptor, if `socket` is null.
    pub fd: RawFd,
    /// What to wait for: ZMQ_POLLIN and others.
    pub events: c_short,
    /// What happened.
    pub revents: c_short,
}

// Library.
unsafe extern "C" {
    /// The error of the last failed call on this thread.
    pub fn zmq_errno() -> c_int;
    /// The text of an error, static.
    pub fn zmq_strerror(errnum: c_int) -> *const c_char;
    /// The version of the library.
    pub fn zmq_version(major: *mut c_int, minor: *mut c_int, patch: *mut c_int);
    /// 1 if the library has the capability: "ipc", "curve", "draft" and others.
    pub fn zmq_has(capability: *const c_char) -> c_int;
}

// Contexts. All of these may be called from any thread.
unsafe extern "C" {
    /// A new context; ended by [`zmq_ctx_term`].
    pub fn zmq_ctx_new() -> *mut c_void;
    /// Blocks until every socket of the context is closed and its linger is over, then frees it.
    pub fn zmq_ctx_term(context: *mut c_void) -> c_int;
    /// Lets every blocked and later call on the context's sockets fail with ETERM.
    pub fn zmq_ctx_shutdown(context: *mut c_void) -> c_int;
    /// Sets an option; most count only before the first socket.
    pub fn zmq_ctx_set(context: *mut c_void, option: c_int, value: c_int) -> c_int;
    /// Reads an option; -1 on error.
    pub fn zmq_ctx_get(context: *mut c_void, option: c_int) -> c_int;
    /// Sets an option that is not a number (draft): ZMQ_THREAD_NAME_PREFIX as text.
    pub fn zmq_ctx_set_ext(
        context: *mut c_void,
        option: c_int,
        value: *const c_void,
        value_len: size_t,
    ) -> c_int;
}

// Messages. A message belongs to one thread at a time.
unsafe extern "C" {
    /// An empty message.
    pub fn zmq_msg_init(msg: *mut zmq_msg_t) -> c_int;
    /// A message of `size` bytes, not initialised.
    pub fn zmq_msg_init_size(msg: *mut zmq_msg_t, size: size_t) -> c_int;
    /// A message that owns `data` without copying it. `free` (if any) is called when the last
    /// copy is gone.
    pub fn zmq_msg_init_data(
        msg: *mut zmq_msg_t,
        data: *mut c_void,
        size: size_t,
        free: zmq_free_fn,
        hint: *mut c_void,
    ) -> c_int;
    /// Sends; on success the message is empty and the library owns what it held.
    pub fn zmq_msg_send(msg: *mut zmq_msg_t, socket: *mut c_void, flags: c_int) -> c_int;
    /// Receives into `msg`, releasing what it held.
    pub fn zmq_msg_recv(msg: *mut zmq_msg_t, socket: *mut c_void, flags: c_int) -> c_int;
    /// Releases what the message holds.
    pub fn zmq_msg_close(msg: *mut zmq_msg_t) -> c_int;
    /// Moves `src` into `dest`, releasing what that held; `src` becomes empty.
    pub fn zmq_msg_move(dest: *mut zmq_msg_t, src: *mut zmq_msg_t) -> c_int;
    /// Makes `dest` another reference to the content of `src`, releasing what it held. Contents
    /// of up to 33 bytes are copied, larger ones counted; neither may be written afterwards.
    pub fn zmq_msg_copy(dest: *mut zmq_msg_t, src: *mut zmq_msg_t) -> c_int;
    /// Where the content begins.
    pub fn zmq_msg_data(msg: *mut zmq_msg_t) -> *mut c_void;
    /// The length of the content.
    pub fn zmq_msg_size(msg: *const zmq_msg_t) -> size_t;
    /// 1 if another frame of the same message follows.
    pub fn zmq_msg_more(msg: *const zmq_msg_t) -> c_int;
    /// A property: ZMQ_MORE, ZMQ_SRCFD, ZMQ_SHARED; -1 if the message has none such.
    pub fn zmq_msg_get(msg: *const zmq_msg_t, property: c_int) -> c_int;
    /// A text property of a received message ("Peer-Address", "Socket-Type", "User-Id"), or null.
    /// Lives as long as the message.
    pub fn zmq_msg_gets(msg: *const zmq_msg_t, property: *const c_char) -> *const c_char;
}

// Sockets. A socket belongs to one thread at a time.
unsafe extern "C" {
    /// A new socket of the given type, or null.
    pub fn zmq_socket(context: *mut c_void, socket_type: c_int) -> *mut c_void;
    /// Closes the socket; unsent messages linger as ZMQ_LINGER says.
    pub fn zmq_close(socket: *mut c_void) -> c_int;
    /// Sets an option.
    pub fn zmq_setsockopt(
        socket: *mut c_void,
        option: c_int,
        value: *const c_void,
        value_len: size_t,
    ) -> c_int;
    /// Reads an option into `value`; `value_len` is room on entry and length on return.
    pub fn zmq_getsockopt(
        socket: *mut c_void,
        option: c_int,
        value: *mut c_void,
        value_len: *mut size_t,
    ) -> c_int;
    /// Accepts connections at an address.
    pub fn zmq_bind(socket: *mut c_void, address: *const c_char) -> c_int;
    /// Connects to an address, now or as soon as it answers.
    pub fn zmq_connect(socket: *mut c_void, address: *const c_char) -> c_int;
    /// Ends a [`zmq_bind`] and the connections that came through it.
    pub fn zmq_unbind(socket: *mut c_void, address: *const c_char) -> c_int;
    /// Ends a [`zmq_connect`].
    pub fn zmq_disconnect(socket: *mut c_void, address: *const c_char) -> c_int;
    /// Sends a copy of `len` bytes as one frame; returns how many.
    pub fn zmq_send(socket: *mut c_void, data: *const c_void, len: size_t, flags: c_int) -> c_int;
    /// Receives one frame into `len` bytes and returns its length, even if it was cut.
    pub fn zmq_recv(socket: *mut c_void, data: *mut c_void, len: size_t, flags: c_int) -> c_int;
    /// Reports events of the socket's connections on a PAIR at an inproc address.
    pub fn zmq_socket_monitor(socket: *mut c_void, address: *const c_char, events: c_int) -> c_int;
    /// For a ROUTER (draft): ZMQ_POLLOUT if the peer's queue has room, 0 if it is full, -1 with
    /// EHOSTUNREACH if there is no such peer.
    pub fn zmq_socket_get_peer_state(
        socket: *mut c_void,
        routing_id: *const c_void,
        routing_id_len: size_t,
    ) -> c_int;
}

// Waiting and forwarding.
unsafe extern "C" {
    /// Waits until something happened or `timeout` milliseconds passed (-1: for ever); returns
    /// how many items have events.
    pub fn zmq_poll(items: *mut zmq_pollitem_t, count: c_int, timeout: c_long) -> c_int;
    /// Forwards between two sockets until the context ends; `capture` (or null) gets copies.
    pub fn zmq_proxy(frontend: *mut c_void, backend: *mut c_void, capture: *mut c_void) -> c_int;
    /// The same, obeying PAUSE, RESUME, TERMINATE and STATISTICS from `control`.
    pub fn zmq_proxy_steerable(
        frontend: *mut c_void,
        backend: *mut c_void,
        capture: *mut c_void,
        control: *mut c_void,
    ) -> c_int;
}

// Keys.
unsafe extern "C" {
    /// Encodes `size` bytes (a multiple of 4) as text with a final zero; null on error.
    pub fn zmq_z85_encode(dest: *mut c_char, data: *const u8, size: size_t) -> *mut c_char;
    /// Decodes text (a multiple of 5 characters); null on error.
    pub fn zmq_z85_decode(dest: *mut u8, text: *const c_char) -> *mut u8;
    /// A new CURVE key pair, each 40 characters and a final zero.
    pub fn zmq_curve_keypair(public_key: *mut c_char, secret_key: *mut c_char) -> c_int;
    /// The public key of a secret key, both as text.
    pub fn zmq_curve_public(public_key: *mut c_char, secret_key: *const c_char) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_the_one_this_crate_promises() {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: three places to write to, and texts that end in zero.
        unsafe {
            zmq_version(&mut major, &mut minor, &mut patch);
            assert_eq!(zmq_has(c"curve".as_ptr()), 1);
            assert_eq!(zmq_has(c"draft".as_ptr()), 1);
        }
        assert_eq!((major, minor, patch), (4, 3, 5));
    }

    #[test]
    fn a_message_is_as_large_as_the_library_says() {
        // SAFETY: one context, ended by the thread that made it.
        let size = unsafe {
            let context = zmq_ctx_new();
            let size = zmq_ctx_get(context, ZMQ_MSG_T_SIZE as c_int);
            assert_eq!(zmq_ctx_term(context), 0);
            size
        };
        assert_eq!(size as usize, size_of::<zmq_msg_t>());
    }
}
