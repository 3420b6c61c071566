use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use mpreg_patterns::base::Code;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const WAIT_MS: i64 = 20_000;

/// The socket, and what it told: connections that hold each text.
struct Broker {
    context: Context,
    socket: SubscribeSocket,
    holders: BTreeMap<String, i64>,
    told: u64,
    refused: Vec<(SmolStr, SmolStr)>,
}

impl Broker {
    fn bind(context: &Context, address: &str) -> Self {
        let socket = SubscribeSocket::bind(context, address).unwrap();
        let (holders, refused) = (BTreeMap::new(), Vec::new());
        Self { context: context.clone(), socket, holders, told: 0, refused }
    }

    fn tcp() -> Self {
        Self::bind(&Context::new(), "tcp://127.0.0.1:*")
    }

    fn subscriber(&self, texts: &[&str]) -> Socket {
        subscriber(&self.context, self.socket.endpoint(), texts)
    }

    /// Reads what is waiting; returns how much it was.
    fn read(&mut self) -> usize {
        let mut read = 0;
        while let Some(heard) = self.socket.receive().unwrap() {
            read += 1;
            match heard {
                Heard::Subscribed(key) => {
                    self.told += 1;
                    *self.holders.entry(key.text.to_string()).or_default() += 1;
                }
                Heard::Unsubscribed(key) => {
                    let holders = self.holders.entry(key.text.to_string()).or_default();
                    *holders -= 1;
                    assert!(*holders >= 0, "{key:?} ended once too often");
                }
                Heard::Refused { text, refusal } => self.refused.push((text, refusal.code)),
                Heard::Nothing => {}
            }
        }
        self.holders.retain(|_, holders| *holders > 0);
        read
    }

    /// Reads until `done` says so of the holders.
    #[track_caller]
    fn until(&mut self, done: impl Fn(&BTreeMap<String, i64>) -> bool) {
        let due = Instant::now() + PATIENCE;
        self.read();
        while !done(&self.holders) {
            assert!(Instant::now() < due, "{:?}", self.holders);
            zmq::poll(&mut [self.socket.poll_item()], 100).unwrap();
            self.read();
        }
    }

    #[track_caller]
    fn until_holders(&mut self, expected: &[(&str, i64)]) {
        let expected = expected.iter().map(|(text, holders)| ((*text).to_owned(), *holders));
        let expected: BTreeMap<String, i64> = expected.collect();
        self.until(|holders| *holders == expected);
    }

    fn publish(&mut self, text: &str, topic: &str) {
        self.socket.publish(text, topic, &Bytes::from_static(b"p"), None).unwrap();
    }
}

fn subscriber(context: &Context, endpoint: &str, texts: &[&str]) -> Socket {
    connected(context.socket(zmq::SUB).unwrap(), endpoint, texts)
}

fn connected(socket: Socket, endpoint: &str, texts: &[&str]) -> Socket {
    socket.set_linger(0).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.set_rcvtimeo(WAIT_MS as i32).unwrap();
    socket.connect(endpoint).unwrap();
    for text in texts {
        socket.set_subscribe(text.as_bytes()).unwrap();
    }
    socket
}

/// The first frames of what comes before the topic `fence`, with `|` for the NUL.
#[track_caller]
fn heard(socket: &Socket) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let frames = socket.recv_multipart(0).expect("the fence is still to come");
        let first = String::from_utf8(frames[0].clone()).unwrap().replace('\0', "|");
        if first.ends_with("|fence") {
            return found;
        }
        found.push(first);
    }
}

#[test]
fn a_text_is_matched_as_a_whole() {
    for address in ["tcp://127.0.0.1:*", "inproc://whole"] {
        let mut broker = Broker::bind(&Context::new(), address);
        let texts =
            ["", "o", "orders", "orders.", "orders.*", "orders.*.created", "orders?headers"];
        let subscribers = texts.map(|text| broker.subscriber(&[text]));
        broker.until(|holders| holders.len() == texts.len());
        for text in texts {
            broker.publish(text, "orders.eu.created");
        }
        broker.publish("order", "x");
        broker.publish("orders.eu", "x");
        for text in texts {
            broker.publish(text, "fence");
        }
        for (text, subscriber) in texts.iter().zip(&subscribers) {
            assert_eq!(heard(subscriber), [format!("{text}|orders.eu.created")]);
        }
    }
}

