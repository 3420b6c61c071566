//! Workers that die, hang, leave or come back, and what their callers see of it.

use std::time::{Duration, Instant};

use mpreg_sockets::client::{Client, Error, ReadBody};
use rustix::process::Signal;
use serde_json::json;

use crate::raw::Raw;
use crate::rig::{Broker, Process, alone, ask, free_port, is_long, turn, until};

/// What the contract calls "noticed at once".
const NOTICED: Duration = Duration::from_secs(1);

/// One of two workers is killed while 64 calls are in flight all the time: what it had in hand
/// runs again on the other, and no caller ever waits for a second.
#[tokio::test]
async fn no_call_is_lost_when_one_of_two_workers_is_killed() {
    let _turn = alone();
    let broker = Broker::start();
    let mut workers = broker.workers(2, "credit=64").await;
    let client = broker.client().await;
    let end = Instant::now() + Duration::from_secs(3);
    let caller = |caller: u64| {
        let client = client.clone();
        async move {
            let (mut calls, mut stall) = (0_u64, Duration::ZERO);
            while Instant::now() < end {
                let (begun, number) = (Instant::now(), caller * 1_000_000 + calls);
                let result = client.call("echo").args(&[number]).send().await.unwrap();
                assert_eq!(result.read::<u64>().unwrap(), number);
                (calls, stall) = (calls + 1, stall.max(begun.elapsed()));
            }
            (calls, stall)
        }
    };
    let callers: Vec<_> = (0..64).map(|number| tokio::spawn(caller(number))).collect();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    workers[0].kill();
    let (mut calls, mut stall) = (0, Duration::ZERO);
    for caller in callers {
        let (more, longest) = caller.await.unwrap();
        (calls, stall) = (calls + more, stall.max(longest));
    }
    println!("{calls} calls, all done; longest {stall:?}");
    assert!(stall < NOTICED, "a call took {stall:?}");
    assert_eq!(ask(&client, "mpreg.workers").await.as_array().unwrap().len(), 1);
}

/// The same with calls that must not run twice: each has one outcome, and the only ones that are
/// not results are those the dead worker had in hand.
#[tokio::test]
async fn calls_that_may_not_repeat_have_one_outcome_each() {
    let _turn = turn();
    let broker = Broker::start();
    let mut workers = broker.workers(2, "credit=8").await;
    let client = broker.client().await;
    let call = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.call("rest").args(&[200]).idempotent(false).send().await })
    };
    let calls: Vec<_> = (0..64).map(call).collect();
    until(&client, "mpreg.workers", |workers| {
        workers.as_array().unwrap().iter().all(|worker| worker["in_hand"] == 8)
    })
    .await;
    workers[0].kill();
    let (mut done, mut unknown) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) if error.code() == Some("outcome_unknown") => unknown += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((done, unknown), (56, 8));
}

/// Calls `rest` and waits until one of the two workers has it in hand.
async fn in_hand_of_the_first(
    broker: &Broker,
    client: &Client,
    idempotent: bool,
) -> (Vec<Process>, tokio::task::JoinHandle<Result<u32, Error>>) {
    let mut workers = broker.workers(1, "credit=4").await;
    let call = client.call("rest").args(&[400]).idempotent(idempotent);
    let call = tokio::spawn(async move { call.send().await?.read::<u32>() });
    until(client, "mpreg.workers", |workers| workers[0]["in_hand"] == 1).await;
    workers.extend(broker.workers(1, "credit=4").await);
    (workers, call)
}

#[tokio::test]
async fn an_idempotent_call_in_the_hands_of_a_killed_worker_moves() {
    let _turn = alone();
    let broker = Broker::start();
    let client = broker.client().await;
    let (mut workers, call) = in_hand_of_the_first(&broker, &client, true).await;
    let killed = Instant::now();
    workers[0].kill();
    assert_eq!(call.await.unwrap().unwrap(), workers[1].pid());
    let took = killed.elapsed();
    assert!(took < NOTICED + Duration::from_millis(400), "{took:?} after the kill");
}

#[tokio::test]
async fn another_call_in_the_hands_of_a_killed_worker_is_told_at_once() {
    let _turn = alone();
    let broker = Broker::start();
    let client = broker.client().await;
    let (mut workers, call) = in_hand_of_the_first(&broker, &client, false).await;
    let killed = Instant::now();
    workers[0].kill();
    let error = call.await.unwrap().unwrap_err();
    let took = killed.elapsed();
    assert_eq!(error.code(), Some("outcome_unknown"), "{error}");
    println!("outcome_unknown {took:?} after the kill");
    assert!(took < NOTICED, "{took:?} after the kill");
}

