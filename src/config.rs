//! File and flags become one checked configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mpreg_patterns::base::Limits;
use mpreg_patterns::base::limits::NAME_BYTES;
use mpreg_patterns::base::names::is_name;
use mpreg_patterns::federation::Names;
use mpreg_patterns::names::Pattern;
use mpreg_patterns::topics::Retain;
use serde::Deserialize;
use smol_str::SmolStr;

use crate::core::Ends;
use crate::store;

/// Logs that one broker keeps at most: every event is looked up once for all of them.
const RETAIN_RULES: usize = 64;
/// The endpoints, in the order of their ports.
const ENDPOINTS: [&str; 6] = ["door", "publish", "subscribe", "push", "bridge", "http"];

/// Port of the door unless another is asked for.
pub const DEFAULT_PORT: u16 = 7400;

/// How a broker is to run. The keys of the TOML file have the same names.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Port of the door; 0 lets the system pick one.
    pub port: u16,
    /// Address to bind: an IP address, or `ipc:///path/x` for sockets `x.door`.
    pub bind: String,
    /// Folder for what outlives the process; made if it is missing.
    pub data: Option<PathBuf>,
    /// Allows a `bind` that other machines can reach, which nothing protects yet.
    pub insecure: bool,
    /// Name of this broker; made up once and kept in the data folder if missing.
    pub node: Option<String>,
    /// How long a broker that was told to stop waits for what is in flight, milliseconds.
    pub drain_ms: u64,
    /// What is kept of topics.
    pub topics: TopicsConfig,
    /// What holds for queues.
    pub queues: QueuesConfig,
    /// What the data may take.
    pub store: StoreConfig,
    /// How this broker is reached by others.
    pub federation: FederationConfig,
    /// Who may come in over HTTP and WebSocket.
    pub http: HttpConfig,
    /// Brokers that are to be neighbours: `[[link]]`.
    pub link: Vec<LinkConfig>,
    /// Bounds that differ from their defaults.
    pub limits: LimitsConfig,
}

/// The `[queues]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueuesConfig {
    /// Whether `send` and `consume` make a queue that is not there.
    pub auto_create: bool,
}

impl Default for QueuesConfig {
    fn default() -> Self {
        Self { auto_create: true }
    }
}

/// The `[http]` table. Addresses, `localhost` and the broker's own pages are always let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Names under which the broker is reached: the `Host` of a request, without its port.
    pub hosts: Vec<String>,
    /// Origins of pages of others that may use the broker: `https://app.example`.
    pub origins: Vec<String>,
}

/// The `[store]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// What the data file grows to at most, bytes; without it, to what the disk has.
    pub max_bytes: Option<u64>,
}

/// The `[federation]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FederationConfig {
    /// The cluster this broker belongs to: a name for people.
    pub cluster: String,
    /// First and last port for the PAIR sockets of links; without it the system picks them.
    pub bridge_ports: Option<[u16; 2]>,
    /// The host under which other brokers reach this one; without it, the one they dialled.
    pub advertise: Option<String>,
    /// Which names cross the link to a neighbour: `[[federation.rule]]`.
    pub rule: Vec<RuleConfig>,
}

impl Default for FederationConfig {
    fn default() -> Self {
        Self { cluster: "main".into(), bridge_ports: None, advertise: None, rule: Vec::new() }
    }
}

impl FederationConfig {
    /// Where the sockets of links are.
    pub(crate) fn ends(&self) -> Ends {
        let ports = self.bridge_ports.map(|[first, last]| (first, last));
        Ends { ports, advertise: self.advertise.clone() }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Value { key, why: why.into() });
        for list in self.rule.iter().flat_map(|rule| [&rule.export, &rule.import]) {
            Names::parse(list)
                .map_err(|no| ConfigError::Value { key: "federation.rule", why: no.to_string() })?;
        }
        match self.bridge_ports {
            Some([first, last]) if first == 0 || first > last => {
                wrong("federation.bridge_ports", "takes the first and the last port, above 0")
            }
            _ if self.rule.iter().any(|rule| !is_name(&rule.neighbour)) => {
                wrong("federation.rule", "`neighbour` takes the name of a broker, or *")
            }
            _ if self.rule.len() > LINKS => wrong("federation.rule", "128 neighbours at most"),
            _ if self.cluster.is_empty() || self.cluster.len() > NAME_BYTES => {
                wrong("federation.cluster", "takes a name of 1 to 255 bytes")
            }
            _ => Ok(()),
        }
    }
}

