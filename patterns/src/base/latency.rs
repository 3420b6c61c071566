//! How long things take, counted since the broker began.

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

/// Longer ones count as this, microseconds: a week.
const LONGEST_US: u64 = 7 * 24 * 3_600 * 1_000_000;
/// Digits that are kept of each.
const DIGITS: u8 = 2;
/// Counts are told up to each of these, microseconds: half a decade apart and closer where most
/// brokers are.
const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// Durations of one kind.
#[derive(Debug)]
pub struct Latency {
    took_us: Histogram<u64>,
    sum_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let took_us = Histogram::new_with_max(LONGEST_US, DIGITS);
        Self { took_us: took_us.expect("bounds that can be"), sum_ns: 0 }
    }
}

impl Latency {
    /// Counts one.
    pub fn record_ns(&mut self, took_ns: u64) {
        self.took_us.saturating_record(took_ns / 1_000);
        self.sum_ns = self.sum_ns.saturating_add(took_ns);
    }

    /// `count`, `sum_us`, percentiles and the longest in microseconds, and `up_to`: pairs of a
    /// bound in microseconds and how many took no longer, if there are any.
    #[must_use]
    pub fn describe(&self) -> Json {
        let at = |quantile: f64| self.took_us.value_at_quantile(quantile);
        json!({
            "count": self.took_us.len(),
            "sum_us": self.sum_ns / 1_000,
            "p50_us": at(0.5),
            "p90_us": at(0.9),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": self.took_us.max(),
            "up_to": self.up_to(),
        })
    }

    fn up_to(&self) -> Vec<(u64, u64)> {
        if self.took_us.is_empty() {
            return Vec::new();
        }
        let mut recorded = self.took_us.iter_recorded().peekable();
        let mut count = 0;
        let up_to = |bound_us| {
            while let Some(step) = recorded.next_if(|step| step.value_iterated_to() <= bound_us) {
                count += step.count_since_last_iteration();
            }
            (bound_us, count)
        };
        BOUNDS_US.into_iter().map(up_to).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_took_any_time() {
        let told = Latency::default().describe();
        assert_eq!(told["count"], 0);
        assert_eq!(told["p99_us"], 0);
        assert_eq!(told["up_to"], json!([]));
    }

    #[test]
    fn what_is_told() {
        let mut latency = Latency::default();
        (0..90).for_each(|_| latency.record_ns(40_900));
        (0..9).for_each(|_| latency.record_ns(900_000));
        latency.record_ns(u64::MAX);
        let told = latency.describe();
        assert_eq!(told["count"], 100);
        assert_eq!(told["p50_us"], 40);
        assert_eq!(told["p90_us"], 40);
        // Two digits of it are kept.
        assert_eq!(told["p99_us"], 903);
        assert!(told["max_us"].as_u64() >= Some(LONGEST_US));
        let up_to: Vec<(u64, u64)> = serde_json::from_value(told["up_to"].clone()).unwrap();
        assert_eq!(up_to[0], (50, 90));
        assert_eq!(up_to[3], (500, 90));
        assert_eq!(up_to[4], (1_000, 99));
        assert_eq!(up_to[17], (60_000_000, 99));
    }
}
