//! Calls that other brokers run, as transcripts.

use rstest::rstest;

use crate::node::script::check;

#[rstest]
#[case::nobody_here_runs_it(
    r#"
    b1 links
    b1 has f@1.0.0
    c1 calls a f [1] {"k":2}
    → b1 call f [1] {"k":2}
    b1 returns f 1
    → c1 result a 1
    c1 calls b f
    → b1 call f
    b1 fails f code=no_row Try later
    → c1 error b no_row: Try later
"#
)]
#[case::workers_here_come_first(
    r#"
    b1 links
    b1 has f@1.0.0
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c1 calls b f
    → b1 call f
    w1 returns f 1
    → c1 result a 1
    c1 calls c f
    → w1 run f
    → 2 in flight
"#
)]
#[case::the_nearest_comes_first(
    r#"
    b1 links cost=5000
    b1 has f@1.0.0
    b2 links cost=500
    b2 has f@1.0.0
    b2 load 0/10
    b1 load 0/10
    c1 calls a f
    → b2 call f
    c1 calls b f
    → b2 call f
    → 2 in flight
"#
)]
#[case::unless_it_is_busy(
    r#"
    b1 links cost=700
    b1 has f@1.0.0
    b1 load 0/10
    b2 links cost=500
    b2 has f@1.0.0
    b2 load 10/2
    c1 calls a f
    → b1 call f
    → 1 in flight
"#
)]
#[case::a_lost_broker_is_a_lost_worker(
    r#"
    b1 links cost=500
    b1 has f@1.0.0!
    b1 has g@1.0.0
    b2 links cost=5000
    b2 has f@1.0.0!
    b2 has g@1.0.0
    c1 calls a f
    → b1 call f
    c1 calls b g
    → b1 call g
    b1 unlinks
    → b2 call f attempt 2
    → c1 error b outcome_unknown: b1 was lost while it ran g
    b2 returns f 1
    → c1 result a 1
"#
)]
#[case::it_was_thought_to_run_it(
    r#"
    b1 links
    b1 has f@1.0.0
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    → b1 call f [2]
    w1 returns f 1
    → c1 result a 1
    b1 refuses f unknown_function no worker offers f
    → w1 run f [2]
    b1 has no f@1.0.0
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::a_refusal_is_not_remembered(
    r#"
    b1 links
    c1 calls a f
    → c1 error a unknown_function: no worker offers f [fun]
    b1 has f@1.0.0
    c1 calls b f
    → b1 call f
    b1 has no f@1.0.0
    b1 returns f 1
    → c1 result b 1
    c1 calls c f
    → c1 error c unknown_function: no worker offers f [fun]
"#
)]
#[case::versions_and_locs(
    r#"
    b1 links
    b1 has f@1.0.0 eu
    b2 links
    b2 has f@2.0.0 us
    b2 has f@2.0.0 us asia
    c1 calls a f
    → b2 call f
    c1 calls b f locs=eu
    → b1 call f
    c1 calls c f version=^1
    → b1 call f
    c1 calls d f locs=asia
    → b2 call f
    c1 calls e f locs=mars
    → c1 error e no_location: nobody with f has all of [mars]; it is on b1 [eu], b2 [us], b2 [us,
        asia] [locs]
    → 4 in flight
"#
)]
#[case::a_cluster_is_asked_for(
    r#"
    b1 links cost=500 cluster=eu
    b1 has f@1.0.0 a
    b2 links cost=5000 cluster=us
    b2 has f@1.0.0
    c1 calls a f cluster=us
    → b2 call f
    c1 calls b f cluster=eu
    → b1 call f
    c1 calls c f cluster=main
    → c1 error c no_location: nobody in main runs f; it is in eu, us [cluster]
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls d f cluster=main
    → w1 run f
    c1 calls e f cluster=main
    w1 returns f 1
    → c1 result d 1
    → w1 run f
    c1 calls g f cluster=mars
    → c1 error g no_location: nobody in mars runs f; it is in eu, main, us [cluster]
    c1 calls h f cluster=us locs=a
    → c1 error h no_location: nobody with f has all of [a]; it is on b2 [] [locs]
    c1 calls i f cluster=us wait
    → b2 call f
    c1 calls j f cluster=us version=^2
    → c1 error j no_version: no f matches ^2; there is 1.0.0 [version]
    → 4 in flight
"#
)]
#[case::what_comes_from_a_broker_goes_no_further(
    r#"
    b1 links
    b2 links
    b2 has f@1.0.0
    b1 calls a f
    → b1 error a unknown_function: no worker offers f [fun]
    w1 offers f
    → w1 offered 1, credit 1
    b1 calls b f
    → w1 run f
    b1 calls c f
    w1 returns f 1
    → b1 result b 1
    → w1 run f
    → 1 in flight
"#
)]
#[case::a_caller_that_waits_gets_one_from_afar(
    r#"
    c1 calls a f wait
    b1 links
    b1 has f@1.0.0
    → b1 call f
    c1 cancels a
    → b1 cancel f
    → c1 error a cancelled: cancelled by the caller
"#
)]
#[case::a_broker_that_is_gone_leaves_its_calls(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    b1 links
    b1 calls a f
    → w1 run f
    b1 unlinks
    → w1 cancel f
    w1 returns f 1
"#
)]
#[case::a_graph_over_two_brokers(
    r#"
    b1 links
    b1 has f@1.0.0
    w1 offers g
    → w1 offered 1, credit 1
    c1 graph a
      x: f [1]
      y: g [@x]
    → b1 call f [1]
    b1 returns f 5
    → w1 run g [5]
    w1 returns g 6
    → c1 graph a results {y=6}
"#
)]
fn far(#[case] script: &str) {
    check(script);
}
