//! The objects inside a value that mean more than themselves: `$ref`, `$lit`, `$frame`.
//!
//! An object is a tag only if its keys are exactly `{$ref}`, `{$ref,at}`, `{$lit}` or `{$frame}`,
//! after unescaping; any other object that holds these keys is data. Nothing inside a `$lit` is a
//! tag. One walk finds them all; [`compose`](super::compose()) replaces what it found.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use super::cursor::{Cursor, Shape};
use super::fault::Fault;
use super::{Kind, Value};
use crate::base::limits::NAME_BYTES;

/// Where a tag stands in a value, and what it means. Small, since a graph may hold millions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Offset of the tag's first byte.
    pub start: u32,
    /// Offset after its last byte.
    pub end: u32,
    /// What it means.
    pub what: What,
}

/// What a tag means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The result of a step, or what a JSON pointer names in it.
    Ref {
        /// The step, as the resolver numbers them.
        step: u32,
        /// The pointer, unless it is the whole result.
        at: Option<Box<str>>,
    },
    /// Data that is not looked into: the range of what `$lit` holds.
    Lit {
        /// Offset of its first byte.
        start: u32,
        /// Offset after its last byte.
        end: u32,
    },
    /// An attachment, from 1; 0 where the tag holds something that numbers none.
    Frame(u32),
}

impl Mark {
    /// The bytes of the tag.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The step it refers to, if it is a reference.
    #[must_use]
    pub const fn step(&self) -> Option<u32> {
        match self.what {
            What::Ref { step, .. } => Some(step),
            _ => None,
        }
    }

    /// The attachment it names, if it names one.
    #[must_use]
    pub const fn frame(&self) -> Option<u32> {
        match self.what {
            What::Frame(number) => Some(number),
            _ => None,
        }
    }
}

/// Which tags there are, and how references are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `{"$ref":"step","at":"/pointer"}` alone, and `$lit` and `$frame`.
    Tagged,
    /// The same, and any string, keys excepted, that is a step's name or `name.path.0.field`.
    Names,
    /// `$lit` and `$frame` alone: what a peer reads in a message that came with attachments.
    FramesOnly,
}

/// Largest value that is looked into: offsets are 32 bits wide.
pub const VALUE_BYTES: usize = u32::MAX as usize;

/// Finds the outermost tags of `value`, in the order they stand.
///
/// `resolve` numbers a step by its name. It may be asked about names that turn out to be quoted.
pub fn find(
    value: &Value,
    mode: Mode,
    resolve: &mut dyn FnMut(&str) -> Option<u32>,
) -> Result<Vec<Mark>, Fault> {
    if value.bytes.len() > VALUE_BYTES {
        return Err(Fault::BadValue("a value of more than 4 GiB".into()));
    }
    if value.kind == Kind::Bytes || (mode != Mode::Names && !may_hold(value)) {
        return Ok(Vec::new());
    }
    let mut walk = Walk { cursor: Cursor::of(value), mode, resolve, marks: vec![], fault: None };
    walk.value()?;
    walk.cursor.end()?;
    match walk.fault {
        Some(fault) => Err(fault),
        None => Ok(walk.marks),
    }
}

/// Whether `value` holds an object that a peer would read as a tag if the message had attachments.
pub(super) fn frame_marks(value: &Value) -> Result<Vec<Mark>, Fault> {
    find(value, Mode::FramesOnly, &mut |_| None)
}

/// Whether a tag is possible at all, without parsing: one of its keys begins with a dollar sign.
fn may_hold(value: &Value) -> bool {
    let bytes = &*value.bytes;
    match value.kind {
        Kind::Bytes => false,
        Kind::MsgPack => memchr(b'$', bytes).is_some(),
        // A dollar sign that begins a string can be written in two ways only.
        Kind::Json => {
            memchr2(b'$', b'\\', bytes).is_some()
                && (memmem::find(bytes, b"\"$").is_some()
                    || memmem::find(bytes, b"\"\\u0024").is_some())
        }
    }
}

