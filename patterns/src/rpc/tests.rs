//! Calls as transcripts; the graphs have theirs.

use rstest::rstest;

use crate::base::Limits;
use crate::node::script::{Stage, check, check_within};

/// Who runs what.
#[rstest]
#[case::one_call(
    r#"
    w1 offers echo
    → w1 offered 1, credit 1
    c1 calls a echo [1] {"k":2}
    → w1 run echo [1] {"k":2}
    w1 returns echo 1
    → c1 result a 1
    c1 calls a echo
    → w1 run echo
    w1 returns echo 2
    → c1 result a 2
"#
)]
#[case::two_lives_of_an_id_are_two_calls(
    r#"
    w1 offers echo credit=2
    → w1 offered 1, credit 2
    c1 calls a echo [1]
    → w1 run echo [1]
    w1 returns echo 1
    → c1 result a 1
    c1 calls a echo [2]
    → w1 run echo [2]
    w1 returns echo 2
    → c1 result a 2
"#
)]
#[case::an_id_belongs_to_its_connection(
    r#"
    w1 offers echo credit=2
    → w1 offered 1, credit 2
    c1 calls a echo [1]
    → w1 run echo [1]
    c2 calls a echo [2]
    → w1 run echo [2]
    w1 returns echo 1
    → c1 result a 1
    w1 returns echo 2
    → c2 result a 2
"#
)]
#[case::duplicate_id(
    r#"
    w1 offers echo credit=2
    → w1 offered 1, credit 2
    c1 calls a echo [1]
    → w1 run echo [1]
    c1 calls a echo [2]
    → c1 error a duplicate_id: a is in flight on this connection [id] (refused: duplicate)
    w1 returns echo 1
    → c1 result a 1
"#
)]
#[case::a_failing_handler(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w1 fails f ValueError: no such row
    → c1 error a failed: ValueError: no such row
    c1 calls b f
    → w1 run f
    w1 fails f code=no_row retry Try later
    → c1 error b no_row: Try later (worker, retry true)
"#
)]
#[case::attachments(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [{"$frame":1}] frames=blob
    → w1 run f [{"$frame":1}] frames=blob
    w1 returns f frames=blub {"$frame":1}
    → c1 result a {"$frame":1} frames=blub
"#
)]
#[case::nobody_offers_it(
    r#"
    c1 calls a nope
    → c1 error a unknown_function: no worker offers nope [fun]
    w1 offers echo
    → w1 offered 1, credit 1
    c1 calls b nope
    → c1 error b unknown_function: no worker offers nope [fun]
"#
)]
#[case::nobody_is_never_remembered(
    r#"
    c1 calls a echo
    → c1 error a unknown_function: no worker offers echo [fun]
    w1 offers echo
    → w1 offered 1, credit 1
    c1 calls b echo
    → w1 run echo
    w1 returns echo 1
    → c1 result b 1
"#
)]
#[case::highest_version(
    r#"
    w1 offers f@1.0.0
    → w1 offered 1, credit 1
    w2 offers f@2.1.0
    → w2 offered 1, credit 1
    w3 offers f@2.0.0
    → w3 offered 1, credit 1
    c1 calls a f
    → w2 run f
    w2 returns f 1
    → c1 result a 1
"#
)]
#[case::a_pre_release_only_where_there_is_nothing_else(
    r#"
    w1 offers f@2.0.0-beta.1
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w2 offers f@1.0.0
    → w2 offered 1, credit 1
    c1 calls b f
    → w2 run f
    c1 calls c f version=>=2.0.0-beta.1
    w1 returns f 1
    → c1 result a 1
    → w1 run f
    w1 returns f 2
    → c1 result c 2
    w2 returns f 3
    → c1 result b 3
"#
)]
#[case::version_range(
    r#"
    w1 offers f@1.0.0
    → w1 offered 1, credit 1
    w2 offers f@2.1.0
    → w2 offered 1, credit 1
    c1 calls a f version=^1
    → w1 run f
    c1 calls b f version=>=2,<3
    → w2 run f
    w1 returns f 1
    → c1 result a 1
    w2 returns f 2
    → c1 result b 2
    c1 calls c f version=^3
    → c1 error c no_version: no f matches ^3; there is 1.0.0, 2.1.0 [version]
