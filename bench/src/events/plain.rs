//! PUB and SUB as any ZeroMQ binding has them, for libzmq's proxy and for the broker alike.

use zmq::{Context, DONTWAIT, Message, SNDMORE, Socket};

use super::ears::Ear;
use super::pace::{Flow, Outlet, Pace};
use crate::Outcome;
use crate::dealer::{receive, unbound};
use crate::peers::rust::block_on;
use crate::plan::Load;
use crate::tally::Watch;

struct Publisher(Socket);

impl Outlet for Publisher {
    async fn publish(&mut self, topic: &str, payload: &[u8]) -> Outcome<()> {
        self.0.send(topic, SNDMORE)?;
        Ok(self.0.send(payload, 0)?)
    }

    /// libzmq's own thread sends.
    async fn flush(&mut self) -> Outcome<()> {
        Ok(())
    }
}

/// Publishes through a PUB.
pub(crate) fn publisher(at: &str, reports: &str, load: Load, watch: Watch) -> Outcome<Flow> {
    let socket = Context::new().socket(zmq::PUB)?;
    unbound(&socket)?;
    socket.connect(at)?;
    block_on(async { Pace::new(reports, load, watch).await?.run(&mut Publisher(socket)).await })
}

/// Hears through a SUB with a context, and so a thread of libzmq, of its own: as if it were alone
/// in its process.
pub(crate) fn subscriber(at: &str, text: &str, ear: &mut Ear) -> Outcome<()> {
    let socket = Context::new().socket(zmq::SUB)?;
    unbound(&socket)?;
    socket.set_subscribe(text.as_bytes())?;
    socket.connect(at)?;
    let mut frame = Message::new();
    loop {
        let mut more = receive(&socket, &mut frame, 0)?;
        while more {
            if !frame.get_more() {
                ear.hear(&frame)?;
            }
            more = receive(&socket, &mut frame, DONTWAIT)?;
        }
    }
}
