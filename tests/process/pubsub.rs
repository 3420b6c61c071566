//! PUB and SUB sockets as any binding has them, once the broker knows them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::raw::Raw;
use crate::rig::{Broker, PATIENCE};

/// For topics that only one test knows.
static NUMBER: AtomicU32 = AtomicU32::new(1);

fn unique(word: &str) -> String {
    format!("{word}.{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// What the broker tells of one pattern, if anybody holds it.
pub(crate) fn row(peer: &Raw, pattern: &str) -> Option<Json> {
    let topics = peer.ask("mpreg.topics", &json!({ "top": 10_000 }));
    let rows = topics["top"].as_array().unwrap();
    rows.iter().find(|row| row["pattern"] == pattern).cloned()
}

/// Asks again until what is wanted holds.
#[track_caller]
pub(crate) fn until(wanted: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !wanted() {
        assert!(Instant::now() < end, "it never came to be");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a SUB hears.
#[derive(Debug, PartialEq)]
pub(crate) struct Heard {
    /// What it subscribed to.
    pub(crate) text: String,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// A SUB socket.
pub(crate) struct Sub {
    pub(crate) socket: zmq::Socket,
}

impl Sub {
    /// Subscribes to texts, and waits until the broker has them.
    pub(crate) fn new(broker: &Broker, texts: &[&str]) -> Self {
        let socket = zmq::Context::new().socket(zmq::SUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvhwm(0).unwrap();
        // A SUB whose own queue is full loses subscriptions.
        socket.set_sndhwm(0).unwrap();
        // Subscriptions come in order, so all are there once the last is.
        let known = unique("known");
        for text in texts.iter().chain([&known.as_str()]) {
            socket.set_subscribe(text.as_bytes()).unwrap();
        }
        socket.connect(&broker.subscribe).unwrap();
        let (this, peer) = (Self { socket }, Raw::dealer(&broker.door));
        until(|| {
            peer.publish(&known, &Json::Null);
            this.socket.poll(zmq::POLLIN, 1).unwrap() > 0
        });
        this.socket.set_unsubscribe(known.as_bytes()).unwrap();
        until(|| row(&peer, &known).is_none());
        // Those that hold everything have heard it as well.
        while this.socket.poll(zmq::POLLIN, 1).unwrap() > 0 {
            this.socket.recv_multipart(0).unwrap();
        }
        this
    }

    /// The next event, if one comes in time.
    pub(crate) fn poll(&self, patience: Duration) -> Option<Heard> {
        if self.socket.poll(zmq::POLLIN, patience.as_millis() as i64).unwrap() == 0 {
            return None;
        }
        let mut frames = self.socket.recv_multipart(0).unwrap();
        let first = String::from_utf8(frames[0].clone()).unwrap();
        let (text, topic) = first.split_once('\0').unwrap();
        let payload = frames.swap_remove(1);
        Some(Heard { text: text.to_owned(), topic: topic.to_owned(), payload })
    }

    pub(crate) fn recv(&self) -> Heard {
        self.poll(PATIENCE).expect("an event")
    }
}

/// A PUB socket that drops nothing.
pub(crate) struct Pub {
    pub(crate) socket: zmq::Socket,
}

impl Pub {
    /// What a PUB sends before it hears of a subscription is lost: it says hello until it is heard.
    pub(crate) fn new(broker: &Broker) -> Self {
        let socket = zmq::Context::new().socket(zmq::PUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_sndhwm(0).unwrap();
        socket.connect(&broker.publish).unwrap();
        let (this, hello) = (Self { socket }, unique("hello"));
        let sub = Sub::new(broker, &[&hello]);
        while sub.poll(Duration::from_millis(2)).is_none() {
            this.send(&hello, "");
        }
        this
    }

    pub(crate) fn send(&self, topic: &str, payload: impl AsRef<[u8]>) {
        self.socket.send_multipart([topic.as_bytes(), payload.as_ref()], 0).unwrap();
    }
}
