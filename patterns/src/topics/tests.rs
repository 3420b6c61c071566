//! Topics as transcripts.

use rstest::rstest;

use crate::base::Limits;
use crate::node::script::{check, check_within};

/// Who gets what.
#[rstest]
#[case::to_whom_it_matches(
    r#"
    c1 subscribes orders.*.created id=s
    → c1 subscribed s 1
    c3 publishes p orders.eu.created {"n":1}
    → c1 event orders.*.created orders.eu.created #1 {"n":1}
    → c3 published p
    c3 publishes p orders.eu.west.created 2 quietly
    c3 publishes p orders x
    → c3 published p
"#
)]
#[case::everything(
    r#"
    c2 subscribes '' id=t
    → c2 subscribed t 1
    c3 publishes p orders 2 quietly
    → c2 event  orders #1 2
    c3 publishes p other x
    → c2 event  other #2 b"x"
    → c3 published p
"#
)]
#[case::to_sockets(
    r#"
    socket listens orders.*
    socket listens orders.*?headers
    socket listens orders.*
    socket publishes orders.new 1
    → socket orders.* orders.new 1
    → socket orders.*?headers orders.new #1 1
    socket unlistens orders.*
    socket publishes orders.new 2
    → socket orders.* orders.new 2
    → socket orders.*?headers orders.new #2 2
    socket unlistens orders.*
    socket publishes orders.new 3
    → socket orders.*?headers orders.new #3 3
    socket unlistens orders.*?headers
    socket publishes orders.new 4
"#
)]
#[case::held_once(
    r#"
    c1 subscribes a.b
    → c1 subscribed 1
    c1 subscribes a.b a.*
    → c1 subscribed 2
    c1 unsubscribes a.b id=u
    → c1 subscribed u 1
    c1 unsubscribes a.b
    → c1 subscribed 1
    c2 publishes p a.b 1 quietly
    → c1 event a.* a.b #1 1
    c1 dies
    c2 publishes p a.b 2 quietly
"#
)]
#[case::two_spellings_are_two(
    r#"
    c1 subscribes a. a.#
    → c1 subscribed 2
    c2 publishes p a.b 1 quietly
    → c1 event a. a.b #1 1
    → c1 event a.# a.b #1 1
"#
)]
#[case::a_number_begins_anew_with_the_first_holder(
    r#"
    c1 subscribes a
    → c1 subscribed 1
    c2 publishes p a 1 quietly
    → c1 event a a #1 1
    c3 subscribes a
    → c3 subscribed 1
    c2 publishes p a 2 quietly
    → c1 event a a #2 2
    → c3 event a a #2 2
    c1 dies
    c3 dies
    c1 subscribes a
    → c1 subscribed 1
    c2 publishes p a 3 quietly
    → c1 event a a #1 3
"#
)]
#[case::bad_patterns(
    r#"
    c1 subscribes a.b a*b c id=s
    → c1 error s bad_pattern: `a*b` is no pattern [patterns/1]
    c1 subscribes c
    → c1 subscribed 2
"#
)]
#[case::an_id_in_flight(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c1 publishes a t 1
    → c1 error a duplicate_id: a is in flight on this connection [id] (refused: duplicate)
    w1 returns f
    → c1 result a null
"#
)]
fn who_gets_what(#[case] script: &str) {
    check(script);
}

/// Credit, and what is lost without.
#[rstest]
#[case::a_window(
    r#"
    c1 subscribes a.* credit=2
    → c1 subscribed 1, credit 2
    c2 publishes p a.1 1 quietly
    → c1 event a.* a.1 #1 1
    c2 publishes p a.2 2 quietly
    → c1 event a.* a.2 #2 2
    c2 publishes p a.3 3 quietly
    c1 acks 1
    c2 publishes p a.4 4 quietly
    → c1 event a.* a.4 #4 4
    c1 subscribes credit=0
    → c1 subscribed 1, credit 0
    c1 acks 9
    c2 publishes p a.5 5 quietly
"#
)]
#[case::losses_are_told(
    r#"
    c1 subscribes a.* credit=1
    → c1 subscribed 1, credit 1
    c3 subscribes mpreg.topic.#
    → c3 subscribed 1
    c2 publishes p a.1 1 quietly
    → c1 event a.* a.1 #1 1
    c2 publishes p a.2 2 quietly
    c2 publishes p a.3 3 quietly
    +2s
    → c3 event mpreg.topic.# mpreg.topic.dropped.c1 #1 {"peer":"c1","dropped":2,"patterns":["a.*"]}
