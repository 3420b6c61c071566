//! Numbered items in chunks: growing allocates one chunk and moves nothing that is there.

const CHUNK_BITS: u32 = 14;
const CHUNK: usize = 1 << CHUNK_BITS;

/// A list that grows by chunks. Its first chunk grows as a `Vec` does, so a short list is small.
#[derive(Debug)]
struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Chunks<T> {
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    fn push(&mut self, item: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(item),
            None => self.chunks.push(vec![item]),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(item);
                self.chunks.push(chunk);
            }
        }
    }

    fn pop(&mut self) -> Option<T> {
        let last = self.chunks.last_mut()?;
        let item = last.pop();
        if last.is_empty() {
            self.chunks.pop();
        }
        item
    }

    fn bytes(&self) -> usize {
        let items: usize = self.chunks.iter().map(Vec::capacity).sum();
        items * size_of::<T>() + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

/// Items under dense numbers, which are used again after removal.
#[derive(Debug)]
pub(super) struct Pool<T> {
    items: Chunks<T>,
    free: Chunks<u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { items: Chunks { chunks: Vec::new() }, free: Chunks { chunks: Vec::new() } }
    }
}

impl<T> Pool<T> {
    /// How many items are in it.
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Adds an item and says its number.
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(at) = self.free.pop() {
            *self.get_mut(at) = item;
            return at;
        }
        let at = u32::try_from(self.items.len()).expect("fewer than 2^32 items");
        self.items.push(item);
        at
    }

    /// Gives a number back. The item stays what the caller made of it; the last takes all along.
    pub(super) fn free(&mut self, at: u32) {
        self.free.push(at);
        if self.len() == 0 {
            *self = Self::default();
        }
    }

    /// An item; one that was given back may still show.
    #[inline]
    pub(super) fn get(&self, at: u32) -> &T {
        &self.items.chunks[at as usize >> CHUNK_BITS][at as usize % CHUNK]
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.items.chunks[at as usize >> CHUNK_BITS][at as usize % CHUNK]
    }

    /// The same, where the number may be anybody's.
    pub(super) fn find(&self, at: u32) -> Option<&T> {
        self.items.chunks.get(at as usize >> CHUNK_BITS)?.get(at as usize % CHUNK)
    }

    /// Memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.items.bytes() + self.free.bytes()
    }
}
