//! Patterns and their index: as transcripts, and against a matcher that is only a definition.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rstest::rstest;

use super::pattern::{ANY, ONE};
use super::{Pattern, PatternId, PatternIndex};
use crate::base::Code;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
}

/// What the words of a pattern mean, told in the plainest way.
fn means(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([], []) => true,
        ([ANY, rest @ ..], _) => {
            means(rest, topic) || topic.split_first().is_some_and(|(_, left)| means(pattern, left))
        }
        ([word, rest @ ..], [first, left @ ..]) => {
            (*word == ONE || word == first) && means(rest, left)
        }
        _ => false,
    }
}

fn model(pattern: &str, topic: &str) -> bool {
    let [pattern, topic] = [pattern, topic].map(|text| text.split('.').collect::<Vec<_>>());
    means(&pattern, &topic)
}

#[rstest]
#[case("", "#")]
#[case("orders.", "orders.#")]
#[case("a.b", "a.b")]
#[case("#.*.a", "*.#.a")]
#[case("#.#", "#")]
#[case("#.*", "#")]
#[case("*.*.", "*.*.#")]
#[case("#.*.#.*", "*.*.#")]
#[case("a.#.*.b.*.#.c.*", "a.*.#.b.*.#.c.*")]
#[case("#.a.#.#", "#.a.#")]
#[case("*.", "#")]
#[case("#.", "#")]
#[case("größe.*", "größe.*")]
fn a_pattern_is_normalised(#[case] given: &str, #[case] normal: &str) {
    assert_eq!(pattern(given).as_str(), normal);
    assert_eq!(pattern(normal).as_str(), normal);
    assert_eq!(pattern(given).is_literal(), !given.contains(['*', '#']) && given == normal);
}

#[rstest]
#[case(".")]
#[case("..")]
#[case(".a")]
#[case("a..b")]
#[case("a..")]
#[case("a*b")]
#[case("a.b*")]
#[case("**")]
#[case("a.##.b")]
#[case("*#")]
#[case("a.\u{7f}")]
#[case("a\0")]
#[case("a.\u{85}")]
fn a_text_is_no_pattern(#[case] text: &str) {
    let refusal = Pattern::parse(text).expect_err(text);
    assert!(refusal.is(Code::BadPattern), "{refusal}");
}

#[test]
fn a_pattern_has_255_bytes_at_most() {
    let words = ["a"; 128].join(".");
    assert_eq!(pattern(&words).as_str().len(), 255);
    assert!(Pattern::parse(&format!("{words}b")).is_err());
    assert!(pattern(&words).matches(&words));
    // What is added counts.
    assert_eq!(pattern(&format!("{}.", "é".repeat(126))).as_str().len(), 254);
    assert!(Pattern::parse(&format!("{words}.")).is_err());
    let stars = ["*"; 128].join(".");
    assert!(pattern(&stars).matches(&words) && pattern(&stars).overlaps(&pattern(&words)));
}

/// Topics that the patterns are held against, and how many of them each matches.
#[rstest]
#[case("#", "a a.b a.b.c")]
#[case("*", "a")]
#[case("*.#", "a a.b a.b.c")]
#[case("a.#", "a a.b a.b.c")]
#[case("a.*", "a.b")]
#[case("#.b", "a.b")]
#[case("#.b.#", "a.b a.b.c")]
#[case("a.#.c", "a.b.c")]
#[case("a.*.c", "a.b.c")]
#[case("*.*.#", "a.b a.b.c")]
#[case("#.#", "a a.b a.b.c")]
#[case("b", "")]
#[case("a.b", "a.b")]
#[case("#.a.#.b.#.c.#", "a.b.c")]
#[case("*.b.*.#", "a.b.c")]
fn a_pattern_matches(#[case] text: &str, #[case] topics: &str) {
    let mut index = PatternIndex::new(1);
    let (id, _) = index.insert(&pattern(text));
    let all = ["a", "a.b", "a.b.c"];
    let single: Vec<_> = all.into_iter().filter(|topic| pattern(text).matches(topic)).collect();
    let indexed: Vec<_> =
        all.into_iter().filter(|topic| matches(&mut index, topic) == [id]).collect();
    assert_eq!(single.join(" "), topics);
    assert_eq!(indexed, single);
}

