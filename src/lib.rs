//! pinwatch waits for the final status of one-time PINs and delivers how each ended.
//!
//! In the order of the data flow: [`intake`] accepts PIN IDs over the socket, as requests of [`protocol`]; [`store`]
//! keeps them; [`schedule`] decides when each is polled; [`poll`] asks the API and interprets the answer; [`outcome`]
//! describes how a PIN ended; [`sinks`] deliver it. [`daemon`] connects these parts; [`commands`] are the clients.
//! `ARCHITECTURE.md` has the map and the invariants.
#![forbid(unsafe_code)]

mod accepting;
pub mod backoff;
mod build;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod daemon;
mod fault;
pub mod http;
mod http_client;
pub mod intake;
mod lines;
pub mod metrics;
pub mod operations;
pub mod outcome;
pub mod outgoing;
pub mod paths;
mod pem;
pub mod pin;
pub mod places;
pub mod poll;
pub mod protocol;
pub mod pulse;
mod redact;
pub mod schedule;
pub mod services;
pub mod simulate;
pub mod sinks;
pub mod slot;
pub mod store;
mod submits;
mod text;
mod trouble;
