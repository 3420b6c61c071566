//! A queue between our Rust library and itself: what is sent is confirmed, what is taken is acked.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hdrhistogram::Histogram;
use mpreg_sockets::client::{Client, Durability, Error, ReadBody as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

use super::ears::Ear;
use super::pace::{self, Flow, Outlet, Pace};
use super::{PROBE, now_ns, read_stamp};
use crate::Outcome;
use crate::peers::rust::block_on;
use crate::plan::Load;
use crate::tally::Watch;

/// The queue, the same in every window: each has a broker of its own.
const QUEUE: &str = "bench";

/// What one producer saw in one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Produced {
    pub(crate) flow: Flow,
    /// Messages that the broker said it had, of all that were sent.
    pub(crate) confirmed: u64,
    /// From before a message was sent to when the broker had said so, those of the window alone.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

/// Which message it was, when it was sent, and what the broker said.
type Confirmation = (u64, u64, Result<(), Error>);

struct Producer {
    client: Client,
    /// Messages that are not confirmed yet.
    open: FuturesUnordered<Pin<Box<dyn Future<Output = Confirmation>>>>,
    confirmed: u64,
    latencies: Histogram<u64>,
}

impl Producer {
    fn confirm(&mut self, (number, at_ns, outcome): Confirmation) -> Outcome<()> {
        outcome.map_err(|error| format!("message {number} was not taken: {error}"))?;
        self.confirmed += u64::from(number != PROBE);
        if at_ns > 0 {
            self.latencies.saturating_record(now_ns().saturating_sub(at_ns));
        }
        Ok(())
    }

    /// Hands what is new to the library, in its order, and hears what was confirmed.
    fn drain(&mut self) -> Outcome<()> {
        while let Some(Some(confirmation)) = self.open.next().now_or_never() {
            self.confirm(confirmation)?;
        }
        Ok(())
    }
}

impl Outlet for Producer {
    async fn publish(&mut self, _: &str, payload: &[u8]) -> Outcome<()> {
        let (number, at_ns) = read_stamp(payload).ok_or("a payload has a number")?;
        let sent = self.client.send(QUEUE).bytes(payload.to_vec()).send();
        // Tokio's budget of a turn would leave those beyond a hundred for later, behind new ones.
        let sent = unconstrained(sent.map(move |sent| (number, at_ns, sent.map(|_| ()))));
        self.open.push(Box::pin(sent));
        Ok(())
    }

    async fn flush(&mut self) -> Outcome<()> {
        self.drain()?;
        yield_now().await;
        Ok(())
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    async fn confirmation(&mut self) -> Outcome<()> {
        match self.open.next().await {
            Some(confirmation) => {
                self.confirm(confirmation)?;
                self.drain()
            }
            None => std::future::pending().await,
        }
    }
}

/// Sends to the queue, and waits for the confirmation of everything.
pub(crate) fn producer(at: &str, reports: &str, load: Load, watch: Watch) -> Outcome<Produced> {
    block_on(async {
        let client = Client::connect(at).await?;
        let latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let open = FuturesUnordered::new();
        let mut outlet = Producer { client, open, confirmed: 0, latencies };
        let flow = Pace::new(reports, load, watch).await?.run(&mut outlet).await?;
        let [p50_ns, p99_ns] = [0.5, 0.99].map(|part| outlet.latencies.value_at_quantile(part));
        Ok(Produced { flow, confirmed: outlet.confirmed, p50_ns, p99_ns })
    })
}

/// Makes the queue.
pub(crate) fn declare(at: &str, durability: Durability) -> Outcome<()> {
    block_on(async {
        let queue = json!({ "name": QUEUE, "durability": durability });
        let client = Client::connect(at).await?;
        client.call("mpreg.queue.declare").kwargs(&queue).send().await?;
        Ok(())
    })
}

/// Takes everything in the queue, as much at once as may be on its way, and acks it.
pub(crate) fn consumer(at: &str, ear: &mut Ear) -> Outcome<()> {
    block_on(async {
        let client = Client::connect(at).await?;
        let credit = u32::try_from(pace::window(ear.step()))?;
        let mut deliveries = client.consume(QUEUE, None, credit).await?;
        while let Some(delivery) = deliveries.next().await {
            ear.hear(&delivery.message.event.payload.bytes)?;
            delivery.ack();
        }
        Err("the broker is gone".into())
    })
}

/// What the broker says of the queue once nothing is left in it, or after a while.
pub(crate) fn stats(at: &str) -> Outcome<Json> {
    block_on(async {
        let client = Client::connect(at).await?;
        let mut turns = 0;
        loop {
            let call = client.call("mpreg.queue.stats").kwargs(&json!({ "name": QUEUE }));
            let stats: Json = call.send().await?.read()?;
            turns += 1;
            if turns == 100 || stats["ready"] == 0 && stats["in_flight"] == 0 {
                return Ok(stats);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}
