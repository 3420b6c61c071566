//! A hash table that never stops to grow: many small ones, each of which grows on its own.
//!
//! It holds numbers under the hashes of keys that are kept elsewhere, and asks about those only
//! where 32 bits of the hash agree. A bucket is one line of the cache with its part of the hash
//! in it, so finding costs one line, and growing reads nothing but the table.

/// No number: no table holds it.
pub(super) const NONE: u32 = u32::MAX;

const SHARD_BITS: u32 = 8;
const SHARDS: usize = 1 << SHARD_BITS;
/// Entries of a bucket, and lanes of which the last is none.
const WAYS: usize = 7;
const LANES: usize = WAYS + 1;
/// A shard grows by a quarter when it is this full, in percent, and halves when it is this sparse.
/// The next shard is fuller by one when it grows, and the one after [`STEPS`] begins anew: all are
/// equally full, so they would all grow at one time.
const FULL: usize = 64;
const STEPS: usize = 16;
const SPARSE: usize = 25;

/// An entry that finds its bucket full stands in the next with room, and leaves a mark in all it
/// has to pass: a search ends where it finds none like its own.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// The last is no tag but the marks, a bit each.
    tags: [u32; LANES],
    values: [u32; WAYS],
    /// How many passed; the marks are taken away with the last.
    passed: u32,
}

const EMPTY: Bucket = Bucket { tags: [0; LANES], values: [NONE; WAYS], passed: 0 };

impl Bucket {
    /// One bit for every entry under this tag; empty places may show too. Written so that it
    /// becomes two comparisons of four.
    #[inline]
    fn agreeing(&self, tag: u32) -> u32 {
        let mut bits = [0; LANES];
        for (way, bit) in bits.iter_mut().enumerate() {
            *bit = if self.tags[way] == tag { 1 << way } else { 0 };
        }
        bits.iter().fold(0, |all, bit| all | bit) & ((1 << WAYS) - 1)
    }

    /// Whether an entry under this tag may have passed.
    #[inline]
    fn may_have_passed(&self, tag: u32) -> bool {
        self.tags[WAYS] & mark(tag) != 0
    }

    fn pass(&mut self, tag: u32) {
        self.tags[WAYS] |= mark(tag);
        self.passed += 1;
    }

    fn unpass(&mut self) {
        self.passed -= 1;
        if self.passed == 0 {
            self.tags[WAYS] = 0;
        }
    }

    /// Tags and numbers.
    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.tags.into_iter().zip(self.values);
        all.filter(|&(_, value)| value != NONE)
    }

    /// Puts an entry in; whether there was room.
    fn put(&mut self, tag: u32, value: u32) -> bool {
        let Some(way) = self.values.iter().position(|&other| other == NONE) else { return false };
        (self.tags[way], self.values[way]) = (tag, value);
        true
    }
}

/// One bit of 32, by the lower end of the tag: the upper one is that of the whole bucket.
fn mark(tag: u32) -> u32 {
    1 << (tag % u32::BITS)
}

#[derive(Debug, Default)]
struct Shard {
    buckets: Box<[Bucket]>,
    len: usize,
}

impl Shard {
    /// Where the entries under `tag` begin. Grows with the tag, so that growing is one sweep.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.buckets.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    #[inline]
    fn find(&self, tag: u32, mut is: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(tag);
        let mut bucket = self.buckets.get(at)?;
        loop {
            let mut agreeing = bucket.agreeing(tag);
            while agreeing != 0 {
                let way = agreeing.trailing_zeros() as usize;
                if bucket.values[way] != NONE && is(bucket.values[way]) {
                    return Some((at, way));
                }
                agreeing &= agreeing - 1;
            }
            if !bucket.may_have_passed(tag) {
                return None;
            }
            at = self.after(at);
            bucket = &self.buckets[at];
        }
    }

    /// Adds an entry; `full` is the percentage at which it grows.
    fn insert(&mut self, tag: u32, value: u32, full: usize) {
        if (self.len + 1) * 100 > self.buckets.len() * WAYS * full {
            self.resize(self.buckets.len() + self.buckets.len() / 4 + 1);
        }
        self.place(tag, value);
        self.len += 1;
    }

    fn place(&mut self, tag: u32, value: u32) {
        let mut at = self.home(tag);
        while !self.buckets[at].put(tag, value) {
            self.buckets[at].pass(tag);
            at = self.after(at);
        }
    }

    fn resize(&mut self, buckets: usize) {
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; buckets].into());
        for (tag, value) in old.iter().flat_map(Bucket::entries) {
            self.place(tag, value);
        }
    }

    fn remove(&mut self, tag: u32, (at, way): (usize, usize)) {
        self.buckets[at].values[way] = NONE;
        let mut passed = self.home(tag);
        while passed != at {
            self.buckets[passed].unpass();
            passed = self.after(passed);
        }
        self.len -= 1;
        if self.len * 100 < self.buckets.len() * WAYS * SPARSE {
            self.resize(if self.len == 0 { 0 } else { self.buckets.len().div_ceil(2) });
        }
    }
}

/// A place in the shard of a hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    at: u32,
    way: u32,
}

/// Numbers under hashes.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Shard; SHARDS]>,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: Box::new(std::array::from_fn(|_| Shard::default())) }
    }
}

impl Table {
    /// The number under `hash` of which `is` says that it is meant.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl FnMut(u32) -> bool) -> Option<u32> {
        let shard = &self.shards[shard(hash)];
        let (at, way) = shard.find(hash as u32, is)?;
        Some(shard.buckets[at].values[way])
    }

    /// Where a number under `hash` nearly surely is.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> Option<Slot> {
        let (at, way) = self.shards[shard(hash)].find(hash as u32, |_| true)?;
        Some(Slot { at: at as u32, way: way as u32 })
    }

    /// The number there.
    #[inline]
    pub(super) fn at(&self, hash: u64, slot: Slot) -> u32 {
        self.shards[shard(hash)].buckets[slot.at as usize].values[slot.way as usize]
    }

    /// Reads where a search for `hash` begins. The value says nothing: what counts is that the
    /// line is in the cache when the search comes, and that many such reads wait side by side.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u32 {
        let shard = &self.shards[shard(hash)];
        shard.buckets.get(shard.home(hash as u32)).map_or(0, |bucket| bucket.tags[0])
    }

    /// Adds a number that is not in it.
    pub(super) fn insert(&mut self, hash: u64, value: u32) {
        let shard = shard(hash);
        self.shards[shard].insert(hash as u32, value, FULL + shard % STEPS);
    }

    /// Takes out a number that is in it.
    pub(super) fn remove(&mut self, hash: u64, value: u32) {
        let shard = &mut self.shards[shard(hash)];
        let place = shard.find(hash as u32, |other| other == value);
        shard.remove(hash as u32, place.expect("what is removed is in the table"));
    }

    /// Memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        let buckets: usize = self.shards.iter().map(|shard| shard.buckets.len()).sum();
        buckets * size_of::<Bucket>() + SHARDS * size_of::<Shard>()
    }

    /// How many numbers are in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len).sum()
    }
}

/// From the upper bits, since the lower ones choose within the shard.
fn shard(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}
