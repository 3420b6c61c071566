//! How well a path does, from what became of the questions asked on it.

/// How much the last question counts.
const SUCCESS_WEIGHT: f64 = 0.2;
/// The same for latencies: a quick average is compared with a slow one.
const QUICK_WEIGHT: f64 = 0.5;
const SLOW_WEIGHT: f64 = 0.1;
/// How far the quick average is from the slow one before there is a trend.
const TREND: f64 = 1.5;
/// A latency that halves the score, milliseconds.
const HALF_MS: f64 = 50.0;
/// What a path that gets worse loses.
const WORSE: f64 = 0.8;

/// Where the latency goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// Falls.
    Better,
    /// Stays.
    Steady,
    /// Rises.
    Worse,
}

impl Trend {
    /// As people see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Steady => "steady",
            Self::Worse => "worse",
        }
    }
}

/// Moving averages of one path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    success: Option<f64>,
    quick_ms: Option<f64>,
    slow_ms: Option<f64>,
}

impl Health {
    /// A question was answered.
    pub(super) fn answered(&mut self, latency_ms: f64) {
        moved(&mut self.success, 1.0, SUCCESS_WEIGHT);
        moved(&mut self.quick_ms, latency_ms, QUICK_WEIGHT);
        moved(&mut self.slow_ms, latency_ms, SLOW_WEIGHT);
    }

    /// A question was not answered, or the connection was lost.
    pub(super) fn failed(&mut self) {
        moved(&mut self.success, 0.0, SUCCESS_WEIGHT);
    }

    /// How many of the questions are answered, 0 to 1; the last ones count most.
    #[must_use]
    pub fn success(&self) -> f64 {
        self.success.unwrap_or(0.0)
    }

    /// How long answers take, milliseconds. None before the first.
    #[must_use]
    pub const fn latency_ms(&self) -> Option<f64> {
        self.slow_ms
    }

    /// Where the latency goes.
    #[must_use]
    pub fn trend(&self) -> Trend {
        match (self.quick_ms, self.slow_ms) {
            (Some(quick), Some(slow)) if quick > slow * TREND => Trend::Worse,
            (Some(quick), Some(slow)) if quick * TREND < slow => Trend::Better,
            _ => Trend::Steady,
        }
    }

    /// 0 to 100: the success, halved for each 50 ms of latency, less if it gets worse.
    #[must_use]
    pub fn score(&self) -> f64 {
        let latency = 1.0 + self.slow_ms.unwrap_or(0.0) / HALF_MS;
        let trend = if self.trend() == Trend::Worse { WORSE } else { 1.0 };
        100.0 * self.success() * trend / latency
    }
}

fn moved(average: &mut Option<f64>, value: f64, weight: f64) {
    let before = average.unwrap_or(value);
    *average = Some(before + (value - before) * weight);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_known(&[], 0.0, "steady")]
    #[case::at_once(&[0.0; 3], 100.0, "steady")]
    #[case::slow(&[50.0; 3], 50.0, "steady")]
    #[case::slower_now(&[1.0, 1.0, 9.0], 77.2, "worse")]
    #[case::faster_now(&[9.0, 1.0, 1.0], 87.0, "better")]
    fn what_latencies_make_of_it(#[case] ms: &[f64], #[case] score: f64, #[case] trend: &str) {
        let mut health = Health::default();
        ms.iter().for_each(|&ms| health.answered(ms));
        assert_eq!(
            ((health.score() * 10.0).round() / 10.0, health.trend().as_str()),
            (score, trend)
        );
    }

    #[test]
    fn a_failure_is_forgotten_in_time() {
        let mut health = Health::default();
        health.answered(0.0);
        health.failed();
        assert_eq!(health.score().round(), 80.0);
        (0..20).for_each(|_| health.answered(0.0));
        assert_eq!(health.score().round(), 100.0);
    }
}
