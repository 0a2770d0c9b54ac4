//! The table "What an answer means" of the contract, written a second time: how an answer must be
//! understood, and which endings may, or must, follow from it. Shares no code with the daemon's own rules, and is
//! less strict: it says what is wrong, not what is best.

use pinwatch::outcome::{Delivery, Ending};
use pinwatch::poll::{Connection, LONGEST, Meaning, SHORTEST};
use pinwatch::simulate::Reported;

use super::api::{Truth, Wait};
use super::clocks::Time;
use super::plan::Plan;

/// The refusals that a PIN got in a row.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// When each came, and whether on a connection of its own.
    answers: Vec<(Time, bool)>,
    kind: Option<Ending>,
    is_forbidden: bool,
    /// The first of them since which other PINs got a readable answer between each two, or none was in flight.
    own_from: usize,
}

impl Row {
    /// One more answer. `others` is when another PIN last got a readable answer.
    pub fn add(
        &mut self,
        truth: &Truth,
        connection: Connection,
        (others, is_alone): (Option<Time>, bool),
        now: Time,
    ) {
        let (kind, is_forbidden) = match truth {
            Truth::NotFound => (Some(Ending::NotFound), false),
            Truth::Rejected => (Some(Ending::Rejected), false),
            Truth::Unauthorized => (Some(Ending::Rejected), true),
            Truth::Throttled(_) | Truth::NotSent if self.kind.is_some() => return,
            _ => (None, false),
        };
        if (kind, is_forbidden) != (self.kind, self.is_forbidden) {
            *self = Self { answers: Vec::new(), kind, is_forbidden, own_from: 0 };
        }
        if kind.is_some() {
            if let Some((last, _)) = self.answers.last()
                && !is_alone
                && others.is_none_or(|at| at < *last)
            {
                self.own_from = self.answers.len();
            }
            self.answers.push((now, connection == Connection::New));
        }
    }

    /// Whether the contract lets the PIN end by this row. `others` is when another PIN last got a readable answer.
    fn may_end(&self, plan: &Plan, others: Option<Time>, is_alone: bool) -> bool {
        let own = &self.answers[self.own_from..];
        let (Some(first), Some(first_own), Some(last)) = (self.answers.first(), own.first(), own.last())
        else {
            return false;
        };
        let has_connections = self.answers.iter().filter(|(_, is_new)| *is_new).count() >= 2;
        let others_are_answered = others.is_some_and(|at| at >= first_own.0);
        let grace = plan.schedule.not_found_grace;
        let is_own = own.len() >= 3
            && last.0 - first_own.0 >= grace
            && (others_are_answered || !self.is_forbidden && is_alone);
        let is_long = last.0 - first.0 >= plan.schedule.deadline_grace.max(grace);
        self.answers.len() >= 3 && has_connections && (is_own || !self.is_forbidden && is_long)
    }

    /// Whether the contract lets the PIN go on no longer.
    fn must_end(&self, plan: &Plan) -> bool {
        let (Some(first), Some(last)) = (self.answers.first(), self.answers.last()) else { return false };
        let longest = plan.schedule.not_found_grace.max(plan.schedule.deadline_grace);
        !self.is_forbidden && self.answers.len() >= 3 && last.0 - first.0 >= longest
    }

    /// Whether these answers are no older than this.
    pub fn began_after(&self, time: Time) -> bool {
        self.answers.first().is_some_and(|(first, _)| *first > time)
    }
}

/// What is known when an answer comes.
pub struct Known<'a> {
    pub truth: &'a Truth,
    /// With this answer.
    pub row: &'a Row,
    pub sent: Time,
    pub deadline: Time,
    /// When another PIN last got a readable answer.
    pub others: Option<Time>,
    pub is_alone: bool,
    /// All polling pauses, after this answer.
    pub is_braked: bool,
    /// The PIN's answer before this one was a 429 too, or it got one lately.
    pub was_throttled: bool,
}

/// Whether this ending, or none, may follow from an answer.
pub fn judge(plan: &Plan, known: &Known, ending: Option<Ending>, now: Time) -> Result<(), String> {
    let is_late = known.sent >= known.deadline;
    let is_over = now >= known.deadline + plan.schedule.deadline_grace;
    let may_be_given_up = is_over
        || is_late
            && match known.truth {
                Truth::Deliveries { .. } | Truth::Rejected | Truth::NotFound | Truth::Unreadable => true,
                Truth::Unavailable => !known.is_braked,
                Truth::Unauthorized => known.others.is_some(),
                Truth::Throttled(_) => known.was_throttled,
                Truth::NotSent => false,
            };
    let is_well = match (ending, known.truth) {
        (Some(Ending::Final), Truth::Deliveries { done: true, .. }) => true,
        (_, Truth::Deliveries { done: true, .. }) => false,
        (None, Truth::Deliveries { .. }) => !is_late && !is_over,
        (None, _) => !is_over && !known.row.must_end(plan),
        (Some(Ending::Deadline), _) => may_be_given_up,
        (Some(Ending::NotFound), Truth::NotFound)
        | (Some(Ending::Rejected), Truth::Rejected | Truth::Unauthorized) => {
            known.row.may_end(plan, known.others, known.is_alone)
        }
        _ => false,
    };
    let expected = || format!("{:?} at {now:?}, with {:?}, {:?}", known.truth, known.row, known.others);
    if is_well { Ok(()) } else { Err(format!("the ending {ending:?} does not follow from {}", expected())) }
}

/// Whether the daemon understood the truth.
pub fn means(truth: &Truth, meaning: &Meaning) -> bool {
    match (truth, meaning) {
        (Truth::Deliveries { reported, .. }, Meaning::Deliveries(deliveries)) => same(reported, deliveries),
        (Truth::Throttled(Wait::For(wait)), Meaning::Throttled(meant)) => wait == meant,
        (Truth::Throttled(Wait::Until(_)), Meaning::Throttled(meant)) => (SHORTEST..=LONGEST).contains(meant),
        (Truth::Unauthorized, Meaning::Unauthorized(_))
        | (Truth::NotFound, Meaning::NotFound)
        | (Truth::Unreadable, Meaning::Unreadable(_))
        | (Truth::Rejected, Meaning::Rejected(_))
        | (Truth::Unavailable, Meaning::Unavailable(_))
        | (Truth::NotSent, Meaning::NotSent(_)) => true,
        _ => false,
    }
}

/// Whether these are the deliveries that were reported.
pub fn same(reported: &[Reported], deliveries: &[Delivery]) -> bool {
    let reported = reported.iter().map(|reported| (reported.status.status(), reported.status.is_final()));
    reported.eq(deliveries.iter().map(|delivery| (delivery.status.clone(), delivery.final_status)))
}
