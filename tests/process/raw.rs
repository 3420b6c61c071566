//! A peer that is nothing but a ZeroMQ socket and JSON text: any binding could be it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::rig::PATIENCE;

pub(crate) struct Raw {
    pub(crate) socket: zmq::Socket,
    /// What came in one frame with the message before.
    waiting: RefCell<VecDeque<Json>>,
}

impl Raw {
    pub(crate) fn dealer(door: &str) -> Self {
        Self::with(door, |_| {})
    }

    /// A DEALER with options set before it connects.
    pub(crate) fn with(door: &str, options: impl FnOnce(&zmq::Socket)) -> Self {
        let socket = zmq::Context::new().socket(zmq::DEALER).unwrap();
        socket.set_linger(0).unwrap();
        options(&socket);
        socket.connect(door).unwrap();
        Self { socket, waiting: RefCell::default() }
    }

    pub(crate) fn send(&self, message: &Json) {
        self.socket.send(&message.to_string(), 0).unwrap();
    }

    pub(crate) fn bytes(&self, message: &[u8]) {
        self.socket.send(message, 0).unwrap();
    }

    /// The next message, if one comes in time. What came as a batch is handed out one by one.
    pub(crate) fn poll(&self, patience: Duration) -> Option<Json> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            if self.socket.poll(zmq::POLLIN, patience.as_millis() as i64).unwrap() == 0 {
                return None;
            }
            let frames = self.socket.recv_multipart(0).unwrap();
            match serde_json::from_slice(&frames[0]).unwrap() {
                Json::Array(items) => waiting.extend(items),
                message => waiting.push_back(message),
            }
        }
        waiting.pop_front()
    }

    pub(crate) fn recv(&self) -> Json {
        self.poll(PATIENCE).expect("a reply")
    }

    /// The next message of an op; what comes before it is dropped.
    pub(crate) fn recv_op(&self, op: &str) -> Json {
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.recv();
            assert!(Instant::now() < until, "no {op} among what came");
            if message["op"] == op {
                return message;
            }
        }
    }

    /// Offers functions and waits until the broker has them.
    pub(crate) fn offer(&self, functions: &[&str]) -> Json {
        let functions: Vec<Json> = functions.iter().map(|name| json!({ "name": name })).collect();
        self.send(&json!({ "op": "offer", "functions": functions }));
        self.recv_op("offered")
    }

    pub(crate) fn call(&self, id: &str, fun: &str, args: &Json) {
        self.send(&json!({ "op": "call", "id": id, "fun": fun, "args": args }));
    }

    /// Asks a built-in; what else comes meanwhile is dropped.
    pub(crate) fn ask(&self, fun: &str, kwargs: &Json) -> Json {
        self.send(&json!({ "op": "call", "id": fun, "fun": fun, "kwargs": kwargs }));
        loop {
            let reply = self.recv();
            if reply["id"] == fun {
                return reply["result"].clone();
            }
        }
    }

    /// Holds patterns, and waits until the broker says so.
    pub(crate) fn subscribe(&self, patterns: &[&str], options: &Json) -> Json {
        let mut ask = json!({ "op": "subscribe", "patterns": patterns });
        ask.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        self.send(&ask);
        let reply = self.recv();
        assert_eq!(reply["op"], "subscribed", "{reply}");
        reply
    }

    pub(crate) fn publish(&self, topic: &str, payload: &Json) {
        let publish = json!({ "op": "publish", "id": "p", "topic": topic, "payload": payload });
        self.send(&publish);
        assert_eq!(self.recv_op("published")["id"], "p");
    }

    pub(crate) fn ping(&self) {
        self.send(&json!({ "op": "ping" }));
        self.recv_op("pong");
    }
}
