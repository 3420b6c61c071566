//! Identifiers: the broker's own, and those its peers choose.

use std::fmt;

use ulid::Ulid;

use super::rng::Rng;
use super::time::Time;

/// Longest id a peer may choose, in bytes.
pub const PEER_ID_BYTES: usize = 64;

/// One life of one connection. A slot may be used again, a generation never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// Dense index into the driver's and the broker's tables.
    pub slot: u32,
    /// Which life of that slot.
    pub generation: u32,
}

impl PeerId {
    /// Slots from here on are those of outlets, which are no connections.
    const OUTLETS: u32 = 1 << 31;

    /// What stands for an outlet where a connection would stand.
    #[must_use]
    pub const fn outlet(slot: u32, generation: u32) -> Self {
        Self { slot: Self::OUTLETS | slot, generation }
    }

    /// The slot of the outlet it stands for, if it does.
    #[must_use]
    pub const fn as_outlet(self) -> Option<u32> {
        if self.slot < Self::OUTLETS { None } else { Some(self.slot & !Self::OUTLETS) }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}-{}", self.slot, self.generation)
    }
}

/// A call in the broker, from its acceptance to its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// Dense index into the table of calls.
    pub slot: u32,
    /// Which call of that slot.
    pub serial: u32,
}

/// Somebody who waits for events, from the asking to the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaitId {
    /// Dense index into the table of waits.
    pub slot: u32,
    /// Which wait of that slot.
    pub serial: u32,
}

/// What a step of a graph, or a request, waits for: how it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobId {
    /// A call of a worker's function.
    Call(CallId),
    /// An event.
    Wait(WaitId),
    /// A message of a queue.
    Take(WaitId),
    /// What another broker says of a queue it keeps.
    Errand(WaitId),
}

/// Who wants an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A request of a peer, by its key in the table of requests.
    Request(u32),
    /// A step of a graph.
    Step {
        /// The graph's key.
        graph: u32,
        /// The step's index.
        step: u32,
    },
}

/// A graph in the broker, from its first part to the last part of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphId {
    /// Dense index into the table of graphs.
    pub slot: u32,
    /// Which graph of that slot.
    pub serial: u32,
}

/// One attempt to run one function on one worker: a ULID on the wire.
///
/// Aligned to 8 bytes, not to 16: what holds one is moved often, and is smaller for it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(Rust, packed(8))]
pub struct RunId(pub u128);

impl RunId {
    /// Reads the 26 characters of a ULID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Ulid::from_string(text).ok().map(|ulid| Self(ulid.0))
    }

    /// The 26 characters of the ULID, written into `buffer`.
    pub fn text(self, buffer: &mut [u8; 26]) -> &str {
        Ulid(self.0).array_to_str(buffer)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; 26]))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes ULIDs from given time and seeded randomness, increasing within one millisecond.
#[derive(Clone, Debug)]
pub struct Ids {
    rng: Rng,
    last: u128,
}

impl Ids {
    /// A source that yields the same ids for the same seed and times.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), last: 0 }
    }

    /// The next ULID: above every earlier one unless the wall clock went back.
    pub fn next(&mut self, now: Time) -> RunId {
        let ms = u128::from(now.wall_ms & 0xFFFF_FFFF_FFFF);
        if self.last >> 80 == ms {
            // Same millisecond: a random step up keeps order and hides how many were made.
            self.last += 1 + u128::from(self.rng.next_u64() >> 40);
        } else {
            let high = u128::from(self.rng.next_u64() >> 49) << 64;
            self.last = (ms << 80) | high | u128::from(self.rng.next_u64());
        }
        RunId(self.last)
    }

    /// The next ULID whose last 32 bits are `mark`: above every earlier one of a source that marks
    /// all of them, unless the wall clock went back.
    pub fn marked(&mut self, now: Time, mark: u32) -> RunId {
        let ms = u128::from(now.wall_ms & 0xFFFF_FFFF_FFFF);
        if self.last >> 80 == ms {
            self.last += (1 + u128::from(self.rng.next_u64() >> 48)) << 32;
        } else {
            self.last = (ms << 80) | u128::from(self.rng.next_u64() >> 17) << 32;
        }
        RunId(self.last | u128::from(mark))
    }
}

impl RunId {
    /// What the broker marked it with, if the broker made it.
    #[must_use]
    pub const fn mark(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_and_read_back() {
        let mut ids = Ids::new(7);
        let mut last = RunId(0);
        for step in 0..10_000_u64 {
            let id = ids.next(Time { mono_ns: 0, wall_ms: 1_700_000_000_000 + step / 100 });
            assert!(id > last);
            assert_eq!(RunId::parse(&id.to_string()), Some(id));
            last = id;
        }
    }

    #[test]
    fn marked_ids_increase_and_keep_their_mark() {
        let mut ids = Ids::new(7);
        let mut last = RunId(0);
        for step in 0..10_000_u64 {
            let mark = (step * 7_919) as u32 ^ u32::MAX;
            let time = Time { mono_ns: 0, wall_ms: 1_700_000_000_000 + step / 100 };
            let id = ids.marked(time, mark);
            assert!(id > last && id.mark() == mark);
            last = id;
        }
    }
}
