//! The Rust client and worker over every transport, and from one to another when one fails.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mpreg_patterns::values::{Body, Kind};
use mpreg_sockets::client::{Client, Error, PathHealth, ReadBody, Worker};
use rstest::rstest;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::rig::{Broker, PATIENCE, json, mpreg, text, turn, until};

/// Where WebSocket peers of a broker are.
fn websocket(broker: &Broker) -> String {
    let http = broker.banner["endpoints"]["http"].as_str().unwrap();
    http.replace("http://", "ws://")
}

/// What stands between a client and a broker, and can be shut.
struct Gate {
    address: String,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    /// Connections stay, and nothing passes.
    Stuck,
    /// Connections end, and none is taken.
    Shut,
}

impl Gate {
    /// A gate before a `tcp://` or `ws://` address.
    async fn before(behind: &str) -> Self {
        let (scheme, behind) = behind.split_once("://").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (state, seen) = watch::channel(State::Open);
        tokio::spawn(serve(listener, behind.to_owned(), seen));
        Self { address, state }
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn serve(listener: TcpListener, behind: String, mut seen: watch::Receiver<State>) {
    let at = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let state = *seen.borrow_and_update();
        match (&listener, state) {
            (None, State::Open) => listener = Some(TcpListener::bind(at).await.unwrap()),
            (Some(_), State::Shut) => listener = None,
            _ => {}
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await.unwrap().0,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            near = accepted => drop(tokio::spawn(pass(near, behind.clone(), seen.clone()))),
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
}

async fn pass(near: TcpStream, behind: String, mut seen: watch::Receiver<State>) {
    let Ok(far) = TcpStream::connect(behind).await else { return };
    let (mut near, mut far) = (near, far);
    loop {
        let state = *seen.borrow_and_update();
        let copied = async {
            match state {
                State::Open => _ = tokio::io::copy_bidirectional(&mut near, &mut far).await,
                State::Stuck => std::future::pending().await,
                State::Shut => {}
            }
        };
        tokio::select! {
            () = copied => return,
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
}

fn used(client: &Client) -> Option<PathHealth> {
    client.paths().into_iter().find(|path| path.in_use)
}

/// Waits until something of a client's paths holds.
async fn path_until(client: &Client, wanted: impl Fn(&[PathHealth]) -> bool) -> Vec<PathHealth> {
    let end = Instant::now() + PATIENCE;
    loop {
        let paths = client.paths();
        if wanted(&paths) {
            return paths;
        }
        assert!(Instant::now() < end, "the paths never became as wanted: {paths:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Functions that any of these tests may call, served in this process.
fn worker() -> Worker {
    Worker::new()
        .function("echo", async |job| {
            let (value,): (Json,) = job.args()?;
            job.returns(&value)
        })
        .function("bytes", async |job| {
            let body = job.returns(&json!({ "$frame": 1 }))?;
            Ok(Body { frames: job.run.frames.clone(), ..body })
        })
        .function("slow", async |job| {
            let (ms,): (u64,) = job.args()?;
            job.progress(Some(50.0), Some("half"));
            tokio::time::sleep(Duration::from_millis(ms)).await;
            job.returns(&ms)
        })
        .credit(4_096)
}

#[rstest]
#[case::tcp("tcp")]
#[case::ipc("ipc")]
#[case::ws("ws")]
#[tokio::test]
async fn every_system_over_every_transport(#[case] transport: &str) {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let broker = match transport {
        "ipc" => Broker::with(&["--bind", &format!("ipc://{}/m", folder.path().display())]),
        _ => Broker::start(),
    };
    let address = if transport == "ws" { websocket(&broker) } else { broker.door.clone() };
    assert!(address.starts_with(transport), "{address}");
    let serving = tokio::spawn({
        let address = address.clone();
        async move { worker().serve(&address).await }
    });
    let client = Client::connect_as(&address, Some("me"), PATIENCE).await.unwrap();

    // A call, with and without attachments, and one that fails.
    let echo = client.call("echo").args(&[json!({"a": [1, "é"]})]).wait().send().await.unwrap();
    assert_eq!(echo.read::<Json>().unwrap(), json!({"a": [1, "é"]}));
    let (big, args) = (Bytes::from(vec![7; 3 << 20]), [json!({ "$frame": 1 })]);
    let body = client.call("bytes").args(&args).attach(big.clone()).send().await.unwrap();
    // Bytes that are all there is to a value come as such.
    assert!(body.value.kind == Kind::Bytes && body.value.bytes == big, "{} bytes", big.len());
    let refused = client.call("nobody").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("unknown_function"));

    // What a call tells on its way.
    let (told, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let slow = client.call("slow").args(&[5]).progress(told).send().await.unwrap();
    assert_eq!(slow.read::<u64>().unwrap(), 5);
    let mut notes = Vec::new();
    while let Some(event) = progress.recv().await {
        notes.extend(event.note);
    }
    assert_eq!(notes, [Box::from("half")]);

    // Topics and queues.
    let mut events = client.subscribe(["orders.#"]).send().await.unwrap();
    client.publish("orders.eu").payload(&1).send().await.unwrap();
    assert_eq!(events.next().await.unwrap().read::<u32>().unwrap(), 1);
    client.call("mpreg.queue.declare").kwargs(&json!({ "name": "jobs" })).send().await.unwrap();
    client.send("jobs").payload(&2).send().await.unwrap();
    let mut deliveries = client.consume("jobs", None, 1).await.unwrap();
    let delivery = deliveries.next().await.unwrap();
    assert_eq!(delivery.read::<u32>().unwrap(), 2);
    delivery.ack();
    until(&client, "mpreg.queues", |told| told["queues"][0]["in_flight"] == 0).await;

    let path = used(&client).unwrap();
    assert_eq!((path.address.as_str(), path.state, path.success), (&*address, "closed", 1.0));
    serving.abort();
}

/// The listener at the door goes, with a thousand requests in flight: the client goes on over
/// WebSocket, and every request has one outcome.
#[tokio::test]
async fn a_client_with_two_addresses_goes_on_over_the_other() {
    let _turn = turn();
    let broker = Broker::start();
    let gate = Gate::before(&broker.door).await;
    let door = broker.door.clone();
    let serving = tokio::spawn(async move { worker().serve(&door).await });
    let (client, _side) = door_first(&gate, &broker).await;
    client.call("echo").args(&[1]).wait().send().await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..1_000_u64 {
        let call = client.call("slow").args(&[300]).idempotent(number % 2 == 0);
        calls.spawn(async move { (number % 2 == 0, call.send().await) });
    }
    // They are in flight once they are counted.
    let observer = broker.client().await;
    until(&observer, "mpreg.status", |status| status["requests"].as_u64() > Some(1_000)).await;
    let shut = Instant::now();
    gate.set(State::Shut);
    path_until(&client, |paths| paths[1].in_use).await;
    let switched = shut.elapsed();
    client.call("echo").args(&[2]).idempotent(true).send().await.unwrap();
    let pause = shut.elapsed();
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    while let Some(ended) = calls.join_next().await {
        let (is_idempotent, outcome) = ended.unwrap();
        let told = match outcome {
            Ok(body) => format!("{}", body.read::<u64>().unwrap()),
            Err(error) => error.code().unwrap_or("?").to_owned(),
        };
        *outcomes.entry(format!("{is_idempotent} {told}")).or_default() += 1;
    }
    println!("{switched:?}, {pause:?}: {outcomes:?}; {:?}", client.paths());
    assert!(pause < Duration::from_secs(1), "nothing went on for {pause:?}");
    assert_eq!(outcomes.get("true 300"), Some(&500), "{outcomes:?}");
    assert_eq!(outcomes.get("false outcome_unknown"), Some(&500), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2);
    assert!(used(&client).unwrap().address.starts_with("ws://"));

    // Its breaker tries the door again, and it is there should WebSocket fail.
    gate.set(State::Open);
    path_until(&client, |paths| paths.iter().all(|path| path.state == "closed")).await;
    assert!(used(&client).unwrap().address.starts_with("ws://"));
    serving.abort();
}

/// A client that uses the door, and has WebSocket beside it, behind a gate of its own.
async fn door_first(gate: &Gate, broker: &Broker) -> (Client, Gate) {
    let side = Gate::before(&websocket(broker)).await;
    side.set(State::Stuck);
    let client = Client::connect(&format!("{},{}", gate.address, side.address)).await.unwrap();
    assert_eq!(used(&client).unwrap().address, gate.address);
    side.set(State::Open);
    path_until(&client, |paths| paths.iter().all(|path| path.state == "closed")).await;
    (client, side)
}

/// Nothing comes over the door any more, and nothing says so.
#[tokio::test]
async fn silence_is_noticed() {
    let _turn = turn();
    let broker = Broker::start();
    let gate = Gate::before(&broker.door).await;
    let (client, _side) = door_first(&gate, &broker).await;
    let mut events = client.subscribe(["a"]).send().await.unwrap();
    let begun = Instant::now();
    gate.set(State::Stuck);
    client.call("mpreg.workers").idempotent(true).send().await.unwrap();
    let pause = begun.elapsed();
    println!("{pause:?}");
    assert!(pause < Duration::from_secs(2), "nothing went on for {pause:?}");
    assert!(used(&client).unwrap().address.starts_with("ws://"));
    // Its subscriptions went with it.
    let observer = broker.client().await;
    until(&observer, "mpreg.topics", |topics| topics["top"][0]["peers"] == 1).await;
    observer.publish("a").payload(&1).send().await.unwrap();
    assert_eq!(events.next().await.unwrap().read::<u32>().unwrap(), 1);
}

/// A worker moves as well: what it offers is there again, and calls find it.
#[tokio::test]
async fn a_worker_with_two_addresses_is_reached_over_the_other() {
    let _turn = turn();
    let broker = Broker::start();
    let gate = Gate::before(&broker.door).await;
    let both = format!("{},{}", gate.address, websocket(&broker));
    let serving = tokio::spawn(async move { worker().serve(&both).await });
    let client = broker.client().await;
    let echo = async || {
        let call = client.call("echo").args(&[1]).idempotent(true).wait();
        call.timeout(PATIENCE).send().await.unwrap();
    };
    echo().await;
    gate.set(State::Shut);
    let begun = Instant::now();
    echo().await;
    println!("{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1));
    serving.abort();
}

/// Nobody holds it: its connections end.
#[rstest]
#[case::over_zeromq(false)]
#[case::over_websocket(true)]
#[tokio::test]
async fn a_client_that_is_dropped_leaves(#[case] is_web: bool) {
    let _turn = turn();
    let broker = Broker::start();
    let observer = broker.client().await;
    let peers = async |wanted: u64| {
        until(&observer, "mpreg.status", |status| status["process"]["peers"] == wanted).await;
    };
    peers(1).await;
    let address = if is_web { websocket(&broker) } else { broker.door.clone() };
    let client = Client::connect(&address).await.unwrap();
    let second = client.clone();
    let events = second.subscribe(["a"]).send().await.unwrap();
    peers(2).await;
    drop((client, second, events));
    peers(1).await;
}

#[rstest]
#[case::no_port("ws://127.0.0.1", "cannot connect to ws://127.0.0.1: it takes ws://HOST:PORT")]
#[case::tls("wss://127.0.0.1:1", "TLS")]
#[case::the_second("tcp://127.0.0.1:1,nonsense", "cannot connect to nonsense")]
#[case::too_many("tcp://127.0.0.1:1,,,,,,,,", "cannot connect to")]
#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused(#[case] address: &str, #[case] told: &str) {
    let error = Client::connect(address).await.unwrap_err();
    assert!(matches!(error, Error::Address { .. }) && error.to_string().contains(told), "{error}");
}

/// A web server that does not let it in is there, and says why: no broker has to be started.
#[tokio::test]
async fn who_is_not_let_in_hears_why() {
    let _turn = turn();
    let broker = Broker::start();
    let elsewhere = format!("{}/elsewhere", websocket(&broker));
    let refused = Client::connect_as(&elsewhere, None, Duration::from_secs(2)).await;
    let told =
        "HTTP 404 Not Found, there is nothing at /elsewhere; docs/PROTOCOL.md lists the paths";
    assert_eq!(refused.unwrap_err().to_string(), format!("cannot connect to {elsewhere}: {told}"));
}

/// `mpreg status` says how its connections do.
#[test]
fn the_status_tells_of_connections() {
    let _turn = turn();
    let broker = Broker::start();
    let both = format!("ws://127.0.0.1:1, {}", broker.door);
    let shown = mpreg(&["status", "--broker", &both, "--output", "json"]);
    let paths = &json(&shown.stdout)["client"]["paths"];
    assert_eq!(paths[0]["in_use"], false, "{paths}");
    let second = &paths[1];
    assert_eq!((&second["in_use"], &second["state"]), (&json!(true), &json!("closed")), "{paths}");
    assert_eq!(second["address"], json!(broker.door));
    assert!(second["score"].as_f64() > Some(50.0) && second["latency_ms"].as_f64() > Some(0.0));
    let shown = mpreg(&["status", "--broker", &both]);
    assert!(text(&shown.stdout).contains("client.paths.1.state"), "{}", text(&shown.stdout));
}
