//! From one encoding to the other, exactly: what the other cannot hold is named, never rounded.
//!
//! Whole numbers stay whole and floats stay floats, the order of keys and repeated keys are kept.
//! Bytes, which JSON does not have, become attachments.

use bytes::Bytes;

use super::cursor::{Cursor, Shape};
use super::fault::Fault;
use super::msgpack::{self, Head};
use super::tags::{Mark, What};
use super::{Frames, Kind, json};

/// Appends the JSON value in `from` as MessagePack.
pub fn json_to_msgpack(from: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    Emission::plain(Kind::Json, from, Kind::MsgPack, out, &mut Frames::new()).whole()
}

/// Appends the MessagePack value in `from` as JSON; bytes in it go to `frames`, whose numbers
/// stand in their places.
pub fn msgpack_to_json(from: &[u8], out: &mut Vec<u8>, frames: &mut Frames) -> Result<(), Fault> {
    Emission::plain(Kind::MsgPack, from, Kind::Json, out, frames).whole()
}

/// Appends a tag that names the attachment `number`.
pub(super) fn put_frame_tag(to: Kind, number: usize, out: &mut Vec<u8>) {
    match to {
        Kind::MsgPack => {
            out.extend_from_slice(b"\x81\xA6$frame");
            msgpack::put_u64(out, number as u64);
        }
        Kind::Json | Kind::Bytes => {
            out.extend_from_slice(b"{\"$frame\":");
            json::put_u64(out, number as u64);
            out.push(b'}');
        }
    }
}

/// One value on its way into a larger message.
pub(super) struct Emission<'s, 'o> {
    /// The value's bytes and encoding, and the encoding it goes into.
    pub(super) source: &'s [u8],
    pub(super) from: Kind,
    /// Whether the value is known to be as that encoding wants it.
    pub(super) checked: bool,
    pub(super) to: Kind,
    /// The outermost tags in `source`, or what looks like them.
    pub(super) marks: &'s [Mark],
    /// The attachments the tags name; `None` where no object is a tag, however it looks.
    pub(super) own: Option<&'s [Bytes]>,
    /// Whether whoever reads the message reads tags.
    pub(super) quoting: bool,
    pub(super) out: &'o mut Vec<u8>,
    pub(super) frames: &'o mut Frames,
}

/// Where a converted value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Tags may begin here.
    Marked,
    /// Nothing is a tag here.
    Data,
    /// The same, and no tag can be written here either.
    Quote,
}

impl<'s, 'o> Emission<'s, 'o> {
    /// A value in which nothing is a tag, for a message in which nothing is.
    fn plain(
        from: Kind,
        source: &'s [u8],
        to: Kind,
        out: &'o mut Vec<u8>,
        frames: &'o mut Frames,
    ) -> Self {
        let (checked, marks, own, quoting) = (false, &[][..], None, false);
        Self { source, from, checked, to, marks, own, quoting, out, frames }
    }

    /// Writes all of the source, having checked it unless somebody has.
    pub(super) fn whole(mut self) -> Result<(), Fault> {
        if self.from != self.to {
            let mut cursor = Cursor::new(self.from, self.source, json::DEPTH);
            let mut conversion =
                Conversion { emission: &mut self, heads: Heads::default(), next: 0 };
            conversion.value(&mut cursor, Within::Marked)?;
            cursor.end()?;
            let heads = conversion.heads;
            if !heads.large.is_empty() {
                heads.insert(self.out);
            }
            return Ok(());
        }
        if !self.checked {
            let mut cursor = Cursor::new(self.from, self.source, json::DEPTH);
            cursor.skip()?;
            cursor.end()?;
        }
        let mut at = 0;
        for mark in self.marks {
            self.out.extend_from_slice(&self.source[at..mark.start as usize]);
            match self.turn(mark)? {
                Turn::Written => {}
                Turn::Bare(start, end) => self.out.extend_from_slice(&self.source[start..end]),
                Turn::Quoted(start, end) => {
                    self.open_quote();
                    self.out.extend_from_slice(&self.source[start..end]);
                    self.close_quote();
                }
            }
            at = mark.end as usize;
        }
        self.out.extend_from_slice(&self.source[at..]);
        Ok(())
    }

    /// Decides what becomes of a tag, and writes it if it is an attachment's.
    fn turn(&mut self, mark: &Mark) -> Result<Turn, Fault> {
        let (start, end) = (mark.start as usize, mark.end as usize);
        match (&mark.what, self.own, self.quoting) {
            (&What::Frame(number), Some(own), _) => {
                let frame = (number as usize).checked_sub(1).and_then(|index| own.get(index));
                let Some(frame) = frame else {
                    return Err(Fault::BadFrame(format!("frame {number} did not come").into()));
                };
                self.put_frame(frame.clone());
                Ok(Turn::Written)
            }
            (&What::Lit { start, end }, Some(_), true) => {
                Ok(Turn::Quoted(start as usize, end as usize))
            }
            (&What::Lit { start, end }, Some(_), false) => {
                Ok(Turn::Bare(start as usize, end as usize))
            }
            (_, None, true) => Ok(Turn::Quoted(start, end)),
            _ => Ok(Turn::Bare(start, end)),
        }
    }

