//! The lane between handles and the task that owns the socket.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mpreg_patterns::base::RunId;
use mpreg_patterns::base::limits::{COALESCE_BYTES, DEFAULT_TIMEOUT_MS};
use mpreg_patterns::ops::{Call, GraphPart, GraphReply, ProgressReply, Request};
use mpreg_patterns::values::{Body, Value};
use serde::Serialize;
use smol_str::{SmolStr, ToSmolStr};
use tokio::sync::{Notify, mpsc, oneshot};

use super::Error;
use super::consumers::Consumer;
use super::producer::Confirms;
use super::queues::Receipt;
use super::routes::{Route, Window};
use crate::envelope::{Batch, Encoding};

/// Bytes of events on their way out, beyond which whoever tells of more waits.
const ROOM_BYTES: usize = 1 << 20;
/// How long past its own deadline a request waits for the broker to say so.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What came for a request.
#[derive(Debug)]
pub(super) enum Answer {
    Body(Body),
    Graph(Box<GraphReply>),
    Welcome(Value),
    /// An event was taken.
    Published(RunId),
    /// A message was taken.
    Sent(Receipt),
    /// Whether what was settled was in hand.
    Acked(bool),
    /// `pong`, `offered`, `subscribed`, `consumed` or `bye`.
    Done,
}

/// A request that waits for its outcome.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
    pub(super) progress: Option<mpsc::UnboundedSender<ProgressReply>>,
    pub(super) due: Instant,
    /// The parts of a graph's reply that are here.
    pub(super) parts: Option<Box<GraphReply>>,
    /// A call that may be made twice, if the connection is lost.
    pub(super) again: Option<Box<Call>>,
}

/// How the connection to one address does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathHealth {
    /// The address.
    pub address: String,
    /// Whether requests go there.
    pub in_use: bool,
    /// Its circuit breaker: `closed` (it answers), `half_open` (it is being tried) or `open` (it
    /// failed, and is left alone for a while).
    pub state: &'static str,
    /// 0 to 100, from the three below.
    pub score: f64,
    /// How many of the questions whether the broker is there were answered, 0 to 1; the last count
    /// most.
    pub success: f64,
    /// How long the answers took, milliseconds.
    pub latency_ms: Option<f64>,
    /// Where the latency goes: `better`, `steady` or `worse`.
    pub trend: &'static str,
    /// What a web server at the address said when it did not let the client in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// What a handle asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    /// Send these, and give the outcome of `key` to somebody.
    Ask { key: u64, requests: Vec<Request>, pending: Pending },
    /// The same for a call, which nothing else shares.
    AskCall { key: u64, call: Box<Call>, pending: Pending },
    /// The common case of one request, without a list.
    AskOne { key: u64, request: Request, pending: Pending },
    /// Send this; no outcome is awaited.
    Tell(Request),
    /// Nobody waits for this any more.
    Forget { key: u64 },
    /// Send this batch of events; no outcome is awaited.
    Events(Bytes),
    /// Ask for the events of a subscription, and tell somebody when the broker has it.
    Subscribe { id: u64, route: Box<Route>, pending: Pending },
    /// Nobody takes its events any more.
    Unsubscribe { id: u64 },
    /// Tell the broker what was handled.
    Acknowledge,
    /// Ask for the messages of a queue, and tell somebody when the broker agrees.
    Consume { consumer: Box<Consumer>, pending: Pending },
    /// Nobody takes its messages any more.
    Leave { id: u64 },
    /// Tell a producer what becomes of its messages.
    Produce { id: u64, confirms: Arc<Confirms> },
    /// It wants to hear no more.
    Retire { id: u64 },
    /// These deliveries are done.
    Ack(Vec<RunId>),
}

/// What waits for the driver, in order.
#[derive(Debug)]
struct Queue {
    commands: Vec<Command>,
    /// Events that came behind the last command.
    events: Batch,
    /// Bytes of events that no socket has yet.
    bytes: usize,
    /// Deliveries that are done since the driver's last turn.
    acks: Vec<RunId>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.events.is_empty() && self.acks.is_empty()
    }

    fn close(&mut self) {
        self.commands.extend(self.events.finish().map(Command::Events));
    }
}

