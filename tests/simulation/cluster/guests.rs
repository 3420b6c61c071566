//! Who uses several brokers: callers and workers, senders and takers, each at one of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mpreg_patterns::base::{Code, Rng, RunId};
use mpreg_patterns::ops::{
    Call, CallOptions, Event, Function, GraphOptions, GraphPart, GraphReply, Offer, Reply, Request,
    Returns, Send, SendOptions, Settle, Verdict,
};
use mpreg_patterns::values::{Body, Value};
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use super::events;
use super::ledger::Ledger;
use crate::peers::MS;
use crate::publishers::builtin;

/// Functions, of which those with an even number may be repeated.
pub(super) const FUNCTIONS: usize = 4;
/// Queues that are sent to by name.
const QUEUES: usize = 3;
/// Queues that are bound to all topics `t.N`.
const BOUND: usize = 2;
/// Whose messages are taken one at a time, by calls and by steps of graphs.
const FETCHED: &str = "fetched";
const PLANNED: &str = "planned";

/// What a guest says, and how long it takes to.
pub(super) type Said = Vec<(u64, Request)>;

pub(super) enum Role {
    Caller {
        open: BTreeMap<SmolStr, u64>,
    },
    Worker {
        functions: Vec<usize>,
    },
    Sender {
        open: BTreeMap<SmolStr, Target>,
    },
    Taker {
        queue: SmolStr,
        in_hand: BTreeMap<RunId, InHand>,
    },
    /// Asks for one message after the other, and acks each.
    Fetcher {
        asked: Option<SmolStr>,
        in_hand: BTreeMap<RunId, InHand>,
    },
    /// Its graphs take a message, which their ends settle, and run a step.
    Planner {
        asked: Option<SmolStr>,
    },
    Publisher {
        open: BTreeSet<SmolStr>,
    },
    /// Hears what is published anywhere.
    Listener,
}

/// Where a message was sent.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) number: u64,
    pub(super) queue: Option<SmolStr>,
}

/// A delivery, and when it is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct InHand {
    number: u64,
    attempt: u32,
    acked_ns: u64,
}

/// Somebody at one broker.
pub(super) struct Guest {
    pub(super) at: usize,
    /// Connections so far.
    pub(super) life: u32,
    pub(super) role: Role,
    pub(super) next_ns: u64,
}

fn queue(number: usize) -> SmolStr {
    format_smolstr!("q{number}")
}

fn bound(number: usize) -> SmolStr {
    format_smolstr!("bound{number}")
}

/// All of them.
pub(super) fn queues() -> impl Iterator<Item = SmolStr> {
    let by_name = [FETCHED, PLANNED].map(SmolStr::new_static);
    (0..QUEUES).map(queue).chain(by_name).chain((0..BOUND).map(bound))
}

/// Whether they are consumed, not taken from one at a time.
pub(super) fn has_takers(queue: &str) -> bool {
    ![FETCHED, PLANNED].contains(&queue)
}

pub(super) fn number_of(value: &Value) -> u64 {
    let text = std::str::from_utf8(&value.bytes).expect("JSON");
    text.trim_matches(['[', ']']).parse().expect("a number")
}

impl Guest {
    /// Its connection is up.
    pub(super) fn connected(&self) -> Said {
        match &self.role {
            Role::Worker { functions } => {
                let function = |of: &usize| Function {
                    name: format_smolstr!("f{of}"),
                    idempotent: of.is_multiple_of(2),
                    ..Function::default()
                };
                let functions = functions.iter().map(function).collect();
                let offer = Offer { functions, credit: Some(8), ..Offer::default() };
                vec![(0, Request::Offer(Box::new(offer)))]
            }
            Role::Taker { queue, .. } => vec![(0, consume(queue))],
            Role::Listener => vec![(0, events::listen())],
            _ => Vec::new(),
        }
    }

    /// Whether it asks only for what is there already, and so goes on to the end.
    pub(super) fn empties(&self) -> bool {
        matches!(self.role, Role::Fetcher { .. } | Role::Planner { .. })
    }

