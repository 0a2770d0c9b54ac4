//! Passes changes of this node's slots to the schedule, where several nodes share the PINs.
//!
//! Guarantees that once [`Schedule::release`] has returned, no poll of the slots' PINs starts, and no verdict of
//! theirs goes to the writer; answers of polls that still run are ignored. Drops the sender of each client that waits
//! for a PIN of a released slot; the client's handler then asks again. Must not decide which node holds a slot.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Event, Running, Schedule, Stopping};
use crate::pin::PinId;
use crate::slot::Slots;
use crate::store::InFlight;

/// A change of the PINs that this node polls.
pub enum SlotEvent {
    /// This node holds these slots in addition; their PINs follow.
    Hold(Slots),
    /// PINs of held slots that were already in flight.
    Resume(Vec<InFlight>),
    /// This node no longer holds these slots. Answered once all their PINs are forgotten.
    Release(Slots, oneshot::Sender<()>),
    /// The lease is surely valid until then.
    Lease(Instant),
}

impl Schedule {
    /// Adds these slots to those that this node holds.
    pub async fn hold(&self, slots: Slots) -> Result<(), Stopping> {
        self.send(SlotEvent::Hold(slots)).await
    }

    /// Takes in PINs that were in flight before their slots were held; ignores those of other slots.
    pub async fn resume(&self, pins: Vec<InFlight>) -> Result<(), Stopping> {
        self.send(SlotEvent::Resume(pins)).await
    }

    /// Gives these slots up, and waits until their PINs are forgotten.
    pub async fn release(&self, slots: Slots) -> Result<(), Stopping> {
        let (reply, done) = oneshot::channel();
        self.send(SlotEvent::Release(slots, reply)).await?;
        done.await.map_err(|_| Stopping)
    }

    /// Allows polls to start until `until`.
    pub async fn lease_until(&self, until: Instant) -> Result<(), Stopping> {
        self.send(SlotEvent::Lease(until)).await
    }

    async fn send(&self, event: SlotEvent) -> Result<(), Stopping> {
        self.inbox.send(Event::Slots(event)).await.map_err(|_| Stopping)
    }
}

impl<S, F> Running<S, F> {
    pub(super) fn handle_slots(&mut self, event: SlotEvent) {
        match event {
            SlotEvent::Hold(slots) => self.core.hold(&slots),
            SlotEvent::Resume(pins) => pins.iter().for_each(|pin| self.core.resume(pin)),
            SlotEvent::Release(slots, done) => {
                for pin in self.core.release(&slots) {
                    self.waiters.remove(&pin);
                }
                self.verdicts.retain(|verdict| !slots.holds(&verdict.pin));
                // If the daemon is stopping, nobody waits for this.
                let _ = done.send(());
            }
            SlotEvent::Lease(until) => {
                let until = self.core.clock().moment(until);
                self.core.lease_until(until);
            }
        }
    }

    /// Forgets a PIN that another node has taken over: when its verdict was written, the store had neither the PIN
    /// nor an outcome.
    pub(super) fn gone(&mut self, pin: &PinId) {
        if self.core.gone(pin) {
            self.waiters.remove(pin);
        }
    }
}
