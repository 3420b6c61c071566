//! Graphs with worker processes: order, values, failures, size.

use std::time::{Duration, Instant};

use mpreg_sockets::client::{Client, ReadBody, Step};
use serde_json::{Value as Json, json};

use crate::raw::Raw;
use crate::rig::{Broker, is_long, turn, until};

/// Sends a graph as JSON and returns the reply without its ULID.
fn run(broker: &Broker, fields: Json) -> Json {
    let peer = Raw::dealer(&broker.door);
    let mut graph = json!({ "op": "graph", "id": "g" });
    graph.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    peer.send(&graph);
    let mut reply = peer.recv();
    reply.as_object_mut().unwrap().remove("track");
    reply
}

#[tokio::test]
async fn values_flow_along_references() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(2, "").await;
    let steps = json!([
        { "name": "in/a", "fun": "echo", "args": [{ "rows": [1, 2, 3] }] },
        { "name": "in/b", "fun": "echo", "args": [40] },
        { "name": "sum", "fun": "add",
          "args": [{ "$ref": "in/b" }, { "$ref": "in/a", "at": "/rows/1" }] },
        { "name": "quoted", "fun": "echo", "args": [{ "$lit": { "$ref": "sum" } }] },
        { "name": "after", "fun": "echo", "args": ["x"], "after": ["sum"] },
    ]);
    let reply = run(&broker, json!({ "steps": steps }));
    let results = json!({ "sum": 42, "quoted": { "$ref": "sum" }, "after": "x" });
    let sinks = json!({ "quoted": results["quoted"], "after": "x" });
    assert_eq!(reply, json!({ "op": "result", "id": "g", "results": sinks }));
    let reply = run(&broker, json!({ "steps": steps, "return": ["sum"] }));
    assert_eq!(reply["results"], json!({ "sum": 42 }));
    let reply = run(&broker, json!({ "steps": steps, "return": "all" }));
    assert_eq!(reply["results"].as_object().unwrap().len(), 5);
}

#[tokio::test]
async fn a_failed_step_fails_what_hangs_off_it() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(2, "").await;
    let steps = json!([
        { "name": "bad", "fun": "fail", "args": ["broken"] },
        { "name": "next", "fun": "echo", "args": [{ "$ref": "bad" }] },
        { "name": "slow", "fun": "rest", "args": [20_000] },
        { "name": "good", "fun": "echo", "args": [1] },
    ]);
    let begun = Instant::now();
    let reply = run(&broker, json!({ "steps": steps }));
    assert!(begun.elapsed() < Duration::from_secs(2), "the slow sibling is cancelled");
    assert_eq!((&reply["op"], &reply["error"]["step"]), (&json!("error"), &json!("bad")));
    assert_eq!(
        (&reply["error"]["code"], &reply["error"]["message"]),
        (&json!("failed"), &json!("broken"))
    );
    let state = |step: &str| reply["steps"][step]["state"].clone();
    assert_eq!([state("bad"), state("next"), state("slow")], ["failed", "skipped", "cancelled"]);
    let steps = json!([steps[0], steps[1], { "name": "good", "fun": "rest", "args": [50] }]);
    let reply = run(&broker, json!({ "steps": steps, "on_error": "continue" }));
    assert_eq!(reply["steps"]["good"]["state"], "done");
    assert!(reply["results"]["good"].is_u64(), "{reply}");
}

#[tokio::test]
async fn retry_and_fallback_stand_in() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let worker = Raw::dealer(&broker.door);
    worker.offer(&["flaky"]);
    let step = json!({ "name": "a", "fun": "flaky", "retry": { "times": 3, "backoff_ms": 20 } });
    let caller = Raw::dealer(&broker.door);
    caller.send(&json!({ "op": "graph", "id": "g", "steps": [step] }));
    for outcome in [
        json!({ "op": "error", "error": "not yet" }),
        json!({ "op": "error", "error": { "code": "later", "message": "still not" } }),
        json!({ "op": "result", "result": "third" }),
    ] {
        let mut outcome = outcome;
        outcome["id"] = worker.recv_op("run")["id"].clone();
        worker.send(&outcome);
    }
    assert_eq!(caller.recv()["results"], json!({ "a": "third" }));
    let steps = json!([
        { "name": "a", "fun": "fail", "args": ["x"], "fallback": { "value": [7] } },
        { "name": "b", "fun": "fail", "args": ["x"], "fallback": { "fun": "add", "args": [1, 1] } },
        { "name": "c", "fun": "echo", "args": [[{ "$ref": "a" }, { "$ref": "b" }]] },
    ]);
    let reply = run(&broker, json!({ "steps": steps }));
    assert_eq!(reply["results"], json!({ "c": [[7], 2] }), "{reply}");
    assert_eq!(reply["steps"]["a"]["state"], "degraded");
}

