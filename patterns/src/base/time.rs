//! Time as an argument: plain numbers the driver hands in.

/// The moment an input arrived: what the driver's two clocks showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Nanoseconds on a clock that never goes back. Deadlines, credit and leases use it.
    pub mono_ns: u64,
    /// Milliseconds since 1970. Ids and everything that is stored use it.
    pub wall_ms: u64,
}

impl Time {
    /// The monotonic milliseconds, rounded down.
    #[must_use]
    pub const fn mono_ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }
}