    /// Its broker was killed: nothing that was open has an outcome.
    pub(super) fn lost(&mut self, now_ns: u64, ledger: &mut Ledger) {
        self.life += 1;
        match &mut self.role {
            Role::Caller { open } => {
                std::mem::take(open).into_values().for_each(|number| ledger.call_lost(number));
            }
            Role::Sender { open } => open.clear(),
            Role::Taker { queue, in_hand } => unsure(now_ns, queue, in_hand, ledger),
            Role::Fetcher { asked, in_hand } => {
                *asked = None;
                unsure(now_ns, FETCHED, in_hand, ledger);
            }
            Role::Planner { asked } => {
                if asked.take().is_some() {
                    ledger.may_have_taken(PLANNED);
                }
            }
            Role::Publisher { open } => open.clear(),
            Role::Worker { .. } | Role::Listener => {}
        }
    }

    /// Whether nothing of it is open.
    pub(super) fn is_idle(&self) -> bool {
        match &self.role {
            Role::Caller { open } => open.is_empty(),
            Role::Sender { open } => open.is_empty(),
            Role::Taker { in_hand, .. } => in_hand.is_empty(),
            Role::Fetcher { asked, in_hand } => asked.is_none() && in_hand.is_empty(),
            Role::Planner { asked } => asked.is_none(),
            Role::Publisher { open } => open.is_empty(),
            Role::Worker { .. } | Role::Listener => true,
        }
    }

