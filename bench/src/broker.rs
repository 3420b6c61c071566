//! The broker's process: the library behind `mpreg serve`, in the bench's own executable.

use std::path::PathBuf;

use mpreg::broker::Broker;
use mpreg::config::{Config, LinkConfig, RetainConfig};
use mpreg::files;

use crate::Outcome;
use crate::process::say;
use crate::role::{HubKind, Place};

/// Serves at a port the system chooses (or at sockets in its folder), says where, and goes on until
/// the bench ends it.
pub(crate) fn hub(kind: HubKind, data: PathBuf, link: Option<String>) -> Outcome<()> {
    files::raise();
    let link = link.map(|address| LinkConfig { address, price_us: 0 }).into_iter().collect();
    let mut config = Config { port: 0, link, ..Config::default() };
    if kind == HubKind::BrokerIpc {
        std::fs::create_dir_all(&data)?;
        config.bind = format!("ipc://{}/m", data.display());
    }
    if kind == HubKind::BrokerKept {
        let (max_age_ms, max_bytes) = (3_600_000, 1 << 30);
        let pattern = "kept.#".to_owned();
        let rule =
            RetainConfig { pattern, max_age_ms, max_count: 2_000_000, max_bytes, store: false };
        config.topics.retain.push(rule);
    }
    config.data = Some(data);
    let broker = Broker::start(&config)?;
    let endpoint = |name| broker.endpoints()[name].as_str().unwrap_or_default().to_owned();
    let door = match kind {
        HubKind::BrokerWeb => endpoint("http").replace("http://", "ws://"),
        _ => broker.door().to_owned(),
    };
    let (publish, subscribe) = (endpoint("publish"), endpoint("subscribe"));
    say(&Place { publish, subscribe, ..Place::door(door) })?;
    loop {
        std::thread::park();
    }
}
