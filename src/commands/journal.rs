//! Writes to the journal in its own protocol: an event is an entry with its fields (`PIN_ID`, `OUTCOME`, `SINK`).
//!
//! Promises never to wait for a blocked journal: entries that it does not accept at once are lost and counted. Replaces
//! tracing-journald, which leaves the fields out of MESSAGE, all that `journalctl` shows by default, and waits for the journal.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::metrics;
use crate::text::printable;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest value, in bytes; a longer one is cut. A datagram has room for about 200 KiB.
const LONGEST_VALUE: usize = 32 * 1024;

/// Writes events into the journal.
pub struct Journal {
    socket: UnixDatagram,
    lost: AtomicU64,
}

impl Journal {
    /// Connects to the journal that listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, lost: AtomicU64::new(0) })
    }

    fn send(&self, level: Level, target: &str, fields: &Fields) {
        let mut entry = Vec::with_capacity(512);
        put(&mut entry, "PRIORITY", &priority(level).to_string());
        put(&mut entry, "SYSLOG_IDENTIFIER", "pinwatch");
        put(&mut entry, "TARGET", target);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            // Repeated in the message, because `journalctl` shows only that by default.
            put(&mut entry, "MESSAGE", &format!("{} lost_before={lost}", fields.message));
            put(&mut entry, "LOST_BEFORE", &lost.to_string());
        } else {
            put(&mut entry, "MESSAGE", &fields.message);
        }
        for (name, value) in &fields.others {
            put(&mut entry, name, value);
        }
        if self.socket.send(&entry).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            metrics::log_line_lost();
        }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.complete();
        self.send(*event.metadata().level(), event.metadata().target(), &fields);
    }
}

/// The priority of syslog(3).
pub fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// An event: its message and its other fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, String)>,
}

impl Fields {
    /// Appends the fields to the message, because people see only the message.
    fn complete(&mut self) {
        for (name, value) in &self.others {
            // Writing to a String can't fail.
            let _ = write!(self.message, " {}={value}", name.to_ascii_lowercase());
        }
    }

    fn add(&mut self, field: &Field, mut value: String) {
        value.truncate(value.floor_char_boundary(LONGEST_VALUE));
        let value = printable(&value).into_owned();
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((journal_name(name), value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// Converts a field's name: the journal accepts capital letters, digits and underscores, and reserves names that begin with an
/// underscore.
fn journal_name(name: &str) -> String {
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = upper.skip_while(|c| !c.is_ascii_uppercase()).take(64).collect();
    if name.is_empty() { "FIELD".to_owned() } else { name }
}

/// Appends a field with its length, so that no value can start another field.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn fields_of(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
            let name = String::from_utf8(entry[..end].to_vec()).unwrap();
            let (length, rest) = entry[end + 1..].split_first_chunk::<8>().unwrap();
            let length = u64::from_le_bytes(*length) as usize;
            fields.insert(name, String::from_utf8(rest[..length].to_vec()).unwrap());
            entry = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn a_journal_event_is_one_entry_with_any_content_of_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journald = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::connect(&path).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pin_id = %"9C81", outcome = "a\nPRIORITY=0\u{1b}", polls = 3, "an {}", "outcome");
        });
        let mut entry = [0; 4096];
        let length = journald.recv(&mut entry).unwrap();
        let fields = fields_of(&entry[..length]);
        let field = |name: &str| fields[name].as_str();
        assert_eq!(field("PRIORITY"), "4");
        assert_eq!(field("PIN_ID"), "9C81");
        assert_eq!(field("OUTCOME"), "a\\nPRIORITY=0\\u{1b}");
        assert_eq!(field("POLLS"), "3");
        assert_eq!(field("MESSAGE"), "an outcome pin_id=9C81 outcome=a\\nPRIORITY=0\\u{1b} polls=3");
        assert_eq!(field("SYSLOG_IDENTIFIER"), "pinwatch");
    }

    #[test]
    fn a_journal_that_does_not_read_delays_nobody_and_lost_entries_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_nonblocking(true).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let fields = Fields { message: "x".repeat(1000), others: Vec::new() };
        for _ in 0..10_000 {
            journal.send(Level::INFO, "t", &fields);
        }
        let mut entry = [0; 4096];
        let mut taken = 0;
        while journald.recv(&mut entry).is_ok() {
            taken += 1;
        }
        journal.send(Level::INFO, "t", &fields);
        let length = journald.recv(&mut entry).unwrap();
        let (fields, lost) = (fields_of(&entry[..length]), (10_000 - taken).to_string());
        assert_eq!(fields["LOST_BEFORE"], lost);
        assert!(fields["MESSAGE"].ends_with(&format!(" lost_before={lost}")));
    }
}
