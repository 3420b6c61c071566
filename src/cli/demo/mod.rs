//! `mpreg demo`: the main job on real input, from nothing to a table and back to nothing.
//!
//! Starts a broker, worker processes in Rust and (where pyzmq is found) in Python, and runs one
//! graph over the files of a folder: read, tokenise, count, merge as a tree, rank.

mod job;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use mpreg_patterns::ops::{GraphReply, ProgressReply};
use mpreg_sockets::client::{Client, ReadBody, Step};
use serde_json::{Value as Json, json};

use super::block_on;
use super::graph::bar;
use super::output::{Failure, Format, cell, json_line, line, table};
use crate::broker::Broker;
use crate::config::Config;

const PYTHON_WORKER: &str = include_str!("worker.py");
/// Words in the table.
const RANKS: usize = 15;
const TIMEOUT: Duration = Duration::from_secs(120);

/// See it work: a broker, workers, and a graph over the files of a folder.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Folder whose text files are read; the current one if left out
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Worker processes in Rust
    #[arg(long, default_value_t = 3)]
    workers: u32,
    /// Be such a worker: address of the broker
    #[arg(long, hide = true, value_name = "ADDRESS")]
    be_worker: Option<String>,
}

/// Processes that end with this one, whatever happens.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Already ended is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A folder that goes with the demo.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Demo {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        if let Some(address) = &self.be_worker {
            end_with_parent();
            return block_on(async { Ok(job::worker().serve(address).await?) });
        }
        let folder = self.input.clone().unwrap_or_else(|| PathBuf::from("."));
        let files = job::text_files(&folder).map_err(|error| {
            Failure::new("cannot_read", format!("{}: {error}", folder.display()))
        })?;
        if files.is_empty() {
            let message = format!("no text files in {}; name another --input", folder.display());
            return Err(Failure::new("no_input", message));
        }
        let data = std::env::temp_dir().join(format!("mpreg-demo-{}", std::process::id()));
        let _scratch = Scratch(data.clone());
        let node = Some("demo".to_owned());
        let config = Config { port: 0, data: Some(data), node, ..Config::default() };
        let broker = Broker::start(&config)?;
        let mut children = Children(Vec::new());
        let python = self.start_workers(&mut children, broker.door())?;
        if format == Format::Table {
            line(&format!("broker   {} (this process)", broker.door()));
            let python = if python { ", 1 in Python" } else { "; pyzmq not found, none in Python" };
            line(&format!("workers  {} processes in Rust{python}", self.workers.max(1)));
            line(&format!("input    {} text files of {}", files.len(), folder.display()));
        }
        let outcome = block_on(run(broker.door(), &files, children.0.len(), format));
        drop(children);
        drop(broker);
        show(&outcome?, format);
        Ok(())
    }

    /// Starts the workers; true if one of them is Python.
    fn start_workers(&self, children: &mut Children, door: &str) -> Result<bool, Failure> {
        let failed = |error: std::io::Error| Failure::new("cannot_start", error.to_string());
        let program = std::env::current_exe().map_err(failed)?;
        for _ in 0..self.workers.max(1) {
            let mut command = Command::new(&program);
            command.args(["demo", "--be-worker", door]);
            children.0.push(command.stdin(Stdio::piped()).spawn().map_err(failed)?);
        }
        let Some(python) = python() else { return Ok(false) };
        let mut command = Command::new(python);
        command.args(["-c", PYTHON_WORKER, door]).stderr(Stdio::null());
        children.0.push(command.stdin(Stdio::piped()).spawn().map_err(failed)?);
        Ok(true)
    }
}

