//! Two or more brokers over a network that loses connections, in virtual time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::federation::{Cargo, Packet, Talk};

pub(super) const MS: u64 = 1_000_000;
/// One way, whatever goes it.
const LATENCY_NS: u64 = MS;

#[derive(Debug)]
enum Event {
    AskDoor(DialId, SmolStr),
    AskBridge(DialId, Ask),
    DoorSays(DialId, Result<Found, SmolStr>),
    BridgeSays(DialId, Result<Agreed, Refusal>),
    Frame(SessionId, Frame),
    Gone(SessionId),
}

/// The brokers `a`, `b`, `c` …, each at the address that is its name.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) brokers: Vec<Option<Links>>,
    lives: Vec<Life>,
    /// What is on its way: when it arrives, where from, where to.
    events: BTreeMap<(u64, u64), (usize, usize, Event)>,
    serial: u64,
    /// Both ends of each connection, in both directions.
    pairs: BTreeMap<(usize, SessionId), (usize, SessionId)>,
    bound: BTreeMap<SmolStr, (usize, SessionId)>,
    /// Nothing arrives any more.
    pub(super) parted: bool,
    /// Whose PAIRs take nothing.
    pub(super) stuck: Option<usize>,
    /// A session that brings nothing, and does not break.
    deaf: Option<(usize, SessionId)>,
    pub(super) up: Vec<BTreeMap<LinkId, SmolStr>>,
    /// What was told over each link of each broker, and not reported lost.
    pub(super) told: BTreeMap<(usize, LinkId), Vec<u64>>,
    pub(super) heard: Vec<Vec<u64>>,
    pub(super) log: Vec<String>,
    /// Frames that were said.
    pub(super) frames: u64,
}

fn name(broker: usize) -> SmolStr {
    SmolStr::new(char::from(b'a' + broker as u8).to_string())
}

pub(super) fn packet(number: u64) -> Message {
    let life = Life { node: SmolStr::new_static("x"), epoch: 1 };
    let cargo = Cargo::Ack { talk: Talk::default(), seq: number };
    Message::Packet(Packet { from: life.clone(), to: life, path: Vec::new(), cargo })
}

fn number(message: &Message) -> u64 {
    match message {
        Message::Packet(Packet { cargo: Cargo::Ack { seq: number, .. }, .. }) => *number,
        other => panic!("{other:?} was never told"),
    }
}

fn carried(frame: Frame<Arc<Message>>) -> Frame {
    match frame {
        Frame::Hello(hello) => Frame::Hello(hello),
        Frame::Messages { first, ack, messages } => {
            let messages = messages.iter().map(|message| Message::clone(message)).collect();
            Frame::Messages { first, ack, messages }
        }
        Frame::Ping(number) => Frame::Ping(number),
        Frame::Pong(number) => Frame::Pong(number),
        Frame::Bye(bye) => Frame::Bye(bye),
    }
}

impl World {
    pub(super) fn new(brokers: usize) -> Self {
        let mut world = Self {
            now: Time { mono_ns: 5_000 * MS, wall_ms: 1_000_000 },
            brokers: Vec::new(),
            lives: Vec::new(),
            events: BTreeMap::new(),
            serial: 0,
            pairs: BTreeMap::new(),
            bound: BTreeMap::new(),
            parted: false,
            stuck: None,
            deaf: None,
            up: vec![BTreeMap::new(); brokers],
            told: BTreeMap::new(),
            heard: vec![Vec::new(); brokers],
            log: Vec::new(),
            frames: 0,
        };
        for broker in 0..brokers {
            world.brokers.push(None);
            world.lives.push(Life { node: name(broker), epoch: 0 });
            world.start(broker);
        }
        world
    }

    /// Begins a broker's next life.
    pub(super) fn start(&mut self, broker: usize) {
        let named = self.lives[broker].node.clone();
        self.start_as(broker, named);
    }

    pub(super) fn start_as(&mut self, broker: usize, node: SmolStr) {
        self.serial += 1;
        self.lives[broker] = Life { node, epoch: self.serial };
        let about = About { life: self.lives[broker].clone(), cluster: "test".into() };
        let limits = Limits { links: 4, link_bytes: 4_096, ..Limits::default() };
        self.brokers[broker] = Some(Links::new(about, &limits, self.serial));
    }

    /// Ends a broker's life without a word; its connections break.
    pub(super) fn kill(&mut self, broker: usize) {
        self.brokers[broker] = None;
        self.up[broker].clear();
        self.told.retain(|(from, _), _| *from != broker);
        self.cut(broker, 0);
        self.bound.retain(|_, (at, _)| *at != broker);
    }

