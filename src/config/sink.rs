//! `[[sink]]`: where outcomes go.
//!
//! Promises: names are unique, because each is the name of a durable cursor; no two sinks write one file;
//! without any sink there is one to stdout. Must not know: how anything is delivered.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};
use serde::Deserialize;

use super::error::Problem;
use super::section::{Report, Section, did_you_mean, field_names, origin_of, quoted};
use super::webhook::{self, Webhook};
use super::wire::Text;

/// One `[[sink]]`
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its cursor's name; unique; 1 to 64 characters of `a-z 0-9 - _`.
    pub name: String,
    pub kind: SinkKind,
    pub from: From,
}

impl Sink {
    /// Whether a running sink can stay as it is: `from` is for those that have no cursor yet.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind
    }
}

/// Where a sink that has no cursor yet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Now,
    Oldest,
}

/// What a sink is.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    Stdout,
    File {
        /// Absolute.
        path: PathBuf,
        fsync: Fsync,
        /// Files of other sinks with names that [look](is_rotated_name) as if this one had been renamed to them.
        others: Vec<PathBuf>,
    },
    Webhook(Webhook),
}

/// When the file sink makes its lines durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    Batch,
    Never,
}

/// Whether `found` is a name that a file called `name` gets when it is rotated: the same with something behind a dot or
/// a dash.
pub fn is_rotated_name(found: &OsStr, name: &OsStr) -> bool {
    let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')))
}

/// Whether a path stands for a stream of the process that opens it.
pub fn is_standard_stream(path: &Path) -> bool {
    let streams = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    streams.iter().any(|stream| path == Path::new(stream))
        || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
}

const TYPES: [&str; 3] = ["stdout", "file", "webhook"];
const LONGEST_NAME: usize = 64;

/// The keys of every sink.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wire {
    r#type: Option<Text>,
    name: Option<Text>,
    from: Text,
}

impl Default for Wire {
    fn default() -> Self {
        Self { r#type: None, name: None, from: "now".into() }
    }
}

/// The further keys of `type = "stdout"`: none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StdoutWire {}

/// The further keys of `type = "file"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileWire {
    path: Option<Text>,
    fsync: Text,
}

impl Default for FileWire {
    fn default() -> Self {
        Self { path: None, fsync: "batch".into() }
    }
}

/// Every key that some sink has.
pub(super) fn keys() -> Vec<&'static str> {
    [field_names::<Wire>(), &further_keys()].concat()
}

/// The keys that only some types have.
fn further_keys() -> Vec<&'static str> {
    [field_names::<FileWire>(), field_names::<webhook::Wire>()].concat()
}

/// Reads and checks all sinks; `None` if they are of no use, which is reported then.
pub(super) fn check(value: Option<Value>, report: &mut Report) -> Option<Vec<Sink>> {
    let origin = value.as_ref().and_then(origin_of);
    let tables = match value.map(|value| value.kind) {
        None | Some(ValueKind::Nil) => Vec::new(),
        Some(ValueKind::Array(tables)) => tables,
        Some(_) => {
            let reason = "must be written [[sink]], in two pairs of brackets, for each sink; on the command \
                          line it is 'sink=[{type=\"stdout\"}]'";
            report.problems.push(Problem {
                key: "sink".to_owned(),
                value: None,
                origin,
                reason: reason.to_owned(),
            });
            return None;
        }
    };
    if tables.is_empty() {
        Section::new("sink[0]", None, report).show("type", quoted("stdout"));
        return Some(vec![Sink { name: "stdout".to_owned(), kind: SinkKind::Stdout, from: From::Now }]);
    }
    let mut sinks: Vec<Sink> = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        let key = format!("sink[{index}]");
        if !matches!(table.kind, ValueKind::Table(_)) {
            let reason = "must be a table, such as {type=\"stdout\"}".to_owned();
            report.problems.push(Problem { key, value: None, origin: origin_of(&table), reason });
            continue;
        }
        let mut section = Section::new(key, Some(table), report);
        if let Some(sink) = check_one(&mut section) {
            refuse_twins(&mut section, &sink, &sinks);
            sinks.push(sink);
        }
    }
    know_each_other(&mut sinks);
    Some(sinks)
}