    /// Begins something, if it is one that does.
    pub(super) fn wake(&mut self, now_ns: u64, rng: &mut Rng, ledger: &mut Ledger) -> Said {
        self.next_ns = now_ns + MS * (3 + rng.below(40) as u64);
        let request = match &mut self.role {
            Role::Caller { open } => call(rng, ledger, open),
            Role::Sender { open } => send(rng, ledger, open),
            Role::Fetcher { asked: asked @ None, .. } => {
                let id = format_smolstr!("n{}", ledger.number());
                *asked = Some(id.clone());
                let about = format!(r#"{{"name":"{FETCHED}","timeout_ms":300}}"#);
                builtin(&id, "mpreg.queue.next", about, 1_000)
            }
            Role::Planner { asked: asked @ None } => {
                let graph = graph(rng, ledger);
                *asked = Some(graph.id.clone());
                Request::Graph(Box::new(graph))
            }
            Role::Publisher { open } => {
                self.next_ns += 60 * MS;
                let (id, publish) = ledger.events.publish(self.at);
                assert!(open.insert(id));
                publish
            }
            Role::Fetcher { .. } | Role::Planner { .. } => return Vec::new(),
            Role::Worker { .. } | Role::Taker { .. } | Role::Listener => {
                self.next_ns = u64::MAX;
                return Vec::new();
            }
        };
        vec![(0, request)]
    }

    pub(super) fn hear(&mut self, now_ns: u64, reply: &Reply, ledger: &mut Ledger) -> Said {
        match (&mut self.role, reply) {
            (Role::Caller { open }, Reply::Result { id, body, .. }) => {
                let number = open.remove(id).expect("one outcome");
                ledger.call_done(number, Some(number_of(&body.value)));
            }
            (Role::Caller { open }, Reply::Error { id: Some(id), .. }) => {
                ledger.call_done(open.remove(id).expect("one outcome"), None);
            }
            (Role::Worker { .. }, Reply::Run(run)) => {
                let number = number_of(run.args.as_ref().expect("arguments"));
                ledger.ran(number);
                let body = Box::new(Body::plain(Value::json(number.to_string())));
                let result = Request::Result { run: run.id, body };
                return vec![(MS * (1 + number % 20), result)];
            }
            (Role::Worker { .. }, Reply::Offered { .. } | Reply::Cancel { .. })
            | (Role::Taker { .. }, Reply::Consumed { .. })
            | (Role::Listener, Reply::Subscribed { .. }) => {}
            (Role::Publisher { open }, Reply::Published { id, .. }) => {
                assert!(open.remove(id), "one outcome");
            }
            (Role::Listener, Reply::Event(told)) => ledger.events.heard(now_ns, self.at, told),
            (Role::Sender { open }, Reply::Sent { id, message, queues, near, .. }) => {
                let target = open.remove(id).expect("one outcome");
                ledger.sent(&target, *message, *queues, *near);
            }
            (Role::Sender { open }, Reply::Error { id: Some(id), .. }) => {
                open.remove(id).expect("one outcome");
                ledger.refused += 1;
            }
            (Role::Taker { queue, .. }, Reply::Error { op: Some(op), .. }) if op == "consume" => {
                return vec![(100 * MS, consume(queue))];
            }
            (Role::Taker { queue, in_hand }, reply) => {
                return take(now_ns, queue, in_hand, reply, ledger);
            }
            (Role::Fetcher { asked, in_hand }, reply) => {
                return fetch(now_ns, asked, in_hand, reply, ledger);
            }
            (Role::Planner { asked }, Reply::Graph(reply)) => planned(asked, reply, ledger),
            (_, other) => panic!("nobody asked for {other:?}"),
        }
        Vec::new()
    }
}

fn consume(queue: &SmolStr) -> Request {
    Request::Consume { id: None, queue: queue.clone(), group: None, credit: 4 }
}

fn call(rng: &mut Rng, ledger: &mut Ledger, open: &mut BTreeMap<SmolStr, u64>) -> Request {
    let function = rng.below(FUNCTIONS);
    let number = ledger.call(function.is_multiple_of(2));
    let id = number.to_smolstr();
    open.insert(id.clone(), number);
    let timeout_ms = Some(1_000 + rng.below(4_000) as u64);
    let call = Call {
        id,
        fun: format_smolstr!("f{function}"),
        args: Some(Value::json(format!("[{number}]"))),
        options: CallOptions { timeout_ms, wait: rng.below(2) == 0, ..CallOptions::default() },
        ..Call::default()
    };
    Request::Call(call.into())
}

fn send(rng: &mut Rng, ledger: &mut Ledger, open: &mut BTreeMap<SmolStr, Target>) -> Request {
    let number = ledger.number();
    let by_topic = rng.below(3) == 0;
    let queue = (!by_topic).then(|| queues().nth(rng.below(QUEUES + 2)).expect("a queue"));
    let topic = if by_topic { format_smolstr!("t.{number}") } else { "".into() };
    let id = number.to_smolstr();
    open.insert(id.clone(), Target { number, queue: queue.clone() });
    let payload = Value::json(Bytes::from(number.to_string()));
    let event = Event { topic, payload, headers: None, message: RunId(0) };
    let (confirm, options) = (true, SendOptions::default());
    let send = Send { id, confirm, queue, event: event.into(), options };
    Request::Send(Box::new(send))
}

/// A step that takes a message, and one that runs with it.
fn graph(rng: &mut Rng, ledger: &mut Ledger) -> GraphPart {
    let function = rng.below(FUNCTIONS);
    let number = ledger.step(function.is_multiple_of(2));
    let steps = format!(
        r#"[{{"name":"m","fun":"mpreg.queue.next",
             "kwargs":{{"name":"{PLANNED}","timeout_ms":300}}}},
            {{"name":"s","fun":"f{function}","args":[{number}],"after":["m"]}}]"#
    );
    let timeout_ms = Some(2_000);
    let options = GraphOptions { returns: Returns::All, timeout_ms, ..GraphOptions::default() };
    let (id, steps) = (format_smolstr!("g{number}"), Some(Value::json(steps)));
    GraphPart { id, steps, options, ..GraphPart::default() }
}

