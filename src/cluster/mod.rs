//! This node among others that share one database: its lease, its slots, what dead nodes left behind.

mod plan;

pub use self::plan::{Holders, NodeId, Plan, plan};