    /// Breaks all connections of a broker; each side notices after up to `notice_ms`.
    pub(super) fn cut(&mut self, broker: usize, notice_ms: u64) {
        let ends: Vec<_> = self.pairs.iter().map(|(near, far)| (*near, *far)).collect();
        for (near, far) in ends.into_iter().filter(|(near, far)| [near.0, far.0].contains(&broker))
        {
            self.pairs.remove(&near);
            let notice = (self.serial * 7) % (notice_ms + 1) * MS;
            // From itself: no partition keeps it from being noticed.
            self.send_after(near.0, near.0, Event::Gone(near.1), notice);
            let _ = far;
        }
    }

    /// A broker hears nothing over the session it has now.
    pub(super) fn deafen(&mut self, broker: usize) {
        self.deaf = self.pairs.keys().copied().find(|(at, _)| *at == broker);
    }

    fn send_after(&mut self, from: usize, to: usize, event: Event, after_ns: u64) {
        self.serial += 1;
        self.events.insert((self.now.mono_ns + after_ns, self.serial), (from, to, event));
    }

    pub(super) fn input(&mut self, broker: usize, input: Input) {
        let Some(links) = &mut self.brokers[broker] else { return };
        let mut out = Out::new();
        links.handle(self.now, input, &mut out);
        self.outputs(broker, out);
    }

    pub(super) fn add(&mut self, broker: usize, address: &str) {
        self.input(broker, Input::Add { address: address.into(), price_us: 0 });
    }

    /// Tells a number over every link of a broker.
    pub(super) fn tell(&mut self, broker: usize, number: u64) {
        for link in self.up[broker].keys().copied().collect::<Vec<_>>() {
            self.told.entry((broker, link)).or_default().push(number);
            self.input(broker, Input::Tell { link, message: packet(number) });
        }
    }

    fn outputs(&mut self, broker: usize, mut out: Out<Output>) {
        for output in out.drain() {
            self.output(broker, output);
        }
    }

    fn output(&mut self, broker: usize, output: Output) {
        let at = name(broker);
        match output {
            Output::AskDoor { dial, address } => {
                self.send(broker, &address.clone(), Event::AskDoor(dial, address));
            }
            Output::AskBridge { dial, address, ask } => {
                self.send(broker, &address, Event::AskBridge(dial, ask));
            }
            Output::HangUp { .. } => {}
            Output::Bind { session, .. } => {
                self.serial += 1;
                let endpoint = SmolStr::new(format!("{at}-{}", self.serial));
                self.bound.insert(endpoint.clone(), (broker, session));
                self.input(broker, Input::Bound { session, endpoint: Ok(endpoint) });
            }
            Output::Answer { asker, answer } => {
                let dial = DialId(u32::from_le_bytes([asker[1], asker[2], asker[3], asker[4]]));
                let event = Event::BridgeSays(dial, answer);
                self.send_after(broker, usize::from(asker[0]), event, LATENCY_NS);
            }
            Output::Connect { session, endpoint } => {
                if let Some(far) = self.bound.remove(&endpoint) {
                    self.pairs.insert((broker, session), far);
                    self.pairs.insert(far, (broker, session));
                }
            }
            Output::Say { session, frame } => {
                self.frames += 1;
                if self.stuck == Some(broker) {
                    return self.input(broker, Input::Blocked { session });
                }
                if let Some(&(to, far)) = self.pairs.get(&(broker, session)) {
                    let event = Event::Frame(far, carried(frame));
                    self.send_after(broker, to, event, LATENCY_NS);
                }
            }
            Output::Close { session } => {
                if let Some((to, far)) = self.pairs.remove(&(broker, session)) {
                    self.send_after(broker, to, Event::Gone(far), LATENCY_NS);
                }
            }
            Output::Up { link, peer, cost_us, .. } => {
                self.log.push(format!("{at}: up to {}, {cost_us} us", peer.node));
                self.up[broker].insert(link, peer.node);
            }
            Output::Heard { message, .. } => self.heard[broker].push(number(&message)),
            Output::Cost { cost_us, .. } => self.log.push(format!("{at}: costs {cost_us} us")),
            Output::Down { link, peer, reason } => {
                self.log.push(format!("{at}: down to {}: {reason}", peer.node));
                self.up[broker].remove(&link);
                self.told.remove(&(broker, link));
            }
            Output::Full { link, message } => {
                let told = self.told.entry((broker, link)).or_default();
                assert_eq!(told.pop(), Some(number(&message)));
                self.log.push(format!("{at}: full"));
            }
            Output::Failed { address, why } => {
                self.log.push(format!("{at}: no link to {address}: {}", why.code));
            }
        }
    }

    fn send(&mut self, from: usize, address: &str, event: Event) {
        let to = usize::from(address.as_bytes()[0] - b'a');
        self.send_after(from, to, event, LATENCY_NS);
    }

