//! What a client counts while it keeps calls in flight: the same for every contender.
//!
//! A warm-up, then the measured window, then the wait for what is still in flight. Nothing outside
//! the window enters a rate or a latency; everything that was ever sent enters the losses.

use std::time::Instant;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::machine::Usage;
use crate::plan::Load;

/// How long the wait for what is in flight may take, nanoseconds.
const SETTLE_NS: u64 = 3_000_000_000;

/// How often an open loop makes calls, nanoseconds.
pub(crate) const TICK_NS: u64 = 1_000_000;

/// The other two processes of a measurement, by pid.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// The process in the middle.
    pub(crate) hub: u32,
    /// The worker.
    pub(crate) worker: u32,
}

impl Watch {
    /// What hub, worker and this process have used so far.
    pub(crate) fn usage(self) -> Outcome<[Usage; 3]> {
        Ok([Usage::of(self.hub)?, Usage::of(self.worker)?, Usage::of(std::process::id())?])
    }
}

/// What one client saw in one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// Calls answered inside the window.
    pub(crate) round_trips: u64,
    /// Length of the window.
    pub(crate) elapsed_ns: u64,
    /// Latencies of those calls.
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) p9999_ns: u64,
    pub(crate) max_ns: u64,
    /// Calls sent, warm-up included.
    pub(crate) sent: u64,
    /// Answers, warm-up included.
    pub(crate) answered: u64,
    /// Answers that were not the result.
    pub(crate) failed: u64,
    /// Core time used inside the window.
    pub(crate) hub_cpu_ns: u64,
    pub(crate) worker_cpu_ns: u64,
    pub(crate) client_cpu_ns: u64,
    /// Memory of the hub at the end of the window, bytes.
    pub(crate) hub_resident: u64,
}

/// Which part of the measurement it is.
enum Phase {
    Warm,
    Window { since_ns: u64, before: [Usage; 3] },
    Settle { since_ns: u64 },
}

/// Counts for one client.
pub(crate) struct Tally {
    clock: Instant,
    load: Load,
    watch: Watch,
    phase: Phase,
    sent_at: Vec<u64>,
    /// Calls that were due, in an open loop.
    due: u64,
    histogram: Histogram<u64>,
    measure: Measure,
}

impl Tally {
    /// Starts the warm-up.
    pub(crate) fn new(load: Load, watch: Watch) -> Outcome<Self> {
        Ok(Self {
            clock: Instant::now(),
            load,
            watch,
            phase: Phase::Warm,
            sent_at: vec![0; load.in_flight],
            due: 0,
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            measure: Measure::default(),
        })
    }

    /// The time, nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Whether calls are still to be sent. Opens and closes the window when its time has come.
    pub(crate) fn open(&mut self) -> Outcome<bool> {
        let now = self.now();
        match &self.phase {
            Phase::Warm if now >= self.load.warm_ms * 1_000_000 => {
                let before = self.watch.usage()?;
                self.phase = Phase::Window { since_ns: self.now(), before };
            }
            Phase::Window { since_ns, before }
                if now - since_ns >= self.load.measure_ms * 1_000_000 =>
            {
                let [hub, worker, client] = self.watch.usage()?;
                let measure = &mut self.measure;
                measure.elapsed_ns = now - since_ns;
                measure.hub_cpu_ns = hub.cpu_ns_since(&before[0]);
                measure.worker_cpu_ns = worker.cpu_ns_since(&before[1]);
                measure.client_cpu_ns = client.cpu_ns_since(&before[2]);
                measure.hub_resident = hub.resident;
                self.phase = Phase::Settle { since_ns: now };
            }
            _ => {}
        }
        Ok(self.is_open())
    }

    /// The same without a look at the clock.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Settle { .. })
    }

    /// Whether the wait for what is in flight is over.
    pub(crate) fn settled(&self) -> bool {
        let waited = match self.phase {
            Phase::Settle { since_ns } => self.now() - since_ns,
            _ => return false,
        };
        self.measure.answered >= self.measure.sent || waited > SETTLE_NS
    }

    /// Since when the call is due that a free slot may make now. In a closed loop that is now; in
    /// an open one it is the call's own moment, however late it is made: the wait counts.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let Some(rate) = self.load.rate else { return Some(now) };
        // All that are due within a tick are due at its start.
        let due = self.due * 1_000_000_000 / rate.max(1) / TICK_NS * TICK_NS;
        self.due += u64::from(due <= now);
        (due <= now).then_some(due)
    }

    /// Slot `slot` has a call in flight that was due at `due`.
    pub(crate) fn sent(&mut self, slot: usize, due: u64) {
        self.sent_at[slot] = due;
        self.measure.sent += 1;
    }

    /// The call of slot `slot` was answered just now, well or not; says when that was.
    pub(crate) fn answered(&mut self, slot: usize, well: bool) -> u64 {
        let now = self.now();
        self.measure.answered += 1;
        self.measure.failed += u64::from(!well);
        if matches!(self.phase, Phase::Window { .. }) {
            self.measure.round_trips += 1;
            self.histogram.saturating_record(now - self.sent_at[slot]);
        }
        now
    }

    /// What was seen.
    pub(crate) fn finish(self) -> Measure {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Measure {
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: self.histogram.max(),
            ..self.measure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(warm_ms: u64, measure_ms: u64) -> Tally {
        let pid = std::process::id();
        let load = Load { in_flight: 4, size: 64, warm_ms, measure_ms, rate: None };
        Tally::new(load, Watch { hub: pid, worker: pid }).unwrap()
    }

    #[test]
    fn the_warm_up_counts_for_losses_alone() {
        let mut tally = tally(60_000, 1);
        assert!(tally.open().unwrap());
        tally.sent(0, tally.now());
        tally.sent(1, tally.now());
        tally.answered(0, true);
        let measure = tally.finish();
        assert_eq!((measure.sent, measure.answered, measure.round_trips), (2, 1, 0));
    }

    #[test]
    fn a_window_opens_counts_and_closes() {
        let mut tally = tally(0, 5);
        assert!(tally.open().unwrap());
        tally.sent(2, tally.now());
        tally.answered(2, false);
        while tally.open().unwrap() {}
        assert!(tally.settled());
        let measure = tally.finish();
        assert_eq!((measure.round_trips, measure.failed), (1, 1));
        assert!(measure.elapsed_ns >= 5_000_000 && measure.p50_ns > 0);
    }

    #[test]
    fn calls_of_an_open_loop_are_due_at_their_own_moments() {
        let mut tally = tally(60_000, 1);
        let ms = 1_000_000;
        assert_eq!(tally.due(7), Some(7), "a closed loop");
        tally.load.rate = Some(2_000);
        let due: Vec<_> = (0..5).map(|_| tally.due(ms)).collect();
        assert_eq!(due, [Some(0), Some(0), Some(ms), Some(ms), None]);
        assert_eq!(tally.due(9 * ms), Some(2 * ms), "however late");
        tally.open().unwrap();
        tally.sent(0, 2 * ms);
        assert_eq!(tally.sent_at[0], 2 * ms);
    }

    #[test]
    fn what_is_in_flight_keeps_a_tally_from_settling() {
        let mut tally = tally(0, 0);
        tally.sent(0, tally.now());
        while tally.open().unwrap() {}
        assert!(!tally.settled());
        tally.answered(0, true);
        assert!(tally.settled());
    }
}
