//! Messages in the hands of graphs, as transcripts.

use rstest::rstest;

use crate::node::script::check;

/// Steps that send and take: what a graph takes is done with its result, and goes back otherwise.
#[rstest]
#[case::its_result_is_the_ack(
    r#"
    c1 sends a jobs {"n":1}
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [{"n":1}]
    c1 calls s mpreg.queue.stats {"name":"jobs"}
    → c1 result s {"queue":"jobs","durability":"fsync","ready":0,"in_flight":1,"delayed":0,"dead":0,
        "bytes":191,"consumers":1,"oldest_ms":null,"counters":{"enqueued":1,"delivered":1,
        "redelivered":0,"acked":0,"nacked":0,"lapsed":0,"dead":0,"dropped":0,"refused":0,
        "repeated":0,"unroutable":0,"damaged":0},"groups":[{"group":null,"ready":0,"in_flight":1,
        "delayed":0,"dead":0,"consumers":1}],"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    store waits
    w1 returns f 7
    c1 ping
    → c1 pong
    store syncs
    → c1 graph g results {work=7}
    c1 calls t mpreg.queue.delete {"name":"jobs"}
    → 1 in flight
"#
)]
#[case::a_failure_is_the_nack(
    r#"
    c1 calls d mpreg.queue.declare {"name":"jobs","max_attempts":2,"backoff_ms":1000}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":2,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends a jobs {"n":1}
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [{"n":1}]
    w1 fails f no paper
    → c1 graph g error at work failed: no paper results {} steps {take done, work failed failed}
    +1s
    c1 graph h
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/attempt]
    → w1 run f [2]
    w1 fails f no ink
    → c1 graph h error at work failed: no ink results {} steps {take done, work failed failed}
    c1 calls p mpreg.queue.peek {"name":"jobs","dead":true}
    → c1 result p {"messages":[{"attempts":2,"message":"ULID","at_ms":1700000000000,
        "reason":"attempts","note":"the graph failed: failed: step work: no ink",
        "payload":{"n":1}}]}
"#
)]
#[case::no_lease_ends_before_the_graph(
    r#"
    c1 calls d mpreg.queue.declare {"name":"jobs","lease_ms":100}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":100,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g timeout=5000
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1] 5000ms left
    +4s
    w1 returns f 7
    → c1 graph g results {work=7}
    c1 calls t mpreg.queue.delete {"name":"jobs"}
    → c1 result t {"queue":"jobs","messages":0}
"#
)]
#[case::a_graph_out_of_time(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g timeout=500
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1] 500ms left
    +550ms
    → w1 cancel f
    → c1 graph g error timeout: 1 of 2 steps had ended results {} steps {take done, work cancelled
        cancelled}
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    +1s
    → w2 deliver jobs 1 attempt 2
    w2 done jobs
"#
)]
#[case::cancelled(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1]
    c1 cancels g
    → w1 cancel f
    → c1 graph g error cancelled: cancelled by the caller results {} steps {take done, work
        cancelled cancelled}
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    +1s
    → w2 deliver jobs 1 attempt 2
"#
)]
#[case::its_caller_dies(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1]
    c1 dies
    → w1 cancel f
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    +1s
    → w2 deliver jobs 1 attempt 2
"#
)]
#[case::the_broker_ends(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1]
    end
    → w1 cancel f
    → c1 graph g error outcome_unknown: the broker ended while it ran (broker, retry false) results
        {} steps {take done, work cancelled cancelled}
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    +1s
    → w2 deliver jobs 1 attempt 2
"#
)]
#[case::the_broker_ends_while_it_waits(
    r#"
    c1 calls d mpreg.queue.declare {"name":"jobs","durability":"memory","max_count":1}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
    drain
    end
    → c1 graph g error outcome_unknown: the broker ended while it ran (broker, retry false) results
        {} steps {take failed draining}
    c1 sends a jobs 1
    → c1 sent a memory 1
