//! Two reports of one bench beside each other.

use std::path::Path;

use serde_json::Value as Json;

use crate::Outcome;
use crate::report::{Table, Told, figure, ratio};

/// What is not a figure of a contender.
const ASIDE: [&str; 5] = ["rounds", "machine", "options", "goals", "load_after"];

/// Every figure of both, and the second by the first.
pub(crate) fn run(before: &Path, after: &Path) -> Outcome<Told> {
    let read =
        |path: &Path| -> Outcome<Json> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let (before, after) = (read(before)?, read(after)?);
    if before["bench"] != after["bench"] {
        let (one, other) = (&before["bench"], &after["bench"]);
        return Err(format!("a report of {one} and one of {other} have nothing in common").into());
    }
    let mut table = Table::new(&["", "before", "after", "x"]);
    let figures = figures(&before, &after);
    for (name, before, after) in &figures {
        let by = (*before != 0.0).then(|| after / before);
        table.row([name.clone(), figure(*before), figure(*after), ratio(by)]);
    }
    let on = |of: &Json| {
        let machine = &of["machine"];
        format!("{}, load {} to {}", machine["cpu"], machine["load"], of["load_after"])
    };
    let text = format!("before: {}\nafter:  {}\n\n{table}", on(&before), on(&after));
    Told::of(&figures, text)
}

/// The figures that both have, by the way to them.
fn figures(before: &Json, after: &Json) -> Vec<(String, f64, f64)> {
    let mut found = Vec::new();
    walk("", before, after, &mut found);
    found
}

fn walk(name: &str, before: &Json, after: &Json, found: &mut Vec<(String, f64, f64)>) {
    let below = |part: &str| match name {
        "" => part.to_owned(),
        name => format!("{name} {part}"),
    };
    match (before, after) {
        (Json::Number(before), Json::Number(after)) => {
            if let (Some(before), Some(after)) = (before.as_f64(), after.as_f64()) {
                found.push((name.to_owned(), before, after));
            }
        }
        (Json::Object(fields), Json::Object(others)) => {
            for (field, before) in fields.iter().filter(|(field, _)| !ASIDE.contains(&&***field)) {
                if let Some(after) = others.get(field) {
                    walk(&below(field), before, after, found);
                }
            }
        }
        // Those who took part in both, whatever their places.
        (Json::Array(ours), Json::Array(theirs)) => {
            for before in ours {
                let Some(of) = name_of(before) else { continue };
                if let Some(after) = theirs.iter().find(|after| name_of(after) == Some(of)) {
                    walk(&below(of), before, after, found);
                }
            }
        }
        _ => {}
    }
}

fn name_of(standing: &Json) -> Option<&str> {
    standing["name"].as_str().or_else(|| standing["contender"]["name"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_meet_by_name() {
        let of = |rate: f64, extra: &str| {
            json!({
                "bench": "rpc", "load_after": rate, "machine": { "load": 1 },
                "saturated": [
                    { "name": extra, "rate": 1.0 },
                    { "name": "mpreg", "rate": rate, "to": { "proxy": 2.0 }, "rounds": [rate] },
                ],
            })
        };
        let found = figures(&of(5.0, "gone"), &of(10.0, "new"));
        let rate = ("saturated mpreg rate".to_owned(), 5.0, 10.0);
        let to = ("saturated mpreg to proxy".to_owned(), 2.0, 2.0);
        assert_eq!(found, [rate, to]);
    }
}
