//! Ops to requests, checked, and back.
//!
//! The checks are the same whatever the encoding was: ids, names, versions, ranges of numbers.

use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::base::limits::{ERROR_TEXT_BYTES, NAME_BYTES};
use mpreg_patterns::base::names::{fits, is_name, no_name};
use mpreg_patterns::base::refusal::cut;
use mpreg_patterns::base::{Code, Limits, Refusal, RunId, ids};
use mpreg_patterns::ops::{
    Call, CallOptions, Function, GraphOptions, GraphPart, Hello, Offer, OnError, Refs, Request,
    Returns,
};
use mpreg_patterns::values::{Body, Fault, Frames, Kind, Value, share};
use smol_str::SmolStr;

use super::binary::Ops;
use super::op::{CallOp, Failure, Id, Offered, Op, Raw, ResultOp, SentOp, Text, Wanted};
use super::{Bad, common, queues, topics};

/// What an op needs to become a message of its own.
pub(super) struct Context<'c> {
    pub(super) body: &'c Bytes,
    pub(super) limits: &'c Limits,
    /// Whether it is a bincode batch, whose values are not looked into.
    pub(super) binary: bool,
}

/// Values that share one numbering of attachments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// What a function is called with.
    Arguments,
    /// What a function returned, which may be one attachment and nothing else.
    Outcome,
    /// The steps of a graph, whose tags the graph reads itself.
    Steps,
    /// What is published: one attachment and nothing else, or a value that names none.
    Payload,
}

/// Takes values that share one numbering, and the attachments they end up with.
pub(super) type Visit<'v> =
    dyn FnMut(Role, &mut [&mut Value], &mut Frames) -> Result<(), Fault> + 'v;

/// A message as it comes in.
pub(super) trait Incoming: Sized {
    /// Checks an op.
    fn from_op(op: &Op<'_>, context: &Context<'_>) -> Result<Self, Refusal>;

    /// Reads the next op of a bincode batch, if it is one of the plain ones.
    fn plain(ops: &mut Ops<'_>, context: &Context<'_>) -> Option<Self>;

    /// Whether an op is said in this direction, as far as its name tells.
    fn says(_op: &str) -> bool {
        true
    }

    /// Shows every set of values that may have attachments.
    fn attach(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault>;

    /// The same message as one that cannot be taken.
    fn bad(&self, refusal: Refusal) -> Box<Bad>;
}

/// The message an op is, or why it is none.
pub(super) fn checked<M: Incoming>(op: &Op<'_>, context: &Context<'_>) -> Result<M, Box<Bad>> {
    M::from_op(op, context).map_err(|refusal| bad(op.name(), op.id().as_deref(), op.run(), refusal))
}

/// What is known of an op that is not taken.
#[cold]
fn bad(op: &'static str, id: Option<&str>, run: Option<RunId>, refusal: Refusal) -> Box<Bad> {
    let id = id.filter(|id| is_id(id)).map(SmolStr::new);
    Box::new(Bad { id, op: Some(SmolStr::new_static(op)), run, refusal })
}

impl Context<'_> {
    /// A value that outlives its frame.
    #[inline]
    pub(super) fn value(&self, raw: &Raw<'_>) -> Value {
        let start = raw.bytes.0.as_ptr() as usize - self.body.as_ptr() as usize;
        let bytes = share(self.body, start..start + raw.bytes.0.len());
        // An object is checked to its last byte as it is read; a bincode batch is not looked into.
        match self.binary {
            true => Value::new(raw.kind.0, bytes),
            false => Value::checked(raw.kind.0, bytes),
        }
    }

    fn optional(&self, raw: Option<&Raw<'_>>) -> Option<Value> {
        raw.map(|raw| self.value(raw))
    }

    pub(super) fn args(&self, raw: Option<&Raw<'_>>) -> Result<Option<Value>, Refusal> {
        if raw.is_none_or(may_be_args) {
            return Ok(self.optional(raw));
        }
        Err(bad_field("args", "`args` takes an array"))
    }

