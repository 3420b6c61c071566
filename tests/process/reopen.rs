//! A broker that comes up with very much waiting for consumers.

use std::time::{Duration, Instant};

use mpreg_sockets::client::Client;

use crate::rig::{Broker, alone, is_long, is_release};

/// Messages that wait.
fn messages() -> u64 {
    match (is_long(), is_release()) {
        (true, _) => 10_000_000,
        (false, true) => 1_000_000,
        (false, false) => 100_000,
    }
}

/// Sends numbers and hears of all of them that they are safe.
async fn fill(client: &Client) {
    let mut producer = client.producer(50_000);
    for number in 0..messages() {
        producer.send(client.send("jobs").payload(&number)).await.unwrap();
        while let Some(confirmed) = producer.try_confirmed() {
            confirmed.outcome.unwrap();
        }
    }
    while let Some(confirmed) = producer.confirmed().await {
        confirmed.outcome.unwrap();
    }
}

/// However much waits, the broker serves at once and holds little of it in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_costs_neither_time_nor_memory() {
    let _turn = alone();
    let data = tempfile::tempdir().unwrap();
    let mut broker = Broker::at(&["--port", "0"], data.path());
    let begun = Instant::now();
    fill(&broker.client().await).await;
    println!("{} messages sent in {:?}", messages(), begun.elapsed());
    broker.process.kill();

    let begun = Instant::now();
    let broker = Broker::at(&["--port", "0"], data.path());
    let up = begun.elapsed();
    let client = broker.client().await;
    let mut jobs = client.consume("jobs", None, 1_000).await.unwrap();
    let first = jobs.next().await.unwrap();
    let served = begun.elapsed();
    let at_once = broker.anonymous_bytes();
    assert_eq!(first.read::<u64>().unwrap(), 0);
    first.ack();
    for number in 1..20_000 {
        let next = jobs.next().await.unwrap();
        assert_eq!(next.read::<u64>().unwrap(), number);
        next.ack();
    }
    let later = broker.anonymous_bytes();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "ready after {up:?}, first message after {served:?}, anonymous memory {:.1} MiB then, \
         {:.1} MiB after 20,000 messages",
        mib(at_once),
        mib(later),
    );
    assert!(at_once.max(later) < 300 << 20, "{at_once} {later}");
    let most = Duration::from_secs(if is_release() { 1 } else { 10 });
    assert!(served < most, "{served:?}");
}
