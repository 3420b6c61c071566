//! `mpreg link …` and `mpreg nodes`.

use clap::{Args, Subcommand};
use mpreg_sockets::client::{Client, ReadBody as _};
use serde_json::{Value as Json, json};

use super::output::{Failure, Format, json_line, told};
use super::show::rows;
use super::{BROKER, Target, block_on};

#[derive(Args, Debug)]
pub(super) struct Link {
    #[command(subcommand)]
    verb: Verb,
    /// Address of the broker: its door, or ws:// and its HTTP endpoint; several with commas between
    #[arg(long, global = true, default_value = BROKER, value_name = "ADDRESS")]
    broker: String,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Link the broker to another one, until it ends
    Add {
        /// The door of the other one
        address: String,
        /// What the link costs beside its time, microseconds
        #[arg(long, value_name = "N", default_value_t = 0)]
        price_us: u32,
    },
    /// Every link, and what goes over it
    List,
    /// Say which names cross the link to a neighbour; without --export and --import, all do
    Rule {
        /// Its name, or * for all that have no rule of their own
        neighbour: String,
        /// Names of this side that it may use: patterns with commas between, ! takes out
        #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
        export: Option<Vec<String>>,
        /// Names of its side that this one uses
        #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
        import: Option<Vec<String>>,
    },
    /// The rules of this broker
    Rules,
    /// Link to that broker no longer
    Remove {
        /// Its door, as it was given
        address: String,
    },
}

const COLUMNS: [&str; 9] = [
    "node",
    "state",
    "address",
    "cluster",
    "cost_us",
    "bytes_in",
    "bytes_out",
    "resends",
    "waiting_bytes",
];

impl Link {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        block_on(async {
            let client = Client::connect(&self.broker).await?;
            match &self.verb {
                Verb::Add { address, price_us } => {
                    let kwargs = json!({ "address": address, "price_us": price_us });
                    told(format, &ask(&client, "mpreg.link.add", kwargs).await?);
                }
                Verb::List => {
                    let links = ask(&client, "mpreg.link.list", json!({})).await?;
                    let none =
                        "no links; join another broker with `mpreg link add tcp://HOST:PORT`";
                    rows(&links, &COLUMNS, none, format);
                }
                Verb::Rule { neighbour, export, import } => {
                    let kwargs =
                        json!({ "neighbour": neighbour, "export": export, "import": import });
                    told(format, &ask(&client, "mpreg.link.rule", kwargs).await?);
                }
                Verb::Rules => {
                    let rules = ask(&client, "mpreg.link.rules", json!({})).await?;
                    let none = "no rules: every name crosses every link";
                    rows(&rules, &["neighbour", "export", "import"], none, format);
                }
                Verb::Remove { address } => {
                    let kwargs = json!({ "address": address });
                    told(format, &ask(&client, "mpreg.link.remove", kwargs).await?);
                }
            }
            Ok(())
        })
    }
}

async fn ask(client: &Client, fun: &str, kwargs: Json) -> Result<Json, Failure> {
    Ok(client.call(fun).kwargs(&kwargs).send().await?.read()?)
}

pub(super) fn nodes(target: &Target, format: Format) -> Result<(), Failure> {
    let found = block_on(async {
        let client = Client::connect(&target.broker).await?;
        ask(&client, "mpreg.nodes", json!({})).await
    })?;
    if format == Format::Json {
        json_line(&found);
        return Ok(());
    }
    let columns =
        ["node", "state", "cluster", "cost_us", "path", "functions", "queues", "patterns"];
    rows(&found["nodes"], &columns, "no brokers are known", format);
    Ok(())
}
