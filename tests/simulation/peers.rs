//! Clients and workers as state machines: what they say when, and what they make of answers.

use std::collections::BTreeMap;

use mpreg_patterns::base::{Code, Refusal, Rng, RunId};
use mpreg_patterns::ops::{Hello, Offer, Reply, Request};
use mpreg_patterns::values::{Body, Value};

use crate::plans::{Plan, Plans};
use crate::workload::{self, one_in};

pub(crate) const MS: u64 = 1_000_000;
/// A worker repeats its offer this often.
const REFRESH_NS: u64 = 2_000 * MS;
/// After its deadline and this long, a client of ours stops waiting whatever it has heard.
const PATIENCE_NS: u64 = 7_000 * MS;
const IN_FLIGHT: usize = 24;

#[derive(Debug)]
struct Flight {
    /// How often the id was used: each use has an answer of its own.
    uses: u32,
    sent_ns: u64,
    give_up_ns: u64,
}

/// A client: asks at random, and knows what it waits for.
#[derive(Debug)]
pub(crate) struct Client {
    index: usize,
    rng: Rng,
    serial: u64,
    flights: BTreeMap<String, Flight>,
    /// Parts of graphs that are still to be sent.
    later: Vec<(u64, Request)>,
    next_ns: u64,
    pub(crate) active: bool,
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    /// Ids of probes that must end well.
    probes: Vec<String>,
}

