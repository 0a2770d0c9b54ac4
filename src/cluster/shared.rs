//! Questions about all nodes' PINs, at any node.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use super::waiting::Wait;
use super::{State, View};
use crate::pin::PinId;
use crate::store::{Fate, Unavailable};

/// What a shared store tells beyond what every store does.
#[async_trait]
pub trait Shared: Send + Sync + 'static {
    /// Who is there, and who holds what, at one moment.
    async fn look(&self) -> Result<View, Unavailable>;

    /// What became of these PINs, all at one moment, in their order.
    async fn fates(&self, pins: &[PinId]) -> Result<Vec<Fate>, Unavailable>;
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
