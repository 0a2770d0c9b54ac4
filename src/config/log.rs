//! `[log]`: the level and format of the log.
//!
//! Promises a level that `tracing_subscriber` accepts, and that a mistyped level is not taken for the name of a module. Must
//! not know where the log goes.

use tracing_subscriber::EnvFilter;

use super::section::{did_you_mean, section};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const FORMATS: [(&str, LogFormat); 3] =
    [("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];

section! {
    /// `[log]`
    pub struct Log {
        /// A `tracing_subscriber::EnvFilter` directive, such as `info` or `pinwatch=debug`.
        pub level: String = parsed("info", level),
        pub format: LogFormat = choice("text", &FORMATS),
    }
}

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    Journald,
}

fn level(text: &str) -> Result<String, String> {
    // The filter accepts no spaces, but people write them.
    let level = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    // The filter would take a mistyped level for the name of a module, and log only that module.
    let stray = level.split(',').find(|part| {
        !part.contains(['=', '[']) && !LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level))
    });
    if stray.is_none() && EnvFilter::builder().parse(&level).is_ok() {
        return Ok(level);
    }
    let meant = stray.and_then(|part| did_you_mean(part, &LEVELS));
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    Err(format!("must be one of {}, or as in \"info,pinwatch::poll=debug\"{meant}", LEVELS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn a_log_level_must_be_a_known_level() {
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
                "log.format: must be \"text\", \"json\" or",
            ),
        ]);
        assert_eq!(load("log.format = \"journald\"").unwrap().log.format, LogFormat::Journald);
    }
}
