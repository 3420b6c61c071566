//! Functions by name and version, and the demands calls make of them.
//!
//! A demand is what calls with the same function, version range and locs have in common: the
//! workers that may take them and the line in which they wait. It is worked out once, when a
//! worker or a new kind of call appears, so that placing a call is one look-up.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use hashbrown::Equivalent;
use semver::{Version, VersionReq};
use slab::Slab;
use smol_str::SmolStr;

use super::workers::{Worker, Workers};
use crate::base::{CallId, Code, Map, Refusal, seeded};

/// Idle demands are forgotten beyond this number.
const IDLE_DEMANDS: usize = 1_024;
/// A line is cleaned of calls that gave up once it holds this many of them.
const STALE_CALLS: usize = 64;

/// Dense index of a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DemandId(pub(super) u32);

/// What a call asks of a worker. Locs are sorted and without repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DemandKey {
    pub(super) fun: SmolStr,
    pub(super) version: Option<SmolStr>,
    pub(super) locs: Box<[SmolStr]>,
    pub(super) cluster: Option<SmolStr>,
    /// Whether another broker sent it, so that it goes no further.
    pub(super) here: bool,
}

/// The same, borrowed from a call.
#[derive(Debug, Hash)]
pub(super) struct DemandRef<'a> {
    pub(super) fun: &'a str,
    pub(super) version: Option<&'a str>,
    pub(super) locs: &'a [SmolStr],
    pub(super) cluster: Option<&'a str>,
    pub(super) here: bool,
}

impl Hash for DemandKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (version, cluster) = (self.version.as_deref(), self.cluster.as_deref());
        let (locs, here) = (&self.locs, self.here);
        DemandRef { fun: &self.fun, version, locs, cluster, here }.hash(state);
    }
}

impl Equivalent<DemandKey> for DemandRef<'_> {
    fn equivalent(&self, key: &DemandKey) -> bool {
        self.fun == key.fun
            && self.version == key.version.as_deref()
            && self.locs == key.locs.as_ref()
            && self.cluster == key.cluster.as_deref()
            && self.here == key.here
    }
}

/// A worker that may take a demand's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) worker: u32,
    pub(super) idempotent: bool,
}

#[derive(Debug)]
pub(super) struct Demand {
    pub(super) key: DemandKey,
    /// Workers of this broker, then other brokers.
    pub(super) candidates: Vec<Candidate>,
    /// How many of them are this broker's.
    pub(super) near: usize,
    /// Calls in line; some may have given up, see `stale`.
    pub(super) line: VecDeque<CallId>,
    pub(super) stale: usize,
    /// Calls, waiting or running, that were placed through this demand.
    pub(super) users: u32,
}

impl Demand {
    /// Whether a call that still wants to run is in line.
    pub(super) fn has_waiting(&self) -> bool {
        self.line.len() > self.stale
    }

    /// How many calls still wait in line.
    pub(super) fn waiting(&self) -> usize {
        self.line.len() - self.stale
    }
}

#[derive(Debug)]
pub(super) struct Offered {
    pub(super) worker: u32,
    pub(super) source: Source,
    pub(super) version: Version,
    pub(super) idempotent: bool,
}

/// Where an offer comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A worker's own, by where it stands in what it said.
    Here(usize),
    /// Another broker's, for its workers with these locs.
    Far(Box<[SmolStr]>),
}

/// One function name.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) offered: Vec<Offered>,
    demands: Vec<DemandId>,
}

#[derive(Debug)]
pub(super) struct Registry {
    functions: Map<SmolStr, Entry>,
    demands: Slab<Demand>,
    by_key: Map<DemandKey, DemandId>,
    /// What was asked for last is often asked for again.
    last: usize,
    idle_sweep_at: usize,
}

