//! This node among others that share one database: its lease, its slots, and what dead nodes left behind.
//!
//! Promises that this node polls a PIN only while the database says that the PIN's slot is its own and its lease runs.
//! The database alone arbitrates; this module checks its beliefs against it in each round. Does not know SQL.

mod plan;
pub mod postgres;
mod registry;
mod shared;
mod task;
mod waiting;

pub use self::plan::{Plan, plan};
pub use self::registry::Registry;
pub use self::shared::Cluster;
pub use self::task::{Hints, State, Task};
pub use self::waiting::Waiting;
pub use crate::store::postgres::{
    Holders, NodeId, NodeReport, NodeState, Registration, Renewal, Shared, View,
};
