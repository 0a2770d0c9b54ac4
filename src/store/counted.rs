//! Caches how many outcomes before its cursor each sink lacks: those to retry, and dead letters.
//!
//! Counting reads every row of the failed outcomes. So a count is reused for [`GOOD_FOR`] times as long as it took, at most
//! [`LONGEST`]; a delivery command makes it invalid, so the client that sends one sees its effect. Knows nothing of SQL.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Unavailable;

/// How long a count is valid, as a multiple of the time that it took.
const GOOD_FOR: u32 = 20;

/// The longest that a count is valid. A count that had to wait for its database took long, and would be shown for minutes.
const LONGEST: Duration = Duration::from_secs(30);

/// A sink, the number of outcomes that it will be sent again, and the number of its dead letters.
pub type FailedCount = (String, i64, i64);

/// The last count. Cheap to clone.
#[derive(Clone, Default)]
pub struct FailedCounts(Arc<Mutex<Option<Counted>>>);

struct Counted {
    counts: Vec<FailedCount>,
    /// The number of delivery commands carried out before this count.
    commands: u64,
    good_until: Instant,
}

impl FailedCounts {
    /// Returns the counts of each sink, from `count` if the last ones are no longer valid. `commands` is the number of
    /// delivery commands carried out so far. Everybody who asks during a count waits for that count.
    pub async fn get(
        &self,
        commands: u64,
        count: impl Future<Output = Result<Vec<FailedCount>, Unavailable>>,
    ) -> Result<Vec<FailedCount>, Unavailable> {
        let mut last = self.0.lock().await;
        let begun = Instant::now();
        if let Some(last) = last.as_ref().filter(|last| last.commands == commands && begun < last.good_until)
        {
            return Ok(last.counts.clone());
        }
        let counts = count.await?;
        let ended = Instant::now();
        *last = Some(Counted {
            counts: counts.clone(),
            commands,
            good_until: ended + (GOOD_FOR * (ended - begun)).min(LONGEST),
        });
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_count_is_repeated_rarely_and_a_fast_one_each_time() {
        let (counts, counted) = (FailedCounts::default(), AtomicU32::new(0));
        let ask = async |commands, takes| {
            let count = async {
                sleep(takes).await;
                Ok(vec![("hook".to_owned(), 0, i64::from(counted.fetch_add(1, Ordering::Relaxed)))])
            };
            counts.get(commands, count).await.unwrap()[0].2
        };
        let second = Duration::from_secs(1);
        assert_eq!([ask(0, Duration::ZERO).await, ask(0, Duration::ZERO).await], [0, 1]);
        // Everybody who asks during a count gets that count.
        let (a, b, c) = tokio::join!(ask(0, second), ask(0, second), ask(0, second));
        assert_eq!([a, b, c], [2, 2, 2]);
        advance(19 * second).await;
        assert_eq!(ask(0, second).await, 2);
        assert_eq!(ask(1, second).await, 3, "somebody gave a command");
        advance(20 * second).await;
        assert_eq!(ask(1, 30 * second).await, 4, "the database was away meanwhile");
        advance(LONGEST).await;
        assert_eq!(ask(1, second).await, 5);
    }
}
