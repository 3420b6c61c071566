//! Dependency graphs: what a step costs the broker, what a chain saves its caller, and how much
//! memory a large graph takes.

use serde::Serialize;

use super::shape::{Shape, Task};
use super::stage::Stage;
use crate::Outcome;
use crate::graph_tally::GraphMeasure;
use crate::machine::{self, Machine};
use crate::plan::Options;
use crate::report::{self, Goal, Table, Told, figure};
use crate::role::{HubKind, PeerKind, Role};
use crate::statistics::{median, median_ratio};

const FLAT: Shape = Shape::Flat { steps: 10_000 };
const CHAIN: Shape = Shape::Chain { steps: 1_000 };
const CALLS: Shape = Shape::Calls { steps: 1_000 };
const TREE: Shape = Shape::Tree { leaves: 65_536 };
const MESH: Shape = Shape::Mesh { steps: 1_000_000, width: 1_000 };
const SMALL_MESH: Shape = Shape::Mesh { steps: 2_000, width: 1_000 };

/// What is measured, in the order of a round. A chain and its calls stand side by side.
const CASES: [Case; 10] = [
    Case::new("flat_rust", PeerKind::Rust, FLAT, 20, FLAT),
    Case::new("flat_json_batch", PeerKind::JsonBatch, FLAT, 20, FLAT),
    Case::new("flat_json", PeerKind::Json, FLAT, 10, FLAT),
    Case::new("chain_rust", PeerKind::Rust, CHAIN, 3, CHAIN),
    Case::new("calls_rust", PeerKind::Rust, CALLS, 3, CHAIN),
    Case::new("chain_json", PeerKind::Json, CHAIN, 3, CHAIN),
    Case::new("calls_json", PeerKind::Json, CALLS, 3, CHAIN),
    Case::new("tree_rust", PeerKind::Rust, TREE, 2, FLAT),
    Case::new("tree_json_batch", PeerKind::JsonBatch, TREE, 2, FLAT),
    Case::new("million_rust", PeerKind::Rust, MESH, 1, SMALL_MESH),
];

/// One task and who does it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    peers: PeerKind,
    task: Task,
}

impl Case {
    const fn new(
        name: &'static str,
        peers: PeerKind,
        shape: Shape,
        repeats: u32,
        warm_up: Shape,
    ) -> Self {
        Self { name, peers, task: Task { shape, repeats, warm_up } }
    }
}

/// One case's rounds and their medians.
#[derive(Debug, Serialize)]
struct Standing {
    name: &'static str,
    steps: u64,
    steps_s: f64,
    /// One graph, or as many calls, from request to reply.
    elapsed_ms: f64,
    /// Core time a step.
    hub_us: f64,
    worker_us: f64,
    client_us: f64,
    /// Growth of the broker's memory at its peak, a step; of one graph, since repeats do not
    /// overlap.
    memory_bytes: f64,
    hub_peak_mib: f64,
    rounds: Vec<GraphMeasure>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    machine: Machine,
    load_after: f64,
    options: Options,
    graphs: Vec<Standing>,
    goals: Vec<Goal>,
}

/// Runs it all and returns the report.
pub(crate) fn run(options: &Options) -> Outcome<Told> {
    let machine = Machine::read();
    let cases: Vec<Case> = CASES.into_iter().filter(|case| options.wants(case.name)).collect();
    if cases.is_empty() {
        return Err(options.nobody(CASES.map(|case| case.name)));
    }
    let mut seen: Vec<Vec<GraphMeasure>> = vec![Vec::new(); cases.len()];
    for round in 1..=options.rounds {
        for (case, seen) in cases.iter().zip(&mut seen) {
            let measure = measure(case, options)?;
            eprintln!(
                "round {round}/{}: {} {} steps/s, broker {} µs a step",
                options.rounds,
                case.name,
                figure(rate(&measure)),
                figure(measure.hub_cpu_ns as f64 / 1e3 / measure.steps as f64),
            );
            seen.push(measure);
        }
    }
    let graphs: Vec<Standing> =
        cases.iter().zip(seen).map(|(case, rounds)| Standing::new(case, rounds)).collect();
    let goals = goals(&graphs);
    let (load_after, options) = (machine::load(), options.clone());
    let report = Report { bench: "graph", machine, load_after, options, graphs, goals };
    Told::of(&report, report.text())
}

/// One case, with processes of its own.
fn measure(case: &Case, options: &Options) -> Outcome<GraphMeasure> {
    let stage = Stage::set(HubKind::Broker, case.peers, options.in_flight)?;
    let (kind, task) = (case.peers, case.task);
    let client = Role::Grapher { kind, at: stage.at(), task, watch: stage.watch() };
    let patience = std::time::Duration::from_millis(crate::peers::json_graph::TIMEOUT_MS);
    stage.play(&client, patience)
}

