//! Peers that do not read: they delay nobody, cost a bounded amount of memory, and are counted.

use std::time::{Duration, Instant};

use mpreg_sockets::client::ReadBody;
use serde_json::json;

use crate::raw::Raw;
use crate::rig::{Broker, alone, ask, turn, until};

const MIB: u64 = 1 << 20;

/// A peer that reads nothing, with as little room of its own as ZeroMQ allows.
fn deaf(broker: &Broker) -> Raw {
    Raw::with(&broker.door, |socket| {
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvbuf(64 << 10).unwrap();
    })
}

/// Requests in flight in the whole broker, beside the question itself.
fn requests(watch: &Raw) -> u64 {
    watch.call("status", "mpreg.status", &json!([]));
    watch.recv()["result"]["requests"].as_u64().unwrap() - 1
}

#[tokio::test]
async fn a_caller_that_does_not_read_delays_nobody() {
    let _turn = alone();
    let broker = Broker::start();
    let _workers = broker.workers(1, "credit=64").await;
    let client = broker.client().await;
    client.call("echo").args(&[1]).send().await.unwrap();
    let before = broker.resident_bytes();
    let deaf = deaf(&broker);
    let text = "x".repeat(64 << 10);
    let watch = Raw::dealer(&broker.door);
    let flood = std::thread::spawn(move || {
        // 256 MiB of results that nobody reads, never many of them on the way.
        for number in 0..4_000 {
            deaf.call(&number.to_string(), "echo", &json!([text]));
            while number % 16 == 0 && requests(&watch) > 16 {}
        }
        deaf
    });
    let mut pings = Vec::new();
    while !flood.is_finished() {
        let begun = Instant::now();
        client.ping().await.unwrap();
        pings.push(begun.elapsed());
    }
    let deaf = flood.join().unwrap();
    pings.sort_unstable();
    // The machine itself stands still now and then: one ping in a hundred may meet that.
    let (most, longest) = (pings[pings.len() * 99 / 100], pings[pings.len() - 1]);
    let status = until(&client, "mpreg.status", |status| {
        status["process"]["stalled_peers"] == 1
            && status["process"]["traffic"]["replies_dropped"].as_u64() > Some(0)
    })
    .await;
    let grown = broker.resident_bytes().saturating_sub(before);
    let told = &status["process"];
    println!("99 % of pings {most:?}, longest {longest:?}, {} MiB more, {told}", grown / MIB);
    assert!(most < Duration::from_millis(100), "many pings took {most:?}");
    assert!(longest < Duration::from_secs(1), "a ping took {longest:?}");
    // What waits for it in the broker and in libzmq, and what the allocator keeps.
    assert!(grown < 64 * MIB, "{} MiB for one stalled peer", grown / MIB);
    drop(deaf);
    until(&client, "mpreg.status", |status| status["process"]["stalled_peers"] == 0).await;
}

/// Runs a worker does not take have not begun: they go to one that reads.
#[tokio::test]
async fn a_worker_that_does_not_read_holds_no_call_up() {
    let _turn = turn();
    let broker = Broker::start();
    let client = broker.client().await;
    let deaf = deaf(&broker);
    deaf.send(&json!({ "op": "offer", "functions": [{ "name": "echo" }], "credit": 4_096 }));
    until(&client, "mpreg.workers", |workers| workers.as_array().unwrap().len() == 1).await;
    let text = "x".repeat(256 << 10);
    let call = |_| {
        let (client, text) = (client.clone(), text.clone());
        tokio::spawn(async move {
            let call = client.call("echo").args(&[&text]).timeout(Duration::from_secs(5));
            call.send().await.map(|body| body.read::<String>().unwrap().len())
        })
    };
    // More than fits between the broker and the deaf one: what is left is in the broker's outbox.
    let calls: Vec<_> = (0..200).map(call).collect();
    until(&client, "mpreg.workers", |workers| workers[0]["state"] == "stalled").await;
    let _workers = broker.workers(1, "credit=64").await;
    let mut moved = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(bytes) => {
                assert_eq!(bytes, text.len());
                moved += 1;
            }
            // Handed to ZeroMQ for the deaf one, so begun as far as anybody knows; that one is lost
            // once it has left heartbeats unanswered because it does not read them either.
            Err(error) => assert_eq!(error.code(), Some("outcome_unknown"), "{error}"),
        }
    }
    println!("{moved} of 200 went to the other worker");
    assert!(moved > 0);
    // The next call finds the worker that reads.
    let result = client.call("echo").args(&[1]).send().await.unwrap();
    assert_eq!(result.read::<u8>().unwrap(), 1);
    assert_eq!(ask(&client, "mpreg.status").await["process"]["traffic"]["replies_dropped"], 0);
}
