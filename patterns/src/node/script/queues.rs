//! What transcripts say of queues.
//!
//! ```text
//! c1 sends a jobs {"n":1}
//! → c1 sent a fsync 1
//! w1 consumes jobs credit=2
//! → w1 consumed jobs, credit 2
//! → w1 deliver jobs {"n":1}
//! w1 done jobs id=d
//! → w1 acked d 1
//! ```
//!
//! The store syncs after every line, unless `store waits`; then `store syncs`, `store steps` (does
//! one thing and syncs), `store fails` and `store opens` say what it does.

use std::fmt::Write as _;
use std::sync::Arc;

use smol_str::SmolStr;

use super::told::value_text;
use super::{Stage, Words};
use crate::base::RunId;
use crate::node::Input;
use crate::ops::{Delivered, Event, Reply, Request, Send, SendOptions, Settle, Verdict};
use crate::store::Told;

impl Stage {
    pub(super) fn play_store(&mut self, verb: &str) {
        match verb {
            "waits" => self.slow = true,
            "syncs" => self.sync(),
            "steps" => {
                let told = self.store.step();
                self.input(Input::Stored(told));
            }
            "fails" => {
                let told = self.store.fail();
                self.input(Input::Stored(told));
            }
            "fills" => {
                let told = self.store.full();
                self.input(Input::Stored(told));
            }
            "empties" => self.input(Input::Stored(Told::Room)),
            "opens" => {
                let told = self.store.open();
                self.input(Input::Stored(told));
            }
            other => panic!("the store does not {other}"),
        }
    }

    /// Lets the store do what it was asked.
    pub(super) fn sync(&mut self) {
        for told in self.store.sync() {
            self.node.handle(self.now, Input::Stored(told), &mut self.out);
            self.note();
        }
        self.turn();
    }
}

/// What a peer asks of queues.
pub(super) fn request(verb: &str, words: &mut Words<'_>) -> Option<Request> {
    Some(match verb {
        "sends" | "routes" => {
            let id = words.word().into();
            let event = words.event();
            let (queue, topic) = match verb {
                "sends" => (Some(event.topic.clone()), SmolStr::default()),
                _ => (None, event.topic.clone()),
            };
            let event = Arc::new(Event { topic, ..(*event).clone() });
            let (confirm, options) = words.send_options();
            Request::Send(Box::new(Send { id, confirm, queue, event, options }))
        }
        "consumes" => {
            let queue = words.word().into();
            let (mut id, mut group, mut credit) = (None, None, 1);
            while !words.rest.is_empty() {
                let word = words.word().to_owned();
                match word.split_once('=') {
                    Some(("credit", number)) => credit = number.parse().expect("a number"),
                    Some(("group", name)) => group = Some(name.into()),
                    Some(("id", name)) => id = Some(name.into()),
                    other => panic!("{other:?} is no option of consumes"),
                }
            }
            Request::Consume { id, queue, group, credit }
        }
        _ => return None,
    })
}

/// `done jobs id=d`, `nacks jobs delay=0 dead id=d some reason`, `extends jobs`.
pub(super) fn settle(verb: &str, ids: Vec<RunId>, words: &mut Words<'_>) -> Request {
    let (mut id, mut delay_ms, mut dead) = (None, None, false);
    loop {
        if let Some(name) = words.option("id") {
            id = Some(name.into());
        } else if let Some(ms) = words.option("delay") {
            delay_ms = ms.parse().ok();
        } else if words.flag("dead") {
            dead = true;
        } else {
            break;
        }
    }
    let verdict = match verb {
        "done" => Verdict::Ack,
        "extends" => Verdict::Extend,
        _ => {
            let reason = (!words.rest.is_empty()).then(|| words.rest.into());
            Verdict::Nack { delay_ms, reason, dead }
        }
    };
    Request::Settle(Settle { id, ids, verdict })
}

impl Words<'_> {
    fn send_options(&mut self) -> (bool, SendOptions) {
        let (mut confirm, mut options) = (true, SendOptions::default());
        while !self.rest.is_empty() {
            let word = self.word().to_owned();
            match word.split_once('=') {
                Some(("delay", ms)) => options.delay_ms = ms.parse().expect("a number"),
                Some(("priority", of)) => options.priority = of.parse().expect("a number"),
                Some(("key", key)) => options.key = Some(key.into()),
                Some(("dedup", text)) => options.dedup = Some(text.into()),
                None if word == "quietly" => confirm = false,
                other => panic!("{other:?} is no option of sends"),
            }
        }
        (confirm, options)
    }
}

/// What a delivery is called later: its queue, or the topic of one without.
pub(super) fn called(told: &Delivered) -> String {
    let of = if told.queue.is_empty() { &told.message.event.topic } else { &told.queue };
    of.to_string()
}

/// A reply as one line.
pub(super) fn told(reply: &Reply) -> String {
    match reply {
        Reply::Sent { id, durability, queues, near, .. } => {
            let near = if *near { " near" } else { "" };
            format!("sent {id} {} {queues}{near}", durability.as_str())
        }
        Reply::Consumed { id, queue, group, credit, .. } => {
            let id = id.as_ref().map_or(String::new(), |id| format!(" {id}"));
            let group = group.as_ref().map_or(String::new(), |group| format!(" for {group}"));
            format!("consumed{id} {queue}{group}, credit {credit}")
        }
        Reply::Deliver(told) | Reply::HandOver(told) => {
            let event = &told.message.event;
            let verb = if matches!(reply, Reply::Deliver(_)) { "deliver" } else { "send" };
            let mut text = format!("{verb} {}", told.queue).trim_end().to_owned();
            if let Some(group) = &told.group {
                write!(text, " for {group}").unwrap();
            }
            if !event.topic.is_empty() {
                write!(text, " of {}", event.topic).unwrap();
            }
            write!(text, " {}", value_text(&event.payload)).unwrap();
            if told.attempt > 1 {
                write!(text, " attempt {}", told.attempt).unwrap();
            }
            text
        }
        Reply::Acked { id, ids, unknown } => {
            let unknown = match unknown.len() {
                0 => String::new(),
                some => format!(", {some} unknown"),
            };
            format!("acked {id} {}{unknown}", ids.len())
        }
        Reply::Consume { queue, group, credit, .. } => {
            let group = group.as_ref().map_or(String::new(), |group| format!(" for {group}"));
            format!("consume {queue}{group}, credit {credit}")
        }
        Reply::Settle(settle) => {
            let mut text = format!("{} {}", settle.verdict.as_str(), settle.ids.len());
            if let Verdict::Nack { delay_ms, reason, dead } = &settle.verdict {
                let delay = delay_ms.map(|ms| format!(" delay={ms}"));
                let reason = reason.as_ref().map(|reason| format!(" {reason}"));
                let dead = dead.then(|| " dead".to_owned());
                text.extend([delay, dead, reason].into_iter().flatten());
            }
            text
        }
        other => format!("{other:?}"),
    }
}
