//! What waits for a peer that does not read.
//!
//! The driver sends without blocking. A frame that would block comes back here and waits, bounded
//! in bytes, with everything that follows it, until the peer speaks or a short deadline passes;
//! readiness is never polled for. A frame leaves in the order it came, once.

use std::collections::VecDeque;

use crate::base::{Deadlines, Map, Out, PeerId, RunId, Time, TimerId};

const FIRST_WAIT_MS: u64 = 1;
const LONGEST_WAIT_MS: u64 = 50;

/// Something to send to one peer: its size, and the runs in it, are all that matters here.
pub trait Parcel {
    /// Bytes it holds.
    fn bytes(&self) -> usize;
    /// Takes the runs in it out: the driver has failed to hand them over.
    fn take_runs(&mut self) -> Vec<RunId>;
}

/// What happens to the machine.
#[derive(Debug)]
pub enum Input<P> {
    /// Something is to be sent.
    Push {
        /// To whom.
        peer: PeerId,
        /// What.
        parcel: P,
    },
    /// The send that was asked for would block.
    Blocked {
        /// To whom.
        peer: PeerId,
        /// What came back.
        parcel: P,
    },
    /// The send that was asked for is done.
    Sent {
        /// To whom.
        peer: PeerId,
    },
    /// The peer has spoken, so it may be reading again.
    Spoke {
        /// Who.
        peer: PeerId,
    },
    /// The connection's life has ended.
    Gone {
        /// Whose.
        peer: PeerId,
    },
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Output<P> {
    /// Send this without blocking, and tell how it went before anything else is handed in: until
    /// then the parcel is in no line, and a `Gone` would not find its runs.
    Send {
        /// To whom.
        peer: PeerId,
        /// What.
        parcel: P,
    },
    /// Too much waits for this peer already: the parcel was not taken.
    Full {
        /// For whom it was.
        peer: PeerId,
        /// What was not taken.
        parcel: P,
    },
    /// The connection ended before these runs could be handed to it.
    Unsent {
        /// Whose.
        peer: PeerId,
        /// The runs.
        runs: Vec<RunId>,
    },
}

#[derive(Debug)]
struct Stalled<P> {
    peer: PeerId,
    line: VecDeque<P>,
    bytes: usize,
    wait_ms: u64,
    timer: Option<TimerId>,
}

/// What waits, by the slot of the peer. A peer that reads has no entry.
#[derive(Debug)]
pub struct Outbox<P> {
    stalled: Map<u32, Stalled<P>>,
    deadlines: Deadlines<u32>,
    limit_bytes: usize,
}

impl<P: Parcel> Outbox<P> {
    /// An empty outbox that keeps at most `limit_bytes` for each peer.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { stalled: Map::default(), deadlines: Deadlines::default(), limit_bytes }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input<P>, out: &mut Out<Output<P>>) {
        match input {
            Input::Push { peer, parcel } => self.push(peer, parcel, out),
            Input::Blocked { peer, parcel } => self.blocked(now, peer, parcel),
            Input::Sent { peer } => self.sent(peer, out),
            Input::Spoke { peer } => self.retry(peer.slot, out),
            Input::Gone { peer } => self.gone(peer, out),
        }
    }