fn check_one(section: &mut Section) -> Option<Sink> {
    section.call("a sink".to_owned());
    let wire: Wire = section.read_part(&further_keys());
    let kind = wire.r#type.map(|text| text.0).unwrap_or_default();
    if !TYPES.contains(&kind.as_str()) {
        // A type that isn't a string was refused when it was read.
        if section.is_clean() || !section.has("type") {
            let meant = did_you_mean(&kind, &TYPES).map(|meant| format!("; did you mean {meant:?}?"));
            let meant = meant.unwrap_or_default();
            section.refuse("type", format!("must be \"stdout\", \"file\" or \"webhook\"{meant}"));
        }
        return None;
    }
    section.show("type", quoted(&kind));
    section.call(format!("a sink of type {kind:?}"));
    let name = name(section, wire.name, &kind);
    let from = section.choice("from", &wire.from, &[("now", From::Now), ("oldest", From::Oldest)]);
    let common = field_names::<Wire>();
    let kind = match kind.as_str() {
        "file" => file(section, common),
        "webhook" => webhook::check(section, common).map(SinkKind::Webhook),
        _ => {
            section.read_part::<StdoutWire>(common);
            Some(SinkKind::Stdout)
        }
    };
    Some(Sink { name: name?, kind: kind?, from: from? })
}

fn name(section: &mut Section, name: Option<Text>, kind: &str) -> Option<String> {
    let name = name.map_or_else(|| kind.to_owned(), |text| text.0);
    section.show("name", quoted(&name));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
        section.refuse("name", format!("must be 1 to {LONGEST_NAME} characters of a-z 0-9 - _"));
        return None;
    }
    Some(name)
}

fn file(section: &mut Section, common: &[&str]) -> Option<SinkKind> {
    let wire: FileWire = section.read_part(common);
    let fsync = section.choice("fsync", &wire.fsync, &[("batch", Fsync::Batch), ("never", Fsync::Never)]);
    let Some(path) = wire.path else {
        if !section.has("path") {
            section.refuse("path", "must be given: the absolute path of the file that outcomes go to");
        }
        return None;
    };
    section.show("path", quoted(&path.0));
    let path = section.absolute_path("path", &path.0)?;
    if is_standard_stream(&path) {
        section
            .refuse("path", "must be a regular file; for standard output, use a sink with type = \"stdout\"");
        return None;
    }
    if path.file_name().is_none() {
        section.refuse("path", "must end with the name of a file");
        return None;
    }
    Some(SinkKind::File { path, fsync: fsync?, others: Vec::new() })
}

/// Tells each file sink which files are not its own although they have such names.
fn know_each_other(sinks: &mut [Sink]) {
    let paths: Vec<PathBuf> = sinks
        .iter()
        .filter_map(
            |sink| if let SinkKind::File { path, .. } = &sink.kind { Some(path.clone()) } else { None },
        )
        .collect();
    for sink in sinks {
        let SinkKind::File { path, others, .. } = &mut sink.kind else { continue };
        let name = path.file_name().unwrap_or_default();
        let is_like = |other: &&PathBuf| other.file_name().is_some_and(|other| is_rotated_name(other, name));
        *others = paths.iter().filter(is_like).cloned().collect();
    }
}

/// Two cursors of one name would be one cursor; two writers of one file would tear its lines.
fn refuse_twins(section: &mut Section, sink: &Sink, others: &[Sink]) {
    if others.iter().any(|other| other.name == sink.name) {
        section.refuse(
            "name",
            format!("must be given and differ: another sink is called {:?} already", sink.name),
        );
    }
    let SinkKind::File { path, .. } = &sink.kind else { return };
    let same = |other: &&Sink| matches!(&other.kind, SinkKind::File { path: theirs, .. } if theirs == path);
    if let Some(other) = others.iter().find(same) {
        section.refuse("path", format!("must differ: the sink {:?} writes this file already", other.name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn a_sink_has_a_type_and_only_the_keys_of_that_type() {
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
                "sink[0].type: must be \"stdout\", \"file\" or",
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
                "an unknown key is answered with all that there are, each once",
                "[[sink]]\ntype = \"stdout\"\nqqqq = 1",
                "sink[0].qqqq: a sink has no such key; it has type, name, from, path, fsync, url",
            ),
            (
                "a typing error in a key is helped",
                "[[sink]]\ntype = \"file\"\npath = \"/a\"\nfsnc = \"never\"",
                "sink[0].fsnc: a sink has no such key; did you mean fsync?",
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
    fn a_file_sink_knows_which_files_of_others_look_like_its_own() {
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
