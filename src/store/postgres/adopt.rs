//! Takes over what a dead node did not deliver.
//!
//! Promises that no outcome is lost or taken over by two nodes. Does not know which node should adopt what.

use sqlx::postgres::PgConnection;

use super::super::Orphan;
use super::Node;

/// Outcomes taken over at once. It bounds the transaction.
const ADOPT_AT_ONCE: i64 = 5000;

/// Takes over the next part of a dead node's partition for one sink, as deliveries that this node tries. Returns how
/// many outcomes that was; 0 if none is left, if the node is alive, or if another node holds its row. Advances the dead
/// node's cursor, so that it continues after these outcomes if it comes back.
pub async fn adopt(connection: &mut PgConnection, node: &Node, orphan: &Orphan) -> Result<u64, sqlx::Error> {
    let Orphan { node: dead, sink } = orphan;
    let locked = sqlx::query(
        "SELECT 1 FROM node WHERE id = $1 AND id <> $2 AND lease_until <= clock_timestamp() FOR UPDATE SKIP LOCKED",
    )
    .bind(dead)
    .bind(node.id())
    .fetch_optional(&mut *connection)
    .await?;
    if locked.is_none() {
        return Ok(0);
    }
    let (count, last): (i64, Option<i64>) = sqlx::query_as(
        "WITH late AS MATERIALIZED ( \
             SELECT seq FROM outcome WHERE lane = $1 \
               AND seq > (SELECT cursor FROM cursor WHERE lane = $1 AND sink = $2) ORDER BY seq LIMIT $4), \
         taken AS ( \
             INSERT INTO delivery (sink, seq, lane, dead, tries) SELECT $2, seq, $3, false, 0 FROM late \
             ON CONFLICT (sink, seq) DO UPDATE SET lane = excluded.lane WHERE NOT delivery.dead) \
         SELECT count(*), max(seq) FROM late",
    )
    .bind(dead)
    .bind(sink)
    .bind(node.id())
    .bind(ADOPT_AT_ONCE)
    .fetch_one(&mut *connection)
    .await?;
    if let Some(last) = last {
        sqlx::query("UPDATE cursor SET cursor = $3 WHERE lane = $1 AND sink = $2")
            .bind(dead)
            .bind(sink)
            .bind(last)
            .execute(&mut *connection)
            .await?;
    }
    let moved = sqlx::query(
        "UPDATE delivery SET lane = $3 WHERE sink = $2 AND seq IN ( \
             SELECT seq FROM delivery WHERE lane = $1 AND sink = $2 AND NOT dead ORDER BY seq LIMIT $4)",
    )
    .bind(dead)
    .bind(sink)
    .bind(node.id())
    .bind(ADOPT_AT_ONCE)
    .execute(connection)
    .await?;
    Ok(u64::try_from(count).unwrap_or(0) + moved.rows_affected())
}