    pub(super) fn kwargs(&self, raw: Option<&Raw<'_>>) -> Result<Option<Value>, Refusal> {
        if raw.is_none_or(may_be_kwargs) {
            return Ok(self.optional(raw));
        }
        Err(bad_field("kwargs", "`kwargs` takes an object"))
    }
}

/// Of bincode only the first byte is looked at, and bytes are one argument.
#[inline]
pub(super) fn may_be_args(raw: &Raw<'_>) -> bool {
    match (raw.kind.0, raw.bytes.0.first()) {
        (Kind::Bytes, _) | (Kind::Json, Some(b'[')) => true,
        (kind, first) => kind == Kind::MsgPack && matches!(first, Some(0x90..=0x9F | 0xDC | 0xDD)),
    }
}

#[inline]
pub(super) fn may_be_kwargs(raw: &Raw<'_>) -> bool {
    match (raw.kind.0, raw.bytes.0.first()) {
        (Kind::Json, Some(b'{')) => true,
        (kind, first) => kind == Kind::MsgPack && matches!(first, Some(0x80..=0x8F | 0xDE | 0xDF)),
    }
}

pub(super) fn bad_field(field: &str, text: &str) -> Refusal {
    Refusal::field(Code::BadField, field, text)
}

/// Whether a peer may choose this id.
#[inline]
pub(super) fn is_id(text: &str) -> bool {
    (1..=ids::PEER_ID_BYTES).contains(&text.len())
}

pub(super) fn id(text: &str) -> Result<SmolStr, Refusal> {
    if is_id(text) {
        Ok(SmolStr::new(text))
    } else {
        Err(bad_field("id", "`id` takes a string of 1 to 64 bytes"))
    }
}

pub(super) fn optional_id(text: Option<&Text<'_>>) -> Result<Option<SmolStr>, Refusal> {
    text.map(|text| id(text.as_str())).transpose()
}

pub(super) fn name(field: &str, text: &Text<'_>) -> Result<SmolStr, Refusal> {
    if is_name(text.as_str()) {
        return Ok(SmolStr::new(text.as_str()));
    }
    Err(no_name(field, text.as_str()))
}

#[inline]
fn words(field: &str, texts: &[Text<'_>], most: usize) -> Result<Vec<SmolStr>, Refusal> {
    let fits = |text: &Text<'_>| fits(text.as_str());
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    if texts.len() > most || !texts.iter().all(fits) {
        let text = format!("`{field}` takes {most} strings of 1 to {NAME_BYTES} bytes at most");
        return Err(bad_field(field, &text));
    }
    Ok(texts.iter().map(|text| SmolStr::new(text.as_str())).collect())
}

pub(super) fn timeout(ms: Option<u64>, limits: &Limits) -> Result<Option<u64>, Refusal> {
    match ms {
        Some(ms) if ms == 0 || ms > limits.timeout_ms => {
            let text = format!("`timeout_ms` takes 1 to {}", limits.timeout_ms);
            Err(bad_field("timeout_ms", &text))
        }
        other => Ok(other),
    }
}

fn version<T: std::str::FromStr<Err = semver::Error>>(
    text: Option<&Text<'_>>,
) -> Result<Option<SmolStr>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    match text.as_str().parse::<T>() {
        Ok(_) => Ok(Some(SmolStr::new(text.as_str()))),
        Err(why) => {
            let text = format!("`{}`: {why}", cut(text.as_str(), NAME_BYTES));
            Err(Refusal::field(Code::BadVersion, "version", text))
        }
    }
}

/// 0 to 100, if any.
pub(super) fn percent(percent: Option<f64>) -> Result<Option<f64>, Refusal> {
    match percent {
        Some(number) if !(0.0..=100.0).contains(&number) => {
            Err(bad_field("percent", "`percent` takes 0 to 100"))
        }
        other => Ok(other),
    }
}

pub(super) fn note(text: Option<&Text<'_>>) -> Option<Box<str>> {
    text.map(|text| cut(text.as_str(), ERROR_TEXT_BYTES).into())
}

impl Incoming for Request {
    fn says(op: &str) -> bool {
        let brokers = ["run", "welcome", "pong", "offered", "published", "subscribed", "event"];
        let of_queues = ["sent", "consumed", "deliver", "acked"];
        !brokers.contains(&op) && !of_queues.contains(&op)
    }

