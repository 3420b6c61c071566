//! Links between peers and the broker: they delay, block, break in silence, and come back.
//!
//! A link has a life a connection. What travels in an earlier life than the present one is lost.

use mpreg_patterns::base::{Rng, RunId};
use mpreg_patterns::ops::Reply;
use mpreg_patterns::outbox;

/// Messages libzmq takes for a peer that does not read, before it says "would block".
const HIGH_WATER: usize = 2;
/// Messages arrive at multiples of this.
pub(crate) const STEP_NS: u64 = 500_000;

/// What the broker hands over as one frame.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) replies: Vec<Reply>,
}

impl outbox::Parcel for Parcel {
    fn bytes(&self) -> usize {
        self.replies.iter().map(reply_bytes).sum()
    }

    fn take_runs(&mut self) -> Vec<RunId> {
        let runs = self.replies.iter().filter_map(|reply| match reply {
            Reply::Run(run) => Some(run.id),
            _ => None,
        });
        let runs = runs.collect();
        self.replies.retain(|reply| !matches!(reply, Reply::Run(_)));
        runs
    }
}

pub(crate) fn reply_bytes(reply: &Reply) -> usize {
    let value = match reply {
        Reply::Run(run) => run.args.as_ref().map_or(0, |args| args.bytes.len()),
        Reply::Result { body, .. } => body.value.bytes.len(),
        Reply::Deliver(told) => told.message.event.payload.bytes.len(),
        Reply::Event(told) => told.event.topic.len() + told.event.payload.bytes.len(),
        _ => 0,
    };
    64 + value
}

/// How a send went.
#[derive(Debug)]
pub(crate) enum Sent {
    Done { arrives_ns: Option<u64> },
    Blocked(Parcel),
    Unreachable(Parcel),
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// Nothing passes, and neither end knows.
    Silent,
    /// Both ends know, or will when they next use it.
    Down,
}

/// The connection of one peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) life: u32,
    pub(crate) state: State,
    /// Whether the peer reads what has arrived.
    pub(crate) reading: bool,
    /// Handed over and not yet read.
    pub(crate) in_pipe: usize,
    last_up_ns: u64,
    last_down_ns: u64,
}

impl Link {
    pub(crate) const fn new() -> Self {
        let (last_up_ns, last_down_ns) = (0, 0);
        Self { life: 0, state: State::Down, reading: true, in_pipe: 0, last_up_ns, last_down_ns }
    }

    /// Begins another life.
    pub(crate) fn connect(&mut self) {
        *self = Self { life: self.life + 1, state: State::Up, ..Self::new() };
    }

    /// When a message to the broker arrives; none if it is lost.
    pub(crate) fn up(&mut self, now_ns: u64, rng: &mut Rng) -> Option<u64> {
        if self.state != State::Up {
            return None;
        }
        self.last_up_ns = self.last_up_ns.max(arrival_ns(now_ns, rng));
        Some(self.last_up_ns)
    }

    /// Takes a frame for the peer.
    pub(crate) fn down(
        &mut self,
        now_ns: u64,
        rng: &mut Rng,
        parcel: Parcel,
    ) -> (Sent, Option<Parcel>) {
        if self.state == State::Down {
            return (Sent::Unreachable(parcel), None);
        }
        if self.in_pipe >= HIGH_WATER && (!self.reading || self.state == State::Silent) {
            return (Sent::Blocked(parcel), None);
        }
        self.in_pipe += 1;
        if self.state == State::Silent {
            return (Sent::Done { arrives_ns: None }, None);
        }
        self.last_down_ns = self.last_down_ns.max(arrival_ns(now_ns, rng));
        (Sent::Done { arrives_ns: Some(self.last_down_ns) }, Some(parcel))
    }
}

/// When what is sent now arrives: soon, at times much later. Only at whole steps, so that much
/// arrives together, and the broker has read all of it before it goes on with anything else.
fn arrival_ns(now_ns: u64, rng: &mut Rng) -> u64 {
    let steps = if rng.below(50) == 0 { rng.below(200) } else { rng.below(4) };
    (now_ns + 1).next_multiple_of(STEP_NS) + STEP_NS * steps as u64
}
