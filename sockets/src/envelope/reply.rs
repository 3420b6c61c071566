//! Replies to ops, and back for the Rust client and worker.

use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::base::{Code, Culprit, Refusal, RunId};
use mpreg_patterns::ops::{Call, GraphReply, ProgressReply, Reply, Run, StepOutcome, StepState};
use mpreg_patterns::values::{
    Body, Cursor, Fault, Frames, Kind, Target, Value, append_value, json,
};
use smol_str::SmolStr;

use super::binary::Ops;
use super::op::{Blame, CallOp, Failure, Id, Op, Raw, ResultOp, RunOp, Step, Text};
use super::request::{
    Context, Incoming, Role, Visit, bad_field, id, note, optional_id, percent, text,
};
use super::{Bad, common, queues, topics};

/// What may happen to a request on its way.
const EVENTS: [&str; 9] = [
    "accepted",
    "started",
    "progress",
    "retrying",
    "done",
    "degraded",
    "failed",
    "skipped",
    "cancelled",
];

/// The op that the error of a graph answers.
static GRAPH: SmolStr = SmolStr::new_static("graph");

const STATES: [StepState; 6] = [
    StepState::Done,
    StepState::Degraded,
    StepState::Failed,
    StepState::Skipped,
    StepState::Cancelled,
    StepState::Unknown,
];

/// The state of a step by its word.
pub(super) fn state(word: &str) -> Option<StepState> {
    STATES.into_iter().find(|state| state.as_str() == word)
}

pub(super) fn string(text: Option<&Text<'_>>) -> Option<SmolStr> {
    text.map(|text| SmolStr::new(text.as_str()))
}

/// A refusal as it goes onto the wire.
pub(super) fn failure<'a>(refusal: &'a Refusal, op: Option<&'a SmolStr>) -> Failure<'a> {
    Failure {
        code: Text::new(&refusal.code),
        message: Text::new(&refusal.message),
        culprit: match refusal.culprit {
            Culprit::Caller => Blame::Caller,
            Culprit::Worker => Blame::Worker,
            Culprit::Broker => Blame::Broker,
        },
        retry: refusal.retry,
        op: text(op),
        field: text(refusal.field.as_ref()),
        refused: refusal.refused.map(Text::new),
    }
}

fn refusal(failure: &Failure<'_>) -> Refusal {
    let duplicate = failure.refused.as_ref().is_some_and(|what| what.as_str() == "duplicate");
    Refusal {
        code: SmolStr::new(failure.code.as_str()),
        message: failure.message.as_str().into(),
        culprit: failure.culprit.into(),
        retry: failure.retry,
        field: string(failure.field.as_ref()),
        refused: duplicate.then_some("duplicate"),
    }
}

impl From<Blame> for Culprit {
    fn from(blame: Blame) -> Self {
        match blame {
            Blame::Caller => Self::Caller,
            Blame::Worker => Self::Worker,
            Blame::Broker => Self::Broker,
        }
    }
}

/// The op a reply is sent as.
pub(super) fn to_op(reply: &Reply) -> Op<'_> {
    match reply {
        Reply::Welcome { id, about } => {
            Op::Welcome { id: text(id.as_ref()), about: Raw::of(about, &[]) }
        }
        Reply::Pong { id } => Op::Pong { id: text(id.as_ref()) },
        Reply::Result { id, body, track } => Op::Result(ResultOp {
            id: Id::Name(Text::new(id)),
            result: Raw::of(&body.value, &body.frames),
            track: track.map(|track| track.0),
        }),
        Reply::Error { id, op, item, error, track } => Op::Error {
            id: text(id.as_ref()).map(Id::Name),
            item: *item,
            error: failure(error, op.as_ref()),
            track: track.map(|track| track.0),
        },
        Reply::Graph(reply) => graph_op(reply),
        Reply::Progress(reply) => Op::Progress {
            id: Id::Name(Text::new(&reply.id)),
            event: Some(Text::new(reply.event)),
            step: text(reply.step.as_ref()),
            step_id: reply.step_id.map(|step| step.0),
            percent: reply.percent,
            note: reply.note.as_deref().map(Text::new),
            track: Some(reply.track.0),
        },
        Reply::Offered { id, epoch, functions, credit } => Op::Offered {
            id: text(id.as_ref()),
            epoch: *epoch,
            functions: *functions,
            credit: *credit,
        },
        Reply::Run(run) => Op::Run(RunOp {
            id: run.id.0,
            fun: Text::new(&run.fun),
            args: run.args.as_ref().map(|args| Raw::of(args, &run.frames)),
            kwargs: run.kwargs.as_ref().map(|kwargs| Raw::of(kwargs, &run.frames)),
            deadline_ms: run.deadline_ms,
            attempt: run.attempt,
        }),
        Reply::Call(run) => Op::Call(call_op(run)),
        Reply::Cancel { run } => Op::Cancel { id: Id::Run(run.0) },
        Reply::Bye { id } => Op::Bye { id: text(id.as_ref()) },
        Reply::Published { id, message } => Op::Published { id: Text::new(id), message: message.0 },
        Reply::Subscribed { id, epoch, patterns, credit } => Op::Subscribed {
            id: text(id.as_ref()),
            epoch: *epoch,
            patterns: *patterns,
            credit: *credit,
        },
        Reply::Event(delivery) => topics::event_op(delivery),
        Reply::Sent { .. }
        | Reply::Consumed { .. }
        | Reply::Deliver(_)
        | Reply::HandOver(_)
        | Reply::Acked { .. }
        | Reply::Consume { .. }
        | Reply::Settle(_) => queues::reply_op(reply),
    }
}

