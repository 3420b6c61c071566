//! A queue: images to shrink, one of which nobody can read, and one that works out at its second
//! attempt. `cargo run --example queues [DOOR]`, with a broker running.
#![expect(clippy::print_stdout, reason = "an example shows what it got")]

use std::time::Duration;

use mpreg_sockets::client::{Client, Error, Nack};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let door = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7400".into());
    let client = Client::connect(&door).await?;
    for image in ["cat.png", "song.mp3", "dog.png"] {
        // Returns when the disk has it: whoever is killed from now on, it is delivered.
        client.send("thumbnails").payload(image).send().await?;
    }

    let mut images = client.consume("thumbnails", None, 1).await?;
    let mut open = 3;
    while open > 0
        && let Some(delivery) = images.next().await
    {
        let image: String = delivery.read()?;
        if image.ends_with(".mp3") {
            println!("{image}: a dead letter");
            delivery.nack(Nack { dead: true, ..Nack::because("it is no image") });
        } else if image == "dog.png" && delivery.attempt == 1 {
            println!("{image}: later");
            let delay = Some(Duration::from_millis(50));
            delivery.nack(Nack { delay, ..Nack::because("out of memory") });
            continue;
        } else {
            println!("{image}: done");
            // Returns when the queue will not give it out again; `ack` does not wait for that.
            delivery.ack_and_wait().await?;
        }
        open -= 1;
    }
    Ok(())
}
