//! Memory of the process: how much it holds, when some goes back to the system, and in what pages
//! it comes.

use mpreg_sockets::raw;

use super::Core;

/// Connections that end, and texts of SUB sockets, after which their memory goes back.
const CROWD: u64 = 1_024;
/// Bytes held from which on huge pages pay: below, a few of them would be most of an idle broker.
const HUGE_PAGES_FROM: u64 = 64 << 20;

/// Lets memory come in small pages, until there is much of it. Where the system has no such
/// switch, it stays as it is.
pub(crate) fn begin_small() {
    _ = rustix::thread::disable_transparent_huge_pages(true);
}

impl Core {
    /// How much is held; once that is much, more comes in huge pages.
    pub(super) fn look_at_memory(&mut self) -> u64 {
        let resident_bytes = resident_bytes();
        if resident_bytes > HUGE_PAGES_FROM && !self.huge_pages {
            self.huge_pages = true;
            _ = rustix::thread::disable_transparent_huge_pages(false);
        }
        resident_bytes
    }

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
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
