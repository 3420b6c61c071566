//! Routes from the command line, and their table on disk.

use serde_json::json;

use crate::rig::{Broker, json, mpreg, text, turn};

/// Every verb of `mpreg route`, as a user would try them.
#[test]
fn the_command_line_of_routes() {
    let _turn = turn();
    let broker = Broker::start();
    let value = |args: &[&str]| {
        let ran = broker.mpreg(&[args, &["--output", "json"]].concat());
        assert!(ran.status.success(), "{args:?}: {}", text(&ran.stderr));
        json(&ran.stdout)
    };
    let shown = |args: &[&str]| text(&broker.mpreg(args).stdout).to_owned();
    let failure = |args: &[&str]| {
        let failed = broker.mpreg(&[args, &["--output", "json"]].concat());
        assert!(!failed.status.success(), "{args:?}");
        json(&failed.stderr)["error"]["code"].as_str().unwrap().to_owned()
    };
    assert!(shown(&["route", "list"]).contains("there is no route"));
    let added = value(
        &[
            &["route", "add", "eu", "--bind", "orders.#", "--bind", "bills.*", "--to", "a", "--to"]
                [..],
            &["b", "--strategy", "round_robin", "--when", "payload.region == 'eu'"],
            &["--set", "payload=payload.n == 1 ? 'one' : 'more'", "--set", "headers.from=topic"],
        ]
        .concat(),
    );
    assert_eq!(added, json!({ "route": "eu", "version": 1, "table_version": 1 }));
    for (number, queue, seen) in [(1, "a", "one"), (2, "b", "more")] {
        let payload = format!(r#"{{"region":"eu","n":{number}}}"#);
        assert_eq!(value(&["queue", "send", "--topic", "orders.new", &payload])["queues"], 1);
        let taken = value(&["queue", "take", queue, "--count", "1", "--timeout", "10s"]);
        assert_eq!(
            (&taken["payload"], &taken["headers"]["from"]),
            (&json!(seen), &json!("orders.new"))
        );
    }
    let us = ["queue", "send", "--topic", "orders.new", r#"{"region":"us"}"#];
    assert_eq!(failure(&us), "unroutable");
    let table = shown(&["route", "list"]);
    let row = table.lines().nth(1).unwrap_or_default();
    assert!(table.starts_with("ROUTE") && row.contains("bills.*,orders.#"), "{table}");
    assert!(row.contains("round_robin") && row.ends_with("2        2     0"), "{table}");
    let listed = value(&["route", "list"]);
    assert_eq!(listed["routes"][0]["set"]["headers"], json!({ "from": "topic" }));
    let quiet = broker.mpreg(&["route", "list", "--output", "quiet"]);
    assert!(quiet.status.success() && quiet.stdout.is_empty());

    let add = |more: &[&'static str]| {
        [&["route", "add", "eu", "--bind", "t", "--to", "a"][..], more].concat()
    };
    assert_eq!(failure(&add(&["--if-version", "7"])), "route_changed");
    assert_eq!(failure(&add(&["--set", "payload"])), "bad_args");
    assert_eq!(failure(&add(&["--set", "headers=null", "--set", "headers.a=1"])), "bad_args");
    assert_eq!(failure(&add(&["--when", "payload."])), "bad_expression");
    assert_eq!(value(&add(&["--if-version", "1"]))["version"], 2);
    assert_eq!(failure(&["route", "remove", "eu", "--if-version", "1"]), "route_changed");
    value(&add(&[]));
    assert_eq!(value(&["route", "remove", "eu", "--if-version", "3"])["table_version"], 4);
    assert_eq!(failure(&["route", "remove", "eu"]), "unknown_route");
}

/// `mpreg store check` counts routes, and `--salvage` copies their table.
#[test]
fn the_table_of_routes_is_rescued_with_the_rest() {
    let _turn = turn();
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::at(&["--port", "0"], data.path());
    let added = broker.mpreg(&["route", "add", "eu", "--bind", "t", "--to", "a"]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    drop(broker);
    let store = |args: &[&str]| {
        let data = ["--data", data.path().to_str().unwrap(), "--output", "json"];
        json(&mpreg(&[&["store"], args, &data].concat()).stdout)
    };
    let rescued = data.path().join("rescued.mdb");
    let report = store(&["check", "--salvage", rescued.to_str().unwrap()]);
    assert_eq!((&report["routes"], &report["damaged"]), (&json!(1), &json!([])), "{report}");
    std::fs::rename(&rescued, report["file"].as_str().unwrap()).unwrap();
    assert_eq!(store(&["check"])["routes"], 1);
    let again = Broker::at(&["--port", "0"], data.path());
    let listed = json(&again.mpreg(&["route", "list", "--output", "json"]).stdout);
    assert_eq!((&listed["table_version"], &listed["routes"][0]["version"]), (&json!(1), &json!(1)));
}
