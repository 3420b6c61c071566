//! The broker as a whole: connections, and what joins the systems.

use rstest::rstest;

use super::script::{Stage, check};
use super::{About, Input, Node, Output, Rules};
use crate::base::limits::STEPS_PER_TURN;
use crate::base::{Limits, Out, PeerId, RunId, Time};
use crate::ops::{Call, GraphOptions, GraphPart, Hello, Reply, Request};
use crate::values::Value;

/// Peers come, speak and go.
#[rstest]
#[case::ping_before_hello(
    r#"
    c1 ping
    → c1 pong
    c1 ping p1
    → c1 pong p1
    c1 hello
    → c1 welcome
"#
)]
#[case::a_token_is_refused_for_now(
    r#"
    c1 hello h1 token
    → c1 error not_supported: this broker has no security yet; leave `token` out [token]
"#
)]
#[case::one_peer_is_client_and_worker(
    r#"
    p1 offers f
    → p1 offered 1, credit 1
    p1 calls a f
    → p1 run f
    p1 returns f 1
    → p1 result a 1
    p1 calls b f
    → p1 run f
    p1 dies
    → p1 cancel f
    p1 calls a f
    → p1 error a unknown_function: no worker offers f [fun]
"#
)]
#[case::both_ends_die(
    r#"
    w1 offers f!
    → w1 offered 1, credit 1
    w2 offers f!
    → w2 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c1 calls b f
    → w2 run f
    c1 calls c f
    c1 dies
    → w1 cancel f
    → w2 cancel f
    w1 dies
    w2 dies
"#
)]
#[case::drain_tells_who_is_known(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 hello
    → c1 welcome
    c2 calls a f
    → w1 run f
    c3 ping
    → c3 pong
    drain
    → w1 bye
    → c1 bye
    w1 returns f 1
    → c2 result a 1
    c2 calls b f
    → c2 error b draining: the broker is going down
    c1 dies
    drain
    → w1 bye
"#
)]
#[case::the_end_gives_everything_an_outcome(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c1 calls b f
    c1 calls c g wait
    c1 graph e
      x: f
      y: f [@x]
    c1 graph h part=0 more
      x: f
    drain
    → w1 bye
    end
    → w1 cancel f
    → c1 error a outcome_unknown: the broker ended while it ran (broker, retry false)
    → c1 error b draining: the broker ended before it began
    → c1 error c draining: the broker ended before it began
    → c1 graph e error outcome_unknown: the broker ended while it ran (broker, retry false) results
        {} steps {x cancelled cancelled, y cancelled cancelled}
    → c1 graph h error draining: the broker ended before it began
"#
)]
#[case::calls_and_graphs_share_ids(
    r#"
    w1 offers f credit=9
    → w1 offered 1, credit 9
    c1 calls a f
    → w1 run f
    c1 graph b
      x: f
    → w1 run f
    c1 calls b f
    → c1 error b duplicate_id: b is in flight on this connection [id] (refused: duplicate)
    c1 cancels b
    → c1 graph b error cancelled: cancelled by the caller results {} steps {x cancelled cancelled}
    → w1 cancel f
    c1 cancels a
    → w1 cancel f
    → c1 error a cancelled: cancelled by the caller
    w1 returns f late
    w1 returns f late
"#
)]
#[case::calls_and_steps_share_workers(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: f [1]
      b: f [@a]
    → w1 run f [1]
    c2 calls x f [2]
    w1 returns f 1
    → w1 run f [2]
    w1 returns f 2
    → c2 result x 2
    → w1 run f [1]
    w1 returns f 3
    → c1 graph g results {b=3}
"#
)]
fn connections(#[case] script: &str) {
    check(script);
}

const CALLER: PeerId = PeerId { slot: 0, generation: 0 };
const NOW: Time = Time { mono_ns: 1_000, wall_ms: 1_700_000_000_000 };

fn node(seed: u64) -> Node {
    let endpoints = serde_json::json!({"door": "tcp://127.0.0.1:7400"});
    let about = About {
        node: "n1".into(),
        version: "0.1.0".into(),
        epoch: 9,
        endpoints,
        cluster: "".into(),
    };
    Node::new(about, Limits::default(), &Rules::default(), seed)
}

fn ask(node: &mut Node, request: Request) -> Vec<Reply> {
    let mut out: Out<Output> = Out::new();
    node.handle(NOW, Input::Request { peer: CALLER, request }, &mut out);
    while node.wake_at().is_some_and(|at_ns| at_ns <= NOW.mono_ns) {
        node.tick(NOW, &mut out);
    }
    out.drain().filter_map(|output| Some(output.sent()?.1)).collect()
}

#[test]
fn welcome_says_who_where_and_what_is_allowed() {
    let mut node = node(1);
    let hello = Hello { id: Some("h".into()), ..Hello::default() };
    let replies = ask(&mut node, Request::Hello(hello));
    let [Reply::Welcome { id, about }] = &replies[..] else { panic!("{replies:?}") };
    let about: serde_json::Value = serde_json::from_slice(&about.bytes).unwrap();
    assert_eq!(id.as_deref(), Some("h"));
    assert_eq!(about["epoch"], 9);
    assert_eq!(about["endpoints"]["door"], "tcp://127.0.0.1:7400");
    assert_eq!(about["limits"]["steps"], Limits::default().steps);
}