/// What an index holds without patterns.
const NOTHING: (usize, [usize; 2], [usize; 3]) = (0, [0, 0], [0, 0, 0]);

fn matches(index: &mut PatternIndex, topic: &str) -> Vec<PatternId> {
    let mut found = Vec::new();
    index.matches(topic, &mut found);
    found.sort();
    found
}

#[rstest]
#[case("orders.eu.created", "#; *.*.created; *.eu.#; orders.#; orders.eu.created")]
#[case("orders", "#; orders.#")]
#[case("orders.eu", "#; *.eu.#; orders.#; orders.eu")]
#[case("news.eu.created", "#; *.*.created; *.eu.#")]
#[case("unheard.of", "#")]
// A word of a topic is never a wildcard.
#[case("orders.*", "#; orders.#")]
#[case("#", "#")]
fn a_topic_finds(#[case] topic: &str, #[case] expected: &str) {
    let texts =
        ["orders.eu.created", "orders.eu", "orders.", "*.*.created", "*.eu.#", "", "news.*.x"];
    let mut index = PatternIndex::new(7);
    for text in texts {
        assert!(index.insert(&pattern(text)).1, "{text}");
    }
    let mut found: Vec<_> =
        matches(&mut index, topic).iter().map(|&id| index.text(id).expect("a pattern")).collect();
    found.sort();
    assert_eq!(found.join("; "), expected);
}

#[test]
fn matches_are_appended() {
    let mut index = PatternIndex::new(1);
    let (id, _) = index.insert(&pattern("a.*"));
    let mut found = vec![PatternId(77)];
    index.matches("a.b", &mut found);
    index.matches("b.b", &mut found);
    assert_eq!(found, [PatternId(77), id]);
}

#[test]
fn an_id_is_one_pattern_until_it_is_removed() {
    let mut index = PatternIndex::new(1);
    let (first, new) = index.insert(&pattern("a.#.*"));
    assert_eq!((first, new, index.len()), (PatternId(0), true, 1));
    assert_eq!(index.insert(&pattern("a.*.#")), (first, false));
    assert_eq!(index.find(&pattern("a.*.#")), Some(first));
    // Prefixes of a pattern, and what is longer, are not in it.
    for text in ["a", "a.*", "a.*.#.b", "b", "*", "#", "a.b"] {
        assert_eq!(index.find(&pattern(text)), None, "{text}");
    }
    assert_eq!(index.insert(&pattern("a")), (PatternId(1), true));
    assert!(index.remove(first) && !index.remove(first));
    assert_eq!((index.text(first), index.find(&pattern("a.*.#"))), (None, None));
    assert_eq!(index.text(PatternId(1)).as_deref(), Some("a"));
    assert_eq!(index.insert(&pattern("b.*")), (first, true));
    assert!(!index.remove(PatternId(2)) && !index.remove(PatternId(u32::MAX)));
    assert_eq!(index.text(PatternId(2)), None);
}

