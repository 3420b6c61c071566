//! The peers of mpreg's broker: plain DEALERs that speak JSON, and our Rust library.

pub(crate) mod json;
pub(crate) mod json_graph;
pub(crate) mod rust;
pub(crate) mod rust_graph;
pub(crate) mod text;
