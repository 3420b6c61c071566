//! Frames of a session as bytes: a first byte that tells the layout, then bincode 1.3.3 (little
//! endian, fixed width) of a [`Frame`], compressed where that makes it smaller.

use std::sync::Arc;

use bincode::{DefaultOptions, Options};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use mpreg_patterns::base::limits::FRAME_BYTES;
use mpreg_patterns::federation::Message;
use mpreg_patterns::federation::links::{Frame, weight};

/// The first byte of a frame as it is.
const PLAIN: u8 = 1;
/// The first byte of one that is compressed: its size as four bytes, then a block of LZ4.
const PACKED: u8 = 2;
/// Before the block.
const PACKED_HEAD: usize = 5;
/// What a frame without messages takes.
const HEAD: usize = 128;
/// Smaller frames are not worth compressing.
const PACK_BYTES: usize = 1 << 10;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoFrame(&'static str);

impl NoFrame {
    /// A message of several frames.
    pub(super) const PARTS: Self = Self("more than one frame at once");
}

fn options() -> impl Options {
    DefaultOptions::new().with_fixint_encoding().with_limit(FRAME_BYTES as u64)
}

/// About how much there is to write.
fn size_of_messages(frame: &Frame<Arc<Message>>) -> usize {
    match frame {
        Frame::Messages { messages, .. } => messages.iter().map(|message| weight(message)).sum(),
        _ => 0,
    }
}

/// Writes a frame. None where it is larger than any may be.
#[must_use]
pub fn encode(frame: &Frame<Arc<Message>>, packs: bool) -> Option<Vec<u8>> {
    // A vector that grows moves what is in it, and such sizes come from the system each time.
    let mut bytes = Vec::with_capacity(HEAD + size_of_messages(frame));
    bytes.push(PLAIN);
    options().serialize_into(&mut bytes, frame).ok()?;
    if packs && bytes.len() > PACK_BYTES {
        return Some(pack(&bytes[1..]).unwrap_or(bytes));
    }
    Some(bytes)
}

/// The same compressed, if that is smaller.
fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    let mut packed = vec![0; PACKED_HEAD + get_maximum_output_size(plain.len())];
    packed[0] = PACKED;
    packed[1..PACKED_HEAD].copy_from_slice(&u32::try_from(plain.len()).ok()?.to_le_bytes());
    let bytes = compress_into(plain, &mut packed[PACKED_HEAD..]).ok()?;
    packed.truncate(PACKED_HEAD + bytes);
    (bytes < plain.len()).then_some(packed)
}

/// Reads a frame. Whatever the bytes are, no more memory is taken than a frame may have.
pub fn decode(bytes: &[u8]) -> Result<Frame, NoFrame> {
    match bytes.split_first() {
        Some((&PLAIN, plain)) => read(plain),
        Some((&PACKED, packed)) => read(&unpack(packed)?),
        _ => Err(NoFrame("a frame begins with its layout")),
    }
}

fn read(plain: &[u8]) -> Result<Frame, NoFrame> {
    options().deserialize(plain).map_err(|_| NoFrame("a frame cannot be read"))
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, NoFrame> {
    let (size, block) = packed.split_first_chunk().ok_or(NoFrame("a frame has no size"))?;
    let size = u32::from_le_bytes(*size) as usize;
    // LZ4 makes nothing more than 255 times as small.
    if size > FRAME_BYTES || size / 256 > block.len() {
        return Err(NoFrame("a frame says that it is larger than it can be"));
    }
    let mut plain = vec![0; size];
    match decompress_into(block, &mut plain) {
        Ok(bytes) if bytes == size => Ok(plain),
        _ => Err(NoFrame("a frame cannot be decompressed")),
    }
}

#[cfg(test)]
mod tests;
