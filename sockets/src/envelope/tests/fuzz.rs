//! One fuzz target for each decoder: damaged and random frames for `FUZZ_SECONDS` (1 if not set).
//!
//! The seed is printed, and `FUZZ_SEED` runs one again.

use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::robustness::{damage, damaged, frames_to_damage, survives};
use super::*;

/// Feeds a decoder with frames it takes for its own: right ones, damaged, and random bytes behind
/// a first byte of its.
fn fuzz(encoding: Encoding, first: &[u8]) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("FUZZ_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let own = |frame: &Vec<u8>| detect(frame).is_some_and(|(found, _)| found == encoding);
    let frames: Vec<Vec<u8>> = frames_to_damage().into_iter().filter(own).collect();
    assert!(!frames.is_empty(), "golden frames of {encoding:?}");
    let damages = proptest::collection::vec(damage(), 1..12);
    let noise = proptest::collection::vec(proptest::num::u8::ANY, 0..200);
    let mut cases = 0_u64;
    while Instant::now() < until {
        for frame in &frames {
            let all = damages.new_tree(&mut runner).unwrap().current();
            survives(damaged(frame.clone(), &all), &Frames::new());
            let mut random = noise.new_tree(&mut runner).unwrap().current();
            if let Some(byte) = random.first_mut() {
                *byte = first[cases as usize % first.len()];
            }
            survives(random, &Frames::new());
            cases += 2;
        }
    }
    println!("{cases} frames of {encoding:?}");
    assert!(cases > 0);
}

#[test]
fn fuzz_json() {
    fuzz(Encoding::Json, b"{[");
}

#[test]
fn fuzz_msgpack() {
    fuzz(Encoding::MsgPack, &[0x81, 0x85, 0x92, 0xDC, 0xDD, 0xDE, 0xDF]);
}

#[test]
fn fuzz_bincode() {
    fuzz(Encoding::Bincode, &[0x01]);
}
