//! The predecessor's transport as a baseline: WebSocket, one JSON text a message. Calls are routed
//! to workers in turn under an id of the relay's own, results back to who called.
//!
//! Kept as quick as one thread allows: arguments and results are passed on as raw JSON, and each
//! connection writes all that waits before it flushes. The original (Python, asyncio) did neither.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Outcome;
use crate::process::say;
use crate::role::Place;

pub(super) type Peer = Sender<Message>;

/// Messages that may wait for one peer: more than a bench can have in flight.
pub(super) const WAITING: usize = 1 << 17;

/// What peers send: `offer`, `call` or `result`.
#[derive(Deserialize)]
struct Envelope<'a> {
    op: &'a str,
    #[serde(default)]
    id: &'a str,
    #[serde(default)]
    fun: &'a str,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// What the relay sends.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Forward<'a> {
    Run { id: &'a str, fun: &'a str, args: &'a RawValue },
    Result { id: &'a str, result: &'a RawValue },
}

/// Who offers, and who waits for what.
#[derive(Default)]
struct Routes {
    workers: Vec<Peer>,
    turn: usize,
    runs: u64,
    waiting: HashMap<u64, (Peer, Box<str>)>,
}

/// The relay's process.
pub(crate) fn hub() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(&Place::door(listener.local_addr()?.to_string()))?;
        let routes = Rc::new(RefCell::new(Routes::default()));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(serve(stream, Rc::clone(&routes)));
        }
    })
}

async fn serve(stream: TcpStream, routes: Rc<RefCell<Routes>>) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (sink, reader) = socket.split();
    let (peer, waiting) = channel(WAITING);
    spawn_local(write(sink, waiting));
    read(reader, &peer, &routes).await;
}

/// Writes all that waits before it flushes.
pub(super) async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    mut waiting: Receiver<Message>,
) {
    while let Some(first) = waiting.recv().await {
        let mut next = Some(first);
        while let Some(message) = next {
            if sink.feed(message).await.is_err() {
                return;
            }
            next = waiting.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

async fn read(
    mut reader: SplitStream<WebSocketStream<TcpStream>>,
    peer: &Peer,
    routes: &RefCell<Routes>,
) {
    while let Some(Ok(message)) = reader.next().await {
        let Message::Text(text) = message else { continue };
        // What cannot be read is dropped: the peers of a bench send nothing else.
        if let Ok(envelope) = serde_json::from_str(text.as_str()) {
            routes.borrow_mut().route(peer, envelope);
        }
    }
}

impl Routes {
    fn route(&mut self, from: &Peer, envelope: Envelope<'_>) {
        let Envelope { op, id, fun, args, result } = envelope;
        match (op, args, result) {
            ("offer", ..) => {
                self.workers.push(from.clone());
                let _ = from.try_send(Message::text("{\"op\":\"offered\"}"));
            }
            ("call", Some(args), _) => {
                let Some(worker) = self.workers.get(self.turn % self.workers.len().max(1)) else {
                    return;
                };
                self.turn += 1;
                self.runs += 1;
                let run = self.runs.to_string();
                pass(worker, &Forward::Run { id: &run, fun, args });
                self.waiting.insert(self.runs, (from.clone(), id.into()));
            }
            ("result", _, Some(result)) => {
                let run = id.parse().ok().and_then(|run: u64| self.waiting.remove(&run));
                if let Some((client, id)) = run {
                    pass(&client, &Forward::Result { id: &id, result });
                }
            }
            _ => {}
        }
    }
}

fn pass(to: &Peer, forward: &Forward<'_>) {
    if let Ok(text) = serde_json::to_string(forward) {
        // Fails only when that peer has gone.
        let _ = to.try_send(Message::text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(waiting: &mut Receiver<Message>) -> String {
        waiting.try_recv().unwrap().into_text().unwrap().to_string()
    }

    #[test]
    fn a_call_goes_to_a_worker_and_its_result_back() {
        let mut routes = Routes::default();
        let (client, mut to_client) = channel(WAITING);
        let (worker, mut to_worker) = channel(WAITING);
        let mut say = |from: &Peer, json: &str| {
            routes.route(from, serde_json::from_str(json).unwrap());
        };
        say(&worker, r#"{"op":"offer"}"#);
        assert_eq!(text(&mut to_worker), r#"{"op":"offered"}"#);
        say(&client, r#"{"op":"call","id":"a","fun":"echo","args":["x"]}"#);
        assert_eq!(text(&mut to_worker), r#"{"op":"run","id":"1","fun":"echo","args":["x"]}"#);
        say(&worker, r#"{"op":"result","id":"1","result":"x"}"#);
        assert_eq!(text(&mut to_client), r#"{"op":"result","id":"a","result":"x"}"#);
        say(&worker, r#"{"op":"result","id":"1","result":"twice"}"#);
        assert!(to_client.try_recv().is_err());
    }
}
