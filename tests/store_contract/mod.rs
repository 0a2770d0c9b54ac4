//! What the rest of the daemon expects of a store, tested with a SQLite file and with a real PostgreSQL;
//! and what nodes that share a PostgreSQL expect of it.

mod chosen;
mod cluster;
mod deliveries;
mod hostile;
mod line;
mod lost_ends;
mod opening;
mod pins;
mod place;
mod references;
mod takeover;

/// Makes a test of each promise for both stores.
#[macro_export]
macro_rules! promises {
    ($($promise:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $promise() { super::$promise($crate::store_contract::place::Place::sqlite()).await })*
        }
        mod postgres {
            $(#[tokio::test] async fn $promise() {
                if let Some(place) = $crate::store_contract::place::Place::postgres() { super::$promise(place).await }
            })*
        }
    };
}
