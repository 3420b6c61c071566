//! What expressions come to, and how JSON looks to them.

use cel::Value as Cel;
use cel::objects::Key;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::values::{Kind, Value};

/// Deeper than this nothing is built, so that everybody can read it.
const DEPTH: usize = 100;

/// What an expression came to.
#[derive(Debug)]
pub struct Answer(pub(super) Cel);

impl Answer {
    /// It, if it is `true` or `false`.
    #[must_use]
    pub const fn bool(&self) -> Option<bool> {
        match self.0 {
            Cel::Bool(bool) => Some(bool),
            _ => None,
        }
    }

    /// It, if it is a whole number from 0 on.
    #[must_use]
    pub fn whole(&self) -> Option<u64> {
        match self.0 {
            Cel::Int(int) => int.try_into().ok(),
            Cel::UInt(int) => Some(int),
            _ => None,
        }
    }

    /// It, if it is a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            Cel::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self.0, Cel::Null)
    }

    /// Whether it is a map.
    #[must_use]
    pub const fn is_map(&self) -> bool {
        matches!(self.0, Cel::Map(_))
    }

    /// It as a payload: bytes as such, all else as JSON.
    pub fn payload(&self) -> Result<Value, String> {
        match &self.0 {
            Cel::Bytes(bytes) => Ok(Value::new(Kind::Bytes, bytes.to_vec().into())),
            _ => self.json().map(Value::json),
        }
    }

    /// It as JSON text, keys in order.
    pub fn json(&self) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        write(&self.0, DEPTH, &mut text)?;
        Ok(text)
    }
}

fn write(value: &Cel, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("it is too deep")?;
    match value {
        Cel::Null => out.extend_from_slice(b"null"),
        Cel::Bool(bool) => put(bool, out),
        Cel::Int(int) => put(int, out),
        Cel::UInt(int) => put(int, out),
        Cel::Float(float) if float.is_finite() => put(float, out),
        Cel::String(text) => put(text.as_str(), out),
        Cel::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write(item, depth, out)?;
            }
            out.push(b']');
        }
        Cel::Map(map) => {
            // The library's own order is another one in each run.
            let mut entries: Vec<_> = map.map.iter().map(|(key, of)| (name(key), of)).collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            out.push(b'{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                separate(at, out);
                put(&key, out);
                out.push(b':');
                write(value, depth, out)?;
            }
            out.push(b'}');
        }
        other => return Err(format!("JSON has no {}", other.type_of())),
    }
    Ok(())
}

fn name(key: &Key) -> String {
    key.to_string()
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

fn put<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a plain value in memory");
}

/// JSON as expressions see it: whole numbers have a sign, so that one can reckon with them.
pub(super) struct Tree<'a>(pub(super) &'a Json);

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Number(number) => match number.as_i64() {
                Some(int) => to.serialize_i64(int),
                None => number.serialize(to),
            },
            Json::Array(items) => to.collect_seq(items.iter().map(Tree)),
            Json::Object(map) => to.collect_map(map.iter().map(|(key, of)| (key, Tree(of)))),
            other => other.serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use crate::base::RunId;
    use crate::expr::{Expression, Seen};
    use crate::ops::Event;
    use crate::values::Value;

    #[rstest]
    #[case::the_same(
        "payload",
        Ok(r#"{"a":[1,2.5,"x",null,true],"b":{"n":18446744073709551615}}"#)
    )]
    #[case::a_map("{'z': payload.a[0] + 1, 'a': topic}", Ok(r#"{"a":"t","z":2}"#))]
    #[case::numbers_as_keys("{1: 'x'}", Ok(r#"{"1":"x"}"#))]
    #[case::no_number("0.0 / 0.0", Err("JSON has no"))]
    #[case::bytes_within("[b'x']", Err("JSON has no bytes"))]
    #[case::missing("payload.c", Err("No such key: c"))]
    #[case::unknown("nothing", Err("nothing"))]
    fn becomes_json(#[case] text: &str, #[case] expected: Result<&str, &str>) {
        let payload =
            Value::json(&br#"{"b":{"n":18446744073709551615},"a":[1,2.5,"x",null,true]}"#[..]);
        let event = Event { topic: "t".into(), payload, headers: None, message: RunId(1) };
        let expression = Expression::read("set", text).unwrap();
        let answer = expression.ask_knowing(&event, &mut Seen::default());
        let told = answer.and_then(|answer| answer.json());
        match (told, expected) {
            (Ok(told), Ok(expected)) => assert_eq!(String::from_utf8_lossy(&told), expected),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
            (told, _) => panic!("{told:?}"),
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_null() {
        let event = |payload: &'static [u8]| Event {
            topic: "t".into(),
            payload: Value::json(payload),
            headers: None,
            message: RunId(1),
        };
        let whole = Expression::read("set", "payload").unwrap();
        whole.ask_knowing(&event(b"{"), &mut Seen::default()).unwrap_err();
        whole.ask_knowing(&event(b"1"), &mut Seen::default()).unwrap();
        let other = Expression::read("set", "topic").unwrap();
        other.ask_knowing(&event(b"{"), &mut Seen::default()).unwrap();
    }
}
