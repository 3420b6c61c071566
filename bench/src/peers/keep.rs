//! What a broker keeps while nobody uses it: queues that are empty, and events of a log.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use mpreg_sockets::client::{Client, ReadBody};
use serde_json::json;

use super::rust::block_on;
use crate::Outcome;
use crate::process::say;
use crate::role::Ready;

/// Queues that are being declared at once.
const AT_ONCE: usize = 1_024;
/// How often it is asked whether the broker has all events.
const PAUSE: Duration = Duration::from_millis(20);

/// Declares queues with settings as they are by default.
pub(crate) fn declare(at: &str, queues: usize) -> Outcome<()> {
    block_on(async {
        let client = Client::connect(at).await?;
        let declared = stream::iter(0..queues).map(|number| {
            let kwargs = json!({ "name": format!("idle.queue{number}") });
            client.call("mpreg.queue.declare").kwargs(&kwargs).send()
        });
        let mut declared = declared.buffer_unordered(AT_ONCE);
        while let Some(declared) = declared.next().await {
            declared?;
        }
        say(&Ready {})
    })
}

/// Publishes events to a hundred topics of a log.
pub(crate) fn publish(at: &str, events: usize) -> Outcome<()> {
    block_on(async {
        let client = Client::connect(at).await?;
        let payload = "x".repeat(64);
        for number in 0..events {
            let topic = format!("kept.{}", number % 100);
            client.publish(&topic).payload(&payload).tell().await?;
        }
        loop {
            let topics = client.call("mpreg.topics").send().await?;
            let topics: serde_json::Value = topics.read()?;
            if topics["logs"][0]["events"].as_u64() >= Some(events as u64) {
                return say(&Ready {});
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}
