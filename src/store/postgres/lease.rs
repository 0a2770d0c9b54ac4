//! The check that every writing transaction begins with: this node's lease runs.

use sqlx::postgres::PgConnection;

use super::Node;

/// Makes sure that this node's lease runs, and that nobody takes anything from it before the transaction ends; gives
/// the transaction's number, or `None` if it doesn't.
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
