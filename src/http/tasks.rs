//! Owns the tasks that requests need beside their connection's: HTTP/2 has one for each, and a handler may start others.
//!
//! Promises that no task outlives the server: [`Tasks::end`] awaits all of them, and ends those that take too long. Must not
//! know what the tasks do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::error;

/// The tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Mutex<Option<JoinSet<()>>>>);

impl Tasks {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }

    /// Starts a task. After [`Tasks::end`] it is dropped instead.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock();
        let Some(tasks) = tasks.as_mut() else { return };
        // Removes ended tasks, so the set never holds more than ran at the same time.
        while let Some(ended) = tasks.try_join_next() {
            log_if_broken(ended);
        }
        tasks.spawn(task);
    }

    /// Waits for all tasks. After `grace` it ends those that are left, each at its next wait.
    pub async fn end(&self, grace: Duration) {
        let Some(mut tasks) = self.lock().take() else { return };
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                log_if_broken(ended);
            }
        };
        if timeout(grace, ended).await.is_err() {
            tasks.shutdown().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// Logs that a task has panicked.
pub fn log_if_broken(ended: Result<(), JoinError>) {
    if let Err(failure) = ended {
        error!(%failure, "an HTTP connection failed; this is a bug. Only its client is affected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_are_awaited_and_those_that_take_too_long_are_ended() {
        const GRACE: Duration = Duration::from_secs(1);
        let (tasks, alive) = (Tasks::new(), Arc::new(()));
        let lasts = |time: Duration| {
            let alive = alive.clone();
            async move {
                tokio::time::sleep(time).await;
                drop(alive);
            }
        };
        for _ in 0..10 {
            tasks.spawn(lasts(Duration::ZERO));
            tokio::task::yield_now().await;
        }
        assert!(tasks.lock().as_ref().unwrap().len() < 10, "ended tasks are removed");
        tasks.spawn(lasts(GRACE / 2));
        tasks.spawn(lasts(GRACE * 2));
        let begun = tokio::time::Instant::now();
        tasks.end(GRACE).await;
        assert_eq!((begun.elapsed(), Arc::strong_count(&alive)), (GRACE, 1));
        tasks.spawn(lasts(GRACE));
        assert_eq!(Arc::strong_count(&alive), 1, "no task begins after the end");
    }
}
