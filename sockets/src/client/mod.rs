//! The Rust client: calls, graphs, events and messages of queues as futures, many in flight on one
//! connection.
//!
//! ```no_run
//! # async fn example() -> Result<(), mpreg_sockets::client::Error> {
//! use mpreg_sockets::client::{Client, ReadBody};
//!
//! let client = Client::connect("tcp://127.0.0.1:7400").await?;
//! let shout: String = client.call("upper").args(&["hello"]).send().await?.read()?;
//! # Ok(())
//! # }
//! ```
//!
//! What is waiting to be sent when the socket is free goes out as one frame, so many calls at once
//! cost little more than one. When the connection is lost, calls that are idempotent are made again
//! and everything else in flight ends with `outcome_unknown`; dropping a future cancels its call.

mod body;
mod connection;
mod consumers;
mod driver;
mod graph;
mod producer;
mod queues;
mod routes;
#[cfg(test)]
mod tests;
mod topics;
mod transport;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mpreg_patterns::base::{Code, Limits, Refusal, RunId};
use mpreg_patterns::ops::{Call, GraphPart, GraphReply, ProgressReply, Request};
use mpreg_patterns::values::{Body, Value};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tokio::sync::mpsc;

pub use body::{ReadBody, args_of};
pub use connection::PathHealth;
use connection::{Answer, Lane};
pub use graph::{GraphBuilder, Step};
pub use producer::{Confirmed, Producer};
pub use queues::{Deliveries, Delivery, Durability, Nack, Receipt, SendBuilder};
pub use topics::{Event, PublishBuilder, Replay, SubscribeBuilder, Subscription};
pub use worker::{Job, Worker};

/// How long [`Client::connect`] waits for a broker to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The broker or a worker said no. Its doc line for the code tells whether anything changed.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Nobody answered: there may be no broker at the address. Nothing ran.
    #[error("nobody answers at {address}; start a broker with `mpreg serve`")]
    NoBroker {
        /// Where one was looked for.
        address: String,
    },
    /// The client was closed. Nothing was sent.
    #[error("this client is closed")]
    Closed,
    /// The address cannot be used, or who is there lets nobody in. Nothing was sent.
    #[error("cannot connect to {address}: {why}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        why: Box<str>,
    },
}

impl Error {
    pub(crate) fn refused(code: Code, message: impl Into<Box<str>>) -> Self {
        Self::Refused(Box::new(Refusal::new(code, message)))
    }

    /// The refusal's code, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

/// A connection to a broker. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    lane: Arc<Lane>,
    welcome: Arc<Value>,
    /// The largest window the broker allows a connection.
    credit: u32,
}

/// What the client has to know of what the broker says about itself.
#[derive(Deserialize)]
struct About {
    limits: AboutLimits,
}

#[derive(Deserialize)]
struct AboutLimits {
    credit: u32,
}

/// The largest window that a `welcome` allows.
fn credit_of(about: &Value) -> u32 {
    let about = serde_json::from_slice::<About>(&about.bytes);
    about.map_or_else(|_| Limits::default().credit, |about| about.limits.credit)
}

