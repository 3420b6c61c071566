//! Queues through the real program: what is said to be safe is, whenever it is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use mpreg_sockets::client::Durability;
use serde_json::json;

use crate::ledger::{Shared, consume, drain, produce};
use crate::rig::{Broker, is_long, json, mpreg, text, turn};

/// Kills in a row, on one data folder.
fn kills() -> usize {
    if is_long() { 200 } else { 12 }
}

/// The broker is killed again and again while messages are sent and taken. Whatever was confirmed
/// is delivered afterwards, and what was confirmed as done never comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn what_was_confirmed_outlasts_kill_9() {
    let _turn = turn();
    let data = tempfile::tempdir().unwrap();
    let ledger = Shared::default();
    for round in 0..kills() {
        let mut broker = Broker::at(&["--port", "0"], data.path());
        let (sends, takes) = (broker.client().await, broker.client().await);
        let producer = tokio::spawn(produce(sends, "jobs", ledger.clone()));
        let consumer = tokio::spawn(consume(takes, "jobs", ledger.clone()));
        // Some moment of a life: the broker starts anew at another point of each commit.
        tokio::time::sleep(Duration::from_millis(20 + (round as u64 * 37) % 150)).await;
        broker.process.kill();
        producer.abort();
        consumer.abort();
        _ = tokio::join!(producer, consumer);
    }
    let broker = Broker::at(&["--port", "0"], data.path());
    drain(&broker, "jobs", &ledger).await;
    let ledger = ledger.lock().unwrap();
    println!("{ledger}");
    assert!(ledger.acknowledged() > 100 * kills() / 12, "it was hardly at work");
    ledger.check();
}

/// A data folder is one broker's at a time.
#[test]
fn a_second_broker_on_the_same_data_is_told_so() {
    let _turn = turn();
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap().to_owned();
    let _broker = Broker::at(&["--port", "0"], data.path());
    let second = mpreg(&["serve", "--port", "0", "--data", &path, "--output", "json"]);
    assert!(!second.status.success());
    let told = json(&second.stderr);
    assert_eq!(told["error"]["code"], "data_taken", "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains(&path), "{told}");
}

/// Every verb of `mpreg queue`, as a user would try them.
#[test]
fn the_command_line_of_queues() {
    let _turn = turn();
    let broker = Broker::start();
    let queue = |args: &[&str]| {
        // A command stands last.
        let before = ["--output", "json", "queue", "--broker", &broker.door];
        let ran = mpreg(&[&before, args].concat());
        assert!(ran.status.success(), "{args:?}: {}", text(&ran.stderr));
        text(&ran.stdout).to_owned()
    };
    let value = |args: &[&str]| json(queue(args).as_bytes());
    let declared = value(&["declare", "jobs", "--max-attempts", "2", "--backoff", "5ms"]);
    assert_eq!(
        (&declared["created"], &declared["settings"]["max_attempts"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(value(&["send", "jobs", r#"{"n":1}"#])["durability"], "fsync");
    assert_eq!(value(&["peek", "jobs"])["messages"][0]["payload"], json!({ "n": 1 }));
    assert_eq!(value(&["list"])[0]["ready"], 1);
    let taken = value(&["take", "jobs", "--count", "1", "--timeout", "10s"]);
    assert_eq!((&taken["payload"], &taken["attempt"]), (&json!({ "n": 1 }), &json!(1)));
    queue(&["send", "jobs", "bad"]);
    // It fails twice, which is as often as it may.
    queue(&["take", "jobs", "--count", "2", "--timeout", "10s", "--", "false"]);
    let dead = value(&["peek", "jobs", "--dead"]);
    assert_eq!(dead["messages"][0]["reason"], "attempts", "{dead}");
    assert_eq!(value(&["redrive", "jobs"])["messages"], 1);
    let watched = value(&["watch", "jobs", "--count", "1", "--interval", "10ms"]);
    assert_eq!((&watched["ready"], &watched["dead"]), (&json!(1), &json!(0)));
    assert_eq!(value(&["purge", "jobs"])["messages"], 1);
    assert_eq!(value(&["delete", "jobs"])["messages"], 0);
    let gone = broker.mpreg(&["queue", "list", "jobs", "--output", "json"]);
    assert_eq!(json(&gone.stderr)["error"]["code"], "unknown_queue");
}

/// A producer hears of each of its messages, in order where there is one queue; of what was open
/// when the broker is killed, that nobody knows.
#[tokio::test]
async fn a_producer_hears_of_each_message() {
    let _turn = turn();
    let mut broker = Broker::start();
    let client = broker.client().await;
    let small = json!({ "name": "small", "max_count": 10 });
    client.call("mpreg.queue.declare").kwargs(&small).send().await.unwrap();
    let mut producer = client.producer(500);
    for number in 0..5_000 {
        assert_eq!(producer.send(client.send("jobs").payload(&number)).await.unwrap(), number);
        assert!(producer.open() <= 500);
    }
    for number in 0..5_000 {
        let confirmed = producer.confirmed().await.unwrap();
        assert_eq!(confirmed.number, number);
        assert_eq!(confirmed.outcome.unwrap().durability, Durability::Fsync);
    }
    assert!(producer.confirmed().await.is_none() && producer.open() == 0);
    // What cannot be encoded was never sent.
    let wrong = client.send("jobs").payload(&BTreeMap::from([(vec![1], 1)]));
    assert!(producer.send(wrong).await.is_err());
    let mut refused = 0;
    for number in 5_000..5_015 {
        assert_eq!(producer.send(client.send("small").payload(&number)).await.unwrap(), number);
    }
    while let Some(confirmed) = producer.confirmed().await {
        refused +=
            u32::from(confirmed.outcome.is_err_and(|error| error.code() == Some("queue_full")));
    }
    assert_eq!(refused, 5);
    let mut jobs = client.consume("jobs", None, 100).await.unwrap();
    for number in 0..100_u64 {
        assert_eq!(jobs.next().await.unwrap().read::<u64>().unwrap(), number);
    }
    broker.process.signal(rustix::process::Signal::STOP);
    let number = producer.send(client.send("jobs").payload(&1)).await.unwrap();
    broker.process.kill();
    let confirmed = producer.confirmed().await.unwrap();
    assert_eq!(confirmed.number, number);
    assert_eq!(confirmed.outcome.unwrap_err().code(), Some("outcome_unknown"));
}
