//! The fan-out relay's peers: one binary message an event, `topic NUL payload`.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::ears::Ear;
use super::pace::{Flow, Outlet, Pace};
use crate::Outcome;
use crate::baseline::websocket::{Socket, block_on, connect};
use crate::plan::Load;
use crate::tally::Watch;

struct Publisher(Socket);

impl Outlet for Publisher {
    async fn publish(&mut self, topic: &str, payload: &[u8]) -> Outcome<()> {
        let mut event = Vec::with_capacity(topic.len() + 1 + payload.len());
        event.extend_from_slice(topic.as_bytes());
        event.push(0);
        event.extend_from_slice(payload);
        Ok(self.0.feed(Message::binary(event)).await?)
    }

    async fn flush(&mut self) -> Outcome<()> {
        Ok(self.0.flush().await?)
    }
}

/// Publishes; all that is told at once is flushed at once.
pub(crate) fn publisher(at: &str, reports: &str, load: Load, watch: Watch) -> Outcome<Flow> {
    block_on(async {
        let mut outlet = Publisher(connect(at).await?);
        Pace::new(reports, load, watch).await?.run(&mut outlet).await
    })
}

/// Hears everything.
pub(crate) fn subscriber(at: &str, ear: &mut Ear) -> Outcome<()> {
    block_on(async {
        let mut socket = connect(at).await?;
        socket.send(Message::text("subscribe")).await?;
        while let Some(message) = socket.next().await {
            let event = message?.into_data();
            let end = event.iter().position(|&byte| byte == 0).ok_or("an event has a NUL")?;
            ear.hear(&event[end + 1..])?;
        }
        Err("the relay closed".into())
    })
}
