//! Questions about all nodes' PINs, at any node.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use super::waiting::Wait;
use super::{NodeId, State, View};
use crate::pin::PinId;
use crate::store::{Fate, Outcome, Unavailable};

/// What a shared store tells beyond what every store does.
#[async_trait]
pub trait Shared: Send + Sync + 'static {
    /// Who is there, and who holds what, at one moment.
    async fn look(&self) -> Result<View, Unavailable>;

    /// What became of these PINs, all at one moment, in their order.
    async fn fates(&self, pins: &[PinId]) -> Result<Vec<Fate>, Unavailable>;

    /// Where every node's part of the outbox stands before the newest `count` outcomes of them all.
    async fn before_last(&self, count: u32) -> Result<Positions, Unavailable>;

    /// At most `limit` outcomes behind these positions, by `seq`, which moves the positions behind them.
    async fn outcomes_after(
        &self,
        positions: &mut Positions,
        limit: u32,
    ) -> Result<Vec<Outcome>, Unavailable>;
}

/// How far somebody has read each node's part of the outbox. One `seq` would not do: a node may commit a lower one
/// than another did before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    pub of: BTreeMap<NodeId, i64>,
    /// Of nodes that came later.
    pub others: i64,
}

/// All nodes, as one of them is asked about them. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub shared: Arc<dyn Shared>,
    /// How this node stands.
    pub state: watch::Receiver<State>,
    /// Changes when it is hinted that some node has committed outcomes.
    pub outcomes: watch::Receiver<u64>,
    pub(super) waits: mpsc::Sender<Wait>,
}

impl Cluster {
    /// What became of a PIN by now.
    pub async fn fate(&self, pin: &PinId) -> Result<Fate, Unavailable> {
        let fates = self.shared.fates(std::slice::from_ref(pin)).await?;
        Ok(fates.into_iter().next().unwrap_or(Fate::Unknown))
    }

    /// What became of a PIN, when it is in flight no more. An error means that the daemon is stopping.
    pub async fn ended(&self, pin: PinId) -> Result<Fate, oneshot::error::RecvError> {
        let (told, fate) = oneshot::channel();
        // A task that is gone drops the sender.
        let _ = self.waits.send((pin, told)).await;
        fate.await
    }
}