    fn arrive(&mut self, from: usize, to: usize, event: Event) {
        if self.brokers[to].is_none() || (self.parted && from != to) {
            return;
        }
        match event {
            Event::AskDoor(dial, bridge) => {
                let answer = Ok(Found { life: self.lives[to].clone(), bridge });
                self.send_after(to, from, Event::DoorSays(dial, answer), LATENCY_NS);
            }
            Event::AskBridge(dial, ask) => {
                let mut asker = vec![from as u8];
                asker.extend(dial.0.to_le_bytes());
                self.input(to, Input::Asked { asker: asker.into(), ask });
            }
            Event::DoorSays(dial, answer) => self.input(to, Input::Door { dial, answer }),
            Event::BridgeSays(dial, answer) => self.input(to, Input::Bridge { dial, answer }),
            Event::Frame(session, frame) => {
                // What was on its way over a connection that broke is lost.
                if self.pairs.contains_key(&(to, session)) && self.deaf != Some((to, session)) {
                    self.input(to, Input::Said { session, frame });
                }
            }
            Event::Gone(session) => {
                self.pairs.remove(&(to, session));
                self.input(to, Input::Gone { session, why: "the connection is lost".into() });
            }
        }
    }

    fn tick(&mut self) {
        for broker in 0..self.brokers.len() {
            let Some(links) = &mut self.brokers[broker] else { continue };
            let mut out = Out::new();
            links.tick(self.now, &mut out);
            self.outputs(broker, out);
        }
    }

    /// Lets time pass: events and deadlines in their order.
    pub(super) fn run(&mut self, ms: u64) {
        let until = self.now.mono_ns + ms * MS;
        loop {
            self.tick();
            let wake = self.brokers.iter().flatten().filter_map(Links::wake_at).min();
            let event = self.events.keys().next().map(|(at, _)| *at);
            let Some(next) = [wake, event].into_iter().flatten().min() else { break };
            let next = next.max(self.now.mono_ns);
            if next > until {
                break;
            }
            self.now.mono_ns = next;
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= next)
            {
                let (from, to, event) = entry.remove();
                self.arrive(from, to, event);
            }
        }
        self.now.mono_ns = self.now.mono_ns.max(until);
    }

    /// What was logged since it was asked last.
    pub(super) fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Tell(usize, u8),
    Run(u16),
    /// The connection breaks.
    Cut(u64),
    /// It is not to be had for a while, which the sides notice at different times.
    Part(u16),
    Restart(usize),
    /// One side's PAIR takes nothing for a while.
    Stick(usize, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..2, 1_u8..40).prop_map(|(broker, count)| Step::Tell(broker, count)),
        6 => (0_u16..80).prop_map(Step::Run),
        3 => (0_u64..40).prop_map(Step::Cut),
        1 => (1_u16..3_000).prop_map(Step::Part),
        1 => (0_usize..2).prop_map(Step::Restart),
        1 => (0_usize..2, 1_u16..300).prop_map(|(broker, ms)| Step::Stick(broker, ms)),
    ]
}

proptest! {
    /// Whatever breaks: what is told, and not reported lost, arrives once and in order.
    #[test]
    fn what_is_told_arrives_once(
        dialling in 1_usize..4,
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new(2);
        let join = |world: &mut World, broker: usize| {
            if dialling & (1 << broker) != 0 {
                world.add(broker, if broker == 0 { "b" } else { "a" });
            }
        };
        join(&mut world, 0);
        join(&mut world, 1);
        let mut serial = 0;
        for step in steps {
            match step {
                Step::Tell(broker, count) => for _ in 0..count {
                    serial += 1;
                    world.tell(broker, serial);
                },
                Step::Run(ms) => world.run(u64::from(ms)),
                Step::Cut(notice_ms) => world.cut(0, notice_ms),
                Step::Part(ms) => {
                    world.parted = true;
                    world.cut(0, 1_000);
                    world.run(u64::from(ms));
                    world.parted = false;
                }
                Step::Restart(broker) => {
                    world.kill(broker);
                    world.run(10);
                    world.start(broker);
                    join(&mut world, broker);
                }
                Step::Stick(broker, ms) => {
                    // What is said meanwhile is lost here, so that the connection has to go too.
                    world.stuck = Some(broker);
                    world.run(u64::from(ms));
                    world.stuck = None;
                    world.cut(0, 0);
                }
            }
        }
        world.run(6_000);
        prop_assert_eq!(world.up[0].len(), 1, "{:?}", world.log);
        prop_assert_eq!(world.up[1].len(), 1, "{:?}", world.log);
        prop_assert_eq!(world.pairs.len(), 2, "one session");
        for (broker, heard) in world.heard.iter().enumerate() {
            prop_assert!(heard.is_sorted_by(|a, b| a < b), "{} heard {:?}", broker, heard);
            let told = world.told.iter().filter(|((from, _), _)| *from != broker);
            for number in told.flat_map(|(_, told)| told) {
                prop_assert!(heard.binary_search(number).is_ok(), "{} lost {}", broker, number);
            }
        }
        for links in world.brokers.iter().flatten() {
            let links = links.describe();
            prop_assert_eq!(links.as_array().map(Vec::len), Some(1));
            prop_assert_eq!(&links[0]["waiting"], 0);
        }
    }
}
