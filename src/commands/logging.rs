//! The daemon's log, on stderr or in the journal, in the form that `log.format` asks for.
//!
//! Promises one line an event: nothing that an event carries can begin a second one. Results never go here.

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;

use tracing::{Event, Subscriber, warn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as layer, registry, reload};

use super::error::CommandError;
use super::journal::{self, priority};
use super::storm;
use crate::config::{Log, LogFormat};
use crate::daemon::SetLog;

/// Begins to log; once a process. Gives what puts another level in force.
pub fn start(log: &Log) -> Result<SetLog, CommandError> {
    let (filter, handle) = reload::Layer::new(level_filter(log)?);
    let base = registry().with(filter).with(storm::Limit::default());
    let stderr = layer::layer().with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => base.with(stderr.with_ansi(std::io::stderr().is_terminal())).init(),
        LogFormat::Json => base.with(stderr.json().flatten_event(true)).init(),
        LogFormat::Journald => match journal::Journal::connect(Path::new(journal::SOCKET)) {
            Ok(journal) => base.with(journal).init(),
            Err(error) => {
                base.with(stderr.with_ansi(false).event_format(Lines)).init();
                warn!(%error, "the journal can't be reached: the log goes to stderr, with priorities");
            }
        },
    }
    Ok(Box::new(move |log| {
        let filter = level_filter(log).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

fn level_filter(log: &Log) -> Result<EnvFilter, CommandError> {
    let parsed = EnvFilter::builder().parse(&log.level);
    parsed.map_err(|error| CommandError::LogLevel { level: log.level.clone(), problem: error.to_string() })
}

/// Lines as journald wants them from stderr: `<N>` is the priority, and the time is the journal's own.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write!(writer, "<{}>{}: ", priority(*metadata.level()), metadata.target())?;
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        // A line of its own would be an entry of its own, with a priority that it could choose.
        for c in fields.chars() {
            if c.is_control() { write!(writer, "{}", c.escape_default())? } else { writer.write_char(c)? }
        }
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_journal_line_has_a_priority_and_no_event_makes_two_lines() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            layer::fmt().with_ansi(false).event_format(Lines).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "pinwatch::poll", pin = "9C81", "the API said: {}", "a\n<0>b");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<4>pinwatch::poll: the API said: a\\n<0>b pin=\"9C81\"\n");
    }
}
