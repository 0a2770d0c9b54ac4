//! The queries that only a cluster needs (slots, other nodes, the state of any PIN), and the hints between nodes.
//!
//! Promises that each answer is from one moment. A hint can be lost, so it only makes a node look earlier. Does not know
//! what nodes do with the answers.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::{PgListener, PgPool, PgRow};

use super::super::{InFlight, Outcome, PinState, Record, Unavailable};
use super::Node;
use super::columns::keys;
use super::connect::answer;
use super::done::CHANNEL;
use super::view::View;
use crate::pin::PinId;
use crate::slot::{Slots, slot_of};

/// What client requests ask about the nodes and their PINs.
#[async_trait]
pub trait Shared: Send + Sync + 'static {
    /// All nodes and their slots at one moment.
    async fn look(&self) -> Result<View, Unavailable>;

    /// The state of each of these PINs, in their order, all at one moment.
    async fn pin_states(&self, pins: &[PinId]) -> Result<Vec<PinState>, Unavailable>;
}

/// Queries that a single node does not need. Cheap to clone.
#[derive(Clone)]
pub struct Questions {
    pub(super) readers: PgPool,
    pub(super) node: Node,
}

/// PINs loaded at once.
const LOAD_PAGE: i64 = 4096;

impl Questions {
    /// PINs in flight of these slots after one PIN, by slot and ID; an empty page if there are no more.
    pub async fn in_flight_of(
        &self,
        slots: &Slots,
        after: Option<&PinId>,
    ) -> Result<Vec<InFlight>, Unavailable> {
        let (slot, pin) = after.map_or((-1, ""), |pin| (i16::from(slot_of(pin)), pin.as_str()));
        let later: Vec<i16> = slots.iter().map(i16::from).filter(|later| *later > slot).collect();
        // Reads the rest of the current slot and the later slots as separate ranges of the index. With
        // "(slot, pin_id) > …" each page would read everything before it again.
        let pins = sqlx::query_as(
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
        answer(pins).await
    }

    /// Starts to receive the hints of all nodes.
    pub async fn listen(&self) -> Result<Hints, Unavailable> {
        let listener = answer(async {
            let mut listener = PgListener::connect_with(&self.readers).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        });
        Ok(Hints { listener: listener.await?, node: self.node.clone() })
    }
}

#[async_trait]
impl Shared for Questions {
    async fn look(&self) -> Result<View, Unavailable> {
        answer(View::read(&self.readers)).await
    }

    async fn pin_states(&self, pins: &[PinId]) -> Result<Vec<PinState>, Unavailable> {
        let (slots, ids) = keys(pins);
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
        let state = |(row, pin): (&PgRow, &PinId)| {
            let seq: Option<i64> = row.try_get(1)?;
            Ok(match (row.try_get(0)?, seq) {
                (true, _) => PinState::InFlight,
                (false, None) => PinState::Unknown,
                (false, Some(seq)) => {
                    let record: &str = row.try_get(2)?;
                    PinState::Finished(Outcome { seq, pin: pin.clone(), record: Record::from(record) })
                }
            })
        };
        Ok(rows.iter().zip(pins).map(state).collect::<Result<_, sqlx::Error>>()?)
    }
}

/// The hints of all nodes, including this one.
pub struct Hints {
    listener: PgListener,
    node: Node,
}

/// Why a node should check now instead of later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A node released slots.
    Slots,
    /// Another node left something for this node.
    Inbox,
    /// A PIN ended on some node.
    Outcome,
    /// The connection was lost for a while, so any hint may have been missed.
    Lost,
}

impl Hints {
    /// The next hint.
    ///
    /// # Errors
    /// The database can't be reached; the next call tries again.
    pub async fn next(&mut self) -> Result<Hint, Unavailable> {
        loop {
            let Some(notification) = self.listener.try_recv().await? else { return Ok(Hint::Lost) };
            match notification.payload() {
                "slots" => return Ok(Hint::Slots),
                "outcome" => return Ok(Hint::Outcome),
                // A hint for the inbox of one node.
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
