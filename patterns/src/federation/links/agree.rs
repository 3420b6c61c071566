//! Sessions: agreed on at a bridge, proved by a hello over the PAIR itself, ended.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::{
    Agreed, Ask, Asker, Bye, Frame, Hello, Link, Links, Neighbour, Nonce, Output, PROTOCOL, Resume,
    Session, SessionId, Stage,
};
use crate::base::{Code, Out, Refusal, Time};
use crate::federation::{Life, LinkId, Message};

const MS: u64 = 1_000_000;
/// How often the other side is asked for a sign of life.
const PING_NS: u64 = 1_000 * MS;
/// Without one for so long, it is dead, or deaf. What is only cut off, ZeroMQ finds out earlier.
const SILENCE_NS: u64 = 4_000 * MS;

impl Links {
    /// Another broker asks at the bridge.
    pub(super) fn asked(&mut self, now: Time, asker: Asker, ask: Ask, out: &mut Out<Output>) {
        if let Err(why) = self.may_have(&ask) {
            return out.push(Output::Answer { asker, answer: Err(why) });
        }
        let node = ask.life.node.clone();
        self.give_way(&node, out);
        let key = self.neighbour(&node);
        if let Some(session) = self.neighbours[key].session.take() {
            self.close(now, key, &session, out);
        }
        let id = SessionId(self.next_serial());
        let nonce = Nonce(self.rng.next_u64());
        self.begin(now, key, id, nonce, (ask.life, ask.cluster), Stage::Binding(asker));
        out.push(Output::Bind { session: id, host: ask.host });
    }

    /// Whether a broker may have the session it asks for.
    fn may_have(&self, ask: &Ask) -> Result<(), Refusal> {
        if ask.protocol != PROTOCOL {
            return Err(self.wrong_protocol(ask.protocol));
        }
        if let Some(why) = self.is_own(&ask.life) {
            return Err(why);
        }
        if self.draining {
            return Err(self.refuse(Code::Draining, "it is going down".into()));
        }
        let node = &ask.life.node;
        let exists = |what: &str| Err(self.refuse(Code::LinkExists, format!("{what} {node}")));
        if self.is_dialling(node) && self.about.life.node < *node {
            return exists("it is asking for a link itself to");
        }
        let Some(key) = self.find(node) else {
            if self.neighbours.len() >= self.links {
                return Err(self.refuse(Code::Busy, format!("it has {} links", self.links)));
            }
            return Ok(());
        };
        let live = self.neighbours[key].session.as_ref().filter(|at| at.stage == Stage::Live);
        match live {
            Some(live) if live.peer != ask.life => {
                let message = format!(
                    "it has a link to another {node}: if that is not the same broker before it was \
                     started anew, start one of them with another --node"
                );
                Err(self.refuse(Code::NodeTaken, message))
            }
            Some(live) if ask.after != Some(live.nonce) => exists("it has a link to"),
            _ => Ok(()),
        }
    }

    /// The neighbour of that name, from now on if it is new.
    fn neighbour(&mut self, node: &SmolStr) -> usize {
        self.find(node).unwrap_or_else(|| {
            let node = node.clone();
            self.neighbours.insert(Neighbour { node, session: None, link: None, last: None })
        })
    }

    fn begin(
        &mut self,
        now: Time,
        key: usize,
        id: SessionId,
        nonce: Nonce,
        (peer, cluster): (Life, SmolStr),
        stage: Stage,
    ) {
        let now_ns = now.mono_ns;
        self.by_session.insert(id, key);
        let at = &mut self.neighbours[key];
        at.last = Some(nonce);
        at.session = Some(Session {
            id,
            nonce,
            peer,
            cluster,
            dialled: stage == Stage::Hello,
            stage,
            since_ns: now_ns,
            heard_ns: now_ns,
            ping_ns: now_ns,
            pinged: None,
            blocked: false,
        });
    }