#[tokio::test]
async fn what_is_wrong_with_a_graph_is_said_before_anything_runs() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let step =
        |name: &str, on: &str| json!({ "name": name, "fun": "echo", "args": [{ "$ref": on }] });
    let root = json!({ "name": "a", "fun": "echo", "args": [1] });
    for (steps, code, words) in [
        (json!([]), "bad_graph", "a graph needs a step"),
        (json!([root, root]), "duplicate_step", "a"),
        (json!([step("a", "gone")]), "unknown_step", "gone"),
        (json!([step("a", "c"), step("b", "a"), step("c", "b")]), "cycle", "→"),
        (json!([{ "name": "a", "fun": "nobody" }]), "unknown_function", "nobody"),
        (json!([{ "name": "a", "fun": "mpreg.nothing" }]), "unknown_function", "mpreg.nothing"),
        (json!([{ "name": "a" }]), "bad_field", "a"),
        (json!([{ "fun": "echo" }]), "bad_field", "name"),
        (json!([1]), "bad_field", "step"),
    ] {
        let reply = run(&broker, json!({ "steps": steps }));
        let told = (&reply["op"], &reply["id"], &reply["error"]["code"]);
        assert_eq!(told, (&json!("error"), &json!("g"), &json!(code)), "{reply}");
        assert!(reply["error"]["message"].as_str().unwrap().contains(words), "{reply}");
        assert!(reply.get("steps").is_none() && reply.get("results").is_none(), "{reply}");
    }
}

#[tokio::test]
async fn a_cancelled_graph_tells_its_workers() {
    let _turn = turn();
    let broker = Broker::start();
    let (worker, caller) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    worker.offer(&["hold"]);
    caller.send(&json!({ "op": "graph", "id": "g", "steps": [{ "name": "a", "fun": "hold" }] }));
    let run = worker.recv_op("run");
    caller.send(&json!({ "op": "cancel", "id": "g" }));
    let reply = caller.recv();
    assert_eq!((&reply["op"], &reply["error"]["code"]), (&json!("error"), &json!("cancelled")));
    assert_eq!(worker.recv(), json!({ "op": "cancel", "id": run["id"] }));
}

/// One of two workers is killed while a graph runs: its steps run again on the other.
#[tokio::test]
async fn a_graph_survives_the_death_of_a_worker() {
    let _turn = turn();
    let broker = Broker::start();
    let mut workers = broker.workers(2, "credit=16").await;
    let client = broker.client().await;
    let mut graph = client.graph();
    for number in 0..200 {
        graph = graph.step(Step::new(&format!("s{number}"), "rest").args([json!(20)]));
    }
    let graph = tokio::spawn(graph.send());
    until(&client, "mpreg.workers", |workers| {
        workers.as_array().unwrap().iter().all(|worker| worker["in_hand"] == 16)
    })
    .await;
    workers[0].kill();
    let reply = graph.await.unwrap().unwrap();
    assert!(reply.error.is_none(), "{:?}", reply.error);
    assert_eq!(reply.results.len(), 200);
}

/// Leaves, then pairs of pairs up to one root.
fn tree(client: &Client, leaves: usize) -> mpreg_sockets::client::GraphBuilder {
    let mut graph = client.graph().timeout(Duration::from_secs(120));
    let mut level: Vec<String> = (0..leaves).map(|leaf| format!("0/{leaf}")).collect();
    for name in &level {
        graph = graph.step(Step::new(name, "add").args([json!(1)]));
    }
    let mut height = 0;
    while level.len() > 1 {
        height += 1;
        let pair = |(index, pair): (usize, &[String])| {
            let args: Vec<Json> = pair.iter().map(|name| Step::result_of(name)).collect();
            let name = format!("{height}/{index}");
            (name.clone(), Step::new(&name, "add").args(args))
        };
        let (names, steps): (Vec<_>, Vec<_>) = level.chunks(2).enumerate().map(pair).unzip();
        for step in steps {
            graph = graph.step(step);
        }
        level = names;
    }
    graph
}

#[tokio::test]
async fn a_tree_in_parts_adds_up() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(2, "credit=1024").await;
    let client = broker.client().await;
    let leaves = if is_long() { 65_536 } else { 16_384 };
    let reply = tree(&client, leaves).send().await.unwrap();
    assert!(reply.error.is_none(), "{:?}", reply.error);
    let [(_, sum)] = &reply.results[..] else { panic!("one sink, not {}", reply.results.len()) };
    assert_eq!(sum.read::<usize>().unwrap(), leaves);
}

/// A part that never comes is an error after `graph_part_ms`, and a gap at once.
#[tokio::test]
async fn a_graph_with_a_missing_part_is_refused() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mpreg.toml");
    std::fs::write(&config, "port = 0\n[limits]\ngraph_part_ms = 200\n").unwrap();
    let broker = Broker::with(&["--config", config.to_str().unwrap()]);
    let peer = Raw::dealer(&broker.door);
    let part = |id: &str, part: u32| {
        json!({ "op": "graph", "id": id, "part": part, "more": true,
            "steps": [{ "name": format!("s{part}"), "fun": "echo" }] })
    };
    peer.send(&part("gap", 0));
    peer.send(&part("gap", 2));
    peer.send(&part("silence", 0));
    peer.send(&part("headless", 1));
    let mut told = Vec::new();
    for _ in 0..3 {
        let reply = peer.recv();
        assert_eq!(reply["error"]["code"], "incomplete_graph", "{reply}");
        told.push(reply["id"].as_str().unwrap().to_owned());
    }
    told.sort_unstable();
    assert_eq!(told, ["gap", "headless", "silence"]);
}
