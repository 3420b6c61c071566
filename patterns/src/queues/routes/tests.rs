//! Routes as transcripts.

use rstest::rstest;

use crate::base::Limits;
use crate::node::script::{check, check_within};

/// Which of its queues gets a message.
#[rstest]
#[case::all(
    r#"
    c1 calls a mpreg.route.add {"name":"all","bind":["t"],"to":["x","y"]}
    → c1 result a {"route":"all","version":1,"table_version":1}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes b t 1
    → w1 deliver x of t 1
    → w1 deliver y of t 1
    → c1 sent b fsync 2
    c1 routes c other 1
    → c1 error c unroutable: no queue is bound to other [topic]
"#
)]
#[case::in_turn(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"round_robin"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes b t 1
    → w1 deliver x of t 1
    → c1 sent b fsync 1
    c1 routes c t 2
    → w1 deliver y of t 2
    → c1 sent c fsync 1
    c1 routes d t 3
    → w1 deliver x of t 3
    → c1 sent d fsync 1
"#
)]
#[case::in_turn_but_for_the_full(
    r#"
    c1 calls x mpreg.queue.declare {"name":"x","max_count":1}
    → c1 result x {"queue":"x","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"round_robin"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes b t 1
    → c1 sent b fsync 1
    c1 routes c t 2
    → c1 sent c fsync 1
    c1 routes d t 3
    → c1 sent d fsync 1
    c1 routes e t 4
    → c1 sent e fsync 1
    c1 calls f mpreg.queue.peek {"name":"x"}
    → c1 result f {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":1}]}
    c1 calls g mpreg.queue.peek {"name":"y"}
    → c1 result g {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":2},{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t","payload":3},
        {"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t","payload":4}]}
"#
)]
#[case::the_first_with_room(
    r#"
    c1 calls x mpreg.queue.declare {"name":"x","max_count":1,"when_full":"dead_letter"}
    → c1 result x {"queue":"x","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":68719476736,"when_full":"dead_letter","dedup_ms":120000,"bind":[]}}
    c1 calls y mpreg.queue.declare {"name":"y","max_count":1,"when_full":"drop_oldest"}
    → c1 result y {"queue":"y","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":68719476736,"when_full":"drop_oldest","dedup_ms":120000,"bind":[]}}
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"priority"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes b t 1
    → c1 sent b fsync 1
    c1 routes c t 2
    → c1 sent c fsync 1
    c1 routes d t 3
    → c1 error d queue_full: x holds 1 messages of 186 bytes
    c1 calls f mpreg.queue.peek {"name":"x"}
    → c1 result f {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":1}]}
    c1 calls g mpreg.queue.peek {"name":"x","dead":true}
    → c1 result g {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "reason":"full","note":"the queue had no room","payload":3}]}
    c1 calls h mpreg.queue.peek {"name":"y"}
    → c1 result h {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":2}]}
"#
)]
#[case::all_are_full(
    r#"
    c1 calls x mpreg.queue.declare {"name":"x","max_count":1}
    → c1 result x {"queue":"x","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":1,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"strategy":"random"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes b t 1
    → c1 sent b fsync 1
    c1 routes c t 2
    → c1 error c queue_full: x holds 1 messages of 186 bytes
    c1 calls d mpreg.route.list
    → c1 result d {"table_version":1,"routes":[{"route":"r","version":1,"bind":["t"],"to":["x"],
        "strategy":"random","counters":{"matched":2,"sent":1,"failed":1,"missing":0}}]}
"#
)]
#[case::the_least_loaded(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"least_loaded"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 sends b x 1 quietly
    c1 sends c x 2 quietly
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    → w1 deliver x 1
    → w1 deliver x 2
    c1 routes d t 3
    → c1 sent d fsync 1
    c1 routes e t 4
    → c1 sent e fsync 1
    c1 routes f t 5
    → w1 deliver x of t 5
    → c1 sent f fsync 1
    w1 done x
    w1 done x
    c1 routes g t 6
    → w1 deliver x of t 6
    → c1 sent g fsync 1