/// Which names cross the link to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The neighbour's name; `*` for all that have no rule of their own.
    pub neighbour: SmolStr,
    /// Names of this side that the other may use: patterns, `!` takes out.
    #[serde(default)]
    pub export: Vec<SmolStr>,
    /// Names of the other side that this one uses.
    #[serde(default)]
    pub import: Vec<SmolStr>,
}

/// One broker that is to be a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// The address of its door.
    pub address: String,
    /// What the link costs beside its time, microseconds.
    #[serde(default)]
    pub price_us: u32,
}

/// Links this broker is told of at once.
const LINKS: usize = 128;

/// The `[topics]` table.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsConfig {
    /// Rules, each with a log of its own: `[[topics.retain]]`.
    pub retain: Vec<RetainConfig>,
}

/// One rule: keep the events of a pattern.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RetainConfig {
    /// Of which topics.
    pub pattern: String,
    /// How long, milliseconds.
    #[serde(default = "RetainConfig::max_age_ms")]
    pub max_age_ms: u64,
    /// How many.
    #[serde(default = "RetainConfig::max_count")]
    pub max_count: usize,
    /// How much, bytes.
    #[serde(default = "RetainConfig::max_bytes")]
    pub max_bytes: usize,
    /// Whether they are on disk too.
    #[serde(default = "RetainConfig::store")]
    pub store: bool,
}

impl RetainConfig {
    const fn max_age_ms() -> u64 {
        24 * 3_600 * 1_000
    }

    const fn max_count() -> usize {
        100_000
    }

    const fn max_bytes() -> usize {
        64 << 20
    }

    const fn store() -> bool {
        true
    }
}

impl TopicsConfig {
    /// The rules, their patterns read.
    pub fn retain(&self) -> Result<Vec<Retain>, ConfigError> {
        let wrong = |why: String| ConfigError::Value { key: "topics.retain", why };
        if self.retain.len() > RETAIN_RULES {
            return Err(wrong(format!("takes {RETAIN_RULES} rules at most")));
        }
        let read = |rule: &RetainConfig| {
            let &RetainConfig { max_age_ms, max_count, max_bytes, store: stored, .. } = rule;
            let pattern = Pattern::parse(&rule.pattern).map_err(|no| wrong(no.message.into()))?;
            Ok(Retain { pattern, max_age_ms, max_count, max_bytes, stored })
        };
        self.retain.iter().map(read).collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            bind: Ipv4Addr::LOCALHOST.to_string(),
            data: None,
            insecure: false,
            node: None,
            drain_ms: 10_000,
            topics: TopicsConfig::default(),
            queues: QueuesConfig::default(),
            store: StoreConfig::default(),
            federation: FederationConfig::default(),
            http: HttpConfig::default(),
            link: Vec::new(),
            limits: LimitsConfig::default(),
        }
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// The `[limits]` table: what is absent keeps its default.
        #[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitsConfig { $($(#[$doc])* pub $name: Option<$type>,)* }

        impl LimitsConfig {
            /// The defaults, changed by what is set.
            #[must_use]
            pub fn apply(&self) -> Limits {
                let mut limits = Limits::default();
                $(if let Some(value) = self.$name { limits.$name = value; })*
                limits
            }

            fn zero(&self) -> Option<&'static str> {
                $(if self.$name == Some(0) { return Some(stringify!($name)); })*
                None
            }
        }
    };
}