/// Checks that the values of one message name each of its attachments exactly once.
pub fn check_frames<'m>(
    marks: impl IntoIterator<Item = &'m Mark>,
    frames: usize,
) -> Result<(), Fault> {
    let mut seen = vec![false; frames];
    for mark in marks {
        let What::Frame(number) = mark.what else { continue };
        let place = (number as usize).checked_sub(1).and_then(|index| seen.get_mut(index));
        match place {
            None if number == 0 => {
                return Err(Fault::BadFrame("`$frame` takes a whole number from 1".into()));
            }
            None => {
                let text = format!("frame {number} is named, but {frames} came");
                return Err(Fault::BadFrame(text.into()));
            }
            Some(true) => {
                return Err(Fault::BadFrame(format!("frame {number} is named twice").into()));
            }
            Some(seen) => *seen = true,
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(index) => Err(Fault::BadFrame(format!("frame {} is not named", index + 1).into())),
        None => Ok(()),
    }
}

/// What the keys of one object add up to.
#[derive(Default)]
struct Keys {
    reference: Option<Range<usize>>,
    at: Option<Range<usize>>,
    lit: Option<Range<usize>>,
    frame: Option<Range<usize>>,
    other: bool,
}

struct Walk<'a, 'r> {
    cursor: Cursor<'a>,
    mode: Mode,
    resolve: &'r mut dyn FnMut(&str) -> Option<u32>,
    marks: Vec<Mark>,
    /// The first wrong tag: forgotten when it turns out to be quoted.
    fault: Option<Fault>,
}

impl<'a> Walk<'a, '_> {
    fn value(&mut self) -> Result<(), Fault> {
        match self.cursor.peek()? {
            Shape::Map => self.object(),
            Shape::Array => {
                let mut array = self.cursor.array()?;
                while self.cursor.leaves(&mut array, self.mode == Mode::Names)?.1 {
                    self.value()?;
                }
                Ok(())
            }
            Shape::String if self.mode == Mode::Names => self.name(),
            _ => self.cursor.skip().map(drop),
        }
    }

    /// Walks an object as data, and forgets what it found there if the object is itself a tag.
    ///
    /// Going in before knowing keeps the walk linear however tags and their lookalikes are nested.
    fn object(&mut self) -> Result<(), Fault> {
        let start = self.cursor.at();
        let (found, clean) = (self.marks.len(), self.fault.is_none());
        let mut keys = Keys::default();
        let mut map = self.cursor.map()?;
        while let Some(key) = self.cursor.any_key(&mut map)? {
            let from = self.cursor.at();
            self.value()?;
            let held = Some(from..self.cursor.at());
            let refs = self.mode != Mode::FramesOnly;
            match key.as_deref() {
                Some("$ref") if refs => keys.reference = held,
                Some("at") if refs => keys.at = held,
                Some("$lit") => keys.lit = held,
                Some("$frame") => keys.frame = held,
                _ => keys.other = true,
            }
        }
        if let Some(what) = self.tag(keys) {
            self.marks.truncate(found);
            if clean {
                self.fault = None;
            }
            match what {
                Ok(what) => self.mark(start..self.cursor.at(), what),
                Err(fault) => self.fault = self.fault.take().or(Some(fault)),
            }
        }
        Ok(())
    }

    fn mark(&mut self, range: Range<usize>, what: What) {
        self.marks.push(Mark { start: range.start as u32, end: range.end as u32, what });
    }

    /// What the object with these keys means, unless it is data.
    fn tag(&mut self, keys: Keys) -> Option<Result<What, Fault>> {
        match keys {
            Keys { reference: Some(name), at, lit: None, frame: None, other: false } => {
                Some(self.reference(name, at))
            }
            Keys { lit: Some(held), reference: None, at: None, frame: None, other: false } => {
                let (start, end) = (held.start as u32, held.end as u32);
                Some(Ok(What::Lit { start, end }))
            }
            Keys { frame: Some(held), reference: None, at: None, lit: None, other: false } => {
                let number = self.at(held).u64().ok().and_then(|number| number.try_into().ok());
                Some(Ok(What::Frame(number.unwrap_or(0))))
            }
            _ => None,
        }
    }

    /// A cursor before the value that stands at `range`.
    fn at(&self, range: Range<usize>) -> Cursor<'a> {
        let mut cursor = self.cursor;
        cursor.jump(range.start);
        cursor
    }

    fn reference(&mut self, name: Range<usize>, at: Option<Range<usize>>) -> Result<What, Fault> {
        let Ok(name) = self.string(name) else {
            return Err(Fault::BadTag("`$ref` takes the name of a step"));
        };
        let at = match at {
            None => None,
            Some(range) => match self.string(range) {
                Ok(at) if at.is_empty() => None,
                Ok(at) if at.starts_with('/') => Some(at.as_ref().into()),
                _ => return Err(Fault::BadTag("`at` takes a JSON pointer: \"\" or \"/…\"")),
            },
        };
        match (self.resolve)(&name) {
            Some(step) => Ok(What::Ref { step, at }),
            None => Err(Fault::UnknownStep(name.as_ref().into())),
        }
    }

    /// The string at `range`, borrowed from the value and not from the walk.
    fn string(&self, range: Range<usize>) -> Result<Cow<'a, str>, Fault> {
        self.at(range).string()
    }

    /// A string that may be a reference without a tag.
    fn name(&mut self) -> Result<(), Fault> {
        let start = self.cursor.at();
        let (text, _) = self.cursor.text()?;
        if let Some(what) = sugar(&text, self.resolve) {
            self.mark(start..self.cursor.at(), what);
        }
        Ok(())
    }
}

/// Reads `name` or `name.path.0.field`: the longest prefix that is a step's name wins.
fn sugar(text: &str, resolve: &mut dyn FnMut(&str) -> Option<u32>) -> Option<What> {
    if text.len() <= NAME_BYTES
        && let Some(step) = resolve(text)
    {
        return Some(What::Ref { step, at: None });
    }
    // No name is longer than this, so that a long string costs no more than a short one.
    let end = text.len().min(NAME_BYTES + 1);
    let dots = text.as_bytes()[..end].iter().enumerate().rev().filter(|(_, byte)| **byte == b'.');
    for (dot, _) in dots {
        if let Some(step) = resolve(&text[..dot]) {
            return Some(What::Ref { step, at: Some(pointer(&text[dot + 1..])) });
        }
    }
    None
}

/// `path.0.field` as a JSON pointer.
fn pointer(path: &str) -> Box<str> {
    let mut pointer = String::with_capacity(path.len() + 1);
    pointer.push('/');
    for letter in path.chars() {
        match letter {
            '.' => pointer.push('/'),
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
    pointer.into()
}
