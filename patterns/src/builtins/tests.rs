//! The built-ins as transcripts.

use rstest::rstest;

use crate::node::script::check;

/// What there is.
#[rstest]
#[case::functions(
    r#"
    c1 calls a mpreg.functions
    → c1 result a []
    w1 offers f@1.2.0! g locs=x,y
    → w1 offered 2, credit 1
    w2 offers f
    → w2 offered 1, credit 1
    c1 calls a mpreg.functions [] {}
    → c1 result a [{"name":"f","version":"1.0.0","worker":"w2","idempotent":false,"doc":null,
        "cache_ms":null,"input":null,"output":null,"locs":[]},{"name":"f","version":"1.2.0",
        "worker":"w1","idempotent":true,"doc":null,"cache_ms":null,"input":null,"output":null,
        "locs":["x","y"]},{"name":"g","version":"1.0.0","worker":"w1","idempotent":false,"doc":null,
        "cache_ms":null,"input":null,"output":null,"locs":["x","y"]}]
    w1 dies
    c1 calls a mpreg.functions
    → c1 result a [{"name":"f","version":"1.0.0","worker":"w2","idempotent":false,"doc":null,
        "cache_ms":null,"input":null,"output":null,"locs":[]}]
"#
)]
#[case::workers(
    r#"
    w1 hello alice
    → w1 welcome
    w1 offers f g credit=2 locs=x
    → w1 offered 2, credit 2
    c1 calls x f
    → w1 run f
    c1 calls a mpreg.workers
    → c1 result a [{"worker":"w1","functions":["f","g"],"locs":["x"],"credit":2,"in_hand":1,
        "state":"ready","name":"alice"}]
    w1 bye
    c1 calls a mpreg.workers
    → c1 result a [{"worker":"w1","functions":[],"locs":[],"credit":2,"in_hand":1,"state":"leaving",
        "name":"alice"}]
    w1 returns f 1
    → c1 result x 1
    → w1 bye
    c1 calls a mpreg.workers
    → c1 result a []
"#
)]
#[case::a_worker_that_does_not_read(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls x f wait
    → w1 run f
    w1 unsent f
    c1 calls a mpreg.workers
    → c1 result a [{"worker":"w1","functions":["f"],"locs":[],"credit":1,"in_hand":0,
        "state":"stalled","name":null}]
    w1 ping
    → w1 pong
    → w1 run f
    w1 returns f 1
    → c1 result x 1
"#
)]
#[case::status(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls x f
    → w1 run f
    +2ms
    w1 returns f 1
    → c1 result x 1
    c1 calls x nope
    → c1 error x unknown_function: no worker offers nope [fun]
    c1 cancels never
    c1 calls a mpreg.status
    → c1 result a {"node":"n1","version":"0.1.0","epoch":7,"endpoints":{},"uptime_ms":2,
        "requests":1,"calls":{"accepted":1,"done":1,"failed":1,"moved":0,"stray":0,
        "lost_workers":0},"graphs":{"started":0,"done":0,"failed":0,"steps":0,"retried":0},
        "graphs_in_flight":0,"topics":{"published":0,"refused":0,"delivered":0,"dropped":0,
        "missed":0},"patterns":0,"waiting":0,"queues":{"queues":0,"routes":0,"consumers":0,
        "in_flight":0,"unconfirmed":0,"store":"open","counters":{"enqueued":0,"delivered":0,
        "redelivered":0,"acked":0,"nacked":0,"lapsed":0,"dead":0,"dropped":0,"refused":0,
        "repeated":0,"unroutable":0,"damaged":0}},"refused":{},"cancels_ignored":1,
        "latency":{"calls":{"count":1,"sum_us":2000,"p50_us":2007,"p90_us":2007,"p99_us":2007,
        "p999_us":2007,"max_us":2007,"up_to":[[50,0],[100,0],[250,0],[500,0],[1000,0],[2500,1],
        [5000,1],[10000,1],[25000,1],[50000,1],[100000,1],[250000,1],[500000,1],[1000000,1],
        [2500000,1],[5000000,1],[10000000,1],[60000000,1]]},"graphs":{"count":0,"sum_us":0,
        "p50_us":0,"p90_us":0,"p99_us":0,"p999_us":0,"max_us":0,"up_to":[]},"sends":{"count":0,
        "sum_us":0,"p50_us":0,"p90_us":0,"p99_us":0,"p999_us":0,"max_us":0,"up_to":[]}},
        "memory":{"graphs":0,"logs":0,"queue_fronts":0,"queue_in_flight":0,"brokers":0},
        "process":null}
