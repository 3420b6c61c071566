//! Until when there is nothing to do.

use std::time::Instant;

use super::Core;

/// How often an outlet is looked at that holds too many bytes, milliseconds: libzmq tells nobody
/// when they have left.
const FULL_OUTLET_MS: u64 = 10;

impl Core {
    /// Waits for a message, a deadline, or another thread.
    pub(super) fn sleep(&self, next_sweep: Instant) {
        let now_ns = self.started.elapsed().as_nanos() as u64;
        let due = [self.node.wake_at(), self.outbox.wake_at(), self.wiring.links.wake_at()];
        let due = due.into_iter().flatten().min();
        let sweep = next_sweep.saturating_duration_since(Instant::now());
        let wait_ns = due.map_or(u64::MAX, |due| due.saturating_sub(now_ns));
        // Rounded up: a wait that ends a moment early would only begin again.
        let mut wait_ms = wait_ns.div_ceil(1_000_000).min(sweep.as_millis() as u64 + 1);
        if self.outlets.are_full() {
            wait_ms = wait_ms.min(FULL_OUTLET_MS);
        }
        let mut items = [
            self.ear.as_poll_item(zmq::POLLIN),
            self.router.poll_item(),
            self.publish.poll_item(),
            self.subscribe.poll_item(),
            self.push.poll_item(),
            self.wiring.poll_item(),
        ];
        let mut others: Vec<_> = self.outlets.poll_items().collect();
        others.extend(self.wiring.poll_items());
        let rung = if others.is_empty() {
            let _ = zmq::poll(&mut items, wait_ms as i64);
            items[0].is_readable()
        } else {
            others.extend(items);
            let _ = zmq::poll(&mut others, wait_ms as i64);
            true
        };
        if rung {
            let _ = self.ear.recv_bytes(zmq::DONTWAIT);
        }
    }
}