    /// Adds an attachment and writes the tag that names it.
    pub(super) fn put_frame(&mut self, frame: Bytes) {
        self.frames.push(frame);
        put_frame_tag(self.to, self.frames.len(), self.out);
    }

    fn open_quote(&mut self) {
        self.out.extend_from_slice(match self.to {
            Kind::MsgPack => b"\x81\xA4$lit",
            Kind::Json | Kind::Bytes => b"{\"$lit\":",
        });
    }

    fn close_quote(&mut self) {
        if self.to == Kind::Json {
            self.out.push(b'}');
        }
    }
}

/// What becomes of a tag.
enum Turn {
    Written,
    /// These bytes stand for it.
    Bare(usize, usize),
    /// These bytes stand for it, in a `$lit`.
    Quoted(usize, usize),
}

/// The heads of containers in MessagePack that is being written, which tell how many items follow.
///
/// A JSON text says so nowhere. A head of one byte is kept free for each container, which is enough
/// for fifteen; those of larger ones are made room for all at once when everything is written, so
/// that the conversion is linear whatever the nesting.
#[derive(Default)]
struct Heads {
    /// Where each of the larger containers begins, whether it is a map, and its items.
    large: Vec<(usize, bool, u32)>,
}

impl Heads {
    fn open(out: &mut Vec<u8>) -> usize {
        out.push(0);
        out.len() - 1
    }

    fn close(&mut self, out: &mut [u8], at: usize, map: bool, items: u32) {
        if items < 16 {
            out[at] = if map { 0x80 } else { 0x90 } | items as u8;
        } else {
            self.large.push((at, map, items));
        }
    }

    /// Makes room for the heads of larger containers and writes them.
    fn insert(mut self, out: &mut Vec<u8>) {
        // Those inside were closed before those around them.
        self.large.sort_by_key(|(at, ..)| *at);
        let more = |items: u32| if items > 0xFFFF { 4 } else { 2 };
        let mut from = out.len();
        let mut to = from + self.large.iter().map(|(.., items)| more(*items)).sum::<usize>();
        out.resize(to, 0);
        for (at, map, items) in self.large.into_iter().rev() {
            out.copy_within(at + 1..from, to - (from - at - 1));
            to -= from - at + more(items);
            from = at;
            out[to] = if map { 0xDE } else { 0xDC } + u8::from(items > 0xFFFF);
            let bytes = items.to_be_bytes();
            out[to + 1..=to + more(items)].copy_from_slice(&bytes[4 - more(items)..]);
        }
    }
}

/// A walk through the source that writes each value in the other encoding.
struct Conversion<'e, 's, 'o> {
    emission: &'e mut Emission<'s, 'o>,
    heads: Heads,
    /// The next tag.
    next: usize,
}

