//! Our Rust library: bincode batches both ways, and a window of credit for the subscriber.

use mpreg_sockets::client::Client;
use tokio::task::yield_now;

use super::ears::Ear;
use super::pace::{Flow, Outlet, Pace};
use crate::Outcome;
use crate::peers::rust::block_on;
use crate::plan::Load;
use crate::tally::Watch;

struct Publisher(Client);

impl Outlet for Publisher {
    async fn publish(&mut self, topic: &str, payload: &[u8]) -> Outcome<()> {
        Ok(self.0.publish(topic).bytes(payload.to_vec()).tell().await?)
    }

    /// The library's task sends, as soon as it runs.
    async fn flush(&mut self) -> Outcome<()> {
        yield_now().await;
        Ok(())
    }
}

/// Publishes events that nobody confirms.
pub(crate) fn publisher(at: &str, reports: &str, load: Load, watch: Watch) -> Outcome<Flow> {
    block_on(async {
        let mut outlet = Publisher(Client::connect(at).await?);
        let flow = Pace::new(reports, load, watch).await?.run(&mut outlet).await?;
        match outlet.0.refused() {
            0 => Ok(flow),
            refused => Err(format!("the broker refused {refused} events").into()),
        }
    })
}

/// Hears with a connection of its own.
pub(crate) fn subscriber(at: &str, pattern: &str, ear: &mut Ear) -> Outcome<()> {
    block_on(async {
        let client = Client::connect(at).await?;
        let mut events = client.subscribe([pattern]).send().await?;
        while let Some(event) = events.next().await {
            ear.hear(&event.payload.bytes)?;
        }
        Err("the broker is gone".into())
    })
}
