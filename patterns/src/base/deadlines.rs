//! Deadlines of one system: set, cancel, next, due.
//!
//! A hierarchical timing wheel (Varghese, Lauck 1987), since nearly every deadline is cancelled
//! long before it is due: setting and cancelling cost the same whatever the number in it.
//! Deadlines fire up to one tick (about a millisecond) late, never early.

use slab::Slab;

const TICK_SHIFT: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;

/// Names a deadline until it fires or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(u32);

#[derive(Debug)]
struct Node<K> {
    key: K,
    tick: u64,
    slot: u16,
    prev: u32,
    next: u32,
}

/// Deadlines with a key each.
#[derive(Debug)]
pub struct Deadlines<K> {
    nodes: Slab<Node<K>>,
    heads: Box<[u32]>,
    occupied: [u64; LEVELS],
    elapsed: u64,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self {
            nodes: Slab::new(),
            heads: vec![NONE; LEVELS * SLOTS].into_boxed_slice(),
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }
}

impl<K> Deadlines<K> {
    /// Asks for `key` once the monotonic clock has reached `at_ns`.
    pub fn set(&mut self, at_ns: u64, key: K) -> TimerId {
        let tick = (at_ns >> TICK_SHIFT) + 1;
        let index = self.nodes.insert(Node { key, tick, slot: 0, prev: NONE, next: NONE }) as u32;
        self.link(index);
        TimerId(index)
    }

    /// Forgets a deadline that has not fired.
    pub fn cancel(&mut self, id: TimerId) -> K {
        self.unlink(id.0);
        self.nodes.remove(id.0 as usize).key
    }

    /// How many deadlines are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no deadline is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// When to ask again, in monotonic nanoseconds: never after the next deadline, at times before.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, tick)| tick << TICK_SHIFT)
    }

    /// Takes one deadline that is due at `now_ns`.
    pub fn due(&mut self, now_ns: u64) -> Option<K> {
        let now = now_ns >> TICK_SHIFT;
        while let Some((level, slot, tick)) = self.next_slot() {
            if tick > now {
                break;
            }
            self.elapsed = self.elapsed.max(tick);
            let index = self.heads[level * SLOTS + slot];
            if level == 0 {
                self.unlink(index);
                return Some(self.nodes.remove(index as usize).key);
            }
            self.cascade(level * SLOTS + slot);
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// Moves every deadline of a slot to the finer level it now belongs to.
    fn cascade(&mut self, slot: usize) {
        let mut index = std::mem::replace(&mut self.heads[slot], NONE);
        self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let tick = self.nodes[index as usize].tick.max(self.elapsed);
        let level = level_of(self.elapsed, tick);
        let slot = level * SLOTS + position(tick, level);
        let head = std::mem::replace(&mut self.heads[slot], index);
        if head != NONE {
            self.nodes[head as usize].prev = index;
        }
        let node = &mut self.nodes[index as usize];
        (node.slot, node.prev, node.next) = (slot as u16, NONE, head);
        self.occupied[level] |= 1 << (slot % SLOTS);
    }

    fn unlink(&mut self, index: u32) {
        let (slot, prev, next) = {
            let node = &self.nodes[index as usize];
            (usize::from(node.slot), node.prev, node.next)
        };
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev != NONE {
            self.nodes[prev as usize].next = next;
            return;
        }
        self.heads[slot] = next;
        if next == NONE {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    /// The occupied slot whose time comes first, and the tick it begins at.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let here = position(self.elapsed, level);
            let ahead = self.occupied[level].rotate_right(here as u32).trailing_zeros() as usize;
            let slot = (here + ahead) % SLOTS;
            let shift = SLOT_BITS * level as u32;
            let base = (self.elapsed >> shift) + ahead as u64;
            return Some((level, slot, base << shift));
        }
        None
    }
}

/// The coarsest level at which `tick` and `elapsed` fall into different slots.
fn level_of(elapsed: u64, tick: u64) -> usize {
    let differing = (elapsed ^ tick) | (SLOTS as u64 - 1);
    let level = (63 - differing.leading_zeros()) / SLOT_BITS;
    (level as usize).min(LEVELS - 1)
}

fn position(tick: u64, level: usize) -> usize {
    ((tick >> (SLOT_BITS * level as u32)) as usize) % SLOTS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..36).prop_flat_map(|bits| (0..1_u64 << bits).prop_map(Step::Set)),
            (0_usize..64).prop_map(Step::Cancel),
            (0_u64..40).prop_flat_map(|bits| (0..1_u64 << bits).prop_map(Step::Advance)),
        ]
    }

    proptest! {
        /// The wheel fires what a sorted map of ticks fires, never early.
        #[test]
        fn fires_what_a_sorted_map_fires(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = Deadlines::default();
            let mut model: BTreeMap<u64, (u64, TimerId)> = BTreeMap::new();
            let (mut now, mut serial) = (0_u64, 0_u64);
            for step in steps {
                match step {
                    Step::Set(after) => {
                        serial += 1;
                        let id = wheel.set(now + after, serial);
                        model.insert(serial, (now + after, id));
                    }
                    Step::Cancel(nth) => {
                        if let Some((&key, &(_, id))) = model.iter().nth(nth) {
                            prop_assert_eq!(wheel.cancel(id), key);
                            model.remove(&key);
                        }
                    }
                    Step::Advance(by) => {
                        now += by;
                        while let Some(key) = wheel.due(now) {
                            let (at, _) = model.remove(&key).expect("fired once");
                            prop_assert!(at <= now, "early: {at} at {now}");
                        }
                        let late = 2 << TICK_SHIFT;
                        prop_assert!(model.values().all(|&(at, _)| at + late > now));
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.values().map(|&(at, _)| at).min();
                match (wheel.next_ns(), first) {
                    (None, None) => {}
                    (Some(next), Some(first)) => prop_assert!(next <= first + (1 << TICK_SHIFT)),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
