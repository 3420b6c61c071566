//! One step after the other out of the bytes of a part.

use std::ops::Range;

use smol_str::SmolStr;

use super::plan::{Extras, Fallback, PartReader, Retry, State, Step, Template};
use crate::base::limits::{NAME_BYTES, RETRY_TIMES};
use crate::base::names::{fits, is_name, no_name};
use crate::base::refusal::cut;
use crate::base::{Code, Limits, Refusal, RunId};
use crate::values::{ArrayState, Cursor, Fault, Shape, Value};

type Parsed<T> = Result<T, Refusal>;

/// Reads the next step; `None` at the end of the part.
pub(super) fn parse_step(reader: &mut PartReader, limits: &Limits) -> Parsed<Option<Step>> {
    let bytes = reader.steps.bytes.clone();
    let mut cursor = Cursor::new(reader.steps.kind, &bytes, limits.depth);
    let mut array = cursor.array().map_err(|fault| bad("steps", &fault))?;
    if let Some((at, state)) = reader.resume {
        cursor.jump(at);
        array = state;
    }
    let more = cursor.item(&mut array).map_err(|fault| bad("steps", &fault))?;
    if !more {
        return Ok(None);
    }
    let mut fields = Fields { part: &reader.steps, limits, cursor };
    let step = fields.step(reader.index)?;
    reader.resume = Some((fields.cursor.at(), array));
    Ok(Some(step))
}

/// Where a part's reader goes on.
pub(super) type Resume = Option<(usize, ArrayState)>;

fn bad(field: &str, fault: &Fault) -> Refusal {
    match fault {
        // A field of another type than it takes is the caller's doing.
        Fault::BadValue(message) => wrong(field, message.clone()),
        _ => Refusal { field: Some(SmolStr::new(field)), ..fault.refusal() },
    }
}

fn wrong(field: &str, message: impl Into<Box<str>>) -> Refusal {
    Refusal::field(Code::BadField, field, message)
}

struct Fields<'a> {
    part: &'a Value,
    limits: &'a Limits,
    cursor: Cursor<'a>,
}