    #[inline]
    fn from_op(op: &Op<'_>, context: &Context<'_>) -> Result<Self, Refusal> {
        match op {
            Op::Call(op) => call(None, op, context),
            Op::CallIn(cluster, op) => call(Some(cluster), op, context),
            Op::Result(op) => Ok(result(op, context)),
            Op::Progress { id, percent: number, note: text, .. } => match id.run() {
                Some(run) => Ok(Self::Progress {
                    run,
                    percent: percent(*number)?,
                    note: note(text.as_ref()),
                }),
                None => Ok(Self::Stray),
            },
            Op::Error { id: Some(id), error, .. } => Ok(failed(id, error)),
            Op::GraphReply { id, error: Some(error), .. } => {
                Ok(failed(&Id::Name(id.clone()), error))
            }
            Op::Error { id: None, .. } => Err(bad_field("id", "`id` is missing")),
            Op::Ping { id } => Ok(Self::Ping { id: optional_id(id.as_ref())? }),
            Op::Bye { id } => Ok(Self::Bye { id: optional_id(id.as_ref())? }),
            Op::Cancel { id: of } => Ok(Self::Cancel { id: id(&of.text())? }),
            Op::Hello { .. } => hello(op),
            Op::Offer { .. } => offer(op, context),
            Op::Graph { .. } => graph(op, context),
            Op::Publish(op) => topics::publish(op, context).map(Self::Publish),
            Op::Subscribe { .. } => topics::subscribe(op, context),
            Op::Unsubscribe { .. } => topics::unsubscribe(op, context),
            Op::Ack { events } => topics::ack(*events),
            Op::Send(op) => queues::send(op, context).map(|send| Self::Send(Box::new(send))),
            Op::Consume { .. } => queues::consume(op, context),
            Op::AckIds { .. } | Op::Nack { .. } | Op::Extend { .. } => queues::settle(op),
            // From one broker to another: see `Reply::HandOver`, `Consume` and `Settle`.
            Op::Sent(SentOp { id, .. }) | Op::SentNear(SentOp { id, .. }) => {
                match RunId::parse(id.as_str()) {
                    Some(id) => Ok(Self::Sent { id }),
                    None => Err(Refusal::brokers_own(op.name())),
                }
            }
            Op::Deliver(op) => {
                queues::deliver(None, op, context).map(|told| Self::Delivered(Box::new(told)))
            }
            Op::DeliverFor(group, op) => queues::deliver(Some(group), op, context)
                .map(|told| Self::Delivered(Box::new(told))),
            Op::Acked { id, ids, unknown } => match RunId::parse(id.as_str()) {
                Some(id) => {
                    Ok(Self::Acked { id, ids: ids.0.to_vec(), unknown: unknown.0.to_vec() })
                }
                None => Err(Refusal::brokers_own(op.name())),
            },
            Op::Consumed { id, credit, .. } => {
                match id.as_ref().and_then(|id| RunId::parse(id.as_str())) {
                    Some(id) => Ok(Self::Consumed { id, credit: *credit }),
                    None => Err(Refusal::brokers_own(op.name())),
                }
            }
            Op::Pong { .. }
            | Op::Welcome { .. }
            | Op::Offered { .. }
            | Op::Published { .. }
            | Op::Subscribed { .. }
            | Op::Event(_)
            | Op::Run(_)
            | Op::GraphReply { .. } => Err(Refusal::brokers_own(op.name())),
        }
    }

    #[inline]
    fn plain(ops: &mut Ops<'_>, context: &Context<'_>) -> Option<Self> {
        let (rest, last) = ops.ahead();
        common::take_request(rest, last, context)
    }