"#
)]
#[case::any(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y","z"],"strategy":"random"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes b t 1 quietly
    c1 routes c t 2 quietly
    c1 routes d t 3 quietly
    c1 routes e t 4 quietly
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    → w1 deliver y of t 2
    → w1 deliver y of t 3
    w1 consumes z credit=9
    → w1 consumed z, credit 9
    → w1 deliver z of t 1
    → w1 deliver z of t 4
"#
)]
#[case::a_repeated_message_is_known_where_it_went(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"round_robin"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes b t 1 dedup=k
    → w1 deliver x of t 1
    → c1 sent b fsync 1
    c1 routes c t 1 dedup=k
    → c1 sent c fsync 1
    c1 routes d t 2
    → w1 deliver y of t 2
    → c1 sent d fsync 1
"#
)]
#[case::past_a_disk_without_room(
    r#"
    c1 calls a mpreg.queue.declare {"name":"m","durability":"memory"}
    → c1 result a {"queue":"m","created":true,"settings":{"durability":"memory","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":1073741824,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 calls b mpreg.route.add {"name":"r","bind":["t"],"to":["d","m"],"strategy":"priority"}
    → c1 result b {"route":"r","version":1,"table_version":1}
    c1 routes c t 1
    → c1 sent c fsync 1
    store fills
    c1 routes d t 2
    → c1 sent d memory 1
    store empties
    c1 routes e t 3
    → c1 sent e fsync 1
"#
)]
#[case::not_to_a_queue_of_another_kind(
    r#"
    c1 calls x mpreg.queue.declare {"name":"y","kind":"priority"}
    → c1 result x {"queue":"y","created":true,"settings":{"durability":"fsync","kind":"priority",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"priority"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes b t 1
    → w1 deliver x of t 1
    → c1 sent b fsync 1
    c1 routes c t 2 priority=3
    → w1 deliver y of t 2
    → c1 sent c fsync 1
"#
)]
fn strategies(#[case] script: &str) {
    check(script);
}

/// Each queue gets a message once, however many ways lead to it.
#[rstest]
#[case::bound_and_routed(
    r#"
    c1 calls x mpreg.queue.declare {"name":"x","bind":["*","*.*"]}
    → c1 result x {"queue":"x","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":["*","*.*"]}}
    c1 calls a mpreg.route.add {"name":"b","bind":["t","*"],"to":["x","y"],
      "set":{"payload":"'by b'"}}
    → c1 result a {"route":"b","version":1,"table_version":1}
    c1 calls c mpreg.route.add {"name":"a","bind":["t"],"to":["x"],"set":{"payload":"'by a'"}}
    → c1 result c {"route":"a","version":2,"table_version":2}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes d t 1
    → w1 deliver x of t "by a"
    → w1 deliver y of t "by b"
    → c1 sent d fsync 2
    c1 routes e other 1
    → w1 deliver x of other "by b"
    → w1 deliver y of other "by b"
    → c1 sent e fsync 2
    c1 routes f an.other 1
    → w1 deliver x of an.other 1
    → c1 sent f fsync 1
"#
)]
#[case::two_routes_in_turn_reach_two(
    r#"
    c1 calls a mpreg.route.add {"name":"a","bind":["t"],"to":["x","y"],"strategy":"priority"}
    → c1 result a {"route":"a","version":1,"table_version":1}
    c1 calls b mpreg.route.add {"name":"b","bind":["t"],"to":["x","y"],"strategy":"priority"}
    → c1 result b {"route":"b","version":2,"table_version":2}
    c1 calls c mpreg.route.add {"name":"c","bind":["t"],"to":["x","y"],"strategy":"priority"}
    → c1 result c {"route":"c","version":3,"table_version":3}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes d t 1
    → w1 deliver x of t 1
    → w1 deliver y of t 1
    → c1 sent d fsync 2
"#
)]
#[case::published(
    r#"
    c1 calls a mpreg.route.add {"name":"a","bind":["t.#"],"to":["x"]}
    → c1 result a {"route":"a","version":1,"table_version":1}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    c1 publishes b t.x 1
    → c1 published b
    → w1 deliver x of t.x 1
    socket publishes t.y 2
    → w1 deliver x of t.y 2
"#
)]
fn once(#[case] script: &str) {
    check(script);
}

