//! Graphs as transcripts, and against a model that is too simple to be wrong.

mod model;
mod scale;

use rstest::rstest;

use crate::base::Limits;
use crate::node::script::{check, check_within};

/// What a step is given.
#[rstest]
#[case::chain(
    r#"
    w1 offers load sum credit=2
    → w1 offered 2, credit 2
    c1 graph g
      a: load [1]
      b: sum [@a, 10]
    → w1 run load [1]
    w1 returns load 5
    → w1 run sum [5, 10]
    w1 returns sum 15
    → c1 graph g results {b=15}
"#
)]
#[case::in_args_and_kwargs_at_any_depth(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: f
      b: g [[{"x":[@a]}],"plain"] {"k":{"deep":[1,@a/rows/1]},"a":0}
    → w1 run f
    w1 returns f {"rows":[1,2]}
    → w1 run g [[{"x":[{"rows":[1,2]}]}],"plain"] {"k":{"deep":[1,2]},"a":0}
    w1 returns g true
    → c1 graph g results {b=true}
"#
)]
#[case::pointers(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: f
      b: g [@a/rows/0/x~1y]
    → w1 run f
    w1 returns f {"rows":[{"x/y":7}]}
    → w1 run g [7]
    w1 returns g 1
    → c1 graph g results {b=1}
"#
)]
#[case::data_is_never_a_reference(
    r#"
    w1 offers f g h credit=9
    → w1 offered 3, credit 9
    c1 graph g
      a: f
      b: g [@a,"a","a.x",{"$ref":"a","more":1},{"$lit":{"$ref":"a"}}]
      c: h [@b]
    → w1 run f
    w1 returns f {"$ref":"b"}
    → w1 run g [{"$ref":"b"},"a","a.x",{"$ref":"a","more":1},{"$ref":"a"}]
    w1 returns g [{"$ref":"a"},"a"]
    → w1 run h [[{"$ref":"a"},"a"]]
    w1 returns h 1
    → c1 graph g results {c=1}
"#
)]
#[case::names(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g refs=names
      a: f
      a.b: f
      c: g ["a","a.x.0","a.b","a.b.y","ab",{"a":"a"},{"$lit":"a"}] {"k":["a.x"]}
    → w1 run f
    → w1 run f
    w1 returns f {"x":[1]}
    w1 returns f {"y":2}
    → w1 run g [{"x":[1]},1,{"y":2},2,"ab",{"a":{"x":[1]}},"a"] {"k":[[1]]}
    w1 returns g 1
    → c1 graph g results {c=1}
"#
)]
#[case::a_missing_path(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: f
      b: g [@a/rows/3]
    → w1 run f
    w1 returns f {"rows":[1]}
    → c1 graph g error at b missing_path: step b: the result of a: `/rows/3` is not there: `/rows`
        is an array results {} steps {a done, b failed missing_path}
"#
)]
#[case::null_is_as_good_as_nothing(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g [{"name":"a","fun":"f","args":null,"kwargs":null,"locs":null,"after":null}]
    → w1 run f
    w1 returns f 1
    → c1 graph g results {a=1}
    c1 graph g [{"name":"a","fun":"f","id":null,"version":null,"timeout_ms":null,"wait":null}]
    → w1 run f
    w1 returns f 1
    → c1 graph g results {a=1}
    c1 graph g [{"name":"a","fun":"f","retry":null,"fallback":null,"idempotent":null}]
    → w1 run f
    w1 returns f 1
    → c1 graph g results {a=1}
    c1 graph g [{"name":"a","fun":null}]
    → c1 graph g error bad_field: step 0: a names no function [fun]
    c1 graph g [{"name":"a","fun":"f","fallback":{"value":null,"fun":null}}]
    → w1 run f
    w1 fails f broken
    → c1 graph g results {a=null} steps {a degraded failed}
"#
)]
#[case::a_missing_path_has_a_fallback_and_no_retry(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: f
      b: g [@a/rows] retry={"times":3} fallback={"value":[@a/row]}
    → w1 run f
    w1 returns f {"row":1}
    → c1 graph g results {b=[1]} steps {a done, b degraded missing_path}
"#
)]
#[case::a_bad_value_is_not_tried_again(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: f
      b: g [@a/rows] retry={"times":3}
    → w1 run f
    w1 returns f raw={"rows":
    → c1 graph g error at b bad_value: step b: byte 8: the text ends where a value is expected
        results {} steps {a done, b failed bad_value}
"#
)]
#[case::attachments_travel(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g frames=in
      a: f [{"$frame":1}]
      b: g [@a,@a/part]
    → w1 run f [{"$frame":1}] frames=in
    w1 returns f frames=out {"part":{"$frame":1}}
    → w1 run g [{"part":{"$frame":1}},{"$frame":2}] frames=out,out
    w1 returns g frames=end {"$frame":1}
    → c1 graph g results {b={"$frame":1} frames=end}