#[test]
fn what_nobody_needs_is_freed() {
    let mut index = PatternIndex::new(1);
    let empty = index.bytes();
    let mut add = |text| index.insert(&pattern(text)).0;
    // In the tree, since each has two `#`: a b c d, with d used twice.
    let [first, second, third] = ["#.a.#.b.d", "#.a.#.c", "#.d.#"].map(&mut add);
    let [shaped, alike, literal] = ["*.b", "*.c", "x.b"].map(add);
    assert_eq!(index.counts(), (1, [2, 1], [9, 2, 4]));
    assert!(index.remove(first));
    assert_eq!(index.counts(), (1, [2, 1], [7, 2, 3]), "d stays, and the way to c");
    assert!(index.remove(shaped));
    assert_eq!(index.counts(), (1, [1, 1], [7, 2, 3]), "the shape stays");
    assert!(index.remove(second) && index.remove(alike) && index.remove(literal));
    assert_eq!(index.counts(), (0, [0, 0], [4, 1, 1]));
    assert!(index.remove(third));
    assert_eq!(index.counts(), NOTHING);
    assert!(index.is_empty() && index.bytes() == empty);
}

/// More shapes than are kept: the others are found in the tree, and every match still ends.
#[test]
fn shapes_beyond_the_bound_are_in_the_tree() {
    let mut index = PatternIndex::new(1);
    let text = |number: u32| {
        let word = |at: u32| if number >> at & 1 == 0 { "*" } else { "a" };
        let words: Vec<_> = (0..7).map(word).collect();
        words.join(".")
    };
    let open = |number| format!("{}.#", text(number));
    let mut ids = Vec::new();
    for number in 0..127 {
        ids.push(index.insert(&pattern(&text(number))).0);
        ids.push(index.insert(&pattern(&open(number))).0);
    }
    let (literals, [shaped, shapes], [nodes, ..]) = index.counts();
    assert_eq!((literals, shaped, shapes), (0, 64, 64));
    assert!(nodes > 0);
    assert_eq!(matches(&mut index, &["a"; 7].join(".")), ids);
    assert_eq!(matches(&mut index, &["a"; 8].join(".")).len(), 127);
    assert_eq!(matches(&mut index, "a.a.b.a.a.a.a").len(), 2 * 64);
    // A pattern in the tree is the same pattern when its shape has found room.
    for &id in &ids[..64] {
        assert!(index.remove(id));
    }
    for number in 32..127 {
        assert_eq!(index.insert(&pattern(&open(number))), (ids[2 * number as usize + 1], false));
    }
    for &id in &ids[64..] {
        assert!(index.remove(id));
    }
    assert_eq!(index.counts(), NOTHING);
}

/// `#.a.#.a…` against `a.a.a…`: a matcher that tries all ways would take longer than anyone lives.
#[test]
fn many_wildcards_take_bounded_steps() {
    let [words, topic] = [30, 100].map(|count| vec!["a"; count]);
    let text = format!("#.{}.#", words.join(".#."));
    let mut index = PatternIndex::new(1);
    let (id, _) = index.insert(&pattern(&text));
    let never = index.insert(&pattern(&format!("{text}.b"))).0;
    let mut found = Vec::new();
    let steps = index.matches(&topic.join("."), &mut found);
    assert_eq!(found, [id]);
    let nodes = index.counts().2[0];
    assert!((topic.len()..=nodes * topic.len()).contains(&steps), "{steps} steps");
    assert!(pattern(&text).matches(&topic.join(".")));
    let text = index.text(never).expect("a pattern");
    assert!(!pattern(&text).matches(&topic.join(".")));
    assert!(pattern(&text).overlaps(&pattern(&text)) && pattern(&text).covers(&pattern(&text)));
}

#[rstest]
#[case("a.#", "a.b.#", "covers")]
#[case("#", "*.#.a", "covers")]
#[case("*.*.#", "#.a.*", "covers")]
#[case("*.*.#", "a.#.b", "covers")]
#[case("#.a.*.*.#", "#.a.b.#.c.#", "covers")]
#[case("*.*.#", "#.a", "overlaps")]
#[case("a.*", "*.b.#", "overlaps")]
#[case("a.*", "*.b", "overlaps")]
#[case("a.#.b", "*.c.#", "overlaps")]
#[case("#.a.#.b", "#.b.#.a.#", "overlaps")]
#[case("a.*", "a.*.*.#", "parts")]
#[case("a.#", "b.#", "parts")]
#[case("#.a", "#.b", "parts")]
#[case("a.*", "a", "parts")]
fn a_pattern_stands_to_another(#[case] left: &str, #[case] right: &str, #[case] how: &str) {
    let (left, right) = (pattern(left), pattern(right));
    let found = match (left.covers(&right), left.overlaps(&right)) {
        (true, true) => "covers",
        (false, true) => "overlaps",
        (covers, false) => ["parts", "nonsense"][usize::from(covers)],
    };
    assert_eq!(found, how);
    assert_eq!(right.overlaps(&left), left.overlaps(&right));
    assert!(!right.covers(&left));
}

