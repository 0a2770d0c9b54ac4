//! `pinwatch check-config`: reports whether the daemon would accept this configuration, and each value with its origin.

use rustix::process::geteuid;
use serde_json::json;

use super::config;
use super::doctor;
use super::error::CommandError;
use super::exit::Exit;
use super::globals::Globals;
use super::output::{Output, note};
use super::table::Column;
use crate::config::{Config, SinkKind};
use crate::daemon::{self, DaemonError};
use crate::http::{self, tokens::Tokens};
use crate::poll::Client;
use crate::sinks::{Endpoint, FileSink, Trouble};

pub fn run(globals: &Globals, mut output: Output) -> Result<Exit, CommandError> {
    let explained = config::explain_beside_daemon(globals)?;
    build(&explained.config)?;
    let grace = explained.config.shutdown_grace;
    if output.is_json() {
        for setting in &explained.settings {
            let line = json!({"key": setting.key, "value": setting.json(), "origin": setting.origin});
            output.json(line.to_string().as_bytes())?;
        }
    } else {
        let rows: Vec<_> = explained
            .settings
            .into_iter()
            .map(|setting| [setting.key, setting.value, setting.origin])
            .collect();
        let value = Column::new("VALUE", 2).down_to(20);
        output.table([Column::new("KEY", 1), value, Column::new("ORIGIN", 3).down_to(12)], &rows)?;
    }
    let stop = daemon::needed_unit_timeout(grace).map(|wanted| {
        format!(
            "a stop may take {wait} s with this shutdown_grace: under systemd set TimeoutStopSec={wait} in a drop-in \
             (systemctl edit pinwatch), or it may kill the daemon earlier",
            wait = wanted.as_secs()
        )
    });
    let warnings = explained.warnings.iter().map(ToString::to_string);
    for warning in stop.into_iter().chain(warnings) {
        if output.is_json() {
            output.json(json!({"warning": warning}).to_string().as_bytes())?;
        }
        note(format_args!("warning: {warning}"));
    }
    output.flush()?;
    match explained.file {
        Some(file) => note(format_args!("the configuration is good; it was read from {}", file.display())),
        None => note("the configuration is good; no file was read"),
    }
    Ok(Exit::Done)
}

/// Does what a start does with a configuration before it opens anything: reads `api.ca_file`, the system's certificates, the
/// TLS files and the tokens of `[http]`, and checks the sinks' paths. Makes no connection.
fn build(config: &Config) -> Result<(), CommandError> {
    Client::new(&config.api).map_err(DaemonError::Client)?;
    http::Tls::open(&config.http).map_err(DaemonError::TlsFiles)?;
    let daemon = doctor::daemon_user().map_or(geteuid().as_raw(), |(uid, _)| uid);
    if let Some(file) = &config.http.tokens_file {
        Tokens::read_for(file, daemon).map_err(DaemonError::Tokens)?;
    }
    for sink in &config.sinks {
        let checked = match &sink.kind {
            SinkKind::Stdout => Ok(()),
            SinkKind::File { path, .. } => FileSink::check(path, daemon).map_err(|found| found.to_string()),
            SinkKind::Webhook(webhook) => {
                Endpoint::new(webhook).map(|_| ()).map_err(|error| error.to_string())
            }
        };
        checked
            .map_err(|what| DaemonError::Sink { name: sink.name.clone(), trouble: Trouble::Closed(what) })?;
    }
    Ok(())
}
