//! What the broker asks of its store and hears from it: plain data, in order.
//!
//! Everything is done in the order of asking, so a fetch sees what was put before it. A *line* is
//! what one group of one queue has; its messages stand in *lanes*, ordered by when they are due and
//! then by number. Nobody waits for the store: it tells how far it has come.

mod ledger;
#[cfg(test)]
pub(crate) mod shelf;

use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::base::Refusal;
use crate::ops::Event;
pub use ledger::{LOGS, Ledger};

/// Lanes from 0 hold what is ready, by falling priority: 9 minus the priority.
pub const LANES_READY: u8 = 10;
/// The lane of what is to wait, ordered by when it is due.
pub const LANE_DELAYED: u8 = 10;
/// The lane of dead letters, ordered by when they died.
pub const LANE_DEAD: u8 = 11;

/// The line that has no messages: what is known of it is the table of routes.
pub const ROUTES: u32 = 0;

/// Where a message stands: in this order it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The lane within it.
    pub lane: u8,
    /// Milliseconds since 1970 in the lanes that have an order of time, else 0.
    pub at_ms: u64,
    /// Unlike any other in the line, and rising.
    pub seq: u64,
}

/// What a queue keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Topic (empty where it was sent to a queue by name), payload, headers and ULID.
    pub event: Arc<Event>,
    /// What orders it among those with the same one.
    pub key: Option<SmolStr>,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// Deliveries that came to nothing.
    pub attempts: u32,
    /// After this it is worth nothing, milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Why and when it died, if it did.
    pub death: Option<Box<Death>>,
}

impl Message {
    /// Bytes it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        Self::bytes_of(&self.event, self.key.as_ref())
    }

    /// What one would hold, before it is made.
    #[must_use]
    pub fn bytes_of(event: &Event, key: Option<&SmolStr>) -> usize {
        event.bytes() + key.map_or(0, SmolStr::len) + size_of::<Self>()
    }
}

/// Why a message is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// `attempts`, `expired`, `rejected` or `full`.
    pub reason: SmolStr,
    /// What the consumer said.
    pub note: Box<str>,
}

/// What the broker wants of its store. All but `Fetch` are writes, and counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// There is this line, and this is to be known of it.
    Line {
        /// Which.
        line: u32,
        /// As it was given, so it is told after a restart.
        about: Bytes,
    },
    /// The line and all in it are gone.
    Drop {
        /// Which.
        line: u32,
    },
    /// A message has come, or has changed.
    Put {
        /// Where.
        place: Place,
        /// What.
        message: Arc<Message>,
    },
    /// A message has changed, and stands elsewhere in its line: as a whole, or not at all.
    Move {
        /// Where it was.
        from: Place,
        /// Where it is.
        to: Place,
        /// What it is now.
        message: Arc<Message>,
    },
    /// A message has gone.
    Delete {
        /// Where it was; it may have been damaged and set aside since.
        place: Place,
    },
    /// A lane is empty, but for some.
    Clear {
        /// Of which line.
        line: u32,
        /// Which.
        lane: u8,
        /// What stays in it.
        keep: Vec<(Place, Arc<Message>)>,
    },
    /// Some of a lane, to be told by `Fetched`.
    Fetch {
        /// Echoed.
        fetch: u32,
        /// Of which line.
        line: u32,
        /// Which.
        lane: u8,
        /// Only what stands behind this `at_ms` and `seq`.
        after: Option<(u64, u64)>,
        /// So many at most.
        count: u32,
        /// No more once they hold so much.
        bytes: u32,
    },
}

/// What the store tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It is open, again perhaps: this and nothing else is in it. Counting of writes begins anew.
    Opened {
        /// Every line, by number.
        lines: Vec<Line>,
    },
    /// So many of the writes since it was opened are safe from a loss of power.
    Synced {
        /// How many.
        writes: u64,
    },
    /// What a fetch found.
    Fetched {
        /// Echoed.
        fetch: u32,
        /// In order.
        messages: Vec<(Place, Arc<Message>)>,
        /// Whether the lane ends with them.
        end: bool,
        /// What could not be read and has been set aside.
        damaged: Vec<Place>,
    },
    /// There is little room left, for deletes and what moves: nothing new is to be asked for until
    /// there is `Room`, or it is `Opened` again.
    Full {
        /// Why.
        refusal: Refusal,
    },
    /// There is room again.
    Room,
    /// What was not synced may be lost, and nothing is written until it is `Opened` again.
    Failed {
        /// Why.
        refusal: Refusal,
    },
}

/// A line as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub line: u32,
    /// What was asked to be known of it.
    pub about: Bytes,
    /// Messages and their bytes in each lane, as [`Message::bytes`] counts them.
    pub lanes: [Load; LANE_DEAD as usize + 1],
    /// Above every number in it.
    pub next_seq: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}
