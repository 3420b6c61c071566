//! libzmq's own XPUB and a SUB over TCP: what a subscription adds to the publisher's process.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use zmq::Context;

use super::names::Names;
use crate::Outcome;
use crate::dealer::unbound;
use crate::machine::Usage;
use crate::process::say;
use crate::role::Place;

/// How long the next subscription may take, milliseconds.
const PATIENCE_MS: i32 = 60_000;

/// What the publisher's process saw.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// Distinct texts it was subscribed to.
    pub(super) texts: u64,
    /// How far its resident memory rose while they came, bytes.
    pub(super) resident: u64,
}

/// The publisher: reads subscriptions as they come, so none of them waits in a queue for long.
pub(super) fn xpub(texts: u64) -> Outcome<()> {
    let context = Context::new();
    let socket = context.socket(zmq::XPUB)?;
    unbound(&socket)?;
    socket.set_rcvtimeo(PATIENCE_MS)?;
    socket.bind("tcp://127.0.0.1:*")?;
    let resident = || Usage::of(std::process::id()).map(|usage| usage.resident);
    let before = resident()?;
    say(&Place::door(socket.get_last_endpoint()?.map_err(|_| "an endpoint is text")?))?;
    for _ in 0..texts {
        socket.recv_bytes(0)?;
    }
    say(&Measure { texts, resident: resident()?.saturating_sub(before) })
}

/// The subscriber: the first names of the index's set, until the parent ends it.
pub(super) fn sub(texts: u64, at: &str) -> Outcome<()> {
    let (names, mut text, mut told) = (Names::new(), String::new(), BTreeSet::new());
    let context = Context::new();
    let socket = context.socket(zmq::SUB)?;
    unbound(&socket)?;
    socket.connect(at)?;
    for number in 0.. {
        if names.write(number, &mut text) && told.insert(text.clone()) {
            socket.set_subscribe(text.as_bytes())?;
        }
        if told.len() as u64 == texts {
            break;
        }
    }
    // Nothing is published.
    socket.recv_bytes(0)?;
    Ok(())
}
