//! Polls the API about one PIN and classifies its answer.
//!
//! Promises that every poll ends within `api.timeout` with exactly one [`Meaning`], whatever the API, a proxy or the network did;
//! that every answer takes a bounded amount of memory; and that the credentials go only to the configured host: no redirect, log
//! line, error or `Debug` has them.
//!
//! Must not know when or how often a PIN is polled, what ends it, or where it is kept: the schedule decides what follows from a
//! meaning, and owns the brakes. The parts that understand an answer ([`Meaning::of`] and what it uses) are pure; only [`Client`]
//! does input and output.

mod answer;
mod client;
mod connections;
mod connector;
mod content;
mod error;
mod error_text;
mod failure;
mod http1;
mod mapped;
mod meaning;
mod secrets;
mod strays;

pub use answer::{MAX_BODY, MAX_DESCRIPTION, MAX_STATUS};
pub use client::{Client, Look, Prepared};
pub use error::ClientError;
pub use mapped::Field;
pub use meaning::Meaning;
pub use strays::{ADVICE, DISTRUST, Stray};

pub use crate::http_client::retry_after::{LONGEST, SHORTEST};
pub use crate::http_client::{Connection, MAX_TEXT};
