//! Checks every promise of the schedule from outside, at every poll and every answer.
//!
//! Knows what a process received and what it did since; shares no state with the core.

use std::collections::VecDeque;
use std::time::Duration;

use pinwatch::outcome::{Ending, Verdict};
use pinwatch::poll::{Connection, LONGEST, Meaning, SHORTEST};
use pinwatch::schedule::{Reason, Ticket};
use pinwatch::store::{InFlight, SavedSchedule};

use super::api::{Truth, Wait};
use super::clocks::{Clocks, Time};
use super::conditions::Condition;
use super::contract::{Known, Row, judge, means, same};
use super::daemon::{EXPIRE_EVERY, PROBE_INTERVAL, RAMP, RECOVERED, Standing};
use super::intervals::Intervals;
use super::pauses::{Known as KnownPin, Pauses};
use super::pin_history::PinHistory;
use super::plan::{Plan, SECOND};

/// A promise that was not kept.
pub type Broken = String;

/// A PIN that a process knows.
#[derive(Debug, Clone)]
pub struct Watched {
    pub submitted: Time,
    pub deadline: Time,
    /// When the process learned of it.
    pub since: Time,
    resumed: bool,
    polls: u32,
    /// The poll that is running, and when it was sent.
    poll: Option<(u64, Time)>,
    last_answer: Option<Time>,
    last_sent: Option<Time>,
    row: Row,
    /// Whether its last answer was a 429, and when its last 429 came.
    was_throttled: bool,
    last_429: Option<Time>,
    /// A 429 for this PIN alone forbids polls of it until then.
    own_wait: Time,
    pub has_verdict: bool,
}

impl Watched {
    /// Whether another 429 may concern this PIN alone: its last answer was one, or it got one lately.
    fn gets_429s(&self, now: Time) -> bool {
        self.was_throttled || self.last_429.is_some_and(|at| now <= at + NO_NEWS)
    }
}

pub struct Oracle {
    pub intervals: Intervals,
    pub pauses: Pauses,
    pins: Vec<Option<Watched>>,
    /// Polls of the last second.
    recent: VecDeque<Time>,
    /// The brake as it was when somebody last looked.
    brake: Option<Reason>,
    probe: Option<u64>,
    /// Polls up to this one were under way when the API or the credentials became others.
    renewed_after: u64,
    /// When the last brake went off, and the polls in the second after that.
    off: (Time, usize),
    /// The API asked for no requests until then.
    left_alone_until: Time,
    /// The same in true time, as the store was told it, and as it durably knows it.
    handed_over: Time,
    saved: Time,
    /// The last two PINs that got a readable answer, the newer first, and when.
    readable: [Option<(usize, Time)>; 2],
    /// The last PINs, of two different ones, that got a 429, the newer first, and when.
    throttled: [Option<(usize, Time)>; 2],
    /// The last PINs, of two different ones, that were refused by 401 or 403, the newer first, and when, as far as no poll
    /// that was sent since got a readable answer.
    refused: [Option<(usize, Time)>; 2],
    /// When the last 429 came.
    last_429: Time,
    /// Whether there was any 429.
    pub was_throttled: bool,
    /// No brake is on later than this, if all answers are good from now on.
    pub free_from: Time,
    /// When the process began, how many old PINs it polled at once since, and how many it may.
    start: (Time, u32, f64),
}

/// A PIN that is past its deadline, and was answered since, is polled again no sooner than this or its interval.
const LATE_AGAIN: Duration = Duration::from_secs(30);

/// What is older says nothing about the API now.
const NO_NEWS: Duration = Duration::from_secs(10 * 60);

/// In this time after a start, old PINs are polled as often as on the average, and hardly more.
const START: Duration = Duration::from_secs(2);

/// Notes what a PIN got now, beside the last other PIN that got it.
fn note_last(last: &mut [Option<(usize, Time)>; 2], pin: usize, now: Time) {
    if last[0].is_none_or(|(other, _)| other != pin) {
        last[1] = last[0];
    }
    last[0] = Some((pin, now));
}

