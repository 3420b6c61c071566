//! What each connection has in flight: one outcome for each id, and no id twice.

use slab::Slab;
use smol_str::SmolStr;

use crate::base::{CallId, Code, GraphId, Limits, Map, PeerId, Refusal, RunId, Set, seeded};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Accepted by nobody yet.
    New,
    /// A call.
    Call(CallId),
    /// A graph.
    Graph(GraphId),
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
}

#[derive(Debug, Default)]
struct Connection {
    generation: u32,
    ids: Map<SmolStr, u32>,
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
            let (ids, partial) = (Map::with_hasher(seeded(seed)), Set::with_hasher(seeded(seed)));
            Box::new(Self { generation: peer.generation, ids, partial })
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
        peer: PeerId,
        id: &SmolStr,
        track: Option<RunId>,
    ) -> Result<u32, Refusal> {
        let per_peer = self.per_peer;
        let connection = Connection::of(&mut self.connections, peer, self.seed);
        let full = connection.ids.len() >= per_peer;
        match connection.ids.entry_ref(id) {
            hashbrown::hash_map::EntryRef::Occupied(_) => {
                let refused = Some("duplicate");
                let message = format!("{id} is in flight on this connection");
                Err(Refusal { refused, ..Refusal::field(Code::DuplicateId, "id", message) })
            }
            hashbrown::hash_map::EntryRef::Vacant(_) if full => {
                let message = format!("{per_peer} requests are in flight here");
                Err(Refusal::new(Code::Busy, message))
            }
            hashbrown::hash_map::EntryRef::Vacant(entry) => {
                let (id, target) = (id.clone(), Target::New);
                let key = self.in_flight.insert(InFlight { peer, id, target, track }) as u32;
                entry.insert(key);
                Ok(key)
            }
        }
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

    /// The request behind a key.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<&InFlight> {
        self.in_flight.get(key as usize)
    }

    /// The key of a connection's request.
    #[must_use]
    pub fn find(&self, peer: PeerId, id: &str) -> Option<u32> {
        let connection = self.connections.get(peer.slot as usize)?.as_ref()?;
        connection.ids.get(id).copied()
    }

    /// Takes a request out: its outcome is about to leave.
    pub fn end(&mut self, key: u32) -> Option<InFlight> {
        let request = self.in_flight.try_remove(key as usize)?;
        if let Some(Some(connection)) = self.connections.get_mut(request.peer.slot as usize) {
            connection.ids.remove(&request.id);
        }
        Some(request)
    }

    /// Takes out everything a connection had in flight.
    pub fn gone(&mut self, peer: PeerId) -> Vec<InFlight> {
        let slot = self.connections.get_mut(peer.slot as usize);
        let this = |connection: &mut Box<Connection>| connection.generation == peer.generation;
        let Some(connection) = slot.and_then(|slot| slot.take_if(this)) else { return Vec::new() };
        let mut keys: Vec<u32> = connection.ids.values().copied().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.in_flight.try_remove(key as usize)).collect()
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
