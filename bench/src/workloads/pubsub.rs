//! Events to one subscriber and to eight, and with a million patterns of others in the index.
//!
//! Contenders take turns within a round, as those of `rpc` do.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use super::stage::{Folder, START};
use crate::Outcome;
use crate::events::pace::{self, Flow};
use crate::events::{EventKind, Heard, Listens, PATTERN, PREFIX};
use crate::machine::{self, Machine};
use crate::plan::{Load, Options};
use crate::process::Process;
use crate::report::{Goal, Told, figure};
use crate::role::{HubKind, Place, Ready, Role};
use crate::statistics::{median, median_ratio, range};
use crate::tally::Watch;

/// Patterns of others, where there are any.
const OTHERS: u64 = 1_000_000;

/// Who takes part, baselines first, those with the same number of subscribers one after the other.
const CONTENDERS: [Contender; 11] = [
    ZMQ,
    WEBSOCKET,
    PLAIN,
    RUST,
    Contender { name: "mpreg_ws_x1", hub: HubKind::BrokerWeb, ..RUST },
    Contender { name: "mpreg_plain_1m", others: OTHERS, ..PLAIN },
    Contender { name: "mpreg_rust_1m", others: OTHERS, ..RUST },
    Contender { name: "zmq_proxy_x8", subscribers: 8, ..ZMQ },
    Contender { name: "websocket_x8", subscribers: 8, ..WEBSOCKET },
    Contender { name: "mpreg_plain_x8", subscribers: 8, ..PLAIN },
    Contender { name: "mpreg_rust_x8", subscribers: 8, ..RUST },
];

const ZMQ: Contender = Contender {
    name: "zmq_proxy_x1",
    hub: HubKind::ZmqEvents,
    peers: EventKind::Plain,
    pattern: PREFIX,
    subscribers: 1,
    others: 0,
};
const WEBSOCKET: Contender = Contender {
    name: "websocket_x1",
    hub: HubKind::WebsocketFanOut,
    peers: EventKind::Websocket,
    ..ZMQ
};
const PLAIN: Contender =
    Contender { name: "mpreg_plain_x1", hub: HubKind::Broker, pattern: PATTERN, ..ZMQ };
const RUST: Contender = Contender { name: "mpreg_rust_x1", peers: EventKind::Rust, ..PLAIN };

/// A process in the middle, and who is around it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Contender {
    name: &'static str,
    hub: HubKind,
    peers: EventKind,
    pattern: &'static str,
    subscribers: usize,
    /// Patterns that others hold.
    others: u64,
}

impl Contender {
    /// Whether its rates are what those of `other` are compared with.
    fn is_base_of(&self, other: &Self) -> bool {
        let alike = self.subscribers == other.subscribers && self.others == 0;
        alike && (!self.is_broker() || self.peers == other.peers && self.hub == other.hub)
    }

    fn is_broker(&self) -> bool {
        matches!(self.hub, HubKind::Broker | HubKind::BrokerWeb)
    }
}

/// One window of one contender.
#[derive(Clone, Debug, Default, Serialize)]
struct Measure {
    flow: Flow,
    heard: Heard,
}

impl Measure {
    fn rate(&self) -> f64 {
        self.flow.events as f64 * 1e9 / self.flow.elapsed_ns.max(1) as f64
    }

    /// Broker CPU a published event.
    fn hub_ns(&self) -> f64 {
        self.flow.hub_cpu_ns as f64 / self.flow.events.max(1) as f64
    }

    fn lost(&self) -> u64 {
        let got: u64 = self.heard.received.iter().sum();
        (self.flow.sent * self.heard.received.len() as u64).saturating_sub(got)
    }
}

/// One contender's rounds and their medians.
#[derive(Debug, Serialize)]
struct Standing {
    contender: Contender,
    /// Published, and come through to every subscriber.
    events_s: f64,
    events_s_range: (f64, f64),
    deliveries_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// Core time a published event.
    hub_ns: f64,
    /// The same a delivery.
    hub_ns_delivery: f64,
    listener_ns: f64,
    publisher_ns: f64,
    hub_mib: f64,
    /// Deliveries that were not made, over all rounds.
    lost: u64,
    /// Those that came twice or out of order, over all rounds.
    disorder: u64,
    /// Rate, relative to each that it is compared with.
    rate_to: BTreeMap<&'static str, f64>,
    /// Broker CPU an event, likewise.
    hub_ns_to: BTreeMap<&'static str, f64>,
    rounds: Vec<Measure>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    standings: Vec<Standing>,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    let machine = Machine::read();
    let contenders: Vec<Contender> =
        CONTENDERS.into_iter().filter(|contender| options.wants(contender.name)).collect();
    if contenders.is_empty() {
        return Err(options.nobody(CONTENDERS.map(|contender| contender.name)));
    }
    let standings = contest(&contenders, options.saturated(), options.rounds)?;
    let goals = goals(&standings);
    let load_after = machine::load();
    let options = options.clone();
    let report = Report { bench: "pubsub", machine, load_after, options, standings, goals };
    Told::of(&report, report.text()?)
}

