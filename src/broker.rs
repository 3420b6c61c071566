//! Start and stop: the one place where the rules and the sockets meet.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mpreg_patterns::federation::Life;
use mpreg_patterns::federation::links::{self, Links};
use mpreg_patterns::node::{About, Node, Rules};
use mpreg_patterns::queues;
use mpreg_sockets::inlet::{Inlet, Source};
use mpreg_sockets::link::Bridge;
use mpreg_sockets::router::Router;
use mpreg_sockets::subscribe::SubscribeSocket;
use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use crate::config::{Bind, Config, ConfigError};
use crate::core::{Control, Core};
use crate::store::{self, Store, StoreError};
use crate::web::{Listener, Web};

/// How long after its drain time a broker that was told to stop is waited for.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why a broker did not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// An endpoint is taken or cannot be bound.
    #[error("cannot bind the {endpoint} at {address}: {why}{hint}")]
    Bind {
        /// Which endpoint.
        endpoint: &'static str,
        /// Its address.
        address: String,
        /// What ZeroMQ said.
        why: zmq::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {path}: {why}")]
    Data {
        /// The folder.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// What is in the data folder cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// ZeroMQ or the system gave no thread or socket.
    #[error("cannot start: {0}")]
    System(String),
}

impl StartError {
    /// A stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "bad_config",
            Self::Bind { .. } => "cannot_bind",
            Self::Data { .. } => "cannot_use_data",
            Self::Store(error) => error.code(),
            Self::System(_) => "cannot_start",
        }
    }
}

/// A running broker. Dropping it stops it at once; [`Broker::stop`] drains first.
#[derive(Debug)]
pub struct Broker {
    endpoints: Json,
    node: String,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
    /// Ends after the core, which answers what it still has.
    web: Option<Web>,
    drain: Duration,
}

impl Broker {
    /// Binds every endpoint and starts the thread that owns them.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        config.check()?;
        let node = node_name(config)?;
        let context = zmq::Context::new();
        let at = config.endpoint()?;
        let sockets = Sockets::bind(&context, &at)?;
        let listener = bind_http(&at)?;
        let mut endpoints = sockets.endpoints();
        endpoints["http"] = listener.endpoint().as_str().into();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let about = About {
            node: SmolStr::new(&node),
            version: SmolStr::new_static(env!("CARGO_PKG_VERSION")),
            epoch: epoch.as_micros() as u64,
            endpoints: endpoints.clone(),
            cluster: SmolStr::new(&config.federation.cluster),
        };
        let life = Life { node: about.node.clone(), epoch: about.epoch };
        let cluster = about.cluster.clone();
        let limits = config.limits.apply();
        let retain = config.topics.retain()?;
        let queues =
            queues::Rules { auto_create: config.queues.auto_create, open_outlets: config.insecure };
        let rules = Rules { retain, queues };
        let broker = Node::new(about, limits.clone(), &rules, seed());
        let system = |error: zmq::Error| StartError::System(error.to_string());
        let (control, waker) = Control::new(&context).map_err(system)?;
        let bell = control.clone();
        let max_bytes = config.store.max_bytes;
        let options = store::Options { max_bytes, ..store::Options::default() };
        let (store, lines) =
            Store::open(&store::folder(&config.data_dir()), &options, move || bell.ring())?;
        let (web, arrivals) = Web::start(listener, control.clone(), &limits, config.http.clone())
            .map_err(|error| StartError::System(error.to_string()))?;
        let drain = Duration::from_millis(config.drain_ms);
        let links = Links::new(links::About { life, cluster }, &limits, seed());
        let name = SmolStr::new(&node);
        let ends = config.federation.ends();
        let linked = (links, name, ends);
        let mut core = Core::new(
            sockets,
            (store, lines),
            linked,
            (control.clone(), waker, arrivals),
            broker,
            limits,
            drain,
        );
        core.rule_all(&config.federation.rule);
        core.link_all(&config.link);
        let thread = std::thread::Builder::new()
            .name("mpreg-core".into())
            .spawn(move || core.run())
            .map_err(|error| StartError::System(error.to_string()))?;
        Ok(Self { endpoints, node, control, thread: Some(thread), web: Some(web), drain })
    }

    /// Name and address of every endpoint.
    #[must_use]
    pub const fn endpoints(&self) -> &Json {
        &self.endpoints
    }

    /// The address of the door, for peers.
    #[must_use]
    pub fn door(&self) -> &str {
        self.endpoints["door"].as_str().unwrap_or_default()
    }

    /// The broker's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Takes nothing new, finishes what is in flight within the drain time, and ends.
    pub fn stop(self) {
        self.control.drain();
        let patience = self.drain + STOP_GRACE;
        let until = std::time::Instant::now() + patience;
        while let Some(thread) = &self.thread {
            if thread.is_finished() || std::time::Instant::now() > until {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Whether the broker's thread has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.control.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the broker's thread panicked");
        }
        drop(self.web.take());
    }
}