impl Client {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        Self {
            index,
            rng: Rng::new(seed),
            serial: 0,
            flights: BTreeMap::new(),
            later: Vec::new(),
            next_ns: 0,
            active: true,
            answered: 0,
            unknown: 0,
            probes: Vec::new(),
        }
    }

    pub(crate) fn wake_at(&self) -> u64 {
        let later = self.later.iter().map(|part| part.0);
        let ends = self.flights.values().map(|flight| flight.give_up_ns);
        let next = self.active.then_some(self.next_ns);
        later.chain(ends).chain(next).min().unwrap_or(u64::MAX)
    }

    /// What the client says now. `disturbed_ns` is when anything was last lost on its way.
    pub(crate) fn wake(
        &mut self,
        now_ns: u64,
        disturbed_ns: u64,
        plans: &mut Plans,
    ) -> Vec<Request> {
        let mut said = Vec::new();
        let mut at = 0;
        while at < self.later.len() {
            if self.later[at].0 <= now_ns {
                said.push(self.later.remove(at).1);
            } else {
                at += 1;
            }
        }
        self.give_up(now_ns, disturbed_ns);
        if self.active && self.next_ns <= now_ns {
            self.next_ns = now_ns + MS * (1 + self.rng.below(60) as u64);
            self.ask(now_ns, plans, &mut said);
        }
        said
    }

    fn give_up(&mut self, now_ns: u64, disturbed_ns: u64) {
        let before = self.flights.len();
        let index = self.index;
        self.flights.retain(|id, flight| {
            let over = flight.give_up_ns <= now_ns;
            // Only what was lost on its way may stay without an answer.
            assert!(!over || disturbed_ns >= flight.sent_ns, "c{index} never heard of {id}");
            !over
        });
        self.unknown += (before - self.flights.len()) as u64;
    }

    fn ask(&mut self, now_ns: u64, plans: &mut Plans, said: &mut Vec<Request>) {
        if self.flights.len() >= IN_FLIGHT {
            return;
        }
        self.serial += 1;
        let id = format!("r{}", self.serial);
        let key = format!("c{}-{}", self.index, self.serial);
        let some = self.flights.keys().nth(self.rng.below(self.flights.len().max(1))).cloned();
        match (self.rng.below(20), some) {
            (0..=2, Some(known)) => said.push(Request::Cancel { id: known.into() }),
            (3, Some(known)) => {
                said.push(workload::call(&mut self.rng, &known, &key, plans));
                self.sent(now_ns, &known);
            }
            (4..=9, _) => self.ask_graph(now_ns, &id, plans, said),
            _ => {
                said.push(workload::call(&mut self.rng, &id, &key, plans));
                self.sent(now_ns, &id);
            }
        }
    }

    fn ask_graph(&mut self, now_ns: u64, id: &str, plans: &mut Plans, said: &mut Vec<Request>) {
        // Far apart, since the steps count on from it.
        let track = RunId((self.index as u128 + 1) << 80 | u128::from(self.serial) << 20);
        let key = format!("{track}");
        let parts = workload::graph(&mut self.rng, id, track, plans);
        for step in 0..16 {
            let stands_in = format!("{key}/s{step}!");
            plans.add(&stands_in, Plan { fun: "f0".into(), ..Plan::default() });
        }
        let mut at_ns = now_ns;
        for (index, part) in parts.into_iter().enumerate() {
            if index == 0 {
                said.push(Request::Graph(part.into()));
            } else {
                at_ns += MS * self.rng.below(60) as u64;
                self.later.push((at_ns, Request::Graph(part.into())));
            }
        }
        self.sent(now_ns, id);
    }

    fn sent(&mut self, now_ns: u64, id: &str) {
        let give_up_ns = now_ns + 5_000 * MS + PATIENCE_NS;
        let new = Flight { uses: 0, sent_ns: now_ns, give_up_ns };
        let flight = self.flights.entry(id.to_owned()).or_insert(new);
        flight.uses += 1;
        flight.give_up_ns = give_up_ns;
    }

    /// One call of every function: what must work once everything is well again.
    pub(crate) fn probe(&mut self, now_ns: u64, plans: &mut Plans) -> Vec<Request> {
        let calls = (0..4).map(|function| {
            let id = format!("probe{function}");
            self.sent(now_ns, &id);
            let key = format!("c{}-{id}", self.index);
            let request = workload::probe(&id, &key, function, plans);
            self.probes.push(id);
            request
        });
        calls.collect()
    }

    pub(crate) fn hear(&mut self, reply: &Reply) {
        let (id, last) = match reply {
            Reply::Result { id, .. } | Reply::Error { id: Some(id), .. } => (id.to_string(), true),
            Reply::Graph(reply) => (reply.id.to_string(), !reply.more),
            Reply::Progress(told) => (told.id.to_string(), false),
            _ => return,
        };
        if self.probes.contains(&id) {
            assert!(matches!(reply, Reply::Result { .. }), "when all was well: {reply:?}");
        }
        if let Reply::Error { error, .. } = reply
            && error.is(Code::IncompleteGraph)
        {
            // Parts on their way to another life of the broker: it answers the first it sees.
            let of_it = |part: &(u64, Request)| matches!(&part.1, Request::Graph(g) if g.id == id);
            self.later.retain(|part| !of_it(part));
            if !self.flights.contains_key(&id) {
                return;
            }
        }
        let Some(flight) = self.flights.get_mut(&id) else {
            panic!("c{} hears of {id}, which it does not wait for: {reply:?}", self.index);
        };
        if last {
            self.answered += 1;
            flight.uses -= 1;
            if flight.uses == 0 {
                self.flights.remove(&id);
            }
        }
    }

    /// The connection has died: what was in flight has an unknown outcome.
    pub(crate) fn lost(&mut self) {
        self.unknown += self.flights.len() as u64;
        self.flights.clear();
        self.later.clear();
        self.probes.clear();
    }

    pub(crate) fn waits(&self) -> usize {
        self.flights.len()
    }
}

#[derive(Debug)]
struct Hand {
    key: String,
    due_ns: u64,
    cancelled: bool,
}

/// A worker: offers, runs, answers; at times slowly, or never.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    rng: Rng,
    offer: Offer,
    hands: BTreeMap<u128, Hand>,
    refresh_ns: u64,
    serial: u64,
    /// Said `bye`, and is back then.
    away_until_ns: Option<u64>,
    /// From here on it is a good worker: quick, willing, without failures.
    pub(crate) settled: bool,
    pub(crate) ran: u64,
}

