//! How other threads tell the core what to do, and how it goes down.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mpreg_patterns::base::Time;
use mpreg_patterns::node;

use super::{Core, SWEEP};

/// Go on.
pub(super) const RUN: u8 = 0;
/// Finish what is in flight.
pub(super) const DRAIN: u8 = 1;
const END: u8 = 2;

/// How other threads tell the core what to do.
pub(crate) struct Control {
    state: AtomicU8,
    serving: AtomicBool,
    bell: Mutex<zmq::Socket>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Control {
    /// The handle, and the socket on which the core hears it.
    pub(crate) fn new(context: &zmq::Context) -> Result<(Arc<Self>, zmq::Socket), zmq::Error> {
        let (bell, ear) = (context.socket(zmq::PAIR)?, context.socket(zmq::PAIR)?);
        bell.set_linger(0)?;
        ear.set_linger(0)?;
        ear.bind("inproc://control")?;
        bell.connect("inproc://control")?;
        let (state, serving) = (AtomicU8::new(RUN), AtomicBool::new(false));
        Ok((Arc::new(Self { state, serving, bell: Mutex::new(bell) }), ear))
    }

    pub(crate) fn drain(&self) {
        self.tell(DRAIN);
    }

    pub(crate) fn end(&self) {
        self.tell(END);
    }

    /// What was told last.
    pub(super) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// What was left behind has been read.
    pub(super) fn serves(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// How far it is, in a word for people and probes.
    pub(crate) fn stage(&self) -> &'static str {
        match self.state() {
            RUN if !self.serving.load(Ordering::Acquire) => "starting",
            RUN => "serving",
            _ => "draining",
        }
    }

    fn tell(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        self.ring();
    }

    /// Wakes the core.
    pub(crate) fn ring(&self) {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        // The ear may be full of rings or gone: either way the core will see the state.
        let _ = bell.send("", zmq::DONTWAIT);
    }
}

impl Core {
    /// Tells everybody once, then says whether nothing is in flight any more.
    pub(super) fn drained(&mut self, now: Time) -> bool {
        if !self.node.is_draining() {
            self.node.handle(now, node::Input::Drain, &mut self.out);
            self.encode(now);
            self.write(now);
        }
        self.node.is_idle() && self.outbox.load().0 == 0
    }

    /// The time to drain is over: what has no outcome yet gets one.
    pub(super) fn cut_off(&mut self) {
        let until = Instant::now() + SWEEP;
        self.node.handle(self.now(), node::Input::End, &mut self.out);
        // A large graph ends slice by slice, and a peer that reads slowly is tried again.
        while Instant::now() < until {
            let now = self.now();
            self.tick(now);
            self.write(now);
            if self.node.in_flight() == 0 && self.outbox.load().0 == 0 {
                break;
            }
            if self.node.wake_at() != Some(0) {
                self.sleep(until);
            }
        }
    }
}
