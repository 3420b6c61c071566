//! Publishing events, and subscribing to them.
//!
//! ```no_run
//! # async fn example() -> Result<(), mpreg_sockets::client::Error> {
//! use mpreg_sockets::client::{Client, Replay};
//!
//! let client = Client::connect("tcp://127.0.0.1:7400").await?;
//! let mut orders = client.subscribe(["orders.#"]).replay(Replay::Last(10)).send().await?;
//! client.publish("orders.eu").payload(&42).send().await?;
//! while let Some(event) = orders.next().await {
//!     let number: u32 = event.read()?;
//!     println!("{}: {number}, {} lost before it", event.topic, event.missed);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A subscription takes what comes in as fast as the application does: the broker is told what was
//! taken out, and keeps back what is more than a window. What it drops then is counted in `missed`
//! of the next event. After a reconnect the client subscribes again, and counts on.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mpreg_patterns::base::RunId;
use mpreg_patterns::ops::{self, Publish, Request};
use mpreg_patterns::values::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use tokio::sync::mpsc;

pub use mpreg_patterns::ops::Replay;

use super::body::Draft;
use super::connection::{self, Answer, Command, Lane};
use super::routes::{Chunk, Route, Tally};
use super::{Client, Error, body};

/// Events that may wait for the application, unless it says otherwise.
const CREDIT: u32 = 65_536;
/// How long a broker may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The id of everything whose publisher waits for no answer.
pub(super) const UNCONFIRMED: &str = "-";

impl Client {
    /// An event for everybody who subscribed to its topic; see [`PublishBuilder`].
    pub fn publish(&self, topic: &str) -> PublishBuilder {
        let (lane, topic) = (self.lane.clone(), SmolStr::new(topic));
        PublishBuilder { lane, topic, draft: Draft::new() }
    }

    /// The events of one or more patterns; see [`SubscribeBuilder`].
    pub fn subscribe<S: AsRef<str>>(
        &self,
        patterns: impl IntoIterator<Item = S>,
    ) -> SubscribeBuilder {
        let patterns = patterns.into_iter().map(|text| SmolStr::new(text.as_ref())).collect();
        let (client, credit) = (self.clone(), CREDIT.min(self.credit));
        SubscribeBuilder { client, patterns, credit, replay: None }
    }

    /// How many unconfirmed events the broker did not take. Each is in the log, as a warning.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.lane.refused.load(Ordering::Relaxed)
    }
}

/// An event that is being put together.
#[derive(Debug)]
#[must_use = "an event does nothing until it is sent"]
pub struct PublishBuilder {
    lane: Arc<Lane>,
    topic: SmolStr,
    draft: Draft,
}

impl PublishBuilder {
    /// The payload: anything that serialises. Null if not set.
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        self.draft.payload(payload);
        self
    }

    /// The payload, encoded already: compact JSON text, or MessagePack.
    pub fn payload_value(mut self, payload: Value) -> Self {
        self.draft.payload_value(payload);
        self
    }

    /// A payload of bytes that nobody looks into.
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.draft.bytes(bytes.into());
        self
    }

    /// The headers: anything that serialises as an object.
    pub fn headers<T: Serialize + ?Sized>(mut self, headers: &T) -> Self {
        self.draft.headers(headers);
        self
    }

    /// Publishes the event and waits until the broker has it: the ULID it gave the message.
    pub async fn send(self) -> Result<RunId, Error> {
        let (lane, event) = (self.lane, self.draft.event(self.topic)?);
        let publish = |id| Request::Publish(Publish { id, confirm: true, event: Arc::new(event) });
        match connection::ask(&lane, PATIENCE, publish).await? {
            Answer::Published(message) => Ok(message),
            _ => Err(Error::Closed),
        }
    }

    /// Publishes the event and waits for no answer, only for room in what is on its way to the
    /// broker. An event that is not taken is counted; see [`Client::refused`].
    pub async fn tell(self) -> Result<(), Error> {
        let (lane, event) = (self.lane, self.draft.event(self.topic)?);
        let id = SmolStr::new_static(UNCONFIRMED);
        lane.tell(&Request::Publish(Publish { id, confirm: false, event: Arc::new(event) })).await
    }
}