"#
)]
#[case::graphs(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g track=01ARZ3NDEKTSV4RRFFQ69G5FAV
      a: f
    → w1 run f
    c1 calls a mpreg.graphs
    → c1 result a [{"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"running","steps":1,"ended":0,
        "running":1,"not_done":0,"begun_ms":1700000000000,"error":null}]
    w1 fails f broken
    → c1 graph g error at a failed: broken results {} steps {a failed failed}
    c1 calls a mpreg.graphs
    → c1 result a [{"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"failed","steps":1,"ended":1,
        "running":0,"not_done":1,"begun_ms":1700000000000,"error":{"code":"failed",
        "message":"broken","step":"a"}}]
"#
)]
fn listings(#[case] script: &str) {
    check(script);
}

/// What they take.
#[rstest]
#[case::none_by_position(
    r#"
    c1 calls a mpreg.functions [1]
    → c1 error a bad_args: mpreg.functions takes `kwargs` only [args]
    c1 calls a mpreg.functions []
    → c1 result a []
"#
)]
#[case::known_names_only(
    r#"
    c1 calls a mpreg.functions {"all":true}
    → c1 error a bad_args: mpreg.functions takes no all [all]
    c1 calls a mpreg.graph.check {"stepz":[]}
    → c1 error a bad_args: mpreg.graph.check takes no stepz [stepz]
    c1 calls a mpreg.graph.explain {"id":"x"}
    → c1 error a bad_args: mpreg.graph.explain takes no id [id]
"#
)]
#[case::null_is_as_good_as_nothing(
    r#"
    c1 calls a mpreg.functions {"all":null}
    → c1 result a []
    c1 calls a mpreg.graph.check {"steps":null,"dot":null}
    → c1 graph a error bad_graph: a graph needs a step [steps]
"#
)]
#[case::of_the_right_type(
    r#"
    c1 calls a mpreg.graph.check {"steps":{}}
    → c1 error a bad_args: must be an array [steps]
    c1 calls a mpreg.graph.check {"steps":[],"dot":1}
    → c1 error a bad_args: expected a boolean, found a number [dot]
    c1 calls a mpreg.graph.check {"refs":"some"}
    → c1 error a bad_args: is `tagged` or `names` [refs]
    c1 calls a mpreg.graph.check {"return":"some"}
    → c1 error a bad_args: is `sinks`, `all` or names [return]
    c1 calls a mpreg.graph.check {"return":[1]}
    → c1 error a bad_args: expected a string, found a number [return]
    c1 calls a mpreg.graph.check {"impact":1}
    → c1 error a bad_args: expected a string, found a number [impact]
    c1 calls a mpreg.graph.explain {"track":"x"}
    → c1 error a bad_args: needs the ULID of a graph [track]
    c1 calls a mpreg.graph.explain
    → c1 error a bad_args: needs the ULID of a graph [track]
"#
)]
#[case::no_such_function(
    r#"
    c1 calls a mpreg.nope
    → c1 error a unknown_function: mpreg.nope is not one of mpreg.functions, mpreg.workers,
        mpreg.status, mpreg.graphs, mpreg.graph.check, mpreg.graph.explain, mpreg.topics,
        mpreg.topic.publish, mpreg.topic.next, mpreg.topic.history, mpreg.queues,
        mpreg.queue.declare, mpreg.queue.stats, mpreg.queue.peek, mpreg.queue.purge,
        mpreg.queue.redrive, mpreg.queue.delete, mpreg.queue.send, mpreg.queue.next,
        mpreg.route.add, mpreg.route.list, mpreg.route.remove, mpreg.route.explain, mpreg.nodes,
        mpreg.link.add, mpreg.link.list, mpreg.link.remove, mpreg.link.rule, mpreg.link.rules [fun]
"#
)]
fn arguments(#[case] script: &str) {
    check(script);
}

/// A graph is checked, nothing runs.
#[rstest]
#[case::a_good_one(
    r#"
    w1 offers load@1.0.0 sum
    → w1 offered 2, credit 1
    c1 calls a mpreg.graph.check {"steps":[
        {"name":"a","fun":"load","version":"1"},{"name":"b","fun":"load"},
        {"name":"c","fun":"sum","args":[{"$ref":"a"},{"$ref":"b"}]}]}
    → c1 result a {"ok":true,"steps":3,"arrows":2,"levels":2,"placement":[{"fun":"load",
        "version":"1","locs":[],"cluster":null,"worker":"w1","missing":null},{"fun":"load",
        "version":null,"locs":[],"cluster":null,"worker":"w1","missing":null},{"fun":"sum",
        "version":null,"locs":[],"cluster":null,"worker":"w1","missing":null}],"plan":[{"name":"a",
        "fun":"load","level":0,"inputs":[],"returned":false,"worker":"w1"},{"name":"b","fun":"load",
        "level":0,"inputs":[],"returned":false,"worker":"w1"},{"name":"c","fun":"sum","level":1,
        "inputs":["a","b"],"returned":true,"worker":"w1"}]}
