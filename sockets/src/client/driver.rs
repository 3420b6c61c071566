//! The task that owns a peer's socket: sends what the lane brings, hands out what comes in.
//!
//! There is no thread between the caller and the socket, since each thread on a message's way costs
//! more than everything else: the task waits for ZeroMQ's descriptor in tokio's own poll, and polls
//! a WebSocket itself.

mod paths;
mod serving;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mpreg_patterns::base::limits::{COALESCE_BYTES, FRAME_BYTES};
use mpreg_patterns::base::{Code, Limits, Map, Refusal};
use mpreg_patterns::ops::{GraphReply, ProgressReply, Reply, Request, Settle, Verdict};
use mpreg_patterns::values::Frames;
use smol_str::SmolStr;

use super::Error;
use super::connection::{Answer, Command, GRACE, Lane, Pending};
use super::consumers::Consumers;
use super::producer::Producers;
use super::queues::Receipt;
use super::routes::Routes;
use super::topics::UNCONFIRMED;
use super::transport::{Heard, LINGER};
use crate::envelope::{self, Batch, Encoding, IDS_AT_ONCE, Outgoing, Pushed};
use paths::{ASKED, Paths};

pub(super) use serving::Serving;

/// Messages that are read before something is sent again.
const MESSAGES_AT_ONCE: usize = 16;
/// How often late answers are looked for and offers repeated.
const SWEEP: Duration = Duration::from_millis(500);
const REFRESH: Duration = Duration::from_millis(2_000);

/// Which side of a call this peer is on.
pub(super) enum Role {
    /// The broker's welcome is the answer of this one.
    Client(Pending),
    Worker(Box<Serving>),
}

/// The key of what waits for the welcome; keys of requests begin at 1.
const WELCOME: u64 = 0;

struct Driver {
    lane: Arc<Lane>,
    pending: Map<u64, Pending>,
    serving: Option<Box<Serving>>,
    batch: Batch,
    /// Messages that there was no room for, oldest first.
    waiting: VecDeque<Waiting>,
    /// The subscriptions of a client.
    routes: Routes,
    /// Its consumers of queues.
    consumers: Consumers,
    producers: Producers,
    /// Refusals of events that nobody waits for, and the last of them.
    untold: u64,
    last_refusal: Option<Refusal>,
    /// Answers of the functions that ran where their message was read.
    answers: Vec<Request>,
    limits: Limits,
    offered: Instant,
    swept: Instant,
    /// Since when nobody asks anything any more.
    closing: Option<Instant>,
    /// How often the driver itself holds the lane.
    own: usize,
    paths: Paths,
}

/// A message on its way out.
struct Waiting {
    message: envelope::Message,
    /// Bytes of events in it that somebody may wait for room because of.
    events: usize,
}

/// Begins to connect to the addresses, with commas between them, and starts the task that owns the
/// connections.
pub(super) fn start(
    addresses: &str,
    name: Option<SmolStr>,
    role: Role,
) -> Result<Arc<Lane>, Error> {
    let lane = Arc::new(Lane::new());
    let paths = Paths::open(addresses, name, lane.clone())?;
    let mut driver = Driver {
        lane: lane.clone(),
        pending: Map::default(),
        serving: None,
        batch: Batch::new(Encoding::Bincode),
        waiting: VecDeque::new(),
        routes: Routes::new(lane.clone()),
        consumers: Consumers::new(lane.clone()),
        producers: Producers::default(),
        untold: 0,
        last_refusal: None,
        answers: Vec::new(),
        // Replies are bounded by the broker; it may put a large one into a batch.
        limits: Limits { envelope_bytes: FRAME_BYTES, ..Limits::default() },
        offered: Instant::now(),
        swept: Instant::now(),
        closing: None,
        own: Arc::strong_count(&lane) - 1,
        paths,
    };
    match role {
        Role::Client(pending) => drop(driver.pending.insert(WELCOME, pending)),
        Role::Worker(serving) => {
            driver.serving = Some(serving);
            driver.offer();
        }
    }
    tokio::spawn(async move { driver.run().await });
    Ok(lane)
}