"#
)]
#[case::losses_of_one_that_dies_are_told_at_once(
    r#"
    c1 subscribes a.* credit=1
    → c1 subscribed 1, credit 1
    c3 subscribes mpreg.topic.#
    → c3 subscribed 1
    c2 publishes p a.1 1 quietly
    → c1 event a.* a.1 #1 1
    c2 publishes p a.2 2 quietly
    c1 dies
    → c3 event mpreg.topic.# mpreg.topic.dropped.c1 #1 {"peer":"c1","dropped":1,"patterns":["a.*"]}
    +2s
"#
)]
#[case::what_the_connection_did_not_take(
    r#"
    c1 subscribes a.* credit=1
    → c1 subscribed 1, credit 1
    c2 publishes p a.1 1 quietly
    → c1 event a.* a.1 #1 1
    c1 misses a.*
    c2 publishes p a.2 2 quietly
    → c1 event a.* a.2 #2 2
    c2 calls t mpreg.topics
    → c2 result t {"patterns":1,"top":[{"pattern":"a.*","events":2,"dropped":1,"peers":1,
        "sockets":0,"waiting":0,"kept":false}],"logs":[],"counters":{"published":2,"refused":0,
        "delivered":2,"dropped":1,"missed":0}}
"#
)]
fn credit(#[case] script: &str) {
    check(script);
}

/// Logs: history first, then what comes.
#[rstest]
#[case::all_of_it(
    r#"
    keep orders.#
    c2 publishes p orders.1 1 quietly
    c2 publishes p other 0 quietly
    c2 publishes p orders.2 2 quietly
    c1 subscribes orders.* replay=all
    → c1 subscribed 1
    → c1 event orders.* orders.1 #1 1
    → c1 event orders.* orders.2 #2 2
    c2 publishes p orders.3 3 quietly
    → c1 event orders.* orders.3 #3 3
    c1 subscribes orders.* replay=all
    → c1 subscribed 1
"#
)]
#[case::from_a_number(
    r#"
    keep a.#
    c2 publishes p a.1 1 quietly
    c2 publishes p a.2 2 quietly
    c2 publishes p a.3 3 quietly
    c1 subscribes a.# replay=seq:2
    → c1 subscribed 1
    → c1 event a.# a.2 #2 2
    → c1 event a.# a.3 #3 3
"#
)]
#[case::the_last(
    r#"
    keep a.#
    c2 publishes p a.x 1 quietly
    c2 publishes p a.x 2 quietly
    c2 publishes p a.y 3 quietly
    c2 publishes p a.x 4 quietly
    c2 publishes p a.y 5 quietly
    c1 subscribes a.x replay=last:2
    → c1 subscribed 1
    → c1 event a.x a.x #2 2
    → c1 event a.x a.x #4 4
    c2 publishes p a.x 6 quietly
    → c1 event a.x a.x #6 6
"#
)]
#[case::since_a_moment(
    r#"
    keep a.#
    c2 publishes p a.x 1 quietly
    +10ms
    c2 publishes p a.x 2 quietly
    c1 subscribes a.# replay=ms:1700000000010
    → c1 subscribed 1
    → c1 event a.# a.x #2 2
"#
)]
#[case::waits_for_credit(
    r#"
    keep a.#
    c2 publishes p a.x 1 quietly
    c2 publishes p a.x 2 quietly
    c1 subscribes a.# replay=all credit=1
    → c1 subscribed 1, credit 1
    → c1 event a.# a.x #1 1
    c2 publishes p a.x 3 quietly
    c1 acks 1
    → c1 event a.# a.x #2 2
    c1 acks 1
    → c1 event a.# a.x #3 3
    c1 acks 1
    c2 publishes p a.x 4 quietly
    → c1 event a.# a.x #4 4
"#
)]
#[case::waits_for_the_connection(
    r#"
    keep a.#
    c1 subscribes a.# replay=all
    → c1 subscribed 1
    c2 publishes p a.x 1 quietly
    → c1 event a.# a.x #1 1
    c1 stalls
    c2 publishes p a.x 2 quietly
    c2 publishes p a.x 3 quietly
    c1 flows
    → c1 event a.# a.x #2 2
    → c1 event a.# a.x #3 3
    c2 publishes p a.x 4 quietly
    → c1 event a.# a.x #4 4
