//! Checks that only failures of most PINs pause all polling, never those of a few PINs.
//!
//! Checks two promises from outside: an outage begins only if most of the last different PINs failed, and a probe goes to
//! a PIN that has not failed, and never to the same PIN twice in a row, as far as there is another one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pinwatch::poll::Meaning;

use super::clocks::Time;
use super::oracle::Broken;

/// The last results of so many different PINs decide.
const REMEMBERED: usize = 64;

/// So many different PINs must fail.
const ENOUGH: usize = 5;

/// Without an answer for so long, an outage needs no majority.
const SILENCE: Duration = Duration::from_secs(10);

/// An older result says nothing about the API now.
const NO_NEWS: Duration = Duration::from_secs(10 * 60);

/// A PIN, and since when the process knows it: a PIN that is submitted again is another one.
pub type Known = (usize, Time);

#[derive(Default)]
pub struct Pauses {
    /// The last result of each PIN, the oldest first: when it came, and whether it was a failure.
    results: VecDeque<(Known, Time, bool)>,
    last_answer: Time,
    /// The PINs of polls under way.
    running: HashMap<u64, Known>,
    /// Whether the last answer of a PIN was a good one; `None` where another account may have given it.
    is_sound: HashMap<Known, Option<bool>>,
    last_probe: Option<Known>,
}

impl Pauses {
    pub fn process_starts(&mut self, now: Time) {
        *self = Self { last_answer: now, ..Self::default() };
    }

    /// The account may be another one: what was held against PINs is forgotten.
    pub fn renewed(&mut self) {
        self.is_sound.values_mut().for_each(|is_sound| *is_sound = None);
        self.results.clear();
    }

    pub fn poll_starts(&mut self, id: u64, pin: Known) {
        self.running.insert(id, pin);
    }

    pub fn brake_goes_off(&mut self) {
        self.results.clear();
    }

    /// A poll is answered, of the account in use if `counts`. Its PIN may have been cancelled meanwhile.
    pub fn answered(&mut self, id: u64, meaning: &Meaning, counts: bool, now: Time) {
        let Some(pin) = self.running.remove(&id).filter(|_| counts) else { return };
        if matches!(meaning, Meaning::NotSent(_)) {
            return;
        }
        let is_failure = matches!(meaning, Meaning::Unavailable(_));
        if !is_failure {
            self.last_answer = now;
        }
        self.is_sound.insert(pin, Some(matches!(meaning, Meaning::Deliveries(_) | Meaning::Unreadable(_))));
        self.results.retain(|(other, at, _)| *other != pin && now <= *at + NO_NEWS);
        self.results.push_back((pin, now, is_failure));
        if self.results.len() > REMEMBERED {
            self.results.pop_front();
        }
    }

    /// The answer that was noted last makes the circuit open.
    pub fn outage_begins(&self, now: Time) -> Result<(), Broken> {
        let (failed, all) = (self.results.iter().filter(|(.., failed)| *failed).count(), self.results.len());
        if failed >= ENOUGH && failed * 2 > all || now >= self.last_answer + SILENCE {
            return Ok(());
        }
        Err(format!("{failed} of the last {all} different PINs fail, and all polling pauses"))
    }

    /// This PIN is probed, though these others wait, each with whether it is due.
    pub fn probe_starts(
        &mut self,
        pin: Known,
        others: impl Iterator<Item = (Known, bool)>,
    ) -> Result<(), Broken> {
        let last = self.last_probe.replace(pin);
        let failed = self.is_sound.get(&pin) == Some(&Some(false));
        for (other, is_due) in others {
            if last == Some(pin) {
                return Err(format!("PIN {} is probed twice in a row, and PIN {} waits", pin.0, other.0));
            }
            let is_sound = self.is_sound.get(&other).is_none_or(|is_sound| *is_sound == Some(true));
            if failed && is_due && is_sound && last != Some(other) {
                return Err(format!("PIN {} is probed and failed before; PIN {} did not", pin.0, other.0));
            }
        }
        Ok(())
    }
}
