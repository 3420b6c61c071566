//! Ops to JSON and MessagePack objects.
//!
//! Fields that say nothing are left out. Values are checked as they go in, since what came in
//! bincode was not: a value cannot break the object around it.

mod queues;
mod topics;

use mpreg_patterns::base::RunId;
use mpreg_patterns::values::{
    Cursor, Fault, Frames, Kind, Target, Value, append_value, json, msgpack,
};

use super::op::{Blame, CallOp, Failure, Id, Offered, Op, Raw, RunOp, Text, Wanted};

/// Appends `op` to a message and its attachments.
pub(super) fn put(
    op: &Op<'_>,
    kind: Kind,
    quoting: bool,
    out: &mut Vec<u8>,
    frames: &mut Frames,
) -> Result<(), Fault> {
    Writer { kind, quoting, out, frames, pairs: 0 }.op(op)
}

/// Appends the head of an array, unless the encoding closes it as well.
fn open_array(kind: Kind, items: usize, out: &mut Vec<u8>) {
    match kind {
        Kind::MsgPack => msgpack::put_array(out, items),
        Kind::Json | Kind::Bytes => out.push(b'['),
    }
}

struct Writer<'o> {
    kind: Kind,
    quoting: bool,
    out: &'o mut Vec<u8>,
    frames: &'o mut Frames,
    /// How many fields the open object has so far.
    pairs: usize,
}

/// An object that is being written.
struct Open {
    head: usize,
    outer: usize,
}

