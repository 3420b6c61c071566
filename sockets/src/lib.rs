//! How messages travel, never why.
//!
//! In reading order: [`envelope`] (bytes to requests and replies, and back), [`session`] (how one
//! peer speaks), [`router`] (the door's socket), [`inlet`], [`subscribe`] and [`outlet`] (where
//! plain PUB, PUSH, SUB and PULL sockets connect), [`parts`] (several frames as one, for
//! WebSocket), [`link`] (what joins brokers), [`wait`] (until a socket rings), [`client`] (the Rust
//! client and worker), [`raw`] (libzmq options without a safe method).

pub mod client;
pub mod envelope;
pub mod inlet;
pub mod link;
pub mod outlet;
pub mod parts;
pub mod raw;
pub mod router;
pub mod session;
pub mod subscribe;
pub mod wait;