limits! {
    /// Requests in flight on one connection.
    calls_per_peer: usize,
    /// Calls and steps in flight in the whole broker.
    calls: usize,
    /// Largest credit window of a worker.
    credit: u32,
    /// Functions in one offer.
    functions_per_offer: usize,
    /// Patterns one connection may hold.
    patterns_per_peer: usize,
    /// Patterns in the whole broker.
    patterns: usize,
    /// Queues in the whole broker.
    queues: usize,
    /// Groups of one queue.
    groups_per_queue: usize,
    /// Bytes of messages of queues in consumers' hands at once.
    queue_memory_bytes: usize,
    /// Steps in one graph.
    steps: usize,
    /// Bytes of graphs one connection may have in the broker.
    graph_bytes: usize,
    /// Steps of one graph with workers, or waiting for one, at once.
    graph_window: usize,
    /// Longest silence between the parts of a graph, milliseconds.
    graph_part_ms: u64,
    /// How often a peer should repeat its offer, milliseconds.
    refresh_ms: u64,
    /// Bytes that may wait for one stalled peer.
    outbox_bytes: usize,
    /// Connections known at once.
    peers: usize,
    /// Bytes that may wait for one neighbour.
    link_bytes: usize,
    /// How long each step of agreeing on a link may take, milliseconds.
    link_hello_ms: u64,
    /// How long a link that was lost waits to be resumed, milliseconds.
    link_resume_ms: u64,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file is not what it should be.
    #[error("{path}: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// A key has a value it cannot have.
    #[error("{key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value, and what to do.
        why: String,
    },
}

/// Where the door is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// An IP address and the port of the door.
    Tcp(IpAddr, u16),
    /// The common beginning of the sockets' paths.
    Ipc(PathBuf),
}

impl Bind {
    /// Where HTTP is served: an address, or the path of a Unix socket.
    pub(crate) fn http(&self) -> Result<SocketAddr, PathBuf> {
        let place = ENDPOINTS.len() - 1;
        match self {
            Self::Tcp(ip, 0) => Ok((*ip, 0).into()),
            Self::Tcp(ip, port) => Ok((*ip, *port + place as u16).into()),
            Self::Ipc(path) => Err(PathBuf::from(format!("{}.http", path.display()))),
        }
    }

    /// The address to give to ZeroMQ for an endpoint: `door`, `publish`, `subscribe` or `push`.
    #[must_use]
    pub fn address(&self, endpoint: &str) -> String {
        let place = ENDPOINTS.iter().position(|name| *name == endpoint).unwrap_or_default();
        match self {
            Self::Tcp(ip, 0) => format!("tcp://{}:*", host(*ip)),
            Self::Tcp(ip, port) => format!("tcp://{}:{}", host(*ip), usize::from(*port) + place),
            Self::Ipc(path) => format!("ipc://{}.{endpoint}", path.display()),
        }
    }
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

impl Config {
    /// Reads a TOML file and checks it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::parse(path)?;
        config.check()?;
        Ok(config)
    }

