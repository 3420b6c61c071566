//! Error numbers, as `zmq_errno` gives them.

/// libzmq's own numbers start here, away from those of any system.
const BASE: i32 = 156_384_712;

/// Takes the numbers of the system under the same names.
macro_rules! of_the_system {
    ($($name:ident)*) => { $(
        #[doc = concat!("The system's ", stringify!($name), ".")]
        pub const $name: i32 = libc::$name;
    )* };
}

/// Numbers that libzmq uses where the system has none of that name. Linux has all of them; `zmq`
/// names them nevertheless.
macro_rules! alternatives {
    ($($name:ident = $offset:literal)*) => { $(
        #[doc = "Stands in where the system lacks the error."]
        pub const $name: i32 = BASE + $offset;
    )* };
}

of_the_system! {
    EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET
    EFAULT EHOSTUNREACH EINPROGRESS EINTR EINVAL EMFILE EMSGSIZE ENAMETOOLONG ENETDOWN ENETRESET
    ENETUNREACH ENOBUFS ENODEV ENOENT ENOMEM ENOTCONN ENOTSOCK ENOTSUP EPROTO EPROTONOSUPPORT
    ETIMEDOUT
}

alternatives! {
    ENOTSUP_ALT = 1
    EPROTONOSUPPORT_ALT = 2
    ENOBUFS_ALT = 3
    ENETDOWN_ALT = 4
    EADDRINUSE_ALT = 5
    EADDRNOTAVAIL_ALT = 6
    ECONNREFUSED_ALT = 7
    EINPROGRESS_ALT = 8
    ENOTSOCK_ALT = 9
    EMSGSIZE_ALT = 10
}

/// The socket is in a state that does not allow the call (a REQ that sends twice).
pub const EFSM: i32 = BASE + 51;
/// The transport does not suit the socket type.
pub const ENOCOMPATPROTO: i32 = BASE + 52;
/// The context was shut down.
pub const ETERM: i32 = BASE + 53;
/// No I/O thread is there for the task.
pub const EMTHREAD: i32 = BASE + 54;