/// Topics of up to `most` words out of a, b and x, which no pattern has.
fn topics(most: usize) -> Vec<String> {
    let mut all: Vec<String> = ["a", "b", "x"].map(str::to_owned).into();
    let mut from = 0;
    for _ in 1..most {
        let last = from..all.len();
        from = all.len();
        for at in last {
            let longer = ["a", "b", "x"].map(|word| format!("{}.{word}", all[at]));
            all.extend(longer);
        }
    }
    all
}

fn text(most: usize) -> impl Strategy<Value = String> {
    let word = prop_oneof![3 => Just("#"), 2 => Just("*"), 3 => Just("a"), 2 => Just("b")];
    prop::collection::vec(word, 1..=most).prop_map(|words| words.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_normalised_pattern_means_the_same(text in text(6)) {
        let pattern = pattern(&text);
        for topic in topics(5) {
            prop_assert_eq!(pattern.matches(&topic), model(&text, &topic), "{} {}", text, topic);
        }
    }
}

/// Every normalised pattern of up to `most` words out of a, b and the wildcards.
fn patterns(most: usize) -> BTreeSet<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..most {
        let last = from..all.len();
        from = all.len();
        for at in last {
            let longer = ["#", "*", "a", "b"].map(|word| match at {
                0 => word.to_owned(),
                at => format!("{}.{word}", all[at]),
            });
            all.extend(longer);
        }
    }
    all.iter().skip(1).map(|text| pattern(text).as_str().to_owned()).collect()
}

