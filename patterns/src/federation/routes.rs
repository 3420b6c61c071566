//! The way to each broker: shortest paths over the links that both their ends speak of.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use smol_str::SmolStr;

use super::wire::Life;

/// Costs count in steps of this, so that paths that are as good as each other are shared.
const STEP_US: u32 = 500;

/// The way to one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Microseconds there and back, and the prices on the way, in steps.
    pub(super) cost_us: u32,
    /// The neighbours it may begin with, all at the same cost, in order.
    pub(super) first: Vec<SmolStr>,
    /// The brokers before it on the paths of that cost, in order.
    before: Vec<SmolStr>,
}

/// What is known of all links, and what follows for this broker.
#[derive(Debug)]
pub(super) struct Routes {
    me: SmolStr,
    /// In which life each broker is that has said something.
    epochs: BTreeMap<SmolStr, u64>,
    /// What each broker says of its links: to whom, in which life, at what cost.
    links: BTreeMap<SmolStr, BTreeMap<SmolStr, (u64, u32)>>,
    ways: BTreeMap<SmolStr, Way>,
    is_stale: bool,
}

impl Routes {
    pub(super) fn new(me: &Life) -> Self {
        let (links, ways, is_stale) = Default::default();
        let epochs = BTreeMap::from([(me.node.clone(), me.epoch)]);
        Self { me: me.node.clone(), epochs, links, ways, is_stale }
    }

    /// A broker says something for the first time in that life.
    pub(super) fn begin(&mut self, life: &Life) {
        self.forget(&life.node);
        self.is_stale = true;
        self.epochs.insert(life.node.clone(), life.epoch);
    }

    /// A broker says that it has a link to another in that life, at that cost, or has none.
    pub(super) fn set(&mut self, node: &SmolStr, to: &SmolStr, link: Option<(u64, u32)>) {
        self.is_stale = true;
        let links = self.links.entry(node.clone()).or_default();
        match link {
            Some(link) => links.insert(to.clone(), link),
            None => links.remove(to),
        };
    }

    /// Nothing a broker has said counts any more.
    pub(super) fn forget(&mut self, node: &str) {
        self.is_stale |= self.links.remove(node).is_some();
        self.epochs.remove(node);
    }

    /// Works the ways out anew, if something has changed. Whether it had.
    pub(super) fn refresh(&mut self) -> bool {
        if !std::mem::take(&mut self.is_stale) {
            return false;
        }
        let ways = self.shortest();
        std::mem::replace(&mut self.ways, ways) != self.ways
    }

    /// All brokers there is a way to, as of the last [`Routes::refresh`].
    pub(super) const fn ways(&self) -> &BTreeMap<SmolStr, Way> {
        &self.ways
    }

    /// The neighbour that a flow of packets to a broker goes through.
    pub(super) fn next(&self, to: &str, flow: u64) -> Option<&SmolStr> {
        let first = &self.ways.get(to)?.first;
        first.get((flow % first.len().max(1) as u64) as usize)
    }

    /// One of the shortest paths to a broker, this one first.
    pub(super) fn path(&self, to: &str) -> Option<Vec<SmolStr>> {
        let mut path = vec![SmolStr::new(to)];
        let mut at = self.ways.get(to)?;
        while let Some(before) = at.before.first().filter(|before| **before != self.me) {
            path.push(before.clone());
            at = self.ways.get(before)?;
        }
        path.push(self.me.clone());
        path.reverse();
        Some(path)
    }

    /// What a broker says a link costs.
    pub(super) fn said(&self, from: &str, to: &str) -> Option<u32> {
        self.links.get(from)?.get(to).map(|(_, cost_us)| *cost_us)
    }

    /// What a link costs that both ends speak of, each in its life: the more of what they say.
    fn cost(&self, from: &SmolStr, to: &SmolStr) -> Option<u32> {
        let (there_epoch, there_us) = self.links.get(from)?.get(to)?;
        let (back_epoch, back_us) = self.links.get(to)?.get(from)?;
        let is_now = |node, epoch| self.epochs.get(node) == Some(epoch);
        if !is_now(to, there_epoch) || !is_now(from, back_epoch) {
            return None;
        }
        Some((*there_us).max(*back_us).max(1).div_ceil(STEP_US).saturating_mul(STEP_US))
    }

    /// Dijkstra's algorithm from this broker, with all paths of the same cost.
    fn shortest(&self) -> BTreeMap<SmolStr, Way> {
        let mut ways: BTreeMap<SmolStr, Way> = BTreeMap::new();
        let mut open = BinaryHeap::from([Reverse((0_u32, self.me.clone()))]);
        while let Some(Reverse((cost_us, at))) = open.pop() {
            if ways.get(&at).is_some_and(|way| way.cost_us < cost_us) {
                continue;
            }
            let first = ways.get(&at).map(|way| way.first.clone()).unwrap_or_default();
            for next in self.links.get(&at).into_iter().flat_map(BTreeMap::keys) {
                let Some(link_us) = self.cost(&at, next).filter(|_| *next != self.me) else {
                    continue;
                };
                let reached_us = cost_us.saturating_add(link_us);
                let known = ways.get(next).map_or(u32::MAX, |way| way.cost_us);
                if reached_us > known || ways.get(next).is_some_and(|way| way.before.contains(&at))
                {
                    continue;
                }
                let way = ways.entry(next.clone()).or_default();
                if reached_us < known {
                    (way.first, way.before) = Default::default();
                    way.cost_us = reached_us;
                    open.push(Reverse((reached_us, next.clone())));
                }
                if at == self.me {
                    way.first.push(next.clone())
                } else {
                    way.first.extend(first.clone())
                }
                way.first.sort_unstable();
                way.first.dedup();
                way.before.push(at.clone());
                way.before.sort_unstable();
            }
        }
        ways
    }
}
