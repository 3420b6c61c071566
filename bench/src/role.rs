//! What one process of a measurement is. A role travels to its process as one JSON argument.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::events::{self, EventKind};
use crate::peers::crowd::{self, Saying};
use crate::peers::{json, json_graph, keep, rust, rust_graph};
use crate::plan::Load;
use crate::tally::Watch;
use crate::workloads::patterns;
use crate::workloads::shape::Task;
use crate::{Outcome, baseline, broker, process};

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(crate) enum Role {
    /// What is measured, or what it is measured against: the process in the middle. The broker
    /// may keep things in the folder `data`.
    Hub { kind: HubKind, data: PathBuf },
    /// A broker that is linked to another one, whose door is at `to`.
    Far { to: String, data: PathBuf },
    /// Answers calls with their argument.
    Worker { kind: PeerKind, at: String, credit: u32 },
    /// Calls, measures, and says what it saw.
    Client { kind: PeerKind, at: String, load: Load, watch: Watch },
    /// Sends graphs (or the calls they are compared with), and says what it saw.
    Grapher { kind: PeerKind, at: String, task: Task, watch: Watch },
    /// Subscribes, `subscribers` times, tells how far it is, and says what it heard.
    Listener { kind: EventKind, at: String, pattern: String, subscribers: usize, step: u64 },
    /// Publishes, measures, and says what it saw.
    Publisher { kind: EventKind, at: String, reports: String, load: Load, watch: Watch },
    /// Sends to a queue, measures, and says what it saw.
    Producer { at: String, reports: String, load: Load, watch: Watch },
    /// Appends to LMDB and deletes from it, `batch` records at a time, and says what it saw.
    Lmdb { data: PathBuf, load: Load, batch: u64 },
    /// Connects so many times, and is idle.
    Crowd { at: String, count: usize, saying: Saying },
    /// Declares so many queues.
    Declarer { at: String, queues: usize },
    /// Publishes so many events of 64 B that are kept.
    Keeper { at: String, events: usize },
    /// Holds patterns that no topic of the bench matches.
    Holder { at: String, patterns: u64 },
    /// Has an index of patterns, or what it is measured beside.
    Patterns { part: patterns::Part },
}

/// The processes that can stand in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HubKind {
    /// libzmq's `zmq_proxy` between ROUTER and DEALER.
    ZmqProxy,
    /// A ROUTER that gives back what it gets.
    ZmqRouter,
    /// libzmq's `zmq_proxy` between XSUB and XPUB.
    ZmqEvents,
    /// A WebSocket server that routes JSON text, as the predecessor did.
    WebsocketRelay,
    /// A WebSocket server that passes everything on to everybody.
    WebsocketFanOut,
    /// mpreg.
    Broker,
    /// The same, with its sockets in a folder.
    BrokerIpc,
    /// The same, whose clients and workers come over WebSocket.
    BrokerWeb,
    /// The same, with a log of `kept.#`.
    BrokerKept,
    /// Two brokers with a link between them: clients at the one, workers at the other.
    OneHop,
}

/// How clients and workers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PeerKind {
    /// One ZeroMQ frame of bytes, for `zmq_proxy`.
    Frame,
    /// One JSON text a message over WebSocket, at the relay or the broker.
    Websocket,
    /// One JSON envelope a frame over a plain DEALER, as any ZeroMQ binding would do it.
    Json,
    /// JSON over a plain DEALER that asked for batches.
    JsonBatch,
    /// Our Rust library: bincode batches.
    Rust,
}

/// A hub's first line: where its peers connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// For clients.
    pub(crate) clients: String,
    /// For workers.
    pub(crate) workers: String,
    /// For publishers that need no library of ours.
    pub(crate) publish: String,
    /// For such subscribers.
    pub(crate) subscribe: String,
}

impl Place {
    /// One address for all.
    pub(crate) fn door(address: String) -> Self {
        Self::ends(address.clone(), address)
    }

    /// One address for who sends, another for who gets.
    pub(crate) fn ends(front: String, back: String) -> Self {
        Self { clients: front.clone(), workers: back.clone(), publish: front, subscribe: back }
    }
}

/// A worker's first line: calls can be sent to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {}

/// Is the role until it is done or the parent ends.
pub(crate) fn play(role: &str) -> Outcome<()> {
    process::end_with_parent();
    match serde_json::from_str(role)? {
        Role::Hub { kind: HubKind::ZmqProxy, .. } => baseline::proxy::hub(),
        Role::Hub { kind: HubKind::ZmqRouter, .. } => baseline::router::hub(),
        Role::Hub { kind: HubKind::ZmqEvents, .. } => baseline::proxy::events_hub(),
        Role::Hub { kind: HubKind::WebsocketRelay, .. } => baseline::relay::hub(),
        Role::Hub { kind: HubKind::WebsocketFanOut, .. } => baseline::fan_out::hub(),
        Role::Hub { kind, data } => broker::hub(kind, data, None),
        Role::Far { to, data } => broker::hub(HubKind::OneHop, data, Some(to)),
        Role::Worker { kind, at, credit } => match kind {
            PeerKind::Frame => baseline::proxy::worker(&at),
            PeerKind::Websocket => baseline::websocket::worker(&at, credit),
            PeerKind::Json => json::worker(&at, credit, false),
            PeerKind::JsonBatch => json::worker(&at, credit, true),
            PeerKind::Rust => rust::worker(&at, credit),
        },
        Role::Client { kind, at, load, watch } => process::say(&match kind {
            PeerKind::Frame => baseline::proxy::client(&at, load, watch),
            PeerKind::Websocket => baseline::websocket::client(&at, load, watch),
            PeerKind::Json => json::client(&at, load, watch),
            PeerKind::JsonBatch => Err("no JSON client asks for batches".into()),
            PeerKind::Rust => rust::client(&at, load, watch),
        }?),
        Role::Grapher { kind, at, task, watch } => process::say(&match kind {
            PeerKind::Json | PeerKind::JsonBatch => json_graph::client(&at, task, watch),
            PeerKind::Rust => rust_graph::client(&at, task, watch),
            PeerKind::Frame | PeerKind::Websocket => Err("the baselines know no graphs".into()),
        }?),
        Role::Listener { kind, at, pattern, subscribers, step } => {
            events::ears::listen(kind, &at, &pattern, subscribers, step)
        }
        Role::Publisher { kind, at, reports, load, watch } => {
            process::say(&events::publish(kind, (&at, &reports), load, watch)?)
        }
        Role::Producer { at, reports, load, watch } => {
            process::say(&events::queue::producer(&at, &reports, load, watch)?)
        }
        Role::Lmdb { data, load, batch } => process::say(&baseline::lmdb::run(&data, load, batch)?),
        Role::Crowd { at, count, saying } => crowd::gather(&at, count, saying),
        Role::Declarer { at, queues } => keep::declare(&at, queues),
        Role::Keeper { at, events } => keep::publish(&at, events),
        Role::Holder { at, patterns } => events::holder::hold(&at, patterns),
        Role::Patterns { part } => patterns::play(&part),
    }
}
