use rstest::rstest;

use super::frame::weight;
use super::model::{World, packet};
use super::*;
use crate::federation::{Cargo, Delta, Key, Packet, Talk};

fn linked(dialling: &[(usize, &str)]) -> World {
    let mut world = World::new(2);
    for (broker, address) in dialling {
        world.add(*broker, address);
    }
    world.run(100);
    world
}

#[rstest]
#[case::one_side(&[(0, "b")])]
#[case::the_other(&[(1, "a")])]
#[case::both_at_once(&[(0, "b"), (1, "a")])]
#[case::both_the_other_way(&[(1, "a"), (0, "b")])]
fn a_link_is_agreed_on(#[case] dialling: &[(usize, &str)]) {
    let mut world = linked(dialling);
    let news = world.news();
    let ups = news.iter().filter(|line| line.contains(": up to")).count();
    assert_eq!((ups, world.up[0].len(), world.up[1].len()), (2, 1, 1), "{news:?}");
    assert!(!news.iter().any(|line| line.contains("no link")), "{news:?}");
    world.tell(0, 1);
    world.tell(1, 2);
    world.run(10);
    assert_eq!(world.heard, [[2], [1]]);
}

#[test]
fn a_session_that_is_lost_is_replaced_unnoticed() {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.tell(0, 1);
    world.tell(1, 2);
    world.cut(0, 0);
    world.tell(0, 3);
    world.run(100);
    assert_eq!(world.heard, [vec![2], vec![1, 3]]);
    assert!(world.news().is_empty());
    let links = world.brokers[0].as_ref().unwrap().describe();
    assert_eq!((&links[0]["sessions"], &links[0]["resends"]), (&2.into(), &2.into()));
    assert_eq!(links[0]["state"], "up");
}

#[test]
fn a_link_that_is_not_resumed_in_time_is_down_and_comes_back() {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.parted = true;
    world.cut(0, 0);
    world.tell(0, 1);
    world.run(60_000);
    let lost = ["a: down to b: its connection is lost", "b: down to a: its connection is lost"];
    let failed = ["a: no link to b: link_failed"];
    assert_eq!(world.news(), [&lost[..], &failed].concat(), "each thing is told once");
    world.parted = false;
    world.run(3_000);
    world.tell(0, 2);
    world.run(10);
    assert_eq!(world.heard, [vec![], vec![2]]);
}

#[test]
fn a_broker_that_is_started_anew_has_another_link() {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.kill(1);
    world.run(1_000);
    world.start(1);
    world.run(3_000);
    let news = world.news();
    assert_eq!(news[0], "a: down to b: its connection is lost");
    assert!(news.iter().any(|line| line.starts_with("a: up to b")), "{news:?}");
}

#[rstest]
#[case::itself(0, "a", "a", "a: no link to a: same_broker")]
#[case::its_name(1, "a", "a", "b: no link to a: node_taken")]
fn names_are_told_apart(
    #[case] broker: usize,
    #[case] node: &str,
    #[case] address: &str,
    #[case] told: &str,
) {
    let mut world = World::new(2);
    if broker == 1 {
        world.start_as(1, node.into());
    }
    world.add(broker, address);
    world.run(1_000);
    assert_eq!(world.news(), [told]);
    let calm = world.frames;
    world.run(10_000);
    assert!(world.news().is_empty() && world.frames == calm, "told once");
}

/// Two brokers of one name with links to a third one: the first has it.
#[test]
fn a_name_is_had_once() {
    let mut world = World::new(3);
    world.start_as(2, "b".into());
    world.add(1, "a");
    world.run(100);
    world.news();
    world.add(2, "a");
    world.run(1_000);
    assert_eq!(world.news(), ["c: no link to a: node_taken"]);
    world.kill(1);
    world.run(5_000);
    let news = world.news();
    assert!(news.iter().any(|line| line.starts_with("c: up to a")), "{news:?}");
}

