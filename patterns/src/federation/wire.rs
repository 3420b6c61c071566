//! What brokers tell each other over a link: plain data, which the sockets crate puts into bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// One life of one broker. A later life of the same broker has a larger epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// The broker's name, of which there must be one in all brokers that reach each other.
    pub node: SmolStr,
    /// Microseconds since 1970 when the life began.
    pub epoch: u64,
}

/// What neighbours tell each other: each message arrives once and in order while the link lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// How much of each broker's catalog the sender knows.
    Digest(Vec<Known>),
    /// News of one broker's catalog.
    Delta(Delta),
    /// Something for one broker, here or further on.
    Packet(Packet),
    /// An event, for brokers where it is wanted.
    Spread(Spread),
}

/// An event on its way to every broker where it is wanted. It crosses a link once, for all that
/// are behind it; what a link has no room for is lost, and the gap is seen where it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Where it was published.
    pub from: Life,
    /// Who wants it, and how many events were for them until now, this one included.
    pub to: Vec<(SmolStr, u64)>,
    /// The brokers it has passed, the first included: it is never sent to one of them.
    pub path: Vec<SmolStr>,
    /// A name that is not a broker's own.
    pub topic: SmolStr,
    /// The kind of the payload: 0 bytes, 1 JSON.
    pub kind: u8,
    /// As it was published.
    pub payload: Bytes,
    /// A map, as compact JSON text.
    pub headers: Option<Bytes>,
    /// The message's ULID.
    pub message: u128,
}

/// How much of a broker's catalog is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Whose.
    pub life: Life,
    /// Everything up to this version.
    pub version: u64,
}

/// What changed in one broker's catalog between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Whose.
    pub life: Life,
    /// For those who know this version; 0 is everything there is, whatever is known.
    pub from: u64,
    /// What they know then.
    pub to: u64,
    /// What is there now of what changed; no fact where it is gone.
    pub changes: Vec<(Key, Option<Fact>)>,
}

/// What a broker says about itself, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// Who it is.
    About,
    /// A link to a neighbour, by the neighbour's name.
    Link(SmolStr),
    /// How busy its workers are.
    Load,
    /// A function that its workers with these locs offer.
    Function {
        /// Its name.
        name: SmolStr,
        /// Semver.
        version: SmolStr,
        /// Sorted, without repeats.
        locs: Vec<SmolStr>,
    },
    /// A queue that is kept there.
    Queue(SmolStr),
    /// A pattern of topics that somebody there wants.
    Interest(SmolStr),
    /// A pattern of topics that queues or routes there are bound to.
    Bound(SmolStr),
    /// What it gives to a neighbour and takes from it, by its name; `*` is every other.
    Rule(SmolStr),
}

/// What is said under a [`Key`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// Who it is.
    About {
        /// The cluster it belongs to.
        cluster: SmolStr,
        /// The version of its program.
        version: SmolStr,
        /// The address of its door.
        door: SmolStr,
    },
    /// What the link costs.
    Link {
        /// In which life the neighbour is.
        epoch: u64,
        /// Microseconds there and back, and the price that its owner put on it.
        cost_us: u32,
    },
    /// How busy its workers are.
    Load {
        /// Runs in hand or in line.
        in_flight: u32,
        /// What all its workers would take at once.
        credit: u32,
    },
    /// What is known of a function.
    Function {
        /// Whether running it twice is as good as once.
        idempotent: bool,
    },
    /// The queue exists.
    Queue,
    /// The pattern is wanted.
    Interest,
    /// What is sent to such topics is taken there.
    Bound,
    /// Which names cross the link: patterns, with `!` before those that take out what they match.
    Rule {
        /// Names of this side that the neighbour, and who is behind it, may use.
        export: Vec<SmolStr>,
        /// Names of theirs that this side uses.
        import: Vec<SmolStr>,
    },
}

impl Fact {
    /// About how much room it takes in a frame.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::About { cluster, version, door } => cluster.len() + version.len() + door.len(),
            Self::Rule { export, import } => {
                export.iter().chain(import).map(|text| text.len() + 8).sum()
            }
            _ => 0,
        }
    }
}

/// Something for one broker, whatever is between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// Who sent it.
    pub from: Life,
    /// Whom it is for; an earlier or later life of that broker drops it.
    pub to: Life,
    /// The brokers it has passed, its sender first: it is never sent to one of them.
    pub path: Vec<SmolStr>,
    /// What is in it.
    pub cargo: Cargo,
}

/// What a packet brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cargo {
    /// A message as a peer sends it to the door, or as the door answers.
    Envelope {
        /// Which conversation of the two it belongs to.
        talk: Talk,
        /// Counts what the sender has said in it, from 1.
        seq: u64,
        /// The first frame.
        body: Bytes,
        /// The attachments.
        frames: Vec<Bytes>,
    },
    /// Every envelope up to a number has come.
    Ack {
        /// Which conversation of the two it belongs to.
        talk: Talk,
        /// The number.
        seq: u64,
    },
}

/// Which conversation of two brokers something belongs to. Each side counts those it has begun:
/// one that was lost is over for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// The sender's number.
    pub mine: u64,
    /// The receiver's, 0 where the sender has not heard of it yet.
    pub yours: u64,
}
