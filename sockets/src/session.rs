//! How one peer speaks: its encoding, whether it takes batches, and what a REQ still owes an
//! answer.

mod event;
#[cfg(test)]
mod tests;

use mpreg_patterns::base::{Code, Refusal, RunId};
use mpreg_patterns::node::{Envelope, error_reply};
use mpreg_patterns::ops::{GraphReply, Reply, Request};
use mpreg_patterns::outbox;
use mpreg_patterns::values::Fault;
use smol_str::SmolStr;

use crate::envelope::{self, Bad, Batch, Decoded, Encoding, Item, Message, Pushed};
use crate::router::Prefix;
pub use event::LastEvent;

/// A message on its way to one peer, with the runs in it.
#[derive(Debug)]
pub struct Parcel {
    prefix: Prefix,
    message: Message,
    runs: Vec<RunId>,
    replies: u32,
}

impl Parcel {
    /// What stands before the body.
    #[must_use]
    pub const fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// The envelope.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.message.body
    }

    /// The attachments.
    #[must_use]
    pub fn frames(&self) -> &[bytes::Bytes] {
        &self.message.frames
    }

    /// Body and attachments, for another broker.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        Envelope { body: self.message.body.clone(), frames: self.message.frames.clone() }
    }

    /// How many messages are in it that are not runs.
    #[must_use]
    pub fn replies(&self) -> u64 {
        u64::from(self.replies).saturating_sub(self.runs.len() as u64)
    }
}

impl outbox::Parcel for Parcel {
    fn bytes(&self) -> usize {
        let frames = self.message.frames.iter().map(bytes::Bytes::len).sum::<usize>();
        self.message.body.len() + frames
    }

    fn take_runs(&mut self) -> Vec<RunId> {
        std::mem::take(&mut self.runs)
    }
}

/// An item that the rules do not get to see.
#[derive(Debug)]
pub struct Refused {
    /// What the peer hears.
    pub reply: Reply,
    /// The run it was to be the outcome of, and the failure that takes its place.
    pub run: Option<(RunId, Refusal)>,
}

/// The outcomes that one message of a REQ socket waits for.
#[derive(Debug)]
struct Expected {
    batch: bool,
    /// One error answers all of it.
    unreadable: bool,
    items: Vec<Awaited>,
    left: usize,
}

/// One item of a REQ's message, and its outcome once that is there.
#[derive(Debug)]
struct Awaited {
    id: Option<SmolStr>,
    what: Answer,
    outcome: Option<Reply>,
}

/// What kind of reply is the outcome of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Pong,
    Welcome,
    Bye,
    Outcome,
}

/// One peer's way of speaking, and what is on its way to it.
#[derive(Debug)]
pub struct Session {
    is_req: bool,
    prefix: Prefix,
    coalesces: bool,
    batch: Batch,
    ready: std::collections::VecDeque<Parcel>,
    runs: Vec<RunId>,
    expected: Option<Expected>,
    /// Graphs a part of whose reply could not be encoded: their last part becomes the error.
    spoilt: Vec<(SmolStr, Refusal)>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            is_req: false,
            prefix: Prefix::None,
            coalesces: false,
            batch: Batch::new(Encoding::Json),
            ready: std::collections::VecDeque::new(),
            runs: Vec::new(),
            expected: None,
            spoilt: Vec::new(),
        }
    }
}

impl Session {
    /// A message has come, whose items follow through [`Session::admit`].
    pub fn begin(&mut self, is_req: bool, prefix: Prefix) {
        (self.is_req, self.prefix) = (is_req, prefix);
        if is_req {
            // A REQ that asks again has given up what it asked before.
            let (batch, unreadable, items, left) = Default::default();
            self.expected = Some(Expected { batch, unreadable, items, left });
        }
    }

    /// Lets one item through to the rules, or says why not.
    #[inline]
    pub fn admit(&mut self, item: Item<Request>) -> Result<Request, Box<Refused>> {
        match item.result {
            // Nothing is noted of what a DEALER may ask.
            Ok(request) if !self.is_req && !matches!(request, Request::Hello(_)) => Ok(request),
            result => self.admit_noted(item.index, result),
        }
    }

