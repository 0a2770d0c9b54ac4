//! What a new connection of the writer has to find out before it writes: the old one may have left a transaction, and
//! the server may be another one than before, which lacks the last that the old one had committed.

use sqlx::postgres::PgConnection;

use super::super::Applied;
use super::Node;
use super::connect::{ANSWER_PATIENCE, within};

/// Waits for an earlier connection's transaction, which holds the node's row as long as it is open. Were it to commit
/// later, its outcomes would come into the lane before others that are there already, and cursors would have stepped
/// over them.
pub async fn wait_until_alone(connection: &mut PgConnection, node: &Node) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1 FROM node WHERE id = $1 FOR UPDATE").bind(node.id()).execute(connection).await?;
    Ok(())
}

/// Numbers that are drawn at once: bounds the statement, where the server is one that was set back by a day.
const DRAWN_AT_ONCE: i64 = 1_000_000;

/// Makes sure that no `seq` up to this one, which sinks and tails of this lane may have seen, is given to another
/// outcome: they would step over it. A standby may not have heard that they were given away.
pub async fn pass_numbers(connection: &mut PgConnection, last_seq: i64) -> Result<(), sqlx::Error> {
    loop {
        // By drawing them: setting the sequence could set it back behind another node.
        let drawn = sqlx::query_scalar(
            "SELECT count(nextval('outcome_seq')) FROM generate_series(1, least($2, \
                 $1 - (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outcome_seq)))",
        )
        .bind(last_seq)
        .bind(DRAWN_AT_ONCE)
        .fetch_one(&mut *connection);
        let drawn: i64 = within(ANSWER_PATIENCE, drawn).await?;
        if drawn < DRAWN_AT_ONCE {
            return Ok(());
        }
    }
}

/// Whether a transaction of this node, of which all but the end is known, is there.
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
    // The number may be another transaction's on this server. One that only took PINs in is believed: if they are not
    // there, nothing is found when their verdicts are written.
    let Some(last) = applied.finished.last() else { return Ok(true) };
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outcome WHERE lane = $1 AND seq = $2)")
        .bind(node.id())
        .bind(last.seq)
        .fetch_one(connection)
        .await
}

/// The server has not given this number to any transaction yet: it is a standby's that lacks it.
fn is_of_the_future(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "22023")
}
