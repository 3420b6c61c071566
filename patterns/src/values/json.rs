//! JSON text (RFC 8259), by position: one pass that checks everything, and nothing built.
//!
//! It accepts what `serde_json` accepts, lone surrogates written as `\ud800` included: they are
//! within the grammar, and some languages write them for file names.

use std::borrow::Cow;
use std::io::Write as _;

use memchr::memchr;

use super::fault::Fault;

/// The container stack of [`skip`] is one bit a level.
pub(super) const DEPTH: usize = 128;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A string's text without its quotes, and what a reader has to do with it.
#[derive(Clone, Copy)]
pub(super) struct Text {
    /// Past the closing quote.
    pub(super) end: usize,
    pub(super) escaped: bool,
    pub(super) ascii: bool,
}

impl Text {
    /// Whether the bytes between the quotes are the text.
    #[inline]
    pub(super) const fn is_plain(self) -> bool {
        self.ascii && !self.escaped
    }
}

/// The first position from `at` that is not white space.
#[inline]
pub(super) fn space(b: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = b.get(at) {
        at += 1;
    }
    at
}

/// Checks the value at `at`, which may hold `room` more levels, and returns where it ends.
pub(super) fn skip(b: &[u8], mut at: usize, room: usize, limit: usize) -> Result<usize, Fault> {
    let mut maps = 0_u128;
    let mut depth = 0;
    loop {
        match b.get(at) {
            Some(b'"') => at = string(b, at)?,
            Some(&open @ (b'{' | b'[')) => {
                if depth == room.min(DEPTH) {
                    return Err(Fault::TooDeep { limit });
                }
                at = space(b, at + 1);
                // `{` and `}` are two apart, and so are `[` and `]`.
                if b.get(at) == Some(&(open + 2)) {
                    at += 1;
                } else {
                    depth += 1;
                    maps = (maps << 1) | u128::from(open == b'{');
                    if open == b'{' {
                        at = key(b, at)?;
                    }
                    continue;
                }
            }
            _ => at = scalar(b, at)?,
        }
        while depth > 0 {
            at = space(b, at);
            let map = maps & 1 == 1;
            match b.get(at) {
                Some(b',') => {
                    at = space(b, at + 1);
                    if map {
                        at = key(b, at)?;
                    }
                    break;
                }
                Some(b'}') if map => {}
                Some(b']') if !map => {}
                _ => return Err(Fault::syntax(at, "expected a comma or the end of a container")),
            }
            at += 1;
            depth -= 1;
            maps >>= 1;
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

/// A key and its colon: returns where the value begins.
#[inline]
pub(super) fn key(b: &[u8], at: usize) -> Result<usize, Fault> {
    if b.get(at) != Some(&b'"') {
        return Err(Fault::syntax(at, "expected a key in quotes"));
    }
    colon(b, string(b, at)?)
}

/// The colon after a key: returns where the value begins.
#[inline]
pub(super) fn colon(b: &[u8], at: usize) -> Result<usize, Fault> {
    let at = space(b, at);
    match b.get(at) {
        Some(b':') => Ok(space(b, at + 1)),
        _ => Err(Fault::syntax(at, "expected a colon")),
    }
}

/// Checks a value that holds no others and is no string.
#[inline]
pub(super) fn scalar(b: &[u8], at: usize) -> Result<usize, Fault> {
    match b.get(at) {
        Some(b'-' | b'0'..=b'9') => number(b, at),
        Some(b't') => word(b, at, b"true"),
        Some(b'f') => word(b, at, b"false"),
        Some(b'n') => word(b, at, b"null"),
        Some(_) => Err(Fault::syntax(at, "expected a value")),
        None => Err(Fault::syntax(at, "the text ends where a value is expected")),
    }
}

/// One of the three words.
pub(super) fn word(b: &[u8], at: usize, word: &[u8]) -> Result<usize, Fault> {
    if b[at..].starts_with(word) {
        Ok(at + word.len())
    } else {
        Err(Fault::syntax(at, "expected true, false or null"))
    }
}

/// Checks a number and returns where it ends.
#[inline]
pub(super) fn number(b: &[u8], start: usize) -> Result<usize, Fault> {
    if let Some(b'1'..=b'9') = b.get(start) {
        let end = digits(b, start + 1);
        if !matches!(b.get(end), Some(b'.' | b'e' | b'E')) {
            return Ok(end);
        }
    }
    any_number(b, start)
}

fn any_number(b: &[u8], start: usize) -> Result<usize, Fault> {
    let mut at = start + usize::from(b[start] == b'-');
    at = match b.get(at) {
        Some(b'0') => at + 1,
        Some(b'1'..=b'9') => digits(b, at + 1),
        _ => return Err(Fault::syntax(at, "expected a digit")),
    };
    if b.get(at) == Some(&b'.') {
        at = some_digits(b, at + 1)?;
    }
    if let Some(b'e' | b'E') = b.get(at) {
        let sign = matches!(b.get(at + 1), Some(b'+' | b'-'));
        at = some_digits(b, at + 1 + usize::from(sign))?;
    }
    Ok(at)
}

#[inline]
fn digits(b: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = b.get(at) {
        at += 1;
    }
    at
}

fn some_digits(b: &[u8], at: usize) -> Result<usize, Fault> {
    match b.get(at) {
        Some(b'0'..=b'9') => Ok(digits(b, at + 1)),
        _ => Err(Fault::syntax(at, "expected a digit")),
    }
}

/// A number that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Float(f64),
}

/// Reads a number as most are written: fifteen digits at most, and no exponent. It is exact, since
/// both its digits and the power of ten they are divided by are.
#[inline]
pub(super) fn short_number(b: &[u8], start: usize) -> Option<(Number, usize)> {
    const TENS: [f64; 15] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14];
    let negative = b.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let (mut at, mut sum) = (first, 0_u64);
    let mut digits = |at: &mut usize| {
        while let Some(&digit @ b'0'..=b'9') = b.get(*at) {
            sum = sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            *at += 1;
        }
        sum
    };
    let mut number = digits(&mut at);
    let whole = at - first;
    let leading = whole > 1 && b[first] == b'0';
    let mut places = 0;
    let point = b.get(at) == Some(&b'.');
    if point {
        at += 1;
        number = digits(&mut at);
        places = at - first - whole - 1;
    }
    let short = whole > 0 && whole + places < 16 && !leading && (places > 0 || !point);
    if !short || matches!(b.get(at), Some(b'e' | b'E')) {
        return None;
    }
    if point {
        let float = number as f64 / TENS[places];
        return Some((Number::Float(if negative { -float } else { float }), at));
    }
    let number = number as i64;
    match (negative, number) {
        // A whole number has no negative zero.
        (true, 0) => None,
        (true, _) => Some((Number::Whole(-number), at)),
        (false, _) => Some((Number::Whole(number), at)),
    }
}

/// Checks the string whose opening quote is at `at` and returns where it ends.
#[inline]
pub(super) fn string(b: &[u8], at: usize) -> Result<usize, Fault> {
    text(b, at).map(|text| text.end)
}

/// The same, and what it is like.
#[inline]
pub(super) fn text(b: &[u8], at: usize) -> Result<Text, Fault> {
    let text = scan(b, at)?;
    if !text.ascii {
        utf8(b, at + 1, text.end - 1)?;
    }
    Ok(text)
}

/// Finds the end of the string whose opening quote is at `start`; leaves UTF-8 to the caller.
#[inline]
pub(super) fn scan(b: &[u8], start: usize) -> Result<Text, Fault> {
    let (mut at, mut escaped, mut seen) = (start + 1, false, 0_u64);
    loop {
        let Some(word) = b.get(at..).and_then(<[u8]>::first_chunk) else {
            return scan_tail(b, at, escaped, seen);
        };
        let word = u64::from_le_bytes(*word);
        let hits = special(word);
        seen |= word;
        if hits == 0 {
            at += 8;
            (at, seen) = plain_run(b, at, seen);
            continue;
        }
        at += (hits.trailing_zeros() / 8) as usize;
        match b[at] {
            b'"' => return Ok(Text { end: at + 1, escaped, ascii: seen & HIGH == 0 }),
            b'\\' => at = escape(b, at)?,
            _ => return Err(Fault::syntax(at, "a control character in a string")),
        }
        escaped = true;
    }
}

/// The last bytes of the text, one by one.
fn scan_tail(b: &[u8], mut at: usize, mut escaped: bool, mut seen: u64) -> Result<Text, Fault> {
    loop {
        match b.get(at) {
            Some(b'"') => return Ok(Text { end: at + 1, escaped, ascii: seen & HIGH == 0 }),
            Some(b'\\') => {
                at = escape(b, at)?;
                escaped = true;
            }
            Some(0..0x20) => return Err(Fault::syntax(at, "a control character in a string")),
            Some(&byte) => {
                seen |= u64::from(byte);
                at += 1;
            }
            None => return Err(Fault::syntax(at, "a string without an end")),
        }
    }
}

/// Steps over whole blocks of plain characters. Written so that the compiler makes vectors of it.
#[inline]
fn plain_run(b: &[u8], mut at: usize, mut seen: u64) -> (usize, u64) {
    while let Some(block) = b.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        let mut stop = false;
        let mut bits = 0_u8;
        for &byte in block {
            stop |= byte < 0x20 || byte == b'"' || byte == b'\\';
            bits |= byte;
        }
        if stop {
            break;
        }
        seen |= u64::from(bits);
        at += 32;
    }
    (at, seen)
}

