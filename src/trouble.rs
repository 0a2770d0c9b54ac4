//! A present failure of the store or the socket, with its start time, for health and `stats`. Pure data.

use std::sync::Arc;

use tokio::time::Instant;

#[derive(Debug, Clone)]
pub struct Trouble {
    pub since: Instant,
    pub what: Arc<str>,
}
