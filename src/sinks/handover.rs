//! Lets a running sink hand over to its successor, or withdraws that request.
//!
//! Promises that both sides agree on the result: the sink has either ended, or continues as if the request was never made. So a
//! cursor never has two dispatchers, and never loses its only one. Must not know sinks.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared by the sink and the code that may ask it to end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handover(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Requested,
    Ended,
}

impl Default for Handover {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::Running)))
    }
}

impl Handover {
    /// Asks the sink to end after its present batch.
    pub fn request(&self) {
        self.change(State::Running, State::Requested);
    }

    /// Withdraws the request. Returns false if the sink has already agreed to end.
    pub fn withdraw(&self) -> bool {
        self.change(State::Requested, State::Running)
    }

    /// Called by the sink between batches. Returns true if a handover was requested: the sink must then end, and the request
    /// can't be withdrawn.
    pub fn accept(&self) -> bool {
        self.change(State::Requested, State::Ended)
    }

    /// Whether a handover is requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() == State::Requested
    }

    /// Waits until a handover is requested.
    pub async fn requested(&self) {
        // `self` holds the sender, so only a request can end the wait.
        let _ = self.0.subscribe().wait_for(|state| *state == State::Requested).await;
    }

    fn change(&self, from: State, to: State) -> bool {
        self.0.send_if_modified(|state| {
            let is_changed = *state == from;
            if is_changed {
                *state = to;
            }
            is_changed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawn_handover_stops_no_sink_and_an_accepted_one_can_not_be_withdrawn() {
        let handover = Handover::default();
        assert!(!handover.accept() && !handover.withdraw(), "nobody asked");
        handover.request();
        assert!(handover.is_requested() && handover.withdraw() && !handover.accept());
        handover.request();
        assert!(handover.accept() && !handover.withdraw() && !handover.is_requested());
    }
}
