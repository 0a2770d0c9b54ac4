//! Several nodes on one PostgreSQL: real `pinwatch run` processes, a real server, and failures of both.
//!
//!     cargo test --test integration cluster:: -- --nocapture
//!     PINWATCH_CLUSTER_ROUNDS=1000 PINWATCH_CLUSTER_SEED=7 cargo test --test integration cluster::rounds -- --nocapture
//!
//! The first has 100 random rounds; the second is the long form. A seed gives the same PINs and accidents again,
//! though not the same interleaving. Without PostgreSQL's server binaries these tests report that they did not run.

mod clocks;
mod deaths;
mod failover;
mod fixtures;
mod follow;
mod full;
mod hints;
mod members;
mod moves;
mod nodes;
mod outages;
mod proxy;
mod questions;
mod rate;
mod rounds;
mod tls;
