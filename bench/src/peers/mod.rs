//! The peers of mpreg's broker: plain DEALERs that speak JSON, our Rust library, and crowds.

pub(crate) mod crowd;
pub(crate) mod json;
pub(crate) mod json_graph;
pub(crate) mod keep;
pub(crate) mod rust;
pub(crate) mod rust_graph;
pub(crate) mod text;
