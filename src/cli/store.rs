//! `mpreg store`: what is in the data folder, looked over while no broker uses it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Failure, Format, json_line, line, table};
use crate::config::Config;
use crate::store::{self, Damage, Report, StoreError};

/// Look after what is kept on disk, while no broker uses it.
#[derive(Args, Debug)]
pub(super) struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Read everything and say what is damaged; exit code 1 if anything is
    Check(Check),
    /// Give the file's free room back to the disk
    Compact(Folder),
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    folder: Folder,
    /// Copy what can be read into this new file; it can then take the place of the damaged one
    #[arg(long, value_name = "FILE")]
    salvage: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Folder {
    /// The broker's data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Folder {
    fn store(&self) -> PathBuf {
        let config = Config { data: self.data.clone(), ..Config::default() };
        store::folder(&config.data_dir())
    }
}

impl Store {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        match &self.command {
            Command::Check(check) => check.run(format),
            Command::Compact(folder) => compact(folder, format),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Check {
    fn run(&self, format: Format) -> Result<(), Failure> {
        let folder = self.folder.store();
        let report = match &self.salvage {
            Some(file) => store::salvage(&folder, file)?,
            None => store::check(&folder)?,
        };
        match format {
            Format::Json => json_line(&json!(report)),
            Format::Table => print(&report),
            Format::Quiet => {}
        }
        if report.damaged.is_empty() {
            return Ok(());
        }
        let found = format!("{} damaged places", report.damaged.len());
        let message = match &self.salvage {
            Some(file) => format!("{found}; the rest is in {}", file.display()),
            None => format!("{found} in {}; --salvage rescues the rest", report.file.display()),
        };
        Err(Failure::new("data_damaged", message))
    }
}

fn print(report: &Report) {
    let text = |queue: &Option<String>| queue.clone().unwrap_or_else(|| "-".into());
    let row = |of: &store::LineReport| {
        let counts = [of.ready, of.delayed, of.dead].map(|count| count.to_string());
        [of.line.to_string(), text(&of.queue)].into_iter().chain(counts).collect()
    };
    let rows: Vec<_> = report.lines.iter().map(row).collect();
    table(&["LINE", "QUEUE", "READY", "DELAYED", "DEAD"], &rows);
    if report.routes > 0 {
        line(&format!("\nroutes: {}", report.routes));
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".into(), |it| it.to_string());
    let row = |of: &Damage| {
        vec![number(of.line.map(u64::from)), text(&of.queue), number(of.seq), of.what.clone()]
    };
    let damaged: Vec<_> = report.damaged.iter().chain(&report.set_aside).map(row).collect();
    if !damaged.is_empty() {
        line("");
        table(&["LINE", "QUEUE", "SEQ", "DAMAGE"], &damaged);
    }
}

fn compact(folder: &Folder, format: Format) -> Result<(), Failure> {
    let (before, after) = store::compact(&folder.store())?;
    match format {
        Format::Json => json_line(&json!({ "bytes_before": before, "bytes_after": after })),
        Format::Table => line(&format!("{before} bytes before, {after} after")),
        Format::Quiet => {}
    }
    Ok(())
}
