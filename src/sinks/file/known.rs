//! Recognises pinwatch's own lines in a file by comparing them with the store.
//!
//! Promises to recognise a line only if the store has the same record. Must not know how files are written.

use crate::store::{Outcome, Record, Store, Unavailable};

use super::end::LINE_START;

/// A beginning of this many bytes contains the record's `id`, which no other record has.
const WITH_ID: usize = 80;

/// The `seq` of a line that the store has byte for byte. Any other line is from elsewhere, and its `seq` would mislead.
///
/// # Errors
/// The store can't be read now.
pub async fn seq_of(store: &Store, line: Option<&[u8]>) -> Result<Option<i64>, Unavailable> {
    let Some((line, seq)) = line.and_then(|line| Some((line, seq_in(line)?))) else { return Ok(None) };
    // A line from an older version may have white space that records no longer have.
    let Ok(written) = std::str::from_utf8(line).map(Record::from) else { return Ok(None) };
    let known = first_from(store, seq).await?;
    Ok(known.filter(|known| known.seq == seq && known.record == written).map(|known| known.seq))
}

/// Whether these bytes are the beginning of a record of this store, and long enough to fit no other; or, at any length, the
/// beginning of the record after `next_after`.
///
/// # Errors
/// The store can't be read now.
pub async fn begins_a_record(
    store: &Store,
    half: &[u8],
    next_after: Option<i64>,
) -> Result<bool, Unavailable> {
    if let Some(seq) = next_after
        && begins_the_next(store, seq, half).await?
    {
        return Ok(true);
    }
    Ok(seq_before(store, half).await?.is_some())
}

/// The `seq` just below that of the record that these bytes begin, if they are long enough to fit no other record.
///
/// # Errors
/// The store can't be read now.
pub async fn seq_before(store: &Store, half: &[u8]) -> Result<Option<i64>, Unavailable> {
    let Some(seq) = seq_in(half).filter(|_| half.len() >= WITH_ID) else { return Ok(None) };
    let before = seq.saturating_sub(1);
    Ok(begins_the_next(store, before, half).await?.then_some(before))
}

/// Whether these bytes are the beginning of the record after this `seq`.
///
/// # Errors
/// The store can't be read now.
pub async fn begins_the_next(store: &Store, seq: i64, half: &[u8]) -> Result<bool, Unavailable> {
    let next = first_from(store, seq.saturating_add(1)).await?;
    Ok(next.is_some_and(|next| next.record.as_bytes().starts_with(half)))
}

async fn first_from(store: &Store, seq: i64) -> Result<Option<Outcome>, Unavailable> {
    Ok(store.outcomes_after(seq.saturating_sub(1), 1).await?.into_iter().next())
}

/// The `seq` that a record begins with.
fn seq_in(line: &[u8]) -> Option<i64> {
    let rest = line.strip_prefix(LINE_START)?;
    let digits = &rest[..rest.iter().position(|byte| *byte == b',')?];
    std::str::from_utf8(digits).ok()?.parse().ok()
}