    fn attach(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        match self {
            Self::Call(call) => {
                let call = Arc::make_mut(call);
                let mut values: Vec<_> = call.args.iter_mut().chain(&mut call.kwargs).collect();
                visit(Role::Arguments, &mut values, &mut call.frames)
            }
            Self::Result { body, .. } => {
                visit(Role::Outcome, &mut [&mut body.value], &mut body.frames)
            }
            Self::Graph(part) => match &mut part.steps {
                Some(steps) => visit(Role::Steps, &mut [steps], &mut part.frames),
                None => Ok(()),
            },
            Self::Publish(publish) => topics::attach(&mut publish.event, visit),
            Self::Send(send) => topics::attach(&mut send.event, visit),
            Self::Delivered(delivered) => queues::attach(delivered, visit),
            _ => Ok(()),
        }
    }

    fn bad(&self, refusal: Refusal) -> Box<Bad> {
        let (op, id, run) = match self {
            Self::Call(call) => ("call", Some(call.id.clone()), None),
            Self::Graph(part) => ("graph", Some(part.id.clone()), None),
            Self::Result { run, .. } => ("result", of_run(*run), Some(*run)),
            Self::Failed { run, .. } => ("error", of_run(*run), Some(*run)),
            Self::Progress { run, .. } => ("progress", of_run(*run), None),
            Self::Cancel { id } => ("cancel", Some(id.clone()), None),
            Self::Hello(hello) => ("hello", hello.id.clone(), None),
            Self::Offer(offer) => ("offer", offer.id.clone(), None),
            Self::Ping { id } => ("ping", id.clone(), None),
            Self::Bye { id } => ("bye", id.clone(), None),
            Self::Publish(publish) => ("publish", Some(publish.id.clone()), None),
            Self::Subscribe(of) => ("subscribe", of.id.clone(), None),
            Self::Unsubscribe { id, .. } => ("unsubscribe", id.clone(), None),
            Self::Ack { .. } => ("ack", None, None),
            Self::Send(send) => ("send", Some(send.id.clone()), None),
            Self::Consume { id, .. } => ("consume", id.clone(), None),
            Self::Settle(of) => (of.verdict.as_str(), of.id.clone(), None),
            Self::Sent { id } => ("sent", of_run(*id), None),
            Self::Delivered(told) => ("deliver", of_run(told.id), None),
            Self::Consumed { id, .. } => ("consumed", of_run(*id), None),
            Self::Acked { id, .. } => ("acked", of_run(*id), None),
            Self::Stray => return Box::new(Bad { id: None, op: None, run: None, refusal }),
        };
        Box::new(Bad { id, op: Some(SmolStr::new_static(op)), run, refusal })
    }
}

fn of_run(run: RunId) -> Option<SmolStr> {
    Some(smol_str::format_smolstr!("{run}"))
}

fn failed(id: &Id<'_>, error: &Failure<'_>) -> Request {
    let Some(run) = id.run() else { return Request::Stray };
    let code = Some(error.code.as_str()).filter(|code| !code.is_empty());
    let field = super::reply::string(error.field.as_ref());
    let by_worker = Refusal::by_worker(code, error.message.as_str(), error.retry);
    let error = Refusal { culprit: error.culprit.into(), field, ..by_worker };
    Request::Failed { run, error: Box::new(error) }
}

#[inline]
fn call(
    cluster: Option<&Text<'_>>,
    op: &CallOp<'_>,
    context: &Context<'_>,
) -> Result<Request, Refusal> {
    Ok(Request::Call(Arc::new(Call {
        id: id(op.id.as_str())?,
        fun: name("fun", &op.fun)?,
        args: context.args(op.args.as_ref())?,
        kwargs: context.kwargs(op.kwargs.as_ref())?,
        frames: Frames::new(),
        options: CallOptions {
            locs: words("locs", &op.locs, context.limits.locs)?,
            version: version::<semver::VersionReq>(op.version.as_ref())?,
            cluster: queues::label("cluster", cluster)?,
            timeout_ms: timeout(op.timeout_ms, context.limits)?,
            idempotent: op.idempotent,
            wait: op.wait,
        },
        progress: op.progress,
        track: op.track.map(RunId),
    })))
}

#[inline]
fn result(op: &ResultOp<'_>, context: &Context<'_>) -> Request {
    match op.id.run() {
        Some(run) => {
            Request::Result { run, body: Box::new(Body::plain(context.value(&op.result))) }
        }
        None => Request::Stray,
    }
}

