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
#[case::a_topic_that_is_bound_there(
    r#"
    b1 links
    b1 binds a.#
    c1 routes m a.b 1
    → b1 send of a.b 1
    → c1 sent m fsync 1 near
    b1 took a.b
    c1 calls d mpreg.queue.declare {"name":"q","bind":["a.*"],"durability":"memory"}
    → c1 result d {"queue":"q","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":["a.*"]}}
    c1 routes n a.c 2
    → c1 sent n memory 2 near
    → b1 send of a.c 2
    b1 binds no a.#
    c1 routes o a.d 3
    → c1 sent o memory 1
    c1 routes p b 4
    → c1 error p unroutable: no queue is bound to b [topic]
"#
)]
#[case::it_waits_for_the_broker_whose_queues_are_bound(
    r#"
    b1 links
    b1 binds a.#
    b1 unlinks
    c1 routes m a.b 1
    → c1 sent m fsync 1 near
    restart
    b1 links
    → b1 send of a.b 1
    b1 refuses a.b unroutable no queue is bound to a.b
    +2000ms
    c1 calls s mpreg.queue.stats {"name":"mpreg.broker.b1"}
    → c1 result s {"queue":"mpreg.broker.b1","durability":"fsync","ready":0,"in_flight":0,
        "delayed":0,"dead":0,"bytes":0,"consumers":1,"oldest_ms":null,"counters":{"enqueued":0,
        "delivered":1,"redelivered":0,"acked":1,"nacked":0,"lapsed":0,"dead":0,"dropped":0,
        "refused":0,"repeated":0,"unroutable":0,"damaged":0},"groups":[{"group":null,"ready":0,
        "in_flight":0,"delayed":0,"dead":0,"consumers":1}],"settings":{"durability":"fsync",
        "kind":"fifo","max_attempts":4294967295,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,
        "max_count":100000000,"max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,
        "bind":[],"home":"b1"}}
"#
)]
#[case::what_another_broker_sends_goes_no_further(
    r#"
    b1 links
    b2 links
    b2 binds a
    b1 routes m a 1
    → b1 error m unroutable: no queue is bound to a [topic]
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

/// Messages are taken from a queue of another broker: it hears what became of them.
#[rstest]
#[case::its_broker_has_the_last_word(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs credit=2 id=q
    → b1 consume jobs, credit 2
    b1 consumed
    → w1 consumed q jobs, credit 2
    b1 delivers jobs 5
    → w1 deliver jobs 5
    w1 done jobs id=d
    → b1 ack 1
    b1 acked
    → w1 acked d 1
    b1 delivers jobs 6
    → w1 deliver jobs 6
    w1 nacks jobs delay=10 id=e not now
    → b1 nack 1 delay=10 not now
    b1 acked unknown
    → w1 acked e 0, 1 unknown
"#
)]
#[case::several_share_their_credit(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs
    → b1 consume jobs, credit 1
    b1 consumed
    → w1 consumed jobs, credit 1
    w2 consumes jobs credit=2
    → b1 consume jobs, credit 3
    b1 consumed
    → w2 consumed jobs, credit 2
    b1 delivers jobs 1
    → w1 deliver jobs 1
    b1 delivers jobs 2
    → w2 deliver jobs 2
    b1 delivers jobs 3
    → w2 deliver jobs 3
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    w2 consumes jobs credit=1
    → b1 consume jobs, credit 2
    b1 consumed
    → w2 consumed jobs, credit 1
    b1 delivers jobs 4
    w2 done jobs
    → b1 ack 1
    w2 done jobs
    → b1 ack 1
    → w2 deliver jobs 4
"#
)]
#[case::groups_are_told_apart(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs group=g
    → b1 consume jobs for g, credit 1
    b1 consumed
    → w1 consumed jobs for g, credit 1
    w1 consumes jobs
    → b1 consume jobs, credit 1
    b1 consumed
    → w1 consumed jobs, credit 1
    b1 delivers jobs group=g 1
    → w1 deliver jobs for g 1
    b1 delivers jobs 2
    → w1 deliver jobs 2
"#
)]
#[case::who_leaves_gives_back(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs
    → b1 consume jobs, credit 1
    b1 consumed
    → w1 consumed jobs, credit 1
    w2 consumes jobs
    → b1 consume jobs, credit 2
    b1 consumed
    → w2 consumed jobs, credit 1
    b1 delivers jobs 1
    → w1 deliver jobs 1
    w1 dies
    → b1 nack 1 delay=0
    → b1 consume jobs, credit 1
    w2 dies
    → b1 consume jobs, credit 0
    b1 delivers jobs 2
    → b1 nack 1 delay=0
"#
)]
#[case::a_lease_that_ends_there(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs
    → b1 consume jobs, credit 1
    b1 consumed
    → w1 consumed jobs, credit 1
    b1 delivers jobs 1
    → w1 deliver jobs 1
    b1 lapses jobs
    b1 delivers jobs 2
    → w1 deliver jobs 2
