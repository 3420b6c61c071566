//! Until when there is nothing to do.

use std::time::Instant;

use mpreg_sockets::wait::Listens;

use super::Core;

/// How often an outlet is looked at that holds too many bytes, milliseconds: libzmq tells nobody
/// when they have left.
const FULL_OUTLET_MS: u64 = 10;

/// Which sockets may have something to receive: all that have rung, and those that were used for
/// sending since they were last found to be empty.
#[derive(Debug)]
pub(super) struct Stirred {
    pub(super) door: bool,
    pub(super) publish: bool,
    pub(super) subscribe: bool,
    pub(super) push: bool,
    pub(super) bridge: bool,
}

impl Stirred {
    pub(super) const ALL: Self =
        Self { door: true, publish: true, subscribe: true, push: true, bridge: true };
}

impl Core {
    /// Waits for a message, a deadline, or another thread.
    pub(super) fn sleep(&mut self, next_sweep: Instant) {
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
        if !self.outlets.is_empty() || self.wiring.is_unusual() {
            return self.wait_for_all(wait_ms);
        }
        if !self.look_again() {
            self.wait_for_input(wait_ms);
        }
    }

    /// Looks at the sockets that may have heard something while they were used otherwise. True if
    /// one has.
    fn look_again(&mut self) -> bool {
        // What is held up by the disk stays where it is.
        let takes = !self.node.awaits_disk();
        let Self { stirred, router, publish, subscribe, push, wiring, .. } = self;
        stirred.door = stirred.door && router.has_input();
        stirred.subscribe = stirred.subscribe && subscribe.has_input();
        stirred.bridge = stirred.bridge && wiring.bridge().has_input();
        if takes {
            stirred.publish = stirred.publish && publish.has_input();
            stirred.push = stirred.push && push.has_input();
        }
        let held = takes && (stirred.publish || stirred.push);
        wiring.look() || stirred.door || stirred.subscribe || stirred.bridge || held
    }

    /// Waits for messages alone, which is what there is to wait for nearly always.
    fn wait_for_input(&mut self, wait_ms: u64) {
        let takes = !self.node.awaits_disk();
        let Self { wait, stirred, wiring, .. } = self;
        wait.clear();
        wait.add(&self.ear);
        wait.add(&self.router);
        wait.add(&self.subscribe);
        wait.add(wiring.bridge());
        wiring.wait_for(wait);
        let first = wait.len();
        if takes {
            wait.add(&self.publish);
            wait.add(&self.push);
        }
        wait.wait(wait_ms as i32);
        if wait.rang(0) {
            while self.ear.recv_bytes(zmq::DONTWAIT).is_ok() {}
        }
        stirred.door |= wait.rang(1);
        stirred.subscribe |= wait.rang(2);
        stirred.bridge |= wait.rang(3);
        wiring.rang(Some((wait, 4)));
        stirred.publish |= wait.rang(first);
        stirred.push |= wait.rang(first + 1);
    }

    /// The same with what can be written to, and answers that are waited for.
    fn wait_for_all(&mut self, wait_ms: u64) {
        let mut items = vec![
            self.ear.poll_item(),
            self.router.poll_item(),
            self.publish.poll_item(),
            self.subscribe.poll_item(),
            self.push.poll_item(),
            self.wiring.bridge().poll_item(),
        ];
        items.extend(self.outlets.poll_items());
        items.extend(self.wiring.poll_items());
        let _ = zmq::poll(&mut items, wait_ms as i64);
        while self.ear.recv_bytes(zmq::DONTWAIT).is_ok() {}
        self.stirred = Stirred::ALL;
        self.wiring.rang(None);
    }
}
