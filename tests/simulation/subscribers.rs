//! Those who subscribe at the door: what they ask when, and what they make of what they hear.

use std::collections::{BTreeMap, VecDeque};

use mpreg_patterns::base::Rng;
use mpreg_patterns::ops::{Delivery, Replay, Reply, Request, Subscribe};
use mpreg_patterns::values::Value;

use crate::peers::MS;
use crate::publishers::tiring;
use crate::spelling::{matches, some_kept_pattern, some_pattern};
use crate::workload::one_in;

/// What is wanted is asked for again this often.
const REFRESH_NS: u64 = 2_000 * MS;
/// Pings at once: enough to stall a connection that nobody reads.
const PINGS: usize = 24;
/// Texts that one peer wants at most.
const WANTED: usize = 12;

/// What was asked and is not answered.
#[derive(Debug)]
struct Asked {
    id: String,
    texts: Vec<String>,
    holds: bool,
}

/// What was heard of one pattern.
#[derive(Debug, Default)]
struct Heard {
    seq: u64,
    /// The last number of each publisher and topic.
    numbers: BTreeMap<String, u64>,
}

/// A peer that subscribes, at random: all there is, from then on or from a log, with and without
/// a window.
#[derive(Debug)]
pub(crate) struct Subscriber {
    index: usize,
    rng: Rng,
    serial: u64,
    window: Option<u32>,
    /// What it wants to hold, and where that begins.
    wants: BTreeMap<String, Option<Replay>>,
    asked: VecDeque<Asked>,
    heard: BTreeMap<String, Heard>,
    /// The last number of a log that was seen of each text, in whatever life.
    seen: BTreeMap<String, u64>,
    in_hand: u32,
    /// Whether an answer was dropped on this connection, so that it does not know what it holds.
    unsure: bool,
    /// Whether it says that it is there, before all else.
    greets: bool,
    next_ns: u64,
    refresh_ns: u64,
    ack_ns: u64,
    pub(crate) active: bool,
    /// Heard on this connection.
    pub(crate) events: u64,
}

impl Subscriber {
    pub(crate) fn new(index: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let window = [None, Some(1), Some(4), Some(30)][rng.below(4)];
        Self {
            index,
            rng,
            serial: 0,
            window,
            wants: BTreeMap::new(),
            asked: VecDeque::new(),
            heard: BTreeMap::new(),
            seen: BTreeMap::new(),
            in_hand: 0,
            unsure: false,
            greets: false,
            next_ns: 0,
            refresh_ns: 0,
            ack_ns: u64::MAX,
            active: true,
            events: 0,
        }
    }

    pub(crate) fn wake_at(&self) -> u64 {
        if self.greets {
            return 0;
        }
        if self.active { self.next_ns.min(self.refresh_ns).min(self.ack_ns) } else { self.ack_ns }
    }

    pub(crate) fn wake(&mut self, now_ns: u64) -> Vec<Request> {
        let mut said = Vec::new();
        if std::mem::take(&mut self.greets) {
            said.extend((0..PINGS).map(|_| Request::Ping { id: None }));
        }
        if self.ack_ns <= now_ns {
            self.acknowledge(now_ns, &mut said);
        }
        if self.active && self.refresh_ns <= now_ns {
            self.refresh_ns = now_ns + REFRESH_NS;
            self.refresh(&mut said);
        }
        if self.active && self.next_ns <= now_ns {
            self.next_ns = now_ns + MS * (1 + self.rng.below(300) as u64);
            self.change(&mut said);
        }
        said
    }

    /// Acknowledges all it has in hand, or only some of it.
    fn acknowledge(&mut self, now_ns: u64, said: &mut Vec<Request>) {
        let all = !self.active || one_in(&mut self.rng, 2);
        let some = self.rng.below(self.in_hand as usize + 1) as u32;
        let events = if all { self.in_hand } else { some };
        self.in_hand -= events;
        self.ack_ns = u64::MAX;
        if self.in_hand > 0 {
            self.ack_ns = now_ns + MS * (1 + self.rng.below(200) as u64);
        }
        if events > 0 {
            said.push(Request::Ack { events });
        }
    }

    fn change(&mut self, said: &mut Vec<Request>) {
        let some = self.wants.keys().nth(self.rng.below(self.wants.len().max(1))).cloned();
        match (self.rng.below(10), some) {
            (0..=1, Some(text)) => {
                self.wants.remove(&text);
                self.ask(vec![text, "nobody.holds.this".into()], None, false, said);
            }
            // What is held stays as it is, whatever is asked for now.
            (2, Some(text)) => self.ask(vec![text], Some(Replay::All), true, said),
            (3, _) if one_in(&mut self.rng, 4) => {
                self.serial += 1;
                said.push(tiring(&format!("s{}", self.serial)));
                self.asked.push_back(Asked {
                    id: format!("s{}", self.serial),
                    texts: Vec::new(),
                    holds: false,
                });
            }
            (4, _) if self.window.is_some() => {
                self.window = Some([0, 1, 2, 10, 50][self.rng.below(5)]);
                self.ask(Vec::new(), None, true, said);
            }
            (_, _) if self.wants.len() >= WANTED => {}
            (5..=6, _) => {
                let text = some_kept_pattern(&mut self.rng).to_owned();
                let replay = Some(self.replay(&text));
                self.wants.entry(text.clone()).or_insert(replay);
                self.ask(vec![text], replay, true, said);
            }
            _ => {
                let count = 1 + self.rng.below(3);
                let texts: Vec<String> =
                    (0..count).map(|_| some_pattern(&mut self.rng).to_owned()).collect();
                for text in &texts {
                    self.wants.entry(text.clone()).or_insert(None);
                }
                self.ask(texts, None, true, said);
            }
        }
    }

