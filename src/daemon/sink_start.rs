//! Makes the task of one sink from its configuration.
//!
//! Promises that nothing is delivered before the task runs, so that an opened sink can be dropped without a trace.

use std::pin::Pin;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use crate::clock::Clock;
use crate::config::{self, SinkKind, Webhook};
use crate::sinks::{
    Dispatcher, Endpoint, FileSink, Handover, Health, Ordered, StdoutSink, Trouble, WebhookSink,
};
use crate::store::{Store, Writer};

/// What every sink needs.
#[derive(Clone)]
pub struct Outbox {
    pub cursor: i64,
    /// Whether the cursor is new, so that nothing was delivered yet.
    pub is_new: bool,
    pub store: Store,
    pub writer: Writer,
    pub clock: Clock,
    pub health: Health,
    pub rotate: watch::Receiver<u64>,
    pub finish: CancellationToken,
    pub handover: Handover,
}

/// The task of a sink. It delivers nothing before it is polled.
pub type SinkTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens a sink.
///
/// # Errors
/// It can't be written.
pub async fn open(config: &config::Sink, outbox: Outbox) -> Result<SinkTask, DaemonError> {
    match &config.kind {
        SinkKind::Stdout => open_ordered(config, StdoutSink, outbox).await,
        SinkKind::File { path, fsync, others } => {
            let sink = FileSink::new(path.clone(), *fsync, others, outbox.is_new);
            open_ordered(config, sink, outbox).await
        }
        SinkKind::Webhook(webhook) => webhook_task(config, webhook, outbox),
    }
}

/// Restarts a sink that ran before. Its task opens it, and tries again until that succeeds.
///
/// # Errors
/// A webhook's client can't be made.
pub fn open_again(config: &config::Sink, outbox: Outbox) -> Result<SinkTask, DaemonError> {
    Ok(match &config.kind {
        SinkKind::Stdout => Box::pin(dispatcher(config, StdoutSink, outbox).open_and_run()),
        SinkKind::File { path, fsync, others } => {
            let sink = FileSink::new(path.clone(), *fsync, others, outbox.is_new);
            Box::pin(dispatcher(config, sink, outbox).open_and_run())
        }
        SinkKind::Webhook(webhook) => webhook_task(config, webhook, outbox)?,
    })
}

async fn open_ordered(
    config: &config::Sink,
    sink: impl Ordered,
    outbox: Outbox,
) -> Result<SinkTask, DaemonError> {
    let mut dispatcher = dispatcher(config, sink, outbox);
    let opened = dispatcher.open().await;
    opened.map_err(|trouble| DaemonError::Sink { name: config.name.clone(), trouble })?;
    Ok(Box::pin(dispatcher.run()))
}

fn dispatcher<S: Ordered>(config: &config::Sink, sink: S, outbox: Outbox) -> Dispatcher<S> {
    let Outbox { cursor, is_new: _, store, writer, clock, health, rotate, finish, handover } = outbox;
    let name = config.name.clone();
    Dispatcher { name, sink, cursor, store, writer, clock, health, rotate, finish, handover }
}

/// Does not contact the endpoint, which may be down.
fn webhook_task(config: &config::Sink, webhook: &Webhook, outbox: Outbox) -> Result<SinkTask, DaemonError> {
    let name = config.name.clone();
    let endpoint = Endpoint::new(webhook).map_err(|error| DaemonError::Sink {
        name: name.clone(),
        trouble: Trouble::Closed(error.to_string()),
    })?;
    let Outbox { cursor, is_new: _, store, writer, clock, health, rotate: _, finish, handover } = outbox;
    Ok(Box::pin(WebhookSink { name, endpoint, cursor, store, writer, clock, health, finish, handover }.run()))
}
