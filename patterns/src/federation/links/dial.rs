//! Reaching out: from the address of a door to an agreement at a bridge.

use smol_str::SmolStr;

use super::{Agreed, Ask, DialId, Found, Links, Output, PROTOCOL, Stage};
use crate::base::{Code, Out, Refusal, Time};
use crate::federation::links::Bye;

const MS: u64 = 1_000_000;
/// The wait after the first failure; each further one doubles it.
const FIRST_WAIT_MS: u64 = 50;
const LONGEST_WAIT_MS: u64 = 500;
/// The same where somebody has to change something first.
const FIRST_WAIT_REFUSED_MS: u64 = 2_000;
const LONGEST_WAIT_REFUSED_MS: u64 = 30_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Until then.
    Waiting(u64),
    /// The door is asked.
    Door(DialId, u64),
    /// The bridge is asked.
    Bridge(DialId, u64),
    /// The bridge that has agreed last is asked, without a word from the door.
    Again(DialId, u64),
    /// There is a session, or another way to it is tried.
    Covered,
}

/// An address that is to be a neighbour.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) address: SmolStr,
    pub(super) price_us: u32,
    pub(super) state: State,
    /// Who was there last.
    pub(super) node: Option<SmolStr>,
    /// Where its bridge was: the door need not be asked for that again.
    bridge: Option<SmolStr>,
    failures: u32,
    /// Why it did not work last, until it does.
    pub(super) why: Option<Refusal>,
}

impl Dial {
    pub(super) const fn wake_at(&self) -> Option<u64> {
        match self.state {
            State::Waiting(at)
            | State::Door(_, at)
            | State::Bridge(_, at)
            | State::Again(_, at) => Some(at),
            State::Covered => None,
        }
    }

    /// The attempt that waits for an answer.
    const fn attempt(&self) -> Option<DialId> {
        match self.state {
            State::Door(id, _) | State::Bridge(id, _) | State::Again(id, _) => Some(id),
            State::Waiting(_) | State::Covered => None,
        }
    }

    fn is(&self, dial: DialId) -> bool {
        self.attempt() == Some(dial)
    }

    const fn asks_bridge(&self) -> bool {
        matches!(self.state, State::Bridge(..) | State::Again(..))
    }
}

impl Links {
    pub(super) fn add(
        &mut self,
        now: Time,
        address: SmolStr,
        price_us: u32,
        out: &mut Out<Output>,
    ) {
        if self.draining {
            return;
        }
        if let Some(dial) = self.dials.iter_mut().find(|dial| dial.address == address) {
            dial.price_us = price_us;
            return;
        }
        if self.dials.len() >= self.links {
            let why = self.refuse(Code::Busy, format!("it has {} links", self.links));
            return out.push(Output::Failed { address, why });
        }
        let state = State::Waiting(now.mono_ns);
        let (node, bridge) = (None, None);
        self.dials.push(Dial { address, price_us, state, node, bridge, failures: 0, why: None });
    }

    pub(super) fn remove(&mut self, now: Time, address: &str, out: &mut Out<Output>) {
        let Some(index) = self.dials.iter().position(|dial| dial.address == address) else {
            return;
        };
        let dial = self.dials.remove(index);
        self.hang_up(&dial, out);
        let Some(node) = dial.node else { return };
        if self.dials.iter().any(|other| other.node.as_ref() == Some(&node)) {
            return;
        }
        if let Some(key) = self.find(&node) {
            self.bye(now, key, Bye::Removed, out);
        }
    }

    pub(super) fn hang_up(&self, dial: &Dial, out: &mut Out<Output>) {
        if let Some(id) = dial.attempt() {
            out.push(Output::HangUp { dial: id });
        }
    }

