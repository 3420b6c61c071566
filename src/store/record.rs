//! A message as bytes on disk, with a checksum over all of it and over where it stands.
//!
//! A fixed head, then topic, headers, payload, key, reason and note, one after the other. Numbers
//! are little-endian.

use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::base::RunId;
use mpreg_patterns::ops::Event;
use mpreg_patterns::store::{Death, Message, Place};
use mpreg_patterns::values::{Kind, Value};
use smol_str::SmolStr;

/// Of this layout. Another one's records are not read.
const VERSION: u8 = 1;
/// Bytes before the topic.
pub(super) const HEAD: usize = 76;
/// Where the checksum stands in the head.
const SUM: std::ops::Range<usize> = 4..8;
const NO_EXPIRY: u64 = u64::MAX;

const HAS_KEY: u8 = 1;
const HAS_HEADERS: u8 = 2;
const HAS_DEATH: u8 = 4;

/// Where a lane's messages stand in the tree. A lane that is cleared gets another shelf.
pub(super) type Shelf = u64;

/// A record's key in the tree: shelf, time and number, big-endian, so that they sort.
pub(super) type Key = [u8; 24];

/// The key of a message.
pub(super) fn key(shelf: Shelf, at_ms: u64, seq: u64) -> Key {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&shelf.to_be_bytes());
    key[8..16].copy_from_slice(&at_ms.to_be_bytes());
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Shelf, time and number. Nothing for what is no key.
pub(super) fn read_key(key: &[u8]) -> Option<(Shelf, u64, u64)> {
    let key: &Key = key.try_into().ok()?;
    let number = |at: usize| u64_at(key, at).swap_bytes();
    Some((number(0), number(8), number(16)))
}

/// The record of a message, written over what is in `to`.
pub(super) fn encode(key: &Key, place: &Place, message: &Message, to: &mut Vec<u8>) {
    let event = &*message.event;
    let (headers, death) = (event.headers.as_ref(), message.death.as_deref());
    let parts: [&[u8]; 6] = [
        event.topic.as_bytes(),
        headers.map_or(&[], |headers| &headers.bytes),
        &event.payload.bytes,
        message.key.as_ref().map_or(&[], |key| key.as_bytes()),
        death.map_or(&[], |death| death.reason.as_bytes()),
        death.map_or(&[], |death| death.note.as_bytes()),
    ];
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    let flags = flag(message.key.is_some(), HAS_KEY)
        | flag(headers.is_some(), HAS_HEADERS)
        | flag(death.is_some(), HAS_DEATH)
        | (headers.map_or(0, |headers| headers.kind as u8) << 4)
        | ((event.payload.kind as u8) << 6);
    to.clear();
    to.extend_from_slice(&[VERSION, flags, message.priority, place.lane, 0, 0, 0, 0]);
    to.extend_from_slice(&place.line.to_le_bytes());
    to.extend_from_slice(&message.attempts.to_le_bytes());
    to.extend_from_slice(&(message.bytes() as u64).to_le_bytes());
    to.extend_from_slice(&message.expires_ms.unwrap_or(NO_EXPIRY).to_le_bytes());
    to.extend_from_slice(&{ event.message.0 }.to_le_bytes());
    to.extend_from_slice(&[0; 4]);
    for part in parts {
        to.extend_from_slice(&(part.len() as u32).to_le_bytes());
    }
    for part in parts {
        to.extend_from_slice(part);
    }
    let sum = checksum(key, to);
    to[SUM].copy_from_slice(&sum.to_le_bytes());
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// Of which line it was.
    pub(super) line: u32,
    /// And which lane.
    pub(super) lane: u8,
    /// The message.
    pub(super) message: Arc<Message>,
}

/// Reads a record. Nothing where a bit of it, or of its key, is not as it was written.
pub(super) fn decode(key: &[u8], record: &[u8]) -> Option<Record> {
    if record.len() < HEAD || record[0] != VERSION || u32_at(record, 4) != checksum(key, record) {
        return None;
    }
    // One copy out of the map; headers and payload are parts of it.
    let all = Bytes::copy_from_slice(record);
    let flags = record[1];
    let mut at = HEAD;
    let mut parts = [const { Bytes::new() }; 6];
    for (index, part) in parts.iter_mut().enumerate() {
        let end = at.checked_add(u32_at(record, HEAD - 24 + index * 4) as usize)?;
        if end > all.len() {
            return None;
        }
        *part = all.slice(at..end);
        at = end;
    }
    let [topic, headers, payload, key, reason, note] = parts;
    let event = Event {
        topic: text(&topic)?.into(),
        payload: Value::new(kind(flags >> 6)?, payload),
        headers: match flags & HAS_HEADERS {
            0 => None,
            _ => Some(Value::new(kind((flags >> 4) & 3)?, headers)),
        },
        message: RunId(u128_at(record, 32)),
    };
    let death = match flags & HAS_DEATH {
        0 => None,
        _ => Some(Box::new(Death { reason: text(&reason)?.into(), note: text(&note)?.into() })),
    };
    let message = Message {
        event: Arc::new(event),
        key: if flags & HAS_KEY == 0 { None } else { Some(SmolStr::new(text(&key)?)) },
        priority: record[2],
        attempts: u32_at(record, 12),
        expires_ms: Some(u64_at(record, 24)).filter(|&at| at != NO_EXPIRY),
        death,
    };
    Some(Record { line: u32_at(record, 8), lane: record[3], message: Arc::new(message) })
}

