//! Whose writes are safe: the store counts all of them, each system its own.

use std::collections::VecDeque;

/// Writes that wait for the disk beyond which nothing more is read where nobody is answered.
const MANY: u64 = 1 << 18;

/// Lines from this number on are those of logs, the others those of queues; the same holds for
/// fetches.
pub const LOGS: u32 = 1 << 31;

/// Which of the writes were the logs', in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct Ledger {
    asked: u64,
    synced: u64,
    /// Runs of the logs' writes that are not safe yet: the number of the first, and how many.
    logs: VecDeque<(u64, u64)>,
    /// Writes of logs that are safe.
    logs_synced: u64,
}

impl Ledger {
    /// Queues have asked for a write.
    pub const fn queues_write(&mut self) {
        self.asked += 1;
    }

    /// A log has asked for a write.
    pub fn log_writes(&mut self) {
        self.asked += 1;
        match self.logs.back_mut() {
            Some((first, count)) if *first + *count == self.asked => *count += 1,
            _ => self.logs.push_back((self.asked, 1)),
        }
    }

    /// So many of all writes are safe: how many of the queues' that are.
    pub fn synced(&mut self, writes: u64) -> u64 {
        self.synced = writes;
        while let Some((first, count)) = self.logs.front_mut() {
            let safe = (writes + 1).saturating_sub(*first).min(*count);
            self.logs_synced += safe;
            if safe < *count {
                (*first, *count) = (*first + safe, *count - safe);
                break;
            }
            self.logs.pop_front();
        }
        writes - self.logs_synced
    }

    /// Whether so much waits for the disk that who brings more should wait too.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.asked - self.synced > MANY
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_system_hears_of_its_own(
            of_logs: Vec<bool>,
            steps in prop::collection::vec(0..9_u64, 0..40),
        ) {
            let mut ledger = Ledger::default();
            for log in &of_logs {
                if *log { ledger.log_writes() } else { ledger.queues_write() }
            }
            let mut safe = 0;
            for step in steps {
                safe = (safe + step).min(of_logs.len() as u64);
                let queues = of_logs.iter().take(safe as usize).filter(|log| !**log).count() as u64;
                prop_assert_eq!(ledger.synced(safe), queues);
            }
        }
    }
}
