//! `[log]`: how much is logged, and in which shape.
//!
//! Promises: a level that `tracing_subscriber` takes, and that isn't the name of a module by mistake. Must not
//! know: where the log goes.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::section::{Section, did_you_mean, quoted};
use super::wire::Text;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing_subscriber::EnvFilter` directive, such as `info` or `pinwatch=debug`.
    pub level: String,
    pub format: LogFormat,
}

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    Journald,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    level: Text,
    format: Text,
}

impl Default for Wire {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into() }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section) -> Option<Log> {
    let wire: Wire = section.read();
    let level = level(&mut section, &wire.level.0);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];
    let format = section.choice("format", &wire.format, &formats);
    Some(Log { level: level?, format: format? })
}

fn level(section: &mut Section, level: &str) -> Option<String> {
    // The filter takes no spaces, and people write them.
    let level = level.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    section.show("level", quoted(&level));
    // The filter would take a mistyped level for the name of a module, and log nothing else.
    let stray = level.split(',').find(|part| {
        !part.contains(['=', '[']) && !LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level))
    });
    if stray.is_none() && EnvFilter::builder().parse(&level).is_ok() {
        return Some(level);
    }
    let meant = stray.and_then(|part| did_you_mean(part, &LEVELS));
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    section.refuse(
        "level",
        format!("must be one of {}, or as in \"info,pinwatch::poll=debug\"{meant}", LEVELS.join(", ")),
    );
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn a_level_is_a_level_and_not_the_name_of_a_module() {
        table(&[
            ("a level is taken", "log.level = \"debug\"", ""),
            ("capitals are taken", "log.level = \"WARN\"", ""),
            ("a level for a module is taken", "log.level = \"info, pinwatch::poll=trace\"", ""),
            (
                "a typing error is helped",
                "log.level = \"debgu\"",
                "log.level: must be one of off, error, warn, info, debug, trace, or as in \
                 \"info,pinwatch::poll=debug\"; did you mean debug?",
            ),
            (
                "a wrong level for a module is refused",
                "log.level = \"pinwatch=loud\"",
                "log.level: must be one of",
            ),
            ("nothing is refused", "log.level = \"\"", "log.level: must be one of"),
            (
                "another format is refused",
                "log.format = \"xml\"",
                "log.format: must be \"text\" or \"json\" or",
            ),
        ]);
        assert_eq!(load("log.format = \"journald\"").unwrap().log.format, LogFormat::Journald);
    }
}
