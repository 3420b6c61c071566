//! Four connections that hold many patterns, none of which a topic of the bench matches.

use std::fmt::Write;

use mpreg_patterns::base::Rng;
use zmq::{Context, Socket};

use crate::Outcome;
use crate::dealer::connect;
use crate::peers::json::await_op;
use crate::process::say;
use crate::role::Ready;

const CONNECTIONS: u64 = 4;
/// Patterns in one `subscribe`.
const AT_ONCE: u64 = 5_000;
/// First words of patterns, that of the topics of the bench among them.
const ROOTS: usize = 300;
/// Last words, that of the topics not among them.
const VERBS: [&str; 6] = ["shipped", "paid", "cancelled", "changed", "returned", "late"];

/// Subscribes to `patterns` in all, and holds them until the bench ends.
pub(crate) fn hold(at: &str, patterns: u64) -> Outcome<()> {
    let context = Context::new();
    let sockets: Vec<Socket> =
        (0..CONNECTIONS).map(|_| connect(&context, at)).collect::<Outcome<_>>()?;
    let each = patterns / CONNECTIONS;
    for (socket, of) in sockets.iter().zip(0..) {
        for from in (0..each).step_by(AT_ONCE as usize) {
            let numbers = of * each + from..of * each + each.min(from + AT_ONCE);
            socket.send(&subscribe(numbers), 0)?;
            await_op(socket, "subscribed")?;
        }
    }
    say(&Ready {})?;
    loop {
        std::thread::park();
    }
}

fn subscribe(numbers: impl Iterator<Item = u64>) -> String {
    let mut text = String::from(r#"{"op":"subscribe","patterns":["#);
    for (at, number) in numbers.enumerate() {
        text.push_str(if at == 0 { "\"" } else { ",\"" });
        pattern(number, &mut text);
        text.push('"');
    }
    text.push_str("]}");
    text
}

/// Pattern `number`, all of them distinct: names of four in five, else with a `*` or a `#`.
fn pattern(number: u64, text: &mut String) {
    let mut rng = Rng::new(number.wrapping_mul(0xD134_2543_DE82_EF95));
    let (root, verb) = (rng.below(ROOTS), VERBS[rng.below(VERBS.len())]);
    // The topics have numbers below a thousand.
    let id = number + 1_000;
    let written = match (rng.below(100), root) {
        (0..80, 0) => write!(text, "orders.{id}.{verb}"),
        (0..80, _) => write!(text, "service{root}.{id}.{verb}"),
        (80..88, 0) => write!(text, "orders.*.{verb}.{id}"),
        (80..88, _) => write!(text, "service{root}.*.{verb}.{id}"),
        (88..96, _) => write!(text, "*.{id}.{verb}"),
        (96..98, 0) => write!(text, "orders.{id}.#"),
        (96..98, _) => write!(text, "service{root}.{id}.#"),
        _ => write!(text, "#.{verb}.{id}"),
    };
    written.expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mpreg_patterns::names::Pattern;
    use mpreg_patterns::names::PatternIndex;

    use super::super::topics;
    use super::*;

    #[test]
    fn patterns_differ_and_match_no_topic() {
        let (mut index, mut texts) = (PatternIndex::new(1), HashSet::new());
        for number in 0..20_000 {
            let mut text = String::new();
            pattern(number, &mut text);
            index.insert(&Pattern::parse(&text).unwrap());
            texts.insert(text);
        }
        assert_eq!(texts.len(), 20_000);
        let mut found = Vec::new();
        for topic in topics() {
            index.matches(&topic, &mut found);
        }
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_subscribe_names_its_patterns() {
        let json: serde_json::Value = serde_json::from_str(&subscribe(0..3)).unwrap();
        assert_eq!(json["patterns"].as_array().unwrap().len(), 3);
    }
}
