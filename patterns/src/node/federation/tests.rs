//! Topics and queues of several brokers, as transcripts; calls have theirs beside `rpc`.

use rstest::rstest;

use crate::node::script::check;

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
