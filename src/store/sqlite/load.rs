//! Reads the PINs in flight once, at the start, for the schedule and for the writer's index of rows.
//!
//! Promises to report a damaged row instead of skipping it. Knows nothing of the schedule.

use sqlx::SqliteConnection;

use super::super::InFlight;
use super::super::rows::{dated, timestamp};
use super::by_hash::{Entry, hash};
use super::pins::Pins;

/// PINs read at once.
const PAGE: u32 = 1024;

/// Passes every PIN in flight to `take`, in the order in which they were accepted. Nobody may write meanwhile.
///
/// # Errors
/// The file can't be read; or, as [`sqlx::Error::Decode`], a row is damaged.
pub async fn load(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(InFlight),
) -> Result<Pins, sqlx::Error> {
    let (mut entries, mut references): (Vec<Entry>, Vec<Entry>) = (Vec::new(), Vec::new());
    let mut last = i64::MIN;
    let mut page = read(connection, last).await?;
    while let Some(before) = page {
        last = before.last;
        // Reads the next page while it processes this one.
        let take_in = async {
            references.extend(before.references()?);
            before.each(|entry, pin| {
                entries.push(entry);
                take(pin);
            })
        };
        let (next, taken) = tokio::join!(biased; read(connection, last), take_in);
        taken.map_err(|what| sqlx::Error::Decode(format!("a PIN in flight is damaged: {what:?}").into()))?;
        page = next?;
    }
    let (entries, references) = (entries.into_iter().collect(), references.into_iter().collect());
    Ok(Pins { entries, references, next: last.max(0) + 1 })
}

/// A page of the PINs in flight as one row, because each row would wake both SQLite's thread and this one. Each column holds the
/// values of all PINs, separated by spaces; only `referring` holds the numbers and references of those that have one.
#[derive(sqlx::FromRow)]
struct Page {
    last: i64,
    numbers: String,
    pins: String,
    hashes: String,
    submitted: String,
    ahead: String,
    deadlines: String,
    referring: String,
}

/// The page after the row with this number; `None` if there is none.
async fn read(connection: &mut SqliteConnection, after: i64) -> Result<Option<Page>, sqlx::Error> {
    sqlx::query_as(
        "SELECT max(number) AS last, group_concat(number, ' ') AS numbers, group_concat(pin_id, ' ') AS pins, \
         group_concat(coalesce(pin_hash, ''), ' ') AS hashes, group_concat(submitted_at, ' ') AS submitted, group_concat(clock_ahead, ' ') AS ahead, \
         group_concat(deadline_at, ' ') AS deadlines, \
         json_group_array(json_array(number, reference)) FILTER (WHERE reference IS NOT NULL) AS referring \
         FROM (SELECT * FROM pin WHERE number > ?1 ORDER BY number LIMIT ?2) HAVING count(*) > 0",
    )
    .bind(after)
    .bind(PAGE)
    .fetch_optional(connection)
    .await
}

impl Page {
    /// The entries of the references; on a damaged row the value that is wrong.
    fn references(&self) -> Result<Vec<Entry>, String> {
        let referring: Vec<(i64, String)> =
            serde_json::from_str(&self.referring).map_err(|error| error.to_string())?;
        let entry = |(row, reference): &(i64, String)| {
            Entry::of_file(hash(reference), *row).ok_or_else(|| row.to_string())
        };
        referring.iter().map(entry).collect()
    }

    /// Passes each PIN of the page to `give`; on a damaged row returns the value that is wrong.
    fn each(&self, mut give: impl FnMut(Entry, InFlight)) -> Result<(), String> {
        let (mut numbers, mut hashes) = (fields(&self.numbers), fields(&self.hashes));
        let (mut submitted, mut ahead) = (fields(&self.submitted), fields(&self.ahead));
        let mut deadlines = fields(&self.deadlines);
        for id in fields(&self.pins) {
            let pin = id.parse().map_err(|_| id)?;
            let hash = hash(id);
            let stored = hashes.next().ok_or(id)?;
            if !stored.is_empty() && number(stored)? != hash {
                return Err(id.to_owned());
            }
            let row = number(numbers.next().ok_or(id)?)?;
            let submitted_at = dated(number(submitted.next().ok_or(id)?)?, number(ahead.next().ok_or(id)?)?);
            let deadline_at = timestamp(number(deadlines.next().ok_or(id)?)?);
            let entry = Entry::of_file(hash, row).ok_or_else(|| row.to_string())?;
            give(entry, InFlight { pin, submitted_at, deadline_at });
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| text.to_owned())
}

/// The values of a column of the page, in order.
fn fields(column: &str) -> impl Iterator<Item = &str> {
    let mut begin = 0;
    memchr::memchr_iter(b' ', column.as_bytes()).chain([column.len()]).map(move |end| {
        let field = column.get(begin..end).unwrap_or_default();
        begin = end + 1;
        field
    })
}