"#
)]
#[case::all_busy_is_no_reason(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls x f
    → w1 run f
    c1 calls y f
    c1 calls a mpreg.graph.check {"steps":[{"name":"a","fun":"f"}]}
    → c1 result a {"ok":true,"steps":1,"arrows":0,"levels":1,"placement":[{"fun":"f","version":null,
        "locs":[],"cluster":null,"worker":"all busy, 1 in line","missing":null}],
        "plan":[{"name":"a","fun":"f","level":0,"inputs":[],"returned":true,"worker":"all busy, 1
        in line"}]}
    w1 returns f 1
    → c1 result x 1
    → w1 run f
    w1 returns f 1
    → c1 result y 1
"#
)]
#[case::what_is_missing(
    r#"
    c1 calls a mpreg.graph.check {"steps":[{"name":"a","fun":"f"}]}
    → c1 graph a error at a unknown_function: no worker offers f [fun]
    c1 calls a mpreg.graph.check {"steps":[{"name":"a","fun":"f","wait":true}]}
    → c1 result a {"ok":true,"steps":1,"arrows":0,"levels":1,"placement":[{"fun":"f","version":null,
        "locs":[],"cluster":null,"worker":null,"missing":"unknown_function: no worker offers f"}],
        "plan":[{"name":"a","fun":"f","level":0,"inputs":[],"returned":true,"worker":null}]}
    c1 calls a mpreg.graph.check {"steps":[]}
    → c1 graph a error bad_graph: a graph needs a step [steps]
    c1 calls a mpreg.graph.check
    → c1 graph a error bad_graph: a graph needs a step [steps]
"#
)]
#[case::a_circle(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a mpreg.graph.check {"steps":[{"name":"a","fun":"f","after":["b"]},
        {"name":"b","fun":"f","args":["a"]}],"refs":"names"}
    → c1 graph a error at a cycle: the steps wait for each other: a → b → a [steps]
"#
)]
#[case::drawn(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a mpreg.graph.check {"dot":true,"steps":[{"name":"a \"q\"","fun":"f"},
        {"name":"b","fun":"f","after":["a \"q\""]}]}
    → c1 result a {"ok":true,"steps":2,"arrows":1,"levels":2,"placement":[{"fun":"f","version":null,
        "locs":[],"cluster":null,"worker":"w1","missing":null}],"plan":[{"name":"a \"q\"","fun":"f",
        "level":0,"inputs":[],"returned":false,"worker":"w1"},{"name":"b","fun":"f","level":1,
        "inputs":["a \"q\""],"returned":true,"worker":"w1"}],"dot":"digraph steps {\n
        rankdir=LR;\n  node [shape=box];\n  \"a \\\"q\\\"\" [label=\"a \\\"q\\\"\\nf\"];\n  \"b\"
        [label=\"b\\nf\"];\n  \"a \\\"q\\\"\" -> \"b\";\n}\n"}
"#
)]
#[case::impact(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a mpreg.graph.check {"impact":"b","return":["a"],"steps":[{"name":"a","fun":"f"},
        {"name":"b","fun":"f"},{"name":"c","fun":"f","after":["b"]},
        {"name":"d","fun":"f","after":["a","c"]}]}
    → c1 result a {"ok":true,"steps":4,"arrows":3,"levels":3,"placement":[{"fun":"f","version":null,
        "locs":[],"cluster":null,"worker":"w1","missing":null}],"plan":[{"name":"a","fun":"f",
        "level":0,"inputs":[],"returned":true,"worker":"w1"},{"name":"b","fun":"f","level":0,
        "inputs":[],"returned":false,"worker":"w1"},{"name":"c","fun":"f","level":1,"inputs":["b"],
        "returned":false,"worker":"w1"},{"name":"d","fun":"f","level":2,"inputs":["a","c"],
        "returned":false,"worker":"w1"}],"impact":{"step":"b","count":2,"steps":["c","d"]}}
    c1 calls a mpreg.graph.check {"impact":"z","steps":[{"name":"a","fun":"f"}]}
    → c1 error a unknown_step: `impact` names z, which is not a step [impact]
