//! Statements over many rows, with a parameter for each value.
//!
//! Promises that each statement is prepared only once per size, in a few sizes. Each statement, and each row of a
//! result, costs a switch to SQLite's thread and back; so changes are written in hundreds, and results are read as one
//! row of JSON. Knows nothing of tables.

use std::array;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

/// The numbers of rows that a statement can have. With fewer rows the remaining parameters are NULL.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

const LARGEST: usize = SIZES[SIZES.len() - 1];

/// A statement that repeats one part of itself for each row.
pub struct Many {
    before: &'static str,
    row: &'static str,
    after: &'static str,
    texts: OnceLock<[Arc<str>; SIZES.len()]>,
}

impl Many {
    /// Repeats `row` between the other two parts. It must have no effect if its parameters are NULL.
    pub const fn new(before: &'static str, row: &'static str, after: &'static str) -> Self {
        Self { before, row, after, texts: OnceLock::new() }
    }

    fn text(&self, rows: usize) -> AssertSqlSafe<Arc<str>> {
        let texts = self.texts.get_or_init(|| {
            array::from_fn(|at| {
                [self.before, &vec![self.row; SIZES[at]].join(","), self.after].concat().into()
            })
        });
        let size = SIZES.iter().position(|size| *size >= rows).unwrap_or(SIZES.len() - 1);
        // The text consists of three constants.
        AssertSqlSafe(texts[size].clone())
    }

    /// Executes the statement for all rows; `bind` binds the values of each.
    pub async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl for<'q> Fn(Query<'q>, &T) -> Query<'q>,
    ) -> Result<(), sqlx::Error> {
        for rows in chunks(rows) {
            let query = rows.iter().fold(sqlx::query(self.text(rows.len())), &bind);
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Runs a query for all these values. Its result must be one row with one column, which is a JSON array.
    pub async fn ask<T, V>(
        &self,
        connection: &mut SqliteConnection,
        values: &[V],
    ) -> Result<Vec<T>, sqlx::Error>
    where
        T: DeserializeOwned,
        V: Copy + for<'q> sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Sync,
    {
        let mut answers = Vec::new();
        for values in chunks(values) {
            let query = sqlx::query_scalar(self.text(values.len()));
            let query = values.iter().fold(query, |query, value| query.bind(*value));
            let found: String = query.fetch_one(&mut *connection).await?;
            let found: Vec<T> =
                serde_json::from_str(&found).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            answers.extend(found);
        }
        Ok(answers)
    }
}

/// Many rows as one parameter. SQLite's `json_each` expands it, so a statement is prepared once for batches of every
/// size.
pub fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("strings and numbers always serialize")
}

/// A statement to which values are being bound.
pub type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn chunks<T>(rows: &[T]) -> std::slice::Chunks<'_, T> {
    rows.chunks(LARGEST)
}