/// What a route takes.
#[rstest]
#[case::when(
    r#"
    c1 calls a mpreg.route.add {"name":"eu","bind":["orders.*"],"to":["eu"],
      "when":"payload.region == 'eu' && topic.endsWith('.new')"}
    → c1 result a {"route":"eu","version":1,"table_version":1}
    c1 calls b mpreg.route.add {"name":"large","bind":["orders.#"],"to":["large"],
      "when":"payload.amount >= 100"}
    → c1 result b {"route":"large","version":2,"table_version":2}
    w1 consumes eu credit=9
    → w1 consumed eu, credit 9
    w1 consumes large credit=9
    → w1 consumed large, credit 9
    c1 routes c orders.new {"region":"eu","amount":5}
    → w1 deliver eu of orders.new {"region":"eu","amount":5}
    → c1 sent c fsync 1
    c1 routes d orders.new {"region":"eu","amount":500}
    → w1 deliver eu of orders.new {"region":"eu","amount":500}
    → w1 deliver large of orders.new {"region":"eu","amount":500}
    → c1 sent d fsync 2
    c1 routes e orders.old {"region":"eu","amount":500}
    → w1 deliver large of orders.old {"region":"eu","amount":500}
    → c1 sent e fsync 1
    c1 routes f orders.old {"region":"eu","amount":5}
    → c1 error f unroutable: no queue is bound to orders.old, and no route takes it [topic]
"#
)]
#[case::neither_yes_nor_no(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"when":"payload.n"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes b t {"n":1}
    → c1 error b unroutable: no queue is bound to t, and no route takes it [topic]
    c1 routes c t {"m":1}
    → c1 error c unroutable: no queue is bound to t, and no route takes it [topic]
    c1 routes d t raw={
    → c1 error d unroutable: no queue is bound to t, and no route takes it [topic]
    c1 routes e t {"n":false}
    → c1 error e unroutable: no queue is bound to t, and no route takes it [topic]
    c1 routes f t {"n":true}
    → c1 sent f fsync 1
    c1 calls g mpreg.route.list
    → c1 result g {"table_version":1,"routes":[{"route":"r","version":1,"bind":["t"],
        "when":"payload.n","to":["x"],"strategy":"fanout","counters":{"matched":1,"sent":1,
        "failed":3,"missing":0}}]}
    c1 calls h mpreg.queue.peek {"name":"x"}
    → c1 result h {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":{"n":true}}]}
"#
)]
fn conditions(#[case] script: &str) {
    check(script);
}

/// What a route changes.
#[rstest]
#[case::all_of_it(
    r#"
    c1 calls b mpreg.queue.declare {"name":"p","kind":"priority"}
    → c1 result b {"queue":"p","created":true,"settings":{"durability":"fsync","kind":"priority",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":[]}}
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["p"],"set":{
      "payload":"{'sum': payload.a + payload.b, 'was': payload}","headers":"{'from': topic}",
      "key":"string(payload.a)","priority":"payload.b","topic":"topic + '.sum'"}}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes c t {"b":2,"a":3}
    → c1 sent c fsync 1
    c1 calls d mpreg.queue.peek {"name":"p"}
    → c1 result d {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t.sum",
        "key":"3","priority":2,"payload":{"sum":5,"was":{"a":3,"b":2}},"headers":{"from":"t"}}]}
"#
)]
#[case::some_headers(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{
      "headers":{"a":"payload","b":"headers.a","c":"null"}}}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 calls b mpreg.queue.send {"topic":"t","payload":1,"headers":{"a":9,"c":8,"d":7}}
    → c1 result b {"message":"ULID","durability":"fsync","queues":1}
    c1 calls c mpreg.queue.peek {"name":"x"}
    → c1 result c {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":1,"headers":{"d":7,"a":1,"b":9}}]}
    c1 calls g mpreg.queue.send {"topic":"t","payload":1}
    → c1 error g route_failed: route r: headers: found no matching overload for '_._' applied to
        '(null_type, string)'
    c1 calls d mpreg.route.add {"name":"r","bind":["t"],"to":["x"],
      "set":{"headers":"null","payload":"b'x'"}}
    → c1 result d {"route":"r","version":2,"table_version":2}
    c1 calls e mpreg.queue.send {"topic":"t","payload":1,"headers":{"a":9,"c":8,"d":7},"key":"k"}
    → c1 result e {"message":"ULID","durability":"fsync","queues":1}
    c1 calls f mpreg.queue.peek {"name":"x"}
    → c1 result f {"messages":[{"attempts":0,"message":"ULID","at_ms":1700000000000,"topic":"t",
        "payload":1,"headers":{"d":7,"a":1,"b":9}},{"attempts":0,"message":"ULID",
        "at_ms":1700000000000,"topic":"t","key":"k","payload":{"$frame":1}}]} frames=x
"#
)]
#[case::a_delay(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"],
      "set":{"delay_ms":"payload * 10"}}
    → c1 result a {"route":"r","version":1,"table_version":1}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    c1 routes b t 5
    → c1 sent b fsync 1
    +49ms
    +2ms
    → w1 deliver x of t 5