    /// Reads a TOML file. Unknown keys are refused by name.
    pub fn parse(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), why: error.to_string() })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            why: error.to_string().trim().to_owned(),
        })
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(key) = self.limits.zero() {
            return Err(ConfigError::Value { key, why: "must be above 0".into() });
        }
        let last = usize::from(self.port) + ENDPOINTS.len() - 1;
        if last > usize::from(u16::MAX) {
            let why = format!("the last endpoint would be at port {last}");
            return Err(ConfigError::Value { key: "port", why });
        }
        if self.store.max_bytes.is_some_and(|most| most < store::MIN_BYTES) {
            let why = format!("must be at least {}", store::MIN_BYTES);
            return Err(ConfigError::Value { key: "store.max_bytes", why });
        }
        self.topics.retain()?;
        self.federation.check()?;
        let is_address = |link: &LinkConfig| {
            link.address.starts_with("tcp://") || link.address.starts_with("ipc://")
        };
        if self.link.len() > LINKS || !self.link.iter().all(is_address) {
            let why =
                format!("takes {LINKS} doors at most, each tcp://HOST:PORT or ipc:///path/x.door");
            return Err(ConfigError::Value { key: "link", why });
        }
        self.endpoint().map(|_| ())
    }

    /// Where the door is to be bound.
    pub fn endpoint(&self) -> Result<Bind, ConfigError> {
        let wrong = |why: String| ConfigError::Value { key: "bind", why };
        if let Some(path) = self.bind.strip_prefix("ipc://") {
            if path.is_empty() {
                return Err(wrong("ipc:// needs a path".into()));
            }
            return Ok(Bind::Ipc(path.into()));
        }
        let text = self.bind.strip_prefix("tcp://").unwrap_or(&self.bind);
        let ip: IpAddr = text.trim_matches(['[', ']']).parse().map_err(|_| {
            wrong(format!("{} is neither an IP address nor ipc:///path; try 127.0.0.1", self.bind))
        })?;
        if !ip.is_loopback() && !self.insecure {
            let why = format!(
                "{ip} can be reached from other machines and nothing protects the broker yet; \
                 add --insecure if the network is trusted"
            );
            return Err(wrong(why));
        }
        Ok(Bind::Tcp(ip, self.port))
    }

    /// The data folder: what was asked for, else the user's.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        if let Some(path) = &self.data {
            return path.clone();
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(std::env::temp_dir).join("mpreg")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mpreg.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case::unknown_key("prot = 1", "unknown field `prot`")]
    #[case::unknown_limit("[limits]\nspeed = 1", "unknown field `speed`")]
    #[case::wrong_type("port = \"x\"", "invalid type")]
    #[case::zero_limit("[limits]\ncalls = 0", "calls: must be above 0")]
    #[case::small_store("[store]\nmax_bytes = 1", "store.max_bytes: must be at least 1048576")]
    #[case::last_port("port = 65534", "the last endpoint would be at port 65539")]
    #[case::retain("[[topics.retain]]\npattern = \"a..b\"", "`a..b` is no pattern")]
    #[case::rule(
        "[[federation.rule]]\nneighbour = \"b\"\nexport = [\"a..b\"]",
        "federation.rule: bad_pattern: `a..b` is no pattern"
    )]
    #[case::nobodys_rule("[[federation.rule]]\nneighbour = \"\"", "the name of a broker, or *")]
    #[case::retain_key("[[topics.retain]]\nfor = 1", "unknown field `for`")]
    #[case::foreign_bind("bind = \"0.0.0.0\"", "add --insecure")]
    #[case::no_address("bind = \"home\"", "neither an IP address nor ipc:///path")]
    fn refused(#[case] text: &str, #[case] message: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }

    #[rstest]
    #[case("", "tcp://127.0.0.1:7400")]
    #[case("port = 0", "tcp://127.0.0.1:*")]
    #[case("bind = \"::1\"\nport = 7", "tcp://[::1]:7")]
    #[case("bind = \"0.0.0.0\"\ninsecure = true", "tcp://0.0.0.0:7400")]
    #[case("bind = \"ipc:///run/m\"", "ipc:///run/m.door")]
    fn door(#[case] text: &str, #[case] address: &str) {
        assert_eq!(parse(text).unwrap().endpoint().unwrap().address("door"), address);
    }

    #[rstest]
    #[case("", "tcp://127.0.0.1:7402")]
    #[case("bind = \"ipc:///run/m\"", "ipc:///run/m.subscribe")]
    fn subscribe(#[case] text: &str, #[case] address: &str) {
        assert_eq!(parse(text).unwrap().endpoint().unwrap().address("subscribe"), address);
    }

    #[test]
    fn limits_change_what_they_name_only() {
        let config = parse("[limits]\ncalls_per_peer = 7").unwrap();
        let limits = config.limits.apply();
        assert_eq!(limits, Limits { calls_per_peer: 7, ..Limits::default() });
    }
}
