//! What one group of one queue has: ready, delayed, in hand, dead.

use std::collections::VecDeque;
use std::sync::Arc;

use smol_str::SmolStr;

use super::Holder;
use super::lane::{Entry, Lane, Order};
use super::settings::{Kind, Settings};
use crate::base::limits::{FRONT_BYTES, FRONT_COUNT, FRONT_FEW, KEYS_PARKED};
use crate::base::{Map, Set, TimerId, seeded};
use crate::store::{Ask, LANE_DEAD, LANE_DELAYED, LANES_READY, Load, Message, Place};

/// The lane of a message that may go at once.
fn ready_lane(priority: u8) -> u8 {
    LANES_READY - 1 - priority.min(LANES_READY - 1)
}

/// A key of which a message is in hand, or on its way back.
#[derive(Debug, Default)]
struct Busy {
    /// Its number.
    seq: u64,
    /// Those behind it, in order.
    parked: VecDeque<(Order, Entry)>,
}

/// What a taker gets.
pub(super) enum Taken {
    /// This.
    Entry(Entry),
    /// This has outlived its time.
    Expired(Entry),
    /// Nothing for now.
    Nothing,
}

/// One group of one queue.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u32,
    pub(super) queue: u32,
    pub(super) group: Option<SmolStr>,
    pub(super) next_seq: u64,
    /// Lanes that have or had something, in order.
    ready: Vec<(u8, Lane)>,
    delayed: Lane,
    /// In memory for a queue in memory only.
    dead: Lane,
    /// All but the dead.
    pub(super) held: Load,
    pub(super) dead_load: Load,
    pub(super) in_hand: u32,
    busy: Map<SmolStr, Busy>,
    parked: u32,
    /// Consumers with credit left, in turn, and their connections: once one is gone its place in
    /// the table is another's.
    pub(super) takers: VecDeque<(u32, Holder)>,
    /// Calls of `mpreg.queue.next`, in turn.
    pub(super) waits: VecDeque<(u32, u32)>,
    pub(super) consumers: u32,
    /// When the first of the delayed is due, as far as a timer is set.
    pub(super) timer: Option<(u64, TimerId)>,
    /// Whether it stands among those that are to be served.
    pub(super) hungry: bool,
}

/// An idle queue is a queue and a line; an allocator has room for 320 bytes, and then for 384.
const _: () = assert!(size_of::<Line>() <= 320);

impl Line {
    /// An empty one. `seed` starts the hashes of keys, so that no sender can aim for one bucket.
    pub(super) fn new(number: u32, queue: u32, group: Option<SmolStr>, seed: u64) -> Self {
        Self {
            number,
            queue,
            group,
            next_seq: 1,
            ready: Vec::new(),
            delayed: Lane::default(),
            dead: Lane::default(),
            held: Load::default(),
            dead_load: Load::default(),
            in_hand: 0,
            busy: Map::with_hasher(seeded(seed)),
            parked: 0,
            takers: VecDeque::new(),
            waits: VecDeque::new(),
            consumers: 0,
            timer: None,
            hungry: false,
        }
    }

    /// Takes over what the store has of it; nothing is in hand any more.
    pub(super) fn restore(&mut self, lanes: &[Load], next_seq: u64, memory: &mut u64) {
        self.clear(memory);
        (self.held, self.dead_load) = (Load::default(), Load::default());
        self.busy.clear();
        self.next_seq = next_seq;
        for (lane, load) in (0_u8..).zip(lanes).filter(|(_, load)| load.count > 0) {
            match lane {
                LANE_DELAYED => self.delayed = Lane::stored(load.count),
                LANE_DEAD => {}
                _ => self.ready.push((lane, Lane::stored(load.count))),
            }
            let of = if lane == LANE_DEAD { &mut self.dead_load } else { &mut self.held };
            of.count += load.count;
            of.bytes += load.bytes;
        }
    }

    /// Forgets what is ready or delayed, and leaves what is in hand. The lanes that held some.
    pub(super) fn clear(&mut self, memory: &mut u64) -> Vec<u8> {
        let mut lanes: Vec<u8> = self.ready.iter().map(|(lane, _)| *lane).collect();
        self.ready.iter_mut().for_each(|(_, lane)| lane.clear(memory));
        self.ready.clear();
        // What was delayed stands there still once it is ready, or in hand.
        lanes.push(LANE_DELAYED);
        self.delayed.clear(memory);
        for busy in self.busy.values_mut() {
            *memory -= busy.parked.drain(..).map(|(_, entry)| entry.bytes()).sum::<u64>();
        }
        self.parked = 0;
        lanes
    }

    /// Lets all keys go but those of what is in hand: nothing else of them is left.
    pub(super) fn release_all_but(&mut self, in_hand: &[Entry]) {
        let held: Set<u64> = in_hand.iter().map(|entry| entry.place.seq).collect();
        self.busy.retain(|_, busy| held.contains(&busy.seq));
    }

