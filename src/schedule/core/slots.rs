//! Limits the schedule to the PINs of the slots that this node holds while its lease is valid.
//!
//! Guarantees that it never takes a PIN of another node's slot, forgets PINs together with their slot, and starts no
//! poll when the lease may have expired. With SQLite, the node holds all slots forever. Must not decide which node
//! holds a slot.

use super::{Core, Stage};
use crate::clock::Moment;
use crate::pin::PinId;
use crate::slot::{SLOTS, Slots};

/// The slots held, and until when the lease is surely valid.
#[derive(Debug)]
pub(super) struct Held {
    slots: Slots,
    /// `None` means forever.
    until: Option<Moment>,
}

impl Default for Held {
    /// All slots forever, as for a single node.
    fn default() -> Self {
        Self { slots: Slots::ALL, until: None }
    }
}

impl Held {
    /// Returns whether this node holds the PIN's slot.
    pub fn has(&self, pin: &PinId) -> bool {
        self.slots.holds(pin)
    }

    /// Returns whether a poll may start now.
    pub fn admits(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Core {
    /// Starts as one of several nodes: without slots, and without polls until [`Core::lease_until`] is called.
    pub fn hold_none(&mut self) {
        self.held = Held { slots: Slots::NONE, until: Some(Moment::START) };
    }

    /// Adds these slots to those held; their PINs follow through [`Core::resume`] and [`Core::accept`].
    pub fn hold(&mut self, slots: &Slots) {
        self.held.slots = self.held.slots.union(slots);
        self.share_rate();
    }

    /// Gives these slots up: forgets their PINs, ignores the answers of their running polls, and returns the
    /// forgotten PINs. Takes O(n) in the PINs in flight.
    pub fn release(&mut self, slots: &Slots) -> Vec<PinId> {
        self.held.slots = self.held.slots.without(slots);
        let pins = self.table.iter().map(|entry| entry.pin.expand());
        let pins: Vec<PinId> = pins.filter(|pin| slots.holds(pin)).collect();
        pins.iter().for_each(|pin| self.finished(pin));
        self.share_rate();
        pins
    }

    /// Forgets a PIN that has a verdict but no longer exists in the store; returns whether it did. Keeps a PIN that
    /// was taken in again meanwhile, because that one has no verdict.
    pub fn gone(&mut self, pin: &PinId) -> bool {
        let has_verdict = self.entry(pin).is_some_and(|entry| entry.stage == Stage::Finishing);
        if has_verdict {
            self.finished(pin);
        }
        has_verdict
    }

    /// Allows polls to start until this moment, up to which the lease is surely valid.
    pub fn lease_until(&mut self, until: Moment) {
        self.held.until = Some(until);
    }

    /// `api.rate` applies to all nodes together: each node's share is proportional to its slots.
    fn share_rate(&mut self) {
        self.rate.share(self.held.slots.len() as f64 / SLOTS as f64);
    }
}