/// A run as a call of this broker's own, which another broker is to place.
fn call_op(run: &Run) -> CallOp<'_> {
    let options = &run.options;
    CallOp {
        id: Text(run.id.to_string().into()),
        fun: Text::new(&run.fun),
        args: run.args.as_ref().map(|args| Raw::of(args, &run.frames)),
        kwargs: run.kwargs.as_ref().map(|kwargs| Raw::of(kwargs, &run.frames)),
        locs: options.locs.iter().map(|loc| Text::new(loc)).collect(),
        version: text(options.version.as_ref()),
        timeout_ms: Some(run.deadline_ms),
        idempotent: options.idempotent,
        wait: false,
        progress: run.progress,
        track: run.track.map(|track| track.0),
    }
}

fn graph_op(reply: &GraphReply) -> Op<'_> {
    let results = reply
        .results
        .iter()
        .map(|(name, body)| (Text::new(name), Raw::of(&body.value, &body.frames)));
    let steps = reply.steps.iter().map(|step| Step {
        name: Text::new(&step.name),
        state: Text::new(step.state.as_str()),
        code: text(step.code.as_ref()),
    });
    Op::GraphReply {
        id: Text::new(&reply.id),
        results: reply.ran.then(|| results.collect()),
        steps: steps.collect(),
        error: reply.error.as_ref().map(|(error, _)| failure(error, Some(&GRAPH))),
        step: reply.error.as_ref().and_then(|(_, step)| text(step.as_ref())),
        part: reply.part,
        more: reply.more,
        track: reply.track.map(|track| track.0),
    }
}

impl Incoming for Reply {
    fn from_op(op: &Op<'_>, context: &Context<'_>) -> Result<Self, Refusal> {
        Ok(match op {
            Op::Welcome { id, about } => {
                Self::Welcome { id: optional_id(id.as_ref())?, about: about_of(context, about)? }
            }
            Op::Pong { id } => Self::Pong { id: optional_id(id.as_ref())? },
            Op::Result(op) => result(op, context)?,
            Op::Error { id: of, item, error, track } => Self::Error {
                id: of.as_ref().map(|of| id(&of.text())).transpose()?,
                op: string(error.op.as_ref()),
                item: *item,
                error: Box::new(refusal(error)),
                track: track.map(RunId),
            },
            Op::GraphReply { .. } => Self::Graph(Box::new(graph_reply(op, context)?)),
            Op::Progress { .. } => Self::Progress(Box::new(progress(op)?)),
            Op::Offered { id, epoch, functions, credit } => Self::Offered {
                id: optional_id(id.as_ref())?,
                epoch: *epoch,
                functions: *functions,
                credit: *credit,
            },
            Op::Run(op) => run(op, context)?,
            Op::Cancel { id } => match id.run() {
                Some(run) => Self::Cancel { run },
                None => return Err(bad_field("id", "`id` takes the id of a run")),
            },
            Op::Bye { id } => Self::Bye { id: optional_id(id.as_ref())? },
            Op::Published { id: of, message } => {
                Self::Published { id: id(of.as_str())?, message: RunId(*message) }
            }
            Op::Subscribed { id, epoch, patterns, credit } => Self::Subscribed {
                id: optional_id(id.as_ref())?,
                epoch: *epoch,
                patterns: *patterns,
                credit: *credit,
            },
            Op::Event(op) => topics::event(op, context).map(Self::Event)?,
            Op::Deliver(op) => Self::Deliver(Box::new(queues::deliver(None, op, context)?)),
            Op::DeliverFor(group, op) => {
                Self::Deliver(Box::new(queues::deliver(Some(group), op, context)?))
            }
            Op::Sent(_) | Op::SentNear(_) | Op::Consumed { .. } | Op::Acked { .. } => {
                queues::answer(op)?
            }
            Op::Ping { .. }
            | Op::Hello { .. }
            | Op::Call(_)
            | Op::CallIn(..)
            | Op::Offer { .. }
            | Op::Publish(_)
            | Op::Subscribe { .. }
            | Op::Unsubscribe { .. }
            | Op::Ack { .. }
            | Op::Send(_)
            | Op::Consume { .. }
            | Op::AckIds { .. }
            | Op::Nack { .. }
            | Op::Extend { .. }
            | Op::Graph { .. } => {
                let text = format!("`{}` is what a peer says", op.name());
                return Err(Refusal::field(Code::UnknownOp, "op", text));
            }
        })
    }

