//! Links to neighbours: agreed on at a bridge, carried by sessions, outliving them.
//!
//! A session is one PAIR on either side, made for it and gone with it. A link is what two brokers
//! say to each other, numbered, over one session after the other: a session that is lost and
//! replaced soon is not noticed above. Who dials is told by [`Input::Add`]; where both do, the
//! broker with the smaller name goes on.

mod agree;
mod describe;
mod dial;
mod frame;
mod link;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use smol_str::SmolStr;

use crate::base::{Code, Limits, Map, Out, Refusal, Rng, Time};
use crate::federation::{Life, LinkId, Message};

use dial::Dial;
pub use frame::{Agreed, Ask, Bye, Frame, Hello, Nonce, PROTOCOL, Resume, is_control, weight};
use link::Link;

/// One attempt to reach the door or the bridge of a broker. A number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialId(pub u32);

/// One session: a PAIR on this side. A number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// A broker that asks at the bridge, as the driver knows it.
pub type Asker = Bytes;

/// What a broker's door says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who it is.
    pub life: Life,
    /// The address of its bridge.
    pub bridge: SmolStr,
}

/// What happens to the machine.
#[derive(Debug)]
pub enum Input {
    /// The broker whose door is at this address is to be a neighbour.
    Add {
        /// Of the door.
        address: SmolStr,
        /// What the link costs beside its time.
        price_us: u32,
    },
    /// It need not be one any longer.
    Remove {
        /// Of the door.
        address: SmolStr,
    },
    /// The broker goes down: all links end.
    Drain,
    /// Something is to be said over a link that is up.
    Tell {
        /// Which.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// What came of [`Output::AskDoor`].
    Door {
        /// Which attempt.
        dial: DialId,
        /// What the door says, or why it says nothing.
        answer: Result<Found, SmolStr>,
    },
    /// What came of [`Output::AskBridge`].
    Bridge {
        /// Which attempt.
        dial: DialId,
        /// Where the session is, or why there is none.
        answer: Result<Agreed, Refusal>,
    },
    /// Another broker asks for a session.
    Asked {
        /// Who is to be answered.
        asker: Asker,
        /// What it says.
        ask: Ask,
    },
    /// What came of [`Output::Bind`].
    Bound {
        /// Which session.
        session: SessionId,
        /// Where others can connect to it, or why they cannot.
        endpoint: Result<SmolStr, SmolStr>,
    },
    /// Something came over a session.
    Said {
        /// Which.
        session: SessionId,
        /// What.
        frame: Frame,
    },
    /// A session's connection is lost, or brings what cannot be read.
    Gone {
        /// Which.
        session: SessionId,
        /// For people.
        why: SmolStr,
    },
    /// A session takes nothing more for now. What was to be said over it waits with the driver.
    Blocked {
        /// Which.
        session: SessionId,
    },
    /// It has taken all that waited.
    Writable {
        /// Which.
        session: SessionId,
    },
}

/// What the machine wants done, or tells.
#[derive(Debug)]
pub enum Output {
    /// Ask the door at this address who it is, and where its bridge is.
    AskDoor {
        /// Names the attempt.
        dial: DialId,
        /// Of the door.
        address: SmolStr,
    },
    /// Ask a bridge for a session. The driver fills in the host.
    AskBridge {
        /// Names the attempt.
        dial: DialId,
        /// Of the bridge.
        address: SmolStr,
        /// What to ask.
        ask: Ask,
    },
    /// The answer to an attempt is not waited for any longer.
    HangUp {
        /// Which.
        dial: DialId,
    },
    /// Bind a PAIR that no session has had, and tell how it went before anything else.
    Bind {
        /// For which session.
        session: SessionId,
        /// The host under which the asker reaches this broker.
        host: SmolStr,
    },
    /// Answer a broker that asked at the bridge.
    Answer {
        /// Who.
        asker: Asker,
        /// What.
        answer: Result<Agreed, Refusal>,
    },
    /// Connect a PAIR.
    Connect {
        /// For which session.
        session: SessionId,
        /// Where.
        endpoint: SmolStr,
    },
    /// Say something over a session.
    Say {
        /// Which.
        session: SessionId,
        /// What.
        frame: Frame<Arc<Message>>,
    },
    /// A session is over: close its socket. What was said just before should still leave.
    Close {
        /// Which.
        session: SessionId,
    },
    /// A link is up: nothing that was said over an earlier one counts.
    Up {
        /// Which. A number is never used again.
        link: LinkId,
        /// Who is at the other end.
        peer: Life,
        /// The cluster it belongs to.
        cluster: SmolStr,
        /// What it costs: microseconds there and back, and its price.
        cost_us: u32,
    },
    /// The neighbour says something.
    Heard {
        /// Over which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A link costs something else now.
    Cost {
        /// Which.
        link: LinkId,
        /// How much.
        cost_us: u32,
    },
    /// A link is down: what the other end has not received is lost.
    Down {
        /// Which.
        link: LinkId,
        /// Who was at the other end.
        peer: Life,
        /// For people.
        reason: SmolStr,
    },
    /// Too much waits for the neighbour: the message was not taken.
    Full {
        /// Over which link.
        link: LinkId,
        /// What was not taken.
        message: Message,
    },
    /// No link came of an address, for a reason that was not told before.
    Failed {
        /// Of the door.
        address: SmolStr,
        /// Why.
        why: Refusal,
    },
}

/// A broker at the other end, as long as there is something to remember of it.
#[derive(Debug)]
struct Neighbour {
    node: SmolStr,
    session: Option<Session>,
    link: Option<Link>,
    /// The last session, for the other side to know what this one knows.
    last: Option<Nonce>,
}

/// How far two sides have come.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Others cannot connect yet.
    Binding(Asker),
    /// The other side is to say hello, which answers this one's where `resume` was offered.
    Hello,
    /// What is said counts.
    Live,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    nonce: Nonce,
    peer: Life,
    cluster: SmolStr,
    /// Whether this side has connected, and so says hello first.
    dialled: bool,
    stage: Stage,
    /// When it began, or went live.
    since_ns: u64,
    /// When something was heard last.
    heard_ns: u64,
    /// When the next ping is due.
    ping_ns: u64,
    /// The ping that has no answer yet.
    pinged: Option<u64>,
    blocked: bool,
}

/// Who this broker is.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name and life.
    pub life: Life,
    /// The cluster it belongs to.
    pub cluster: SmolStr,
}