/// A caller that follows its graph can name each step for ever: its ULID is the graph's, counted.
#[test]
fn every_step_has_a_ulid() {
    let mut node = node(1);
    // The largest there is, so that counting on from it must not overflow.
    let track = RunId(u128::MAX);
    let steps = r#"[{"name":"a","fun":"mpreg.workers"},{"name":"b","fun":"mpreg.workers"}]"#;
    let options = GraphOptions { progress: true, track: Some(track), ..GraphOptions::default() };
    let steps = Some(Value::json(steps));
    let part = GraphPart { id: "g".into(), steps, options, ..GraphPart::default() };
    let replies = ask(&mut node, Request::Graph(part.into()));
    let told: Vec<_> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Progress(told) => Some((told.event, told.track, told.step_id)),
            _ => None,
        })
        .collect();
    let expected = [
        ("accepted", track, None),
        ("done", track, Some(RunId(0))),
        ("done", track, Some(RunId(1))),
    ];
    assert_eq!(told, expected);
    let Some(Reply::Graph(reply)) = replies.last() else { panic!("{replies:?}") };
    assert_eq!(reply.track, Some(track));
}

/// The first progress of a call names the ULID that its reply repeats.
#[test]
fn a_followed_call_is_named_the_same_throughout() {
    let mut stage = Stage::new(Limits::default());
    stage.play("w1 offers f");
    let mut node = stage.node;
    let call = Call { id: "a".into(), fun: "f".into(), progress: true, ..Call::default() };
    let caller = PeerId { slot: 7, generation: 0 };
    let mut out: Out<Output> = Out::new();
    let input = Input::Request { peer: caller, request: Request::Call(call.into()) };
    node.handle(stage.now, input, &mut out);
    let replies: Vec<Output> = out.drain().collect();
    let (mut track, mut run) = (None, None);
    for output in replies {
        match output.sent().expect("a reply").1 {
            Reply::Progress(told) => track = Some(told.track),
            Reply::Run(given) => run = Some(given.id),
            other => panic!("{other:?}"),
        }
    }
    let peer = PeerId { slot: 0, generation: 0 };
    let body = crate::values::Body::plain(Value::null());
    let request = Request::Result { run: run.unwrap(), body: body.into() };
    node.handle(stage.now, Input::Request { peer, request }, &mut out);
    let (_, reply) = out.drain().next().and_then(Output::sent).expect("a reply");
    let Reply::Result { track: repeated, .. } = reply else { panic!("{reply:?}") };
    assert!(track.is_some() && repeated == track);
}

/// The same inputs and seed give the same outputs, ids included.
#[test]
fn a_seed_replays() {
    let transcript = |seed| {
        let mut node = node(seed);
        let steps = Value::json(r#"[{"name":"a","fun":"mpreg.status"}]"#);
        let options = GraphOptions { progress: true, ..GraphOptions::default() };
        let part =
            GraphPart { id: "g".into(), steps: Some(steps), options, ..GraphPart::default() };
        format!("{:?}", ask(&mut node, Request::Graph(part.into())))
    };
    assert_eq!(transcript(3), transcript(3));
    assert_ne!(transcript(3), transcript(4));
}

/// What is told of an earlier life of a connection does not touch a later one.
#[test]
fn a_late_notice_of_a_death_is_of_that_life_alone() {
    let mut node = node(1);
    let mut out: Out<Output> = Out::new();
    let later = PeerId { slot: 0, generation: 1 };
    let options = crate::ops::CallOptions { wait: true, ..Default::default() };
    let call = Call { id: "a".into(), fun: "f".into(), options, ..Call::default() };
    node.handle(NOW, Input::Request { peer: later, request: Request::Call(call.into()) }, &mut out);
    node.handle(NOW, Input::Gone { peer: CALLER, unsent: Vec::new() }, &mut out);
    assert_eq!(node.in_flight(), 1);
    node.handle(NOW, Input::Gone { peer: later, unsent: Vec::new() }, &mut out);
    assert!(node.is_idle() && out.is_empty());
}

/// What a gone connection asked for is given up in turns. Meanwhile a run may end, and its place
/// be taken by somebody else's request, which stays.
#[test]
fn much_that_is_abandoned_is_given_up_in_turns() {
    let mut node = node(1);
    let mut out: Out<Output> = Out::new();
    let (turn, count) = (STEPS_PER_TURN, 2 * STEPS_PER_TURN + 1);
    let (gone, other) = (PeerId { slot: 1, generation: 1 }, PeerId { slot: 2, generation: 1 });
    let offer = crate::ops::Offer {
        functions: vec![crate::ops::Function { name: "f".into(), ..Default::default() }],
        credit: Some(count as u32),
        ..Default::default()
    };
    node.handle(
        NOW,
        Input::Request { peer: CALLER, request: Request::Offer(offer.into()) },
        &mut out,
    );
    let call = |id: usize| {
        let call = Call { id: id.to_string().into(), fun: "f".into(), ..Call::default() };
        Request::Call(call.into())
    };
    for id in 0..count {
        node.handle(NOW, Input::Request { peer: gone, request: call(id) }, &mut out);
    }
    let Some(Reply::Run(last)) = out.drain().last().and_then(|told| Some(told.sent()?.1)) else {
        panic!()
    };
    node.handle(NOW, Input::Gone { peer: gone, unsent: Vec::new() }, &mut out);
    assert_eq!((node.in_flight(), out.drain().count()), (turn + 1, turn));
    // The last of them ends before its turn.
    let body = crate::values::Body::plain(Value::null());
    let request = Request::Result { run: last.id, body: body.into() };
    node.handle(NOW, Input::Request { peer: CALLER, request }, &mut out);
    node.handle(NOW, Input::Request { peer: other, request: call(0) }, &mut out);
    let told: Vec<_> = out.drain().filter_map(|output| Some(output.sent()?.0)).collect();
    assert_eq!(told, [gone, CALLER]);
    while node.wake_at() == Some(0) {
        node.tick(NOW, &mut out);
    }
    assert_eq!((node.in_flight(), out.drain().count()), (1, turn));
}
