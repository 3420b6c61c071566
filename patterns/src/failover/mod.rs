//! Which of several paths to a broker is used: the fastest that answers, until it fails.
//!
//! A path is a connection to one address. Each is asked now and then whether the broker is there;
//! what becomes of these questions makes its [`Health`]. A path that fails is left alone by its
//! breaker, longer each time, then tried again. The path in use is kept for as long as it answers:
//! one that is a little faster is no reason to lose what is in flight.
//!
//! A single path is never given up, and asked nothing: its socket connects anew by itself.

mod breaker;
mod health;
#[cfg(test)]
mod tests;

use breaker::Breaker;
pub use breaker::State;
pub use health::{Health, Trend};

const NS_PER_MS: u64 = 1_000_000;
/// How often the path in use is asked, and how often another, milliseconds.
const ASK_USED_MS: u64 = 250;
const ASK_OTHER_MS: u64 = 1_000;
/// How long an answer may take.
const PATIENCE_MS: u64 = 700;

/// What is to be done with a path, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Connect, and ask.
    Open(usize),
    /// Disconnect.
    Close(usize),
    /// Ask.
    Ask(usize),
    /// Use it from now on. What was in flight on another is lost.
    Use(usize),
    /// There is none to use. What was in flight is lost.
    Rest,
}

/// What is known of one path.
#[derive(Clone, Copy, Debug)]
struct Path {
    breaker: Breaker,
    health: Health,
    /// When the question was asked that is not answered yet, nanoseconds.
    asked_ns: Option<u64>,
    /// When the next is due, or this one is looked at again, milliseconds.
    next_ms: u64,
}

/// The paths to one broker.
#[derive(Debug)]
pub struct Failover {
    paths: Vec<Path>,
    used: Option<usize>,
    acts: Vec<Act>,
}

impl Failover {
    /// So many paths, all to be opened. A single one is used from the start.
    #[must_use]
    pub fn new(paths: usize, now_ns: u64) -> Self {
        let path = Path {
            breaker: Breaker::new(),
            health: Health::default(),
            asked_ns: Some(now_ns),
            next_ms: 0,
        };
        let mut acts: Vec<Act> = (0..paths).map(Act::Open).collect();
        let used = (paths == 1).then_some(0);
        acts.extend(used.map(Act::Use));
        Self { paths: vec![path; paths], used, acts }
    }

    /// What is to be done, in order.
    pub fn acts(&mut self) -> impl Iterator<Item = Act> + use<> {
        std::mem::take(&mut self.acts).into_iter()
    }

    /// The path in use.
    #[must_use]
    pub const fn used(&self) -> Option<usize> {
        self.used
    }

    /// Each path: whether it may be used, and how it does.
    pub fn paths(&self) -> impl Iterator<Item = (State, &Health)> {
        self.paths.iter().map(|path| (path.breaker.state(), &path.health))
    }

    fn is_alone(&self) -> bool {
        self.paths.len() == 1
    }

    /// A question was answered.
    pub fn answered(&mut self, at: usize, now_ns: u64) {
        let is_alone = self.is_alone();
        let path = &mut self.paths[at];
        let Some(asked_ns) = path.asked_ns.take() else {
            if is_alone {
                path.breaker.answered();
            }
            return;
        };
        let latency_ms = now_ns.saturating_sub(asked_ns) as f64 / NS_PER_MS as f64;
        path.health.answered(latency_ms);
        path.breaker.answered();
        let every_ms = if self.used == Some(at) { ASK_USED_MS } else { ASK_OTHER_MS };
        path.next_ms = now_ns / NS_PER_MS + every_ms;
        match self.used {
            None => self.put_to_use(at, now_ns),
            // The broker is there, so the silence is the path's.
            Some(used) if used != at && self.is_overdue(used, now_ns) => {
                if self.paths[used].asked_ns < Some(asked_ns) {
                    self.failed(used, now_ns);
                }
            }
            Some(_) => {}
        }
    }

