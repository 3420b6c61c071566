//! `mpreg status`, `mpreg workers`, `mpreg functions`.

use mpreg_sockets::client::{Client, ReadBody};
use serde_json::{Value as Json, json};

use super::output::{Failure, Format, cell, json_line, line, table};
use super::{Target, block_on};

async fn ask(target: &Target, fun: &str) -> Result<Json, Failure> {
    let client = Client::connect(&target.broker).await?;
    Ok(client.call(fun).send().await?.read()?)
}

pub(super) fn status(target: &Target, format: Format) -> Result<(), Failure> {
    let status = block_on(async {
        let client = Client::connect(&target.broker).await?;
        let mut status: Json = client.call("mpreg.status").send().await?.read()?;
        status["client"] = json!({ "paths": client.paths() });
        Ok::<_, Failure>(status)
    })?;
    match format {
        Format::Json => json_line(&status),
        Format::Quiet => {}
        Format::Table => {
            let mut rows = Vec::new();
            flatten("", &status, &mut rows);
            table(&["WHAT", "IS"], &rows);
        }
    }
    Ok(())
}

/// Nested objects, and lists of them, as rows with dotted names.
fn flatten(prefix: &str, value: &Json, rows: &mut Vec<Vec<String>>) {
    let below = |name: &str| match prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}.{name}"),
    };
    match value {
        Json::Object(fields) => {
            // A histogram is for programs: people have its percentiles.
            let fields = fields.iter().filter(|(name, _)| *name != "up_to");
            fields.for_each(|(name, value)| flatten(&below(name), value, rows));
        }
        Json::Array(items) if items.iter().any(Json::is_object) => {
            let items = items.iter().enumerate();
            items.for_each(|(at, item)| flatten(&below(&at.to_string()), item, rows));
        }
        value => rows.push(vec![prefix.to_owned(), cell(value)]),
    }
}

pub(super) fn workers(target: &Target, format: Format) -> Result<(), Failure> {
    let workers = block_on(ask(target, "mpreg.workers"))?;
    let columns = ["worker", "name", "state", "in_hand", "credit", "locs", "functions"];
    rows(&workers, &columns, "no workers; start one with `mpreg work NAME -- COMMAND`", format);
    Ok(())
}

pub(super) fn functions(target: &Target, format: Format) -> Result<(), Failure> {
    let functions = block_on(ask(target, "mpreg.functions"))?;
    let columns = ["name", "version", "worker", "idempotent", "locs", "doc"];
    rows(&functions, &columns, "no functions; start one with `mpreg work NAME -- COMMAND`", format);
    Ok(())
}

pub(super) fn rows(list: &Json, columns: &[&str], empty: &str, format: Format) {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    match format {
        Format::Json => json_line(list),
        Format::Quiet => {}
        Format::Table if items.is_empty() => line(empty),
        Format::Table => {
            let row = |item: &Json| columns.iter().map(|column| cell(&item[column])).collect();
            let rows: Vec<Vec<String>> = items.iter().map(row).collect();
            let heading: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
            table(&heading.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        }
    }
}
