//! Events and messages of queues through a client, with a broker that does as it is told.

mod queues;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mpreg_patterns::base::limits::Limits;
use mpreg_patterns::ops::{Delivery, Event as Published, Reply, Subscribe};
use mpreg_patterns::values::Frames;
use rstest::rstest;

use super::*;
use crate::envelope::{self, Encoding};
use crate::router::{Incoming, Prefix, Router};

/// What the broker does when it is told to.
enum Do {
    /// Sends events for a pattern, with these sequence numbers.
    Emit(&'static str, Vec<u64>),
    /// Sends messages of a queue, in deliveries with these ids.
    Deliver(&'static str, Vec<u128>),
    /// Ends, forgets everything, and begins another life.
    Restart,
    /// Forgets what it holds, without a sign.
    Forget,
}

/// A broker with the answers of one, and no rules: it has one peer.
struct Fake {
    router: Option<Router>,
    address: String,
    peer: Vec<u8>,
    held: BTreeSet<String>,
    consumed: BTreeSet<String>,
    epoch: u64,
    heard: Sender<String>,
}

impl Fake {
    fn bind(&mut self) {
        // The port may take a moment to be free again.
        let address = self.address.clone();
        let router = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Router::bind(&zmq::Context::new(), &address).ok()
        });
        self.router = router;
        self.address = self.router.as_ref().unwrap().endpoint().to_owned();
    }

    fn run(mut self, todo: &Receiver<Do>) {
        loop {
            let mut next = match todo.recv_timeout(Duration::from_millis(2)) {
                Ok(what) => Some(what),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
                Err(_) => return,
            };
            // All of it before anything is answered: an answer says that it was done.
            while let Some(what) = next {
                self.act(what);
                next = todo.try_recv().ok();
            }
            self.listen();
        }
    }

    fn act(&mut self, what: Do) {
        match what {
            Do::Emit(pattern, seqs) => self.emit(pattern, &seqs),
            Do::Deliver(queue, ids) => self.deliver(queue, &ids),
            Do::Restart => {
                self.router = None;
                self.held.clear();
                self.consumed.clear();
                self.epoch += 1;
                self.bind();
            }
            Do::Forget => {
                self.held.clear();
                self.consumed.clear();
            }
        }
    }

    fn listen(&mut self) {
        let mut id = zmq::Message::new();
        let Some(router) = &mut self.router else { return };
        let mut requests = Vec::new();
        while let Ok(Some(incoming)) = router.receive(&mut id) {
            if let Incoming::Message { body, frames, .. } = incoming {
                self.peer = id.to_vec();
                envelope::decode(&body, frames, &Limits::default(), &mut |item| {
                    requests.push(item.result.unwrap());
                })
                .unwrap();
            }
        }
        for request in requests {
            self.answer(request);
        }
    }

    fn send(&mut self, replies: &[Reply]) {
        let mut batch = envelope::Batch::new(Encoding::Bincode);
        replies.iter().for_each(|reply| drop(batch.push(reply).unwrap()));
        let (Some(body), Some(router)) = (batch.finish(), &mut self.router) else { return };
        router.send(&self.peer, Prefix::None, &body, &Frames::new()).unwrap();
    }

    fn subscribe(&mut self, of: Subscribe) -> Reply {
        let (id, credit) = (of.id.unwrap(), of.credit.unwrap());
        let texts: Vec<String> = serde_json::from_slice(&of.patterns.unwrap().bytes).unwrap();
        let name = id.parse::<u64>().map_or(&*id, |_| "subscribe");
        let replay = of.replay.map(|replay| format!(" {replay:?}")).unwrap_or_default();
        self.heard.send(format!("{name} {texts:?} {credit}{replay}")).unwrap();
        let bad = texts.iter().any(|text| text == "bad");
        self.held.extend(texts);
        let (epoch, patterns) = (self.epoch, self.held.len() as u32);
        match bad {
            true => refused(id, Code::BadPattern),
            false => Reply::Subscribed { id: Some(id), epoch, patterns, credit: Some(credit) },
        }
    }

