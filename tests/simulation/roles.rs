//! What a peer is: one of the kinds there are, at its end of a link.

use std::collections::VecDeque;

use mpreg_patterns::ops::{Reply, Request};

use crate::network::{Link, Parcel};
use crate::peers::{Client, Worker};
use crate::plans::Plans;
use crate::publishers::{Publisher, Waiter};
use crate::subscribers::Subscriber;

pub(crate) enum Role {
    Client(Client),
    Worker(Worker),
    Publisher(Publisher),
    Subscriber(Subscriber),
    Waiter(Waiter),
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
        match &mut self.role {
            Role::Client(client) => client.lost(),
            Role::Waiter(waiter) => waiter.lost(),
            _ => {}
        }
    }

    /// What it says now.
    pub(crate) fn wake(&mut self, now_ns: u64, plans: &mut Plans) -> Vec<Request> {
        match &mut self.role {
            Role::Client(client) => client.wake(now_ns, self.disturbed_ns, plans),
            Role::Worker(worker) => worker.wake(now_ns),
            Role::Publisher(publisher) => publisher.wake(now_ns),
            Role::Subscriber(subscriber) => subscriber.wake(now_ns),
            Role::Waiter(waiter) => waiter.wake(now_ns),
        }
    }
}

impl Role {
    pub(crate) fn wake_at(&self) -> u64 {
        match self {
            Self::Client(client) => client.wake_at(),
            Self::Worker(worker) => worker.wake_at(),
            Self::Publisher(publisher) => publisher.wake_at(),
            Self::Subscriber(subscriber) => subscriber.wake_at(),
            Self::Waiter(waiter) => waiter.wake_at(),
        }
    }

    pub(crate) fn hear(&mut self, now_ns: u64, reply: &Reply) -> Option<Request> {
        match self {
            Self::Worker(worker) => return worker.hear(now_ns, reply),
            Self::Client(client) => client.hear(reply),
            Self::Publisher(_) => {}
            Self::Subscriber(subscriber) => subscriber.hear(now_ns, reply),
            Self::Waiter(waiter) => waiter.hear(reply),
        }
        None
    }

    /// A reply to it was dropped, since too much waited.
    pub(crate) fn dropped(&mut self, reply: &Reply) {
        match self {
            Self::Subscriber(subscriber) => subscriber.dropped(reply),
            // An answer is an answer, even if it is not heard.
            Self::Waiter(waiter) => waiter.hear(reply),
            _ => {}
        }
    }

    /// Its connection begins another life, whether it notices or not.
    pub(crate) fn connected(&mut self) {
        match self {
            Self::Subscriber(subscriber) => subscriber.connected(),
            Self::Waiter(waiter) => waiter.lost(),
            _ => {}
        }
    }

    pub(crate) fn reconnected(&mut self, now_ns: u64) {
        match self {
            Self::Worker(worker) => worker.reconnected(now_ns),
            Self::Subscriber(subscriber) => subscriber.reconnected(now_ns),
            _ => {}
        }
    }

    pub(crate) fn killed(&mut self, now_ns: u64) {
        match self {
            Self::Worker(worker) => worker.killed(now_ns),
            Self::Subscriber(subscriber) => subscriber.reconnected(now_ns),
            _ => {}
        }
    }

    pub(crate) fn settle(&mut self, now_ns: u64) {
        match self {
            Self::Client(client) => client.active = false,
            Self::Worker(worker) => worker.settle(now_ns),
            Self::Publisher(publisher) => publisher.active = false,
            Self::Subscriber(subscriber) => subscriber.settle(now_ns),
            Self::Waiter(waiter) => waiter.active = false,
        }
    }

    /// Nothing is open any more.
    pub(crate) fn assert_quiet(&self) {
        match self {
            Self::Client(client) => assert_eq!(client.waits(), 0, "a client still waits"),
            Self::Worker(worker) => assert_eq!(worker.holds(), 0, "a worker still runs"),
            Self::Publisher(_) => {}
            Self::Subscriber(subscriber) => {
                assert_eq!(subscriber.waits(), 0, "a subscriber was not answered");
            }
            Self::Waiter(waiter) => assert_eq!(waiter.waits(), 0, "a waiter still waits"),
        }
    }
}