#[test]
fn one_of_two_that_dies_leaves_the_other() {
    let mut broker = Broker::tcp();
    let first = broker.subscriber(&["a.*"]);
    let second = broker.subscriber(&["a.*"]);
    broker.until_holders(&[("a.*", 2)]);
    drop(first);
    broker.until_holders(&[("a.*", 1)]);
    broker.publish("a.*", "a.b");
    broker.publish("a.*", "fence");
    assert_eq!(heard(&second), ["a.*|a.b"]);
    drop(second);
    broker.until_holders(&[]);
}

#[test]
fn who_subscribes_twice_holds_it_once() {
    let mut broker = Broker::tcp();
    let double = broker.subscriber(&["a", "a", "fence1"]);
    broker.until_holders(&[("a", 1), ("fence1", 1)]);
    // A SUB tells the end when it has been asked for as often as the beginning.
    double.set_unsubscribe(b"a").unwrap();
    double.set_subscribe(b"fence2").unwrap();
    broker.until_holders(&[("a", 1), ("fence1", 1), ("fence2", 1)]);
    double.set_unsubscribe(b"a").unwrap();
    broker.until_holders(&[("fence1", 1), ("fence2", 1)]);
    double.set_subscribe(b"a").unwrap();
    double.set_subscribe(b"a").unwrap();
    broker.until_holders(&[("a", 1), ("fence1", 1), ("fence2", 1)]);
    drop(double);
    broker.until_holders(&[]);
    assert_eq!(broker.told, 4);
}

/// A peer that speaks ZMTP 3.0 by hand, and so says what no library would.
fn by_hand(endpoint: &str) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    let mut greeting = [0; 64];
    greeting[0] = 0xFF;
    greeting[9] = 0x7F;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting).unwrap();
    stream.write_all(b"\x04\x1A\x05READY\x0BSocket-Type\0\0\0\x04XSUB").unwrap();
    stream.read_exact(&mut greeting).unwrap();
    stream
}

fn say(stream: &mut TcpStream, frames: &[&str]) {
    for frame in frames {
        stream.write_all(&[0, frame.len() as u8]).unwrap();
        stream.write_all(frame.as_bytes()).unwrap();
    }
}

#[test]
fn an_end_without_a_beginning_is_not_told() {
    let mut broker = Broker::tcp();
    let _honest = broker.subscriber(&["a"]);
    broker.until_holders(&[("a", 1)]);
    let mut odd = by_hand(broker.socket.endpoint());
    say(&mut odd, &["\0a", "\x01b", "\x01b", "\0b", "\0b", "\0", "hello", "\x01fence"]);
    broker.until_holders(&[("a", 1), ("fence", 1)]);
    assert_eq!((broker.told, broker.socket.strays()), (3, 1));
    say(&mut odd, &["\x01a", "\x01a"]);
    broker.until_holders(&[("a", 2), ("fence", 1)]);
    drop(odd);
    broker.until_holders(&[("a", 1)]);
}

#[test]
fn a_message_of_an_xsub_moves_no_subscription() {
    let context = Context::new();
    let mut broker = Broker::bind(&context, "inproc://xsub");
    let talker = context.socket(zmq::XSUB).unwrap();
    talker.connect(broker.socket.endpoint()).unwrap();
    talker.send_multipart(["hello", "", "more"], 0).unwrap();
    // All of it is waiting before the first is read, so that nothing is in line by chance.
    let subscribers = ["a", "b", "c", "d", "e"].map(|text| broker.subscriber(&[text]));
    broker.until(|holders| holders.len() == 5);
    assert_eq!(broker.socket.strays(), 3);
    broker.publish("a", "t");
    for (text, subscriber) in ["a", "b", "c", "d", "e"].iter().zip(&subscribers) {
        broker.publish(text, "fence");
        assert_eq!(heard(subscriber), if *text == "a" { vec!["a|t"] } else { vec![] }, "{text}");
    }
}

