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

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}.{}", self.slot, self.generation)
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

/// A graph in the broker, from its first part to the last part of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphId {
    /// Dense index into the table of graphs.
    pub slot: u32,
    /// Which graph of that slot.
    pub serial: u32,
}

/// One attempt to run one function on one worker: a ULID on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}
