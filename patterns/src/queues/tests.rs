//! Queues as transcripts.

mod faults;
mod graphs;
mod told;

use rstest::rstest;

use crate::base::Limits;
use crate::node::script::{check, check_within};

/// What is sent reaches one consumer, once it is there.
#[rstest]
#[case::it_waits_for_a_consumer(
    r#"
    c1 sends a jobs {"n":1}
    → c1 sent a fsync 1
    w1 consumes jobs credit=2 id=k
    → w1 consumed k jobs, credit 2
    → w1 deliver jobs {"n":1}
    w1 done jobs id=d
    → w1 acked d 1
    w1 done jobs id=e
    → w1 acked e 0, 1 unknown
"#
)]
#[case::consumers_share_in_turn(
    r#"
    w1 consumes jobs credit=2
    → w1 consumed jobs, credit 2
    w2 consumes jobs credit=1
    → w2 consumed jobs, credit 1
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    c1 sends b jobs 2 quietly
    → w2 deliver jobs 2
    c1 sends c jobs 3 quietly
    → w1 deliver jobs 3
    c1 sends d jobs 4 quietly
    w2 done jobs
    → w2 deliver jobs 4
"#
)]
#[case::credit_of_none_pauses(
    r#"
    w1 consumes jobs credit=0
    → w1 consumed jobs, credit 0
    c1 sends a jobs 1 quietly
    w1 consumes jobs credit=1
    → w1 consumed jobs, credit 1
    → w1 deliver jobs 1
"#
)]
#[case::bytes_and_headers(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs raw{
    → w1 deliver jobs b"raw{"
    → c1 sent a fsync 1
"#
)]
#[case::an_id_in_flight(
    r#"
    store waits
    c1 sends a jobs 1
    c1 sends a jobs 2
    → c1 error a duplicate_id: a is in flight on this connection [id] (refused: duplicate)
    store syncs
    → c1 sent a fsync 1
"#
)]
fn taking(#[case] script: &str) {
    check(script);
}

/// Answers wait for the disk; deliveries do not.
#[rstest]
#[case::sent_waits(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    store waits
    c1 sends a jobs 1
    → w1 deliver jobs 1
    w1 done jobs id=d
    store syncs
    → c1 sent a fsync 1
    → w1 acked d 1
"#
)]
#[case::memory_does_not(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","durability":"memory",
      "lease_ms":1,"max_count":2,"max_bytes":3,"backoff_ms":5,"max_attempts":6,"dedup_ms":7}
    → c1 result a {"queue":"jobs","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":6,"lease_ms":1,"backoff_ms":5,"ttl_ms":null,"max_count":2,"max_bytes":3,
        "when_full":"refuse","dedup_ms":7,"bind":[]}}
    store waits
    c1 calls b mpreg.queue.declare {"name":"fast","durability":"memory"}
    → c1 result b {"queue":"fast","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends c fast 1
    → c1 sent c memory 1
"#
)]
#[case::a_disk_that_fails(
    r#"
    w1 consumes jobs credit=3
    → w1 consumed jobs, credit 3
    c1 sends a jobs 1
    → w1 deliver jobs 1
    → c1 sent a fsync 1
    store waits
    c1 sends b jobs 2
    → w1 deliver jobs 2
    w1 done jobs id=d
    store fails
    → c1 error b store_full: no space left
    → w1 error d store_full: no space left
    c1 sends c jobs 3
    → c1 error c store_full: no space left
    store opens
    store syncs
    → w1 deliver jobs 1
    c1 sends d jobs 4
    → w1 deliver jobs 4
    store syncs
    → c1 sent d fsync 1
