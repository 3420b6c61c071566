//! Calls: which worker runs what, and exactly one outcome for each.
//!
//! Decides who may take a call (function, version range, locs), who of those takes it (the less
//! loaded of two random ones with credit to spare), what waits, and what a worker's death means
//! for the runs it had in hand. It does not know who called: an [`Origin`] is handed back with the
//! outcome. It never looks into arguments or results.

mod calls;
mod describe;
mod far;
mod offers;
mod registry;
#[cfg(test)]
mod tests;
mod workers;

use std::sync::Arc;

use slab::Slab;
use smol_str::SmolStr;

pub use crate::base::Origin;
use crate::base::{CallId, Deadlines, Ids, Limits, Out, PeerId, Refusal, Rng, RunId, Time};
use crate::ops::{Call, Offer, Run};
use crate::values::Body;
pub use describe::Placement;
pub use far::{News, Shared};
use registry::Registry;
use workers::Workers;

/// What happens to the system.
#[derive(Debug)]
pub enum Input {
    /// Run a function somewhere.
    Call(Submit),
    /// The outcome is no longer wanted.
    Cancel(CallId),
    /// A worker says what it can run.
    Offer {
        /// The worker.
        peer: PeerId,
        /// What it said.
        offer: Box<Offer>,
    },
    /// A worker's outcome.
    Result {
        /// The worker.
        peer: PeerId,
        /// Its run.
        run: RunId,
        /// What the function returned, or why not.
        outcome: Result<Box<Body>, Box<Refusal>>,
    },
    /// A worker's progress.
    Progress {
        /// The worker.
        peer: PeerId,
        /// Its run.
        run: RunId,
        /// 0 to 100.
        percent: Option<f64>,
        /// Words for a person.
        note: Option<Box<str>>,
    },
    /// A worker takes no more.
    Bye {
        /// The worker.
        peer: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
    },
    /// A run that could not be handed to its worker's connection: it has not begun.
    Unsent {
        /// The run.
        run: RunId,
        /// Why, where another worker would fare no better.
        refusal: Option<Refusal>,
    },
    /// A connection's life has ended.
    Gone {
        /// The peer.
        peer: PeerId,
        /// Runs that never left for it.
        unsent: Vec<RunId>,
    },
    /// There is news of another broker, which stands among the workers as this connection.
    Far {
        /// The connection.
        peer: PeerId,
        /// What.
        news: News,
    },
    /// Other brokers are to hear of the functions that are offered.
    Share,
    /// A connection has sent something, so it may be reading again.
    Spoke {
        /// Whose.
        peer: PeerId,
    },
    /// The broker is going down: nothing new.
    Drain,
    /// It goes down now: requests that wait get their outcome.
    End,
}

/// A call to place.
#[derive(Debug)]
pub struct Submit {
    /// Who gets the outcome.
    pub origin: Origin,
    /// What to run, and how.
    pub call: Arc<Call>,
    /// Monotonic nanoseconds after which nobody waits for it.
    pub deadline_ns: u64,
    /// Whether another broker sent it, so that it goes no further.
    pub here: bool,
}

