//! Several nodes on one PostgreSQL: real `pinwatch run` processes, a real server, and all that happens to machines.
//!
//!     cargo test --test cluster -- --nocapture

#[path = "../common/mod.rs"]
mod common;

mod fixtures;
mod proxy;
