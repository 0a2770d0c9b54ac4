//! One store, whichever it is: what the rest of the daemon relies on, tried on a SQLite file and on a real PostgreSQL;
//! and what nodes that share a PostgreSQL rely on.

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

/// Each promise is a test of both stores.
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
