//! Tables for people, JSON for programs, and failures in both.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use mpreg_patterns::base::Refusal;
use mpreg_patterns::values::{Kind, Value};
use serde_json::{Value as Json, json};

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// One JSON value
    Json,
    /// Nothing but the exit code
    Quiet,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    code: String,
    message: String,
    detail: Option<Box<Json>>,
    exit: u8,
}

impl Failure {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), detail: None, exit: 1 }
    }

    /// Adds what a program may want to know beside code and message.
    pub(super) fn with(self, detail: Json) -> Self {
        Self { detail: Some(Box::new(detail)), ..self }
    }

    /// Prints to standard error, JSON where that was asked for, and gives the exit code.
    pub(super) fn print(&self, format: Format) -> ExitCode {
        match format {
            Format::Json => {
                let mut error = json!({ "code": self.code, "message": self.message });
                if let Some(detail) = &self.detail {
                    error["detail"] = (**detail).clone();
                }
                eprintln!("{}", json!({ "error": error }));
            }
            Format::Table => {
                eprintln!("error: {} ({})", self.message, self.code);
                if mpreg_patterns::base::Code::find(&self.code).is_some() {
                    eprintln!("       `mpreg errors {}` says what to do", self.code);
                }
            }
            Format::Quiet => {}
        }
        ExitCode::from(self.exit)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let detail = json!({
            "culprit": refusal.culprit.as_str(),
            "retry": refusal.retry,
            "field": refusal.field.as_deref(),
        });
        Self::new(&refusal.code, refusal.message.to_string()).with(detail)
    }
}

impl From<mpreg_sockets::client::Error> for Failure {
    fn from(error: mpreg_sockets::client::Error) -> Self {
        match error {
            mpreg_sockets::client::Error::Refused(refusal) => (*refusal).into(),
            other => Self::new("no_broker", other.to_string()),
        }
    }
}

/// Prints one JSON value as it is.
pub(super) fn json_line(value: &Json) {
    line(&value.to_string());
}

/// Prints a line for people. Whoever reads no further, as `head` does, has what it wanted.
pub(super) fn line(text: &str) {
    match write(text) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: the output cannot be written: {why}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Prints a line where somebody may have stopped reading. False if so.
pub(super) fn try_line(text: &str) -> bool {
    write(text).is_ok()
}

fn write(text: &str) -> std::io::Result<()> {
    let mut to = std::io::stdout().lock();
    writeln!(to, "{text}").and_then(|()| to.flush())
}

/// Prints rows under a heading, columns lined up.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let print = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(heading.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// Says what a command has done, field by field.
pub(super) fn told(format: Format, told: &Json) {
    match format {
        Format::Json => json_line(told),
        Format::Quiet => {}
        Format::Table => {
            for (field, value) in told.as_object().into_iter().flatten() {
                line(&format!("{field}: {}", cell(value)));
            }
        }
    }
}

/// A JSON value as a cell: strings without quotes, lists with commas.
pub(super) fn cell(value: &Json) -> String {
    match value {
        Json::Null => "-".into(),
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A payload on one line, for people.
pub(super) fn payload_text(payload: &Value) -> String {
    match std::str::from_utf8(&payload.bytes) {
        Err(_) if payload.kind == Kind::Bytes => format!("{} bytes", payload.bytes.len()),
        _ => String::from_utf8_lossy(&payload.bytes).into_owned(),
    }
}

/// Adds a payload, for programs: bytes that are text as `text`, others by their length, and a value
/// as it reads.
pub(super) fn put_payload(told: &mut Json, payload: &Value, value: impl FnOnce() -> Json) {
    match (payload.kind, std::str::from_utf8(&payload.bytes)) {
        (Kind::Bytes, Ok(text)) => told["text"] = text.into(),
        (Kind::Bytes, Err(_)) => told["bytes"] = payload.bytes.len().into(),
        _ => told["payload"] = value(),
    }
}
