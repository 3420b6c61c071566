//! Any value as compact JSON text: what is stored of a payload and of headers.

use bytes::Bytes;

use super::fault::Fault;
use super::{Frames, Kind, Value, json, msgpack_to_json};

/// The value as JSON text without white space between its parts, checked. Numbers, keys and strings
/// stay as they are written; text that is compact already is not copied.
///
/// Bytes, which JSON does not have, are [`Fault::Unencodable`].
pub fn compact(value: Value) -> Result<Value, Fault> {
    match value.kind {
        Kind::Bytes => Err(Fault::unencodable("bytes, which JSON does not have")),
        Kind::MsgPack => {
            let mut text = Vec::with_capacity(value.bytes.len());
            let mut frames = Frames::new();
            msgpack_to_json(&value.bytes, &mut text, &mut frames).map_err(Fault::in_value)?;
            match frames.is_empty() {
                true => Ok(Value::checked(Kind::Json, text.into())),
                false => Err(Fault::unencodable("bytes in it, which JSON does not have")),
            }
        }
        Kind::Json => {
            value.check()?;
            let bytes = match next_space(&value.bytes, 0) {
                None => value.bytes,
                Some(first) => without_space(&value.bytes, first),
            };
            Ok(Value::checked(Kind::Json, bytes))
        }
    }
}

/// The first white space from `at`, a place outside of strings, that stands in none. `text` is
/// checked JSON.
fn next_space(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => at = json::string(text, at).unwrap_or(text.len()),
            b' ' | b'\t' | b'\n' | b'\r' => return Some(at),
            _ => at += 1,
        }
    }
}

/// Checked JSON without its white space, the first of which is at `space`.
fn without_space(text: &[u8], mut space: usize) -> Bytes {
    let mut compact = Vec::with_capacity(text.len());
    let mut from = 0;
    loop {
        compact.extend_from_slice(&text[from..space]);
        from = json::space(text, space);
        let Some(next) = next_space(text, from) else { break };
        space = next;
    }
    compact.extend_from_slice(&text[from..]);
    compact.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Code;

    #[track_caller]
    fn is(text: &str, expected: &str) {
        let value = compact(Value::json(text.to_owned())).unwrap();
        assert_eq!(std::str::from_utf8(&value.bytes), Ok(expected));
    }

    #[test]
    fn space_between_parts_goes_and_space_in_strings_stays() {
        is(
            " {\n\t\"a b\" : [ 1 , 2.50e+1 ,\r\n\" \\\" \" ] , \"a b\":null } ",
            "{\"a b\":[1,2.50e+1,\" \\\" \"],\"a b\":null}",
        );
        is("\n1 ", "1");
        is("[ ]", "[]");
        is("\"\\\\\" ", "\"\\\\\"");
    }

    #[test]
    fn compact_text_is_not_copied() {
        let value = Value::json(&b"{\"a\":\" \",\"b\":[1,true]}"[..]);
        let compacted = compact(value.clone()).unwrap();
        assert_eq!(compacted, value);
        assert_eq!(compacted.bytes.as_ptr(), value.bytes.as_ptr());
    }

    #[test]
    fn msgpack_becomes_json() {
        let value = compact(Value::msgpack(&b"\x81\xA1a\x92\x01\xCB\x3F\xF0\0\0\0\0\0\0"[..]));
        assert_eq!(value, Ok(Value::json(&b"{\"a\":[1,1.0]}"[..])));
    }

    #[test]
    fn what_cannot_be_json_is_told() {
        let code = |value| compact(value).unwrap_err().code();
        assert_eq!(code(Value::json(&b"{\"a\": }"[..])), Code::BadValue);
        assert_eq!(code(Value::json(&b"1 2"[..])), Code::BadValue);
        assert_eq!(code(Value::json(&b""[..])), Code::BadValue);
        assert_eq!(code(Value::json("[".repeat(200) + &"]".repeat(200))), Code::TooDeep);
        assert_eq!(code(Value::msgpack(&b"\x81"[..])), Code::BadValue);
        assert_eq!(code(Value::msgpack(&b"\x81\xA1a\xC4\x01x"[..])), Code::UnencodableValue);
        let bytes = Value::new(Kind::Bytes, Bytes::from_static(b"x"));
        assert_eq!(code(bytes), Code::UnencodableValue);
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_serde_json_writes(text in "[ \\t\\n\\r\\[\\]{},:\"\\\\a1]{0,24}") {
            let own = compact(Value::json(text.clone())).map(|value| value.bytes);
            let raw = serde_json::from_str::<serde_json::Value>(&text);
            proptest::prop_assert_eq!(own.is_ok(), raw.is_ok());
            if let (Ok(own), Ok(raw)) = (own, raw) {
                // Repeated keys stay, which a tree does not keep.
                let again: serde_json::Value = serde_json::from_slice(&own).unwrap();
                proptest::prop_assert_eq!(&again, &raw);
                proptest::prop_assert!(own.len() >= raw.to_string().len());
            }
        }
    }
}
