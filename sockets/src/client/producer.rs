//! Sending many messages without waiting for each, and hearing of each what became of it.
//!
//! ```no_run
//! # async fn example() -> Result<(), mpreg_sockets::client::Error> {
//! use mpreg_sockets::client::Client;
//!
//! let client = Client::connect("tcp://127.0.0.1:7400").await?;
//! let mut producer = client.producer(10_000);
//! for image in 0..1_000_000 {
//!     producer.send(client.send("thumbnails").payload(&image)).await?;
//!     while let Some(confirmed) = producer.try_confirmed() {
//!         confirmed.outcome?;
//!     }
//! }
//! while let Some(confirmed) = producer.confirmed().await {
//!     confirmed.outcome?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A message is encoded where it is sent, into the batch that leaves next, so it costs a fraction
//! of one that somebody waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mpreg_patterns::base::{Code, Map, Refusal};
use smol_str::{SmolStr, format_smolstr};
use tokio::sync::Notify;

use super::connection::{Command, Lane};
use super::{Client, Error, Receipt, SendBuilder};

impl Client {
    /// A producer: `window` of its messages, 1 at least, are without an outcome at once.
    #[must_use]
    pub fn producer(&self, window: usize) -> Producer {
        let (lane, id) = (self.lane.clone(), self.lane.key());
        let confirms = Arc::new(Confirms::default());
        lane.push(Command::Produce { id, confirms: confirms.clone() });
        Producer { lane, id, window: window.max(1), confirms }
    }
}

/// What became of one message.
#[derive(Debug)]
pub struct Confirmed {
    /// Its number, as [`Producer::send`] gave it.
    pub number: u64,
    /// How safe it is, or why it was not taken. `outcome_unknown` where the connection was lost
    /// before the broker had said so: it may have been taken.
    pub outcome: Result<Receipt, Error>,
}

/// Sends messages of one connection, in order.
#[derive(Debug)]
pub struct Producer {
    lane: Arc<Lane>,
    id: u64,
    window: usize,
    confirms: Arc<Confirms>,
}

impl Producer {
    /// Sends a message, as soon as there is room, over the producer's own connection. Its number:
    /// the first one has 0.
    ///
    /// Outcomes come with [`Self::confirmed`] and [`Self::try_confirmed`]; who takes none of them
    /// keeps all of them.
    ///
    /// # Errors
    /// Where it cannot be encoded, or the client is closed: it was not sent then, and its number
    /// is the next one's.
    pub async fn send(&mut self, message: SendBuilder) -> Result<u64, Error> {
        loop {
            let room = self.confirms.room.notified();
            if self.confirms.state().open() < self.window {
                break;
            }
            room.await;
        }
        let number = self.confirms.state().begin()?;
        let mut begun = Begun { confirms: &self.confirms, number, sent: false };
        let request = message.request(format_smolstr!("{MARK}{}-{number}", self.id))?;
        self.lane.tell(&request).await?;
        begun.sent = true;
        Ok(number)
    }

    /// The next outcome, in the order in which they come; none if there is nothing to wait for.
    ///
    /// It is cancel safe: nothing is lost if the future is dropped.
    pub async fn confirmed(&mut self) -> Option<Confirmed> {
        loop {
            let news = self.confirms.news.notified();
            {
                let mut state = self.confirms.state();
                if let Some(confirmed) = state.told.pop_front() {
                    return Some(confirmed);
                }
                if state.open() == 0 {
                    return None;
                }
            }
            news.await;
        }
    }

    /// The next outcome, if it is here already.
    pub fn try_confirmed(&mut self) -> Option<Confirmed> {
        self.confirms.state().told.pop_front()
    }

    /// Messages without an outcome.
    #[must_use]
    pub fn open(&self) -> usize {
        self.confirms.state().open()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.lane.push(Command::Retire { id: self.id });
    }
}

/// A message on its way into the batch. It has no number any more if it does not come there.
struct Begun<'a> {
    confirms: &'a Confirms,
    number: u64,
    sent: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.sent {
            self.confirms.state().give_up(self.number);
        }
    }
}

/// What the ids of a producer's messages begin with.
const MARK: char = 'p';

