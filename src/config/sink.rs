//! `[[sink]]`: where outcomes are delivered.
//!
//! Promises that names are unique, because each is the name of a durable cursor; that no two sinks write to the same file; and
//! that without any sink there is one to stdout. Must not know how anything is delivered.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use config::ValueKind;

use super::error::Problem;
use super::section::{Section, origin_of, quoted};
use super::webhook::Webhook;

/// One `[[sink]]`
#[derive(Debug, Clone)]
pub struct Sink {
    /// The name of the sink and its cursor; unique; 1 to 64 characters of `a-z 0-9 - _`.
    pub name: String,
    pub kind: SinkKind,
    pub from: From,
}

impl Sink {
    /// Whether a running sink can stay as it is. `from` does not matter, because the sink has a cursor.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind
    }
}

/// Where a sink without a cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Now,
    Oldest,
}

/// The type of a sink, with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    Stdout,
    File {
        /// Absolute.
        path: PathBuf,
        fsync: Fsync,
        /// Files of other sinks whose names [look](is_rotated_name) like those of this sink's rotated files.
        others: Vec<PathBuf>,
    },
    Webhook(Webhook),
}

impl SinkKind {
    /// The file that it writes, which no other sink may write.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Stdout | Self::Webhook(_) => None,
        }
    }
}

/// When the file sink syncs its lines to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    Batch,
    Never,
}

/// Whether a file called `name` can get the name `found` when it is rotated: the same name, a dot or a dash, and something
/// after it.
pub fn is_rotated_name(found: &OsStr, name: &OsStr) -> bool {
    let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')))
}

/// Whether a path names a standard stream of the process that opens it.
pub fn is_standard_stream(path: &Path) -> bool {
    let streams = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    streams.iter().any(|stream| path == Path::new(stream))
        || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
}

/// Reads the keys that only one type of sink has.
type ReadKind = fn(&mut Section) -> Option<SinkKind>;

/// The types of sinks, each with its reader.
pub(super) const TYPES: [(&str, ReadKind); 3] = [
    ("stdout", |_| Some(SinkKind::Stdout)),
    ("file", file),
    ("webhook", |section| Webhook::read(section).map(SinkKind::Webhook)),
];

const LONGEST_NAME: usize = 64;

impl Section<'_> {
    /// Reads every `[[sink]]`.
    pub fn sinks(&mut self, _: &'static str) -> Option<Vec<Sink>> {
        let tables = match self.value("sink").map(|value| value.kind) {
            None | Some(ValueKind::Nil) => Vec::new(),
            Some(ValueKind::Array(tables)) => tables,
            Some(_) => {
                let reason = "must be written [[sink]], in two pairs of brackets, for each sink; on the command \
                              line it is 'sink=[{type=\"stdout\"}]'";
                return self.refuse("sink", reason);
            }
        };
        if tables.is_empty() {
            self.list("sink[0].type", quoted("stdout"), "default".to_owned());
            return Some(vec![Sink { name: "stdout".to_owned(), kind: SinkKind::Stdout, from: From::Now }]);
        }
        let mut sinks: Vec<Sink> = Vec::with_capacity(tables.len());
        for (index, table) in tables.into_iter().enumerate() {
            let key = format!("sink[{index}]");
            if !matches!(table.kind, ValueKind::Table(_)) {
                let reason = "must be a table, such as {type=\"stdout\"}";
                self.report.problems.push(Problem::without_value(key, origin_of(&table), reason));
                continue;
            }
            let sink = Section::read_table(&key, Some(table), self.report, |section| {
                section.set_title("a sink".to_owned());
                let Some((kind, read)) = section.choice("type", "", &TYPES.map(|kind| (kind.0, kind))) else {
                    // The keys depend on the type, which is unknown.
                    section.clear();
                    return None;
                };
                section.set_title(format!("a sink of type {kind:?}"));
                let sink = sink(section, kind, read)?;
                refuse_duplicates(section, &sink, &sinks)?;
                Some(sink)
            });
            sinks.extend(sink);
        }
        set_others(&mut sinks);
        Some(sinks)
    }
}

/// Reads the keys that every sink has, and the keys of its type.
pub(super) fn sink(section: &mut Section, kind: &str, read: ReadKind) -> Option<Sink> {
    let name = section.parsed("name", kind, name);
    let from = section.choice("from", "now", &[("now", From::Now), ("oldest", From::Oldest)]);
    let kind = read(section);
    Some(Sink { name: name?, kind: kind?, from: from? })
}

fn name(name: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_allowed) {
        return Err(format!("must be 1 to {LONGEST_NAME} characters of a-z 0-9 - _"));
    }
    Ok(name.to_owned())
}

fn file(section: &mut Section) -> Option<SinkKind> {
    let path = section.path("path", "");
    let fsync = section.choice("fsync", "batch", &[("batch", Fsync::Batch), ("never", Fsync::Never)]);
    let path = path?;
    if is_standard_stream(&path) {
        return section.refuse(
            "path",
            "must be a regular file; for standard output, use a sink with type = \"stdout\"",
        );
    }
    if path.file_name().is_none() {
        return section.refuse("path", "must end with the name of a file");
    }
    Some(SinkKind::File { path, fsync: fsync?, others: Vec::new() })
}

/// Gives each file sink a list of the other sinks' files whose names look like those of its own rotated files.
fn set_others(sinks: &mut [Sink]) {
    let paths: Vec<PathBuf> = sinks.iter().filter_map(|sink| Some(sink.kind.file()?.to_owned())).collect();
    for sink in sinks {
        let SinkKind::File { path, others, .. } = &mut sink.kind else { continue };
        let name = path.file_name().unwrap_or_default();
        let is_like = |other: &&PathBuf| other.file_name().is_some_and(|other| is_rotated_name(other, name));
        *others = paths.iter().filter(is_like).cloned().collect();
    }
}

