//! JSON and MessagePack objects to ops.
//!
//! One pass over the object checks every byte of it and notes where the known fields stand; the
//! few that matter to its op are then read. Unknown fields are ignored, the last of a repeated
//! field counts, and `null` is as good as leaving a field out, except in `result` and `payload`.

mod queues;
mod topics;

use mpreg_patterns::base::refusal::cut;
use mpreg_patterns::base::{Code, Limits, Refusal, RunId};
use mpreg_patterns::values::{Cursor, Fault, Kind, Shape};
use smol_str::SmolStr;

use super::Bad;
use super::op::{
    Blame, CallOp, Failure, Id, Offered, Op, Raw, ResultOp, RunOp, Step, Text, Wanted,
};

/// How much of an op that is not known is repeated in the answer, bytes.
const OP_BYTES: usize = 64;

macro_rules! fields {
    ($($name:ident = $text:literal,)*) => {
        /// A field that some op has.
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Field { $($name,)* }

        impl Field {
            const COUNT: usize = [$(Self::$name,)*].len();

            fn find(key: &[u8]) -> Option<Self> {
                match key { $($text => Some(Self::$name),)* _ => None }
            }

            const fn name(self) -> &'static str {
                let text: &[u8] = match self { $(Self::$name => $text,)* };
                match std::str::from_utf8(text) { Ok(text) => text, Err(_) => "" }
            }
        }
    };
}

fields! {
    Op = b"op", Id = b"id", Fun = b"fun", Args = b"args", Kwargs = b"kwargs", Result = b"result",
    Batch = b"batch", Name = b"name", Token = b"token", Locs = b"locs", Version = b"version",
    TimeoutMs = b"timeout_ms", Idempotent = b"idempotent", Wait = b"wait", Progress = b"progress",
    Track = b"track", Cluster = b"cluster", Steps = b"steps", Part = b"part", More = b"more",
    Return = b"return", OnError = b"on_error", Refs = b"refs", Functions = b"functions",
    Credit = b"credit", Doc = b"doc", Input = b"input", Output = b"output", CacheMs = b"cache_ms",
    Results = b"results", Error = b"error", Item = b"item", Step = b"step", StepId = b"step_id",
    Event = b"event", Percent = b"percent", Note = b"note", Epoch = b"epoch",
    DeadlineMs = b"deadline_ms", Attempt = b"attempt", Code = b"code", Message = b"message",
    Culprit = b"culprit", Retry = b"retry", AtFault = b"field", Refused = b"refused",
    State = b"state", Topic = b"topic", Payload = b"payload", Headers = b"headers",
    Confirm = b"confirm", Patterns = b"patterns", Replay = b"replay", Pattern = b"pattern",
    Seq = b"seq", Missed = b"missed", Events = b"events", FromSeq = b"from_seq",
    SinceMs = b"since_ms", Last = b"last", Queue = b"queue", Queues = b"queues",
    DelayMs = b"delay_ms", Priority = b"priority", Key = b"key", Dedup = b"dedup",
    Durability = b"durability", Group = b"group", Ids = b"ids", Reason = b"reason", Dead = b"dead",
    Unknown = b"unknown", At = b"at",
}

/// Reads one object, checked to its last byte, and makes of its op what `then` does; or tells why
/// it is none. The op is large, so it goes no further than there.
pub(super) fn object<'a, T>(
    cursor: &mut Cursor<'a>,
    limits: &Limits,
    then: impl FnOnce(&Op<'a>) -> Result<T, Box<Bad>>,
) -> Result<Result<T, Box<Bad>>, Fault> {
    let mut fields = Fields::new(*cursor);
    fields.fill(cursor)?;
    Ok(match fields.op(limits) {
        Ok(op) => then(&op),
        Err(refusal) => Err(fields.bad(refusal)),
    })
}

/// Where the known fields of one object stand.
struct Fields<'a> {
    cursor: Cursor<'a>,
    /// The whole object.
    range: std::ops::Range<usize>,
    /// Start and end of each value; both 0 where there is none.
    spans: [(u32, u32); Field::COUNT],
    /// Which are strings that stand there as they are meant.
    plain: u128,
}

const _: () = assert!(Field::COUNT <= 128, "a bit for each");

fn takes(field: Field, what: &str) -> Refusal {
    let name = field.name();
    Refusal::field(Code::BadField, name, format!("`{name}` takes {what}"))
}