"#
)]
#[case::attachments_are_named_once(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g frames=in,two
      a: f [{"$frame":1}]
    → c1 graph g error bad_frame: attachment 2 is named by no step
    c1 graph g frames=in
      a: f [{"$frame":1},{"$frame":1}]
    → c1 graph g error at a bad_frame: step a: attachment 1 is named twice
    c1 graph g frames=in
      a: f [{"$frame":1},{"$frame":2}]
    → c1 graph g error at a bad_frame: step a: attachment 2 is not there
"#
)]
fn references(#[case] script: &str) {
    check(script);
}

/// Checked whole before anything runs.
#[rstest]
#[case::empty(
    r#"
    c1 graph g []
    → c1 graph g error bad_graph: a graph needs a step [steps]
    c1 graph g
    → c1 graph g error bad_graph: a graph needs a step [steps]
"#
)]
#[case::duplicate_names(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: f
      b: f
      a: f
    → c1 graph g error at a duplicate_step: two steps are named a [name]
"#
)]
#[case::unknown_steps(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: f
      b: f [@x]
    → c1 graph g error at b unknown_step: step b: there is no step `x`
    c1 graph g
      a: f after=["y"]
    → c1 graph g error at a unknown_step: step a comes after y, which is not there [after]
    c1 graph g return=z
      a: f
    → c1 graph g error unknown_step: `return` names z, which is not a step [return]
    c1 graph g
      a: f fallback={"value":@w}
    → c1 graph g error at a unknown_step: step a: there is no step `w`
"#
)]
#[case::circles(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: f [@c]
      b: f [@a]
      c: f [@a]
    → c1 graph g error at a cycle: the steps wait for each other: a → c → a [steps]
    c1 graph g
      a: f after=["a"]
    → c1 graph g error at a cycle: the steps wait for each other: a → a [steps]
    c1 graph g
      z: f
      a: f [@z] {"k":@c}
      b: f fallback={"value":[@a]}
      c: f after=["b"]
      d: f [@c]
    → c1 graph g error at a cycle: the steps wait for each other: a → b → c → a [steps]
"#
)]
#[case::functions(
    r#"
    w1 offers f locs=x
    → w1 offered 1, credit 1
    c1 graph g
      a: f
      b: nope [@a]
    → c1 graph g error at b unknown_function: no worker offers nope [fun]
    c1 graph g
      a: f
      b: f version="^2"
    → c1 graph g error at b no_version: no f matches ^2; there is 1.0.0 [version]
    c1 graph g
      a: f locs=["x","y"]
    → c1 graph g error at a no_location: nobody with f has all of [x, y]; it is on w1 [x] [locs]
    c1 graph g
      a: f fallback={"fun":"nope"}
    → c1 graph g error at a unknown_function: no worker offers nope [fun]
    c1 graph g
      a: mpreg.nope
    → c1 graph g error at a unknown_function: mpreg.nope is not one of mpreg.functions,
        mpreg.workers, mpreg.status, mpreg.graphs, mpreg.graph.check, mpreg.graph.explain,
        mpreg.topics, mpreg.topic.publish, mpreg.topic.next, mpreg.topic.history, mpreg.queues,
        mpreg.queue.declare, mpreg.queue.stats, mpreg.queue.peek, mpreg.queue.purge,
        mpreg.queue.redrive, mpreg.queue.delete, mpreg.queue.send, mpreg.queue.next,
        mpreg.route.add, mpreg.route.list, mpreg.route.remove, mpreg.route.explain, mpreg.nodes,
        mpreg.link.add, mpreg.link.list, mpreg.link.remove, mpreg.link.rule, mpreg.link.rules [fun]
    c1 graph g
      a: f
      b: g [@a] wait=true timeout_ms=100
    → w1 run f
    w1 returns f 1
    +200ms
    → c1 graph g error at b timeout: g waited for a worker until its deadline results {} steps {a
        done, b failed timeout}