    pub(super) fn bound(
        &mut self,
        now: Time,
        id: SessionId,
        endpoint: Result<SmolStr, SmolStr>,
        out: &mut Out<Output>,
    ) {
        let Some(&key) = self.by_session.get(&id) else { return };
        let (life, cluster) = (self.about.life.clone(), self.about.cluster.clone());
        let Some(session) = self.neighbours[key].session.as_mut() else { return };
        let nonce = session.nonce;
        let Stage::Binding(asker) = std::mem::replace(&mut session.stage, Stage::Hello) else {
            return;
        };
        session.since_ns = now.mono_ns;
        let answer = match endpoint {
            Ok(endpoint) => Ok(Agreed { protocol: PROTOCOL, life, cluster, nonce, endpoint }),
            Err(why) => {
                self.end(now, key, format_smolstr!("no PAIR could be bound: {why}"), out);
                let message = format!("it cannot bind a PAIR for the link: {why}");
                Err(self.refuse(Code::LinkFailed, message))
            }
        };
        out.push(Output::Answer { asker, answer });
    }

    /// A bridge has agreed: connect, and say hello.
    pub(super) fn connect(&mut self, now: Time, agreed: Agreed, out: &mut Out<Output>) {
        let Agreed { life, cluster, nonce, endpoint, .. } = agreed;
        let key = self.neighbour(&life.node);
        if let Some(session) = self.neighbours[key].session.take() {
            self.close(now, key, &session, out);
        }
        let id = SessionId(self.next_serial());
        self.begin(now, key, id, nonce, (life, cluster), Stage::Hello);
        out.push(Output::Connect { session: id, endpoint });
        let resume = self.neighbours[key].link.as_ref().map(Link::resume);
        self.say_hello(key, id, nonce, resume, out);
    }

    fn say_hello(
        &self,
        key: usize,
        session: SessionId,
        nonce: Nonce,
        resume: Option<Resume>,
        out: &mut Out<Output>,
    ) {
        debug_assert!(self.neighbours.contains(key));
        let life = self.about.life.clone();
        out.push(Output::Say { session, frame: Frame::Hello(Hello { nonce, life, resume }) });
    }

    /// Something came over a session.
    pub(super) fn said(&mut self, now: Time, id: SessionId, frame: Frame, out: &mut Out<Output>) {
        let Some(&key) = self.by_session.get(&id) else { return };
        let Some(session) = self.neighbours[key].session.as_mut() else { return };
        session.heard_ns = now.mono_ns;
        let live = session.stage == Stage::Live;
        let done = match frame {
            Frame::Hello(hello) if session.stage == Stage::Hello => {
                self.hello(now, key, &hello, out)
            }
            Frame::Messages { first, ack, messages } if live => {
                self.messages(now, key, (first, ack), messages, out)
            }
            Frame::Ping(number) if live => {
                out.push(Output::Say { session: id, frame: Frame::Pong(number) });
                Ok(())
            }
            Frame::Pong(number) if live => {
                self.pong(now, key, number, out);
                Ok(())
            }
            Frame::Bye(bye) => {
                self.give_up(now, key, SmolStr::new_static(bye.as_str()), out);
                return;
            }
            _ => Err("it said something out of turn"),
        };
        if let Err(why) = done {
            self.end(now, key, SmolStr::new_static(why), out);
        }
    }