    /// Tries again what has waited long enough.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output<P>>) {
        while let Some(slot) = self.deadlines.due(now.mono_ns) {
            if let Some(stalled) = self.stalled.get_mut(&slot) {
                stalled.timer = None;
            }
            self.retry(slot, out);
        }
    }

    /// When `tick` next has work, in monotonic nanoseconds.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        self.deadlines.next_ns()
    }

    /// Whether something waits for this peer. Checked on every send, so it is cheap when not.
    #[must_use]
    pub fn is_stalled(&self, peer: PeerId) -> bool {
        !self.stalled.is_empty() && self.stalled.contains_key(&peer.slot)
    }

    /// Bytes that wait for this peer. Cheap when nothing waits for anybody.
    #[must_use]
    pub fn bytes(&self, peer: PeerId) -> usize {
        if self.stalled.is_empty() {
            return 0;
        }
        self.stalled.get(&peer.slot).map_or(0, |stalled| stalled.bytes)
    }

    /// Peers that something waits for, and the bytes that wait in all.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.stalled.len(), self.stalled.values().map(|stalled| stalled.bytes).sum())
    }

    fn push(&mut self, peer: PeerId, parcel: P, out: &mut Out<Output<P>>) {
        let Some(stalled) = self.stalled.get_mut(&peer.slot) else {
            return out.push(Output::Send { peer, parcel });
        };
        if stalled.bytes + parcel.bytes() > self.limit_bytes {
            return out.push(Output::Full { peer, parcel });
        }
        stalled.bytes += parcel.bytes();
        stalled.line.push_back(parcel);
    }

    fn blocked(&mut self, now: Time, peer: PeerId, parcel: P) {
        let stalled = self.stalled.entry(peer.slot).or_insert_with(|| Stalled {
            peer,
            line: VecDeque::new(),
            bytes: 0,
            wait_ms: FIRST_WAIT_MS,
            timer: None,
        });
        stalled.bytes += parcel.bytes();
        stalled.line.push_front(parcel);
        if stalled.timer.is_none() {
            let due_ns = now.mono_ns + stalled.wait_ms * 1_000_000;
            stalled.timer = Some(self.deadlines.set(due_ns, peer.slot));
            stalled.wait_ms = (stalled.wait_ms * 2).min(LONGEST_WAIT_MS);
        }
    }

    fn sent(&mut self, peer: PeerId, out: &mut Out<Output<P>>) {
        if let Some(stalled) = self.stalled.get_mut(&peer.slot) {
            stalled.wait_ms = FIRST_WAIT_MS;
            self.retry(peer.slot, out);
        }
    }

    /// Offers the first parcel in line to the driver again.
    fn retry(&mut self, slot: u32, out: &mut Out<Output<P>>) {
        let Some(stalled) = self.stalled.get_mut(&slot) else { return };
        if let Some(timer) = stalled.timer.take() {
            self.deadlines.cancel(timer);
        }
        match stalled.line.pop_front() {
            Some(parcel) => {
                stalled.bytes -= parcel.bytes();
                out.push(Output::Send { peer: stalled.peer, parcel });
            }
            None => drop(self.stalled.remove(&slot)),
        }
    }

    fn gone(&mut self, peer: PeerId, out: &mut Out<Output<P>>) {
        let Some(stalled) = self.stalled.remove(&peer.slot) else { return };
        if let Some(timer) = stalled.timer {
            self.deadlines.cancel(timer);
        }
        let runs = stalled.line.into_iter().flat_map(|mut parcel| parcel.take_runs()).collect();
        out.push(Output::Unsent { peer, runs });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(&'static str);

    impl Parcel for Text {
        fn bytes(&self) -> usize {
            self.0.len()
        }

        fn take_runs(&mut self) -> Vec<RunId> {
            vec![RunId(self.0.len() as u128)]
        }
    }

    const PEER: PeerId = PeerId { slot: 3, generation: 1 };

    /// Runs a script against a peer that blocks while `reading` is false; returns what it got.
    fn run(script: &[&'static str]) -> Vec<String> {
        let mut outbox = Outbox::new(8);
        let (mut out, mut log) = (Out::new(), Vec::new());
        let (mut now, mut reading) = (Time::default(), true);
        for &line in script {
            match line {
                "stop" => reading = false,
                "read" => reading = true,
                "spoke" => outbox.handle(now, Input::Spoke { peer: PEER }, &mut out),
                "gone" => outbox.handle(now, Input::Gone { peer: PEER }, &mut out),
                "100ms" => {
                    now.mono_ns += 100_000_000;
                    outbox.tick(now, &mut out);
                }
                text => {
                    outbox.handle(now, Input::Push { peer: PEER, parcel: Text(text) }, &mut out);
                }
            }
            while !out.is_empty() {
                let outputs: Vec<_> = out.drain().collect();
                for output in outputs {
                    match output {
                        Output::Send { peer, parcel } if reading => {
                            log.push(format!("got {}", parcel.0));
                            outbox.handle(now, Input::Sent { peer }, &mut out);
                        }
                        Output::Send { peer, parcel } => {
                            outbox.handle(now, Input::Blocked { peer, parcel }, &mut out);
                        }
                        Output::Full { parcel, .. } => log.push(format!("full {}", parcel.0)),
                        Output::Unsent { runs, .. } => log.push(format!("unsent {}", runs.len())),
                    }
                }
            }
        }
        log
    }

    #[rstest::rstest]
    #[case::straight_through(&["a", "b"], &["got a", "got b"])]
    #[case::waits_for_the_deadline(&["stop", "a", "b", "read", "100ms"], &["got a", "got b"])]
    #[case::waits_for_the_peer(&["stop", "a", "b", "read", "spoke"], &["got a", "got b"])]
    #[case::keeps_order(&["stop", "a", "read", "b", "spoke", "c"], &["got a", "got b", "got c"])]
    #[case::is_bounded(&["stop", "aaaa", "bbbb", "c"], &["full c"])]
    #[case::names_what_never_left(&["stop", "a", "bb", "gone", "c", "read"], &["unsent 2"])]
    #[case::blocks_again(&["stop", "a", "100ms", "100ms", "read", "100ms"], &["got a"])]
    fn transcript(#[case] script: &[&'static str], #[case] expected: &[&str]) {
        assert_eq!(run(script), expected);
    }
}
