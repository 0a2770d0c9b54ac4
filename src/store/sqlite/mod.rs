//! The store in one SQLite file, with a write-ahead log, `synchronous = FULL`, one connection that writes and a few
//! that read.
//!
//! Promises that a commit survives a power cut, and that one daemon at a time uses the file. Knows nothing of nodes or
//! slots.

pub mod backup;
mod by_hash;
mod by_pin;
mod error;
mod load;
mod many;
mod open;
mod pins;
mod place;
mod read;
mod recent;
mod rows;
mod write;

pub use error::OpenError;
pub use open::{Unloaded, open};
pub(super) use open::{anchor, lock_to_make, make, open_to_move};

use async_trait::async_trait;
use sqlx::SqlitePool;

use self::by_hash::Entries;
pub(super) use self::by_hash::hash as pin_hash;
use self::recent::Recent;
use self::write::WriteConnection;
pub(super) use self::write::note_time;
use super::{Applied, Transaction, Unavailable, Writes};

/// The reading side.
struct Reader {
    readers: SqlitePool,
    recent: Recent,
    /// The PINs in flight as of the last commit.
    pins: Entries,
    /// Outcomes that may not be in the file's index yet.
    waiting: Entries,
}

#[async_trait]
impl Writes for WriteConnection {
    fn in_flight(&self) -> usize {
        self.in_flight()
    }

    fn last_seq(&self) -> i64 {
        self.last_seq()
    }

    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable> {
        Ok(self.apply(work, max_in_flight).await?)
    }

    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable> {
        Ok(self.register_sink(name, from_oldest).await?)
    }

    async fn in_place(&mut self) -> Result<(), Unavailable> {
        self.in_place().await
    }

    async fn note_time(&mut self) -> Result<(), Unavailable> {
        Ok(self.note_time_sometimes().await?)
    }

    async fn close(self: Box<Self>) -> Result<(), Unavailable> {
        (*self).close().await
    }
}