/// What is known of a producer's messages.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    state: Mutex<State>,
    /// Something was told.
    news: Notify,
    /// A message got its outcome.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Whether each has its outcome, from the first that has not.
    ended: VecDeque<bool>,
    first: u64,
    /// Of those, how many have.
    over: usize,
    told: VecDeque<Confirmed>,
    closed: bool,
}

impl State {
    fn open(&self) -> usize {
        self.ended.len() - self.over
    }

    fn begin(&mut self) -> Result<u64, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.ended.push_back(false);
        Ok(self.first + self.ended.len() as u64 - 1)
    }

    /// The last one that began was not sent.
    fn give_up(&mut self, number: u64) {
        if number + 1 == self.first + self.ended.len() as u64
            && self.ended.back().is_some_and(|ended| !ended)
        {
            self.ended.pop_back();
        }
    }

    /// Whether it had no outcome before.
    fn end(&mut self, number: u64, outcome: Result<Receipt, Error>) -> bool {
        let ended = number.checked_sub(self.first).and_then(|at| self.ended.get_mut(at as usize));
        let Some(ended @ false) = ended else { return false };
        *ended = true;
        self.over += 1;
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.first += 1;
            self.over -= 1;
        }
        self.told.push_back(Confirmed { number, outcome });
        true
    }
}

impl Confirms {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, number: u64, outcome: Result<Receipt, Error>) {
        let mut state = self.state();
        let first = state.told.is_empty();
        let ended = state.end(number, outcome);
        drop(state);
        if ended && first {
            self.news.notify_one();
        }
        self.room.notify_one();
    }

    /// Nothing more is heard of what is open.
    fn end_all(&self, why: impl Fn() -> Error, closed: bool) {
        let mut state = self.state();
        state.closed |= closed;
        let (first, count) = (state.first, state.ended.len() as u64);
        for number in first..first + count {
            state.end(number, Err(why()));
        }
        drop(state);
        self.news.notify_one();
        self.room.notify_one();
    }
}

/// The producers of a connection.
#[derive(Debug, Default)]
pub(super) struct Producers {
    all: Map<u64, Arc<Confirms>>,
}

impl Producers {
    pub(super) fn add(&mut self, id: u64, confirms: Arc<Confirms>) {
        self.all.insert(id, confirms);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.all.remove(&id);
    }

    /// Takes what is told of a producer's message; gives back what is not about one.
    pub(super) fn take(
        &self,
        id: &SmolStr,
        outcome: Result<Receipt, Box<Refusal>>,
    ) -> Option<Result<Receipt, Box<Refusal>>> {
        let named = id.strip_prefix(MARK).and_then(|rest| rest.split_once('-'));
        let named = named.and_then(|(id, number)| Some((id.parse().ok()?, number.parse().ok()?)));
        let Some((id, number)) = named else { return Some(outcome) };
        if let Some(confirms) = self.all.get::<u64>(&id) {
            confirms.end(number, outcome.map_err(Error::Refused));
        }
        None
    }

    /// The connection was lost: what is open may or may not have happened.
    pub(super) fn lost(&self) {
        let why = || Error::refused(Code::OutcomeUnknown, "the connection to the broker was lost");
        self.all.values().for_each(|confirms| confirms.end_all(why, false));
    }

    pub(super) fn close(&self) {
        self.all.values().for_each(|confirms| confirms.end_all(|| Error::Closed, true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes in any order: each number once, and `open` counts what is left.
    #[test]
    fn each_has_one_outcome() {
        let mut state = State::default();
        let refused = || Err(Error::Closed);
        let numbers: Vec<u64> = (0..4).map(|_| state.begin().unwrap()).collect();
        assert_eq!((numbers, state.open()), (vec![0, 1, 2, 3], 4));
        let ended: Vec<bool> = [2, 2, 0, 7, 1].map(|number| state.end(number, refused())).into();
        assert_eq!(ended, [true, false, true, false, true]);
        assert_eq!((state.first, state.open()), (3, 1));
        state.give_up(3);
        assert_eq!((state.begin().unwrap(), state.open()), (3, 1));
        let told: Vec<u64> = state.told.iter().map(|confirmed| confirmed.number).collect();
        assert_eq!(told, [2, 0, 1]);
    }
}
