//! Lists of any length that never stop to grow: what is in them is never moved.

use std::ops::{Index, IndexMut};

const CHUNK_BITS: usize = 10;

/// A list that grows without moving what is in it.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Chunks<T> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, item: T) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < 1 << CHUNK_BITS => chunk.push(item),
            _ => {
                // The first chunk grows as it is used: most lists are short.
                let room = if self.chunks.is_empty() { 4 } else { 1 << CHUNK_BITS };
                let mut chunk = Vec::with_capacity(room);
                chunk.push(item);
                self.chunks.push(chunk);
            }
        }
        self.len += 1;
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index >> CHUNK_BITS)?.get_mut(index & ((1 << CHUNK_BITS) - 1))
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index >> CHUNK_BITS)?.get(index & ((1 << CHUNK_BITS) - 1))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let last = self.chunks.last_mut()?;
        let item = last.pop();
        self.len -= 1;
        if last.is_empty() {
            self.chunks.pop();
        }
        item
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(chunk) = self.chunks.last_mut() else { break };
            let keep = chunk.len().saturating_sub(self.len - len);
            self.len -= chunk.len() - keep;
            chunk.truncate(keep);
            if keep == 0 {
                self.chunks.pop();
            }
        }
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.chunks[index >> CHUNK_BITS][index & ((1 << CHUNK_BITS) - 1)]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index >> CHUNK_BITS][index & ((1 << CHUNK_BITS) - 1)]
    }
}

/// Items under dense numbers, which are used again after removal.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    items: Chunks<Option<T>>,
    free: Chunks<u32>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { items: Chunks::default(), free: Chunks::default() }
    }
}

impl<T> Shelf<T> {
    /// How many items are on it.
    pub(crate) const fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// The number that the next item will have.
    pub(crate) fn next(&self) -> u32 {
        let free = self.free.len().checked_sub(1).map(|last| self.free[last]);
        free.unwrap_or(self.items.len() as u32)
    }

    /// Adds an item and says its number.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        let at = self.next();
        match self.free.pop() {
            Some(free) => self.items[free as usize] = Some(item),
            None => self.items.push(Some(item)),
        }
        at
    }

    /// Takes an item away, if there is one.
    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let item = self.items.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(item)
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.items.get(at as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.items.get_mut(at as usize)?.as_mut()
    }
}

impl<T> Index<u32> for Shelf<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        self.get(at).expect("an item of this number")
    }
}

impl<T> IndexMut<u32> for Shelf<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.get_mut(at).expect("an item of this number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_and_as_was_foretold() {
        let mut shelf = Shelf::default();
        let many = 3_000;
        for number in 0..many {
            assert_eq!((shelf.next(), shelf.insert(number)), (number, number));
        }
        assert_eq!((shelf.remove(5), shelf.remove(5), shelf.remove(many)), (Some(5), None, None));
        assert_eq!(
            (shelf.remove(2_000), shelf.get(2_000), shelf.len()),
            (Some(2_000), None, 2_998)
        );
        assert_eq!((shelf.next(), shelf.insert(7)), (2_000, 2_000));
        shelf[5 - 1] = 8;
        assert_eq!((shelf[2_000], shelf[4], shelf.next(), shelf.len()), (7, 8, 5, 2_999));
    }
}
