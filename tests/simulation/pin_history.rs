//! What the API reports about one PIN without a fault, by its age: its life, with the irregularities of real APIs.

use std::time::Duration;

use fastrand::Rng;
use pinwatch::config::Completion;
use pinwatch::simulate::{FinalForm, Known, Life, LifeSettings, Reported};

use super::conditions::span;

/// The content of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    Deliveries(Vec<Reported>),
    NotFound,
    Rejected(u16),
    /// A firewall refuses this PIN alone.
    Forbidden,
    /// This PIN alone always gets 429.
    Throttled,
    /// The part of the API that has this PIN is down.
    Down,
}

#[derive(Debug)]
pub struct PinHistory {
    /// What this PIN alone gets, always.
    trouble: Option<Report>,
    life: Life,
    /// 404 until this age.
    hidden: Duration,
    never_found: bool,
    rejected: Option<u16>,
    /// Between these ages, what is final is reported as waiting again.
    relapse: Option<(Duration, Duration)>,
    /// Between these ages, the newest delivery is missing.
    shrinks: Option<(Duration, Duration)>,
    completion: Completion,
}

impl PinHistory {
    /// `troubled` is the percentage of PINs that always get an answer of their own.
    pub fn draw(
        lives: &LifeSettings,
        pin: usize,
        completion: Completion,
        troubled: u32,
        rng: &mut Rng,
    ) -> Self {
        let troubles = [Report::Forbidden, Report::Throttled, Report::Down, Report::Down];
        let trouble = (rng.u32(..100) < troubled).then(|| rng.choice(&troubles).cloned()).flatten();
        let life = Life::of(lives, &pin_id(pin));
        let second = Duration::from_secs(1);
        let mut interval = |share: u32| {
            (rng.u32(..100) < share).then(|| {
                let begin = span(second, lives.median * 8, rng);
                (begin, begin + span(second, lives.median * 8, rng))
            })
        };
        let (relapse, shrinks) = (interval(5), interval(5));
        let (mut hidden, mut never_found, mut rejected) = (Duration::ZERO, false, None);
        match rng.u32(..100) {
            0..6 => hidden = span(second / 2, 600 * second, rng),
            6..8 => never_found = true,
            8..10 => rejected = rng.choice(&[400, 405, 410, 422]).copied(),
            _ => {}
        }
        Self { trouble, life, hidden, never_found, rejected, relapse, shrinks, completion }
    }

    pub fn at(&self, age: Duration) -> Report {
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        if let Some(code) = self.rejected {
            return Report::Rejected(code);
        }
        if self.never_found || age < self.hidden {
            return Report::NotFound;
        }
        let within = |ages: Option<(Duration, Duration)>| ages.is_some_and(|(a, b)| a <= age && age < b);
        let mut reported: Vec<_> = self.life.at(age).collect();
        if within(self.shrinks) {
            reported.pop();
        }
        if within(self.relapse) {
            for delivery in reported.iter_mut().filter(|delivery| delivery.status.is_final()) {
                let waiting = Known::from_wire("MESSAGE_WAITING_DELIVERY").expect("a documented status");
                *delivery = Reported { status: waiting, form: FinalForm::Bool };
            }
        }
        Report::Deliveries(reported)
    }

    /// Whether an answer of these deliveries ends the PIN.
    pub fn is_done(&self, reported: &[Reported]) -> bool {
        let finals = reported.iter().filter(|delivery| delivery.status.is_final()).count();
        match self.completion {
            Completion::All => finals > 0 && finals == reported.len(),
            Completion::Any => finals > 0,
        }
    }

    /// Whether the API has an answer for this PIN, some day.
    pub fn is_answered(&self) -> bool {
        self.trouble.is_none() && self.rejected.is_none() && !self.never_found
    }

    /// Whether the API has an answer for this PIN at once: then it ends `final`, or by its deadline.
    pub fn is_sound(&self) -> bool {
        self.is_answered() && self.hidden.is_zero()
    }

    /// From this age on every answer ends the PIN; `None` if that never comes.
    pub fn settled(&self) -> Option<Duration> {
        if !self.is_answered() {
            return None;
        }
        let ends = [self.relapse, self.shrinks].into_iter().flatten().map(|(_, end)| end);
        ends.chain([self.life.settles()?, self.hidden]).max()
    }
}

/// The PIN ID of a number.
pub fn pin_id(pin: usize) -> String {
    format!("PIN-{pin}")
}

/// The number of a PIN ID.
pub fn number(pin: &str) -> usize {
    pin.strip_prefix("PIN-").and_then(|number| number.parse().ok()).expect("a PIN ID of the simulation")
}
