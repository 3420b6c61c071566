//! Between the web thread and the core: connections that come, speak and go, and what they hear.
//!
//! What connections say goes through one lane, bounded in messages and bytes: who says more waits
//! for the core. What each of them hears waits in a line of its own, bounded in bytes: beyond that
//! the core keeps it, as it does for any peer that does not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use mpreg_patterns::node::Envelope;
use mpreg_sockets::router::Sent;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::core::Control;

/// Messages on their way to the core.
const LANE: usize = 1_024;
/// The same in bytes, but that one message may always be on its way.
const LANE_KIB: usize = 64 << 10;
/// What may wait for one connection, bytes; libzmq's own buffers hold about as much.
const LINE_BYTES: usize = 1 << 20;

/// Which connection; never used again.
pub(crate) type ConnectionId = u64;

/// What the core hears.
pub(crate) enum Arrival {
    /// A connection, and how it is answered.
    Came(ConnectionId, Line),
    /// What one says.
    Said(ConnectionId, Envelope, OwnedSemaphorePermit),
    /// It is over.
    Gone(ConnectionId),
}

/// Where connections come in. One for all of them.
#[derive(Clone)]
pub(super) struct Lane {
    sender: mpsc::Sender<Arrival>,
    room: Arc<Semaphore>,
    bell: Arc<Bell>,
    next: Arc<AtomicU64>,
    live: watch::Sender<usize>,
}

/// The core's end of the lane.
pub(crate) struct Arrivals {
    receiver: mpsc::Receiver<Arrival>,
    bell: Arc<Bell>,
}

/// Rings once for all that comes before the core looks.
struct Bell {
    rung: AtomicBool,
    control: Arc<Control>,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.control.ring();
        }
    }
}

/// The core ended: nobody answers any more.
#[derive(Debug)]
pub(super) struct Ended;

pub(super) fn lane(control: Arc<Control>) -> (Lane, Arrivals) {
    let (sender, receiver) = mpsc::channel(LANE);
    let bell = Arc::new(Bell { rung: AtomicBool::new(false), control });
    let room = Arc::new(Semaphore::new(LANE_KIB));
    let (next, live) = (Arc::default(), watch::Sender::new(0));
    (Lane { sender, room, bell: bell.clone(), next, live }, Arrivals { receiver, bell })
}

impl Arrivals {
    /// Takes note that the bell has been heard; what comes from now on rings it again.
    pub(crate) fn look(&self) {
        self.bell.rung.store(false, Ordering::SeqCst);
    }

    /// What came next.
    pub(crate) fn next(&mut self) -> Option<Arrival> {
        self.receiver.try_recv().ok()
    }
}

impl Lane {
    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, Ended> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let line = Line { sender, waiting: waiting.clone() };
        self.tell(Arrival::Came(id, line)).await?;
        let talk = Talk { lane: self.clone(), id };
        self.live.send_modify(|live| *live += 1);
        Ok(Connection { talk, hearing: Hearing { receiver, waiting } })
    }

    /// Waits until there is no connection.
    pub(super) async fn empty(&self) {
        let _ = self.live.subscribe().wait_for(|live| *live == 0).await;
    }

    async fn tell(&self, arrival: Arrival) -> Result<(), Ended> {
        self.sender.send(arrival).await.map_err(|_| Ended)?;
        self.bell.ring();
        Ok(())
    }
}

/// One connection, as the web thread has it.
pub(super) struct Connection {
    pub(super) talk: Talk,
    pub(super) hearing: Hearing,
}

/// What a connection says. Dropping it ends the connection's life.
pub(super) struct Talk {
    lane: Lane,
    id: ConnectionId,
}

impl Talk {
    /// Says something, when there is room for it.
    pub(super) async fn say(&self, body: Bytes, frames: Vec<Bytes>) -> Result<(), Ended> {
        let bytes = body.len() + frames.iter().map(Bytes::len).sum::<usize>();
        let kib = bytes.div_ceil(1 << 10).min(LANE_KIB) as u32;
        let room = self.lane.room.clone().acquire_many_owned(kib).await.map_err(|_| Ended)?;
        self.lane.tell(Arrival::Said(self.id, Envelope { body, frames }, room)).await
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let (lane, id) = (self.lane.clone(), self.id);
        lane.live.send_modify(|live| *live -= 1);
        match lane.sender.try_send(Arrival::Gone(id)) {
            Ok(()) => lane.bell.ring(),
            Err(mpsc::error::TrySendError::Closed(_)) => {}
            // Behind what it said before.
            Err(mpsc::error::TrySendError::Full(gone)) => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move {
                        let _ = lane.tell(gone).await;
                    });
                }
            }
        }
    }
}

/// What a connection hears.
pub(super) struct Hearing {
    receiver: mpsc::UnboundedReceiver<Envelope>,
    waiting: Arc<AtomicUsize>,
}

impl Hearing {
    /// The next message; none once the core has hung up.
    pub(super) async fn next(&mut self) -> Option<Envelope> {
        let envelope = self.receiver.recv().await?;
        self.waiting.fetch_sub(bytes(&envelope), Ordering::Relaxed);
        Some(envelope)
    }

    /// Whether nothing more waits now.
    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

/// How the core answers a connection. Dropping it hangs up.
pub(crate) struct Line {
    sender: mpsc::UnboundedSender<Envelope>,
    waiting: Arc<AtomicUsize>,
}

impl Line {
    /// Sends without waiting.
    pub(crate) fn send(&self, envelope: Envelope) -> Sent {
        let bytes = bytes(&envelope);
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > LINE_BYTES {
            return Sent::Blocked;
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        match self.sender.send(envelope) {
            Ok(()) => Sent::Done,
            Err(_) => Sent::Unreachable,
        }
    }
}

fn bytes(envelope: &Envelope) -> usize {
    envelope.body.len() + envelope.frames.iter().map(Bytes::len).sum::<usize>()
}