    pub(super) fn clear_dead(&mut self, memory: &mut u64) {
        self.dead.clear(memory);
        self.dead_load = Load::default();
    }

    fn lane(&mut self, lane: u8) -> &mut Lane {
        let at = self.ready.binary_search_by_key(&lane, |(lane, _)| *lane);
        let at = at.unwrap_or_else(|at| {
            self.ready.insert(at, (lane, Lane::default()));
            at
        });
        &mut self.ready[at].1
    }

    /// The next place for a message that is due then, 0 for at once.
    pub(super) fn place(&mut self, kind: Kind, priority: u8, due_ms: u64) -> Place {
        let seq = self.next_seq;
        self.next_seq += 1;
        let delayed = due_ms > 0 || kind == Kind::Delay;
        let lane = if delayed { LANE_DELAYED } else { ready_lane(priority) };
        Place { line: self.number, lane, at_ms: due_ms, seq }
    }

    /// Adds a message that has just come.
    pub(super) fn add(&mut self, entry: Entry, stored: bool, memory: &mut u64) {
        self.held.count += 1;
        self.held.bytes += entry.bytes();
        self.enter(entry, stored, memory);
    }

    /// Puts a message where its place says. It is counted already. What is stored need not be in
    /// memory: whoever is in time gets it from there, the rest is read again when its turn comes.
    pub(super) fn enter(&mut self, entry: Entry, stored: bool, memory: &mut u64) {
        let most = match stored {
            true if *memory < FRONT_BYTES => FRONT_COUNT,
            true => 0,
            false => usize::MAX,
        };
        let order = (entry.place.at_ms, entry.place.seq);
        match entry.place.lane {
            LANE_DELAYED => {
                let room = self.delayed.in_front() < most;
                self.delayed.add(order, entry, room, memory);
            }
            lane => {
                let lane = self.lane(lane);
                let room = lane.in_front() < most;
                lane.add(order, entry, room, memory);
            }
        }
    }

    /// Puts a message that is ready before those that came later.
    pub(super) fn put_back(&mut self, kind: Kind, entry: Entry, memory: &mut u64) {
        let order = match kind {
            Kind::Delay => (entry.place.at_ms, entry.place.seq),
            _ => (0, entry.place.seq),
        };
        self.lane(ready_lane(entry.message.priority)).put_back(order, entry, memory);
    }

    /// When the first of the delayed is due, milliseconds since 1970.
    pub(super) fn first_due_ms(&self) -> Option<u64> {
        self.delayed.first().map(|(order, _)| order.0)
    }

    /// Makes ready what is due, so many at most.
    pub(super) fn ripen(&mut self, kind: Kind, now_ms: u64, most: usize, memory: &mut u64) {
        for _ in 0..most {
            if self.first_due_ms().is_none_or(|due| due > now_ms) {
                break;
            }
            let Some((_, entry)) = self.delayed.pop(memory) else { break };
            self.put_back(kind, entry, memory);
        }
    }

    /// Takes the next message that may go now.
    pub(super) fn take(&mut self, now_ms: u64, memory: &mut u64) -> Taken {
        while (self.parked as usize) < KEYS_PARKED {
            let front = self.ready.iter_mut().find(|(_, lane)| lane.in_front() > 0);
            let Some((order, entry)) = front.and_then(|(_, lane)| lane.pop(memory)) else { break };
            if entry.message.expires_ms.is_some_and(|at| at <= now_ms) {
                return Taken::Expired(entry);
            }
            let Some(key) = &entry.message.key else { return Taken::Entry(entry) };
            let seq = entry.place.seq;
            match self.busy.get_mut(key) {
                Some(busy) if busy.seq != seq => {
                    *memory += entry.bytes();
                    busy.parked.push_back((order, entry));
                    self.parked += 1;
                }
                Some(_) => return Taken::Entry(entry),
                None => {
                    self.busy.insert(key.clone(), Busy { seq, parked: VecDeque::new() });
                    return Taken::Entry(entry);
                }
            }
        }
        Taken::Nothing
    }

    /// The oldest that is ready and in memory: it is to make room.
    pub(super) fn oldest(&mut self, memory: &mut u64) -> Option<Entry> {
        let lane = self.ready.iter_mut().rev().find(|(_, lane)| lane.in_front() > 0);
        lane.and_then(|(_, lane)| lane.pop(memory)).map(|(_, entry)| entry)
    }