"#
)]
#[case::what_fails_is_not_sent(
    r#"
    c1 calls a mpreg.route.add {"name":"bad","bind":["t"],"to":["x"],"set":{"payload":"payload.n"}}
    → c1 result a {"route":"bad","version":1,"table_version":1}
    c1 calls b mpreg.queue.declare {"name":"y","bind":["t"]}
    → c1 result b {"queue":"y","created":true,"settings":{"durability":"fsync","kind":"fifo",
        "max_attempts":10,"lease_ms":30000,"backoff_ms":1000,"ttl_ms":null,"max_count":100000000,
        "max_bytes":68719476736,"when_full":"refuse","dedup_ms":120000,"bind":["t"]}}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    c1 routes c t {"m":1}
    → c1 error c route_failed: route bad: payload: No such key: n
    c1 routes d t {"m":1} quietly
    → c1 error d route_failed: route bad: payload: No such key: n
    c1 routes e t raw={
    → c1 error e route_failed: route bad: payload: the payload has more than 16384 bytes, or is no
        JSON
    c1 routes f t {"n":1}
    → w1 deliver x of t 1
    → w1 deliver y of t {"n":1}
    → c1 sent f fsync 2
    socket publishes t {"m":2}
    → w1 deliver y of t {"m":2}
    c1 publishes g t {"m":3}
    → c1 published g
    → w1 deliver y of t {"m":3}
    c1 calls h mpreg.route.list
    → c1 result h {"table_version":1,"routes":[{"route":"bad","version":1,"bind":["t"],"to":["x"],
        "strategy":"fanout","set":{"payload":"payload.n"},"counters":{"matched":1,"sent":1,
        "failed":5,"missing":0}}]}
"#
)]
#[case::each_wrong_value(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"key":"payload"}}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 routes b t 1
    → c1 error b route_failed: route r: key: takes a text of 1 to 255 bytes, or null
    c1 routes c t ""
    → c1 error c route_failed: route r: key: takes a text of 1 to 255 bytes, or null
    c1 routes d t null
    → c1 sent d fsync 1
    c1 calls e mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"priority":"payload"}}
    → c1 result e {"route":"r","version":2,"table_version":2}
    c1 routes f t 10
    → c1 error f route_failed: route r: priority: takes 0 to 9
    c1 routes g t -1
    → c1 error g route_failed: route r: priority: takes 0 to 9
    c1 routes h t 0
    → c1 sent h fsync 1
    c1 calls i mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"delay_ms":"payload"}}
    → c1 result i {"route":"r","version":3,"table_version":3}
    c1 routes j t 1.5
    → c1 error j route_failed: route r: delay_ms: takes a whole number from 0
    c1 calls k mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"topic":"payload"}}
    → c1 result k {"route":"r","version":4,"table_version":4}
    c1 routes l t "mpreg.x"
    → c1 error l route_failed: route r: topic: takes a name that is not the broker's own
    c1 routes m t "a..b"
    → c1 error m route_failed: route r: topic: takes a name that is not the broker's own
    c1 calls n mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"headers":"payload"}}
    → c1 result n {"route":"r","version":5,"table_version":5}
    c1 routes o t [1]
    → c1 error o route_failed: route r: headers: takes a map, or null
    c1 routes p t {"a":1}
    → c1 sent p fsync 1
"#
)]
fn set(#[case] script: &str) {
    check(script);
}