impl Oracle {
    pub fn new(plan: &Plan) -> Self {
        Self {
            intervals: Intervals::new(&plan.schedule),
            pauses: Pauses::default(),
            pins: vec![None; plan.pins.len()],
            recent: VecDeque::new(),
            brake: None,
            probe: None,
            renewed_after: 0,
            off: (Time::ZERO, 0),
            left_alone_until: Time::ZERO,
            handed_over: Time::ZERO,
            saved: Time::ZERO,
            readable: [None; 2],
            throttled: [None; 2],
            refused: [None; 2],
            last_429: Time::ZERO,
            was_throttled: false,
            free_from: Time::ZERO,
            start: (Time::ZERO, 0, 0.0),
        }
    }

    pub fn watched(&self, pin: usize) -> Option<&Watched> {
        self.pins[pin].as_ref()
    }

    pub fn process_died(&mut self) {
        self.pins.fill(None);
        self.recent.clear();
        self.brake = None;
        self.probe = None;
        self.left_alone_until = Time::ZERO;
        self.readable = [None; 2];
        self.throttled = [None; 2];
        self.refused = [None; 2];
    }

    /// What the process knows of the brake is handed to the store.
    pub fn brake_handed_over(&mut self, clocks: &Clocks) {
        self.handed_over = self.left_alone_until + clocks.suspended();
    }

    /// What was handed over is durable now.
    pub fn brake_saved(&mut self) {
        self.saved = self.handed_over;
    }

    /// Somebody asks the daemon to read its configuration anew: the account may be another one now. It is, if the
    /// last poll of the old one is given.
    pub fn reloaded(&mut self, renewed_after: Option<u64>) {
        self.left_alone_until = Time::ZERO;
        if let Some(last) = renewed_after {
            self.renewed_after = last;
            self.probe = None;
            self.pauses.renewed();
            for pin in self.pins.iter_mut().flatten() {
                pin.row = Row::default();
                pin.was_throttled = false;
                pin.last_429 = None;
            }
        }
    }

    pub fn accepted(&mut self, pin: usize, row: &InFlight, now: Time) {
        self.learn(pin, row, Duration::ZERO, now, false);
    }

    pub fn resumed<'a>(
        &mut self,
        plan: &Plan,
        brake: &SavedSchedule,
        rows: impl Iterator<Item = (usize, &'a InFlight)>,
        clocks: &Clocks,
    ) {
        let now = clocks.now();
        self.pauses.process_starts(now);
        let tick = Duration::from_millis(1);
        self.left_alone_until = self.saved.saturating_sub(clocks.suspended() + tick);
        // However the wall clock jumped meanwhile.
        let ahead = brake.until.map(|until| until.since(clocks.steady())).unwrap_or_default().min(LONGEST);
        self.free_from = self.free_from.max(now + ahead + plan.timeout);
        let mut expected = 0.0;
        for (pin, row) in rows {
            let age = clocks.steady().since(row.submitted_at.steady);
            self.learn(pin, row, age, now, true);
            expected += self.intervals.chance(age, START);
            if self.pins[pin].as_ref().is_some_and(|watched| watched.deadline <= now + START) {
                // Its last poll is due, and who has waited longest waits no longer.
                expected += 1.0;
            }
        }
        self.start = (now, 0, expected + 6.0 * expected.sqrt() + 8.0);
    }

    fn learn(&mut self, pin: usize, row: &InFlight, age: Duration, now: Time, resumed: bool) {
        let lifetime = Duration::try_from(row.deadline_at.duration_since(row.submitted_at.wall));
        let submitted = now - age;
        self.pins[pin] = Some(Watched {
            submitted,
            deadline: submitted + lifetime.unwrap_or_default(),
            since: now,
            resumed,
            polls: 0,
            poll: None,
            last_answer: None,
            last_sent: None,
            row: Row::default(),
            was_throttled: false,
            last_429: None,
            own_wait: Time::ZERO,
            has_verdict: false,
        });
    }

