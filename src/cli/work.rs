//! `mpreg work`: any shell command as a function.

use std::process::Stdio;

use clap::Args;
use mpreg_patterns::base::Refusal;
use mpreg_patterns::base::limits::ENVELOPE_BYTES;
use mpreg_patterns::values::{Body, Kind, Value};
use mpreg_sockets::client::{Client, Job, Worker};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::output::{Failure, Format, json_line};
use super::{Target, block_on};
use crate::signals;

/// What is kept of a command's standard error.
const STDERR_BYTES: usize = 4 << 10;
/// What a command may print: a result has to fit into an envelope.
const STDOUT_BYTES: usize = ENVELOPE_BYTES / 2;

/// Offer a shell command as a function until told to stop.
///
/// The command's standard input is one line of JSON: {"args":[…],"kwargs":{…}}. What it prints is
/// the result: JSON where it parses, else text. An exit code other than 0 is a failure with the
/// end of standard error. A deadline or a cancelled call ends its whole process group.
#[derive(Args, Debug)]
pub(super) struct Work {
    /// Name of the function
    name: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// How many may run at once
    #[arg(long, default_value_t = 1)]
    credit: u32,
    /// Hand the first argument over as text instead of a line of JSON
    #[arg(long)]
    text: bool,
    /// Data this worker has
    #[arg(long, value_name = "LOC")]
    loc: Vec<String>,
    /// Version of the function
    #[arg(long, default_value = "1.0.0")]
    version: String,
    /// Running it twice is as good as once
    #[arg(long)]
    idempotent: bool,
    #[command(flatten)]
    target: Target,
}

impl Work {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        block_on(self.serve(format))
    }

    async fn serve(&self, format: Format) -> Result<(), Failure> {
        // Asks first, so that a wrong address is an error and not a wait without end.
        drop(Client::connect(&self.target.broker).await?);
        let (command, text) = (self.command.clone(), self.text);
        let mut worker = Worker::new()
            .function(&self.name, move |job| run(command.clone(), text, job))
            .version(&self.version)
            .credit(self.credit)
            .locs(&self.loc)
            .doc(&self.command.join(" "))
            .name(&format!("work {}", self.name));
        if self.idempotent {
            worker = worker.idempotent();
        }
        match format {
            Format::Json => json_line(&json!({ "serving": self.name, "credit": self.credit })),
            Format::Table => eprintln!(
                "serving {} at {}; Ctrl-C stops\ntry: mpreg call {} ARG",
                self.name, self.target.broker, self.name
            ),
            Format::Quiet => {}
        }
        let stop = signals::stop();
        Ok(worker.serve_until(&self.target.broker, stop).await?)
    }
}

/// Ends a command with everything it has started, unless it has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn run(command: Vec<String>, text: bool, job: Job) -> Result<Body, Refusal> {
    let input = input(text, &job)?;
    let failed = |message: String| Refusal::by_worker(None, &message, false);
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("cannot start {}: {error}", command[0])))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input is no failure.
            let _ = stdin.write_all(&input).await;
        }
    };
    let ((), printed, complained, status) =
        tokio::join!(feed, read_all(stdout), read_end(stderr), child.wait());
    group.0 = None;
    let status = status.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let complained = String::from_utf8_lossy(&complained);
        return Err(failed(format!("{status}: {}", complained.trim_end())));
    }
    let printed =
        printed.ok_or_else(|| failed(format!("printed more than {STDOUT_BYTES} bytes")))?;
    Ok(Body::plain(result(printed)))
}

/// What a command reads: one line of JSON, or the first argument as text.
fn input(text: bool, job: &Job) -> Result<Vec<u8>, Refusal> {
    if text {
        let args: Vec<Json> = job.args()?;
        return Ok(match args.first() {
            Some(Json::String(text)) => text.clone().into_bytes(),
            Some(other) => other.to_string().into_bytes(),
            None => Vec::new(),
        });
    }
    let mut line = b"{\"args\":".to_vec();
    line.extend(json_text(job.run.args.as_ref(), b"[]")?);
    line.extend(b",\"kwargs\":");
    line.extend(json_text(job.run.kwargs.as_ref(), b"{}")?);
    line.extend(b"}\n");
    Ok(line)
}

fn json_text(value: Option<&Value>, empty: &[u8]) -> Result<Vec<u8>, Refusal> {
    let Some(value) = value else { return Ok(empty.to_vec()) };
    let (mut text, mut frames) = (Vec::new(), Vec::new());
    let body = Body::plain(value.clone());
    mpreg_patterns::values::append(&body, Kind::Json, false, &mut text, &mut frames)
        .map_err(|fault| fault.refusal())?;
    // One line, whatever space the caller has put between things: strings hold no raw newline.
    text.retain(|byte| *byte != b'\n' && *byte != b'\r');
    Ok(text)
}

fn result(printed: Vec<u8>) -> Value {
    let json = Value::json(printed.trim_ascii().to_vec());
    if json.check().is_ok() {
        return json;
    }
    let text = String::from_utf8_lossy(&printed);
    Value::from_serialize(text.strip_suffix('\n').unwrap_or(&text))
}

/// Everything a command prints, or nothing if that is too much.
async fn read_all(from: Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut printed = Vec::new();
    let mut from = from?;
    (&mut from).take(STDOUT_BYTES as u64 + 1).read_to_end(&mut printed).await.ok()?;
    if printed.len() <= STDOUT_BYTES {
        return Some(printed);
    }
    // The rest is read too, so that the command can end.
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    None
}

/// The end of what a command complains.
async fn read_end(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut end, mut piece) = (Vec::new(), [0; STDERR_BYTES]);
    let Some(mut from) = from else { return end };
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        end.extend_from_slice(&piece[..count]);
        end.drain(..end.len().saturating_sub(STDERR_BYTES));
    }
    end
}
