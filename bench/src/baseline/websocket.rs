//! The relay's client and worker: WebSocket, one JSON text a message.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Outcome;
use crate::peers::text::{call, read_answer, result_of};
use crate::plan::Load;
use crate::process::say;
use crate::role::Ready;
use crate::tally::{Measure, Tally, Watch};

/// A peer's end of a connection to a relay.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// The relay's answer to an offer.
#[derive(Deserialize)]
struct Offered {}

/// Connects to a relay.
pub(crate) async fn connect(at: &str) -> Outcome<Socket> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = tokio_tungstenite::client_async(format!("ws://{at}/"), stream).await?;
    Ok(socket)
}

/// One thread, as our library's peers have it.
pub(crate) fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Offers, then answers every run with its first argument.
pub(crate) fn worker(at: &str) -> Outcome<()> {
    block_on(async {
        let mut socket = connect(at).await?;
        socket.send(Message::text("{\"op\":\"offer\"}")).await?;
        let offered = socket.next().await.ok_or("the relay closed")??;
        let _: Offered = serde_json::from_slice(&offered.into_data())?;
        say(&Ready {})?;
        loop {
            let mut next = socket.next().await;
            while let Some(message) = next {
                if let Some(result) = result_of(message?.to_text()?) {
                    socket.feed(Message::text(result)).await?;
                }
                // What has come already is answered before anything is flushed.
                match socket.next().now_or_never() {
                    Some(message) => next = message,
                    None => break,
                }
            }
            socket.flush().await?;
        }
    })
}

/// Keeps calls in flight as [`crate::dealer`] does: drain, refill, flush once.
pub(crate) fn client(at: &str, load: Load, watch: Watch) -> Outcome<Measure> {
    block_on(async {
        let mut socket = connect(at).await?;
        let texts: Vec<Message> =
            (0..load.in_flight).map(|slot| Message::text(call(slot, load.size))).collect();
        let mut idle: Vec<usize> = (0..texts.len()).collect();
        let mut tally = Tally::new(load, watch)?;
        loop {
            if tally.open()? {
                let now = tally.now();
                for slot in idle.drain(..) {
                    socket.feed(texts[slot].clone()).await?;
                    tally.sent(slot, now);
                }
                socket.flush().await?;
            } else if tally.settled() {
                return Ok(tally.finish());
            }
            let mut next = timeout(Duration::from_millis(200), socket.next()).await.ok();
            while let Some(message) = next {
                let message = message.ok_or("the relay closed")??;
                if let Some(answer) = read_answer(message.to_text()?.as_bytes()) {
                    tally.answered(answer.slot, answer.well);
                    idle.push(answer.slot);
                }
                next = socket.next().now_or_never();
            }
        }
    })
}
