//! What the schedule hears of the slots that this node holds, where several nodes share the PINs.
//!
//! Promises that nothing of a slot is polled or handed to the writer once [`Schedule::release`] has returned.
//! Whoever waits for a PIN that went to another node is told to ask again: its sender is dropped.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Event, Running, Schedule, Stopping};
use crate::pin::PinId;
use crate::slot::Slots;
use crate::store::InFlight;

/// What changes in which PINs are this node's.
pub enum SlotEvent {
    /// These slots too; their PINs follow.
    Hold(Slots),
    /// PINs of held slots that were in flight before.
    Resume(Vec<InFlight>),
    /// These slots no more. Answered when nothing of them is left.
    Release(Slots, oneshot::Sender<()>),
    /// The lease surely runs until then.
    Lease(Instant),
}

impl Schedule {
    /// These slots are this node's from now on, beside those before.
    pub async fn hold(&self, slots: Slots) -> Result<(), Stopping> {
        self.send(SlotEvent::Hold(slots)).await
    }

    /// Hands in PINs that were in flight before their slots were held; those of other slots are ignored.
    pub async fn resume(&self, pins: Vec<InFlight>) -> Result<(), Stopping> {
        self.send(SlotEvent::Resume(pins)).await
    }

    /// These slots are this node's no more: waits until their PINs are forgotten.
    pub async fn release(&self, slots: Slots) -> Result<(), Stopping> {
        let (reply, done) = oneshot::channel();
        self.send(SlotEvent::Release(slots, reply)).await?;
        done.await.map_err(|_| Stopping)
    }

    /// No poll begins after `until`.
    pub async fn lease_until(&self, until: Instant) -> Result<(), Stopping> {
        self.send(SlotEvent::Lease(until)).await
    }

    async fn send(&self, event: SlotEvent) -> Result<(), Stopping> {
        self.inbox.send(Event::Slots(event)).await.map_err(|_| Stopping)
    }
}

impl<S, F> Running<S, F> {
    pub(super) fn hear_of_slots(&mut self, event: SlotEvent) {
        match event {
            SlotEvent::Hold(slots) => self.core.hold(&slots),
            SlotEvent::Resume(pins) => pins.iter().for_each(|pin| self.core.resume(pin)),
            SlotEvent::Release(slots, done) => {
                for pin in self.core.release(&slots) {
                    self.waiters.remove(&pin);
                }
                self.verdicts.retain(|verdict| !slots.holds(&verdict.pin));
                // The daemon may be stopping: then nobody waits.
                let _ = done.send(());
            }
            SlotEvent::Lease(until) => {
                let until = self.core.clock().moment(until);
                self.core.lease_until(until);
            }
        }
    }

    /// The store has neither the PIN nor an outcome of it, as its verdict was to be written: another node has it.
    pub(super) fn gone(&mut self, pin: &PinId) {
        if self.core.gone(pin) {
            self.waiters.remove(pin);
        }
    }
}
