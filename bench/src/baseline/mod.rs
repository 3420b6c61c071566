//! What mpreg is measured against. Each is as quick as it can be made without changing what it is.

pub(crate) mod fan_out;
pub(crate) mod lmdb;
pub(crate) mod proxy;
pub(crate) mod relay;
pub(crate) mod router;
pub(crate) mod websocket;
