//! What became of PINs, and who is there: asked at any node, of all nodes.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::super::{Outcome, Record, Unavailable};
use super::connect::answer;
use super::membership::{LOOK, NodeRow, node_row};
use super::questions::Questions;
use crate::cluster::Fate;
use crate::pin::PinId;
use crate::slot::slot_of;

impl Questions {
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

    /// Every node that ever was, and what each holds, at one moment.
    pub async fn look(&self) -> Result<Vec<NodeRow>, Unavailable> {
        let rows = sqlx::query(LOOK).fetch_all(&self.readers);
        let rows = answer(rows).await?;
        Ok(rows.iter().map(node_row).collect::<Result<_, _>>()?)
    }
}
