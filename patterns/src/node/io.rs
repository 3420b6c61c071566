//! What happens to the broker, and what it wants done.

use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::base::{PeerId, Refusal, RunId};
use crate::federation::{self, LinkId, Message};
use crate::names::Key;
use crate::ops::{Event, Reply, Request};
use crate::queues::{OutletNews, OutletTask};
use crate::store::{Ask, Told};
use crate::topics::Broadcast;

/// What happens to the broker.
#[derive(Debug)]
pub enum Input {
    /// A peer asks something.
    Request {
        /// Who.
        peer: PeerId,
        /// What.
        request: Request,
    },
    /// A connection's life has ended; these runs never left for it.
    Gone {
        /// Whose.
        peer: PeerId,
        /// The runs.
        unsent: Vec<RunId>,
    },
    /// A run could not be handed to its worker's connection.
    Unsent {
        /// The run.
        run: RunId,
        /// Why, where another worker would fare no better.
        refusal: Option<Refusal>,
    },
    /// A PUB socket has published an event.
    Publish {
        /// What.
        event: Arc<Event>,
    },
    /// What came at an endpoint that cannot answer was not taken.
    Refused {
        /// Which endpoint.
        endpoint: &'static str,
        /// About what, as far as it could be read.
        topic: Option<SmolStr>,
        /// Why.
        refusal: Refusal,
    },
    /// Another SUB socket holds this text.
    Listen(Key),
    /// One SUB socket fewer holds it.
    Unlisten(Key),
    /// An event could not be handed to its peer's connection.
    Undelivered {
        /// Whose.
        peer: PeerId,
        /// The pattern, as the peer wrote it.
        pattern: SmolStr,
    },
    /// A PUSH socket has sent a message.
    Push {
        /// To the queue or topic that stands as its topic.
        event: Arc<Event>,
    },
    /// A message of a queue could not be handed to its consumer's connection.
    Returned {
        /// The delivery.
        id: RunId,
        /// Why, where another consumer would fare no better.
        refusal: Option<Refusal>,
    },
    /// The store tells something.
    Stored(Told),
    /// There is news of an outlet.
    Outlet {
        /// Which.
        at: PeerId,
        /// What.
        news: OutletNews,
    },
    /// A connection takes nothing more for now.
    Stalled {
        /// Whose.
        peer: PeerId,
    },
    /// It does again.
    Flows {
        /// Whose.
        peer: PeerId,
    },
    /// There is news of a link to another broker.
    Link(federation::Input),
    /// There is room among the peers for a broker that was reached.
    Joined {
        /// Its name.
        node: SmolStr,
        /// What it is among the peers.
        peer: PeerId,
    },
    /// An envelope for the broker a peer stands for; only while [`Node::has_room`].
    ///
    /// [`Node::has_room`]: super::Node::has_room
    Carry {
        /// The peer.
        peer: PeerId,
        /// What.
        envelope: Envelope,
    },
    /// The broker is going down.
    Drain,
    /// It goes down now: what is in flight gets its outcome.
    End,
}

/// Which links there are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTask {
    /// The broker whose door is at this address is to be a neighbour.
    Add {
        /// Of the door.
        address: SmolStr,
        /// What the link costs beside its time, microseconds.
        price_us: u32,
    },
    /// It need not be one any longer.
    Remove {
        /// Of the door.
        address: SmolStr,
    },
}

/// A message between brokers: what a peer says at the door, or what the door answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The first frame.
    pub body: Bytes,
    /// The attachments.
    pub frames: Vec<Bytes>,
}

/// What the broker wants done.
#[derive(Debug)]
pub enum Output {
    /// One message to one peer.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        reply: Reply,
    },
    /// An event for all SUB sockets that hold a text.
    Broadcast(Broadcast),
    /// Something for the store.
    Store(Ask),
    /// Something for a neighbour.
    Tell {
        /// Over which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// Something about which links there are to be.
    Link(LinkTask),
    /// A broker can be reached: make room for it among the peers.
    Reached {
        /// Its name.
        node: SmolStr,
    },
    /// It can be reached no longer: its peer is gone.
    Parted {
        /// Which peer stood for it.
        peer: PeerId,
    },
    /// Another broker has this one's name, and others reach that one instead.
    Taken {
        /// The name.
        node: SmolStr,
    },
    /// An envelope from another broker.
    Received {
        /// Which peer stands for it.
        peer: PeerId,
        /// What.
        envelope: Envelope,
    },
    /// Something for an outlet.
    Outlet {
        /// Which.
        at: PeerId,
        /// What.
        task: OutletTask,
    },
}

impl Output {
    /// The message to one peer, if it is one.
    #[must_use]
    pub fn sent(self) -> Option<(PeerId, Reply)> {
        match self {
            Self::Send { to, reply } => Some((to, reply)),
            _ => None,
        }
    }
}