/// A Python that has pyzmq: the project's own environment first.
fn python() -> Option<PathBuf> {
    let candidates = [PathBuf::from(".venv/bin/python"), PathBuf::from("python3")];
    candidates.into_iter().find(|python| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import zmq"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}

/// Ends this process once the one that started it has: its end of the pipe closes then.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// What the demo has to show.
struct Shown {
    files: usize,
    bytes: u64,
    steps: usize,
    took: Duration,
    ranks: Json,
    workers: Json,
    resident_bytes: Json,
}

async fn run(
    door: &str,
    files: &[job::File],
    workers: usize,
    format: Format,
) -> Result<Shown, Failure> {
    let client = Client::connect(door).await?;
    wait_for(&client, workers).await?;
    let (steps, last) = plan(files);
    let count = steps.len();
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let graph = steps.into_iter().fold(client.graph(), |graph, step| graph.step(step));
    let graph = graph.returns([last]).timeout(TIMEOUT).progress(sender);
    let begun = Instant::now();
    let (reply, ()) = tokio::join!(graph.send(), follow(events, format));
    let took = begun.elapsed();
    let reply = checked(reply?)?;
    let status: Json = client.call("mpreg.status").send().await?.read()?;
    let workers: Json = client.call("mpreg.workers").send().await?.read()?;
    let resident_bytes = status["process"]["resident_bytes"].clone();
    let ranks = match reply.results.first() {
        Some((_, body)) => body.read()?,
        None => Json::Null,
    };
    let bytes = files.iter().map(|file| file.bytes).sum();
    Ok(Shown { files: files.len(), bytes, steps: count, took, ranks, workers, resident_bytes })
}

fn checked(reply: GraphReply) -> Result<GraphReply, Failure> {
    match reply.error {
        Some((refusal, step)) => {
            let step = step.unwrap_or_default();
            Err(Failure::from(refusal).with(json!({ "step": step.as_str() })))
        }
        None => Ok(reply),
    }
}

/// Waits until every worker has made its offer.
async fn wait_for(client: &Client, workers: usize) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let here: Json = client.call("mpreg.workers").send().await?.read()?;
        if here.as_array().is_some_and(|here| here.len() >= workers) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Failure::new("no_workers", "the workers did not come within 10 s"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn follow(mut events: tokio::sync::mpsc::UnboundedReceiver<ProgressReply>, format: Format) {
    let bar = if format == Format::Table { bar() } else { indicatif::ProgressBar::hidden() };
    while let Some(event) = events.recv().await {
        if let Some(percent) = event.percent {
            bar.set_position(percent as u64);
        }
        bar.set_message(event.step.as_deref().unwrap_or_default().to_owned());
    }
    bar.finish_and_clear();
}

/// The graph: three steps a file, a tree of merges, one ranking. Returns the last step's name.
fn plan(files: &[job::File]) -> (Vec<Step>, String) {
    let mut steps = Vec::new();
    let mut level = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let (read, words, count) =
            (format!("read/{index}"), format!("tokenise/{index}"), format!("count/{index}"));
        let path = file.path.to_string_lossy();
        steps.push(Step::new(&read, "demo.read").args([json!(path)]));
        steps.push(Step::new(&words, "demo.tokenise").args([Step::result_of(&read)]));
        steps.push(Step::new(&count, "demo.count").args([Step::result_of(&words)]));
        level.push(count);
    }
    let mut height = 0;
    while level.len() > 1 {
        height += 1;
        let merge = |(index, pair): (usize, &[String])| match pair {
            [one] => one.clone(),
            pair => {
                let name = format!("merge/{height}/{index}");
                let args: Vec<Json> = pair.iter().map(|step| Step::result_of(step)).collect();
                steps.push(Step::new(&name, "demo.merge").args(args));
                name
            }
        };
        level = level.chunks(2).enumerate().map(merge).collect();
    }
    let counted = level.pop().unwrap_or_default();
    let args = [Step::result_of(&counted), json!(RANKS)];
    steps.push(Step::new("rank", "demo.rank").args(args));
    (steps, "rank".into())
}

fn show(shown: &Shown, format: Format) {
    let seconds = shown.took.as_secs_f64();
    let rate = shown.steps as f64 / seconds;
    match format {
        Format::Quiet => {}
        Format::Json => json_line(&json!({
            "files": shown.files, "bytes": shown.bytes, "steps": shown.steps,
            "seconds": seconds, "steps_per_second": rate, "ranks": shown.ranks,
            "workers": shown.workers, "broker_resident_bytes": shown.resident_bytes,
        })),
        Format::Table => {
            let rows = shown.ranks.as_array().into_iter().flatten();
            let row = |row: &Json| vec![cell(&row[0]), cell(&row[1])];
            table(&["WORD", "TIMES"], &rows.map(row).collect::<Vec<_>>());
            let megabytes = shown.bytes as f64 / 1e6;
            line(&format!(
                "\n{} steps over {} files, {megabytes:.1} MB, in {seconds:.2} s: {rate:.0} steps/s",
                shown.steps, shown.files
            ));
            line("everything that was started has been stopped");
        }
    }
}

/// Where a path leads, for messages and for the workers, which have the same current folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