fn rate(measure: &GraphMeasure) -> f64 {
    measure.steps as f64 * 1e9 / measure.elapsed_ns.max(1) as f64
}

impl Standing {
    fn new(case: &Case, rounds: Vec<GraphMeasure>) -> Self {
        let of = |read: &dyn Fn(&GraphMeasure) -> f64| median(rounds.iter().map(read));
        let (steps, repeats) = (case.task.shape.steps(), f64::from(case.task.repeats));
        let grown = |m: &GraphMeasure| m.peak.saturating_sub(m.resident_before) as f64;
        Self {
            name: case.name,
            steps,
            steps_s: of(&rate),
            elapsed_ms: of(&|m| m.elapsed_ns as f64 / 1e6 / repeats),
            hub_us: of(&|m| m.hub_cpu_ns as f64 / 1e3 / m.steps as f64),
            worker_us: of(&|m| m.worker_cpu_ns as f64 / 1e3 / m.steps as f64),
            client_us: of(&|m| m.client_cpu_ns as f64 / 1e3 / m.steps as f64),
            memory_bytes: of(&|m| grown(m) / steps as f64),
            hub_peak_mib: of(&|m| m.peak as f64 / 1_048_576.0),
            rounds,
        }
    }

    fn times(&self) -> Vec<f64> {
        self.rounds.iter().map(|measure| measure.elapsed_ns as f64).collect()
    }
}

/// What the project promised, as far as those who take part can show it.
fn goals(graphs: &[Standing]) -> Vec<Goal> {
    let find = |name: &str| graphs.iter().find(|standing| standing.name == name);
    let mut goals = Vec::new();
    for (name, wanted) in [("flat_rust", 3.0), ("flat_json_batch", 6.0), ("flat_json", 6.0)] {
        let what = format!("{name}: broker CPU a step, µs");
        goals.extend(find(name).map(|graph| Goal::at_most(&what, wanted, graph.hub_us)));
    }
    for (chain, calls) in [("chain_rust", "calls_rust"), ("chain_json", "calls_json")] {
        if let (Some(chain), Some(calls)) = (find(chain), find(calls)) {
            let what = format!("{}: times the time of {}", chain.name, calls.name);
            let ratio = median_ratio(&chain.times(), &calls.times());
            goals.extend(ratio.map(|ratio| Goal::at_most(&what, 0.7, ratio)));
        }
    }
    let what = "million_rust: memory a step, bytes";
    goals.extend(find("million_rust").map(|mesh| Goal::at_most(what, 1024.0, mesh.memory_bytes)));
    goals
}

impl Report {
    fn text(&self) -> String {
        let Machine { cpu, cores, kernel, load, memory_mib } = &self.machine;
        let mut table = Table::new(&[
            "",
            "steps",
            "ms",
            "steps/s",
            "broker µs/step",
            "worker µs",
            "client µs",
            "B/step",
            "peak MiB",
        ]);
        for graph in &self.graphs {
            let figures = [
                graph.steps as f64,
                graph.elapsed_ms,
                graph.steps_s,
                graph.hub_us,
                graph.worker_us,
                graph.client_us,
                graph.memory_bytes,
                graph.hub_peak_mib,
            ];
            table.row([graph.name.to_owned()].into_iter().chain(figures.map(figure)));
        }
        let text = format!(
            "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load {load} before, {} after\n\
             {} rounds, interleaved; medians; one worker, credit {}\n\n{table}{}",
            self.load_after,
            self.options.rounds,
            self.options.in_flight,
            report::goals(&self.goals),
        );
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(index: usize, elapsed_ns: u64) -> Standing {
        let case = &CASES[index];
        let steps = case.task.shape.steps() * u64::from(case.task.repeats);
        let measure = GraphMeasure {
            steps,
            elapsed_ns,
            hub_cpu_ns: steps * 2_500,
            resident_before: 10 << 20,
            peak: (10 << 20) + case.task.shape.steps() * 900,
            ..GraphMeasure::default()
        };
        Standing::new(case, vec![measure; 3])
    }

    #[test]
    fn a_step_costs_its_share() {
        let flat = standing(0, 200_000_000);
        assert_eq!((flat.name, flat.hub_us, flat.memory_bytes), ("flat_rust", 2.5, 900.0));
        assert_eq!((flat.elapsed_ms, flat.steps_s), (10.0, 1e6));
    }

    #[test]
    fn a_chain_is_held_against_its_calls() {
        let goals = goals(&[standing(3, 60), standing(4, 100), standing(9, 100)]);
        assert_eq!(goals.len(), 2);
        assert!(goals[0].met && (goals[0].measured - 0.6).abs() < 1e-9);
        assert!(goals[1].met && (goals[1].measured - 900.0).abs() < 1e-9);
    }
}