"#
)]
#[case::shapes(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g [1]
    → c1 graph g error bad_field: step 0: expected an object, found a number [steps]
    c1 graph g [{"fun":"f"}]
    → c1 graph g error bad_field: step 0: a step needs a name, or a ULID as id [name]
    c1 graph g [{"name":"a"}]
    → c1 graph g error bad_field: step 0: a names no function [fun]
    c1 graph g [{"name":"a","fun":"f"},{"name":"","fun":"f"}]
    → c1 graph g error bad_name: step 1: name must have 1 to 255 bytes, none a control [name]
    c1 graph g [{"name":"a","fun":"f","args":{}}]
    → c1 graph g error bad_field: step 0: must be an array, not an object [args]
    c1 graph g [{"name":"a","fun":"f","kwargs":[]}]
    → c1 graph g error bad_field: step 0: must be an object, not an array [kwargs]
    c1 graph g [{"name":"a","fun":"f","timeout_ms":0}]
    → c1 graph g error bad_field: step 0: `timeout_ms` takes 1 to 604800000 [timeout_ms]
    c1 graph g [{"name":"a","fun":"f","timeout_ms":604800001}]
    → c1 graph g error bad_field: step 0: `timeout_ms` takes 1 to 604800000 [timeout_ms]
    c1 graph g [{"name":"a","fun":"f..g"}]
    → c1 graph g error bad_name: step 0: `f..g` is no name [fun]
    c1 graph g [{"name":"a","fun":"f","fallback":{"fun":".g"}}]
    → c1 graph g error bad_name: step 0: `.g` is no name [fallback]
    c1 graph g [{"name":"a","fun":"f","locs":["x",""]}]
    → c1 graph g error bad_field: step 0: `locs` takes 64 strings of 1 to 255 bytes at most [locs]
    c1 graph g [{"name":"a","fun":"f","version":"one"}]
    → c1 graph g error bad_version: step 0: one is not a version range: unexpected character 'o'
        while parsing major version number [version]
    c1 graph g [{"name":"a","fun":"f","after":"a"}]
    → c1 graph g error bad_field: step 0: expected an array, found a string [after]
    c1 graph g [{"name":"a","fun":"f","retry":{"times":101}}]
    → c1 graph g error bad_field: step 0: at most 100 times [retry]
    c1 graph g [{"name":"a","fun":"f","fallback":{}}]
    → c1 graph g error bad_field: step 0: takes either `value` or `fun` [fallback]
    c1 graph g [{"name":"a","fun":"f","fallback":{"value":1,"fun":"f"}}]
    → c1 graph g error bad_field: step 0: takes either `value` or `fun` [fallback]
    c1 graph g [{"name":"a","fun":"f","idempotent":1}]
    → c1 graph g error bad_field: step 0: expected a boolean, found a number [idempotent]
    c1 graph g [{"id":"nope","fun":"f"}]
    → c1 graph g error bad_field: step 0: a step's id is a ULID; use `name` for any other name [id]
    c1 graph g [{"name":"a","fun":"f","args":[{"$ref":1}]}]
    → c1 graph g error at a bad_field: step a: `$ref` takes the name of a step
    c1 graph g [{"name":"a","fun":"f","args":[{"$ref":"a","at":"x"}]}]
    → c1 graph g error at a bad_field: step a: `at` takes a JSON pointer: "" or "/…"
"#
)]
#[case::an_id_that_is_a_ulid(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    c1 graph g
      [{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","fun":"f"},
       {"name":"b","fun":"f","args":[{"$ref":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}]}]
    → w1 run f
    w1 returns f 1
    → w1 run f [1]
    w1 returns f 2
    → c1 graph g results {b=2}
"#
)]
#[case::duplicate_id(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    c1 graph g
      a: f
    → w1 run f
    c1 graph g
      a: f
    → c1 error g duplicate_id: g is in flight on this connection [id] (refused: duplicate)
    c1 calls g f
    → c1 error g duplicate_id: g is in flight on this connection [id] (refused: duplicate)
    w1 returns f 1
    → c1 graph g results {a=1}
    c1 calls g f
    → w1 run f
    c1 graph g
      a: f
    → c1 error g duplicate_id: g is in flight on this connection [id] (refused: duplicate)
    c1 graph g part=1
      a: f
    → c1 error g duplicate_id: g is in flight on this connection [id] (refused: duplicate)
    w1 returns f 2
    → c1 result g 2
"#
)]
#[case::a_broker_that_drains(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    c1 graph g
      a: f [1]
      b: f [@a]
    → w1 run f [1]
    drain
    → w1 bye
    c1 graph h
      a: f
    → c1 error h draining: the broker is going down
    w1 returns f 2
    → w1 run f [2]
    w1 returns f 3
    → c1 graph g results {b=3}
"#
)]
fn refusals(#[case] script: &str) {
    check(script);
}

