//! Which patterns of an index are held, for whoever tells others of them.

use smol_str::SmolStr;

use super::{PatternId, PatternIndex};

/// Patterns that are told one by one. With more, everything is asked for.
const TOLD: usize = if cfg!(test) { 4 } else { 10_000 };
/// What stands for everything.
const ALL: &str = "#";

/// Changes of what is held, once somebody wants to know.
#[derive(Debug, Default)]
pub struct Wants {
    on: bool,
    /// Whether they are too many to be told one by one.
    all: bool,
    changes: Vec<(SmolStr, bool)>,
}

impl Wants {
    /// From now on somebody wants to know. `slots` is one more than the largest id in the index.
    pub fn begin(&mut self, index: &PatternIndex, slots: usize) {
        if std::mem::replace(&mut self.on, true) {
            return;
        }
        self.all = index.len() > TOLD;
        if self.all {
            self.changes.push((ALL.into(), true));
        } else {
            self.changes.extend(each(index, slots, true));
        }
    }

    /// A pattern has come into the index.
    pub fn came(&mut self, pattern: &str, index: &PatternIndex, slots: usize) {
        if !self.on || self.all {
            return;
        }
        if index.len() <= TOLD {
            return self.changes.push((pattern.into(), true));
        }
        self.all = true;
        self.changes.push((ALL.into(), true));
        let before = each(index, slots, false).filter(|(text, _)| text != pattern);
        self.changes.extend(before);
    }

    /// A pattern has left the index.
    pub fn left(&mut self, pattern: &str, index: &PatternIndex, slots: usize) {
        if !self.on {
            return;
        }
        if !self.all {
            return self.changes.push((pattern.into(), false));
        }
        // Well below the bound, so that it is not crossed to and fro.
        if index.len() <= TOLD / 2 {
            self.all = false;
            self.changes.extend(each(index, slots, true));
            self.changes.push((ALL.into(), false));
        }
    }

    /// What has changed since the last time: patterns, and whether they are held now.
    pub fn take(&mut self) -> Vec<(SmolStr, bool)> {
        std::mem::take(&mut self.changes)
    }

    /// Whether nothing has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

fn each(index: &PatternIndex, slots: usize, held: bool) -> impl Iterator<Item = (SmolStr, bool)> {
    let ids = (0..slots as u32).map(PatternId);
    ids.filter_map(|id| index.text(id)).map(move |text| (text.into(), held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Pattern;

    /// The first and the last of each are told; of very many, that everything is wanted.
    #[test]
    fn what_is_told() {
        let mut index = PatternIndex::new(1);
        let mut wants = Wants::default();
        let mut play = |text: &str| {
            let (verb, text) = text.split_at(1);
            let pattern = Pattern::parse(text).unwrap();
            match verb {
                "+" => {
                    index.insert(&pattern);
                    wants.came(text, &index, 16);
                }
                "-" => {
                    let id = index.find(&pattern).unwrap();
                    index.remove(id);
                    wants.left(text, &index, 16);
                }
                _ => wants.begin(&index, 16),
            }
            let word =
                |(text, held): (SmolStr, bool)| format!("{}{text}", ["-", "+"][held as usize]);
            wants.take().into_iter().map(word).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(play("+a"), "");
        assert_eq!(play("!#"), "+a");
        assert_eq!(play("+b.*"), "+b.*");
        assert_eq!(play("-b.*"), "-b.*");
        assert_eq!([play("+b"), play("+c"), play("+d")].join(" "), "+b +c +d");
        assert_eq!(play("+e"), "+# -a -b -c -d");
        assert_eq!(play("+f"), "");
        assert_eq!([play("-a"), play("-b"), play("-c")].concat(), "");
        assert_eq!(play("-d"), "+e +f -#");
    }
}
