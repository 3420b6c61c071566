//! What is said over a link: numbered, kept until the other side has it, said again if need be.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Frame, Nonce, Output, Resume, SessionId, is_control, weight};
use crate::base::limits::{COALESCE_BYTES, LINK_CONTROL_BYTES, LINK_MESSAGE_BYTES};
use crate::base::{Out, Time};
use crate::federation::stream::{Received, Stream};
use crate::federation::{Life, LinkId, Message};

use smol_str::SmolStr;

const MS: u64 = 1_000_000;
/// Messages of one frame.
const MESSAGES_PER_FRAME: usize = 1_024;
/// Frames that one turn says over one link at most.
const FRAMES_PER_TURN: usize = 16;
/// Without anything to say, word of what has come waits so long,
const ACK_WAIT_NS: u64 = 20 * MS;
/// or until so many messages,
const ACK_MESSAGES: u64 = 256;
/// or bytes of them, have come.
const ACK_BYTES: usize = 1 << 20;
/// A cost is told anew when it has moved by a quarter, and by so much.
const COST_STEP_US: u32 = 500;
/// The way takes as long as the fastest of so many pings: a busy machine is no longer way.
const PINGS: usize = 8;

/// What has crossed a link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) resends: u64,
    pub(super) sessions: u64,
    pub(super) refused: u64,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// The session that it began with.
    pub(super) began: Nonce,
    pub(super) peer: Life,
    pub(super) cluster: SmolStr,
    pub(super) since_ms: u64,
    pub(super) stream: Stream<Arc<Message>>,
    /// Bytes of those kept that are never turned away.
    control_bytes: usize,
    /// Without a session: when it is given up.
    pub(super) until_ns: Option<u64>,
    /// When the other side is to be told what has come.
    ack_ns: Option<u64>,
    unacked: (u64, usize),
    pub(super) rtt_us: u32,
    /// How long the last pings took.
    pings_us: VecDeque<u32>,
    pub(super) cost_us: u32,
    pub(super) counts: Counts,
}

impl Link {
    pub(super) fn new(
        now: Time,
        id: LinkId,
        began: Nonce,
        (peer, cluster): (Life, SmolStr),
        rtt_us: u32,
        price_us: u32,
    ) -> Self {
        Self {
            id,
            began,
            peer,
            cluster,
            since_ms: now.wall_ms,
            stream: Stream::default(),
            control_bytes: 0,
            until_ns: None,
            ack_ns: None,
            unacked: (0, 0),
            rtt_us,
            pings_us: VecDeque::with_capacity(PINGS),
            cost_us: rtt_us.saturating_add(price_us),
            counts: Counts::default(),
        }
    }

    pub(super) const fn resume(&self) -> Resume {
        Resume { began: self.began, received: self.stream.received() }
    }

    /// Takes a message, or gives it back where too much waits.
    pub(super) fn push(
        &mut self,
        message: Message,
        limit_bytes: usize,
    ) -> Result<(), Box<Message>> {
        let bytes = weight(&message);
        let fits = if is_control(&message) {
            self.control_bytes += bytes;
            self.control_bytes <= LINK_CONTROL_BYTES
        } else {
            // What is larger than the limit goes alone, or never would.
            let waiting = self.stream.bytes() - self.control_bytes;
            bytes <= LINK_MESSAGE_BYTES && (waiting == 0 || waiting + bytes <= limit_bytes)
        };
        if !fits {
            self.counts.refused += 1;
            return Err(Box::new(message));
        }
        self.stream.push(Arc::new(message), bytes);
        Ok(())
    }

    /// Whether there is something to say.
    pub(super) fn has_news(&self) -> bool {
        self.stream.next_bytes().is_some()
    }

    /// When word of what has come is due.
    pub(super) const fn ack_at(&self) -> Option<u64> {
        self.ack_ns
    }

    /// Says what waits, and what has come where that is due.
    pub(super) fn flush(&mut self, now: Time, session: SessionId, out: &mut Out<Output>) {
        for _ in 0..FRAMES_PER_TURN {
            if !self.has_news() {
                break;
            }
            let frame = self.next_frame();
            out.push(Output::Say { session, frame });
        }
        if self.ack_ns.is_some_and(|at| at <= now.mono_ns) {
            let (first, ack) = (0, self.told_ack());
            let frame = Frame::Messages { first, ack, messages: Vec::new() };
            out.push(Output::Say { session, frame });
        }
    }

    fn next_frame(&mut self) -> Frame<Arc<Message>> {
        let (mut first, mut messages, mut bytes) = (0, Vec::new(), 0);
        while let Some(next) = self.stream.next_bytes() {
            if !messages.is_empty()
                && (bytes + next > COALESCE_BYTES || messages.len() == MESSAGES_PER_FRAME)
            {
                break;
            }
            let Some((number, message, size)) = self.stream.give() else { break };
            if messages.is_empty() {
                first = number;
            }
            bytes += size;
            messages.push(message.clone());
        }
        self.counts.messages_out += messages.len() as u64;
        self.counts.bytes_out += bytes as u64;
        Frame::Messages { first, ack: self.told_ack(), messages }
    }

    /// What has come, about to be told.
    const fn told_ack(&mut self) -> u64 {
        (self.ack_ns, self.unacked) = (None, (0, 0));
        self.stream.received()
    }

    /// The other side has everything up to a number. False where it cannot have that.
    pub(super) fn acked(&mut self, number: u64) -> bool {
        let control_bytes = &mut self.control_bytes;
        self.stream.ack(number, |message, bytes| {
            if is_control(&message) {
                *control_bytes -= bytes;
            }
        })
    }

    /// A new session carries it on.
    pub(super) fn resumed(&mut self) {
        self.until_ns = None;
        self.counts.resends += self.stream.rewind();
        self.ack_ns = None;
    }

    /// Takes a message, unless it has come before. An error where one before it is missing.
    pub(super) fn heard(
        &mut self,
        now: Time,
        number: u64,
        message: Message,
        out: &mut Out<Output>,
    ) -> Result<(), ()> {
        let bytes = weight(&message);
        match self.stream.receive(number) {
            Received::New => {}
            Received::Repeated => {
                // Its sender does not know that it came.
                self.ack_ns = Some(now.mono_ns);
                return Ok(());
            }
            Received::Gap => return Err(()),
        }
        self.counts.messages_in += 1;
        self.counts.bytes_in += bytes as u64;
        self.unacked = (self.unacked.0 + 1, self.unacked.1 + bytes);
        let now_ns = now.mono_ns;
        if self.unacked.0 >= ACK_MESSAGES || self.unacked.1 >= ACK_BYTES {
            self.ack_ns = Some(now_ns);
        } else if self.ack_ns.is_none() {
            self.ack_ns = Some(now_ns + ACK_WAIT_NS);
        }
        out.push(Output::Heard { link: self.id, message });
        Ok(())
    }

    /// A ping has come back. Tells the new cost if it is another one.
    pub(super) fn measured(&mut self, rtt_us: u32, price_us: u32, out: &mut Out<Output>) {
        if self.pings_us.len() == PINGS {
            self.pings_us.pop_front();
        }
        self.pings_us.push_back(rtt_us);
        self.rtt_us = self.pings_us.iter().copied().min().unwrap_or(rtt_us);
        let cost_us = self.rtt_us.saturating_add(price_us);
        let moved = cost_us.abs_diff(self.cost_us);
        if moved > self.cost_us / 4 && moved >= COST_STEP_US {
            self.cost_us = cost_us;
            out.push(Output::Cost { link: self.id, cost_us });
        }
    }
}