/// When a step starts, and what is returned.
#[rstest]
#[case::no_level_barrier(
    r#"
    w1 offers a b c d credit=9
    → w1 offered 4, credit 9
    c1 graph g
      a: a
      b: b
      c: c [@a]
      d: d [@c]
    → w1 run a
    → w1 run b
    w1 returns a 1
    → w1 run c [1]
    w1 returns c 2
    → w1 run d [2]
    w1 returns d 3
    w1 returns b 4
    → c1 graph g results {b=4, d=3}
"#
)]
#[case::a_diamond_joins(
    r#"
    w1 offers a b c d credit=9
    → w1 offered 4, credit 9
    c1 graph g
      d: d [@b,@c,@b]
      c: c [@a]
      b: b [@a]
      a: a
    → w1 run a
    w1 returns a 1
    → w1 run b [1]
    → w1 run c [1]
    w1 returns c 2
    w1 returns b 3
    → w1 run d [3,2,3]
    w1 returns d 4
    → c1 graph g results {d=4}
"#
)]
#[case::sinks_of_any_depth(
    r#"
    w1 offers a b c d e credit=9
    → w1 offered 5, credit 9
    c1 graph g
      a: a
      b: b
      c: c [@b]
      d: d [@c]
      e: e after=["c"]
    → w1 run a
    → w1 run b
    w1 returns b 1
    → w1 run c [1]
    w1 returns c 2
    → w1 run e
    → w1 run d [2]
    w1 returns e 3
    w1 returns d 4
    w1 returns a 5
    → c1 graph g results {a=5, d=4, e=3}
"#
)]
#[case::a_list_is_exact(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g return=a,a
      a: a
      b: b [@a]
    → w1 run a
    w1 returns a 1
    → w1 run b [1]
    w1 returns b 2
    → c1 graph g results {a=1}
    c1 graph g return=
      a: a
    → w1 run a
    w1 returns a 1
    → c1 graph g results {}
"#
)]
#[case::all(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g return=all
      a: a
      b: b [@a]
    → w1 run a
    w1 returns a 1
    → w1 run b [1]
    w1 returns b 2
    → c1 graph g results {a=1, b=2}
"#
)]
#[case::after_waits_without_data(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a
      b: b ["x"] after=["a"]
    → w1 run a
    w1 returns a 1
    → w1 run b ["x"]
    w1 returns b 2
    → c1 graph g results {b=2}
"#
)]
#[case::a_fallback_is_an_input_too(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a
      b: b fallback={"value":@a}
    → w1 run a
    w1 returns a 1
    → w1 run b
    w1 fails b no
    → c1 graph g results {b=1} steps {a done, b degraded failed}
"#
)]
#[case::two_graphs_side_by_side(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a [1]
      b: b [@a]
    → w1 run a [1]
    c1 graph h
      a: a [2]
      b: b [@a]
    → w1 run a [2]
    w1 returns a 10
    → w1 run b [10]
    w1 returns a 20
    → w1 run b [20]
    w1 returns b 30
    → c1 graph g results {b=30}
    w1 returns b 40
    → c1 graph h results {b=40}
"#
)]
#[case::a_window_of_credit(
    r#"
    w1 offers a b credit=1
    → w1 offered 2, credit 1
    c1 graph g
      x: a [1]
      y: a [2]
      z: b [@x]
    → w1 run a [1]
    w1 returns a 1
    → w1 run a [2]
    w1 returns a 2
    → w1 run b [1]
    w1 returns b 3
    → c1 graph g results {y=2, z=3}
"#
)]
#[case::steps_ask_for_versions_and_locs(
    r#"
    w1 offers f@1.0.0 locs=x
    → w1 offered 1, credit 1
    w2 offers f@2.0.0
    → w2 offered 1, credit 1
    c1 graph g return=all
      a: f version="1"
      b: f [@a] locs=["x"]
      c: f [@b]
    → w1 run f
    w1 returns f 1
    → w1 run f [1]
    w1 returns f 2
    → w2 run f [2]
    w2 returns f 3
    → c1 graph g results {a=1, b=2, c=3}
"#
)]
fn order(#[case] script: &str) {
    check(script);
}

/// An error is never a value.
#[rstest]
#[case::fail_cancels_siblings_and_skips_dependents(
    r#"
    w1 offers a b c d credit=9
    → w1 offered 4, credit 9
    c1 graph g return=all
      a: a
      b: b
      c: c [@a]
      d: d [@b]
      e: d [@c]
    → w1 run a
    → w1 run b
    w1 fails a broken
    → c1 graph g error at a failed: broken results {} steps {a failed failed, b cancelled cancelled,
         c skipped input_failed, d cancelled cancelled, e skipped input_failed}
    → w1 cancel b
    w1 returns b late
