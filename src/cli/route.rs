//! `mpreg route …`.

use clap::{Args, Subcommand};
use mpreg_sockets::client::{Client, ReadBody as _};
use serde_json::{Map, Value as Json, json};

use super::output::{Failure, Format, cell, json_line, line, table, told};
use super::{BROKER, block_on};

#[derive(Args, Debug)]
pub(super) struct Route {
    #[command(subcommand)]
    verb: Verb,
    /// Address of the broker: its door, or ws:// and its HTTP endpoint; several with commas between
    #[arg(long, global = true, default_value = BROKER, value_name = "ADDRESS")]
    broker: String,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a route, or put it in the place of the one of that name
    Add(Add),
    /// Every route, and what went through it
    List,
    /// The way to another broker, and what it costs
    Explain {
        /// The broker's name
        node: String,
        /// Say whether this name may cross, too
        #[arg(long)]
        name: Option<String>,
    },
    /// Take a route away; its queues stay
    Remove {
        /// Which
        name: String,
        /// Only if it has this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct Add {
    /// Its name
    name: String,
    /// A pattern of topics it takes; may be given again
    #[arg(long, value_name = "PATTERN", required = true)]
    bind: Vec<String>,
    /// A queue it gives messages to; may be given again
    #[arg(long, value_name = "QUEUE", required = true)]
    to: Vec<String>,
    /// `fanout` (the default), `round_robin`, `priority`, `least_loaded` or `random`
    #[arg(long)]
    strategy: Option<String>,
    /// What has to hold of a message, in CEL: payload.region == 'eu'
    #[arg(long, value_name = "EXPR")]
    when: Option<String>,
    /// What it changes, in CEL: payload, headers, headers.NAME, key, priority, delay_ms or topic;
    /// may be given again
    #[arg(long, value_name = "FIELD=EXPR")]
    set: Vec<String>,
    /// Only if it has this version now; 0 if it is not there
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

impl Route {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        block_on(async {
            let client = Client::connect(&self.broker).await?;
            match &self.verb {
                Verb::Add(add) => told(format, &ask(&client, "add", add.kwargs()?).await?),
                Verb::Explain { node, name } => {
                    let kwargs = json!({ "node": node, "name": name });
                    told(format, &ask(&client, "explain", kwargs).await?);
                }
                Verb::List => list(format, &ask(&client, "list", json!({})).await?),
                Verb::Remove { name, if_version } => {
                    let kwargs = json!({ "name": name, "if_version": if_version });
                    told(format, &ask(&client, "remove", kwargs).await?);
                }
            }
            Ok(())
        })
    }
}

async fn ask(client: &Client, verb: &str, kwargs: Json) -> Result<Json, Failure> {
    let call = client.call(&format!("mpreg.route.{verb}")).kwargs(&kwargs);
    Ok(call.send().await?.read()?)
}

impl Add {
    fn kwargs(&self) -> Result<Json, Failure> {
        // What is null is as good as left out.
        Ok(json!({
            "name": self.name,
            "bind": self.bind,
            "to": self.to,
            "strategy": self.strategy,
            "when": self.when,
            "set": self.changes()?,
            "if_version": self.if_version,
        }))
    }

    fn changes(&self) -> Result<Option<Map<String, Json>>, Failure> {
        let (mut set, mut headers) = (Map::new(), Map::new());
        for text in &self.set {
            let Some((field, expression)) = text.split_once('=') else {
                let message =
                    format!("--set takes FIELD=EXPR, as in payload=payload.body; not {text}");
                return Err(Failure::new("bad_args", message));
            };
            match field.strip_prefix("headers.") {
                Some(name) => headers.insert(name.to_owned(), expression.into()),
                None => set.insert(field.to_owned(), expression.into()),
            };
        }
        if !headers.is_empty() && set.insert("headers".into(), headers.into()).is_some() {
            let message = "--set takes headers as a whole, or each by its name";
            return Err(Failure::new("bad_args", message));
        }
        Ok((!set.is_empty()).then_some(set))
    }
}

const HEADING: [&str; 9] =
    ["ROUTE", "VERSION", "BIND", "STRATEGY", "TO", "WHEN", "MATCHED", "SENT", "FAILED"];

fn list(format: Format, told: &Json) {
    let rows = told["routes"].as_array().map_or(&[][..], Vec::as_slice);
    match format {
        Format::Json => json_line(told),
        Format::Quiet => {}
        Format::Table if rows.is_empty() => {
            line("there is no route; try `mpreg route add eu --bind 'orders.#' --to eu`");
        }
        Format::Table => {
            let row = |row: &Json| {
                let fields = ["route", "version", "bind", "strategy", "to", "when"];
                let counters = ["matched", "sent", "failed"].map(|of| cell(&row["counters"][of]));
                fields.iter().map(|field| cell(&row[field])).chain(counters).collect()
            };
            table(&HEADING, &rows.iter().map(row).collect::<Vec<_>>());
        }
    }
}
