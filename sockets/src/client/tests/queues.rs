//! Messages of queues.

use mpreg_patterns::ops::{Delivered, Durability, Send, Settle, Verdict};
use mpreg_patterns::store::Message;

use super::*;
use crate::client::Delivery;

/// A delivery that the broker says is not in hand.
const GONE: u128 = 99;

impl Fake {
    pub(super) fn answer_of_queues(&mut self, request: Request) {
        let reply = match request {
            Request::Send(send) => Some(self.send_of(*send)),
            Request::Consume { id, queue, group, credit } => self.consume(id, queue, group, credit),
            Request::Settle(settle) => self.settle(settle),
            _ => None,
        };
        self.send(reply.as_slice());
    }

    fn send_of(&self, send: Send) -> Reply {
        let Send { id, confirm, queue, event, options } = send;
        assert!(confirm);
        let to = queue.unwrap_or_else(|| format!("topic {}", event.topic).into());
        let payload = String::from_utf8_lossy(&event.payload.bytes).into_owned();
        let mut line = format!("send {to} {payload}");
        if options != Default::default() {
            line += &format!(" {options:?}");
        }
        self.heard.send(line).unwrap();
        match &*to {
            "no" => refused(id, Code::Busy),
            _ => {
                let message = RunId(u128::from(event.payload.bytes.len() as u64));
                Reply::Sent { id, message, durability: Durability::Fsync, queues: 2, near: false }
            }
        }
    }

    fn consume(
        &mut self,
        id: Option<SmolStr>,
        queue: SmolStr,
        group: Option<SmolStr>,
        credit: u32,
    ) -> Option<Reply> {
        let what = match id.as_deref().map(str::parse::<u64>) {
            None => "no more of",
            Some(Ok(_)) => "consume",
            Some(Err(_)) => "again",
        };
        let known = !self.consumed.insert(queue.to_string());
        if !known || what != "again" {
            let group = group.as_deref().unwrap_or("-");
            self.heard.send(format!("{what} {queue} {group} {credit}")).unwrap();
        }
        if queue == "no" {
            return id.map(|id| refused(id, Code::Busy));
        }
        Some(Reply::Consumed { id, epoch: self.epoch, queue, group, credit })
    }

    fn settle(&self, settle: Settle) -> Option<Reply> {
        let Settle { id, ids, verdict } = settle;
        let numbers: Vec<u128> = ids.iter().map(|id| id.0).collect();
        let more = match &verdict {
            Verdict::Nack { delay_ms, reason, dead } => format!(" {delay_ms:?} {reason:?} {dead}"),
            Verdict::Ack | Verdict::Extend => String::new(),
        };
        self.heard.send(format!("{} {numbers:?}{more}", verdict.as_str())).unwrap();
        let (unknown, ids) = ids.into_iter().partition(|id| *id == RunId(GONE));
        id.map(|id| Reply::Acked { id, ids, unknown })
    }

    pub(super) fn deliver(&mut self, queue: &str, ids: &[u128]) {
        let reply = |&id: &u128| {
            let (payload, headers) = (Value::json(id.to_string()), Some(Value::json("{\"h\":1}")));
            let event = Published { topic: "".into(), payload, headers, message: RunId(id) };
            let (event, key, priority, attempts) = (Arc::new(event), None, 0, 0);
            let (expires_ms, death) = (None, None);
            let message = Message { event, key, priority, attempts, expires_ms, death };
            let (queue, group, id) = (queue.into(), None, RunId(id));
            let message = Arc::new(message);
            Reply::Deliver(Box::new(Delivered { queue, group, id, attempt: 1, message }))
        };
        let replies: Vec<Reply> = ids.iter().map(reply).collect();
        self.send(&replies);
    }
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    let next = tokio::time::timeout(Duration::from_secs(10), deliveries.next()).await;
    let delivery = next.expect("a delivery").expect("the client is open");
    assert_eq!(RunId(delivery.read().unwrap()), delivery.id);
    delivery
}

#[tokio::test]
async fn what_is_sent_has_a_receipt_or_is_refused() {
    let rig = Rig::new().await;
    // Both are on their way before one is answered.
    let (first, second) = tokio::join!(
        rig.client.send("q").payload("four").send(),
        rig.client.send_to_topic("a.b").bytes("raw").send(),
    );
    let receipt =
        |message| Receipt { message: RunId(message), durability: Durability::Fsync, queues: 2 };
    assert_eq!((first.unwrap(), second.unwrap()), (receipt(6), receipt(3)));
    assert_eq!(rig.hears().await, "send q \"four\"");
    assert_eq!(rig.hears().await, "send topic a.b raw");
    let send = rig.client.send("q").delay(Duration::from_secs(5)).priority(9).key("k").dedup("d");
    send.headers(&BTreeMap::from([("h", 1)])).send().await.unwrap();
    let options =
        "SendOptions { delay_ms: 5000, priority: 9, key: Some(\"k\"), dedup: Some(\"d\") }";
    assert_eq!(rig.hears().await, format!("send q null {options}"));
    let error = rig.client.send("no").send().await.unwrap_err();
    assert_eq!(error.code(), Some("busy"));
    let bad = BTreeMap::from([(vec![1], 1)]);
    let error = rig.client.send("q").payload(&bad).send().await.unwrap_err();
    assert_eq!(error.code(), Some("bad_field"));
}

