//! Makes the task of one sink from its configuration.
//!
//! Promises that nothing is delivered before the task runs, so that an opened sink can be dropped without a trace.

use std::pin::Pin;

use super::DaemonError;
use crate::config::{self, SinkKind};
use crate::sinks::{Dispatcher, Endpoint, FileSink, Ordered, Outbox, StdoutSink, Trouble, run_webhook};

/// The task of a sink. It delivers nothing before it is polled.
pub type SinkTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a sink starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It has never had an outcome.
    New,
    /// At the cursor that the store has.
    AtCursor,
    /// It ran before in this process. Its task opens it, and tries again until that succeeds.
    Again,
}

/// Opens a sink. Does not contact a webhook's endpoint, which may be down.
///
/// # Errors
/// It can't be written, or a webhook's client can't be made.
pub async fn open(config: &config::Sink, outbox: Outbox, start: Start) -> Result<SinkTask, DaemonError> {
    let name = outbox.name.clone();
    let opened = match &config.kind {
        SinkKind::Stdout => open_ordered(StdoutSink, outbox, start).await,
        SinkKind::File { path, fsync, others } => {
            let sink = FileSink::new(path.clone(), *fsync, others, start == Start::New);
            open_ordered(sink, outbox, start).await
        }
        SinkKind::Webhook(webhook) => match Endpoint::new(webhook) {
            Ok(endpoint) => Ok(Box::pin(run_webhook(endpoint, outbox)) as SinkTask),
            Err(error) => Err(Trouble::Closed(error.to_string())),
        },
    };
    opened.map_err(|trouble| DaemonError::Sink { name, trouble })
}

async fn open_ordered(sink: impl Ordered, outbox: Outbox, start: Start) -> Result<SinkTask, Trouble> {
    let mut dispatcher = Dispatcher { sink, outbox };
    if start == Start::Again {
        return Ok(Box::pin(dispatcher.open_and_run()));
    }
    dispatcher.open().await?;
    Ok(Box::pin(dispatcher.run()))
}
