//! What only several nodes ask: of slots, of other nodes' PINs and outcomes, and the hints between them.

use sqlx::Row;
use sqlx::postgres::{PgListener, PgPool, PgRow};

use super::super::{Fate, InFlight, Outcome, Record, Unavailable};
use super::Node;
use super::connect::answer;
use super::done::CHANNEL;
use super::page::{in_flight, outcome};
use super::view::View;
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
        let (slot, pin) = after.map_or((-1, ""), |pin| (i16::from(slot_of(pin)), pin.as_str()));
        let later: Vec<i16> = slots.iter().map(i16::from).filter(|later| *later > slot).collect();
        // The slot that was begun, and those behind it, each by its own range of the index: "(slot, pin_id) > …" of
        // these slots would read all before it once more for each page.
        let rows = sqlx::query(
            "SELECT pin_id, submitted_at, deadline_at, clock_ahead FROM ( \
                 (SELECT slot, pin_id, submitted_at, deadline_at, clock_ahead FROM pin WHERE slot = $2 AND pin_id > $3 \
                  ORDER BY slot, pin_id LIMIT $4) \
                 UNION ALL \
                 (SELECT slot, pin_id, submitted_at, deadline_at, clock_ahead FROM pin WHERE slot = ANY($1) \
                  ORDER BY slot, pin_id LIMIT $4)) AS next \
             ORDER BY slot, pin_id LIMIT $4",
        )
        .bind(later)
        .bind(slot)
        .bind(pin)
        .bind(LOAD_PAGE)
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        Ok(rows.iter().map(in_flight).collect::<Result<_, _>>()?)
    }

    /// Those of these PINs that are in flight nowhere and have an outcome: the newest of each.
    pub async fn outcomes_of(&self, pins: &[PinId]) -> Result<Vec<Outcome>, Unavailable> {
        let (slots, pins): (Vec<i16>, Vec<&str>) =
            pins.iter().map(|pin| (i16::from(slot_of(pin)), pin.as_str())).unzip();
        let rows = sqlx::query(
            "SELECT newest.seq, asked.pin_id, newest.record \
             FROM unnest($1::smallint[], $2::text[]) AS asked (slot, pin_id) CROSS JOIN LATERAL \
             (SELECT seq, record FROM outcome WHERE outcome.pin_id = asked.pin_id ORDER BY seq DESC LIMIT 1) AS newest \
             WHERE NOT EXISTS (SELECT 1 FROM pin WHERE pin.slot = asked.slot AND pin.pin_id = asked.pin_id)",
        )
        .bind(slots)
        .bind(pins)
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        Ok(rows.iter().map(outcome).collect::<Result<_, _>>()?)
    }

    /// The name of the node that holds each slot; `None` where nobody does.
    pub async fn holders(&self) -> Result<Vec<Option<String>>, Unavailable> {
        let sql = "SELECT node.name FROM slot LEFT JOIN node ON node.id = slot.node ORDER BY slot.slot";
        answer(sqlx::query_scalar(sql).fetch_all(&self.readers)).await
    }

    /// What became of each of these PINs, all at one moment, in their order.
    pub async fn fates(&self, pins: &[PinId]) -> Result<Vec<Fate>, Unavailable> {
        let (slots, ids): (Vec<i16>, Vec<&str>) =
            pins.iter().map(|pin| (i16::from(slot_of(pin)), pin.as_str())).unzip();
        let rows = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM pin WHERE pin.slot = asked.slot AND pin.pin_id = asked.pin_id), \
                 newest.seq, newest.record \
             FROM unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS asked (slot, pin_id, place) \
             LEFT JOIN LATERAL (SELECT seq, record FROM outcome WHERE outcome.pin_id = asked.pin_id \
                                ORDER BY seq DESC LIMIT 1) AS newest ON true \
             ORDER BY asked.place",
        )
        .bind(slots)
        .bind(ids)
        .fetch_all(&self.readers);
        let rows = answer(rows).await?;
        let fate = |(row, pin): (&PgRow, &PinId)| {
            let seq: Option<i64> = row.try_get(1)?;
            Ok(match (row.try_get(0)?, seq) {
                (true, _) => Fate::InFlight,
                (false, None) => Fate::Unknown,
                (false, Some(seq)) => {
                    let record: &str = row.try_get(2)?;
                    Fate::Finished(Outcome { seq, pin: pin.clone(), record: Record::from(record) })
                }
            })
        };
        Ok(rows.iter().zip(pins).map(fate).collect::<Result<_, sqlx::Error>>()?)
    }

    /// All nodes and what each holds, at one moment.
    pub async fn look(&self) -> Result<View, Unavailable> {
        answer(View::read(&self.readers)).await
    }

    /// Hears the hints of all nodes.
    pub async fn listen(&self) -> Result<Hints, Unavailable> {
        let listener = answer(async {
            let mut listener = PgListener::connect_with(&self.readers).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        });
        Ok(Hints { listener: listener.await?, node: self.node.clone() })
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
