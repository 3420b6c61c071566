//! Links to other brokers: their sockets, and what they bring.

use std::sync::Arc;

use mpreg_patterns::base::{Map, Out, Time};
use mpreg_patterns::federation::links::{DialId, Frame, Input, Links, Output, SessionId};
use mpreg_patterns::federation::{self, Fact, Key, LinkId, Message};
use mpreg_patterns::node::{self, LinkTask};
use mpreg_sockets::link::{Answer, Bridge, Dialler, Pair, pair, reached};
use mpreg_sockets::wait::{Listens, Wait};
use smol_str::{SmolStr, format_smolstr};

use super::Core;
use crate::config::{LinkConfig, RuleConfig};

/// Frames read from one session before others get their turn.
const FRAMES_PER_TURN: usize = 64;
/// The same in bytes.
const BYTES_PER_TURN: usize = 4 << 20;

/// Where PAIRs of sessions are bound, and what others are told of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// The ports to choose from; without them the system chooses.
    pub(crate) ports: Option<(u16, u16)>,
    /// The host under which other brokers reach this one; without it, the one they dialled.
    pub(crate) advertise: Option<String>,
}

/// The links, and the sockets they are made of.
pub(super) struct Wiring {
    pub(super) links: Links,
    out: Out<Output>,
    context: zmq::Context,
    node: SmolStr,
    bridge: Bridge,
    ends: Ends,
    dials: Map<DialId, Dialler>,
    sessions: Map<SessionId, Pair>,
}

impl Wiring {
    pub(super) fn new(
        context: zmq::Context,
        bridge: Bridge,
        links: Links,
        node: SmolStr,
        ends: Ends,
    ) -> Self {
        let (out, dials, sessions) = Default::default();
        Self { links, out, context, node, bridge, ends, dials, sessions }
    }

    /// The bridge.
    pub(super) const fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// For `zmq::poll`: the other sockets.
    pub(super) fn poll_items(&self) -> impl Iterator<Item = zmq::PollItem<'_>> {
        let dials = self.dials.values().map(Listens::poll_item);
        let sessions = self.sessions.values().flat_map(Pair::poll_items);
        dials.chain(sessions)
    }

    /// Whether something else than what comes over sessions is waited for.
    pub(super) fn is_unusual(&self) -> bool {
        !self.dials.is_empty() || self.sessions.values().any(Pair::is_blocked)
    }

    /// Whether something has come over a session that was used for sending.
    pub(super) fn look(&mut self) -> bool {
        self.sessions.values_mut().any(Pair::look)
    }

    /// Waits for the sessions too.
    pub(super) fn wait_for(&self, wait: &mut Wait) {
        self.sessions.values().flat_map(Pair::listeners).for_each(|socket| wait.add(socket));
    }

    /// Notes which sessions have rung, the first of them from that place on; without, all.
    pub(super) fn rang(&mut self, wait: Option<(&Wait, usize)>) {
        for (index, pair) in self.sessions.values_mut().enumerate() {
            let rang = |(wait, first): (&Wait, usize)| {
                let place = first + 2 * index;
                wait.rang(place) || wait.rang(place + 1)
            };
            if wait.is_none_or(rang) {
                pair.stir();
            }
        }
    }

    /// Binds a PAIR for one who reaches this broker under that host.
    fn bind(&self, session: SessionId, host: &str) -> Result<(Pair, SmolStr), SmolStr> {
        let bridge = self.bridge.endpoint();
        let Some((base, _)) = bridge.strip_prefix("tcp://").and_then(|at| at.rsplit_once(':'))
        else {
            let address = format!("{bridge}-{}", session.0);
            let pair =
                Pair::bind(&self.context, &address).map_err(|why| format_smolstr!("{why}"))?;
            let endpoint = SmolStr::new(pair.endpoint());
            return Ok((pair, endpoint));
        };
        let pair = match self.ends.ports {
            None => Pair::bind(&self.context, &format!("tcp://{base}:*")),
            Some((first, last)) => {
                let mut bound = Err(zmq::Error::EADDRINUSE);
                for port in first..=last {
                    bound = Pair::bind(&self.context, &format!("tcp://{base}:{port}"));
                    if !matches!(bound, Err(zmq::Error::EADDRINUSE)) {
                        break;
                    }
                }
                bound
            }
        };
        let pair = pair.map_err(|why| format_smolstr!("no port for a PAIR: {why}"))?;
        let port = pair.endpoint().rsplit_once(':').map_or("", |(_, port)| port);
        let endpoint = match &self.ends.advertise {
            Some(host) => format!("tcp://{host}:{port}"),
            None => reached(pair.endpoint(), &format!("tcp://{host}:{port}")),
        };
        Ok((pair, endpoint.into()))
    }
}