"#
)]
// What is on the disk is not counted while that is closed, and the queue says so.
#[case::what_is_on_a_disk_that_fails(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    store syncs
    store fails
    c1 calls b mpreg.queue.stats {"name":"jobs"}
    → c1 result b {"queue":"jobs","durability":"fsync","ready":0,"in_flight":0,"delayed":0,"dead":0,
        "bytes":0,"consumers":0,"oldest_ms":null,"counters":{"enqueued":1,"delivered":0,
        "redelivered":0,"acked":0,"nacked":0,"lapsed":0,"dead":0,"dropped":0,"refused":0,
        "repeated":0,"unroutable":0,"damaged":0},"store":"failed","groups":[{"group":null,"ready":0,
        "in_flight":0,"delayed":0,"dead":0,"consumers":0}],"settings":{"durability":"fsync",
        "kind":"fifo","max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,
        "max_count":100000000,"max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,
        "bind":[]}}
    store opens
    c1 calls c mpreg.queue.stats {"name":"jobs"}
    → c1 result c {"queue":"jobs","durability":"fsync","ready":1,"in_flight":0,"delayed":0,"dead":0,
        "bytes":185,"consumers":0,"oldest_ms":null,"counters":{"enqueued":1,"delivered":0,
        "redelivered":0,"acked":0,"nacked":0,"lapsed":0,"dead":0,"dropped":0,"refused":0,
        "repeated":0,"unroutable":0,"damaged":0},"groups":[{"group":null,"ready":1,"in_flight":0,
        "delayed":0,"dead":0,"consumers":0}],"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
"#
)]
#[case::a_queue_made_anew_on_a_disk_that_fails(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","max_attempts":3}
    → c1 result a {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":3,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends b jobs 1
    → c1 sent b fsync 1
    store waits
    c1 calls c mpreg.queue.delete {"name":"jobs"}
    c1 sends d jobs 2
    store fails
    → c1 error c store_full: no space left
    → c1 error d store_full: no space left
    store opens
    store syncs
    c1 sends e jobs 3
    store syncs
    → c1 sent e fsync 1
    w1 consumes jobs credit=9
    → w1 consumed jobs, credit 9
    c1 calls f mpreg.queue.declare {"name":"jobs","max_attempts":3}
    → c1 result f {"queue":"jobs","created":false,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":3,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    store syncs
    → w1 deliver jobs 1
    → w1 deliver jobs 3
    c1 calls g mpreg.queue.delete {"name":"jobs"}
    c1 calls h mpreg.queue.declare {"name":"jobs","durability":"memory"}
    → c1 result h {"queue":"jobs","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends i jobs 4
    → c1 sent i memory 1
    store fails
    → c1 error g store_full: no space left
    store opens
    store syncs
    c1 sends j jobs 5
    → c1 sent j memory 1
    w1 consumes jobs credit=9
    → w1 consumed jobs, credit 9
    → w1 deliver jobs 4
    → w1 deliver jobs 5
    restart
    c1 calls k mpreg.queues
    → c1 result k {"queues":[],"count":0}
"#
)]
#[case::a_disk_that_fills(
    r#"
    w1 consumes jobs credit=2
    → w1 consumed jobs, credit 2
    c1 sends a jobs 1
    → w1 deliver jobs 1
    → c1 sent a fsync 1
    store waits
    c1 sends b jobs 2
    → w1 deliver jobs 2
    store fills
    c1 sends c jobs 3
    → c1 error c store_full: little room is left
    store syncs
    → c1 sent b fsync 1
    w1 done jobs id=d
    store syncs
    → w1 acked d 1
    store empties
    c1 sends e jobs 4
    → w1 deliver jobs 4
    store syncs
    → c1 sent e fsync 1
"#
)]
#[case::a_restart_voids_leases(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    c1 sends b jobs 2 quietly
    store opens
    → w1 deliver jobs 1
    w1 done jobs id=d
    → w1 acked d 0, 1 unknown
"#
)]
fn safety(#[case] script: &str) {
    check(script);
}

/// What comes to nothing is tried again, later and later, and then is a dead letter.
#[rstest]
#[case::nack_at_once(
    r#"
    w1 consumes jobs credit=2
    → w1 consumed jobs, credit 2
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    c1 sends b jobs 2 quietly
    → w1 deliver jobs 2
    w1 nacks jobs delay=0 id=n try again
    → w1 acked n 1
    → w1 deliver jobs 1 attempt 2
"#
)]
#[case::backoff_then_death(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","durability":"memory",
      "max_attempts":3,"backoff_ms":100}
    → c1 result a {"queue":"jobs","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":3,"lease_ms":30000,"backoff_ms":100,"ttl_ms":null,"max_count":100000000,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends b jobs 1 quietly
    → w1 deliver jobs 1
    w1 nacks jobs broken
    +79ms
    +40ms
    → w1 deliver jobs 1 attempt 2
    w1 nacks jobs broken
    +159ms
    +60ms
    → w1 deliver jobs 1 attempt 3
    w1 nacks jobs still broken
    +10s
    c1 calls p mpreg.queue.peek {"name":"jobs","dead":true}
    → c1 result p {"messages":[{"attempts":3,"message":"ULID","at_ms":1700000000000,
        "reason":"attempts","note":"still broken","payload":1}]}
    c1 calls r mpreg.queue.redrive {"name":"jobs"}
    → c1 result r {"queue":"jobs","messages":1}
    → w1 deliver jobs 1
"#
)]
#[case::a_lease_ends(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    +20s
    w1 extends jobs id=x
    → w1 acked x 1
    +20s
    +20s
    → w2 deliver jobs 1 attempt 2
    w1 done jobs id=late
    → w1 acked late 0, 1 unknown
