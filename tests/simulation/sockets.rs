//! SUB, PUB and PUSH sockets beside the door: texts that come and go, events and messages without
//! an answer.
//!
//! They have no links that fail: libzmq connects them again by itself, and the broker sees no
//! more of them than the texts they hold.

use std::collections::BTreeSet;

use mpreg_patterns::base::{Code, Refusal, Rng};
use mpreg_patterns::names::Key;
use mpreg_patterns::node::Input;

use crate::peers::MS;
use crate::producers::Pusher;
use crate::publishers::Numbers;
use crate::spelling::{is_pattern, some_pattern, some_topic};
use crate::workload::one_in;

/// All of them.
#[derive(Debug)]
pub(crate) struct Sockets {
    rng: Rng,
    /// What each SUB socket holds.
    held: Vec<BTreeSet<String>>,
    numbers: Numbers,
    next_ns: u64,
    active: bool,
    pusher: Pusher,
}

impl Sockets {
    /// So many SUB sockets; without any, there is no PUB socket either.
    pub(crate) fn new(count: usize, seed: u64, pusher: Pusher) -> Self {
        let held = vec![BTreeSet::new(); count];
        let numbers = Numbers::of("pub".into());
        Self { rng: Rng::new(seed), held, numbers, next_ns: 0, active: count > 0, pusher }
    }

    pub(crate) fn wake_at(&self) -> u64 {
        let next_ns = if self.active { self.next_ns } else { u64::MAX };
        next_ns.min(self.pusher.wake_at())
    }

    /// They say no more.
    pub(crate) const fn settle(&mut self) {
        (self.active, self.pusher.active) = (false, false);
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Input> {
        let mut said: Vec<Input> = self.pusher.wake(now_ns).into_iter().collect();
        if self.active && self.next_ns <= now_ns {
            said.extend(self.speak(now_ns));
        }
        said
    }

    fn speak(&mut self, now_ns: u64) -> Vec<Input> {
        self.next_ns = now_ns + MS * (1 + self.rng.below(150) as u64);
        let at = self.rng.below(self.held.len());
        match self.rng.below(10) {
            0..=2 => self.listen(at).into_iter().collect(),
            3..=4 => {
                let nth = self.rng.below(self.held[at].len().max(1));
                let text = self.held[at].iter().nth(nth).cloned();
                let text = text.and_then(|text| self.held[at].take(&text));
                text.map(|text| Input::Unlisten(key(&text))).into_iter().collect()
            }
            5 => {
                let refusal = Refusal::new(Code::BadName, "no name");
                vec![Input::Refused { endpoint: "publish", topic: None, refusal }]
            }
            _ => {
                let count = if one_in(&mut self.rng, 8) { 20 } else { 1 };
                let mut publish =
                    || Input::Publish { event: self.numbers.event(some_topic(&mut self.rng)) };
                (0..count).map(|_| publish()).collect()
            }
        }
    }

    fn listen(&mut self, at: usize) -> Option<Input> {
        let headers = if one_in(&mut self.rng, 2) { "?headers" } else { "" };
        let pattern = some_pattern(&mut self.rng);
        let text = format!("{pattern}{headers}");
        let new = is_pattern(pattern) && self.held[at].insert(text.clone());
        new.then(|| Input::Listen(key(&text)))
    }

    /// What the broker hears of them when it comes up: each text, of each socket.
    pub(crate) fn connect(&self) -> Vec<Input> {
        self.held.iter().flatten().map(|text| Input::Listen(key(text))).collect()
    }

    /// They go.
    pub(crate) fn leave(&mut self) -> Vec<Input> {
        let held = std::mem::take(&mut self.held);
        held.into_iter().flatten().map(|text| Input::Unlisten(key(&text))).collect()
    }
}

fn key(text: &str) -> Key {
    Key::parse(text.as_bytes()).expect("a pattern")
}
