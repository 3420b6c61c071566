//! No input holds the core longer than 10 ms: one peer sends the worst there is, another measures
//! how long its pings take meanwhile.

mod topics;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::raw::Raw;
use crate::rig::{Broker, PATIENCE, alone, is_long, is_release, median};

/// Just under the limit of an envelope.
const FULL: usize = (4 << 20) - 200;
const TRIES: usize = 5;
const LOOKS: usize = 4;

/// What the contract allows one input to take.
const HOLD: Duration = Duration::from_millis(10);
/// The ping's own way, and a scheduler that has four busy threads and two cores.
const NOISE: Duration = Duration::from_millis(5);
/// What a machine that others use too may take for what a quiet one does in ten. Under --long,
/// which wants a quiet one, nothing is added.
const BUSY_MACHINE: u32 = 25;

/// What is known to take longer, and the milliseconds it takes at most. Each is a debt: whoever
/// pays one takes its line out.
const DEBTS: &[(&str, u64)] = &[
    ("small floats to msgpack", 40),
    ("integers to msgpack", 40),
    ("objects to msgpack", 50),
    ("escapes to msgpack", 60),
    ("list of functions", 40),
    ("64,000 calls, gone", 60),
    ("1,000 looks into 1 MB", 60),
    // Not one input but many: the thread that reads for all peers is busy with them.
    ("32 full envelopes", 60),
    ("wide graph, all at once", 100),
    // libzmq's own: it takes in all that one SUB has subscribed to without a pause, and when a SUB
    // goes it looks through the texts of all.
    ("50,000 texts that come", 80),
    ("50,000 texts that go", 100),
    ("one that goes beside them", 60),
    ("10 that go beside them", 500),
];

/// Pings without a pause, and keeps the longest round trip since it was last asked.
struct Pinger {
    longest: Arc<Mutex<Duration>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pinger {
    fn start(door: &str) -> Self {
        let peer = Raw::dealer(door);
        let (longest, stop) =
            (Arc::new(Mutex::new(Duration::ZERO)), Arc::new(AtomicBool::new(false)));
        let (keep, stopped) = (longest.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let sent = Instant::now();
                peer.bytes(br#"{"op":"ping"}"#);
                peer.socket.recv_bytes(0).unwrap();
                let took = sent.elapsed();
                let mut longest = keep.lock().unwrap();
                *longest = took.max(*longest);
            }
        });
        Self { longest, stop, thread: Some(thread) }
    }

    /// The longest ping since the last time.
    fn longest(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().unwrap())
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One message that is as bad as it can be: its frames, and how many replies it gets.
struct Worst {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    replies: usize,
}

fn worst(name: &'static str, body: impl Into<Vec<u8>>) -> Worst {
    Worst { name, frames: vec![body.into()], replies: 1 }
}

/// `piece` again and again between `head` and `tail`, up to a full envelope.
fn fill(head: &str, piece: &str, tail: &str) -> String {
    let count = (FULL - head.len() - tail.len()) / piece.len();
    let pieces = piece.repeat(count);
    format!("{head}{}{tail}", pieces.trim_end_matches(','))
}

/// The same with a number in each piece.
fn count(head: &str, piece: impl Fn(usize) -> String, tail: &str) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        let next = piece(number);
        if text.len() + next.len() + tail.len() + 1 > FULL {
            break;
        }
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{next}");
    }
    text + tail
}

