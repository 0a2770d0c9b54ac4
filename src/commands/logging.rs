//! The daemon's log, on stderr or in the journal, in the format of `log.format`.
//!
//! Promises that logging never waits for a reader, and that each event is one harmless line: every message and field passes
//! through [`crate::text`]. Must not carry results.

use std::fmt::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::time::Duration;

use tracing::field::Field;
use tracing::{Event, Subscriber, error, warn};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Format, FormatFields, Json, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as layer, registry, reload};

use super::error::{CommandError, error_lines};
use super::exit::Exit;
use super::journal::{self, priority};
use super::log_queue::LogQueue;
use super::log_rate_limit::RateLimit;
use super::output::wants_colours;
use crate::config::{Log as Settings, LogFormat};
use crate::daemon::SetLog;
use crate::text::{Printable, json_line};

/// How long the process waits at its end for the last lines to be written.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// The process's log.
pub struct Log(LogQueue);

impl Log {
    /// Starts logging; may be called once per process. Also returns the function that changes the level.
    ///
    /// # Errors
    /// The level is not a valid filter, or the system can't start a thread for the log.
    pub fn start(settings: &Settings) -> Result<(Self, SetLog), CommandError> {
        let (filter, handle) = reload::Layer::new(level_filter(settings)?);
        let base = registry().with(filter).with(RateLimit::default());
        let queue = LogQueue::start(std::io::stderr(), |lost| {
            warn!(lost, "lines of the log were lost, because standard error did not accept them");
        });
        let queue = queue.map_err(CommandError::Runtime)?;
        let stderr = layer::layer().log_internal_errors(false).with_writer(queue.clone());
        let harmless = || debug_fn(write_field).delimited(" ");
        match settings.format {
            LogFormat::Text => {
                let text = stderr.fmt_fields(harmless());
                base.with(text.with_ansi(wants_colours(&std::io::stderr()))).init()
            }
            LogFormat::Json => {
                base.with(stderr.json().flatten_event(true).map_event_format(JsonLines)).init()
            }
            LogFormat::Journald => match journal::Journal::connect(Path::new(journal::SOCKET)) {
                Ok(journal) => base.with(journal).init(),
                Err(error) => {
                    base.with(stderr.with_ansi(false).fmt_fields(harmless()).event_format(JournalLines))
                        .init();
                    warn!(%error, "the journal can't be reached: the log goes to stderr, with priorities");
                }
            },
        }
        // The default hook would block until standard error accepts its message.
        panic::set_hook(Box::new(log_panic));
        let set_level = move |settings: &Settings| {
            let filter = level_filter(settings).map_err(|error| error.to_string())?;
            handle.reload(filter).map_err(|error| error.to_string())
        };
        Ok((Self(queue), Box::new(set_level)))
    }

    /// Logs how the process ended, and waits a short time for the last lines to be written.
    pub fn end<E: Into<CommandError>>(self, ended: Result<(), E>) -> Exit {
        let exit = match ended.map_err(E::into) {
            Ok(()) => Exit::Done,
            Err(error) => {
                error_lines(&error).iter().for_each(|line| self.0.add(format!("{line}\n").as_bytes()));
                Exit::from(&error)
            }
        };
        self.0.flush(LAST_TIMEOUT);
        exit
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or("of unknown kind");
    error!(reason, place, "a thread panicked; this is a bug");
}

/// Writes a field as the formatter itself does, but with control characters escaped.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => {}
        name if writer.has_ansi_escapes() => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(writer, "{name}=")?,
    }
    write!(Printable(writer), "{value:?}")
}

fn level_filter(log: &Settings) -> Result<EnvFilter, CommandError> {
    let parsed = EnvFilter::builder().parse(&log.level);
    parsed.map_err(|error| CommandError::LogLevel { level: log.level.clone(), problem: error.to_string() })
}

/// Formats events as lines of JSON, with control characters escaped.
struct JsonLines(Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonLines
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
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        // Removes the newline, which is not part of the JSON.
        line.truncate(line.trim_end().len());
        writeln!(writer, "{}", json_line(line))
    }
}

/// Formats events as journald reads them from stderr: `<N>` is the priority; journald adds the time.
struct JournalLines;

impl<S, N> FormatEvent<S, N> for JournalLines
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
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::text::is_harmful;

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

    /// Logs one event with harmful text in its message and in fields of each kind, and returns what was written.
    fn written(subscriber: impl Subscriber + Send + Sync + 'static, written: &Written) -> String {
        tracing::subscriber::with_default(subscriber, || {
            let said = "a\n<0>b\u{1b}[2J\u{9b}\u{202e}\u{2028}";
            let error = io::Error::other(said);
            tracing::warn!(target: "pinwatch::poll", pin = "9C81", said, shown = %error, seen = ?error, "the API said: {said}");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[track_caller]
    fn assert_is_one_harmless_line(text: &str) {
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_harmful) && line.contains("9C81"), "{line:?}");
    }

    #[test]
    fn every_log_format_writes_an_event_as_one_line_without_control_characters() {
        let builder = || {
            let written = Written::default();
            let writer = written.clone();
            (layer::fmt().with_ansi(false).with_writer(move || writer.clone()), written)
        };
        let harmless = || debug_fn(write_field).delimited(" ");

        let (text, to) = builder();
        assert_is_one_harmless_line(&written(text.fmt_fields(harmless()).finish(), &to));

        let (json, to) = builder();
        let line = written(json.json().flatten_event(true).map_event_format(JsonLines).finish(), &to);
        assert_is_one_harmless_line(&line);
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(event["message"].as_str().unwrap().contains('\u{202e}'), "JSON keeps the text: {event}");

        let (journal, to) = builder();
        let line = written(journal.fmt_fields(harmless()).event_format(JournalLines).finish(), &to);
        assert_is_one_harmless_line(&line);
        assert!(line.starts_with("<4>pinwatch::poll: the API said: a\\n<0>b\\u{1b}[2J"), "{line}");
    }

    #[test]
    fn the_log_has_only_the_colours_of_its_formatter() {
        let to = Written::default();
        let writer = to.clone();
        let text = layer::fmt().with_ansi(true).with_writer(move || writer.clone());
        let line = written(text.fmt_fields(debug_fn(write_field).delimited(" ")).finish(), &to);
        assert!(line.contains("\u{1b}[3mpin\u{1b}[0m") && line.contains("b\\u{1b}[2J"), "{line:?}");
    }
}
