//! Topics: one who publishes orders, one who follows those of Europe, and a call that waits for
//! the first large one. `cargo run --example topics [DOOR]`, with a broker running.
#![expect(clippy::print_stdout, reason = "an example shows what it got")]

use mpreg_sockets::client::{Client, Error, ReadBody as _};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let door = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7400".into());
    let client = Client::connect(&door).await?;
    let mut orders = client.subscribe(["orders.eu.*"]).send().await?;

    // Waits in the broker, which asks the condition about each event.
    let ask = json!({ "pattern": "orders.#", "where": "payload.amount > 100" });
    let large = tokio::spawn(client.call("mpreg.topic.next").kwargs(&ask).send());
    client.ping().await?;

    for (region, amount) in [("eu", 20), ("us", 50), ("eu", 500)] {
        let topic = format!("orders.{region}.created");
        client.publish(&topic).payload(&json!({ "amount": amount })).send().await?;
    }
    for _ in 0..2 {
        let Some(event) = orders.next().await else { break };
        let order: Value = event.read()?;
        println!("{}: {}", event.topic, order["amount"]);
    }
    if let Ok(found) = large.await {
        let event: Value = found?.read()?;
        println!("the first large one: {}", event["payload"]["amount"]);
    }
    Ok(())
}