    fn answer(&mut self, request: Request) {
        let reply = match request {
            Request::Hello(hello) => {
                Reply::Welcome { id: hello.id, about: Value::json("{\"limits\":{\"credit\":100}}") }
            }
            Request::Publish(publish) => {
                let topic = &publish.event.topic;
                self.heard.send(format!("publish {topic} {}", publish.confirm)).unwrap();
                match (topic.as_str(), publish.confirm) {
                    ("no", _) => refused(publish.id, Code::Busy),
                    (_, true) => Reply::Published { id: publish.id, message: RunId(7) },
                    (_, false) => return,
                }
            }
            Request::Subscribe(of) => self.subscribe(*of),
            Request::Unsubscribe { patterns, .. } => {
                let texts: Vec<String> = serde_json::from_slice(&patterns.unwrap().bytes).unwrap();
                self.held.retain(|held| !texts.contains(held));
                self.heard.send(format!("unsubscribe {texts:?}")).unwrap();
                return;
            }
            Request::Ack { events } => return self.heard.send(format!("ack {events}")).unwrap(),
            other => return self.answer_of_queues(other),
        };
        self.send(&[reply]);
    }

    fn emit(&mut self, pattern: &str, seqs: &[u64]) {
        let reply = |&seq: &u64| {
            let (payload, message) = (Value::json(seq.to_string()), RunId(u128::from(seq)));
            let event = Published { topic: "t".into(), payload, headers: None, message };
            let (event, pattern) = (Arc::new(event), pattern.into());
            Reply::Event(Delivery { event, pattern, seq, missed: 0 })
        };
        let replies: Vec<Reply> = seqs.iter().map(reply).collect();
        self.send(&replies);
    }
}

fn refused(id: SmolStr, code: Code) -> Reply {
    let error = Refusal::new(code, "no");
    Reply::Error { id: Some(id), op: None, item: None, error: Box::new(error), track: None }
}

/// A client, and the broker it is connected to.
struct Rig {
    client: Client,
    todo: Option<Sender<Do>>,
    heard: Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    async fn new() -> Self {
        let (todo, doing) = channel();
        let (heard, hearing) = channel();
        let address = "tcp://127.0.0.1:*".to_owned();
        let (held, consumed, peer, epoch) = (BTreeSet::new(), BTreeSet::new(), Vec::new(), 1);
        let mut fake = Fake { router: None, address, peer, held, consumed, epoch, heard };
        fake.bind();
        let address = fake.address.clone();
        let thread = std::thread::spawn(move || fake.run(&doing));
        let client = Client::connect(&address).await.unwrap();
        Self { client, todo: Some(todo), heard: hearing, thread: Some(thread) }
    }

    fn tell(&self, what: Do) {
        self.todo.as_ref().unwrap().send(what).unwrap();
    }