"#
)]
#[case::its_consumer_dies(
    r#"
    w1 consumes jobs credit=2
    → w1 consumed jobs, credit 2
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    c1 sends b jobs 2 quietly
    → w1 deliver jobs 2
    w2 consumes jobs credit=5
    → w2 consumed jobs, credit 5
    w1 dies
    → w2 deliver jobs 1 attempt 2
    → w2 deliver jobs 2 attempt 2
"#
)]
#[case::one_that_never_left_has_had_no_attempt(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    w1 stalls
    w1 drops jobs
    w1 flows
    → w1 deliver jobs 1
"#
)]
#[case::rejected(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    w1 nacks jobs dead no use
    c1 calls p mpreg.queue.peek {"name":"jobs","dead":true}
    → c1 result p {"messages":[{"attempts":1,"message":"ULID","at_ms":1700000000000,
        "reason":"rejected","note":"no use","payload":1}]}
    store opens
    c1 calls r mpreg.queue.redrive {"name":"jobs","count":5}
    → w1 deliver jobs 1
    → c1 result r {"queue":"jobs","messages":1}
"#
)]
fn failures(#[case] script: &str) {
    check(script);
}

/// In what order, and when.
#[rstest]
#[case::delayed(
    r#"
    w1 consumes jobs credit=9
    → w1 consumed jobs, credit 9
    c1 sends a jobs 1 delay=100 quietly
    c1 sends b jobs 2 delay=50 quietly
    c1 sends c jobs 3 quietly
    → w1 deliver jobs 3
    +60ms
    → w1 deliver jobs 2
    +60ms
    → w1 deliver jobs 1
"#
)]
#[case::a_delay_outlasts_a_restart(
    r#"
    c1 sends a jobs 1 delay=100 quietly
    store opens
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    +99ms
    +3ms
    → w1 deliver jobs 1
"#
)]
#[case::one_key_at_a_time(
    r#"
    w1 consumes jobs credit=5
    → w1 consumed jobs, credit 5
    c1 sends a jobs 1 key=k quietly
    → w1 deliver jobs 1
    c1 sends b jobs 2 key=k quietly
    c1 sends c jobs 3 key=other quietly
    → w1 deliver jobs 3
    c1 sends d jobs 4 key=k quietly
    w1 nacks jobs delay=50
    +60ms
    → w1 deliver jobs 1 attempt 2
    w2 consumes jobs credit=5
    → w2 consumed jobs, credit 5
    w1 done jobs
    w1 done jobs
    → w1 deliver jobs 2
    w1 done jobs
    → w2 deliver jobs 4
"#
)]
fn order(#[case] script: &str) {
    check(script);
}

/// Priorities go first, in a queue that has them.
#[test]
fn priorities() {
    check(PRIORITIES);
}