"#
)]
#[case::waits_for_a_connection_that_stalled_before(
    r#"
    keep a.#
    c2 publishes p a.x 1 quietly
    c1 stalls
    c1 subscribes a.# replay=all
    → c1 subscribed 1
    c2 publishes p a.x 2 quietly
    c1 flows
    → c1 event a.# a.x #1 1
    → c1 event a.# a.x #2 2
"#
)]
#[case::goes_on_with_the_credit_of_what_was_not_delivered(
    r#"
    keep a.#
    c2 publishes p a.x 1 quietly
    c2 publishes p a.x 2 quietly
    c1 subscribes a.# replay=all credit=1
    → c1 subscribed 1, credit 1
    → c1 event a.# a.x #1 1
    c1 misses a.#
    → c1 event a.# a.x #2 2 missed 1
"#
)]
#[case::what_is_gone_is_missed(
    r#"
    keep a.# count=2
    c1 subscribes a.# replay=all credit=1
    → c1 subscribed 1, credit 1
    c2 publishes p a.x 1 quietly
    → c1 event a.# a.x #1 1
    c2 publishes p a.x 2 quietly
    c2 publishes p a.x 3 quietly
    c2 publishes p a.x 4 quietly
    c1 acks 1
    → c1 event a.# a.x #3 3 missed 1
"#
)]
#[case::others_in_the_log_are_not_missed(
    r#"
    keep a.# count=2
    c1 subscribes a.x replay=all credit=1
    → c1 subscribed 1, credit 1
    c2 publishes p a.x 1 quietly
    → c1 event a.x a.x #1 1
    c1 acks 1
    c2 publishes p a.y 2 quietly
    c2 publishes p a.y 3 quietly
    c2 publishes p a.y 4 quietly
    c2 publishes p a.x 5 quietly
    → c1 event a.x a.x #5 5
    c2 publishes p a.x 6 quietly
    c1 acks 1
    → c1 event a.x a.x #6 6
"#
)]
#[case::a_place_that_was_let_go_while_it_waited(
    r#"
    keep a.#
    c1 subscribes a.* replay=all credit=0
    → c1 subscribed 1, credit 0
    c2 publishes p a.x 1 quietly
    c1 unsubscribes a.*
    → c1 subscribed 0, credit 0
    c3 subscribes a.# replay=all
    → c3 subscribed 1
    → c3 event a.# a.x #1 1
    c1 acks 1
    c2 publishes p a.x 2 quietly
    → c3 event a.# a.x #2 2
"#
)]
#[case::too_old(
    r#"
    keep a.# age=100
    c2 publishes p a.x 1 quietly
    +60ms
    c2 publishes p a.x 2 quietly
    +60ms
    c1 subscribes a.# replay=all
    → c1 subscribed 1
    → c1 event a.# a.x #2 2
    +100ms
    c2 calls h mpreg.topic.history {"pattern":"a.x"}
    → c2 result h {"events":[],"first_seq":3,"next_seq":3,"more":false}
"#
)]
#[case::not_kept(
    r#"
    keep a.b.#
    c1 subscribes a.b.c a.# replay=all id=s
    → c1 error s not_retained: `a.#` is not kept; a.b.# is [patterns/1]
    c1 calls h mpreg.topic.history {"pattern":"a.*"}
    → c1 error h not_retained: `a.*` is not kept; a.b.# is
"#
)]
fn replay(#[case] script: &str) {
    check(script);
}

/// `mpreg.topic.history`.
#[rstest]
#[case::all(
    r#"
    keep a.#
    c2 publishes p a.x {"n":1} quietly
    c2 publishes p a.y b quietly
    c1 calls h mpreg.topic.history {"pattern":"a.#"}
    → c1 result h {"events":[{"topic":"a.x","seq":1,"message":"ULID","at_ms":1700000000000,
        "payload":{"n":1}},{"topic":"a.y","seq":2,"message":"ULID","at_ms":1700000000000,
        "payload":{"$frame":1}}],"first_seq":1,"next_seq":3,"more":false} frames=b
    c1 calls h mpreg.topic.history {"pattern":"a.#","last":1}
    → c1 result h {"events":[{"topic":"a.y","seq":2,"message":"ULID","at_ms":1700000000000,
        "payload":{"$frame":1}}],"first_seq":1,"next_seq":3,"more":false} frames=b
    c1 calls h mpreg.topic.history {"pattern":"a.#","from_seq":2,"limit":1}
    → c1 result h {"events":[{"topic":"a.y","seq":2,"message":"ULID","at_ms":1700000000000,
        "payload":{"$frame":1}}],"first_seq":1,"next_seq":3,"more":false} frames=b
    c1 calls h mpreg.topic.history {"pattern":"a.#","limit":1}
    → c1 result h {"events":[{"topic":"a.x","seq":1,"message":"ULID","at_ms":1700000000000,
        "payload":{"n":1}}],"first_seq":1,"next_seq":2,"more":true}
