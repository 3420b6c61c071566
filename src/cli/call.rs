//! `mpreg call`.

use std::time::Duration;

use clap::Args;
use mpreg_patterns::values::{Body, Kind};
use mpreg_sockets::client::{Client, ReadBody};
use serde_json::{Value as Json, json};

use super::output::{Failure, Format, json_line, line};
use super::{Target, block_on, duration};

/// Call one function.
#[derive(Args, Debug)]
pub(super) struct Call {
    /// The function
    fun: String,
    /// Arguments by position: JSON where it parses, else text
    args: Vec<String>,
    /// Arguments by name, as a JSON object
    #[arg(long, value_name = "JSON")]
    kwargs: Option<String>,
    /// Data the worker must have
    #[arg(long, value_name = "LOC")]
    loc: Vec<String>,
    /// Cluster whose brokers may run it
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Range of versions, in Cargo's syntax
    #[arg(long, value_name = "RANGE")]
    version: Option<String>,
    /// Time for the whole call
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// Wait for a worker that is not there yet
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    target: Target,
}

impl Call {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        let body = block_on(self.send())?;
        show(&body, format)
    }

    async fn send(&self) -> Result<Body, Failure> {
        let args: Vec<Json> = self.args.iter().map(|text| json_or_text(text)).collect();
        let client = Client::connect(&self.target.broker).await?;
        let mut call = client.call(&self.fun).timeout(self.timeout).locs(&self.loc);
        // Built-ins take arguments by name only.
        if !args.is_empty() {
            call = call.args(&args);
        }
        if let Some(text) = &self.kwargs {
            let kwargs: serde_json::Map<String, Json> = serde_json::from_str(text)
                .map_err(|error| Failure::new("bad_kwargs", format!("--kwargs: {error}")))?;
            call = call.kwargs(&kwargs);
        }
        if let Some(range) = &self.version {
            call = call.version(range);
        }
        if let Some(cluster) = &self.cluster {
            call = call.cluster(cluster);
        }
        if self.wait {
            call = call.wait();
        }
        Ok(call.send().await?)
    }
}

/// What an argument on the command line means.
pub(super) fn json_or_text(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

/// Prints a result: text as text, bytes by their length, anything else as JSON.
pub(super) fn show(body: &Body, format: Format) -> Result<(), Failure> {
    if format == Format::Quiet {
        return Ok(());
    }
    let value = to_json(body)?;
    match (&value, format) {
        (Json::String(text), Format::Table) => line(text),
        (_, Format::Table) => {
            line(&serde_json::to_string_pretty(&value).unwrap_or_else(|_| value.to_string()));
        }
        _ => json_line(&value),
    }
    Ok(())
}

/// A result as JSON; attachments are told by their sizes.
pub(super) fn to_json(body: &Body) -> Result<Json, Failure> {
    let sizes: Vec<usize> = body.frames.iter().map(bytes::Bytes::len).collect();
    if body.value.kind == Kind::Bytes {
        return Ok(json!({ "bytes": body.value.bytes.len() }));
    }
    let value: Json = body.read()?;
    Ok(if sizes.is_empty() { value } else { json!({ "value": value, "attachments": sizes }) })
}
