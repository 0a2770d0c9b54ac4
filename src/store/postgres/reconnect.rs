//! What the writer has to settle on a new connection before it writes.
//!
//! Promises that no earlier transaction of this node is open, that no `seq` is assigned twice, and that the result of
//! an uncertain commit is known. The server may be another one than before, such as a standby without the last commits.
//! Knows nothing of what the transactions contain.

use sqlx::postgres::PgConnection;

use super::super::Applied;
use super::Node;
use super::connect::{ANSWER_TIMEOUT, within};

/// Waits until an earlier connection's transaction has ended; while open, it locks the node's row. If it committed
/// later, its outcomes would come into the partition before outcomes that are already there, and cursors would have
/// skipped them.
pub async fn wait_until_alone(connection: &mut PgConnection, node: &Node) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1 FROM node WHERE id = $1 FOR UPDATE").bind(node.id()).execute(connection).await?;
    Ok(())
}

/// Numbers drawn by one statement. It bounds the statement if the server was restored to a state a day old.
const DRAWN_AT_ONCE: i64 = 1_000_000;

/// Makes sure that no `seq` up to this one is assigned again. Sinks and tails of this partition may have seen it, so
/// they would skip the new outcome. A standby may not have received that these numbers were used.
pub async fn pass_numbers(connection: &mut PgConnection, last_seq: i64) -> Result<(), sqlx::Error> {
    loop {
        // Draws the numbers. Setting the sequence could set it back behind what another node has drawn.
        let drawn = sqlx::query_scalar(
            "SELECT count(nextval('outcome_seq')) FROM generate_series(1, least($2, \
                 $1 - (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outcome_seq)))",
        )
        .bind(last_seq)
        .bind(DRAWN_AT_ONCE)
        .fetch_one(&mut *connection);
        let drawn: i64 = within(ANSWER_TIMEOUT, drawn).await?;
        if drawn < DRAWN_AT_ONCE {
            return Ok(());
        }
    }
}

/// Whether a transaction of this node, whose commit had an unknown result, was committed.
pub async fn is_committed(
    connection: &mut PgConnection,
    node: &Node,
    number: i64,
    applied: &Applied,
) -> Result<bool, sqlx::Error> {
    let status = sqlx::query_scalar("SELECT txid_status($1)").bind(number).fetch_one(&mut *connection).await;
    let status: Option<String> = match status {
        Ok(status) => status,
        Err(error) if is_of_the_future(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    if status.as_deref() != Some("committed") {
        return Ok(false);
    }
    // On another server this number can belong to another transaction, so an outcome must be there too. A transaction
    // that only accepted PINs is believed: if the PINs are not there, writing their verdicts will find nothing.
    let Some(last) = applied.finished.last() else { return Ok(true) };
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outcome WHERE lane = $1 AND seq = $2)")
        .bind(node.id())
        .bind(last.seq)
        .fetch_one(connection)
        .await
}

/// Whether the server has not assigned this number to any transaction yet: it is a former standby that lacks the
/// transaction.
fn is_of_the_future(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "22023")
}
