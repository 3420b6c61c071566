//! The Rust examples, as Cargo built them beside this test. The others run in tests/conformance.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::rig::{Broker, text, turn};

fn example(name: &str, broker: &Broker) -> Output {
    let deps = std::env::current_exe().unwrap();
    let folder: PathBuf = deps.parent().unwrap().parent().unwrap().join("examples");
    Command::new(folder.join(name)).arg(&broker.door).output().unwrap()
}

#[test]
fn hello_rpc() {
    let _turn = turn();
    let ran = example("hello_rpc", &Broker::start());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert_eq!(text(&ran.stdout), "HELLO");
}

#[test]
fn topics() {
    let _turn = turn();
    let ran = example("topics", &Broker::start());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let lines: Vec<&str> = text(&ran.stdout).lines().collect();
    let expected = ["orders.eu.created: 20", "orders.eu.created: 500", "the first large one: 500"];
    assert_eq!(lines, expected);
}

#[test]
fn queues() {
    let _turn = turn();
    let ran = example("queues", &Broker::start());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let lines: Vec<&str> = text(&ran.stdout).lines().collect();
    let expected = ["cat.png: done", "song.mp3: a dead letter", "dog.png: later", "dog.png: done"];
    assert_eq!(lines, expected);
}

#[test]
fn bills() {
    let _turn = turn();
    let ran = example("bills", &Broker::start());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let lines: Vec<&str> = text(&ran.stdout).lines().collect();
    let expected = ["the order is back: no paper", "one cat, 20 EUR", "0 orders are left"];
    assert_eq!(lines, expected);
}

#[test]
fn pipeline() {
    let _turn = turn();
    let ran = example("pipeline", &Broker::start());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let lines: Vec<&str> = text(&ran.stdout).lines().collect();
    assert_eq!(lines.last(), Some(&"report: 9 words, 3 of them \"the\""), "{lines:?}");
}
