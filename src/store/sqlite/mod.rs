//! The store in one SQLite file: WAL, `synchronous = FULL`, one writing connection, a few reading ones.

mod open;
mod read;
mod rows;
mod write;

pub use open::OpenError;
pub(super) use write::{Applied, Transaction, WriteConnection};

use sqlx::SqlitePool;

/// The reading side of the store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    readers: SqlitePool,
}
