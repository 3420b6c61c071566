//! A plain DEALER that keeps calls in flight: the load generator of every peer without our library.
//!
//! It drains all that has come, then refills all that is free. That costs the least a message, so
//! that the process in the middle is what is measured, and libzmq gathers its writes by itself.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use zmq::{Context, DONTWAIT, Error, Message, PollItem, Socket};

use crate::Outcome;
use crate::pacer;
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

/// Waits for a message or the next beat; says not to wait for more.
fn beat(socket: &Socket, mut pacer: &UnixStream) -> Outcome<i32> {
    let items =
        &mut [socket.as_poll_item(zmq::POLLIN), PollItem::from_fd(pacer.as_raw_fd(), zmq::POLLIN)];
    zmq::poll(items, i64::from(LISTEN_MS))?;
    // All beats that have come are one look at the clock.
    let _ = pacer.read(&mut [0; 256]);
    Ok(DONTWAIT)
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
    let pacer = load.rate.map(|_| pacer::start()).transpose()?;
    let mut idle: Vec<usize> = (0..frames.len()).collect();
    let mut message = Message::new();
    loop {
        if tally.open()? {
            let now = tally.now();
            while let Some(&slot) = idle.last()
                && let Some(due) = tally.due(now)
            {
                idle.pop();
                socket.send(frames[slot].as_slice(), 0)?;
                tally.sent(slot, due);
            }
        } else if tally.settled() {
            return Ok(tally.finish());
        }
        let wait = pacer.as_ref().map_or(Ok(0), |pacer| beat(socket, pacer))?;
        let mut more = receive(socket, &mut message, wait)?;
        while more {
            if let Some(Answer { slot, well }) = read(&message) {
                tally.answered(slot, well);
                idle.push(slot);
            }
            more = idle.len() < frames.len() && receive(socket, &mut message, DONTWAIT)?;
        }
    }
}