#[test]
fn other_protocols_are_refused() {
    let mut world = World::new(1);
    let life = Life { node: "z".into(), epoch: 7 };
    let (cluster, host) = (SmolStr::default(), SmolStr::default());
    let ask = Ask { protocol: PROTOCOL + 1, life, cluster, after: None, host };
    let mut out = Out::new();
    let asker = Asker::from_static(b"z");
    let links = world.brokers[0].as_mut().unwrap();
    links.handle(world.now, Input::Asked { asker, ask }, &mut out);
    match out.items() {
        [Output::Answer { answer: Err(why), .. }] => assert!(why.is(Code::WrongProtocol)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn too_much_is_given_back_and_small_things_never_are() {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.stuck = Some(0);
    let most = 4_096 / weight(&packet(1)) as u64;
    for number in 1..=most + 1 {
        world.tell(0, number);
    }
    assert_eq!(world.news(), ["a: full"]);
    let link = *world.up[0].keys().next().unwrap();
    let news = |bytes: usize| {
        let changes = vec![(Key::Queue(SmolStr::from("q".repeat(bytes))), None)];
        let life = Life { node: "a".into(), epoch: 1 };
        Message::Delta(Delta { life, from: 0, to: 1, changes })
    };
    world.input(0, Input::Tell { link, message: news(1 << 20) });
    assert!(world.news().is_empty());
    world.input(0, Input::Tell { link, message: news(16 << 20) });
    assert_eq!(world.news(), ["a: down to b: more waited for the other broker than may"]);
    world.stuck = None;
    world.run(1_000);
    assert_eq!((world.up[0].len(), world.up[1].len()), (1, 1));
}

#[test]
fn what_is_larger_than_the_limit_goes_alone() {
    let mut world = linked(&[(0, "b")]);
    let link = *world.up[0].keys().next().unwrap();
    let life = Life { node: "x".into(), epoch: 1 };
    let large = |bytes: usize| {
        let cargo = Cargo::Envelope {
            talk: Talk::default(),
            seq: 1,
            body: vec![0; bytes].into(),
            frames: Vec::new(),
        };
        Message::Packet(Packet { from: life.clone(), to: life.clone(), path: Vec::new(), cargo })
    };
    let mut out = Out::new();
    let links = world.brokers[0].as_mut().unwrap();
    for bytes in [1 << 20, 10, 64 << 20] {
        links.handle(world.now, Input::Tell { link, message: large(bytes) }, &mut out);
    }
    let refused = out.drain().filter(|output| matches!(output, Output::Full { .. })).count();
    assert_eq!(refused, 2);
}

#[rstest]
#[case::by_the_one_who_dials(0)]
#[case::by_the_other(1)]
fn a_link_is_ended_with_a_word(#[case] broker: usize) {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.input(broker, Input::Drain);
    world.run(100);
    let [near, far] = [["a", "b"][broker], ["b", "a"][broker]];
    let here = format!("{near}: down to {far}: this broker is going down");
    let there = format!("{far}: down to {near}: the other broker is going down");
    assert_eq!(world.news()[..2], [here, there]);
    assert!(world.brokers[1].as_ref().unwrap().is_empty());
}

#[test]
fn a_link_that_is_removed_stays_down() {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.input(0, Input::Remove { address: "b".into() });
    world.run(10_000);
    assert_eq!(
        world.news(),
        [
            "a: down to b: it was removed here",
            "b: down to a: the other broker has removed the link"
        ]
    );
    assert!(world.brokers.iter().flatten().all(|links| links.is_empty()));
    assert!(world.brokers.iter().flatten().all(|links| links.wake_at().is_none()));
}

/// Both ends live and nothing comes through: the session ends, and another one works.
#[test]
fn a_deaf_session_is_given_up() {
    let mut world = linked(&[(0, "b")]);
    world.news();
    world.deafen(0);
    world.tell(1, 1);
    world.run(3_500);
    assert!(world.heard[0].is_empty());
    world.run(1_000);
    assert_eq!(world.heard[0], [1]);
    assert!(world.news().is_empty());
    assert_eq!((world.up[0].len(), world.up[1].len()), (1, 1));
    let links = world.brokers[0].as_ref().unwrap().describe();
    assert_eq!(links[0]["sessions"], 2);
}

#[test]
fn an_idle_link_says_little() {
    let mut world = linked(&[(0, "b")]);
    let before = world.frames;
    world.run(60_000);
    assert!(world.frames - before <= 4 * 61, "{} frames in a minute", world.frames - before);
    world.news();
    assert!(world.news().is_empty());
}
