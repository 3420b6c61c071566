//! How one peer speaks: its encoding, whether it takes batches, and what a REQ still owes an
//! answer.

use mpreg_patterns::base::{Code, Refusal, RunId};
use mpreg_patterns::node::error_reply;
use mpreg_patterns::ops::{GraphReply, Reply, Request};
use mpreg_patterns::outbox;
use mpreg_patterns::values::Fault;
use smol_str::SmolStr;

use crate::envelope::{self, Batch, Decoded, Encoding, Item, Message, Pushed};
use crate::router::Prefix;

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
    items: Vec<(Option<SmolStr>, Option<Reply>)>,
    left: usize,
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
        }
    }
}

impl Session {
    /// A message has come, whose items follow through [`Session::admit`].
    pub fn begin(&mut self, is_req: bool, prefix: Prefix) {
        (self.is_req, self.prefix) = (is_req, prefix);
        if is_req {
            // A REQ that asks again has given up what it asked before.
            self.expected = Some(Expected { batch: false, items: Vec::new(), left: 0 });
        }
    }

    /// Lets one item through to the rules, or says why not.
    pub fn admit(&mut self, item: Item<Request>) -> Result<Request, Box<Refused>> {
        let index = item.index;
        let (id, admitted) = match item.result {
            Ok(request) => {
                if let Request::Hello(hello) = &request {
                    self.coalesces = hello.batch.unwrap_or(self.coalesces);
                }
                let id = id_of(&request).cloned();
                match self.needs_dealer(&request) {
                    Some(refusal) => (id.clone(), Err((id, None, refusal, None))),
                    None => (id, Ok(request)),
                }
            }
            Err(bad) => (bad.id.clone(), Err((bad.id, bad.op, bad.refusal, bad.run))),
        };
        if let Some(expected) = &mut self.expected {
            expected.items.push((id, None));
            expected.left += 1;
        }
        admitted.map_err(|(id, op, error, run)| {
            let failure = |run| {
                let message = format!("the worker's answer could not be read: {error}");
                (run, Refusal::by_worker(Some(&error.code), &message, false))
            };
            let run = run.map(failure);
            let item = index.filter(|_| id.is_none());
            Box::new(Refused { reply: Reply::Error { id, op, item, error, track: None }, run })
        })
    }

    fn needs_dealer(&self, request: &Request) -> Option<Refusal> {
        let op = match request {
            _ if !self.is_req => return None,
            Request::Cancel { .. } => "cancel has no reply",
            Request::Offer(_) => "an offer is followed by runs",
            Request::Result { .. } | Request::Failed { .. } | Request::Stray => {
                "an outcome has no reply"
            }
            Request::Progress { .. } => "progress has no reply",
            Request::Graph(part) if part.more || part.part > 0 => "a part of a graph has no reply",
            _ => return None,
        };
        let message = format!("{op}, and a REQ socket waits for exactly one");
        Some(Refusal::new(Code::NeedsDealer, message))
    }

    /// How the message was encoded: the peer is answered likewise.
    pub fn heard(&mut self, decoded: &Decoded) {
        self.coalesces |= decoded.batch && !self.is_req;
        if let Some(expected) = &mut self.expected {
            expected.batch = decoded.batch;
        }
        if self.batch.encoding() != decoded.encoding {
            self.close();
            self.batch = Batch::new(decoded.encoding);
        }
    }

    /// The message could not be read: one error answers all of it.
    pub fn unreadable(&mut self) {
        if let Some(expected) = &mut self.expected {
            expected.items = vec![(None, None)];
            expected.left = 1;
        }
    }

    /// Adds a message to what goes out. Nothing was added if its values cannot be encoded.
    pub fn push(&mut self, reply: &Reply) -> Result<(), Refusal> {
        if self.is_req {
            return self.outcome(reply);
        }
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
        if let Reply::Run(run) = reply {
            match self.ready.back_mut() {
                // A message of its own has left the batch already.
                Some(last) if self.batch.is_empty() && self.coalesces => last.runs.push(run.id),
                _ => self.runs.push(run.id),
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
        let slot = &mut expected.items[at].1;
        let more = matches!(reply, Reply::Graph(part) if part.more);
        *slot = Some(join(slot.take(), reply));
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
        let (ids, replies): (Vec<_>, Vec<_>) = expected.items.into_iter().unzip();
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
                    replies[at] = error_reply(ids[at].clone(), None, refuse(fault));
                }
            }
        }
    }
}

impl Expected {
    /// The item that a reply answers.
    fn place(&self, reply: &Reply) -> Option<usize> {
        let open = |(_, answer): &(_, Option<Reply>)| match answer {
            None => true,
            Some(Reply::Graph(part)) => part.more,
            Some(_) => false,
        };
        let id = match reply {
            Reply::Progress(_) | Reply::Run(_) | Reply::Cancel { .. } | Reply::Offered { .. } => {
                return None;
            }
            Reply::Error { id: None, item: Some(item), .. } => return Some(*item as usize),
            Reply::Result { id, .. } => Some(id),
            Reply::Graph(graph) => Some(&graph.id),
            Reply::Error { id, .. }
            | Reply::Welcome { id, .. }
            | Reply::Pong { id }
            | Reply::Bye { id } => id.as_ref(),
        };
        let matches = |item: &(Option<SmolStr>, Option<Reply>)| open(item) && item.0.as_ref() == id;
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
        Request::Ping { id } | Request::Bye { id } => id.as_ref(),
        Request::Result { .. }
        | Request::Failed { .. }
        | Request::Progress { .. }
        | Request::Stray => None,
    }
}