    #[inline]
    fn plain(ops: &mut Ops<'_>, context: &Context<'_>) -> Option<Self> {
        let (rest, last) = ops.ahead();
        common::take_reply(rest, last, context)
    }

    fn attach(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        match self {
            Self::Result { body, .. } => {
                visit(Role::Outcome, &mut [&mut body.value], &mut body.frames)
            }
            Self::Graph(reply) => reply.results.iter_mut().try_for_each(|(_, body)| {
                visit(Role::Outcome, &mut [&mut body.value], &mut body.frames)
            }),
            Self::Run(run) => {
                let call = Arc::make_mut(&mut run.call);
                let mut values: Vec<_> = call.args.iter_mut().chain(&mut call.kwargs).collect();
                visit(Role::Arguments, &mut values, &mut call.frames)
            }
            Self::Event(delivery) => topics::attach(&mut delivery.event, visit),
            Self::Deliver(delivered) => queues::attach(delivered, visit),
            _ => Ok(()),
        }
    }

    fn bad(&self, refusal: Refusal) -> Box<Bad> {
        let id = match self {
            Self::Result { id, .. } => Some(id.clone()),
            Self::Graph(reply) => Some(reply.id.clone()),
            Self::Run(run) => Some(smol_str::format_smolstr!("{}", run.id)),
            Self::Deliver(delivered) => Some(smol_str::format_smolstr!("{}", delivered.id)),
            _ => None,
        };
        Box::new(Bad { id, op: None, run: None, refusal })
    }
}

#[inline]
fn result(op: &ResultOp<'_>, context: &Context<'_>) -> Result<Reply, Refusal> {
    Ok(Reply::Result {
        id: id(&op.id.text())?,
        body: Box::new(Body::plain(context.value(&op.result))),
        track: op.track.map(RunId),
    })
}

#[inline]
fn run(op: &RunOp<'_>, context: &Context<'_>) -> Result<Reply, Refusal> {
    let call = Call {
        fun: SmolStr::new(op.fun.as_str()),
        args: context.args(op.args.as_ref())?,
        kwargs: context.kwargs(op.kwargs.as_ref())?,
        ..Call::default()
    };
    let (id, deadline_ms, attempt) = (RunId(op.id), op.deadline_ms, op.attempt);
    Ok(Reply::Run(Run { id, call: Arc::new(call), deadline_ms, attempt }))
}

fn graph_reply(op: &Op<'_>, context: &Context<'_>) -> Result<GraphReply, Refusal> {
    let Op::GraphReply { id: of, results, steps, error, step, part, more, track } = op else {
        return Ok(GraphReply::default());
    };
    let result = |(name, raw): &(Text<'_>, Raw<'_>)| {
        (SmolStr::new(name.as_str()), Body::plain(context.value(raw)))
    };
    let outcome = |step: &Step<'_>| match state(step.state.as_str()) {
        Some(state) => {
            let (name, code) = (SmolStr::new(step.name.as_str()), string(step.code.as_ref()));
            Ok(StepOutcome { name, state, code })
        }
        None => Err(bad_field("steps", "a step in a state that is not known")),
    };
    Ok(GraphReply {
        id: id(of.as_str())?,
        results: results.iter().flatten().map(result).collect(),
        steps: steps.iter().map(outcome).collect::<Result<_, _>>()?,
        error: error.as_ref().map(|error| (refusal(error), string(step.as_ref()))),
        ran: results.is_some(),
        track: track.map(RunId),
        part: *part,
        more: *more,
    })
}

fn progress(op: &Op<'_>) -> Result<ProgressReply, Refusal> {
    let Op::Progress { id: of, event, step, step_id, percent: number, note: words, track } = op
    else {
        return Err(bad_field("op", "not a progress"));
    };
    let event = event.as_ref().map_or("progress", Text::as_str);
    Ok(ProgressReply {
        id: id(&of.text())?,
        track: track.map(RunId).ok_or_else(|| bad_field("track", "`track` is missing"))?,
        step: string(step.as_ref()),
        step_id: step_id.map(RunId),
        event: EVENTS.into_iter().find(|known| *known == event).unwrap_or("progress"),
        percent: percent(*number)?,
        note: note(words.as_ref()),
    })
}

/// What a `welcome` says beside its op and id, as a JSON object.
fn about_of(context: &Context<'_>, raw: &Raw<'_>) -> Result<Value, Refusal> {
    let whole = context.value(raw);
    let mut out = vec![b'{'];
    copy_about(&whole, &mut out).map_err(|fault| fault.refusal())?;
    out.push(b'}');
    Ok(Value::json(out))
}

fn copy_about(whole: &Value, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut cursor = Cursor::of(whole);
    let mut map = cursor.map()?;
    while let Some(key) = cursor.key(&mut map)? {
        let bytes: Bytes = whole.bytes.slice(cursor.skip()?);
        if key == "op" || key == "id" {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        json::put_string(out, &key);
        out.push(b':');
        let target = Target { to: Kind::Json, quoting: false, out, frames: &mut Frames::new() };
        append_value(&Value::new(whole.kind, bytes), &[], target)?;
    }
    cursor.end()
}
