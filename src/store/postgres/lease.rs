//! The check that every writing transaction begins with: this node's lease runs.

use sqlx::postgres::PgConnection;

use super::Node;

/// Checks that this node's lease runs, and locks it so that no other node takes anything before the transaction ends.
/// Returns the number of the transaction; `None` if the lease is over.
pub async fn lock_lease(connection: &mut PgConnection, node: &Node) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT txid_current() FROM node WHERE id = $1 AND fence = $2 AND lease_until > clock_timestamp() \
         FOR KEY SHARE",
    )
    .bind(node.id())
    .bind(node.fence())
    .fetch_optional(connection)
    .await
}
