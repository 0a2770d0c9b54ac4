//! Merges the sources of a configuration: file, environment, `--set`, and the defaults of a user who is not root.
//!
//! Keeps the exact origin of every value (file and line, variable, flag), in the values of the `config` crate. Does not use that
//! crate's builder: it forgets the line of a table, replaces a value that stands where a table belongs before it can be refused,
//! and reads each key as a path, so that a key `a[9999999999]` in a file would take all memory. Promises to read one file and
//! nothing else of this machine, and no other environment than the given one. Must not know what any value means, except that
//! `sink` is a list.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::environment::{COMMAND_LINE, Environment};
use super::error::{ConfigError, Problem};
use super::section::Report;
use super::{intake, store, toml_file};

const PREFIX: &str = "PINWATCH__";

/// The largest accepted file, in bytes: a device or a database that is named by mistake must not be read into memory.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The sources of a configuration. Has no `Debug`, because it may hold secrets: PINWATCH__API__KEY, `--set api.key=…`.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that `--config` names; it must exist.
    pub file: Option<PathBuf>,
    pub environment: Environment,
    /// The `--set` options: `section.key=value`.
    pub set: Vec<String>,
}

/// Reads and merges all sources.
///
/// Fails if the file can't be read or isn't TOML. All other problems are added to the report, to which the sections add theirs.
pub(super) fn merge(sources: &Sources) -> Result<(Map<String, Value>, Report), ConfigError> {
    let Sources { environment, set, .. } = sources;
    let file = find_file(sources)?;
    let is_personal = file.is_none() && environment.uid != 0;
    let mut problems = Vec::new();
    let mut given = from_environment(environment, &mut problems);
    given.extend(from_flags(set, &mut problems));
    let mut values = match &file {
        Some((path, text)) => toml_file::parse(path, text)?,
        None => Map::new(),
    };
    if is_personal {
        put_personal_defaults(&mut values, environment, &given, &mut problems);
    }
    given.into_iter().for_each(|(key, value)| put(&mut values, &key, value));
    let file = file.map(|(path, _)| path);
    let report =
        Report { environment: environment.clone(), file, is_personal, problems, ..Report::default() };
    Ok((values, report))
}

/// Puts a value where its key says, in place of what is there.
fn put(tables: &mut Map<String, Value>, key: &str, value: Value) {
    let Some((section, key)) = key.split_once('.') else {
        return drop(tables.insert(key.to_owned(), value));
    };
    let table = tables.entry(section.to_owned()).or_insert_with(|| Map::<String, Value>::new().into());
    // Whatever else stands there is refused when the section is read.
    if let ValueKind::Table(values) = &mut table.kind {
        put(values, key, value);
    }
}

/// Reads the file. The one that `--config` names must exist; the system's file may be missing.
fn find_file(sources: &Sources) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = sources.file.as_ref().unwrap_or(&sources.environment.system_file);
    match read_text(path) {
        Ok(text) => Ok(Some((path.clone(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && sources.file.is_none() => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path: path.clone(), source }),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
    }
    Ok(text)
}

/// Puts the defaults of a user who isn't root and has no file, instead of `/run` and `/var/lib`.
fn put_personal_defaults(
    values: &mut Map<String, Value>,
    environment: &Environment,
    given: &Map<String, Value>,
    problems: &mut Vec<Problem>,
) {
    let runtime = environment.path("XDG_RUNTIME_DIR");
    let (state, home) = (environment.path("XDG_STATE_HOME"), environment.path("HOME"));
    let (socket, origin) = intake::user_socket(runtime.as_deref(), environment.uid);
    put(values, "intake.socket", text(origin, socket.to_string_lossy()));
    match store::user_store(state.as_deref(), home.as_deref()) {
        Some((url, origin)) => put(values, "store.url", text(origin, url)),
        // This user can't use root's default.
        None if !given.contains_key("store.url") => {
            let reason = "must be given, because neither $XDG_STATE_HOME nor $HOME is an absolute path";
            problems.push(Problem::without_value("store.url", None, reason));
        }
        None => {}
    }
}

/// Reads the variables `PINWATCH__SECTION__KEY`; ignores all others.
fn from_environment(environment: &Environment, problems: &mut Vec<Problem>) -> Map<String, Value> {
    let mut layer = Map::new();
    for (name, value) in &environment.variables {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        let key = key.to_ascii_lowercase().replace("__", ".");
        let origin = format!("{name} in the environment");
        let Some(text) = value.to_str() else {
            problems.push(Problem::without_value(&key, Some(origin), "must be UTF-8"));
            continue;
        };
        place(&mut layer, problems, &key, text, origin);
    }
    layer
}

/// Reads `--set section.key=value`; if a key is set twice, the later value counts.
fn from_flags(flags: &[String], problems: &mut Vec<Problem>) -> Map<String, Value> {
    let mut layer = Map::new();
    for flag in flags {
        match flag.split_once('=') {
            Some((key, text)) => place(&mut layer, problems, key.trim(), text, COMMAND_LINE.to_owned()),
            // The given text isn't shown, because it may be a secret.
            None => problems.push(Problem::without_value("--set", None, "must be written section.key=value")),
        }
    }
    layer
}

/// Stores a value that was given as a string under its key. It stays a string, and the key's type decides what it means, so an
/// API key of digits is not taken for a number.
fn place(layer: &mut Map<String, Value>, problems: &mut Vec<Problem>, key: &str, text: &str, origin: String) {
    let known = super::known_keys();
    let is_section = |name: &str| known.iter().any(|key| key.starts_with(&format!("{name}.")));
    let parts: Vec<&str> = key.split('.').collect();
    let value = match parts[..] {
        ["sink"] => toml_file::parse_value(text, &origin)
            .map_err(|reason| format!("must be a list in TOML, such as [{{type=\"stdout\"}}]: {reason}")),
        ["sink", ..] => {
            Err("sinks can't be set key by key; set the whole list, or write [[sink]] in the file".to_owned())
        }
        // If the section and one of its keys were both set, the merge would lose one of them.
        [_] | [_, _] if is_section(key) => Err(format!("is a section; set one of its keys, {key}.…")),
        [name] if is_plain(name) => Ok(self::text(&origin, text)),
        [section, name] if is_plain(section) && is_plain(name) && !known.iter().any(|key| key == section) => {
            Ok(self::text(&origin, text))
        }
        [section, table, name] if is_section(&format!("{section}.{table}")) && is_plain(name) => {
            Ok(self::text(&origin, text))
        }
        [""] => {
            let reason = "a key is missing; it is written section.key";
            return problems.push(Problem::without_value("configuration", Some(origin), reason));
        }
        _ => Err("there is no such key; it is written section.key".to_owned()),
    };
    match value {
        Ok(value) => drop(layer.insert(key.to_owned(), value)),
        Err(reason) => problems.push(Problem::without_value(key, Some(origin), reason)),
    }
}

/// Whether a key could have this name.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn text(origin: &str, text: impl Into<String>) -> Value {
    Value::new(Some(&origin.to_owned()), text.into())
}
