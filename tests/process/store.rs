//! `mpreg store`, on data that no broker uses.

use std::path::Path;
use std::sync::Arc;

use mpreg::store::{Options, Store, folder};
use mpreg_patterns::base::RunId;
use mpreg_patterns::ops::Event;
use mpreg_patterns::store::{Ask, Message, Place};
use mpreg_patterns::values::Value;
use serde_json::json;

use crate::rig::{json as parsed, mpreg, turn};

/// A data folder with a queue of three messages.
fn fill(data: &Path) -> std::path::PathBuf {
    let folder = folder(data);
    let (mut store, _) = Store::open(&folder, &Options::default(), || {}).unwrap();
    store.ask(Ask::Line { line: 4, about: r#"{"queue":"jobs"}"#.into() });
    for seq in 1..=3 {
        let payload = Value::json(format!("\"message number {seq}\""));
        let event = Event { topic: "".into(), payload, headers: None, message: RunId(1) };
        let (event, key, death) = (Arc::new(event), None, None);
        let message = Message { event, key, priority: 4, attempts: 0, expires_ms: None, death };
        let place = Place { line: 4, lane: 5, at_ms: 0, seq };
        store.ask(Ask::Put { place, message: Arc::new(message) });
    }
    drop(store);
    folder.join("data.mdb")
}

#[test]
fn a_damaged_store_is_told_and_the_rest_of_it_rescued() {
    let _turn = turn();
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let file = fill(&data);
    let run = |args: &[&str]| {
        let data = ["--data", data.to_str().unwrap(), "--output", "json"];
        mpreg(&[&["store"], args, &data].concat())
    };
    let sound = run(&["check"]);
    assert!(sound.status.success());
    let line = json!({ "line": 4, "queue": "jobs", "ready": 3, "delayed": 0, "dead": 0 });
    assert_eq!(parsed(&sound.stdout)["lines"], json!([line]));

    let mut bytes = std::fs::read(&file).unwrap();
    let places: Vec<usize> =
        (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"message number 2")).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] = b'M');
    std::fs::write(&file, bytes).unwrap();
    let rescued = temp.path().join("rescued.mdb");
    for args in [&["check"][..], &["check", "--salvage", rescued.to_str().unwrap()]] {
        let damaged = run(args);
        assert_eq!(damaged.status.code(), Some(1));
        assert_eq!(parsed(&damaged.stderr)["error"]["code"], "data_damaged");
        let report = parsed(&damaged.stdout);
        assert_eq!(report["damaged"].as_array().unwrap().len(), 1, "{report}");
        let damage = &report["damaged"][0];
        assert_eq!((&damage["queue"], &damage["seq"]), (&json!("jobs"), &json!(2)));
    }
    std::fs::rename(&rescued, &file).unwrap();
    assert_eq!(parsed(&run(&["check"]).stdout)["lines"][0]["ready"], 2);
    let compacted = parsed(&run(&["compact"]).stdout);
    assert!(compacted["bytes_after"].as_u64() <= compacted["bytes_before"].as_u64());
    assert_eq!(parsed(&run(&["check"]).stdout)["lines"][0]["ready"], 2);
}

#[test]
fn a_folder_without_a_store_gets_none() {
    let _turn = turn();
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().to_str().unwrap();
    for command in ["check", "compact"] {
        let none = mpreg(&["store", command, "--data", data, "--output", "json"]);
        assert_eq!(parsed(&none.stderr)["error"]["code"], "cannot_use_data");
    }
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}