#[tokio::test]
async fn acks_are_told_together() {
    let rig = Rig::new().await;
    let mut deliveries = rig.client.consume("q", Some("g"), 1_000).await.unwrap();
    // No more than the broker allows.
    assert_eq!(rig.hears().await, "consume q g 100");
    rig.tell(Do::Deliver("q", vec![1, 2, 3]));
    let first = next(&mut deliveries).await;
    assert_eq!((&*first.queue, first.attempt, first.message.event.message), ("q", 1, RunId(1)));
    assert_eq!(first.read_headers::<BTreeMap<String, u8>>().unwrap()["h"], 1);
    first.ack();
    deliveries.try_next().unwrap().ack();
    deliveries.try_next().unwrap().ack();
    assert!(deliveries.try_next().is_none());
    assert_eq!(rig.hears().await, "ack [1, 2, 3]");
}

#[tokio::test]
async fn a_message_is_done_or_not_or_takes_longer() {
    let rig = Rig::new().await;
    let mut deliveries = rig.client.consume("q", None, 0).await.unwrap();
    assert_eq!(rig.hears().await, "consume q - 1");
    rig.tell(Do::Deliver("q", vec![1, GONE, 3, 4]));
    let first = next(&mut deliveries).await;
    assert!(first.extend().await.unwrap());
    assert_eq!(rig.hears().await, "extend [1]");
    assert!(first.ack_and_wait().await.unwrap());
    assert_eq!(rig.hears().await, "ack [1]");
    let second = next(&mut deliveries).await;
    assert!(!second.extend().await.unwrap());
    assert!(!second.ack_and_wait().await.unwrap());
    assert_eq!(rig.hears().await, "extend [99]");
    assert_eq!(rig.hears().await, "ack [99]");
    next(&mut deliveries).await.nack(Nack::default());
    assert_eq!(rig.hears().await, "nack [3] None None false");
    let delay = Some(Duration::from_millis(7));
    next(&mut deliveries).await.nack(Nack { delay, dead: true, ..Nack::because("no luck") });
    assert_eq!(rig.hears().await, "nack [4] Some(7) Some(\"no luck\") true");
}

/// Whoever consumes no more leaves nothing in its hands but what was taken out.
#[tokio::test]
async fn what_nobody_takes_is_given_back() {
    let rig = Rig::new().await;
    let mut deliveries = rig.client.consume("q", Some("g"), 8).await.unwrap();
    assert_eq!(rig.hears().await, "consume q g 8");
    rig.tell(Do::Deliver("q", vec![1, 2, 3]));
    let taken = next(&mut deliveries).await;
    drop(deliveries);
    assert_eq!(rig.hears().await, "no more of q g 0");
    assert_eq!(rig.hears().await, "nack [2, 3] Some(0) None false");
    rig.tell(Do::Deliver("q", vec![4, 5]));
    assert_eq!(rig.hears().await, "nack [4, 5] Some(0) None false");
    taken.ack();
    assert_eq!(rig.hears().await, "ack [1]");
}

#[tokio::test]
async fn a_queue_is_consumed_once_at_a_time() {
    let rig = Rig::new().await;
    let first = rig.client.consume("q", None, 1).await.unwrap();
    let _other = rig.client.consume("r", None, 1).await.unwrap();
    assert_eq!(rig.hears().await, "consume q - 1");
    assert_eq!(rig.hears().await, "consume r - 1");
    let error = rig.client.consume("q", Some("g"), 1).await.unwrap_err();
    assert_eq!(error.code(), Some("not_supported"));
    drop(first);
    assert_eq!(rig.hears().await, "no more of q - 0");
    let _again = rig.client.consume("q", Some("g"), 1).await.unwrap();
    assert_eq!(rig.hears().await, "consume q g 1");
}

#[tokio::test]
async fn a_refused_consumer_leaves_nothing() {
    let rig = Rig::new().await;
    for _ in 0..2 {
        let error = rig.client.consume("no", None, 1).await.unwrap_err();
        assert_eq!(error.code(), Some("busy"));
        assert_eq!(rig.hears().await, "consume no - 1");
    }
    rig.client.send("q").send().await.unwrap();
    assert_eq!(rig.hears().await, "send q null");
}

/// A broker that was told is told again, whether it lived on or not; what was in hand before is
/// nobody's any more once the connection is another.
#[rstest]
#[case::restarted(Do::Restart, vec![3], "ack [3]")]
#[case::forgotten(Do::Forget, vec![2, 3], "ack [1, 2, 3]")]
#[tokio::test]
async fn it_goes_on_after_a_restart(
    #[case] what: Do,
    #[case] left: Vec<u128>,
    #[case] acked: &str,
) {
    let rig = Rig::new().await;
    let mut deliveries = rig.client.consume("q", None, 8).await.unwrap();
    assert_eq!(rig.hears().await, "consume q - 8");
    rig.tell(Do::Deliver("q", vec![1, 2]));
    let taken = next(&mut deliveries).await;
    rig.tell(what);
    assert_eq!(rig.hears().await, "again q - 8");
    rig.tell(Do::Deliver("q", vec![3]));
    let mut all = vec![taken];
    for id in left {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.id, RunId(id));
        all.push(delivery);
    }
    all.into_iter().for_each(Delivery::ack);
    assert_eq!(rig.hears().await, acked);
}
