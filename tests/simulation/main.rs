//! The whole broker in a seeded simulation: no sockets, no clock, everything else.
//!
//! A seed names one run for ever. `scripts/sim SEED [SCENARIO]` plays one with all that happened;
//! `MPREG_SEEDS` says how many each scenario plays.

mod account;
mod brief;
mod broker;
mod checkers;
mod consumers;
mod network;
mod peers;
mod plans;
mod producers;
mod publishers;
mod queues;
mod roles;
mod sockets;
mod spelling;
mod store;
mod subscribers;
mod tally;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use account::{Counts, Verdict};
use rstest::rstest;
use store::Wear;
use tally::Tally;
use world::{Scenario, World};

/// Runs of each scenario, unless `MPREG_SEEDS` says otherwise.
const SEEDS: u64 = 40;
/// What is told of a run that failed: its last moments.
const LAST_LINES: usize = 40;

const NOTHING: Scenario = Scenario {
    name: "nothing",
    calm: 1,
    silent: 0,
    reset: 0,
    replaced: 0,
    stall: 0,
    kill: 0,
    restart: 0,
    outbox_bytes: 1 << 20,
    topics: false,
    queues: false,
    disk: 0,
};

const SCENARIOS: [Scenario; 13] = [
    NOTHING,
    Scenario { name: "links", silent: 1, reset: 1, replaced: 1, ..NOTHING },
    Scenario { name: "stalls", stall: 8, kill: 1, outbox_bytes: 256, ..NOTHING },
    Scenario { name: "deaths", kill: 3, ..NOTHING },
    Scenario { name: "restarts", calm: 8, restart: 1, ..NOTHING },
    Scenario {
        name: "everything",
        calm: 4,
        silent: 2,
        reset: 2,
        replaced: 2,
        stall: 4,
        kill: 3,
        restart: 1,
        outbox_bytes: 1 << 10,
        ..NOTHING
    },
    Scenario { name: "topics", topics: true, ..NOTHING },
    Scenario { name: "crowds", stall: 8, kill: 1, outbox_bytes: 1 << 12, topics: true, ..NOTHING },
    Scenario {
        name: "storms",
        calm: 4,
        silent: 2,
        reset: 2,
        replaced: 2,
        stall: 4,
        kill: 3,
        restart: 1,
        outbox_bytes: 1 << 12,
        topics: true,
        ..NOTHING
    },
    Scenario { name: "queues", queues: true, ..NOTHING },
    Scenario { name: "kills", calm: 8, restart: 1, queues: true, ..NOTHING },
    Scenario { name: "disks", queues: true, disk: 150, ..NOTHING },
    Scenario {
        name: "floods",
        calm: 6,
        silent: 2,
        reset: 2,
        replaced: 2,
        stall: 3,
        kill: 3,
        restart: 1,
        outbox_bytes: 1 << 12,
        queues: true,
        disk: 120,
        ..NOTHING
    },
];

fn scenario(name: &str) -> Scenario {
    let found = SCENARIOS.into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("{name} is none of the scenarios"))
}

/// Plays one seed; one that fails is played again with everything written down.
fn play(scenario: Scenario, seed: u64) -> Tally {
    let quiet = catch_unwind(AssertUnwindSafe(|| World::new(scenario, seed, false).run()));
    quiet.unwrap_or_else(|_| {
        let mut world = World::new(scenario, seed, true);
        let _ = catch_unwind(AssertUnwindSafe(|| world.run()));
        let log = world.log();
        let last = log[log.len().saturating_sub(LAST_LINES)..].join("\n");
        panic!("{last}\nseed {seed} failed: scripts/sim {seed} {}", scenario.name);
    })
}

#[rstest]
#[case::nothing("nothing")]
#[case::links("links")]
#[case::stalls("stalls")]
#[case::deaths("deaths")]
#[case::restarts("restarts")]
#[case::everything("everything")]
#[case::topics("topics")]
#[case::crowds("crowds")]
#[case::storms("storms")]
#[case::queues("queues")]
#[case::kills("kills")]
#[case::disks("disks")]
#[case::floods("floods")]
fn seeds(#[case] name: &str) {
    let scenario = scenario(name);
    let seeds = std::env::var("MPREG_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut sum = Tally::default();
    for seed in 0..seeds.unwrap_or(SEEDS) {
        let tally = play(scenario, seed);
        sum.add(&tally);
    }
    println!("{name}: {sum:?}");
    // A simulation in which nothing happens proves nothing.
    assert!(sum.answered > 0 && sum.ran > 0);
    let Counts { heard, replayed, lost, undelivered, missed, broadcast, waited, late, .. } =
        sum.topics;
    let all = [heard, replayed, lost, missed, broadcast, waited, late];
    assert!(!scenario.topics || all.into_iter().all(|count| count > 0));
    // Whoever reads gets all that is handed to it.
    assert_eq!(undelivered > 0, scenario.topics && scenario.stall > 0);
    let calm = ["nothing", "topics", "queues", "disks"].contains(&name);
    assert!(calm || sum.faults > 0 && sum.unknown > 0);
    if scenario.queues {
        let Verdict { attempted, acknowledged, delivered, lost, duplicated, unexpected, .. } =
            sum.queues;
        println!(
            "{name}: {attempted} attempted / {acknowledged} acknowledged / {delivered} delivered \
             / {lost} lost / {duplicated} duplicated / {unexpected} unexpected"
        );
        queues_were_tried(scenario, &sum);
    }
}

fn queues_were_tried(scenario: Scenario, sum: &Tally) {
    let Verdict { acknowledged, delivered, duplicated, refused, acked, dead, .. } = sum.queues;
    assert!([acknowledged, delivered, duplicated, refused, acked, dead].iter().all(|of| *of > 0));
    let Wear { syncs, failures, full, torn } = sum.disk;
    assert!(syncs > 0);
    let fails = scenario.disk > 0;
    assert!([failures, full, torn].into_iter().all(|of| (of > 0) == fails));
}

/// The same seed is the same run: without that, no seed could be replayed.
#[rstest]
#[case::everything("everything")]
#[case::storms("storms")]
#[case::floods("floods")]
fn a_seed_replays(#[case] name: &str) {
    let log = |seed| {
        let mut world = World::new(scenario(name), seed, true);
        world.run();
        world.log()
    };
    let (first, second) = (log(7), log(7));
    assert!(first.len() > 300);
    assert!(first == second, "seed 7 was played in two ways");
}

/// `scripts/sim SEED [SCENARIO]`.
#[test]
#[ignore = "plays the one seed in MPREG_SIM, with everything that happens"]
fn replay() {
    let wanted = std::env::var("MPREG_SIM").expect("MPREG_SIM=SEED:SCENARIO");
    let (seed, name) = wanted.split_once(':').expect("MPREG_SIM=SEED:SCENARIO");
    let mut world = World::new(scenario(name), seed.parse().expect("a seed"), true);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    for line in world.log() {
        println!("{line}");
    }
    println!("{:?}", result.expect("the seed fails"));
}
