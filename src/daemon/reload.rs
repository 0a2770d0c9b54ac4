//! Reloads the configuration on SIGHUP, completely or not at all.
//!
//! Promises that a refused configuration changes nothing and the reason is logged, that files are reopened in any case
//! (logrotate asks for that), and that keys which need a restart are named. Every step that can fail comes before those
//! that can't.

use thiserror::Error;
use tracing::{error, info, warn};

use super::sink_set::CantReplace;
use super::warnings::{warn_of_secret, warn_of_unknown_sinks};
use super::{Daemon, Inherited, notify};
use crate::config::{Config, ConfigError, Log, Setting, Sources};
use crate::http::{self, tokens::TokensError};
use crate::poll::ClientError;
use crate::schedule;

/// What the process passes to the daemon besides its configuration.
pub struct Outside {
    /// The sockets that systemd passed.
    pub inherited: Inherited,
    /// Where to read the configuration again.
    pub sources: Sources,
    /// Changes the log level.
    pub set_log: SetLog,
}

/// Changes the log level, or says why it can't.
pub type SetLog = Box<dyn Fn(&Log) -> Result<(), String> + Send + Sync>;

/// Why a reload was refused.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Sinks(#[from] CantReplace),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("log.level: {0}")]
    Log(String),
}

impl Daemon {
    /// Does what SIGHUP asks for.
    pub(super) async fn reload(&mut self) {
        notify::reloading();
        match self.apply_new_configuration().await {
            Ok(()) => {}
            Err(refused) => {
                // One log line per problem.
                for reason in refused.to_string().lines() {
                    error!(
                        reason = reason.trim(),
                        "the configuration was not reloaded, and nothing has changed. `pinwatch check-config` shows more"
                    );
                }
            }
        }
        self.rotate.send_modify(|count| *count += 1);
        info!("the files are reopened");
        notify::ready();
    }

    async fn apply_new_configuration(&mut self) -> Result<(), Refused> {
        let new = Config::explain(&self.outside.sources)?;
        let client = self.services.api.prepare(&new.config.api)?;
        let tokens = http::read_tokens(&new.config.http)?;
        // These steps can fail, and are undone then.
        let prepared = self.sinks.prepare(&new.config.sinks).await?;
        if let Err(problem) = (self.outside.set_log)(&new.config.log) {
            self.sinks.undo(prepared).await;
            return Err(Refused::Log(problem));
        }
        let keys = changed(&self.current.settings, &new.settings);
        let new_key = !new.config.api.credentials.is_same(&self.current.config.api.credentials);
        // These steps can't fail.
        let mut changes = self.sinks.commit(prepared);
        let api = &new.config.api;
        self.services.api.change(client);
        let settings = schedule::Settings {
            schedule: new.config.schedule.clone(),
            rate: api.rate,
            concurrency: api.concurrency,
            renewed: new_key || keys.iter().any(|key| is_of_client(key)),
        };
        // After the client, so that no answer of the old client counts for the new one. If the schedule has ended, the daemon
        // notices by itself.
        let _ = self.services.schedule.reconfigure(settings).await;
        self.deadline.send_replace(new.config.schedule.deadline);
        self.http.renew_tokens(tokens);

        changes.extend(keys.into_iter().filter(|key| !needs_restart(key) && !key.starts_with("sink[")));
        if new_key {
            changes.push("the credentials".to_owned());
        }
        let changes = if changes.is_empty() { "nothing".to_owned() } else { changes.join(", ") };
        info!(changes, "the configuration was reloaded");
        let waiting = changed(&self.at_start, &new.settings);
        let waiting: Vec<_> = waiting.into_iter().filter(|key| needs_restart(key)).collect();
        if !waiting.is_empty() {
            warn!(keys = waiting.join(", "), "these keys have changed, but take effect only after a restart");
        }
        if let Err(unavailable) = warn_of_unknown_sinks(&self.services.store, &new.config.sinks).await {
            warn!(%unavailable, "can't look for cursors of removed sinks");
        }
        new.warnings.iter().for_each(warn_of_secret);
        self.current = new;
        Ok(())
    }
}

/// The keys whose values differ.
fn changed(old: &[Setting], new: &[Setting]) -> Vec<String> {
    let value = |settings: &[Setting], key: &str| {
        settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.clone())
    };
    let mut keys: Vec<String> = old.iter().chain(new).map(|setting| setting.key.clone()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| value(old, key) != value(new, key));
    keys
}

/// Whether a change of this key makes a new client, whose answers may differ.
fn is_of_client(key: &str) -> bool {
    key.starts_with("api.") && !matches!(key, "api.rate" | "api.concurrency")
}

/// Whether a key is read only at the start.
fn needs_restart(key: &str) -> bool {
    let sections = ["store.", "cluster.", "intake.", "http."];
    let is_read_at_start =
        sections.iter().any(|section| key.starts_with(section)) && key != "http.tokens_file";
    is_read_at_start || matches!(key, "shutdown_grace" | "log.format")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str) -> Setting {
        Setting { key: key.into(), value: value.into(), origin: "default".into() }
    }

    #[test]
    fn a_reload_names_the_changed_keys_and_those_that_need_a_restart() {
        let old = [setting("api.rate", "0"), setting("store.url", "\"a\""), setting("log.level", "\"info\"")];
        let new = [setting("api.rate", "5"), setting("store.url", "\"b\""), setting("log.level", "\"info\"")];
        assert_eq!(changed(&old, &new), ["api.rate", "store.url"]);
        assert_eq!(changed(&old, &old), [""; 0]);
        assert_eq!(changed(&old[..1], &old), ["log.level", "store.url"]);
        assert!(needs_restart("store.url") && !needs_restart("api.rate") && needs_restart("log.format"));
    }

    #[test]
    fn every_key_is_either_reloaded_or_needs_a_restart() {
        let reloaded = ["api.", "schedule.", "log.level", "sink.", "http.tokens_file"];
        for key in crate::config::known_keys() {
            let is_reloaded = reloaded.iter().any(|start| key.starts_with(start));
            assert_ne!(is_reloaded, needs_restart(&key), "{key}");
        }
    }
}
