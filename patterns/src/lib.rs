//! What the mpreg broker decides, as deterministic state machines without IO.
//!
//! In reading order: [`base`] (ids, time, refusals, limits), [`names`] (patterns of topics and
//! their index), [`values`] (what crosses the wire unchanged), [`ops`] (what peers say and hear),
//! [`expr`] (expressions on events), [`rpc`] (calls and workers), [`graph`] (dependency graphs),
//! [`requests`] (what each connection has in flight), [`node`] (all of them as one broker),
//! [`outbox`] (what waits for a peer that does not read), [`failover`] (which path to a broker a
//! client uses).
//!
//! Invariants of this crate: it reads no clock, opens nothing, locks nothing, starts nothing; the
//! same inputs and seed give the same outputs; a "no" is a [`base::Refusal`], a broken invariant a
//! panic.

pub mod base;
pub mod builtins;
pub mod expr;
pub mod failover;
pub mod federation;
pub mod graph;
pub mod names;
pub mod node;
pub mod ops;
pub mod outbox;
pub mod queues;
pub mod requests;
pub mod rpc;
pub mod store;
pub mod topics;
pub mod values;
