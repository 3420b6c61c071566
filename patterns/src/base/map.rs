//! Maps whose order and speed depend on nothing but the seed and what was put in.
//!
//! Keys that peers choose (names, request ids) share these maps with the broker's own, so the
//! hash starts from a seed the driver draws: a peer cannot aim for one bucket.

pub use foldhash::fast::FixedState as Seeded;

/// A map: make it with `Map::with_hasher(seeded(seed))`, or `default()` for the broker's own keys.
pub type Map<K, V> = hashbrown::HashMap<K, V, Seeded>;
/// A set, made likewise.
pub type Set<K> = hashbrown::HashSet<K, Seeded>;

/// The hash that starts from `seed`.
#[must_use]
pub fn seeded(seed: u64) -> Seeded {
    Seeded::with_seed(seed)
}