/// Refuses a sink with the same name as another (both would use one cursor) or the same file (their lines would be mixed).
fn refuse_duplicates(section: &mut Section, sink: &Sink, others: &[Sink]) -> Option<()> {
    if others.iter().any(|other| other.name == sink.name) {
        return section.refuse(
            "name",
            format!("must be given and differ: another sink is called {:?} already", sink.name),
        );
    }
    let writes_it = |other: &&Sink| sink.kind.file().is_some() && other.kind.file() == sink.kind.file();
    if let Some(other) = others.iter().find(writes_it) {
        return section
            .refuse("path", format!("must differ: the sink {:?} writes this file already", other.name));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn a_sink_must_have_a_type_and_only_the_keys_of_that_type() {
        table(&[
            ("stdout needs nothing more", "[[sink]]\ntype = \"stdout\"", ""),
            ("a file needs its path", "[[sink]]\ntype = \"file\"", "sink[0].path: must be given"),
            (
                "an absolute one",
                "[[sink]]\ntype = \"file\"\npath = \"a\"",
                "sink[0].path: must be the absolute path",
            ),
            (
                "one that is no stream",
                "[[sink]]\ntype = \"file\"\npath = \"/dev/stdout\"",
                "sink[0].path: must be a regular file; for standard output, use a sink with type = \"stdout\"",
            ),
            (
                "and one that has a name",
                "[[sink]]\ntype = \"file\"\npath = \"/var/log/..\"",
                "sink[0].path: must end with the name of a file",
            ),
            (
                "a type must be given",
                "[[sink]]\nname = \"a\"",
                "sink[0].type: must be given, and must be \"stdout\", \"file\" or \"webhook\"",
            ),
            (
                "a typing error in it is helped",
                "[[sink]]\ntype = \"webhok\"",
                "sink[0].type: must be \"stdout\", \"file\" or \"webhook\"; did you mean \"webhook\"?",
            ),
            ("a type is a string", "[[sink]]\ntype = 1", "sink[0].type: must be a string"),
            (
                "another type's key is refused",
                "[[sink]]\ntype = \"stdout\"\npath = \"/a\"",
                "sink[0].path: a sink of type \"stdout\" has no such key; it has type, name, from",
            ),
            (
                "an unknown key is answered with all that there are",
                "[[sink]]\ntype = \"stdout\"\nqqqq = 1",
                "sink[0].qqqq: a sink of type \"stdout\" has no such key; it has type, name, from",
            ),
            (
                "a typing error in a key is helped",
                "[[sink]]\ntype = \"file\"\npath = \"/a\"\nfsnc = \"never\"",
                "sink[0].fsnc: a sink of type \"file\" has no such key; did you mean fsync?",
            ),
            (
                "another fsync is refused",
                "[[sink]]\ntype=\"file\"\npath=\"/a\"\nfsync=\"all\"",
                "sink[0].fsync: must",
            ),
            (
                "another beginning is refused",
                "[[sink]]\ntype=\"stdout\"\nfrom=\"first\"",
                "sink[0].from: must be",
            ),
            (
                "one pair of brackets is refused",
                "[sink]\ntype = \"stdout\"",
                "sink: must be written [[sink]]",
            ),
            ("a word is no sink", "sink = [\"stdout\"]", "sink[0]: must be a table"),
        ]);
    }

    #[test]
    fn names_and_files_are_unique() {
        let stdout = "[[sink]]\ntype = \"stdout\"\n";
        let file = "[[sink]]\ntype = \"file\"\npath = \"/a\"\n";
        table(&[
            ("different types differ by their names", &[stdout, file].concat(), ""),
            (
                "two of a type need names",
                &[stdout, stdout].concat(),
                "sink[1].name: must be given and differ",
            ),
            ("and with names are taken", &[stdout, "name = \"a\"\n", stdout].concat(), ""),
            (
                "two sinks may not write one file",
                &[file, file, "name = \"b\"\n"].concat(),
                "sink[1].path: must differ: the sink \"file\" writes this file already",
            ),
            ("a name has no capitals", &[stdout, "name = \"A\""].concat(), "sink[0].name: must be 1 to 64"),
            ("a name isn't empty", &[stdout, "name = \"\""].concat(), "sink[0].name: must be 1 to 64"),
        ]);
    }

    #[test]
    fn a_file_sink_knows_which_files_of_other_sinks_look_like_rotated_ones() {
        let sink =
            |name: &str, path: &str| format!("[[sink]]\ntype=\"file\"\nname={name:?}\npath={path:?}\n");
        let paths = ["/log/out", "/log/out.audit", "/log/out-2", "/log/outer", "/other/out.audit"];
        let text: String = paths.iter().enumerate().map(|(n, path)| sink(&format!("s{n}"), path)).collect();
        let others = |sink: &Sink| match &sink.kind {
            SinkKind::File { others, .. } => others.clone(),
            kind => panic!("{kind:?}"),
        };
        let sinks = load(&text).unwrap().sinks;
        assert_eq!(
            others(&sinks[0]),
            ["/log/out.audit", "/log/out-2", "/other/out.audit"].map(PathBuf::from)
        );
        assert!(sinks[1..].iter().all(|sink| others(sink).is_empty()));
    }

    #[test]
    fn without_any_sink_there_is_one_to_stdout() {
        for text in ["", "sink = []"] {
            let sinks = load(text).unwrap().sinks;
            assert_eq!(sinks.len(), 1);
            assert_eq!((sinks[0].name.as_str(), sinks[0].from), ("stdout", From::Now));
            assert!(matches!(sinks[0].kind, SinkKind::Stdout));
        }
    }
}