    pub(super) fn tick_dial(&mut self, now: Time, index: usize, out: &mut Out<Output>) {
        let dial = &self.dials[index];
        if dial.wake_at().is_none_or(|at| at > now.mono_ns) {
            return;
        }
        if let Some(id) = dial.attempt() {
            out.push(Output::HangUp { dial: id });
            if matches!(dial.state, State::Again(..)) {
                // It may have come up elsewhere, which its door knows.
                let dial = &mut self.dials[index];
                (dial.bridge, dial.state) = (None, State::Waiting(now.mono_ns));
                return;
            }
            let ms = self.hello_ns / MS;
            let asked = if dial.asks_bridge() { "the bridge" } else { "the door" };
            let message = format!("{}: {asked} does not answer for {ms} ms", dial.address);
            return self.failed(now, index, Refusal::new(Code::LinkFailed, message), out);
        }
        if self.is_covered(index) {
            self.dials[index].state = State::Covered;
            return;
        }
        match self.dials[index].bridge.clone() {
            Some(bridge) => {
                let until = now.mono_ns + self.resume_ns;
                self.ask_bridge(index, bridge, |id| State::Again(id, until), out);
            }
            None => {
                let id = DialId(self.next_serial());
                let dial = &mut self.dials[index];
                dial.state = State::Door(id, now.mono_ns + self.hello_ns);
                out.push(Output::AskDoor { dial: id, address: dial.address.clone() });
            }
        }
    }

    /// Whether there is a session with the broker at that address, or one is on its way.
    fn is_covered(&self, index: usize) -> bool {
        let Some(node) = &self.dials[index].node else { return false };
        self.find(node).is_some_and(|key| self.neighbours[key].session.is_some())
            || self.dials.iter().any(|dial| dial.asks_bridge() && dial.node.as_ref() == Some(node))
    }

    fn ask_bridge(
        &mut self,
        index: usize,
        bridge: SmolStr,
        state: impl FnOnce(DialId) -> State,
        out: &mut Out<Output>,
    ) {
        let key = self.dials[index].node.as_ref().and_then(|node| self.find(node));
        let after = key.and_then(|key| self.neighbours[key].last);
        let id = DialId(self.next_serial());
        self.dials[index].state = state(id);
        let ask = Ask {
            protocol: PROTOCOL,
            life: self.about.life.clone(),
            cluster: self.about.cluster.clone(),
            after,
            host: SmolStr::default(),
        };
        out.push(Output::AskBridge { dial: id, address: bridge, ask });
    }

    pub(super) fn door(
        &mut self,
        now: Time,
        dial: DialId,
        answer: Result<Found, SmolStr>,
        out: &mut Out<Output>,
    ) {
        let Some(index) = self.dials.iter().position(|at| at.is(dial)) else { return };
        let found = match answer {
            Ok(found) => found,
            Err(why) => {
                let message = format!("{}: {why}", self.dials[index].address);
                let why = Refusal::new(Code::LinkFailed, message);
                return self.failed(now, index, why, out);
            }
        };
        if let Some(why) = self.is_own(&found.life) {
            return self.failed(now, index, why, out);
        }
        self.is_at(index, &found.life.node);
        let dial = &mut self.dials[index];
        dial.bridge = Some(found.bridge.clone());
        dial.state = State::Covered;
        if !self.is_covered(index) {
            let until = now.mono_ns + self.hello_ns;
            self.ask_bridge(index, found.bridge, |id| State::Bridge(id, until), out);
        }
    }

    /// A broker is found at an address, where another one may have been.
    fn is_at(&mut self, index: usize, node: &SmolStr) {
        let before = self.dials[index].node.replace(node.clone());
        if let Some(key) = before.filter(|before| before != node).and_then(|at| self.find(&at)) {
            self.forget(key);
        }
    }

    /// Why there can be no link to somebody who bears this broker's name.
    pub(super) fn is_own(&self, life: &crate::federation::Life) -> Option<Refusal> {
        let own = &self.about.life;
        if life == own {
            let message = format!("that is {} itself: take the address out of its links", own.node);
            return Some(Refusal::new(Code::SameBroker, message));
        }
        let message =
            format!("both brokers are called {}: start one with another --node", own.node);
        (life.node == own.node).then(|| Refusal::new(Code::NodeTaken, message))
    }

