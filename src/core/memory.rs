//! Memory of the process: how much it holds, and when some goes back to the system.

use mpreg_sockets::raw;

use super::Core;

/// Connections that end, and texts of SUB sockets, after which their memory goes back.
const CROWD: u64 = 1_024;

impl Core {
    /// Once a crowd has gone and no more of it goes. In a thread of its own: the system takes
    /// milliseconds to take it.
    pub(super) fn give_memory_back(&mut self) {
        let [ended, before] = self.ended;
        self.ended[1] = ended;
        if ended >= CROWD && ended == before {
            self.ended = [0; 2];
            let thread = std::thread::Builder::new().name("mpreg-memory".into());
            if let Err(error) = thread.spawn(raw::give_memory_back) {
                log::warn!("memory is kept: {error}");
            }
        }
    }
}

/// Memory the process holds, as the system counts it; 0 where it does not say.
pub(super) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
