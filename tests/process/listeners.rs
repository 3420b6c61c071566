//! Subscribers that do not read: the others get all there is and no later, memory is bounded, and
//! what is lost is told.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value as Json, json};
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::pubsub::{Pub, Sub, row, until};
use crate::raw::Raw;
use crate::rig::{Broker, Process, alone, median, turn};

const MIB: u64 = 1 << 20;
const SUBSCRIBE: &str = "MPREG_TEST_SUBSCRIBE";
/// What everybody here subscribes to.
const ALL: &str = "events.#";

/// Subscribes if this process was started for it; as a test it has nothing to do.
#[test]
fn process() {
    let Ok(address) = std::env::var(SUBSCRIBE) else { return };
    let socket = zmq::Context::new().socket(zmq::SUB).unwrap();
    socket.set_subscribe(ALL.as_bytes()).unwrap();
    socket.connect(&address).unwrap();
    loop {
        socket.recv_multipart(0).unwrap();
    }
}

/// A process with a SUB that the broker knows and that is stopped by now.
fn stopped(broker: &Broker) -> Process {
    let peer = Raw::dealer(&broker.door);
    let sockets = || row(&peer, ALL).map_or(0, |row| row["sockets"].as_u64().unwrap());
    let before = sockets();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "listeners::process", "--nocapture"]).stdout(Stdio::null());
    let process = Process::spawn(command.env(SUBSCRIBE, &broker.subscribe));
    until(|| sockets() == before + 1);
    process.signal(Signal::STOP);
    process
}

/// A DEALER that subscribes and never reads, with as little room of its own as there can be.
fn deaf(broker: &Broker, options: &Json) -> Raw {
    let peer = Raw::with(&broker.door, |socket| {
        socket.set_rcvhwm(1).unwrap();
        socket.set_rcvbuf(64 << 10).unwrap();
    });
    peer.subscribe(&[ALL], options);
    peer
}

/// How events are published.
#[derive(Clone, Copy)]
struct Stream {
    count: u64,
    bytes: usize,
    /// How far ahead of the slowest reader, and how long after the one before.
    window: u64,
    pause: Duration,
}

/// More than waits for one subscriber that does not read.
const FLOOD: Stream = Stream { count: 40_000, bytes: 512, window: 2_000, pause: Duration::ZERO };
/// So little that delays are the broker's own.
const TRICKLE: Stream =
    Stream { count: 4_000, bytes: 256, window: 4_000, pause: Duration::from_micros(250) };