"#
)]
#[case::what_finished_is_returned_with_the_error(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a
      b: b
    → w1 run a
    → w1 run b
    w1 returns a 1
    w1 fails b code=no_row broken
    → c1 graph g error at b no_row: broken results {a=1} steps {a done, b failed no_row}
"#
)]
#[case::continue_finishes_siblings(
    r#"
    w1 offers a b c d credit=9
    → w1 offered 4, credit 9
    c1 graph g on_error=continue
      a: a
      b: b
      c: c [@a]
      d: d [@b]
    → w1 run a
    → w1 run b
    w1 fails a broken
    w1 returns b 1
    → w1 run d [1]
    w1 returns d 2
    → c1 graph g error at a failed: broken results {d=2} steps {a failed failed, b done, c skipped
        input_failed, d done}
"#
)]
#[case::a_failure_nobody_wants_is_a_result(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g on_error=continue return=b
      a: a
      b: b
    → w1 run a
    → w1 run b
    w1 fails a broken
    w1 returns b 1
    → c1 graph g results {b=1} steps {a failed failed, b done}
"#
)]
#[case::the_first_cause_is_told(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g on_error=continue
      a: a
      b: b
    → w1 run a
    → w1 run b
    w1 fails b first
    w1 fails a second
    → c1 graph g error at b failed: first results {} steps {a failed failed, b failed failed}
"#
)]
#[case::a_fallback_value(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a fallback={"value":[0]}
      b: b [@a]
    → w1 run a
    w1 fails a broken
    → w1 run b [[0]]
    w1 returns b 1
    → c1 graph g results {b=1} steps {a degraded failed, b done}
"#
)]
#[case::a_fallback_value_that_is_returned(
    r#"
    w1 offers a credit=9
    → w1 offered 1, credit 9
    c1 graph g
      a: a fallback={"value":null}
    → w1 run a
    w1 fails a code=no_row broken
    → c1 graph g results {a=null} steps {a degraded no_row}
"#
)]
#[case::a_fallback_function(
    r#"
    w1 offers a b c credit=9
    → w1 offered 3, credit 9
    c1 graph g return=c
      a: a
      b: b fallback={"fun":"c","args":[@a,1]}
      c: c [@b]
    → w1 run a
    w1 returns a 5
    → w1 run b
    w1 fails b broken
    → w1 run c [5,1]
    w1 returns c 6
    → w1 run c [6]
    w1 returns c 7
    → c1 graph g results {c=7} steps {a done, b degraded failed, c done}
"#
)]
#[case::a_fallback_that_fails(
    r#"
    w1 offers b c credit=9
    → w1 offered 2, credit 9
    c1 graph g
      b: b fallback={"fun":"c"}
    → w1 run b
    w1 fails b broken
    → w1 run c
    w1 fails c code=worse also broken
    → c1 graph g error at b failed: broken; its fallback failed too: worse: also broken results {}
        steps {b failed failed}
"#
)]
#[case::a_fallback_with_a_missing_path(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a
      b: b fallback={"value":@a/x}
    → w1 run a
    w1 returns a []
    → w1 run b
    w1 fails b broken
    → c1 graph g error at b failed: broken; its fallback: step b: the result of a: `/x` is not
        there: the value is an array results {} steps {a done, b failed failed}
"#
)]
#[case::retries_wait_longer_each_time(
    r#"
    w1 offers a credit=9
    → w1 offered 1, credit 9
    c1 graph g progress
      a: a retry={"times":2,"backoff_ms":100}
    → c1 progress g accepted 0%
    → w1 run a
    → c1 progress g a started 0%
    w1 fails a one
    → c1 progress g a retrying 0% attempt 1 failed: failed: one
    +99ms
    +30ms
    → w1 run a 29897ms left
    → c1 progress g a started 0%
    w1 fails a two
    → c1 progress g a retrying 0% attempt 2 failed: failed: two
    +199ms
    +60ms
    → w1 run a 29638ms left
    → c1 progress g a started 0%
    w1 fails a three
    → c1 progress g a failed 100% failed: three
    → c1 graph g error at a failed: three results {} steps {a failed failed}
"#
)]
#[case::a_retry_that_succeeds(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a retry={"times":1,"backoff_ms":0}
      b: b [@a]
    → w1 run a
    w1 fails a one
    +2ms
    → w1 run a 29999ms left
    w1 returns a 1
    → w1 run b [1] 29998ms left
    w1 returns b 2
    → c1 graph g results {b=2}
"#
)]
#[case::a_fallback_comes_after_the_retries(
    r#"
    w1 offers a credit=9
    → w1 offered 1, credit 9
    c1 graph g
      a: a retry={"times":1,"backoff_ms":10} fallback={"value":"fb"}
    → w1 run a
    w1 fails a one
    +20ms
    → w1 run a 29989ms left
    w1 fails a two
    → c1 graph g results {a="fb"} steps {a degraded failed}
