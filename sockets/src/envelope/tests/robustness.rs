//! Whatever comes in: items or one refusal, never a panic.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Frames that are right, in all encodings.
pub(super) fn frames_to_damage() -> Vec<Vec<u8>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/ops.json");
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut all = Vec::new();
    let mut texts = Vec::new();
    for case in cases.as_array().unwrap() {
        texts.push(case["json"].as_str().unwrap().to_owned());
        all.push(case["json"].as_str().unwrap().as_bytes().to_vec());
        all.push(unhex(case["msgpack"].as_str().unwrap()));
        all.extend(case["bincode"].as_str().map(unhex));
    }
    all.push(format!("[{}]", texts.join(",")).into_bytes());
    all.push(packed(&format!("[{}]", texts.join(","))));
    all
}

#[derive(Clone, Debug)]
pub(super) enum Damage {
    Set(Index, u8),
    Remove(Index, usize),
    Double(Index, usize),
    Cut(Index),
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), 1_usize..9).prop_map(|(at, bytes)| Damage::Remove(at, bytes)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, bytes)| Damage::Double(at, bytes)),
        any::<Index>().prop_map(Damage::Cut),
    ]
}

pub(super) fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for damage in all {
        if bytes.is_empty() {
            break;
        }
        let size = bytes.len();
        match damage {
            Damage::Set(at, byte) => bytes[at.index(size)] = *byte,
            Damage::Remove(at, count) => {
                let at = at.index(size);
                drop(bytes.drain(at..(at + count).min(size)));
            }
            Damage::Double(at, count) => {
                let at = at.index(size);
                bytes.extend_from_within(at..(at + count).min(size));
            }
            Damage::Cut(at) => bytes.truncate(at.index(size)),
        }
    }
    bytes
}

/// All items or none; of a bincode batch, those before the fault.
fn whole(body: &Bytes, decoded: Result<Decoded, Refusal>, items: u32) {
    match decoded {
        Ok(decoded) => assert_eq!(decoded.items, items),
        Err(_) => assert!(
            items == 0 || detect(body) == Some((Encoding::Bincode, true)),
            "{items} items before a refusal"
        ),
    }
}

/// Decodes both ways; what was taken can be sent on in every encoding, or is a fault.
pub(super) fn survives(bytes: Vec<u8>, frames: &Frames) {
    let body = Bytes::from(bytes);
    let limits = Limits::default();
    let mut items = 0;
    let decoded = decode(&body, frames.clone(), &limits, &mut |item| {
        items += 1;
        if let Ok(request) = item.result {
            for encoding in [Encoding::Json, Encoding::MsgPack, Encoding::Bincode] {
                let _ = lone(encoding, &request);
            }
        }
    });
    whole(&body, decoded, items);
    let mut items = 0;
    let decoded = decode_reply(&body, frames.clone(), &limits, &mut |item| {
        items += 1;
        if let Ok(reply) = item.result {
            for encoding in [Encoding::Json, Encoding::MsgPack, Encoding::Bincode] {
                if let Ok(message) = lone(encoding, &reply) {
                    let mut again = 0;
                    let sink = &mut |_| again += 1;
                    decode_reply(&message.body, message.frames, &limits, sink).unwrap();
                    assert_eq!(again, 1);
                }
            }
        }
    });
    whole(&body, decoded, items);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn damaged_frames_do_no_harm(
        which: Index, damage in prop::collection::vec(damage(), 0..5), attached in 0_usize..3,
    ) {
        thread_local!(static ALL: Vec<Vec<u8>> = frames_to_damage());
        let bytes = ALL.with(|all| all[which.index(all.len())].clone());
        survives(damaged(bytes, &damage), &frames(&["a", "b"][..attached]));
    }

    #[test]
    fn random_bytes_do_no_harm(
        first in prop::sample::select(&b"{[\x01\x80\x8f\x90\xdc\xde \x00"[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        survives([&[first][..], &bytes].concat(), &vec![]);
    }
}
