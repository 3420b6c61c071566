//! No room for data: senders are told so, consumers go on, and nothing that was said is taken back.

use std::collections::BTreeSet;

use mpreg_sockets::client::{Client, Delivery, Error};
use rstest::rstest;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::rig::{Broker, json, mpreg, text, turn, until};

/// Of one message.
const BYTES: usize = 10_000;

/// Numbered messages that were said to be safe.
#[derive(Default)]
struct Safe {
    numbers: BTreeSet<u64>,
    next: u64,
}

impl Safe {
    /// Sends until one is refused. Why it was.
    async fn send_until_refused(&mut self, client: &Client) -> Error {
        let filler = "x".repeat(BYTES);
        loop {
            let number = self.next;
            self.next += 1;
            match client.send("jobs").payload(&(number, &filler)).send().await {
                Ok(_) => assert!(self.numbers.insert(number)),
                Err(error) => return error,
            }
            assert!(self.numbers.len() < 100_000, "it is never full");
        }
    }

    /// One that was delivered is one that was safe.
    fn takes(&mut self, delivery: &Delivery) {
        let (number, _): (u64, String) = delivery.read().unwrap();
        assert!(self.numbers.remove(&number), "{number} was not sent, or came twice");
    }
}

async fn store_is(client: &Client, state: &str) {
    until(client, "mpreg.status", |told| told["queues"]["store"] == state).await;
}

/// Fills a broker, takes half of it, fills it again, and takes all. What is in a consumer's hands
/// stays there meanwhile.
async fn fill_and_empty(broker: &Broker, why: &str, make_room: impl FnOnce()) {
    let (client, consumer) = (broker.client().await, broker.client().await);
    let mut safe = Safe::default();
    let refused = safe.send_until_refused(&client).await;
    assert_eq!(refused.code(), Some("store_full"));
    assert!(refused.to_string().contains(why), "{refused}");
    store_is(&client, "full").await;
    let filled = safe.numbers.len();
    println!("{filled} messages of {BYTES} bytes, then {refused}");

    let mut jobs = consumer.consume("jobs", None, 16).await.unwrap();
    let held = jobs.next().await.unwrap();
    safe.takes(&held);
    for _ in 0..filled / 2 {
        let delivery = jobs.next().await.unwrap();
        safe.takes(&delivery);
        assert!(delivery.ack_and_wait().await.unwrap());
    }
    make_room();
    store_is(&client, "open").await;
    let refused = safe.send_until_refused(&client).await;
    assert_eq!(refused.code(), Some("store_full"));
    assert!(held.ack_and_wait().await.unwrap(), "the lease was void");
    while !safe.numbers.is_empty() {
        let delivery = jobs.next().await.unwrap();
        safe.takes(&delivery);
        assert!(delivery.ack_and_wait().await.unwrap());
    }
    store_is(&client, "open").await;
}

#[tokio::test]
async fn the_bound_of_the_store() {
    let _turn = turn();
    let broker = Broker::configured("[store]\nmax_bytes = 16777216");
    fill_and_empty(&broker, "of the 16777216 bytes that store.max_bytes allows", || ()).await;
}

/// More is on its way when the bound is reached than is kept free for it: the store fails, and
/// opens again with what it has. Each message was taken, and is there, or was refused.
#[tokio::test]
async fn much_is_on_its_way_when_the_bound_is_reached() {
    let _turn = turn();
    let broker = Broker::configured("[store]\nmax_bytes = 4194304");
    let client = broker.client().await;
    let (mut producer, filler) = (client.producer(2_000), "x".repeat(BYTES));
    for number in 0..2_000_u64 {
        let message = client.send("jobs").payload(&(number, &filler));
        assert_eq!(producer.send(message).await.unwrap(), number);
    }
    let mut safe = BTreeSet::new();
    while let Some(confirmed) = producer.confirmed().await {
        match confirmed.outcome {
            Ok(_) => _ = safe.insert(confirmed.number),
            Err(error) => assert_eq!(error.code(), Some("store_full"), "{error}"),
        }
    }
    println!("{} of 2,000 messages were taken", safe.len());
    assert!((50..500).contains(&safe.len()));
    let mut jobs = client.consume("jobs", None, 16).await.unwrap();
    while !safe.is_empty() {
        let delivery = jobs.next().await.unwrap();
        let (number, _): (u64, String) = delivery.read().unwrap();
        safe.remove(&number);
        delivery.ack();
    }
    store_is(&client, "open").await;
    client.send("jobs").payload(&1).send().await.unwrap();
}

/// A limit to the size of files is to the store what a full disk is.
#[rstest]
#[case::consumers_make_room(8 << 20)]
#[case::the_disk_has_more(16 << 20)]
#[tokio::test]
async fn a_disk_that_is_full(#[case] later: u64) {
    let _turn = turn();
    let broker = Broker::start();
    let pid = Pid::from_raw(broker.process.pid() as i32).unwrap();
    let limit = |most| {
        let now = Rlimit { current: most, maximum: None };
        prlimit(Some(pid), Resource::Fsize, now).unwrap();
    };
    limit(Some(8 << 20));
    fill_and_empty(&broker, "no room on the disk of", || limit(Some(later))).await;
}

/// Where nothing can be written, not even by the system's first user.
#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let _turn = turn();
    let folder = "/proc/self/nowhere";
    let served = mpreg(&["serve", "--port", "0", "--data", folder, "--output", "json"]);
    assert_eq!(served.status.code(), Some(1));
    assert_eq!(text(&served.stdout), "", "nothing started");
    let error = json(&served.stderr)["error"].take();
    assert_eq!(error["code"], "cannot_use_data", "{error}");
    assert!(error["message"].as_str().unwrap().contains(folder), "{error}");
}