"#
)]
#[case::a_wait_ends_with_the_graph(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a retry={"times":1,"backoff_ms":1000}
      b: b
    → w1 run a
    → w1 run b
    w1 fails a one
    w1 fails b two
    → c1 graph g error at b failed: two results {} steps {a cancelled cancelled, b failed failed}
    +2s
"#
)]
#[case::only_what_may_repeat_is_tried_after_a_death(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g on_error=continue
      a: a retry={"times":1,"backoff_ms":10}
      b: b retry={"times":1,"backoff_ms":10} idempotent=true
    → w1 run a
    → w1 run b
    w1 dies
    w2 offers b
    → w2 offered 1, credit 1
    +100ms
    → w2 run b 29989ms left
    w2 returns b 1
    → c1 graph g error at a outcome_unknown: w1 was lost while it ran a results {b=1} steps {a
        unknown outcome_unknown, b done}
"#
)]
#[case::an_idempotent_step_moves(
    r#"
    w1 offers a!
    → w1 offered 1, credit 1
    c1 graph g
      a: a
    → w1 run a
    w2 offers a!
    → w2 offered 1, credit 1
    w1 dies
    → w2 run a attempt 2
    w2 returns a 1
    → c1 graph g results {a=1}
"#
)]
#[case::an_unknown_outcome_fails_dependents(
    r#"
    w1 offers a
    → w1 offered 1, credit 1
    w2 offers b
    → w2 offered 1, credit 1
    c1 graph g return=b
      a: a
      b: b [@a]
    → w1 run a
    w1 dies
    → c1 graph g error at a outcome_unknown: w1 was lost while it ran a results {} steps {a unknown
        outcome_unknown, b skipped input_failed}
"#
)]
#[case::siblings_that_were_just_handed_out_are_cancelled(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      x: a
      y: b after=["x"]
      z: b [@x/no]
    → w1 run a
    w1 returns a {}
    → c1 graph g error at z missing_path: step z: the result of x: `/no` is not there: the value is
        an object results {} steps {x done, y cancelled cancelled, z failed missing_path}
    c1 graph h
      x: b
    → w1 run b
    w1 returns b late
    → c1 graph h results {x=null}
    w1 returns b 1
"#
)]
#[case::a_late_failure_calls_no_fallback(
    r#"
    w1 offers a b c credit=9
    → w1 offered 3, credit 9
    c1 graph g
      a: a
      b: b fallback={"fun":"c"}
    → w1 run a
    → w1 run b
    hold
    w1 fails a broken
    w1 fails b broken
    go
    → c1 graph g error at a failed: broken results {} steps {a failed failed, b failed failed}
"#
)]
#[case::a_function_that_went_away(
    r#"
    w1 offers a
    → w1 offered 1, credit 1
    w2 offers b
    → w2 offered 1, credit 1
    c1 graph g
      a: a
      b: b [@a]
    → w1 run a
    w2 bye
    → w2 bye
    w1 returns a 1
    → c1 graph g error at b unknown_function: no worker offers b [fun] results {} steps {a done, b
        failed unknown_function}
"#
)]
fn failures(#[case] script: &str) {
    check(script);
}

/// Deadlines, cancels, connections.
#[rstest]
#[case::a_deadline(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g timeout=100
      a: a
      b: b
      c: b [@a]
    → w1 run a 100ms left
    → w1 run b 100ms left
    w1 returns b 1
    +150ms
    → c1 graph g error timeout: 1 of 3 steps had ended results {b=1} steps {a cancelled cancelled,
        b done, c cancelled cancelled}
    → w1 cancel a
    w1 returns a late
"#
)]
#[case::deadlines_shrink_and_travel(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g timeout=1000
      a: a timeout_ms=300
      b: b [@a] timeout_ms=5000
    → w1 run a 300ms left
    +100ms
    w1 returns a 1
    → w1 run b [1] 900ms left
    +50ms
    w1 returns b 1
    → c1 graph g results {b=1}
"#
)]
#[case::a_deadline_of_a_step(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g on_error=continue
      a: a timeout_ms=100
      b: b
    → w1 run a 100ms left
    → w1 run b
    +150ms
    → w1 cancel a
    w1 returns b 1
    → c1 graph g error at a timeout: a was still running on w1 at its deadline results {b=1} steps
        {a failed timeout, b done}
    w1 returns a late
