//! What each broker says about itself, and how far each neighbour has heard of it.
//!
//! Every broker counts the changes of its own facts. Whoever knows a catalog up to some version is
//! told what has changed since, in the order of the versions, by any neighbour that knows more. So
//! it does not matter over which links news comes, how often, or what was lost before.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::LinkId;
use super::rules::PATTERNS;
use super::wire::{Delta, Fact, Key, Known, Life};
use crate::base::limits::NAME_BYTES;

/// Facts that are gone are remembered up to this many for each broker: whoever knows less than
/// the oldest of them is told everything.
const TOMBSTONES: usize = 1_024;
/// Facts of one broker that another takes.
const FACTS: usize = 1 << 20;
/// Brokers whose catalogs are kept.
const BROKERS: usize = 4_096;
/// Bytes of one delta, about.
const DELTA_BYTES: usize = 64 << 10;
/// Bytes for one neighbour in one turn, about.
pub(super) const TURN_BYTES: usize = 256 << 10;

/// No broker changes so often.
const LAST: u64 = u64::MAX / 2;

/// What one broker says about itself.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) life: Life,
    pub(super) version: u64,
    facts: BTreeMap<Key, (u64, Option<Fact>)>,
    /// The same by the version in which each was said last.
    by_version: BTreeMap<u64, Key>,
    /// Those that are gone, by the version in which they went.
    gone: BTreeSet<u64>,
    /// What was gone up to this version is forgotten.
    floor: u64,
}

impl Entry {
    fn new(life: Life) -> Self {
        let (version, facts, by_version, gone, floor) = Default::default();
        Self { life, version, facts, by_version, gone, floor }
    }

    /// What it says, and under which keys.
    pub(super) fn facts(&self) -> impl Iterator<Item = (&Key, &Fact)> {
        self.facts.iter().filter_map(|(key, (_, fact))| Some((key, fact.as_ref()?)))
    }

    pub(super) fn fact(&self, key: &Key) -> Option<&Fact> {
        self.facts.get(key)?.1.as_ref()
    }

    fn put(&mut self, version: u64, key: Key, fact: Option<Fact>) {
        if let Some((before, _)) = self.facts.get(&key) {
            self.by_version.remove(before);
            self.gone.remove(before);
        }
        if fact.is_none() {
            self.gone.insert(version);
        }
        self.by_version.insert(version, key.clone());
        self.facts.insert(key, (version, fact));
        while self.gone.len() > TOMBSTONES
            && let Some(oldest) = self.gone.pop_first()
        {
            self.floor = oldest;
            if let Some(key) = self.by_version.remove(&oldest) {
                self.facts.remove(&key);
            }
        }
    }

    /// What to tell somebody who knows a version, as far as it goes into one delta.
    fn since(&self, known: u64) -> (Delta, usize) {
        // Whoever knows less than what is forgotten might keep what is gone.
        let from = if known < self.floor { 0 } else { known };
        let (mut changes, mut bytes, mut to) = (Vec::new(), 0, self.version);
        for (version, key) in self.by_version.range(from + 1..) {
            if bytes >= DELTA_BYTES {
                break;
            }
            let fact = self.facts.get(key).and_then(|(_, fact)| fact.clone());
            bytes += key_bytes(key) + fact.as_ref().map_or(0, Fact::bytes) + 16;
            changes.push((key.clone(), fact));
            to = *version;
        }
        if bytes < DELTA_BYTES {
            to = self.version;
        }
        (Delta { life: self.life.clone(), from, to, changes }, bytes + 64)
    }
}

/// What came of a delta.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was news.
    News {
        /// Whether everything before it is void.
        anew: bool,
        /// What has changed.
        changes: Vec<(Key, Option<Fact>)>,
    },
    /// It was known.
    Known,
    /// Something before it is missing.
    Gap,
    /// It makes no sense.
    Nonsense,
}

/// How far one neighbour has heard: broker, epoch and version.
type Heard = BTreeMap<SmolStr, (u64, u64)>;

/// All catalogs.
#[derive(Debug)]
pub(super) struct Catalog {
    me: SmolStr,
    entries: BTreeMap<SmolStr, Entry>,
    /// Neighbours that have said what they know.
    neighbours: BTreeMap<LinkId, Heard>,
    /// Brokers of which some neighbour may not have heard everything.
    news: BTreeSet<SmolStr>,
}

impl Catalog {
    pub(super) fn new(me: Life) -> Self {
        let name = me.node.clone();
        let entries = BTreeMap::from([(name.clone(), Entry::new(me))]);
        let (neighbours, news) = Default::default();
        Self { me: name, entries, neighbours, news }
    }

    pub(super) fn get(&self, node: &str) -> Option<&Entry> {
        self.entries.get(node)
    }

    pub(super) const fn entries(&self) -> &BTreeMap<SmolStr, Entry> {
        &self.entries
    }

    /// This broker says something about itself. Whether that is new.
    pub(super) fn own(&mut self, key: Key, fact: Option<Fact>) -> bool {
        let Some(entry) = self.entries.get_mut(&self.me) else { return false };
        if entry.fact(&key) == fact.as_ref() {
            return false;
        }
        entry.version += 1;
        entry.put(entry.version, key, fact);
        self.news.insert(self.me.clone());
        true
    }

    /// How much is known of everybody.
    pub(super) fn digest(&self) -> Vec<Known> {
        let known = |entry: &Entry| Known { life: entry.life.clone(), version: entry.version };
        self.entries.values().map(known).collect()
    }

