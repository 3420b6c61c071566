//! Sending messages to queues, and consuming them.
//!
//! ```no_run
//! # async fn example() -> Result<(), mpreg_sockets::client::Error> {
//! use mpreg_sockets::client::{Client, Nack};
//!
//! let client = Client::connect("tcp://127.0.0.1:7400").await?;
//! client.send("thumbnails").payload(&17).key("album 3").send().await?;
//! let mut deliveries = client.consume("thumbnails", None, 16).await?;
//! while let Some(delivery) = deliveries.next().await {
//!     match delivery.read::<u32>() {
//!         Ok(image) => {
//!             println!("{image}");
//!             delivery.ack();
//!         }
//!         Err(error) => delivery.nack(Nack { dead: true, ..Nack::because(error) }),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The broker hands out as many messages as there is credit, and one more for each that is settled:
//! acked, nacked, or left until its lease ends. After a reconnect the client consumes again; what
//! it had in hand before is then another delivery, of this consumer or of another.

use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mpreg_patterns::base::RunId;
use mpreg_patterns::ops::{Delivered, Request, Send, SendOptions, Settle, Verdict};
use mpreg_patterns::values::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use tokio::sync::mpsc;

pub use mpreg_patterns::ops::Durability;

use super::body::Draft;
use super::connection::{self, Answer, Command, Lane};
use super::consumers::{Consumer, give_back};
use super::topics::PATIENCE;
use super::{Client, Error, body};
use crate::envelope::IDS_AT_ONCE;

impl Client {
    /// A message for one queue; see [`SendBuilder`].
    pub fn send(&self, queue: &str) -> SendBuilder {
        self.send_builder(Some(SmolStr::new(queue)), SmolStr::default())
    }

    /// A message for every queue that is bound to its topic; see [`SendBuilder`].
    pub fn send_to_topic(&self, topic: &str) -> SendBuilder {
        self.send_builder(None, SmolStr::new(topic))
    }

    fn send_builder(&self, queue: Option<SmolStr>, topic: SmolStr) -> SendBuilder {
        let (draft, options) = (Draft::new(), SendOptions::default());
        SendBuilder { lane: self.lane.clone(), queue, topic, draft, options }
    }

    /// The messages of a queue, or of one of its groups: `credit` of them in hand at once, 1 at
    /// least and no more than the broker allows. Waits until the broker has agreed.
    ///
    /// A client consumes a queue once at a time, since a delivery does not tell its group: a second
    /// time is refused as `not_supported`. Connect another client for another group.
    pub async fn consume(
        &self,
        queue: &str,
        group: Option<&str>,
        credit: u32,
    ) -> Result<Deliveries, Error> {
        let (to, messages) = mpsc::unbounded_channel();
        let credit = credit.clamp(1, self.credit.max(1));
        let (queue, group) = (SmolStr::new(queue), group.map(SmolStr::new));
        let (lane, id) = (self.lane.clone(), self.lane.key());
        // Dropping it, here too, ends what the broker knows of it.
        let deliveries = Deliveries { lane, id, messages };
        let consumer = Consumer { id, queue, group, credit, to };
        connection::ask_messages(&deliveries.lane, PATIENCE, consumer).await?;
        Ok(deliveries)
    }
}

/// A message that is being put together.
#[derive(Debug)]
#[must_use = "a message does nothing until it is sent"]
pub struct SendBuilder {
    lane: Arc<Lane>,
    queue: Option<SmolStr>,
    topic: SmolStr,
    draft: Draft,
    options: SendOptions,
}

impl SendBuilder {
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