impl Stream {
    /// Publishes to readers, and returns how long each event took to each. None may be lost.
    fn run(self, publisher: &Pub, readers: &mut [Sub]) -> Vec<Duration> {
        let begun = Instant::now();
        let seen: Vec<AtomicU64> = readers.iter().map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = readers
                .iter_mut()
                .zip(&seen)
                .map(|(reader, seen)| scope.spawn(move || self.read(begun, reader, seen)))
                .collect();
            let mut payload = vec![0; self.bytes];
            for number in 0..self.count {
                let slowest = || seen.iter().map(|seen| seen.load(Ordering::Relaxed)).min();
                while Some(number) >= slowest().map(|slowest| slowest + self.window)
                    || begun.elapsed() < self.pause * number as u32
                {
                    let failed = threads.iter().any(|thread| thread.is_finished());
                    assert!(!failed, "{:?} of {} events came to all", slowest(), self.count);
                    std::thread::yield_now();
                }
                payload[..8].copy_from_slice(&number.to_le_bytes());
                payload[8..16].copy_from_slice(&(begun.elapsed().as_nanos() as u64).to_le_bytes());
                publisher.send("events.new", &payload);
            }
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn read(self, begun: Instant, reader: &Sub, seen: &AtomicU64) -> Vec<Duration> {
        let take = |number: u64| {
            let payload = reader.recv().payload;
            let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
            assert_eq!(word(0), number, "an event is lost");
            seen.store(number + 1, Ordering::Relaxed);
            begun.elapsed().saturating_sub(Duration::from_nanos(word(8)))
        };
        (0..self.count).map(take).collect()
    }
}

/// Median and 99th percentile.
fn figures(mut delays: Vec<Duration>) -> (Duration, Duration) {
    (median(&mut delays), delays[delays.len() * 99 / 100])
}

#[test]
fn who_does_not_read_delays_nobody() {
    let _turn = alone();
    let broker = Broker::start();
    let mut readers = [(); 3].map(|()| Sub::new(&broker, &[ALL]));
    let publisher = Pub::new(&broker);
    FLOOD.run(&publisher, &mut readers);
    let before = figures(TRICKLE.run(&publisher, &mut readers));
    let memory = broker.resident_bytes();

    let _stopped = [stopped(&broker), stopped(&broker)];
    let _deaf = deaf(&broker, &json!({}));
    FLOOD.run(&publisher, &mut readers);
    let after = figures(TRICKLE.run(&publisher, &mut readers));
    let grown = broker.resident_bytes().saturating_sub(memory) / MIB;
    println!("median and p99 {before:?}, beside stopped ones {after:?}; {grown} MiB more");
    // What a machine with other things to do takes from a p99: a few turns of its scheduler.
    let (noise, turns) = (Duration::from_millis(1), Duration::from_millis(20));
    assert!(after.0 < 5 * before.0 + noise, "the median went from {before:?} to {after:?}");
    assert!(after.1 < 5 * before.1 + turns, "the p99 went from {before:?} to {after:?}");
    assert!(grown < 96, "{grown} MiB for three that do not read");
}

/// Large events fill what may wait much earlier. That is the stopped one's loss alone.
#[test]
fn who_does_not_read_large_events_costs_nobody_else_any() {
    let _turn = alone();
    let broker = Broker::start();
    let mut readers = [(); 2].map(|()| Sub::new(&broker, &[ALL]));
    let publisher = Pub::new(&broker);
    let _stopped = stopped(&broker);
    let memory = broker.resident_bytes();
    let large = Stream { count: 6_000, bytes: 64 << 10, window: 64, pause: Duration::ZERO };
    large.run(&publisher, &mut readers);
    let grown = broker.resident_bytes().saturating_sub(memory) / MIB;
    println!("{grown} MiB more after {} MiB of events", 6_000 / 16);
    assert!(grown < 320, "{grown} MiB for one that does not read");
}

/// Reads until the event with this payload, and returns how many events came and how many numbers
/// are missing between them.
fn gaps(peer: &Raw, last: &Json) -> (u64, u64) {
    let (mut came, mut missing, mut before) = (0, 0, 0);
    loop {
        let event = peer.recv_op("event");
        let seq = event["seq"].as_u64().unwrap();
        assert!(seq > before, "{seq} behind {before}");
        (came, missing, before) = (came + 1, missing + seq - before - 1, seq);
        if event["payload"] == *last {
            return (came, missing);
        }
    }
}

/// A peer without credit: what it loses is counted, told, and seen as gaps when it reads again.
#[test]
fn what_a_peer_loses_is_told() {
    const EVENTS: u64 = 5_000;
    let _turn = turn();
    let broker = Broker::start();
    let (other, watch) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    watch.subscribe(&["mpreg.topic.dropped.#"], &json!({}));
    let slow = Raw::dealer(&broker.door);
    slow.subscribe(&[ALL], &json!({ "credit": 100 }));
    (1..EVENTS).for_each(|number| other.publish("events.new", &json!(number)));
    let dropped = row(&other, ALL).unwrap()["dropped"].as_u64().unwrap();
    assert_eq!(dropped, EVENTS - 1 - 100);
    let mut told = 0;
    while told < dropped {
        let event = watch.recv();
        assert!(event["topic"].as_str().unwrap().starts_with("mpreg.topic.dropped."), "{event}");
        assert_eq!(event["payload"]["patterns"], json!([ALL]));
        told += event["payload"]["dropped"].as_u64().unwrap();
    }
    slow.send(&json!({ "op": "ack", "events": 100 }));
    slow.send(&json!({ "op": "ping" }));
    until(|| row(&other, ALL).is_some());
    other.publish("events.new", &json!("last"));
    let (came, missing) = gaps(&slow, &json!("last"));
    println!("{came} came, {missing} did not, {told} were told");
    assert_eq!((came + missing, missing), (EVENTS, dropped));
    assert_eq!(told, dropped);
}

/// Publishes until the broker has dropped something for a peer that reads nothing.
fn publish_until_dropped(publisher: &Raw) -> u64 {
    let event = json!({ "op": "publish", "id": "p", "confirm": false, "topic": "events.new",
        "payload": "x".repeat(16 << 10) });
    let batch = json!(vec![event; 64]);
    loop {
        publisher.send(&batch);
        match row(publisher, ALL) {
            Some(row) if row["dropped"] == 0 => {}
            Some(row) => return row["events"].as_u64().unwrap(),
            None => return 0,
        }
    }
}

/// One whose binding has no heartbeats, and that reads nothing until it is asked, keeps its
/// connection: what there was no room for are gaps when it reads again.
#[tokio::test]
async fn what_a_peer_that_does_not_read_loses_is_told() {
    let _turn = turn();
    let broker = Broker::start();
    let (other, watch) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    watch.subscribe(&["mpreg.topic.dropped.#"], &json!({}));
    let mut slow = DealerSocket::new();
    slow.connect(&broker.door).await.unwrap();
    let ask = json!({ "op": "subscribe", "patterns": [ALL] });
    slow.send(ZmqMessage::from(ask.to_string())).await.unwrap();
    slow.recv().await.unwrap();
    let memory = broker.resident_bytes();
    let published = publish_until_dropped(&other) + 1;
    let grown = broker.resident_bytes().saturating_sub(memory) / MIB;
    let told = watch.recv()["payload"]["dropped"].as_u64().unwrap();
    let dropped = row(&other, ALL).unwrap()["dropped"].as_u64().unwrap();
    let (mut came, mut missing, mut before) = (0, 0, 0);
    while before < published {
        let read = tokio::time::timeout(Duration::from_millis(200), slow.recv()).await;
        let Ok(message) = read.map(Result::unwrap) else {
            // Everything that waited has been read.
            other.publish("events.new", &json!("last"));
            continue;
        };
        let event: Json = serde_json::from_slice(message.get(0).unwrap()).unwrap();
        let Some(seq) = event["seq"].as_u64() else { continue };
        (came, missing, before) = (came + 1, missing + seq - before - 1, seq);
    }
    println!("{came} came, {missing} did not, {told} were told; {grown} MiB more");
    assert_eq!((came + missing, missing, told), (before, dropped, dropped));
    assert!(grown < 64, "{grown} MiB for one that does not read");
}

/// Losses are gathered for a while before they are told; a peer that dies meanwhile takes none of
/// them along.
#[test]
fn what_a_peer_had_lost_when_it_died_is_told() {
    let _turn = turn();
    let broker = Broker::start();
    let (other, watch) = (Raw::dealer(&broker.door), Raw::dealer(&broker.door));
    watch.subscribe(&["mpreg.topic.dropped.#"], &json!({}));
    let slow = Raw::dealer(&broker.door);
    slow.subscribe(&[ALL], &json!({ "credit": 1 }));
    (0..10).for_each(|number| other.publish("events.new", &json!(number)));
    drop(slow);
    assert_eq!(watch.recv()["payload"]["dropped"], 9);
}
