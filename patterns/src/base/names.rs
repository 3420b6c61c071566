//! What a name may be, the same wherever one comes in.

use super::limits::NAME_BYTES;
use super::refusal::cut;
use super::{Code, Refusal};

/// 1 to 255 bytes, no control character, and words parted by single dots.
#[inline]
#[must_use]
pub fn is_name(text: &str) -> bool {
    let mut word = false;
    for &byte in text.as_bytes() {
        if byte < 0x20 || byte == 0x7F || (byte == b'.' && !word) {
            return false;
        }
        word = byte != b'.';
    }
    word && text.len() <= NAME_BYTES && (text.is_ascii() || !text.chars().any(char::is_control))
}

/// Says that what stands in `field` is no name.
#[cold]
#[must_use]
pub fn no_name(field: &str, text: &str) -> Refusal {
    let message = format!("`{}` is no name", cut(text, NAME_BYTES).escape_debug());
    Refusal::field(Code::BadName, field, message)
}

/// Whether a loc, or a name of a step, has a length that is taken.
#[inline]
#[must_use]
pub const fn fits(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES
}
