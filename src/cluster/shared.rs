//! Lets every node answer questions about the PINs of any node.
//!
//! Promises the same answer at every node. Does not know SQL, nor who asks.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::waiting::Wait;
use super::{Shared, State};
use crate::pin::PinId;
use crate::store::{PinState, Unavailable};

/// Answers questions about the whole cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub shared: Arc<dyn Shared>,
    /// This node's lease and slots.
    pub state: watch::Receiver<State>,
    /// Changes when a node hints that it committed outcomes.
    pub outcomes: watch::Receiver<u64>,
    pub(super) waits: mpsc::Sender<Wait>,
}

impl Cluster {
    /// The state of a PIN now.
    pub async fn pin_state(&self, pin: &PinId) -> Result<PinState, Unavailable> {
        let pin_states = self.shared.pin_states(std::slice::from_ref(pin)).await?;
        Ok(pin_states.into_iter().next().unwrap_or(PinState::Unknown))
    }

    /// Waits until a PIN is no longer in flight. An error means that the daemon is stopping.
    pub async fn ended(&self, pin: PinId) -> Result<PinState, oneshot::error::RecvError> {
        let (reply, state) = oneshot::channel();
        // If the task has ended, the sender is dropped, and the receiver reports it.
        let _ = self.waits.send((pin, reply)).await;
        state.await
    }
}
