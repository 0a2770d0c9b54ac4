//! pinwatch waits for the final status of one-time PINs and delivers how each ended.
//!
//! In the order of the data flow: `intake` accepts PIN IDs over the socket, as requests of `protocol`; `store` keeps them;
//! `schedule` decides when each is polled; `poll` asks the API and interprets the answer; `outcome` describes how a PIN ended;
//! `sinks` deliver it. `daemon` connects these parts; `commands` are the clients. `ARCHITECTURE.md` has the map and the
//! invariants.
//!
//! **This library is no interface.** It exists so that the program's own tests, benches and fuzz targets can use its parts. Any
//! release may change or remove whatever is public here. What is stable is named in `docs/stability.md`: use the socket, HTTP
//! or the command line.
#![forbid(unsafe_code)]
// Readers of this documentation read the source too: `cargo doc --document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

// The program.
#[doc(hidden)]
pub mod commands;

// What tests, benches or fuzz targets use.
#[doc(hidden)]
pub mod backoff;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod intake;
#[doc(hidden)]
pub mod json_pointer;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod outcome;
#[doc(hidden)]
pub mod pin;
#[doc(hidden)]
pub mod poll;
#[doc(hidden)]
pub mod protocol;
#[doc(hidden)]
pub mod schedule;
#[doc(hidden)]
pub mod services;
#[doc(hidden)]
pub mod simulate;
#[doc(hidden)]
pub mod sinks;
#[doc(hidden)]
pub mod slot;
#[doc(hidden)]
pub mod store;

mod accepting;
mod build;
mod cluster;
mod daemon;
mod fault;
mod http_client;
mod lines;
mod operations;
mod outgoing;
mod paths;
mod pem;
mod places;
mod pulse;
mod readable;
mod redact;
mod submits;
mod text;
mod throttle;
mod trouble;
