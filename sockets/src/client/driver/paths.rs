//! The connections a driver has, one for each address, and which of them it uses.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mpreg_patterns::base::limits::ADDRESSES;
use mpreg_patterns::failover::{Act, Failover};
use mpreg_patterns::ops::{Hello, Request};
use mpreg_patterns::values::Frames;
use smol_str::{SmolStr, ToSmolStr as _};

use super::super::connection::{Lane, PathHealth};
use super::super::transport::{Heard, Transport};
use super::Error;
use crate::envelope::{Batch, Encoding, Message};

/// The id of what a driver asks to know whether a broker is there.
pub(super) const ASKED: &str = "path";

/// One address.
struct Path {
    address: SmolStr,
    transport: Option<Transport>,
    /// What is to be asked before anything else is said.
    question: Option<Message>,
}

pub(super) struct Paths {
    paths: Vec<Path>,
    rules: Failover,
    used: Option<usize>,
    began: Instant,
    name: Option<SmolStr>,
    /// Something is known that was not told.
    untold: bool,
    /// Who asks how they do looks there.
    lane: Arc<Lane>,
}

impl Paths {
    /// Begins to connect to each of the addresses, which stand with commas between them.
    pub(super) fn open(
        addresses: &str,
        name: Option<SmolStr>,
        lane: Arc<Lane>,
    ) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Address { address: addresses.into(), why: why.into() };
        let mut paths = Vec::new();
        for address in addresses.split(',').map(str::trim) {
            if paths.len() == ADDRESSES {
                return Err(wrong("so many addresses are not taken"));
            }
            let transport = Some(Transport::connect(address)?);
            paths.push(Path { address: address.to_smolstr(), transport, question: None });
        }
        let rules = Failover::new(paths.len(), 0);
        let began = Instant::now();
        let mut paths = Self { paths, rules, used: None, began, name, untold: true, lane };
        paths.advance();
        Ok(paths)
    }

    pub(super) const fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn is_used(&self, at: usize) -> bool {
        self.used == Some(at)
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// The broker has answered.
    pub(super) fn answered(&mut self, at: usize) {
        self.rules.answered(at, self.now_ns());
        self.untold = true;
    }

    /// A connection was lost. Whether it was the only one, which connects anew by itself.
    pub(super) fn lost(&mut self, at: usize) -> bool {
        self.rules.lost(at, self.now_ns());
        let is_alone = self.paths.len() == 1;
        if is_alone {
            self.paths[at].question = self.hello();
        }
        self.untold = true;
        is_alone
    }

    /// Does what is due. Whether what was in flight is lost: another connection is used, or none.
    pub(super) fn advance(&mut self) -> bool {
        if self.paths.len() > 1 {
            self.rules.tick(self.now_ns());
        }
        let mut lost = false;
        for act in self.rules.acts() {
            self.untold = true;
            match act {
                Act::Open(at) => self.connect(at),
                Act::Close(at) => {
                    self.paths[at].transport = None;
                    self.paths[at].question = None;
                }
                Act::Ask(at) => {
                    let ping = Request::Ping { id: Some(ASKED.into()) };
                    self.paths[at].question = message(&ping);
                }
                Act::Use(at) => lost |= self.used.replace(at).is_some(),
                Act::Rest => lost |= self.used.take().is_some(),
            }
        }
        if std::mem::take(&mut self.untold) {
            self.tell();
        }
        lost
    }

    fn connect(&mut self, at: usize) {
        let hello = self.hello();
        let path = &mut self.paths[at];
        path.question = hello;
        if path.transport.is_none() {
            match Transport::connect(&path.address) {
                Ok(transport) => path.transport = Some(transport),
                // It was well once; out of descriptors, most likely. Its breaker tries again.
                Err(error) => log::warn!("{error}"),
            }
        }
    }

    fn hello(&self) -> Option<Message> {
        let (id, name) = (Some(ASKED.into()), self.name.clone());
        message(&Request::Hello(Hello { id, batch: Some(true), name, ..Hello::default() }))
    }

    /// When [`Paths::advance`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.rules.due_ns().map(|due_ns| self.began + Duration::from_nanos(due_ns))
    }

    pub(super) fn receive(&mut self, at: usize) -> Option<Heard> {
        self.paths[at].transport.as_mut()?.receive()
    }

    /// Sends over the connection in use. Whether there was room.
    pub(super) fn send(&mut self, message: &Message) -> bool {
        let Some(path) = self.used.map(|at| &mut self.paths[at]) else { return false };
        path.ask();
        let transport = path.transport.as_mut().filter(|_| path.question.is_none());
        transport.is_some_and(|transport| transport.send(message))
    }

    pub(super) fn flush(&mut self) {
        for path in &mut self.paths {
            path.ask();
            path.transport.iter_mut().for_each(Transport::flush);
        }
    }

    /// Whether there is something to receive or, for messages that wait, room to send.
    pub(super) fn is_ready(&mut self, is_waiting: bool) -> bool {
        let used = self.used;
        self.paths.iter_mut().enumerate().any(|(at, path)| {
            let wants_room = path.question.is_some() || is_waiting && used == Some(at);
            path.transport.as_mut().is_some_and(|transport| transport.is_ready(wants_room))
        })
    }

    /// Waits until something has changed on any of them.
    pub(super) fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut changed = Poll::Pending;
        for transport in self.paths.iter_mut().filter_map(|path| path.transport.as_mut()) {
            if let Poll::Ready(of) = transport.poll_changed(context) {
                changed = Poll::Ready(of);
            }
        }
        changed
    }

    /// Lets whoever asks know how the connections do.
    pub(super) fn tell(&self) {
        let told = self.paths.iter().zip(self.rules.paths()).enumerate();
        let told = told.map(|(at, (path, (state, health)))| PathHealth {
            address: path.address.to_string(),
            in_use: self.used == Some(at),
            state: state.as_str(),
            score: health.score(),
            success: health.success(),
            latency_ms: health.latency_ms(),
            trend: health.trend().as_str(),
            refusal: path.transport.as_ref().and_then(Transport::refusal).map(Into::into),
        });
        self.lane.set_paths(told.collect());
    }
}

impl Path {
    /// Asks what is to be asked, when there is room.
    fn ask(&mut self) {
        if let (Some(question), Some(transport)) = (&self.question, &mut self.transport)
            && transport.send(question)
        {
            transport.flush();
            self.question = None;
        }
    }
}

fn message(request: &Request) -> Option<Message> {
    let mut batch = Batch::new(Encoding::Bincode);
    batch.push(request).ok()?;
    batch.finish().map(|body: Bytes| Message { body, frames: Frames::new() })
}
