//! Who uses several brokers: callers and workers, senders and takers, each at one of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use mpreg_patterns::base::{Rng, RunId};
use mpreg_patterns::ops::{
    Call, CallOptions, Event, Function, Offer, Reply, Request, Send, SendOptions, Settle, Verdict,
};
use mpreg_patterns::values::{Body, Value};
use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use super::ledger::Ledger;
use crate::peers::MS;

/// Functions, of which those with an even number may be repeated.
pub(super) const FUNCTIONS: usize = 4;
/// Queues that are sent to by name.
const QUEUES: usize = 3;
/// Queues that are bound to all topics `t.N`.
const BOUND: usize = 2;

/// What a guest says, and how long it takes to.
pub(super) type Said = Vec<(u64, Request)>;

pub(super) enum Role {
    Caller { open: BTreeMap<SmolStr, u64> },
    Worker { functions: Vec<usize> },
    Sender { open: BTreeMap<SmolStr, Target> },
    Taker { queue: SmolStr, in_hand: BTreeMap<RunId, InHand> },
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
    (0..QUEUES).map(queue).chain((0..BOUND).map(bound))
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
            Role::Caller { .. } | Role::Sender { .. } => Vec::new(),
        }
    }

    /// Its broker was killed: nothing that was open has an outcome.
    pub(super) fn lost(&mut self, now_ns: u64, ledger: &mut Ledger) {
        self.life += 1;
        match &mut self.role {
            Role::Caller { open } => {
                std::mem::take(open).into_values().for_each(|number| ledger.call_lost(number));
            }
            Role::Sender { open } => open.clear(),
            Role::Taker { queue, in_hand } => {
                let said = std::mem::take(in_hand).into_values();
                let said = said.filter(|of| of.acked_ns <= now_ns);
                said.for_each(|of| ledger.unsure(queue, of.number));
            }
            Role::Worker { .. } => {}
        }
    }

    /// Whether nothing of it is open.
    pub(super) fn is_idle(&self) -> bool {
        match &self.role {
            Role::Caller { open } => open.is_empty(),
            Role::Sender { open } => open.is_empty(),
            Role::Taker { in_hand, .. } => in_hand.is_empty(),
            Role::Worker { .. } => true,
        }
    }

    /// Begins something, if it is one that does.
    pub(super) fn wake(&mut self, now_ns: u64, rng: &mut Rng, ledger: &mut Ledger) -> Said {
        self.next_ns = now_ns + MS * (3 + rng.below(40) as u64);
        match &mut self.role {
            Role::Caller { open } => {
                let function = rng.below(FUNCTIONS);
                let number = ledger.call(function.is_multiple_of(2));
                let id = number.to_smolstr();
                open.insert(id.clone(), number);
                let timeout_ms = Some(1_000 + rng.below(4_000) as u64);
                let call = Call {
                    id,
                    fun: format_smolstr!("f{function}"),
                    args: Some(Value::json(format!("[{number}]"))),
                    options: CallOptions {
                        timeout_ms,
                        wait: rng.below(2) == 0,
                        ..CallOptions::default()
                    },
                    ..Call::default()
                };
                vec![(0, Request::Call(call.into()))]
            }
            Role::Sender { open } => {
                let number = ledger.message();
                let by_topic = rng.below(3) == 0;
                let queue = (!by_topic).then(|| queue(rng.below(QUEUES)));
                let topic = if by_topic { format_smolstr!("t.{number}") } else { "".into() };
                let id = number.to_smolstr();
                open.insert(id.clone(), Target { number, queue: queue.clone() });
                let payload = Value::json(Bytes::from(number.to_string()));
                let event = Event { topic, payload, headers: None, message: RunId(0) };
                let (confirm, options) = (true, SendOptions::default());
                let send = Send { id, confirm, queue, event: event.into(), options };
                vec![(0, Request::Send(Box::new(send)))]
            }
            Role::Worker { .. } | Role::Taker { .. } => {
                self.next_ns = u64::MAX;
                Vec::new()
            }
        }
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
            | (Role::Taker { .. }, Reply::Consumed { .. }) => {}
            (Role::Sender { open }, Reply::Sent { id, message, queues, .. }) => {
                ledger.sent(&open.remove(id).expect("one outcome"), *message, *queues);
            }
            (Role::Sender { open }, Reply::Error { id: Some(id), .. }) => {
                open.remove(id).expect("one outcome");
                ledger.refused += 1;
            }
            (Role::Taker { queue, in_hand }, Reply::Deliver(told)) => {
                let number = number_of(&told.message.event.payload);
                let attempt = told.attempt;
                ledger.delivered(queue, number, attempt, told.message.event.message);
                let takes_ns = MS * (1 + number % 10);
                in_hand.insert(told.id, InHand { number, attempt, acked_ns: now_ns + takes_ns });
                let id = Some(format_smolstr!("{}", told.id));
                let ack = Settle { id, ids: vec![told.id], verdict: Verdict::Ack };
                return vec![(takes_ns, Request::Settle(ack))];
            }
            (Role::Taker { queue, in_hand }, Reply::Acked { ids, unknown, .. }) => {
                for id in ids {
                    let of = in_hand.remove(id).expect("it was in hand");
                    ledger.acked(queue, of.number, of.attempt);
                }
                unknown.iter().for_each(|id| _ = in_hand.remove(id));
            }
            (Role::Taker { queue, .. }, Reply::Error { op: Some(op), .. }) if op == "consume" => {
                return vec![(100 * MS, consume(queue))];
            }
            (Role::Taker { queue, in_hand }, Reply::Error { id: Some(id), .. }) => {
                let told = RunId::parse(id).and_then(|id| in_hand.remove(&id));
                told.into_iter().for_each(|of| ledger.unsure(queue, of.number));
            }
            (_, other) => panic!("nobody asked for {other:?}"),
        }
        Vec::new()
    }
}

fn consume(queue: &SmolStr) -> Request {
    Request::Consume { id: None, queue: queue.clone(), group: None, credit: 4 }
}
