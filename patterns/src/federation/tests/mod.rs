//! Brokers and the links between them, in virtual time, where links fall and brokers restart.

mod routes;
mod world;

use rstest::rstest;

use super::{Federation, Input, Known, Life, LinkId, Message, Output, Spread};
use crate::base::{Out, Time};
use world::World;

/// News is gathered for this long, and then takes this long over one link at most.
const ROUND_MS: u64 = 10 + world::SLOWEST_MS;

/// Three in a line: the ends reach each other over the middle, and say what they have.
#[test]
fn three_in_a_line() {
    let mut world = World::new(3, 1);
    world.join(0, 1);
    world.join(1, 2);
    world.run_ms(500);
    assert_eq!(world.nodes_reached(0), [1, 2]);
    assert_eq!(world.path(0, 2), ["n0", "n1", "n2"]);
    world.offer(2, "f");
    world.run_ms(100);
    assert!(world.knows(0, 2, "f"));
    world.send(0, 2, 7);
    world.send(0, 2, 8);
    world.run_ms(100);
    assert_eq!(world.received(2), [(0, 7), (0, 8)]);
    world.part(1, 2);
    world.run_ms(100);
    assert_eq!(world.nodes_reached(0), [1]);
    assert_eq!(world.nodes_reached(2), [0; 0]);
    world.join(1, 2);
    world.run_ms(500);
    assert!(world.knows(0, 2, "f"));
    world.restart(2);
    world.run_ms(100);
    world.join(1, 2);
    world.run_ms(500);
    assert_eq!(world.nodes_reached(0), [1, 2]);
    assert!(!world.knows(0, 2, "f"));
}

/// What is under way when one of two ways falls is said again over the other.
#[test]
fn the_other_way() {
    let mut world = World::new(4, 3);
    for (a, b) in [(0, 1), (1, 3), (0, 2), (2, 3)] {
        world.join(a, b);
    }
    world.run_ms(500);
    let over: usize = world.path(0, 3)[1][1..].parse().unwrap();
    for id in 1..=20 {
        world.send(0, 3, id);
    }
    world.run_ms(2);
    world.part(0, over);
    world.part(over, 3);
    world.run_ms(3_000);
    let expected: Vec<_> = (1..=20).map(|id| (0, id)).collect();
    assert_eq!(world.received(3), expected);
}

/// What is said before the other side has answered is not put off by what is said after it.
#[test]
fn what_is_said_first_arrives_first() {
    let mut world = World::new(2, 1);
    world.join(0, 1);
    while world.nodes_reached(0).is_empty() {
        world.run_ms(1);
    }
    for id in 1..=40 {
        world.send(0, 1, id);
        world.run_ms(20);
    }
    let received = world.received(1);
    assert!(received.len() > 30, "{received:?}");
}

/// An event goes once over each link, whoever wants it behind it; what is lost in a partition is
/// told with the next.
#[test]
fn an_event_crosses_a_link_once() {
    let mut world = World::new(5, 1);
    for (a, b) in [(0, 1), (1, 2), (1, 3), (3, 4)] {
        world.join(a, b);
    }
    for node in [2, 3, 4] {
        world.want(node, "a.#");
    }
    world.want(4, "*.b");
    world.run_ms(500);
    world.publish(0, "a.b", 1);
    world.publish(0, "c", 2);
    world.run_ms(100);
    assert_eq!(world.gathered(4), [(0, 1, 0)]);
    assert_eq!([1, 2, 3].map(|node| world.gathered(node).len()), [0, 1, 1]);
    assert_eq!(world.crossings(1), 4);
    world.part(0, 1);
    world.run_ms(100);
    world.publish(0, "a.c", 3);
    world.publish(0, "a.c", 4);
    world.join(0, 1);
    world.run_ms(500);
    world.publish(0, "a.d", 5);
    world.run_ms(100);
    assert_eq!(world.gathered(4), [(0, 1, 0), (0, 5, 2)]);
}

