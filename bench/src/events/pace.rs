//! The publisher's side: events on their way, a step at a time, and what it counts. The same for
//! every contender.
//!
//! Probes until everybody listens, a warm-up, the measured window, then the wait for what is still
//! on its way.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{HEAD, PROBE, now_ns, stamp, topics};
use crate::Outcome;
use crate::machine::Usage;
use crate::plan::Load;
use crate::tally::Watch;

/// A number is told every eighth of what may be on its way.
const STEPS: usize = 8;
/// One event of so many carries the time.
const TIMED: u64 = 16;
/// What was not heard after such a silence is lost.
const SILENCE: Duration = Duration::from_millis(2_000);
/// How long everybody may take to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// Events between two reports of a subscriber.
pub(crate) const fn step(load: Load) -> u64 {
    let step = load.in_flight / STEPS;
    if step == 0 { 1 } else { step as u64 }
}

/// Events on their way, at most, where a report tells of so many.
pub(crate) const fn window(step: u64) -> u64 {
    step * STEPS as u64
}

/// Where events go.
pub(crate) trait Outlet {
    /// Takes one event; it may wait with others until [`Self::flush`].
    async fn publish(&mut self, topic: &str, payload: &[u8]) -> Outcome<()>;
    /// Lets go what waits, and others run.
    async fn flush(&mut self) -> Outcome<()>;
    /// How many were confirmed: no more than that have come through. All, where nobody confirms.
    fn confirmed(&self) -> u64 {
        u64::MAX
    }
    /// Waits until one more is.
    async fn confirmation(&mut self) -> Outcome<()> {
        std::future::pending().await
    }
}

/// What one publisher saw in one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Events that had come through to the slowest subscriber inside the window.
    pub(crate) events: u64,
    /// Length of the window.
    pub(crate) elapsed_ns: u64,
    /// Events published, warm-up included.
    pub(crate) sent: u64,
    /// Core time used inside the window.
    pub(crate) hub_cpu_ns: u64,
    pub(crate) listener_cpu_ns: u64,
    pub(crate) publisher_cpu_ns: u64,
    /// Memory of the hub at the end of the window, bytes.
    pub(crate) hub_resident: u64,
}

/// Which part of the measurement it is.
enum Phase {
    Warm,
    Window { since: Instant, heard: u64, before: [Usage; 3] },
    Settle,
}

/// How far everybody is.
pub(crate) struct Pace {
    load: Load,
    watch: Watch,
    reports: TcpStream,
    /// What has come of a report so far.
    report: Vec<u8>,
    started: Instant,
    phase: Phase,
    sent: u64,
    heard: Option<u64>,
    confirmed: u64,
    /// When a report or a confirmation came last.
    last: Instant,
    flow: Flow,
}

impl Pace {
    /// Connects to the listener's reports.
    pub(crate) async fn new(reports: &str, load: Load, watch: Watch) -> Outcome<Self> {
        let now = Instant::now();
        Ok(Self {
            load,
            watch,
            reports: TcpStream::connect(reports).await?,
            report: Vec::new(),
            started: now,
            phase: Phase::Warm,
            sent: 0,
            heard: None,
            confirmed: 0,
            last: now,
            flow: Flow::default(),
        })
    }

    /// Publishes to the end of the measurement.
    pub(crate) async fn run(mut self, outlet: &mut impl Outlet) -> Outcome<Flow> {
        let (topics, mut payload) = (topics(), vec![b'x'; self.load.size.max(HEAD)]);
        self.introduce(outlet, &topics[0], &mut payload).await?;
        loop {
            self.confirmed = outlet.confirmed();
            let open = self.is_open()?;
            if !open && (self.on_way() == 0 || self.last.elapsed() > SILENCE) {
                return Ok(self.finish());
            }
            if open && self.has_room() {
                self.step(outlet, &topics, &mut payload).await?;
                self.read()?;
            } else {
                self.wait(outlet).await?;
            }
        }
    }

    /// Publishes probes until everybody has heard one.
    async fn introduce(
        &mut self,
        outlet: &mut impl Outlet,
        topic: &str,
        payload: &mut [u8],
    ) -> Outcome<()> {
        stamp(payload, PROBE, 0);
        while self.heard.is_none() {
            if self.started.elapsed() > PATIENCE {
                return Err("nobody listens".into());
            }
            outlet.publish(topic, payload).await?;
            outlet.flush().await?;
            sleep(Duration::from_millis(10)).await;
            self.read()?;
        }
        self.started = Instant::now();
        Ok(())
    }

