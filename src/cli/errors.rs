//! `mpreg errors`: the registry of codes.

use clap::Args;
use mpreg_patterns::base::Code;
use serde_json::{Value as Json, json};

use super::output::{Failure, Format, json_line, line, table};

/// What a code means.
#[derive(Args, Debug)]
pub(super) struct Errors {
    /// The code; all of them if left out
    code: Option<String>,
}

impl Errors {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        match &self.code {
            None => all(format),
            Some(text) => match Code::find(text) {
                Some(code) => one(code, format),
                None => {
                    let message = format!(
                        "{text} is no code of the broker's; a worker may have \
                        made it up. `mpreg errors` lists them all"
                    );
                    return Err(Failure::new("unknown_code", message));
                }
            },
        }
        Ok(())
    }
}

fn about(code: Code) -> Json {
    json!({
        "code": code.as_str(),
        "culprit": code.culprit().as_str(),
        "retry": code.retry(),
        "meaning": code.meaning(),
        "advice": code.advice(),
    })
}

fn one(code: Code, format: Format) {
    match format {
        Format::Json => json_line(&about(code)),
        Format::Table => {
            let retry = if code.retry() { "may succeed later" } else { "will not help" };
            line(&format!("{}\n\n{}\n{}", code, code.meaning(), code.advice()));
            line(&format!(
                "\nWho has to act: {}. The same again: {retry}.",
                code.culprit().as_str()
            ));
        }
        Format::Quiet => {}
    }
}

fn all(format: Format) {
    match format {
        Format::Json => json_line(&Code::ALL.iter().map(|&code| about(code)).collect()),
        Format::Table => {
            let row = |code: &Code| {
                vec![code.to_string(), code.culprit().as_str().into(), code.meaning().into()]
            };
            let rows: Vec<_> = Code::ALL.iter().map(row).collect();
            table(&["CODE", "CULPRIT", "MEANING"], &rows);
        }
        Format::Quiet => {}
    }
}
