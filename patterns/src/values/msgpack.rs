//! MessagePack, by position: heads, lengths and checks, and nothing built.

use bytes::Bytes;

use super::fault::Fault;
use super::{Kind, Value};

/// What the byte at a value's start says about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Head {
    Null {
        end: usize,
    },
    Bool {
        end: usize,
        is: bool,
    },
    Unsigned {
        end: usize,
        is: u64,
    },
    /// Below zero.
    Signed {
        end: usize,
        is: i64,
    },
    Float {
        end: usize,
        is: f64,
    },
    Text {
        start: usize,
        end: usize,
    },
    Bin {
        start: usize,
        end: usize,
    },
    Ext {
        end: usize,
    },
    Array {
        start: usize,
        items: u32,
    },
    Map {
        start: usize,
        pairs: u32,
    },
}

const SHORT: &str = "the bytes end inside a value";

fn fixed<const N: usize>(b: &[u8], at: usize) -> Result<[u8; N], Fault> {
    match b.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => Ok(*bytes),
        None => Err(Fault::syntax(b.len(), SHORT)),
    }
}

/// The big-endian number of 1, 2, 4 or 8 bytes at `at`.
fn number(b: &[u8], at: usize, width: usize) -> Result<u64, Fault> {
    Ok(match width {
        1 => u64::from(u8::from_be_bytes(fixed(b, at)?)),
        2 => u64::from(u16::from_be_bytes(fixed(b, at)?)),
        4 => u64::from(u32::from_be_bytes(fixed(b, at)?)),
        _ => u64::from_be_bytes(fixed(b, at)?),
    })
}

/// `length` bytes from `start`: where they end.
#[inline]
fn run(b: &[u8], start: usize, length: u64) -> Result<usize, Fault> {
    match usize::try_from(length).ok().and_then(|length| start.checked_add(length)) {
        Some(end) if end <= b.len() => Ok(end),
        _ => Err(Fault::syntax(b.len(), SHORT)),
    }
}

fn signed(is: i64, end: usize) -> Head {
    match u64::try_from(is) {
        Ok(is) => Head::Unsigned { end, is },
        Err(_) => Head::Signed { end, is },
    }
}

/// Reads the head of the value at `at`.
#[inline]
pub(super) fn head(b: &[u8], at: usize) -> Result<Head, Fault> {
    let Some(&first) = b.get(at) else {
        return Err(Fault::syntax(at, "the bytes end where a value is expected"));
    };
    let next = at + 1;
    Ok(match first {
        0x00..=0x7F => Head::Unsigned { end: next, is: u64::from(first) },
        0x80..=0x8F => Head::Map { start: next, pairs: u32::from(first & 0x0F) },
        0x90..=0x9F => Head::Array { start: next, items: u32::from(first & 0x0F) },
        0xA0..=0xBF => Head::Text { start: next, end: run(b, next, u64::from(first & 0x1F))? },
        0xE0..=0xFF => Head::Signed { end: next, is: i64::from(first as i8) },
        _ => return long_head(b, at, first),
    })
}

/// A head of more than one byte.
fn long_head(b: &[u8], at: usize, first: u8) -> Result<Head, Fault> {
    let next = at + 1;
    let width = |base: u8| 1_usize << (first - base);
    let body = |base: u8| -> Result<(usize, usize), Fault> {
        let start = next + width(base);
        Ok((start, run(b, start, number(b, next, width(base))?)?))
    };
    Ok(match first {
        0xC0 => Head::Null { end: next },
        0xC2 | 0xC3 => Head::Bool { end: next, is: first == 0xC3 },
        0xC4..=0xC6 => {
            let (start, end) = body(0xC4)?;
            Head::Bin { start, end }
        }
        0xC7..=0xC9 => {
            let start = next + width(0xC7) + 1;
            Head::Ext { end: run(b, start, number(b, next, width(0xC7))?)? }
        }
        0xCA => Head::Float { end: next + 4, is: f64::from(f32::from_be_bytes(fixed(b, next)?)) },
        0xCB => Head::Float { end: next + 8, is: f64::from_be_bytes(fixed(b, next)?) },
        0xCC..=0xCF => {
            let width = width(0xCC);
            Head::Unsigned { end: next + width, is: number(b, next, width)? }
        }
        0xD0 => signed(i64::from(i8::from_be_bytes(fixed(b, next)?)), next + 1),
        0xD1 => signed(i64::from(i16::from_be_bytes(fixed(b, next)?)), next + 2),
        0xD2 => signed(i64::from(i32::from_be_bytes(fixed(b, next)?)), next + 4),
        0xD3 => signed(i64::from_be_bytes(fixed(b, next)?), next + 8),
        0xD4..=0xD8 => Head::Ext { end: run(b, next + 1, width(0xD4) as u64)? },
        0xD9..=0xDB => {
            let (start, end) = body(0xD9)?;
            Head::Text { start, end }
        }
        0xDC => Head::Array { start: next + 2, items: number(b, next, 2)? as u32 },
        0xDD => Head::Array { start: next + 4, items: number(b, next, 4)? as u32 },
        0xDE => Head::Map { start: next + 2, pairs: number(b, next, 2)? as u32 },
        0xDF => Head::Map { start: next + 4, pairs: number(b, next, 4)? as u32 },
        _ => return Err(Fault::syntax(at, "a byte that MessagePack does not use")),
    })
}

