//! `mpreg serve`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::block_on;
use super::output::{Failure, Format, json_line, line};
use crate::broker::{Broker, StartError};
use crate::config::{Config, ConfigError, LinkConfig};
use crate::files::{self, Files};
use crate::signals;

/// Start a broker and serve until told to stop.
#[derive(Args, Debug, Default)]
pub(super) struct Serve {
    /// Port of the door; 0 lets the system pick one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// IP address to bind, or ipc:///path/x for a socket x.door
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Folder for what outlives the process
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Name of this broker
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Allow an address that other machines can reach: nothing protects it yet
    #[arg(long)]
    insecure: bool,
    /// Door of a broker to be linked to; may be given again
    #[arg(long, value_name = "ADDRESS")]
    link: Vec<String>,
    /// The cluster this broker belongs to
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// TOML file with the same keys, and [limits]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new("bad_config", error.to_string())
    }
}

impl Serve {
    /// The file, changed by what the command line says.
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::parse(path)?,
            None => Config::default(),
        };
        config.port = self.port.unwrap_or(config.port);
        config.bind = self.bind.clone().unwrap_or(config.bind);
        config.data = self.data.clone().or(config.data);
        config.node = self.node.clone().or(config.node);
        config.insecure |= self.insecure;
        config.federation.cluster = self.cluster.clone().unwrap_or(config.federation.cluster);
        let link = |address: &String| LinkConfig { address: address.clone(), price_us: 0 };
        config.link.extend(self.link.iter().map(link));
        config.check()?;
        Ok(config)
    }

    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
        let config = self.config()?;
        block_on(async {
            signals::outlive_limits();
            Ok(())
        })?;
        let files = files::raise();
        let broker = Broker::start(&config)?;
        banner(&broker, &config, files, format);
        block_on(async {
            let stop = signals::stop();
            tokio::pin!(stop);
            let mut pulse = tokio::time::interval(std::time::Duration::from_secs(1));
            loop {
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    _ = pulse.tick() => if broker.has_ended() {
                        return Err(Failure::new("broker_ended", "the broker's thread has ended"));
                    },
                }
            }
        })?;
        if format == Format::Table {
            line("draining; a second signal ends it at once");
        }
        let (listens, listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let again = block_on(async {
                let again = signals::stop();
                let _ = listens.send(());
                again.await;
                Ok(())
            });
            std::process::exit(if again.is_ok() { 130 } else { 1 });
        });
        // A signal that nobody listens for would be lost.
        let _ = listening.recv();
        broker.stop();
        Ok(())
    }
}

/// Says where everything is.
fn banner(broker: &Broker, config: &Config, files: Files, format: Format) {
    let data = config.data_dir().display().to_string();
    match format {
        Format::Json => json_line(&json!({
            "ready": true,
            "node": broker.node(),
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "endpoints": broker.endpoints(),
            "data": data,
            "files": { "limit": files.limit, "was": files.was },
        })),
        Format::Table => {
            let door = broker.door();
            line(&format!("mpreg {} serving as {}", env!("CARGO_PKG_VERSION"), broker.node()));
            let at = |name: &str| broker.endpoints()[name].as_str().unwrap_or_default().to_owned();
            line(&format!("  door       {door}   connect a DEALER or REQ of any ZeroMQ binding"));
            line(&format!("  publish    {}   connect a PUB", at("publish")));
            line(&format!(
                "  subscribe  {}   connect a SUB; patterns with * and #",
                at("subscribe")
            ));
            line(&format!(
                "  bridge     {}   other brokers: mpreg serve --link {door}",
                at("bridge")
            ));
            line(&format!(
                "  http       {}   curl, /health, /metrics; WebSocket at /ws",
                at("http")
            ));
            line(&format!("  data       {data}"));
            line(&format!("  files      {}; each connection is one", files.in_words()));
            if config.insecure {
                line("  nothing protects this broker: whoever reaches it may use it");
            }
            let at =
                if door.ends_with(":7400") { String::new() } else { format!(" --broker {door}") };
            line(&format!("  try        mpreg work upper --text{at} -- tr a-z A-Z"));
            line(&format!("             mpreg call upper hello{at}"));
        }
        Format::Quiet => {}
    }
}
