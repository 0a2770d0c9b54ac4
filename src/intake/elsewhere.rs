//! Answers about PINs that another node polls, and about the nodes.
//!
//! Promises that a question has the same answer at every node, but for what only the node that polls a PIN knows.
//! Where one machine has its own store, there are no other nodes, and nothing here is asked of anybody.

use tokio::time::timeout;

use super::connection::{Ended, STORE_PATIENCE};
use super::request::Code;
use super::{Services, answer};
use crate::cluster::{Cluster, Fate, View};
use crate::pin::PinId;
use crate::schedule::Stopping;
use crate::slot::slot_of;
use crate::store::Record;

/// Who shares the PINs.
pub async fn nodes(services: &Services) -> Result<String, Ended> {
    match &services.cluster {
        None => Ok(answer::one_machine()),
        Some(cluster) => {
            let view = cluster.shared.look().await?;
            Ok(answer::nodes(&view, cluster.state.borrow().id))
        }
    }
}

/// The name of the node that holds this PIN's slot; `None` where nobody does now.
pub fn holder<'v>(view: &'v View, pin: &PinId) -> Option<&'v str> {
    let holder = view.holders[usize::from(slot_of(pin))]?;
    view.nodes.iter().find(|node| node.id == holder).map(|node| node.name.as_str())
}

/// Shows a PIN in flight that the schedule here does not know; `None` if it is not in flight at all.
pub async fn show(services: &Services, pin: &PinId) -> Result<Option<String>, Ended> {
    let Some(cluster) = &services.cluster else { return Ok(None) };
    let Some(stored) = services.store.submission(pin).await? else { return Ok(None) };
    let view = cluster.shared.look().await?;
    Ok(Some(answer::in_flight(pin, Err(holder(&view, pin)), Some(&stored))))
}

/// Has the node that polls this PIN withdraw it, and waits until that is written.
pub async fn cancel(services: &Services, cluster: &Cluster, pin: &PinId) -> Result<Record, Ended> {
    match cluster.fate(pin).await? {
        Fate::InFlight => services.writer.cancel_elsewhere(pin.clone()).await?,
        fate => return record(fate, pin),
    }
    let ended = timeout(STORE_PATIENCE, cluster.ended(pin.clone())).await;
    let fate = ended.map_err(|_| {
        Code::StoreUnavailable.because(
            "the withdrawal is noted, and the node that polls the PIN has not carried it out yet: ask again",
        )
    })?;
    record(fate.map_err(|_| Stopping)?, pin)
}

/// The outcome, or the refusal that there is none.
pub fn record(fate: Fate, pin: &PinId) -> Result<Record, Ended> {
    match fate {
        Fate::Finished(outcome) => Ok(outcome.record),
        Fate::InFlight | Fate::Unknown => Err(Code::NotFound.because(super::connection::unknown(pin)).into()),
    }
}
