//! The store in one SQLite file, with a write-ahead log, `synchronous = FULL`, one connection that writes and a few
//! that read.
//!
//! Promises that a commit survives a power cut, and that one daemon at a time uses the file. Knows nothing of nodes or
//! slots.

pub mod backup;
mod by_hash;
mod error;
mod index;
mod load;
mod many;
mod matching;
mod open;
mod pins;
mod place;
mod read;
mod recent;
mod write;

pub use error::OpenError;
pub use open::{Unloaded, open};
pub(super) use open::{anchor, lock_to_make, make, open_to_move};

use sqlx::SqlitePool;

use self::by_hash::Entries;
pub(super) use self::by_hash::hash as text_hash;
use self::index::Waiting;
pub(super) use self::place::with_suffix;
use self::recent::Recent;
pub(super) use self::write::note_time;

/// The reading side.
struct Reader {
    readers: SqlitePool,
    recent: Recent,
    /// The PINs in flight as of the last commit.
    pins: Entries,
    /// Those of them that have a reference, by reference.
    references: Entries,
    /// Outcomes that may not be in the file's index yet.
    waiting: Waiting,
}
