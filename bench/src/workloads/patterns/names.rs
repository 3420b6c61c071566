//! The names and patterns of the measurement, each a function of its number.
//!
//! A name is a path of 3 to 6 words, all depths alike, as in `orders.eu.12345.created`: a root out
//! of 300, then words out of 50,000, of which half are words of 3 to 10 letters and half numbers of
//! 3 to 8 digits. Words are not alike in use: the one at `50,000 · u²` is drawn, with `u` even
//! between 0 and 1, so the first hundredth of them makes a tenth of all.
//!
//! Of 100 patterns 80 are names, 18 are names with one word replaced by `*` (one in three with
//! two), anywhere, and 2 have a `#` in place of one or more neighbouring words, anywhere.

use mpreg_patterns::base::Rng;

const WORDS: usize = 50_000;
const ROOTS: usize = 300;

/// All words; the first of them are the roots too.
pub(super) struct Names {
    words: Vec<String>,
}

impl Names {
    /// The same words every time.
    pub(super) fn new() -> Self {
        let mut rng = Rng::new(1);
        Self { words: (0..WORDS).map(|_| word(&mut rng)).collect() }
    }

    /// Writes pattern `number`; whether it is a name.
    pub(super) fn write(&self, number: u64, text: &mut String) -> bool {
        text.clear();
        let mut rng = Rng::new(number.wrapping_mul(0xD134_2543_DE82_EF95));
        let (kind, depth) = (rng.below(100), 3 + rng.below(4));
        let mut path = [""; 6];
        path[0] = &self.words[rng.below(ROOTS)];
        path[1..depth].fill_with(|| self.word(&mut rng));
        let path = &mut path[..depth];
        match kind {
            0..80 => join(text, &*path),
            80..98 => {
                path[rng.below(depth)] = "*";
                if rng.below(3) == 0 {
                    path[rng.below(depth)] = "*";
                }
                join(text, &*path);
            }
            _ => {
                let from = rng.below(depth);
                let to = from + 1 + rng.below(depth - from);
                path[from] = "#";
                join(text, path[..=from].iter().chain(&path[to..]));
            }
        }
        kind < 80
    }

    fn word(&self, rng: &mut Rng) -> &str {
        let even = rng.below(1 << 24) as f64 / f64::from(1 << 24);
        &self.words[(WORDS as f64 * even * even) as usize]
    }
}

fn word(rng: &mut Rng) -> String {
    let (letters, from, count) = match rng.below(2) {
        0 => (3 + rng.below(8), b'a', 26),
        _ => (3 + rng.below(6), b'0', 10),
    };
    (0..letters).map(|_| char::from(from + rng.below(count) as u8)).collect()
}

fn join<'a>(text: &mut String, words: impl IntoIterator<Item = &'a &'a str>) {
    for word in words {
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use mpreg_patterns::names::Pattern;

    use super::*;

    #[test]
    fn patterns_are_of_the_kinds_that_are_told() {
        let names = Names::new();
        let (mut text, mut kinds, mut bytes) = (String::new(), [0; 3], 0);
        for number in 0..100_000 {
            let literal = names.write(number, &mut text);
            let pattern = Pattern::parse(&text).unwrap();
            assert_eq!(pattern.is_literal(), literal, "{text}");
            kinds[usize::from(!literal) + usize::from(text.contains('#'))] += 1;
            bytes += text.len();
        }
        let close = |count: i32, share: i32| (count - share).abs() < 1_000;
        assert!(close(kinds[0], 80_000) && close(kinds[1], 18_000) && close(kinds[2], 2_000));
        assert!((25..40).contains(&(bytes / 100_000)), "{bytes}");
    }
}
