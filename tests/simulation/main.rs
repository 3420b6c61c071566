//! The whole broker in a seeded simulation: no sockets, no clock, everything else.
//!
//! A seed names one run for ever. `scripts/sim SEED [SCENARIO]` plays one with all that happened;
//! `MPREG_SEEDS` says how many each scenario plays; those of several brokers play fewer.

mod account;
mod brief;
mod broker;
mod checkers;
mod cluster;
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
/// The same of several brokers, by the number of these.
const CLUSTER_SEEDS: u64 = 48;
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

const CALM: cluster::Scenario = cluster::Scenario {
    name: "calm",
    brokers: (2, 6),
    fault_ms: 0,
    restart: 0,
    disk: 0,
    room: 1 << 20,
};

const CLUSTERS: [cluster::Scenario; 6] = [
    CALM,
    cluster::Scenario { name: "partitions", fault_ms: 400, ..CALM },
    cluster::Scenario { name: "narrow", fault_ms: 800, room: 60, ..CALM },
    cluster::Scenario { name: "losses", fault_ms: 800, restart: 3, ..CALM },
    cluster::Scenario { name: "worst", fault_ms: 600, restart: 4, disk: 200, room: 80, ..CALM },
    cluster::Scenario { name: "many", brokers: (20, 50), fault_ms: 200, restart: 8, ..CALM },
];

fn scenario(name: &str) -> Scenario {
    let found = SCENARIOS.into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("{name} is none of the scenarios"))
}

/// Plays one seed; one that fails is played again with everything written down.
fn play<W, T>(
    begin: impl Fn(bool) -> W,
    run: fn(&mut W) -> T,
    log: fn(&mut W) -> Vec<String>,
    (seed, name): (u64, &str),
) -> T {
    let quiet = catch_unwind(AssertUnwindSafe(|| run(&mut begin(false))));
    quiet.unwrap_or_else(|_| {
        let mut world = begin(true);
        let _ = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
        let log = log(&mut world);
        let last = log[log.len().saturating_sub(LAST_LINES)..].join("\n");
        panic!("{last}\nseed {seed} failed: scripts/sim {seed} {name}");
    })
}

/// As many seeds as a scenario plays, or more or fewer in proportion to `MPREG_SEEDS`.
fn seeds_of(by_default: u64) -> std::ops::Range<u64> {
    let seeds = std::env::var("MPREG_SEEDS").ok().and_then(|text| text.parse().ok());
    0..seeds.map_or(by_default, |seeds: u64| (by_default * seeds / SEEDS).max(1))
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
    let mut sum = Tally::default();
    for seed in seeds_of(SEEDS) {
        let begin = |logs| World::new(scenario, seed, logs);
        let tally = play(begin, World::run, World::log, (seed, name));
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

#[rstest]
fn several_brokers(#[values(0, 1, 2, 3, 4, 5)] which: usize) {
    let scenario = CLUSTERS[which];
    let name = scenario.name;
    let mut sum = cluster::Tally::default();
    for seed in seeds_of((CLUSTER_SEEDS / scenario.brokers.1 as u64).max(1)) {
        let begin = |logs| cluster::World::new(scenario, seed, logs);
        let tally = play(begin, cluster::World::run, cluster::World::log, (seed, name));
        sum.add(&tally);
    }
    println!("{name}: {sum:?}");
    assert!(sum.done > 0 && sum.sent > 0 && sum.copies > sum.sent);
    assert_eq!(sum.faults > 0, scenario.fault_ms > 0);
    assert_eq!(sum.moved > 0 && sum.again > 0, scenario.fault_ms > 0);
    assert_eq!(sum.full > 0, scenario.room < CALM.room);
    assert!(sum.twice == 0 || scenario.fault_ms > 0);
    assert!(sum.heard > sum.lost && (sum.lost > 0) == (scenario.fault_ms > 0));
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

#[test]
fn a_seed_of_several_brokers_replays() {
    let log = || {
        let mut world = cluster::World::new(CLUSTERS[4], 7, true);
        world.run();
        world.log()
    };
    let (first, second) = (log(), log());
    assert!(first.len() > 300);
    assert!(first == second, "seed 7 was played in two ways");
}

/// `scripts/sim SEED [SCENARIO]`.
#[test]
#[ignore = "plays the one seed in MPREG_SIM, with everything that happens"]
fn replay() {
    let wanted = std::env::var("MPREG_SIM").expect("MPREG_SIM=SEED:SCENARIO");
    let (seed, name) = wanted.split_once(':').expect("MPREG_SIM=SEED:SCENARIO");
    let seed = seed.parse().expect("a seed");
    let (log, result) = match CLUSTERS.into_iter().find(|scenario| scenario.name == name) {
        Some(of) => {
            told(cluster::World::new(of, seed, true), cluster::World::run, cluster::World::log)
        }
        None => told(World::new(scenario(name), seed, true), World::run, World::log),
    };
    for line in log {
        println!("{line}");
    }
    println!("{}", result.expect("the seed fails"));
}

/// All that happens in a world, and what comes of it.
fn told<W, T: std::fmt::Debug>(
    mut world: W,
    run: fn(&mut W) -> T,
    log: fn(&mut W) -> Vec<String>,
) -> (Vec<String>, Option<String>) {
    let result = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    (log(&mut world), result.ok().map(|result| format!("{result:?}")))
}