    /// The store told the process that it has the outcome.
    pub fn finished(&mut self, pin: usize) {
        self.pins[pin] = None;
    }

    pub fn poll_starts(
        &mut self,
        plan: &Plan,
        (id, pin): (u64, usize),
        ticket: &Ticket,
        running: usize,
        now: Time,
    ) -> Result<(), Broken> {
        let Some(watched) = &mut self.pins[pin] else {
            return Err(format!("PIN {pin} is polled and is not in flight"));
        };
        if watched.has_verdict {
            return Err(format!("PIN {pin} is polled after its outcome"));
        }
        if watched.poll.is_some() {
            return Err(format!("PIN {pin} is polled twice at once"));
        }
        if running >= plan.concurrency {
            return Err(format!(
                "{} polls at once, and api.concurrency is {}",
                running + 1,
                plan.concurrency
            ));
        }
        let soonest = match (watched.last_answer, watched.resumed) {
            (Some(last), _) => last + self.intervals.shortest(last.saturating_sub(watched.submitted)),
            (None, false) => watched.since + self.intervals.first(),
            (None, true) => Time::ZERO,
        };
        let had_last_poll = watched.last_sent.is_some_and(|sent| sent >= watched.deadline);
        let is_retried_late =
            had_last_poll && watched.last_answer.is_some_and(|last| now < last + LATE_AGAIN);
        let is_too_soon = now < soonest && (now < watched.deadline || is_retried_late);
        let is_last_chance = now >= watched.deadline + plan.schedule.deadline_grace;
        let is_for_all = ticket.probe || ticket.check;
        if (is_too_soon || now < watched.own_wait) && !is_last_chance && !is_for_all {
            let soonest = soonest.max(watched.own_wait);
            return Err(format!("PIN {pin} is polled {:?} too soon", soonest.saturating_sub(now)));
        }
        if watched.polls == 0 && watched.resumed && now < self.start.0 + START {
            self.start.1 += 1;
            if f64::from(self.start.1) > self.start.2 {
                return Err(format!("a storm after the start: {} polls in {START:?}", self.start.1));
            }
        }
        self.pauses.poll_starts(id, (pin, watched.since));
        watched.polls += 1;
        watched.poll = Some((id, now));
        watched.last_sent = Some(now);
        self.poll_keeps_rate(plan, now)?;
        self.poll_keeps_brake(id, now)
    }

    fn poll_keeps_rate(&mut self, plan: &Plan, now: Time) -> Result<(), Broken> {
        let Some(rate) = plan.rate.map(u32::from) else { return Ok(()) };
        while self.recent.front().is_some_and(|earliest| *earliest + SECOND <= now) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let most = rate + (rate / 10).max(1);
        if self.recent.len() > most as usize {
            return Err(format!("{} polls within a second, and api.rate is {rate}", self.recent.len()));
        }
        Ok(())
    }

    /// What 429s and brakes took from the rate comes back.
    pub fn rate_recovers(&self, plan: &Plan, rate: Option<f64>, now: Time) -> Result<(), Broken> {
        let limited = self.last_429.max(self.off.0).max(self.start.0);
        let (Some(configured), Some(rate)) = (plan.rate, rate) else { return Ok(()) };
        let is_back = self.brake.is_some() || rate >= f64::from(configured.get());
        if is_back || now < limited + RECOVERED {
            return Ok(());
        }
        Err(format!(
            "{:?} after the last 429 the rate is {rate}, and api.rate is {configured}",
            now - limited
        ))
    }

    fn poll_keeps_brake(&mut self, id: u64, now: Time) -> Result<(), Broken> {
        if now < self.left_alone_until {
            return Err(format!(
                "a poll {:?} before the time that a 429 asked for is over",
                self.left_alone_until - now
            ));
        }
        if self.brake.is_some() && self.probe.replace(id).is_some() {
            return Err("a second probe while the brake is on".to_owned());
        }
        if self.brake.is_none() && now < self.off.0 + SECOND {
            self.off.1 += 1;
            if self.off.1 > RAMP {
                return Err(format!("a storm: {} polls in the second after a brake went off", self.off.1));
            }
        }
        Ok(())
    }

