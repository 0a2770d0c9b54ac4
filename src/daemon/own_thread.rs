//! Runs a part of the daemon on a thread and a runtime of its own.
//!
//! The schedule is always busy: on a shared runtime it would wake once per API answer and wait behind other tasks. Promises
//! that the part ends when its owner drops it, and that its panic reaches the owner.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;

use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// Runs the future that `work` makes to its end. If this is dropped first, that future is dropped at its next await.
///
/// # Errors
/// The system has no thread or no event queue left for it.
pub async fn on_own_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> io::Result<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let dropped = CancellationToken::new();
    let _guard = dropped.clone().drop_guard();
    let thread = spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(dropped.run_until_cancelled(async { work().await }));
        // Dropping the runtime would wait for a running name lookup.
        runtime.shutdown_background();
        ended.ok_or_else(|| io::ErrorKind::Interrupted.into())
    });
    thread.await.unwrap_or_else(|failure| match failure.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(failure) => Err(io::Error::other(failure)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_dropped_task_on_its_own_thread_ends() {
        let (begun, has_begun) = oneshot::channel();
        let (held, is_gone) = oneshot::channel::<()>();
        let mut parts = JoinSet::new();
        parts.spawn(on_own_thread(move || async move {
            let _held = held;
            let _ = begun.send(());
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }));
        has_begun.await.unwrap();
        drop(parts);
        is_gone.await.unwrap_err();
    }

    #[tokio::test]
    async fn the_panic_of_a_task_on_its_own_thread_reaches_its_owner() {
        let mut parts = JoinSet::new();
        parts.spawn(on_own_thread(|| async { panic!("as a bug would") }));
        let ended: Result<io::Result<()>, _> = parts.join_next().await.unwrap();
        assert!(ended.unwrap_err().is_panic());
    }
}
