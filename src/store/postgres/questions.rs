//! What only several nodes ask: of slots, of other nodes' PINs and outcomes, and the hints between them.

use sqlx::Row;
use sqlx::postgres::{PgListener, PgPool, PgRow};

use super::super::{InFlight, Outcome, Unavailable};
use super::Node;
use super::connect::answer;
use super::membership::{LOOK, NodeRow, node_row};
use super::page::{in_flight, outcome};
use super::write::CHANNEL;
use crate::pin::PinId;
use crate::slot::{Slots, slot_of};

/// Asks the database what a single node has no use for. Cheap to clone.
#[derive(Clone)]
pub struct Questions {
    pub(super) readers: PgPool,
    pub(super) node: Node,
}

/// PINs that are loaded at once.
const LOAD_PAGE: i64 = 4096;

impl Questions {
    /// Some PINs in flight of these slots after one, by slot and ID; none where there are no more.
    pub async fn in_flight_of(
        &self,
        slots: &Slots,
        after: Option<&PinId>,
    ) -> Result<Vec<InFlight>, Unavailable> {
        let slots: Vec<i16> = slots.iter().map(i16::from).collect();
        let (slot, pin) = after.map_or((-1, ""), |pin| (i16::from(slot_of(pin)), pin.as_str()));
        let rows = sqlx::query(
            "SELECT pin_id, submitted_at, deadline_at FROM pin \
             WHERE (slot, pin_id) > ($2, $3) AND slot = ANY($1) ORDER BY slot, pin_id LIMIT $4",
        )
        .bind(slots)
        .bind(slot)
        .bind(pin)
        .bind(LOAD_PAGE)
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        Ok(rows.iter().map(in_flight).collect::<Result<_, _>>()?)
    }

    /// What became of these PINs, all at one moment, in their order: whether it is in flight, and else its newest
    /// outcome, if there is one.
    pub async fn fates(&self, pins: &[PinId]) -> Result<Vec<(bool, Option<Outcome>)>, Unavailable> {
        let (slots, ids): (Vec<i16>, Vec<&str>) =
            pins.iter().map(|pin| (i16::from(slot_of(pin)), pin.as_str())).unzip();
        let rows = sqlx::query(
            "SELECT newest.seq, asked.pin_id, newest.record, pin.pin_id IS NOT NULL \
             FROM unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS asked (slot, pin_id, place) \
             LEFT JOIN pin ON pin.slot = asked.slot AND pin.pin_id = asked.pin_id \
             LEFT JOIN LATERAL (SELECT seq, record FROM outcome \
                 WHERE outcome.pin_id = asked.pin_id AND pin.pin_id IS NULL ORDER BY seq DESC LIMIT 1) AS newest ON true \
             ORDER BY asked.place",
        )
        .bind(slots)
        .bind(ids)
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        let fate = |row: &PgRow| {
            let seq: Option<i64> = row.try_get(0)?;
            Ok((row.try_get(3)?, seq.map(|_| outcome(row)).transpose()?))
        };
        Ok(rows.iter().map(fate).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Every node that ever was, and what each holds, at one moment.
    pub async fn look(&self) -> Result<Vec<NodeRow>, Unavailable> {
        let rows = answer(sqlx::query(LOOK).fetch_all(&self.readers)).await?;
        Ok(rows.iter().map(node_row).collect::<Result<_, _>>()?)
    }

    /// Where each node's part of the outbox stands at or before `seq`: the node's number and a `seq` of its own.
    pub async fn positions(&self, seq: i64) -> Result<Vec<(i32, i64)>, Unavailable> {
        Ok(sqlx::query_as(
            "SELECT id, coalesce((SELECT max(seq) FROM outcome WHERE lane = node.id AND seq <= $1), 0) FROM node",
        )
        .bind(seq)
        .fetch_all(&self.readers)
        .await?)
    }

    /// The `seq` before the newest `count` outcomes of all nodes; the newest there is for none.
    pub async fn seq_before_last(&self, count: u32) -> Result<i64, Unavailable> {
        let seq: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM outcome ORDER BY seq DESC LIMIT 1 OFFSET $1")
                .bind(i64::from(count))
                .fetch_optional(&self.readers)
                .await?;
        Ok(seq.unwrap_or(0))
    }

    /// At most `limit` outcomes of all nodes behind these positions, in the order of `seq`, with the node of each;
    /// those of a node that has no position here behind `others`.
    pub async fn outcomes_after(
        &self,
        positions: &[(i32, i64)],
        others: i64,
        limit: u32,
    ) -> Result<Vec<(i32, Outcome)>, Unavailable> {
        let (nodes, seqs): (Vec<i32>, Vec<i64>) = positions.iter().copied().unzip();
        let rows = sqlx::query(
            "SELECT next.seq, next.pin_id, next.record, node.id FROM node \
             LEFT JOIN unnest($1::integer[], $2::bigint[]) AS place (node, seq) ON place.node = node.id \
             CROSS JOIN LATERAL (SELECT seq, pin_id, record FROM outcome \
                 WHERE outcome.lane = node.id AND outcome.seq > coalesce(place.seq, $3) ORDER BY seq LIMIT $4) AS next \
             ORDER BY next.seq LIMIT $4",
        )
        .bind(nodes)
        .bind(seqs)
        .bind(others)
        .bind(i64::from(limit))
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        let both = |row: &PgRow| Ok((row.try_get(3)?, outcome(row)?));
        Ok(rows.iter().map(both).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Hears the hints of all nodes.
    pub async fn listen(&self) -> Result<Hints, Unavailable> {
        let mut listener = PgListener::connect_with(&self.readers).await?;
        listener.listen(CHANNEL).await?;
        Ok(Hints { listener, node: self.node.clone() })
    }
}

/// Hints that other nodes, and this one, give.
pub struct Hints {
    listener: PgListener,
    node: Node,
}

/// Why it may be worth looking earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Slots were given back.
    Slots,
    /// Something was left for this node.
    Inbox,
    /// A PIN ended somewhere.
    Outcome,
    /// The connection was lost for a while: any of these may have been missed.
    Lost,
}

impl Hints {
    /// The next hint.
    ///
    /// # Errors
    /// The database can't be reached; the next call tries to.
    pub async fn next(&mut self) -> Result<Hint, Unavailable> {
        loop {
            let Some(notification) = self.listener.try_recv().await? else { return Ok(Hint::Lost) };
            match notification.payload() {
                "slots" => return Ok(Hint::Slots),
                "outcome" => return Ok(Hint::Outcome),
                // Another node's.
                other => {
                    let holder = other.strip_prefix("inbox:").and_then(|id| id.parse::<i32>().ok());
                    if holder == Some(self.node.id()) {
                        return Ok(Hint::Inbox);
                    }
                }
            }
        }
    }
}