"#
)]
#[case::no_version_is_one(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f version=1.0.0
    → w1 run f
    w1 returns f 1
    → c1 result a 1
"#
)]
#[case::locs_are_a_subset(
    r#"
    w1 offers f locs=x
    → w1 offered 1, credit 1
    w2 offers f locs=z,x,y
    → w2 offered 1, credit 1
    c1 calls a f locs=x,y,x
    → w2 run f
    w2 returns f 1
    → c1 result a 1
    c1 calls b f locs=x,q
    → c1 error b no_location: nobody with f has all of [q, x]; it is on w1 [x], w2 [z, x, y] [locs]
"#
)]
#[case::highest_version_that_has_the_locs(
    r#"
    w1 offers f@1.0.0 locs=x
    → w1 offered 1, credit 1
    w2 offers f@2.0.0
    → w2 offered 1, credit 1
    c1 calls a f locs=x
    → w1 run f
    w1 returns f 1
    → c1 result a 1
"#
)]
#[case::waits_for_a_worker(
    r#"
    c1 calls a f wait timeout=500
    c1 calls b f wait timeout=50
    +100ms
    → c1 error b timeout: f waited for a worker until its deadline
    w1 offers f
    → w1 offered 1, credit 1
    → w1 run f 400ms left
    w1 returns f 1
    → c1 result a 1
"#
)]
#[case::waits_for_a_version(
    r#"
    w1 offers f@1.0.0
    → w1 offered 1, credit 1
    c1 calls a f version=2 wait
    w2 offers f@2.0.0
    → w2 offered 1, credit 1
    → w2 run f
    w2 returns f 1
    → c1 result a 1
"#
)]
fn placing(#[case] script: &str) {
    check(script);
}

/// How much a worker has in hand.
#[rstest]
#[case::a_window(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    → w1 run f [2]
    c1 calls c f [3]
    c1 calls d f [4]
    w1 returns f 1
    → c1 result a 1
    → w1 run f [3]
    w1 returns f 2
    → c1 result b 2
    → w1 run f [4]
    w1 returns f 3
    → c1 result c 3
    w1 returns f 4
    → c1 result d 4
"#
)]
#[case::one_by_default(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    w1 fails f no
    → c1 error a failed: no
    → w1 run f [2]
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::none_pauses(
    r#"
    w1 offers f credit=0
    → w1 offered 1, credit 0
    c1 calls a f
    w1 offers f credit=1
    → w1 offered 1, credit 1
    → w1 run f
    w1 returns f 1
    → c1 result a 1
    w1 offers f credit=0
    → w1 offered 1, credit 0
    c1 calls b f timeout=100
    +200ms
    → c1 error b timeout: f waited for a worker until its deadline
"#
)]
#[case::less_does_not_take_back(
    r#"
    w1 offers f credit=3
    → w1 offered 1, credit 3
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    → w1 run f [2]
    w1 offers f credit=1
    → w1 offered 1, credit 1
    c1 calls c f [3]
    w1 returns f 1
    → c1 result a 1
    w1 returns f 2
    → c1 result b 2
    → w1 run f [3]
    w1 returns f 3
    → c1 result c 3
"#
)]
#[case::more_serves_the_line(
    r#"
    w1 offers f credit=1
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    c1 calls c f [3]
    w1 offers f credit=3
    → w1 offered 1, credit 3
    → w1 run f [2]
    → w1 run f [3]
    w1 returns f 1
    → c1 result a 1
    w1 returns f 2
    → c1 result b 2
    w1 returns f 3
    → c1 result c 3
"#
)]
#[case::an_unchanged_offer_changes_nothing(
    r#"
    w1 offers f credit=1 id=o1
    → w1 offered o1 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    w1 offers f credit=1 id=o2
    → w1 offered o2 1, credit 1
    w1 returns f 1
    → c1 result a 1
    → w1 run f [2]
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::a_second_offer_replaces_the_first(
    r#"
    w1 offers f g credit=2
    → w1 offered 2, credit 2
    c1 calls a f
    → w1 run f
    w1 offers g h credit=2
    → w1 offered 2, credit 2
    c1 calls b f
    → c1 error b unknown_function: no worker offers f [fun]
    c1 calls c h
    → w1 run h
    w1 returns f 1
    → c1 result a 1
    w1 returns h 2
    → c1 result c 2
"#
)]
#[case::a_withdrawn_function_fails_its_line(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    w1 offers g
    → c1 error b unknown_function: no worker offers f [fun]
    → w1 offered 1, credit 1
    w1 returns f 1
    → c1 result a 1
