//! A plain DEALER that keeps calls in flight: the load generator of every peer without our library.
//!
//! It drains all that has come, then refills all that is free. That costs the least a message, so
//! that the process in the middle is what is measured, and libzmq gathers its writes by itself.

use zmq::{Context, DONTWAIT, Error, Message, Socket};

use crate::Outcome;
use crate::plan::Load;
use crate::tally::{Measure, Tally, Watch};

/// How long a peer listens before it looks at the clock again, milliseconds.
const LISTEN_MS: i32 = 200;

/// A DEALER that never drops (no high-water mark) and leaves nothing behind when it closes.
pub(crate) fn connect(context: &Context, at: &str) -> Outcome<Socket> {
    let socket = context.socket(zmq::DEALER)?;
    unbound(&socket)?;
    socket.set_rcvtimeo(LISTEN_MS)?;
    socket.connect(at)?;
    Ok(socket)
}

/// Lifts the high-water marks: with more calls in flight than these, a ROUTER drops in silence,
/// and a contender must not lose for that.
pub(crate) fn unbound(socket: &Socket) -> Outcome<()> {
    socket.set_linger(0)?;
    socket.set_sndhwm(0)?;
    Ok(socket.set_rcvhwm(0)?)
}

/// Receives into `message`; false when nothing came in time (or, with `DONTWAIT`, nothing waits).
pub(crate) fn receive(socket: &Socket, message: &mut Message, flags: i32) -> Outcome<bool> {
    match socket.recv(message, flags) {
        Ok(()) => Ok(true),
        Err(Error::EAGAIN | Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a message meant: which slot it answers, and whether well.
pub(crate) struct Answer {
    pub(crate) slot: usize,
    pub(crate) well: bool,
}

/// Keeps one call of each slot in flight through warm-up and window. `frames[slot]` is the slot's
/// call, ready to be sent; `read` says what came back.
pub(crate) fn keep_in_flight(
    socket: &Socket,
    frames: &[Vec<u8>],
    (load, watch): (Load, Watch),
    read: impl Fn(&[u8]) -> Option<Answer>,
) -> Outcome<Measure> {
    let mut tally = Tally::new(load, watch)?;
    let mut idle: Vec<usize> = (0..frames.len()).collect();
    let mut message = Message::new();
    loop {
        if tally.open()? {
            let now = tally.now();
            for slot in idle.drain(..) {
                socket.send(frames[slot].as_slice(), 0)?;
                tally.sent(slot, now);
            }
        } else if tally.settled() {
            return Ok(tally.finish());
        }
        let mut more = receive(socket, &mut message, 0)?;
        while more {
            if let Some(Answer { slot, well }) = read(&message) {
                tally.answered(slot, well);
                idle.push(slot);
            }
            more = idle.len() < frames.len() && receive(socket, &mut message, DONTWAIT)?;
        }
    }
}
