//! What becomes of paths, as transcripts; and for any of what may happen to them.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

const MS: u64 = NS_PER_MS;

/// Plays `moment: what` lines: `answer N`, `lose N`, or nothing but time. What is to be done is
/// told with each.
fn play(paths: usize, script: &str) -> String {
    let mut failover = Failover::new(paths, 0);
    let mut told = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (moment, what) = line.split_once(':').unwrap();
        let now_ns = moment.parse::<u64>().unwrap() * MS;
        failover.tick(now_ns);
        match what.trim().split_once(' ') {
            Some(("answer", at)) => failover.answered(at.parse().unwrap(), now_ns),
            Some(("lose", at)) => failover.lost(at.parse().unwrap(), now_ns),
            _ => {}
        }
        let acts: Vec<String> = failover.acts().map(|act| format!("{act:?}")).collect();
        told.push_str(&format!("{line} -> {}\n", acts.join(" ")));
    }
    told
}

#[rstest]
#[case::the_first_that_answers_is_used(
    2,
    "
    0: start -> Open(0) Open(1)
    3: answer 1 -> Use(1)
    4: answer 0 -> 
"
)]
#[case::one_that_is_lost_gives_way_at_once(
    2,
    "
    0: answer 0 -> Open(0) Open(1) Use(0)
    2: answer 1 -> 
    9: lose 0 -> Close(0) Use(1)
    108: time -> 
    109: time -> Open(0)
    112: answer 0 -> 
"
)]
#[case::silence_is_a_failure_once_another_answers(
    2,
    "
    0: answer 0 -> Open(0) Open(1) Use(0)
    1: answer 1 -> 
    250: time -> Ask(0)
    949: time -> 
    951: time -> Ask(1)
    952: answer 1 -> Close(0) Use(1)
"
)]
#[case::a_busy_broker_is_not_left(
    2,
    "
    0: answer 0 -> Open(0) Open(1) Use(0)
    1: answer 1 -> 
    250: time -> Ask(0)
    951: time -> Ask(1)
    960: answer 0 -> 
    961: answer 1 -> 
"
)]
#[case::without_any_what_comes_back_first_is_used(
    2,
    "
    0: answer 0 -> Open(0) Open(1) Use(0)
    1: answer 1 -> 
    5: lose 1 -> Close(1)
    6: lose 0 -> Close(0) Rest
    105: time -> Open(1)
    106: time -> Open(0)
    107: lose 1 -> Close(1)
    120: answer 0 -> Use(0)
    306: time -> 
    307: time -> Open(1)
"
)]
#[case::who_never_answers_is_tried_less_and_less(
    2,
    "
    0: answer 0 -> Open(0) Open(1) Use(0)
    200: time -> 
    701: time -> Ask(0) Close(1)
    702: answer 0 -> 
    800: time -> 
    801: time -> Open(1)
    1502: time -> Ask(0) Close(1)
    1701: time -> 
    1702: time -> Open(1)
"
)]
#[case::a_single_one_is_never_left(
    1,
    "
    0: start -> Open(0) Use(0)
    3: answer 0 -> 
    9: lose 0 -> 
    99999: time -> 
"
)]
fn transcripts(#[case] paths: usize, #[case] script: &str) {
    let lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty());
    let wanted: Vec<&str> = lines.collect();
    let inputs: Vec<&str> = wanted.iter().filter_map(|line| line.split(" ->").next()).collect();
    assert_eq!(play(paths, &inputs.join("\n")), wanted.join("\n") + "\n");
}

/// Something that happens to a path, and how long after the last.
fn happening() -> impl Strategy<Value = (u8, usize, u64)> {
    (0..3u8, 0..3usize, 0..900u64)
}

proptest! {
    #[test]
    fn what_is_used_is_open_and_answers(
        happenings in prop::collection::vec(happening(), 1..200),
    ) {
        let mut failover = Failover::new(3, 0);
        let (mut now_ns, mut open, mut used) = (0, [false; 3], None);
        for (what, at, ms) in happenings {
            now_ns += ms * MS;
            failover.tick(now_ns);
            match what {
                0 if open[at] => failover.answered(at, now_ns),
                1 if open[at] => failover.lost(at, now_ns),
                _ => {}
            }
            for act in failover.acts() {
                match act {
                    Act::Open(at) => prop_assert!(!std::mem::replace(&mut open[at], true)),
                    Act::Close(at) => prop_assert!(std::mem::replace(&mut open[at], false)),
                    Act::Ask(at) => prop_assert!(open[at]),
                    Act::Use(at) => {
                        prop_assert!(open[at] && used != Some(at));
                        used = Some(at);
                    }
                    Act::Rest => prop_assert!(used.take().is_some()),
                }
            }
            prop_assert_eq!(failover.used(), used);
            if let Some(at) = used {
                prop_assert!(open[at]);
                prop_assert_eq!(failover.paths[at].breaker.state(), State::Closed);
            }
            prop_assert!(failover.due_ns().is_some_and(|due_ns| due_ns + MS > now_ns));
        }
    }

    /// Whatever was before: a path that answers from now on is used soon, if no other does.
    #[test]
    fn a_path_that_answers_is_found(
        happenings in prop::collection::vec(happening(), 0..100),
        alive in 0..3usize,
    ) {
        let mut failover = Failover::new(3, 0);
        let mut now_ns = 0;
        for (what, at, ms) in happenings {
            now_ns += ms * MS;
            failover.tick(now_ns);
            match what {
                0 => failover.answered(at, now_ns),
                1 => failover.lost(at, now_ns),
                _ => {}
            }
        }
        failover.acts().for_each(drop);
        let end_ns = now_ns + 12_000 * MS;
        while now_ns < end_ns {
            now_ns = failover.due_ns().unwrap().max(now_ns);
            failover.tick(now_ns);
            let asked: Vec<Act> = failover.acts().collect();
            if failover.paths[alive].asked_ns.is_some() {
                failover.answered(alive, now_ns + MS);
            }
            prop_assert!(!asked.is_empty() || failover.due_ns() > Some(now_ns));
        }
        prop_assert_eq!(failover.used(), Some(alive));
    }
}
