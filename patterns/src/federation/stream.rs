//! Numbered items to an end that may lose what is on its way: kept until they are acknowledged,
//! told apart when they come twice.

use std::collections::VecDeque;

/// What an item that has come is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The next one: take it.
    New,
    /// It has come before: drop it.
    Repeated,
    /// Something before it has not come: drop it, it will come again.
    Gap,
}

#[derive(Debug)]
struct Kept<T> {
    item: T,
    bytes: usize,
}

/// Both directions at one end: what goes out is numbered from 1, and so is what comes in.
#[derive(Debug)]
pub struct Stream<T> {
    kept: VecDeque<Kept<T>>,
    bytes: usize,
    /// The other end has everything up to here.
    acked: u64,
    /// Given out up to here since the last rewind.
    given: u64,
    /// Given out up to here at any time: nothing beyond it can be acknowledged.
    most_given: u64,
    received: u64,
}

impl<T> Default for Stream<T> {
    fn default() -> Self {
        Self { kept: VecDeque::new(), bytes: 0, acked: 0, given: 0, most_given: 0, received: 0 }
    }
}

impl<T> Stream<T> {
    /// Takes an item that is to go out, and tells its number.
    pub fn push(&mut self, item: T, bytes: usize) -> u64 {
        self.bytes += bytes;
        self.kept.push_back(Kept { item, bytes });
        self.acked + self.kept.len() as u64
    }

    /// The next item that has not been given out since the last rewind, with its number and size.
    pub fn give(&mut self) -> Option<(u64, &T, usize)> {
        let kept = self.kept.get((self.given - self.acked) as usize)?;
        self.given += 1;
        self.most_given = self.most_given.max(self.given);
        Some((self.given, &kept.item, kept.bytes))
    }

    /// The size of what [`Stream::give`] would give.
    #[must_use]
    pub fn next_bytes(&self) -> Option<usize> {
        Some(self.kept.get((self.given - self.acked) as usize)?.bytes)
    }

    /// What was given out may be lost: everything that is not acknowledged is given out again.
    /// Tells how many items that are.
    pub const fn rewind(&mut self) -> u64 {
        let again = self.given - self.acked;
        self.given = self.acked;
        again
    }

    /// The other end has everything up to `number`: those items go to `freed`, with their sizes.
    /// False where it cannot have that, and nothing has changed.
    pub fn ack(&mut self, number: u64, mut freed: impl FnMut(T, usize)) -> bool {
        if number > self.most_given {
            return false;
        }
        let done = number.saturating_sub(self.acked) as usize;
        for kept in self.kept.drain(..done) {
            self.bytes -= kept.bytes;
            freed(kept.item, kept.bytes);
        }
        self.acked = self.acked.max(number);
        self.given = self.given.max(self.acked);
        true
    }

    /// Judges an item by its number.
    pub const fn receive(&mut self, number: u64) -> Received {
        if number <= self.received {
            return Received::Repeated;
        }
        if number > self.received + 1 {
            return Received::Gap;
        }
        self.received = number;
        Received::New
    }

    /// Everything up to this number has come: what the other end is to be told.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// What the other end is not known to have, oldest first, with the numbers.
    pub fn unacked(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.acked + 1..).zip(self.kept.iter().map(|kept| &kept.item))
    }

    /// How many items are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes of the items that are kept.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        /// So many items reach the other end, if they are there to be given.
        Carry(usize),
        /// The other end's word reaches this one.
        Ack,
        /// An old word comes late.
        OldAck(u64),
        Rewind,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            4 => (0_usize..4).prop_map(Step::Carry),
            2 => Just(Step::Ack),
            1 => (0_u64..40).prop_map(Step::OldAck),
            1 => Just(Step::Rewind),
        ]
    }

    proptest! {
        /// Whatever is carried again, the other end takes each item once and in order.
        #[test]
        fn each_item_arrives_once(steps in prop::collection::vec(step(), 0..80)) {
            let (mut near, mut far) = (Stream::default(), Stream::<u64>::default());
            let (mut pushed, mut taken) = (0_u64, Vec::new());
            for step in steps {
                match step {
                    Step::Push => {
                        pushed += 1;
                        prop_assert_eq!(near.push(pushed, 3), pushed);
                    }
                    Step::Carry(items) => {
                        for _ in 0..items {
                            let Some((number, &item, _)) = near.give() else { break };
                            prop_assert_eq!(number, item);
                            match far.receive(number) {
                                Received::New => taken.push(item),
                                Received::Repeated => {}
                                Received::Gap => prop_assert!(false, "gap at {}", number),
                            }
                        }
                    }
                    Step::Ack => prop_assert!(near.ack(far.received(), |_, _| ())),
                    Step::OldAck(number) => {
                        let believed = near.ack(number.min(far.received()), |_, _| ());
                        prop_assert!(believed);
                    }
                    Step::Rewind => drop(near.rewind()),
                }
                prop_assert_eq!(near.bytes(), 3 * near.len());
                let first = near.unacked().next().map(|(number, &item)| (number, item));
                prop_assert!(first.is_none_or(|(number, item)| number == item));
            }
            near.rewind();
            near.ack(far.received(), |_, _| ());
            while let Some((number, &item, _)) = near.give() {
                prop_assert_eq!(far.receive(number), Received::New);
                taken.push(item);
            }
            prop_assert_eq!(taken, (1..=pushed).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nobody_has_what_was_never_given() {
        let mut stream = Stream::default();
        stream.push('a', 1);
        assert!(!stream.ack(1, |_, _| ()));
        assert_eq!(stream.give(), Some((1, &'a', 1)));
        assert!(stream.ack(1, |item, _| assert_eq!(item, 'a')) && stream.is_empty());
        assert!(!stream.ack(u64::MAX, |_, _| ()));
    }

    #[test]
    fn a_gap_and_a_repeat_are_told_apart() {
        let mut stream = Stream::<()>::default();
        let seen = [1, 3, 2, 2, 3, u64::MAX, 0].map(|number| stream.receive(number));
        use Received::{Gap, New, Repeated};
        assert_eq!(seen, [New, Gap, New, Repeated, New, Gap, Repeated]);
    }
}
