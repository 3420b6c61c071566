//! Topics that are kept and waited for: replays that join what is published meanwhile, and graphs
//! whose steps wait for events.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value as Json, json};

use crate::pubsub::{row, until};
use crate::raw::Raw;
use crate::rig::{Broker, alone, is_release, turn};

const KEPT: &str = "[[topics.retain]]\npattern = \"kept.#\"\nmax_count = 1_000_000\n";
/// Events that are published while replays join, and how many in one message.
const EVENTS: u64 = 60_000;
const BATCH: u64 = 500;

/// Where the log stands.
fn next_seq(peer: &Raw) -> u64 {
    peer.ask("mpreg.topics", &json!({}))["logs"][0]["next_seq"].as_u64().unwrap()
}

/// Publishes numbered events as fast as the broker takes them, and says how far it is.
fn publish_all(broker: &Broker, taken: &AtomicU64) {
    let publisher = Raw::dealer(&broker.door);
    for first in (1..=EVENTS).step_by(BATCH as usize) {
        let event = |number: u64| {
            json!({ "op": "publish", "id": "p", "confirm": false, "payload": number,
                "topic": format!("kept.{}", number % 7) })
        };
        publisher.send(&(first..first + BATCH).map(event).collect());
        publisher.ping();
        taken.store(first + BATCH - 1, Ordering::Release);
    }
}

/// Reads a replay to its end: every number once, in order.
fn follow(peer: &Raw, credit: u64) {
    for expected in 1..=EVENTS {
        let event = peer.recv();
        assert_eq!(event["op"], "event", "{event}");
        let numbers = (&event["seq"], &event["payload"], &event["missed"]);
        assert_eq!(numbers, (&json!(expected), &json!(expected), &Json::Null));
        if expected % (credit / 2) == 0 {
            peer.send(&json!({ "op": "ack", "events": credit / 2 }));
        }
    }
    assert!(peer.poll(Duration::from_millis(20)).is_none(), "more than was published");
}

/// Five subscribers join a topic that is published to at full speed, each at a moment of its own.
#[test]
fn a_replay_joins_live_events_without_gap_or_repeat() {
    let _turn = turn();
    let broker = Broker::configured(KEPT);
    let (watch, taken) = (Raw::dealer(&broker.door), &AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (join, credit) in (0..).zip([16, 64, 256, 1_024, 16_384]) {
            let peer = Raw::dealer(&broker.door);
            peer.send(&json!({ "op": "hello", "batch": true }));
            peer.recv_op("welcome");
            scope.spawn(move || {
                while taken.load(Ordering::Acquire) < join * EVENTS / 6 {
                    std::thread::yield_now();
                }
                peer.subscribe(&["kept.#"], &json!({ "replay": "all", "credit": credit }));
                let joined = taken.load(Ordering::Acquire);
                println!("joined with a window of {credit} at about {joined}");
                follow(&peer, credit);
            });
        }
        publish_all(&broker, taken);
    });
    assert_eq!(next_seq(&watch), EVENTS + 1);
}

/// A log goes on where it was, without what was published in the last moments, after a kill -9 in
/// the middle of it all.
#[test]
fn a_log_outlives_the_broker() {
    let _turn = turn();
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("mpreg.toml");
    std::fs::write(&config, KEPT).unwrap();
    let start = || Broker::at(&["--port", "0", "--config", config.to_str().unwrap()], data.path());
    let mut kept = 0;
    for life in 1..=3 {
        let mut broker = start();
        let peer = Raw::dealer(&broker.door);
        let follower = Raw::dealer(&broker.door);
        follower.subscribe(&["kept.#"], &json!({ "replay": "all", "credit": 60_000 }));
        for number in 1..=kept {
            let event = follower.recv();
            assert_eq!((&event["seq"], &event["payload"]), (&json!(number), &json!(number)));
        }
        for number in kept + 1..kept + 1_000 {
            peer.publish("kept.a", &json!(number));
            let event = follower.recv();
            assert_eq!((&event["seq"], &event["payload"]), (&json!(number), &json!(number)));
            if number == kept + 500 {
                // What is safe now was asked for later.
                let message = json!({ "op": "send", "id": "s", "queue": "q", "payload": 1 });
                peer.send(&message);
                assert_eq!(peer.recv_op("sent")["durability"], "fsync");
            }
        }
        broker.process.kill();
        drop(broker);
        let broker = start();
        let next = next_seq(&Raw::dealer(&broker.door)) - 1;
        assert!((kept + 500..kept + 1_000).contains(&next), "{next} after {kept}, life {life}");
        kept = next;
    }
}

/// Starts a graph, whose reply comes later.
fn start(peer: &Raw, id: &str, steps: &Json) {
    peer.send(&json!({ "op": "graph", "id": id, "steps": steps }));
}

/// A step that waits, between one that runs before and one that takes what came.
fn waiting(kwargs: &Json, at: &str) -> Json {
    json!([
        { "name": "before", "fun": "echo", "args": ["ready"] },
        { "name": "event", "fun": "mpreg.topic.next", "kwargs": kwargs, "after": ["before"] },
        { "name": "after", "fun": "echo", "args": [{ "$ref": "event", "at": at }] },
    ])
}

