//! Graphs from a plain DEALER in JSON, and the calls they are compared with.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use zmq::{Context, Message, Socket};

use super::json::await_op;
use crate::Outcome;
use crate::dealer::{connect, receive};
use crate::graph_tally::{GraphMeasure, GraphTally};
use crate::tally::Watch;
use crate::workloads::shape::{Shape, Task};

/// How long a graph may take.
pub(crate) const TIMEOUT_MS: u64 = 300_000;

/// The outcome of a graph, or a part of it.
#[derive(Deserialize)]
struct Reply<'a> {
    op: &'a str,
    #[serde(default)]
    more: bool,
    #[serde(borrow, default)]
    results: HashMap<&'a str, &'a RawValue>,
}

/// Runs the task from a DEALER of its own.
pub(crate) fn client(at: &str, task: Task, watch: Watch) -> Outcome<GraphMeasure> {
    let context = Context::new();
    let socket = connect(&context, at)?;
    socket.send(r#"{"op":"call","id":"w","fun":"echo","args":[1],"wait":true}"#, 0)?;
    await_op(&socket, "result")?;
    let warm_up = Prepared::new(task.warm_up);
    let measured = Prepared::new(task.shape);
    warm_up.run(&socket)?;
    let tally = GraphTally::begin(task, watch)?;
    for _ in 0..task.repeats {
        measured.run(&socket)?;
    }
    tally.end()
}

/// A shape as the frames that ask for it.
struct Prepared {
    shape: Shape,
    frames: Vec<String>,
}

impl Prepared {
    fn new(shape: Shape) -> Self {
        let frames = match shape {
            Shape::Calls { .. } => {
                vec![r#"{"op":"call","id":"c","fun":"echo","args":[1]}"#.to_owned()]
            }
            _ => frames(shape),
        };
        Self { shape, frames }
    }

    fn run(&self, socket: &Socket) -> Outcome<()> {
        if let Shape::Calls { steps } = self.shape {
            let mut message = Message::new();
            for _ in 0..steps {
                socket.send(self.frames[0].as_str(), 0)?;
                hear(socket, &mut message)?;
            }
            return Ok(());
        }
        for frame in &self.frames {
            socket.send(frame.as_str(), 0)?;
        }
        self.check(socket)
    }

    /// Waits for all parts of the reply; one of them must hold the proof.
    fn check(&self, socket: &Socket) -> Outcome<()> {
        let (name, value) = self.shape.proof();
        let (mut message, mut proven) = (Message::new(), false);
        loop {
            hear(socket, &mut message)?;
            let reply: Reply<'_> = serde_json::from_slice(&message)?;
            if reply.op != "result" {
                let text = String::from_utf8_lossy(&message[..message.len().min(500)]).into_owned();
                return Err(format!("{:?} ended with {text}", self.shape).into());
            }
            proven |= reply.results.get(name.as_str()).is_some_and(|got| got.get() == value);
            if !reply.more {
                break;
            }
        }
        if proven { Ok(()) } else { Err(format!("{name} of {:?} is wrong", self.shape).into()) }
    }
}

fn hear(socket: &Socket, message: &mut Message) -> Outcome<()> {
    for _ in 0..TIMEOUT_MS / 200 {
        if receive(socket, message, 0)? {
            return Ok(());
        }
    }
    Err("the broker does not answer".into())
}

/// The `graph` ops of a shape.
fn frames(shape: Shape) -> Vec<String> {
    let parts = shape.parts();
    let (last, single) = (parts.len() - 1, parts.len() == 1);
    let frame = |(index, steps): (usize, String)| {
        let mut text = String::from(r#"{"op":"graph","id":"g""#);
        if index == 0 {
            text.push_str(&format!(r#","timeout_ms":{TIMEOUT_MS}"#));
            if let Some(name) = shape.returns() {
                text.push_str(&format!(r#","return":["{name}"]"#));
            }
        }
        if !single {
            text.push_str(&format!(r#","part":{index},"more":{}"#, index < last));
        }
        text.push_str(&format!(r#","steps":{steps}}}"#));
        text
    };
    parts.into_iter().enumerate().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_graph_is_one_frame() {
        let frames = frames(Shape::Flat { steps: 1 });
        assert_eq!(
            frames,
            [concat!(
                r#"{"op":"graph","id":"g","timeout_ms":300000,"#,
                r#""steps":[{"name":"s0","fun":"noop"}]}"#
            )]
        );
    }

    #[test]
    fn options_stand_in_the_first_part() {
        let frames = frames(Shape::Mesh { steps: 10_001, width: 10 });
        assert_eq!(frames.len(), 2);
        assert!(frames[0].contains(r#""return":["s10000"],"part":0,"more":true,"#));
        assert!(frames[1].starts_with(r#"{"op":"graph","id":"g","part":1,"more":false,"steps":["#));
    }
}
