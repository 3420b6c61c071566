//! A DEALER, which a task watches by its descriptor.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use mpreg_patterns::base::limits::FRAME_BYTES;
use mpreg_patterns::values::Frames;
use zmq::{DONTWAIT, Message, SNDMORE, Socket};

use super::{HEARTBEAT, Heard, LINGER, LONGEST_RECONNECT, RECONNECT, SILENCE};
use crate::raw::{self, Watched};
use crate::{envelope, router};

/// What a DEALER hands out when its connection was lost; ZeroMQ goes on to connect anew.
const LOST: &[u8] = b"\0lost";
const SOCKET_BATCH_BYTES: i32 = 64 << 10;

pub(in crate::client) struct ZeroMq {
    watched: Watched,
    message: Message,
}

impl ZeroMq {
    pub(super) fn connect(address: &str) -> Result<Self, zmq::Error> {
        let ms = |time: Duration| time.as_millis() as i32;
        let mut socket = zmq::Context::new().socket(zmq::DEALER)?;
        socket.set_linger(ms(LINGER))?;
        socket.set_heartbeat_ivl(ms(HEARTBEAT))?;
        socket.set_heartbeat_timeout(ms(SILENCE))?;
        socket.set_reconnect_ivl(ms(RECONNECT))?;
        socket.set_reconnect_ivl_max(ms(LONGEST_RECONNECT))?;
        socket.set_maxmsgsize(FRAME_BYTES as i64)?;
        socket.set_ipv6(address.starts_with("tcp://["))?;
        raw::set_lost_notice(&mut socket, LOST)?;
        raw::set_batch_size(&mut socket, SOCKET_BATCH_BYTES)?;
        socket.connect(address)?;
        let watched = Watched::new(socket).map_err(|_| zmq::Error::EMFILE)?;
        Ok(Self { watched, message: Message::new() })
    }

    pub(super) fn receive(&mut self) -> Option<Heard> {
        self.watched.socket().recv(&mut self.message, DONTWAIT).ok()?;
        let body = std::mem::replace(&mut self.message, Message::new());
        let mut more = body.get_more();
        if !more && &*body == LOST {
            return Some(Heard::Lost);
        }
        let mut frames = Frames::new();
        while more {
            let mut frame = Message::new();
            if self.watched.socket().recv(&mut frame, DONTWAIT).is_err() {
                break;
            }
            more = frame.get_more();
            frames.push(router::into_bytes(frame));
        }
        Some(Heard::Message(router::into_bytes(body), frames))
    }

    pub(super) fn send(&self, message: &envelope::Message) -> bool {
        send(self.watched.socket(), message).is_ok()
    }

    /// Sending may have noticed what came in meanwhile, and the descriptor does not tell of it
    /// again.
    pub(super) fn is_ready(&self, wants_room: bool) -> bool {
        let events = self.watched.socket().get_events().unwrap_or(zmq::PollEvents::empty());
        events.contains(zmq::POLLIN) || events.contains(zmq::POLLOUT) && wants_room
    }

    pub(super) fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.poll_changed(context)
    }
}

/// Sends one message, whole or not at all.
fn send(socket: &Socket, message: &envelope::Message) -> Result<(), zmq::Error> {
    let more = |last: bool| if last { DONTWAIT } else { DONTWAIT | SNDMORE };
    socket.send(&message.body[..], more(message.frames.is_empty()))?;
    for (index, frame) in message.frames.iter().enumerate() {
        socket.send(&frame[..], more(index + 1 == message.frames.len()))?;
    }
    Ok(())
}
