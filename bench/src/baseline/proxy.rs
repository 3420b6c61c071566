//! libzmq's own proxy: ROUTER in front, DEALER behind, no envelope at all. One frame goes in; the
//! ROUTER puts the client's identity before it, and the worker sends both back. For events it
//! stands between XSUB and XPUB, which passes on by the first bytes of the topic.
//!
//! It is the least a broker on ZeroMQ can do, in C++: it knows no names, no credit, no deaths.

use zmq::{Context, Message, Socket};

use crate::Outcome;
use crate::dealer::{Answer, connect, keep_in_flight, receive, unbound};
use crate::plan::Load;
use crate::process::say;
use crate::role::{Place, Ready};
use crate::tally::{Measure, Watch};

/// The proxy's process.
pub(crate) fn hub() -> Outcome<()> {
    let context = Context::new();
    let (front, clients) = bind(&context, zmq::ROUTER)?;
    let (back, workers) = bind(&context, zmq::DEALER)?;
    say(&Place::ends(clients, workers))?;
    Ok(zmq::proxy(&front, &back)?)
}

/// The proxy's process for events: PUBs in front, SUBs behind.
pub(crate) fn events_hub() -> Outcome<()> {
    let context = Context::new();
    let (front, publish) = bind(&context, zmq::XSUB)?;
    let (back, subscribe) = bind(&context, zmq::XPUB)?;
    say(&Place::ends(publish, subscribe))?;
    Ok(zmq::proxy(&front, &back)?)
}

fn bind(context: &Context, kind: zmq::SocketType) -> Outcome<(Socket, String)> {
    let socket = context.socket(kind)?;
    unbound(&socket)?;
    socket.bind("tcp://127.0.0.1:*")?;
    let at = socket.get_last_endpoint()?.map_err(|_| "an endpoint is text")?;
    Ok((socket, at))
}

/// Sends every message back, frame by frame, without a copy.
pub(crate) fn worker(at: &str) -> Outcome<()> {
    let context = Context::new();
    let socket = connect(&context, at)?;
    say(&Ready {})?;
    let mut message = Message::new();
    loop {
        while receive(&socket, &mut message, 0)? {
            let flags = if message.get_more() { zmq::SNDMORE } else { 0 };
            socket.send(std::mem::replace(&mut message, Message::new()), flags)?;
        }
    }
}

/// Keeps frames of `load.size` bytes in flight; the first four number the slot.
pub(crate) fn client(at: &str, load: Load, watch: Watch) -> Outcome<Measure> {
    let context = Context::new();
    let socket = connect(&context, at)?;
    let frames: Vec<Vec<u8>> = (0..load.in_flight).map(|slot| frame(slot, load.size)).collect();
    keep_in_flight(&socket, &frames, (load, watch), |bytes| {
        let slot = slot(bytes)?;
        Some(Answer { slot, well: bytes == frames[slot] })
    })
}

fn frame(slot: usize, size: usize) -> Vec<u8> {
    let mut frame = vec![b'x'; size.max(4)];
    frame[..4].copy_from_slice(&(slot as u32).to_le_bytes());
    frame
}

fn slot(frame: &[u8]) -> Option<usize> {
    frame.first_chunk().map(|head| u32::from_le_bytes(*head) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_numbers_its_slot() {
        let made = frame(1023, 64);
        assert_eq!((made.len(), slot(&made)), (64, Some(1023)));
        assert_eq!(slot(b"abc"), None);
    }
}