/// All rounds.
fn contest(contenders: &[Contender], load: Load, rounds: u32) -> Outcome<Vec<Standing>> {
    let mut seen: Vec<Vec<Measure>> = vec![Vec::new(); contenders.len()];
    for round in 1..=rounds {
        for (contender, seen) in contenders.iter().zip(&mut seen) {
            let measure = measure(contender, load)?;
            let (name, lost) = (contender.name, measure.lost());
            eprintln!(
                "round {round}/{rounds}: {name} {}/s, hub {} ns, lost {lost}",
                figure(measure.rate()),
                figure(measure.hub_ns()),
            );
            seen.push(measure);
        }
    }
    let standings = contenders.iter().zip(seen).map(|(c, rounds)| Standing::new(*c, rounds));
    let mut standings: Vec<Standing> = standings.collect();
    for base in 0..standings.len() {
        compare(&mut standings, base);
    }
    Ok(standings)
}

/// One window of one contender, with processes of its own.
fn measure(contender: &Contender, load: Load) -> Outcome<Measure> {
    let data = Folder::new();
    let hub = Process::start(&Role::Hub { kind: contender.hub, data: data.0.clone() })?;
    let place: Place = hub.hear(START)?;
    let (kind, subscribers, step) = (contender.peers, contender.subscribers, pace::step(load));
    let [to, from] = match kind {
        EventKind::Rust | EventKind::Websocket | EventKind::Queue => {
            [&place.clients, &place.clients]
        }
        EventKind::Plain => [&place.publish, &place.subscribe],
    };
    let (at, pattern) = (from.clone(), contender.pattern.to_owned());
    let listener = Process::start(&Role::Listener { kind, at, pattern, subscribers, step })?;
    let Listens { reports } = listener.hear(START)?;
    let others = (contender.others > 0).then(|| hold(&place.clients, contender.others));
    let _holder = others.transpose()?;
    let watch = Watch { hub: hub.pid(), worker: listener.pid() };
    let publisher = Role::Publisher { kind, at: to.clone(), reports, load, watch };
    let flow: Flow = Process::start(&publisher)?.hear(load.patience())?;
    let heard = listener.hear(START)?;
    let measure = Measure { flow, heard };
    match measure.flow.events {
        0 => Err(format!("{} brought nothing: {measure:?}", contender.name).into()),
        _ => Ok(measure),
    }
}

/// A process that holds patterns.
fn hold(at: &str, patterns: u64) -> Outcome<Process> {
    let holder = Process::start(&Role::Holder { at: at.to_owned(), patterns })?;
    let Ready {} = holder.hear(START * 4)?;
    Ok(holder)
}

/// Writes the ratios of all standings to the one at `base` that it is a base of.
fn compare(standings: &mut [Standing], base: usize) {
    let contender = standings[base].contender;
    let [rates, costs] = series(&standings[base].rounds);
    for standing in standings {
        if !contender.is_base_of(&standing.contender) {
            continue;
        }
        let [ours, cost] = series(&standing.rounds);
        let to = |ratio: Option<f64>| ratio.map(|ratio| (contender.name, ratio));
        standing.rate_to.extend(to(median_ratio(&ours, &rates)));
        standing.hub_ns_to.extend(to(median_ratio(&cost, &costs)));
    }
}

/// Rates and broker CPU an event, by round.
fn series(rounds: &[Measure]) -> [Vec<f64>; 2] {
    [rounds.iter().map(Measure::rate).collect(), rounds.iter().map(Measure::hub_ns).collect()]
}