    fn admit_noted(
        &mut self,
        index: Option<u32>,
        result: Result<Request, Box<Bad>>,
    ) -> Result<Request, Box<Refused>> {
        let (id, what, admitted) = match result {
            Ok(request) => {
                if let Request::Hello(hello) = &request {
                    self.coalesces = hello.batch.unwrap_or(self.coalesces);
                }
                let (id, what) = (id_of(&request).cloned(), Answer::to(&request));
                match self.needs_dealer(&request) {
                    Some((op, refusal)) => {
                        (id.clone(), what, Err((id, op.map(SmolStr::new_static), refusal, None)))
                    }
                    None => (id, what, Ok(request)),
                }
            }
            Err(bad) => {
                (bad.id.clone(), Answer::Outcome, Err((bad.id, bad.op, bad.refusal, bad.run)))
            }
        };
        let place = self.expected.as_mut().map(|expected| {
            expected.items.push(Awaited { id, what, outcome: None });
            expected.left += 1;
            expected.items.len() as u32 - 1
        });
        admitted.map_err(|(id, op, error, run)| {
            let failure = |run| {
                let message = format!("the worker's answer could not be read: {error}");
                (run, Refusal::by_worker(Some(&error.code), &message, false))
            };
            let run = run.map(failure);
            // To a REQ it is the place among the outcomes, and goes no further; see `outcome`.
            let item = place.or_else(|| index.filter(|_| id.is_none()));
            let error = Box::new(error);
            Box::new(Refused { reply: Reply::Error { id, op, item, error, track: None }, run })
        })
    }

    fn needs_dealer(&self, request: &Request) -> Option<(Option<&'static str>, Refusal)> {
        let (op, why) = match request {
            _ if !self.is_req => return None,
            Request::Cancel { .. } => (Some("cancel"), "cancel has no reply"),
            Request::Offer(_) => (Some("offer"), "an offer is followed by runs"),
            Request::Result { .. } => (Some("result"), "an outcome has no reply"),
            Request::Failed { .. } => (Some("error"), "an outcome has no reply"),
            Request::Stray => (None, "an outcome has no reply"),
            Request::Progress { .. } => (Some("progress"), "progress has no reply"),
            Request::Subscribe(_) => (Some("subscribe"), "a subscription is followed by events"),
            Request::Unsubscribe { .. } => (Some("unsubscribe"), "patterns bring events"),
            Request::Ack { .. } => (Some("ack"), "an ack has no reply"),
            Request::Consume { .. } => (Some("consume"), "a consumer gets deliveries"),
            Request::Settle(settle) if settle.id.is_none() => {
                (Some(settle.verdict.as_str()), "without an id it has no reply")
            }
            Request::Send(send) if !send.confirm => {
                (Some("send"), "what is not confirmed has no reply")
            }
            Request::Publish(publish) if !publish.confirm => {
                (Some("publish"), "what is not confirmed has no reply")
            }
            Request::Graph(part) if part.more || part.part > 0 => {
                (Some("graph"), "a part of a graph has no reply")
            }
            _ => return None,
        };
        let message = format!("{why}, and a REQ socket waits for exactly one");
        Some((op, Refusal::new(Code::NeedsDealer, message)))
    }

    /// How the peer is answered: the encoding, and whether in batches.
    #[must_use]
    pub const fn manner(&self) -> (Encoding, bool) {
        (self.batch.encoding(), self.coalesces)
    }

    /// Answers the peer in another manner from now on.
    pub fn speak(&mut self, encoding: Encoding, coalesces: bool) {
        self.coalesces = coalesces;
        if self.batch.encoding() != encoding {
            self.close();
            self.batch = Batch::new(encoding);
        }
    }

    /// What the message was: a REQ's batch is answered by an array.
    pub fn heard(&mut self, decoded: &Decoded) {
        if let Some(expected) = &mut self.expected {
            expected.batch = decoded.batch;
        }
    }

    /// The message could not be read: one error answers all of it.
    pub fn unreadable(&mut self) {
        if let Some(expected) = &mut self.expected {
            expected.items = vec![Awaited { id: None, what: Answer::Outcome, outcome: None }];
            (expected.unreadable, expected.left) = (true, 1);
        }
    }

    /// Adds a message to what goes out. Nothing was added if its values cannot be encoded.
    pub fn push(&mut self, reply: &Reply) -> Result<(), Refusal> {
        match reply {
            _ if self.is_req => self.outcome(reply),
            Reply::Graph(part) => self.push_part(part, reply),
            _ => self.add(reply),
        }
    }