"#
)]
#[case::a_refused_offer_changes_nothing(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    w1 offers g g
    → w1 error bad_field: g is there twice [functions]
    w1 offers g mpreg.x
    → w1 error reserved_name: mpreg.x is the broker's [functions]
    w1 offers g@1.x
    → w1 error bad_version: the version of g: unexpected character 'x' while parsing minor version
        number [functions]
    c1 calls a f
    → w1 run f
    w1 returns f 1
    → c1 result a 1
    c1 calls b g
    → c1 error b unknown_function: no worker offers g [fun]
"#
)]
#[case::a_newcomer_serves_the_line(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    w2 offers f
    → w2 offered 1, credit 1
    → w2 run f [2]
    w1 returns f 1
    → c1 result a 1
    w2 returns f 2
    → c1 result b 2
"#
)]
#[case::a_freed_worker_takes_what_another_version_left(
    r#"
    w1 offers f@1.0.0
    → w1 offered 1, credit 1
    w2 offers f@2.0.0
    → w2 offered 1, credit 1
    c1 calls a f [1]
    → w2 run f [1]
    c1 calls b f [2]
    w2 offers g
    → w1 run f [2]
    → w2 offered 1, credit 1
    w2 returns f 1
    → c1 result a 1
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::lines_take_turns(
    r#"
    w1 offers f g
    → w1 offered 2, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    c1 calls c f [3]
    c1 calls d g [4]
    w1 returns f 1
    → c1 result a 1
    → w1 run f [2]
    w1 returns f 2
    → c1 result b 2
    → w1 run g [4]
    w1 returns g 4
    → c1 result d 4
    → w1 run f [3]
    w1 returns f 3
    → c1 result c 3
"#
)]
#[case::a_run_that_does_not_answer_keeps_its_credit(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1] timeout=100
    → w1 run f [1] 100ms left
    c1 calls b f [2]
    +200ms
    → w1 cancel f
    → c1 error a timeout: f was still running on w1 at its deadline
    w1 returns f late
    → w1 run f [2] 29800ms left
    w1 returns f 2
    → c1 result b 2
"#
)]
fn credit(#[case] script: &str) {
    check(script);
}

/// Deadlines and cancels.
#[rstest]
#[case::a_deadline_travels_and_shrinks(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f timeout=1000
    → w1 run f 1000ms left
    c1 calls b f timeout=1000
    +300ms
    w1 returns f 1
    → c1 result a 1
    → w1 run f 700ms left
    +800ms
    → w1 cancel f
    → c1 error b timeout: f was still running on w1 at its deadline
    w1 returns f late
"#
)]
#[case::a_late_reply_is_dropped(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f timeout=100
    → w1 run f 100ms left
    +200ms
    → w1 cancel f
    → c1 error a timeout: f was still running on w1 at its deadline
    w1 returns f 1
    c1 calls a f
    → w1 run f
    w1 returns f 2
    → c1 result a 2
    w1 returns f again
"#
)]
#[case::cancel_in_line(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    c1 calls c f [3]
    c1 cancels b
    → c1 error b cancelled: cancelled by the caller
    w1 returns f 1
    → c1 result a 1
    → w1 run f [3]
    w1 returns f 3
    → c1 result c 3
"#
)]
#[case::cancel_travels(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c1 cancels a
    → w1 cancel f
    → c1 error a cancelled: cancelled by the caller
    c1 cancels a
    w1 returns f late
    c1 cancels a
    c1 cancels never
"#
)]
#[case::cancel_belongs_to_its_connection(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    c2 cancels a
    w1 returns f 1
    → c1 result a 1
"#
)]
#[case::a_cancelled_id_may_be_used_again(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    c1 calls a f [1]
    → w1 run f [1]
    c1 cancels a
    → w1 cancel f
    → c1 error a cancelled: cancelled by the caller
    c1 calls a f [2]
    → w1 run f [2]
    w1 returns f first
    w1 returns f second
    → c1 result a null
