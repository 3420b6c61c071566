//! Expressions in CEL on an event's payload, headers and topic: conditions of those who wait for
//! events, conditions and changes of routes.
//!
//! Somebody else's program in the broker's only thread: so its text and what it looks at are
//! small, and it has no loops. What is too large to look at, or is no JSON, is null to it.

mod answer;

use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, Env, IdedExpr, Program, Value as Cel};

use crate::base::limits::EXPRESSION_BYTES;
use crate::base::{Code, Refusal, RunId};
use crate::ops::Event;
use crate::values::Value;
pub use answer::Answer;

/// Largest payload, or headers, that an expression sees, bytes.
const SEEN_BYTES: usize = 16 << 10;
/// Bytes that are looked at for the price of a delivery: of what is seen, by each of its text.
const LOOKS_PER_DELIVERY: usize = 16 << 10;
/// What reading an event for the first time costs, as bytes of an expression.
const READING: usize = 64;
/// What asking at all costs, in deliveries.
const ASKING: usize = 8;

/// An expression, ready to be asked.
pub struct Expression {
    program: Program,
    /// Bytes of its text.
    length: usize,
    of_payload: bool,
    of_headers: bool,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expression")
    }
}

/// The last event as expressions see it: read when the first of them asks, for all.
#[derive(Default)]
pub struct Seen {
    message: RunId,
    /// Payload and headers; none where there is nothing to be seen.
    values: Option<(Option<Cel>, Option<Cel>)>,
    /// What all of them can call.
    functions: Option<Arc<Env>>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("message", &self.message).finish_non_exhaustive()
    }
}

impl Seen {
    /// Payload and headers.
    fn of(&mut self, event: &Event) -> &(Option<Cel>, Option<Cel>) {
        if self.message != event.message {
            (self.message, self.values) = (event.message, None);
        }
        self.values.get_or_insert_with(|| {
            let headers = event.headers.as_ref();
            (look(&event.payload), headers.map_or(Some(Cel::Null), look))
        })
    }

    fn context(&mut self, event: &Event) -> Context<'static, 'static> {
        let functions = self.functions.get_or_insert_with(|| Arc::new(Env::stdlib()));
        let mut context = Context::with_env(functions.clone());
        let (payload, headers) = self.of(event);
        let known = |value: &Option<Cel>| value.clone().unwrap_or(Cel::Null);
        context.add_variable_from_value("payload", known(payload));
        context.add_variable_from_value("headers", known(headers));
        context.add_variable_from_value("topic", event.topic.as_str());
        context
    }
}

impl Expression {
    /// Reads an expression that stands in `field`: `bad_expression` if it is none, is too long, or
    /// has a loop.
    pub fn read(field: &str, text: &str) -> Result<Self, Refusal> {
        let refuse = |message: String| Refusal::field(Code::BadExpression, field, message);
        if text.len() > EXPRESSION_BYTES {
            return Err(refuse(format!("an expression has {EXPRESSION_BYTES} bytes at most")));
        }
        let program = Program::compile(text).map_err(|errors| {
            // The library draws a picture of it below its first line.
            let whole = errors.to_string();
            let first = whole.lines().next().unwrap_or_default();
            refuse(first.trim_start_matches("ERROR: <input>:").to_owned())
        })?;
        if loops(program.expression()) {
            let message = "all, exists, exists_one, map and filter are not taken here";
            return Err(refuse(message.to_owned()));
        }
        let names = program.references();
        let (of_payload, of_headers) =
            (names.has_variable("payload"), names.has_variable("headers"));
        Ok(Self { program, length: text.len(), of_payload, of_headers })
    }

    /// What asking it about an event may cost, in deliveries: every word of it may go over all of
    /// the payload and the headers.
    #[must_use]
    pub fn cost(&self, event: &Event) -> usize {
        let seen = |value: &Value| Some(value.bytes.len()).filter(|&bytes| bytes <= SEEN_BYTES);
        let headers = event.headers.as_ref().and_then(seen);
        let seen = seen(&event.payload).unwrap_or(0) + headers.unwrap_or(0);
        ASKING + (READING + self.length) * seen / LOOKS_PER_DELIVERY
    }

    /// Whether it holds: anything but `true`, an error included, is no.
    pub fn holds(&self, event: &Event, seen: &mut Seen) -> bool {
        matches!(self.program.execute(&seen.context(event)), Ok(Cel::Bool(true)))
    }

    /// What it comes to, or why to nothing.
    pub fn ask(&self, event: &Event, seen: &mut Seen) -> Result<Answer, String> {
        let answer = self.program.execute(&seen.context(event));
        answer.map(Answer).map_err(|error| error.to_string())
    }

