//! How much is measured: what the command line says, and what of it a client has to know.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The arguments both workloads share.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Options {
    /// Interleaved rounds; every figure is the median over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// Length of each measured window, after a warm-up of a quarter of it.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Calls in flight at saturation, and the credit of the workers.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: u32,
    /// Bytes of payload in a call.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) size: u32,
    /// Only the contenders or graphs whose name contains one of these (comma between them).
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}

impl Options {
    /// Whether `--only` lets this name take part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// What to say when `--only` lets nobody take part.
    pub(crate) fn nobody<const N: usize>(&self, names: [&str; N]) -> crate::Fault {
        format!("--only {} is none of {}", self.only.join(","), names.join(", ")).into()
    }

    /// The load at saturation.
    pub(crate) fn saturated(&self) -> Load {
        let measure = self.seconds.clamp(0.05, 600.0);
        Load {
            in_flight: self.in_flight as usize,
            size: self.size as usize,
            warm_ms: (measure * 250.0) as u64,
            measure_ms: (measure * 1000.0) as u64,
            rate: None,
        }
    }

    /// The load of one call at a time. Its windows are shorter, since there are nine rounds of
    /// them and a median of thousands of calls is settled long before.
    pub(crate) fn single(&self) -> Load {
        let whole = self.saturated();
        Load {
            in_flight: 1,
            warm_ms: whole.warm_ms.min(200),
            measure_ms: whole.measure_ms.min(800),
            ..whole
        }
    }
}

/// What a client keeps up: travels to its process as JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Calls in flight, from the first to the last moment of the window; of an open loop, at most.
    pub(crate) in_flight: usize,
    /// Bytes of payload in a call.
    pub(crate) size: usize,
    /// Time before anything is counted.
    pub(crate) warm_ms: u64,
    /// Time that is counted.
    pub(crate) measure_ms: u64,
    /// Calls a second of an open loop, which never waits for answers. None is a closed loop.
    pub(crate) rate: Option<u64>,
}

impl Load {
    /// How long a client may take before it is given up.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.warm_ms + self.measure_ms) + Duration::from_secs(20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(only: &[&str]) -> Options {
        let only = only.iter().map(|&part| part.to_owned()).collect();
        Options { rounds: 5, seconds: 2.0, in_flight: 1024, size: 64, only }
    }

    #[test]
    fn only_picks_by_part_of_a_name() {
        assert!(options(&[]).wants("zmq_proxy"));
        assert!(options(&["proxy", "json"]).wants("mpreg_json"));
        assert!(!options(&["proxy"]).wants("mpreg_json"));
    }

    #[test]
    fn a_single_call_has_short_windows() {
        let load = options(&[]).single();
        assert_eq!((load.in_flight, load.warm_ms, load.measure_ms), (1, 200, 800));
    }
}
