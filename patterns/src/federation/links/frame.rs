//! What two brokers say to agree on a link, and over it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::federation::{Cargo, Delta, Fact, Key, Known, Life, Message};

/// The protocol of links that this version speaks.
pub const PROTOCOL: u32 = 1;

/// What names one session of a link, of which nobody else knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub u64);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text for people, a number for machines: JSON cannot hold all numbers of 64 bits.
impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        let text = SmolStr::deserialize(deserializer)?;
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| text.len() == 16);
        number.map(Self).ok_or_else(|| serde::de::Error::custom("a nonce has 16 hex digits"))
    }
}

/// A broker asks another one for a session, at its bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The protocol it speaks.
    pub protocol: u32,
    /// Who asks.
    #[serde(flatten)]
    pub life: Life,
    /// The cluster it belongs to.
    pub cluster: SmolStr,
    /// The last session it has had with this broker: for the asker it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Nonce>,
    /// The host under which it reaches this broker.
    #[serde(default)]
    pub host: SmolStr,
}

/// The answer: where the session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The protocol it speaks.
    pub protocol: u32,
    /// Who answers.
    #[serde(flatten)]
    pub life: Life,
    /// The cluster it belongs to.
    pub cluster: SmolStr,
    /// What names the session.
    pub nonce: Nonce,
    /// Where a PAIR waits for one that connects.
    pub endpoint: SmolStr,
}

/// What goes over the PAIR of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame<M = Message> {
    /// The first word of either side: that of the side which connected comes first.
    Hello(Hello),
    /// Messages, or only word of what has come.
    Messages {
        /// The number of the first of them; they follow each other.
        first: u64,
        /// Everything up to this number has come from the other side.
        ack: u64,
        /// What is said.
        messages: Vec<M>,
    },
    /// Asks for the same number back.
    Ping(u64),
    /// The number of a ping.
    Pong(u64),
    /// The last word: the link is over.
    Bye(Bye),
}

/// The first word of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The session, as agreed.
    pub nonce: Nonce,
    /// Who speaks.
    pub life: Life,
    /// The link that is to go on, or in the answer, that goes on. Without it a new one begins.
    pub resume: Option<Resume>,
}

/// A link that outlives its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Its first session.
    pub began: Nonce,
    /// Everything up to this number has come.
    pub received: u64,
}

/// Why a broker ends a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bye {
    /// It is going down.
    Draining,
    /// It was told to.
    Removed,
    /// More waited for the other side than may.
    Overrun,
}

impl Bye {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "the other broker is going down",
            Self::Removed => "the other broker has removed the link",
            Self::Overrun => "more waited for this broker than may",
        }
    }
}

/// More than a length, a tag and a few numbers take.
const FEW_BYTES: usize = 48;

/// At least as many bytes as the message takes in a frame.
#[must_use]
pub fn weight(message: &Message) -> usize {
    match message {
        Message::Digest(known) => {
            let of = |known: &Known| FEW_BYTES + known.life.node.len();
            FEW_BYTES + known.iter().map(of).sum::<usize>()
        }
        Message::Delta(delta) => delta_weight(delta),
        Message::Packet(packet) => {
            let path = packet.path.iter().map(|node| FEW_BYTES + node.len()).sum::<usize>();
            let cargo = match &packet.cargo {
                Cargo::Envelope { body, frames, .. } => {
                    body.len() + frames.iter().map(|frame| FEW_BYTES + frame.len()).sum::<usize>()
                }
                Cargo::Ack { .. } => 0,
            };
            let ends = packet.from.node.len() + packet.to.node.len();
            3 * FEW_BYTES + ends + path + cargo
        }
        Message::Spread(spread) => {
            let names = spread.path.iter().chain(spread.to.iter().map(|(node, _)| node));
            let names = names.map(|node| FEW_BYTES + node.len()).sum::<usize>();
            let headers = spread.headers.as_ref().map_or(0, |headers| headers.len());
            let ends = spread.from.node.len() + spread.topic.len();
            3 * FEW_BYTES + ends + names + spread.payload.len() + headers
        }
    }
}

fn delta_weight(delta: &Delta) -> usize {
    let key = |key: &Key| match key {
        Key::About | Key::Load => 0,
        Key::Link(name)
        | Key::Queue(name)
        | Key::Interest(name)
        | Key::Bound(name)
        | Key::Rule(name) => name.len(),
        Key::Function { name, version, locs } => {
            let locs = locs.iter().map(|loc| 8 + loc.len()).sum::<usize>();
            name.len() + version.len() + locs
        }
    };
    let fact = |fact: &Option<Fact>| fact.as_ref().map_or(0, Fact::bytes);
    let changes = delta.changes.iter().map(|(k, f)| 2 * FEW_BYTES + key(k) + fact(f));
    2 * FEW_BYTES + delta.life.node.len() + changes.sum::<usize>()
}

/// Whether it is small and the link's own: it is never turned away.
#[must_use]
pub const fn is_control(message: &Message) -> bool {
    matches!(message, Message::Digest(_) | Message::Delta(_))
}