const PRIORITIES: &str = r#"
    c1 sends a jobs 1 priority=3
    → c1 error a bad_field: jobs was not declared with kind `priority` [priority]
    c1 calls b mpreg.queue.delete {"name":"jobs"}
    → c1 result b {"queue":"jobs","messages":0}
    c1 calls c mpreg.queue.declare {"name":"jobs","kind":"priority","max_bytes":9000}
    → c1 result c {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"priority",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":9000,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends d jobs 1 quietly
    c1 sends e jobs 2 priority=9 quietly
    c1 sends f jobs 3 priority=4 quietly
    c1 sends g jobs 4 priority=9 quietly
    store opens
    w1 consumes jobs credit=9
    → w1 consumed jobs, credit 9
    → w1 deliver jobs 2
    → w1 deliver jobs 4
    → w1 deliver jobs 3
    → w1 deliver jobs 1
"#;

/// What finds no room, and what was sent before.
#[rstest]
#[case::refused(
    r#"
    c1 calls a mpreg.queue.declare {"name":"q","max_count":1,"max_bytes":90000}
    → c1 result a {"queue":"q","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":90000,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends b q 1
    → c1 sent b fsync 1
    c1 sends c q 2 quietly
    → c1 error c queue_full: q holds 1 messages of 185 bytes
    c1 calls p mpreg.queue.purge {"name":"q"}
    → c1 result p {"queue":"q","messages":1}
    c1 sends d q 3
    → c1 sent d fsync 1
"#
)]
#[case::the_oldest_goes(
    r#"
    c1 calls a mpreg.queue.declare {"name":"q","max_count":2,"max_bytes":90000,
      "when_full":"drop_oldest"}
    → c1 result a {"queue":"q","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":2,
        "max_bytes":90000,"when_full":"drop_oldest","dedup_ms":120000,"bind":[]}}
    c1 sends b q 1 quietly
    c1 sends c q 2 quietly
    c1 sends d q 3
    → c1 sent d fsync 1
    w1 consumes q credit=5
    → w1 consumed q, credit 5
    → w1 deliver q 2
    → w1 deliver q 3
"#
)]
#[case::repeated(
    r#"
    w1 consumes jobs credit=5
    → w1 consumed jobs, credit 5
    c1 sends a jobs 1 dedup=x
    → w1 deliver jobs 1
    → c1 sent a fsync 1
    c1 sends b jobs 1 dedup=x
    → c1 sent b fsync 1
    +121s
    → w1 deliver jobs 1 attempt 2
    → w1 deliver jobs 1 attempt 3
    → w1 deliver jobs 1 attempt 4
    c1 sends c jobs 1 dedup=x quietly
    → w1 deliver jobs 1
"#
)]
fn room(#[case] script: &str) {
    check(script);
}

/// By topic, and to groups.
#[rstest]
#[case::bound(
    r#"
    c1 calls a mpreg.queue.declare {"name":"q","bind":["orders.#"],"max_bytes":90000}
    → c1 result a {"queue":"q","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":90000,"when_full":"refuse","dedup_ms":120000,"bind":["orders.#"]}}
    c1 routes b orders.new 1
    → c1 sent b fsync 1
    c1 routes c other 2
    → c1 error c unroutable: no queue is bound to other [topic]
    c1 publishes d orders.old 3
    → c1 published d
    store opens
    c1 calls e mpreg.queue.declare {"name":"q","bind":["orders.#"]}
    → c1 result e {"queue":"q","created":false,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":90000,"when_full":"refuse","dedup_ms":120000,"bind":["orders.#"]}}
    c1 calls f mpreg.queue.declare {"name":"q","bind":["x"]}
    → c1 error f queue_differs: its bind is ["orders.#"], not ["x"] [bind]
    w1 consumes q credit=5
    → w1 consumed q, credit 5
    → w1 deliver q of orders.new 1
    → w1 deliver q of orders.old 3
"#
)]
#[case::groups_each_get_all(
    r#"
    c1 sends a jobs 1 quietly
    w1 consumes jobs credit=5 group=x
    → w1 consumed jobs for x, credit 5
    → w1 deliver jobs for x 1
    w2 consumes jobs credit=5 group=y
    → w2 consumed jobs for y, credit 5
    c1 sends b jobs 2 quietly
    → w1 deliver jobs for x 2
    → w2 deliver jobs for y 2
    w2 dies
    c1 sends c jobs 3 quietly
    → w1 deliver jobs for x 3
    store opens
    → w1 deliver jobs for x 1
    → w1 deliver jobs for x 2
    → w1 deliver jobs for x 3
    w3 consumes jobs credit=5 group=y
    → w3 consumed jobs for y, credit 5
    → w3 deliver jobs for y 2
    → w3 deliver jobs for y 3
