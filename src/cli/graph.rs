//! `mpreg graph run|check|dot FILE`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use mpreg_patterns::ops::{
    GraphOptions, GraphPart, GraphReply, OnError, ProgressReply, Refs, Returns,
};
use mpreg_patterns::values::Value;
use mpreg_sockets::client::{Client, ReadBody};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};
use smol_str::SmolStr;

use super::call::to_json;
use super::output::{Failure, Format, cell, json_line, line, table};
use super::{Target, block_on, duration, read_input};

/// Run, check or draw a graph.
#[derive(Args, Debug)]
pub(super) struct Graph {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run a graph and print what it returns
    #[command(after_help = "Example: mpreg graph run pipeline.json --timeout 5m\n\n\
        FILE holds the fields of a `graph` op, as in\n  \
        {\"steps\":[{\"name\":\"a\",\"fun\":\"load\",\"args\":[\"x\"]},\n            \
        {\"name\":\"b\",\"fun\":\"count\",\"args\":[{\"$ref\":\"a\"}]}]}")]
    Run {
        /// JSON file; - for standard input
        file: PathBuf,
        /// Time for the whole graph, if the file names none
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
        timeout: Duration,
        #[command(flatten)]
        target: Target,
    },
    /// Check a graph, run nothing, and say which worker each step would go to
    #[command(after_help = "Example: mpreg graph check pipeline.json --impact load")]
    Check {
        /// JSON file; - for standard input
        file: PathBuf,
        /// Also list everything that hangs off this step
        #[arg(long, value_name = "STEP")]
        impact: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Print a graph in Graphviz's language
    #[command(after_help = "Example: mpreg graph dot pipeline.json | dot -Tsvg > pipeline.svg")]
    Dot {
        /// JSON file; - for standard input
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
}

/// A graph in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    steps: Box<RawValue>,
    #[serde(default, rename = "return")]
    returns: Option<Json>,
    #[serde(default)]
    on_error: Option<String>,
    #[serde(default)]
    refs: Option<String>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default, rename = "op")]
    _op: Option<String>,
    #[serde(default, rename = "id")]
    _id: Option<String>,
    #[serde(default, rename = "progress")]
    _progress: Option<bool>,
}

impl Graph {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        match &self.verb {
            Verb::Run { file, timeout, target } => {
                let reply = block_on(run(&read(file)?, *timeout, target, format))?;
                show(&reply, format)
            }
            Verb::Check { file, impact, target } => {
                let mut kwargs = kwargs(&read(file)?)?;
                if let Some(step) = impact {
                    kwargs.insert("impact".into(), step.as_str().into());
                }
                let report = block_on(check(&kwargs, target))?;
                show_report(&report, format);
                Ok(())
            }
            Verb::Dot { file, target } => {
                let mut kwargs = kwargs(&read(file)?)?;
                kwargs.insert("dot".into(), true.into());
                let report = block_on(check(&kwargs, target))?;
                match format {
                    Format::Json => json_line(&report["dot"]),
                    Format::Table => line(report["dot"].as_str().unwrap_or_default().trim_end()),
                    Format::Quiet => {}
                }
                Ok(())
            }
        }
    }
}

fn read(path: &PathBuf) -> Result<File, Failure> {
    serde_json::from_str(&read_input(path)?)
        .map_err(|error| Failure::new("bad_file", format!("{}: {error}", path.display())))
}

fn kwargs(file: &File) -> Result<Map<String, Json>, Failure> {
    let steps: Json = serde_json::from_str(file.steps.get())
        .map_err(|error| Failure::new("bad_file", error.to_string()))?;
    let mut kwargs = Map::from_iter([("steps".to_owned(), steps)]);
    kwargs.extend(file.returns.clone().map(|returns| ("return".to_owned(), returns)));
    kwargs.extend(file.refs.clone().map(|refs| ("refs".to_owned(), refs.into())));
    Ok(kwargs)
}

async fn check(kwargs: &Map<String, Json>, target: &Target) -> Result<Json, Failure> {
    let client = Client::connect(&target.broker).await?;
    Ok(client.call("mpreg.graph.check").kwargs(kwargs).send().await?.read()?)
}