impl Standing {
    fn new(contender: Contender, rounds: Vec<Measure>) -> Self {
        let of = |read: fn(&Measure) -> f64| median(rounds.iter().map(read));
        let each = |ns: u64, measure: &Measure| ns as f64 / measure.flow.events.max(1) as f64;
        let [rates, _] = series(&rounds);
        let (events_s, hub_ns) = (of(Measure::rate), of(Measure::hub_ns));
        let subscribers = contender.subscribers as f64;
        Self {
            contender,
            events_s,
            events_s_range: range(&rates),
            deliveries_s: events_s * subscribers,
            p50_us: of(|m| m.heard.p50_ns as f64 / 1e3),
            p99_us: of(|m| m.heard.p99_ns as f64 / 1e3),
            hub_ns,
            hub_ns_delivery: hub_ns / subscribers,
            listener_ns: median(rounds.iter().map(|m| each(m.flow.listener_cpu_ns, m))),
            publisher_ns: median(rounds.iter().map(|m| each(m.flow.publisher_cpu_ns, m))),
            hub_mib: of(|m| m.flow.hub_resident as f64 / 1_048_576.0),
            lost: rounds.iter().map(Measure::lost).sum(),
            disorder: rounds.iter().map(|m| m.heard.disorder).sum(),
            rate_to: BTreeMap::new(),
            hub_ns_to: BTreeMap::new(),
            rounds,
        }
    }
}

/// What the project promised, as far as those who take part can show it.
fn goals(standings: &[Standing]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for standing in standings.iter().filter(|s| s.contender.hub == HubKind::Broker) {
        let (name, others) = (standing.contender.name, standing.contender.others);
        let is_rust = standing.contender.peers == EventKind::Rust;
        for (base, ratio) in standing.rate_to.iter().filter(|_| others == 0) {
            let wanted = match (base.split('_').next(), is_rust) {
                (Some("zmq" | "websocket"), true) => 4.0,
                (Some("zmq"), false) => 0.8,
                (Some("websocket"), false) => 0.7,
                _ => continue,
            };
            let what = format!("{name}: times the rate of {base}");
            goals.push(Goal::at_least(&what, wanted, *ratio));
        }
        if let Some((base, ratio)) = standing.hub_ns_to.iter().find(|_| others > 0)
            && base.starts_with("mpreg")
        {
            let what = format!("{name}: times the broker CPU of {base}");
            goals.push(Goal::at_most(&what, 1.2, *ratio));
        }
    }
    if !standings.is_empty() {
        let lost = standings.iter().map(|standing| standing.lost + standing.disorder).sum::<u64>();
        goals.push(Goal::at_most("lost or out of order, all together", 0.0, lost as f64));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(rate: u64, hub_ns: u64) -> Measure {
        let (events, sent, elapsed_ns) = (rate, rate + 8, 1_000_000_000);
        let flow = Flow { events, sent, elapsed_ns, hub_cpu_ns: rate * hub_ns, ..Flow::default() };
        Measure { flow, heard: Heard { received: vec![rate + 8, rate + 7], ..Heard::default() } }
    }

    fn standings() -> Vec<Standing> {
        let rounds = |rate, ns| vec![measure(rate, ns), measure(rate / 5, ns), measure(rate, ns)];
        let one_m = CONTENDERS[5];
        let mut standings = vec![
            Standing::new(ZMQ, rounds(100, 50)),
            Standing::new(PLAIN, rounds(90, 100)),
            Standing::new(one_m, rounds(80, 130)),
        ];
        (0..3).for_each(|base| compare(&mut standings, base));
        standings
    }

    #[test]
    fn a_standing_counts_what_is_missing_at_any_subscriber() {
        let standing = &standings()[0];
        assert_eq!((standing.events_s, standing.hub_ns, standing.lost), (100.0, 50.0, 3));
        let eight = Standing::new(CONTENDERS[7], vec![measure(10, 80)]);
        assert_eq!((eight.deliveries_s, eight.hub_ns_delivery), (80.0, 10.0));
    }

    #[test]
    fn goals_compare_with_the_right_ones() {
        let goals = goals(&standings());
        let told: Vec<(&str, f64, bool)> =
            goals.iter().map(|goal| (goal.what.as_str(), goal.measured, goal.met)).collect();
        let plain = "mpreg_plain_x1: times the rate of zmq_proxy_x1, at least";
        let held = "mpreg_plain_1m: times the broker CPU of mpreg_plain_x1, at most";
        let lost = "lost or out of order, all together, at most";
        assert_eq!(told, [(plain, 0.9, true), (held, 1.3, false), (lost, 9.0, false)]);
    }
}