    /// Publishes as much as one report tells of.
    async fn step(
        &mut self,
        outlet: &mut impl Outlet,
        topics: &[String],
        payload: &mut [u8],
    ) -> Outcome<()> {
        let timed = matches!(self.phase, Phase::Window { .. });
        for _ in 0..step(self.load) {
            let at_ns = if timed && self.sent.is_multiple_of(TIMED) { now_ns() } else { 0 };
            stamp(payload, self.sent, at_ns);
            let topic = &topics[self.sent as usize % topics.len()];
            outlet.publish(topic, payload).await?;
            self.sent += 1;
        }
        outlet.flush().await
    }

    /// Events that have come through to everybody, and are confirmed.
    fn through(&self) -> u64 {
        self.heard.unwrap_or(0).min(self.confirmed).min(self.sent)
    }

    fn on_way(&self) -> u64 {
        self.sent - self.through()
    }

    fn has_room(&self) -> bool {
        self.on_way() + step(self.load) <= self.load.in_flight as u64
    }

    /// Waits for a report or a confirmation. What a long silence leaves on its way is lost, and no
    /// reason to stop.
    async fn wait(&mut self, outlet: &mut impl Outlet) -> Outcome<()> {
        let report = timeout(Duration::from_millis(200), self.reports.readable());
        let ready = tokio::select! {
            confirmed = outlet.confirmation() => {
                self.last = Instant::now();
                return confirmed;
            }
            ready = report => ready,
        };
        if let Ok(ready) = ready {
            ready?;
            self.read()?;
        } else if self.last.elapsed() > SILENCE && self.is_open()? {
            self.heard = Some(self.sent);
            self.last = Instant::now();
        }
        Ok(())
    }

    /// Reads the reports that have come; the last counts.
    fn read(&mut self) -> Outcome<()> {
        match self.reports.try_read_buf(&mut self.report) {
            Ok(0) => return Err("the listener is gone".into()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let whole = self.report.len() / 8 * 8;
        if let Some(last) = self.report[..whole].last_chunk() {
            self.heard = self.heard.max(Some(u64::from_le_bytes(*last)));
            self.last = Instant::now();
        }
        self.report.drain(..whole);
        Ok(())
    }

    /// Whether events are still to be published. Opens and closes the window.
    fn is_open(&mut self) -> Outcome<bool> {
        let heard = self.through();
        match &self.phase {
            Phase::Warm if self.started.elapsed().as_millis() as u64 >= self.load.warm_ms => {
                let before = self.usage()?;
                self.phase = Phase::Window { since: Instant::now(), heard, before };
            }
            Phase::Window { since, heard: first, before }
                if since.elapsed().as_millis() as u64 >= self.load.measure_ms =>
            {
                let elapsed_ns = since.elapsed().as_nanos() as u64;
                let after = self.usage()?;
                let used = |at: usize| after[at].cpu_ns_since(&before[at]);
                self.flow = Flow {
                    events: heard - first,
                    elapsed_ns,
                    sent: 0,
                    hub_cpu_ns: used(0),
                    listener_cpu_ns: used(1),
                    publisher_cpu_ns: used(2),
                    hub_resident: after[0].resident,
                };
                self.phase = Phase::Settle;
            }
            _ => {}
        }
        Ok(!matches!(self.phase, Phase::Settle))
    }

    /// What hub, listener and this process have used so far.
    fn usage(&self) -> Outcome<[Usage; 3]> {
        self.watch.usage()
    }

    fn finish(self) -> Flow {
        Flow { sent: self.sent, ..self.flow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells at once that everything was heard.
    struct Echo(tokio::net::TcpListener, Option<TcpStream>, u64);

    impl Outlet for Echo {
        async fn publish(&mut self, _: &str, payload: &[u8]) -> Outcome<()> {
            let (number, _) = super::super::read_stamp(payload).unwrap();
            self.2 = number.wrapping_add(1);
            Ok(())
        }

        async fn flush(&mut self) -> Outcome<()> {
            if self.1.is_none() {
                self.1 = Some(self.0.accept().await?.0);
            }
            let to = self.1.as_mut().unwrap();
            to.writable().await?;
            assert_eq!(to.try_write(&self.2.to_le_bytes())?, 8);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_window_opens_counts_and_closes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let load = Load { in_flight: 64, size: 1, warm_ms: 1, measure_ms: 20, rate: None };
        let pid = std::process::id();
        let pace = Pace::new(&at, load, Watch { hub: pid, worker: pid }).await.unwrap();
        let mut outlet = Echo(listener, None, 0);
        let flow = pace.run(&mut outlet).await.unwrap();
        assert!(flow.events > 0 && flow.elapsed_ns >= 20_000_000, "{flow:?}");
        assert_eq!((flow.sent % 8, flow.sent), (0, outlet.2));
    }
}
