//! The lane between handles and the task that owns the socket.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mpreg_patterns::base::limits::DEFAULT_TIMEOUT_MS;
use mpreg_patterns::ops::{Call, GraphPart, GraphReply, ProgressReply, Request};
use mpreg_patterns::values::{Body, Value};
use smol_str::{SmolStr, ToSmolStr};
use tokio::sync::{Notify, mpsc, oneshot};

use super::Error;

/// How long past its own deadline a request waits for the broker to say so.
const GRACE: Duration = Duration::from_secs(2);

/// What came for a request.
#[derive(Debug)]
pub(super) enum Answer {
    Body(Body),
    Graph(Box<GraphReply>),
    Welcome(Value),
    /// `pong`, `offered` or `bye`.
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
}

/// What a handle asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    /// Send these, and give the outcome of `key` to somebody.
    Ask { key: u64, requests: Vec<Request>, pending: Pending },
    /// The common case of one request, without a list.
    AskOne { key: u64, request: Request, pending: Pending },
    /// Send this; no outcome is awaited.
    Tell(Request),
    /// Nobody waits for this any more.
    Forget { key: u64 },
}

/// Commands on their way to the driver.
#[derive(Debug)]
pub(super) struct Lane {
    commands: Mutex<Vec<Command>>,
    wake: Notify,
    keys: AtomicU64,
    closed: AtomicBool,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            commands: Mutex::new(Vec::new()),
            wake: Notify::new(),
            keys: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn push(&self, command: Command) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let first = commands.is_empty();
        commands.push(command);
        drop(commands);
        // Whoever finds the lane empty wakes the driver; it takes all that came since.
        if first {
            self.wake.notify_one();
        }
    }

    /// Swaps the commands that wait for an empty list.
    pub(super) fn take(&self, into: &mut Vec<Command>) {
        std::mem::swap(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Ends the driver once it has sent what waits.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn key(&self) -> u64 {
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

fn pending(
    patience: Duration,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
) -> (Pending, oneshot::Receiver<Result<Answer, Error>>) {
    let (reply, receiver) = oneshot::channel();
    (Pending { reply, progress, due: Instant::now() + patience, parts: None }, receiver)
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
    mut call: Call,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
) -> Result<Answer, Error> {
    let key = lane.key();
    call.id = key.to_smolstr();
    let timeout_ms = call.options.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    let (pending, receiver) = pending(Duration::from_millis(timeout_ms) + GRACE, progress);
    lane.push(Command::AskOne { key, request: Request::Call(call.into()), pending });
    wait(lane, key, receiver).await
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