impl Client {
    /// Connects, and waits up to five seconds for the broker to answer.
    ///
    /// `tcp://HOST:PORT` and `ipc://PATH` lead to its door, `ws://HOST:PORT` to its HTTP endpoint.
    /// Of several addresses of one broker, with commas between them, the first that answers is
    /// used, and another as soon as that fails; see [`Client::paths`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_as(address, None, CONNECT_TIMEOUT).await
    }

    /// The same with a name for people to see, and another patience.
    pub async fn connect_as(
        address: &str,
        name: Option<&str>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let (pending, welcome) = connection::pending(patience, None);
        let role = driver::Role::Client(pending);
        let lane = driver::start(address, name.map(SmolStr::new), role)?;
        match welcome.await.unwrap_or(Err(Error::Closed)) {
            Ok(Answer::Welcome(about)) => {
                let credit = credit_of(&about);
                Ok(Self { lane, welcome: Arc::new(about), credit })
            }
            Ok(_) | Err(Error::Closed) => Err(Error::NoBroker { address: address.into() }),
            Err(Error::Refused(refusal)) if refusal.is(Code::Timeout) => {
                lane.close();
                let refusal = lane.paths().into_iter().find_map(|path| path.refusal);
                Err(refusal.map_or_else(
                    || Error::NoBroker { address: address.into() },
                    |why| Error::Address { address: address.into(), why: why.into() },
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// What the broker said about itself: an object in JSON.
    #[must_use]
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// How the connection to each address does.
    #[must_use]
    pub fn paths(&self) -> Vec<PathHealth> {
        self.lane.paths()
    }

    /// A call of one function; see [`CallBuilder`].
    pub fn call(&self, fun: &str) -> CallBuilder {
        let call = Box::new(Call { fun: SmolStr::new(fun), ..Call::default() });
        CallBuilder { lane: self.lane.clone(), call, progress: None, fault: None }
    }

    /// A dependency graph; see [`GraphBuilder`].
    pub fn graph(&self) -> GraphBuilder {
        GraphBuilder::new(self.clone())
    }

    /// Sends the parts of a graph and waits for the whole reply, which may tell of an error.
    pub async fn submit(
        &self,
        parts: Vec<GraphPart>,
        progress: Option<mpsc::UnboundedSender<ProgressReply>>,
    ) -> Result<GraphReply, Error> {
        match connection::ask_graph(&self.lane, parts, progress).await? {
            Answer::Graph(reply) => Ok(*reply),
            _ => Err(Error::Closed),
        }
    }

    /// Asks for a sign of life.
    pub async fn ping(&self) -> Result<(), Error> {
        let ping = |id| Request::Ping { id: Some(id) };
        connection::ask(&self.lane, CONNECT_TIMEOUT, ping).await.map(drop)
    }
}

/// A call that is being put together.
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct CallBuilder {
    lane: Arc<Lane>,
    call: Box<Call>,
    progress: Option<mpsc::UnboundedSender<ProgressReply>>,
    fault: Option<Error>,
}

impl CallBuilder {
    /// The arguments by position: anything that serialises as a JSON array.
    pub fn args<T: Serialize + ?Sized>(mut self, args: &T) -> Self {
        self.call.args = self.value(args, "args");
        self
    }

    /// The arguments by name: anything that serialises as a JSON object.
    pub fn kwargs<T: Serialize + ?Sized>(mut self, kwargs: &T) -> Self {
        self.call.kwargs = self.value(kwargs, "kwargs");
        self
    }

    fn value<T: Serialize + ?Sized>(&mut self, of: &T, field: &'static str) -> Option<Value> {
        match serde_json::to_vec(of) {
            Ok(text) => Some(Value::json(text)),
            Err(error) => {
                let refusal = Refusal::field(Code::BadField, field, error.to_string());
                self.fault = Some(Error::Refused(Box::new(refusal)));
                None
            }
        }
    }

    /// The arguments by position, encoded already.
    pub fn args_value(mut self, args: Value) -> Self {
        self.call.args = Some(args);
        self
    }

    /// The arguments by name, encoded already.
    pub fn kwargs_value(mut self, kwargs: Value) -> Self {
        self.call.kwargs = Some(kwargs);
        self
    }

    /// Adds an attachment, which the arguments name as `{"$frame":n}`, counted from 1.
    pub fn attach(mut self, bytes: impl Into<Bytes>) -> Self {
        self.call.frames.push(bytes.into());
        self
    }

    /// Data the worker must have.
    pub fn locs<S: AsRef<str>>(mut self, locs: impl IntoIterator<Item = S>) -> Self {
        self.call.options.locs = locs.into_iter().map(|loc| SmolStr::new(loc.as_ref())).collect();
        self
    }

    /// A range of versions, in Cargo's syntax.
    pub fn version(mut self, range: &str) -> Self {
        self.call.options.version = Some(SmolStr::new(range));
        self
    }

    /// Whose brokers may run it.
    pub fn cluster(mut self, name: &str) -> Self {
        self.call.options.cluster = Some(SmolStr::new(name));
        self
    }

    /// Time for the whole call; 30 s if not set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.call.options.timeout_ms = Some(timeout.as_millis().max(1) as u64);
        self
    }

    /// Whether running it twice is as good as once, whatever the offer says.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.call.options.idempotent = Some(idempotent);
        self
    }

    /// Waits for a worker that is not there yet.
    pub fn wait(mut self) -> Self {
        self.call.options.wait = true;
        self
    }

    /// The caller's own ULID for the call.
    pub fn track(mut self, track: RunId) -> Self {
        self.call.track = Some(track);
        self
    }

    /// Sends what happens to the call to a channel.
    pub fn progress(mut self, to: mpsc::UnboundedSender<ProgressReply>) -> Self {
        self.call.progress = true;
        self.progress = Some(to);
        self
    }

    /// Sends the call and waits for its outcome. Dropping the future cancels it.
    pub async fn send(self) -> Result<Body, Error> {
        let Self { lane, call, progress, fault } = self;
        if let Some(fault) = fault {
            return Err(fault);
        }
        match connection::ask_call(&lane, call, progress).await? {
            Answer::Body(body) => Ok(body),
            _ => Err(Error::Closed),
        }
    }
}
