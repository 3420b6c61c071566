//! What happens to the queues, and what they want done.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Declaration, Life, RouteSettings};
use crate::base::{Origin, PeerId, Refusal, RunId, WaitId};
use crate::ops::{Delivered, Durability, Event, SendOptions, Settle};
use crate::store::{Ask, Message, Told};
use crate::values::Body;

/// Who sends a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Sender {
    /// A request or step, which gets an outcome.
    Origin(Origin),
    /// A peer that wants no answer but a refusal.
    Peer {
        /// Which.
        peer: PeerId,
        /// What it calls the message.
        id: SmolStr,
    },
    /// Somebody who cannot be answered.
    Socket,
    /// A publisher, who is answered for the event already.
    Publisher,
}

/// What an outlet has come to.
#[derive(Debug)]
pub enum OutletNews {
    /// Its socket is bound, at this address, or why it cannot be.
    Bound(Result<SmolStr, Refusal>),
    /// Somebody takes what it sends, from now on.
    Flows,
    /// Nobody does, from now on.
    Stalled,
    /// So many messages of so many bytes have left.
    Sent {
        /// Messages.
        messages: u32,
        /// Their bytes.
        bytes: u64,
    },
}

/// What an outlet is to do.
#[derive(Debug)]
pub enum OutletTask {
    /// There is to be a PUSH socket at this address.
    Bind(SmolStr),
    /// A message is to leave. It is done with: nobody else gets it, now or after a restart.
    Push {
        /// The topic it was sent to, else the queue.
        name: SmolStr,
        /// What.
        message: Arc<Message>,
    },
    /// The socket is to go, with what it has not sent.
    Close,
}

/// Who has messages in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A connection, which says what became of each in time.
    Peer(PeerId),
    /// A graph, by its slot: all of them are settled when it ends.
    Graph(u32),
}

/// What happens to the queues.
#[derive(Debug)]
pub enum Input {
    /// The store has come further.
    Stored(Told),
    /// A queue is to be there.
    Declare {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
        /// How it is to be.
        declaration: Box<Declaration>,
    },
    /// A queue is to be gone, with all in it.
    Delete {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
    },
    /// What is ready or delayed in a queue is to be gone.
    Purge {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
        /// The dead letters instead.
        dead: bool,
    },
    /// The first messages of a queue are to be shown.
    Peek {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
        /// So many at most.
        count: u32,
        /// The dead letters instead.
        dead: bool,
    },
    /// The oldest dead letters of a queue are to be ready again.
    Redrive {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
        /// So many at most.
        count: u64,
    },
    /// A route is to be there.
    AddRoute {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
        /// How it is to be.
        settings: Box<RouteSettings>,
        /// Only if it has this version now; 0 if it is not there.
        if_version: Option<u64>,
    },
    /// A route is to be gone.
    RemoveRoute {
        /// Who asks.
        origin: Origin,
        /// Its name.
        name: SmolStr,
        /// Only if it has this version now.
        if_version: Option<u64>,
    },
    /// Every route is to be told.
    ListRoutes {
        /// Who asks.
        origin: Origin,
    },
    /// A message is sent to a queue, or to those bound to its topic.
    Send {
        /// By whom.
        by: Sender,
        /// The queue; none for those that are bound to the topic.
        queue: Option<SmolStr>,
        /// Queues that lead to other brokers where something is bound to the topic.
        also: Vec<SmolStr>,
        /// What; its ULID is given here unless it has one.
        event: Arc<Event>,
        /// When and in what order it is to be delivered.
        options: SendOptions,
    },
    /// A connection takes messages.
    Consume {
        /// Which.
        peer: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
        /// Of which queue.
        queue: SmolStr,
        /// Of which of its groups.
        group: Option<SmolStr>,
        /// How many at once.
        credit: u32,
    },
    /// A call wants one message.
    Next {
        /// Who asks.
        origin: Origin,
        /// Who is to have it in hand.
        holder: Holder,
        /// Of which queue.
        name: SmolStr,
        /// Of which of its groups.
        group: Option<SmolStr>,
        /// Until when, monotonic nanoseconds.
        deadline_ns: u64,
    },
    /// Such a call is given up.
    CancelWait(WaitId),
    /// A graph that has taken messages has ended.
    Ended {
        /// Its slot.
        graph: u32,
        /// Why it failed, if it did.
        failure: Option<Refusal>,
    },
    /// What became of messages in hand.
    Settle {
        /// In whose hands.
        peer: PeerId,
        /// Which, and what.
        settle: Settle,
    },
    /// A delivery never left for its consumer.
    Undelivered {
        /// Which.
        id: RunId,
        /// Why, where no other consumer would fare better.
        refusal: Option<Refusal>,
    },
    /// A connection takes nothing more for now.
    Stalled {
        /// Which.
        peer: PeerId,
    },
    /// It does again.
    Flows {
        /// Which.
        peer: PeerId,
    },
    /// There is news of an outlet.
    Outlet {
        /// Which.
        at: PeerId,
        /// What.
        news: OutletNews,
    },
    /// A connection's life has ended.
    Gone {
        /// Which.
        peer: PeerId,
    },
    /// Other brokers are to hear of the queues, and of the patterns that are bound.
    Share,
    /// A queue is kept by another broker: what is sent to it here is to go there.
    Lead {
        /// The queue.
        name: SmolStr,
        /// The broker.
        home: SmolStr,
    },
    /// The broker goes down now.
    End,
}