/// What the routes of one message may ask for has a bound, whoever made them.
#[test]
fn too_much_to_ask() {
    let large = "x".repeat(16_000);
    let long = format!("payload == '{}'", "x".repeat(490));
    let headers: Vec<String> = (0..20).map(|at| format!("\"h{at}\":\"{long}\"")).collect();
    let headers = headers.join(",");
    check(&format!(
        r#"
    c1 calls a mpreg.route.add {{"name":"r","bind":["t"],"to":["x"],
      "set":{{"headers":{{{headers}}}}}}}
    → c1 result a {{"route":"r","version":1,"table_version":1}}
    c1 routes b t "{large}"
    → c1 error b route_failed: route r: the routes of a message ask too much of it
    c1 routes c t 1
    → c1 sent c fsync 1
"#
    ));
}

/// The table changes, whole or not at all.
#[rstest]
#[case::versions(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["b","a","b"],"to":["y","x"],"if_version":0}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 calls b mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"if_version":0}
    → c1 error b route_changed: route r has version 1 [if_version]
    c1 calls c mpreg.route.add {"name":"s","bind":["t"],"to":["x"],"if_version":1}
    → c1 error c route_changed: there is no route s [if_version]
    c1 calls d mpreg.route.add {"name":"s","bind":["t"],"to":["x"],"when":"true",
      "strategy":"random","set":{"headers":{"a":"1"}}}
    → c1 result d {"route":"s","version":2,"table_version":2}
    c1 calls e mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"if_version":1}
    → c1 result e {"route":"r","version":3,"table_version":3}
    c1 calls f mpreg.route.list
    → c1 result f {"table_version":3,"routes":[{"route":"r","version":3,"bind":["t"],"to":["x"],
        "strategy":"fanout","counters":{"matched":0,"sent":0,"failed":0,"missing":0}},{"route":"s",
        "version":2,"bind":["t"],"when":"true","to":["x"],"strategy":"random",
        "set":{"headers":{"a":"1"}},"counters":{"matched":0,"sent":0,"failed":0,"missing":0}}]}
    c1 calls g mpreg.route.remove {"name":"r","if_version":1}
    → c1 error g route_changed: route r has version 3 [if_version]
    c1 calls h mpreg.route.remove {"name":"r","if_version":3}
    → c1 result h {"route":"r","table_version":4}
    c1 calls i mpreg.route.remove {"name":"r"}
    → c1 error i unknown_route: there is no route r [name]
    c1 calls j mpreg.route.remove {"name":"r","if_version":3}
    → c1 error j route_changed: there is no route r [if_version]
    c1 calls k mpreg.route.list
    → c1 result k {"table_version":4,"routes":[{"route":"s","version":2,"bind":["t"],"when":"true",
        "to":["x"],"strategy":"random","set":{"headers":{"a":"1"}},"counters":{"matched":0,"sent":0,
        "failed":0,"missing":0}}]}
"#
)]
#[case::every_message_after_it(
    r#"
    store waits
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"]}
    c1 routes b t 1
    c1 calls c mpreg.route.add {"name":"r","bind":["t"],"to":["y"]}
    c1 routes d t 2
    c1 calls e mpreg.route.remove {"name":"r"}
    c1 routes f t 3
    → c1 error f unroutable: no queue is bound to t [topic]
    c1 calls g mpreg.route.list
    store syncs
    → c1 result a {"route":"r","version":1,"table_version":1}
    → c1 sent b fsync 1
    → c1 result c {"route":"r","version":2,"table_version":2}
    → c1 sent d fsync 1
    → c1 result e {"route":"r","table_version":3}
    → c1 result g {"table_version":3,"routes":[]}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    → w1 deliver x of t 1
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    → w1 deliver y of t 2
"#
)]
#[case::it_outlasts_a_restart(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"when":"payload > 1"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 calls b mpreg.route.add {"name":"s","bind":["t"],"to":["y"]}
    → c1 result b {"route":"s","version":2,"table_version":2}
    c1 calls c mpreg.route.remove {"name":"s"}
    → c1 result c {"route":"s","table_version":3}
    restart
    c1 calls d mpreg.route.list
    → c1 result d {"table_version":3,"routes":[{"route":"r","version":1,"bind":["t"],
        "when":"payload > 1","to":["x"],"strategy":"fanout","counters":{"matched":0,"sent":0,
        "failed":0,"missing":0}}]}
    c1 routes e t 2
    → c1 sent e fsync 1
    c1 routes f t 1
    → c1 error f unroutable: no queue is bound to t, and no route takes it [topic]
    c1 calls g mpreg.route.remove {"name":"r"}
    → c1 result g {"route":"r","table_version":4}
    restart
    c1 calls h mpreg.route.list
    → c1 result h {"table_version":4,"routes":[]}
