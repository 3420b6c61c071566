//! A client and a worker that need no library of ours: a DEALER, and JSON in a frame.

use zmq::{Context, DONTWAIT, Message, Socket};

use super::text::{Run, call, read_answer};
use crate::Outcome;
use crate::dealer::{connect, keep_in_flight, receive};
use crate::plan::Load;
use crate::process::say;
use crate::role::Ready;
use crate::tally::{Measure, Watch};

/// Listens until an envelope of this op came; an error in its stead ends the peer.
pub(crate) fn await_op(socket: &Socket, op: &str) -> Outcome<Message> {
    let mut message = Message::new();
    for _ in 0..50 {
        if receive(socket, &mut message, 0)? {
            let text = message.as_str().ok_or("an envelope is UTF-8")?;
            if text.contains(&format!(r#""op":"{op}""#)) {
                return Ok(message);
            }
            if text.contains(r#""op":"error""#) {
                return Err(format!("waited for `{op}`, got {text}").into());
            }
        }
    }
    Err(format!("the broker sent no `{op}` within 10 s").into())
}

/// Keeps one JSON envelope a slot in flight.
pub(crate) fn client(at: &str, load: Load, watch: Watch) -> Outcome<Measure> {
    let context = Context::new();
    let socket = connect(&context, at)?;
    let frames: Vec<Vec<u8>> =
        (0..load.in_flight).map(|slot| call(slot, load.size).into_bytes()).collect();
    keep_in_flight(&socket, &frames, (load, watch), read_answer)
}

/// Offers the functions of a bench and answers runs, in batches only if asked for.
pub(crate) fn worker(at: &str, credit: u32, batch: bool) -> Outcome<()> {
    let context = Context::new();
    let socket = connect(&context, at)?;
    if batch {
        socket.send(r#"{"op":"hello","batch":true}"#, 0)?;
        await_op(&socket, "welcome")?;
    }
    let names = ["echo", "add", "noop"].map(|name| format!(r#"{{"name":"{name}"}}"#)).join(",");
    let offer = format!(r#"{{"op":"offer","functions":[{names}],"credit":{credit}}}"#);
    socket.send(&offer, 0)?;
    await_op(&socket, "offered")?;
    say(&Ready {})?;
    if batch { answer_batches(&socket) } else { answer_singly(&socket) }
}

fn answer_singly(socket: &Socket) -> Outcome<()> {
    let (mut message, mut result) = (Message::new(), String::new());
    loop {
        if !receive(socket, &mut message, 0)? {
            continue;
        }
        if let Ok(run) = serde_json::from_slice::<Run<'_>>(&message) {
            result.clear();
            if run.answer(&mut result) {
                socket.send(&result, 0)?;
            }
        }
    }
}

/// Answers all runs that have come in one array.
fn answer_batches(socket: &Socket) -> Outcome<()> {
    let (mut message, mut results) = (Message::new(), String::new());
    loop {
        let mut more = receive(socket, &mut message, 0)?;
        results.clear();
        while more {
            let one = message.first() == Some(&b'{');
            let runs: Vec<Run<'_>> = if one {
                serde_json::from_slice(&message).into_iter().collect()
            } else {
                serde_json::from_slice(&message).unwrap_or_default()
            };
            for run in runs {
                let end = results.len();
                results.push(if end == 0 { '[' } else { ',' });
                if !run.answer(&mut results) {
                    results.truncate(end);
                }
            }
            more = receive(socket, &mut message, DONTWAIT)?;
        }
        if !results.is_empty() {
            results.push(']');
            socket.send(&results, 0)?;
        }
    }
}
