//! Accepts PINs.
//!
//! Promises that a PIN is in flight at most once in the whole database. Does not know which node should hold which
//! slot.

use std::collections::{HashMap, HashSet};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::super::{InFlight, NewPin, Record, SMALL_RECORD, Submitted};
use super::Node;
use super::columns::{column, keys, sorted_keys, storable};
use super::done::Done;
use crate::slot::{slot_of, slot_of_text};

/// Accepts PINs while there is room. If a PIN occurs twice, its submits are handled in their order: the submits are
/// split into runs without repetition.
pub async fn submit(
    connection: &mut PgConnection,
    node: &Node,
    submits: &[NewPin],
    mut room: usize,
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    let mut rest = submits;
    while !rest.is_empty() {
        let mut seen = HashSet::with_capacity(rest.len());
        let end = rest.iter().position(|new| !seen.insert(&new.pin)).unwrap_or(rest.len());
        let (run, later) = rest.split_at(end);
        let accepted = submit_distinct(connection, node, run, room, done).await?;
        room = room.saturating_sub(accepted);
        rest = later;
    }
    Ok(())
}

/// Accepts PINs that are all different; returns how many were accepted.
async fn submit_distinct(
    connection: &mut PgConnection,
    node: &Node,
    submits: &[NewPin],
    room: usize,
    done: &mut Done,
) -> Result<usize, sqlx::Error> {
    let excess = if submits.len() > room { excess(connection, submits, room).await? } else { HashSet::new() };
    let candidates: Vec<&NewPin> = submits.iter().filter(|new| !excess.contains(new.pin.as_str())).collect();
    let mut inserted = insert(connection, &candidates).await?;
    // Only now: an insert waits for another node's transaction that finishes the same PIN, and a statement that began
    // earlier would not see the outcome which that transaction wrote.
    let fresh = candidates.iter().filter(|new| !new.again && inserted.contains_key(new.pin.as_str()));
    let fresh: Vec<&str> = fresh.map(|new| new.pin.as_str()).collect();
    let mut finished = finished_before(connection, &fresh).await?;
    if !finished.is_empty() {
        take_back(connection, &finished).await?;
        inserted.retain(|pin, _| !finished.contains_key(pin));
    }
    let elsewhere: Vec<(&NewPin, Option<i32>)> = candidates
        .iter()
        .filter_map(|new| Some((*new, *inserted.get(new.pin.as_str())?)))
        .filter(|(_, holder)| *holder != Some(node.id()))
        .collect();
    notify_holders(connection, &elsewhere, done).await?;

    let mut accepted = 0;
    for new in submits {
        let NewPin { pin, submitted_at, deadline_at, .. } = new;
        let id = pin.as_str();
        done.applied.submitted.push(if let Some(record) = finished.remove(id) {
            Submitted::Finished(record)
        } else if let Some(holder) = inserted.get(id) {
            accepted += 1;
            if *holder == Some(node.id()) {
                let (submitted_at, deadline_at) = (*submitted_at, *deadline_at);
                done.applied.accepted.push(InFlight { pin: pin.clone(), submitted_at, deadline_at });
            }
            Submitted::Accepted
        } else if excess.contains(id) {
            Submitted::AtCapacity
        } else {
            Submitted::Duplicate
        });
    }
    Ok(accepted)
}

/// The new PINs for which there is no room. Only called if room is short.
async fn excess(
    connection: &mut PgConnection,
    submits: &[NewPin],
    room: usize,
) -> Result<HashSet<String>, sqlx::Error> {
    let (slots, pins) = keys(submits.iter().map(|new| &new.pin));
    let known: Vec<String> = sqlx::query_scalar(
        "SELECT asked.pin_id FROM unnest($1::smallint[], $2::text[], $3::boolean[]) AS asked (slot, pin_id, again) \
         WHERE EXISTS (SELECT 1 FROM pin WHERE pin.slot = asked.slot AND pin.pin_id = asked.pin_id) \
            OR (NOT asked.again AND EXISTS (SELECT 1 FROM outcome WHERE outcome.pin_id = asked.pin_id))",
    )
    .bind(&slots)
    .bind(&pins)
    .bind(column(submits, |new| new.again))
    .fetch_all(connection)
    .await?;
    let known: HashSet<String> = known.into_iter().collect();
    let new = submits.iter().map(|new| new.pin.as_str()).filter(|pin| !known.contains(*pin));
    Ok(new.skip(room).map(str::to_owned).collect())
}

