//! The Rust worker: functions on offer, each run answered once.
//!
//! ```no_run
//! # async fn example() -> Result<(), mpreg_sockets::client::Error> {
//! use mpreg_sockets::client::Worker;
//!
//! Worker::new()
//!     .function("upper", async |job| {
//!         let (text,): (String,) = job.args()?;
//!         job.returns(&text.to_uppercase())
//!     })
//!     .credit(16)
//!     .serve("tcp://127.0.0.1:7400")
//!     .await
//! # }
//! ```
//!
//! The offer is repeated, so a broker that restarts knows its workers again. A run that is
//! cancelled, or whose deadline passes, has its task aborted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use mpreg_patterns::base::{Code, Map, Refusal};
use mpreg_patterns::ops::{Function, Offer, Request, Run};
use mpreg_patterns::values::{Body, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::connection::{Command, Lane};
use super::{Error, body, driver};

/// What a function gives back.
pub(super) type Outcome = Result<Body, Refusal>;
type TaskFn = dyn Fn(Job) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;
type InlineFn = dyn Fn(&Run) -> Outcome + Send + Sync;

/// How a function is run.
#[derive(Clone)]
pub(super) enum Handler {
    /// In a task of its own.
    Task(Arc<TaskFn>),
    /// Where the message is read: nothing else happens meanwhile.
    Inline(Arc<InlineFn>),
}

/// One run of a function.
#[derive(Debug)]
pub struct Job {
    /// What the broker sent.
    pub run: Run,
    pub(super) lane: Arc<Lane>,
}

impl Job {
    /// The arguments by position, as a tuple or a `Vec`.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        body::args_of(self.run.args.as_ref())
    }

    /// The result, from anything that serialises.
    pub fn returns<T: Serialize + ?Sized>(&self, value: &T) -> Result<Body, Refusal> {
        let text = serde_json::to_vec(value);
        let text = text.map_err(|error| Refusal::new(Code::Failed, error.to_string()))?;
        Ok(Body::plain(Value::json(text)))
    }

    /// A failure in the worker's own words.
    pub fn fails<T>(&self, message: &str) -> Result<T, Refusal> {
        Err(Refusal::by_worker(None, message, false))
    }

    /// Tells the caller how far this is: 0 to 100, and words.
    pub fn progress(&self, percent: Option<f64>, note: Option<&str>) {
        let (run, note) = (self.run.id, note.map(Into::into));
        self.lane.push(Command::Tell(Request::Progress { run, percent, note }));
    }
}

/// A worker that is being put together.
#[derive(Default)]
#[must_use = "a worker does nothing until it serves"]
pub struct Worker {
    offer: Offer,
    name: Option<SmolStr>,
    handlers: Map<SmolStr, Handler>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("offer", &self.offer).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker without functions, with a credit of 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a function that runs in a task of its own.
    pub fn function<F, Fut>(self, name: &str, function: F) -> Self
    where
        F: Fn(Job) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let function = Arc::new(function);
        let task: Arc<TaskFn> = Arc::new(move |job| {
            let function = function.clone();
            Box::pin(async move { function(job).await })
        });
        self.offers(name, Handler::Task(task))
    }

    /// Offers a function that is quick and never waits: it runs where the message is read.
    pub fn quick<F>(self, name: &str, function: F) -> Self
    where
        F: Fn(&Run) -> Outcome + Send + Sync + 'static,
    {
        self.offers(name, Handler::Inline(Arc::new(function)))
    }

    fn offers(mut self, name: &str, handler: Handler) -> Self {
        let name = SmolStr::new(name);
        self.offer.functions.push(Function { name: name.clone(), ..Function::default() });
        self.handlers.insert(name, handler);
        self
    }

    fn last(&mut self) -> Option<&mut Function> {
        self.offer.functions.last_mut()
    }

    /// The version of the function just added; 1.0.0 if not set.
    pub fn version(mut self, version: &str) -> Self {
        if let Some(function) = self.last() {
            function.version = Some(SmolStr::new(version));
        }
        self
    }

    /// Says that running the function just added twice is as good as once.
    pub fn idempotent(mut self) -> Self {
        if let Some(function) = self.last() {
            function.idempotent = true;
        }
        self
    }

    /// Says what the function just added does.
    pub fn doc(mut self, doc: &str) -> Self {
        if let Some(function) = self.last() {
            function.doc = Some(SmolStr::new(doc));
        }
        self
    }

    /// The data this worker has.
    pub fn locs<S: AsRef<str>>(mut self, locs: impl IntoIterator<Item = S>) -> Self {
        self.offer.locs = locs.into_iter().map(|loc| SmolStr::new(loc.as_ref())).collect();
        self
    }

    /// The most runs in hand at once.
    pub fn credit(mut self, credit: u32) -> Self {
        self.offer.credit = Some(credit);
        self
    }

    /// What people call this worker.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(SmolStr::new(name));
        self
    }

    /// Serves until the future is dropped. Ends only with an error: a refused offer, or an address
    /// that cannot be used. A broker that is away is waited for. Of several addresses, with commas
    /// between them, one is used at a time; see [`Client::connect`](super::Client::connect).
    pub async fn serve(self, address: &str) -> Result<(), Error> {
        self.serve_until(address, std::future::pending()).await
    }

    /// Serves until `stop` is ready, then takes no more and finishes what is in hand.
    pub async fn serve_until(
        self,
        address: &str,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (ended, refused) = tokio::sync::oneshot::channel();
        let role = driver::Role::Worker(Box::new(driver::Serving {
            offer: self.offer,
            handlers: self.handlers,
            in_hand: Map::default(),
            leaving: false,
            ended: Some(ended),
        }));
        let lane = driver::start(address, self.name, role)?;
        let closer = Closer(lane.clone());
        tokio::pin!(refused);
        tokio::select! {
            outcome = &mut refused => return outcome.unwrap_or(Err(Error::Closed)),
            () = stop => lane.push(Command::Tell(Request::Bye { id: None })),
        }
        let outcome = refused.await.unwrap_or(Ok(()));
        drop(closer);
        outcome
    }
}

/// Ends the driver when the worker's future is dropped.
struct Closer(Arc<Lane>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}
