//! The broker's process: the library behind `mpreg serve`, in the bench's own executable.

use std::path::PathBuf;

use mpreg::broker::Broker;
use mpreg::config::{Config, LinkConfig};

use crate::Outcome;
use crate::process::say;
use crate::role::Place;

/// Serves at a port the system chooses, says where, and goes on until the bench ends it.
pub(crate) fn hub(data: PathBuf, link: Option<String>) -> Outcome<()> {
    let link = link.map(|address| LinkConfig { address, price_us: 0 }).into_iter().collect();
    let config = Config { port: 0, data: Some(data), link, ..Config::default() };
    let broker = Broker::start(&config)?;
    let endpoint = |name| broker.endpoints()[name].as_str().unwrap_or_default().to_owned();
    let place = Place::door(broker.door().to_owned());
    say(&Place { publish: endpoint("publish"), subscribe: endpoint("subscribe"), ..place })?;
    loop {
        std::thread::park();
    }
}