/// Inserts the PINs that are not in flight yet; returns them with the holders of their slots.
async fn insert(
    connection: &mut PgConnection,
    submits: &[&NewPin],
) -> Result<HashMap<String, Option<i32>>, sqlx::Error> {
    if submits.is_empty() {
        return Ok(HashMap::new());
    }
    // Every node inserts in the same order, so that no two wait for each other.
    let mut rows: Vec<(i16, &NewPin)> = column(submits, |new| (i16::from(slot_of(&new.pin)), *new));
    rows.sort_unstable_by_key(|(slot, new)| (*slot, new.pin.as_str()));
    let inserted: Vec<(String, Option<i32>)> = sqlx::query_as(
        "WITH inserted AS ( \
             INSERT INTO pin (slot, pin_id, submitted_at, clock_ahead, deadline_at, reference, metadata, submitter) \
             SELECT * FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], \
                 $7::text[], $8::text[]) \
             ON CONFLICT DO NOTHING RETURNING slot, pin_id) \
         SELECT inserted.pin_id, slot.node FROM inserted JOIN slot USING (slot)",
    )
    .bind(column(&rows, |(slot, _)| *slot))
    .bind(column(&rows, |(_, new)| new.pin.as_str()))
    .bind(column(&rows, |(_, new)| new.submitted_at.wall.as_millisecond()))
    .bind(column(&rows, |(_, new)| new.submitted_at.ahead()))
    .bind(column(&rows, |(_, new)| new.deadline_at.as_millisecond()))
    .bind(column(&rows, |(_, new)| new.reference.as_deref().map(storable)))
    .bind(column(&rows, |(_, new)| new.metadata.as_ref().map(|metadata| metadata.get())))
    .bind(column(&rows, |(_, new)| new.submitter.as_deref()))
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Those of these PINs that have an outcome, each with the newest record, or `None` if that is large
/// ([`SMALL_RECORD`]).
async fn finished_before(
    connection: &mut PgConnection,
    pins: &[&str],
) -> Result<HashMap<String, Option<Record>>, sqlx::Error> {
    if pins.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT asked.pin_id, CASE WHEN octet_length(newest.record) <= $2 THEN newest.record END \
         FROM unnest($1::text[]) AS asked (pin_id) CROSS JOIN LATERAL \
         (SELECT record FROM outcome WHERE outcome.pin_id = asked.pin_id ORDER BY seq DESC LIMIT 1) AS newest",
    )
    .bind(pins)
    .bind(SMALL_RECORD as i64)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get::<Option<&str>, _>(1)?.map(Record::from))))
        .collect()
}

/// Removes PINs that were inserted although they have an outcome.
async fn take_back(
    connection: &mut PgConnection,
    finished: &HashMap<String, Option<Record>>,
) -> Result<(), sqlx::Error> {
    let pins: Vec<&str> = finished.keys().map(String::as_str).collect();
    let slots = column(&pins, |pin| i16::from(slot_of_text(pin)));
    sqlx::query(
        "DELETE FROM pin USING unnest($1::smallint[], $2::text[]) AS asked (slot, pin_id) \
         WHERE pin.slot = asked.slot AND pin.pin_id = asked.pin_id",
    )
    .bind(&slots)
    .bind(&pins)
    .execute(connection)
    .await?;
    Ok(())
}

/// Leaves these PINs for the holders of their slots; if a slot has no holder, for its next one.
async fn notify_holders(
    connection: &mut PgConnection,
    elsewhere: &[(&NewPin, Option<i32>)],
    done: &mut Done,
) -> Result<(), sqlx::Error> {
    if elsewhere.is_empty() {
        return Ok(());
    }
    let (slots, pins) = sorted_keys(elsewhere.iter().map(|(new, _)| &new.pin));
    sqlx::query(
        "INSERT INTO inbox (slot, pin_id, kind) \
         SELECT slot, pin_id, 'submit' FROM unnest($1::smallint[], $2::text[]) AS asked (slot, pin_id) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&slots)
    .bind(&pins)
    .execute(connection)
    .await?;
    let holders: HashSet<i32> = elsewhere.iter().filter_map(|(_, holder)| *holder).collect();
    done.hints.extend(holders.into_iter().map(|holder| format!("inbox:{holder}")));
    Ok(())
}
