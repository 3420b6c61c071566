//! The sockets of topics: what PUB sockets publish, what SUB sockets hold, what they get.

use mpreg_patterns::base::{PeerId, Time};
use mpreg_patterns::node;
use mpreg_patterns::ops::Delivery;
use mpreg_patterns::topics::Broadcast;
use mpreg_patterns::values::json;
use mpreg_sockets::inlet::Received;
use mpreg_sockets::subscribe::Heard;

use super::{BYTES_PER_TURN, Core, MESSAGES_PER_TURN};

impl Core {
    /// Reads what PUB sockets have published, up to a bound, and no more than can be handed on.
    /// True when more may be waiting.
    pub(super) fn read_publishers(&mut self, now: Time) -> bool {
        let mut bytes = 0;
        for _ in 0..MESSAGES_PER_TURN {
            if self.node.is_behind() {
                return true;
            }
            if self.node.awaits_disk() {
                // The store rings when it has come further.
                return false;
            }
            let published = match self.publish.receive() {
                Ok(Some(published)) => published,
                Ok(None) => return false,
                Err(error) => {
                    log::error!("reading the publish endpoint failed: {error}");
                    return false;
                }
            };
            bytes += self.publish.bytes() as u64;
            self.traffic.published_in += 1;
            let input = match published {
                Received::Event(event) => node::Input::Publish { event },
                Received::Refused { topic, refusal } => {
                    node::Input::Refused { endpoint: "publish", topic, refusal }
                }
            };
            self.node.handle(now, input, &mut self.out);
            self.encode(now);
            if bytes > BYTES_PER_TURN {
                break;
            }
        }
        true
    }

    /// Reads what SUB sockets want to hear, up to a bound. True when more may be waiting.
    pub(super) fn read_subscribers(&mut self, now: Time) -> bool {
        for _ in 0..MESSAGES_PER_TURN {
            let input = match self.subscribe.receive() {
                Ok(Some(Heard::Subscribed(key))) => node::Input::Listen(key),
                Ok(Some(Heard::Unsubscribed(key))) => {
                    self.ended[0] += 1;
                    node::Input::Unlisten(key)
                }
                Ok(Some(Heard::Refused { text, refusal })) => {
                    node::Input::Refused { endpoint: "subscribe", topic: Some(text), refusal }
                }
                Ok(Some(Heard::Nothing)) => continue,
                Ok(None) => return false,
                Err(error) => {
                    log::error!("reading the subscribe endpoint failed: {error}");
                    return false;
                }
            };
            self.node.handle(now, input, &mut self.out);
            self.encode(now);
        }
        true
    }

    /// Sends an event to the SUB sockets that hold a text.
    pub(super) fn broadcast(&mut self, told: &Broadcast) {
        self.stirred.subscribe = true;
        let headers = told.seq.map(|seq| headers(told, seq));
        let (topic, payload) = (&told.event.topic, &told.event.payload.bytes);
        match self.subscribe.publish(&told.text, topic, payload, headers.as_deref()) {
            Ok(()) => self.traffic.broadcasts_out += 1,
            Err(zmq::Error::EAGAIN) => self.traffic.broadcasts_dropped += 1,
            Err(error) => {
                self.traffic.broadcasts_dropped += 1;
                log::error!("sending to the holders of {} failed: {error}", told.text);
            }
        }
    }

    /// An event that its peer's connection does not take.
    pub(super) fn undelivered(&mut self, now: Time, to: PeerId, delivery: &Delivery) {
        let pattern = delivery.pattern.clone();
        self.node.handle(now, node::Input::Undelivered { peer: to, pattern }, &mut self.out);
    }
}

/// The frame of headers: the publisher's, with the sequence number behind them.
fn headers(told: &Broadcast, seq: u64) -> Vec<u8> {
    let own = told.event.headers.as_ref().map_or(&b"{}"[..], |headers| &headers.bytes);
    let mut frame = own[..own.len() - 1].to_vec();
    if frame.len() > 1 {
        frame.push(b',');
    }
    frame.extend_from_slice(b"\"seq\":");
    json::put_u64(&mut frame, seq);
    frame.push(b'}');
    frame
}