/// Every endpoint, bound.
pub(crate) struct Sockets {
    pub(crate) door: Router,
    pub(crate) publish: Inlet,
    pub(crate) subscribe: SubscribeSocket,
    pub(crate) push: Inlet,
    pub(crate) bridge: Bridge,
    /// Of those that come later.
    pub(crate) context: zmq::Context,
}

impl Sockets {
    fn bind(context: &zmq::Context, at: &Bind) -> Result<Self, StartError> {
        let door = bind("door", at, |address| Router::bind(context, address))?;
        let at_door = door.endpoint().to_owned();
        Ok(Self {
            door,
            publish: bind("publish", at, |address| {
                Inlet::bind(context, Source::Publishers, address)
            })?,
            subscribe: bind("subscribe", at, |address| SubscribeSocket::bind(context, address))?,
            push: bind("push", at, |address| Inlet::bind(context, Source::Pushers, address))?,
            bridge: bind("bridge", at, |address| Bridge::bind(context, address, &at_door))?,
            context: context.clone(),
        })
    }

    /// Name and address of each.
    fn endpoints(&self) -> Json {
        json!({
            "door": self.door.endpoint(),
            "publish": self.publish.endpoint(),
            "subscribe": self.subscribe.endpoint(),
            "push": self.push.endpoint(),
            "bridge": self.bridge.endpoint(),
        })
    }
}

fn bind_http(at: &Bind) -> Result<Listener, StartError> {
    Listener::bind(at).map_err(|why| {
        let why = why.raw_os_error().map_or(zmq::Error::EINVAL, zmq::Error::from_raw);
        refused("http", at.address("http"), why)
    })
}

fn bind<S>(
    endpoint: &'static str,
    at: &Bind,
    make: impl FnOnce(&str) -> Result<S, zmq::Error>,
) -> Result<S, StartError> {
    let address = at.address(endpoint);
    make(&address).map_err(|why| refused(endpoint, address.clone(), why))
}

fn refused(endpoint: &'static str, address: String, why: zmq::Error) -> StartError {
    let hint = match why {
        zmq::Error::EADDRINUSE => {
            "; another program has it: stop that, or choose another --port (0 lets the system)"
        }
        zmq::Error::EACCES => "; it needs rights you do not have: choose a port above 1023",
        _ => "",
    };
    StartError::Bind { endpoint, address, why, hint }
}

/// The broker's name: what was asked for, else one made up once and kept in the data folder.
fn node_name(config: &Config) -> Result<String, StartError> {
    let folder = config.data_dir();
    let failed = |why| StartError::Data { path: folder.display().to_string(), why };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    if let Some(node) = &config.node {
        return Ok(node.clone());
    }
    let path = folder.join("node");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => make_name(&path).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_name(&path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn make_name(path: &Path) -> std::io::Result<String> {
    let name = format!("node-{:06x}", seed() & 0xFF_FFFF);
    std::fs::write(path, format!("{name}\n"))?;
    Ok(name)
}

/// Where the broker's randomness starts: different in each life, from the system's own source.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
