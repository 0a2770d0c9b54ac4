//! Monitors whether the schedule and the store's writer make progress, by asking both again and again.
//!
//! Promises that reading the result never waits, whatever the parts are doing. Health and the watchdog act on it; this
//! module does not.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::schedule::{Schedule, Stats};
use crate::store::Writer;

/// When each part last answered.
#[derive(Debug, Clone)]
pub struct Beats {
    pub schedule: Instant,
    pub writer: Instant,
    /// The schedule's last answer; `None` before the first one.
    pub stats: Option<Stats>,
}

/// Reads the heartbeats. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pulse(watch::Receiver<Beats>);

impl Pulse {
    /// A pulse that counts as good now, and the future that keeps asking the parts, with a pause of `every` after each
    /// answer, until `stop`.
    pub fn of(
        schedule: Schedule,
        writer: Writer,
        every: Duration,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let now = Instant::now();
        let (beats, seen) = watch::channel(Beats { schedule: now, writer: now, stats: None });
        let keep_up = async move {
            let asking = async {
                tokio::join!(ask_schedule(&schedule, &beats, every), ask_writer(&writer, &beats, every))
            };
            stop.run_until_cancelled(asking).await;
        };
        (Self(seen), keep_up)
    }

    /// The last heartbeats.
    pub fn beats(&self) -> Beats {
        self.0.borrow().clone()
    }
}

impl Beats {
    /// The parts that have not answered for `limit`.
    pub fn silent(&self, limit: Duration) -> impl Iterator<Item = &'static str> + use<> {
        let parts = [("schedule", self.schedule), ("writer", self.writer)];
        parts.into_iter().filter(move |(_, beat)| beat.elapsed() > limit).map(|(part, _)| part)
    }
}

async fn ask_schedule(schedule: &Schedule, beats: &watch::Sender<Beats>, every: Duration) {
    // The schedule's owner notices its end.
    while let Ok(stats) = schedule.stats().await {
        beats.send_modify(|beats| {
            beats.schedule = Instant::now();
            beats.stats = Some(stats);
        });
        sleep(every).await;
    }
}

async fn ask_writer(writer: &Writer, beats: &watch::Sender<Beats>, every: Duration) {
    loop {
        // A writer that can't write still answers, so it is alive.
        let _ = writer.flush().await;
        beats.send_modify(|beats| beats.writer = Instant::now());
        sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::schedule::{Ask, Event};
    use crate::store::{Applied, Committed, Transaction, Unavailable, Writes};

    const SECOND: Duration = Duration::from_secs(1);

    /// A database that never answers.
    struct Still;

    #[async_trait]
    impl Writes for Still {
        fn in_flight(&self) -> usize {
            0
        }

        fn last_seq(&self) -> i64 {
            0
        }

        async fn apply(&mut self, _: &Transaction, _: usize) -> Result<Applied, Unavailable> {
            std::future::pending().await
        }

        async fn register_sink(&mut self, _: &str, _: bool) -> Result<i64, Unavailable> {
            std::future::pending().await
        }

        async fn close(self: Box<Self>) -> Result<(), Unavailable> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_task_is_named_after_its_time_limit_and_nobody_waits_for_it() {
        let (schedule, _, mut events) = Schedule::channel();
        let (committed, _) = mpsc::channel::<Committed>(1);
        let (writer, task) = Writer::new(Box::new(Still), committed, 1);
        let writing = tokio::spawn(task.run());
        // A write that never ends.
        writer.claim(crate::slot::Slots::ALL);
        let stop = CancellationToken::new();
        let (pulse, keep_up) = Pulse::of(schedule, writer, SECOND, stop.clone());
        let keeping_up = tokio::spawn(keep_up);
        let answering = tokio::spawn(async move {
            let mut asked = 0;
            while let Some(Event::Ask(Ask::Stats(reply))) = events.recv().await {
                asked += 1;
                let _ = reply.send(Stats { in_flight: asked, ..Stats::default() });
            }
        });
        assert_eq!(pulse.beats().silent(SECOND).count(), 0);
        sleep(10 * SECOND).await;
        let beats = pulse.beats();
        assert_eq!(beats.silent(5 * SECOND).collect::<Vec<_>>(), ["writer"]);
        assert!(
            beats.stats.is_some_and(|stats| stats.in_flight >= 10),
            "the schedule's last answer is known"
        );
        answering.abort();
        sleep(10 * SECOND).await;
        assert_eq!(pulse.beats().silent(5 * SECOND).collect::<Vec<_>>(), ["schedule", "writer"]);
        stop.cancel();
        keeping_up.await.unwrap();
        writing.abort();
    }
}