impl<'s> Conversion<'_, 's, '_> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.emission.out
    }

    /// Writes a number, if one of the short ones of JSON begins here: none of them is a tag.
    #[inline]
    fn number(&mut self, cursor: &mut Cursor<'s>) -> bool {
        match cursor.short_number() {
            Some(json::Number::Whole(number)) => msgpack::put_i64(self.out(), number),
            Some(json::Number::Float(number)) => msgpack::put_f64(self.out(), number),
            None => return false,
        }
        true
    }

    fn value(&mut self, cursor: &mut Cursor<'s>, within: Within) -> Result<(), Fault> {
        let shape = cursor.peek()?;
        if within == Within::Marked
            && let Some(mark) = self.emission.marks.get(self.next)
            && mark.start as usize == cursor.at()
        {
            self.next += 1;
            self.tag(cursor, mark)?;
            cursor.jump(mark.end as usize);
            return Ok(());
        }
        match shape {
            Shape::Map => self.object(cursor, within),
            Shape::Array => self.array(cursor, within),
            _ if self.emission.to == Kind::MsgPack => self.scalar_as_msgpack(cursor, shape),
            _ => self.scalar_as_json(cursor, within),
        }
    }

    fn tag(&mut self, cursor: &Cursor<'s>, mark: &Mark) -> Result<(), Fault> {
        let mut inner = *cursor;
        match self.emission.turn(mark)? {
            Turn::Written => Ok(()),
            Turn::Bare(start, _) => {
                inner.jump(start);
                self.value(&mut inner, Within::Data)
            }
            Turn::Quoted(start, _) => {
                self.emission.open_quote();
                inner.jump(start);
                self.value(&mut inner, Within::Quote)?;
                self.emission.close_quote();
                Ok(())
            }
        }
    }

    fn object(&mut self, cursor: &mut Cursor<'s>, within: Within) -> Result<(), Fault> {
        let json = self.emission.to == Kind::Json;
        let head = Heads::open(self.out());
        let mut map = cursor.map()?;
        let (mut first, mut pairs) = (true, 0);
        while let Some(key) = cursor.whole_key(&mut map)? {
            let key = match key {
                Some((key, true)) => key,
                Some(_) => return Err(Fault::unencodable("a key with half a character")),
                None => return Err(Fault::unencodable("a key that is not a string")),
            };
            if json {
                self.comma(&mut first);
                json::put_string(self.out(), &key);
                self.out().push(b':');
            } else {
                msgpack::put_string(self.out(), &key);
            }
            if !self.number(cursor) {
                self.value(cursor, within).map_err(|fault| fault.within(&key))?;
            }
            pairs += 1;
        }
        self.close(head, true, pairs);
        Ok(())
    }

    fn array(&mut self, cursor: &mut Cursor<'s>, within: Within) -> Result<(), Fault> {
        let json = self.emission.to == Kind::Json;
        let head = Heads::open(self.out());
        let mut array = cursor.array()?;
        let (mut first, mut index) = (true, 0);
        while cursor.item(&mut array)? {
            if json {
                self.comma(&mut first);
            }
            if !self.number(cursor) {
                self.value(cursor, within).map_err(|fault| fault.within(&index.to_string()))?;
            }
            index += 1;
        }
        self.close(head, false, index);
        Ok(())
    }

    /// Ends a container whose first byte was kept free.
    fn close(&mut self, head: usize, map: bool, items: u32) {
        let Emission { to, out, .. } = &mut *self.emission;
        if *to == Kind::MsgPack {
            return self.heads.close(out, head, map, items);
        }
        let (open, close) = if map { (b'{', b'}') } else { (b'[', b']') };
        out[head] = open;
        out.push(close);
    }

    fn comma(&mut self, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.out().push(b',');
        }
    }

    /// A value of JSON that holds no others.
    fn scalar_as_msgpack(&mut self, cursor: &mut Cursor<'s>, shape: Shape) -> Result<(), Fault> {
        if shape == Shape::String {
            let (text, whole) = cursor.text()?;
            if !whole {
                return Err(Fault::unencodable("a string with half a character"));
            }
            msgpack::put_string(self.out(), &text);
            return Ok(());
        }
        let range = cursor.skip()?;
        let bytes = &cursor.bytes()[range];
        match shape {
            Shape::Null => self.out().push(0xC0),
            Shape::Bool => self.out().push(if bytes == b"true" { 0xC3 } else { 0xC2 }),
            _ => put_number(self.out(), bytes)?,
        }
        Ok(())
    }

    /// A value of MessagePack that holds no others.
    fn scalar_as_json(&mut self, cursor: &mut Cursor<'s>, within: Within) -> Result<(), Fault> {
        let range = cursor.skip()?;
        let out = &mut *self.emission.out;
        match msgpack::head(cursor.bytes(), range.start)? {
            Head::Null { .. } => out.extend_from_slice(b"null"),
            Head::Bool { is: true, .. } => out.extend_from_slice(b"true"),
            Head::Bool { .. } => out.extend_from_slice(b"false"),
            Head::Unsigned { is, .. } => json::put_u64(out, is),
            Head::Signed { is, .. } => json::put_i64(out, is),
            Head::Float { is, .. } if is.is_finite() => json::put_f64(out, is),
            Head::Float { .. } => {
                return Err(Fault::unencodable("a float that JSON does not have"));
            }
            Head::Text { start, end } => {
                json::put_string(out, json::utf8(cursor.bytes(), start, end)?);
            }
            Head::Bin { .. } if within == Within::Quote => {
                return Err(Fault::unencodable("bytes in an object that looks like a tag"));
            }
            Head::Bin { start, end } => {
                let frame = Bytes::copy_from_slice(&cursor.bytes()[start..end]);
                self.emission.put_frame(frame);
            }
            _ => return Err(Fault::unencodable("an extension type")),
        }
        Ok(())
    }
}

/// A JSON number in MessagePack: whole if it is written so, else a float.
fn put_number(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Fault> {
    // Any eighteen digits fit; most numbers have fewer.
    if text.len() <= 18 && text.iter().all(u8::is_ascii_digit) {
        let number = text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        msgpack::put_u64(out, number);
        return Ok(());
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(Fault::unencodable("not a number"));
    };
    // A whole number has no negative zero.
    if text == "-0" || text.contains(['.', 'e', 'E']) {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                msgpack::put_f64(out, number);
                Ok(())
            }
            _ => Err(Fault::unencodable("a number beyond double precision")),
        };
    }
    if let Ok(number) = text.parse::<u64>() {
        msgpack::put_u64(out, number);
    } else if let Ok(number) = text.parse::<i64>() {
        msgpack::put_i64(out, number);
    } else {
        return Err(Fault::unencodable("a whole number beyond 64 bits"));
    }
    Ok(())
}
