//! The mpreg process: where the rules of `mpreg-patterns` meet the sockets of `mpreg-sockets`.
//!
//! In reading order: [`broker`] (start and stop), [`config`] (file and flags), [`store`] (what is
//! on disk), [`files`] (how many may be open), [`cli`] (commands).

pub mod broker;
pub mod cli;
pub mod config;
pub mod files;
pub mod signals;
pub mod store;

mod core;
mod web;
