//! `mpreg queue …`.

use std::io::BufRead as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use mpreg_sockets::client::{Client, Delivery, Nack, ReadBody as _, Receipt};
use serde_json::{Map, Value as Json, json};

use super::call::json_or_text;
use super::output::{
    Failure, Format, cell, json_line, line, payload_text, put_payload, table, told, try_line,
};
use super::{BROKER, block_on, duration};

/// Messages a consumer has in hand at once.
const CREDIT: u32 = 16;

#[derive(Args, Debug)]
pub(super) struct Queue {
    #[command(subcommand)]
    verb: Verb,
    /// Address of the broker: its door, or ws:// and its HTTP endpoint; several with commas between
    #[arg(long, global = true, default_value = BROKER, value_name = "ADDRESS")]
    broker: String,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make sure that a queue is there
    Declare(Declare),
    /// Every queue, or one in full
    List {
        /// Which; all without
        name: Option<String>,
    },
    /// One line for each queue, again and again
    Watch {
        /// Which; all without
        name: Option<String>,
        /// Time between two looks
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
        interval: Duration,
        /// End after so many looks
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Send a message, and wait until it is safe
    Send(Send),
    /// Take messages and print them; each is done once it is printed
    Take(Take),
    /// Show the first messages without taking them
    Peek {
        /// Which queue
        name: String,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 10)]
        count: u32,
        /// The dead letters instead
        #[arg(long)]
        dead: bool,
    },
    /// Throw away what is ready or delayed
    Purge {
        /// Which queue
        name: String,
        /// The dead letters instead
        #[arg(long)]
        dead: bool,
    },
    /// Make dead letters ready again
    Redrive {
        /// Which queue
        name: String,
        /// How many; all without
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Remove a queue and all in it
    Delete {
        /// Which
        name: String,
    },
}

#[derive(Args, Debug)]
struct Declare {
    /// Its name
    name: String,
    /// `fsync` (the default) or `memory`
    #[arg(long)]
    durability: Option<String>,
    /// `fifo` (the default), `priority` or `delay`
    #[arg(long)]
    kind: Option<String>,
    /// Deliveries after which a message is a dead letter
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long a consumer has for a message
    #[arg(long, value_name = "TIME", value_parser = duration)]
    lease: Option<Duration>,
    /// How long a message waits after its first failure
    #[arg(long, value_name = "TIME", value_parser = duration)]
    backoff: Option<Duration>,
    /// After this a message is worth nothing
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// Messages it holds at most
    #[arg(long, value_name = "N")]
    max_count: Option<u64>,
    /// Their bytes at most
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// `refuse` (the default), `drop_oldest` or `dead_letter`
    #[arg(long, value_name = "WHAT")]
    when_full: Option<String>,
    /// How long a repeated `--dedup` is known
    #[arg(long, value_name = "TIME", value_parser = duration)]
    dedup: Option<Duration>,
    /// A pattern of topics it gets; may be given again
    #[arg(long, value_name = "PATTERN")]
    bind: Vec<String>,
    /// Where PULL sockets take from it, at most once: tcp://127.0.0.1:7500
    #[arg(long, value_name = "ADDRESS")]
    outlet: Option<String>,
}

#[derive(Args, Debug)]
struct Send {
    /// The queue; with `--topic` a topic that queues are bound to
    name: String,
    /// The payload: JSON where it parses, else text; `-` sends each line of standard input
    payload: String,
    /// Send to every queue that is bound to the topic
    #[arg(long)]
    topic: bool,
    /// How long it waits first
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
    /// 0 to 9; higher goes first
    #[arg(long, value_name = "N", default_value_t = 0)]
    priority: u8,
    /// Of those with the same key one is in hand at a time
    #[arg(long)]
    key: Option<String>,
    /// A message with the same text, lately sent, is not taken again
    #[arg(long, value_name = "TEXT")]
    dedup: Option<String>,
}

#[derive(Args, Debug)]
struct Take {
    /// Which queue
    name: String,
    /// For one of its groups
    #[arg(long)]
    group: Option<String>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this time; a failure if `--count` messages have not come
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Run this command for each, payload on standard input; it is done if that succeeds
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Queue {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        block_on(async {
            let client = Client::connect(&self.broker).await?;
            match &self.verb {
                Verb::Declare(declare) => {
                    told(format, &ask(&client, "declare", declare.kwargs()).await?);
                }
                Verb::List { name } => list(format, &client, name.as_deref()).await?,
                Verb::Watch { name, interval, count } => {
                    watch(format, &client, name.as_deref(), *interval, *count).await?;
                }
                Verb::Send(send) => send.run(format, &client).await?,
                Verb::Take(take) => take.run(format, &client).await?,
                Verb::Peek { name, count, dead } => {
                    let kwargs = json!({ "name": name, "count": count, "dead": dead });
                    peeked(format, &ask(&client, "peek", kwargs).await?);
                }
                Verb::Purge { name, dead } => {
                    let kwargs = json!({ "name": name, "dead": dead });
                    told(format, &ask(&client, "purge", kwargs).await?);
                }
                Verb::Redrive { name, count } => {
                    let kwargs = json!({ "name": name, "count": count });
                    told(format, &ask(&client, "redrive", kwargs).await?);
                }
                Verb::Delete { name } => {
                    told(format, &ask(&client, "delete", json!({ "name": name })).await?);
                }
            }
            Ok(())
        })
    }
}

