//! `where`: a condition in CEL on an event's payload, headers and topic.
//!
//! Somebody else's program in the broker's only thread: so its text and what it looks at are
//! small, and it has no loops. What is too large to look at, or is no JSON, is null to it.

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, IdedExpr, Program, Value as Cel};

use crate::base::{Code, Refusal, RunId};
use crate::ops::Event;
use crate::values::Value;

/// Longest condition, bytes.
const TEXT_BYTES: usize = 512;
/// Largest payload, or headers, that a condition sees, bytes.
const SEEN_BYTES: usize = 16 << 10;
/// Bytes that are looked at for the price of a delivery: of what is seen, by each of its text.
const LOOKS_PER_DELIVERY: usize = 16 << 10;
/// What reading an event for the first time costs, as bytes of a condition.
const READING: usize = 64;

/// A condition, ready to be asked.
pub(super) struct Condition {
    program: Program,
    /// Bytes of its text.
    length: usize,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Condition")
    }
}

/// The last event as conditions see it: read when the first of them asks, for all.
#[derive(Default)]
pub(super) struct LastSeen {
    message: RunId,
    values: Option<(Cel, Cel)>,
}

impl std::fmt::Debug for LastSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastSeen").field("message", &self.message).finish_non_exhaustive()
    }
}

impl LastSeen {
    /// Payload and headers.
    fn of(&mut self, event: &Event) -> (&Cel, &Cel) {
        if self.message != event.message {
            (self.message, self.values) = (event.message, None);
        }
        let (payload, headers) = self
            .values
            .get_or_insert_with(|| (look(Some(&event.payload)), look(event.headers.as_ref())));
        (payload, headers)
    }
}

impl Condition {
    /// Reads a condition: `bad_expression` if it is none, is too long, or has a loop.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let refuse = |message: String| Refusal::field(Code::BadExpression, "where", message);
        if text.len() > TEXT_BYTES {
            return Err(refuse(format!("a condition has {TEXT_BYTES} bytes at most")));
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
        Ok(Self { program, length: text.len() })
    }

    /// What asking it about an event may cost, in deliveries: every word of it may go over all of
    /// the payload and the headers.
    pub(super) fn cost(&self, event: &Event) -> usize {
        let seen = |value: &Value| Some(value.bytes.len()).filter(|&bytes| bytes <= SEEN_BYTES);
        let headers = event.headers.as_ref().and_then(seen);
        let seen = seen(&event.payload).unwrap_or(0) + headers.unwrap_or(0);
        (READING + self.length) * seen / LOOKS_PER_DELIVERY
    }

    /// Whether it holds: anything but `true`, an error included, is no.
    pub(super) fn holds(&self, event: &Event, last: &mut LastSeen) -> bool {
        let (payload, headers) = last.of(event);
        let mut context = Context::default();
        context.add_variable_from_value("payload", payload.clone());
        context.add_variable_from_value("headers", headers.clone());
        context.add_variable_from_value("topic", event.topic.as_str());
        matches!(self.program.execute(&context), Ok(Cel::Bool(true)))
    }
}

fn look(value: Option<&Value>) -> Cel {
    let text = value.filter(|value| value.bytes.len() <= SEEN_BYTES);
    let tree = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text.bytes).ok());
    tree.and_then(|tree| cel::to_value(tree).ok()).unwrap_or(Cel::Null)
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
    #[case::the_whole(r#"payload == "x""#, r#""x""#, true)]
    fn holds(#[case] text: &str, #[case] payload: &'static str, #[case] expected: bool) {
        let condition = Condition::read(text).unwrap();
        assert_eq!(condition.holds(&event(payload), &mut LastSeen::default()), expected);
    }

    #[rstest]
    #[case::no_expression("payload.", "where")]
    #[case::a_loop("payload.a.exists(x, x > 1)", "exists")]
    #[case::a_hidden_loop("{'a': [payload.map(x, x)]} == null", "exists")]
    #[case::long(&"1 + ".repeat(200), "512")]
    fn refuses(#[case] text: &str, #[case] says: &str) {
        let refusal = Condition::read(text).unwrap_err();
        assert!(refusal.is(Code::BadExpression), "{refusal}");
        let whole = format!("{:?} {}", refusal.field, refusal.message);
        assert!(whole.contains(says), "{whole}");
    }

    #[test]
    fn a_large_payload_is_not_looked_at() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(SEEN_BYTES));
        let event = Event { payload: Value::json(large.into_bytes()), ..event("1") };
        let condition = Condition::read("payload == null").unwrap();
        assert!(condition.holds(&event, &mut LastSeen::default()));
    }
}
