//! Texts that are held once, each with a number of its owner's beside it.

use super::table::{NONE, Slot, Table};
use crate::base::limits::NAME_BYTES;

/// A text's place is counted in units of this many bytes, so that 32 bits reach 16 GiB.
const UNIT: usize = 4;
const CHUNK_BITS: u32 = 18;
/// Units of a chunk.
const CHUNK: usize = 1 << CHUNK_BITS;
/// Before the text: the number, and the text's length.
const HEAD: usize = 5;
const LARGEST: usize = (HEAD + NAME_BYTES).div_ceil(UNIT);

/// Places from here on are none, so that their numbers can mean something else.
pub(super) const TOP: u32 = u32::MAX - 16;

/// Room for texts. What is given back is used again for texts of as many units.
#[derive(Debug)]
struct Arena {
    chunks: Vec<Vec<u8>>,
    /// The first free place of each size; a free place begins with the next one.
    free: [u32; LARGEST + 1],
    used: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: [NONE; LARGEST + 1], used: 0 }
    }
}

impl Arena {
    #[inline]
    fn tail(&self, at: u32) -> &[u8] {
        &self.chunks[at as usize >> CHUNK_BITS][at as usize % CHUNK * UNIT..]
    }

    fn tail_mut(&mut self, at: u32) -> &mut [u8] {
        &mut self.chunks[at as usize >> CHUNK_BITS][at as usize % CHUNK * UNIT..]
    }

    #[inline]
    fn number(&self, at: u32) -> u32 {
        let bytes = self.tail(at).first_chunk().expect("a number stands first");
        u32::from_le_bytes(*bytes)
    }

    fn set_number(&mut self, at: u32, number: u32) {
        self.tail_mut(at)[..4].copy_from_slice(&number.to_le_bytes());
    }

    #[inline]
    fn text(&self, at: u32) -> &[u8] {
        let record = self.tail(at);
        &record[HEAD..HEAD + usize::from(record[HEAD - 1])]
    }

    fn add(&mut self, text: &str, number: u32) -> u32 {
        let size = units(text.len());
        let at = match self.free[size] {
            NONE => self.extend(size),
            at => {
                self.free[size] = self.number(at);
                at
            }
        };
        self.set_number(at, number);
        let record = self.tail_mut(at);
        record[HEAD - 1] = u8::try_from(text.len()).expect("a name has at most 255 bytes");
        record[HEAD..HEAD + text.len()].copy_from_slice(text.as_bytes());
        self.used += 1;
        at
    }

    /// New room at the end. A chunk grows by doubling, which moves at most half of one.
    fn extend(&mut self, size: usize) -> u32 {
        let room = |chunk: &Vec<u8>| chunk.len() + size * UNIT <= CHUNK * UNIT;
        if !self.chunks.last().is_some_and(room) {
            self.chunks.push(Vec::new());
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        let start = chunk.len();
        let end = start + size * UNIT;
        if end > chunk.capacity() {
            chunk.reserve_exact(end.next_power_of_two().max(256) - start);
        }
        chunk.resize(end, 0);
        let at = u32::try_from(index * CHUNK + start / UNIT).ok().filter(|&at| at < TOP);
        at.expect("less than 16 GiB of texts")
    }

    fn free(&mut self, at: u32) {
        let size = units(self.text(at).len());
        let next = std::mem::replace(&mut self.free[size], at);
        self.set_number(at, next);
        self.used -= 1;
        if self.used == 0 {
            *self = Self::default();
        }
    }
}

fn units(len: usize) -> usize {
    (HEAD + len).div_ceil(UNIT)
}

/// Texts, found by hashes that their owner makes.
#[derive(Debug, Default)]
pub(super) struct Texts {
    arena: Arena,
    table: Table,
}

impl Texts {
    /// Where the text is that has this hash and is the one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(&[u8]) -> bool) -> Option<u32> {
        self.table.find(hash, |at| is(self.arena.text(at)))
    }

    /// Reads ahead of a search: see [`Table::touch`].
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u32 {
        self.table.touch(hash)
    }

    /// Where the place of a text that has this hash nearly surely is.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> Option<Slot> {
        self.table.guess(hash)
    }

    /// Reads the text there ahead.
    #[inline]
    pub(super) fn touch_text(&self, hash: u64, guess: Slot) -> u32 {
        self.number(self.table.at(hash, guess))
    }

    /// The same as [`Self::find`], after a guess.
    #[inline]
    pub(super) fn confirm(
        &self,
        hash: u64,
        guess: Slot,
        is: impl Fn(&[u8]) -> bool,
    ) -> Option<u32> {
        let at = self.table.at(hash, guess);
        if is(self.arena.text(at)) { Some(at) } else { self.find(hash, is) }
    }

    /// Adds a text that is not in it, with a number beside it.
    pub(super) fn add(&mut self, hash: u64, text: &str, number: u32) -> u32 {
        let at = self.arena.add(text, number);
        self.table.insert(hash, at);
        at
    }

    /// Takes out the text at `at`, which was added with this hash.
    pub(super) fn remove(&mut self, hash: u64, at: u32) {
        self.table.remove(hash, at);
        self.arena.free(at);
    }

    /// The text at `at`.
    #[inline]
    pub(super) fn text(&self, at: u32) -> &str {
        std::str::from_utf8(self.arena.text(at)).expect("it came as a str")
    }

    /// The number beside the text at `at`.
    #[inline]
    pub(super) fn number(&self, at: u32) -> u32 {
        self.arena.number(at)
    }

    /// Changes it.
    pub(super) fn set_number(&mut self, at: u32, number: u32) {
        self.arena.set_number(at, number);
    }

    /// How many texts are in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.arena.used
    }

    /// Memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        let Arena { chunks, .. } = &self.arena;
        let texts: usize = chunks.iter().map(Vec::capacity).sum();
        texts + chunks.capacity() * size_of::<Vec<u8>>() + self.table.bytes()
    }
}
