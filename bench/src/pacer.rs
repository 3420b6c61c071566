//! The beat of an open loop: a byte each tick, from a thread that sleeps to the microsecond. The
//! timers of tokio and of ZeroMQ know milliseconds only, and would be most of what is measured.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::Outcome;
use crate::plan::Load;
use crate::tally::TICK_NS;

/// How often a closed loop looks at the clock, if nothing else makes it.
const LOOK: Duration = Duration::from_millis(200);

/// The beats, for a task.
pub(crate) struct Beats(Option<tokio::net::UnixStream>);

impl Beats {
    /// Those of a load.
    pub(crate) fn start(load: Load) -> Outcome<Self> {
        let pacer = load.rate.map(|_| start()).transpose()?;
        Ok(Self(pacer.map(tokio::net::UnixStream::from_std).transpose()?))
    }

    /// Waits for the next: in a closed loop, for a while.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            // All that have come are one look at the clock.
            Some(pacer) => drop(pacer.read(&mut [0; 256]).await),
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Starts to beat, until the other end is dropped.
pub(crate) fn start() -> Outcome<UnixStream> {
    let (mut near, far) = UnixStream::pair()?;
    far.set_nonblocking(true)?;
    near.set_nonblocking(true)?;
    thread::spawn(move || {
        let begun = Instant::now();
        for beat in 1.. {
            let due = begun + Duration::from_nanos(beat * TICK_NS);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match near.write(&[0]) {
                Ok(_) => {}
                // It has beats enough to hear.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    });
    Ok(far)
}
