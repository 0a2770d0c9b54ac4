//! The model of the store and of its sinks: a crash loses everything that is not committed.

use pinwatch::outcome::{Ending, Verdict};
use pinwatch::store::{InFlight, SavedSchedule};

use super::pin_history::number;

/// A PIN that somebody submits.
#[derive(Debug, Clone)]
pub struct Submit {
    pub pin: usize,
    pub again: bool,
    pub row: InFlight,
}

/// What one transaction did, in the order in which the schedule hears of it.
#[derive(Debug, Default)]
pub struct Applied {
    pub finished: Vec<usize>,
    pub accepted: Vec<Submit>,
    pub is_brake_saved: bool,
}

#[derive(Debug)]
pub struct Store {
    rows: Vec<Option<InFlight>>,
    /// The outbox: which PIN, by `seq`.
    outbox: Vec<(usize, Ending)>,
    /// How often each PIN was accepted.
    accepted: Vec<u32>,
    /// How many outcomes each has.
    outcomes: Vec<u32>,
    cursors: [usize; 2],
    submits: Vec<Submit>,
    verdicts: Vec<Verdict>,
    progress: [Option<usize>; 2],
    brake: SavedSchedule,
    /// The newest, not durable yet.
    new_brake: Option<SavedSchedule>,
    pub is_commit_due: bool,
}

impl Store {
    pub fn new(pins: usize) -> Self {
        Self {
            rows: vec![None; pins],
            outbox: Vec::new(),
            accepted: vec![0; pins],
            outcomes: vec![0; pins],
            cursors: [0; 2],
            submits: Vec::new(),
            verdicts: Vec::new(),
            progress: [None; 2],
            brake: SavedSchedule::default(),
            new_brake: None,
            is_commit_due: false,
        }
    }

    pub fn submit(&mut self, submit: Submit) {
        self.submits.push(submit);
    }

    pub fn finish(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    pub fn advance(&mut self, sink: usize, cursor: usize) {
        self.progress[sink] = Some(cursor);
    }

    pub fn save_brake(&mut self, brake: SavedSchedule) {
        self.new_brake = Some(brake);
    }

    pub fn brake(&self) -> &SavedSchedule {
        &self.brake
    }

    pub fn has_work(&self) -> bool {
        let has_progress = self.progress.iter().any(Option::is_some);
        !self.submits.is_empty() || !self.verdicts.is_empty() || has_progress || self.new_brake.is_some()
    }

    pub fn has_verdict_of(&self, pin: usize) -> bool {
        self.verdicts.iter().any(|verdict| number(verdict.pin.as_str()) == pin)
    }

    /// The transaction. What leaves goes first, so that a PIN may come again in the same one.
    pub fn commit(&mut self) -> Result<Applied, String> {
        let mut applied = Applied::default();
        for verdict in self.verdicts.drain(..) {
            let pin = number(verdict.pin.as_str());
            if self.rows[pin].take().is_none() {
                return Err(format!(
                    "PIN {pin} is given the outcome {} and is not in flight",
                    verdict.ending
                ));
            }
            self.outcomes[pin] += 1;
            self.outbox.push((pin, verdict.ending));
            applied.finished.push(pin);
        }
        for submit in self.submits.drain(..) {
            let is_new = self.rows[submit.pin].is_none();
            if is_new && (submit.again || self.outcomes[submit.pin] == 0) {
                self.rows[submit.pin] = Some(submit.row.clone());
                self.accepted[submit.pin] += 1;
                applied.accepted.push(submit);
            }
        }
        for (cursor, progress) in self.cursors.iter_mut().zip(&mut self.progress) {
            *cursor = progress.take().unwrap_or(*cursor);
        }
        if let Some(brake) = self.new_brake.take() {
            self.brake = brake;
            applied.is_brake_saved = true;
        }
        Ok(applied)
    }

    /// The store could not be written: gives the submits, which are refused. The rest is kept.
    pub fn fail(&mut self) -> Vec<Submit> {
        std::mem::take(&mut self.submits)
    }

    /// The process is gone, and what it had not committed. Gives the submits, which nobody acknowledged.
    pub fn crash(&mut self) -> Vec<Submit> {
        self.verdicts.clear();
        self.new_brake = None;
        self.progress = [None; 2];
        std::mem::take(&mut self.submits)
    }

    pub fn row(&self, pin: usize) -> Option<&InFlight> {
        self.rows[pin].as_ref()
    }

    pub fn rows(&self) -> impl Iterator<Item = (usize, &InFlight)> {
        self.rows.iter().enumerate().filter_map(|(pin, row)| Some((pin, row.as_ref()?)))
    }

    pub fn outbox(&self) -> &[(usize, Ending)] {
        &self.outbox
    }

    /// Every PIN has one outcome for each time that it was accepted, and none is in flight.
    pub fn is_settled(&self) -> Result<(), String> {
        for (pin, (accepted, outcomes)) in self.accepted.iter().zip(&self.outcomes).enumerate() {
            if accepted != outcomes {
                return Err(format!("PIN {pin} was accepted {accepted} times and has {outcomes} outcomes"));
            }
        }
        Ok(())
    }
}

/// A sink: what it got, and how far its dispatcher is.
#[derive(Debug, Default)]
pub struct Sink {
    /// It knows its own last line, so each comes once; else a crash repeats what the cursor did not have.
    pub exactly_once: bool,
    lines: Vec<usize>,
    cursor: usize,
}

impl Sink {
    pub fn exactly_once() -> Self {
        Self { exactly_once: true, ..Self::default() }
    }

    /// Delivers all that is there. True if that was anything.
    pub fn deliver(&mut self, store: &Store) -> bool {
        let fresh = self.cursor..store.outbox.len();
        self.cursor = store.outbox.len();
        self.lines.extend(fresh.clone());
        !fresh.is_empty()
    }

    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// A new process goes on where the store, or the sink itself, says.
    pub fn restart(&mut self, index: usize, store: &Store) {
        self.cursor = store.cursors[index];
        if self.exactly_once {
            self.cursor = self.lines.last().map_or(0, |last| last + 1).max(self.cursor);
        }
    }

    /// Every outcome came, in order; exactly once if that is promised.
    pub fn check(&self, store: &Store) -> Result<(), String> {
        let mut next = 0;
        for &seq in &self.lines {
            if seq > next || (self.exactly_once && seq < next) {
                return Err(format!("a sink got outcome {seq} where {next} was next"));
            }
            next = seq + 1;
        }
        if next != store.outbox.len() {
            return Err(format!("a sink got {next} of {} outcomes", store.outbox.len()));
        }
        Ok(())
    }
}
