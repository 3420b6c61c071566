//! Starting and stopping: what is printed, what is refused, what is finished first.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mpreg_sockets::client::ReadBody;
use rustix::process::Signal;
use serde_json::json;

use crate::raw::Raw;
use crate::rig::{Broker, PATIENCE, Process, json as parsed, mpreg, program, text, turn, until};

#[tokio::test]
async fn ready_says_where_everything_is() {
    let _turn = turn();
    let broker = Broker::start();
    assert_eq!(broker.banner["ready"], true);
    assert_eq!(broker.banner["pid"], broker.process.pid());
    let peer = Raw::dealer(&broker.door);
    peer.send(&json!({ "op": "hello" }));
    let welcome = peer.recv();
    for same in ["endpoints", "node", "version"] {
        assert_eq!(welcome[same], broker.banner[same], "{same}");
    }
}

/// Each connection is a file, and the limit that a shell gives is below a small crowd.
#[test]
fn the_limit_to_open_files_is_raised_and_told() {
    let _turn = turn();
    let data = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -Sn 128; exec \"$0\" \"$@\"").arg(program());
    shell.args(["serve", "--port", "0", "--output", "json", "--data"]).arg(data.path());
    let broker = Broker::run(&mut shell);
    let files = &broker.banner["files"];
    assert_eq!(files["was"], 128);
    assert!(files["limit"].is_null() || files["limit"].as_u64() > Some(128), "{files}");
    let crowd: Vec<Raw> = (0..200).map(|_| Raw::dealer(&broker.door)).collect();
    crowd.iter().for_each(Raw::ping);
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let _turn = turn();
    let broker = Broker::start();
    let port = broker.door.rsplit_once(':').unwrap().1;
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let second = mpreg(&["serve", "--output", "json", "--port", port, "--data", data]);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(text(&second.stdout), "", "nothing started");
    let error = parsed(&second.stderr)["error"].take();
    assert_eq!(error["code"], "cannot_bind");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("door") && message.contains(&format!("127.0.0.1:{port}")),
        "{message}"
    );
}

#[test]
fn an_ipc_address_and_ipv6_serve_as_well() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let bind = format!("ipc://{}/x", folder.path().display());
    let broker = Broker::with(&["--bind", &bind]);
    assert_eq!(broker.door, format!("{bind}.door"));
    Raw::dealer(&broker.door).ping();
    let broker = Broker::with(&["--bind", "::1", "--port", "0"]);
    assert!(broker.door.starts_with("tcp://[::1]:"), "{}", broker.door);
    Raw::with(&broker.door, |socket| socket.set_ipv6(true).unwrap()).ping();
}

#[test]
fn the_name_is_kept_in_the_data_folder() {
    let _turn = turn();
    let data = tempfile::tempdir().unwrap();
    let names = [(); 2].map(|()| Broker::at(&["--port", "0"], data.path()).banner["node"].clone());
    assert_eq!(names[0], names[1]);
}

/// What is in flight is finished, what is new is refused, and the process ends by itself.
#[tokio::test]
async fn a_terminated_broker_finishes_what_is_in_flight() {
    let _turn = turn();
    let mut broker = Broker::start();
    let _workers = broker.workers(1, "credit=4").await;
    let client = broker.client().await;
    let call = client.call("rest").args(&[1_500]);
    let call = tokio::spawn(async move { call.send().await });
    let graph = json!([
        { "name": "a", "fun": "rest", "args": [800] },
        { "name": "b", "fun": "echo", "args": [{ "$ref": "a" }] },
    ]);
    let asker = Raw::dealer(&broker.door);
    asker.send(&json!({ "op": "hello" }));
    asker.recv_op("welcome");
    asker.send(&json!({ "op": "graph", "id": "g", "steps": graph }));
    until(&client, "mpreg.workers", |workers| workers[0]["in_hand"] == 2).await;
    let told = Instant::now();
    broker.process.signal(Signal::TERM);
    assert_eq!(asker.recv_op("bye"), json!({ "op": "bye" }), "every peer hears of it");
    let refused = client.call("echo").args(&[1]).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("draining"), "{refused}");
    assert_eq!(asker.recv_op("result")["id"], "g", "the graph ends, its later steps included");
    call.await.unwrap().unwrap().read::<u32>().unwrap();
    assert!(broker.process.wait(PATIENCE).success());
    let took = told.elapsed();
    assert!(took < Duration::from_secs(3), "it ended {took:?} after the signal");
}