/// What one message can ask of whoever reads it.
fn values() -> Vec<Worst> {
    let call = r#"{"op":"call","id":"1","fun":"none","args":["#;
    let attached = |name, piece: &str| Worst {
        name,
        frames: vec![fill(call, piece, r#"{"$frame":1}]}"#).into(), vec![0; 64]],
        replies: 1,
    };
    let mut packed = b"\x84\xa2op\xa4call\xa2id\xa11\xa3fun\xa4none\xa4args\xdd".to_vec();
    let items = FULL - packed.len() - 4;
    packed.extend((items as u32).to_be_bytes());
    packed.resize(packed.len() + items, 0x90);
    let nested = format!("{}{}", "[".repeat(120), "]".repeat(120));
    vec![
        worst("small arrays", fill(call, "[],", "]}")),
        worst("nested arrays", fill(call, &(nested + ","), "]}")),
        worst("too deep", "[".repeat(FULL)),
        worst("small objects", fill(call, r#"{"a":1},"#, "]}")),
        worst("numbers", fill(call, "-1.25e-7,", "]}")),
        worst("escapes", fill(&format!("{call}\""), "\\u00e4", "\"]}")),
        worst("packed arrays", packed),
        worst("unknown keys", count(r#"{"op":"ping","#, |n| format!(r#""k{n}":0"#), "}")),
        worst("same key", fill("{", r#""op":"ping","#, r#""op":"ping"}"#)),
        attached("frame last", "[],"),
        attached("quoted", r#"{"$lit":0},"#),
        attached("lookalikes", r#"{"$lit":0,"a":{"$ref":"x"}},"#),
    ]
}

fn batches() -> Vec<Worst> {
    let mut calls = String::from("[");
    for number in 0..8_192 {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(calls, r#"{comma}{{"op":"call","id":"{number}","fun":"none{number}"}}"#);
    }
    let pings = format!("[{}{}", r#"{"op":"ping"},"#.repeat(8_191), r#"{"op":"ping"}]"#);
    let numbers = format!("[{}]", vec!["1"; 8_192].join(","));
    [("batch of calls", calls + "]"), ("batch of pings", pings), ("batch of numbers", numbers)]
        .map(|(name, body)| Worst { name, frames: vec![body.into()], replies: 8_192 })
        .into()
}

fn graphs() -> Vec<Worst> {
    let graph = r#"{"op":"graph","id":"g","steps":["#;
    let step = |n: usize, rest: String| format!(r#"{{"name":"s{n}","fun":"echo"{rest}}}"#);
    let refused = |n: usize| step(n, r#","args":[{"$ref":"gone"}]"#.into());
    let chain = |n: usize| match n {
        0 => step(0, String::new()),
        n => step(n, format!(r#","after":["s{}"]"#, n - 1)),
    };
    // The last step hangs off all others: in one list, and in one argument.
    let all = |n: usize| format!(r#""s{n}""#);
    let many = (0..100_000).map(|n| step(n, String::new())).collect::<Vec<_>>().join(",");
    let names: Vec<_> = (0..100_000).map(all).collect();
    let star = format!(
        r#"{graph}{many},{}]}}"#,
        step(100_000, format!(r#","after":[{}]"#, names[..50_000].join(",")))
    );
    let dots = "a.".repeat(127);
    let by_name = fill(
        r#"{"op":"graph","id":"g","refs":"names","steps":[{"name":"x","fun":"none","args":["#,
        &format!("\"{dots}\","),
        "]}]}",
    );
    let cycle = count(graph, |n| step(n, format!(r#","after":["s{}"]"#, n + 1)), "]}");
    let check =
        r#"{"op":"call","id":"g","fun":"mpreg.graph.check","kwargs":{"impact":"s0","steps":["#;
    let dot = (0..10_000).map(chain).collect::<Vec<_>>().join(",");
    let dot = format!(
        r#"{{"op":"call","id":"g","fun":"mpreg.graph.check","kwargs":{}}}"#,
        format_args!(r#"{{"dot":true,"steps":[{dot}]}}"#)
    );
    vec![
        worst(
            "graph, no steps",
            count(graph, |n| step(n, r#","x":[]"#.into()), "]}").replace("echo", "none"),
        ),
        worst("graph, bad refs", count(graph, refused, "]}")),
        worst("graph, cycle", cycle),
        worst("graph, star", star.replace("echo", "none")),
        worst("graph, names", by_name),
        worst("check of a chain", count(check, chain, "]}}")),
        worst("dot of a chain", dot),
    ]
}

fn send(peer: &Raw, worst: &Worst) {
    peer.socket.send_multipart(&worst.frames, 0).unwrap();
}

/// Waits until everything a message asked for has come. JSON replies may come as a batch.
fn answered(peer: &Raw, replies: usize) {
    let mut seen = 0;
    while seen < replies {
        let ready = peer.socket.poll(zmq::POLLIN, PATIENCE.as_millis() as i64).unwrap();
        assert_eq!(ready, 1, "{seen} of {replies} replies");
        let frames = peer.socket.recv_multipart(0).unwrap();
        seen += match serde_json::from_slice(&frames[0]) {
            Ok(serde_json::Value::Array(items)) => items.len(),
            _ => 1,
        };
    }
}

struct Figures {
    rows: Vec<(String, Duration, Duration)>,
}

/// How long the pings beside an attack may take.
fn allowed(name: &str) -> Duration {
    let debt = DEBTS.iter().find(|(debt, _)| *debt == name);
    let quiet = debt.map_or(HOLD + NOISE, |(_, ms)| Duration::from_millis(*ms));
    if is_long() { quiet } else { quiet * BUSY_MACHINE / 10 }
}

impl Figures {
    /// Lets `attack` happen several times and keeps the median of the longest pings.
    fn measure(&mut self, pinger: &Pinger, name: &str, mut attack: impl FnMut()) {
        self.prepared(pinger, name, || (), |()| attack());
    }

    /// The same, without what it takes to prepare each attack. What else the machine does only adds
    /// to a ping, so what took too long is looked at again: what holds the core does so each time.
    fn prepared<T>(
        &mut self,
        pinger: &Pinger,
        name: &str,
        mut prepare: impl FnMut() -> T,
        mut attack: impl FnMut(T),
    ) {
        let mut best = (Duration::MAX, Duration::MAX);
        for _ in 0..LOOKS {
            let mut longest = [(); TRIES].map(|()| {
                let prepared = prepare();
                std::thread::sleep(Duration::from_millis(3));
                pinger.longest();
                attack(prepared);
                std::thread::sleep(Duration::from_millis(3));
                pinger.longest()
            });
            best = best.min((median(&mut longest), longest[TRIES - 1]));
            if best.0 <= allowed(name) {
                break;
            }
        }
        self.rows.push((name.to_owned(), best.0, best.1));
    }

    fn judge(&self) {
        let mut late = Vec::new();
        for (name, median, longest) in &self.rows {
            println!("{name:24} {median:>12.3?}   at most {longest:.3?}");
            if *median > allowed(name) {
                late.push(format!("{name}: {median:?}"));
            }
        }
        assert!(!is_release() || late.is_empty(), "pings took too long: {late:#?}");
    }
}

#[test]
fn no_envelope_holds_the_core() {
    let _turn = alone();
    let broker = Broker::start();
    let peer = Raw::with(&broker.door, |socket| socket.set_rcvhwm(0).unwrap());
    let pinger = Pinger::start(&broker.door);
    let mut figures = Figures { rows: Vec::new() };
    figures.measure(&pinger, "nothing", || std::thread::sleep(Duration::from_millis(20)));
    for worst in values().into_iter().chain(batches()).chain(graphs()) {
        figures.measure(&pinger, worst.name, || {
            send(&peer, &worst);
            answered(&peer, worst.replies);
        });
    }
    let worst = &values()[0];
    figures.measure(&pinger, "32 full envelopes", || {
        (0..32).for_each(|_| send(&peer, worst));
        answered(&peer, 32);
    });
    figures.judge();
}

/// A graph that runs: a million steps under --long, and a result that all others look into.
#[tokio::test]
async fn no_graph_that_runs_holds_the_core() {
    let _turn = alone();
    let broker = Broker::start();
    let _workers = broker.workers(1, "credit=4096").await;
    let peer = Raw::with(&broker.door, |socket| socket.set_rcvhwm(0).unwrap());
    let pinger = Pinger::start(&broker.door);
    let mut figures = Figures { rows: Vec::new() };
    let chunk = 20_000;
    let parts = |count: usize| -> Vec<String> {
        let part = |part: usize| {
            let steps: Vec<_> = (part * chunk..(part + 1) * chunk)
                .map(|n| format!(r#"{{"name":"s{n}","fun":"add","args":[{n}]}}"#))
                .collect();
            let more = (part + 1) * chunk < count;
            let steps = steps.join(",");
            let part = format!(r#""part":{part},"more":{more},"timeout_ms":300000"#);
            format!(r#"{{"op":"graph","id":"g",{part},"steps":[{steps}]}}"#)
        };
        (0..count / chunk).map(part).collect()
    };
    let wide = parts(if is_long() { 1_000_000 } else { 100_000 });
    let last = |reply: &[u8]| {
        !reply.windows(12).any(|bytes| bytes == br#""more":true,"#)
            && !reply.ends_with(br#""more":true}"#)
    };
    // One part at a time: what many at once ask of the thread that reads has a row of its own.
    let in_turn = || {
        for part in &wide[..wide.len() - 1] {
            peer.bytes(part.as_bytes());
            peer.bytes(br#"{"op":"ping"}"#);
            assert!(peer.socket.recv_bytes(0).unwrap().starts_with(br#"{"op":"pong""#));
        }
        peer.bytes(wide.last().unwrap().as_bytes());
    };
    figures.measure(&pinger, "wide graph", || {
        in_turn();
        while !last(&peer.socket.recv_bytes(0).unwrap()) {}
    });
    figures.measure(&pinger, "wide graph, all at once", || {
        wide.iter().for_each(|part| peer.bytes(part.as_bytes()));
        while !last(&peer.socket.recv_bytes(0).unwrap()) {}
    });
    figures.measure(&pinger, "wide graph, cancelled", || {
        in_turn();
        peer.send(&json!({ "op": "cancel", "id": "g" }));
        while !last(&peer.socket.recv_bytes(0).unwrap()) {}
    });
    // One large result, and a thousand steps that each take its last element.
    let mut steps = vec![json!({ "name": "s", "fun": "echo", "args": [vec![0; 500_000]] })];
    let last_item = json!({ "$ref": "s", "at": "/499999" });
    let look = |n: usize| json!({ "name": format!("l{n}"), "fun": "add", "args": [last_item] });
    steps.extend((0..1_000).map(look));
    let looks = json!({ "op": "graph", "id": "g", "steps": steps }).to_string();
    figures.measure(&pinger, "1,000 looks into 1 MB", || {
        peer.bytes(looks.as_bytes());
        answered(&peer, 1);
    });
    figures.judge();
}

/// Values that change their encoding on the way are read number by number.
#[test]
fn no_crossing_of_encodings_holds_the_core() {
    let _turn = alone();
    let broker = Broker::start();
    let worker = Raw::dealer(&broker.door);
    // The worker speaks MessagePack, so JSON arguments are turned into it.
    worker.bytes(b"\x82\xa2op\xa5offer\xa9functions\x91\x81\xa4name\xa4pack");
    worker.socket.recv_multipart(0).unwrap();
    let pinger = Pinger::start(&broker.door);
    let mut figures = Figures { rows: Vec::new() };
    let call = r#"{"op":"call","id":"1","fun":"pack","timeout_ms":2000,"args":["#;
    for (name, piece) in [
        ("floats to msgpack", "-1.2345678901234567e-7,"),
        ("small floats to msgpack", "1.5,"),
        ("integers to msgpack", "1,"),
        ("objects to msgpack", r#"{"a":1},"#),
        ("escapes to msgpack", r#""\u00e4","#),
    ] {
        let text = fill(call, piece, "]}");
        figures.measure(&pinger, name, || {
            let peer = Raw::dealer(&broker.door);
            peer.bytes(text.as_bytes());
            // The run arrives; the worker answers it with a failure of its own words.
            let run = worker.socket.recv_multipart(0).unwrap();
            let id = run[0].windows(3).position(|bytes| bytes == b"\xa2id").unwrap() + 3;
            let id = &run[0][id..id + 27];
            worker.bytes(&[b"\x83\xa2op\xa5error\xa5error\xa1x\xa2id", id].concat());
            peer.recv_op("error");
        });
    }
    figures.judge();
}

/// Everything of a peer ends at once when its connection does.
#[test]
fn no_farewell_holds_the_core() {
    let _turn = alone();
    let broker = Broker::start();
    let worker = Raw::with(&broker.door, |socket| socket.set_rcvhwm(0).unwrap());
    let pinger = Pinger::start(&broker.door);
    let mut figures = Figures { rows: Vec::new() };
    let offer = |fun: &dyn Fn(usize) -> String| {
        let functions: Vec<_> =
            (0..10_000).map(|n| json!({ "name": fun(n), "doc": "d".repeat(200) })).collect();
        json!({ "op": "offer", "functions": functions, "credit": 65_536 }).to_string()
    };
    let (one, two) = (offer(&|n| format!("f{n}")), offer(&|n| format!("g{n}")));
    figures.measure(&pinger, "10,000 functions", || {
        for text in [&one, &one, &two] {
            worker.bytes(text.as_bytes());
            worker.recv_op("offered");
        }
    });
    figures.measure(&pinger, "list of functions", || {
        let peer = Raw::dealer(&broker.door);
        peer.send(&json!({ "op": "call", "id": "1", "fun": "mpreg.functions" }));
        peer.recv();
    });
    let batch = |from: usize| {
        let call =
            |n: usize| json!({ "op": "call", "id": n.to_string(), "fun": "g1", "args": [n] });
        json!((from..from + 8_000).map(call).collect::<Vec<_>>()).to_string()
    };
    let batches: Vec<_> = (0..8).map(|n| batch(n * 8_000)).collect();
    figures.measure(&pinger, "64,000 calls, gone", || {
        let peer = Raw::dealer(&broker.door);
        batches.iter().for_each(|batch| peer.bytes(batch.as_bytes()));
        peer.ping();
        drop(peer);
        // Their worker hears of each and answers none: they stay in its hands.
        let stopped = Instant::now();
        while stopped.elapsed() < Duration::from_millis(300) {
            if worker.poll(Duration::from_millis(50)).is_none() {
                break;
            }
        }
        worker.bytes(b"{\"op\":\"bye\"}");
    });
    figures.judge();
}
