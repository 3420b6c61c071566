use bytes::Bytes;
use mpreg_patterns::federation::links::{Bye, Hello, Nonce, Resume};
use mpreg_patterns::federation::{Cargo, Life, Packet, Spread, Talk};
use proptest::prelude::*;

use super::*;

fn messages(body: &'static [u8]) -> Frame<Arc<Message>> {
    let from = Life { node: "a".into(), epoch: 7 };
    let to = Life { node: "b".into(), epoch: 8 };
    let talk = Talk { mine: 1, yours: 2 };
    let cargo = Cargo::Envelope {
        talk,
        seq: 1,
        body: Bytes::from_static(body),
        frames: vec![Bytes::new()],
    };
    let path = vec!["a".into()];
    let packet = Packet { from: from.clone(), to, path: path.clone(), cargo };
    let spread = Spread {
        from,
        to: vec![("b".into(), 3)],
        path,
        topic: "t.u".into(),
        kind: 1,
        payload: Bytes::from_static(b"5"),
        headers: None,
        message: 9,
    };
    let messages = vec![Arc::new(Message::Packet(packet)), Arc::new(Message::Spread(spread))];
    Frame::Messages { first: 5, ack: 4, messages }
}

fn plain(frame: &Frame<Arc<Message>>) -> Frame {
    let bytes = bincode::serialize(frame).expect("a frame can be written");
    bincode::deserialize(&bytes).expect("and read")
}

#[test]
fn large_frames_are_compressed_where_that_helps() {
    static SAME: [u8; 100_000] = [7; 100_000];
    let frame = messages(&SAME);
    let packed = encode(&frame, true).unwrap();
    assert!(packed[0] == PACKED && packed.len() < 2_000);
    assert_eq!(encode(&frame, false).unwrap()[0], PLAIN);
    assert_eq!(decode(&packed).unwrap(), plain(&frame));
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let frame = messages(Box::leak(noise.into_boxed_slice()));
    assert_eq!(decode(&encode(&frame, true).unwrap()).unwrap(), plain(&frame));
}

#[test]
fn what_says_it_is_huge_takes_no_memory() {
    let mut bomb = vec![PACKED];
    bomb.extend(u32::MAX.to_le_bytes());
    bomb.extend([0; 100]);
    assert!(decode(&bomb).is_err());
    bomb[1..5].copy_from_slice(&(60_u32 << 20).to_le_bytes());
    assert!(decode(&bomb).is_err());
    // A list of messages that says it is longer than memory.
    let mut list = vec![PLAIN, 1, 0, 0, 0];
    list.extend([0; 16]);
    list.extend(u64::MAX.to_le_bytes());
    assert!(decode(&list).is_err());
}

fn samples() -> Vec<(&'static str, Frame<Arc<Message>>)> {
    let life = Life { node: "a".into(), epoch: 7 };
    let resume = Some(Resume { began: Nonce(9), received: 3 });
    let hello = Hello { nonce: Nonce(0x0123_4567_89AB_CDEF), life, resume };
    vec![
        ("hello", Frame::Hello(hello.clone())),
        ("hello anew", Frame::Hello(Hello { resume: None, ..hello })),
        ("messages", messages(b"{}")),
        ("ack", Frame::Messages { first: 0, ack: 9, messages: Vec::new() }),
        ("ping", Frame::Ping(1)),
        ("pong", Frame::Pong(1)),
        ("bye", Frame::Bye(Bye::Draining)),
    ]
}

/// `MPREG_GOLDEN=write cargo test` writes the file anew: only for a new layout.
#[test]
fn frames_are_as_they_were() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<String> = samples()
        .iter()
        .map(|(name, frame)| format!("{name}: {}\n", hex(encode(frame, false).unwrap())))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/frames.txt");
    if std::env::var_os("MPREG_GOLDEN").is_some_and(|wish| wish == "write") {
        std::fs::write(path, lines.concat()).unwrap();
    }
    assert_eq!(lines.concat(), std::fs::read_to_string(path).unwrap());
}

proptest! {
    #[test]
    fn no_bytes_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        layout in 0_u8..4,
        kind in 0_u8..6,
    ) {
        let framed = [&[layout, kind, 0, 0, 0][..], &bytes].concat();
        let _ = decode(&framed);
        let _ = decode(&bytes);
    }

    /// A frame that is cut or changed is none, or another one.
    #[test]
    fn no_change_harms(at in 0_usize..400, byte in any::<u8>(), packs in any::<bool>()) {
        static SAME: [u8; 2_000] = [7; 2_000];
        for (_, frame) in samples().into_iter().chain([("large", messages(&SAME))]) {
            let mut bytes = encode(&frame, packs).unwrap();
            prop_assert_eq!(&decode(&bytes).unwrap(), &plain(&frame));
            let at = at % bytes.len();
            prop_assert!(decode(&bytes[..at]).is_err());
            bytes[at] = byte;
            let _ = decode(&bytes);
        }
    }
}