fn hello(op: &Op<'_>) -> Result<Request, Refusal> {
    let Op::Hello { id: of, batch, name: called, token } = op else { return Ok(Request::Stray) };
    let name = match called.as_ref().map(Text::as_str) {
        Some(text) if text.len() > NAME_BYTES || text.chars().any(char::is_control) => {
            let text = "`name` takes 255 bytes at most, without control characters";
            return Err(Refusal::field(Code::BadName, "name", text));
        }
        other => other.map(SmolStr::new),
    };
    Ok(Request::Hello(Hello { id: optional_id(of.as_ref())?, batch: *batch, name, token: *token }))
}

fn offer(op: &Op<'_>, context: &Context<'_>) -> Result<Request, Refusal> {
    let Op::Offer { id: of, functions, locs, credit } = op else { return Ok(Request::Stray) };
    let limits = context.limits;
    if functions.len() > limits.functions_per_offer {
        let text = format!("`functions` takes {} at most", limits.functions_per_offer);
        return Err(bad_field("functions", &text));
    }
    if credit.is_some_and(|credit| credit > limits.credit) {
        return Err(bad_field("credit", &format!("`credit` takes 0 to {}", limits.credit)));
    }
    let functions = functions.iter().enumerate().map(|(index, of)| {
        function(of, context).map_err(|mut refusal| {
            let field = refusal.field.unwrap_or_default();
            refusal.field = Some(smol_str::format_smolstr!("functions/{index}/{field}"));
            refusal
        })
    });
    Ok(Request::Offer(Box::new(Offer {
        id: optional_id(of.as_ref())?,
        functions: functions.collect::<Result<_, _>>()?,
        locs: words("locs", locs, limits.locs)?,
        credit: *credit,
    })))
}

fn function(of: &Offered<'_>, context: &Context<'_>) -> Result<Function, Refusal> {
    Ok(Function {
        name: name("name", &of.name)?,
        version: version::<semver::Version>(of.version.as_ref())?,
        idempotent: of.idempotent,
        doc: of.doc.as_ref().map(|doc| SmolStr::new(doc.as_str())),
        input: context.optional(of.input.as_ref()),
        output: context.optional(of.output.as_ref()),
        cache_ms: of.cache_ms,
    })
}

fn graph(op: &Op<'_>, context: &Context<'_>) -> Result<Request, Refusal> {
    let Op::Graph {
        id: of,
        steps,
        part,
        more,
        returns,
        on_error_continue,
        refs_by_name,
        timeout_ms,
        progress,
        track,
    } = op
    else {
        return Ok(Request::Stray);
    };
    let returns = match returns {
        Wanted::Sinks => Returns::Sinks,
        Wanted::All => Returns::All,
        Wanted::Names(names) => Returns::Names(words("return", names, context.limits.steps)?),
    };
    let options = GraphOptions {
        returns,
        on_error: if *on_error_continue { OnError::Continue } else { OnError::Fail },
        refs: if *refs_by_name { Refs::Names } else { Refs::Tagged },
        timeout_ms: timeout(*timeout_ms, context.limits)?,
        progress: *progress,
        track: track.map(RunId),
    };
    let steps = steps.as_ref();
    if steps.is_some_and(|steps| steps.kind.0 == Kind::Bytes) {
        return Err(bad_field("steps", "`steps` takes an array"));
    }
    Ok(Request::Graph(Box::new(GraphPart {
        id: id(of.as_str())?,
        steps: context.optional(steps),
        frames: Frames::new(),
        part: *part,
        more: *more,
        options,
    })))
}

pub(super) fn text(text: Option<&SmolStr>) -> Option<Text<'_>> {
    text.map(|text| Text::new(text))
}

fn texts(texts: &[SmolStr]) -> Vec<Text<'_>> {
    texts.iter().map(|text| Text::new(text)).collect()
}