"#
)]
#[case::the_last_of_each(
    r#"
    keep a.#
    c2 publishes p a.x 1 quietly
    c2 publishes p a.y 2 quietly
    c2 publishes p a.x 3 quietly
    c1 calls h mpreg.topic.history {"pattern":"a.#","per_topic":true}
    → c1 result h {"events":[{"topic":"a.y","seq":2,"message":"ULID","at_ms":1700000000000,
        "payload":2},{"topic":"a.x","seq":3,"message":"ULID","at_ms":1700000000000,"payload":3}],
        "first_seq":1,"next_seq":4,"more":false}
"#
)]
#[case::bad(
    r#"
    c1 calls h mpreg.topic.history {"pattern":"a.#","last":1,"from_seq":2}
    → c1 error h bad_args: takes one of `from_seq`, `since_ms` and `last` [from_seq]
    c1 calls h mpreg.topic.history {}
    → c1 error h bad_args: `pattern` is missing [pattern]
    c1 calls h mpreg.topic.history {"pattern":"a..b"}
    → c1 error h bad_pattern: `a..b` is no pattern [pattern]
"#
)]
fn history(#[case] script: &str) {
    check(script);
}

#[rstest]
// A log outlives the broker, and goes on counting.
#[case::restart(
    r#"
    keep a.# count=3 stored
    c1 publishes p a.1 1
    → c1 published p
    c1 publishes q a.2 2
    → c1 published q
    c1 publishes r a.3 3
    → c1 published r
    c1 publishes s a.4 4
    → c1 published s
    restart
    c1 subscribes a.# credit=9 replay=all
    → c1 subscribed 1, credit 9
    → c1 event a.# a.2 #2 2
    → c1 event a.# a.3 #3 3
    → c1 event a.# a.4 #4 4
    c1 publishes t a.5 5
    → c1 event a.# a.5 #5 5
    → c1 published t
    restart
    c1 calls h mpreg.topic.history {"pattern":"a.#"}
    → c1 result h {"events":[{"topic":"a.3","seq":3,"message":"ULID","at_ms":1700000000000,
        "payload":3},{"topic":"a.4","seq":4,"message":"ULID","at_ms":1700000000000,"payload":4},
        {"topic":"a.5","seq":5,"message":"ULID","at_ms":1700000000000,"payload":5}],"first_seq":3,
        "next_seq":6,"more":false}
    "#
)]
// What was not on the disk yet is lost with the broker, and its numbers are given again.
#[case::killed(
    r#"
    keep a.# stored
    c1 publishes p a.1 1
    → c1 published p
    store waits
    c1 publishes q a.2 2
    → c1 published q
    restart
    store syncs
    c1 calls h mpreg.topic.history {"pattern":"a.#"}
    → c1 result h {"events":[{"topic":"a.1","seq":1,"message":"ULID","at_ms":1700000000000,
        "payload":1}],"first_seq":1,"next_seq":2,"more":false}
    c1 publishes r a.3 3
    → c1 published r
    "#
)]
// While the store fails the log is in memory; afterwards the disk has it all.
#[case::fails(
    r#"
    keep a.# count=4 stored
    c1 publishes p a.1 1
    → c1 published p
    c1 publishes q a.2 2
    → c1 published q
    store waits
    c1 publishes r a.3 3
    → c1 published r
    store fails
    c1 publishes s a.4 4
    → c1 published s
    c1 publishes t a.5 5
    → c1 published t
    c1 publishes u a.6 6
    → c1 published u
    store opens
    store syncs
    restart
    store syncs
    c1 calls h mpreg.topic.history {"pattern":"a.#"}
    → c1 result h {"events":[{"topic":"a.3","seq":3,"message":"ULID","at_ms":1700000000000,
        "payload":3},{"topic":"a.4","seq":4,"message":"ULID","at_ms":1700000000000,"payload":4},
        {"topic":"a.5","seq":5,"message":"ULID","at_ms":1700000000000,"payload":5},{"topic":"a.6",
        "seq":6,"message":"ULID","at_ms":1700000000000,"payload":6}],"first_seq":3,"next_seq":7,
        "more":false}
    "#
)]
// While the store is full the log is in memory, and goes on forgetting.
#[case::fills(
    r#"
    keep a.# count=4 stored
    c1 publishes p a.1 1
    → c1 published p
    c1 publishes q a.2 2
    → c1 published q
    c1 publishes r a.3 3
    → c1 published r
    store fills
    c1 publishes s a.4 4
    → c1 published s
    c1 publishes t a.5 5
    → c1 published t
    c1 publishes u a.6 6
    → c1 published u
    store empties
    store syncs
    restart
    store syncs
    c1 calls h mpreg.topic.history {"pattern":"a.#"}
    → c1 result h {"events":[{"topic":"a.3","seq":3,"message":"ULID","at_ms":1700000000000,
        "payload":3},{"topic":"a.4","seq":4,"message":"ULID","at_ms":1700000000000,"payload":4},
        {"topic":"a.5","seq":5,"message":"ULID","at_ms":1700000000000,"payload":5},{"topic":"a.6",
        "seq":6,"message":"ULID","at_ms":1700000000000,"payload":6}],"first_seq":3,"next_seq":7,
        "more":false}
    "#
)]
// Queues hear of their own writes alone.
#[case::both(
    r#"
    keep a.# stored
    store waits
    c1 sends x jobs 1
    c1 publishes p a.1 1
    → c1 published p
    c1 sends y jobs 2
    c1 publishes q a.2 2
    → c1 published q
    store syncs
    → c1 sent x fsync 1
    → c1 sent y fsync 1
    "#
)]
// A rule that is new, and one whose log was emptied by age.
#[case::age(
    r#"
    keep a.# age=100 stored
    keep b.# stored
    c1 publishes p a.1 1
    → c1 published p
    c1 publishes q b.1 1
    → c1 published q
    +200ms
    restart
    c1 calls h mpreg.topic.history {"pattern":"a.#"}
    → c1 result h {"events":[],"first_seq":2,"next_seq":2,"more":false}
    c1 calls i mpreg.topic.history {"pattern":"b.#"}
    → c1 result i {"events":[{"topic":"b.1","seq":1,"message":"ULID","at_ms":1700000000000,
        "payload":1}],"first_seq":1,"next_seq":2,"more":false}
    c1 publishes r a.2 2
    → c1 published r
    c1 calls j mpreg.topic.history {"pattern":"a.#"}
    → c1 result j {"events":[{"topic":"a.2","seq":2,"message":"ULID","at_ms":1700000000200,
        "payload":2}],"first_seq":2,"next_seq":3,"more":false}
    "#
)]
fn stored(#[case] script: &str) {
    check(script);
}