/// What comes is numbered in each life of the broker it comes from: taken is what is new, and what
/// is missing before it was lost.
#[rstest]
#[case::all(&[(1, 4), (1, 5), (1, 6)], &[(4, 0), (5, 0), (6, 0)])]
#[case::a_gap(&[(1, 1), (1, 4)], &[(1, 0), (4, 2)])]
#[case::again_and_late(&[(1, 3), (1, 3), (1, 2), (1, 4)], &[(3, 0), (4, 0)])]
#[case::a_new_life(&[(1, 7), (2, 1)], &[(7, 0), (1, 0)])]
#[case::nonsense(&[(1, 7), (2, 0)], &[(7, 0), (0, 0)])]
#[case::a_gap_in_a_new_life(&[(1, 7), (2, 3)], &[(7, 0), (3, 2)])]
#[case::late_from_an_earlier_life(&[(2, 1), (1, 9), (2, 2)], &[(1, 0), (2, 0)])]
fn events_are_counted(#[case] come: &[(u64, u64)], #[case] taken: &[(u128, u64)]) {
    let life = |node: &str, epoch| Life { node: node.into(), epoch };
    let mut federation = Federation::new(life("a", 5), 1);
    let (link, mut out) = (LinkId(1), Out::new());
    let up = Input::Up { link, peer: life("b", 1), cost_us: 1 };
    federation.handle(Time::default(), up, &mut out);
    for &(epoch, count) in come {
        let message = Message::Spread(Spread {
            from: life("b", epoch),
            to: vec![("a".into(), count)],
            path: vec!["b".into()],
            topic: "t".into(),
            kind: 1,
            payload: "1".into(),
            headers: None,
            message: count.into(),
        });
        federation.handle(Time::default(), Input::Heard { link, message }, &mut out);
    }
    let events = out.drain().filter_map(|output| match output {
        Output::Event { event, lost, .. } => Some((event.message.0, lost)),
        _ => None,
    });
    assert_eq!(events.collect::<Vec<_>>(), taken);
}

/// Who is called as a broker that began later is told once, and again when it is so again.
#[rstest]
#[case::later(&[9, 9], 1)]
#[case::itself(&[5, 5], 0)]
#[case::its_own_earlier_life(&[4], 0)]
#[case::gone_and_come(&[9, 5, 9], 2)]
fn a_name_that_is_taken(#[case] epochs: &[u64], #[case] told: usize) {
    let life = |node: &str, epoch| Life { node: node.into(), epoch };
    let mut federation = Federation::new(life("a", 5), 1);
    let (link, mut out) = (LinkId(1), Out::new());
    let up = Input::Up { link, peer: life("b", 1), cost_us: 1 };
    federation.handle(Time::default(), up, &mut out);
    for &epoch in epochs {
        let digest = vec![Known { life: life("a", epoch), version: 3 }];
        let message = Message::Digest(digest);
        federation.handle(Time::default(), Input::Heard { link, message }, &mut out);
    }
    let rivals = out.drain().filter(|output| matches!(output, Output::Rival { epoch: 9 }));
    assert_eq!(rivals.count(), told);
    let state = if epochs.last() == Some(&9) { "taken" } else { "self" };
    assert_eq!(federation.describe()["nodes"][0]["state"], state);
}

/// Fifty brokers with a few links each know all of each other within ten rounds of gossip.
#[rstest]
fn fifty_converge(#[values(1, 2, 3, 4)] seed: u64) {
    let mut world = World::new(50, seed);
    world.wire_at_random(3);
    let mut rounds = 0;
    while !world.has_converged() {
        rounds += 1;
        assert!(rounds <= 10, "not within ten rounds of {ROUND_MS} ms");
        world.run_ms(ROUND_MS);
    }
    // And a change is known everywhere within ten more.
    world.offer(49, "f");
    world.run_ms(10 * ROUND_MS);
    assert!((0..49).all(|node| world.knows(node, 49, "f")));
}

/// Whatever falls, restarts and is said meanwhile: afterwards everybody knows everything of those
/// who can be reached, envelopes have come once and in order, and events no more than once.
#[test]
fn what_holds_whatever_happens() {
    for seed in 0..150 {
        let mut world = World::new(2 + seed as usize % 9, seed);
        world.wire_at_random(2);
        world.trouble(400);
        world.run_ms(20_000);
        world.assert_at_rest();
    }
}
