//! Where a machine writes what it wants done.
//!
//! The caller owns the buffer and passes it in, so that one allocation serves for ever and the
//! outputs of many inputs can be released together.

/// Outputs in the order they were decided.
#[derive(Debug)]
pub struct Out<T> {
    items: Vec<T>,
}

impl<T> Default for Out<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<T> Out<T> {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one output.
    pub fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Adds outputs.
    pub fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        self.items.extend(items);
    }

    /// Takes all outputs, oldest first, and keeps the room.
    pub fn drain(&mut self) -> std::vec::Drain<'_, T> {
        self.items.drain(..)
    }

    /// The outputs, oldest first, where they stand.
    #[must_use]
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// Drops all outputs and keeps the room.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// Whether nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many outputs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }
}
