//! A queue between our Rust library and itself: what is sent is confirmed, what is taken is acked.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use mpreg_sockets::client::{Client, Confirmed, Durability, Producer, ReadBody as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
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

struct QueueEnd {
    client: Client,
    producer: Producer,
    /// When each message was sent that is not confirmed yet, in order; 0 where nobody asks.
    sent_ns: VecDeque<u64>,
    /// The number of the first of them.
    first: u64,
    probes: u64,
    confirmed: u64,
    latencies: Histogram<u64>,
}

impl QueueEnd {
    /// One queue confirms in the order in which it was sent to.
    fn confirm(&mut self, Confirmed { number, outcome }: Confirmed) -> Outcome<()> {
        outcome.map_err(|error| format!("message {number} was not taken: {error}"))?;
        if number != self.first {
            return Err(format!("message {number} was confirmed before {}", self.first).into());
        }
        self.first += 1;
        self.confirmed += u64::from(number >= self.probes);
        if let Some(at_ns @ 1..) = self.sent_ns.pop_front() {
            self.latencies.saturating_record(now_ns().saturating_sub(at_ns));
        }
        Ok(())
    }

    /// Hears what was confirmed.
    fn drain(&mut self) -> Outcome<()> {
        while let Some(confirmed) = self.producer.try_confirmed() {
            self.confirm(confirmed)?;
        }
        Ok(())
    }
}

impl Outlet for QueueEnd {
    async fn publish(&mut self, _: &str, payload: &[u8]) -> Outcome<()> {
        let (number, at_ns) = read_stamp(payload).ok_or("a payload has a number")?;
        let sent = self.producer.send(self.client.send(QUEUE).bytes(payload.to_vec())).await?;
        self.sent_ns.push_back(at_ns);
        if number == PROBE {
            self.probes = sent + 1;
        }
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
        match self.producer.confirmed().await {
            Some(confirmed) => {
                self.confirm(confirmed)?;
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
        let producer = client.producer(load.in_flight);
        let (sent_ns, first, probes, confirmed) = (VecDeque::new(), 0, 0, 0);
        let mut outlet =
            QueueEnd { client, producer, sent_ns, first, probes, confirmed, latencies };
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