    /// The other side has said hello over the PAIR: both know the session.
    fn hello(
        &mut self,
        now: Time,
        key: usize,
        hello: &Hello,
        out: &mut Out<Output>,
    ) -> Result<(), &'static str> {
        let at = &mut self.neighbours[key];
        let Some(session) = at.session.as_mut() else { return Ok(()) };
        if hello.nonce != session.nonce || hello.life != session.peer {
            return Err("its hello is not that of the session");
        }
        let took_us = (now.mono_ns.saturating_sub(session.since_ns) / 1_000) as u32;
        session.stage = Stage::Live;
        (session.since_ns, session.ping_ns) = (now.mono_ns, now.mono_ns);
        let (id, nonce, dialled) = (session.id, session.nonce, session.dialled);
        let peer = (session.peer.clone(), session.cluster.clone());
        let resumed = at.link.as_mut().and_then(|link| {
            let resume = hello.resume.filter(|resume| resume.began == link.began)?;
            let same = link.peer == hello.life && link.acked(resume.received);
            same.then(|| link.resumed())
        });
        if !dialled {
            let resume = at.link.as_ref().filter(|_| resumed.is_some()).map(Link::resume);
            self.say_hello(key, id, nonce, resume, out);
        }
        if resumed.is_none() {
            self.down(key, SmolStr::new_static("it was begun anew"), out);
            // An answer took one way there and back, connecting and greeting about four.
            let rtt_us = if dialled { took_us } else { took_us / 4 }.max(1);
            self.up(now, key, nonce, peer, rtt_us, out);
        }
        let at = &mut self.neighbours[key];
        if let Some(link) = &mut at.link {
            link.counts.sessions += 1;
        }
        let node = at.node.clone();
        self.reached(&node);
        Ok(())
    }

    fn up(
        &mut self,
        now: Time,
        key: usize,
        began: Nonce,
        (peer, cluster): (Life, SmolStr),
        rtt_us: u32,
        out: &mut Out<Output>,
    ) {
        let id = LinkId(self.next_serial());
        let price_us = self.price(&peer.node);
        let who = (peer.clone(), cluster.clone());
        let link = Link::new(now, id, began, who, rtt_us, price_us);
        out.push(Output::Up { link: id, peer, cluster, cost_us: link.cost_us });
        self.by_link.insert(id, key);
        self.neighbours[key].link = Some(link);
    }

    /// What was said over the link, and not received, is lost.
    fn down(&mut self, key: usize, reason: SmolStr, out: &mut Out<Output>) {
        let Some(link) = self.neighbours[key].link.take() else { return };
        self.by_link.remove(&link.id);
        out.push(Output::Down { link: link.id, peer: link.peer, reason });
    }

    fn messages(
        &mut self,
        now: Time,
        key: usize,
        (first, ack): (u64, u64),
        messages: Vec<Message>,
        out: &mut Out<Output>,
    ) -> Result<(), &'static str> {
        let Some(link) = self.neighbours[key].link.as_mut() else { return Ok(()) };
        if !link.acked(ack) {
            return Err("it has received what was not said");
        }
        for (number, message) in (first..).zip(messages) {
            let heard = link.heard(now, number, message, out);
            heard.map_err(|()| "it has left something out")?;
        }
        Ok(())
    }

    fn pong(&mut self, now: Time, key: usize, number: u64, out: &mut Out<Output>) {
        let price_us = self.price(&self.neighbours[key].node);
        let Neighbour { session: Some(session), link: Some(link), .. } = &mut self.neighbours[key]
        else {
            return;
        };
        if session.pinged != Some(number) {
            return;
        }
        session.pinged = None;
        let rtt_us = now.mono_ns.saturating_sub(number) / 1_000;
        link.measured(u32::try_from(rtt_us).unwrap_or(u32::MAX), price_us, out);
    }

    /// A session is over, and the link may go on in another one.
    pub(super) fn end(&mut self, now: Time, key: usize, why: SmolStr, out: &mut Out<Output>) {
        let Some(session) = self.neighbours[key].session.take() else { return };
        self.close(now, key, &session, out);
        let node = self.neighbours[key].node.clone();
        let failed = (session.stage != Stage::Live).then(|| {
            let message = format!("{node}: no link was agreed on: {why}");
            Refusal::new(Code::LinkFailed, message)
        });
        self.redial(now, &node, failed.as_ref(), out);
        self.forget(key);
    }

    /// A session is over: its socket goes, and its link waits for another one.
    fn close(&mut self, now: Time, key: usize, session: &Session, out: &mut Out<Output>) {
        self.by_session.remove(&session.id);
        out.push(Output::Close { session: session.id });
        if let Some(link) = &mut self.neighbours[key].link {
            // One that was never live changes nothing.
            link.until_ns.get_or_insert(now.mono_ns + self.resume_ns);
        }
    }

    /// A session and its link are over.
    fn give_up(&mut self, now: Time, key: usize, why: SmolStr, out: &mut Out<Output>) {
        self.down(key, why.clone(), out);
        if let Some(session) = self.neighbours[key].session.take() {
            self.close(now, key, &session, out);
        }
        let node = self.neighbours[key].node.clone();
        let why = Refusal::new(Code::LinkFailed, format!("{node}: {why}"));
        // It was told just now, and who said so is not asked again at once.
        self.note(&node, &why);
        self.redial(now, &node, Some(&why), out);
        self.forget(key);
    }

    /// This side ends a link.
    pub(super) fn bye(&mut self, now: Time, key: usize, bye: Bye, out: &mut Out<Output>) {
        if let Some(session) = &self.neighbours[key].session
            && session.stage == Stage::Live
        {
            let frame = Frame::<Arc<Message>>::Bye(bye);
            out.push(Output::Say { session: session.id, frame });
        }
        let why = match bye {
            Bye::Draining => "this broker is going down",
            Bye::Removed => "it was removed here",
            Bye::Overrun => "more waited for the other broker than may",
        };
        self.give_up(now, key, SmolStr::new_static(why), out);
    }

    /// Drops what is known of a neighbour once that is nothing worth knowing.
    pub(super) fn forget(&mut self, key: usize) {
        let at = &self.neighbours[key];
        let dialled = self.dials.iter().any(|dial| dial.node.as_ref() == Some(&at.node));
        if at.session.is_none() && at.link.is_none() && !dialled {
            self.neighbours.remove(key);
        }
    }

    pub(super) fn neighbour_wake_at(&self, at: &Neighbour) -> Option<u64> {
        let Some(session) = &at.session else {
            return at.link.as_ref().and_then(|link| link.until_ns);
        };
        if session.stage != Stage::Live {
            return Some(session.since_ns + self.hello_ns);
        }
        let silent = session.heard_ns + SILENCE_NS;
        if session.blocked {
            return Some(silent);
        }
        let news = at.link.as_ref().filter(|link| link.has_news()).map(|_| 0);
        let ack = at.link.as_ref().and_then(Link::ack_at);
        let ping = session.ping_ns;
        [news, ack, Some(ping), Some(silent)].into_iter().flatten().min()
    }

    pub(super) fn tick_neighbour(&mut self, now: Time, key: usize, out: &mut Out<Output>) {
        let at = &mut self.neighbours[key];
        let Some(session) = &mut at.session else {
            if at.link.as_ref().and_then(|link| link.until_ns).is_some_and(|at| at <= now.mono_ns) {
                self.down(key, SmolStr::new_static("its connection is lost"), out);
                self.forget(key);
            }
            return;
        };
        if session.stage != Stage::Live {
            if session.since_ns + self.hello_ns <= now.mono_ns {
                let why = format_smolstr!("no hello came for {} ms", self.hello_ns / MS);
                self.end(now, key, why, out);
            }
            return;
        }
        if session.heard_ns + SILENCE_NS <= now.mono_ns {
            let why = format_smolstr!("nothing came for {} ms", SILENCE_NS / MS);
            return self.end(now, key, why, out);
        }
        if session.blocked {
            return;
        }
        if session.ping_ns <= now.mono_ns {
            session.ping_ns = now.mono_ns + PING_NS;
            session.pinged = Some(now.mono_ns);
            out.push(Output::Say { session: session.id, frame: Frame::Ping(now.mono_ns) });
        }
        if let Some(link) = &mut at.link {
            link.flush(now, session.id, out);
        }
    }
}
