//! Those who take from queues: they ack, nack, forget, take too long, and die with hands full.

use std::collections::BTreeMap;

use mpreg_patterns::base::{Code, Rng, RunId};
use mpreg_patterns::ops::{Delivered, Reply, Request, Settle, Verdict};

use crate::peers::MS;
use crate::queues::Plan;
use crate::workload::one_in;

/// What is wanted is asked for again this often.
const REFRESH_NS: u64 = 1_000 * MS;

#[derive(Debug)]
struct Hand {
    due_ns: u64,
    /// What is said of it then; nothing if it is forgotten.
    verdict: Option<Verdict>,
}

/// A DEALER that takes.
#[derive(Debug)]
pub(crate) struct Consumer {
    rng: Rng,
    plans: Vec<Plan>,
    /// What it takes from: which queue, which group, and how much at once.
    wants: Vec<(usize, &'static str, u32)>,
    hands: BTreeMap<u128, Hand>,
    /// What it has said all of already, to say it again at times.
    said: Vec<RunId>,
    serial: u64,
    refresh_ns: u64,
    declare: bool,
    /// From here on it is a good consumer: quick, and content with all it gets.
    settled: bool,
}

impl Consumer {
    /// The first two take from everything, each for one group.
    pub(crate) fn new(index: usize, seed: u64, plans: Vec<Plan>) -> Self {
        let mut rng = Rng::new(seed);
        let mut wants = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            let groups = plan.groups();
            if index < 2 || one_in(&mut rng, 2) {
                wants.push((at, groups[index % groups.len()], 1 + rng.below(6) as u32));
            }
        }
        let (hands, said, serial) = (BTreeMap::new(), Vec::new(), 0);
        let (refresh_ns, declare, settled) = (0, true, false);
        Self { rng, plans, wants, hands, said, serial, refresh_ns, declare, settled }
    }

    pub(crate) fn wake_at(&self) -> u64 {
        let hands = self.hands.values().map(|hand| hand.due_ns).min().unwrap_or(u64::MAX);
        hands.min(self.refresh_ns)
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Request> {
        let mut said = Vec::new();
        self.settle_due(now_ns, &mut said);
        if self.refresh_ns <= now_ns {
            self.refresh_ns = now_ns + REFRESH_NS;
            self.refresh(&mut said);
        }
        said
    }

    /// Says what is due, of all that is done in one word.
    fn settle_due(&mut self, now_ns: u64, said: &mut Vec<Request>) {
        let due = self.hands.iter().filter(|(_, hand)| hand.due_ns <= now_ns);
        let mut done = Vec::new();
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            match self.hands.remove(&id).and_then(|hand| hand.verdict) {
                Some(Verdict::Ack) => done.push(RunId(id)),
                Some(Verdict::Extend) => {
                    let due_ns = now_ns + MS * self.rng.below(100) as u64;
                    self.hands.insert(id, Hand { due_ns, verdict: Some(Verdict::Ack) });
                    said.push(self.settling(vec![RunId(id)], Verdict::Extend));
                }
                Some(verdict) => said.push(self.settling(vec![RunId(id)], verdict)),
                None => {}
            }
        }
        if done.is_empty() {
            return;
        }
        self.said.extend(&done);
        if one_in(&mut self.rng, 8) {
            // Once more, or twice in one word.
            done.push(self.said[self.rng.below(self.said.len())]);
        }
        said.push(self.settling(done, Verdict::Ack));
    }

    fn settling(&mut self, ids: Vec<RunId>, verdict: Verdict) -> Request {
        self.serial += 1;
        let id = (self.settled || one_in(&mut self.rng, 2)).then(|| format!("k{}", self.serial));
        Request::Settle(Settle { id: id.map(Into::into), ids, verdict })
    }

    fn refresh(&mut self, said: &mut Vec<Request>) {
        if std::mem::take(&mut self.declare) {
            for at in 0..self.plans.len() {
                self.serial += 1;
                said.push(self.plans[at].declare(&format!("k{}", self.serial)));
            }
        }
        for at in 0..self.wants.len() {
            let (plan, group, mut credit) = self.wants[at];
            if !self.settled && one_in(&mut self.rng, 5) {
                credit = self.rng.below(8) as u32;
                self.wants[at].2 = credit;
            }
            if self.settled {
                credit = credit.max(4);
            }
            self.serial += 1;
            let id = Some(format!("k{}", self.serial).into());
            let group = (!group.is_empty()).then(|| group.into());
            let queue = self.plans[plan].name.into();
            said.push(Request::Consume { id, queue, group, credit });
        }
    }

    pub(crate) fn hear(&mut self, now_ns: u64, reply: &Reply) {
        match reply {
            Reply::Deliver(delivered) => self.take(now_ns, delivered),
            Reply::Error { error, .. } if error.is(Code::UnknownQueue) => {
                self.declare = true;
                self.refresh_ns = self.refresh_ns.min(now_ns + 50 * MS);
            }
            _ => {}
        }
    }

    fn take(&mut self, now_ns: u64, delivered: &Delivered) {
        let rng = &mut self.rng;
        let verdict = match if self.settled { 9 } else { rng.below(24) } {
            0 => None,
            1 => Some(Verdict::Extend),
            2..=5 => Some(Verdict::Nack {
                delay_ms: [None, None, Some(0), Some(30)][rng.below(4)],
                reason: Some("no".into()),
                dead: one_in(rng, 6),
            }),
            _ => Some(Verdict::Ack),
        };
        // At times it takes longer than its lease.
        let most = if one_in(rng, 30) { 2_000 } else { 60 };
        let due_ns = now_ns + if self.settled { MS } else { MS * rng.below(most) as u64 };
        let twice = self.hands.insert(delivered.id.0, Hand { due_ns, verdict });
        assert!(twice.is_none(), "{} came twice", delivered.id);
    }

    /// It comes to its senses; what it forgot it has forgotten.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        self.settled = true;
        self.refresh_ns = now_ns;
        for hand in self.hands.values_mut() {
            hand.due_ns = hand.due_ns.min(now_ns + 100 * MS);
        }
    }

    /// It has noticed that its connection is another: it asks anew at once.
    pub(crate) fn reconnected(&mut self, now_ns: u64) {
        self.refresh_ns = now_ns;
    }

    /// The process was killed, and another begins.
    pub(crate) fn killed(&mut self, now_ns: u64) {
        self.hands.clear();
        self.refresh_ns = now_ns;
    }

    pub(crate) fn holds(&self) -> usize {
        self.hands.len()
    }
}
