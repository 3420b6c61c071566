//! Graphs from our Rust library, and the calls they are compared with.

use mpreg_patterns::ops::{GraphOptions, GraphPart, Returns};
use mpreg_patterns::values::Value;
use mpreg_sockets::client::Client;

use super::json_graph::TIMEOUT_MS;
use super::rust::{block_on, connect};
use crate::Outcome;
use crate::graph_tally::{GraphMeasure, GraphTally};
use crate::tally::Watch;
use crate::workloads::shape::{Shape, Task};

/// Runs the task from a connection of its own.
pub(crate) fn client(at: &str, task: Task, watch: Watch) -> Outcome<GraphMeasure> {
    block_on(async {
        let client = connect(at).await?;
        let warm_up = Prepared::new(task.warm_up);
        let measured = Prepared::new(task.shape);
        warm_up.run(&client).await?;
        let tally = GraphTally::begin(task, watch)?;
        for _ in 0..task.repeats {
            measured.run(&client).await?;
        }
        tally.end()
    })
}

/// A shape as the parts that ask for it.
struct Prepared {
    shape: Shape,
    parts: Vec<GraphPart>,
}

impl Prepared {
    fn new(shape: Shape) -> Self {
        let texts = if matches!(shape, Shape::Calls { .. }) { Vec::new() } else { shape.parts() };
        let last = texts.len().saturating_sub(1);
        let part = |(index, text): (usize, String)| GraphPart {
            steps: Some(Value::json(text)),
            part: index as u32,
            more: index < last,
            options: if index == 0 { options(shape) } else { GraphOptions::default() },
            ..GraphPart::default()
        };
        Self { shape, parts: texts.into_iter().enumerate().map(part).collect() }
    }

    async fn run(&self, client: &Client) -> Outcome<()> {
        if let Shape::Calls { steps } = self.shape {
            let args = Value::json("[1]");
            for _ in 0..steps {
                client.call("echo").args_value(args.clone()).send().await?;
            }
            return Ok(());
        }
        let reply = client.submit(self.parts.clone(), None).await?;
        if let Some((refusal, step)) = reply.error {
            return Err(format!("{:?} ended with {refusal} (step {step:?})", self.shape).into());
        }
        let (name, value) = self.shape.proof();
        let found = reply.results.iter().find(|(step, _)| *step == name.as_str());
        match found {
            Some((_, body)) if body.value.bytes == value.as_bytes() => Ok(()),
            _ => Err(format!("{name} of {:?} is wrong", self.shape).into()),
        }
    }
}

fn options(shape: Shape) -> GraphOptions {
    let returns = match shape.returns() {
        Some(name) => Returns::Names(vec![name.into()]),
        None => Returns::Sinks,
    };
    GraphOptions { returns, timeout_ms: Some(TIMEOUT_MS), ..GraphOptions::default() }
}