    /// A neighbour says what it knows. Of a broker with this one's name, which epoch it knows.
    pub(super) fn heard(&mut self, link: LinkId, digest: Vec<Known>) -> Option<u64> {
        let known = digest.into_iter().take(BROKERS);
        let heard = known.map(|known| (known.life.node, (known.life.epoch, known.version)));
        let heard: BTreeMap<_, _> = heard.collect();
        let mine = heard.get(&self.me).map(|(epoch, _)| *epoch);
        self.neighbours.insert(link, heard);
        self.news.extend(self.entries.keys().cloned());
        mine
    }

    /// A link is down, or up again: nobody there has said anything.
    pub(super) fn cut(&mut self, link: LinkId) {
        self.neighbours.remove(&link);
    }

    /// A neighbour tells what another broker says.
    pub(super) fn take(&mut self, link: LinkId, delta: Delta) -> Taken {
        let Delta { life, from, to, changes } = delta;
        if life.node == self.me || !fits(&life, &changes) || from > to || to > LAST {
            return Taken::Nonsense;
        }
        if let Some(heard) = self.neighbours.get_mut(&link) {
            let known = heard.entry(life.node.clone()).or_insert((life.epoch, to));
            *known = (*known).max((life.epoch, to));
        }
        let known = self.entries.get(&life.node);
        if known.is_none() && self.entries.len() >= BROKERS {
            return Taken::Nonsense;
        }
        let is_older = |entry: &Entry| {
            (entry.life.epoch, entry.version) >= (life.epoch, to) || entry.life.epoch > life.epoch
        };
        if known.is_some_and(is_older) {
            return Taken::Known;
        }
        let is_same = known.is_some_and(|entry| entry.life == life);
        if from > 0 && !(is_same && known.is_some_and(|entry| from <= entry.version)) {
            return Taken::Gap;
        }
        let anew = from == 0;
        let kept = known.filter(|_| !anew).map_or(0, |entry| entry.facts.len());
        if kept + changes.len() > FACTS {
            return Taken::Nonsense;
        }
        let mut gone = Vec::new();
        if anew {
            let before = self.entries.insert(life.node.clone(), Entry::new(life.clone()));
            let before = before.filter(|before| before.life == life);
            let keys = before.into_iter().flat_map(|before| before.facts.into_keys());
            let told: BTreeSet<&Key> = changes.iter().map(|(key, _)| key).collect();
            gone.extend(keys.filter(|key| !told.contains(key)).map(|key| (key, None)));
        }
        let Some(entry) = self.entries.get_mut(&life.node) else { return Taken::Nonsense };
        // Only their order matters from here on: the last has the delta's own version.
        let first = (to + 1).saturating_sub(changes.len() as u64).max(1);
        for (version, (key, fact)) in (first..).zip(&changes) {
            entry.put(version, key.clone(), fact.clone());
        }
        entry.version = to;
        self.news.insert(life.node);
        gone.extend(changes);
        Taken::News { anew, changes: gone }
    }

    /// What neighbours are to hear now, about as much as goes into one turn.
    pub(super) fn tell(&mut self) -> Vec<(LinkId, Delta)> {
        let mut told = Vec::new();
        let mut unfinished = BTreeSet::new();
        for (link, heard) in &mut self.neighbours {
            let mut room = TURN_BYTES;
            for node in &self.news {
                let Some(entry) = self.entries.get(node) else { continue };
                loop {
                    let known = heard.get(node).copied().unwrap_or_default();
                    if known >= (entry.life.epoch, entry.version) || known.0 > entry.life.epoch {
                        break;
                    }
                    if room == 0 {
                        unfinished.insert(node.clone());
                        break;
                    }
                    let version = if known.0 == entry.life.epoch { known.1 } else { 0 };
                    let (delta, bytes) = entry.since(version);
                    room = room.saturating_sub(bytes);
                    heard.insert(node.clone(), (entry.life.epoch, delta.to));
                    told.push((*link, delta));
                }
            }
        }
        self.news = unfinished;
        told
    }

    /// Whether some neighbour may not have heard everything.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Nothing is known of a broker any more.
    pub(super) fn forget(&mut self, node: &str) {
        self.entries.remove(node);
        self.news.remove(node);
        for heard in self.neighbours.values_mut() {
            heard.remove(node);
        }
    }
}

/// Whether names are names, so that they may be kept and passed on.
fn fits(life: &Life, changes: &[(Key, Option<Fact>)]) -> bool {
    let fits = |name: &SmolStr| !name.is_empty() && name.len() <= NAME_BYTES;
    let key_fits = |key: &Key| match key {
        Key::About | Key::Load => true,
        Key::Link(name)
        | Key::Queue(name)
        | Key::Interest(name)
        | Key::Bound(name)
        | Key::Rule(name) => fits(name),
        Key::Function { name, version, locs } => {
            fits(name) && fits(version) && locs.len() <= FACTS && locs.iter().all(fits)
        }
    };
    let fact_fits = |fact: &Option<Fact>| match fact {
        Some(Fact::Rule { export, import }) => {
            [export, import].iter().all(|list| list.len() <= PATTERNS && list.iter().all(fits))
        }
        _ => true,
    };
    fits(&life.node) && changes.iter().all(|(key, fact)| key_fits(key) && fact_fits(fact))
}

fn key_bytes(key: &Key) -> usize {
    match key {
        Key::About | Key::Load => 256,
        Key::Link(name)
        | Key::Queue(name)
        | Key::Interest(name)
        | Key::Bound(name)
        | Key::Rule(name) => name.len(),
        Key::Function { name, version, locs } => {
            name.len() + version.len() + locs.iter().map(SmolStr::len).sum::<usize>()
        }
    }
}
