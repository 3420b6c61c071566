//! Topics and patterns of the simulation, and what a pattern means: once more, in a few lines.

use mpreg_patterns::base::Rng;
use mpreg_patterns::names::Pattern;
use mpreg_patterns::topics::Retain;

/// What is published to, by peers and by PUB sockets.
pub(crate) const TOPICS: [&str; 13] =
    ["a", "b", "a.b", "a.c", "b.c", "a.b.c", "k", "k.a", "k.b", "k.a.b", "k.b.c", "t.a", "t.b"];
/// What graphs publish to, of which nobody but the broker knows when.
pub(crate) const OWN_TOPIC: &str = "g.done";
/// What may be heard live: one pattern in several spellings, and some that are none.
const LIVE: [&str; 22] = [
    "a", "a.b", "a.*", "*.b", "#.c", "a.#", "a.", "a.#.c", "*", "#", "", "*.*", "a.#.*", "a.*.#",
    "*.#.c", "k.#", "k.a", "t.*", "b.#", "mpreg.#", "a..b", "a*",
];
/// What may be replayed, but for the last two: these are not kept.
const KEPT: [&str; 14] = [
    "k.#", "k.", "k.a", "k.*", "k.*.b", "k.#.b", "t.*", "t.a", "b.#", "b.c", "b", "k.*.#", "a.#",
    "#",
];
/// Topics like those that the broker publishes to by itself.
const OWN: [&str; 6] = [
    OWN_TOPIC,
    "mpreg.rpc.command.x.started",
    "mpreg.rpc.graph.x.started",
    "mpreg.worker.x.joined",
    "mpreg.topic.dropped.x",
    "mpreg.refused.publish",
];

/// Whether a pattern matches a topic.
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    fn rest(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.first(), topic.first()) {
            (None, None) => true,
            (Some(&"#"), _) => {
                rest(&pattern[1..], topic) || !topic.is_empty() && rest(pattern, &topic[1..])
            }
            (Some(&word), Some(&of)) => {
                (word == "*" || word == of) && rest(&pattern[1..], &topic[1..])
            }
            _ => false,
        }
    }
    let whole = match pattern {
        "" => "#".to_owned(),
        prefix if prefix.ends_with('.') => format!("{prefix}#"),
        whole => whole.to_owned(),
    };
    let words: Vec<&str> = whole.split('.').collect();
    rest(&words, &topic.split('.').collect::<Vec<_>>())
}

/// Whether the broker's own events might match, of which the account does not know all.
pub(crate) fn is_wide(pattern: &str) -> bool {
    OWN.iter().any(|topic| matches(pattern, topic))
}

/// Whether it is a pattern at all.
pub(crate) fn is_pattern(text: &str) -> bool {
    text != "a..b" && text != "a*"
}

/// What all spellings of a pattern have in common.
pub(crate) fn normal(text: &str) -> String {
    Pattern::parse(text).expect("a pattern").as_str().to_owned()
}

pub(crate) fn some_topic(rng: &mut Rng) -> &'static str {
    TOPICS[rng.below(TOPICS.len())]
}

pub(crate) fn some_pattern(rng: &mut Rng) -> &'static str {
    // All but the last two are patterns, and one in many of those that are not will do.
    let most = if rng.below(12) == 0 { LIVE.len() } else { LIVE.len() - 2 };
    LIVE[rng.below(most)]
}

/// A pattern that the account knows all events of.
pub(crate) fn some_narrow_pattern(rng: &mut Rng) -> &'static str {
    loop {
        let pattern = some_pattern(rng);
        if is_pattern(pattern) && !is_wide(pattern) {
            return pattern;
        }
    }
}

pub(crate) fn some_kept_pattern(rng: &mut Rng) -> &'static str {
    let most = if rng.below(12) == 0 { KEPT.len() } else { KEPT.len() - 2 };
    KEPT[rng.below(most)]
}

/// Rules of what is kept: little in number, in time, in bytes. All is too old in the end.
pub(crate) fn rules(rng: &mut Rng) -> Vec<Retain> {
    let rule = |pattern, max_age_ms, max_count, max_bytes| Retain {
        pattern: Pattern::parse(pattern).expect("a pattern"),
        max_age_ms,
        max_count,
        max_bytes,
        stored: false,
    };
    let few = [3, 20, 300][rng.below(3)];
    vec![
        rule("k.#", 5_000, few, usize::MAX),
        rule("t.*", [300, 2_000][rng.below(2)], 10_000, usize::MAX),
        rule("b.#", 5_000, 10_000, 2_500),
    ]
}

#[test]
fn patterns_mean_what_they_should() {
    let holds = [("a.#", "a"), ("", "x.y"), ("*.b", "a.b"), ("#.c", "c"), ("a.", "a.b.c")];
    let fails = [("a.*", "a"), ("*", "a.b"), ("a.#.c", "a.b"), ("a", "b"), ("#.c", "c.d")];
    assert!(holds.iter().all(|(pattern, topic)| matches(pattern, topic)));
    assert!(!fails.iter().any(|(pattern, topic)| matches(pattern, topic)));
}
