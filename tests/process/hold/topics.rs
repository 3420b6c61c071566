//! What can be asked of topics at worst.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::{FULL, Figures, Pinger, count, fill};
use crate::pubsub::{Sub, row, until};
use crate::raw::Raw;
use crate::rig::{Broker, alone};

fn patterns(peer: &Raw) -> u64 {
    peer.ask("mpreg.status", &json!({}))["patterns"].as_u64().unwrap()
}

/// All patterns that match `a.a.…`, of so many words: each word itself or `*`.
fn all_of(words: u32) -> impl Fn(usize) -> String {
    move |number| {
        let word = |at: u32| if number >> at & 1 == 1 { "*" } else { "a" };
        (0..words).map(word).collect::<Vec<_>>().join(".")
    }
}

fn topic_of(words: usize) -> String {
    vec!["a"; words].join(".")
}

/// A full envelope of patterns.
fn full(pattern: impl Fn(usize) -> String) -> String {
    let quoted = |number| format!("\"{}\"", pattern(number));
    count(r#"{"op":"subscribe","patterns":["#, quoted, "]}")
}

fn connect(broker: &Broker) -> Raw {
    Raw::with(&broker.door, |socket| socket.set_rcvhwm(0).unwrap())
}

fn subscribed(broker: &Broker, asks: &[String]) -> Raw {
    let peer = connect(broker);
    asks.iter().for_each(|ask| peer.bytes(ask.as_bytes()));
    asks.iter().for_each(|_| assert_eq!(peer.recv()["op"], "subscribed"));
    peer
}

#[test]
fn no_subscription_holds_the_core() {
    let _turn = alone();
    let broker = Broker::start();
    let (pinger, other) = (Pinger::start(&broker.door), Raw::dealer(&broker.door));
    let mut figures = Figures { rows: Vec::new() };
    figures.measure(&pinger, "nothing", || std::thread::sleep(Duration::from_millis(20)));
    let gone = || until(|| patterns(&other) == 0);
    let batch = {
        let mut text = String::from("[");
        for item in 0..8_192 {
            let comma = if item > 0 { "," } else { "" };
            let pattern = |n: usize| format!("\"{item}.{n}.#\"");
            let patterns = (0..40).map(pattern).collect::<Vec<_>>().join(",");
            let _ = write!(text, r#"{comma}{{"op":"subscribe","patterns":[{patterns}]}}"#);
        }
        text + "]"
    };
    assert!(batch.len() < FULL + 200, "{}", batch.len());
    figures.measure(&pinger, "8,192 subscribes", || {
        let peer = connect(&broker);
        peer.bytes(batch.as_bytes());
        super::answered(&peer, 8_192);
    });
    gone();
    let long = "x.".repeat(120);
    let asks = [
        ("texts", full(|n| n.to_string())),
        ("a tree", full(|n| format!("#.{n}.*"))),
        ("long texts", full(|n| format!("{n}.#.{long}"))),
        ("one text", fill(r#"{"op":"subscribe","patterns":["#, "\"a\",", "]}")),
    ];
    for (name, ask) in asks {
        let dropped = ask.replacen("subscribe", "unsubscribe", 1);
        let ask = [ask];
        figures.measure(&pinger, &format!("4 MiB: {name}"), || {
            let peer = subscribed(&broker, &ask);
            peer.bytes(&dropped.as_bytes()[..dropped.len().min(4 << 20)]);
            peer.recv();
        });
        gone();
    }
    let million = [0, 1, 2].map(|part| full(|n| format!("{part}.{n}.*")));
    let prepare = || {
        let peer = subscribed(&broker, &million);
        assert!(patterns(&other) > 800_000, "{}", patterns(&other));
        peer
    };
    figures.prepared(&pinger, "1,000,000 patterns, gone", prepare, |peer| {
        drop(peer);
        gone();
    });
    figures.judge();
}

#[test]
fn no_publication_holds_the_core() {
    let _turn = alone();
    let broker = Broker::start();
    let (pinger, other) = (Pinger::start(&broker.door), Raw::dealer(&broker.door));
    let mut figures = Figures { rows: Vec::new() };
    figures.measure(&pinger, "nothing", || std::thread::sleep(Duration::from_millis(20)));
    // A hundred peers hold a hundred patterns each.
    let texts: Vec<_> = (0..100).map(all_of(7)).collect();
    let ask = [json!({ "op": "subscribe", "patterns": texts }).to_string()];
    let peers: Vec<_> = (0..100).map(|_| subscribed(&broker, &ask)).collect();
    figures.measure(&pinger, "10,000 subscriptions", || {
        other.publish(&topic_of(7), &json!(1));
        for peer in &peers {
            (0..100).for_each(|_| drop(peer.socket.recv_bytes(0).unwrap()));
        }
    });
    drop(peers);
    // One peer holds all that match, and takes none of them.
    let ask = full(all_of(17)).replacen('{', r#"{"credit":0,"#, 1);
    let peer = subscribed(&broker, &[ask]);
    println!("{} patterns that match", patterns(&other));
    figures.measure(&pinger, "100,000 match", || {
        other.publish(&topic_of(17), &json!(1));
        until(|| other.ask("mpreg.status", &json!({}))["requests"] == 1);
    });
    figures.measure(&pinger, "none of 100,000 matches", || {
        other.publish(&topic_of(127), &json!(1));
    });
    for (name, words, items) in [("400 that match none", 127, 400), ("8,192 that match", 17, 8_192)]
    {
        let publish = json!({ "op": "publish", "id": "p", "topic": topic_of(words), "payload": 1 });
        let batch = json!(vec![publish; items]).to_string();
        figures.measure(&pinger, name, || {
            peer.bytes(batch.as_bytes());
            super::answered(&peer, items);
        });
    }
    figures.judge();
}

#[test]
fn no_wait_and_no_log_holds_the_core() {
    let _turn = alone();
    let broker = Broker::configured(
        "[[topics.retain]]\npattern = \"a.#\"\nmax_count = 200_000\nmax_bytes = 200_000_000\n",
    );
    let (pinger, other) = (Pinger::start(&broker.door), connect(&broker));
    let mut figures = Figures { rows: Vec::new() };
    figures.measure(&pinger, "nothing", || std::thread::sleep(Duration::from_millis(20)));
    // A thousand conditions that look at the whole of a payload, again and again.
    let peer = connect(&broker);
    let condition = vec!["payload.a == payload.b"; 18].join(" && ");
    let call = |id: usize| {
        json!({ "op": "call", "id": id.to_string(), "fun": "mpreg.topic.next",
            "kwargs": { "pattern": "w", "where": format!("{condition} && false") } })
    };
    (0..1_000).for_each(|id| peer.send(&call(id)));
    until(|| row(&other, "w").is_some_and(|row| row["waiting"] == 1_000));
    let list = vec![1; 4_000];
    let event = json!({ "a": list, "b": list });
    figures.measure(&pinger, "1,000 conditions", || {
        other.publish("w", &event);
        until(|| other.ask("mpreg.status", &json!({}))["requests"] == 1_001);
    });
    drop(peer);
    // A log of topics that are nearly what a pattern wants.
    let publish = json!({ "op": "publish", "id": "p", "topic": topic_of(127), "payload": 1 });
    let batch = json!(vec![publish; 8_000]).to_string();
    for _ in 0..12 {
        other.bytes(batch.as_bytes());
        super::answered(&other, 8_000);
    }
    let slow = format!("a.{}b", "#.a.".repeat(62));
    figures.measure(&pinger, "history of nothing", || {
        let answer = other.ask("mpreg.topic.history", &json!({ "pattern": slow }));
        assert_eq!(answer["events"], json!([]));
    });
    figures.measure(&pinger, "history of much", || {
        other.ask("mpreg.topic.history", &json!({ "pattern": "a.#", "limit": 10_000 }));
    });
    let ask = json!({ "op": "subscribe", "patterns": [slow, "a.#"], "replay": "all" });
    figures.measure(&pinger, "replay", || {
        let peer = connect(&broker);
        peer.send(&ask);
        super::answered(&peer, 1 + 96_000);
    });
    let ask = json!({ "op": "subscribe", "patterns": [slow], "replay": { "last": 1 } });
    figures.measure(&pinger, "replay of the last", || {
        let peer = connect(&broker);
        peer.send(&ask);
        peer.recv();
        (0..50).for_each(|_| peer.ping());
    });
    figures.judge();
}

/// A SUB socket that holds many texts, once the broker has them all.
fn holder(broker: &Broker, other: &Raw, texts: usize) -> zmq::Socket {
    let (socket, before) = (zmq::Context::new().socket(zmq::SUB).unwrap(), patterns(other));
    socket.set_linger(0).unwrap();
    // A SUB whose own queue is full loses subscriptions.
    socket.set_sndhwm(0).unwrap();
    for number in 0..texts {
        socket.set_subscribe(format!("held.{number}.#").as_bytes()).unwrap();
    }
    socket.connect(&broker.subscribe).unwrap();
    until(|| patterns(other) == before + texts as u64);
    socket
}

/// SUB sockets that hold many texts, and others that come and go beside them.
#[test]
fn no_sub_holds_the_core() {
    const TEXTS: usize = 50_000;
    let _turn = alone();
    let broker = Broker::start();
    let (pinger, other) = (Pinger::start(&broker.door), Raw::dealer(&broker.door));
    let mut figures = Figures { rows: Vec::new() };
    figures.measure(&pinger, "nothing", || std::thread::sleep(Duration::from_millis(20)));
    let gone = |left: usize| until(|| patterns(&other) == left as u64);
    let came = RefCell::new(None);
    let leave = || {
        came.take();
        gone(0);
    };
    figures.prepared(&pinger, "50,000 texts that come", leave, |()| {
        came.replace(Some(holder(&broker, &other, TEXTS)));
    });
    leave();
    figures.prepared(
        &pinger,
        "50,000 texts that go",
        || holder(&broker, &other, TEXTS),
        |sub| {
            drop(sub);
            gone(0);
        },
    );
    let _holder = holder(&broker, &other, TEXTS);
    let one = || Sub::new(&broker, &["one"]);
    figures.prepared(&pinger, "one that goes beside them", one, |sub| {
        drop(sub);
        gone(TEXTS);
    });
    let ten = || [(); 10].map(|()| Sub::new(&broker, &["one"]));
    figures.prepared(&pinger, "10 that go beside them", ten, |subs| {
        drop(subs);
        gone(TEXTS);
    });
    figures.judge();
}
