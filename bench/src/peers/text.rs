//! JSON envelopes as a stock binding would write and read them, for the WebSocket relay and for
//! the broker's plain peers alike: both contenders do the same work on the same text.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dealer::Answer;

/// A call of `echo` with one string of `size` bytes; the id numbers the slot.
pub(crate) fn call(slot: usize, size: usize) -> String {
    let payload = "x".repeat(size);
    format!(r#"{{"op":"call","id":"{slot}","fun":"echo","args":["{payload}"]}}"#)
}

/// What a client hears.
#[derive(Deserialize)]
struct Heard<'a> {
    op: &'a str,
    #[serde(default)]
    id: &'a str,
}

/// Reads the answer to a call.
pub(crate) fn read_answer(text: &[u8]) -> Option<Answer> {
    let heard: Heard<'_> = serde_json::from_slice(text).ok()?;
    Some(Answer { slot: heard.id.parse().ok()?, well: heard.op == "result" })
}

/// A run, as a worker hears it. Graphs of a bench call functions with other arguments too.
#[derive(Deserialize)]
pub(crate) struct Run<'a> {
    op: &'a str,
    #[serde(default)]
    id: &'a str,
    #[serde(default)]
    fun: &'a str,
    #[serde(borrow, default)]
    args: Vec<&'a RawValue>,
}

impl Run<'_> {
    /// Appends the answer, where it is a run: `echo` gives its first argument back, `add` the sum
    /// of its two, `noop` nothing.
    pub(crate) fn answer(&self, into: &mut String) -> bool {
        if self.op != "run" {
            return false;
        }
        into.push_str(r#"{"op":"result","id":""#);
        into.push_str(self.id);
        into.push_str(r#"","result":"#);
        let number = |index: usize| -> u64 {
            self.args.get(index).and_then(|arg| arg.get().parse().ok()).unwrap_or(0)
        };
        match self.fun {
            "echo" => into.push_str(self.args.first().map_or("null", |arg| arg.get())),
            "add" => into.push_str(&(number(0) + number(1)).to_string()),
            _ => into.push_str("null"),
        }
        into.push('}');
        true
    }
}

/// The answer to one run; nothing for another envelope.
pub(crate) fn result_of(text: &str) -> Option<String> {
    let run: Run<'_> = serde_json::from_str(text).ok()?;
    let mut result = String::with_capacity(text.len());
    run.answer(&mut result).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_carries_its_slot_there_and_back() {
        let text = call(7, 8);
        assert_eq!(text, r#"{"op":"call","id":"7","fun":"echo","args":["xxxxxxxx"]}"#);
        let answer = read_answer(br#"{"op":"result","id":"7","result":"xxxxxxxx"}"#).unwrap();
        assert!(answer.slot == 7 && answer.well);
        let answer = read_answer(br#"{"op":"error","id":"7","error":{"code":"busy"}}"#).unwrap();
        assert!(answer.slot == 7 && !answer.well);
        assert!(read_answer(br#"{"op":"pong"}"#).is_none());
    }

    #[test]
    fn each_function_answers() {
        let result = |fun: &str, args: &str| {
            let run = format!(r#"{{"op":"run","id":"R","fun":"{fun}","args":{args}}}"#);
            result_of(&run).unwrap()
        };
        assert_eq!(result("echo", r#"["a\n"]"#), r#"{"op":"result","id":"R","result":"a\n"}"#);
        assert_eq!(result("add", "[2,3]"), r#"{"op":"result","id":"R","result":5}"#);
        assert_eq!(result("noop", "[]"), r#"{"op":"result","id":"R","result":null}"#);
        assert!(result_of(r#"{"op":"offered","id":"o"}"#).is_none());
    }
}
