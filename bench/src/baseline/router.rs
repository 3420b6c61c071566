//! A ROUTER and nothing else: what libzmq itself takes for a crowd.

use zmq::{Context, ROUTER};

use crate::Outcome;
use crate::process::say;
use crate::role::Place;

/// Gives every message back to who sent it.
pub(crate) fn hub() -> Outcome<()> {
    let router = Context::new().socket(ROUTER)?;
    router.bind("tcp://127.0.0.1:*")?;
    let at = router.get_last_endpoint()?.map_err(|_| "the address is no text")?;
    say(&Place::door(at))?;
    loop {
        router.send_multipart(router.recv_multipart(0)?, 0)?;
    }
}