async fn ask(client: &Client, verb: &str, kwargs: Json) -> Result<Json, Failure> {
    let call = client.call(&format!("mpreg.queue.{verb}")).kwargs(&kwargs);
    Ok(call.send().await?.read()?)
}

impl Declare {
    fn kwargs(&self) -> Json {
        let millis = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        let mut kwargs = Map::new();
        let mut set = |field: &str, value: Json| {
            if !value.is_null() {
                kwargs.insert(field.to_owned(), value);
            }
        };
        set("name", self.name.clone().into());
        set("durability", self.durability.clone().into());
        set("kind", self.kind.clone().into());
        set("max_attempts", self.max_attempts.into());
        set("lease_ms", millis(self.lease).into());
        set("backoff_ms", millis(self.backoff).into());
        set("ttl_ms", millis(self.ttl).into());
        set("max_count", self.max_count.into());
        set("max_bytes", self.max_bytes.into());
        set("when_full", self.when_full.clone().into());
        set("dedup_ms", millis(self.dedup).into());
        set("bind", (!self.bind.is_empty()).then(|| self.bind.clone()).into());
        set("outlet", self.outlet.clone().into());
        kwargs.into()
    }
}

async fn rows(client: &Client, name: Option<&str>) -> Result<Vec<Json>, Failure> {
    if let Some(name) = name {
        return Ok(vec![ask(client, "stats", json!({ "name": name })).await?]);
    }
    let all = client.call("mpreg.queues").kwargs(&json!({ "top": 10_000 }));
    let mut all: Json = all.send().await?.read()?;
    Ok(all["queues"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// What the broker tells of a queue whose messages it cannot count.
fn is_closed(row: &Json) -> bool {
    row["store"] == "failed"
}

const COLUMNS: [&str; 6] = ["queue", "ready", "in_flight", "delayed", "dead", "consumers"];
const HEADING: [&str; 6] = ["QUEUE", "READY", "IN FLIGHT", "DELAYED", "DEAD", "CONSUMERS"];

async fn list(format: Format, client: &Client, name: Option<&str>) -> Result<(), Failure> {
    let rows = rows(client, name).await?;
    match format {
        Format::Json if name.is_some() => json_line(&rows[0]),
        Format::Json => json_line(&json!(rows)),
        Format::Quiet => {}
        Format::Table if rows.is_empty() => {
            line("there is no queue; try `mpreg queue send jobs hello`");
        }
        Format::Table => {
            let row = |item: &Json| COLUMNS.iter().map(|column| cell(&item[column])).collect();
            table(&HEADING, &rows.iter().map(row).collect::<Vec<_>>());
            if rows.iter().any(is_closed) {
                line("the store has failed: what is on disk is not counted until it is open again");
            }
        }
    }
    Ok(())
}

/// The monitor: what is there, and what went through since the last look.
async fn watch(
    format: Format,
    client: &Client,
    name: Option<&str>,
    interval: Duration,
    count: Option<u64>,
) -> Result<(), Failure> {
    let mut before = rows(client, name).await?;
    for _ in 0..count.unwrap_or(u64::MAX) {
        tokio::time::sleep(interval).await;
        let after = rows(client, name).await?;
        for row in &after {
            let old = before.iter().find(|old| old["queue"] == row["queue"]);
            let rate = |counter: &str| {
                let of = |row: &Json| row["counters"][counter].as_u64().unwrap_or(0);
                let new = of(row).saturating_sub(old.map_or(0, of));
                (new as f64 / interval.as_secs_f64()).round() as u64
            };
            let (rate_in, rate_out) = (rate("enqueued"), rate("acked"));
            let open = match format {
                Format::Json => {
                    let mut row = row.clone();
                    (row["in_per_s"], row["out_per_s"]) = (rate_in.into(), rate_out.into());
                    try_line(&row.to_string())
                }
                Format::Quiet => true,
                Format::Table => try_line(&format!(
                    "{}: ready {} | in flight {} | delayed {} | dead {} | in {rate_in}/s | out \
                     {rate_out}/s | redelivered {} | consumers {} | oldest {} ms{}",
                    cell(&row["queue"]),
                    row["ready"],
                    row["in_flight"],
                    row["delayed"],
                    row["dead"],
                    row["counters"]["redelivered"],
                    row["consumers"],
                    cell(&row["oldest_ms"]),
                    if is_closed(row) { " | the store has failed" } else { "" },
                )),
            };
            if !open {
                return Ok(());
            }
        }
        before = after;
    }
    Ok(())
}

impl Send {
    async fn run(&self, format: Format, client: &Client) -> Result<(), Failure> {
        if self.payload != "-" {
            sent(format, self.send(client, &self.payload).await?);
            return Ok(());
        }
        for text in std::io::stdin().lock().lines() {
            let text = text.map_err(|error| Failure::new("cannot_read", error.to_string()))?;
            sent(format, self.send(client, &text).await?);
        }
        Ok(())
    }

    async fn send(&self, client: &Client, payload: &str) -> Result<Receipt, Failure> {
        let message = match self.topic {
            true => client.send_to_topic(&self.name),
            false => client.send(&self.name),
        };
        let mut message = message.payload(&json_or_text(payload)).priority(self.priority);
        if let Some(delay) = self.delay {
            message = message.delay(delay);
        }
        if let Some(key) = &self.key {
            message = message.key(key);
        }
        if let Some(dedup) = &self.dedup {
            message = message.dedup(dedup);
        }
        Ok(message.send().await?)
    }
}

fn sent(format: Format, receipt: Receipt) {
    let (message, durability) = (receipt.message.to_string(), receipt.durability.as_str());
    match format {
        Format::Json => json_line(&json!({
            "message": message, "durability": durability, "queues": receipt.queues,
        })),
        Format::Quiet => {}
        Format::Table => line(&format!("{message}  {durability}")),
    }
}

impl Take {
    async fn run(&self, format: Format, client: &Client) -> Result<(), Failure> {
        let Some(timeout) = self.timeout else { return self.take(format, client).await };
        match tokio::time::timeout(timeout, self.take(format, client)).await {
            Ok(done) => done,
            Err(_) if self.count.is_none() => Ok(()),
            Err(_) => Err(Failure::new("timeout", "fewer messages came in time")),
        }
    }

    async fn take(&self, format: Format, client: &Client) -> Result<(), Failure> {
        let mut left = self.count.unwrap_or(u64::MAX);
        let credit = left.min(CREDIT.into()) as u32;
        let mut deliveries = client.consume(&self.name, self.group.as_deref(), credit).await?;
        while left > 0
            && let Some(delivery) = deliveries.next().await
        {
            left -= 1;
            if !self.command.is_empty() {
                self.work(delivery).await?;
                continue;
            }
            let open = match format {
                Format::Json => try_line(&whole(&delivery).to_string()),
                Format::Table => try_line(&payload_text(&delivery.message.event.payload)),
                Format::Quiet => true,
            };
            if !open {
                // Whoever read has seen enough, and not this one.
                delivery.nack(Nack { delay: Some(Duration::ZERO), ..Nack::default() });
                break;
            }
            delivery.ack_and_wait().await?;
        }
        Ok(())
    }

    /// Runs the command for a message; what it says on standard error is why it failed.
    async fn work(&self, delivery: Delivery) -> Result<(), Failure> {
        use tokio::io::AsyncWriteExt as _;
        let failed = |error: std::io::Error| Failure::new("cannot_run", error.to_string());
        let mut child = tokio::process::Command::new(&self.command[0])
            .args(&self.command[1..])
            .env("MPREG_QUEUE", delivery.queue.as_str())
            .env("MPREG_MESSAGE", delivery.message.event.message.to_string())
            .env("MPREG_ATTEMPT", delivery.attempt.to_string())
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input is none the worse for it.
            let _ = stdin.write_all(&delivery.message.event.payload.bytes).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            delivery.ack_and_wait().await?;
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        eprintln!("{}: {} {}", delivery.message.event.message, output.status, said.trim());
        delivery.nack(Nack::because(format!("{} {}", output.status, said.trim())));
        Ok(())
    }
}

/// All of a message, for programs.
fn whole(delivery: &Delivery) -> Json {
    let event = &delivery.message.event;
    let mut told = json!({
        "queue": delivery.queue,
        "message": event.message.to_string(),
        "attempt": delivery.attempt,
    });
    if !event.topic.is_empty() {
        told["topic"] = event.topic.as_str().into();
    }
    put_payload(&mut told, &event.payload, || delivery.read().unwrap_or_default());
    if event.headers.is_some() {
        told["headers"] = delivery.read_headers().unwrap_or_default();
    }
    told
}

fn peeked(format: Format, told: &Json) {
    let messages = told["messages"].as_array().map_or(&[][..], Vec::as_slice);
    match format {
        Format::Json => json_line(told),
        Format::Quiet => {}
        Format::Table => {
            for message in messages {
                let reason = match message["reason"].as_str() {
                    Some(reason) => format!("  ({reason}: {})", cell(&message["note"])),
                    None => String::new(),
                };
                line(&format!("{}  {}{reason}", cell(&message["message"]), message["payload"]));
            }
        }
    }
}