    fn replay(&mut self, text: &str) -> Replay {
        match self.rng.below(6) {
            0 => Replay::Last(self.rng.below(8) as u32),
            1 => Replay::Ms(1_700_000_000_000 + self.rng.below(6_000) as u64),
            2 => Replay::Seq(self.rng.below(80) as u64),
            3..=4 => match self.seen.get(text) {
                Some(seq) => Replay::Seq(seq + 1),
                None => Replay::All,
            },
            _ => Replay::All,
        }
    }

    /// Asks for all it wants again: the live ones at once, each replay by itself.
    fn refresh(&mut self, said: &mut Vec<Request>) {
        let wants: Vec<(String, Option<Replay>)> =
            self.wants.iter().map(|(text, replay)| (text.clone(), *replay)).collect();
        let live = wants.iter().filter(|want| want.1.is_none()).map(|want| want.0.clone());
        self.ask(live.collect(), None, true, said);
        for (text, replay) in wants.into_iter().filter(|want| want.1.is_some()) {
            // Where it was, if it has been there.
            let seen = self.seen.get(&text).map(|seq| Replay::Seq(seq + 1));
            self.ask(vec![text], seen.or(replay), true, said);
        }
    }

    fn ask(
        &mut self,
        texts: Vec<String>,
        replay: Option<Replay>,
        holds: bool,
        said: &mut Vec<Request>,
    ) {
        self.serial += 1;
        let id = format!("s{}", self.serial);
        let patterns = Some(Value::from_serialize(&texts));
        said.push(if holds {
            let (id, credit) = (Some(id.as_str().into()), self.window);
            Request::Subscribe(Subscribe { id, patterns, credit, replay }.into())
        } else {
            Request::Unsubscribe { id: Some(id.as_str().into()), patterns }
        });
        self.asked.push_back(Asked { id, texts, holds });
    }

    pub(crate) fn hear(&mut self, now_ns: u64, reply: &Reply) {
        match reply {
            Reply::Event(delivery) => self.event(now_ns, delivery),
            Reply::Subscribed { id: Some(id), .. } | Reply::Error { id: Some(id), .. } => {
                let asked = self.asked.pop_front();
                let asked = asked.unwrap_or_else(|| panic!("s{} has asked nothing", self.index));
                assert_eq!(asked.id, id.as_str(), "s{} is answered out of turn", self.index);
                if let Reply::Error { error, .. } = reply {
                    let at = error.field.as_deref().and_then(|field| field.rsplit('/').next());
                    let at = at.and_then(|at| at.parse::<usize>().ok()).expect("an index");
                    // What is refused is not wanted again.
                    self.wants.remove(&asked.texts[at]);
                } else if !asked.holds {
                    asked.texts.iter().for_each(|text| drop(self.heard.remove(text)));
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, now_ns: u64, delivery: &Delivery) {
        let (text, topic) = (delivery.pattern.as_str(), delivery.event.topic.as_str());
        assert!(matches(text, topic), "s{} holds {text} and hears of {topic}", self.index);
        self.events += 1;
        self.in_hand += 1;
        self.ack_ns = self.ack_ns.min(now_ns + MS * self.rng.below(100) as u64);
        let heard = self.heard.entry(text.to_owned()).or_default();
        let goes_on = delivery.seq > heard.seq || self.unsure;
        assert!(goes_on, "{text} of s{} goes back to {heard:?}", self.index);
        heard.seq = delivery.seq;
        self.seen.insert(text.to_owned(), delivery.seq);
        let payload = String::from_utf8_lossy(&delivery.event.payload.bytes);
        let Some((who, number)) = payload.trim_matches('"').rsplit_once('|') else { return };
        let Ok(number) = number.parse::<u64>() else { return };
        if topic.starts_with('g') || topic.starts_with("mpreg") {
            return;
        }
        assert!(who.ends_with(topic), "{payload} on {topic}");
        let last = heard.numbers.insert(who.to_owned(), number);
        assert!(
            last < Some(number) || self.unsure,
            "s{} hears {payload} after {last:?}",
            self.index
        );
    }

    /// Another connection: nothing is held, and nothing is asked.
    pub(crate) fn connected(&mut self) {
        self.asked.clear();
        self.heard.clear();
        (self.in_hand, self.ack_ns, self.events) = (0, u64::MAX, 0);
        self.unsure = false;
    }

    /// A reply will not come: too much waited for it.
    pub(crate) fn dropped(&mut self, reply: &Reply) {
        if let Reply::Subscribed { id: Some(id), .. } | Reply::Error { id: Some(id), .. } = reply {
            self.asked.retain(|asked| asked.id != id.as_str());
            self.unsure = true;
        }
    }

    /// It has noticed that its connection is another: it asks anew, at once or after a while in
    /// which it only says that it is there.
    pub(crate) fn reconnected(&mut self, now_ns: u64) {
        let waits_ms = [0, 0, 600][self.rng.below(3)];
        self.refresh_ns = now_ns + MS * waits_ms;
        self.greets = self.active && waits_ms > 0;
        if self.greets {
            self.next_ns = self.refresh_ns;
            self.wants.entry("k.#".into()).or_insert(Some(Replay::All));
        }
    }

    /// Stops to change its mind: it holds what it holds, and acknowledges all.
    pub(crate) const fn settle(&mut self, now_ns: u64) {
        self.active = false;
        self.ack_ns = now_ns;
    }

    pub(crate) fn waits(&self) -> usize {
        self.asked.len()
    }
}
