//! A client and a worker of the relay, or of the broker: WebSocket, one JSON text a message.

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Outcome;
use crate::pacer::Beats;
use crate::peers::text::{call, read_answer, result_of};
use crate::plan::Load;
use crate::process::say;
use crate::role::Ready;
use crate::tally::{Measure, Tally, Watch};

/// A peer's end of a connection to a relay.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// The answer to an offer.
#[derive(Deserialize)]
struct Offered {
    op: String,
}

/// Connects to a relay, or to the broker.
pub(crate) async fn connect(at: &str) -> Outcome<Socket> {
    let at = at.trim_start_matches("ws://");
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = tokio_tungstenite::client_async(format!("ws://{at}/ws"), stream).await?;
    Ok(socket)
}

/// One thread, as our library's peers have it.
pub(crate) fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Offers, then answers every run with its first argument.
pub(crate) fn worker(at: &str, credit: u32) -> Outcome<()> {
    block_on(async {
        let mut socket = connect(at).await?;
        // The relay knows no functions, and reads no further than the op.
        let functions = r#"[{"name":"echo"}]"#;
        let offer = format!(r#"{{"op":"offer","functions":{functions},"credit":{credit}}}"#);
        socket.send(Message::text(offer)).await?;
        let offered = socket.next().await.ok_or("the hub closed")??;
        let offered: Offered = serde_json::from_slice(&offered.into_data())?;
        if offered.op != "offered" {
            return Err(format!("the hub says {} to an offer", offered.op).into());
        }
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
        let mut beats = Beats::start(load)?;
        loop {
            if tally.open()? {
                let now = tally.now();
                while let Some(&slot) = idle.last()
                    && let Some(due) = tally.due(now)
                {
                    idle.pop();
                    socket.feed(texts[slot].clone()).await?;
                    tally.sent(slot, due);
                }
                socket.flush().await?;
            } else if tally.settled() {
                return Ok(tally.finish());
            }
            let mut next = tokio::select! {
                biased;
                next = socket.next() => Some(next),
                () = beats.next() => None,
            };
            while let Some(message) = next {
                let message = message.ok_or("the hub closed")??;
                if let Some(answer) = read_answer(message.to_text()?.as_bytes()) {
                    tally.answered(answer.slot, answer.well);
                    idle.push(answer.slot);
                }
                next = socket.next().now_or_never();
            }
        }
    })
}
