//! A DEALER that asks one question at another broker's door or bridge.

use mpreg_patterns::base::{Code, Culprit, Refusal};
use mpreg_patterns::federation::Life;
use mpreg_patterns::federation::links::{Agreed, Ask, Found};
use serde::Deserialize as _;
use serde_json::{Value as Json, json};
use smol_str::{SmolStr, ToSmolStr as _};
use zmq::{Context, DONTWAIT, Socket};

use super::bridge::op;
use super::{host, reached};
use crate::wait::Listens;

/// A connection that is not there by then is tried anew: the system waits longer each time.
const CONNECT_MS: i32 = 1_000;
const RECONNECT_MS: i32 = 100;
/// No answer is longer.
const ANSWER_BYTES: i64 = 1 << 20;

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// From a door.
    Door(Result<Found, SmolStr>),
    /// From a bridge.
    Bridge(Result<Agreed, Refusal>),
}

/// One question on its way.
pub struct Dialler {
    socket: Socket,
    address: SmolStr,
    at_door: bool,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listens for Dialler {
    fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Dialler {
    /// Asks a door who is there, and where its bridge is.
    pub fn door(context: &Context, address: &str, node: &str) -> Result<Self, zmq::Error> {
        let question = json!({ "op": "hello", "name": format!("link from {node}") });
        Self::ask(context, address, &question, true)
    }

    /// Asks a bridge for a session.
    pub fn bridge(context: &Context, address: &str, ask: &Ask) -> Result<Self, zmq::Error> {
        let host = SmolStr::new(host(address).unwrap_or_default());
        let question = op("link", &Ask { host, ..ask.clone() });
        Self::ask(context, address, &question, false)
    }

    fn ask(
        context: &Context,
        address: &str,
        question: &Json,
        at_door: bool,
    ) -> Result<Self, zmq::Error> {
        let socket = context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        socket.set_connect_timeout(CONNECT_MS)?;
        socket.set_reconnect_ivl(RECONNECT_MS)?;
        socket.set_maxmsgsize(ANSWER_BYTES)?;
        socket.set_ipv6(address.starts_with("tcp://["))?;
        socket.connect(address)?;
        socket.send(question.to_string().as_bytes(), DONTWAIT)?;
        Ok(Self { socket, address: SmolStr::new(address), at_door })
    }

    /// The answer, if it is there.
    pub fn answer(&self) -> Result<Option<Answer>, zmq::Error> {
        let body = match self.socket.recv_bytes(DONTWAIT) {
            Ok(body) => body,
            Err(zmq::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        };
        let said: Json = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Some(match self.at_door {
            true => Answer::Door(found(&said, &self.address)),
            false => Answer::Bridge(agreed(said)),
        }))
    }
}

fn found(said: &Json, address: &str) -> Result<Found, SmolStr> {
    if said["op"] != "welcome" {
        let why = said["error"]["message"].as_str();
        return Err(why.unwrap_or("what answers is no broker's door").to_smolstr());
    }
    let life = Life::deserialize(said).map_err(|why| format!("its welcome: {why}"))?;
    match said["endpoints"]["bridge"].as_str() {
        Some(bridge) => Ok(Found { life, bridge: reached(bridge, address).into() }),
        None => Err("that broker has no bridge: it is of an older version".into()),
    }
}

fn agreed(said: Json) -> Result<Agreed, Refusal> {
    if said["op"] == "linked" {
        return Agreed::deserialize(said)
            .map_err(|why| Refusal::new(Code::LinkFailed, format!("the bridge's answer: {why}")));
    }
    let error = &said["error"];
    let (Some(code), Some(message)) = (error["code"].as_str(), error["message"].as_str()) else {
        return Err(Refusal::new(Code::LinkFailed, "what answers is no broker's bridge"));
    };
    match Code::find(code) {
        Some(code) => Err(Refusal::new(code, message)),
        None => {
            Err(Refusal { culprit: Culprit::Broker, ..Refusal::new(Code::LinkFailed, message) })
        }
    }
}
