//! How soon it is ready, and what it costs when there is nothing to do.

use std::time::{Duration, Instant};

use crate::rig::{Broker, alone, is_release, median};

#[test]
fn it_is_ready_within_100_ms() {
    let _turn = alone();
    let mut times = [(); 9].map(|()| {
        let begun = Instant::now();
        drop(Broker::start());
        begun.elapsed()
    });
    let ready = median(&mut times);
    println!("ready in {ready:?} (median of 9), {:?} at most", times[8]);
    assert!(ready < Duration::from_millis(100), "{times:?}");
}

#[tokio::test]
async fn an_idle_broker_costs_next_to_nothing() {
    let _turn = alone();
    let broker = Broker::start();
    // Two workers and a client, idle as well: their offers are repeated every two seconds.
    let _workers = broker.workers(2, "").await;
    let _client = broker.client().await;
    let span = Duration::from_secs(6);
    let before = broker.processor_time();
    tokio::time::sleep(span).await;
    let used = broker.processor_time().saturating_sub(before);
    let percent = used.as_secs_f64() / span.as_secs_f64() * 100.0;
    let mib = broker.resident_bytes() as f64 / f64::from(1 << 20);
    println!("idle: {percent:.3} % of a core, {mib:.1} MiB");
    let most = if is_release() { 0.5 } else { 2.0 };
    assert!(percent < most, "{percent:.3} % of a core");
    let most = if is_release() { 15.0 } else { 40.0 };
    assert!(mib * 1.048_576 < most, "{mib:.1} MiB");
}
