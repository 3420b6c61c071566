//! A reader that pulls one value after the other out of encoded bytes.
//!
//! It copies nothing, keeps nothing but where it is, and checks what it passes. Positions are byte
//! offsets into the bytes it was given; the range of a value excludes the white space around it.

use std::borrow::Cow;
use std::ops::Range;

use super::fault::Fault;
use super::json;
use super::msgpack::{self, Head};
use super::{Kind, Value};

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Null,
    /// A truth value.
    Bool,
    /// A whole number or a float.
    Number,
    /// Text.
    String,
    /// Bytes: in MessagePack, or a value of [`Kind::Bytes`].
    Bytes,
    /// Values by position.
    Array,
    /// Values by key.
    Map,
    /// An extension type of MessagePack.
    Ext,
}

impl Shape {
    /// The name in messages for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Array => "an array",
            Self::Map => "an object",
            Self::Ext => "an extension",
        }
    }
}

/// How far a map has been read.
#[derive(Clone, Copy, Debug)]
pub struct MapState {
    /// What is still to come; JSON does not say.
    left: u32,
    first: bool,
}

/// How far an array has been read.
#[derive(Clone, Copy, Debug)]
pub struct ArrayState(MapState);

/// A place in encoded bytes, before a value.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    kind: Kind,
    depth: usize,
    limit: usize,
}

impl<'a> Cursor<'a> {
    /// Stands before the value in `bytes`, in which `limit` levels may be nested (128 at most).
    #[must_use]
    pub fn new(kind: Kind, bytes: &'a [u8], limit: usize) -> Self {
        Self { bytes, at: 0, kind, depth: 0, limit: limit.min(json::DEPTH) }
    }

    /// Stands before `value`, with the most levels there can be.
    #[must_use]
    pub fn of(value: &'a Value) -> Self {
        Self::new(value.kind, &value.bytes, json::DEPTH)
    }

    /// The offset of the next byte that will be read.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The bytes this cursor walks.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Their encoding.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Goes to a value known to begin at `at`, on the same level as the one here.
    pub const fn jump(&mut self, at: usize) {
        self.at = at;
    }

    #[inline]
    fn space(&mut self) {
        if self.kind == Kind::Json {
            self.at = json::space(self.bytes, self.at);
        }
    }

    /// Tells the type of the next value, which it stays before.
    #[inline]
    pub fn peek(&mut self) -> Result<Shape, Fault> {
        self.space();
        match self.kind {
            Kind::Bytes => Ok(Shape::Bytes),
            Kind::MsgPack => Ok(match msgpack::head(self.bytes, self.at)? {
                Head::Null { .. } => Shape::Null,
                Head::Bool { .. } => Shape::Bool,
                Head::Unsigned { .. } | Head::Signed { .. } | Head::Float { .. } => Shape::Number,
                Head::Text { .. } => Shape::String,
                Head::Bin { .. } => Shape::Bytes,
                Head::Ext { .. } => Shape::Ext,
                Head::Array { .. } => Shape::Array,
                Head::Map { .. } => Shape::Map,
            }),
            Kind::Json => match self.bytes.get(self.at) {
                Some(b'"') => Ok(Shape::String),
                Some(b'{') => Ok(Shape::Map),
                Some(b'[') => Ok(Shape::Array),
                Some(b'-' | b'0'..=b'9') => Ok(Shape::Number),
                Some(b't' | b'f') => Ok(Shape::Bool),
                Some(b'n') => Ok(Shape::Null),
                Some(_) => Err(Fault::syntax(self.at, "expected a value")),
                None => Err(Fault::syntax(self.at, "the text ends where a value is expected")),
            },
        }
    }

    /// Passes one value, checking all of it, and returns where it stands.
    #[inline]
    pub fn skip(&mut self) -> Result<Range<usize>, Fault> {
        self.pass().map(|(range, _)| range)
    }

    /// The same, and whether it is a string that stands between its quotes as it is meant.
    #[inline]
    pub fn pass(&mut self) -> Result<(Range<usize>, bool), Fault> {
        self.space();
        let start = self.at;
        let room = self.limit - self.depth;
        let mut plain = false;
        self.at = match self.kind {
            Kind::Json => match self.bytes.get(start) {
                Some(b'{' | b'[') => json::skip(self.bytes, start, room, self.limit)?,
                Some(b'"') => {
                    let text = json::text(self.bytes, start)?;
                    plain = text.is_plain();
                    text.end
                }
                _ => json::scalar(self.bytes, start)?,
            },
            Kind::MsgPack => msgpack::skip(self.bytes, start, room, self.limit)?,
            Kind::Bytes => self.bytes.len(),
        };
        Ok((start..self.at, plain))
    }