/// Says what to do where two brokers have one name.
pub(super) fn warn_of_rival(node: &str) {
    log::error!(
        "another broker is called {node} and began later: other brokers reach that one, not this; \
         start one of the two under another --node"
    );
}

impl Core {
    /// What holds for neighbours from the start.
    pub(crate) fn rule_all(&mut self, rules: &[RuleConfig]) {
        let now = self.now();
        for RuleConfig { neighbour, export, import } in rules.iter().cloned() {
            let (key, fact) = (Key::Rule(neighbour), Some(Fact::Rule { export, import }));
            let own = node::Input::Link(federation::Input::Own { key, fact });
            self.node.handle(now, own, &mut self.out);
        }
    }

    /// Neighbours from the start.
    pub(crate) fn link_all(&mut self, links: &[LinkConfig]) {
        let now = self.now();
        for link in links {
            let (address, price_us) = (SmolStr::new(&link.address), link.price_us);
            self.link_task(now, &LinkTask::Add { address, price_us });
        }
    }

    /// Says goodbye to the neighbours, who then need not wonder.
    pub(super) fn leave_links(&mut self, now: Time) {
        self.write_links(now);
        self.link_input(now, Input::Drain);
    }

    /// A broker is to be a neighbour, or is not to be any more.
    pub(super) fn link_task(&mut self, now: Time, task: &LinkTask) {
        let input = match task.clone() {
            LinkTask::Add { address, price_us } => Input::Add { address, price_us },
            LinkTask::Remove { address } => Input::Remove { address },
        };
        self.wiring.links.handle(now, input, &mut self.wiring.out);
        self.link_outputs(now);
    }

    /// Something for a neighbour. It leaves at the end of the turn, with what else is for it.
    pub(super) fn tell(&mut self, now: Time, link: LinkId, message: &Message) {
        let input = Input::Tell { link, message: message.clone() };
        self.wiring.links.handle(now, input, &mut self.wiring.out);
        self.link_outputs(now);
    }

    /// Takes what came from other brokers, up to a bound. True when there may be more.
    pub(super) fn read_links(&mut self, now: Time) -> bool {
        if self.stirred.bridge {
            self.stirred.bridge = self.read_bridge(now);
        }
        if self.wiring.dials.is_empty() && self.wiring.sessions.is_empty() {
            return false;
        }
        self.read_answers(now);
        let stirred = self.wiring.sessions.iter().filter(|(_, pair)| pair.is_stirred());
        let sessions: Vec<SessionId> = stirred.map(|(session, _)| *session).collect();
        let mut more = false;
        for session in sessions {
            more |= self.read_session(now, session);
        }
        self.encode(now);
        more
    }

    /// True when there may be more.
    fn read_bridge(&mut self, now: Time) -> bool {
        for _ in 0..FRAMES_PER_TURN {
            match self.wiring.bridge.receive() {
                Ok(Some((asker, ask))) => self.link_input(now, Input::Asked { asker, ask }),
                Ok(None) => return false,
                Err(error) => {
                    log::error!("reading the bridge failed: {error}");
                    return false;
                }
            }
        }
        true
    }

    fn read_answers(&mut self, now: Time) {
        let answers: Vec<_> = self
            .wiring
            .dials
            .iter()
            .filter_map(|(dial, dialler)| Some((*dial, dialler.answer().ok().flatten()?)))
            .collect();
        for (dial, answer) in answers {
            self.wiring.dials.remove(&dial);
            let input = match answer {
                Answer::Door(answer) => Input::Door { dial, answer },
                Answer::Bridge(answer) => Input::Bridge { dial, answer },
            };
            self.link_input(now, input);
        }
    }

    /// True when there may be more.
    fn read_session(&mut self, now: Time, session: SessionId) -> bool {
        let mut bytes = 0;
        for _ in 0..FRAMES_PER_TURN {
            let Some(pair) = self.wiring.sessions.get_mut(&session) else { return false };
            match pair.receive() {
                Ok(Some((pair::Heard::Frame(frame), size))) => {
                    bytes += size;
                    self.link_input(now, Input::Said { session, frame });
                }
                Ok(Some((pair::Heard::NoFrame(why), _))) => {
                    self.session_gone(now, session, format_smolstr!("{why}"));
                    return false;
                }
                Ok(None) => return self.look_after(now, session),
                Err(error) => {
                    self.session_gone(now, session, format_smolstr!("{error}"));
                    return false;
                }
            }
            if bytes >= BYTES_PER_TURN {
                break;
            }
        }
        true
    }