    /// The connection of a path was lost. A single one is being connected anew, and asked again;
    /// how long that takes says nothing of its latency.
    pub fn lost(&mut self, at: usize, now_ns: u64) {
        if self.is_alone() {
            let path = &mut self.paths[at];
            path.health.failed();
            path.breaker.try_again();
            path.asked_ns = None;
        } else if self.paths[at].breaker.state() != State::Open {
            self.failed(at, now_ns);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ns: u64) {
        if self.is_alone() {
            return;
        }
        let now_ms = now_ns / NS_PER_MS;
        for at in 0..self.paths.len() {
            let path = self.paths[at];
            let is_due = path.next_ms <= now_ms;
            match path.breaker.state() {
                State::Open if path.breaker.due_ms() <= Some(now_ms) => self.try_again(at, now_ns),
                State::Closed if is_due && path.asked_ns.is_none() => self.ask(at, now_ns),
                State::Closed | State::HalfOpen if is_due && self.is_overdue(at, now_ns) => {
                    self.overdue(at, now_ns);
                }
                _ => {}
            }
        }
    }

    /// When the next tick is due, nanoseconds.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        if self.is_alone() {
            return None;
        }
        let due_ms = self.paths.iter().map(|path| match (path.breaker.due_ms(), path.asked_ns) {
            (Some(due_ms), _) => due_ms,
            (None, Some(asked_ns)) => path.next_ms.max(asked_ns / NS_PER_MS + PATIENCE_MS + 1),
            (None, None) => path.next_ms,
        });
        due_ms.min().map(|ms| ms * NS_PER_MS)
    }

    fn try_again(&mut self, at: usize, now_ns: u64) {
        self.paths[at].breaker.try_again();
        self.paths[at].asked_ns = Some(now_ns);
        self.acts.push(Act::Open(at));
    }

    fn ask(&mut self, at: usize, now_ns: u64) {
        self.paths[at].asked_ns = Some(now_ns);
        self.acts.push(Act::Ask(at));
    }

    fn is_overdue(&self, at: usize, now_ns: u64) -> bool {
        let asked_ns = self.paths[at].asked_ns;
        asked_ns.is_some_and(|asked| now_ns.saturating_sub(asked) > PATIENCE_MS * NS_PER_MS)
    }

    /// A path does not answer. If it is the one in use the broker may be busy: another is asked,
    /// and only its answer says that this one is to be left.
    fn overdue(&mut self, at: usize, now_ns: u64) {
        if self.used != Some(at) {
            return self.failed(at, now_ns);
        }
        self.paths[at].next_ms = now_ns / NS_PER_MS + ASK_USED_MS;
        for other in 0..self.paths.len() {
            let path = &self.paths[other];
            let is_ready = path.breaker.state() == State::Closed && path.asked_ns.is_none();
            if other != at && is_ready {
                self.ask(other, now_ns);
            }
        }
    }

    fn failed(&mut self, at: usize, now_ns: u64) {
        let path = &mut self.paths[at];
        path.health.failed();
        path.breaker.failed(now_ns / NS_PER_MS);
        path.asked_ns = None;
        self.acts.push(Act::Close(at));
        if self.used == Some(at) {
            self.used = None;
            match self.best() {
                Some(other) => self.put_to_use(other, now_ns),
                None => self.acts.push(Act::Rest),
            }
        }
    }

    /// The path that does best of those that answer.
    fn best(&self) -> Option<usize> {
        let closed = |at: &usize| self.paths[*at].breaker.state() == State::Closed;
        let score = |at: &usize| self.paths[*at].health.score();
        (0..self.paths.len()).filter(closed).max_by(|a, b| score(a).total_cmp(&score(b)))
    }

    fn put_to_use(&mut self, at: usize, now_ns: u64) {
        self.used = Some(at);
        let soon_ms = now_ns / NS_PER_MS + ASK_USED_MS;
        self.paths[at].next_ms = self.paths[at].next_ms.min(soon_ms);
        self.acts.push(Act::Use(at));
    }
}
