//! What the daemon's task does around the core while the process runs: it starts polls, passes on answers, and
//! sends verdicts and brakes to the store.

use std::time::Duration;

use super::super::clocks::Time;
use super::super::daemon::{Daemon, EXPIRE_EVERY, Standing};
use super::super::oracle::Broken;
use super::super::pauses::Known;
use super::super::pin_history::{number, pin_id};
use super::super::plan::PlannedEvent;
use super::{Event, Running, Simulation};

impl Simulation {
    /// As the daemon's task does: starts every poll that is due and admitted; gives when to look again.
    pub(super) fn start_polls(&mut self) -> Result<Option<Time>, Broken> {
        let now = self.clocks.now();
        self.save_brake();
        while self.running.len() < self.plan.concurrency {
            let Some(daemon) = &mut self.daemon else { return Ok(None) };
            self.oracle.brake_is(daemon.brake());
            let (ticket, pin) = match daemon.next_poll() {
                Ok(next) => next,
                Err(wake) => {
                    let is_idle = self.running.is_empty() && daemon.waiting() > 0;
                    if wake.is_some_and(|wake| wake <= now) {
                        return Err("the schedule wants to be woken at once, for ever".to_owned());
                    }
                    if wake.is_none() && is_idle {
                        return Err(format!("{} PINs wait, and for nothing", daemon.waiting()));
                    }
                    return Ok(wake);
                }
            };
            self.next_id += 1;
            let id = self.next_id;
            self.oracle.poll_starts(&self.plan, (id, pin), &ticket, self.running.len(), now)?;
            self.oracle.rate_recovers(&self.plan, daemon.rate(), now)?;
            if self.oracle.is_braked()
                && let Some(known) = self.oracle.known(pin)
            {
                let waiting =
                    |other: Known| match daemon.standing(&pin_id(other.0).parse().expect("a PIN ID")) {
                        Standing::Waiting { due } => Some((other, due <= now)),
                        Standing::Absent | Standing::Polling | Standing::Finishing => None,
                    };
                let others: Vec<_> = self.oracle.open().filter_map(waiting).collect();
                self.oracle.pauses.probe_starts(known, others.into_iter())?;
            }
            let truth = self.clocks.truth();
            let reply = self.api.ask(&self.plan, pin, ticket.connection, truth, &mut self.rng);
            self.totals.polls += 1;
            self.totals.tell(pin as u64, now);
            if let Some(fault) = reply.fault {
                self.totals.fault(fault);
            }
            self.note(|_| format!("poll {id} of PIN {pin} will be answered {:?}", reply.truth));
            let takes = reply.takes.max(Duration::from_micros(100));
            self.at(now + takes, Event::PollEnds(id));
            if self.rng.u32(..300) == 0 {
                self.withdraw_during_poll(pin, now, takes);
            }
            self.running.insert(id, Running { ticket, pin, reply });
        }
        Ok(None)
    }

    /// Somebody withdraws the PIN while its poll is under way, and may submit it again before that ends.
    fn withdraw_during_poll(&mut self, pin: usize, now: Time, takes: Duration) {
        self.left += 1;
        self.at(now + takes / 4, Event::Planned(PlannedEvent::Cancel { pin }));
        if self.rng.bool() {
            self.left += 1;
            self.at(now + takes / 2, Event::Planned(PlannedEvent::Submit { pin, again: true }));
        }
    }

    pub(super) fn poll_ends(&mut self, id: u64) -> Result<(), Broken> {
        // It was lost with its process.
        let Some(Running { ticket, pin, reply }) = self.running.remove(&id) else { return Ok(()) };
        let meaning = reply.meaning(self.clocks.wall());
        let daemon = self.daemon.as_mut().expect("polls end with their process");
        let connection = ticket.connection;
        let verdict = daemon.answered(ticket, meaning.clone());
        self.totals.tell(id, self.clocks.now());
        let (answer, brake) = ((&reply.truth, &meaning, connection), daemon.brake());
        let made = (&self.plan.pins[pin].pin_history, verdict.as_ref());
        self.oracle.answered(&self.plan, (id, pin), answer, made, brake, &self.clocks)?;
        if let Some(verdict) = verdict {
            let Self { fairness, plan, api, store, oracle, clocks, totals, .. } = self;
            totals.found_in_time += u64::from(fairness.check(pin, plan, api, store, oracle, clocks.now())?);
            self.finish(verdict);
        }
        Ok(())
    }

    pub(super) fn expire(&mut self) -> Result<(), Broken> {
        let now = self.clocks.now();
        self.at(now + EXPIRE_EVERY, Event::Expire);
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        for verdict in daemon.expired() {
            self.oracle.expired(&self.plan, number(verdict.pin.as_str()), &verdict, now)?;
            self.totals.expired += 1;
            self.finish(verdict);
        }
        self.oracle.every_pin_ends(&self.plan, now)
    }

    fn save_brake(&mut self) {
        if let Some(brake) = self.daemon.as_mut().and_then(Daemon::unsaved) {
            self.store.save_brake(brake);
            self.oracle.brake_handed_over(&self.clocks);
            self.commit_soon();
        }
    }
}