/// A high bit for each byte that ends a run of plain characters; exact up to the first.
#[inline]
const fn special(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let slash = slash.wrapping_sub(ONES) & !slash;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | slash | control) & HIGH
}

/// The escape whose backslash is at `at`: returns where it ends.
fn escape(b: &[u8], at: usize) -> Result<usize, Fault> {
    match b.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match b.get(at + 2..at + 6) {
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            _ => Err(Fault::syntax(at, "expected four hexadecimal digits")),
        },
        _ => Err(Fault::syntax(at, "an escape that JSON does not have")),
    }
}

/// Bytes that must be UTF-8.
pub(super) fn utf8(b: &[u8], start: usize, end: usize) -> Result<&str, Fault> {
    std::str::from_utf8(&b[start..end])
        .map_err(|error| Fault::syntax(start + error.valid_up_to(), "not UTF-8"))
}

/// Reads the string at `at`: its text, where it ends, and whether all of it is Unicode.
///
/// A lone surrogate stands as U+FFFD in the text.
pub(super) fn read(b: &[u8], at: usize) -> Result<(Cow<'_, str>, usize, bool), Fault> {
    let text = scan(b, at)?;
    let raw = utf8(b, at + 1, text.end - 1)?;
    if !text.escaped {
        return Ok((Cow::Borrowed(raw), text.end, true));
    }
    let (plain, whole) = unescape(raw);
    Ok((Cow::Owned(plain), text.end, whole))
}

