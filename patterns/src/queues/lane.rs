//! Messages in order, of which those at the front are in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::{Message, Place};

/// Where a message is in its lane: when it is due where that matters, then its number.
pub(super) type Order = (u64, u64);

/// A message and where it stands in the store.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) message: Arc<Message>,
}

impl Entry {
    pub(super) fn bytes(&self) -> u64 {
        self.message.bytes() as u64
    }
}

/// One lane of a line.
///
/// Of a long one only the front is in memory, the rest in the store alone. What comes in order goes
/// behind the rest; what was taken and comes back stands before it, so it goes into the front.
#[derive(Debug, Default)]
pub(super) struct Lane {
    front: BTreeMap<Order, Entry>,
    rest: u64,
    /// Of few lanes there ever is a rest.
    border: Option<Box<Border>>,
}

/// Between what is in memory and the rest.
#[derive(Debug, Default)]
struct Border {
    /// Not below anything that was ever in front, and below all of the rest.
    end: Order,
    /// What was asked of the store, and how much the rest was then.
    fetch: Option<(u32, u64)>,
    /// The first that came to the rest since: the store did not see it.
    late: Option<Order>,
}

impl Lane {
    /// A lane of which the store has so many.
    pub(super) fn stored(count: u64) -> Self {
        Self { rest: count, ..Self::default() }
    }

    /// Adds what has just come; without `room` the last of all stays in the store alone. `memory`
    /// counts the bytes of what is in front, here and below.
    pub(super) fn add(&mut self, order: Order, entry: Entry, room: bool, memory: &mut u64) {
        if self.rest > 0 {
            let border = self.border.get_or_insert_default();
            if order > border.end {
                self.rest += 1;
                border.late = Some(border.late.map_or(order, |late| late.min(order)));
                return;
            }
        }
        self.put_back(order, entry, memory);
        if !room && let Some((last, entry)) = self.front.pop_last() {
            *memory -= entry.bytes();
            self.border.get_or_insert_default().end = (last.0, last.1.saturating_sub(1));
            self.rest += 1;
        }
    }

    /// Adds what was taken before, or what no store has.
    pub(super) fn put_back(&mut self, order: Order, entry: Entry, memory: &mut u64) {
        *memory += entry.bytes();
        if let Some(twice) = self.front.insert(order, entry) {
            *memory -= twice.bytes();
        }
    }

    /// The first in memory.
    pub(super) fn first(&self) -> Option<(&Order, &Entry)> {
        self.front.first_key_value()
    }

    /// Takes it.
    pub(super) fn pop(&mut self, memory: &mut u64) -> Option<(Order, Entry)> {
        let taken = self.front.pop_first()?;
        *memory -= taken.1.bytes();
        Some(taken)
    }

    /// Messages in memory.
    pub(super) fn in_front(&self) -> usize {
        self.front.len()
    }

    /// Messages in all.
    pub(super) fn len(&self) -> u64 {
        self.front.len() as u64 + self.rest
    }

    /// Those in memory, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.front.values()
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self, memory: &mut u64) {
        *memory -= self.front.values().map(Entry::bytes).sum::<u64>();
        *self = Self::default();
    }

    /// Where to fetch behind, if fewer than `few` are in memory and the store has more.
    pub(super) fn wants(&mut self, few: usize, fetch: u32) -> Option<Option<Order>> {
        if self.rest == 0 || self.front.len() >= few {
            return None;
        }
        let border = self.border.get_or_insert_default();
        if border.fetch.is_some() {
            return None;
        }
        (border.fetch, border.late) = (Some((fetch, self.rest)), None);
        Some((border.end > (0, 0)).then_some(border.end))
    }

    /// Takes in what was fetched. False if that was asked before all was cleared away.
    pub(super) fn fill(
        &mut self,
        fetch: u32,
        messages: Vec<(Place, Arc<Message>)>,
        damaged: usize,
        end: bool,
        memory: &mut u64,
    ) -> bool {
        let mut border = self.border.take().unwrap_or_default();
        let Some((_, then)) = border.fetch.take_if(|(asked, _)| *asked == fetch) else {
            self.border = Some(border);
            return false;
        };
        // At the end there was no more then, whatever was thought; some may have come since.
        let read = if end { then } else { (messages.len() + damaged) as u64 };
        self.rest = self.rest.saturating_sub(read);
        for (place, message) in messages {
            let order = (place.at_ms, place.seq);
            if border.late.is_some_and(|late| late < order) {
                // It is read again, behind the one that came late.
                self.rest += 1;
                continue;
            }
            border.end = border.end.max(order);
            self.put_back(order, Entry { place, message }, memory);
        }
        self.border = Some(border);
        true
    }
}
