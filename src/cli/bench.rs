//! `mpreg bench`: the program that measures, which is installed beside this one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::output::{Failure, Format};

const PROGRAM: &str = "mpreg-bench";

#[derive(clap::Args, Debug)]
pub(super) struct Bench {
    /// What to measure, and how: `mpreg bench help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Bench {
    /// Becomes that program: baselines and load generators are not part of a broker.
    pub(super) fn run(self, format: Format) -> Result<(), Failure> {
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
        let program =
            beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM));
        let mut command = Command::new(&program);
        command.args(self.args);
        if format == Format::Json {
            command.arg("--json");
        }
        let why = command.exec();
        let message = format!(
            "{PROGRAM} is neither beside mpreg nor in the PATH ({why}); build it with \
             `cargo build --release -p mpreg-bench`"
        );
        Err(Failure::new("no_bench", message))
    }
}