/// All links of one broker.
#[derive(Debug)]
pub struct Links {
    about: About,
    links: usize,
    link_bytes: usize,
    hello_ns: u64,
    resume_ns: u64,
    rng: Rng,
    serial: u32,
    draining: bool,
    dials: Vec<Dial>,
    neighbours: Slab<Neighbour>,
    /// Neighbours by what is going on with them.
    by_session: Map<SessionId, usize>,
    by_link: Map<LinkId, usize>,
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new(about: About, limits: &Limits, seed: u64) -> Self {
        Self {
            about,
            links: limits.links,
            link_bytes: limits.link_bytes,
            hello_ns: limits.link_hello_ms * 1_000_000,
            resume_ns: limits.link_resume_ms * 1_000_000,
            rng: Rng::new(seed),
            serial: 0,
            draining: false,
            dials: Vec::new(),
            neighbours: Slab::new(),
            by_session: Map::default(),
            by_link: Map::default(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Out<Output>) {
        match input {
            Input::Add { address, price_us } => self.add(now, address, price_us, out),
            Input::Remove { address } => self.remove(now, &address, out),
            Input::Drain => self.drain(now, out),
            Input::Tell { link, message } => self.tell(now, link, message, out),
            Input::Door { dial, answer } => self.door(now, dial, answer, out),
            Input::Bridge { dial, answer } => self.bridge(now, dial, answer, out),
            Input::Asked { asker, ask } => self.asked(now, asker, ask, out),
            Input::Bound { session, endpoint } => self.bound(now, session, endpoint, out),
            Input::Said { session, frame } => self.said(now, session, frame, out),
            Input::Gone { session, why } => {
                if let Some(&key) = self.by_session.get(&session) {
                    self.end(now, key, why, out);
                }
            }
            Input::Blocked { session } => self.set_blocked(session, true),
            Input::Writable { session } => self.set_blocked(session, false),
        }
    }

    /// Says what is to be said, and does what is due.
    pub fn tick(&mut self, now: Time, out: &mut Out<Output>) {
        for index in 0..self.dials.len() {
            self.tick_dial(now, index, out);
        }
        let mut key = 0;
        while key < self.neighbours.capacity() {
            if self.neighbours.contains(key) {
                self.tick_neighbour(now, key, out);
            }
            key += 1;
        }
    }

    /// When `tick` next has work, in monotonic nanoseconds.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let dials = self.dials.iter().filter_map(Dial::wake_at);
        let neighbours = self.neighbours.iter().filter_map(|(_, at)| self.neighbour_wake_at(at));
        dials.chain(neighbours).min()
    }

    /// Whether there is no link, and none is to be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dials.is_empty() && self.neighbours.is_empty()
    }

    fn tell(&mut self, now: Time, link: LinkId, message: Message, out: &mut Out<Output>) {
        let Some(&key) = self.by_link.get(&link) else { return };
        let Some(at) = self.neighbours[key].link.as_mut() else { return };
        if let Err(message) = at.push(message, self.link_bytes) {
            if !is_control(&message) {
                return out.push(Output::Full { link, message: *message });
            }
            // Half of a catalog is worse than none: the neighbour gets all of it anew.
            self.bye(now, key, Bye::Overrun, out);
        }
    }

    fn drain(&mut self, now: Time, out: &mut Out<Output>) {
        self.draining = true;
        for dial in std::mem::take(&mut self.dials) {
            self.hang_up(&dial, out);
        }
        let keys: Vec<usize> = self.neighbours.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.bye(now, key, Bye::Draining, out);
        }
    }

    fn set_blocked(&mut self, session: SessionId, blocked: bool) {
        let Some(&key) = self.by_session.get(&session) else { return };
        if let Some(at) = self.neighbours[key].session.as_mut() {
            at.blocked = blocked;
        }
    }

    /// A number that was not used before.
    const fn next_serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// The neighbour of that name, if something is known of it.
    fn find(&self, node: &str) -> Option<usize> {
        self.neighbours.iter().find(|(_, at)| at.node == node).map(|(key, _)| key)
    }

    fn refuse(&self, code: Code, message: String) -> Refusal {
        Refusal::new(code, format!("{}: {message}", self.about.life.node))
    }
}