/// What the message counted for when it was written, bytes. Where that cannot be, since the record
/// is damaged, the record's own length.
pub(super) fn load_bytes(record: &[u8]) -> u64 {
    /// More than the types of a message take in memory beside what they hold.
    const BESIDE: u64 = 4_096;
    let length = record.len() as u64;
    if record.len() < HEAD {
        return length;
    }
    let claimed = u64_at(record, 16);
    if claimed.abs_diff(length) <= BESIDE { claimed } else { length }
}

fn checksum(key: &[u8], record: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(&record[..SUM.start]);
    sum.update(&record[SUM.end..]);
    sum.finalize()
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

const fn kind(number: u8) -> Option<Kind> {
    match number {
        0 => Some(Kind::Bytes),
        1 => Some(Kind::Json),
        2 => Some(Kind::MsgPack),
        _ => None,
    }
}

/// The numbers at `at`, which the caller knows to be within `bytes`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::Bytes, Kind::Json, Kind::MsgPack])
    }

    fn values() -> impl Strategy<Value = Value> {
        (kinds(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(kind, bytes)| Value::new(kind, bytes.into()))
    }

    fn deaths() -> impl Strategy<Value = Box<Death>> {
        (".{0,20}", ".{0,60}")
            .prop_map(|(reason, note)| Box::new(Death { reason: reason.into(), note: note.into() }))
    }

    prop_compose! {
        fn messages()(
            topic in ".{0,40}", payload in values(), headers in prop::option::of(values()),
            id in any::<u128>(), key in prop::option::of(".{0,30}"), priority in 0..10_u8,
            attempts in any::<u32>(), expires_ms in prop::option::of(0..u64::MAX),
            death in prop::option::of(deaths()),
        ) -> Message {
            let topic = topic.into();
            let event = Event { topic, payload, headers, message: RunId(id) };
            let key = key.map(SmolStr::from);
            Message { event: Arc::new(event), key, priority, attempts, expires_ms, death }
        }
    }

    fn places() -> impl Strategy<Value = Place> {
        let numbers = (any::<u32>(), 0..12_u8, any::<u64>(), any::<u64>());
        numbers.prop_map(|(line, lane, at_ms, seq)| Place { line, lane, at_ms, seq })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(shelf: u64, place in places(), message in messages()) {
            let key = key(shelf, place.at_ms, place.seq);
            let mut bytes = Vec::new();
            encode(&key, &place, &message, &mut bytes);
            prop_assert_eq!(load_bytes(&bytes), message.bytes() as u64);
            prop_assert_eq!(read_key(&key), Some((shelf, place.at_ms, place.seq)));
            let Place { line, lane, .. } = place;
            let record = Record { line, lane, message: Arc::new(message) };
            prop_assert_eq!(decode(&key, &bytes), Some(record));
        }

        #[test]
        fn any_bytes_can_be_asked(key in any::<Key>(), bytes: Vec<u8>) {
            prop_assert_eq!(decode(&key, &bytes), None);
            load_bytes(&bytes);
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let payload = Value::json(r#"{"n":1}"#);
        let event = Event { topic: "a.b".into(), payload, headers: None, message: RunId(7) };
        let message = Message {
            event: Arc::new(event),
            key: Some("k".into()),
            priority: 4,
            attempts: 2,
            expires_ms: None,
            death: None,
        };
        let place = Place { line: 1, lane: 5, at_ms: 0, seq: 3 };
        let key = key(1, place.at_ms, place.seq);
        let mut record = Vec::new();
        encode(&key, &place, &message, &mut record);
        let whole: Vec<u8> = key.iter().chain(&record).copied().collect();
        assert!(decode(&whole[..24], &whole[24..]).is_some());
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped[..24], &flipped[24..]), None, "bit {bit}");
        }
        for length in 0..record.len() {
            assert_eq!(decode(&key, &record[..length]), None, "cut to {length}");
        }
    }
}
