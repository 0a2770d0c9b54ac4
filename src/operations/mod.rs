//! Answers the requests of [`protocol`](crate::protocol), whether they arrive over the local socket or over HTTP.
//!
//! One function per operation: it takes the request, asks the schedule, the store and the cluster, and returns the
//! answer as a type, or the reason why there is none. `submit` and `cancel` limit their waits; `wait` ends with its
//! client, its timeout or the daemon; the caller limits queries with [`in_time`]. Must not know sockets, lines or HTTP:
//! `intake/` and `http/` read requests and write answers.

mod admin;
mod cluster_queries;
mod count;
mod dead_letters;
mod failure;
pub mod findings;
mod known_sink;
mod matching;
mod pins;
mod schedule;
mod stats;
mod submit;
mod tail;
#[cfg(test)]
pub mod testing;
pub mod verdict;

pub use admin::{drop, forget_sink, replay};
pub use cluster_queries::nodes;
pub use count::count;
pub use dead_letters::dead_letters;
pub use failure::{Failure, in_time, shutting_down, unreadable};
pub use matching::{check_sink, matching};
pub use pins::{cancel, cancel_matching, cancelled_state, list, outcome_of, show, wait};
pub use schedule::schedule;
pub use stats::{current, ping, stats};
pub use submit::submit;
pub use tail::{Beginning, Next, Reader};
