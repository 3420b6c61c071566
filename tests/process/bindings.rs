//! A binding that is not libzmq: the pure-Rust `zeromq` crate. Others are in tests/conformance.

use std::time::Duration;

use serde_json::{Value as Json, json};
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::rig::{Broker, PATIENCE, turn};

async fn send(socket: &mut DealerSocket, message: &Json) {
    socket.send(ZmqMessage::from(message.to_string())).await.unwrap();
}

async fn recv(socket: &mut DealerSocket) -> Json {
    let message = tokio::time::timeout(PATIENCE, socket.recv()).await.expect("a reply").unwrap();
    serde_json::from_slice(message.get(0).unwrap()).unwrap()
}

/// Ten seconds are many heartbeats: a binding that answered them wrongly would be cut off.
#[tokio::test]
async fn a_peer_without_libzmq_may_be_idle_for_ten_seconds() {
    let _turn = turn();
    let broker = Broker::start();
    let (mut worker, mut caller) = (DealerSocket::new(), DealerSocket::new());
    worker.connect(&broker.door).await.unwrap();
    caller.connect(&broker.door).await.unwrap();
    send(&mut worker, &json!({ "op": "offer", "functions": [{ "name": "double" }] })).await;
    assert_eq!(recv(&mut worker).await["op"], "offered");
    send(&mut caller, &json!({ "op": "ping" })).await;
    assert_eq!(recv(&mut caller).await, json!({ "op": "pong" }));
    tokio::time::sleep(Duration::from_secs(10)).await;
    send(&mut caller, &json!({ "op": "call", "id": "1", "fun": "double", "args": [21] })).await;
    let run = recv(&mut worker).await;
    let result = run["args"][0].as_u64().unwrap() * 2;
    send(&mut worker, &json!({ "op": "result", "id": run["id"], "result": result })).await;
    assert_eq!(recv(&mut caller).await, json!({ "op": "result", "id": "1", "result": 42 }));
}