"#
)]
#[case::one_at_a_time_by_a_call(
    r#"
    c1 calls a mpreg.queue.next {"name":"jobs"}
    → c1 error a unknown_queue: there is no queue jobs [queue]
    c1 sends b jobs 1 quietly
    c1 calls c mpreg.queue.next {"name":"jobs"}
    → c1 result c {"queue":"jobs","id":"ULID","attempt":1,"message":"ULID","at_ms":1700000000000,
        "payload":1}
    c1 calls d mpreg.queue.next {"name":"jobs","timeout_ms":50}
    +60ms
    → c1 error d timeout: no message came in time
    c1 calls e mpreg.queue.next {"name":"jobs"}
    c1 cancels e
    → c1 error e cancelled: the wait was given up
    c1 calls f mpreg.queue.next {"name":"jobs"}
    c2 sends g jobs 2 quietly
    → c1 result f {"queue":"jobs","id":"ULID","attempt":1,"message":"ULID","at_ms":1700000000060,
        "payload":2}
    c1 dies
    w1 consumes jobs credit=2
    → w1 consumed jobs, credit 2
    → w1 deliver jobs 1 attempt 2
    → w1 deliver jobs 2 attempt 2
"#
)]
fn routes(#[case] script: &str) {
    check(script);
}

#[rstest]
// Nothing is taken before somebody listens; it leaves once the store has forgotten it.
#[case::takes(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","outlet":"tcp://127.0.0.1:7500"}
    → outlet 0 bind tcp://127.0.0.1:7500
    outlet 0 bound tcp://127.0.0.1:7500
    → c1 result a {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[],
        "outlet":"tcp://127.0.0.1:7500"},"outlet":{"endpoint":"tcp://127.0.0.1:7500","error":null,
        "delivery":"at_most_once","on_their_way":0,"sent":0}}
    c1 sends b jobs 1
    → c1 sent b fsync 1
    store waits
    outlet 0 flows
    store syncs
    → outlet 0 push jobs 1
    c1 calls c mpreg.queue.stats {"name":"jobs"}
    → c1 result c {"queue":"jobs","durability":"fsync","ready":0,"in_flight":0,"delayed":0,"dead":0,
        "bytes":0,"consumers":1,"oldest_ms":null,"counters":{"enqueued":1,"delivered":1,
        "redelivered":0,"acked":1,"nacked":0,"lapsed":0,"dead":0,"dropped":0,"refused":0,
        "repeated":0,"unroutable":0,"damaged":0},"groups":[{"group":null,"ready":0,"in_flight":0,
        "delayed":0,"dead":0,"consumers":1}],"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[],
        "outlet":"tcp://127.0.0.1:7500"},"outlet":{"endpoint":"tcp://127.0.0.1:7500","error":null,
        "delivery":"at_most_once","on_their_way":1,"sent":0}}
    outlet 0 sent 1
    c1 calls d mpreg.queue.stats {"name":"jobs"}
    → c1 result d {"queue":"jobs","durability":"fsync","ready":0,"in_flight":0,"delayed":0,"dead":0,
        "bytes":0,"consumers":1,"oldest_ms":null,"counters":{"enqueued":1,"delivered":1,
        "redelivered":0,"acked":1,"nacked":0,"lapsed":0,"dead":0,"dropped":0,"refused":0,
        "repeated":0,"unroutable":0,"damaged":0},"groups":[{"group":null,"ready":0,"in_flight":0,
        "delayed":0,"dead":0,"consumers":1}],"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[],
        "outlet":"tcp://127.0.0.1:7500"},"outlet":{"endpoint":"tcp://127.0.0.1:7500","error":null,
        "delivery":"at_most_once","on_their_way":0,"sent":1}}
    c1 calls e mpreg.queue.delete {"name":"jobs"}
    → outlet 0 close
    store syncs
    → c1 result e {"queue":"jobs","messages":0}
    c1 calls f mpreg.queue.declare {"name":"other","outlet":"tcp://127.0.0.1:7500"}
    → outlet 1 bind tcp://127.0.0.1:7500
    outlet 1 bound tcp://127.0.0.1:7500
    outlet 1 flows
    c1 sends g other 1 quietly
    store syncs
    → c1 result f {"queue":"other","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[],
        "outlet":"tcp://127.0.0.1:7500"},"outlet":{"endpoint":"tcp://127.0.0.1:7500","error":null,
        "delivery":"at_most_once","on_their_way":0,"sent":0}}
    → outlet 1 push other 1
    "#
)]
#[case::refuses(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","outlet":"tcp://10.0.0.1:7500"}
    → c1 error a not_supported: tcp://10.0.0.1:7500 can be reached from other machines and nothing
        protects it yet; start the broker with --insecure if the network is trusted [outlet]
    c1 calls a mpreg.queue.declare {"name":"jobs","outlet":"ipc:///tmp/x"}
    → c1 error a bad_args: `outlet` takes an IP address and a port: tcp://127.0.0.1:7500 [outlet]
    c1 calls a mpreg.queue.declare {"name":"jobs","outlet":"tcp://127.0.0.1:7500"}
    → outlet 0 bind tcp://127.0.0.1:7500
    outlet 0 fails it is taken
    → outlet 0 close
    → c1 error a cannot_bind: it is taken
    c1 calls b mpreg.queue.stats {"name":"jobs"}
    → c1 error b unknown_queue: there is no queue jobs [queue]
    c1 calls c mpreg.queue.declare {"name":"jobs","outlet":"tcp://127.0.0.1:7500"}
    → outlet 1 bind tcp://127.0.0.1:7500
    c2 sends d jobs 1
    → c2 sent d fsync 1
    outlet 1 bound tcp://127.0.0.1:7500
    → outlet 1 close
    → c1 error c queue_differs: its outlet is None, not Some("tcp://127.0.0.1:7500") [outlet]
    "#
)]
// Its turn comes as that of any consumer, and it takes nothing while it is blocked.
#[case::shares(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","durability":"memory",
        "outlet":"tcp://127.0.0.1:0"}
    → outlet 0 bind tcp://127.0.0.1:0
    outlet 0 bound tcp://127.0.0.1:7500
    → c1 result a {"queue":"jobs","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":[],
        "outlet":"tcp://127.0.0.1:0"},"outlet":{"endpoint":"tcp://127.0.0.1:7500","error":null,
        "delivery":"at_most_once","on_their_way":0,"sent":0}}
    outlet 0 flows
    w1 consumes jobs credit=9
    → w1 consumed jobs, credit 9
    c1 sends b jobs 1 quietly
    → outlet 0 push jobs 1
    c1 sends c jobs 2 quietly
    → w1 deliver jobs 2
    c1 sends d jobs 3 quietly
    → outlet 0 push jobs 3
    outlet 0 stalls
    c1 sends e jobs 4 quietly
    → w1 deliver jobs 4
    c1 sends f jobs 5 quietly
    → w1 deliver jobs 5
    w1 dies
    outlet 0 flows
    → outlet 0 push jobs 2
    → outlet 0 push jobs 4
    → outlet 0 push jobs 5
    outlet 0 sent 5
    "#
)]
// What waits for the store is not sent when that fails, and comes back if it was not deleted.
#[case::outlives(
    r#"
    c1 calls a mpreg.queue.declare {"name":"jobs","outlet":"tcp://127.0.0.1:7500"}
    → outlet 0 bind tcp://127.0.0.1:7500
    outlet 0 bound tcp://127.0.0.1:7500
    → c1 result a {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[],
        "outlet":"tcp://127.0.0.1:7500"},"outlet":{"endpoint":"tcp://127.0.0.1:7500","error":null,
        "delivery":"at_most_once","on_their_way":0,"sent":0}}
    c1 sends b jobs 1
    → c1 sent b fsync 1
    store waits
    outlet 0 flows
    store fails
    store opens
    store syncs
    store syncs
    → outlet 0 push jobs 1
    outlet 0 sent 1
    "#
)]
fn outlets(#[case] script: &str) {
    check(script);
}

/// So much in hand that nothing more is handed out.
#[test]
fn what_is_in_hand_has_a_bound() {
    let limits = Limits { queue_memory_bytes: 300, ..Limits::default() };
    check_within(
        limits,
        r#"
        w1 consumes jobs credit=5
        → w1 consumed jobs, credit 5
        c1 sends a jobs 1 quietly
        → w1 deliver jobs 1
        c1 sends b jobs 2 quietly
        → w1 deliver jobs 2
        c1 sends c jobs 3 quietly
        w1 done jobs
        → w1 deliver jobs 3
    "#,
    );
}

/// What a connection waited for when it died is nobody's: what it had in hand goes to others.
#[rstest]
#[case::and_had_a_message(
    r#"
    c2 sends a jobs 1
    → c2 sent a fsync 1
    c1 calls a mpreg.queue.next {"name":"jobs"}
    → c1 result a {"queue":"jobs","id":"ULID","attempt":1,"message":"ULID","at_ms":1700000000000,
        "payload":1}
    c1 calls b mpreg.queue.next {"name":"jobs"}
    c1 dies
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    → w2 deliver jobs 1 attempt 2
"#
)]
fn a_caller_dies(#[case] script: &str) {
    check(script);
}