"#
)]
#[case::cancel(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g
      a: a
      b: b
      c: b [@a]
    → w1 run a
    → w1 run b
    w1 returns b 1
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller results {b=1} steps {a cancelled
        cancelled, b done, c cancelled cancelled}
    → w1 cancel a
    c1 cancels g
    w1 returns a late
"#
)]
#[case::cancel_while_parts_come(
    r#"
    c1 graph g part=0 more
      a: f
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller
    c1 graph g part=1
      b: f
"#
)]
#[case::a_caller_that_leaves(
    r#"
    w1 offers a credit=9
    → w1 offered 1, credit 9
    c1 graph g progress
      a: a
    → c1 progress g accepted 0%
    → w1 run a
    → c1 progress g a started 0%
    c1 dies
    → w1 cancel a
    w1 progress a 5 unheard
    w1 returns a late
"#
)]
#[case::a_stopping_graph_takes_results(
    r#"
    w1 offers a b c credit=9
    → w1 offered 3, credit 9
    c1 graph g return=all
      a: a
      b: b
      c: c [@b]
    → w1 run a
    → w1 run b
    hold
    w1 fails a broken
    w1 returns b 1
    go
    → c1 graph g error at a failed: broken results {b=1} steps {a failed failed, b done, c
        cancelled cancelled}
"#
)]
#[case::progress_after_the_caller_left(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g progress
      a: a
    → c1 progress g accepted 0%
    → w1 run a
    → c1 progress g a started 0%
    hold
    c1 dies
    → w1 cancel a
    c2 calls x b
    → w1 run b
    w1 progress a 50 for nobody
    go
    w1 returns a 1
    w1 returns b 1
    → c2 result x 1
"#
)]
#[case::quiet_means_quiet(
    r#"
    w1 offers a credit=9
    → w1 offered 1, credit 9
    c1 graph g progress
      a: a retry={"times":1,"backoff_ms":1000}
    → c1 progress g accepted 0%
    → w1 run a
    → c1 progress g a started 0%
    w1 fails a one
    → c1 progress g a retrying 0% attempt 1 failed: failed: one
    c1 dies
    c2 calls x a
    → w1 run a
    +2s
    w1 returns a 1
    → c2 result x 1
"#
)]
fn endings(#[case] script: &str) {
    check(script);
}

/// Graphs that come in parts.
#[rstest]
#[case::references_point_forward(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g part=0 more return=b
      b: f [@a]
    c1 graph g part=1 more
      c: f [@b]
    c1 graph g part=2
      a: g
    → w1 run g
    w1 returns g 1
    → w1 run f [1]
    w1 returns f 2
    → w1 run f [2]
    w1 returns f 3
    → c1 graph g results {b=2}
"#
)]
#[case::nothing_runs_before_the_last(
    r#"
    w1 offers f g credit=9
    → w1 offered 2, credit 9
    c1 graph g part=0 more
      b: f
    +29s
    c1 graph g part=1
    → w1 run f 1000ms left
    w1 returns f 1
    → c1 graph g results {b=1}
"#
)]
#[case::a_gap(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g part=0 more
      a: f
    c1 graph g part=2 more
      b: f
    → c1 graph g error incomplete_graph: part 2 came instead of 1 [part]
    c1 graph g part=3
      c: f
    c1 graph g
      a: f
    → w1 run f
    w1 returns f 1
    → c1 graph g results {a=1}
"#
)]
#[case::no_beginning(
    r#"
    c1 graph g part=1
      a: f
    → c1 error g incomplete_graph: part 1 came without the parts before it [part]
    c1 graph g part=1 more
      a: f
    → c1 error g incomplete_graph: part 1 came without the parts before it [part]
    c1 graph g part=2
      a: f
"#
)]
#[case::silence(
    r#"
    c1 graph g part=0 more timeout=100000
      a: f
    +29s
    c1 graph g part=1 more
      b: f
    +31s
    → c1 graph g error incomplete_graph: part 2 did not come within 30000 ms [part]
    c1 graph g part=2 more
      c: f
    c1 graph g part=3
      d: f
    c1 graph g part=4
      d: f
    → c1 error g incomplete_graph: part 4 came without the parts before it [part]
"#
)]
#[case::a_bad_part_is_one_outcome(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g part=0 more
      a: f
    c1 graph g part=1 more [{"name":"b"}]
    → c1 graph g error bad_field: step 1: b names no function [fun]
    c1 graph g part=2 more
      c: f
    c1 graph g part=3
      d: f
    c1 graph g part=0
      a: f
    → w1 run f
    w1 returns f 1
    → c1 graph g results {a=1}
    c1 graph g part=0 more
      a: f
    c1 graph g part=1 more [{"name":"b"}]
    → c1 graph g error bad_field: step 1: b names no function [fun]
    c1 calls g f
    → w1 run f
    c1 graph g part=2
      c: f
    w1 returns f 2
    → c1 result g 2
