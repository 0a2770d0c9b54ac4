//! This node among others that share one database: its lease, its slots, what dead nodes left behind.
//!
//! Promises that nothing of a slot is polled here unless the database said that it is this node's and the lease
//! surely runs. The database alone arbitrates; whatever this believes is checked against it at each look.

mod plan;
pub mod postgres;
mod registry;
mod shared;
mod task;
mod waiting;

pub use self::plan::{Holders, NodeId, Plan, plan};
pub use self::registry::{Registered, Registry, Renewed, Report, Seen, View};
pub use self::shared::{Cluster, Shared};
pub use self::task::{Hints, State, Task};
pub use self::waiting::Waiting;
