//! Several frames as one: what a WebSocket peer says and hears where ZeroMQ has frames.
//!
//! The byte 0x02, then for each frame a `u32` length (little endian) and its bytes. The first is
//! the envelope, the others are its attachments. A message without attachments stands alone.

use bytes::{Bytes, BytesMut};

use crate::router::FRAMES_KEPT;

/// The first byte of a message in this layout.
pub const FIRST: u8 = 2;

/// Envelope and attachments in one piece. No copy is made where there are no attachments.
#[must_use]
pub fn join(body: Bytes, frames: &[Bytes]) -> Bytes {
    if frames.is_empty() {
        return body;
    }
    let all = std::iter::once(&body).chain(frames);
    let bytes = all.clone().map(|frame| 4 + frame.len()).sum::<usize>();
    let mut whole = BytesMut::with_capacity(1 + bytes);
    whole.extend_from_slice(&[FIRST]);
    for frame in all {
        whole.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        whole.extend_from_slice(frame);
    }
    whole.freeze()
}

/// Envelope and attachments, as slices of the piece they came in. One that does not add up comes
/// back whole: no decoder takes its first byte.
pub fn split(whole: Bytes) -> Result<(Bytes, Vec<Bytes>), Bytes> {
    if whole.first() != Some(&FIRST) {
        return Ok((whole, Vec::new()));
    }
    let mut frames = Vec::new();
    let mut rest = whole.slice(1..);
    while let Some(length) = rest.first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let mut frame = rest.split_off(4);
        if frame.len() < length {
            return Err(whole);
        }
        rest = frame.split_off(length);
        if frames.len() <= FRAMES_KEPT {
            frames.push(frame);
        }
    }
    if frames.is_empty() || !rest.is_empty() {
        return Err(whole);
    }
    let body = frames.remove(0);
    Ok((body, frames))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(parts: &[&[u8]]) -> Bytes {
        let parts: Vec<Bytes> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
        join(parts[0].clone(), &parts[1..])
    }

    /// The bytes every language must agree on.
    #[test]
    fn the_bytes_are_what_they_were() {
        assert_eq!(&whole(&[b"{}"])[..], b"{}");
        assert_eq!(&whole(&[b"{}", b"abc", b""])[..], b"\x02\x02\0\0\0{}\x03\0\0\0abc\0\0\0\0");
    }

    #[rstest::rstest]
    #[case::nothing(b"\x02")]
    #[case::half_a_length(b"\x02\x01\0")]
    #[case::too_short(b"\x02\x05\0\0\0{}")]
    #[case::the_last_too_short(b"\x02\x02\0\0\0{}\xff\xff\xff\xffa")]
    fn what_does_not_add_up_comes_back(#[case] bytes: &[u8]) {
        let whole = Bytes::copy_from_slice(bytes);
        assert_eq!(split(whole.clone()), Err(whole));
    }

    #[test]
    fn of_too_many_parts_enough_are_kept_to_be_refused() {
        let whole = Bytes::from([&[FIRST][..], &[0; 4 * 2_000]].concat());
        assert_eq!(split(whole).map(|(_, frames)| frames.len()), Ok(FRAMES_KEPT));
    }

    proptest! {
        #[test]
        fn what_is_joined_is_split_again(
            mut body in prop::collection::vec(any::<u8>(), 1..20),
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4),
        ) {
            body[0] = b'{';
            let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
            let body = Bytes::from(body);
            prop_assert_eq!(split(join(body.clone(), &frames)), Ok((body, frames)));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = split([&[FIRST][..], &bytes].concat().into());
        }
    }
}