"#
)]
#[case::each_part_has_its_attachments(
    r#"
    w1 offers f credit=9
    → w1 offered 1, credit 9
    c1 graph g part=0 more frames=one
      a: f [{"$frame":1}]
    c1 graph g part=1 frames=two
      b: f [{"$frame":1}]
    → w1 run f [{"$frame":1}] frames=one
    → w1 run f [{"$frame":1}] frames=two
    w1 returns f 1
    w1 returns f 2
    → c1 graph g results {a=1, b=2}
"#
)]
#[case::one_deadline_for_all(
    r#"
    c1 graph g part=0 more timeout=1000
      a: f
    +900ms
    c1 graph g part=1 more
      b: f
    +200ms
    → c1 graph g error timeout: it was still being read
    c1 graph g part=2
      c: f
"#
)]
fn parts(#[case] script: &str) {
    check(script);
}

/// Progress of a graph.
#[rstest]
#[case::events(
    r#"
    w1 offers a b c credit=9
    → w1 offered 3, credit 9
    c1 graph g progress on_error=continue
      a: a
      b: b [@a] fallback={"value":1}
      c: c
      d: c [@c]
    → c1 progress g accepted 0%
    → w1 run a
    → w1 run c
    → c1 progress g a started 0%
    → c1 progress g c started 0%
    w1 progress a 50 half
    → c1 progress g a progress 50% half
    w1 returns a 1
    → c1 progress g a done 25%
    → w1 run b [1]
    → c1 progress g b started 25%
    w1 fails b broken
    → c1 progress g b degraded 50%
    w1 fails c broken
    → c1 progress g c failed 75% failed: broken
    → c1 progress g d skipped 100%
    → c1 graph g error at c failed: broken results {b=1} steps {a done, b degraded failed, c failed
        failed, d skipped input_failed}
"#
)]
#[case::events_of_a_cancel(
    r#"
    w1 offers a b credit=9
    → w1 offered 2, credit 9
    c1 graph g progress
      a: a
      b: b [@a]
    → c1 progress g accepted 0%
    → w1 run a
    → c1 progress g a started 0%
    c1 cancels g
    → c1 progress g a cancelled 50%
    → c1 progress g b cancelled 100%
    → c1 graph g error cancelled: cancelled by the caller results {} steps {a cancelled cancelled,
        b cancelled cancelled}
    → w1 cancel a
"#
)]
fn following(#[case] script: &str) {
    check(script);
}

/// Bounds are refusals.
#[rstest]
#[case::steps(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 graph g
      a: f
      b: f
      c: f
      d: f
    → c1 graph g error too_large: a graph has at most 3 steps [steps]
"#
)]
#[case::graphs_of_a_connection(
    r#"
    w1 offers f credit=9
    → w1 offered 1, credit 9
    c1 graph g
      a: f
    → w1 run f
    c1 graph h
      a: f
    → w1 run f
    c1 graph i
      a: f
    → c1 graph i error busy: 2 graphs are in flight here
    c2 graph i
      a: f
    → w1 run f
    c1 cancels g
    → c1 graph g error cancelled: cancelled by the caller results {} steps {a cancelled cancelled}
    → w1 cancel f
    c1 graph i
      a: f
    → w1 run f
    c1 dies
    → w1 cancel f
    → w1 cancel f
    c2 dies
    → w1 cancel f
"#
)]
#[case::bytes_of_a_connection(
    r#"
    c1 graph g part=0 more
      a: f ["0123456789012345678901234567890123456789"]
    c1 graph g part=1 more
      b: f ["0123456789012345678901234567890123456789"]
    → c1 graph g error busy: 76 bytes of graphs are in the broker already
    c1 graph h part=0 more
      b: f ["0123456789012345678901234567890123456789"]
    c1 cancels h
    → c1 graph h error cancelled: cancelled by the caller
"#
)]
#[case::steps_at_once(
    r#"
    w1 offers f credit=9
    → w1 offered 1, credit 9
    c1 graph g
      a: f [1]
      b: f [2]
      c: f [3]
    → w1 run f [1]
    → w1 run f [2]
    w1 returns f 1
    → w1 run f [3]
    w1 returns f 2
    w1 returns f 3
    → c1 graph g results {a=1, b=2, c=3}
"#
)]
fn bounds(#[case] script: &str) {
    let limits = Limits {
        steps: 3,
        graphs_per_peer: 2,
        graph_bytes: 140,
        graph_window: 2,
        ..Limits::default()
    };
    check_within(limits, script);
}