/// `mpreg.topic.next` and `mpreg.topic.publish`, as calls and as steps.
#[rstest]
#[case::the_next(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*"}
    c2 calls p mpreg.topic.publish {"topic":"a.b","payload":{"n":1},"headers":{"k":"v"}}
    → c1 result n {"topic":"a.b","seq":1,"message":"ULID","at_ms":1700000000000,"payload":{"n":1},
        "headers":{"k":"v"}}
    → c2 result p {"message":"ULID","durability":"memory"}
"#
)]
#[case::so_many(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*","count":2}
    c2 publishes p a.b 1 quietly
    c2 publishes p b.b 2 quietly
    c2 publishes p a.c 3 quietly
    → c1 result n [{"topic":"a.b","seq":1,"message":"ULID","at_ms":1700000000000,"payload":1},
        {"topic":"a.c","seq":2,"message":"ULID","at_ms":1700000000000,"payload":3}]
    c2 publishes p a.c 4 quietly
"#
)]
#[case::on_a_condition(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*","where":"payload.n > 2"}
    c2 publishes p a.b {"n":2} quietly
    c2 publishes p a.b {"n":3} quietly
    → c1 result n {"topic":"a.b","seq":2,"message":"ULID","at_ms":1700000000000,"payload":{"n":3}}