fn missing(field: Field) -> Refusal {
    let name = field.name();
    Refusal::field(Code::BadField, name, format!("`{name}` is missing"))
}

impl<'a> Fields<'a> {
    fn new(cursor: Cursor<'a>) -> Self {
        Self { cursor, range: 0..0, spans: [(0, 0); Field::COUNT], plain: 0 }
    }

    /// The fields of an object that has been checked.
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Fault> {
        let mut fields = Self::new(*cursor);
        fields.fill(cursor)?;
        Ok(fields)
    }

    /// Passes the object at `cursor` and notes where its fields stand.
    fn fill(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        cursor.peek()?;
        let start = cursor.at();
        let mut map = cursor.map()?;
        while let Some(field) = cursor.known_key(&mut map, Field::find)? {
            let (range, plain) = cursor.pass()?;
            if let Some(field) = field {
                self.spans[field as usize] = (range.start as u32, range.end as u32);
                let bit = 1 << field as u32;
                self.plain = if plain { self.plain | bit } else { self.plain & !bit };
            }
        }
        self.range = start..cursor.at();
        Ok(())
    }

    /// What can be said about an object that is not taken.
    fn bad(&self, refusal: Refusal) -> Box<Bad> {
        let text = |field| self.text(field).ok().flatten();
        let op = text(Field::Op).map(|op| SmolStr::new(cut(op.as_str(), OP_BYTES)));
        let id = text(Field::Id).filter(|id| super::request::is_id(id.as_str()));
        let outcome = matches!(op.as_deref(), Some("result" | "error"));
        let run = id.as_ref().filter(|_| outcome).and_then(|id| RunId::parse(id.as_str()));
        Box::new(Bad { id: id.map(|id| SmolStr::new(id.as_str())), op, run, refusal })
    }

