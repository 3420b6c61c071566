//! Other brokers that run functions: each stands among the workers as one that takes a lot.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use smol_str::SmolStr;

use super::registry::{Candidate, Offered, Source};
use super::workers::{Worker, Workers};
use super::{Output, Rpc};
use crate::base::{Code, Culprit, Out, PeerId, Refusal, Time};

/// Runs in another broker's hands at once. What it has no worker for yet waits there.
const FAR_WINDOW: u32 = 4_096;
/// So often a call is turned down by brokers that were thought to run it before its caller hears.
pub(super) const TURNED_DOWN: u32 = 8;
/// Functions of which other brokers are told in one tick.
const SHARED_PER_TICK: usize = 256;

/// A function as brokers tell each other of it: what all workers with the same locs have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    /// Its name.
    pub name: SmolStr,
    /// Semver.
    pub version: SmolStr,
    /// The data that is where it is: sorted, without repeats.
    pub locs: Vec<SmolStr>,
}

/// What other brokers hear of this broker's own workers.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Whether there are any that could hear.
    begun: bool,
    /// Names of which they may not have heard all.
    changed: BTreeSet<SmolStr>,
    /// What they were told of each function.
    told: BTreeMap<SmolStr, BTreeMap<Shared, bool>>,
}

impl Sharing {
    /// A function may be run by other workers than before.
    pub(super) fn changed(&mut self, name: &str) {
        if self.begun {
            self.changed.insert(name.into());
        }
    }

    /// Whether something is still to be told.
    pub(super) fn is_behind(&self) -> bool {
        !self.changed.is_empty()
    }
}

/// What is known of another broker.
#[derive(Debug)]
pub(super) struct Far {
    pub(super) node: SmolStr,
    /// Empty until it has said so.
    pub(super) cluster: SmolStr,
    /// Microseconds there and back, and the prices on the way.
    cost_us: u32,
    /// Runs in hand or in line there, from everywhere.
    in_flight: u32,
    /// What all its workers take at once.
    credit: u32,
    /// What it runs, and whether that may be repeated.
    functions: BTreeMap<Shared, bool>,
}

impl Far {
    /// The names of its functions.
    pub(super) fn names(&self) -> Vec<SmolStr> {
        let mut names: Vec<_> = self.functions.keys().map(|shared| shared.name.clone()).collect();
        names.dedup();
        names
    }

    /// What a run there costs: the way, and more where much waits already.
    fn weight(&self, in_hand: usize) -> u64 {
        let credit = u64::from(self.credit.max(1));
        let load = u64::from(self.in_flight).max(in_hand as u64);
        u64::from(self.cost_us.max(1)).saturating_mul(credit + load) / credit
    }
}

/// What happens to another broker, as far as calls go.
#[derive(Debug)]
pub enum News {
    /// It can be reached.
    Reached {
        /// Its name.
        node: SmolStr,
        /// Microseconds there and back, and the prices on the way.
        cost_us: u32,
    },
    /// Which cluster it belongs to.
    Cluster(SmolStr),
    /// The way to it costs something else now.
    Cost(u32),
    /// How busy it is.
    Load {
        /// Runs in hand or in line there.
        in_flight: u32,
        /// What all its workers take at once.
        credit: u32,
    },
    /// What it runs has changed: whether that may be repeated, or none where it is gone.
    Runs(Vec<(Shared, Option<bool>)>),
}

impl Rpc {
    pub(super) fn far(&mut self, now: Time, peer: PeerId, news: News, out: &mut Out<Output>) {
        if let News::Reached { node, cost_us } = news {
            let (cluster, in_flight, credit, functions) = Default::default();
            let far = Far { node, cluster, cost_us, in_flight, credit, functions };
            let far = Some(Box::new(far));
            return self.workers.insert(Worker { far, ..Worker::new(peer, FAR_WINDOW) });
        }
        let worker = self.workers.of(peer).and_then(|worker| worker.far.as_mut());
        let Some(far) = worker else { return };
        match news {
            News::Reached { .. } => {}
            News::Cluster(cluster) => {
                far.cluster = cluster;
                for name in far.names() {
                    self.refresh_one(&name, None, now, out);
                }
            }
            News::Cost(cost_us) => far.cost_us = cost_us,
            News::Load { in_flight, credit } => (far.in_flight, far.credit) = (in_flight, credit),
            News::Runs(changes) => self.runs(now, peer, changes, out),
        }
    }