/// Commands on their way to the driver.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    wake: Notify,
    room: Notify,
    keys: AtomicU64,
    closed: AtomicBool,
    pub(super) window: Window,
    /// Events that nobody waited for and the broker did not take.
    pub(super) refused: AtomicU64,
    paths: Mutex<Vec<PathHealth>>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                commands: Vec::new(),
                events: Batch::new(Encoding::Bincode),
                bytes: 0,
                acks: Vec::new(),
            }),
            wake: Notify::new(),
            room: Notify::new(),
            keys: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            window: Window::default(),
            refused: AtomicU64::new(0),
            paths: Mutex::default(),
        }
    }

    pub(super) fn set_paths(&self, paths: Vec<PathHealth>) {
        *self.paths.lock().unwrap_or_else(PoisonError::into_inner) = paths;
    }

    pub(super) fn paths(&self) -> Vec<PathHealth> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, command: Command) {
        let mut queue = self.queue();
        let first = queue.is_empty();
        queue.close();
        queue.commands.push(command);
        drop(queue);
        // Whoever finds the lane empty wakes the driver; it takes all that came since.
        if first {
            self.wake.notify_one();
        }
    }

    /// Says that a delivery is done, together with all that are before the driver's next turn.
    pub(super) fn ack(&self, delivery: RunId) {
        let mut queue = self.queue();
        let first = queue.is_empty();
        queue.acks.push(delivery);
        drop(queue);
        if first {
            self.wake.notify_one();
        }
    }

    /// Sends an event that nobody waits for the outcome of, once there is room for it.
    ///
    /// It is encoded here, into the batch that the driver takes next: there is no step in between.
    pub(super) async fn tell(&self, event: &Request) -> Result<(), Error> {
        // Somebody who tells of many at once leaves the others on this thread their turn.
        tokio::task::consume_budget().await;
        while !self.try_tell(event)? {
            let room = self.room.notified();
            if self.try_tell(event)? {
                break;
            }
            room.await;
        }
        Ok(())
    }

    fn try_tell(&self, event: &Request) -> Result<bool, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let mut queue = self.queue();
        if queue.bytes >= ROOM_BYTES {
            return Ok(false);
        }
        let (first, before) = (queue.is_empty(), queue.events.bytes());
        let pushed = queue.events.push(event);
        pushed.map_err(|fault| Error::Refused(Box::new(fault.refusal())))?;
        queue.bytes += queue.events.bytes() - before;
        if queue.events.bytes() >= COALESCE_BYTES {
            queue.close();
        }
        drop(queue);
        if first {
            self.wake.notify_one();
        }
        Ok(true)
    }

    /// A socket has taken so many bytes of events.
    pub(super) fn sent(&self, bytes: usize) {
        if bytes > 0 {
            let mut queue = self.queue();
            queue.bytes = queue.bytes.saturating_sub(bytes);
            drop(queue);
            self.room.notify_waiters();
        }
    }

    /// Swaps what waits for an empty list.
    pub(super) fn take(&self, into: &mut Vec<Command>) {
        let mut queue = self.queue();
        queue.close();
        if !queue.acks.is_empty() {
            let acks = std::mem::take(&mut queue.acks);
            queue.commands.push(Command::Ack(acks));
        }
        std::mem::swap(&mut queue.commands, into);
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Ends the driver once it has sent what waits.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
        self.room.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn key(&self) -> u64 {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }
}

/// Tells the driver when the caller has dropped its future.
struct Guard<'a> {
    lane: &'a Lane,
    key: u64,
    armed: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.lane.push(Command::Forget { key: self.key });
        }
    }
}

async fn wait(
    lane: &Lane,
    key: u64,
    reply: oneshot::Receiver<Result<Answer, Error>>,
) -> Result<Answer, Error> {
    let mut guard = Guard { lane, key, armed: true };
    let answer = reply.await.unwrap_or(Err(Error::Closed));
    guard.armed = false;
    answer
}

pub(super) fn pending(
    patience: Duration,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
) -> (Pending, oneshot::Receiver<Result<Answer, Error>>) {
    let (reply, receiver) = oneshot::channel();
    let due = Instant::now() + patience;
    (Pending { reply, progress, due, parts: None, again: None }, receiver)
}

/// Sends one request and waits for its outcome.
pub(super) async fn ask(
    lane: &Lane,
    patience: Duration,
    request: impl FnOnce(SmolStr) -> Request,
) -> Result<Answer, Error> {
    let key = lane.key();
    let (pending, receiver) = pending(patience, None);
    lane.push(Command::AskOne { key, request: request(key.to_smolstr()), pending });
    wait(lane, key, receiver).await
}

/// Sends a call and waits for its outcome.
pub(super) async fn ask_call(
    lane: &Lane,
    mut call: Box<Call>,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
) -> Result<Answer, Error> {
    let key = lane.key();
    call.id = key.to_smolstr();
    let timeout_ms = call.options.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    let (pending, receiver) = pending(Duration::from_millis(timeout_ms) + GRACE, progress);
    lane.push(Command::AskCall { key, call, pending });
    wait(lane, key, receiver).await
}

/// Asks for the events of a subscription and waits until the broker has it.
pub(super) async fn ask_events(
    lane: &Lane,
    id: u64,
    patience: Duration,
    route: Route,
) -> Result<Answer, Error> {
    let (pending, receiver) = pending(patience, None);
    lane.push(Command::Subscribe { id, route: Box::new(route), pending });
    wait(lane, id, receiver).await
}

/// Asks for the messages of a queue and waits until the broker agrees.
pub(super) async fn ask_messages(
    lane: &Lane,
    patience: Duration,
    consumer: Consumer,
) -> Result<Answer, Error> {
    let (id, (pending, receiver)) = (consumer.id, pending(patience, None));
    lane.push(Command::Consume { consumer: Box::new(consumer), pending });
    wait(lane, id, receiver).await
}

/// Sends the parts of a graph and waits for its outcome.
pub(super) async fn ask_graph(
    lane: &Arc<Lane>,
    parts: Vec<GraphPart>,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
) -> Result<Answer, Error> {
    let key = lane.key();
    let first = parts.first();
    let timeout_ms = first.and_then(|part| part.options.timeout_ms).unwrap_or(DEFAULT_TIMEOUT_MS);
    let id = key.to_smolstr();
    let requests = parts
        .into_iter()
        .map(|part| Request::Graph(Box::new(GraphPart { id: id.clone(), ..part })));
    let requests = requests.collect();
    let (pending, receiver) = pending(Duration::from_millis(timeout_ms) + GRACE, progress);
    lane.push(Command::Ask { key, requests, pending });
    wait(lane, key, receiver).await
}