impl File {
    fn options(&self, timeout: Duration) -> Result<GraphOptions, Failure> {
        let wrong =
            |field: &str, takes: &str| Failure::new("bad_file", format!("`{field}` takes {takes}"));
        let returns = match &self.returns {
            None => Returns::Sinks,
            Some(Json::String(word)) if word == "sinks" => Returns::Sinks,
            Some(Json::String(word)) if word == "all" => Returns::All,
            Some(Json::Array(names)) if names.iter().all(Json::is_string) => {
                Returns::Names(names.iter().filter_map(Json::as_str).map(SmolStr::new).collect())
            }
            Some(_) => return Err(wrong("return", "\"sinks\", \"all\" or a list of names")),
        };
        let on_error = match self.on_error.as_deref() {
            None | Some("fail") => OnError::Fail,
            Some("continue") => OnError::Continue,
            Some(_) => return Err(wrong("on_error", "\"fail\" or \"continue\"")),
        };
        let refs = match self.refs.as_deref() {
            None | Some("tagged") => Refs::Tagged,
            Some("names") => Refs::Names,
            Some(_) => return Err(wrong("refs", "\"tagged\" or \"names\"")),
        };
        let timeout_ms = Some(self.timeout_ms.unwrap_or(timeout.as_millis() as u64));
        Ok(GraphOptions { returns, on_error, refs, timeout_ms, progress: true, track: None })
    }
}

async fn run(
    file: &File,
    timeout: Duration,
    target: &Target,
    format: Format,
) -> Result<GraphReply, Failure> {
    let client = Client::connect(&target.broker).await?;
    let part = GraphPart {
        steps: Some(Value::json(file.steps.get().as_bytes().to_vec())),
        options: file.options(timeout)?,
        ..GraphPart::default()
    };
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel::<ProgressReply>();
    let bar = if format == Format::Table { bar() } else { ProgressBar::hidden() };
    let watch = async {
        while let Some(event) = events.recv().await {
            let about = event.step.as_deref().unwrap_or("graph");
            bar.set_message(format!("{about} {}", event.event));
            if let Some(percent) = event.percent.filter(|_| event.event != "progress") {
                bar.set_position(percent as u64);
            }
        }
    };
    let (reply, ()) = tokio::join!(client.submit(vec![part], Some(sender)), watch);
    bar.finish_and_clear();
    Ok(reply?)
}

/// A bar from 0 to 100 on standard error; it stays away where there is no terminal.
pub(super) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos:>3}% {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(100).with_style(style)
}

fn show(reply: &GraphReply, format: Format) -> Result<(), Failure> {
    let mut results = Map::new();
    for (name, body) in &reply.results {
        results.insert(name.to_string(), to_json(body)?);
    }
    let outcome = |step: &mpreg_patterns::ops::StepOutcome| {
        let told = json!({ "state": step.state.as_str(), "code": step.code.as_deref() });
        (step.name.to_string(), told)
    };
    let steps: Map<String, Json> = reply.steps.iter().map(outcome).collect();
    if let Some((refusal, step)) = &reply.error {
        let detail = json!({
            "step": step.as_deref(), "results": results, "steps": steps,
            "track": reply.track.map(|track| track.to_string()),
        });
        return Err(Failure::from(refusal.clone()).with(detail));
    }
    match format {
        Format::Json => json_line(&json!({ "results": results, "steps": steps })),
        Format::Table => {
            let row = |(name, value): (&String, &Json)| vec![name.clone(), cell(value)];
            table(&["STEP", "RESULT"], &results.iter().map(row).collect::<Vec<_>>());
            for (name, told) in &steps {
                if told["state"] != "done" {
                    line(&format!("{name}: {} ({})", cell(&told["state"]), cell(&told["code"])));
                }
            }
        }
        Format::Quiet => {}
    }
    Ok(())
}

fn show_report(report: &Json, format: Format) {
    match format {
        Format::Json => json_line(report),
        Format::Quiet => {}
        Format::Table => {
            let (steps, levels) = (cell(&report["steps"]), cell(&report["levels"]));
            line(&format!("{steps} steps in {levels} levels; it would run"));
            let plan = report["plan"].as_array().cloned().unwrap_or_default();
            let columns = ["name", "fun", "level", "inputs", "worker"];
            let row = |step: &Json| columns.iter().map(|column| cell(&step[column])).collect();
            table(
                &["STEP", "FUNCTION", "LEVEL", "INPUTS", "WORKER"],
                &plan.iter().map(row).collect::<Vec<_>>(),
            );
            if let Some(impact) = report.get("impact") {
                let (step, hit) = (cell(&impact["step"]), cell(&impact["steps"]));
                let count = match cell(&impact["count"]).as_str() {
                    "1" => "1 step hangs".to_owned(),
                    more => format!("{more} steps hang"),
                };
                line(&format!("{count} off {step}: {hit}"));
            }
        }
    }
}
