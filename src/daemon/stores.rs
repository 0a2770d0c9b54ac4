//! Opens the store that is configured, and enters this node where several share it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{DaemonError, notify};
use crate::config::{Config, StoreUrl};
use crate::slot::Slots;
use crate::store::postgres::{self, Membership, Registration};
use crate::store::{self, OpenError, Store, Writes};

/// A store, ready.
pub struct Opened {
    pub store: Store,
    pub connection: Box<dyn Writes>,
    /// Where several nodes share it.
    pub membership: Option<Membership>,
}

/// Opens it.
///
/// # Errors
/// It can't be used, or another node has this one's name.
pub async fn open(config: &Config) -> Result<Opened, DaemonError> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => {
            let (store, connection) = store::open_sqlite(path).await?;
            Ok(Opened { store, connection, membership: None })
        }
        StoreUrl::Postgres { url, shown } => {
            let mut membership = postgres::open(url, shown, node_name(config), config.cluster.lease).await?;
            register(&mut membership, config.cluster.lease).await?;
            membership.take(&Slots::ALL).await?;
            let (store, connection) = membership.store().await?;
            Ok(Opened { store, connection, membership: Some(membership) })
        }
    }
}

/// What a row that can't be read is called.
pub fn unreadable(config: &Config, what: String) -> DaemonError {
    match &config.store.url {
        StoreUrl::Sqlite(path) => OpenError::Damaged { path: path.clone(), what }.into(),
        StoreUrl::Postgres { shown, .. } => postgres::OpenError::Damaged { url: shown.clone(), what }.into(),
    }
}

fn node_name(config: &Config) -> String {
    config.cluster.node.clone().unwrap_or_else(|| {
        let system = rustix::system::uname();
        format!("{}:{}", system.nodename().to_string_lossy(), config.intake.socket.display())
    })
}

/// Enters this node. A process of the same name that was killed leaves a lease that is waited for.
async fn register(membership: &mut Membership, lease: Duration) -> Result<(), DaemonError> {
    let give_up = Instant::now() + 3 * lease;
    while let Registration::Taken(left) = membership.register().await? {
        let name = membership.name().to_owned();
        if Instant::now() + left > give_up {
            return Err(DaemonError::NameTaken { name });
        }
        notify::starting("starting: waits for the end of the lease that the last process of this name left");
        sleep(left + Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Renews the lease until `stop`.
pub async fn keep_lease(mut membership: Membership, lease: Duration, stop: CancellationToken) {
    let mut next = Instant::now();
    while timeout_at(next, stop.cancelled()).await.is_err() {
        next = Instant::now() + lease / 3;
        match membership.renew("{}").await {
            Ok(true) => {}
            Ok(false) => warn!("another process has registered this node's name"),
            Err(error) => warn!(%error, "the lease could not be renewed"),
        }
    }
}
