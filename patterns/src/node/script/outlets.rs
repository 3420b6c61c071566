//! What transcripts say of outlets.
//!
//! ```text
//! → outlet 0 bind tcp://127.0.0.1:0
//! outlet 0 bound tcp://127.0.0.1:7500
//! outlet 0 flows
//! → outlet 0 push jobs {"n":1}
//! outlet 0 sent 1
//! ```

use std::collections::VecDeque;

use super::told::value_text;
use super::{Stage, Words};
use crate::base::{Code, PeerId, Refusal};
use crate::node::Input;
use crate::queues::{OutletNews, OutletTask};

/// Every outlet there ever was, in order, with the bytes of what it was given and has not sent.
#[derive(Default)]
pub(super) struct Outlets(Vec<(PeerId, VecDeque<u64>)>);

impl Outlets {
    /// A task as one line.
    pub(super) fn told(&mut self, at: PeerId, task: &OutletTask) -> String {
        let known = self.0.iter().position(|(other, _)| *other == at);
        let index = known.unwrap_or_else(|| {
            self.0.push((at, VecDeque::new()));
            self.0.len() - 1
        });
        match task {
            OutletTask::Bind(address) => format!("→ outlet {index} bind {address}"),
            OutletTask::Push { name, message } => {
                self.0[index].1.push_back(message.bytes() as u64);
                format!("→ outlet {index} push {name} {}", value_text(&message.event.payload))
            }
            OutletTask::Close => format!("→ outlet {index} close"),
        }
    }
}

impl Stage {
    pub(super) fn play_outlet(&mut self, words: &mut Words<'_>) {
        let index: usize = words.word().parse().expect("the number of an outlet");
        let (at, waiting) = &mut self.outlets.0[index];
        let at = *at;
        let news = match words.word() {
            "bound" => OutletNews::Bound(Ok(words.rest.into())),
            "fails" => OutletNews::Bound(Err(Refusal::new(Code::CannotBind, words.rest))),
            "sent" => {
                let messages: u32 = words.word().parse().expect("a number of messages");
                let bytes = waiting.drain(..messages as usize).sum();
                OutletNews::Sent { messages, bytes }
            }
            "flows" => OutletNews::Flows,
            "stalls" => OutletNews::Stalled,
            other => panic!("an outlet does not {other}"),
        };
        self.input(Input::Outlet { at, news });
    }
}
