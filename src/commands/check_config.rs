//! `pinwatch check-config`: whether the daemon would take this configuration, and each value with its origin.

use serde_json::json;

use super::cli::Globals;
use super::config;
use super::error::CommandError;
use super::exit::Exit;
use super::human;
use super::output::{Output, note};
use crate::config::{Config, SinkKind};
use crate::daemon::{self, DaemonError};
use crate::poll::Client;
use crate::sinks::{Endpoint, Trouble};

pub fn run(globals: &Globals, mut output: Output) -> Result<Exit, CommandError> {
    let explained = config::explain_beside_daemon(globals)?;
    build(&explained.config)?;
    let grace = explained.config.shutdown_grace;
    if output.is_json() {
        for setting in &explained.settings {
            let line =
                json!({"key": setting.key, "value": setting.value, "origin": setting.origin}).to_string();
            output.json(line.as_bytes())?;
        }
    } else {
        let rows: Vec<_> = explained
            .settings
            .into_iter()
            .map(|setting| [setting.key, setting.value, setting.origin])
            .collect();
        output.text(&human::table(["KEY", "VALUE", "ORIGIN"], &rows))?;
    }
    output.flush()?;
    if let Some(wanted) = daemon::wanted_of_unit(grace) {
        note(format_args!(
            "a stop may take {wait} s with this shutdown_grace: under systemd set TimeoutStopSec={wait} in a drop-in \
             (systemctl edit pinwatch), or it may kill the daemon before",
            wait = wanted.as_secs()
        ));
    }
    explained.warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
    match explained.file {
        Some(file) => note(format_args!("the configuration is good; it was read from {}", file.display())),
        None => note("the configuration is good; no file was read"),
    }
    Ok(Exit::Done)
}

/// Makes what the start makes of a configuration before it opens anything: reads `api.ca_file` and the system's
/// certificates, and makes no connection.
fn build(config: &Config) -> Result<(), CommandError> {
    Client::new(&config.api).map_err(DaemonError::Client)?;
    for sink in &config.sinks {
        if let SinkKind::Webhook(webhook) = &sink.kind {
            Endpoint::new(webhook).map_err(|error| DaemonError::Sink {
                name: sink.name.clone(),
                trouble: Trouble::Closed(error.to_string()),
            })?;
        }
    }
    Ok(())
}