"#
)]
#[case::steps_are_data_until_checked(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: f
      b: mpreg.graph.check {"steps":[{"name":"a","fun":"f"}]}
    → w1 run f
    → c1 graph g error at b not_supported: a step cannot check a graph results {} steps {a
        cancelled cancelled, b failed not_supported}
    → w1 cancel f
    w1 returns f 1
"#
)]
fn checks(#[case] script: &str) {
    check(script);
}

/// Why a graph is where it is.
#[rstest]
#[case::where_it_waits(
    r#"
    w1 offers f h
    → w1 offered 2, credit 1
    w2 offers g credit=0
    → w2 offered 1, credit 0
    c1 graph g track=01ARZ3NDEKTSV4RRFFQ69G5FAV
      a: f
      b: f
      c: g
      d: h [@a,@b]
      e: i wait=true
    → w1 run f
    c2 calls a mpreg.graph.explain {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    → c2 result a {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"running","steps":5,"ended":0,
        "running":4,"not_done":0,"begun_ms":1700000000000,"error":null,"open":[{"step":"a",
        "state":"running","why":"runs on w1, attempt 1, 30000 ms left"},{"step":"b",
        "state":"running","why":"waits for credit, one of 1 in line for f; busy: w1 1/1; 30000 ms
        left"},{"step":"c","state":"running","why":"waits for credit, one of 1 in line for g; busy:
        w2 0/0; 30000 ms left"},{"step":"d","state":"pending","why":"waits for a, b"},{"step":"e",
        "state":"running","why":"waits for a worker that offers i"}]}
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller results {} steps {a cancelled cancelled,
        b cancelled cancelled, c cancelled cancelled, d cancelled cancelled, e cancelled cancelled}
    → w1 cancel f
    c2 calls a mpreg.graph.explain {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    → c2 result a {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"failed","steps":5,"ended":5,
        "running":0,"not_done":5,"begun_ms":1700000000000,"error":{"code":"cancelled",
        "message":"cancelled by the caller","step":null},"open":[]}
    w1 returns f late
"#
)]
#[case::between_attempts(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g track=01ARZ3NDEKTSV4RRFFQ69G5FAV
      a: f retry={"times":1,"backoff_ms":10000}
    → w1 run f
    w1 fails f broken
    c2 calls a mpreg.graph.explain {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    → c2 result a {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"running","steps":1,"ended":0,
        "running":0,"not_done":0,"begun_ms":1700000000000,"error":null,"open":[{"step":"a",
        "state":"backoff","why":"attempt 1 failed; waits to try again"}]}
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller results {} steps {a cancelled cancelled}
"#
)]
#[case::while_parts_come(
    r#"
    c1 graph g part=0 more track=01ARZ3NDEKTSV4RRFFQ69G5FAV
      a: f
    c2 calls a mpreg.graph.explain {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    → c2 result a {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV","state":"loading","steps":1,"ended":0,
        "running":0,"not_done":0,"begun_ms":1700000000000,"error":null,"open":[]}
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller
"#
)]
#[case::unknown(
    r#"
    c2 calls a mpreg.graph.explain {"track":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    → c2 error a unknown_graph: no graph 01ARZ3NDEKTSV4RRFFQ69G5FAV runs or ended lately [track]
"#
)]
fn explanations(#[case] script: &str) {
    check(script);
}

/// A built-in is a step like any other.
#[rstest]
#[case::among_workers(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: mpreg.functions
      b: f [@a/0/name]
    → w1 run f ["f"]
    w1 returns f 1
    → c1 graph g results {b=1}
"#
)]
#[case::alone(
    r#"
    c1 graph g return=none_of_it
      none_of_it: mpreg.workers
      b: mpreg.functions after=["none_of_it"]
    → c1 graph g results {none_of_it=[]}
"#
)]
#[case::bad_arguments_fail_the_step(
    r#"
    c1 graph g on_error=continue
      a: mpreg.functions [1]
      b: mpreg.functions {"x":1} fallback={"fun":"mpreg.workers"}
      c: mpreg.functions fallback={"value":0}
    → c1 graph g error at a bad_args: mpreg.functions takes `kwargs` only [args] results {b=[],
        c=[]} steps {a failed bad_args, b degraded bad_args, c done}
"#
)]
fn steps(#[case] script: &str) {
    check(script);
}
