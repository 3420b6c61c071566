//! Outlets of queues: what is to leave through them waits here until a PULL takes it.

use std::collections::VecDeque;
use std::sync::Arc;

use mpreg_patterns::base::{Code, Map, PeerId, Refusal, Time};
use mpreg_patterns::node;
use mpreg_patterns::queues::{OutletNews, OutletTask};
use mpreg_patterns::store::Message;
use mpreg_sockets::outlet::Outlet;
use smol_str::SmolStr;

use super::Core;

/// An outlet that is bound.
struct Open {
    at: PeerId,
    socket: Outlet,
    /// What has not left yet: a window's worth at most.
    waiting: VecDeque<(SmolStr, Arc<Message>)>,
    /// Whether some PULL takes it, as far as is known.
    flows: bool,
}

/// All outlets, by their slots.
pub(super) struct Outlets {
    context: zmq::Context,
    open: Map<u32, Open>,
}

impl Outlets {
    pub(super) fn new(context: zmq::Context) -> Self {
        Self { context, open: Map::default() }
    }

    /// For `zmq::poll`: those that nothing could be sent through.
    pub(super) fn poll_items(&self) -> impl Iterator<Item = zmq::PollItem<'_>> {
        let blocked = self.open.values().filter(|open| !open.flows && !open.socket.is_full());
        blocked.map(|open| open.socket.poll_item())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether one waits for what libzmq does not tell of.
    pub(super) fn are_full(&self) -> bool {
        self.open.values().any(|open| !open.flows && open.socket.is_full())
    }
}

impl Core {
    pub(super) fn outlet(&mut self, now: Time, at: PeerId, task: &OutletTask) {
        match task {
            OutletTask::Bind(address) => self.bind_outlet(now, at, address),
            OutletTask::Push { name, message } => {
                let open = self.outlets.open.get_mut(&at.slot).filter(|open| open.at == at);
                if let Some(open) = open {
                    open.waiting.push_back((name.clone(), message.clone()));
                }
            }
            OutletTask::Close => {
                self.outlets.open.remove(&at.slot);
            }
        }
    }

    fn bind_outlet(&mut self, now: Time, at: PeerId, address: &str) {
        let bound = match Outlet::bind(&self.outlets.context, address) {
            Ok(socket) => {
                let endpoint = SmolStr::new(socket.endpoint());
                let open = Open { at, socket, waiting: VecDeque::new(), flows: false };
                self.outlets.open.insert(at.slot, open);
                Ok(endpoint)
            }
            Err(error) => {
                let message = format!("cannot bind {address}: {error}");
                Err(Refusal::field(Code::CannotBind, "outlet", message))
            }
        };
        self.outlet_news(now, at, OutletNews::Bound(bound));
    }

    fn outlet_news(&mut self, now: Time, at: PeerId, news: OutletNews) {
        self.node.handle(now, node::Input::Outlet { at, news }, &mut self.out);
    }

    /// Sends what can leave, and looks who takes something again. True when there is more.
    pub(super) fn write_outlets(&mut self, now: Time) -> bool {
        if self.outlets.open.is_empty() {
            return false;
        }
        let mut open = std::mem::take(&mut self.outlets.open);
        for outlet in open.values_mut() {
            self.write_outlet(now, outlet);
        }
        self.outlets.open = open;
        self.encode(now);
        self.outlets.open.values().any(|open| open.flows && !open.waiting.is_empty())
    }

    fn write_outlet(&mut self, now: Time, outlet: &mut Open) {
        let at = outlet.at;
        if !outlet.flows {
            match outlet.socket.flows() {
                Ok(true) => {
                    outlet.flows = true;
                    self.outlet_news(now, at, OutletNews::Flows);
                }
                Ok(false) => return,
                Err(error) => return log::error!("looking at the outlet {at} failed: {error}"),
            }
        }
        let (mut messages, mut bytes) = (0, 0);
        while let Some((name, message)) = outlet.waiting.front() {
            let event = &message.event;
            let headers = event.headers.as_ref().map(|headers| &headers.bytes[..]);
            match outlet.socket.send(name, &event.payload.bytes, headers) {
                Ok(true) => {
                    messages += 1;
                    bytes += message.bytes() as u64;
                    outlet.waiting.pop_front();
                }
                Ok(false) => {
                    outlet.flows = false;
                    self.outlet_news(now, at, OutletNews::Stalled);
                    break;
                }
                Err(error) => {
                    outlet.flows = false;
                    log::error!("sending through the outlet {at} failed: {error}");
                    break;
                }
            }
        }
        if messages > 0 {
            self.outlet_news(now, at, OutletNews::Sent { messages, bytes });
        }
    }
}
