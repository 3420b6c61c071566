//! What is measured, and in which order.

pub(crate) mod federation;
pub(crate) mod graph;
pub(crate) mod latency;
pub(crate) mod patterns;
pub(crate) mod pubsub;
pub(crate) mod queue;
pub(crate) mod rpc;
pub(crate) mod scale;
pub(crate) mod shape;
pub(crate) mod stage;