#[test]
fn an_invalid_text_is_told_to_who_wrote_it() {
    let mut broker = Broker::tcp();
    let all = broker.subscriber(&[""]);
    let other = broker.subscriber(&["b..c", "a"]);
    broker.until_holders(&[("", 1), ("a", 1)]);
    let wrong = broker.subscriber(&["a..b", "fence"]);
    broker.until_holders(&[("", 1), ("a", 1), ("fence", 1)]);
    let frames = wrong.recv_multipart(0).unwrap();
    assert_eq!(frames[0], b"a..b\0mpreg.error");
    let error: serde_json::Value = serde_json::from_slice(&frames[1]).unwrap();
    assert_eq!(error["code"], "bad_pattern");
    assert_eq!(error["culprit"], "caller");
    assert_eq!(error["retry"], false);
    assert!(error["message"].is_string());
    assert_eq!(frames.len(), 2);

    // It is not held, and its end is not told.
    broker.publish("a..b", "t");
    wrong.set_unsubscribe(b"a..b").unwrap();
    wrong.set_subscribe(b"fence2").unwrap();
    broker.until_holders(&[("", 1), ("a", 1), ("fence", 1), ("fence2", 1)]);
    for text in ["", "a", "fence"] {
        broker.publish(text, "fence");
    }
    assert_eq!(heard(&wrong), [""; 0]);
    assert_eq!(heard(&all), [""; 0]);
    assert_eq!(heard(&other), ["b..c|mpreg.error"]);
    let told = broker.refused.iter().map(|(text, code)| (text.as_str(), code.as_str()));
    let expected = [("b..c", Code::BadPattern.as_str()), ("a..b", Code::BadPattern.as_str())];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn a_text_with_a_nul_reaches_nobody_else() {
    let mut broker = Broker::tcp();
    let honest = broker.subscriber(&["a"]);
    broker.until_holders(&[("a", 1)]);
    let forger = broker.subscriber(&["a\0b", "fence"]);
    broker.until_holders(&[("a", 1), ("fence", 1)]);
    assert_eq!(broker.refused.len(), 1);
    broker.publish("a", "fence");
    broker.publish("fence", "fence");
    assert_eq!(heard(&honest), [""; 0]);
    assert_eq!(heard(&forger), [""; 0]);
}

#[test]
fn headers_and_payloads_arrive() {
    let mut broker = Broker::tcp();
    let one = broker.subscriber(&["a.*", "#?headers"]);
    let two = broker.subscriber(&["a.*"]);
    broker.until_holders(&[("#?headers", 1), ("a.*", 2)]);
    for bytes in [0, 1, 1023, 1024, 5 << 20] {
        let payload: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let payload = Bytes::from(payload);
        broker.socket.publish("a.*", "a.b", &payload, None).unwrap();
        broker.socket.publish("#?headers", "a.b", &payload, Some(b"{\"seq\":1}")).unwrap();
        for subscriber in [&one, &two] {
            let frames = subscriber.recv_multipart(0).unwrap();
            assert_eq!((&frames[0][..], frames.len()), (&b"a.*\0a.b"[..], 2));
            assert!(frames[1] == payload);
        }
        let frames = one.recv_multipart(0).unwrap();
        assert_eq!((&frames[0][..], frames.len()), (&b"#?headers\0a.b"[..], 3));
        assert!(frames[1] == payload);
        assert_eq!(frames[2], b"{\"seq\":1}");
    }
}

/// Waits until shared payloads that wait are `bytes`: libzmq's own thread gives them back.
#[track_caller]
fn until_held(broker: &mut Broker, bytes: usize) {
    let due = Instant::now() + PATIENCE;
    while broker.socket.held_bytes() != bytes {
        assert!(Instant::now() < due, "{} bytes are held", broker.socket.held_bytes());
        zmq::poll(&mut [broker.socket.poll_item()], 1).unwrap();
        broker.read();
    }
}

#[test]
fn a_payload_is_shared_by_all_and_given_back() {
    let mut broker = Broker::tcp();
    let subscribers = [(); 3].map(|()| broker.subscriber(&["a", "#"]));
    broker.until_holders(&[("#", 3), ("a", 3)]);
    let payload = Bytes::from(vec![7; 1 << 20]);
    for text in ["a", "#", "nobody"] {
        broker.socket.publish(text, "a", &payload, None).unwrap();
    }
    assert_eq!(broker.socket.held_bytes(), 1 << 20);
    for subscriber in subscribers {
        for _ in 0..2 {
            assert!(subscriber.recv_multipart(0).unwrap()[1] == payload);
        }
    }
    broker.socket.publish("nobody", "a", &Bytes::from(vec![0; 2_000]), None).unwrap();
    until_held(&mut broker, 2_000);
    assert!(payload.is_unique());
}

#[test]
fn who_does_not_read_holds_no_more_than_the_bound_and_costs_nobody_else_any() {
    const BYTES: usize = 64 << 10;
    let mut broker = Broker::tcp();
    let (stalled, reads) = (broker.subscriber(&["a"]), broker.subscriber(&["a"]));
    stalled.set_rcvhwm(1).unwrap();
    broker.until_holders(&[("a", 2)]);
    for number in 0..2 * HELD_BYTES / BYTES {
        let payload = Bytes::from(vec![number as u8; BYTES]);
        broker.socket.publish("a", "t", &payload, None).unwrap();
        assert!(reads.recv_multipart(0).unwrap()[1] == payload);
    }
    // The one that stalls has lost some, and all wait for it again once it is gone.
    assert!((MUCH_BYTES..HELD_BYTES).contains(&broker.socket.held_bytes()));
    assert!(broker.socket.room < SEND_MESSAGES);
    drop(stalled);
    until_held(&mut broker, BYTES);
    broker.socket.publish("a", "t", &Bytes::from(vec![0; BYTES]), None).unwrap();
    assert_eq!(broker.socket.room, SEND_MESSAGES);
}

/// Where nobody reads, nobody gets more than the bound; what is small still goes out.
#[test]
fn those_who_do_not_read_hold_no_more_than_the_bound_together() {
    const BYTES: usize = 4 << 20;
    let mut broker = Broker::tcp();
    let mut stalled = Vec::new();
    let publish = |broker: &mut Broker| {
        let payload = Bytes::from(vec![0; BYTES]);
        broker.socket.publish("a", "t", &payload, None)
    };
    let due = Instant::now() + PATIENCE;
    while publish(&mut broker) == Ok(()) {
        assert!(Instant::now() < due);
        // Each has room for what those before it have lost.
        if stalled.len() < 200 {
            let one = broker.subscriber(&["a"]);
            one.set_rcvhwm(1).unwrap();
            stalled.push(one);
            broker.until_holders(&[("a", stalled.len() as i64)]);
        }
    }
    assert!(broker.socket.held_bytes() <= HELD_BYTES + BYTES);
    broker.publish("a", "t");
}

#[test]
fn two_batches_wait_for_one_who_is_busy() {
    let mut broker = Broker::tcp();
    let busy = broker.subscriber(&["a"]);
    broker.until_holders(&[("a", 1)]);
    for _ in 1..SEND_MESSAGES {
        broker.publish("a", "t");
    }
    broker.publish("a", "fence");
    assert_eq!(heard(&busy).len() + 1, SEND_MESSAGES as usize);
}

#[test]
fn a_message_that_is_too_long_for_a_text_ends_the_connection() {
    let mut broker = Broker::tcp();
    let mut odd = by_hand(broker.socket.endpoint());
    say(&mut odd, &["\x01a"]);
    broker.until_holders(&[("a", 1)]);
    odd.write_all(&[2, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap();
    broker.until_holders(&[]);
}

/// What one subscriber does; the numbers choose subscriber and text.
#[derive(Clone, Debug)]
enum Deed {
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Close(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    proptest::prop_oneof![
        12 => (0..40_usize, 0..60_usize).prop_map(|(who, text)| Deed::Subscribe(who, text)),
        7 => (0..40_usize, 0..60_usize).prop_map(|(who, text)| Deed::Unsubscribe(who, text)),
        1 => (0..40_usize).prop_map(Deed::Close),
    ]
}

/// A subscriber, and how often it asked for each text.
type Modelled = (Socket, BTreeMap<String, u32>);

#[test]
fn what_is_told_is_what_the_connections_hold() {
    let mut runner = TestRunner::deterministic();
    let deeds = proptest::collection::vec(deed(), 4_000).new_tree(&mut runner).unwrap().current();
    let mut broker = Broker::tcp();
    let mut subscribers: BTreeMap<usize, Modelled> = BTreeMap::new();
    for (turn, deed) in deeds.iter().enumerate() {
        let new = || (broker.subscriber(&[]), BTreeMap::new());
        match *deed {
            Deed::Subscribe(who, text) => {
                let (socket, held) = subscribers.entry(who).or_insert_with(new);
                let text = format!("t{text}.*");
                socket.set_subscribe(text.as_bytes()).unwrap();
                *held.entry(text).or_default() += 1;
            }
            Deed::Unsubscribe(who, text) => {
                let (socket, held) = subscribers.entry(who).or_insert_with(new);
                let text = format!("t{text}.*");
                socket.set_unsubscribe(text.as_bytes()).unwrap();
                held.entry(text.clone()).and_modify(|count| *count = count.saturating_sub(1));
                held.retain(|_, count| *count > 0);
            }
            Deed::Close(who) => {
                let gone = subscribers.remove(&who);
                // What one of two has said is heard before it goes.
                if let Some((socket, _)) = gone.filter(|_| who % 2 == 0) {
                    let last = format!("last.{turn}");
                    socket.set_subscribe(last.as_bytes()).unwrap();
                    broker.until(|holders| holders.contains_key(&last));
                }
            }
        }
        if turn % 64 == 0 {
            broker.read();
        }
    }
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    for (who, (socket, held)) in &subscribers {
        let fence = format!("fence.{who}");
        socket.set_subscribe(fence.as_bytes()).unwrap();
        for text in held.keys().cloned().chain([fence]) {
            *model.entry(text).or_default() += 1;
        }
    }
    broker.until(|holders| *holders == model);
    assert!(model.len() > 50, "{model:?}");
    drop(subscribers);
    broker.until_holders(&[]);
}

/// One subscriber's short life.
fn live(socket: Socket, endpoint: &str, life: u64) {
    let mut dice = life.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut roll = |sides: u64| {
        dice ^= dice >> 29;
        dice = dice.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (dice >> 33) % sides
    };
    let socket = connected(socket, endpoint, &[]);
    socket.set_rcvtimeo(roll(8) as i32).unwrap();
    let texts: Vec<String> = (0..=roll(5)).map(|_| format!("t{}.*", roll(30))).collect();
    for text in &texts {
        socket.set_subscribe(text.as_bytes()).unwrap();
        if roll(3) == 0 {
            socket.set_subscribe(text.as_bytes()).unwrap();
        }
        if roll(9) == 0 {
            socket.set_subscribe(b"wrong..text").unwrap();
        }
        if roll(4) == 0 {
            socket.set_unsubscribe(text.as_bytes()).unwrap();
        }
    }
    // Some leave before they are connected, some with messages on their way to them.
    if roll(2) == 0 {
        for _ in 0..roll(4) {
            socket.recv_multipart(0).unwrap_or_default();
        }
    }
}

/// Four threads of short lives against a broker that lags behind them, for `CHURN_SECONDS` (1 if
/// not set). `scripts/asan` runs it with a libzmq that tells what it does wrong.
#[test]
fn churn_leaves_nothing_behind() {
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
    let context = Context::new();
    let mut brokers = ["tcp://127.0.0.1:*", "inproc://churn"].map(|at| Broker::bind(&context, at));
    let (lives, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let large = Bytes::from(vec![0; 2_000]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (lives, over) = (&lives, &over);
            let endpoint = brokers[thread % 2].socket.endpoint().to_owned();
            let context = if thread % 2 == 0 { Context::new() } else { context.clone() };
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match context.socket(zmq::SUB) {
                        Ok(socket) => {
                            live(socket, &endpoint, lives.fetch_add(1, Ordering::Relaxed))
                        }
                        // A closed one counts until the broker has let go of it too.
                        Err(zmq::Error::EMFILE) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for turn in 0_u64.. {
            if Instant::now() > until {
                break;
            }
            // Behind by up to 20 ms, in which hundreds come and go.
            std::thread::sleep(Duration::from_millis(turn % 21));
            for broker in &mut brokers {
                broker.read();
                for text in 0..30 {
                    let text = format!("t{text}.*");
                    broker.publish(&text, "t.t");
                    broker.socket.publish(&text, "t.t", &large, None).unwrap();
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    for broker in &mut brokers {
        broker.until_holders(&[]);
        println!("{}: {} begun and ended", broker.socket.endpoint(), broker.told);
        assert!(broker.told > 0);
    }
    println!("{} lives", lives.load(Ordering::Relaxed));
}