"#
)]
#[case::the_store_fails_during_a_change(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x"]}
    → c1 result a {"route":"r","version":1,"table_version":1}
    store waits
    c1 calls b mpreg.route.add {"name":"r","bind":["t"],"to":["y"]}
    c1 calls c mpreg.route.list
    store fails
    → c1 error b store_full: no space left
    → c1 error c store_full: no space left
    c1 calls d mpreg.route.remove {"name":"r"}
    → c1 error d store_full: no space left
    c1 calls e mpreg.route.list
    → c1 error e store_full: no space left
    store opens
    store syncs
    c1 calls f mpreg.route.list
    → c1 result f {"table_version":1,"routes":[{"route":"r","version":1,"bind":["t"],"to":["x"],
        "strategy":"fanout","counters":{"matched":0,"sent":0,"failed":0,"missing":0}}]}
    c1 calls g mpreg.route.add {"name":"r","bind":["t"],"to":["z"],"if_version":1}
    store syncs
    → c1 result g {"route":"r","version":2,"table_version":2}
    w1 consumes x credit=9
    → w1 consumed x, credit 9
    w1 consumes y credit=9
    → w1 consumed y, credit 9
    w1 consumes z credit=9
    → w1 consumed z, credit 9
    c1 routes h t 1
    → w1 deliver z of t 1
    store syncs
    → c1 sent h fsync 1
    c1 calls i mpreg.route.list
    → c1 result i {"table_version":2,"routes":[{"route":"r","version":2,"bind":["t"],"to":["z"],
        "strategy":"fanout","counters":{"matched":1,"sent":1,"failed":0,"missing":0}}]}
"#
)]
#[case::a_queue_that_is_deleted_is_passed_over(
    r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"],"strategy":"priority"}
    → c1 result a {"route":"r","version":1,"table_version":1}
    c1 calls b mpreg.queue.delete {"name":"x"}
    → c1 result b {"queue":"x","messages":0}
    c1 routes c t 1
    → c1 sent c fsync 1
    c1 calls d mpreg.queue.delete {"name":"y"}
    → c1 result d {"queue":"y","messages":1}
    c1 routes e t 2
    → c1 error e unroutable: no queue of route r is there [topic]
    c1 calls f mpreg.route.list
    → c1 result f {"table_version":1,"routes":[{"route":"r","version":1,"bind":["t"],"to":["x","y"],
        "strategy":"priority","counters":{"matched":2,"sent":1,"failed":1,"missing":3}}]}
    w1 consumes x
    → w1 consumed x, credit 1
    c1 routes g t 3
    → w1 deliver x of t 3
    → c1 sent g fsync 1
"#
)]
fn changes(#[case] script: &str) {
    check(script);
}

