//! JSON pointers (RFC 6901) into values that stay bytes.
//!
//! One pass, whatever the pointer: where a key is repeated the last one counts, as in most
//! languages, and nothing is read twice to find that out.

use std::borrow::Cow;
use std::ops::Range;

use super::cursor::{Cursor, Shape};
use super::fault::Fault;
use super::tags::{Mark, What};
use super::{Body, Value, tags};

/// Where the thing a pointer names stands in `value`, in which no object is a tag.
pub fn locate(value: &Value, pointer: &str) -> Result<Range<usize>, Fault> {
    Search::run(value, pointer, &[]).map(|place| place.range)
}

/// Where the thing a pointer names stands in the value of `body`.
///
/// In a body with attachments a `$frame` is bytes, which nothing points into, and a `$lit` is what
/// it holds.
pub fn locate_in(body: &Body, pointer: &str) -> Result<Place, Fault> {
    if body.frames.is_empty() {
        return Search::run(&body.value, pointer, &[]);
    }
    let marks = tags::frame_marks(&body.value)?;
    Search::run(&body.value, pointer, &marks)
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its bytes.
    pub range: Range<usize>,
    /// Whether it stands inside a `$lit`, where nothing is a tag.
    pub quoted: bool,
}

/// What became of a search below some place.
enum Outcome {
    At(Place),
    /// It ends at a value of this type, with so many bytes of the pointer left.
    Missing {
        left: usize,
        found: &'static str,
    },
}

struct Search<'a> {
    cursor: Cursor<'a>,
    marks: &'a [Mark],
    quoted: bool,
}

impl<'a> Search<'a> {
    fn run(value: &'a Value, pointer: &str, marks: &'a [Mark]) -> Result<Place, Fault> {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(Fault::BadTag("a JSON pointer is empty or begins with a slash"));
        }
        let mut search = Self { cursor: Cursor::of(value), marks, quoted: false };
        let outcome = search.value(pointer)?;
        search.cursor.end()?;
        match outcome {
            Outcome::At(place) => Ok(place),
            Outcome::Missing { left, found } => {
                let reached = pointer.len() - left;
                Err(Fault::MissingPath { step: None, path: pointer.into(), reached, found })
            }
        }
    }

    /// Passes the value here and tells what `pointer` names in it.
    fn value(&mut self, pointer: &str) -> Result<Outcome, Fault> {
        let shape = self.cursor.peek()?;
        if shape == Shape::Map
            && let Some(outcome) = self.tag(pointer)?
        {
            return Ok(outcome);
        }
        let Some((token, rest)) = split(pointer) else {
            let place = Place { range: self.cursor.skip()?, quoted: self.quoted };
            return Ok(Outcome::At(place));
        };
        let missing = Outcome::Missing { left: pointer.len(), found: shape.as_str() };
        match shape {
            Shape::Map => self.object(&token, rest, missing),
            Shape::Array => self.array(&token, rest, missing),
            _ => {
                self.cursor.skip()?;
                Ok(missing)
            }
        }
    }

    fn object(&mut self, token: &str, rest: &str, missing: Outcome) -> Result<Outcome, Fault> {
        let mut outcome = missing;
        let mut map = self.cursor.map()?;
        while let Some(key) = self.cursor.any_key(&mut map)? {
            if key.as_deref() == Some(token) {
                outcome = self.value(rest)?;
            } else {
                self.cursor.skip()?;
            }
        }
        Ok(outcome)
    }

    fn array(&mut self, token: &str, rest: &str, missing: Outcome) -> Result<Outcome, Fault> {
        let (wanted, mut outcome) = (index(token), missing);
        let mut array = self.cursor.array()?;
        let mut here = 0_usize;
        while self.cursor.item(&mut array)? {
            if wanted == Some(here) {
                outcome = self.value(rest)?;
            } else {
                self.cursor.skip()?;
            }
            here += 1;
        }
        Ok(outcome)
    }

    /// The outcome in the tag that begins here, if one does.
    fn tag(&mut self, pointer: &str) -> Result<Option<Outcome>, Fault> {
        let start = self.cursor.at() as u32;
        let Ok(nth) = self.marks.binary_search_by_key(&start, |mark| mark.start) else {
            return Ok(None);
        };
        let mark = &self.marks[nth];
        let outcome = match mark.what {
            What::Lit { start, .. } if !pointer.is_empty() => {
                let before = std::mem::replace(&mut self.quoted, true);
                self.cursor.jump(start as usize);
                let outcome = self.value(pointer)?;
                self.quoted = before;
                outcome
            }
            What::Frame(_) if !pointer.is_empty() => {
                Outcome::Missing { left: pointer.len(), found: Shape::Bytes.as_str() }
            }
            _ => Outcome::At(Place { range: mark.range(), quoted: self.quoted }),
        };
        self.cursor.jump(mark.end as usize);
        Ok(Some(outcome))
    }
}

/// The first word of a pointer, unescaped, and what follows it.
fn split(pointer: &str) -> Option<(Cow<'_, str>, &str)> {
    let pointer = pointer.strip_prefix('/')?;
    let end = pointer.find('/').unwrap_or(pointer.len());
    let (token, rest) = pointer.split_at(end);
    let token = if token.contains('~') {
        Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(token)
    };
    Some((token, rest))
}

/// An index as RFC 6901 writes it: no sign, no leading zeros.
fn index(token: &str) -> Option<usize> {
    let plain = token.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = plain && (token == "0" || !token.starts_with('0'));
    if canonical { token.parse().ok() } else { None }
}
