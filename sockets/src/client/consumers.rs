//! Which message goes to which consumer of a client, and what the broker is told of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mpreg_patterns::base::{Code, Refusal, RunId};
use mpreg_patterns::ops::{Delivered, Request, Settle, Verdict};
use smol_str::{SmolStr, ToSmolStr};
use tokio::sync::mpsc;

use super::connection::Lane;
use super::queues::Delivery;

/// How often the broker is told again what is consumed.
const REFRESH: Duration = Duration::from_millis(2_000);
/// What a repeated `consume` is called.
const AGAIN: &str = "consume";

/// One consumer, as the driver sees it.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: u64,
    pub(super) queue: SmolStr,
    pub(super) group: Option<SmolStr>,
    pub(super) credit: u32,
    /// The broker's credit bounds what waits in it.
    pub(super) to: mpsc::UnboundedSender<Delivery>,
}

impl Consumer {
    /// What says to the broker how much is wanted.
    fn request(&self, id: Option<SmolStr>, credit: u32) -> Request {
        let (queue, group) = (self.queue.clone(), self.group.clone());
        Request::Consume { id, queue, group, credit }
    }
}

/// What says to the broker that others may have these at once.
pub(super) fn give_back(ids: Vec<RunId>) -> Request {
    let verdict = Verdict::Nack { delay_ms: Some(0), reason: None, dead: false };
    Request::Settle(Settle { id: None, ids, verdict })
}

/// All consumers of one client.
#[derive(Debug)]
pub(super) struct Consumers {
    lane: Arc<Lane>,
    by_queue: HashMap<SmolStr, Consumer>,
    /// Deliveries that nobody takes.
    unwanted: Vec<RunId>,
    told: Instant,
}

impl Consumers {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, by_queue: HashMap::new(), unwanted: Vec::new(), told: Instant::now() }
    }

    /// Takes a consumer in: what is to be said to the broker.
    pub(super) fn add(&mut self, consumer: Consumer) -> Result<Request, Refusal> {
        if self.by_queue.contains_key(&consumer.queue) {
            let queue = &consumer.queue;
            let message = format!("`{queue}` is consumed by this client already; connect another");
            return Err(Refusal::field(Code::NotSupported, "queue", message));
        }
        let request = consumer.request(Some(consumer.id.to_smolstr()), consumer.credit);
        self.by_queue.insert(consumer.queue.clone(), consumer);
        Ok(request)
    }

    /// Lets a consumer go: what is to be said to the broker, which has no word for less than none.
    pub(super) fn remove(&mut self, id: u64) -> Option<Request> {
        self.forget(id).map(|consumer| consumer.request(None, 0))
    }

    /// Lets a consumer go that the broker did not take.
    pub(super) fn forget(&mut self, id: u64) -> Option<Consumer> {
        let queue = self.by_queue.values().find(|of| of.id == id)?.queue.clone();
        self.by_queue.remove(&queue)
    }

    /// Hands a message over.
    pub(super) fn take(&mut self, delivered: Delivered) {
        let (id, life) = (delivered.id, self.lane.window.life());
        let taken = self.by_queue.get(&delivered.queue).is_some_and(|consumer| {
            consumer.to.send(Delivery::new(delivered, life, self.lane.clone())).is_ok()
        });
        if !taken {
            self.unwanted.push(id);
        }
    }

    /// What nobody takes is for others.
    pub(super) fn give_back(&mut self) -> Option<Request> {
        if self.unwanted.is_empty() {
            return None;
        }
        Some(give_back(std::mem::take(&mut self.unwanted)))
    }

    /// The connection was lost, or some time has passed: tells the broker everything again, which
    /// costs nothing if it knows.
    pub(super) fn again(&mut self) -> Vec<Request> {
        self.told = Instant::now();
        let again = |of: &Consumer| of.request(Some(AGAIN.into()), of.credit);
        self.by_queue.values().map(again).collect()
    }

    /// The same, if it is time to.
    pub(super) fn refresh(&mut self, now: Instant) -> Vec<Request> {
        if now.duration_since(self.told) < REFRESH { Vec::new() } else { self.again() }
    }

    /// The broker has refused to take a consumer up again. Whether it was one.
    pub(super) fn refused(id: &str, error: &Refusal) -> bool {
        let own = id == AGAIN;
        if own {
            log::warn!("the broker does not take a consumer up again: {error}");
        }
        own
    }
}
