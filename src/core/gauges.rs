//! What the core counts and measures of itself.

use mpreg_patterns::base::{Latency, Time};
use serde_json::json;

use super::Core;

/// What is counted beside what the rules count.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Traffic {
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) bad_messages: u64,
    pub(super) replies_dropped: u64,
    pub(super) peers_refused: u64,
    /// Messages from PUB sockets, those that were refused included.
    pub(super) published_in: u64,
    /// Messages from PUSH sockets, those that were refused included.
    pub(super) pushed_in: u64,
    /// Messages to SUB sockets, one for each text somebody holds.
    pub(super) broadcasts_out: u64,
    /// Those that were not sent, since too much waits already.
    pub(super) broadcasts_dropped: u64,
}

/// How long the turns of the core take: whatever comes meanwhile waits as long.
#[derive(Debug, Default)]
pub(super) struct Turns {
    took: Latency,
    began_ns: Option<u64>,
}

impl Turns {
    /// A turn begins, perhaps just after another.
    pub(super) fn begin(&mut self, now: Time) {
        self.end(now);
        self.began_ns = Some(now.mono_ns);
    }

    /// There is nothing left to do.
    pub(super) fn end(&mut self, now: Time) {
        if let Some(began_ns) = self.began_ns.take() {
            self.took.record_ns(now.mono_ns.saturating_sub(began_ns));
        }
    }
}

impl Core {
    /// Tells the rules what the process is like, for whoever asks them.
    pub(super) fn refresh_gauges(&mut self, now: Time) {
        let (stalled_peers, waiting_bytes) = self.outbox.load();
        let resident_bytes = self.look_at_memory();
        if !self.wiring.links.is_empty() {
            self.node.set_links(self.wiring.links.describe());
            self.node.report_load(now, &mut self.out);
        }
        self.node.set_gauges(json!({
            "peers": self.by_routing_id.len() + self.web.len(),
            "stalled_peers": stalled_peers,
            "waiting_bytes": waiting_bytes,
            "traffic": self.traffic,
            "resident_bytes": resident_bytes,
            "turns": self.turns.took.describe(),
        }));
    }
}