    /// Checks that nothing but white space follows.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Fault::syntax(self.at, "something follows the value"))
        }
    }

    fn expected<T>(&mut self, what: &'static str) -> Result<T, Fault> {
        let shape = self.peek()?;
        Err(Fault::shape(what, shape.as_str()))
    }

    fn enter(&mut self, start: usize, left: u32) -> Result<MapState, Fault> {
        if self.depth == self.limit {
            return Err(Fault::TooDeep { limit: self.limit });
        }
        self.depth += 1;
        self.at = start;
        Ok(MapState { left, first: true })
    }

    /// Goes into a map.
    pub fn map(&mut self) -> Result<MapState, Fault> {
        self.space();
        match self.kind {
            Kind::Json if self.bytes.get(self.at) == Some(&b'{') => self.enter(self.at + 1, 0),
            Kind::MsgPack => match msgpack::head(self.bytes, self.at)? {
                Head::Map { start, pairs } => self.enter(start, pairs),
                _ => self.expected("an object"),
            },
            _ => self.expected("an object"),
        }
    }

    /// Goes into an array.
    pub fn array(&mut self) -> Result<ArrayState, Fault> {
        self.space();
        let state = match self.kind {
            Kind::Json if self.bytes.get(self.at) == Some(&b'[') => self.enter(self.at + 1, 0)?,
            Kind::MsgPack => match msgpack::head(self.bytes, self.at)? {
                Head::Array { start, items } => self.enter(start, items)?,
                _ => return self.expected("an array"),
            },
            _ => return self.expected("an array"),
        };
        Ok(ArrayState(state))
    }

    /// Whether the container goes on; leaves it where it ends.
    #[inline]
    fn more(&mut self, state: &mut MapState, close: u8) -> Result<bool, Fault> {
        if self.kind == Kind::MsgPack {
            let more = state.left > 0;
            state.left = state.left.saturating_sub(1);
            self.depth -= usize::from(!more);
            return Ok(more);
        }
        self.space();
        let first = std::mem::replace(&mut state.first, false);
        match self.bytes.get(self.at) {
            Some(&byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ if first => Ok(true),
            Some(b',') => {
                self.at = json::space(self.bytes, self.at + 1);
                Ok(true)
            }
            _ => Err(Fault::syntax(self.at, "expected a comma or the end of a container")),
        }
    }

    /// Whether another item follows, which the cursor is then before.
    #[inline]
    pub fn item(&mut self, state: &mut ArrayState) -> Result<bool, Fault> {
        self.more(&mut state.0, b']')
    }

    /// Passes items that hold no others, and counts them; then it is as [`item`](Self::item).
    ///
    /// With `strings` it stops before those as well. Most long arrays are of numbers, and this is
    /// the shortest way through one.
    pub(super) fn leaves(
        &mut self,
        state: &mut ArrayState,
        strings: bool,
    ) -> Result<(u32, bool), Fault> {
        let mut passed = 0;
        while self.item(state)? {
            let leaf = match (self.kind, self.bytes.get(self.at)) {
                (Kind::Json, Some(b'{' | b'['))
                | (Kind::MsgPack, Some(0x80..=0x9F | 0xDC..=0xDF)) => false,
                (Kind::Json, Some(b'"')) | (Kind::MsgPack, Some(0xA0..=0xBF | 0xD9..=0xDB)) => {
                    !strings
                }
                _ => true,
            };
            if !leaf {
                return Ok((passed, true));
            }
            self.skip()?;
            passed += 1;
        }
        Ok((passed, false))
    }

    /// The next key; the cursor is then before its value. A lone surrogate reads as U+FFFD.
    pub fn key(&mut self, state: &mut MapState) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.any_key(state)? {
            None => Ok(None),
            Some(Some(key)) => Ok(Some(key)),
            Some(None) => Err(Fault::BadValue("a key that is not a string".into())),
        }
    }

    /// The same for a map of MessagePack whose keys may be anything: a key that is not a string is
    /// checked and told as `Some(None)`.
    pub fn any_key(&mut self, state: &mut MapState) -> Result<Option<Option<Cow<'a, str>>>, Fault> {
        Ok(self.whole_key(state)?.map(|key| key.map(|(text, _)| text)))
    }

    /// The same, and whether all of the key is Unicode.
    #[expect(clippy::type_complexity, reason = "three answers, read in one place")]
    pub(super) fn whole_key(
        &mut self,
        state: &mut MapState,
    ) -> Result<Option<Option<(Cow<'a, str>, bool)>>, Fault> {
        if !self.more(state, b'}')? {
            return Ok(None);
        }
        self.key_here().map(Some)
    }

    /// The next key as `find` knows it; what it does not know is told as `Some(None)`.
    #[inline]
    pub fn known_key<T>(
        &mut self,
        state: &mut MapState,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Option<T>>, Fault> {
        if !self.more(state, b'}')? {
            return Ok(None);
        }
        if self.kind == Kind::Json && self.bytes.get(self.at) == Some(&b'"') {
            // Compared where it stands, as nearly all keys can be.
            let text = json::scan(self.bytes, self.at)?;
            if text.is_plain() {
                let found = find(&self.bytes[self.at + 1..text.end - 1]);
                self.at = json::colon(self.bytes, text.end)?;
                return Ok(Some(found));
            }
        }
        let key = self.key_here()?;
        Ok(Some(key.and_then(|(key, _)| find(key.as_bytes()))))
    }

    fn key_here(&mut self) -> Result<Option<(Cow<'a, str>, bool)>, Fault> {
        if self.kind == Kind::Json {
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(Fault::syntax(self.at, "expected a key in quotes"));
            }
            let (key, end, whole) = json::read(self.bytes, self.at)?;
            self.at = json::colon(self.bytes, end)?;
            return Ok(Some((key, whole)));
        }
        if let Head::Text { start, end } = msgpack::head(self.bytes, self.at)? {
            self.at = end;
            return Ok(Some((Cow::Borrowed(json::utf8(self.bytes, start, end)?), true)));
        }
        self.skip()?;
        Ok(None)
    }

    /// Reads a string, and tells whether all of it is Unicode: a lone surrogate is U+FFFD in it.
    pub fn text(&mut self) -> Result<(Cow<'a, str>, bool), Fault> {
        self.space();
        match self.kind {
            Kind::Json if self.bytes.get(self.at) == Some(&b'"') => {
                let (text, end, whole) = json::read(self.bytes, self.at)?;
                self.at = end;
                Ok((text, whole))
            }
            Kind::MsgPack => match msgpack::head(self.bytes, self.at)? {
                Head::Text { start, end } => {
                    self.at = end;
                    Ok((Cow::Borrowed(json::utf8(self.bytes, start, end)?), true))
                }
                _ => self.expected("a string"),
            },
            _ => self.expected("a string"),
        }
    }

    /// Reads a string that is Unicode throughout.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        match self.text()? {
            (text, true) => Ok(text),
            (_, false) => Err(Fault::BadValue("a string with half a character".into())),
        }
    }

    /// Reads a number of JSON that begins here, if it is one of the short ones.
    #[inline]
    pub(super) fn short_number(&mut self) -> Option<json::Number> {
        if self.kind != Kind::Json {
            return None;
        }
        if let Some([digit @ b'0'..=b'9', b',' | b']' | b'}']) =
            self.bytes.get(self.at..self.at + 2)
        {
            self.at += 1;
            return Some(json::Number::Whole(i64::from(digit - b'0')));
        }
        let (number, end) = json::short_number(self.bytes, self.at)?;
        self.at = end;
        Some(number)
    }

    /// The text of the JSON number here.
    fn digits(&mut self, what: &'static str) -> Result<&'a str, Fault> {
        match self.bytes.get(self.at) {
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                self.at = json::number(self.bytes, start)?;
                json::utf8(self.bytes, start, self.at)
            }
            _ => self.expected(what),
        }
    }

    /// Reads a whole number from 0.
    pub fn u64(&mut self) -> Result<u64, Fault> {
        const WHAT: &str = "a whole number from 0";
        self.space();
        match self.kind {
            Kind::Json => {
                let text = self.digits(WHAT)?;
                text.parse().map_err(|_| Fault::shape(WHAT, text))
            }
            Kind::MsgPack => match msgpack::head(self.bytes, self.at)? {
                Head::Unsigned { end, is } => {
                    self.at = end;
                    Ok(is)
                }
                _ => self.expected(WHAT),
            },
            Kind::Bytes => self.expected(WHAT),
        }
    }

    /// Reads any number as the nearest float.
    pub fn f64(&mut self) -> Result<f64, Fault> {
        self.space();
        match self.kind {
            Kind::Json => {
                let text = self.digits("a number")?;
                return text.parse().map_err(|_| Fault::shape("a number", text));
            }
            Kind::Bytes => return self.expected("a number"),
            Kind::MsgPack => {}
        }
        let (end, is) = match msgpack::head(self.bytes, self.at)? {
            Head::Unsigned { end, is } => (end, is as f64),
            Head::Signed { end, is } => (end, is as f64),
            Head::Float { end, is } => (end, is),
            _ => return self.expected("a number"),
        };
        self.at = end;
        Ok(is)
    }

    /// Reads a truth value.
    pub fn bool(&mut self) -> Result<bool, Fault> {
        if self.peek()? != Shape::Bool {
            return self.expected("a boolean");
        }
        let start = self.skip()?.start;
        Ok(matches!(self.bytes[start], b't' | 0xC3))
    }

    /// Passes a null and tells whether there was one.
    pub fn null(&mut self) -> Result<bool, Fault> {
        let null = self.peek()? == Shape::Null;
        if null {
            self.skip()?;
        }
        Ok(null)
    }
}
