//! The WebSocket relay for events: what one publishes goes to everybody who subscribed, whatever
//! its topic. It reads no message, so it does less than any broker, and the bytes are shared.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::channel;
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::tungstenite::Message;

use super::relay::{Peer, WAITING, write};
use crate::Outcome;
use crate::process::say;
use crate::role::Place;

type Subscribers = Rc<RefCell<Vec<Peer>>>;

/// The relay's process.
pub(crate) fn hub() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(&Place::door(listener.local_addr()?.to_string()))?;
        let subscribers = Subscribers::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(serve(stream, Rc::clone(&subscribers)));
        }
    })
}

/// A text subscribes, everything else is an event.
async fn serve(stream: TcpStream, subscribers: Subscribers) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (sink, mut reader) = socket.split();
    let (peer, waiting) = channel(WAITING);
    spawn_local(write(sink, waiting));
    while let Some(Ok(message)) = reader.next().await {
        if message.is_text() {
            subscribers.borrow_mut().push(peer.clone());
        } else {
            pass(&subscribers.borrow(), &message);
        }
    }
}

fn pass(subscribers: &[Peer], message: &Message) {
    for subscriber in subscribers {
        // Fails when it has gone; what it cannot hold is lost, and the subscriber counts that.
        let _ = subscriber.try_send(message.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_everything() {
        let (peers, mut waiting): (Vec<_>, Vec<_>) = (0..3).map(|_| channel(WAITING)).unzip();
        pass(&peers, &Message::binary(&b"t\0payload"[..]));
        for waiting in &mut waiting {
            assert_eq!(&waiting.try_recv().unwrap().into_data()[..], b"t\0payload");
            assert!(waiting.try_recv().is_err());
        }
    }
}
