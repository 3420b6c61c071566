//! What subscribers count, and what they tell the publisher: the number that the slowest of them
//! has reached. Where events are lost they go on with the next, so a loss is counted and stops
//! nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use hdrhistogram::Histogram;

use super::{EventKind, Heard, Listens, PROBE, plain, queue, read_stamp, rust, websocket};
use crate::Outcome;
use crate::process::say;

/// How many events a subscriber got. Each has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU64);

/// What the subscribers of one process share.
pub(crate) struct Ears {
    /// They tell after as many events.
    step: u64,
    received: Vec<Count>,
    disorder: AtomicU64,
    shared: Mutex<Shared>,
}

struct Shared {
    /// How far each is; none has heard nothing yet.
    reached: Vec<Option<u64>>,
    /// What was told last.
    told: Option<u64>,
    to: TcpStream,
    latencies: Histogram<u64>,
}

impl Ears {
    fn new(to: TcpStream, subscribers: usize, step: u64) -> Outcome<Arc<Self>> {
        to.set_nodelay(true)?;
        let latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let reached = vec![None; subscribers];
        Ok(Arc::new(Self {
            step,
            received: (0..subscribers).map(|_| Count::default()).collect(),
            disorder: AtomicU64::new(0),
            shared: Mutex::new(Shared { reached, told: None, to, latencies }),
        }))
    }

    /// Subscriber `index` is at `next`; tells it where all are as far.
    fn reach(&self, index: usize, next: u64, latencies: &mut Vec<u64>) -> Outcome<()> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.drain(..).for_each(|ns| shared.latencies.saturating_record(ns));
        shared.reached[index] = Some(next);
        let slowest = shared.reached.iter().copied().min().flatten();
        if let Some(slowest) = slowest.filter(|&slowest| shared.told.is_none_or(|t| slowest > t)) {
            shared.told = Some(slowest);
            shared.to.write_all(&slowest.to_le_bytes())?;
        }
        Ok(())
    }

    fn heard(&self) -> Heard {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| shared.latencies.value_at_quantile(quantile);
        Heard {
            received: self.received.iter().map(|count| count.0.load(Ordering::Relaxed)).collect(),
            disorder: self.disorder.load(Ordering::Relaxed),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            max_ns: shared.latencies.max(),
        }
    }
}

/// One subscriber's side.
pub(crate) struct Ear {
    ears: Arc<Ears>,
    index: usize,
    probed: bool,
    received: u64,
    /// The number that comes next.
    next: u64,
    /// The number at which it tells.
    tell: u64,
    latencies: Vec<u64>,
}

impl Ear {
    fn new(ears: &Arc<Ears>, index: usize) -> Self {
        let (ears, tell) = (Arc::clone(ears), ears.step);
        Self { ears, index, probed: false, received: 0, next: 0, tell, latencies: Vec::new() }
    }

    /// Events between two reports.
    pub(crate) fn step(&self) -> u64 {
        self.ears.step
    }

    /// Counts one event.
    pub(crate) fn hear(&mut self, payload: &[u8]) -> Outcome<()> {
        let (number, at_ns) = read_stamp(payload).ok_or("a payload has a number")?;
        if number == PROBE {
            return self.probe();
        }
        self.received += 1;
        self.ears.received[self.index].0.store(self.received, Ordering::Relaxed);
        if at_ns > 0 {
            self.latencies.push(super::now_ns().saturating_sub(at_ns));
        }
        if number < self.next {
            self.ears.disorder.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.next = number + 1;
        if self.next >= self.tell {
            self.tell = self.next - self.next % self.ears.step + self.ears.step;
            return self.ears.reach(self.index, self.next, &mut self.latencies);
        }
        Ok(())
    }

    /// The first probe shows that everything between publisher and subscriber is connected.
    fn probe(&mut self) -> Outcome<()> {
        if std::mem::replace(&mut self.probed, true) {
            return Ok(());
        }
        self.ears.reach(self.index, 0, &mut self.latencies)
    }
}

/// Subscribes, a thread for each, and says what was heard when the publisher is done.
pub(crate) fn listen(
    kind: EventKind,
    at: &str,
    pattern: &str,
    subscribers: usize,
    step: u64,
) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&Listens { reports: listener.local_addr()?.to_string() })?;
    let (mut publisher, _) = listener.accept()?;
    let ears = Ears::new(publisher.try_clone()?, subscribers, step)?;
    for index in 0..subscribers {
        let mut ear = Ear::new(&ears, index);
        let (at, pattern) = (at.to_owned(), pattern.to_owned());
        thread::spawn(move || {
            let ended = match kind {
                EventKind::Plain => plain::subscriber(&at, &pattern, &mut ear),
                EventKind::Websocket => websocket::subscriber(&at, &mut ear),
                EventKind::Rust => rust::subscriber(&at, &pattern, &mut ear),
                EventKind::Queue => queue::consumer(&at, &mut ear),
            };
            if let Err(error) = ended {
                eprintln!("subscriber {index}: {error}");
            }
        });
    }
    // The publisher says nothing, until it closes.
    publisher.read_to_end(&mut Vec::new())?;
    say(&ears.heard())?;
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HEAD, now_ns, stamp};
    use super::*;

    fn pair(subscribers: usize) -> (Arc<Ears>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let publisher = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Ears::new(listener.accept().unwrap().0, subscribers, 4).unwrap(), publisher)
    }

    fn say(ear: &mut Ear, number: u64) {
        let mut payload = [0; HEAD];
        stamp(&mut payload, number, now_ns());
        ear.hear(&payload).unwrap();
    }

    fn told(from: &mut TcpStream) -> u64 {
        let mut number = [0; 8];
        from.read_exact(&mut number).unwrap();
        u64::from_le_bytes(number)
    }

    #[test]
    fn the_slowest_is_told() {
        let (ears, mut publisher) = pair(2);
        let [mut quick, mut slow] = [0, 1].map(|index| Ear::new(&ears, index));
        say(&mut quick, PROBE);
        say(&mut slow, PROBE);
        say(&mut slow, PROBE);
        assert_eq!(told(&mut publisher), 0);
        (0..8).for_each(|number| say(&mut quick, number));
        (0..5).for_each(|number| say(&mut slow, number));
        assert_eq!(told(&mut publisher), 4);
        (5..8).for_each(|number| say(&mut slow, number));
        assert_eq!(told(&mut publisher), 8);
        let heard = ears.heard();
        assert_eq!((heard.received, heard.disorder), (vec![8, 8], 0));
        assert!(heard.p50_ns <= heard.max_ns);
    }

    #[test]
    fn losses_stop_nothing_and_repeats_are_counted() {
        let (ears, mut publisher) = pair(1);
        let mut ear = Ear::new(&ears, 0);
        [0, 1, 6, 3, 7].into_iter().for_each(|number| say(&mut ear, number));
        assert_eq!((told(&mut publisher), told(&mut publisher)), (7, 8));
        let heard = ears.heard();
        assert_eq!((heard.received, heard.disorder), (vec![5], 1));
    }
}