/// What is no route changes nothing.
#[rstest]
#[case::fields(
    r#"
    c1 calls a mpreg.route.add {"bind":["t"],"to":["x"]}
    → c1 error a bad_args: `name` is missing [name]
    c1 calls b mpreg.route.add {"name":"r","to":["x"]}
    → c1 error b bad_args: `bind` is missing [bind]
    c1 calls c mpreg.route.add {"name":"r","bind":["t"],"to":[]}
    → c1 error c bad_args: `to` is missing [to]
    c1 calls d mpreg.route.add {"name":"mpreg.r","bind":["t"],"to":["x"]}
    → c1 error d reserved_name: names that begin with `mpreg.` are the broker's own [name]
    c1 calls e mpreg.route.add {"name":"r","bind":["a..b"],"to":["x"]}
    → c1 error e bad_pattern: `a..b` is no pattern [bind]
    c1 calls f mpreg.route.add {"name":"r","bind":["t"],"to":["x","x"]}
    → c1 error f bad_args: `to` names x twice [to]
    c1 calls g mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"strategy":"best"}
    → c1 error g bad_args: `strategy` is one of fanout, round_robin, priority, least_loaded, random
        [strategy]
    c1 calls h mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"when":"payload."}
    → c1 error h bad_expression: 1:9: Syntax error: no viable alternative at input '.' [when]
    c1 calls i mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"payload":"1 +"}}
    → c1 error i bad_expression: 1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{',
        '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES,
        IDENTIFIER} [set/payload]
    c1 calls j mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"headers":{"a":"1 +"}}}
    → c1 error j bad_expression: 1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{',
        '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES,
        IDENTIFIER} [set/headers/a]
    c1 calls k mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"set":{"body":"1"}}
    → c1 error k bad_args: `set` takes payload, headers, key, priority, delay_ms and topic, no body
        [set]
    c1 calls l mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"when":"payload.all(x, x > 1)"}
    → c1 error l bad_expression: all, exists, exists_one, map and filter are not taken here [when]
    c1 calls m mpreg.route.add {"name":"r","bind":["t"],"to":["x"],"wen":"true"}
    → c1 error m bad_args: mpreg.route.add takes no wen [wen]
    c1 calls n mpreg.route.list {"top":1}
    → c1 error n bad_args: mpreg.route.list takes no top [top]
    c1 calls o mpreg.route.list
    → c1 result o {"table_version":0,"routes":[]}
    c1 calls p mpreg.queues
    → c1 result p {"queues":[],"count":0}
"#
)]
#[case::bounds(
    r#"
    c1 calls a mpreg.route.add {"name":"1","bind":["t"],"to":["x"]}
    → c1 result a {"route":"1","version":1,"table_version":1}
    c1 calls b mpreg.route.add {"name":"2","bind":["t"],"to":["x"]}
    → c1 result b {"route":"2","version":2,"table_version":2}
    c1 calls c mpreg.route.add {"name":"3","bind":["t"],"to":["x"]}
    → c1 result c {"route":"3","version":3,"table_version":3}
    c1 calls d mpreg.route.add {"name":"4","bind":["t"],"to":["x"]}
    → c1 result d {"route":"4","version":4,"table_version":4}
    c1 calls e mpreg.route.add {"name":"5","bind":["t"],"to":["x"]}
    → c1 result e {"route":"5","version":5,"table_version":5}
    c1 calls f mpreg.route.add {"name":"6","bind":["t"],"to":["x"]}
    → c1 result f {"route":"6","version":6,"table_version":6}
    c1 calls g mpreg.route.add {"name":"7","bind":["t"],"to":["x"]}
    → c1 result g {"route":"7","version":7,"table_version":7}
    c1 calls h mpreg.route.add {"name":"8","bind":["t"],"to":["x"]}
    → c1 result h {"route":"8","version":8,"table_version":8}
    c1 calls i mpreg.route.add {"name":"9","bind":["t"],"to":["y"]}
    → c1 error i busy: there are 8 routes
    c1 calls j mpreg.route.add {"name":"8","bind":["u"],"to":["x"]}
    → c1 result j {"route":"8","version":9,"table_version":9}
    c1 calls k mpreg.route.remove {"name":"1"}
    → c1 result k {"route":"1","table_version":10}
    c1 calls l mpreg.route.add {"name":"9","bind":["t"],"to":["y"]}
    → c1 result l {"route":"9","version":11,"table_version":11}
"#
)]
fn refusals(#[case] script: &str) {
    check(script);
}

/// Its queues are made all together.
#[test]
fn too_many_queues() {
    let limits = Limits { queues: 2, ..Limits::default() };
    check_within(
        limits,
        r#"
    c1 calls a mpreg.route.add {"name":"r","bind":["t"],"to":["x","y","z"]}
    → c1 error a busy: 2 queues are declared
    c1 calls b mpreg.queues
    → c1 result b {"queues":[],"count":0}
    c1 calls c mpreg.route.add {"name":"r","bind":["t"],"to":["x","y"]}
    → c1 result c {"route":"r","version":1,"table_version":1}
"#,
    );
}
