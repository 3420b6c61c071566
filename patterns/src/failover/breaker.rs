//! When a path that failed is tried again: a circuit breaker.

/// The first pause, milliseconds; it doubles with each failure after another.
const FIRST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 10_000;
/// Answers in a row after which failures are forgotten.
const STEADY: u32 = 5;

/// Whether a path may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Closed,
    /// It is being tried.
    HalfOpen,
    /// It failed, and is left alone for a while.
    Open,
}

impl State {
    /// As people see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// The breaker of one path. It begins half open: nothing is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaker {
    state: State,
    until_ms: u64,
    failures: u32,
    answers: u32,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { state: State::HalfOpen, until_ms: 0, failures: 0, answers: 0 }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn answered(&mut self) {
        self.state = State::Closed;
        self.answers = self.answers.saturating_add(1);
        if self.answers >= STEADY {
            self.failures = 0;
        }
    }

    pub(super) fn failed(&mut self, now_ms: u64) {
        let pause_ms = FIRST_PAUSE_MS << self.failures.min(16);
        self.until_ms = now_ms + pause_ms.min(LONGEST_PAUSE_MS);
        (self.state, self.answers) = (State::Open, 0);
        self.failures = self.failures.saturating_add(1);
    }

    /// Opens it half: its pause is over, or there is no other path.
    pub(super) const fn try_again(&mut self) {
        self.state = State::HalfOpen;
    }

    /// When it may be tried again.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (self.state == State::Open).then_some(self.until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew() {
        let mut breaker = Breaker::new();
        let mut fail = |answers: u32| {
            (0..answers).for_each(|_| breaker.answered());
            breaker.failed(1_000);
            breaker.due_ms().unwrap() - 1_000
        };
        let pauses: Vec<u64> = [0, 0, 0, 4, 0, 0, 0, 0, 5].map(&mut fail).into();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 100]);
    }
}