    /// Nothing more has come over a session: perhaps it is over, or takes something again.
    fn look_after(&mut self, now: Time, session: SessionId) -> bool {
        let Some(pair) = self.wiring.sessions.get_mut(&session) else { return false };
        if pair.is_lost().unwrap_or(true) {
            self.session_gone(now, session, "its connection is lost".into());
        } else if pair.is_blocked() && pair.flush().unwrap_or(false) {
            self.link_input(now, Input::Writable { session });
        }
        false
    }

    fn session_gone(&mut self, now: Time, session: SessionId, why: SmolStr) {
        self.link_input(now, Input::Gone { session, why });
    }

    fn link_input(&mut self, now: Time, input: Input) {
        self.wiring.links.handle(now, input, &mut self.wiring.out);
        self.link_outputs(now);
    }

    /// Says what waits for other brokers, and does what is due.
    pub(super) fn write_links(&mut self, now: Time) {
        while self.wiring.links.wake_at().is_some_and(|at| at <= now.mono_ns) {
            self.wiring.links.tick(now, &mut self.wiring.out);
            self.link_outputs(now);
            self.encode(now);
        }
    }

    fn link_outputs(&mut self, now: Time) {
        while !self.wiring.out.is_empty() {
            let mut out = std::mem::take(&mut self.wiring.out);
            for output in out.drain() {
                self.link_output(now, output);
            }
            if self.wiring.out.is_empty() {
                self.wiring.out = out;
            }
        }
    }

    fn link_output(&mut self, now: Time, output: Output) {
        let news = match output {
            Output::Up { link, peer, cluster, cost_us } => {
                log::info!("link to {} ({cluster}) is up", peer.node);
                federation::Input::Up { link, peer, cost_us }
            }
            Output::Down { link, peer, reason } => {
                log::info!("link to {} is down: {reason}", peer.node);
                federation::Input::Down { link }
            }
            Output::Heard { link, message } => federation::Input::Heard { link, message },
            Output::Cost { link, cost_us } => federation::Input::Cost { link, cost_us },
            Output::Full { message, .. } => federation::Input::Refused { message },
            Output::Failed { address, why } => {
                return log::warn!("no link to {address}: {why}");
            }
            other => return self.link_socket(now, other),
        };
        self.node.handle(now, node::Input::Link(news), &mut self.out);
    }

    /// What is to be done with a socket.
    fn link_socket(&mut self, now: Time, output: Output) {
        let Wiring { context, node, .. } = &self.wiring;
        match output {
            Output::AskDoor { dial, address } => match Dialler::door(context, &address, node) {
                Ok(dialler) => _ = self.wiring.dials.insert(dial, dialler),
                Err(why) => {
                    let answer = Err(format_smolstr!("{address}: {why}"));
                    self.link_input(now, Input::Door { dial, answer });
                }
            },
            Output::AskBridge { dial, address, ask } => {
                match Dialler::bridge(context, &address, &ask) {
                    Ok(dialler) => _ = self.wiring.dials.insert(dial, dialler),
                    // It is hung up on in time.
                    Err(why) => log::warn!("asking the bridge {address} failed: {why}"),
                }
            }
            Output::HangUp { dial } => _ = self.wiring.dials.remove(&dial),
            Output::Bind { session, host } => {
                let endpoint = match self.wiring.bind(session, &host) {
                    Ok((pair, endpoint)) => {
                        self.wiring.sessions.insert(session, pair);
                        Ok(endpoint)
                    }
                    Err(why) => Err(why),
                };
                self.link_input(now, Input::Bound { session, endpoint });
            }
            Output::Answer { asker, answer } => {
                self.stirred.bridge = true;
                if let Err(error) = self.wiring.bridge.answer(&asker, &answer) {
                    log::warn!("answering at the bridge failed: {error}");
                }
            }
            Output::Connect { session, endpoint } => match Pair::connect(context, &endpoint) {
                Ok(pair) => _ = self.wiring.sessions.insert(session, pair),
                Err(why) => self.session_gone(now, session, format_smolstr!("{endpoint}: {why}")),
            },
            Output::Say { session, frame } => self.say(now, session, &frame),
            Output::Close { session } => _ = self.wiring.sessions.remove(&session),
            _ => {}
        }
    }

    fn say(&mut self, now: Time, session: SessionId, frame: &Frame<Arc<Message>>) {
        let Some(pair) = self.wiring.sessions.get_mut(&session) else { return };
        let was_blocked = pair.is_blocked();
        match pair.send(frame) {
            Ok(true) => {}
            Ok(false) if was_blocked => {}
            Ok(false) => self.link_input(now, Input::Blocked { session }),
            Err(error) => self.session_gone(now, session, format_smolstr!("{error}")),
        }
    }
}