    fn runs(
        &mut self,
        now: Time,
        peer: PeerId,
        changes: Vec<(Shared, Option<bool>)>,
        out: &mut Out<Output>,
    ) {
        let worker = self.workers.of(peer).and_then(|worker| worker.far.as_mut());
        let Some(far) = worker else { return };
        let mut touched: Vec<_> = changes.iter().map(|(shared, _)| shared.name.clone()).collect();
        for (shared, idempotent) in changes {
            match idempotent {
                Some(idempotent) => far.functions.insert(shared, idempotent),
                None => far.functions.remove(&shared),
            };
        }
        touched.sort_unstable();
        touched.dedup();
        for name in &touched {
            self.registry.withdraw(name, peer.slot);
            let first = Shared { name: name.clone(), version: SmolStr::default(), locs: vec![] };
            for (shared, &idempotent) in far.functions.range(first..) {
                if shared.name != *name {
                    break;
                }
                let Ok(version) = Version::parse(&shared.version) else { continue };
                let source = Source::Far(shared.locs.clone().into());
                let offered = Offered { worker: peer.slot, source, version, idempotent };
                self.registry.add(name, offered);
            }
        }
        for name in &touched {
            self.refresh_one(name, None, now, out);
        }
        self.pump(now, peer.slot, out);
    }

    /// Whether another broker says no although it was thought to run it: it has not begun.
    pub(super) fn turns_down(&mut self, peer: PeerId, refusal: &Refusal) -> bool {
        const NOT_BEGUN: [Code; 5] =
            [Code::UnknownFunction, Code::NoVersion, Code::NoLocation, Code::Busy, Code::Draining];
        refusal.culprit != Culprit::Worker
            && NOT_BEGUN.iter().any(|&code| refusal.is(code))
            && self.workers.of(peer).is_some_and(|worker| worker.far.is_some())
    }

    /// Other brokers are to hear what this broker's own workers run, from now on.
    pub(super) fn share(&mut self) {
        if !self.shared.begun {
            self.shared.begun = true;
            self.shared.changed.extend(self.registry.functions().map(|(name, _)| name.clone()));
        }
    }

    /// Tells a few of the functions that have changed: an offer may hold thousands.
    pub(super) fn share_some(&mut self, out: &mut Out<Output>) {
        for _ in 0..SHARED_PER_TICK {
            let Some(name) = self.shared.changed.pop_first() else { break };
            self.share_one(name, out);
        }
    }

    /// Tells what of a function this broker's own workers run, as far as that has changed.
    fn share_one(&mut self, name: SmolStr, out: &mut Out<Output>) {
        let mut here: BTreeMap<Shared, bool> = BTreeMap::new();
        let offered = self.registry.offered(&name).iter();
        for offered in offered.filter(|offered| offered.is_here()) {
            let Some(worker) = self.workers.get(offered.worker) else { continue };
            let mut locs = offered.locs(worker).to_vec();
            locs.sort_unstable();
            locs.dedup();
            let version = smol_str::format_smolstr!("{}", offered.version);
            let shared = Shared { name: name.clone(), version, locs };
            *here.entry(shared).or_insert(true) &= offered.idempotent;
        }
        let before = match here.is_empty() {
            true => self.shared.told.remove(&name).unwrap_or_default(),
            false => self.shared.told.insert(name, here.clone()).unwrap_or_default(),
        };
        for function in before.keys().filter(|function| !here.contains_key(*function)) {
            out.push(Output::Shared { function: function.clone(), idempotent: None });
        }
        for (function, idempotent) in here {
            if before.get(&function) != Some(&idempotent) {
                out.push(Output::Shared { function, idempotent: Some(idempotent) });
            }
        }
    }

    /// Other brokers are to send nothing more.
    pub(super) fn share_nothing(&mut self, out: &mut Out<Output>) {
        let told = std::mem::take(&mut self.shared).told;
        let mut shared: Vec<Shared> = told.into_values().flat_map(BTreeMap::into_keys).collect();
        shared.sort_unstable();
        for function in shared {
            out.push(Output::Shared { function, idempotent: None });
        }
    }

    /// How busy this broker's own workers are: runs in hand or in line, and what they take.
    #[must_use]
    pub fn load(&self) -> (u32, u32) {
        let here = self.workers.iter().filter(|worker| worker.far.is_none());
        let credit = here.map(|worker| worker.credit).fold(0_u32, u32::saturating_add);
        let away = self.workers.iter().filter(|worker| worker.far.is_some());
        let away: usize = away.map(|worker| worker.in_hand.len()).sum();
        (self.calls.len().saturating_sub(away) as u32, credit)
    }
}

/// The broker with the least weight among those that take more.
pub(super) fn nearest(candidates: &[Candidate], workers: &Workers) -> Option<Candidate> {
    let free = candidates.iter().filter_map(|candidate| {
        let worker = workers.get(candidate.worker).filter(|worker| worker.has_credit())?;
        let far = worker.far.as_ref()?;
        Some((far.weight(worker.in_hand.len()), *candidate))
    });
    free.min_by_key(|(weight, _)| *weight).map(|(_, candidate)| candidate)
}