#[test]
fn a_broker_without_work_ends_at_once() {
    let _turn = turn();
    let mut broker = Broker::start();
    Raw::dealer(&broker.door).ping();
    let told = Instant::now();
    broker.process.signal(Signal::INT);
    assert!(broker.process.wait(PATIENCE).success());
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
}

/// Nobody has to wait for a drain that does not end.
#[tokio::test]
async fn a_second_signal_ends_a_drain() {
    let _turn = turn();
    let mut broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let peer = Raw::dealer(&broker.door);
    peer.send(&json!({ "op": "hello" }));
    peer.recv_op("welcome");
    peer.call("1", "rest", &json!([20_000]));
    peer.ping();
    broker.process.signal(Signal::TERM);
    peer.recv_op("bye");
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.wait(Duration::from_secs(2)).code(), Some(130));
}

/// A drain ends after `drain_ms`, whatever is still in flight.
#[tokio::test]
async fn a_drain_has_an_end() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mpreg.toml");
    std::fs::write(&config, "port = 0\ndrain_ms = 300\n").unwrap();
    let mut broker = Broker::with(&["--config", config.to_str().unwrap()]);
    let _workers = broker.workers(1, "").await;
    let peer = Raw::dealer(&broker.door);
    peer.call("1", "rest", &json!([20_000]));
    peer.ping();
    peer.send(&json!({ "op": "call", "id": "2", "fun": "nobody", "wait": true }));
    peer.ping();
    let told = Instant::now();
    broker.process.signal(Signal::TERM);
    for (id, code) in [("1", "outcome_unknown"), ("2", "draining")] {
        let error = peer.recv_op("error");
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!(id), &json!(code)));
        assert_eq!(error["error"]["culprit"], "broker");
    }
    assert!(broker.process.wait(Duration::from_secs(3)).success());
    assert!(told.elapsed() < Duration::from_millis(800), "{:?}", told.elapsed());
}

#[test]
fn a_config_file_is_read_and_unknown_keys_are_refused_by_name() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mpreg.toml");
    let serve = |content: &str| {
        std::fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap();
        mpreg(&["serve", "--output", "json", "--config", path])
    };
    for (content, named) in [
        ("port = 0\nprot = 1\n", "prot"),
        ("[limits]\nspeed = 1\n", "speed"),
        ("[limit]\n", "limit"),
        ("bind = \"0.0.0.0\"\n", "--insecure"),
        ("limits = { calls = 0 }\n", "calls"),
    ] {
        let refused = serve(content);
        assert_eq!(refused.status.code(), Some(1), "{content}");
        let error = parsed(&refused.stderr)["error"].take();
        assert_eq!(error["code"], "bad_config");
        assert!(error["message"].as_str().unwrap().contains(named), "{error}");
    }
    std::fs::write(&path, "port = 1\nnode = \"here\"\n[limits]\ncalls_per_peer = 7\n").unwrap();
    // What the command line says beats the file.
    let broker = Broker::with(&["--config", path.to_str().unwrap(), "--port", "0"]);
    assert_eq!(broker.banner["node"], "here");
    let peer = Raw::dealer(&broker.door);
    peer.send(&json!({ "op": "hello" }));
    assert_eq!(peer.recv()["limits"]["calls_per_peer"], 7);
}

#[test]
fn other_machines_are_let_in_only_when_asked_for() {
    let _turn = turn();
    let refused = mpreg(&["serve", "--port", "0", "--bind", "0.0.0.0", "--output", "json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--insecure"), "{}", text(&refused.stderr));
    let broker = Broker::with(&["--port", "0", "--bind", "0.0.0.0", "--insecure"]);
    let port = broker.door.rsplit_once(':').unwrap().1;
    Raw::dealer(&format!("tcp://127.0.0.1:{port}")).ping();
}

#[test]
fn a_data_folder_that_cannot_be_used_is_named() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut command = Command::new(program());
    command.args(["serve", "--port", "0", "--output", "json", "--data"]).arg(&file);
    let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
    assert_eq!(process.wait(PATIENCE).code(), Some(1));
    let error = process.stderr();
    assert!(error.contains("cannot_use_data") && error.contains(file.to_str().unwrap()), "{error}");
}