/// Checks the value at `at`, which may hold `room` more levels, and returns where it ends.
pub(super) fn skip(b: &[u8], at: usize, room: usize, limit: usize) -> Result<usize, Fault> {
    match head(b, at)? {
        Head::Null { end }
        | Head::Bool { end, .. }
        | Head::Unsigned { end, .. }
        | Head::Signed { end, .. }
        | Head::Float { end, .. }
        | Head::Bin { end, .. }
        | Head::Ext { end } => Ok(end),
        Head::Text { start, end } => {
            if !b[start..end].is_ascii() {
                super::json::utf8(b, start, end)?;
            }
            Ok(end)
        }
        Head::Array { start, items } => skip_many(b, start, u64::from(items), room, limit),
        Head::Map { start, pairs } => skip_many(b, start, 2 * u64::from(pairs), room, limit),
    }
}

/// Checks `values` values in a row, the content of a container.
fn skip_many(
    b: &[u8],
    mut at: usize,
    values: u64,
    room: usize,
    limit: usize,
) -> Result<usize, Fault> {
    if room == 0 {
        return Err(Fault::TooDeep { limit });
    }
    for _ in 0..values {
        at = match b.get(at) {
            // Small numbers, null, the truth values, the empty string.
            Some(0x00..=0x7F | 0xA0 | 0xC0 | 0xC2 | 0xC3 | 0xE0..=0xFF) => at + 1,
            Some(0x80 | 0x90) if room > 1 => at + 1,
            _ => skip(b, at, room - 1, limit)?,
        };
    }
    Ok(at)
}

/// Appends a head whose length fits one, two or four bytes.
fn put_length(out: &mut Vec<u8>, length: usize, one: Option<u8>, two: u8, four: u8) {
    if let (Some(one), Ok(length)) = (one, u8::try_from(length)) {
        out.extend_from_slice(&[one, length]);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(two);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(four);
        out.extend_from_slice(&(length as u32).to_be_bytes());
    }
}

/// Appends a string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..32 => out.push(0xA0 | length as u8),
        length => put_length(out, length, Some(0xD9), 0xDA, 0xDB),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends the head of an array.
pub fn put_array(out: &mut Vec<u8>, items: usize) {
    match items {
        0..16 => out.push(0x90 | items as u8),
        _ => put_length(out, items, None, 0xDC, 0xDD),
    }
}

/// Appends the head of a map.
pub fn put_map(out: &mut Vec<u8>, pairs: usize) {
    match pairs {
        0..16 => out.push(0x80 | pairs as u8),
        _ => put_length(out, pairs, None, 0xDE, 0xDF),
    }
}

/// Appends a whole number in as few bytes as hold it.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, number: u64) {
    if number < 0x80 {
        out.push(number as u8);
    } else {
        put_large(out, number);
    }
}

fn put_large(out: &mut Vec<u8>, number: u64) {
    if let Ok(number) = u8::try_from(number) {
        out.extend_from_slice(&[0xCC, number]);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(0xCD);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(0xCE);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(0xCF);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a whole number with its sign in as few bytes as hold it.
#[inline]
pub fn put_i64(out: &mut Vec<u8>, number: i64) {
    if let Ok(number) = u64::try_from(number) {
        put_u64(out, number);
    } else if number >= -32 {
        out.push(number as u8);
    } else if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[0xD0, number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(0xD1);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(0xD2);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(0xD3);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a float in eight bytes.
pub fn put_f64(out: &mut Vec<u8>, number: f64) {
    out.push(0xCB);
    out.extend_from_slice(&number.to_be_bytes());
}

/// The bytes of a value of MessagePack that is bytes and nothing else.
#[must_use]
pub fn whole_bytes(value: &Value) -> Option<Bytes> {
    if value.kind != Kind::MsgPack {
        return None;
    }
    match head(&value.bytes, 0) {
        Ok(Head::Bin { start, end }) if end == value.bytes.len() => {
            Some(value.bytes.slice(start..end))
        }
        _ => None,
    }
}
