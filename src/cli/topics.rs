//! `mpreg pub`, `mpreg sub`, `mpreg topics`.

use std::io::BufRead as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use mpreg_patterns::base::RunId;
use mpreg_sockets::client::{Client, Event, ReadBody as _, Replay};
use serde_json::{Value as Json, json};

use super::call::json_or_text;
use super::output::{
    Failure, Format, cell, json_line, line, payload_text, put_payload, table, try_line,
};
use super::{Target, block_on, duration};

/// Publish an event.
#[derive(Args, Debug)]
pub(super) struct Pub {
    /// The topic
    topic: String,
    /// The payload: JSON where it parses, else text; `-` publishes each line of standard input
    payload: String,
    /// Headers, as a JSON object
    #[arg(long, value_name = "JSON")]
    headers: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Pub {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        let headers = self.headers.as_deref().map(object).transpose()?;
        block_on(async {
            let client = Client::connect(&self.target.broker).await?;
            if self.payload != "-" {
                return tell(format, self.publish(&client, &self.payload, headers.as_ref()).await?);
            }
            for text in std::io::stdin().lock().lines() {
                let text = text.map_err(|error| Failure::new("cannot_read", error.to_string()))?;
                tell(format, self.publish(&client, &text, headers.as_ref()).await?)?;
            }
            Ok(())
        })
    }

    async fn publish(
        &self,
        client: &Client,
        payload: &str,
        headers: Option<&Json>,
    ) -> Result<RunId, Failure> {
        let mut event = client.publish(&self.topic).payload(&json_or_text(payload));
        if let Some(headers) = headers {
            event = event.headers(headers);
        }
        Ok(event.send().await?)
    }
}

fn object(text: &str) -> Result<Json, Failure> {
    let read: Result<serde_json::Map<String, Json>, _> = serde_json::from_str(text);
    let read = read.map_err(|error| Failure::new("bad_headers", format!("--headers: {error}")))?;
    Ok(Json::Object(read))
}

fn tell(format: Format, message: RunId) -> Result<(), Failure> {
    match format {
        Format::Json => json_line(&json!({ "message": message.to_string() })),
        Format::Table => line(&message.to_string()),
        Format::Quiet => {}
    }
    Ok(())
}

/// Print events as they come.
#[derive(Args, Debug)]
pub(super) struct Sub {
    /// Patterns: `*` is one word, `#` any number
    #[arg(required = true)]
    patterns: Vec<String>,
    /// Begin in the log: `all`, `last:N`, `seq:N` or `since:TIME` (such as since:10m)
    #[arg(long, value_name = "FROM", value_parser = replay)]
    replay: Option<Replay>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this time; a failure if `--count` events have not come
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    target: Target,
}

impl Sub {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        block_on(async {
            let Some(timeout) = self.timeout else { return self.print(format).await };
            match tokio::time::timeout(timeout, self.print(format)).await {
                Ok(done) => done,
                Err(_) if self.count.is_none() => Ok(()),
                Err(_) => Err(Failure::new("timeout", "fewer events came in time")),
            }
        })
    }

    async fn print(&self, format: Format) -> Result<(), Failure> {
        let client = Client::connect(&self.target.broker).await?;
        let mut subscribe = client.subscribe(&self.patterns);
        if let Some(from) = self.replay {
            subscribe = subscribe.replay(from);
        }
        let mut events = subscribe.send().await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0
            && let Some(event) = events.next().await
        {
            left -= 1;
            let open = match format {
                Format::Json => try_line(&whole(&event).to_string()),
                Format::Table => try_line(&short(&event)),
                Format::Quiet => true,
            };
            if !open {
                // Whoever read has seen enough.
                break;
            }
        }
        Ok(())
    }
}

/// Reads where a replay begins.
fn replay(text: &str) -> Result<Replay, String> {
    let wrong = || "takes all, last:N, seq:N or since:TIME, such as last:10 or since:5m".to_owned();
    let (what, value) = text.split_once(':').unwrap_or((text, ""));
    match what {
        "all" if value.is_empty() => Ok(Replay::All),
        "last" => value.parse().map(Replay::Last).map_err(|_| wrong()),
        "seq" => value.parse().map(Replay::Seq).map_err(|_| wrong()),
        "since" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let back = duration(value)?;
            Ok(Replay::Ms(now.saturating_sub(back).as_millis() as u64))
        }
        _ => Err(wrong()),
    }
}

/// An event on one line, for people.
fn short(event: &Event) -> String {
    let lost = if event.missed > 0 { format!("  ({} lost)", event.missed) } else { String::new() };
    format!("{}  {}{lost}", event.topic, payload_text(&event.payload))
}

/// All of an event, for programs.
fn whole(event: &Event) -> Json {
    let mut told = json!({
        "topic": event.topic,
        "seq": event.seq,
        "pattern": event.pattern,
        "message": event.message.to_string(),
    });
    put_payload(&mut told, &event.payload, || event.read().unwrap_or_default());
    if event.headers.is_some() {
        told["headers"] = event.read_headers().unwrap_or_default();
    }
    if event.missed > 0 {
        told["missed"] = event.missed.into();
    }
    told
}

/// Show the patterns with the most events.
#[derive(Args, Debug)]
pub(super) struct Topics {
    /// How many patterns
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: u32,
    /// Time over which rates are measured
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    interval: Duration,
    #[command(flatten)]
    target: Target,
}

impl Topics {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        let told = block_on(self.measure())?;
        match format {
            Format::Json => json_line(&told),
            Format::Quiet => {}
            Format::Table => print(&told),
        }
        Ok(())
    }

    /// Asks twice: what was counted in between are the rates.
    async fn measure(&self) -> Result<Json, Failure> {
        let client = Client::connect(&self.target.broker).await?;
        let top = json!({ "top": self.top });
        let before: Json = client.call("mpreg.topics").kwargs(&top).send().await?.read()?;
        tokio::time::sleep(self.interval).await;
        let mut after: Json = client.call("mpreg.topics").kwargs(&top).send().await?.read()?;
        let seconds = self.interval.as_secs_f64();
        for row in after["top"].as_array_mut().into_iter().flatten() {
            let old = before["top"].as_array().into_iter().flatten();
            let old = old.into_iter().find(|old| old["pattern"] == row["pattern"]);
            let was = old.map_or(0, |old| old["events"].as_u64().unwrap_or(0));
            let new = row["events"].as_u64().unwrap_or(0).saturating_sub(was);
            row["events_per_s"] = ((new as f64 / seconds).round() as u64).into();
        }
        Ok(after)
    }
}

fn print(told: &Json) {
    let rows = told["top"].as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return line("nobody subscribes; try `mpreg sub '#'`");
    }
    let columns = ["pattern", "events_per_s", "events", "dropped", "peers", "sockets", "waiting"];
    let heading = ["PATTERN", "EVENTS/S", "EVENTS", "DROPPED", "PEERS", "SOCKETS", "WAITING"];
    let row = |item: &Json| columns.iter().map(|column| cell(&item[column])).collect();
    table(&heading, &rows.iter().map(row).collect::<Vec<_>>());
    let logs = told["logs"].as_array().map_or(&[][..], Vec::as_slice);
    if !logs.is_empty() {
        line("");
        let columns = ["pattern", "events", "bytes", "first_seq", "next_seq"];
        let row = |item: &Json| columns.iter().map(|column| cell(&item[column])).collect();
        let heading = ["LOG", "EVENTS", "BYTES", "FIRST", "NEXT"];
        table(&heading, &logs.iter().map(row).collect::<Vec<_>>());
    }
}
