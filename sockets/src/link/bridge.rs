//! The bridge: a ROUTER where other brokers agree on links, in JSON.

use bytes::{Bytes, BytesMut};
use mpreg_patterns::base::refusal::cut;
use mpreg_patterns::base::{Code, Refusal};
use mpreg_patterns::federation::links::{Agreed, Ask, Asker};
use mpreg_patterns::node::error_reply;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value as Json, json};
use zmq::{Context, Message, Socket};

use crate::envelope;
use crate::router::{Incoming, Prefix, Router};
use crate::wait::Listens;

/// No request is longer.
const ASK_BYTES: usize = 16 << 10;
/// In an [`Asker`], before its routing id: what stands before the answer.
const PREFIX_BYTES: usize = 5;

/// A bound bridge.
#[derive(Debug)]
pub struct Bridge {
    router: Router,
    routing_id: Message,
    /// Named to those who should be there.
    door: String,
}

impl Listens for Bridge {
    fn socket(&self) -> &Socket {
        self.router.socket()
    }
}

impl Bridge {
    /// Binds a ROUTER for the broker whose door is elsewhere. Errors are libzmq's: EADDRINUSE when
    /// somebody has the port.
    pub fn bind(context: &Context, address: &str, door: &str) -> Result<Self, zmq::Error> {
        let router = Router::bind(context, address)?;
        Ok(Self { router, routing_id: Message::new(), door: door.to_owned() })
    }

    /// The address brokers connect to, with the port the system picked.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.router.endpoint()
    }

    /// The next request, or `None` when none is waiting. One that is none is answered here.
    pub fn receive(&mut self) -> Result<Option<(Asker, Ask)>, zmq::Error> {
        let mut routing_id = std::mem::replace(&mut self.routing_id, Message::new());
        let found = loop {
            match self.router.receive(&mut routing_id)? {
                Some(Incoming::Message { prefix, body, .. }) => {
                    let asker = asker(prefix, &routing_id);
                    match self.read(&body) {
                        Ok(ask) => break Some((asker, ask)),
                        Err(why) => self.answer(&asker, &Err(why))?,
                    }
                }
                Some(Incoming::Connected | Incoming::Disconnected) => {}
                None => break None,
            }
        };
        self.routing_id = routing_id;
        Ok(found)
    }

    fn read(&self, body: &[u8]) -> Result<Ask, Refusal> {
        if body.len() > ASK_BYTES {
            let message = format!("a request at the bridge has {ASK_BYTES} bytes at most");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let request: Option<Json> = serde_json::from_slice(body).ok();
        let op = request.as_ref().and_then(|request| request["op"].as_str());
        if op != Some("link") {
            let said = op.map_or("that", |op| cut(op, 64));
            let message = format!(
                "{said}: brokers agree on links here; clients and workers connect to the door, {}",
                self.door
            );
            return Err(Refusal::new(Code::WrongEndpoint, message));
        }
        Ask::deserialize(request.unwrap_or_default())
            .map_err(|why| Refusal::new(Code::BadField, format!("link: {why}")))
    }

    /// Answers a broker. One that is gone, or does not read, asks again later.
    pub fn answer(
        &self,
        asker: &Asker,
        answer: &Result<Agreed, Refusal>,
    ) -> Result<(), zmq::Error> {
        let Some((prefix, routing_id)) = peer(asker) else { return Ok(()) };
        let body = match answer {
            Ok(agreed) => Bytes::from(op("linked", agreed).to_string()),
            Err(why) => {
                let reply = error_reply(None, None, why.clone());
                // Nothing in it can fail to be written.
                let Ok(message) = envelope::lone(envelope::Encoding::Json, &reply) else {
                    return Ok(());
                };
                message.body
            }
        };
        self.router.send(routing_id, prefix, &body, &[]).map(|_| ())
    }
}

/// A struct as an op.
pub(super) fn op(name: &str, fields: &impl Serialize) -> Json {
    let mut op = json!({ "op": name });
    if let (Some(op), Ok(Json::Object(fields))) = (op.as_object_mut(), serde_json::to_value(fields))
    {
        op.extend(fields);
    }
    op
}

fn asker(prefix: Prefix, routing_id: &[u8]) -> Asker {
    let (kind, id) = match prefix {
        Prefix::None => (0, [0; 4]),
        Prefix::Empty => (1, [0; 4]),
        Prefix::Correlated(id) => (2, id),
    };
    let mut asker = BytesMut::with_capacity(PREFIX_BYTES + routing_id.len());
    asker.extend_from_slice(&[kind, id[0], id[1], id[2], id[3]]);
    asker.extend_from_slice(routing_id);
    asker.freeze()
}

fn peer(asker: &Bytes) -> Option<(Prefix, &[u8])> {
    let (&[kind, a, b, c, d], routing_id) = asker.split_first_chunk::<PREFIX_BYTES>()?;
    let prefix = match kind {
        0 => Prefix::None,
        1 => Prefix::Empty,
        _ => Prefix::Correlated([a, b, c, d]),
    };
    Some((prefix, routing_id))
}