    /// Adds a part of a graph's reply. If one of several cannot be encoded the rest is held back,
    /// and the last is refused in its place: a graph has one outcome.
    fn push_part(&mut self, part: &GraphReply, reply: &Reply) -> Result<(), Refusal> {
        let refusal = match self.spoilt.iter().position(|(id, _)| *id == part.id) {
            Some(at) => self.spoilt.swap_remove(at).1,
            None => match self.add(reply) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
        };
        if !part.more {
            return Err(refusal);
        }
        self.spoilt.push((part.id.clone(), refusal));
        Ok(())
    }

    fn add(&mut self, reply: &Reply) -> Result<(), Refusal> {
        if self.coalesces {
            match self.batch.push(reply).map_err(refuse)? {
                Pushed::Joined => {}
                Pushed::Alone(message) => {
                    self.close();
                    self.ready(message, 1);
                }
            }
            self.note_run(reply);
        } else {
            let message = envelope::lone(self.batch.encoding(), reply).map_err(refuse)?;
            self.note_run(reply);
            self.ready(message, 1);
        }
        Ok(())
    }

    fn note_run(&mut self, reply: &Reply) {
        if let Some(run) = reply.run() {
            match self.ready.back_mut() {
                // A message of its own has left the batch already.
                Some(last) if self.batch.is_empty() && self.coalesces => last.runs.push(run),
                _ => self.runs.push(run),
            }
        }
    }

    fn ready(&mut self, message: Message, replies: u32) {
        let runs = std::mem::take(&mut self.runs);
        self.ready.push_back(Parcel { prefix: self.prefix, message, runs, replies });
    }

    /// Ends the frame that is being filled.
    fn close(&mut self) {
        let items = self.batch.items();
        if let Some(body) = self.batch.finish() {
            self.ready(Message { body, frames: Vec::new() }, items);
        }
    }

    /// The next message to send.
    pub fn take(&mut self) -> Option<Parcel> {
        if self.ready.is_empty() {
            self.close();
        }
        self.ready.pop_front()
    }

    /// A message could not be sent, since the peer is gone; see [`Session::unsent`].
    pub fn put_back(&mut self, parcel: Parcel) {
        self.ready.push_front(parcel);
    }

    /// Runs that were never handed over.
    pub fn unsent(&mut self) -> Vec<RunId> {
        let mut runs = std::mem::take(&mut self.runs);
        runs.extend(self.ready.drain(..).flat_map(|parcel| parcel.runs));
        runs
    }

    /// Bytes of the frame that is being filled.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Keeps one outcome of a REQ's message; sends all of them once the last is there.
    fn outcome(&mut self, reply: &Reply) -> Result<(), Refusal> {
        let Some(expected) = &mut self.expected else { return Ok(()) };
        let Some(at) = expected.place(reply) else { return Ok(()) };
        let batch = expected.batch;
        let slot = &mut expected.items[at].outcome;
        let more = matches!(reply, Reply::Graph(part) if part.more);
        let mut whole = join(slot.take(), reply);
        if let Reply::Error { id, item, .. } = &mut whole {
            *item = item.filter(|_| batch && id.is_none());
        }
        *slot = Some(whole);
        if more {
            return Ok(());
        }
        expected.left -= 1;
        if expected.left > 0 {
            return Ok(());
        }
        let Some(expected) = self.expected.take() else { return Ok(()) };
        let message = self.answer(expected);
        self.ready(message, 1);
        Ok(())
    }

    /// One message for one message: the outcome, or an array of all of them.
    fn answer(&self, expected: Expected) -> Message {
        let encoding = self.batch.encoding();
        let told = expected.items.into_iter().map(|item| (item.id, item.outcome));
        let (ids, replies): (Vec<_>, Vec<_>) = told.unzip();
        let mut replies: Vec<Reply> = replies.into_iter().flatten().collect();
        loop {
            let encoded = if expected.batch {
                envelope::outcomes(encoding, &replies)
            } else {
                envelope::lone(encoding, &replies[0]).map_err(|fault| (0, fault))
            };
            match encoded {
                Ok(message) => return message,
                // An error has no values, so this happens once for each reply at most.
                Err((at, fault)) => {
                    let op = op_of(&replies[at]);
                    replies[at] = error_reply(ids[at].clone(), op, refuse(fault));
                }
            }
        }
    }
}

