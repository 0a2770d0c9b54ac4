//! What nodes leave for each other: PINs for the holder of their slot, requests to withdraw PINs, and released slots.
//!
//! Promises that a node claims only what is for slots that it holds. Does not know which node should hold which slot.

use sqlx::postgres::PgConnection;
use sqlx::{FromRow, Row};

use super::super::InFlight;
use super::super::rows::pin_id;
use super::Node;
use super::columns::{numbers, sorted_keys};
use super::done::Done;
use crate::pin::PinId;
use crate::slot::Slots;

/// Rows claimed at once. It bounds the transaction.
const CLAIM_AT_ONCE: i64 = 8192;

/// Whether other nodes left anything for these slots of this node.
pub async fn anything(
    connection: &mut PgConnection,
    node: &Node,
    slots: &Slots,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM inbox JOIN slot USING (slot) WHERE slot.node = $1 AND slot = ANY($2))",
    )
    .bind(node.id())
    .bind(numbers(slots))
    .fetch_one(connection)
    .await
}

/// Claims what other nodes left for those of these slots that this node holds. Skips a PIN that is no longer in flight:
/// this node already loaded and finished it.
pub async fn claim(
    connection: &mut PgConnection,
    node: &Node,
    slots: &Slots,
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "WITH claimed AS ( \
             DELETE FROM inbox WHERE ctid = ANY(ARRAY( \
                 SELECT inbox.ctid FROM inbox JOIN slot USING (slot) \
                 WHERE slot.node = $1 AND inbox.slot = ANY($2) LIMIT $3)) \
             RETURNING slot, pin_id, kind) \
         SELECT kind, pin_id, submitted_at, deadline_at, clock_ahead FROM claimed JOIN pin USING (slot, pin_id)",
    )
    .bind(node.id())
    .bind(numbers(slots))
    .bind(CLAIM_AT_ONCE)
    .fetch_all(connection)
    .await?;
    for row in rows {
        if row.try_get::<&str, _>("kind")? == "submit" {
            done.applied.accepted.push(InFlight::from_row(&row)?);
        } else {
            done.applied.cluster.cancels.push(pin_id(row.try_get("pin_id")?)?);
        }
    }
    Ok(())
}

/// Asks the holders of these PINs' slots to withdraw them.
pub async fn cancel_at_holder(
    connection: &mut PgConnection,
    pins: &[PinId],
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    if pins.is_empty() {
        return Ok(());
    }
    let (slots, pins) = sorted_keys(pins);
    let holders: Vec<Option<i32>> = sqlx::query_scalar(
        "WITH asked_of AS ( \
             INSERT INTO inbox (slot, pin_id, kind) \
             SELECT slot, pin_id, 'cancel' FROM unnest($1::smallint[], $2::text[]) AS asked (slot, pin_id) \
             ON CONFLICT DO NOTHING RETURNING slot) \
         SELECT DISTINCT slot.node FROM asked_of JOIN slot USING (slot)",
    )
    .bind(&slots)
    .bind(&pins)
    .fetch_all(connection)
    .await?;
    done.hints.extend(holders.into_iter().flatten().map(|holder| format!("inbox:{holder}")));
    Ok(())
}

/// Releases those of these slots that this node holds.
pub async fn release(
    connection: &mut PgConnection,
    node: &Node,
    slots: &Slots,
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    if slots.is_empty() {
        return Ok(());
    }
    sqlx::query("UPDATE slot SET node = NULL, fence = fence + 1 WHERE node = $1 AND slot = ANY($2)")
        .bind(node.id())
        .bind(numbers(slots))
        .execute(connection)
        .await?;
    done.hints.push("slots".into());
    Ok(())
}
