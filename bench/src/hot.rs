//! The hot paths without sockets, for `scripts/instructions` to count what each costs: bytes of an
//! envelope in, what the rules decide, bytes out, as the core's thread does it.

use bytes::Bytes;
use clap::ValueEnum;
use mpreg_patterns::base::{Limits, Out, PeerId, RunId, Time};
use mpreg_patterns::node::{About, Input, Node, Output, Rules};
use mpreg_patterns::ops::{Call, Reply, Request};
use mpreg_patterns::outbox::Parcel as _;
use mpreg_patterns::values::{Body, Value};
use mpreg_sockets::envelope::{self, Batch, Encoding};
use mpreg_sockets::router::Prefix;
use mpreg_sockets::session::{LastEvent, Session};

use crate::Outcome;
use crate::peers::text;

/// Subscribers of an event.
const SUBSCRIBERS: u32 = 8;
/// How often a delivery is acked, in events.
const ACK_EVERY: u64 = 1_024;
/// Calls in one frame.
const IN_A_FRAME: u64 = 16;

/// What is counted.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Path {
    /// A call in JSON: request, run, result, reply.
    CallJson,
    /// The same in the bincode batch.
    CallBatch,
    /// An event in JSON to eight subscribers.
    Event,
    /// A message in JSON to a queue in memory, delivered and acked.
    Message,
}

/// A broker without sockets, and how each of its peers speaks.
struct Bare {
    node: Node,
    limits: Limits,
    sessions: Vec<Session>,
    last_event: LastEvent,
    out: Out<Output>,
    now: Time,
    /// Runs and deliveries that were handed out and not answered yet.
    handed: Vec<RunId>,
    /// Bytes that would have been sent.
    bytes: u64,
}

impl Bare {
    fn new(peers: u32, encoding: Encoding) -> Self {
        let endpoints = serde_json::json!({});
        let (node, version) = ("n".into(), "0.1.0".into());
        let about = About { node, version, epoch: 1, endpoints, cluster: "".into() };
        let limits = Limits::default();
        let node = Node::new(about, limits.clone(), &Rules::default(), 1);
        let speaks = |_| {
            let mut session = Session::default();
            session.speak(encoding, encoding == Encoding::Bincode);
            session
        };
        let sessions = (0..peers).map(speaks).collect();
        let now = Time { mono_ns: 1_000, wall_ms: 1_700_000_000_000 };
        let (last_event, handed) = (LastEvent::default(), Vec::new());
        Self { node, limits, sessions, last_event, out: Out::new(), now, handed, bytes: 0 }
    }

    /// What a peer says, to its end. It is a turn: what is due then is done.
    fn say(&mut self, from: u32, body: &Bytes) -> Outcome<()> {
        let (peer, limits) = (PeerId { slot: from, generation: 1 }, self.limits.clone());
        let mut refused = None;
        self.sessions[from as usize].begin(false, Prefix::None);
        let decoded = envelope::decode(body, Vec::new(), &limits, &mut |item| {
            match self.sessions[from as usize].admit(item) {
                Ok(request) => {
                    self.node.handle(self.now, Input::Request { peer, request }, &mut self.out);
                }
                Err(no) => refused = Some(format!("{no:?}")),
            }
            self.encode(&mut refused);
        });
        decoded.map_err(|no| no.to_string())?;
        self.now.mono_ns += 1;
        while self.node.wake_at().is_some_and(|at| at <= self.now.mono_ns) {
            self.now.mono_ns += 1;
            self.node.tick(self.now, &mut self.out);
            self.encode(&mut refused);
        }
        self.last_event.clear();
        for session in &mut self.sessions {
            while let Some(parcel) = session.take() {
                self.bytes += parcel.bytes() as u64;
            }
        }
        refused.map_or(Ok(()), |why| Err(why.into()))
    }

    /// Writes what was decided to the peers it is for.
    fn encode(&mut self, refused: &mut Option<String>) {
        for (to, reply) in self.out.drain().filter_map(Output::sent) {
            match &reply {
                Reply::Run(run) => self.handed.push(run.id),
                Reply::Deliver(delivered) => self.handed.push(delivered.id),
                Reply::Error { error, .. } => *refused = Some(error.to_string()),
                _ => {}
            }
            let session = &mut self.sessions[to.slot as usize];
            if let Err(no) = session.push_sharing(&reply, &mut self.last_event) {
                *refused = Some(no.to_string());
            }
        }
    }

    fn say_text(&mut self, from: u32, text: String) -> Outcome<()> {
        self.say(from, &Bytes::from(text))
    }
}

