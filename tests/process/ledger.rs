//! What becomes of messages over many lives of a broker: those who send and take them, and the
//! account of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use mpreg_sockets::client::Client;

use crate::rig::{Broker, until};

/// What is known of each message of one queue, over all lives of the broker.
#[derive(Default)]
pub(crate) struct Ledger {
    attempted: u64,
    acknowledged: BTreeSet<u64>,
    /// Deliveries of each, and whether the broker said that it is done.
    delivered: BTreeMap<u64, u32>,
    done: BTreeSet<u64>,
    /// Delivered although it had been said to be done.
    returned: BTreeSet<u64>,
    unexpected: u64,
}

pub(crate) type Shared = Arc<Mutex<Ledger>>;

impl Ledger {
    /// Messages that the broker said are safe.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Said to be safe, and never delivered.
    pub(crate) fn lost(&self) -> Vec<u64> {
        let lost = self.acknowledged.iter().filter(|number| !self.delivered.contains_key(number));
        lost.copied().collect()
    }

    /// Fails unless all that was confirmed has come, and nothing that was done came back.
    pub(crate) fn check(&self) {
        assert_eq!(self.lost(), Vec::<u64>::new(), "confirmed and never delivered");
        assert_eq!(self.returned, BTreeSet::new(), "confirmed as done and delivered again");
        assert_eq!(self.unexpected, 0);
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duplicated = self.delivered.values().filter(|times| **times > 1).count();
        write!(
            to,
            "attempted {}, acknowledged {}, delivered {}, lost {}, duplicated {duplicated} ({} of \
             them acked before), unexpected {}",
            self.attempted,
            self.acknowledged.len(),
            self.delivered.len(),
            self.lost().len(),
            self.returned.len(),
            self.unexpected,
        )
    }
}

/// Sends numbers as fast as they are taken, many at once, until the broker is gone.
pub(crate) async fn produce(client: Client, queue: &'static str, ledger: Shared) {
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (client, ledger) = (client.clone(), ledger.clone());
        senders.spawn(async move {
            loop {
                let number = {
                    let mut ledger = ledger.lock().unwrap();
                    ledger.attempted += 1;
                    ledger.attempted
                };
                if client.send(queue).payload(&number).send().await.is_err() {
                    return;
                }
                ledger.lock().unwrap().acknowledged.insert(number);
            }
        });
    }
    while senders.join_next().await.is_some() {}
}

/// Takes and acks, each with its confirmation, until the broker is gone.
pub(crate) async fn consume(client: Client, queue: &'static str, ledger: Shared) {
    take(client, queue, 32, ledger).await;
}

async fn take(client: Client, queue: &str, credit: u32, ledger: Shared) {
    let Ok(mut deliveries) = client.consume(queue, None, credit).await else { return };
    let mut acks = tokio::task::JoinSet::new();
    while let Some(delivery) = deliveries.next().await {
        let number: u64 = delivery.read().unwrap();
        {
            let mut ledger = ledger.lock().unwrap();
            *ledger.delivered.entry(number).or_default() += 1;
            if number > ledger.attempted {
                ledger.unexpected += 1;
            }
            if ledger.done.contains(&number) {
                ledger.returned.insert(number);
            }
        }
        let ledger = ledger.clone();
        acks.spawn(async move {
            if matches!(delivery.ack_and_wait().await, Ok(true)) {
                ledger.lock().unwrap().done.insert(number);
            }
        });
    }
}

/// Takes all that is left.
pub(crate) async fn drain(broker: &Broker, queue: &'static str, ledger: &Shared) {
    let taker = tokio::spawn(take(broker.client().await, queue, 4_096, ledger.clone()));
    until(&broker.client().await, "mpreg.queues", |told| {
        let all = told["queues"].as_array().unwrap();
        let Some(of) = all.iter().find(|of| of["queue"] == queue) else { return false };
        ["ready", "in_flight", "delayed"].iter().all(|count| of[count] == 0)
    })
    .await;
    taker.abort();
    _ = taker.await;
}