"#
)]
#[case::the_broker_ends_before_the_disk_knows(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    store waits
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
    c1 cancels g
    end
    → c1 graph g error outcome_unknown: what it took counts as not acknowledged: the broker ended
        while it ran (broker, retry false) results {take={"queue":"jobs","id":"ULID","attempt":1,
        "message":"ULID","at_ms":1700000000000,"payload":1}}
    store syncs
"#
)]
#[case::a_fallback_takes(
    r#"
    c1 sends a late 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      x: f fallback={"fun":"mpreg.queue.next","kwargs":{"name":"late"}}
      y: f [@x/payload]
    → w1 run f
    w1 fails f no
    → w1 run f [1]
    w1 fails f no
    → c1 graph g error at y failed: no results {} steps {x degraded failed, y failed failed}
    +1s
    w2 consumes late
    → w2 consumed late, credit 1
    → w2 deliver late 1 attempt 2
"#
)]
#[case::a_wait_that_ends(
    r#"
    c1 calls d mpreg.queue.declare {"name":"jobs"}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 graph g on_error=continue
      take: mpreg.queue.next {"name":"jobs","timeout_ms":200} fallback={"value":{"payload":0}}
      give: mpreg.queue.send {"name":"done","payload":{"$ref":"take","at":"/payload"}}
    c1 graph h
      take: mpreg.queue.next {"name":"jobs"}
    +250ms
    → c1 graph g results {give={"message":"ULID","durability":"fsync","queues":1}} steps {take
        degraded timeout, give done}
    c1 cancels h
    → c1 graph h error cancelled: cancelled by the caller results {} steps {take cancelled
        cancelled}
    c1 sends a jobs 1
    → c1 sent a fsync 1
    c1 calls t mpreg.queue.delete {"name":"jobs"}
    → c1 result t {"queue":"jobs","messages":1}
"#
)]
#[case::several_and_from_one_to_another(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    c1 sends b jobs 2
    → c1 sent b fsync 1
    c1 graph g
      x: mpreg.queue.next {"name":"jobs"}
      y: mpreg.queue.next {"name":"jobs"}
      z: mpreg.queue.send {"name":"more","payload":[@x/payload,@y/payload]}
    → c1 graph g results {z={"message":"ULID","durability":"fsync","queues":1}}
    c1 graph h
      x: mpreg.queue.next {"name":"more"}
      w: mpreg.queue.next {"name":"jobs","timeout_ms":100}
    +150ms
    → c1 graph h error at w timeout: no message came in time results {x={"queue":"more","id":"ULID",
        "attempt":1,"message":"ULID","at_ms":1700000000000,"payload":[1,2]}} steps {x done, w
        failed timeout}
    c1 calls u mpreg.queue.delete {"name":"more"}
    → c1 result u {"queue":"more","messages":1}
"#
)]
#[case::on_error_continue_is_a_result(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g on_error=continue
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload] fallback={"value":0}
    → w1 run f [1]
    w1 fails f no paper
    → c1 graph g results {work=0} steps {take done, work degraded failed}
    c1 calls t mpreg.queue.delete {"name":"jobs"}
    → c1 result t {"queue":"jobs","messages":0}
"#
)]
#[case::it_waits_and_is_tried_again(
    r#"
    c1 calls d mpreg.queue.declare {"name":"jobs"}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 graph g
      take: mpreg.queue.next {"name":"jobs","timeout_ms":100} idempotent=true retry={"times":1}
    +210ms
    c1 sends a jobs 1
    → c1 sent a fsync 1
    → c1 graph g results {take={"queue":"jobs","id":"ULID","attempt":1,"message":"ULID",
        "at_ms":1700000000210,"payload":1}}
    c1 calls t mpreg.queue.delete {"name":"jobs"}
    → c1 result t {"queue":"jobs","messages":0}
