//! Asks the daemon: for its statistics once a second, and for the first PINs in flight when told to.
//!
//! Promises to continue once a daemon that ended is back, until the caller is gone. Must not know how anything is
//! shown.

use std::path::Path;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::REFRESH;
use super::state::{Known, PINS, Update};
use crate::commands::client::{self, Client, ClientError};
use crate::commands::reconnect::Reconnect;
use crate::protocol::{Raw, list, stats};

/// Sends updates until the receiver is gone. Each message in `fetches` requests the PINs.
pub async fn feed(
    socket: &Path,
    mut client: Client,
    updates: mpsc::Sender<Update>,
    mut fetches: mpsc::Receiver<()>,
) {
    let mut reconnect = Reconnect::new();
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let answered = tokio::select! {
            _ = ticks.tick() => stats(&mut client).await.map(|(_, update)| update),
            Some(()) = fetches.recv() => pins(&mut client).await,
        };
        let update = answered.unwrap_or_else(|error| Update::Lost(error.to_string()));
        let is_lost = matches!(update, Update::Lost(_));
        if updates.send(update).await.is_err() {
            return;
        }
        if is_lost {
            // Closes the old connection before it opens a new one.
            drop(client);
            client = reconnect.quietly(socket).await;
        }
    }
}

/// Asks for the statistics; returns them as received, and as an update.
pub async fn stats(client: &mut Client) -> Result<(Raw<stats::Stats>, Update), ClientError> {
    let stats::Answer { stats: raw } = client.ask(&stats::Request {}).await?;
    let stats = client::read(&raw)?;
    let sinks = stats.sinks.iter().map(|(name, sink)| Ok((name.clone(), client::read(sink)?)));
    let sinks = sinks.collect::<Result<_, ClientError>>()?;
    let known = Known { stats, sinks, at: Instant::now() };
    Ok((raw, Update::Stats(Box::new(known))))
}

/// Asks for the first PINs in flight.
pub async fn pins(client: &mut Client) -> Result<Update, ClientError> {
    let page = client.ask(&list::Request { limit: Some(PINS), ..list::Request::default() }).await?;
    let pins = page.pins.iter().map(client::read).collect::<Result<_, _>>()?;
    Ok(Update::Pins { pins, is_all: page.next.is_none(), at: jiff::Timestamp::now() })
}
