//! What does not work now, and since when: of the store and of the socket, for health and `stats`.

use std::sync::Arc;

use tokio::time::Instant;

#[derive(Debug, Clone)]
pub struct Trouble {
    pub since: Instant,
    pub what: Arc<str>,
}
