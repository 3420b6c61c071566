//! Waiting for several sockets at once, by the descriptors that ZeroMQ rings.
//!
//! `zmq::poll` asks every socket what has happened to it, before it waits and after, at some system
//! calls each. A descriptor rings when its socket has something to look at: so only those that rang
//! are looked at. A socket that was used for sending may have heard the ring without telling, which
//! is why such a one is asked once ([`Listens::has_input`]) before it is waited for.

use std::ffi::c_int;

use zmq::Socket;

use crate::raw;

/// What can be waited for.
pub trait Listens {
    /// Its socket.
    fn socket(&self) -> &Socket;

    /// For `zmq::poll`.
    fn poll_item(&self) -> zmq::PollItem<'_> {
        self.socket().as_poll_item(zmq::POLLIN)
    }

    /// Whether there is something to receive. If not, its descriptor rings when there is.
    fn has_input(&self) -> bool {
        self.socket().get_events().is_ok_and(|events| events.contains(zmq::POLLIN))
    }
}

impl Listens for Socket {
    fn socket(&self) -> &Socket {
        self
    }
}

/// Sockets to wait for.
#[derive(Default)]
pub struct Wait {
    descriptors: Vec<libc::pollfd>,
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wait").field("sockets", &self.descriptors.len()).finish()
    }
}

impl Wait {
    /// Waits for none, so far.
    pub fn clear(&mut self) {
        self.descriptors.clear();
    }

    /// Waits for one more. Its place is how many there were.
    pub fn add(&mut self, what: &impl Listens) {
        // A negative one is passed over.
        let fd = what.socket().get_fd().unwrap_or(-1);
        self.descriptors.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// Waits until one of them rings, for so long at most. A signal ends it too.
    pub fn wait(&mut self, ms: c_int) {
        raw::poll(&mut self.descriptors, ms);
    }

    /// Whether the one at a place has rung.
    #[must_use]
    pub fn rang(&self, place: usize) -> bool {
        self.descriptors.get(place).is_some_and(|of| of.revents != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What came before the waiting, while it was sent to, and meanwhile is told, and nothing else.
    #[test]
    fn a_socket_rings() {
        let context = zmq::Context::new();
        let [near, far, other] = [zmq::PAIR; 3].map(|kind| context.socket(kind).unwrap());
        near.bind("inproc://near").unwrap();
        far.connect("inproc://near").unwrap();
        other.bind("inproc://other").unwrap();
        let mut wait = Wait::default();
        let mut look = |ms| {
            wait.clear();
            wait.add(&near);
            wait.add(&other);
            wait.wait(ms);
            (wait.rang(0), wait.rang(1))
        };
        assert!(!near.has_input() && !other.has_input());
        assert_eq!(look(0), (false, false));
        far.send("a", 0).unwrap();
        assert_eq!(look(5_000), (true, false));
        assert!(near.has_input());
        near.recv_bytes(0).unwrap();
        assert!(!near.has_input());
        assert_eq!(look(0), (false, false));
        far.send("b", 0).unwrap();
        near.send("c", 0).unwrap();
        assert!(near.has_input() || look(0).0);
    }
}