"#
)]
#[case::while_its_broker_is_away(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs credit=2
    → b1 consume jobs, credit 2
    b1 consumed
    → w1 consumed jobs, credit 2
    b1 delivers jobs 1
    → w1 deliver jobs 1
    b1 delivers jobs 2
    → w1 deliver jobs 2
    w1 done jobs id=d
    → b1 ack 1
    b1 unlinks
    → w1 error d outcome_unknown: the broker b1 was lost before it answered
    w1 done jobs id=e
    → w1 acked e 0, 1 unknown
    w1 consumes jobs credit=3
    → w1 consumed jobs, credit 3
    b1 links
    → b1 consume jobs, credit 3
    b1 has queue jobs
    b1 consumed
"#
)]
#[case::it_was_deleted_there(
    r#"
    b1 links
    b1 has queue jobs
    w1 consumes jobs id=q
    → b1 consume jobs, credit 1
    b1 refuses consume unknown_queue there is no queue jobs here any more
    → w1 error q unknown_queue: there is no queue jobs here any more
"#
)]
#[case::one_of_each(
    r#"
    w1 consumes near
    → w1 consumed near, credit 1
    c1 sends a near 1
    → w1 deliver near 1
    → c1 sent a fsync 1
    b1 links
    b1 has queue jobs
    w1 consumes jobs
    → b1 consume jobs, credit 1
    b1 consumed
    → w1 consumed jobs, credit 1
    b1 delivers jobs 2
    → w1 deliver jobs 2
    w1 done jobs id=d
    → b1 ack 1
    w1 done near id=e
    → w1 acked e 1
    b1 acked
    → w1 acked d 1
"#
)]
#[case::one_at_a_time(
    r#"
    b1 links
    b1 has queue jobs
    c1 calls a mpreg.queue.next {"name":"jobs"}
    → b1 call mpreg.queue.next {"name":"jobs"}
    b1 returns mpreg.queue.next {"queue":"jobs","id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    → c1 result a {"queue":"jobs","id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    c1 dies
    → b1 nack 1 delay=0
"#
)]
#[case::nothing_came_in_time(
    r#"
    b1 links
    b1 has queue jobs
    c1 calls a mpreg.queue.next {"name":"jobs","timeout_ms":50}
    → b1 call mpreg.queue.next {"name":"jobs","timeout_ms":50} 50ms left
    +51ms
    → c1 error a timeout: no message came in time
    → b1 cancel mpreg.queue.next
    b1 returns mpreg.queue.next {"queue":"jobs","id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    → b1 nack 1 delay=0
"#
)]
#[case::who_waits_goes_on_waiting(
    r#"
    b1 links
    b1 has queue jobs
    c1 calls a mpreg.queue.next {"name":"jobs"}
    → b1 call mpreg.queue.next {"name":"jobs"}
    c1 calls b mpreg.queue.purge {"name":"jobs"}
    → b1 call mpreg.queue.purge {"name":"jobs"}
    b1 unlinks
    → c1 error b outcome_unknown: the broker b1 was lost before it answered
    b1 links
    → b1 call mpreg.queue.next {"name":"jobs"}
    b1 returns mpreg.queue.next {"queue":"jobs","id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    → c1 result a {"queue":"jobs","id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
"#
)]
#[case::a_graph_that_ends_well(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    b1 links
    b1 has queue jobs
    c1 graph g
      a: mpreg.queue.next kwargs={"name":"jobs"}
      b: f [@a]
    → b1 call mpreg.queue.next {"name":"jobs"}
    b1 returns mpreg.queue.next {"id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    → w1 run f [{"id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}]
    w1 returns f 2
    → b1 ack 1
    b1 acked
    → c1 graph g results {b=2}
"#
)]
#[case::a_graph_that_comes_too_late(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    b1 links
    b1 has queue jobs
    c1 graph g
      a: mpreg.queue.next kwargs={"name":"jobs"}
      b: f [@a]
    → b1 call mpreg.queue.next {"name":"jobs"}
    b1 returns mpreg.queue.next {"id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    → w1 run f [{"id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}]
    w1 returns f 2
    → b1 ack 1
    b1 acked unknown
    → c1 graph g error outcome_unknown: what it took counts as not acknowledged: a message that the
        graph had taken was in its hands no longer results {b=2}
"#
)]
#[case::a_graph_that_fails(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    b1 links
    b1 has queue jobs
    c1 graph g
      a: mpreg.queue.next kwargs={"name":"jobs"}
      b: f [@a]
    → b1 call mpreg.queue.next {"name":"jobs"}
    b1 returns mpreg.queue.next {"id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}
    → w1 run f [{"id":"01M82G1KCT1TCHKD0ZDNK6MWJG","payload":1}]
    w1 fails f oops
    → b1 nack 1 the graph failed: failed: step b: oops
    → c1 graph g error at b failed: oops results {} steps {a done, b failed failed}
"#
)]
#[case::what_is_for_it_here_while_its_broker_is_away(
    r#"
    b1 links
    b1 has queue jobs
    c1 sends m jobs 1
    → b1 send jobs 1
    → c1 sent m fsync 1 near
    b1 unlinks
    c1 calls p mpreg.queue.purge {"name":"jobs"}
    → c1 result p {"queue":"jobs","messages":1}
