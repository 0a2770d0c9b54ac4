//! Statements over many rows: a parameter for each value, in a few sizes, so that each is prepared once.
//!
//! A statement is a way to SQLite's thread and back, and rows that come back are one such way each: so changes
//! go in by hundreds, and answers come back as one row of JSON.

use std::array;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

/// How many rows a statement can have. Fewer rows than that leave parameters without a value, which are NULL.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

const LARGEST: usize = SIZES[SIZES.len() - 1];

/// A statement that repeats a part of itself for each row.
pub struct Many {
    before: &'static str,
    row: &'static str,
    after: &'static str,
    texts: OnceLock<[Arc<str>; SIZES.len()]>,
}

impl Many {
    /// `row` stands between the other two, once for each row. It must do nothing where its parameters are NULL.
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
        // Made of three constants.
        AssertSqlSafe(texts[size].clone())
    }

    /// Runs it for all rows, each of which `bind` gives its values.
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

    /// Asks it, a query of one column and row that is a JSON array, for all these values.
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

/// A statement whose values are being given.
pub type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn chunks<T>(rows: &[T]) -> std::slice::Chunks<'_, T> {
    rows.chunks(LARGEST)
}