/// A subscription that is being put together.
#[derive(Debug)]
#[must_use = "a subscription gets nothing until it is sent"]
pub struct SubscribeBuilder {
    client: Client,
    /// Each once, however often it was given.
    patterns: BTreeSet<SmolStr>,
    credit: u32,
    replay: Option<Replay>,
}

impl SubscribeBuilder {
    /// The most events that may wait for the application: 65,536 if not set, and no more than the
    /// broker allows. What comes beyond is lost and counted, except in a replay, which waits.
    ///
    /// The broker bounds a connection, so subscriptions of one client share what it allows.
    pub fn credit(mut self, events: u32) -> Self {
        self.credit = events.clamp(1, self.client.credit.max(1));
        self
    }

    /// Begins in the past, and goes on from there without a gap. The broker must keep a log of all
    /// the topics of each pattern.
    ///
    /// While such a subscription is not read, others of the same client may get nothing either.
    pub fn replay(mut self, from: Replay) -> Self {
        self.replay = Some(from);
        self
    }

    /// Subscribes, and waits until the broker has all the patterns.
    ///
    /// Subscriptions of one client that name the same pattern share it, unless one of them replays
    /// it: that is refused as `not_supported`.
    pub async fn send(self) -> Result<Subscription, Error> {
        let Self { client, patterns, credit, replay } = self;
        let lane = client.lane;
        let (to, chunks) = mpsc::unbounded_channel();
        let (id, tally) = (lane.key(), Arc::new(Tally::default()));
        let patterns = patterns.into_iter().collect();
        let (most, shared) = (client.credit, tally.clone());
        let route = Route::new(patterns, (credit, most), replay, (to, shared));
        // Dropping it, here too, takes back what the broker knows of it.
        let subscription = Subscription { lane, id, chunks, chunk: None, tally };
        connection::ask_events(&subscription.lane, id, PATIENCE, route).await?;
        Ok(subscription)
    }
}

/// Events as they come in. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    lane: Arc<Lane>,
    id: u64,
    chunks: mpsc::UnboundedReceiver<Chunk>,
    chunk: Option<Chunk>,
    tally: Arc<Tally>,
}

impl Subscription {
    /// The next event. None once the client is closed.
    ///
    /// It is cancel safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.chunk.as_mut().and_then(Chunk::next) {
                return Some(event);
            }
            // What is handled is told before more is waited for.
            self.chunk = None;
            self.chunk = Some(self.chunks.recv().await?);
        }
    }

    /// The next event, if it is here already.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.chunk.as_mut().and_then(Chunk::next) {
                return Some(event);
            }
            self.chunk = None;
            self.chunk = Some(self.chunks.try_recv().ok()?);
        }
    }

    /// How many events are known to be lost, before those that still wait here included.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.tally.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.lane.push(Command::Unsubscribe { id: self.id });
    }
}

/// An event of a subscription: what was published, and how it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Topic, payload, headers and ULID, shared by all copies.
    pub published: Arc<ops::Event>,
    /// The pattern it came for, as it was given.
    pub pattern: SmolStr,
    /// Counts the events of the pattern; in a replay, those of the log.
    pub seq: u64,
    /// How many events of this subscription were lost before this one and after the last.
    pub missed: u64,
}

impl Deref for Event {
    type Target = ops::Event;

    fn deref(&self) -> &ops::Event {
        &self.published
    }
}

impl Event {
    /// Deserialises the payload. Bytes that nobody encoded are in `payload.bytes`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        body::read(&self.payload).map_err(|refusal| Error::Refused(Box::new(refusal)))
    }

    /// Deserialises the headers, as an empty object if there are none.
    pub fn read_headers<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let none = Value::json(&b"{}"[..]);
        let headers = self.headers.as_ref().unwrap_or(&none);
        body::read(headers).map_err(|refusal| Error::Refused(Box::new(refusal)))
    }
}