"#
)]
#[case::another_broker_takes_from_a_queue_here(
    r#"
    b1 links
    b1 consumes jobs id=q
    → b1 error q unknown_queue: there is no queue jobs here any more [queue]
    c1 sends m jobs 1
    → c1 sent m fsync 1
    b1 consumes jobs id=q
    → b1 consumed q jobs, credit 1
    → b1 deliver jobs 1
    +30001ms
    → b1 cancel jobs
"#
)]
fn taking(#[case] script: &str) {
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

#[rstest]
#[case::what_is_taken(
    r#"
    c1 calls r mpreg.link.rule {"neighbour":"b1","import":["jobs.#","math.*","!math.secret"]}
    → c1 result r {"neighbour":"b1","rule":true}
    b1 links
    b1 has queue jobs.a
    b1 has queue other
    b1 has math.add@1.0.0
    b1 has math.secret@1.0.0
    c1 sends m jobs.a 1
    → b1 send jobs.a 1
    → c1 sent m fsync 1 near
    c1 sends n other 2
    → c1 sent n fsync 1
    c1 calls a math.add
    → b1 call math.add
    b1 returns math.add 3
    → c1 result a 3
    c1 calls b math.secret
    → c1 error b unknown_function: no worker offers math.secret [fun]
    c1 subscribes #
    → c1 subscribed 1
    b1 publishes other 1
    b1 publishes jobs.b 2
    → c1 event # jobs.b #1 2
"#
)]
#[case::what_is_given(
    r#"
    c1 calls r mpreg.link.rule {"neighbour":"*","export":["a.#"]}
    → c1 result r {"neighbour":"*","rule":true}
    b1 links
    b1 wants #
    b1 binds #
    c1 publishes p a.b 1
    → c1 published p
    → b1 event a.b 1 for b1
    c1 publishes q b 2
    → c1 published q
    c1 routes m a.c 3
    → b1 send of a.c 3
    → c1 sent m fsync 1 near
    c1 routes n b 4
    → c1 error n unroutable: no queue is bound to b [topic]
    w1 offers f
    → w1 offered 1, credit 1
    b1 calls x f
    → b1 error x unknown_function: nobody here runs f [fun]
    c1 sends j jobs 1
    → c1 sent j fsync 1
    b1 sends k jobs 2
    → b1 error k not_shared: jobs is not for the brokers that this one is linked to there [queue]
    b1 consumes jobs
    → b1 error unknown_queue: there is no queue jobs here any more [queue]
    b1 calls y mpreg.queue.stats {"name":"jobs"}
    → b1 error y not_shared: jobs is not for the brokers that this one is linked to there [name]
"#
)]
#[case::changed_while_it_runs(
    r#"
    b1 links
    b1 has f@1.0.0
    b1 has queue q
    c1 calls a f
    → b1 call f
    b1 returns f 1
    → c1 result a 1
    b1 gives n1 !f,!q
    c1 calls b f
    → c1 error b unknown_function: no worker offers f [fun]
    c1 calls e mpreg.link.rules
    → c1 result e []
    b1 gives n1 !q
    c1 calls d f
    → b1 call f
    b1 returns f 2
    → c1 result d 2
"#
)]
#[case::what_waits_is_tried_again(
    r#"
    b1 links
    b1 has queue q
    c1 sends m q 1
    → b1 send q 1
    → c1 sent m fsync 1 near
    b1 refuses q not_shared q is not for you
    +1001ms
    → b1 send q 1 attempt 2
    b1 took q
"#
)]
#[case::what_is_asked(
    r#"
    c1 calls a mpreg.link.rule {"neighbour":"b1","export":["a.b*"]}
    → c1 error a bad_pattern: `a.b*` is no pattern [export]
    c1 calls b mpreg.link.rule {"export":["a"]}
    → c1 error b bad_args: `neighbour` is missing [neighbour]
    c1 calls c mpreg.link.rule {"neighbour":"b1","export":["a"],"import":[]}
    → c1 result c {"neighbour":"b1","rule":true}
    c1 calls d mpreg.link.rules
    → c1 result d [{"export":["a"],"import":[],"neighbour":"b1"}]
    c1 calls e mpreg.link.rule {"neighbour":"b1"}
    → c1 result e {"neighbour":"b1","rule":false}
    c1 calls f mpreg.link.rules
    → c1 result f []
"#
)]
fn rules(#[case] script: &str) {
    check(script);
}
