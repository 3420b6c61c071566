//! The broker as a process: real sockets, real signals, real clocks.
//!
//! Each test starts its own broker on ports the system picks and kills what it started by id.
//! `MPREG_BIN` names the program to test (`scripts/test` builds it for release); without it the
//! one that Cargo built for this test is used, and the figures only a release build reaches are
//! not demanded. `MPREG_LONG=1` makes the long ones long.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is a test")]

mod bindings;
mod cli;
mod examples;
mod failure;
mod figures;
mod full;
mod graph;
mod hold;
mod ledger;
mod lifecycle;
mod listeners;
mod power;
mod pubsub;
mod queues;
mod raw;
mod reopen;
mod rig;
mod routes;
mod rpc;
mod stall;
mod store;
mod topics;
mod transports;
mod work;
mod worker;