/// What the system wants done.
#[derive(Debug)]
pub enum Output {
    /// The call was accepted under this id. Always before its `Done`.
    Begun {
        /// Who called.
        origin: Origin,
        /// Names it in `Input::Cancel`.
        call: CallId,
    },
    /// Send a run to a worker.
    Run {
        /// The worker.
        to: PeerId,
        /// The run.
        run: Run,
        /// Whether the worker stands for another broker.
        far: bool,
    },
    /// What this broker's own workers run has changed.
    Shared {
        /// What they have in common.
        function: Shared,
        /// Whether it may be repeated; none where nobody runs it any more.
        idempotent: Option<bool>,
    },
    /// Tell a worker to stop a run.
    Stop {
        /// The worker.
        to: PeerId,
        /// The run.
        run: RunId,
    },
    /// The one outcome.
    Done {
        /// Who called.
        origin: Origin,
        /// The result, or why there is none.
        outcome: Result<Box<Body>, Box<Refusal>>,
    },
    /// A run of an origin that wants progress was handed to a worker.
    Started {
        /// Who called.
        origin: Origin,
        /// From 1.
        attempt: u32,
    },
    /// A worker's progress.
    Progress {
        /// Who called.
        origin: Origin,
        /// 0 to 100.
        percent: Option<f64>,
        /// Words for a person.
        note: Option<Box<str>>,
    },
    /// Answers an offer.
    Offered {
        /// The worker.
        to: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
        /// Functions and credit in force, or why nothing changed.
        outcome: Result<(u32, u32), Box<Refusal>>,
    },
    /// A connection offers functions that offered none before.
    Joined {
        /// The worker.
        peer: PeerId,
    },
    /// A worker is one no longer.
    Left {
        /// The worker.
        peer: PeerId,
    },
    /// Answers a `bye`: nothing is in hand.
    Bye {
        /// The worker.
        to: PeerId,
        /// Echoed.
        id: Option<SmolStr>,
    },
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Calls and steps accepted.
    pub accepted: u64,
    /// Those that ended well.
    pub done: u64,
    /// Those that did not.
    pub failed: u64,
    /// Runs handed to a worker again after another was lost.
    pub moved: u64,
    /// Outcomes and progress for runs that are not, or no longer, in hand.
    pub stray: u64,
    /// Workers that left with runs in hand.
    pub lost_workers: u64,
}

/// The system of calls.
#[derive(Debug)]
pub struct Rpc {
    limits: Limits,
    calls: Slab<calls::Live>,
    serial: u32,
    registry: Registry,
    workers: Workers,
    deadlines: Deadlines<CallId>,
    /// Of runs: each is marked with the slot of its call.
    ids: Ids,
    rng: Rng,
    counters: Counters,
    draining: bool,
    /// Takes the place of a call that nobody waits for, so that its arguments can go.
    nothing: Arc<Call>,
    shared: far::Sharing,
}

impl Rpc {
    /// An empty system.
    #[must_use]
    pub fn new(cluster: SmolStr, limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            calls: Slab::new(),
            serial: 0,
            registry: Registry::new(seed),
            workers: Workers::new(cluster),
            deadlines: Deadlines::default(),
            ids: Ids::new(seed ^ 0x1d5),
            rng: Rng::new(seed ^ 0x2c7),
            counters: Counters::default(),
            draining: false,
            nothing: Arc::default(),
            shared: far::Sharing::default(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        match input {
            Input::Call(submit) => self.submit(now, submit, out),
            Input::Cancel(call) => self.cancel(call, out),
            Input::Offer { peer, offer } => self.offer(now, peer, *offer, out),
            Input::Result { peer, run, outcome } => self.result(now, peer, run, outcome, out),
            Input::Progress { peer, run, percent, note } => {
                self.progress(peer, run, percent, note, out);
            }
            Input::Bye { peer, id } => self.bye(now, peer, id, out),
            Input::Unsent { run, refusal } => self.unsent(now, run, refusal, out),
            Input::Gone { peer, unsent } => self.gone(now, peer, &unsent, out),
            Input::Far { peer, news } => self.far(now, peer, news, out),
            Input::Spoke { peer } => {
                if self.workers.recover(peer) {
                    self.pump(now, peer.slot, out);
                }
            }
            Input::Share => self.share(),
            Input::Drain => {
                self.draining = true;
                self.share_nothing(out);
            }
            Input::End => self.end_all(out),
        }
    }

    /// Ends the calls whose deadline has passed, and goes on telling of functions.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        self.share_some(out);
        while let Some(call) = self.deadlines.due(now.mono_ns) {
            self.expire(call, out);
        }
    }

    /// When `tick` next has work, in monotonic nanoseconds; 0 when there is work now.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        if self.shared.is_behind() {
            return Some(0);
        }
        self.deadlines.next_ns()
    }

    /// Counts since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether somebody's `Input::Spoke` would matter.
    #[must_use]
    pub const fn any_stalled(&self) -> bool {
        self.workers.any_stalled()
    }

    /// Whether the broker is going down.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Slots of the calls a connection has in hand.
    #[must_use]
    pub fn in_hand(&self, peer: PeerId) -> &[u32] {
        let worker = self.workers.get(peer.slot).filter(|worker| worker.peer == peer);
        worker.map_or(&[], |worker| &worker.in_hand)
    }

    /// Calls and steps that have no outcome yet, and runs a worker still has in hand.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }
}