"#
)]
#[case::after_a_delay(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*","delay_ms":50}
    c2 publishes p a.b 1 quietly
    +40ms
    +20ms
    → c1 result n {"topic":"a.b","seq":1,"message":"ULID","at_ms":1700000000000,"payload":1}
"#
)]
#[case::in_vain(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*","timeout_ms":100}
    +50ms
    +60ms
    → c1 error n timeout: 0 of 1 events came in time
    c1 calls n mpreg.topic.next {"pattern":"a.*"} timeout=100
    +110ms
    → c1 error n timeout: 0 of 1 events came in time
"#
)]
#[case::given_up(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*"}
    c1 cancels n
    → c1 error n cancelled: the wait was given up
    c1 calls n mpreg.topic.next {"pattern":"a.*"}
    c1 dies
    c2 calls t mpreg.topics
    → c2 result t {"patterns":0,"top":[],"logs":[],"counters":{"published":0,"refused":0,
        "delivered":0,"dropped":0,"missed":0}}
"#
)]
#[case::at_the_end(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*"}
    end
    → c1 error n draining: the broker ended before it began
"#
)]
#[case::bad(
    r#"
    c1 calls n mpreg.topic.next {"pattern":"a.*","where":"payload."}
    → c1 error n bad_expression: 1:9: Syntax error: no viable alternative at input '.' [where]
    c1 calls n mpreg.topic.next {"pattern":"a.*","count":0}
    → c1 error n bad_args: `count` takes 1 to 10000 [count]
    c1 calls p mpreg.topic.publish {"topic":"mpreg.x","payload":1}
    → c1 error p reserved_name: topics that begin with `mpreg.` are the broker's own [topic]
    c1 calls p mpreg.topic.publish {"topic":"a..b","payload":1}
    → c1 error p bad_name: `a..b` is no name [topic]
"#
)]
#[case::as_steps(
    r#"
    w1 offers work
    → w1 offered 1, credit 1
    c1 graph g
        got: mpreg.topic.next {"pattern":"orders.*","where":"payload.amount > 10"}
        done: work [@got/payload/amount]
        told: mpreg.topic.publish {"topic":"done.order","payload":@done}
    c2 subscribes done.#
    → c2 subscribed 1
    c2 publishes p orders.new {"amount":5} quietly
    c2 publishes p orders.new {"amount":50} quietly
    → w1 run work [50]
    w1 returns work "ok"
    → c2 event done.# done.order #1 "ok"
    → c1 graph g results {told={"message":"ULID","durability":"memory"}}
"#
)]
#[case::a_step_that_waits_is_given_up(
    r#"
    c1 graph g
        got: mpreg.topic.next {"pattern":"orders.*"}
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller results {} steps {got cancelled cancelled}
    c1 graph g timeout=100
        got: mpreg.topic.next {"pattern":"orders.*"}
    +200ms
    → c1 graph g error timeout: 0 of 1 steps had ended results {} steps {got cancelled cancelled}
    c2 calls t mpreg.topics
    → c2 result t {"patterns":0,"top":[],"logs":[],"counters":{"published":0,"refused":0,
        "delivered":0,"dropped":0,"missed":0}}
"#
)]
fn waiting(#[case] script: &str) {
    check(script);
}

/// What the broker tells of calls, graphs and workers while somebody listens.
#[rstest]
#[case::calls(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c2 subscribes mpreg.rpc.command.*.*
    → c2 subscribed 1
    w1 returns f 1
    → c1 result a 1
    c1 calls b f track=01HF7YAT0000000000000000AA
    → w1 run f
    → c2 event mpreg.rpc.command.*.* mpreg.rpc.command.01HF7YAT0000000000000000AA.started #1
        {"track":"ULID","fun":"f"}
    w1 progress f 40 half
    → c2 event mpreg.rpc.command.*.* mpreg.rpc.command.01HF7YAT0000000000000000AA.progress #2
        {"track":"ULID","fun":"f","percent":40.0,"note":"half"}
    w1 returns f 1
    → c1 result b 1
    → c2 event mpreg.rpc.command.*.* mpreg.rpc.command.01HF7YAT0000000000000000AA.completed #3
        {"track":"ULID","fun":"f"}
    c1 calls c f progress track=01HF7YAT0000000000000000AB
    → c1 progress c started
    → w1 run f
    → c2 event mpreg.rpc.command.*.* mpreg.rpc.command.01HF7YAT0000000000000000AB.started #4
        {"track":"ULID","fun":"f"}
    w1 fails f no
    → c1 error c failed: no
    → c2 event mpreg.rpc.command.*.* mpreg.rpc.command.01HF7YAT0000000000000000AB.failed #5
        {"track":"ULID","fun":"f","code":"failed","message":"no"}
    c1 calls d g track=01HF7YAT0000000000000000AC
    → c1 error d unknown_function: no worker offers g [fun]
    → c2 event mpreg.rpc.command.*.* mpreg.rpc.command.01HF7YAT0000000000000000AC.failed #6
        {"track":"ULID","fun":"g","code":"unknown_function","message":"no worker offers g"}
    c2 unsubscribes mpreg.rpc.command.*.*
    → c2 subscribed 0
    c1 calls e f
    → w1 run f
    w1 returns f 1
    → c1 result e 1