impl Worker {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let offer = workload::offer(&mut rng, index == 0);
        let (hands, away_until_ns) = (BTreeMap::new(), None);
        let (refresh_ns, serial, settled, ran) = (0, 0, false, 0);
        Self { index, rng, offer, hands, refresh_ns, serial, away_until_ns, settled, ran }
    }

    pub(crate) fn wake_at(&self) -> u64 {
        let hands = self.hands.values().map(|hand| hand.due_ns).min().unwrap_or(u64::MAX);
        hands.min(self.away_until_ns.unwrap_or(self.refresh_ns))
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Request> {
        let mut said = Vec::new();
        let due: Vec<u128> = self
            .hands
            .iter()
            .filter(|(_, hand)| hand.due_ns <= now_ns)
            .map(|(run, _)| *run)
            .collect();
        for run in due {
            let hand = self.hands.remove(&run).expect("it is there");
            said.push(self.outcome(RunId(run), &hand));
        }
        if self.away_until_ns.is_some_and(|until_ns| until_ns <= now_ns) {
            self.away_until_ns = None;
            self.refresh_ns = now_ns;
        }
        if self.away_until_ns.is_none() && self.refresh_ns <= now_ns {
            self.refresh_ns = now_ns + REFRESH_NS;
            self.speak(now_ns, &mut said);
        }
        said
    }

    fn outcome(&mut self, run: RunId, hand: &Hand) -> Request {
        self.serial += 1;
        self.ran += 1;
        if hand.cancelled || !self.settled && one_in(&mut self.rng, 8) {
            let retry = one_in(&mut self.rng, 2);
            let error = Refusal::by_worker(None, "it broke", retry);
            return Request::Failed { run, error: Box::new(error) };
        }
        let value = format!("\"{}#{}.{}\"", hand.key, self.index, self.serial);
        Request::Result { run, body: Box::new(Body::plain(Value::json(value))) }
    }

    fn speak(&mut self, now_ns: u64, said: &mut Vec<Request>) {
        if self.settled {
            self.offer = workload::offer(&mut self.rng, true);
        } else if one_in(&mut self.rng, 5) {
            self.offer = workload::offer(&mut self.rng, self.index == 0);
        } else if one_in(&mut self.rng, 8) {
            self.away_until_ns = Some(now_ns + MS * self.rng.below(1_500) as u64);
            return said.push(Request::Bye { id: None });
        }
        if one_in(&mut self.rng, 3) {
            said.push(Request::Hello(Hello::default()));
        }
        said.push(Request::Offer(Box::new(self.offer.clone())));
    }

    /// What it hears, and what it says to that at once.
    pub(crate) fn hear(&mut self, now_ns: u64, reply: &Reply) -> Option<Request> {
        match reply {
            Reply::Run(run) => {
                let args = run.args.as_ref().expect("arguments");
                let args: Vec<String> = serde_json::from_slice(&args.bytes).expect("strings");
                let due_ns = now_ns + self.takes_ns();
                let hand = Hand { key: args[0].clone(), due_ns, cancelled: false };
                assert!(self.hands.insert(run.id.0, hand).is_none(), "{} came twice", args[0]);
                one_in(&mut self.rng, 10).then(|| Request::Progress {
                    run: run.id,
                    percent: Some(1.0),
                    note: None,
                })
            }
            Reply::Cancel { run } => {
                let heeds = !one_in(&mut self.rng, 3);
                if let Some(hand) = self.hands.get_mut(&{ run.0 }).filter(|_| heeds) {
                    (hand.due_ns, hand.cancelled) = (now_ns + MS, true);
                }
                None
            }
            _ => None,
        }
    }

    fn takes_ns(&mut self) -> u64 {
        if self.settled {
            return MS;
        }
        match self.rng.below(40) {
            // As good as never: until it is killed or all calm down.
            0 => 100_000 * MS,
            1..=3 => MS * self.rng.below(3_000) as u64,
            _ => MS * self.rng.below(60) as u64,
        }
    }

    /// Comes to its senses: what it sat on, it answers now.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        self.settled = true;
        for hand in self.hands.values_mut() {
            hand.due_ns = hand.due_ns.min(now_ns + 100 * MS);
        }
    }

    /// It has noticed that its connection is another: it offers anew at once.
    pub(crate) fn reconnected(&mut self, now_ns: u64) {
        self.refresh_ns = now_ns;
    }

    /// The process was killed, and another begins.
    pub(crate) fn killed(&mut self, now_ns: u64) {
        self.hands.clear();
        self.away_until_ns = None;
        self.refresh_ns = now_ns;
    }

    pub(crate) fn holds(&self) -> usize {
        self.hands.len()
    }
}
