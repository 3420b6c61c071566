//! What the simulation found, as transcripts.

use std::sync::Arc;

use rstest::rstest;

use crate::base::RunId;
use crate::node::script::check;
use crate::ops::Event;
use crate::queues::lane::{Entry, Lane};
use crate::store::{Message, Place};
use crate::values::Value;

/// A consumer's place in the table is another's once it is gone; its turn is not.
#[rstest]
#[case::whoever_comes_next_takes_from_its_own_queue(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    w1 dies
    w2 consumes mail
    → w2 consumed mail, credit 1
    c1 sends a jobs 1 quietly
    w3 consumes jobs
    → w3 consumed jobs, credit 1
    → w3 deliver jobs 1
"#
)]
fn turns(#[case] script: &str) {
    check(script);
}

/// What the disk may not have was not sent, not declared and not taken over.
#[rstest]
#[case::a_dedup_whose_message_was_lost(
    r#"
    w1 consumes jobs credit=0
    → w1 consumed jobs, credit 0
    c1 sends a jobs 1 dedup=x
    → c1 sent a fsync 1
    store waits
    c1 sends b jobs 2 dedup=y
    store fails
    → c1 error b store_full: no space left
    store opens
    c1 sends c jobs 2 dedup=y
    c1 sends d jobs 1 dedup=x
    store syncs
    → c1 sent c fsync 1
    → c1 sent d fsync 1
    w1 consumes jobs credit=3
    → w1 consumed jobs, credit 3
    store syncs
    → w1 deliver jobs 1
    → w1 deliver jobs 2
"#
)]
#[case::a_queue_declared_again(
    r#"
    c1 sends a jobs 1
    → c1 sent a fsync 1
    store waits
    store fails
    c1 calls b mpreg.queue.declare {"name":"jobs"}
    → c1 error b store_full: no space left
    store opens
    c1 sends c jobs 2
    store syncs
    → c1 sent c fsync 1
"#
)]
#[case::a_message_on_its_way_to_another_lane(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1
    → w1 deliver jobs 1
    → c1 sent a fsync 1
    store waits
    w1 nacks jobs delay=5
    store steps
    store opens
    store syncs
    +9ms
    → w1 deliver jobs 1 attempt 2
"#
)]
#[case::a_message_on_its_way_to_the_dead(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1
    → w1 deliver jobs 1
    → c1 sent a fsync 1
    store waits
    w1 nacks jobs dead
    store steps
    store opens
    c1 calls p mpreg.queue.peek {"name":"jobs","dead":true}
    store syncs
    → c1 result p {"messages":[{"attempts":1,"message":"ULID","at_ms":1700000000000,
        "reason":"rejected","note":"","payload":1}]}
"#
)]
fn failures(#[case] script: &str) {
    check(script);
}

/// An outcome that comes late is nobody's but its own request's.
#[rstest]
#[case::of_a_connection_that_is_gone(
    r#"
    store waits
    c1 calls a mpreg.queue.declare {"name":"jobs"}
    c1 dies
    c2 sends b jobs 1
    store syncs
    → c2 sent b fsync 1
"#
)]
fn outcomes(#[case] script: &str) {
    check(script);
}

/// What is thrown away is gone, with the wait for it; what is sent again is so once.
#[rstest]
#[case::a_key_that_waited_for_its_next_attempt(
    r#"
    w1 consumes jobs
    → w1 consumed jobs, credit 1
    c1 sends a jobs 1 key=k quietly
    → w1 deliver jobs 1
    w1 nacks jobs delay=9000
    c1 calls p mpreg.queue.purge {"name":"jobs"}
    → c1 result p {"queue":"jobs","messages":1}
    c1 sends b jobs 2 key=k quietly
    → w1 deliver jobs 2
"#
)]
#[case::what_was_delayed_and_is_ready(
    r#"
    c1 sends a jobs 1 delay=10 quietly
    +20ms
    c1 calls p mpreg.queue.purge {"name":"jobs"}
    → c1 result p {"queue":"jobs","messages":1}
    store opens
    w1 consumes jobs
    → w1 consumed jobs, credit 1
"#
)]
#[case::dead_letters_are_sent_again_once(
    r#"
    w1 consumes jobs credit=2
    → w1 consumed jobs, credit 2
    c1 sends a jobs 1 quietly
    → w1 deliver jobs 1
    w1 nacks jobs dead
    store waits
    c1 calls r mpreg.queue.redrive {"name":"jobs"}
    c1 calls s mpreg.queue.redrive {"name":"jobs"}
    → c1 error s busy: jobs is being redriven already
    store syncs
    → w1 deliver jobs 1
    store syncs
    → c1 result r {"queue":"jobs","messages":1}
"#
)]
fn throwing_away(#[case] script: &str) {
    check(script);
}

/// What came while a piece was read is read next, although one that is damaged stood behind it.
#[test]
fn a_damaged_message_hides_none() {
    let (mut lane, mut memory) = (Lane::stored(1), 0);
    assert_eq!(lane.wants(1, 7), Some(None), "from the beginning");
    let place = Place { line: 1, lane: 10, at_ms: 5, seq: 2 };
    let (topic, payload, message) = ("".into(), Value::json("1"), RunId(1));
    let event = Arc::new(Event { topic, payload, headers: None, message });
    let (key, priority, attempts, expires_ms, death) = (None, 0, 0, None, None);
    let message = Arc::new(Message { event, key, priority, attempts, expires_ms, death });
    lane.add((5, 2), Entry { place, message: message.clone() }, true, &mut memory);
    assert!(lane.fill(7, Vec::new(), 1, true, &mut memory), "one at 9, which is damaged");
    assert_eq!(lane.wants(1, 8), Some(None), "one is left, and stands before that");
    assert!(lane.fill(8, vec![(place, message)], 0, true, &mut memory));
    assert_eq!((lane.len(), lane.in_front()), (1, 1));
}