    /// What the schedule made of an answer. `pin` is still the one that was polled.
    pub fn answered(
        &mut self,
        plan: &Plan,
        (id, pin): (u64, usize),
        (truth, meaning, connection): (&Truth, &Meaning, Connection),
        (pin_history, verdict): (&PinHistory, Option<&Verdict>),
        brake: Option<Reason>,
        clocks: &Clocks,
    ) -> Result<(), Broken> {
        let now = clocks.now();
        if !means(truth, meaning) {
            return Err(format!("{truth:?} is understood as {meaning:?}"));
        }
        let was_throttled = self.pins[pin].as_ref().is_some_and(|pin| pin.gets_429s(now));
        self.pauses.answered(id, meaning, id > self.renewed_after, now);
        if brake == Some(Reason::Outage) && self.brake.is_none() {
            self.pauses.outage_begins(now)?;
        }
        if brake.is_some() && brake != self.brake {
            self.is_for_all(pin, truth, brake, now)?;
        }
        match truth {
            Truth::Throttled(_) => {
                note_last(&mut self.throttled, pin, now);
                self.last_429 = now;
            }
            Truth::Unauthorized => note_last(&mut self.refused, pin, now),
            _ => {}
        }
        self.brake_learns(plan, id, (truth, was_throttled), brake, clocks)?;
        let is_alone = self.in_flight() <= 1;
        let others = self.readable.iter().flatten().find(|(other, _)| *other != pin).map(|(_, at)| *at);
        if let Truth::Deliveries { .. } = truth {
            note_last(&mut self.readable, pin, now);
            let sent = self.pins[pin].as_ref().and_then(|watched| watched.last_sent);
            for refused in &mut self.refused {
                *refused = refused.filter(|(_, at)| sent.is_none_or(|sent| sent <= *at));
            }
        }
        // It can be gone, by a cancel, and can even be here anew.
        let Some(watched) =
            self.pins[pin].as_mut().filter(|watched| watched.poll.is_some_and(|poll| poll.0 == id))
        else {
            return verdict.map_or(Ok(()), |_| Err(format!("a verdict for PIN {pin}, which has one")));
        };
        let sent = watched.poll.take().map_or(now, |(_, sent)| sent);
        watched.last_answer = Some(now);
        let is_new = id > self.renewed_after;
        if is_new {
            watched.row.add(truth, connection, (others, is_alone), now);
            watched.own_wait = Time::ZERO;
            if let (Meaning::Throttled(wait), true, None) = (meaning, was_throttled, brake) {
                watched.own_wait = now + *wait;
            }
            if !matches!(truth, Truth::NotSent) {
                watched.was_throttled = matches!(truth, Truth::Throttled(_));
                if watched.was_throttled {
                    watched.last_429 = Some(now);
                }
            }
        }
        let is_heard = is_new || matches!(truth, Truth::Deliveries { .. });
        let ending = verdict.map(|verdict| verdict.ending);
        if watched.has_verdict || !is_heard {
            if ending.is_some() {
                return Err(format!("PIN {pin} gets {ending:?} by an answer that says nothing"));
            }
        } else {
            let (row, deadline, is_braked) = (&watched.row, watched.deadline, brake.is_some());
            let known = Known { truth, row, sent, deadline, others, is_alone, is_braked, was_throttled };
            judge(plan, &known, ending, now).map_err(|broken| format!("PIN {pin}: {broken}"))?;
            // The promise behind the rules: no PIN that the API knows ends as one that it refuses, unless nobody was
            // answered for the whole grace, or it met one bad time after the other.
            let is_wrong =
                matches!(ending, Some(Ending::NotFound | Ending::Rejected)) && pin_history.is_sound();
            let turned = plan.conditions.since(clocks.truth()).saturating_sub(clocks.suspended());
            let is_fair = plan.conditions.at(clocks.truth()) == Condition::Normal;
            let was_answered = others.is_some_and(|at| !watched.row.began_after(at));
            if is_wrong && was_answered && (is_fair || watched.row.began_after(turned)) {
                return Err(format!("PIN {pin} is well known to the API, and ends {ending:?}"));
            }
        }
        let Some(watched) = self.pins[pin].as_mut() else { return Ok(()) };
        if let Some(verdict) = verdict {
            watched.has_verdict = true;
            if verdict.polls != watched.polls {
                return Err(format!("PIN {pin} had {} polls and says {}", watched.polls, verdict.polls));
            }
            let seen = verdict.deliveries.as_deref().unwrap_or_default();
            if let Truth::Deliveries { reported, .. } = truth
                && !reported.is_empty()
                && !same(reported, seen)
            {
                return Err(format!("PIN {pin} is reported as {reported:?} and its outcome has {seen:?}"));
            }
        }
        Ok(())
    }

