//! The table "What an answer means" of the contract, written down a second time: what an answer is to be
//! understood as, and what follows from it.

use pinwatch::outcome::{Delivery, Ending};
use pinwatch::poll::{LONGEST, Meaning, SHORTEST};
use pinwatch::schedule::Reason;
use pinwatch::simulate::Told;

use super::api::{Truth, Wait};
use super::clocks::Time;
use super::oracle::Watched;
use super::plan::Plan;

/// How the answer ends the PIN, if it does.
pub fn ending(
    plan: &Plan,
    watched: &Watched,
    truth: &Truth,
    brake: Option<Reason>,
    now: Time,
) -> Option<Ending> {
    let age = now.saturating_sub(watched.submitted);
    let is_late = (now >= watched.deadline).then_some(Ending::Deadline);
    let grace = plan.schedule.deadline_grace;
    match truth {
        Truth::Deliveries { done: true, .. } => Some(Ending::Final),
        Truth::Deliveries { .. } => is_late,
        Truth::Rejected => Some(Ending::Rejected),
        Truth::NotFound if age > plan.schedule.not_found_grace => Some(Ending::NotFound),
        Truth::NotFound => is_late,
        Truth::Unauthorized | Truth::Throttled(_) => None,
        Truth::Unavailable if brake.is_some() => is_late.filter(|_| now >= watched.deadline + grace),
        Truth::Unreadable | Truth::Unavailable => is_late,
    }
}

/// Whether the daemon understood the truth.
pub fn means(truth: &Truth, meaning: &Meaning) -> bool {
    match (truth, meaning) {
        (Truth::Deliveries { told, .. }, Meaning::Deliveries(deliveries)) => same(told, deliveries),
        (Truth::Throttled(Wait::For(wait)), Meaning::Throttled(meant)) => wait == meant,
        (Truth::Throttled(Wait::Until(_)), Meaning::Throttled(meant)) => (SHORTEST..=LONGEST).contains(meant),
        (Truth::Unauthorized, Meaning::Unauthorized(_))
        | (Truth::NotFound, Meaning::NotFound)
        | (Truth::Unreadable, Meaning::Unreadable(_))
        | (Truth::Rejected, Meaning::Rejected(_))
        | (Truth::Unavailable, Meaning::Unavailable(_)) => true,
        _ => false,
    }
}

/// Whether these are the deliveries that were told.
pub fn same(told: &[Told], deliveries: &[Delivery]) -> bool {
    let told = told.iter().map(|told| (told.status.status(), told.status.is_final()));
    told.eq(deliveries.iter().map(|delivery| (delivery.status.clone(), delivery.final_status)))
}
