//! Which PINs are this node's: those of the slots that it holds, for as long as its lease surely runs.
//!
//! Promises that a PIN of another node's slot is never taken, that one is forgotten with its slot, and that no
//! poll is begun when the lease may be over. With SQLite all slots are held for ever. Decides nothing about who
//! holds what.

use super::{Core, Stage};
use crate::clock::Moment;
use crate::pin::PinId;
use crate::slot::{SLOTS, Slots};

/// The slots that are held, and until when that is sure.
#[derive(Debug)]
pub(super) struct Held {
    slots: Slots,
    /// `None`: for ever.
    until: Option<Moment>,
}

impl Default for Held {
    /// All PINs for ever, as where there is one node.
    fn default() -> Self {
        Self { slots: Slots::ALL, until: None }
    }
}

impl Held {
    /// Whether this PIN is ours.
    pub fn has(&self, pin: &PinId) -> bool {
        self.slots.holds(pin)
    }

    /// Whether a poll may begin now.
    pub fn admits(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Core {
    /// As a node among others begins: no slot is its own, and no poll begins before it is told of its lease.
    pub fn hold_none(&mut self) {
        self.held = Held { slots: Slots::NONE, until: Some(Moment::START) };
    }

    /// These slots are this node's from now on, as are those before; their PINs come by [`Core::resume`] and
    /// [`Core::accept`].
    pub fn hold(&mut self, slots: &Slots) {
        self.held.slots = self.held.slots.union(slots);
        self.share_rate();
    }

    /// These slots are not this node's any more: their PINs are forgotten, and what running polls of them tell
    /// is not heard. Gives the forgotten PINs. O(n) in the PINs in flight.
    pub fn release(&mut self, slots: &Slots) -> Vec<PinId> {
        self.held.slots = self.held.slots.without(slots);
        let pins = self.table.iter().map(|entry| entry.pin.expand());
        let pins: Vec<PinId> = pins.filter(|pin| slots.holds(pin)).collect();
        pins.iter().for_each(|pin| self.finished(pin));
        self.share_rate();
        pins
    }

    /// Forgets a PIN whose verdict the store could not take, for it has no such PIN; false if it has none. One that
    /// came back since has none, and stays.
    pub fn gone(&mut self, pin: &PinId) -> bool {
        let has_verdict = self.entry(pin).is_some_and(|entry| entry.stage == Stage::Finishing);
        if has_verdict {
            self.finished(pin);
        }
        has_verdict
    }

    /// The lease surely runs until then, and no poll begins after it.
    pub fn lease_until(&mut self, until: Moment) {
        self.held.until = Some(until);
    }

    /// `api.rate` is all nodes' together: each has of it what it has of the slots.
    fn share_rate(&mut self) {
        self.rate.share(self.held.slots.len() as f64 / SLOTS as f64);
    }
}