    /// The next thing the broker hears, except questions that are only repeated.
    async fn hears(&self) -> String {
        for _ in 0..1_000 {
            match self.heard.try_recv() {
                Ok(line) => return line,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("the broker hears nothing");
    }

    async fn subscribe(&self, patterns: &[&str], credit: u32) -> Subscription {
        self.client.subscribe(patterns).credit(credit).send().await.unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.todo = None;
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// The next events as sequence numbers and what was lost before each.
async fn next(subscription: &mut Subscription, count: usize) -> Vec<(u64, u64)> {
    let mut events = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
        let event = next.expect("an event").expect("the client is open");
        assert_eq!(event.read::<u64>().unwrap(), event.seq);
        events.push((event.seq, event.missed));
    }
    events
}

#[tokio::test]
async fn what_is_published_is_confirmed_or_not() {
    let rig = Rig::new().await;
    let publish =
        |topic| rig.client.publish(topic).payload(&[1]).headers(&BTreeMap::from([("h", 1)]));
    assert_eq!(publish("a").send().await.unwrap(), RunId(7));
    assert_eq!(rig.hears().await, "publish a true");
    assert_eq!(publish("no").send().await.unwrap_err().code(), Some("busy"));
    assert_eq!(rig.hears().await, "publish no true");
    for topic in ["a", "no", "b"] {
        publish(topic).tell().await.unwrap();
    }
    publish("c").send().await.unwrap();
    for line in ["publish a false", "publish no false", "publish b false", "publish c true"] {
        assert_eq!(rig.hears().await, line);
    }
    assert_eq!(rig.client.refused(), 1);
    let bad = BTreeMap::from([(vec![1], 1)]);
    let error = rig.client.publish("a").payload(&bad).tell().await.unwrap_err();
    assert_eq!(error.code(), Some("bad_field"));
}

#[tokio::test]
async fn gaps_are_told_with_the_next_event() {
    let rig = Rig::new().await;
    let mut events = rig.subscribe(&["a.#", "b"], 50).await;
    assert_eq!(rig.hears().await, "subscribe [\"a.#\", \"b\"] 50");
    rig.tell(Do::Emit("a.#", vec![4, 5, 8]));
    rig.tell(Do::Emit("b", vec![1, 3]));
    rig.tell(Do::Emit("c", vec![9]));
    rig.tell(Do::Emit("a.#", vec![9, 1]));
    // The first one may have any number, and a count that goes back has begun anew.
    let expected = [(4, 0), (5, 0), (8, 2), (1, 0), (3, 1), (9, 0), (1, 0)];
    assert_eq!(next(&mut events, 7).await, expected);
    assert_eq!(events.lost(), 3);
    assert!(events.try_next().is_none());
}

#[tokio::test]
async fn what_is_taken_out_is_told_in_steps() {
    let rig = Rig::new().await;
    let mut events = rig.subscribe(&["a"], 8).await;
    assert_eq!(rig.hears().await, "subscribe [\"a\"] 8");
    for chunk in [vec![1, 2, 3], vec![4], vec![5, 6], vec![7, 8]] {
        rig.tell(Do::Emit("a", chunk));
    }
    // The second chunk is begun, so that the first has been handled.
    next(&mut events, 4).await;
    assert_eq!(rig.hears().await, "ack 3");
    next(&mut events, 4).await;
    assert_eq!(rig.hears().await, "ack 3");
    drop(events);
    assert_eq!(rig.hears().await, "unsubscribe [\"a\"]");
    assert_eq!(rig.hears().await, "ack 2");
}

#[tokio::test]
async fn subscriptions_of_one_pattern_share_it() {
    let rig = Rig::new().await;
    let mut first = rig.subscribe(&["a"], 10).await;
    assert_eq!(rig.hears().await, "subscribe [\"a\"] 10");
    let mut second = rig.subscribe(&["a", "b"], 30).await;
    assert_eq!(rig.hears().await, "subscribe [\"a\", \"b\"] 40");
    rig.tell(Do::Emit("a", vec![1, 2]));
    assert_eq!(next(&mut first, 2).await, [(1, 0), (2, 0)]);
    assert_eq!(next(&mut second, 2).await, [(1, 0), (2, 0)]);
    // A replay cannot be shared.
    let replay = rig.client.subscribe(["b"]).replay(Replay::All).send().await;
    assert_eq!(replay.unwrap_err().code(), Some("not_supported"));
    drop(second);
    assert_eq!(rig.hears().await, "unsubscribe [\"b\"]");
    rig.tell(Do::Emit("a", vec![3]));
    assert_eq!(next(&mut first, 1).await, [(3, 0)]);
    drop(first);
    assert_eq!(rig.hears().await, "unsubscribe [\"a\"]");
}

#[tokio::test]
async fn a_refused_subscription_leaves_nothing() {
    let rig = Rig::new().await;
    let refused = rig.client.subscribe(["a", "bad"]).send().await;
    assert_eq!(refused.unwrap_err().code(), Some("bad_pattern"));
    assert_eq!(rig.hears().await, "subscribe [\"a\", \"bad\"] 100");
    assert_eq!(rig.hears().await, "unsubscribe [\"a\", \"bad\"]");
}

/// One that does not read loses its own events, and keeps nothing back from the others.
#[tokio::test]
async fn a_slow_subscription_holds_no_other_up() {
    let rig = Rig::new().await;
    let (mut slow, mut quick) =
        (rig.subscribe(&["a"], 100).await, rig.subscribe(&["b"], 100).await);
    for round in 0..10_u64 {
        let seqs: Vec<u64> = (round * 20 + 1..=round * 20 + 20).collect();
        rig.tell(Do::Emit("a", seqs.clone()));
        rig.tell(Do::Emit("b", seqs));
        assert_eq!(next(&mut quick, 20).await[19], (round * 20 + 20, 0));
    }
    // Each has half of the 100 that the broker allows.
    assert_eq!(slow.lost(), 150);
    let events = next(&mut slow, 50).await;
    assert_eq!((events[0], events[49]), ((1, 0), (50, 0)));
    assert!(slow.try_next().is_none());
    rig.tell(Do::Emit("a", vec![201]));
    assert_eq!(next(&mut slow, 1).await, [(201, 150)]);
}

/// One that has the whole window, and does not read, leaves a part of it to one that comes later.
#[tokio::test]
async fn a_full_subscription_makes_room() {
    let rig = Rig::new().await;
    let mut full = rig.subscribe(&["a"], 100).await;
    assert_eq!(rig.hears().await, "subscribe [\"a\"] 100");
    rig.tell(Do::Emit("a", (1..=60).collect()));
    rig.tell(Do::Emit("a", (61..=100).collect()));
    rig.client.publish("sync").send().await.unwrap();
    assert_eq!(rig.hears().await, "publish sync true");
    let _later = rig.subscribe(&["b"], 100).await;
    let (first, second) = (rig.hears().await, rig.hears().await);
    assert_eq!([&*first, &second], ["subscribe [\"b\"] 100", "ack 50"]);
    // The rest is told when it is taken out, each event once.
    next(&mut full, 100).await;
    assert!(full.try_next().is_none());
    assert_eq!(rig.hears().await, "ack 50");
}

/// A new connection is told everything again, whether the broker lived on or not.
#[rstest]
#[case::restarted(Do::Restart, "again [\"r\"] 80 All")]
#[case::forgotten(Do::Forget, "again [\"r\"] 80 Seq(8)")]
#[tokio::test]
async fn it_goes_on_after_a_restart(#[case] what: Do, #[case] replay: &str) {
    let rig = Rig::new().await;
    let restarted = matches!(what, Do::Restart);
    let mut live = rig.subscribe(&["a", "b"], 20).await;
    let mut past =
        rig.client.subscribe(["r"]).credit(60).replay(Replay::Last(3)).send().await.unwrap();
    assert_eq!(rig.hears().await, "subscribe [\"a\", \"b\"] 20");
    assert_eq!(rig.hears().await, "subscribe [\"r\"] 80 Last(3)");
    rig.tell(Do::Emit("a", vec![1]));
    rig.tell(Do::Emit("r", vec![5, 7]));
    assert_eq!(next(&mut live, 1).await, [(1, 0)]);
    assert_eq!(next(&mut past, 2).await, [(5, 0), (7, 0)]);
    rig.tell(what);
    assert_eq!(rig.hears().await, "probe [] 80");
    assert_eq!(rig.hears().await, replay);
    assert_eq!(rig.hears().await, "again [\"a\", \"b\"] 80");
    rig.tell(Do::Emit("a", vec![9]));
    rig.tell(Do::Emit("r", vec![8]));
    // Another broker's count is none of this one's.
    assert_eq!(next(&mut live, 1).await, [(9, if restarted { 0 } else { 7 })]);
    assert_eq!(next(&mut past, 1).await, [(8, 0)]);
    assert_eq!(rig.hears().await, "probe [] 80");
    assert_eq!(rig.heard.try_recv().ok(), None);
}

/// Whoever tells of events waits once much of it is on its way, and goes on when it has left.
#[tokio::test]
async fn telling_waits_for_room() {
    let rig = Rig::new().await;
    let payload = Bytes::from(vec![b'x'; 32 << 10]);
    for _ in 0..1_000 {
        rig.client.publish("a").bytes(payload.clone()).tell().await.unwrap();
    }
    rig.client.publish("a").send().await.unwrap();
    for _ in 0..1_000 {
        assert_eq!(rig.hears().await, "publish a false");
    }
    assert_eq!(rig.hears().await, "publish a true");
}