"#
)]
#[case::a_caller_that_leaves_cancels(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    c1 dies
    → w1 cancel f
    w1 returns f 1
    c2 calls c f [3]
    → w1 run f [3]
    w1 returns f 3
    → c2 result c 3
"#
)]
#[case::progress_goes_to_who_asked(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    c1 calls a f progress
    → c1 progress a started
    → w1 run f
    w1 progress f 40 half way
    → c1 progress a progress 40% half way
    c1 calls b f
    → w1 run f
    w1 returns f 1
    → c1 result a 1
    w1 progress f 50 unheard
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::strays_are_not_answered(
    r#"
    w1 strays
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w2 strays
    w1 returns f 1
    → c1 result a 1
    w1 returns f again
"#
)]
fn endings(#[case] script: &str) {
    check(script);
}

/// Workers that leave.
#[rstest]
#[case::an_idempotent_call_moves_at_once(
    r#"
    w1 offers f! credit=4
    → w1 offered 1, credit 4
    c1 calls a f [1]
    → w1 run f [1]
    w2 offers f!
    → w2 offered 1, credit 1
    w1 dies
    → w2 run f [1] attempt 2
    w2 returns f 1
    → c1 result a 1
"#
)]
#[case::another_call_is_unknown_at_once(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    w2 offers g
    → w2 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w1 dies
    → c1 error a outcome_unknown: w1 was lost while it ran f
"#
)]
#[case::the_call_beats_the_offer_no(
    r#"
    w1 offers f!
    → w1 offered 1, credit 1
    c1 calls a f idempotent=false
    → w1 run f
    w2 offers f!
    → w2 offered 1, credit 1
    w1 dies
    → c1 error a outcome_unknown: w1 was lost while it ran f
"#
)]
#[case::the_call_beats_the_offer_yes(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f idempotent=true
    → w1 run f
    w2 offers f
    → w2 offered 1, credit 1
    w1 dies
    → w2 run f attempt 2
    w2 returns f 1
    → c1 result a 1
"#
)]
#[case::never_sent_always_moves(
    r#"
    w1 offers f g credit=2
    → w1 offered 2, credit 2
    c1 calls a f
    → w1 run f
    c1 calls b g
    → w1 run g
    w2 offers f g
    → w2 offered 2, credit 1
    w1 dies unsent g
    → c1 error a outcome_unknown: w1 was lost while it ran f
    → w2 run g
    w2 returns g 1
    → c1 result b 1
"#
)]
#[case::never_sent_and_nobody_else(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w1 dies unsent f
    → c1 error a unknown_function: no worker offers f [fun]
"#
)]
#[case::idempotent_and_nobody_else(
    r#"
    w1 offers f!
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w1 dies
    → c1 error a outcome_unknown: its worker was lost and nobody else offers f
"#
)]
#[case::idempotent_and_waits(
    r#"
    w1 offers f!
    → w1 offered 1, credit 1
    c1 calls a f wait
    → w1 run f
    w1 dies
    w2 offers f!
    → w2 offered 1, credit 1
    → w2 run f attempt 2
    w2 returns f 1
    → c1 result a 1
"#
)]
#[case::three_lost_workers_are_enough(
    r#"
    w1 offers f!
    → w1 offered 1, credit 1
    c1 calls a f wait
    → w1 run f
    w1 dies
    w2 offers f!
    → w2 offered 1, credit 1
    → w2 run f attempt 2
    w2 dies
    w3 offers f!
    → w3 offered 1, credit 1
    → w3 run f attempt 3
    w3 dies
    → c1 error a outcome_unknown: 3 workers were lost while they ran f
"#
)]
#[case::its_line_goes_elsewhere(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    w2 offers f credit=0
    → w2 offered 1, credit 0
    c1 calls b f [2]
    w1 dies
    → c1 error a outcome_unknown: w1 was lost while it ran f
    w2 offers f credit=1
    → w2 offered 1, credit 1
    → w2 run f [2]
    w2 returns f 2
    → c1 result b 2
"#
)]
#[case::its_line_ends_with_it(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    c1 calls c f [3] wait
    w1 dies
    → c1 error b unknown_function: no worker offers f [fun]
    → c1 error a outcome_unknown: w1 was lost while it ran f
    w2 offers f
    → w2 offered 1, credit 1
    → w2 run f [3]
    w2 returns f 3
    → c1 result c 3