/// Goes a path so often. The bytes that would have been sent.
pub(crate) fn run(path: Path, count: u64) -> Outcome<u64> {
    let mut bare = match path {
        Path::CallJson | Path::Message => Bare::new(2, Encoding::Json),
        Path::CallBatch => Bare::new(2, Encoding::Bincode),
        Path::Event => Bare::new(1 + SUBSCRIBERS, Encoding::Json),
    };
    match path {
        Path::CallJson => calls(&mut bare, count)?,
        Path::CallBatch => batches(&mut bare, count)?,
        Path::Event => events(&mut bare, count)?,
        Path::Message => messages(&mut bare, count)?,
    }
    Ok(bare.bytes)
}

const OFFER: &str = r#"{"op":"offer","functions":[{"name":"echo"}],"credit":1024}"#;

fn payload() -> String {
    "x".repeat(64)
}

fn calls(bare: &mut Bare, count: u64) -> Outcome<()> {
    bare.say_text(0, OFFER.into())?;
    for number in 0..count {
        bare.say_text(1, text::call(number as usize, 64))?;
        let run = bare.handed.pop().ok_or("no run came")?;
        let result = format!(r#"{{"op":"result","id":"{run}","result":"{}"}}"#, payload());
        bare.say_text(0, result)?;
    }
    Ok(())
}

fn batches(bare: &mut Bare, count: u64) -> Outcome<()> {
    bare.say_text(0, OFFER.into())?;
    bare.sessions[0].speak(Encoding::Bincode, true);
    let (args, result) = (format!("[\"{}\"]", payload()), format!("\"{}\"", payload()));
    let mut batch = Batch::new(Encoding::Bincode);
    for frame in 0..count / IN_A_FRAME {
        for number in 0..IN_A_FRAME {
            let id = (frame * IN_A_FRAME + number).to_string().into();
            let (fun, args) = ("echo".into(), Some(Value::json(args.clone())));
            batch.push(&Call { id, fun, args, ..Call::default() }).map_err(|no| no.to_string())?;
        }
        bare.say(1, &batch.finish().ok_or("nothing to send")?)?;
        for run in std::mem::take(&mut bare.handed) {
            let body = Box::new(Body::plain(Value::json(result.clone())));
            batch.push(&Request::Result { run, body }).map_err(|no| no.to_string())?;
        }
        bare.say(0, &batch.finish().ok_or("no runs came")?)?;
    }
    Ok(())
}

fn events(bare: &mut Bare, count: u64) -> Outcome<()> {
    for subscriber in 1..=SUBSCRIBERS {
        let patterns = r#"["orders.*.created"]"#;
        let subscribe =
            format!(r#"{{"op":"subscribe","patterns":{patterns},"credit":{}}}"#, 2 * ACK_EVERY);
        bare.say_text(subscriber, subscribe)?;
    }
    for number in 0..count {
        let topic = format!("orders.{}.created", number % 1_000);
        let (payload, rest) = (payload(), r#""id":"-","confirm":false"#);
        let event = format!(r#"{{"op":"publish","topic":"{topic}","payload":"{payload}",{rest}}}"#);
        bare.say_text(0, event)?;
        if number % ACK_EVERY == ACK_EVERY - 1 {
            for subscriber in 1..=SUBSCRIBERS {
                bare.say_text(subscriber, format!(r#"{{"op":"ack","events":{ACK_EVERY}}}"#))?;
            }
        }
    }
    Ok(())
}

fn messages(bare: &mut Bare, count: u64) -> Outcome<()> {
    let queue = r#"{"name":"jobs","durability":"memory"}"#;
    let fun = "mpreg.queue.declare";
    bare.say_text(0, format!(r#"{{"op":"call","id":"q","fun":"{fun}","kwargs":{queue}}}"#))?;
    bare.say_text(1, r#"{"op":"consume","queue":"jobs","credit":16}"#.into())?;
    for number in 0..count {
        let payload = payload();
        let send =
            format!(r#"{{"op":"send","id":"{number}","queue":"jobs","payload":"{payload}"}}"#);
        bare.say_text(0, send)?;
        let delivery = bare.handed.pop().ok_or("nothing was delivered")?;
        bare.say_text(1, format!(r#"{{"op":"ack","ids":["{delivery}"]}}"#))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(Path::CallJson)]
    #[case(Path::CallBatch)]
    #[case(Path::Event)]
    #[case(Path::Message)]
    fn every_path_leads_somewhere(#[case] path: Path) {
        let [few, many] = [64, 640].map(|count| run(path, count).unwrap());
        assert!(many > few * 5, "{few} and {many} bytes");
    }
}