impl Registry {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            functions: Map::with_hasher(seeded(seed)),
            demands: Slab::new(),
            by_key: Map::with_hasher(seeded(seed)),
            last: 0,
            idle_sweep_at: IDLE_DEMANDS,
        }
    }

    /// Whether a demand is remembered: workers may name one in whose line nobody stands any more.
    pub(super) fn knows(&self, id: DemandId) -> bool {
        self.demands.contains(id.0 as usize)
    }

    pub(super) fn demand(&self, id: DemandId) -> &Demand {
        &self.demands[id.0 as usize]
    }

    pub(super) fn demand_mut(&mut self, id: DemandId) -> &mut Demand {
        &mut self.demands[id.0 as usize]
    }

    pub(super) fn functions(&self) -> impl Iterator<Item = (&SmolStr, &Entry)> {
        self.functions.iter().filter(|(_, entry)| !entry.offered.is_empty())
    }

    /// The demand for what a call asks, made if it is new.
    pub(super) fn find(&mut self, wanted: &DemandRef<'_>, workers: &Workers) -> DemandId {
        if self.demands.get(self.last).is_some_and(|demand| wanted.equivalent(&demand.key)) {
            return DemandId(self.last as u32);
        }
        if let Some(&id) = self.by_key.get(wanted) {
            self.last = id.0 as usize;
            return id;
        }
        if self.demands.len() >= self.idle_sweep_at {
            self.forget_idle();
        }
        let key = DemandKey {
            fun: SmolStr::new(wanted.fun),
            version: wanted.version.map(SmolStr::new),
            locs: wanted.locs.into(),
            cluster: wanted.cluster.map(SmolStr::new),
            here: wanted.here,
        };
        let entry = self.functions.entry(key.fun.clone()).or_default();
        let (candidates, near) = candidates(entry, &key, workers);
        let (line, stale, users) = Default::default();
        let demand = Demand { key: key.clone(), candidates, near, line, stale, users };
        let id = DemandId(self.demands.insert(demand) as u32);
        entry.demands.push(id);
        self.by_key.insert(key, id);
        id
    }

    /// Who offers a function.
    pub(super) fn offered(&self, name: &str) -> &[Offered] {
        self.functions.get(name).map_or(&[], |entry| &entry.offered)
    }

    /// Adds one function of a worker.
    pub(super) fn add(&mut self, name: &SmolStr, offered: Offered) {
        self.functions.entry(name.clone()).or_default().offered.push(offered);
    }

    /// Takes one function of a worker away.
    pub(super) fn withdraw(&mut self, name: &str, worker: u32) {
        if let Some(entry) = self.functions.get_mut(name) {
            entry.offered.retain(|offered| offered.worker != worker);
        }
    }

    /// Works out anew who may take the calls of a function; returns its demands.
    pub(super) fn refresh(&mut self, name: &str, workers: &Workers) -> Vec<DemandId> {
        let Some(entry) = self.functions.get(name) else { return Vec::new() };
        for &id in &entry.demands {
            let demand = &mut self.demands[id.0 as usize];
            (demand.candidates, demand.near) = candidates(entry, &demand.key, workers);
        }
        let demands = entry.demands.clone();
        if entry.offered.is_empty() && demands.is_empty() {
            self.functions.remove(name);
        }
        demands
    }

    /// Takes the first call in line that still waits, by `alive`.
    pub(super) fn pop_waiting(
        &mut self,
        id: DemandId,
        alive: impl Fn(CallId) -> bool,
    ) -> Option<CallId> {
        let demand = self.demand_mut(id);
        while let Some(call) = demand.line.pop_front() {
            if alive(call) {
                return Some(call);
            }
            demand.stale -= 1;
        }
        None
    }

    /// Notes that a call in line gave up.
    pub(super) fn gave_up(&mut self, id: DemandId, alive: impl Fn(CallId) -> bool) {
        let demand = self.demand_mut(id);
        demand.stale += 1;
        if demand.stale >= STALE_CALLS && demand.stale * 2 > demand.line.len() {
            demand.line.retain(|&call| alive(call));
            demand.stale = 0;
        }
    }

    /// Says what was missing: the name, the version, the cluster, or the locs.
    pub(super) fn nobody(&self, id: DemandId, workers: &Workers) -> Refusal {
        let key = &self.demand(id).key;
        let offered = self.offered(&key.fun).iter();
        let offered: Vec<_> = offered.filter(|offered| !key.here || offered.is_here()).collect();
        if offered.is_empty() {
            let message = format!("no worker offers {}", key.fun);
            return Refusal::field(Code::UnknownFunction, "fun", message);
        }
        let range = parse_range(key.version.as_deref());
        if !offered.iter().any(|offered| matches(&range, &offered.version)) {
            let mut versions: Vec<_> = offered.iter().map(|o| &o.version).collect();
            versions.sort();
            versions.dedup();
            let versions: Vec<_> = versions.iter().take(16).map(ToString::to_string).collect();
            let wanted = key.version.as_deref().unwrap_or("*");
            let message =
                format!("no {} matches {wanted}; there is {}", key.fun, versions.join(", "));
            return Refusal::field(Code::NoVersion, "version", message);
        }
        let having = offered.iter().filter_map(|o| Some((*o, workers.get(o.worker)?)));
        let (having, elsewhere): (Vec<_>, Vec<_>) = having.partition(|(_, worker)| {
            key.cluster.as_ref().is_none_or(|cluster| workers.cluster(worker) == cluster)
        });
        if let (Some(cluster), true) = (&key.cluster, having.is_empty()) {
            let mut clusters: Vec<_> = elsewhere.iter().map(|(_, w)| workers.cluster(w)).collect();
            clusters.sort_unstable();
            clusters.dedup();
            clusters.truncate(16);
            let message =
                format!("nobody in {cluster} runs {}; it is in {}", key.fun, clusters.join(", "));
            return Refusal::field(Code::NoLocation, "cluster", message);
        }
        let named: Vec<_> = having
            .into_iter()
            .take(16)
            .map(|(offered, worker)| {
                format!("{} [{}]", worker.title(), offered.locs(worker).join(", "))
            })
            .collect();
        let message = format!(
            "nobody with {} has all of [{}]; it is on {}",
            key.fun,
            key.locs.join(", "),
            named.join(", ")
        );
        Refusal::field(Code::NoLocation, "locs", message)
    }

    fn forget_idle(&mut self) {
        let mut touched = Vec::new();
        self.demands.retain(|_, demand| {
            if demand.users == 0 {
                self.by_key.remove(&demand.key);
                touched.push(demand.key.fun.clone());
            }
            demand.users > 0
        });
        touched.sort_unstable();
        touched.dedup();
        for name in touched {
            let Some(entry) = self.functions.get_mut(&name) else { continue };
            entry.demands.retain(|id| self.demands.contains(id.0 as usize));
            if entry.offered.is_empty() && entry.demands.is_empty() {
                self.functions.remove(&name);
            }
        }
        self.idle_sweep_at = IDLE_DEMANDS.max(self.demands.len() * 2);
    }
}