"#
)]
#[case::graphs(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c2 subscribes mpreg.rpc.graph.#
    → c2 subscribed 1
    c1 graph g track=01HF7YAT0000000000000000AA
        x: f
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AA.started #1
        {"track":"ULID","event":"accepted","percent":0.0}
    → w1 run f
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AA.progress #2
        {"track":"ULID","event":"started","step":"x","percent":0.0}
    w1 returns f 1
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AA.progress #3
        {"track":"ULID","event":"done","step":"x","percent":100.0}
    → c1 graph g results {x=1}
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AA.completed #4
        {"track":"ULID"}
    c1 graph h track=01HF7YAT0000000000000000AB
        x: f
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AB.started #5
        {"track":"ULID","event":"accepted","percent":0.0}
    → w1 run f
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AB.progress #6
        {"track":"ULID","event":"started","step":"x","percent":0.0}
    w1 fails f no
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AB.progress #7
        {"track":"ULID","event":"failed","step":"x","percent":100.0,"note":"failed: no"}
    → c1 graph h error at x failed: no results {} steps {x failed failed}
    → c2 event mpreg.rpc.graph.# mpreg.rpc.graph.01HF7YAT0000000000000000AB.failed #8
        {"track":"ULID","code":"failed","message":"no","step":"x"}
    c1 graph i
        x: nowhere
    → c1 graph i error at x unknown_function: no worker offers nowhere [fun]
"#
)]
#[case::workers(
    r#"
    c2 subscribes mpreg.worker.#
    → c2 subscribed 1
    w1 offers f
    → w1 offered 1, credit 1
    → c2 event mpreg.worker.# mpreg.worker.w1.joined #1 {"worker":"w1","name":null}
    w1 offers f g
    → w1 offered 2, credit 1
    w1 bye
    → w1 bye
    → c2 event mpreg.worker.# mpreg.worker.w1.left #2 {"worker":"w1","name":null}
    w2 offers f
    → w2 offered 1, credit 1
    → c2 event mpreg.worker.# mpreg.worker.w2.joined #3 {"worker":"w2","name":null}
    w2 dies
    → c2 event mpreg.worker.# mpreg.worker.w2.left #4 {"worker":"w2","name":null}
"#
)]
#[case::refusals(
    r#"
    socket publishes a 1
    c2 subscribes #
    → c2 subscribed 1
    socket refuses a
    → c2 event # mpreg.refused.publish #1 {"endpoint":"publish","topic":"a","code":"bad_frame",
        "message":"one frame"}
"#
)]
fn told(#[case] script: &str) {
    check(script);
}

/// Bounds.
#[rstest]
#[case::patterns_of_a_peer(
    Limits { patterns_per_peer: 2, ..Limits::default() },
    r#"
    c1 subscribes a b c id=s
    → c1 error s too_many_patterns: this connection holds 2 patterns [patterns/2]
    c1 subscribes a
    → c1 subscribed 2
"#
)]
#[case::patterns_of_the_broker(
    Limits { patterns: 2, ..Limits::default() },
    r#"
    c1 subscribes a
    → c1 subscribed 1
    c2 subscribes b c
    → c2 error too_many_patterns: the broker holds 2 patterns [patterns/1]
"#
)]
fn bounds(#[case] limits: Limits, #[case] script: &str) {
    check_within(limits, script);
}
