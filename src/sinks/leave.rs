//! How one sink is asked to leave its place to another, and how that is taken back.
//!
//! Promises that both sides agree: a sink either has left, or goes on as if it was never asked. So a cursor never
//! has two dispatchers, and none is without one because a sink was about to leave. Knows nothing of sinks.

use std::sync::Arc;

use tokio::sync::watch;

/// The place of one sink. Cheap to clone: one for the sink, one for who may ask.
#[derive(Debug, Clone)]
pub struct Leave(Arc<watch::Sender<Place>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Stays,
    Asked,
    Left,
}

impl Default for Leave {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Place::Stays)))
    }
}

impl Leave {
    /// Asks the sink to leave after what it is at.
    pub fn ask(&self) {
        self.change(Place::Stays, Place::Asked);
    }

    /// Takes the asking back; false if the sink has left, or is about to without another wait.
    pub fn take_back(&self) -> bool {
        self.change(Place::Asked, Place::Stays)
    }

    /// For the sink, when it is at nothing: true if it was asked. Then it has left, which nobody can take back.
    pub fn leaves(&self) -> bool {
        self.change(Place::Asked, Place::Left)
    }

    /// Whether the sink is asked now.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() == Place::Asked
    }

    /// Waits until the sink is asked.
    pub async fn asked(&self) {
        // The sender is our own, so this ends only when it is asked.
        let _ = self.0.subscribe().wait_for(|place| *place == Place::Asked).await;
    }

    fn change(&self, from: Place, to: Place) -> bool {
        self.0.send_if_modified(|place| {
            let changes = *place == from;
            if changes {
                *place = to;
            }
            changes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_is_not_left_and_what_left_is_not_taken_back() {
        let leave = Leave::default();
        assert!(!leave.leaves() && !leave.take_back(), "nobody asked");
        leave.ask();
        assert!(leave.is_asked() && leave.take_back() && !leave.leaves());
        leave.ask();
        assert!(leave.leaves() && !leave.take_back() && !leave.is_asked());
    }
}