impl Fields<'_> {
    fn step(&mut self, part: u32) -> Parsed<Step> {
        let mut step = empty_step(part);
        let mut extras = Extras::default();
        let mut id = None;
        let mut map = self.cursor.map().map_err(|fault| bad("steps", &fault))?;
        while let Some(key) = self.cursor.key(&mut map).map_err(|fault| bad("steps", &fault))? {
            match &*key {
                _ if self.left_out("steps")? => {}
                "name" => step.name = self.step_name("name")?,
                "id" => id = Some(self.ulid()?),
                "fun" => step.fun = self.function("fun")?,
                "args" => step.args = Some(self.container("args", Shape::Array)?.into()),
                "kwargs" => step.kwargs = Some(self.container("kwargs", Shape::Map)?.into()),
                "locs" => extras.options.locs = self.locs()?,
                "version" => extras.options.version = Some(self.range()?),
                "cluster" => extras.options.cluster = Some(self.cluster()?),
                "timeout_ms" => extras.options.timeout_ms = Some(self.timeout()?),
                "idempotent" => extras.options.idempotent = Some(self.flag("idempotent")?),
                "wait" => extras.options.wait = self.flag("wait")?,
                "after" => extras.after = self.names("after")?,
                "retry" => extras.retry = Some(self.retry()?),
                "fallback" => extras.fallback = Some(self.fallback()?),
                _ => self.pass("steps")?,
            }
        }
        if step.name.is_empty() {
            step.name = id.ok_or_else(|| wrong("name", "a step needs a name, or a ULID as id"))?;
        }
        if step.fun.is_empty() {
            return Err(wrong("fun", format!("{} names no function", step.name)));
        }
        if !extras.is_plain() {
            step.extras = Some(Box::new(extras));
        }
        Ok(step)
    }

    fn skip(&mut self, field: &str) -> Parsed<Range<usize>> {
        self.cursor.skip().map_err(|fault| bad(field, &fault))
    }

    /// Passes a field that is not known here.
    fn pass(&mut self, field: &str) -> Parsed<()> {
        self.skip(field).map(drop)
    }

    /// A value as it stands: it shares the bytes of its part, which live as long as the graph.
    fn value(&mut self, field: &str) -> Parsed<Value> {
        let range = self.skip(field)?;
        Ok(Value::new(self.part.kind, self.part.bytes.slice(range)))
    }

    fn container(&mut self, field: &str, shape: Shape) -> Parsed<Value> {
        let found = self.cursor.peek().map_err(|fault| bad(field, &fault))?;
        if found != shape {
            return Err(wrong(
                field,
                format!("must be {}, not {}", shape.as_str(), found.as_str()),
            ));
        }
        self.value(field)
    }

    /// Passes a null, which is as good as leaving the field out.
    fn left_out(&mut self, field: &str) -> Parsed<bool> {
        self.cursor.null().map_err(|fault| bad(field, &fault))
    }

    /// The name of a function, as in a call.
    fn function(&mut self, field: &str) -> Parsed<SmolStr> {
        let text = self.cursor.string().map_err(|fault| bad(field, &fault))?;
        if is_name(&text) { Ok(SmolStr::new(text)) } else { Err(no_name(field, &text)) }
    }

    fn locs(&mut self) -> Parsed<Vec<SmolStr>> {
        let most = self.limits.locs;
        let (mut locs, mut array) = (Vec::new(), self.array("locs")?);
        while self.cursor.item(&mut array).map_err(|fault| bad("locs", &fault))? {
            let loc = self.cursor.string().map_err(|fault| bad("locs", &fault))?;
            if locs.len() == most || !fits(&loc) {
                let what = format!("{most} strings of 1 to {NAME_BYTES} bytes at most");
                return Err(wrong("locs", format!("`locs` takes {what}")));
            }
            locs.push(SmolStr::new(loc));
        }
        Ok(locs)
    }

    /// The name of a step, which may be any text.
    fn step_name(&mut self, field: &str) -> Parsed<SmolStr> {
        let text = self.cursor.string().map_err(|fault| bad(field, &fault))?;
        if !fits(&text) || text.contains(|c: char| c.is_control()) {
            let message = format!("{field} must have 1 to {NAME_BYTES} bytes, none a control");
            return Err(Refusal::field(Code::BadName, field, message));
        }
        Ok(SmolStr::new(text))
    }

    fn ulid(&mut self) -> Parsed<SmolStr> {
        let text = self.cursor.string().map_err(|fault| bad("id", &fault))?;
        match RunId::parse(&text) {
            Some(_) => Ok(SmolStr::new(text)),
            None => Err(wrong("id", "a step's id is a ULID; use `name` for any other name")),
        }
    }

    fn array(&mut self, field: &str) -> Parsed<ArrayState> {
        self.cursor.array().map_err(|fault| bad(field, &fault))
    }

    fn names(&mut self, field: &str) -> Parsed<Vec<SmolStr>> {
        let (mut names, mut array) = (Vec::new(), self.array(field)?);
        while self.cursor.item(&mut array).map_err(|fault| bad(field, &fault))? {
            names.push(self.step_name(field)?);
        }
        Ok(names)
    }

    fn cluster(&mut self) -> Parsed<SmolStr> {
        let text = self.cursor.string().map_err(|fault| bad("cluster", &fault))?;
        if !fits(&text) {
            let message = format!("`cluster` takes a string of 1 to {NAME_BYTES} bytes");
            return Err(wrong("cluster", message));
        }
        Ok(SmolStr::new(text))
    }

    fn range(&mut self) -> Parsed<SmolStr> {
        let text = self.cursor.string().map_err(|fault| bad("version", &fault))?;
        match semver::VersionReq::parse(&text) {
            Ok(_) => Ok(SmolStr::new(text)),
            Err(error) => {
                let text = cut(&text, NAME_BYTES);
                let message = format!("{text} is not a version range: {error}");
                Err(Refusal::field(Code::BadVersion, "version", message))
            }
        }
    }

    fn number(&mut self, field: &str) -> Parsed<u64> {
        self.cursor.u64().map_err(|fault| bad(field, &fault))
    }

    fn timeout(&mut self) -> Parsed<u64> {
        let most = self.limits.timeout_ms;
        match self.number("timeout_ms")? {
            ms if ms == 0 || ms > most => {
                Err(wrong("timeout_ms", format!("`timeout_ms` takes 1 to {most}")))
            }
            ms => Ok(ms),
        }
    }

    fn flag(&mut self, field: &str) -> Parsed<bool> {
        self.cursor.bool().map_err(|fault| bad(field, &fault))
    }

    fn retry(&mut self) -> Parsed<Retry> {
        let mut retry = Retry { times: 0, backoff_ms: 100 };
        let mut map = self.cursor.map().map_err(|fault| bad("retry", &fault))?;
        while let Some(key) = self.cursor.key(&mut map).map_err(|fault| bad("retry", &fault))? {
            match &*key {
                _ if self.left_out("retry")? => {}
                "times" => {
                    let times = self.number("retry")?;
                    retry.times = u32::try_from(times)
                        .ok()
                        .filter(|&times| times <= RETRY_TIMES)
                        .ok_or_else(|| {
                        wrong("retry", format!("at most {RETRY_TIMES} times"))
                    })?;
                }
                "backoff_ms" => retry.backoff_ms = self.number("retry")?,
                _ => self.pass("retry")?,
            }
        }
        Ok(retry)
    }

    fn fallback(&mut self) -> Parsed<Fallback> {
        let (mut value, mut fun, mut args, mut kwargs) = (None, None, None, None);
        let mut map = self.cursor.map().map_err(|fault| bad("fallback", &fault))?;
        while let Some(key) = self.cursor.key(&mut map).map_err(|fault| bad("fallback", &fault))? {
            match &*key {
                // A value may be null.
                "value" => value = Some(self.value("fallback")?),
                _ if self.left_out("fallback")? => {}
                "fun" => fun = Some(self.function("fallback")?),
                "args" => args = Some(self.container("fallback", Shape::Array)?.into()),
                "kwargs" => kwargs = Some(self.container("fallback", Shape::Map)?.into()),
                _ => self.pass("fallback")?,
            }
        }
        match (value, fun) {
            (Some(value), None) => Ok(Fallback::Value(Template::from(value))),
            (None, Some(fun)) => Ok(Fallback::Call { fun, args, kwargs }),
            _ => Err(wrong("fallback", "takes either `value` or `fun`")),
        }
    }
}

impl Extras {
    fn is_plain(&self) -> bool {
        self.options == crate::ops::CallOptions::default()
            && self.after.is_empty()
            && self.retry.is_none()
            && self.fallback.is_none()
    }
}

fn empty_step(part: u32) -> Step {
    Step {
        name: SmolStr::default(),
        fun: SmolStr::default(),
        args: None,
        kwargs: None,
        extras: None,
        part,
        unfinished: 0,
        uses: 0,
        arrows: 0,
        attempt: 0,
        state: State::Pending,
        returned: false,
        falling_back: false,
        call: None,
        timer: None,
        result: None,
        failure: None,
    }
}
