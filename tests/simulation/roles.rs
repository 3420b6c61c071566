//! What a peer is: one of the kinds there are, at its end of a link.

use std::collections::VecDeque;

use mpreg_patterns::ops::{Reply, Request};

use crate::network::{Link, Parcel};
use crate::peers::{Client, Worker};
use crate::plans::Plans;

pub(crate) enum Role {
    Client(Client),
    Worker(Worker),
}

pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) link: Link,
    /// What has arrived and is not read, while the peer stalls.
    pub(crate) unread: VecDeque<Parcel>,
    /// When something was last lost on its way to or from it.
    pub(crate) disturbed_ns: u64,
    pub(crate) alive: bool,
}

impl Peer {
    pub(crate) fn new(role: Role) -> Self {
        let (link, unread) = (Link::new(), VecDeque::new());
        Self { role, link, unread, disturbed_ns: 0, alive: true }
    }

    /// Its connection, and what was to be read from it, is no more.
    pub(crate) fn lost(&mut self) {
        self.unread.clear();
        if let Role::Client(client) = &mut self.role {
            client.lost();
        }
    }

    /// What it says now.
    pub(crate) fn wake(&mut self, now_ns: u64, plans: &mut Plans) -> Vec<Request> {
        match &mut self.role {
            Role::Client(client) => client.wake(now_ns, self.disturbed_ns, plans),
            Role::Worker(worker) => worker.wake(now_ns),
        }
    }
}

impl Role {
    pub(crate) fn wake_at(&self) -> u64 {
        match self {
            Self::Client(client) => client.wake_at(),
            Self::Worker(worker) => worker.wake_at(),
        }
    }

    pub(crate) fn hear(&mut self, now_ns: u64, reply: &Reply) -> Option<Request> {
        match self {
            Self::Client(client) => {
                client.hear(reply);
                None
            }
            Self::Worker(worker) => worker.hear(now_ns, reply),
        }
    }

    pub(crate) fn reconnected(&mut self, now_ns: u64) {
        if let Self::Worker(worker) = self {
            worker.reconnected(now_ns);
        }
    }

    pub(crate) fn killed(&mut self, now_ns: u64) {
        if let Self::Worker(worker) = self {
            worker.killed(now_ns);
        }
    }

    pub(crate) fn settle(&mut self, now_ns: u64) {
        match self {
            Self::Client(client) => client.active = false,
            Self::Worker(worker) => worker.settle(now_ns),
        }
    }

    /// Nothing is open any more.
    pub(crate) fn assert_quiet(&self) {
        match self {
            Self::Client(client) => assert_eq!(client.waits(), 0, "a client still waits"),
            Self::Worker(worker) => assert_eq!(worker.holds(), 0, "a worker still runs"),
        }
    }
}