/// The op a request is sent as; none for what is never sent.
pub(super) fn to_op(request: &Request) -> Option<Op<'_>> {
    Some(match request {
        Request::Hello(hello) => Op::Hello {
            id: text(hello.id.as_ref()),
            batch: hello.batch,
            name: text(hello.name.as_ref()),
            token: hello.token,
        },
        Request::Ping { id } => Op::Ping { id: text(id.as_ref()) },
        Request::Call(call) => call_op(call),
        Request::Graph(part) => graph_op(part),
        Request::Cancel { id } => Op::Cancel { id: Id::Name(Text::new(id)) },
        Request::Offer(offer) => Op::Offer {
            id: text(offer.id.as_ref()),
            functions: offer.functions.iter().map(function_op).collect(),
            locs: texts(&offer.locs),
            credit: offer.credit,
        },
        Request::Result { run, body } => Op::Result(ResultOp {
            id: Id::Run(run.0),
            result: Raw::of(&body.value, &body.frames),
            track: None,
        }),
        Request::Failed { run, error } => Op::Error {
            id: Some(Id::Run(run.0)),
            item: None,
            error: super::reply::failure(error, None),
            track: None,
        },
        Request::Progress { run, percent, note } => Op::Progress {
            id: Id::Run(run.0),
            event: None,
            step: None,
            step_id: None,
            percent: *percent,
            note: note.as_deref().map(Text::new),
            track: None,
        },
        Request::Bye { id } => Op::Bye { id: text(id.as_ref()) },
        Request::Publish(publish) => topics::publish_op(publish),
        Request::Subscribe(of) => topics::subscribe_op(of),
        Request::Unsubscribe { id, patterns } => Op::Unsubscribe {
            id: text(id.as_ref()),
            patterns: patterns.as_ref().map(|patterns| Raw::of(patterns, &[])),
        },
        Request::Ack { events } => Op::Ack { events: *events },
        Request::Send(send) => queues::send_op(send),
        Request::Consume { id, queue, group, credit } => Op::Consume {
            id: text(id.as_ref()),
            queue: Text::new(queue),
            group: text(group.as_ref()),
            credit: *credit,
        },
        Request::Settle(settle) => queues::settle_op(settle),
        Request::Sent { .. }
        | Request::Delivered(_)
        | Request::Consumed { .. }
        | Request::Acked { .. }
        | Request::Stray => return None,
    })
}

pub(super) fn call_op(call: &Call) -> Op<'_> {
    let op = CallOp {
        id: Text::new(&call.id),
        fun: Text::new(&call.fun),
        args: call.args.as_ref().map(|args| Raw::of(args, &call.frames)),
        kwargs: call.kwargs.as_ref().map(|kwargs| Raw::of(kwargs, &call.frames)),
        locs: texts(&call.options.locs),
        version: text(call.options.version.as_ref()),
        timeout_ms: call.options.timeout_ms,
        idempotent: call.options.idempotent,
        wait: call.options.wait,
        progress: call.progress,
        track: call.track.map(|track| track.0),
    };
    match text(call.options.cluster.as_ref()) {
        Some(cluster) => Op::CallIn(cluster, op),
        None => Op::Call(op),
    }
}

fn graph_op(part: &GraphPart) -> Op<'_> {
    let options = &part.options;
    Op::Graph {
        id: Text::new(&part.id),
        steps: part.steps.as_ref().map(|steps| Raw::of(steps, &part.frames)),
        part: part.part,
        more: part.more,
        returns: match &options.returns {
            Returns::Sinks => Wanted::Sinks,
            Returns::All => Wanted::All,
            Returns::Names(names) => Wanted::Names(texts(names)),
        },
        on_error_continue: options.on_error == OnError::Continue,
        refs_by_name: options.refs == Refs::Names,
        timeout_ms: options.timeout_ms,
        progress: options.progress,
        track: options.track.map(|track| track.0),
    }
}

fn function_op(function: &Function) -> Offered<'_> {
    Offered {
        name: Text::new(&function.name),
        version: text(function.version.as_ref()),
        idempotent: function.idempotent,
        doc: text(function.doc.as_ref()),
        input: function.input.as_ref().map(|schema| Raw::of(schema, &[])),
        output: function.output.as_ref().map(|schema| Raw::of(schema, &[])),
        cache_ms: function.cache_ms,
    }
}