impl Driver {
    async fn run(&mut self) {
        let mut commands = Vec::new();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            self.receive();
            self.lane.take(&mut commands);
            for command in commands.drain(..) {
                self.command(command);
            }
            self.flush();
            if self.is_over() {
                return self.end();
            }
            if self.paths.is_ready(!self.waiting.is_empty()) {
                if self.swept.elapsed() >= SWEEP {
                    self.sweep();
                }
                // Whoever got an answer may go on before more is read.
                tokio::task::yield_now().await;
                continue;
            }
            let (lane, due) = (self.lane.clone(), self.paths.due());
            tokio::select! {
                biased;
                () = lane.woken() => {}
                changed = poll_fn(|context| self.paths.poll_changed(context)) => {
                    if changed.is_err() {
                        return self.end();
                    }
                }
                _ = sweep.tick() => self.sweep(),
                () = until(due) => {}
            }
        }
    }

    /// Whether nobody is left to ask anything, or to hear of it, and all that was said has left or
    /// had the time to.
    fn is_over(&mut self) -> bool {
        if !self.lane.is_closed() && Arc::strong_count(&self.lane) > self.own {
            return false;
        }
        let since = *self.closing.get_or_insert_with(Instant::now);
        self.waiting.is_empty() || since.elapsed() >= LINGER
    }

    /// Nobody will get an answer any more.
    fn end(&mut self) {
        self.lane.close();
        for (_, pending) in self.pending.drain() {
            let _ = pending.reply.send(Err(Error::Closed));
        }
        self.producers.close();
        if let Some(serving) = &mut self.serving {
            serving.in_hand.drain().for_each(|(_, task)| task.abort());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::AskCall { key, call, pending } => {
                let is_idempotent = call.options.idempotent == Some(true);
                self.pending.insert(key, pending);
                self.ask(key, &*call);
                if is_idempotent && let Some(pending) = self.pending.get_mut(&key) {
                    pending.again = Some(call);
                }
            }
            Command::AskOne { key, request, pending } => {
                self.pending.insert(key, pending);
                self.ask(key, &request);
            }
            Command::Ask { key, requests, pending } => {
                self.pending.insert(key, pending);
                for request in &requests {
                    self.ask(key, request);
                }
            }
            Command::Tell(request) => self.tell(&request),
            Command::Forget { key } => {
                if self.pending.remove(&key).is_some() {
                    let id = smol_str::format_smolstr!("{key}");
                    self.tell(&Request::Cancel { id });
                }
            }
            Command::Events(body) => {
                self.close_batch();
                self.wait(envelope::Message { body, frames: Frames::new() }, true);
            }
            Command::Subscribe { id, route, pending } => {
                self.pending.insert(id, pending);
                match self.routes.add(id, *route) {
                    Ok(requests) => requests.iter().for_each(|request| self.ask(id, request)),
                    Err(refusal) => self.settle(id, Err(Error::Refused(Box::new(refusal)))),
                }
            }
            Command::Unsubscribe { id } => {
                let requests = self.routes.remove(id);
                self.say(&requests);
            }
            Command::Acknowledge => {
                let events = self.lane.window.take();
                if events > 0 {
                    self.say(&[Request::Ack { events }]);
                }
            }
            Command::Consume { consumer, pending } => {
                let id = consumer.id;
                self.pending.insert(id, pending);
                match self.consumers.add(*consumer) {
                    Ok(request) => self.ask(id, &request),
                    Err(refusal) => self.settle(id, Err(Error::Refused(Box::new(refusal)))),
                }
            }
            Command::Leave { id } => {
                let request = self.consumers.remove(id);
                self.say(request.as_slice());
            }
            Command::Produce { id, confirms } => self.producers.add(id, confirms),
            Command::Retire { id } => self.producers.remove(id),
            Command::Ack(ids) => {
                for ids in ids.chunks(IDS_AT_ONCE) {
                    let (id, ids, verdict) = (None, ids.to_vec(), Verdict::Ack);
                    self.say(&[Request::Settle(Settle { id, ids, verdict })]);
                }
            }
        }
    }

    fn settle(&mut self, key: u64, answer: Result<Answer, Error>) {
        if let Some(pending) = self.pending.remove(&key) {
            let _ = pending.reply.send(answer);
        }
    }

    /// Sends what nobody waits for an answer to, and what has no values that could not be encoded.
    fn say(&mut self, requests: &[Request]) {
        for request in requests {
            let _ = self.put(request);
        }
    }

    fn ask<'m>(&mut self, key: u64, request: impl Into<Outgoing<'m>>) {
        if let Err(refusal) = self.put(request) {
            self.settle(key, Err(Error::Refused(Box::new(refusal))));
        }
    }

    fn tell(&mut self, request: &Request) {
        match request {
            Request::Result { run, .. } | Request::Failed { run, .. } => self.answered(*run),
            Request::Bye { .. } => self.serving.iter_mut().for_each(|s| s.leaving = true),
            _ => {}
        }
        if let Err(refusal) = self.put(request)
            && let Request::Result { run, .. } = request
        {
            // A result that cannot be sent is a failure, so that the run has its one outcome.
            let _ = self.put(&Request::Failed { run: *run, error: Box::new(refusal) });
        }
    }

    /// Adds a request to what goes out next.
    fn put<'m>(&mut self, request: impl Into<Outgoing<'m>>) -> Result<(), Refusal> {
        match self.batch.push(request).map_err(|fault| fault.refusal())? {
            Pushed::Alone(message) => {
                self.close_batch();
                self.wait(message, false);
            }
            Pushed::Joined if self.batch.bytes() >= COALESCE_BYTES => self.close_batch(),
            Pushed::Joined => {}
        }
        Ok(())
    }

    fn close_batch(&mut self) {
        if let Some(body) = self.batch.finish() {
            self.wait(envelope::Message { body, frames: Frames::new() }, false);
        }
    }

    fn wait(&mut self, message: envelope::Message, events: bool) {
        let events = if events { message.body.len() } else { 0 };
        self.waiting.push_back(Waiting { message, events });
    }

    /// Sends what waits, as far as there is room.
    fn flush(&mut self) {
        self.close_batch();
        let mut events = 0;
        while let Some(first) = self.waiting.front() {
            if !self.paths.send(&first.message) {
                break;
            }
            events += first.events;
            self.waiting.pop_front();
        }
        self.paths.flush();
        self.lane.sent(events);
    }

    /// Reads what is there; see [`Paths::is_ready`] for what is left.
    fn receive(&mut self) {
        for at in 0..self.paths.len() {
            for _ in 0..MESSAGES_AT_ONCE {
                match self.paths.receive(at) {
                    None => break,
                    Some(Heard::Message(body, frames)) => self.message(at, &body, frames),
                    Some(Heard::Lost) => {
                        if self.paths.lost(at) {
                            self.lost();
                        }
                    }
                }
            }
        }
        if self.paths.advance() {
            self.lost();
        }
        let answers = std::mem::take(&mut self.answers);
        for answer in &answers {
            self.tell(answer);
        }
        self.answers = answers;
        self.answers.clear();
    }

    fn message(&mut self, at: usize, body: &Bytes, frames: Frames) {
        if !self.paths.is_used(at) {
            return self.aside(at, body, frames);
        }
        let mut replies = Vec::new();
        let (routes, consumers) = (&mut self.routes, &mut self.consumers);
        let _ = envelope::decode_reply(body, frames, &self.limits, &mut |item| match item.result {
            // Straight to where they go: of nothing else there is as much.
            Ok(Reply::Event(delivery)) => routes.take(delivery),
            Ok(Reply::Deliver(delivered)) => consumers.take(*delivered),
            other => replies.extend(other),
        });
        routes.flush();
        let unwanted = consumers.give_back();
        self.say(unwanted.as_slice());
        for reply in replies {
            match reply {
                Reply::Welcome { id: Some(id), about } if id == ASKED => {
                    self.welcome(at, Ok(Answer::Welcome(about)));
                }
                Reply::Pong { id: Some(id) } if id == ASKED => self.paths.answered(at),
                Reply::Error { id: Some(id), error, .. } if id == ASKED => {
                    self.welcome(at, Err(Error::Refused(error)));
                }
                other => self.reply(other),
            }
        }
    }

    /// What comes over a connection that is not in use: whether the broker is there.
    fn aside(&mut self, at: usize, body: &Bytes, frames: Frames) {
        let mut replies = Vec::new();
        let mut note = |item: envelope::Item<Reply>| replies.extend(item.result);
        let _ = envelope::decode_reply(body, frames, &self.limits, &mut note);
        for reply in replies {
            match reply {
                Reply::Welcome { id: Some(id), about } if id == ASKED => {
                    self.welcome(at, Ok(Answer::Welcome(about)));
                }
                Reply::Pong { id: Some(id) } if id == ASKED => self.paths.answered(at),
                _ => {}
            }
        }
    }

    /// The broker has answered to a greeting.
    fn welcome(&mut self, at: usize, answer: Result<Answer, Error>) {
        if answer.is_ok() {
            self.paths.answered(at);
        }
        self.settle(WELCOME, answer);
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Run(run) => self.run_one(run),
            Reply::Result { id, body, .. } => self.answer(&id, Ok(Answer::Body(*body))),
            Reply::Error { id: Some(id), error, .. } if id == UNCONFIRMED => {
                self.untold += 1;
                self.lane.refused.fetch_add(1, Ordering::Relaxed);
                self.last_refusal = Some(*error);
            }
            Reply::Error { id: Some(id), error, .. } => {
                if !Routes::refused(&id, &error)
                    && !Consumers::refused(&id, &error)
                    && let Some(Err(error)) = self.producers.take(&id, Err(error))
                {
                    if let Ok(key) = id.parse() {
                        self.consumers.forget(key);
                    }
                    self.answer(&id, Err(Error::Refused(error)));
                }
            }
            Reply::Error { id: None, op, error, .. } => self.refused(op.as_deref(), *error),
            Reply::Graph(reply) => self.graph(*reply),
            Reply::Progress(progress) => self.progress(*progress),
            Reply::Pong { id: Some(id) } | Reply::Consumed { id: Some(id), .. } => {
                self.answer(&id, Ok(Answer::Done));
            }
            Reply::Cancel { run } => self.cancel(run),
            Reply::Bye { .. } => self.bye(),
            Reply::Published { id, message } => self.answer(&id, Ok(Answer::Published(message))),
            Reply::Subscribed { id: Some(id), epoch, patterns, .. } => {
                let (complete, again) = self.routes.subscribed(&id, epoch, patterns);
                if let Some(key) = complete {
                    self.settle(key, Ok(Answer::Done));
                }
                self.say(&again);
            }
            Reply::Event(delivery) => self.routes.take(delivery),
            Reply::Deliver(delivered) => self.consumers.take(*delivered),
            Reply::Sent { id, message, durability, queues, .. } => {
                let receipt = Receipt { message, durability, queues };
                if self.producers.take(&id, Ok(receipt)).is_some() {
                    self.answer(&id, Ok(Answer::Sent(receipt)));
                }
            }
            Reply::Acked { id, unknown, .. } => {
                self.answer(&id, Ok(Answer::Acked(unknown.is_empty())));
            }
            Reply::Welcome { .. }
            | Reply::Pong { .. }
            | Reply::Offered { .. }
            | Reply::Consumed { .. }
            | Reply::Subscribed { .. }
            // These brokers say to each other.
            | Reply::Call(_)
            | Reply::HandOver(_)
            | Reply::Consume { .. }
            | Reply::Settle(_) => {}
        }
    }

    fn answer(&mut self, id: &str, answer: Result<Answer, Error>) {
        if let Ok(key) = id.parse() {
            self.settle(key, answer);
        }
    }

    /// Puts the parts of a graph's reply together.
    fn graph(&mut self, reply: GraphReply) {
        let Ok(key) = reply.id.parse::<u64>() else { return };
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let whole = match pending.parts.take() {
            None => Box::new(reply),
            Some(mut whole) => {
                whole.results.extend(reply.results);
                whole.steps.extend(reply.steps);
                (whole.error, whole.more) = (reply.error, reply.more);
                whole
            }
        };
        if whole.more {
            pending.parts = Some(whole);
        } else if let Some(pending) = self.pending.remove(&key) {
            let answer = match whole.error {
                Some((error, _)) if !whole.ran => Err(Error::Refused(Box::new(error))),
                _ => Ok(Answer::Graph(whole)),
            };
            let _ = pending.reply.send(answer);
        }
    }

    fn progress(&self, progress: ProgressReply) {
        let pending = progress.id.parse().ok().and_then(|key: u64| self.pending.get(&key));
        if let Some(to) = pending.and_then(|pending| pending.progress.as_ref()) {
            let _ = to.send(progress);
        }
    }

    /// The connection was lost: what was in flight may or may not have happened. What may happen
    /// twice is asked again, of whichever connection is used next.
    fn lost(&mut self) {
        let _ = self.batch.finish();
        self.waiting.retain(|waiting| waiting.events > 0);
        let now = Instant::now();
        for (key, mut pending) in std::mem::take(&mut self.pending) {
            if let Some(mut call) = pending.again.take() {
                call.options.timeout_ms = Some(left_ms(pending.due, now));
                pending.parts = None;
                self.command(Command::AskCall { key, call, pending });
            } else if key == WELCOME {
                self.pending.insert(key, pending);
            } else {
                let lost =
                    Error::refused(Code::OutcomeUnknown, "the connection to the broker was lost");
                let _ = pending.reply.send(Err(lost));
            }
        }
        self.producers.lost();
        let probe = self.routes.lost();
        self.say(probe.as_slice());
        let consumers = self.consumers.again();
        self.say(&consumers);
        if let Some(serving) = &mut self.serving {
            // The broker has counted these runs as lost: their results would come too late.
            serving.in_hand.drain().for_each(|(_, task)| task.abort());
            if !serving.leaving {
                self.offer();
            }
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.swept = now;
        self.paths.tell();
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.due <= now).map(|(&key, _)| key).collect();
        for key in late {
            if let Some(pending) = self.pending.remove(&key) {
                let late = Error::refused(Code::Timeout, "the broker did not answer in time");
                let _ = pending.reply.send(Err(late));
            }
        }
        let probe = self.routes.refresh(now);
        self.say(probe.as_slice());
        let consumers = self.consumers.refresh(now);
        self.say(&consumers);
        if let Some(refusal) = self.last_refusal.take() {
            let count = std::mem::take(&mut self.untold);
            log::warn!("{count} events were not taken; the last: {refusal}");
        }
        if self.serving.as_ref().is_some_and(|serving| !serving.leaving)
            && now.duration_since(self.offered) >= REFRESH
        {
            self.offer();
        }
    }
}

/// What is left of a call's time.
fn left_ms(due: Instant, now: Instant) -> u64 {
    let left = due.saturating_duration_since(now).saturating_sub(GRACE);
    left.as_millis().max(1) as u64
}

/// Waits for a moment, if there is one.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
