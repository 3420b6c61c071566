//! What a client measures while it runs a graph, or the calls a graph is compared with.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::machine::{Usage, forget_peak};
use crate::tally::Watch;
use crate::workloads::shape::Task;

/// What one client saw of one task.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GraphMeasure {
    /// Steps done, over all repeats.
    pub(crate) steps: u64,
    /// From the first request to the last reply.
    pub(crate) elapsed_ns: u64,
    /// Core time used meanwhile.
    pub(crate) hub_cpu_ns: u64,
    pub(crate) worker_cpu_ns: u64,
    pub(crate) client_cpu_ns: u64,
    /// Memory of the hub before, and the most it had meanwhile, bytes.
    pub(crate) resident_before: u64,
    pub(crate) peak: u64,
    /// Memory of the hub after the last reply, bytes.
    pub(crate) resident_after: u64,
}

/// A measurement that has begun.
pub(crate) struct GraphTally {
    watch: Watch,
    steps: u64,
    before: [Usage; 3],
    clock: Instant,
}

impl GraphTally {
    /// Begins, after the warm-up.
    pub(crate) fn begin(task: Task, watch: Watch) -> Outcome<Self> {
        forget_peak(watch.hub)?;
        let before = watch.usage()?;
        let steps = task.shape.steps() * u64::from(task.repeats);
        Ok(Self { watch, steps, before, clock: Instant::now() })
    }

    /// Ends, when the last reply is there.
    pub(crate) fn end(self) -> Outcome<GraphMeasure> {
        let elapsed_ns = self.clock.elapsed().as_nanos() as u64;
        let [hub, worker, client] = self.watch.usage()?;
        Ok(GraphMeasure {
            steps: self.steps,
            elapsed_ns,
            hub_cpu_ns: hub.cpu_ns_since(&self.before[0]),
            worker_cpu_ns: worker.cpu_ns_since(&self.before[1]),
            client_cpu_ns: client.cpu_ns_since(&self.before[2]),
            resident_before: self.before[0].resident,
            peak: hub.peak,
            resident_after: hub.resident,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::shape::Shape;

    #[test]
    fn repeats_multiply_the_steps() {
        let pid = std::process::id();
        let shape = Shape::Tree { leaves: 4 };
        let task = Task { shape, repeats: 3, warm_up: shape };
        let tally = GraphTally::begin(task, Watch { hub: pid, worker: pid }).unwrap();
        let measure = tally.end().unwrap();
        assert_eq!(measure.steps, 21);
        assert!(measure.peak >= measure.resident_before.min(measure.resident_after));
    }
}