"#
)]
#[case::moved_calls_go_first(
    r#"
    w2 offers f credit=0
    → w2 offered 1, credit 0
    w1 offers f!
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    w1 dies
    w2 offers f credit=1
    → w2 offered 1, credit 1
    → w2 run f [1] attempt 2
    w2 returns f 1
    → c1 result a 1
    → w2 run f [2]
    w2 returns f 2
    → c1 result b 2
"#
)]
#[case::a_cancelled_run_dies_quietly(
    r#"
    w1 offers f!
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w2 offers f!
    → w2 offered 1, credit 1
    c1 cancels a
    → w1 cancel f
    → c1 error a cancelled: cancelled by the caller
    w1 dies
    c1 calls b f
    → w2 run f
    w2 returns f 2
    → c1 result b 2
"#
)]
#[case::same_identity_new_life(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f
    → w1 run f
    w1 dies
    → c1 error a outcome_unknown: w1 was lost while it ran f
    w1 returns f late
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls b f
    → w1 run f
    w1 returns f 1
    → c1 result b 1
"#
)]
#[case::bye_drains(
    r#"
    w1 offers f credit=2
    → w1 offered 1, credit 2
    w2 offers f credit=0
    → w2 offered 1, credit 0
    c1 calls a f [1]
    → w1 run f [1]
    w1 bye b1
    c1 calls b f [2] timeout=100
    w1 returns f 1
    → c1 result a 1
    → w1 bye b1
    +200ms
    → c1 error b timeout: f waited for a worker until its deadline
"#
)]
#[case::bye_with_nothing_in_hand(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    w1 bye
    → w1 bye
    c1 calls a f
    → c1 error a unknown_function: no worker offers f [fun]
    c1 bye b1
    → c1 bye b1
"#
)]
#[case::bye_and_back(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    w1 bye
    w1 offers f
    → w1 offered 1, credit 1
    w1 returns f 1
    → c1 result a 1
    c1 calls b f [2]
    → w1 run f [2]
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::bye_with_a_line(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    w1 bye
    → c1 error b unknown_function: no worker offers f [fun]
    w1 returns f 1
    → c1 result a 1
    → w1 bye
"#
)]
#[case::a_worker_that_does_not_read_is_passed_over(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    w2 offers f
    → w2 offered 1, credit 1
    w1 unsent f
    → w2 run f [1]
    c1 calls b f [2]
    c1 calls c f [3]
    w1 ping
    → w1 pong
    → w1 run f [2]
    w2 returns f 1
    → c1 result a 1
    → w2 run f [3]
    w1 returns f 2
    → c1 result b 2
    w2 returns f 3
    → c1 result c 3
"#
)]
#[case::a_stalled_worker_that_pauses_gets_nothing(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f wait
    → w1 run f
    w1 unsent f
    w1 offers f credit=0
    → w1 offered 1, credit 0
    c1 cancels a
    → c1 error a cancelled: cancelled by the caller
"#
)]
#[case::what_cannot_be_encoded_fails(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 calls a f [1]
    → w1 run f [1]
    w1 unsent f no such number
    → c1 error a unencodable_value: no such number
    c1 calls b f [2]
    → w1 run f [2]
    w1 returns f 2
    → c1 result b 2
"#
)]
#[case::a_broker_that_drains(
    r#"
    w1 offers f
    → w1 offered 1, credit 1
    c1 hello client
    → c1 welcome
    c1 calls a f [1]
    → w1 run f [1]
    c1 calls b f [2]
    drain
    → w1 bye
    → c1 bye
    c1 calls c f [3]
    → c1 error c draining: the broker is going down
    w1 returns f 1
    → c1 result a 1
    → w1 run f [2]
    w1 returns f 2
    → c1 result b 2
"#
)]
fn deaths(#[case] script: &str) {
    check(script);
}

/// Bounds are refusals.
#[rstest]
#[case::requests_of_a_connection(
    r#"
    c1 calls a f wait
    c1 calls b f wait
    c1 calls c f wait
    → c1 error c busy: 2 requests are in flight here
    c2 calls c f wait
    c1 cancels a
    → c1 error a cancelled: cancelled by the caller
    c1 calls c f wait
    c1 cancels b
    → c1 error b cancelled: cancelled by the caller
    c1 cancels c
    → c1 error c cancelled: cancelled by the caller
    c2 cancels c
    → c2 error c cancelled: cancelled by the caller
