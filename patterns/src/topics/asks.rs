//! `subscribe` and `unsubscribe`: arrays of patterns, however long, read a piece at a time.

use smol_str::SmolStr;

use super::replay::Cursor;
use super::{Output, Topics};
use crate::base::limits::PATTERNS_WAITING_BYTES;
use crate::base::{Code, Out, PeerId, Refusal, Time};
use crate::names::Pattern;
use crate::ops::{Replay, Subscribe};
use crate::values::{self, ArrayState, Fault, Value};

/// What a pattern costs that comes or goes, in deliveries: much is touched that is in no cache.
pub(super) const PATTERN_COST: usize = 8;
/// Bytes of its text that cost one more.
const BYTES_PER_DELIVERY: usize = 32;

/// What is to be done with the patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Hold(Option<Replay>),
    Drop,
}

/// A request that is being read.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) peer: PeerId,
    id: Option<SmolStr>,
    verb: Verb,
    patterns: Value,
    /// Where to read on, and how many were read.
    resume: Option<(usize, ArrayState)>,
    read: usize,
}

impl Ask {
    pub(super) fn bytes(&self) -> usize {
        self.patterns.bytes.len() + size_of::<Self>()
    }

    const fn op(&self) -> &'static str {
        match self.verb {
            Verb::Hold(_) => "subscribe",
            Verb::Drop => "unsubscribe",
        }
    }

    /// The next pattern as it is written; none at the end.
    fn next(&mut self) -> Result<Option<SmolStr>, Fault> {
        let mut cursor = values::Cursor::of(&self.patterns);
        let mut state = cursor.array()?;
        if let Some((at, resumed)) = self.resume {
            cursor.jump(at);
            state = resumed;
        }
        if !cursor.item(&mut state)? {
            return Ok(None);
        }
        let text = SmolStr::new(cursor.string()?);
        self.resume = Some((cursor.at(), state));
        self.read += 1;
        Ok(Some(text))
    }

    /// Says which of the patterns is wrong.
    fn blame(&self, refusal: Refusal) -> Refusal {
        let index = self.read.saturating_sub(1);
        Refusal { field: Some(smol_str::format_smolstr!("patterns/{index}")), ..refusal }
    }
}

impl Topics {
    pub(super) fn subscribe(
        &mut self,
        now: Time,
        peer: PeerId,
        ask: Subscribe,
        out: &mut Out<Output>,
    ) {
        if let Some(credit) = ask.credit {
            self.set_credit(peer, credit);
        }
        self.ask(now, peer, (ask.id, ask.patterns), Verb::Hold(ask.replay), out);
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Time,
        peer: PeerId,
        id: Option<SmolStr>,
        patterns: Option<Value>,
        out: &mut Out<Output>,
    ) {
        self.ask(now, peer, (id, patterns), Verb::Drop, out);
    }

    fn ask(
        &mut self,
        now: Time,
        peer: PeerId,
        (id, patterns): (Option<SmolStr>, Option<Value>),
        verb: Verb,
        out: &mut Out<Output>,
    ) {
        let patterns = patterns.unwrap_or_else(|| Value::json(&b"[]"[..]));
        let ask = Ask { peer, id, verb, patterns, resume: None, read: 0 };
        if self.asked_bytes + ask.bytes() > PATTERNS_WAITING_BYTES {
            let message = format!("{} bytes of patterns wait for their turn", self.asked_bytes);
            return answer(ask, Err(Refusal::new(Code::Busy, message)), out);
        }
        self.asked_bytes += ask.bytes();
        self.asks.push_back(ask);
        self.take_in(now, out);
    }

    /// Reads on in what was asked, as far as this turn goes.
    pub(super) fn take_in(&mut self, now: Time, out: &mut Out<Output>) {
        while self.budget > 0
            && let Some(mut ask) = self.asks.pop_front()
        {
            match self.read_on(now, &mut ask) {
                None => self.asks.push_front(ask),
                Some(outcome) => {
                    self.asked_bytes -= ask.bytes();
                    let outcome = outcome.map(|()| {
                        let peer = self.peer(ask.peer);
                        peer.map_or((0, None), |peer| (peer.texts.len() as u32, peer.credit))
                    });
                    answer(ask, outcome, out);
                }
            }
        }
    }

    /// The outcome, if the end was reached.
    fn read_on(&mut self, now: Time, ask: &mut Ask) -> Option<Result<(), Refusal>> {
        while self.budget > 0 {
            let text = match ask.next() {
                Ok(Some(text)) => text,
                Ok(None) => {
                    self.budget = self.budget.saturating_sub(1);
                    return Some(Ok(()));
                }
                Err(fault) => {
                    let message = fault.message();
                    return Some(Err(Refusal::field(Code::BadField, "patterns", message)));
                }
            };
            let cost = PATTERN_COST + text.len() / BYTES_PER_DELIVERY;
            self.budget = self.budget.saturating_sub(cost);
            if let Err(refusal) = self.take_one(now, ask.peer, ask.verb, &text) {
                return Some(Err(ask.blame(refusal)));
            }
        }
        None
    }

    fn take_one(&mut self, now: Time, peer: PeerId, verb: Verb, text: &str) -> Result<(), Refusal> {
        let Verb::Hold(replay) = verb else {
            self.drop_text(peer, text);
            return Ok(());
        };
        if self.subscription(peer, text).is_some() {
            return Ok(());
        }
        let pattern = Pattern::parse(text)?;
        let cursor = match replay {
            Some(replay) => Some(self.begin_replay(now, &pattern, replay)?),
            None => None,
        };
        self.hold(peer, text, &pattern, cursor)
    }

    /// Where a replay of a pattern begins: in the first log that keeps all of it.
    fn begin_replay(
        &mut self,
        now: Time,
        pattern: &Pattern,
        replay: Replay,
    ) -> Result<Cursor, Refusal> {
        let log = self.log_of(pattern)?;
        self.logs[log as usize].trim(now.wall_ms);
        self.changed(log);
        Ok(Cursor::new(log, &self.logs[log as usize], pattern.clone(), replay))
    }
}

fn answer(ask: Ask, outcome: Result<(u32, Option<u32>), Refusal>, out: &mut Out<Output>) {
    let (to, op) = (ask.peer, ask.op());
    out.push(Output::Subscribed { to, id: ask.id, op, outcome });
}
