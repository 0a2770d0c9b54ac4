//! All nodes of a cluster, as the database has them at one moment.
//!
//! Promises a consistent view. Each node reads it to decide which slots to take and release; client requests about the
//! cluster read it too. Plain data; decides nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::{PgExecutor, PgRow};

use crate::slot::{SLOTS, Slots};

/// A node's number in the database.
pub type NodeId = i32;

/// The holder of each slot; `None` for a slot that was released or that no node ever held.
pub type Holders = [Option<NodeId>; SLOTS];

/// All nodes that ever registered, at one moment.
#[derive(Debug, Clone)]
pub struct View {
    pub nodes: Vec<NodeState>,
}

/// One node as the others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeState {
    pub id: NodeId,
    pub name: String,
    /// How long its lease still runs, by the database's clock; `None` once it has ended.
    pub lease_left: Option<Duration>,
    pub version: String,
    pub report: NodeReport,
    /// The slots it holds, or held when its lease ended.
    pub slots: Slots,
}

/// What a node reports about itself at each renewal of its lease.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    pub in_flight: usize,
    pub due: usize,
    /// Its part of `api.rate`, or what 429 answers left of it, in polls per second.
    pub rate: Option<f64>,
    /// Why its polling is paused.
    pub brake: Option<String>,
}

impl View {
    pub(super) async fn read(connection: impl PgExecutor<'_>) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT id, name, (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::float8, version, stats, \
             ARRAY(SELECT slot FROM slot WHERE slot.node = node.id ORDER BY slot) FROM node ORDER BY id",
        );
        let rows = rows.fetch_all(connection).await?;
        Ok(Self { nodes: rows.iter().map(node).collect::<Result<_, _>>()? })
    }

    /// The nodes whose lease runs.
    pub fn live(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.lease_left.is_some()).map(|node| node.id).collect()
    }

    /// The slots of one node.
    pub fn slots_of(&self, id: NodeId) -> Slots {
        self.nodes.iter().find(|node| node.id == id).map_or(Slots::NONE, |node| node.slots)
    }

    /// The holder of each slot.
    pub fn holders(&self) -> Holders {
        let mut holders: Holders = [None; SLOTS];
        for node in &self.nodes {
            node.slots.iter().for_each(|slot| holders[usize::from(slot)] = Some(node.id));
        }
        holders
    }
}

fn node(row: &PgRow) -> Result<NodeState, sqlx::Error> {
    let (stats, slots): (&str, Vec<i16>) = (row.try_get(4)?, row.try_get(5)?);
    Ok(NodeState {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        lease_left: lease_left(row.try_get(2)?),
        version: row.try_get(3)?,
        // A node of another version may report something else; then its numbers are unknown.
        report: serde_json::from_str(stats).unwrap_or_default(),
        slots: slots.into_iter().filter_map(|slot| u8::try_from(slot).ok()).collect(),
    })
}

/// The rest of a lease, from milliseconds; `None` if it has ended. Capped at a day: a lease lasts a minute at most, and
/// a value such as "infinity" would overflow the clock it is added to.
pub(super) fn lease_left(millis: f64) -> Option<Duration> {
    (millis > 0.0).then(|| Duration::from_secs_f64((millis / 1000.0).min(86_400.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infinite_lease_of_the_database_does_not_overflow_the_clock() {
        let day = Duration::from_secs(86_400);
        for (millis, left) in [(1500.0, Duration::from_millis(1500)), (f64::INFINITY, day), (1e300, day)] {
            assert_eq!(lease_left(millis), Some(left));
        }
        for over in [0.0, -1.0, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(lease_left(over), None);
        }
    }
}
