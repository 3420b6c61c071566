//! Calls with the Rust client and worker, each a process of its own.

use std::time::{Duration, Instant};

use mpreg_sockets::client::{Client, Error, ReadBody};
use serde_json::{Value as Json, json};

use crate::raw::Raw;
use crate::rig::{Broker, ask, turn, until};

#[tokio::test]
async fn a_call_goes_to_a_worker_and_back() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let client = broker.client().await;
    let value = json!({ "b": [1, 2.5, null], "a": "ä" });
    let result = client.call("echo").args(&[&value]).send().await.unwrap();
    assert_eq!(result.read::<Json>().unwrap(), value);
    let failed = client.call("fail").args(&["no paper"]).send().await.unwrap_err();
    assert_eq!(failed.to_string(), "failed: no paper");
}

#[tokio::test]
async fn progress_reaches_whoever_asked_for_it() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let client = broker.client().await;
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let result = client.call("steps").progress(sender).send().await.unwrap();
    assert_eq!(result.read::<String>().unwrap(), "there");
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push((event.event, event.percent));
    }
    let worker = |percent| ("progress", Some(percent));
    assert_eq!(seen, [("started", None), worker(25.0), worker(50.0), worker(75.0)]);
}

/// An error that says what was missing: the name, the version, or the loc.
#[tokio::test]
async fn a_call_without_a_worker_is_refused_at_once() {
    let _turn = turn();
    let broker = Broker::start();
    let _north = broker.workers(1, "loc=north").await;
    let client = broker.client().await;
    let refused = |call: mpreg_sockets::client::CallBuilder| async {
        let begun = Instant::now();
        let error = call.args(&[1]).send().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        error.to_string()
    };
    let name = refused(client.call("ecko")).await;
    assert!(name.starts_with("unknown_function: ") && name.contains("ecko"), "{name}");
    let version = refused(client.call("echo").version("^2")).await;
    assert!(version.starts_with("no_version: ") && version.contains("1.0.0"), "{version}");
    let loc = refused(client.call("echo").locs(["south"])).await;
    assert!(loc.starts_with("no_location: ") && loc.contains("south"), "{loc}");
    let result = client.call("echo").locs(["north"]).args(&[1]).send().await;
    assert_eq!(result.unwrap().read::<u8>().unwrap(), 1);
}

#[tokio::test]
async fn a_call_waits_for_its_worker_only_if_asked() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let call = client.call("echo").args(&["late"]).wait();
    let call = tokio::spawn(async move { call.send().await });
    until(&client, "mpreg.status", |status| status["requests"] == 2).await;
    let _workers = broker.workers(1, "").await;
    assert_eq!(call.await.unwrap().unwrap().read::<String>().unwrap(), "late");
    let begun = Instant::now();
    let call = client.call("nobody").wait().timeout(Duration::from_millis(200));
    assert_eq!(call.send().await.unwrap_err().code(), Some("timeout"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_runs() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "credit=1").await;
    let client = broker.client().await;
    let begun = Instant::now();
    let call = client.call("rest").args(&[10_000]).timeout(Duration::from_millis(150));
    assert_eq!(call.send().await.unwrap_err().code(), Some("timeout"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // The worker was told to stop: its only credit is free again.
    assert_eq!(client.call("echo").args(&[1]).send().await.unwrap().read::<u8>().unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_future_cancels_its_call() {
    let _turn = turn();
    let broker = Broker::start();
    let worker = Raw::dealer(&broker.door);
    worker.offer(&["hold"]);
    let client = broker.client().await;
    let call = client.call("hold").send();
    let given_up = tokio::time::timeout(Duration::from_millis(200), call).await;
    assert!(given_up.is_err());
    // The pong comes behind the cancel that the drop has led to.
    client.ping().await.unwrap();
    let run = worker.recv_op("run");
    assert_eq!(worker.recv(), json!({ "op": "cancel", "id": run["id"] }));
    // Until the worker answers, its credit is not free; the late outcome goes nowhere.
    assert_eq!(ask(&client, "mpreg.workers").await[0]["in_hand"], 1);
    worker.send(&json!({ "op": "result", "id": run["id"], "result": 0 }));
    until(&client, "mpreg.workers", |workers| workers[0]["in_hand"] == 0).await;
}

/// The less loaded of two: neither of two equal workers gets much more than half.
#[tokio::test]
async fn equal_workers_share_the_work() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(2, "credit=8").await;
    let client = broker.client().await;
    let call = |_| {
        let client = client.clone();
        async move {
            let pid = client.call("rest").args(&[5]).send().await.unwrap();
            pid.read::<u32>().unwrap()
        }
    };
    let calls: Vec<_> = (0..400).map(|number| tokio::spawn(call(number))).collect();
    let mut counts = std::collections::BTreeMap::new();
    for call in calls {
        *counts.entry(call.await.unwrap()).or_insert(0) += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|count| *count > 120), "{counts:?}");
}

#[tokio::test]
async fn more_in_flight_than_allowed_is_a_visible_refusal() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mpreg.toml");
    std::fs::write(&config, "port = 0\n[limits]\ncalls_per_peer = 10\n").unwrap();
    let broker = Broker::with(&["--config", config.to_str().unwrap()]);
    let _workers = broker.workers(1, "credit=64").await;
    let caller = Raw::dealer(&broker.door);
    for number in 0..12 {
        caller.call(&number.to_string(), "rest", &json!([300]));
    }
    let refused = [caller.recv(), caller.recv()];
    for (refused, id) in refused.iter().zip(["10", "11"]) {
        let told = (&refused["id"], &refused["error"]["code"], &refused["error"]["retry"]);
        assert_eq!(told, (&json!(id), &json!("busy"), &json!(true)));
    }
    for _ in 0..10 {
        assert_eq!(caller.recv()["op"], "result");
    }
}

#[tokio::test]
async fn where_no_broker_is_the_client_says_so() {
    let nobody = Client::connect_as("tcp://127.0.0.1:9", None, Duration::from_millis(300)).await;
    assert!(matches!(nobody, Err(Error::NoBroker { .. })), "{nobody:?}");
    assert!(matches!(Client::connect("nonsense").await, Err(Error::Address { .. })));
}

/// A run whose answer cannot be read ends at once, whether its id can be found or not.
#[tokio::test]
async fn an_answer_that_cannot_be_read_ends_its_run() {
    let _turn = turn();
    let broker = Broker::start();
    let (worker, caller) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    worker.offer(&["f"]);
    let large = format!(r#"{{"op":"result","result":"{}","id":ID}}"#, "x".repeat(5 << 20));
    for (answer, worker_hears, caller_hears) in [
        (r#"{"op":"result","id":ID,"result":NaN}"#, "bad_encoding", "bad_value"),
        (r#"{"op":"result","result":NaN,"#, "bad_encoding", "bad_value"),
        (&large, "too_large", "result_too_large"),
    ] {
        caller.call("a", "f", &json!([]));
        let run = worker.recv_op("run");
        worker.bytes(answer.replace("ID", &run["id"].to_string()).as_bytes());
        assert_eq!(worker.recv_op("error")["error"]["code"], worker_hears);
        let error = caller.recv_op("error");
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!("a"), &json!(caller_hears)));
        assert_eq!(error["error"]["culprit"], "worker");
    }
}