impl Offered {
    /// Whether it is a worker of this broker.
    pub(super) const fn is_here(&self) -> bool {
        matches!(self.source, Source::Here(_))
    }

    /// The data that is where the function is.
    pub(super) fn locs<'o>(&'o self, worker: &'o Worker) -> &'o [SmolStr] {
        match &self.source {
            Source::Here(_) => &worker.offer.locs,
            Source::Far(locs) => locs,
        }
    }
}

/// Who may take a demand, those of this broker first, and how many they are.
///
/// All versions of a range share the work; without a range the highest version that has the locs,
/// a pre-release only where there is nothing else.
fn candidates(entry: &Entry, key: &DemandKey, workers: &Workers) -> (Vec<Candidate>, usize) {
    let range = parse_range(key.version.as_deref());
    let able = |offered: &&Offered| {
        matches(&range, &offered.version)
            && (!key.here || offered.is_here())
            && workers.get(offered.worker).is_some_and(|worker| {
                let locs = offered.locs(worker);
                key.locs.iter().all(|loc| locs.contains(loc))
                    && key.cluster.as_ref().is_none_or(|of| workers.cluster(worker) == of)
            })
    };
    let highest = match key.version {
        Some(_) => None,
        None => {
            let versions = entry.offered.iter().filter(able).map(|offered| &offered.version);
            versions.max_by_key(|version| (version.pre.is_empty(), *version))
        }
    };
    let able = entry.offered.iter().filter(able);
    let able = able.filter(|offered| highest.is_none_or(|version| offered.version == *version));
    let (here, mut far): (Vec<_>, Vec<_>) = able.partition(|offered| offered.is_here());
    // A broker may have several groups of workers for it.
    far.sort_by_key(|offered| offered.worker);
    far.dedup_by_key(|offered| offered.worker);
    let near = here.len();
    let candidate = |of: &Offered| Candidate { worker: of.worker, idempotent: of.idempotent };
    (here.into_iter().chain(far).map(candidate).collect(), near)
}

/// The range of a call; the door has refused what does not parse.
fn parse_range(version: Option<&str>) -> Option<VersionReq> {
    version.map(|text| VersionReq::parse(text).unwrap_or(VersionReq::STAR))
}

fn matches(range: &Option<VersionReq>, version: &Version) -> bool {
    range.as_ref().is_none_or(|range| range.matches(version))
}
