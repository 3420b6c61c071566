//! A graph that takes a message, works on it and sends what came of it on: its result is the ack,
//! its failure the nack. `cargo run --example bills [DOOR]`, with a broker running.
#![expect(clippy::print_stdout, reason = "an example shows what it got")]

use std::time::Duration;

use mpreg_sockets::client::{Client, Error, ReadBody, Worker};
use serde_json::{Value, json};

/// Fails at the first attempt, as if the printer had been off.
fn worker() -> Worker {
    Worker::new().function("bill", async |job| {
        let (order, attempt): (String, u32) = job.args()?;
        if attempt == 1 {
            return job.fails("no paper");
        }
        job.returns(&format!("one {order}, 20 EUR"))
    })
}

async fn run(door: &str) -> Result<(), Error> {
    let client = Client::connect(door).await?;
    let settings = json!({"name": "orders", "backoff_ms": 20, "max_attempts": 5});
    client.call("mpreg.queue.declare").kwargs(&settings).send().await?;
    client.send("orders").payload("cat").send().await?;
    loop {
        // Waits for a message at no cost, and holds it until the graph has ended.
        let reply = client
            .graph()
            .raw_step(&json!({
                "name": "order", "fun": "mpreg.queue.next", "kwargs": {"name": "orders"},
            }))
            .raw_step(&json!({
                "name": "bill", "fun": "bill", "wait": true,
                "args": [{"$ref": "order", "at": "/payload"}, {"$ref": "order", "at": "/attempt"}],
            }))
            .raw_step(&json!({
                "name": "sent", "fun": "mpreg.queue.send",
                "kwargs": {"name": "bills", "payload": {"$ref": "bill"}},
            }))
            .timeout(Duration::from_secs(20))
            .send()
            .await?;
        match &reply.error {
            None => break,
            Some((refusal, _)) => println!("the order is back: {}", refusal.message),
        }
    }
    let mut bills = client.consume("bills", None, 1).await?;
    if let Some(bill) = bills.next().await {
        println!("{}", bill.read::<String>()?);
        bill.ack_and_wait().await?;
    }
    let orders = client.call("mpreg.queue.stats").kwargs(&json!({"name": "orders"}));
    let orders = orders.send().await?.read::<Value>()?;
    println!("{} orders are left", orders["ready"]);
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