/// ZeroMQ answers heartbeats from a thread of its own: a worker that computes is alive.
#[tokio::test]
async fn a_worker_blocked_in_a_call_is_not_dead() {
    let _turn = turn();
    let broker = Broker::start();
    let workers = broker.workers(1, "credit=1").await;
    let client = broker.client().await;
    let blocked = Duration::from_secs(if is_long() { 60 } else { 8 });
    let call = client.call("block").args(&[blocked.as_millis() as u64]).idempotent(false);
    let call = call.timeout(blocked * 2).send();
    assert_eq!(call.await.unwrap().read::<u32>().unwrap(), workers[0].pid());
}

/// A process that is stopped keeps its connection open: only heartbeats find it.
#[tokio::test]
async fn a_worker_that_hangs_is_found_by_heartbeats_and_comes_back() {
    let _turn = alone();
    let broker = Broker::start();
    let client = broker.client().await;
    let (workers, call) = in_hand_of_the_first(&broker, &client, true).await;
    let stopped = Instant::now();
    workers[0].signal(Signal::STOP);
    assert_eq!(call.await.unwrap().unwrap(), workers[1].pid());
    let took = stopped.elapsed();
    println!("moved and done {took:?} after the stop");
    // An interval and a timeout of the door, and the call itself.
    assert!(took < Duration::from_millis(1_000 + 400 + 200), "{took:?} after the stop");
    workers[0].signal(Signal::CONT);
    until(&client, "mpreg.workers", |workers| workers.as_array().unwrap().len() == 2).await;
}

#[tokio::test]
async fn a_worker_that_says_bye_finishes_what_it_has() {
    let _turn = turn();
    let broker = Broker::start();
    let (worker, caller) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    worker.offer(&["leave"]);
    caller.call("1", "leave", &json!([]));
    let run = worker.recv_op("run");
    worker.send(&json!({ "op": "bye", "id": "going" }));
    worker.ping();
    caller.call("2", "leave", &json!([]));
    let refused = caller.recv();
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!("2"), &json!("unknown_function"))
    );
    worker.send(&json!({ "op": "result", "id": run["id"], "result": "done" }));
    assert_eq!(worker.recv(), json!({ "op": "bye", "id": "going" }));
    assert_eq!(caller.recv(), json!({ "op": "result", "id": "1", "result": "done" }));
}

/// The second connection under an identity ends the first life, with what it had in hand.
#[tokio::test]
async fn a_worker_that_returns_with_its_identity_begins_a_new_life() {
    let _turn = turn();
    let broker = Broker::start();
    let connect = || Raw::with(&broker.door, |socket| socket.set_identity(b"one").unwrap());
    let (first, caller) = (connect(), Raw::dealer(&broker.door));
    first.offer(&["old"]);
    caller.call("1", "old", &json!([]));
    let run = first.recv_op("run");
    let second = connect();
    second.ping();
    let told = caller.recv();
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!("1"), &json!("outcome_unknown")));
    caller.call("2", "old", &json!([]));
    assert_eq!(caller.recv()["error"]["code"], "unknown_function");
    // The second life knows nothing of the first one's run: a result for it is no outcome.
    second.send(&json!({ "op": "result", "id": run["id"], "result": "late" }));
    second.offer(&["new"]);
    caller.call("3", "new", &json!([]));
    let run = second.recv_op("run");
    second.send(&json!({ "op": "result", "id": run["id"], "result": 3 }));
    assert_eq!(caller.recv(), json!({ "op": "result", "id": "3", "result": 3 }));
}

/// Whoever waits for a broker that is killed is told, and served again by the next one.
#[tokio::test]
async fn a_client_is_told_when_its_broker_is_killed() {
    let _turn = turn();
    let port = free_port().to_string();
    let mut broker = Broker::with(&["--port", &port]);
    let _workers = broker.workers(1, "").await;
    let client = broker.client().await;
    let call = client.call("rest").args(&[10_000]);
    let call = tokio::spawn(async move { call.send().await });
    until(&client, "mpreg.workers", |workers| workers[0]["in_hand"] == 1).await;
    broker.process.kill();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Some("outcome_unknown"));
    let again = Broker::with(&["--port", &port]);
    let begun = Instant::now();
    let result = again.client().await.call("echo").args(&[1]).wait().send().await.unwrap();
    assert_eq!(result.read::<u8>().unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // The client that was there before needs no new connection either.
    assert_eq!(client.call("echo").args(&[2]).send().await.unwrap().read::<u8>().unwrap(), 2);
}
