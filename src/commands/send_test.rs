//! `pinwatch doctor --send-test`: sends one test delivery to a configured webhook.
//!
//! Promises that the delivery is made like every delivery of the daemon, says that it is a test, and is in no outbox. Prints no
//! secret.

use jiff::Timestamp;
use tokio::time::Instant;

use super::error::CommandError;
use super::finding::Finding;
use super::human;
use crate::config::{Sink, SinkKind};
use crate::sinks::Endpoint;

/// Sends a test delivery to the sink of this name.
///
/// # Errors
/// There is no such sink.
pub async fn send(sinks: &[Sink], name: &str) -> Result<Finding, CommandError> {
    let Some(sink) = sinks.iter().find(|sink| sink.name == name) else {
        let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        let names = names.join(", ");
        return Err(CommandError::Usage(format!("there is no sink {name:?}; the configuration has {names}")));
    };
    let webhook = match &sink.kind {
        SinkKind::Webhook(webhook) => webhook,
        SinkKind::Stdout | SinkKind::File { .. } => {
            let what = format!("there is nothing to send: {name} is no webhook. `pinwatch doctor` checks it");
            return Ok(Finding::ill("send-test", what));
        }
    };
    let begin = Instant::now();
    let sent = match Endpoint::new(webhook) {
        Ok(endpoint) => endpoint.send_test(Timestamp::now()).await,
        Err(error) => Err(error.to_string()),
    };
    let took = human::short(begin.elapsed());
    let signed = if webhook.secrets.is_empty() { "which is not signed" } else { "which is signed" };
    Ok(match sent {
        Ok(status) => {
            let what = format!("{name} accepted a test delivery, {signed}: {status}, after {took}");
            Finding::well("send-test", what)
        }
        Err(failure) => {
            let what = format!(
                "{name} did not accept a test delivery, {signed}: {failure}, after {took}. docs/webhook.md says what an \
                 answer means, and which keys gateways need"
            );
            Finding::ill("send-test", what)
        }
    })
}