    /// A cancel that made a verdict.
    pub fn cancelled(&mut self, pin: usize, verdict: &Verdict) -> Result<(), Broken> {
        let news = self.pins[pin].as_mut().is_some_and(|pin| !std::mem::replace(&mut pin.has_verdict, true));
        if !news || verdict.ending != Ending::Cancelled {
            return Err(format!("a cancel of PIN {pin} gives it the outcome {}", verdict.ending));
        }
        Ok(())
    }

    /// The task gave up a PIN without a poll.
    pub fn expired(&mut self, plan: &Plan, pin: usize, verdict: &Verdict, now: Time) -> Result<(), Broken> {
        let Some(watched) = self.pins[pin].as_mut().filter(|watched| !watched.has_verdict) else {
            return Err(format!("PIN {pin} expired and has its outcome"));
        };
        watched.has_verdict = true;
        let is_over = now >= watched.deadline + plan.schedule.deadline_grace;
        if !is_over || verdict.ending != Ending::Deadline {
            return Err(format!("PIN {pin} is given up too soon: {watched:?}"));
        }
        Ok(())
    }

    /// Whether a brake that goes on by this answer has the trouble of more than one PIN as its reason.
    fn is_for_all(&self, pin: usize, truth: &Truth, brake: Option<Reason>, now: Time) -> Result<(), Broken> {
        let is_alone = self.in_flight() <= 1;
        if brake == Some(Reason::Unauthorized)
            && !is_alone
            && self.refused.iter().flatten().all(|(other, _)| *other == pin)
        {
            return Err(format!("PIN {pin} alone is refused, and all polling pauses"));
        }
        let last = |pairs: &[Option<(usize, Time)>; 2], is_wanted: &dyn Fn(usize) -> bool| {
            pairs.iter().flatten().find(|(pin, _)| is_wanted(*pin)).map(|(_, at)| *at)
        };
        let Some(own) = last(&self.throttled, &|other| other == pin) else { return Ok(()) };
        let others = last(&self.throttled, &|other| other != pin);
        let is_own = self.pins[pin].as_ref().is_some_and(|watched| watched.gets_429s(now))
            && last(&self.readable, &|other| other != pin).is_some_and(|at| at > own)
            && others.is_none_or(|at| now > at + NO_NEWS);
        if brake == Some(Reason::Throttled)
            && matches!(truth, Truth::Throttled(_))
            && is_own
            && self.probe.is_none()
        {
            return Err(format!("PIN {pin} alone is throttled, and all polling pauses"));
        }
        Ok(())
    }

    /// No PIN is in flight past its deadline and grace.
    pub fn every_pin_ends(&self, plan: &Plan, now: Time) -> Result<(), Broken> {
        let end =
            |pin: &Watched| pin.deadline.max(pin.since) + plan.schedule.deadline_grace + 2 * EXPIRE_EVERY;
        let mut overdue =
            self.pins.iter().enumerate().filter_map(|(pin, watched)| Some((pin, watched.as_ref()?)));
        match overdue.find(|(_, watched)| !watched.has_verdict && now > end(watched)) {
            Some((pin, watched)) => Err(format!("PIN {pin} has no end: {watched:?}")),
            None => Ok(()),
        }
    }