    /// Before the value of `field`, unless it is left out, as most are.
    #[inline]
    fn at(&self, field: Field) -> Option<Cursor<'a>> {
        if self.spans[field as usize].1 == 0 {
            return None;
        }
        self.found(field)
    }

    fn found(&self, field: Field) -> Option<Cursor<'a>> {
        let mut cursor = self.cursor;
        cursor.jump(self.spans[field as usize].0 as usize);
        let null = cursor.peek() == Ok(Shape::Null);
        (!null || matches!(field, Field::Result | Field::Payload)).then_some(cursor)
    }

    #[inline]
    fn get<T>(
        &self,
        field: Field,
        what: &str,
        read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Refusal> {
        let Some(mut cursor) = self.at(field) else { return Ok(None) };
        read(&mut cursor).map(Some).map_err(|_| takes(field, what))
    }

    #[inline]
    fn text(&self, field: Field) -> Result<Option<Text<'a>>, Refusal> {
        if self.spans[field as usize].1 == 0 {
            return Ok(None);
        }
        self.found_text(field)
    }

    fn found_text(&self, field: Field) -> Result<Option<Text<'a>>, Refusal> {
        if self.plain >> field as u32 & 1 == 1 {
            let (start, end) = self.spans[field as usize];
            let within = &self.cursor.bytes()[start as usize + 1..end as usize - 1];
            if let Ok(text) = std::str::from_utf8(within) {
                return Ok(Some(Text(text.into())));
            }
        }
        self.get(field, "a string", |cursor| cursor.string().map(Text))
    }

    fn some_text(&self, field: Field) -> Result<Text<'a>, Refusal> {
        self.text(field)?.ok_or_else(|| missing(field))
    }

    fn flag(&self, field: Field) -> Result<Option<bool>, Refusal> {
        self.get(field, "true or false", Cursor::bool)
    }

    fn is_set(&self, field: Field) -> Result<bool, Refusal> {
        Ok(self.flag(field)?.unwrap_or(false))
    }

    fn number(&self, field: Field) -> Result<Option<u64>, Refusal> {
        self.get(field, "a whole number from 0", Cursor::u64)
    }

    fn small(&self, field: Field) -> Result<Option<u32>, Refusal> {
        let number = self.number(field)?.map(u32::try_from).transpose();
        number.map_err(|_| takes(field, "a whole number below 2^32"))
    }

    fn float(&self, field: Field) -> Result<Option<f64>, Refusal> {
        self.get(field, "a number", Cursor::f64)
    }

    fn ulid(&self, field: Field) -> Result<Option<u128>, Refusal> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        match RunId::parse(text.as_str()) {
            Some(id) => Ok(Some(id.0)),
            None => Err(takes(field, "a ULID")),
        }
    }

    fn run(&self) -> Result<Id<'a>, Refusal> {
        self.some_text(Field::Id).map(Id::Name)
    }

    /// A value that is not looked into, of a given type.
    fn raw(&self, field: Field, shape: Option<Shape>) -> Result<Option<Raw<'a>>, Refusal> {
        let Some(mut cursor) = self.at(field) else { return Ok(None) };
        if let Some(shape) = shape
            && cursor.peek() != Ok(shape)
        {
            return Err(takes(field, shape.as_str()));
        }
        let (start, end) = self.spans[field as usize];
        let bytes = &cursor.bytes()[start as usize..end as usize];
        Ok(Some(Raw::borrowed(cursor.kind(), bytes)))
    }

    fn texts(&self, field: Field, most: usize) -> Result<Vec<Text<'a>>, Refusal> {
        let Some(mut cursor) = self.at(field) else { return Ok(Vec::new()) };
        let mut read = || {
            let mut texts = Vec::new();
            let mut array = cursor.array()?;
            while cursor.item(&mut array)? {
                if texts.len() == most {
                    return Err(Fault::BadTag("too many"));
                }
                texts.push(Text(cursor.string()?));
            }
            Ok(texts)
        };
        read().map_err(|_| takes(field, &format!("an array of {most} strings at most")))
    }

    fn op(&self, limits: &Limits) -> Result<Op<'a>, Refusal> {
        let op = self.some_text(Field::Op)?;
        match op.as_str() {
            "call" => self.call(limits),
            "publish" => self.publish(),
            "event" => self.event(),
            "send" => self.send(),
            "deliver" => self.deliver(),
            "ack" => self.ack(),
            "sent" => self.sent(),
            "result" if self.spans[Field::Results as usize].1 != 0 => self.graph_reply(None),
            "result" => self.result(),
            "run" => self.a_run(),
            "progress" => self.progress(),
            "ping" => Ok(Op::Ping { id: self.text(Field::Id)? }),
            "pong" => Ok(Op::Pong { id: self.text(Field::Id)? }),
            "bye" => Ok(Op::Bye { id: self.text(Field::Id)? }),
            "cancel" => Ok(Op::Cancel { id: self.run()? }),
            "hello" => self.hello(),
            "welcome" => self.welcome(),
            "graph" => self.graph(limits),
            "error" => self.error(),
            "offer" => self.offer(limits),
            "offered" => self.offered(),
            "published" => self.published(),
            "subscribe" => self.subscribe(),
            "subscribed" => self.subscribed(),
            "unsubscribe" => self.unsubscribe(),
            "consume" => self.consume(),
            "consumed" => self.consumed(),
            "nack" => self.nack(),
            "extend" => Ok(Op::Extend { id: self.text(Field::Id)?, ids: self.ids(Field::Ids)? }),
            "acked" => self.acked(),
            other => {
                let text = format!("there is no op `{}`", cut(other, OP_BYTES));
                Err(Refusal::field(Code::UnknownOp, "op", text))
            }
        }
    }

    fn call(&self, limits: &Limits) -> Result<Op<'a>, Refusal> {
        let call = CallOp {
            id: self.some_text(Field::Id)?,
            fun: self.some_text(Field::Fun)?,
            args: self.raw(Field::Args, Some(Shape::Array))?,
            kwargs: self.raw(Field::Kwargs, Some(Shape::Map))?,
            locs: self.texts(Field::Locs, limits.locs)?,
            version: self.text(Field::Version)?,
            timeout_ms: self.number(Field::TimeoutMs)?,
            idempotent: self.flag(Field::Idempotent)?,
            wait: self.is_set(Field::Wait)?,
            progress: self.is_set(Field::Progress)?,
            track: self.ulid(Field::Track)?,
        };
        Ok(match self.text(Field::Cluster)? {
            Some(cluster) => Op::CallIn(cluster, call),
            None => Op::Call(call),
        })
    }

    fn result(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Result(ResultOp {
            id: self.run()?,
            result: self.raw(Field::Result, None)?.ok_or_else(|| missing(Field::Result))?,
            track: self.ulid(Field::Track)?,
        }))
    }

    fn a_run(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Run(RunOp {
            id: self.ulid(Field::Id)?.ok_or_else(|| missing(Field::Id))?,
            fun: self.some_text(Field::Fun)?,
            args: self.raw(Field::Args, Some(Shape::Array))?,
            kwargs: self.raw(Field::Kwargs, Some(Shape::Map))?,
            deadline_ms: self.number(Field::DeadlineMs)?.unwrap_or(0),
            attempt: self.small(Field::Attempt)?.unwrap_or(1),
        }))
    }

    fn progress(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Progress {
            id: self.run()?,
            event: self.text(Field::Event)?,
            step: self.text(Field::Step)?,
            step_id: self.ulid(Field::StepId)?,
            percent: self.float(Field::Percent)?,
            note: self.text(Field::Note)?,
            track: self.ulid(Field::Track)?,
        })
    }

    fn hello(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Hello {
            id: self.text(Field::Id)?,
            batch: self.flag(Field::Batch)?,
            name: self.text(Field::Name)?,
            token: self.at(Field::Token).is_some(),
        })
    }

    fn welcome(&self) -> Result<Op<'a>, Refusal> {
        let bytes = &self.cursor.bytes()[self.range.clone()];
        let about = Raw::borrowed(self.cursor.kind(), bytes);
        Ok(Op::Welcome { id: self.text(Field::Id)?, about })
    }

    fn graph(&self, limits: &Limits) -> Result<Op<'a>, Refusal> {
        let on_error = self.text(Field::OnError)?;
        let on_error_continue = match on_error.as_ref().map(Text::as_str) {
            None | Some("fail") => false,
            Some("continue") => true,
            Some(_) => return Err(takes(Field::OnError, "\"fail\" or \"continue\"")),
        };
        let refs = self.text(Field::Refs)?;
        let refs_by_name = match refs.as_ref().map(Text::as_str) {
            None | Some("tagged") => false,
            Some("names") => true,
            Some(_) => return Err(takes(Field::Refs, "\"tagged\" or \"names\"")),
        };
        Ok(Op::Graph {
            id: self.some_text(Field::Id)?,
            steps: self.raw(Field::Steps, Some(Shape::Array))?,
            part: self.small(Field::Part)?.unwrap_or(0),
            more: self.is_set(Field::More)?,
            returns: self.returns(limits)?,
            on_error_continue,
            refs_by_name,
            timeout_ms: self.number(Field::TimeoutMs)?,
            progress: self.is_set(Field::Progress)?,
            track: self.ulid(Field::Track)?,
        })
    }

    fn returns(&self, limits: &Limits) -> Result<Wanted<'a>, Refusal> {
        match self.at(Field::Return).map(|mut cursor| cursor.peek()) {
            None => return Ok(Wanted::Sinks),
            Some(Ok(Shape::Array)) => {
                return self.texts(Field::Return, limits.steps).map(Wanted::Names);
            }
            Some(_) => {}
        }
        let word = self.text(Field::Return).ok().flatten();
        match word.as_ref().map(Text::as_str) {
            Some("sinks") => Ok(Wanted::Sinks),
            Some("all") => Ok(Wanted::All),
            _ => Err(takes(Field::Return, "\"sinks\", \"all\" or an array of names")),
        }
    }

    /// Reads every object in the array or every value in the object that stands at `field`.
    fn each<T>(
        &self,
        field: Field,
        shape: Shape,
        mut read: impl FnMut(usize, Text<'a>, &mut Cursor<'a>) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let Some(mut cursor) = self.at(field) else { return Ok(Vec::new()) };
        let refuse = |_: Fault| takes(field, shape.as_str());
        let mut items = Vec::new();
        if shape == Shape::Array {
            let mut array = cursor.array().map_err(refuse)?;
            while cursor.item(&mut array).map_err(refuse)? {
                items.push(read(items.len(), Text::new(""), &mut cursor)?);
            }
        } else {
            let mut map = cursor.map().map_err(refuse)?;
            while let Some(key) = cursor.key(&mut map).map_err(refuse)? {
                items.push(read(items.len(), Text(key), &mut cursor)?);
            }
        }
        Ok(items)
    }

    fn offer(&self, limits: &Limits) -> Result<Op<'a>, Refusal> {
        if self.at(Field::Functions).is_none() {
            return Err(missing(Field::Functions));
        }
        let most = limits.functions_per_offer;
        let functions = self.each(Field::Functions, Shape::Array, |index, _, cursor| {
            if index == most {
                return Err(takes(Field::Functions, &format!("{most} functions at most")));
            }
            let fields = Self::read(cursor).map_err(|_| takes(Field::Functions, "objects"))?;
            fields.function().map_err(|mut refusal| {
                let field = refusal.field.unwrap_or_default();
                refusal.field = Some(smol_str::format_smolstr!("functions/{index}/{field}"));
                refusal
            })
        })?;
        let (id, credit) = (self.text(Field::Id)?, self.small(Field::Credit)?);
        Ok(Op::Offer { id, functions, locs: self.texts(Field::Locs, limits.locs)?, credit })
    }

    fn function(&self) -> Result<Offered<'a>, Refusal> {
        Ok(Offered {
            name: self.some_text(Field::Name)?,
            version: self.text(Field::Version)?,
            idempotent: self.is_set(Field::Idempotent)?,
            doc: self.text(Field::Doc)?,
            input: self.raw(Field::Input, None)?,
            output: self.raw(Field::Output, None)?,
            cache_ms: self.number(Field::CacheMs)?,
        })
    }

    fn offered(&self) -> Result<Op<'a>, Refusal> {
        Ok(Op::Offered {
            id: self.text(Field::Id)?,
            epoch: self.number(Field::Epoch)?.ok_or_else(|| missing(Field::Epoch))?,
            functions: self.small(Field::Functions)?.unwrap_or(0),
            credit: self.small(Field::Credit)?.unwrap_or(0),
        })
    }

    fn error(&self) -> Result<Op<'a>, Refusal> {
        let (error, step) = self.failure()?;
        let has = |field: Field| self.spans[field as usize].1 != 0;
        if has(Field::Results) || has(Field::Steps) || step.is_some() || has(Field::Part) {
            return self.graph_reply(Some((error, step)));
        }
        let id = self.text(Field::Id)?.map(Id::Name);
        Ok(Op::Error { id, item: self.small(Field::Item)?, error, track: self.ulid(Field::Track)? })
    }

    /// `error`: an object, or the text alone; and the step of a graph it names.
    fn failure(&self) -> Result<(Failure<'a>, Option<Text<'a>>), Refusal> {
        let Some(mut cursor) = self.at(Field::Error) else { return Err(missing(Field::Error)) };
        let mut failure = Failure {
            code: Text::new(""),
            message: Text::new(""),
            culprit: Blame::Worker,
            retry: false,
            op: None,
            field: None,
            refused: None,
        };
        if cursor.peek() == Ok(Shape::String) {
            failure.message = self.some_text(Field::Error)?;
            return Ok((failure, None));
        }
        let fields =
            Self::read(&mut cursor).map_err(|_| takes(Field::Error, "a string or an object"))?;
        if let Some(code) = fields.text(Field::Code)? {
            failure.code = code;
        }
        if let Some(message) = fields.text(Field::Message)? {
            failure.message = message;
        }
        failure.culprit = match fields.text(Field::Culprit)?.as_ref().map(Text::as_str) {
            Some("caller") => Blame::Caller,
            Some("broker") => Blame::Broker,
            _ => Blame::Worker,
        };
        failure.retry = fields.is_set(Field::Retry)?;
        failure.op = fields.text(Field::Op)?;
        failure.field = fields.text(Field::AtFault)?;
        failure.refused = fields.text(Field::Refused)?;
        Ok((failure, fields.text(Field::Step)?))
    }

    fn graph_reply(
        &self,
        failed: Option<(Failure<'a>, Option<Text<'a>>)>,
    ) -> Result<Op<'a>, Refusal> {
        let (error, step) = failed.unzip();
        let bytes = self.cursor.bytes();
        let kind: Kind = self.cursor.kind();
        let results = self.each(Field::Results, Shape::Map, |_, name, cursor| {
            let range = cursor.skip().map_err(|_| takes(Field::Results, "an object"))?;
            Ok((name, Raw::borrowed(kind, &bytes[range])))
        })?;
        let ran = self.spans[Field::Results as usize].1 != 0;
        let steps = self.each(Field::Steps, Shape::Map, |_, name, cursor| {
            let fields = Self::read(cursor).map_err(|_| takes(Field::Steps, "objects"))?;
            let state = fields.some_text(Field::State)?;
            if super::reply::state(state.as_str()).is_none() {
                return Err(takes(Field::Steps, "states that are known"));
            }
            Ok(Step { name, state, code: fields.text(Field::Code)? })
        })?;
        Ok(Op::GraphReply {
            id: self.some_text(Field::Id)?,
            results: ran.then_some(results),
            steps,
            error,
            step: step.flatten(),
            part: self.small(Field::Part)?,
            more: self.is_set(Field::More)?,
            track: self.ulid(Field::Track)?,
        })
    }
}
