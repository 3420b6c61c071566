//! What a bench ran on, and what a process has used of it, as Linux tells in `/proc`.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// The machine, so that figures can be compared with others.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// Cores this process may use.
    pub(crate) cores: usize,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Load average of the last minute before the bench began. Above 0.5 somebody else was busy.
    pub(crate) load: f64,
    /// All memory, MiB.
    pub(crate) memory_mib: u64,
}

impl Machine {
    /// Reads it; what cannot be read is named `unknown`.
    pub(crate) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name, separator| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(separator));
            value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
        let memory = field(&text("/proc/meminfo"), "MemTotal", ':');
        Self {
            cpu: field(&text("/proc/cpuinfo"), "model name", ':'),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: if kernel.is_empty() { "unknown".to_owned() } else { kernel },
            load: load(),
            memory_mib: kibibytes(&memory) / 1024,
        }
    }
}

/// Load average of the last minute; 0 where it cannot be read.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Time on a core, all its threads, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Memory resident now, bytes.
    pub(crate) resident: u64,
    /// That of it which is no page of a file.
    pub(crate) anonymous: u64,
    /// The most that was resident since the start or [`forget_peak`], bytes.
    pub(crate) peak: u64,
}

impl Usage {
    /// Reads it. Threads that ended since the last reading are missing: no hub has any.
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let mut cpu_ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between being listed and being read.
            let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            cpu_ns += line.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, kibibytes) * 1024
        };
        Ok(Self {
            cpu_ns,
            resident: field("VmRSS:"),
            anonymous: field("RssAnon:"),
            peak: field("VmHWM:"),
        })
    }

    /// Processor time since then. A thread that has ended takes its own out of the sum.
    pub(crate) const fn cpu_ns_since(&self, before: &Self) -> u64 {
        self.cpu_ns.saturating_sub(before.cpu_ns)
    }
}

/// Sets the peak of a process back to what is resident now.
pub(crate) fn forget_peak(pid: u32) -> Outcome<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Reads `  123 kB`; 0 where there is no number.
fn kibibytes(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_cpu_and_memory() {
        let busy = ["-c", "while :; do :; done"];
        let mut child = std::process::Command::new("sh").args(busy).spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let before = Usage::of(child.id()).unwrap();
        let mut after = Usage::of(child.id()).unwrap();
        while after.cpu_ns <= before.cpu_ns && std::time::Instant::now() < until {
            after = Usage::of(child.id()).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(after.cpu_ns > before.cpu_ns);
        assert!(after.resident > 0 && after.peak >= after.resident);
    }

    #[test]
    fn kibibytes_come_with_their_unit() {
        assert_eq!(kibibytes("\t  4321 kB"), 4321);
        assert_eq!(kibibytes("unknown"), 0);
    }
}
