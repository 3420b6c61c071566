//! Every bound in one place. Reaching one is a refusal on the wire, never a stall or growth.

use serde::Serialize;

/// The bounds a peer is told in `welcome`, with the values the broker runs under.
///
/// The fixed part of the wire ([`ENVELOPE_BYTES`] and its neighbours) is not configurable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Largest envelope (first frame after a REQ delimiter), bytes.
    pub envelope_bytes: usize,
    /// Largest attachment, bytes.
    pub attachment_bytes: usize,
    /// Attachments in one message.
    pub attachments: usize,
    /// Items in one batch.
    pub batch_items: usize,
    /// Nesting of arrays and objects.
    pub depth: usize,
    /// Requests in flight on one connection.
    pub calls_per_peer: usize,
    /// Calls and steps in flight in the whole broker.
    pub calls: usize,
    /// Largest credit window of a worker.
    pub credit: u32,
    /// Functions in one offer.
    pub functions_per_offer: usize,
    /// Locs in one offer or call.
    pub locs: usize,
    /// Steps in one graph.
    pub steps: usize,
    /// Bytes of graphs one connection may have in the broker.
    pub graph_bytes: usize,
    /// Graphs in flight on one connection.
    pub graphs_per_peer: usize,
    /// Steps of one graph that may be with workers, or wait for one, at once.
    pub graph_window: usize,
    /// Longest silence between the parts of a graph, milliseconds.
    pub graph_part_ms: u64,
    /// Longest timeout a caller may ask for, milliseconds.
    pub timeout_ms: u64,
    /// How often a peer should repeat its offer, milliseconds.
    pub refresh_ms: u64,
    /// Patterns one connection may hold.
    pub patterns_per_peer: usize,
    /// Patterns in the whole broker, in all spellings.
    pub patterns: usize,
    /// Queues in the whole broker.
    pub queues: usize,
    /// Groups of one queue.
    pub groups_per_queue: usize,
    /// Bytes of messages of queues that may be in consumers' hands at once.
    pub queue_memory_bytes: usize,
    /// Bytes that may wait for one stalled peer.
    pub outbox_bytes: usize,
    /// Connections known at once.
    pub peers: usize,
    /// Links to other brokers.
    pub links: usize,
    /// Bytes that may wait for one neighbour, or for its word that it has them.
    pub link_bytes: usize,
    /// How long each step of agreeing on a link may take, milliseconds.
    pub link_hello_ms: u64,
    /// How long a link that was lost waits to be resumed, milliseconds.
    pub link_resume_ms: u64,
}

