//! A dependency graph in one request: `mpreg serve`, then `cargo run --example pipeline`.
//!
//! `split` feeds `count` and `find`, which run side by side, and `report` waits for both. The
//! values go from step to step through the broker; the client sees the last one only.
#![expect(clippy::print_stdout, reason = "an example shows what it got")]

use std::time::Duration;

use mpreg_sockets::client::{Client, Error, ReadBody, Step, Worker};
use serde_json::json;

fn worker() -> Worker {
    Worker::new()
        .function("split", async |job| {
            let (text,): (String,) = job.args()?;
            job.returns(&text.split_whitespace().collect::<Vec<_>>())
        })
        .function("count", async |job| {
            let (words,): (Vec<String>,) = job.args()?;
            job.returns(&words.len())
        })
        .function("find", async |job| {
            let (words, wanted): (Vec<String>, String) = job.args()?;
            job.returns(&words.iter().filter(|word| **word == wanted).count())
        })
        .function("report", async |job| {
            let (all, some, word): (usize, usize, String) = job.args()?;
            job.returns(&format!("{all} words, {some} of them {word:?}"))
        })
        .credit(16)
}

async fn run(door: &str) -> Result<(), Error> {
    let client = Client::connect(door).await?;
    // The graph below is refused unless there is a worker: a call that waits finds out.
    client.call("split").args(&[""]).wait().timeout(Duration::from_secs(5)).send().await?;
    let text = "the cat and the dog and the old mouse";
    let reply = client
        .graph()
        .step(Step::new("words", "split").args([json!(text)]))
        .step(Step::new("all", "count").args([Step::result_of("words")]))
        .step(Step::new("some", "find").args([Step::result_of("words"), json!("the")]))
        .step(Step::new("report", "report").args([
            Step::result_of("all"),
            Step::result_of("some"),
            json!("the"),
        ]))
        .send()
        .await?;
    if let Some((refusal, step)) = &reply.error {
        println!("{} failed: {refusal}", step.as_deref().unwrap_or("the graph"));
    }
    for (step, body) in &reply.results {
        println!("{step}: {}", body.read::<String>()?);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let door = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7400".into());
    tokio::select! {
        served = worker().serve(&door) => served,
        ran = run(&door) => ran,
    }
}