#[rstest]
#[case::the_next(json!({}), "/payload/n", json!(1))]
#[case::the_one_that_is_wanted(json!({ "where": "payload.n > 2" }), "/payload/n", json!(3))]
#[case::some(json!({ "count": 2 }), "/1/payload", json!({ "n": 2 }))]
#[case::some_wanted(json!({ "count": 2, "where": "payload.n != 2" }), "/1/seq", json!(3))]
#[tokio::test]
async fn a_step_waits_for_an_event(
    #[case] ask: Json,
    #[case] at: &str,
    #[case] expected: Json,
    #[values(0, 150)] delay_ms: u64,
) {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let (caller, other) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    let mut kwargs = json!({ "pattern": "orders.*", "delay_ms": delay_ms });
    kwargs.as_object_mut().unwrap().extend(ask.as_object().unwrap().clone());
    start(&caller, "g", &waiting(&kwargs, at));
    until(|| row(&other, "orders.*").is_some());
    other.publish("elsewhere", &json!({ "n": 9 }));
    let published = Instant::now();
    (1..=3).for_each(|n| other.publish("orders.new", &json!({ "n": n })));
    let reply = caller.recv();
    assert_eq!(reply["results"], json!({ "after": expected }), "{reply}");
    assert!(published.elapsed() >= Duration::from_millis(delay_ms));
    assert_eq!(row(&other, "orders.*"), None);
}

#[tokio::test]
async fn a_step_waits_in_vain_or_is_given_up() {
    let _turn = turn();
    let broker = Broker::start();
    let _workers = broker.workers(1, "").await;
    let (caller, other) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    start(&caller, "late", &waiting(&json!({ "pattern": "late.*", "timeout_ms": 50 }), ""));
    let reply = caller.recv();
    let told = (&reply["error"]["code"], &reply["error"]["step"]);
    assert_eq!(told, (&json!("timeout"), &json!("event")), "{reply}");
    start(&caller, "given", &waiting(&json!({ "pattern": "given.*" }), ""));
    until(|| row(&other, "given.*").is_some());
    caller.send(&json!({ "op": "cancel", "id": "given" }));
    let reply = caller.recv();
    assert_eq!(reply["error"]["code"], "cancelled", "{reply}");
    // A fallback takes the place of what did not come, and a retry waits again.
    let again = json!({ "pattern": "again.*", "timeout_ms": 100 });
    let step = json!({ "name": "event", "fun": "mpreg.topic.next", "kwargs": again });
    let with = |field: &str, value: Json| {
        let mut step = step.clone();
        step[field] = value;
        json!([step])
    };
    start(&caller, "fallback", &with("fallback", json!({ "value": "none" })));
    assert_eq!(caller.recv()["results"], json!({ "event": "none" }));
    let mut retried = with("retry", json!({ "times": 50, "backoff_ms": 1 }));
    retried[0]["idempotent"] = json!(true);
    start(&caller, "retry", &retried);
    until(|| row(&other, "again.*").is_some());
    until(|| row(&other, "again.*").is_none());
    until(|| row(&other, "again.*").is_some());
    other.publish("again.x", &json!("there"));
    assert_eq!(caller.recv()["results"]["event"]["payload"], "there");
    assert_eq!(other.ask("mpreg.topics", &json!({}))["patterns"], 0);
}

/// A caller that goes takes its graphs and what they wait for along.
#[test]
fn who_waits_is_forgotten_with_its_connection() {
    let _turn = turn();
    let broker = Broker::start();
    let (caller, other) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    let kwargs = json!({ "pattern": "never.*" });
    start(&caller, "g", &json!([{ "name": "e", "fun": "mpreg.topic.next", "kwargs": kwargs }]));
    caller.send(&json!({ "op": "call", "id": "c", "fun": "mpreg.topic.next", "kwargs": kwargs }));
    until(|| row(&other, "never.*").is_some_and(|row| row["waiting"] == 2));
    drop(caller);
    until(|| row(&other, "never.*").is_none());
    let status = other.ask("mpreg.status", &json!({}));
    assert_eq!((&status["graphs_in_flight"], &status["waiting"]), (&json!(0), &json!(0)));
}

/// Those who wait are entries in a table: they cost nothing until what they wait for comes.
#[test]
fn a_thousand_graphs_wait_for_nothing() {
    const GRAPHS: u64 = 1_000;
    let _turn = alone();
    let broker = Broker::start();
    let (caller, other) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    for id in 0..GRAPHS {
        let kwargs = json!({ "pattern": "start", "where": format!("payload.go >= {id}") });
        let after = json!({ "pattern": "never", "timeout_ms": 1 });
        start(
            &caller,
            &id.to_string(),
            &json!([
                { "name": "event", "fun": "mpreg.topic.next", "kwargs": kwargs },
                { "name": "after", "fun": "mpreg.topic.next", "kwargs": after,
                  "after": ["event"], "fallback": { "value": { "$ref": "event" } } },
            ]),
        );
    }
    until(|| row(&other, "start").is_some_and(|row| row["waiting"] == GRAPHS));
    let (span, before) = (Duration::from_secs(2), broker.processor_time());
    std::thread::sleep(span);
    let used = broker.processor_time().saturating_sub(before);
    let percent = used.as_secs_f64() / span.as_secs_f64() * 100.0;
    println!("{GRAPHS} graphs that wait: {percent:.3} % of a core");
    assert!(percent < if is_release() { 1.0 } else { 3.0 }, "{percent:.3} % of a core");

    other.publish("start", &json!({ "go": GRAPHS / 2 }));
    let woken = Instant::now();
    let mut done: BTreeSet<u64> = BTreeSet::new();
    let mut finish = |count: u64| {
        while (done.len() as u64) < count {
            let reply = caller.recv();
            assert_eq!(reply["op"], "result", "{reply}");
            done.insert(reply["id"].as_str().unwrap().parse().unwrap());
        }
    };
    finish(GRAPHS / 2 + 1);
    assert!(caller.poll(Duration::from_millis(20)).is_none(), "not all were meant");
    other.publish("start", &json!({ "go": GRAPHS }));
    finish(GRAPHS);
    println!("all done {:?} after the first event", woken.elapsed());
}
