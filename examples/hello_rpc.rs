//! A worker and a call of it: `mpreg serve`, then `cargo run --example hello_rpc`.
#![expect(clippy::print_stdout, reason = "an example shows what it got")]

use mpreg_sockets::client::{Client, Error, ReadBody, Worker};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let door = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7400".into());
    let worker = Worker::new()
        .function("upper", async |job| {
            let (text,): (String,) = job.args()?;
            job.returns(&text.to_uppercase())
        })
        .credit(16);
    let call = async {
        let client = Client::connect(&door).await?;
        // The worker may not have made its offer yet, so the call waits for it.
        let result = client.call("upper").args(&["hello"]).wait().send().await?;
        result.read::<String>()
    };
    tokio::select! {
        served = worker.serve(&door) => served,
        result = call => {
            println!("{}", result?);
            Ok(())
        }
    }
}
