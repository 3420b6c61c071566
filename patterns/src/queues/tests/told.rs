//! What is told of queues, as transcripts.

use rstest::rstest;

use crate::node::script::check;

/// What is told while somebody listens.
#[rstest]
#[case::a_life_with_an_end(
    r#"
    s1 subscribes mpreg.queue.# credit=100
    → s1 subscribed 1, credit 100
    c1 calls d mpreg.queue.declare {"name":"eu.jobs/1","backoff_ms":0,"max_attempts":2}
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.declared #1 {"queue":"eu.jobs/1"}
    → c1 result d {"queue":"eu.jobs/1","created":true,"settings":{"durability":"fsync",
        "kind":"fifo","max_attempts":2,"lease_ms":30000,"backoff_ms":0,"ttl_ms":null,
        "max_count":100000000,"max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,
        "bind":[]}}
    c1 sends a eu.jobs/1 1
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.enqueued #2 {"queue":"eu.jobs/1",
        "message":"ULID"}
    → c1 sent a fsync 1
    w1 consumes eu.jobs/1
    → w1 consumed eu.jobs/1, credit 1
    → w1 deliver eu.jobs/1 1
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.delivered #3 {"queue":"eu.jobs/1",
        "message":"ULID","attempt":1}
    w1 nacks eu.jobs/1 no paper
    → w1 deliver eu.jobs/1 1 attempt 2
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.nacked #4 {"queue":"eu.jobs/1","message":"ULID",
        "attempt":1,"note":"no paper"}
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.delivered #5 {"queue":"eu.jobs/1",
        "message":"ULID","attempt":2}
    w1 nacks eu.jobs/1 no ink
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.nacked #6 {"queue":"eu.jobs/1","message":"ULID",
        "attempt":2,"note":"no ink"}
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.dead #7 {"queue":"eu.jobs/1","message":"ULID",
        "attempt":2,"reason":"attempts","note":"no ink"}
    c1 calls r mpreg.queue.redrive {"name":"eu.jobs/1"}
    → w1 deliver eu.jobs/1 1
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.redriven #8 {"queue":"eu.jobs/1","messages":1}
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.delivered #9 {"queue":"eu.jobs/1",
        "message":"ULID","attempt":1}
    → c1 result r {"queue":"eu.jobs/1","messages":1}
    w1 done eu.jobs/1
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.acked #10 {"queue":"eu.jobs/1","message":"ULID",
        "attempt":1}
    c1 calls p mpreg.queue.purge {"name":"eu.jobs/1"}
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.purged #11 {"queue":"eu.jobs/1","messages":0}
    → c1 result p {"queue":"eu.jobs/1","messages":0}
    c1 calls x mpreg.queue.delete {"name":"eu.jobs/1"}
    → s1 event mpreg.queue.# mpreg.queue.eu.jobs/1.deleted #12 {"queue":"eu.jobs/1","messages":0}
    → c1 result x {"queue":"eu.jobs/1","messages":0}
"#
)]
#[case::what_is_not_taken_or_given_up(
    r#"
    s1 subscribes mpreg.queue.*.dropped mpreg.queue.*.refused credit=100
    → s1 subscribed 2, credit 100
    c1 calls d mpreg.queue.declare {"name":"few","max_count":1}
    → c1 result d {"queue":"few","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 sends a few 1
    → c1 sent a fsync 1
    c1 sends b few 2
    → c1 error b queue_full: few holds 1 messages of 185 bytes
    → s1 event mpreg.queue.*.refused mpreg.queue.few.refused #1 {"queue":"few","message":"ULID",
        "reason":"queue_full","note":"few holds 1 messages of 185 bytes"}
    c1 calls e mpreg.queue.declare {"name":"new","max_count":1,"when_full":"drop_oldest"}
    → c1 result e {"queue":"new","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":68719476736,"when_full":"drop_oldest","dedup_ms":120000,"bind":[]}}
    c1 sends c new 1
    → c1 sent c fsync 1
    c1 sends d new 2
    → s1 event mpreg.queue.*.dropped mpreg.queue.new.dropped #1 {"queue":"new","message":"ULID",
        "reason":"full"}
    → c1 sent d fsync 1
    w1 consumes new
    → w1 consumed new, credit 1
    → w1 deliver new 2
    w1 nacks new dead
    c1 sends f new 3
    → w1 deliver new 3
    → c1 sent f fsync 1
    w1 nacks new dead
    → s1 event mpreg.queue.*.dropped mpreg.queue.new.dropped #2 {"queue":"new","message":"ULID",
        "attempt":1,"reason":"rejected","note":"no room for one more dead letter"}
"#
)]
#[case::of_a_group_and_in_graphs(
    r#"
    w1 consumes jobs group=a
    → w1 consumed jobs for a, credit 1
    s1 subscribes mpreg.queue.jobs.# credit=100
    → s1 subscribed 1, credit 100
    c1 sends a jobs 1
    → w1 deliver jobs for a 1
    → s1 event mpreg.queue.jobs.# mpreg.queue.jobs.enqueued #1 {"queue":"jobs","message":"ULID"}
    → s1 event mpreg.queue.jobs.# mpreg.queue.jobs.delivered #2 {"queue":"jobs","group":"a",
        "message":"ULID","attempt":1}
    → c1 sent a fsync 1
    w1 dies
    → s1 event mpreg.queue.jobs.# mpreg.queue.jobs.nacked #3 {"queue":"jobs","group":"a",
        "message":"ULID","attempt":1,"note":"its consumer was lost with it in hand"}
    s1 subscribes mpreg.queue.jobs.acked credit=100
    → s1 subscribed 2, credit 100
    c1 graph g
      x: mpreg.queue.next {"name":"jobs","group":"a"}
    → s1 event mpreg.queue.jobs.# mpreg.queue.jobs.delivered #4 {"queue":"jobs","group":"a",
        "message":"ULID","attempt":2}
    → s1 event mpreg.queue.jobs.# mpreg.queue.jobs.acked #5 {"queue":"jobs","group":"a",
        "message":"ULID","attempt":2}
    → s1 event mpreg.queue.jobs.acked mpreg.queue.jobs.acked #1 {"queue":"jobs","group":"a",
        "message":"ULID","attempt":2}
    → c1 graph g results {x={"queue":"jobs","id":"ULID","attempt":2,"message":"ULID",
        "at_ms":1700000000000,"payload":1}}
    c1 sends b jobs 1 dedup=k
    → s1 event mpreg.queue.jobs.# mpreg.queue.jobs.enqueued #6 {"queue":"jobs","message":"ULID"}
    → c1 sent b fsync 1
    c1 sends c jobs 1 dedup=k
    → c1 sent c fsync 1
"#
)]
#[case::a_step_waits_for_it(
    r#"
    c1 graph g
      x: mpreg.topic.next {"pattern":"mpreg.queue.jobs.dead"}
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1
    → w1 deliver jobs 1
    → c1 sent a fsync 1
    w1 nacks jobs dead for no reason
    → c1 graph g results {x={"topic":"mpreg.queue.jobs.dead","seq":1,"message":"ULID",
        "at_ms":1700000000000,"payload":{"queue":"jobs","message":"ULID","attempt":1,
        "reason":"rejected","note":"for no reason"}}}
"#
)]
fn told(#[case] script: &str) {
    check(script);
}