/// All pairs of all short patterns against all topics that are long enough to tell them apart.
#[test]
fn covers_and_overlaps_mean_what_they_say() {
    let topics = topics(8);
    let matched = |text: &String| {
        let pattern = pattern(text);
        let bits = topics.chunks(64).map(|topics| {
            let bit = |(at, topic): (usize, &String)| u64::from(pattern.matches(topic)) << at;
            topics.iter().enumerate().map(bit).sum::<u64>()
        });
        (pattern.clone(), bits.collect::<Vec<_>>())
    };
    let all: Vec<_> = patterns(4).iter().map(matched).collect();
    for (one, mine) in &all {
        for (other, theirs) in &all {
            let pairs = || mine.iter().zip(theirs);
            let covers = pairs().all(|(mine, theirs)| theirs & !mine == 0);
            let overlaps = pairs().any(|(mine, theirs)| mine & theirs != 0);
            assert_eq!(one.covers(other), covers, "{one} covers {other}");
            assert_eq!(one.overlaps(other), overlaps, "{one} overlaps {other}");
            assert_eq!(one == other, covers && other.covers(one), "{one} is {other}");
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Insert(String),
    Remove(usize),
    Match(String),
}

fn act() -> impl Strategy<Value = Act> {
    let word = prop_oneof![Just("a"), Just("b"), Just("c"), Just("x")];
    let topic = prop::collection::vec(word, 1..8).prop_map(|words| words.join("."));
    prop_oneof![
        3 => text(6).prop_map(Act::Insert),
        2 => any::<usize>().prop_map(Act::Remove),
        3 => topic.prop_map(Act::Match),
    ]
}

/// The index does what the acts say, and a list of texts the same. With few shapes, or none, more
/// is left to the tree.
fn play(acts: Vec<Act>, seed: u64, shapes: usize) -> Result<(), TestCaseError> {
    let mut index = PatternIndex::with_shapes(seed, shapes);
    let (mut held, mut most) = (BTreeMap::<PatternId, Pattern>::new(), 0);
    for act in acts {
        match act {
            Act::Insert(text) => {
                let pattern = pattern(&text);
                let known = held.iter().find(|(_, other)| **other == pattern).map(|(&id, _)| id);
                prop_assert_eq!(index.find(&pattern), known);
                let (id, new) = index.insert(&pattern);
                prop_assert_eq!(new.then_some(id).xor(known), Some(id), "{}", text);
                prop_assert_eq!(index.text(id), Some(pattern.as_str().to_owned()));
                held.insert(id, pattern);
            }
            Act::Remove(_) if held.is_empty() => prop_assert!(!index.remove(PatternId(0))),
            Act::Remove(at) => {
                let id = *held.keys().nth(at % held.len()).expect("within");
                held.remove(&id);
                prop_assert!(index.remove(id) && !index.remove(id) && index.text(id).is_none());
            }
            Act::Match(topic) => {
                let meant = held.iter().filter(|(_, pattern)| model(pattern.as_str(), &topic));
                let meant: Vec<_> = meant.map(|(&id, _)| id).collect();
                prop_assert_eq!(matches(&mut index, &topic), meant, "{}", topic);
            }
        }
        prop_assert_eq!(index.len(), held.len());
        most = most.max(held.len());
        prop_assert!(held.keys().all(|id| (id.0 as usize) < most), "ids are dense");
    }
    for &id in held.keys() {
        prop_assert!(index.remove(id));
    }
    prop_assert_eq!((index.len(), index.counts()), (0, NOTHING));
    prop_assert_eq!(index.bytes() - index.scratch(), PatternIndex::new(seed).bytes());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn fuzz_pattern_index(
        acts in prop::collection::vec(act(), 1..80),
        seed in any::<u64>(),
        shapes in 0_usize..6,
    ) {
        play(acts, seed, shapes * shapes)?;
    }
}

/// Enough of them that every table grows and shrinks many times, and chunks fill.
#[test]
fn a_hundred_thousand_come_and_go() {
    let mut index = PatternIndex::new(3);
    let text = |number: u32| match number % 4 {
        0 => format!("r{}.*.w{number}", number % 97),
        1 => format!("#.w{number}"),
        _ => format!("r{}.s{}.w{number}", number % 97, number % 1009),
    };
    for number in 0..100_000 {
        assert_eq!(index.insert(&pattern(&text(number))), (PatternId(number), true));
    }
    // What was given back is used again: half of them come and go three times in the same room.
    let full = index.bytes();
    let evens = || (0..100_000).step_by(2);
    for _ in 0..3 {
        evens().for_each(|number| assert!(index.remove(PatternId(number))));
        evens().for_each(|number| assert!(index.insert(&pattern(&text(number))).1));
    }
    assert!(index.bytes() < full + full / 20, "{} bytes of {full}", index.bytes());
    let ids: Vec<_> = evens().map(|number| index.find(&pattern(&text(number)))).collect();
    ids.into_iter().flatten().for_each(|id| assert!(index.remove(id)));
    for number in 0..100_000 {
        let held = number % 2 == 1;
        let found = index.find(&pattern(&text(number)));
        assert_eq!(found, held.then_some(PatternId(number)), "{number}");
        let topic = text(number).replace('*', "s").replace('#', "r.s");
        let expected = if held { vec![PatternId(number)] } else { Vec::new() };
        assert_eq!(matches(&mut index, &topic), expected, "{topic}");
    }
    for number in (1..100_000).step_by(2) {
        assert!(index.remove(PatternId(number)));
    }
    assert_eq!(index.counts(), NOTHING);
}