/// What a graph took is settled with it; one whose end does not count may have settled it too.
fn planned(asked: &mut Option<SmolStr>, reply: &GraphReply, ledger: &mut Ledger) {
    assert_eq!(asked.take().as_ref(), Some(&reply.id), "one outcome");
    match &reply.error {
        None => {
            let (_, taken) = reply.results.iter().find(|(name, _)| name == "m").expect("taken");
            let taken = Taken::read(&taken.value);
            let queue = SmolStr::new_static(PLANNED);
            ledger.delivered(&queue, taken.payload, taken.attempt, taken.message());
            ledger.acked(&queue, taken.payload, taken.attempt);
        }
        Some((error, _)) if error.is(Code::OutcomeUnknown) => ledger.may_have_taken(PLANNED),
        Some(_) => {}
    }
}

/// What `mpreg.queue.next` answers.
#[derive(serde::Deserialize)]
struct Taken {
    id: String,
    attempt: u32,
    message: String,
    payload: u64,
}

impl Taken {
    fn read(value: &Value) -> Self {
        serde_json::from_slice(&value.bytes).expect("a message")
    }

    fn message(&self) -> RunId {
        RunId::parse(&self.message).expect("a ULID")
    }
}

fn fetch(
    now_ns: u64,
    asked: &mut Option<SmolStr>,
    in_hand: &mut BTreeMap<RunId, InHand>,
    reply: &Reply,
    ledger: &mut Ledger,
) -> Said {
    let queue = SmolStr::new_static(FETCHED);
    match reply {
        Reply::Result { id, body, .. } => {
            assert_eq!(asked.take().as_ref(), Some(id), "one outcome");
            let taken = Taken::read(&body.value);
            ledger.delivered(&queue, taken.payload, taken.attempt, taken.message());
            let of = (taken.payload, taken.attempt);
            settle(now_ns, RunId::parse(&taken.id).expect("a ULID"), of, in_hand)
        }
        Reply::Error { id, .. } if id == asked => {
            *asked = None;
            Vec::new()
        }
        other => take(now_ns, &queue, in_hand, other, ledger),
    }
}

fn take(
    now_ns: u64,
    queue: &SmolStr,
    in_hand: &mut BTreeMap<RunId, InHand>,
    reply: &Reply,
    ledger: &mut Ledger,
) -> Said {
    match reply {
        Reply::Deliver(told) => {
            let (number, attempt) = (number_of(&told.message.event.payload), told.attempt);
            ledger.delivered(queue, number, attempt, told.message.event.message);
            return settle(now_ns, told.id, (number, attempt), in_hand);
        }
        Reply::Acked { ids, unknown, .. } => {
            for id in ids {
                let of = in_hand.remove(id).expect("it was in hand");
                ledger.acked(queue, of.number, of.attempt);
            }
            unknown.iter().for_each(|id| _ = in_hand.remove(id));
        }
        Reply::Error { id: Some(id), .. } => {
            // Whether it is settled is not known: it may come again.
            let told = RunId::parse(id).and_then(|id| in_hand.remove(&id));
            told.into_iter().for_each(|of| ledger.unsure(queue, of.number));
        }
        other => panic!("nobody asked for {other:?}"),
    }
    Vec::new()
}

/// Acks a delivery, after a while.
fn settle(
    now_ns: u64,
    id: RunId,
    (number, attempt): (u64, u32),
    in_hand: &mut BTreeMap<RunId, InHand>,
) -> Said {
    let takes_ns = MS * (1 + number % 10);
    in_hand.insert(id, InHand { number, attempt, acked_ns: now_ns + takes_ns });
    let ack = Settle { id: Some(id.to_smolstr()), ids: vec![id], verdict: Verdict::Ack };
    vec![(takes_ns, Request::Settle(ack))]
}

/// Nobody hears any more of what was acked.
fn unsure(now_ns: u64, queue: &str, in_hand: &mut BTreeMap<RunId, InHand>, ledger: &mut Ledger) {
    let said = std::mem::take(in_hand).into_values().filter(|of| of.acked_ns <= now_ns);
    said.for_each(|of| ledger.unsure(queue, of.number));
}