    /// The same where nothing may be taken for null that could not be looked at.
    pub fn ask_knowing(&self, event: &Event, seen: &mut Seen) -> Result<Answer, String> {
        let (payload, headers) = seen.of(event);
        for (what, wanted, known) in
            [("payload", self.of_payload, payload), ("headers", self.of_headers, headers)]
        {
            if wanted && known.is_none() {
                return Err(format!("the {what} has more than {SEEN_BYTES} bytes, or is no JSON"));
            }
        }
        self.ask(event, seen)
    }
}

/// A value as expressions see it, if they do.
fn look(value: &Value) -> Option<Cel> {
    let text = Some(value).filter(|value| value.bytes.len() <= SEEN_BYTES)?;
    let tree = serde_json::from_slice::<serde_json::Value>(&text.bytes).ok()?;
    cel::to_value(answer::Tree(&tree)).ok()
}

/// Whether an expression goes over a list or a map.
fn loops(of: &IdedExpr) -> bool {
    match &of.expr {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => call.target.iter().any(|of| loops(of)) || call.args.iter().any(loops),
        Expr::List(list) => list.elements.iter().any(loops),
        Expr::Select(select) => loops(&select.operand),
        Expr::Map(map) => map.entries.iter().any(|entry| entry_loops(&entry.expr)),
        Expr::Struct(of) => of.entries.iter().any(|entry| entry_loops(&entry.expr)),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => false,
    }
}

fn entry_loops(entry: &EntryExpr) -> bool {
    match entry {
        EntryExpr::StructField(field) => loops(&field.value),
        EntryExpr::MapEntry(entry) => loops(&entry.key) || loops(&entry.value),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn event(payload: &'static str) -> Event {
        let payload = Value::json(payload.as_bytes());
        let headers = Some(Value::json(&br#"{"kind":"test","n":3}"#[..]));
        Event { topic: "orders.eu.created".into(), payload, headers, message: RunId(0) }
    }

    #[rstest]
    #[case::whole("payload.amount > 100", r#"{"amount":101}"#, true)]
    #[case::whole_below("payload.amount > 100", r#"{"amount":100}"#, false)]
    #[case::negative("payload.amount < 0", r#"{"amount":-1}"#, true)]
    #[case::float("payload.amount > 100", r#"{"amount":100.5}"#, true)]
    #[case::equal("payload.n == 5", r#"{"n":5}"#, true)]
    #[case::text(r#"payload.region == "eu""#, r#"{"region":"eu"}"#, true)]
    #[case::deep(r#"payload.a.b[1] == "x""#, r#"{"a":{"b":[0,"x"]}}"#, true)]
    #[case::both(r#"payload.a && !payload.b"#, r#"{"a":true,"b":false}"#, true)]
    #[case::has("has(payload.a)", r#"{"b":1}"#, false)]
    #[case::missing("payload.a == 1", r#"{"b":1}"#, false)]
    #[case::of_another_type("payload.a > 1", r#"{"a":"x"}"#, false)]
    #[case::not_a_bool("payload.a", r#"{"a":1}"#, false)]
    #[case::headers(r#"headers.kind == "test" && headers.n == 3"#, "1", true)]
    #[case::topic(r#"topic.endsWith(".created")"#, "1", true)]
    #[case::no_json("payload == null", "{", true)]
    #[case::arithmetic("payload.n * 2 - 12 < 0", r#"{"n":5}"#, true)]
    #[case::the_whole(r#"payload == "x""#, r#""x""#, true)]
    fn holds(#[case] text: &str, #[case] payload: &'static str, #[case] expected: bool) {
        let condition = Expression::read("where", text).unwrap();
        assert_eq!(condition.holds(&event(payload), &mut Seen::default()), expected);
    }

    #[rstest]
    #[case::no_expression("payload.", "where")]
    #[case::a_loop("payload.a.exists(x, x > 1)", "exists")]
    #[case::a_hidden_loop("{'a': [payload.map(x, x)]} == null", "exists")]
    #[case::long(&"1 + ".repeat(200), "512")]
    fn refuses(#[case] text: &str, #[case] says: &str) {
        let refusal = Expression::read("where", text).unwrap_err();
        assert!(refusal.is(Code::BadExpression), "{refusal}");
        let whole = format!("{:?} {}", refusal.field, refusal.message);
        assert!(whole.contains(says), "{whole}");
    }

    #[test]
    fn a_large_payload_is_not_looked_at() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(SEEN_BYTES));
        let event = Event { payload: Value::json(large.into_bytes()), ..event("1") };
        let condition = Expression::read("where", "payload == null").unwrap();
        assert!(condition.holds(&event, &mut Seen::default()));
    }
}