    /// How long it waits before anybody gets it.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.options.delay_ms = millis(delay);
        self
    }

    /// 0 to 9; higher goes first.
    pub fn priority(mut self, priority: u8) -> Self {
        self.options.priority = priority;
        self
    }

    /// Of those with the same key one is in hand at a time, in the order sent.
    pub fn key(mut self, key: &str) -> Self {
        self.options.key = Some(SmolStr::new(key));
        self
    }

    /// A message with the same text, lately sent, is not taken again.
    pub fn dedup(mut self, text: &str) -> Self {
        self.options.dedup = Some(SmolStr::new(text));
        self
    }

    fn message(self, id: SmolStr) -> Result<Box<Send>, Error> {
        let Self { queue, topic, draft, options, .. } = self;
        let event = Arc::new(draft.event(topic)?);
        Ok(Box::new(Send { id, confirm: true, queue, event, options }))
    }

    pub(super) fn request(self, id: SmolStr) -> Result<Request, Error> {
        self.message(id).map(Request::Send)
    }

    /// Sends the message and waits until its queues have it. Many may be on their way at once;
    /// a [`Producer`](super::Producer) does that for less.
    pub async fn send(self) -> Result<Receipt, Error> {
        let lane = self.lane.clone();
        let mut message = self.message(SmolStr::default())?;
        let send = |id| {
            message.id = id;
            Request::Send(message)
        };
        match connection::ask(&lane, PATIENCE, send).await? {
            Answer::Sent(receipt) => Ok(receipt),
            _ => Err(Error::Closed),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The ULID the broker gave it.
    pub message: RunId,
    /// How safe it is in the least safe of its queues.
    pub durability: Durability,
    /// How many queues have it.
    pub queues: u32,
}

/// Messages of a queue as they come in. Dropping it consumes no more, and gives back what nobody
/// has taken out.
#[derive(Debug)]
pub struct Deliveries {
    lane: Arc<Lane>,
    id: u64,
    messages: mpsc::UnboundedReceiver<Delivery>,
}

impl Deliveries {
    /// The next message. None once the client is closed.
    ///
    /// It is cancel safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.messages.recv().await?;
            if delivery.is_in_hand() {
                return Some(delivery);
            }
        }
    }

    /// The next message, if it is here already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.messages.try_recv().ok()?;
            if delivery.is_in_hand() {
                return Some(delivery);
            }
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.lane.push(Command::Leave { id: self.id });
        self.messages.close();
        let rest = std::iter::from_fn(|| self.messages.try_recv().ok());
        let ids: Vec<RunId> =
            rest.filter(Delivery::is_in_hand).map(|delivery| delivery.id).collect();
        for ids in ids.chunks(IDS_AT_ONCE) {
            self.lane.push(Command::Tell(give_back(ids.to_vec())));
        }
    }
}

/// A message in hand. Whoever drops it without a word has it back when its lease ends.
#[derive(Debug)]
pub struct Delivery {
    delivered: Delivered,
    /// The connection it came on: another one does not know of it.
    life: u32,
    lane: Arc<Lane>,
}

impl Deref for Delivery {
    type Target = Delivered;

    fn deref(&self) -> &Delivered {
        &self.delivered
    }
}

/// Why and how a message is given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// How long it waits before somebody has it again; none for what the queue says.
    pub delay: Option<Duration>,
    /// Words for a person.
    pub reason: Option<String>,
    /// Nobody is to have it again: it becomes a dead letter.
    pub dead: bool,
}

impl Nack {
    /// One with a reason.
    pub fn because(reason: impl Display) -> Self {
        Self { reason: Some(reason.to_string()), ..Self::default() }
    }
}

impl Delivery {
    pub(super) fn new(delivered: Delivered, life: u32, lane: Arc<Lane>) -> Self {
        Self { delivered, life, lane }
    }

    /// Deserialises the payload. Bytes that nobody encoded are in `message.event.payload.bytes`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let payload = &self.message.event.payload;
        body::read(payload).map_err(|refusal| Error::Refused(Box::new(refusal)))
    }

    /// Deserialises the headers, as an empty object if there are none.
    pub fn read_headers<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let none = Value::json(&b"{}"[..]);
        let headers = self.message.event.headers.as_ref().unwrap_or(&none);
        body::read(headers).map_err(|refusal| Error::Refused(Box::new(refusal)))
    }

    /// Whether the connection it came on is still there, as far as is known.
    fn is_in_hand(&self) -> bool {
        self.lane.window.life() == self.life
    }

    /// It is done. What is acked about the same time is told as one.
    pub fn ack(self) {
        if self.is_in_hand() {
            self.lane.ack(self.id);
        }
    }

    /// It is done; waits until the queue will not give it out again. False if it was not in hand
    /// any more, so that somebody may have it again.
    pub async fn ack_and_wait(self) -> Result<bool, Error> {
        self.settle_and_wait(Verdict::Ack).await
    }

    /// It came to nothing: somebody is to have it again, or nobody.
    pub fn nack(self, how: Nack) {
        let (delay_ms, reason) = (how.delay.map(millis), how.reason.map(String::into_boxed_str));
        let verdict = Verdict::Nack { delay_ms, reason, dead: how.dead };
        if self.is_in_hand() {
            let settle = Settle { id: None, ids: vec![self.id], verdict };
            self.lane.push(Command::Tell(Request::Settle(settle)));
        }
    }

    /// Handling it takes longer: its lease begins anew. False if it was not in hand any more.
    pub async fn extend(&self) -> Result<bool, Error> {
        self.settle_and_wait(Verdict::Extend).await
    }

    async fn settle_and_wait(&self, verdict: Verdict) -> Result<bool, Error> {
        if !self.is_in_hand() {
            return Ok(false);
        }
        let ids = vec![self.id];
        let settle = |id| Request::Settle(Settle { id: Some(id), ids, verdict });
        match connection::ask(&self.lane, PATIENCE, settle).await? {
            Answer::Acked(known) => Ok(known),
            _ => Err(Error::Closed),
        }
    }
}
