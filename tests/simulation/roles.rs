//! What a peer is: one of the kinds there are, at its end of a link.

use std::collections::VecDeque;

use mpreg_patterns::base::Rng;
use mpreg_patterns::ops::{Reply, Request};

use crate::consumers::Consumer;
use crate::network::{Link, Parcel};
use crate::peers::{Client, Worker};
use crate::plans::Plans;
use crate::producers::Producer;
use crate::publishers::{Publisher, Waiter};
use crate::queues::Plan;
use crate::subscribers::Subscriber;
use crate::world::Scenario;

pub(crate) enum Role {
    Client(Client),
    Worker(Worker),
    Publisher(Publisher),
    Subscriber(Subscriber),
    Waiter(Waiter),
    Producer(Producer),
    Consumer(Consumer),
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

/// Who is there, and in which order.
pub(crate) fn all(scenario: Scenario, queues: &[Plan], seed: u64, rng: &mut Rng) -> Vec<Role> {
    let (clients, workers) = (1 + rng.below(3), 1 + rng.below(4));
    let client = |index| Role::Client(Client::new(index, seed * 31 + index as u64));
    let worker = |index| Role::Worker(Worker::new(index, seed * 37 + index as u64));
    if !queues.is_empty() {
        return with_queues(queues, seed, rng);
    }
    if !scenario.topics {
        return (0..workers).map(worker).chain((0..clients).map(client)).collect();
    }
    // One of each, so that graphs and calls go on beside topics.
    let mut roles = vec![worker(0), client(0)];
    for index in 0..1 + rng.below(2) {
        roles.push(Role::Publisher(Publisher::new(index, seed * 41 + index as u64)));
        roles.push(Role::Waiter(Waiter::new(index, seed * 43 + index as u64)));
    }
    for index in 0..2 + rng.below(4) {
        roles.push(Role::Subscriber(Subscriber::new(index, seed * 53 + index as u64)));
    }
    roles
}

/// Producers and consumers, and one of each of the others, so that calls go on beside queues.
fn with_queues(queues: &[Plan], seed: u64, rng: &mut Rng) -> Vec<Role> {
    let mut roles =
        vec![Role::Worker(Worker::new(0, seed * 37)), Role::Client(Client::new(0, seed * 31))];
    for index in 0..1 + rng.below(3) {
        let seed = seed * 59 + index as u64;
        roles.push(Role::Producer(Producer::new(index, seed, queues.to_vec())));
    }
    for index in 0..2 + rng.below(3) {
        let seed = seed * 61 + index as u64;
        roles.push(Role::Consumer(Consumer::new(index, seed, queues.to_vec())));
    }
    roles
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
            Role::Producer(producer) => producer.lost(),
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
            Role::Producer(producer) => producer.wake(now_ns),
            Role::Consumer(consumer) => consumer.wake(now_ns),
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
            Self::Producer(producer) => producer.wake_at(),
            Self::Consumer(consumer) => consumer.wake_at(),
        }
    }

    pub(crate) fn hear(&mut self, now_ns: u64, reply: &Reply) -> Option<Request> {
        match self {
            Self::Worker(worker) => return worker.hear(now_ns, reply),
            Self::Client(client) => client.hear(reply),
            Self::Publisher(_) => {}
            Self::Subscriber(subscriber) => subscriber.hear(now_ns, reply),
            Self::Waiter(waiter) => waiter.hear(reply),
            Self::Producer(producer) => producer.hear(reply),
            Self::Consumer(consumer) => consumer.hear(now_ns, reply),
        }
        None
    }

    /// A reply to it was dropped, since too much waited.
    pub(crate) fn dropped(&mut self, reply: &Reply) {
        match self {
            Self::Subscriber(subscriber) => subscriber.dropped(reply),
            // An answer is an answer, even if it is not heard.
            Self::Waiter(waiter) => waiter.hear(reply),
            Self::Producer(producer) => producer.hear(reply),
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
            Self::Consumer(consumer) => consumer.reconnected(now_ns),
            _ => {}
        }
    }

    pub(crate) fn killed(&mut self, now_ns: u64) {
        match self {
            Self::Worker(worker) => worker.killed(now_ns),
            Self::Consumer(consumer) => consumer.killed(now_ns),
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
            Self::Producer(producer) => producer.active = false,
            Self::Consumer(consumer) => consumer.settle(now_ns),
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
            Self::Producer(producer) => assert_eq!(producer.waits(), 0, "a producer still waits"),
            Self::Consumer(consumer) => assert_eq!(consumer.holds(), 0, "a consumer has some"),
        }
    }
}