    /// A message is out of the way for good: the next of its key may go.
    pub(super) fn release(&mut self, entry: &Entry, memory: &mut u64) {
        let Some(key) = &entry.message.key else { return };
        let Some(busy) = self.busy.get_mut(key).filter(|busy| busy.seq == entry.place.seq) else {
            return;
        };
        match busy.parked.pop_front() {
            Some((order, entry)) => {
                busy.seq = entry.place.seq;
                self.parked -= 1;
                *memory -= entry.bytes();
                self.lane(ready_lane(entry.message.priority)).put_back(order, entry, memory);
            }
            None => {
                self.busy.remove(key);
            }
        }
    }

    /// A message is no longer among those held.
    pub(super) fn forget(&mut self, entry: &Entry) {
        self.held.count = self.held.count.saturating_sub(1);
        self.held.bytes = self.held.bytes.saturating_sub(entry.bytes());
    }

    /// Takes a dead letter in.
    pub(super) fn bury(&mut self, entry: &Entry, stored: bool, memory: &mut u64) {
        self.dead_load.count += 1;
        self.dead_load.bytes += entry.bytes();
        if !stored {
            self.dead.put_back((entry.place.at_ms, entry.place.seq), entry.clone(), memory);
        }
    }

    /// Takes the first dead letter of a queue in memory.
    pub(super) fn exhume(&mut self, memory: &mut u64) -> Option<Entry> {
        let (_, entry) = self.dead.pop(memory)?;
        self.rise(&entry);
        Some(entry)
    }

    /// A message could not be read and is not in the store any more. What is in memory, or in
    /// somebody's hands, is there all the same.
    pub(super) fn set_aside(&mut self, place: &Place, in_hand: bool) {
        let mut parked = self.busy.values().flat_map(|busy| busy.parked.iter().map(|(_, it)| it));
        if place.lane == LANE_DEAD {
            self.dead_load.count = self.dead_load.count.saturating_sub(1);
        } else if !in_hand
            && !parked.any(|entry| entry.place == *place)
            && !self.iter(false).any(|entry| entry.place == *place)
        {
            self.held.count = self.held.count.saturating_sub(1);
        }
    }

    /// A dead letter is none any more.
    pub(super) fn rise(&mut self, entry: &Entry) {
        self.dead_load.count = self.dead_load.count.saturating_sub(1);
        self.dead_load.bytes = self.dead_load.bytes.saturating_sub(entry.bytes());
    }

    /// What to ask the store for, if more is wanted in memory.
    pub(super) fn wanted(&mut self, fetch: u32) -> Option<Ask> {
        let number = self.number;
        let ask = |lane, after| {
            let (count, bytes) = (FRONT_COUNT as u32 / 2, 4 << 20);
            Ask::Fetch { fetch, line: number, lane, after, count, bytes }
        };
        if let Some(after) = self.delayed.wants(1, fetch) {
            return Some(ask(LANE_DELAYED, after));
        }
        // Those of a lower priority than the first have time.
        let (lane, messages) = self.ready.iter_mut().find(|(_, lane)| lane.len() > 0)?;
        messages.wants(FRONT_FEW, fetch).map(|after| ask(*lane, after))
    }

    /// Takes in what was fetched of a lane.
    pub(super) fn fill(
        &mut self,
        lane: u8,
        fetch: u32,
        found: Found<'_>,
        memory: &mut u64,
    ) -> bool {
        let Found { messages, damaged, end } = found;
        self.held.count = self.held.count.saturating_sub(damaged.len() as u64);
        let of = if lane == LANE_DELAYED { &mut self.delayed } else { self.lane(lane) };
        // Where they stood, others may have come since.
        of.fill(fetch, messages, damaged.len(), end, memory)
    }

    /// Messages that wait for their time.
    pub(super) fn delayed(&self) -> u64 {
        self.delayed.len()
    }

    /// Messages that a consumer could have now, those behind their key included.
    pub(super) fn ready(&self) -> u64 {
        self.held.count.saturating_sub(u64::from(self.in_hand) + self.delayed.len())
    }

    /// Those of a queue in memory, in order.
    pub(super) fn iter(&self, dead: bool) -> impl Iterator<Item = &Entry> {
        let ready = self.ready.iter().filter(move |_| !dead).flat_map(|(_, lane)| lane.iter());
        ready.chain(self.dead.iter().filter(move |_| dead))
    }

    /// Lanes of what is ready that hold something.
    pub(super) fn lanes(&self) -> Vec<u8> {
        let full = self.ready.iter().filter(|(_, lane)| lane.len() > 0);
        full.map(|(lane, _)| *lane).collect()
    }

    /// Whether there is room for one more of so many bytes.
    pub(super) fn has_room(&self, settings: &Settings, bytes: u64) -> bool {
        self.held.count < settings.max_count && self.held.bytes + bytes <= settings.max_bytes
    }
}

/// What a fetch found.
pub(super) struct Found<'a> {
    pub(super) messages: Vec<(Place, Arc<Message>)>,
    pub(super) damaged: &'a [Place],
    pub(super) end: bool,
}