    pub(super) fn bridge(
        &mut self,
        now: Time,
        dial: DialId,
        answer: Result<Agreed, Refusal>,
        out: &mut Out<Output>,
    ) {
        let Some(index) = self.dials.iter().position(|at| at.is(dial)) else { return };
        let agreed = answer.and_then(|agreed| {
            let own = self.is_own(&agreed.life);
            let wrong = (agreed.protocol != PROTOCOL).then(|| self.wrong_protocol(agreed.protocol));
            own.or(wrong).map_or(Ok(agreed), Err)
        });
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(why) => return self.failed(now, index, why, out),
        };
        self.is_at(index, &agreed.life.node);
        self.dials[index].state = State::Covered;
        self.connect(now, agreed, out);
    }

    pub(super) fn wrong_protocol(&self, theirs: u32) -> Refusal {
        let message = format!(
            "it speaks version {PROTOCOL} of the protocol of links, the other broker {theirs}: \
             run versions of the program that speak the same"
        );
        self.refuse(Code::WrongProtocol, message)
    }

    /// An attempt has failed. It is told of if it fails for another reason than last time.
    pub(super) fn failed(&mut self, now: Time, index: usize, why: Refusal, out: &mut Out<Output>) {
        // A lasting no is asked again in case somebody does something about it.
        let lasting = [Code::SameBroker, Code::NodeTaken, Code::WrongProtocol];
        let (first, longest) = match lasting.iter().any(|code| why.is(*code)) {
            true => (FIRST_WAIT_REFUSED_MS, LONGEST_WAIT_REFUSED_MS),
            false => (FIRST_WAIT_MS, LONGEST_WAIT_MS),
        };
        let dial = &mut self.dials[index];
        // Whoever is there next may have its bridge elsewhere.
        dial.bridge = None;
        let wait_ms = (first << dial.failures.min(10)).min(longest);
        dial.failures += 1;
        let half = (wait_ms * MS / 2) as usize;
        let jitter = self.rng.below(half * 2) as u64;
        dial.state = State::Waiting(now.mono_ns + half as u64 + jitter);
        let is_news = dial.why.as_ref().is_none_or(|told| told.code != why.code);
        if is_news && !why.is(Code::LinkExists) {
            out.push(Output::Failed { address: dial.address.clone(), why: why.clone() });
        }
        dial.why = Some(why);
        let node = dial.node.clone();
        self.uncover(now, node.as_ref());
    }

    /// Nothing covers the other ways to a broker any longer.
    fn uncover(&mut self, now: Time, node: Option<&SmolStr>) {
        let covered = |dial: &&mut Dial| dial.state == State::Covered && dial.node.as_ref() == node;
        for dial in self.dials.iter_mut().filter(covered) {
            dial.state = State::Waiting(now.mono_ns);
        }
    }

    /// A session has ended. One that was live is replaced at once.
    pub(super) fn redial(
        &mut self,
        now: Time,
        node: &SmolStr,
        why: Option<&Refusal>,
        out: &mut Out<Output>,
    ) {
        let is = |dial: &Dial| dial.state == State::Covered && dial.node.as_ref() == Some(node);
        for index in 0..self.dials.len() {
            if !is(&self.dials[index]) {
                continue;
            }
            match why {
                Some(why) => self.failed(now, index, why.clone(), out),
                None => self.dials[index].state = State::Waiting(now.mono_ns),
            }
        }
    }

    /// Why there is no link, where that was told already.
    pub(super) fn note(&mut self, node: &SmolStr, why: &Refusal) {
        for dial in self.dials.iter_mut().filter(|dial| dial.node.as_ref() == Some(node)) {
            dial.why = Some(why.clone());
        }
    }

    /// A session is live: what went wrong before is forgotten.
    pub(super) fn reached(&mut self, node: &SmolStr) {
        for dial in self.dials.iter_mut().filter(|dial| dial.node.as_ref() == Some(node)) {
            (dial.failures, dial.why) = (0, None);
        }
    }

    /// Whether this broker asks that one at its bridge just now, or has agreed with it there.
    pub(super) fn is_dialling(&self, node: &SmolStr) -> bool {
        let agreed = |at: &super::Session| at.dialled && at.stage != Stage::Live;
        let key = self.find(node);
        key.is_some_and(|key| self.neighbours[key].session.as_ref().is_some_and(agreed))
            || self.dials.iter().any(|dial| dial.asks_bridge() && dial.node.as_ref() == Some(node))
    }

    /// Leaves it to the other side.
    pub(super) fn give_way(&mut self, node: &SmolStr, out: &mut Out<Output>) {
        for dial in self.dials.iter_mut().filter(|dial| dial.node.as_ref() == Some(node)) {
            if let Some(id) = dial.attempt() {
                out.push(Output::HangUp { dial: id });
            }
            dial.state = State::Covered;
        }
    }

    /// The price of the link to a broker.
    pub(super) fn price(&self, node: &SmolStr) -> u32 {
        let dial = self.dials.iter().find(|dial| dial.node.as_ref() == Some(node));
        dial.map_or(0, |dial| dial.price_us)
    }
}
