//! `mpreg demo`.
use super::output::{Failure, Format};
use clap::Args;
/// See it work.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Folder whose text files are read
    #[arg(long, value_name = "DIR")]
    input: Option<std::path::PathBuf>,
}
impl Demo {
    pub(super) fn run(&self, _format: Format) -> Result<(), Failure> {
        let _ = &self.input;
        Ok(())
    }
}