impl Writer<'_> {
    fn open(&mut self) -> Open {
        let open = Open { head: self.out.len(), outer: self.pairs };
        self.out.push(if self.kind == Kind::Json { b'{' } else { 0x80 });
        self.pairs = 0;
        open
    }

    fn close(&mut self, open: &Open) {
        if self.kind == Kind::Json {
            self.out.push(b'}');
        } else if self.pairs < 16 {
            self.out[open.head] = 0x80 | self.pairs as u8;
        } else {
            let mut head = Vec::new();
            msgpack::put_map(&mut head, self.pairs);
            self.out.splice(open.head..=open.head, head);
        }
        self.pairs = open.outer;
    }

    /// A key of the protocol's own, in which nothing is escaped. Always inlined: where its length
    /// is known it is a store, not a copy.
    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        if self.kind == Kind::Json {
            if self.pairs > 0 {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(key.as_bytes());
            self.out.extend_from_slice(b"\":");
        } else {
            msgpack::put_string(self.out, key);
        }
        self.pairs += 1;
    }

    /// A key that somebody else chose.
    fn name(&mut self, name: &str) {
        if self.kind == Kind::Json {
            if self.pairs > 0 {
                self.out.push(b',');
            }
            json::put_string(self.out, name);
            self.out.push(b':');
        } else {
            msgpack::put_string(self.out, name);
        }
        self.pairs += 1;
    }

    fn string(&mut self, text: &str) {
        match self.kind {
            Kind::MsgPack => msgpack::put_string(self.out, text),
            Kind::Json | Kind::Bytes => json::put_string(self.out, text),
        }
    }

    /// Text in which nothing is escaped: a word of the protocol's own, or a ULID.
    #[inline]
    fn word(&mut self, key: &'static str, text: &str) {
        self.key(key);
        if self.kind == Kind::MsgPack {
            return msgpack::put_string(self.out, text);
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    #[inline(always)]
    fn field(&mut self, key: &'static str, text: &str) {
        self.key(key);
        self.string(text);
    }

    #[inline(always)]
    fn text(&mut self, key: &'static str, text: Option<&Text<'_>>) {
        if let Some(text) = text {
            self.field(key, text.as_str());
        }
    }

    #[inline(always)]
    fn ulid(&mut self, key: &'static str, id: Option<u128>) {
        if let Some(id) = id {
            self.word(key, RunId(id).text(&mut [0; 26]));
        }
    }

    fn id(&mut self, id: &Id<'_>) {
        match id {
            Id::Name(text) => self.field("id", text.as_str()),
            Id::Run(run) => self.ulid("id", Some(*run)),
        }
    }

    #[inline(always)]
    fn number(&mut self, key: &'static str, number: Option<u64>) {
        let Some(number) = number else { return };
        self.key(key);
        match self.kind {
            Kind::MsgPack => msgpack::put_u64(self.out, number),
            Kind::Json | Kind::Bytes => json::put_u64(self.out, number),
        }
    }

    fn float(&mut self, key: &'static str, number: Option<f64>) {
        let Some(number) = number.filter(|number| number.is_finite()) else { return };
        self.key(key);
        match self.kind {
            Kind::MsgPack => msgpack::put_f64(self.out, number),
            Kind::Json | Kind::Bytes => json::put_f64(self.out, number),
        }
    }

    #[inline(always)]
    fn flag(&mut self, key: &'static str, flag: Option<bool>) {
        let Some(flag) = flag else { return };
        self.key(key);
        let bytes: &[u8] = match (self.kind, flag) {
            (Kind::MsgPack, true) => &[0xC3],
            (Kind::MsgPack, false) => &[0xC2],
            (_, true) => b"true",
            (_, false) => b"false",
        };
        self.out.extend_from_slice(bytes);
    }

    /// A flag that says something only when it is set.
    #[inline(always)]
    fn set(&mut self, key: &'static str, flag: bool) {
        self.flag(key, flag.then_some(true));
    }

    fn texts(&mut self, key: &'static str, texts: &[Text<'_>]) {
        self.key(key);
        self.array(texts, |writer, text| {
            writer.string(text.as_str());
            Ok(())
        })
        .unwrap_or_default();
    }

    fn some_texts(&mut self, key: &'static str, texts: &[Text<'_>]) {
        if !texts.is_empty() {
            self.texts(key, texts);
        }
    }

    fn array<T>(
        &mut self,
        items: &[T],
        mut put: impl FnMut(&mut Self, &T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        open_array(self.kind, items.len(), self.out);
        for (index, item) in items.iter().enumerate() {
            if self.kind == Kind::Json && index > 0 {
                self.out.push(b',');
            }
            put(self, item)?;
        }
        if self.kind == Kind::Json {
            self.out.push(b']');
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, own: &Raw<'_>) -> Result<(), Fault> {
        let Self { kind, quoting, out, frames, .. } = self;
        append_value(value, own.frames, Target { to: *kind, quoting: *quoting, out, frames })
    }

    /// A value under `key`.
    fn raw(&mut self, key: &'static str, raw: Option<&Raw<'_>>) -> Result<(), Fault> {
        let Some(raw) = raw else { return Ok(()) };
        let Some(value) = raw.value else { return Ok(()) };
        self.key(key);
        self.value(value, raw)
    }

    /// Arguments: bytes alone, which bincode allows, are an array of one.
    fn args(&mut self, raw: Option<&Raw<'_>>) -> Result<(), Fault> {
        let Some(raw) = raw.filter(|raw| raw.kind.0 == Kind::Bytes) else {
            return self.raw("args", raw);
        };
        let Some(value) = raw.value else { return Ok(()) };
        self.key("args");
        self.array(&[value], |writer, value| writer.value(value, raw))
    }

    /// `hello` and `welcome`.
    fn greeting(&mut self, op: &Op<'_>) -> Result<(), Fault> {
        match op {
            Op::Hello { id, batch, name, token } => {
                self.text("id", id.as_ref());
                self.flag("batch", *batch);
                self.text("name", name.as_ref());
                if *token {
                    self.field("token", "");
                }
            }
            Op::Welcome { id, about } => {
                self.text("id", id.as_ref());
                self.about(about)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn op(&mut self, op: &Op<'_>) -> Result<(), Fault> {
        let open = self.open();
        self.word("op", op.name());
        match op {
            Op::Ping { id } | Op::Pong { id } | Op::Bye { id } => self.text("id", id.as_ref()),
            Op::Hello { .. } | Op::Welcome { .. } => self.greeting(op)?,
            Op::Call(call) => self.call(None, call)?,
            Op::CallIn(cluster, call) => self.call(Some(cluster), call)?,
            Op::Result(op) => {
                self.id(&op.id);
                self.raw("result", Some(&op.result))?;
                self.ulid("track", op.track);
            }
            Op::Error { id, item, error, track } => {
                if let Some(id) = id {
                    self.id(id);
                }
                self.number("item", item.map(u64::from));
                self.failure(error, None);
                self.ulid("track", *track);
            }
            Op::Offer { id, functions, locs, credit } => {
                self.text("id", id.as_ref());
                self.key("functions");
                self.array(functions, Self::function)?;
                self.some_texts("locs", locs);
                self.number("credit", credit.map(u64::from));
            }
            Op::Offered { id, epoch, functions, credit } => {
                self.text("id", id.as_ref());
                self.number("epoch", Some(*epoch));
                self.number("functions", Some(u64::from(*functions)));
                self.number("credit", Some(u64::from(*credit)));
            }
            Op::Run(run) => self.run(run)?,
            Op::Progress { .. } => self.progress(op),
            Op::Cancel { id } => self.id(id),
            Op::Graph { .. } => self.graph(op)?,
            Op::GraphReply { .. } => self.graph_reply(op)?,
            Op::Publish(_)
            | Op::Published { .. }
            | Op::Subscribe { .. }
            | Op::Subscribed { .. }
            | Op::Unsubscribe { .. }
            | Op::Event(_)
            | Op::Ack { .. } => self.of_topics(op)?,
            Op::Send(_)
            | Op::Sent(_)
            | Op::SentNear(_)
            | Op::Consume { .. }
            | Op::Consumed { .. }
            | Op::Deliver(_)
            | Op::DeliverFor(..)
            | Op::AckIds { .. }
            | Op::Nack { .. }
            | Op::Extend { .. }
            | Op::Acked { .. } => self.of_queues(op)?,
        }
        self.close(&open);
        Ok(())
    }

    /// The fields of an object, put into the open one.
    fn about(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        let Some(whole) = raw.value else { return Ok(()) };
        let mut cursor = Cursor::of(whole);
        let mut map = cursor.map()?;
        while let Some(key) = cursor.key(&mut map)? {
            let bytes = whole.bytes.slice(cursor.skip()?);
            self.name(&key);
            self.value(&Value::new(whole.kind, bytes), raw)?;
        }
        Ok(())
    }

    fn call(&mut self, cluster: Option<&Text<'_>>, call: &CallOp<'_>) -> Result<(), Fault> {
        self.field("id", call.id.as_str());
        self.field("fun", call.fun.as_str());
        self.args(call.args.as_ref())?;
        self.raw("kwargs", call.kwargs.as_ref())?;
        self.some_texts("locs", &call.locs);
        self.text("version", call.version.as_ref());
        self.text("cluster", cluster);
        self.number("timeout_ms", call.timeout_ms);
        self.flag("idempotent", call.idempotent);
        self.set("wait", call.wait);
        self.set("progress", call.progress);
        self.ulid("track", call.track);
        Ok(())
    }

    fn run(&mut self, run: &RunOp<'_>) -> Result<(), Fault> {
        self.ulid("id", Some(run.id));
        self.field("fun", run.fun.as_str());
        self.args(run.args.as_ref())?;
        self.raw("kwargs", run.kwargs.as_ref())?;
        self.number("deadline_ms", Some(run.deadline_ms));
        self.number("attempt", Some(u64::from(run.attempt)));
        Ok(())
    }

    fn progress(&mut self, op: &Op<'_>) {
        let Op::Progress { id, event, step, step_id, percent, note, track } = op else { return };
        self.id(id);
        self.text("event", event.as_ref());
        self.text("step", step.as_ref());
        self.ulid("step_id", *step_id);
        self.float("percent", *percent);
        self.text("note", note.as_ref());
        self.ulid("track", *track);
    }

    fn function(&mut self, function: &Offered<'_>) -> Result<(), Fault> {
        let open = self.open();
        self.field("name", function.name.as_str());
        self.text("version", function.version.as_ref());
        self.set("idempotent", function.idempotent);
        self.text("doc", function.doc.as_ref());
        self.raw("input", function.input.as_ref())?;
        self.raw("output", function.output.as_ref())?;
        self.number("cache_ms", function.cache_ms);
        self.close(&open);
        Ok(())
    }

    /// `error`, and in it the step of a graph that is the cause.
    fn failure(&mut self, failure: &Failure<'_>, step: Option<&Text<'_>>) {
        self.key("error");
        let open = self.open();
        self.field("code", failure.code.as_str());
        self.field("message", failure.message.as_str());
        self.field(
            "culprit",
            match failure.culprit {
                Blame::Caller => "caller",
                Blame::Worker => "worker",
                Blame::Broker => "broker",
            },
        );
        self.flag("retry", Some(failure.retry));
        self.text("op", failure.op.as_ref());
        self.text("field", failure.field.as_ref());
        self.text("refused", failure.refused.as_ref());
        self.text("step", step);
        self.close(&open);
    }

    fn graph(&mut self, op: &Op<'_>) -> Result<(), Fault> {
        let Op::Graph {
            id,
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
            return Ok(());
        };
        self.field("id", id.as_str());
        self.raw("steps", steps.as_ref())?;
        self.number("part", Some(u64::from(*part)).filter(|part| *part > 0 || *more));
        self.set("more", *more);
        match returns {
            Wanted::Sinks => {}
            Wanted::All => self.field("return", "all"),
            Wanted::Names(names) => self.texts("return", names),
        }
        self.text("on_error", on_error_continue.then_some(&Text::new("continue")));
        self.text("refs", refs_by_name.then_some(&Text::new("names")));
        self.number("timeout_ms", *timeout_ms);
        self.set("progress", *progress);
        self.ulid("track", *track);
        Ok(())
    }

    fn graph_reply(&mut self, op: &Op<'_>) -> Result<(), Fault> {
        let Op::GraphReply { id, results, steps, error, step, part, more, track } = op else {
            return Ok(());
        };
        self.field("id", id.as_str());
        if let Some(results) = results {
            self.key("results");
            let open = self.open();
            for (name, raw) in results {
                let Some(value) = raw.value else { continue };
                self.name(name.as_str());
                self.value(value, raw).map_err(|fault| under(fault, name.as_str()))?;
            }
            self.close(&open);
        }
        if !steps.is_empty() {
            self.key("steps");
            let open = self.open();
            for step in steps {
                self.name(step.name.as_str());
                let inner = self.open();
                self.field("state", step.state.as_str());
                self.text("code", step.code.as_ref());
                self.close(&inner);
            }
            self.close(&open);
        }
        if let Some(error) = error {
            self.failure(error, step.as_ref());
        }
        self.number("part", part.map(u64::from));
        self.set("more", *more);
        self.ulid("track", *track);
        Ok(())
    }
}

/// The same fault, seen from the results of a graph.
fn under(fault: Fault, name: &str) -> Fault {
    match fault {
        Fault::Unencodable { step, path, why } => {
            let name = name.replace('~', "~0").replace('/', "~1");
            Fault::Unencodable { step, path: format!("/{name}{path}").into(), why }
        }
        other => other,
    }
}