"#
)]
#[case::calls_of_the_broker(
    r#"
    c1 calls a f wait
    c1 calls b f wait
    c2 calls a f wait
    c2 calls b f wait
    c3 calls a f wait
    → c3 error a busy: 4 calls are in flight
    w1 offers f
    → w1 offered 1, credit 1
    → w1 run f
    w1 returns f 1
    → c1 result a 1
    → w1 run f
    c3 calls a f wait
    c1 dies
    → w1 cancel f
    c2 dies
    c3 cancels a
    → c3 error a cancelled: cancelled by the caller
    w1 returns f 2
"#
)]
#[case::credit(
    r#"
    w1 offers f credit=100
    → w1 offered 1, credit 10
"#
)]
#[case::functions_of_an_offer(
    r#"
    w1 offers f g h
    → w1 error bad_field: at most 2 functions [functions]
    w1 offers f g locs=x,y,z
    → w1 error bad_field: at most 2 locs [locs]
"#
)]
fn bounds(#[case] script: &str) {
    let limits = Limits {
        calls_per_peer: 2,
        calls: 4,
        credit: 10,
        functions_per_offer: 2,
        locs: 2,
        ..Limits::default()
    };
    check_within(limits, script);
}

/// Runs of `f` that a worker has in hand, out of `calls` that nobody has answered.
fn shares(offers: &[&str], calls: usize) -> Vec<usize> {
    let mut stage = Stage::new(Limits::default());
    for offer in offers {
        stage.play(offer);
    }
    for call in 0..calls {
        stage.play(&format!("c1 calls x{call} f"));
    }
    let runs = |offer: &&str| {
        let start = format!("→ {} run", offer.split(' ').next().unwrap());
        stage.lines.iter().filter(|line| line.starts_with(&start)).count()
    };
    offers.iter().map(runs).collect()
}

#[test]
fn equal_workers_share_equally() {
    let offers = ["w1", "w2", "w3", "w4", "w5"].map(|w| format!("{w} offers f credit=1000"));
    let offers: Vec<_> = offers.iter().map(String::as_str).collect();
    for share in shares(&offers, 1_000) {
        assert!((190..=210).contains(&share), "{share} of 1000 went to one of five");
    }
}

#[test]
fn twice_the_credit_takes_twice_the_work() {
    let share = shares(&["w1 offers f credit=1000", "w2 offers f credit=2000"], 900);
    assert!((280..=320).contains(&share[0]), "{share:?}");
}

#[test]
fn credit_that_is_there_is_found() {
    // Two random choices may both be full: the one free place among twenty is still used.
    let offers: Vec<String> = (0..20).map(|w| format!("w{w} offers f")).collect();
    let offers: Vec<_> = offers.iter().map(String::as_str).collect();
    assert_eq!(shares(&offers, 20), [1; 20]);
}

/// A worker remembers in which lines calls wait for it. Lines are forgotten when they are empty
/// and there are many: the memory of the worker must survive that.
#[test]
fn lines_that_were_forgotten_are_not_looked_for() {
    let mut stage = Stage::new(Limits::default());
    stage.play("w1 offers f");
    stage.play("c1 calls a f");
    for version in 0..100 {
        stage.play(&format!("c1 calls v{version} f version=<={}.0.0 timeout=1", version + 1));
    }
    stage.play("+10ms");
    for name in 0..3_000 {
        stage.play(&format!("c1 calls n{name} nobody{name}"));
    }
    stage.play("w1 returns f 1");
    stage.play("c1 calls b f");
    stage.play("w1 returns f 2");
    assert_eq!(stage.lines.last().unwrap(), "→ c1 result b 2");
}

/// A line does not grow with calls that gave up.
#[test]
fn a_paused_worker_costs_nothing_lasting() {
    let mut stage = Stage::new(Limits::default());
    stage.play("w1 offers f credit=0");
    for call in 0..5_000 {
        stage.play(&format!("c1 calls x{call} f"));
        stage.play(&format!("c1 cancels x{call}"));
    }
    stage.play("c1 calls last f");
    stage.play("w1 offers f");
    assert_eq!(stage.lines.last().unwrap(), "→ w1 run f");
}
