//! Payloads: what is stored of a value that was sent with a message of its own.

use super::compact::compact;
use super::compose::compose;
use super::fault::Fault;
use super::tags::{Mode, What, find};
use super::{Body, Frames, Kind, Value, msgpack};

/// The stored form of a payload: compact JSON text, or the bytes of the attachment it is.
///
/// `frames` are the attachments of the message, in which alone `$frame` and `$lit` are tags. A
/// payload may be an attachment or bytes of MessagePack, but not hold any: [`Fault::BadFrame`].
pub fn payload(value: Value, frames: &Frames) -> Result<Value, Fault> {
    if value.kind == Kind::Bytes {
        return Ok(value);
    }
    if let Some(bytes) = msgpack::whole_bytes(&value) {
        return Ok(Value::new(Kind::Bytes, bytes));
    }
    if frames.is_empty() {
        return compact(value);
    }
    let marks = find(&value, Mode::FramesOnly, &mut |_| None)?;
    if let [mark] = &marks[..]
        && let What::Frame(number) = mark.what
        && mark.range() == (0..value.bytes.len())
    {
        let frame = (number as usize).checked_sub(1).and_then(|index| frames.get(index));
        let absent = || Fault::BadFrame(format!("frame {number} did not come").into());
        return Ok(Value::new(Kind::Bytes, frame.ok_or_else(absent)?.clone()));
    }
    if marks.iter().any(|mark| mark.frame().is_some()) {
        return Err(Fault::BadFrame("a payload is an attachment or holds none".into()));
    }
    let none = Body::plain(Value::null());
    compact(compose(&value, &marks, frames, &mut |_| &none, false, &mut Frames::new())?)
}