"#
)]
#[case::no_such_queue(
    r#"
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
    → c1 graph g error at take unknown_queue: there is no queue jobs [queue] results {} steps {take
        failed unknown_queue}
    c1 calls a mpreg.queue.next {"name":"jobs"}
    → c1 error a unknown_queue: there is no queue jobs [queue]
"#
)]
#[case::a_queue_deleted_meanwhile(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1]
    c1 calls d mpreg.queue.delete {"name":"jobs"}
    → c1 result d {"queue":"jobs","messages":1}
    w1 returns f 7
    → c1 graph g results {work=7}
"#
)]
#[case::the_store_fails_while_it_runs(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1]
    store fails
    store opens
    w1 returns f 7
    → c1 graph g error store_full: what it took counts as not acknowledged: no space left results
        {work=7}
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    → w2 deliver jobs 1
"#
)]
#[case::the_store_fails_at_its_end(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      take: mpreg.queue.next {"name":"jobs"}
      work: f [@take/payload]
    → w1 run f [1]
    store waits
    w1 returns f 7
    store fails
    → c1 graph g error store_full: what it took counts as not acknowledged: no space left results
        {work=7}
    store opens
    store syncs
    w2 consumes jobs
    → w2 consumed jobs, credit 1
    store syncs
    → w2 deliver jobs 1
"#
)]
#[case::no_more_than_so_many(
    r#"
    c1 calls d mpreg.queue.declare {"name":"jobs"}
    → c1 result d {"queue":"jobs","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 graph g
      a: mpreg.queue.next {"name":"jobs"}
      b: mpreg.queue.next {"name":"jobs"}
      c: mpreg.queue.next {"name":"jobs"}
      d: mpreg.queue.next {"name":"jobs"}
      e: mpreg.queue.next {"name":"jobs"}
    → c1 graph g error at e busy: the graph takes 4 messages already results {} steps {a cancelled
        cancelled, b cancelled cancelled, c cancelled cancelled, d cancelled cancelled, e failed
        busy}
    c1 sends a jobs 1
    → c1 sent a fsync 1
    c1 calls t mpreg.queue.delete {"name":"jobs"}
    → c1 result t {"queue":"jobs","messages":1}
"#
)]
#[case::beside_a_call_of_its_caller(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    c1 sends b jobs 2
    → c1 sent b fsync 1
    c1 calls n mpreg.queue.next {"name":"jobs"}
    → c1 result n {"queue":"jobs","id":"ULID","attempt":1,"message":"ULID","at_ms":1700000000000,
        "payload":1}
    c1 graph g
      a: mpreg.queue.next {"name":"jobs"}
      b: mpreg.topic.next {"pattern":"x"}
    c1 dies
    w2 consumes jobs credit=2
    → w2 consumed jobs, credit 2
    → w2 deliver jobs 1 attempt 2
    +1s
    → w2 deliver jobs 2 attempt 2
"#
)]
#[case::for_a_group(
    r#"
    w1 consumes jobs group=a
    → w1 consumed jobs for a, credit 1
    w2 consumes jobs group=b
    → w2 consumed jobs for b, credit 1
    c1 sends a jobs 1
    → w1 deliver jobs for a 1
    → w2 deliver jobs for b 1
    → c1 sent a fsync 1
    w2 done jobs
    c1 sends b jobs 2
    → w2 deliver jobs for b 2
    → c1 sent b fsync 1
    c1 graph g
      x: mpreg.queue.next {"name":"jobs","group":"a"}
    → c1 graph g results {x={"queue":"jobs","id":"ULID","attempt":1,"message":"ULID",
        "at_ms":1700000000000,"payload":2}}
    c1 calls c mpreg.queue.next {"name":"jobs","group":"a","timeout_ms":0}
    +50ms
    → c1 error c timeout: no message came in time
    c1 calls d mpreg.queue.next {"name":"jobs","group":".x"}
    → c1 error d bad_name: `.x` is no name [group]
"#
)]
fn in_graphs(#[case] script: &str) {
    check(script);
}
