//! Topics and queues of several brokers, as transcripts; calls have theirs beside `rpc`.

use rstest::rstest;

use crate::base::{Limits, Out, PeerId, Time};
use crate::federation::{Delta, Fact, Input as Link, Key, Life, LinkId, Message};
use crate::node::script::check;
use crate::node::{About, Input, Node, Output, Rules};

#[rstest]
#[case::what_is_wanted_there(
    r#"
    b1 links
    b1 wants a.#
    c1 publishes p a.b 1
    → c1 published p
    → b1 event a.b 1 for b1
    c1 publishes q b 2
    → c1 published q
    b1 wants no a.#
    c1 publishes r a.b 3
    → c1 published r
"#
)]
#[case::what_is_wanted_here(
    r#"
    c1 subscribes a.*
    → c1 subscribed 1
    b1 links
    b1 publishes a.b 5
    → c1 event a.* a.b #1 5
    b1 publishes a.b.c 6
"#
)]
#[case::it_does_not_go_back(
    r#"
    b1 links
    b1 wants #
    b2 links
    b2 wants #
    c1 subscribes #
    → c1 subscribed 1
    b1 publishes a 5
    → c1 event # a #1 5
"#
)]
#[case::a_gap_is_told(
    r#"
    b1 links
    c1 subscribes mpreg.federation.#
    → c1 subscribed 1
    b1 publishes a 1
    b1 publishes lost=3 a 2
    → c1 event mpreg.federation.# mpreg.federation.b1.gap #1 {"from":"b1","lost":3}
    b1 unlinks
    → c1 event mpreg.federation.# mpreg.federation.b1.lost #2 {"node":"b1"}
"#
)]
#[case::a_queue_here_bound_to_what_is_published_there(
    r#"
    c1 calls d mpreg.queue.declare {"name":"q","bind":["a.#"]}
    → c1 result d {"queue":"q","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":["a.#"]}}
    b1 links
    b1 publishes a.b 7
    c1 consumes q
    → c1 consumed q, credit 1
    → c1 deliver q of a.b 7
"#
)]
fn topics(#[case] script: &str) {
    check(script);
}

#[rstest]
#[case::a_queue_there(
    r#"
    b1 links
    b1 has queue jobs
    c1 sends m jobs 1
    → b1 send jobs 1
    → c1 sent m fsync 1 near
    b1 took jobs
    c1 sends n jobs 2
    → b1 send jobs 2
    → c1 sent n fsync 1 near
    b1 took jobs
    c1 consumes jobs
    → c1 error not_supported: jobs is kept by the broker b1: take its messages there [queue]
"#
)]
#[case::kept_while_it_is_away(
    r#"
    b1 links
    b1 has queue jobs
    c1 sends m jobs 1
    → b1 send jobs 1
    → c1 sent m fsync 1 near
    b1 unlinks
    c1 sends n jobs 2
    → c1 sent n fsync 1 near
    restart
    c1 sends o jobs 3
    → c1 sent o fsync 1 near
    b1 links
    → b1 send jobs 1
    → b1 send jobs 2
    → b1 send jobs 3
    b1 has queue jobs
"#
)]
#[case::sent_there_while_it_is_not_known(
    r#"
    b1 links
    b1 has queue jobs
    b1 unlinks
    c1 sends m jobs 1
    → c1 sent m fsync 1 near
    b1 links
    → b1 send jobs 1
"#
)]
#[case::it_does_not_take_it(
    r#"
    b1 links
    b1 has queue jobs
    c1 sends m jobs 1
    → b1 send jobs 1
    → c1 sent m fsync 1 near
    b1 refuses jobs queue_full jobs holds as much as it may
    +1001ms
    → b1 send jobs 1 attempt 2
    b1 refuses jobs unknown_queue it was deleted
    +1001ms
"#
)]
#[case::a_queue_here_is_not_made_by_another_broker(
    r#"
    b1 links
    b1 sends m jobs 1
    → b1 error m unknown_queue: there is no queue jobs here any more [queue]
    c1 calls d mpreg.queue.declare {"name":"jobs"}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    b1 sends n jobs 2
    → b1 sent n fsync 1
"#
)]
fn queues(#[case] script: &str) {
    check(script);
}

const NOW: Time = Time { mono_ns: 1_000, wall_ms: 1_700_000_000_000 };

/// Plays an input; which outputs ask the driver for something.
fn play(node: &mut Node, input: Input) -> Vec<String> {
    let mut out = Out::new();
    node.handle(NOW, input, &mut out);
    let told = out.drain().filter(|output| !matches!(output, Output::Tell { .. }));
    told.map(|output| format!("{output:?}")).collect()
}

/// Whoever is lost before there is room for it among the peers gets none, and whoever is lost and
/// found again gets it once.
#[test]
fn room_that_comes_too_late() {
    let (endpoints, cluster) = (serde_json::json!({}), "main".into());
    let about = About { node: "n1".into(), version: "1".into(), epoch: 7, endpoints, cluster };
    let mut node = Node::new(about, Limits::default(), &Rules::default(), 1);
    let life = Life { node: "b1".into(), epoch: 1 };
    let up = |node: &mut Node, serial: u32| {
        let (link, cost_us) = (LinkId(serial), 1);
        play(node, Input::Link(Link::Up { link, peer: life.clone(), cost_us }));
        let (cluster, version, door) = Default::default();
        let about = (Key::About, Some(Fact::About { cluster, version, door }));
        let back = (Key::Link("n1".into()), Some(Fact::Link { epoch: 7, cost_us }));
        let changes = vec![about, back];
        let message = Message::Delta(Delta { life: life.clone(), from: 0, to: 2, changes });
        play(node, Input::Link(Link::Heard { link, message }))
    };
    let peer = |slot| PeerId { slot, generation: 1 };
    let join =
        |node: &mut Node, slot| play(node, Input::Joined { node: "b1".into(), peer: peer(slot) });
    let down =
        |node: &mut Node, serial| play(node, Input::Link(Link::Down { link: LinkId(serial) }));
    assert_eq!(up(&mut node, 1), [r#"Reached { node: "b1" }"#]);
    assert!(down(&mut node, 1).is_empty());
    assert_eq!(join(&mut node, 1), [format!("{:?}", Output::Parted { peer: peer(1) })]);
    // It is known from before, so that the link alone makes it reachable.
    up(&mut node, 2);
    down(&mut node, 2);
    up(&mut node, 3);
    assert!(join(&mut node, 2).is_empty());
    assert_eq!(join(&mut node, 3), [format!("{:?}", Output::Parted { peer: peer(3) })]);
    assert_eq!(down(&mut node, 3), [format!("{:?}", Output::Parted { peer: peer(2) })]);
}
