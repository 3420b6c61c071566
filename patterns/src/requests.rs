//! What each connection has in flight: one outcome for each id, and no id twice.

use std::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use slab::Slab;
use smol_str::SmolStr;

use crate::base::{Code, GraphId, JobId, Limits, PeerId, Refusal, RunId, Set, Time, seeded};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Accepted by nobody yet.
    New,
    /// A call, or a wait for an event.
    Job(JobId),
    /// A graph.
    Graph(GraphId),
    /// A message that is sent.
    Send {
        /// Whether it is for a queue that another broker keeps.
        near: bool,
    },
}

/// A request without an outcome.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Who asked.
    pub peer: PeerId,
    /// What it calls the request.
    pub id: SmolStr,
    /// What became of it.
    pub target: Target,
    /// The ULID of a call whose caller follows it.
    pub track: Option<RunId>,
    /// Whether its caller wants progress.
    pub progress: bool,
    /// When it came.
    pub begun_ns: u64,
    /// Of its id: it is looked up twice.
    hash: u64,
}

#[derive(Debug, Default)]
struct Connection {
    generation: u32,
    /// Keys of its requests, by the hash of their ids.
    keys: HashTable<u32>,
    /// Graphs of which more parts are to come, whatever has become of them.
    partial: Set<SmolStr>,
}

impl Connection {
    /// What is known of a connection, made if it is new.
    fn of(connections: &mut Vec<Option<Box<Self>>>, peer: PeerId, seed: u64) -> &mut Self {
        let slot = peer.slot as usize;
        if connections.len() <= slot {
            connections.resize_with(slot + 1, || None);
        }
        let connection = connections[slot].get_or_insert_with(|| {
            let (keys, partial) = (HashTable::new(), Set::with_hasher(seeded(seed)));
            Box::new(Self { generation: peer.generation, keys, partial })
        });
        debug_assert_eq!(connection.generation, peer.generation, "an earlier life was not ended");
        connection
    }
}

/// The requests of all connections, by a dense key.
#[derive(Debug)]
pub struct Requests {
    in_flight: Slab<InFlight>,
    connections: Vec<Option<Box<Connection>>>,
    per_peer: usize,
    seed: u64,
}

impl Requests {
    /// An empty table.
    #[must_use]
    pub fn new(limits: &Limits, seed: u64) -> Self {
        let (in_flight, connections) = (Slab::new(), Vec::new());
        Self { in_flight, connections, per_peer: limits.calls_per_peer, seed }
    }

    /// Takes a request in, unless its id is in flight on that connection or there are too many.
    pub fn begin(
        &mut self,
        now: Time,
        peer: PeerId,
        id: &SmolStr,
        track: Option<RunId>,
        progress: bool,
    ) -> Result<u32, Refusal> {
        let (per_peer, hash) = (self.per_peer, self.hash(id));
        let connection = Connection::of(&mut self.connections, peer, self.seed);
        let in_flight = &self.in_flight;
        if connection.keys.find(hash, |&key| in_flight[key as usize].id == *id).is_some() {
            return Err(Self::duplicate(id));
        }
        if connection.keys.len() >= per_peer {
            let message = format!("{per_peer} requests are in flight here");
            return Err(Refusal::new(Code::Busy, message));
        }
        let (id, target) = (id.clone(), Target::New);
        let begun_ns = now.mono_ns;
        let request = InFlight { peer, id, target, track, progress, begun_ns, hash };
        let key = self.in_flight.insert(request) as u32;
        let in_flight = &self.in_flight;
        connection.keys.insert_unique(hash, key, |&key| in_flight[key as usize].hash);
        Ok(key)
    }

    fn hash(&self, id: &str) -> u64 {
        let mut hasher = seeded(self.seed).build_hasher();
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    /// Says that an id is in use.
    #[cold]
    #[must_use]
    pub fn duplicate(id: &str) -> Refusal {
        let message = format!("{id} is in flight on this connection");
        let error = Refusal::field(Code::DuplicateId, "id", message);
        Refusal { refused: Some("duplicate"), ..error }
    }

    /// Notes a part of a graph. True if it follows a part that said so: even where the graph was
    /// refused since, it is nothing new, and whatever is wrong is answered once.
    pub fn part(&mut self, peer: PeerId, id: &SmolStr, first: bool, more: bool) -> bool {
        let per_peer = self.per_peer;
        let partial = &mut Connection::of(&mut self.connections, peer, self.seed).partial;
        let expected = !first && partial.contains(id);
        if !more {
            partial.remove(id);
        } else if !expected && partial.len() < per_peer {
            partial.insert(id.clone());
        }
        expected
    }

    /// Notes what became of a request.
    pub fn became(&mut self, key: u32, target: Target) {
        if let Some(request) = self.in_flight.get_mut(key as usize) {
            request.target = target;
        }
    }

    /// Whether it is a message that is sent.
    #[must_use]
    pub fn is_send(&self, key: u32) -> bool {
        self.get(key).is_some_and(|request| matches!(request.target, Target::Send { .. }))
    }

    /// The request behind a key.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<&InFlight> {
        self.in_flight.get(key as usize)
    }

    /// The key of a connection's request.
    #[must_use]
    pub fn find(&self, peer: PeerId, id: &str) -> Option<u32> {
        let connection = self.connections.get(peer.slot as usize)?.as_ref()?;
        let found = |key: &u32| self.in_flight[*key as usize].id == *id;
        connection.keys.find(self.hash(id), found).copied()
    }

    /// Takes a request out: its outcome is about to leave.
    pub fn end(&mut self, key: u32) -> Option<InFlight> {
        let request = self.in_flight.try_remove(key as usize)?;
        if let Some(Some(connection)) = self.connections.get_mut(request.peer.slot as usize) {
            let entry = connection.keys.find_entry(request.hash, |&other| other == key);
            entry.map(|entry| entry.remove()).ok();
        }
        Some(request)
    }

    /// Forgets a connection. The keys of what it had in flight, which is still to be ended.
    pub fn gone(&mut self, peer: PeerId) -> Vec<u32> {
        let slot = self.connections.get_mut(peer.slot as usize);
        let this = |connection: &mut Box<Connection>| connection.generation == peer.generation;
        let Some(connection) = slot.and_then(|slot| slot.take_if(this)) else { return Vec::new() };
        let mut keys: Vec<u32> = connection.keys.iter().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// How many requests have no outcome yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether every request has had its outcome.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}