    /// The PIN as it came last.
    pub fn known(&self, pin: usize) -> Option<KnownPin> {
        self.pins[pin].as_ref().map(|watched| (pin, watched.since))
    }

    /// PINs that may be polled some day.
    pub fn open(&self) -> impl Iterator<Item = KnownPin> + '_ {
        let open = |watched: &&Watched| !watched.has_verdict;
        self.pins
            .iter()
            .enumerate()
            .filter_map(move |(pin, watched)| Some((pin, watched.as_ref().filter(open)?.since)))
    }

    /// Whether the next poll is a probe.
    pub fn is_braked(&self) -> bool {
        self.brake.is_some()
    }

    fn in_flight(&self) -> usize {
        self.pins.iter().flatten().filter(|pin| !pin.has_verdict).count()
    }

    fn brake_learns(
        &mut self,
        plan: &Plan,
        id: u64,
        (truth, was_throttled): (&Truth, bool),
        brake: Option<Reason>,
        clocks: &Clocks,
    ) -> Result<(), Broken> {
        let now = clocks.now();
        if id <= self.renewed_after {
            let is_same = brake == self.brake;
            return is_same
                .then_some(())
                .ok_or_else(|| "an answer of the old account moves the brake".to_owned());
        }
        let is_probe = self.probe == Some(id);
        if is_probe {
            self.probe = None;
        } else if self.brake.is_some() && brake.is_none() {
            return Err("a brake went off, and not by its probe".to_owned());
        }
        if self.brake.is_some() && brake.is_none() {
            self.off = (now, 0);
            self.pauses.brake_goes_off();
        }
        let is_new = brake.is_some() && brake != self.brake;
        self.brake = brake;
        let wait = match truth {
            Truth::Throttled(Wait::For(wait)) => *wait,
            Truth::Throttled(Wait::Until(time)) => {
                Duration::try_from(time.duration_since(clocks.wall())).unwrap_or_default()
            }
            _ => Duration::ZERO,
        };
        if is_new || is_probe {
            self.free_from = self.free_from.max(now + PROBE_INTERVAL + plan.timeout);
        }
        if let Truth::Throttled(_) = truth {
            let wait = wait.clamp(SHORTEST, LONGEST);
            // A PIN that gets one 429 after the other may be the only one.
            if !was_throttled || brake == Some(Reason::Throttled) && (is_new || is_probe) {
                if brake.is_none() {
                    return Err("a 429 leaves the brake off".to_owned());
                }
                self.free_from = self.free_from.max(now + wait + plan.timeout);
                self.was_throttled = true;
                self.left_alone_until = self.left_alone_until.max(now + wait);
            }
        }
        if matches!(truth, Truth::NotSent) && brake.is_none() {
            return Err("a machine that can't send goes on polling".to_owned());
        }
        Ok(())
    }

    /// What is known of the brake before polls are started.
    pub fn brake_is(&mut self, brake: Option<Reason>) {
        self.brake = brake;
    }

    /// Where the core has each PIN is a place from which it goes on.
    pub fn goes_on(&self, pin: usize, standing: Standing, now: Time, in_store: bool) -> Result<(), Broken> {
        let Some(watched) = &self.pins[pin] else {
            return Err(format!("PIN {pin} is in flight, and the schedule was never told"));
        };
        let longest = self.intervals.longest(now.saturating_sub(watched.submitted));
        let longest = longest.max(watched.own_wait.saturating_sub(now));
        let is_well = match standing {
            Standing::Absent => false,
            Standing::Waiting { due } => !watched.has_verdict && due <= now + longest,
            Standing::Polling => watched.poll.is_some(),
            Standing::Finishing => watched.has_verdict && in_store,
        };
        if is_well { Ok(()) } else { Err(format!("PIN {pin} is stuck: {standing:?}, {watched:?}")) }
    }
}