/// What the queues want done.
#[derive(Debug)]
pub enum Output {
    /// Something for the store.
    Store(Ask),
    /// A queue that is kept here, or is no longer.
    Kept {
        /// Its name.
        queue: SmolStr,
        /// Whether it is kept now.
        kept: bool,
    },
    /// A pattern that something is bound to, or nothing any more.
    Wants {
        /// As it is in the index.
        pattern: SmolStr,
        /// Whether it is bound now.
        wanted: bool,
    },
    /// What became of a message that was sent.
    Sent {
        /// By whom.
        by: Sender,
        /// The message, how safe it is, and how many queues have it.
        outcome: Result<(RunId, Durability, u32), Refusal>,
    },
    /// A message for a consumer.
    Deliver {
        /// Who.
        to: PeerId,
        /// What.
        delivered: Box<Delivered>,
    },
    /// The lease of a delivery has ended.
    Lapsed {
        /// In whose hands it was.
        to: PeerId,
        /// Which.
        id: RunId,
    },
    /// Something for an outlet.
    Outlet {
        /// Which.
        at: PeerId,
        /// What.
        task: OutletTask,
    },
    /// Answers a `consume`.
    Consumed {
        /// Who asked.
        to: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
        /// Queue and group.
        of: (SmolStr, Option<SmolStr>),
        /// The credit in force.
        outcome: Result<u32, Refusal>,
    },
    /// Answers what settled messages.
    Acked {
        /// Who said so.
        to: PeerId,
        /// Echoed.
        id: SmolStr,
        /// Of which it is so now, and which were not in hand; or why it is not.
        outcome: Result<(Vec<RunId>, Vec<RunId>), Refusal>,
    },
    /// The messages of a graph are settled, and that is safe; or why its end does not count.
    Settled {
        /// The graph's slot.
        graph: u32,
        /// Which of both.
        outcome: Result<(), Refusal>,
    },
    /// A call waits for a message, and can be given up.
    Begun {
        /// Which.
        origin: Origin,
        /// Its name from now on.
        wait: WaitId,
    },
    /// Something has happened, and somebody listens.
    Life(Box<Life>),
    /// The outcome of a call.
    Done {
        /// Which.
        origin: Origin,
        /// Its outcome.
        outcome: Result<Body, Refusal>,
    },
}