/// Largest envelope, bytes.
pub const ENVELOPE_BYTES: usize = 4 << 20;
/// Largest attachment, bytes.
pub const ATTACHMENT_BYTES: usize = 16 << 20;
/// Largest single frame libzmq takes before it closes the connection, bytes.
pub const FRAME_BYTES: usize = 64 << 20;
/// A coalesced frame is closed once it holds this many bytes.
pub const COALESCE_BYTES: usize = 64 << 10;
/// A reply is cut into parts of about this many bytes of values.
pub const REPLY_PART_BYTES: usize = 1 << 20;
/// Longest function, step, loc or worker name, bytes.
pub const NAME_BYTES: usize = 255;
/// Longest error text that is passed on, bytes.
pub const ERROR_TEXT_BYTES: usize = 8 << 10;
/// Timeout of a request that names none, milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;
/// A reply names every step's outcome up to this many steps, beyond it those not done.
pub const STEPS_IN_REPLY: usize = 1_000;
/// Steps that one turn parses, links or answers at most, so that no input holds the core long.
pub const STEPS_PER_TURN: usize = 2_048;
/// Events that one turn hands on at most. What else a turn does is counted in these: each stands
/// for about a microsecond.
pub const DELIVERIES_PER_TURN: usize = 4_096;
/// Outlets of queues: each is a socket.
pub const OUTLETS: usize = 256;
/// Messages on their way through one outlet at most, beside what its sockets hold.
pub const OUTLET_WINDOW: u32 = 256;
/// Deliveries that wait for their turn, by what events have cost lately, beyond which nothing more
/// is taken from publishers.
pub const DELIVERIES_WAITING: usize = 1 << 20;
/// Bytes of patterns that wait for their turn, beyond which `subscribe` is refused.
pub const PATTERNS_WAITING_BYTES: usize = 64 << 20;
/// Entries of a log that one call of `mpreg.topic.history` looks at, fewer where its pattern takes
/// many steps.
pub const HISTORY_SCAN: usize = 32_768;
/// Most events that one call of `mpreg.topic.next` or `mpreg.topic.history` gives.
pub const EVENTS_PER_ANSWER: usize = 10_000;
/// Messages of one lane of a queue that are in memory at most; the rest is in the store alone.
/// A few in tests, so that they see both.
pub const FRONT_COUNT: usize = if cfg!(test) { 8 } else { 16_384 };
/// With fewer in memory, more are read from the store.
pub const FRONT_FEW: usize = FRONT_COUNT / 2;
/// Bytes of messages of all queues that are in memory although nobody has asked for them yet.
pub const FRONT_BYTES: u64 = 64 << 20;
/// Messages of one line that wait behind others of their keys, beyond which nothing more is taken.
pub const KEYS_PARKED: usize = 16_384;
/// Messages of one queue whose `dedup` is remembered; beyond it the oldest are forgotten early.
pub const DEDUP_ENTRIES: usize = 1 << 20;
/// Dead letters that are read from the store at once.
pub const DEAD_PER_FETCH: u64 = 1_024;
/// Most messages that one call of `mpreg.queue.peek` shows.
pub const MESSAGES_PER_ANSWER: usize = 1_000;
/// Most messages of queues that one graph takes. A few in tests, which then meet it.
pub const MESSAGES_PER_GRAPH: usize = if cfg!(test) { 4 } else { 1_000 };
/// Longest expression in CEL, bytes.
pub const EXPRESSION_BYTES: usize = 512;
/// Routes in the table. A few in tests, which then meet it.
pub const ROUTES: usize = if cfg!(test) { 8 } else { 1_000 };
/// Patterns of one route.
pub const ROUTE_PATTERNS: usize = 100;
/// Queues of one route.
pub const ROUTE_QUEUES: usize = 64;
/// Headers that one route sets.
pub const ROUTE_HEADERS: usize = 32;
/// Bytes of the table of routes: each change writes all of it.
pub const ROUTE_TABLE_BYTES: usize = 1 << 20;
/// What the expressions of all routes may cost for one message, in deliveries.
pub const ROUTE_COST: usize = 8_192;
/// The largest message that crosses a link, bytes: with what stands around it, it fits a frame.
pub const LINK_MESSAGE_BYTES: usize = FRAME_BYTES - (1 << 20);
/// Bytes of membership and catalogs that wait for one neighbour, beyond which the link is begun
/// anew.
pub const LINK_CONTROL_BYTES: usize = 16 << 20;
/// Addresses of one broker that a client may have.
pub const ADDRESSES: usize = 8;
/// Graphs that ended and can still be explained.
pub const RECENT_GRAPHS: usize = 256;
/// Most attempts `retry` may ask for.
pub const RETRY_TIMES: u32 = 100;

const _: () = assert!(ATTACHMENT_BYTES < FRAME_BYTES);
const _: () = assert!(ENVELOPE_BYTES < FRAME_BYTES);
const _: () = assert!(LINK_CONTROL_BYTES < LINK_MESSAGE_BYTES);
const _: () = assert!(REPLY_PART_BYTES * 2 <= ENVELOPE_BYTES);
const _: () = assert!(COALESCE_BYTES < REPLY_PART_BYTES);

impl Default for Limits {
    fn default() -> Self {
        Self {
            envelope_bytes: ENVELOPE_BYTES,
            attachment_bytes: ATTACHMENT_BYTES,
            attachments: 64,
            batch_items: 8_192,
            depth: 128,
            calls_per_peer: 65_536,
            calls: 1_000_000,
            credit: 65_536,
            functions_per_offer: 10_000,
            locs: 64,
            steps: 2_000_000,
            graph_bytes: 1 << 30,
            graphs_per_peer: 10_000,
            graph_window: 16_384,
            graph_part_ms: 30_000,
            timeout_ms: 7 * 24 * 3_600 * 1_000,
            refresh_ms: 2_000,
            patterns_per_peer: 2_000_000,
            patterns: 20_000_000,
            queues: 200_000,
            groups_per_queue: 64,
            queue_memory_bytes: 256 << 20,
            outbox_bytes: 16 << 20,
            peers: 65_536,
            links: 128,
            link_bytes: 16 << 20,
            link_hello_ms: 2_000,
            link_resume_ms: 500,
        }
    }
}