impl Answer {
    fn to(request: &Request) -> Self {
        match request {
            Request::Hello(_) => Self::Welcome,
            Request::Ping { .. } => Self::Pong,
            Request::Bye { .. } => Self::Bye,
            _ => Self::Outcome,
        }
    }
}

impl Awaited {
    /// Whether its outcome, or the rest of it, is still to come.
    fn is_open(&self) -> bool {
        match &self.outcome {
            None => true,
            Some(Reply::Graph(part)) => part.more,
            Some(_) => false,
        }
    }
}

impl Expected {
    /// The item that a reply answers.
    fn place(&self, reply: &Reply) -> Option<usize> {
        let (id, what) = match reply {
            Reply::Progress(_)
            | Reply::Run(_)
            | Reply::Call(_)
            | Reply::Cancel { .. }
            | Reply::Offered { .. }
            | Reply::Subscribed { .. }
            | Reply::Event(_)
            | Reply::Consumed { .. }
            | Reply::Deliver(_)
            | Reply::HandOver(_)
            | Reply::Consume { .. }
            | Reply::Settle(_) => return None,
            // What was refused at the door knows its place.
            Reply::Error { item: Some(item), .. } => {
                let item = *item as usize;
                let open = self.items.get(item).is_some_and(Awaited::is_open);
                return (open && !self.unreadable).then_some(item);
            }
            Reply::Error { id, op, .. } if op.as_deref() == Some("hello") => {
                (id.as_ref(), Answer::Welcome)
            }
            Reply::Error { id, .. } => (id.as_ref(), Answer::Outcome),
            Reply::Result { id, .. }
            | Reply::Published { id, .. }
            | Reply::Sent { id, .. }
            | Reply::Acked { id, .. } => (Some(id), Answer::Outcome),
            Reply::Graph(graph) => (Some(&graph.id), Answer::Outcome),
            Reply::Welcome { id, .. } => (id.as_ref(), Answer::Welcome),
            Reply::Pong { id } => (id.as_ref(), Answer::Pong),
            Reply::Bye { id } => (id.as_ref(), Answer::Bye),
        };
        let matches =
            |item: &Awaited| item.is_open() && item.what == what && item.id.as_ref() == id;
        match reply {
            // The first use of an id keeps its outcome: this belongs to the last.
            Reply::Error { error, .. } if error.refused.is_some() => {
                self.items.iter().rposition(matches)
            }
            _ => self.items.iter().position(matches),
        }
    }
}

/// Puts a part of a graph's reply to those before it.
fn join(before: Option<Reply>, reply: &Reply) -> Reply {
    match (before, reply) {
        (Some(Reply::Graph(mut whole)), Reply::Graph(part)) => {
            let GraphReply { results, steps, error, more, .. } = (**part).clone();
            whole.results.extend(results);
            whole.steps.extend(steps);
            (whole.error, whole.more, whole.part) = (error, more, None);
            Reply::Graph(whole)
        }
        (_, reply) => reply.clone(),
    }
}

/// The op whose outcome a reply is, where it can fail to be encoded.
fn op_of(reply: &Reply) -> Option<&'static str> {
    match reply {
        Reply::Result { .. } => Some("call"),
        Reply::Graph(_) => Some("graph"),
        _ => None,
    }
}

fn refuse(fault: Fault) -> Refusal {
    fault.refusal()
}

fn id_of(request: &Request) -> Option<&SmolStr> {
    match request {
        Request::Hello(hello) => hello.id.as_ref(),
        Request::Call(call) => Some(&call.id),
        Request::Graph(part) => Some(&part.id),
        Request::Cancel { id } => Some(id),
        Request::Offer(offer) => offer.id.as_ref(),
        Request::Publish(publish) => Some(&publish.id),
        Request::Subscribe(subscribe) => subscribe.id.as_ref(),
        Request::Send(send) => Some(&send.id),
        Request::Settle(settle) => settle.id.as_ref(),
        Request::Ping { id }
        | Request::Bye { id }
        | Request::Unsubscribe { id, .. }
        | Request::Consume { id, .. } => id.as_ref(),
        Request::Result { .. }
        | Request::Failed { .. }
        | Request::Progress { .. }
        | Request::Ack { .. }
        | Request::Sent { .. }
        | Request::Delivered(_)
        | Request::Consumed { .. }
        | Request::Acked { .. }
        | Request::Stray => None,
    }
}