/// The text behind the escapes of `raw`, which [`scan`] has checked.
fn unescape(raw: &str) -> (String, bool) {
    let mut text = String::with_capacity(raw.len());
    let (mut rest, mut whole) = (raw, true);
    while let Some(slash) = memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..slash]);
        let letter = rest.as_bytes()[slash + 1];
        rest = &rest[slash + 2..];
        match letter {
            b'b' => text.push('\u{8}'),
            b'f' => text.push('\u{c}'),
            b'n' => text.push('\n'),
            b'r' => text.push('\r'),
            b't' => text.push('\t'),
            b'u' => {
                let (unit, used) = code_point(rest);
                whole &= unit.is_some();
                text.push(unit.unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = &rest[used..];
            }
            other => text.push(char::from(other)),
        }
    }
    text.push_str(rest);
    (text, whole)
}

/// What the digits after `\u` stand for, and how many bytes they and a second half take.
fn code_point(rest: &str) -> (Option<char>, usize) {
    let unit = |at: usize| -> Option<u32> {
        let hex: &[u8; 4] = rest.as_bytes().get(at..)?.first_chunk()?;
        hex.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
    };
    let Some(first) = unit(0) else { return (None, 0) };
    if let Some(plain) = char::from_u32(first) {
        return (Some(plain), 4);
    }
    if first < 0xDC00
        && rest[4..].starts_with("\\u")
        && let Some(second @ 0xDC00..0xE000) = unit(6)
    {
        let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(scalar), 10);
    }
    (None, 4)
}

/// Appends `text` as a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let stop = plain(rest);
        out.extend_from_slice(&rest[..stop]);
        let Some(&byte) = rest.get(stop) else { break };
        match byte {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = &rest[stop + 1..];
    }
    out.push(b'"');
}

/// How many bytes `b` begins with that stand in a string as they are.
#[inline]
fn plain(b: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = b.get(at..).and_then(<[u8]>::first_chunk) {
        let hits = special(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        (at, _) = plain_run(b, at + 8, 0);
    }
    let stops = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    b[at..].iter().position(stops).map_or(b.len(), |tail| at + tail)
}

/// Appends a whole number.
pub fn put_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a whole number with its sign.
pub fn put_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    put_u64(out, number.unsigned_abs());
}

/// Appends the shortest text that reads back as the same float, always with a point or exponent.
///
/// JSON has no infinity and no NaN: those are refused by the caller.
pub fn put_f64(out: &mut Vec<u8>, number: f64) {
    debug_assert!(number.is_finite());
    // Writing into memory cannot fail.
    let _ = write!(out, "{number:?}");
}
