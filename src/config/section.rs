//! Converts one table of the configuration from the written values to those that the program uses.
//!
//! [`section!`] declares a table: each key is a field with its reader. A reader (in `read.rs` or the section's file) reports
//! every refused value with its key and origin, and lists every value in effect for `check-config`; secrets appear in neither.
//! Keys that no reader asked for are refused at the end. Must not know which sections there are, or how the sources were
//! merged.

use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::Setting;
use super::environment::{COMMAND_LINE, Environment};
use super::error::Problem;
use super::secret::mode_if_open_to_all;

/// Declares a section. `pub timeout: Duration = duration("10s", A..=B)` is a key with its type, its reader (a method of
/// [`Section`]), its default, and further arguments of the reader.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* pub $key:ident: $type:ty = $reader:ident($($argument:expr),* $(,)?),)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$doc])* pub $key: $type,)*
        }

        impl $name {
            /// Reads every key; `None` if one of them is refused.
            pub(in crate::config) fn read(section: &mut $crate::config::section::Section) -> Option<Self> {
                $(let $key = section.$reader(stringify!($key), $($argument),*);)*
                Some(Self { $($key: $key?,)* })
            }
        }
    };
}
pub(super) use section;

/// The results of reading, and what reading depends on.
#[derive(Default)]
pub(super) struct Report {
    pub environment: Environment,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// There is no file, and the user is not root: socket and store are the user's own.
    pub is_personal: bool,
    pub problems: Vec<Problem>,
    /// Secrets that other users can read.
    pub warnings: Vec<Problem>,
    pub settings: Vec<Setting>,
    /// Every full key that a reader asked for.
    pub keys: Vec<String>,
}

/// One table: `[api]`, one `[[sink]]`, or the top level, whose name is empty.
pub(super) struct Section<'a> {
    name: String,
    title: String,
    origin: Option<String>,
    values: Map<String, Value>,
    /// The keys that a reader asked for.
    known: Vec<&'static str>,
    /// The keys whose values no message may show.
    secrets: Vec<&'static str>,
    pub(super) report: &'a mut Report,
}

impl Section<'_> {
    /// Reads one table. `value` is `None` if nothing was written into it.
    pub fn read_table<T>(
        name: &str,
        value: Option<Value>,
        report: &mut Report,
        read: impl FnOnce(&mut Section) -> Option<T>,
    ) -> Option<T> {
        let origin = value.as_ref().and_then(Value::origin).map(str::to_owned);
        let mut section = Section {
            name: name.to_owned(),
            title: if name.is_empty() { "the top level".to_owned() } else { format!("[{name}]") },
            origin,
            values: Map::new(),
            known: Vec::new(),
            secrets: Vec::new(),
            report,
        };
        match value.map(|value| value.kind) {
            None | Some(ValueKind::Nil) => {}
            Some(ValueKind::Table(values)) => section.values = values,
            Some(_) => {
                let reason =
                    format!("is a section; set one of its keys, {name}.…, or write [{name}] above them");
                return section.refuse("", reason);
            }
        }
        let result = read(&mut section);
        section.refuse_unknown_keys();
        result
    }

    /// Reads a table within this one.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section) -> Option<T>) -> Option<T> {
        let value = self.value(key);
        Section::read_table(key, value, self.report, read)
    }

    /// Reads one key: `parse` returns the value and its TOML text, or what would be right. If `parse` refuses the default, the
    /// key must be given.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        default: impl Into<ValueKind>,
        parse: impl FnOnce(&ValueKind) -> Result<(T, String), String>,
    ) -> Option<T> {
        let written = self.is_given(key).then(|| self.values[key].kind.clone());
        let is_given = written.is_some();
        match parse(&written.unwrap_or_else(|| default.into())) {
            Ok((value, shown)) => {
                let origin = self.origin(key).unwrap_or_else(|| "default".to_owned());
                self.list(key, shown, origin);
                Some(value)
            }
            Err(reason) if is_given => self.refuse(key, reason),
            Err(reason) => self.refuse(key, format!("must be given, and {reason}")),
        }
    }

    /// Sets what messages call this table; the default is `[name]`.
    pub fn set_title(&mut self, title: String) {
        self.title = title;
    }

    /// Whether the key was written anywhere. Also makes it a known key of this table.
    pub fn is_given(&mut self, key: &'static str) -> bool {
        if !self.known.contains(&key) {
            self.report.keys.push(self.full(key));
            self.known.push(key);
        }
        self.values.contains_key(key)
    }

    /// Returns which of these keys were written.
    pub fn given(&mut self, keys: &[&'static str]) -> Vec<&'static str> {
        keys.iter().copied().filter(|key| self.is_given(key)).collect()
    }

    /// Returns the written value of a key without a reader: a table, or a list of tables.
    pub fn value(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.values.get(key).cloned()
    }

    /// Fills in these values where none is written, also within tables.
    pub fn complete(&mut self, defaults: Map<String, Value>) {
        complete(&mut self.values, defaults);
    }

    /// Returns the key's value if it is a string.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.values.get(key)?.kind {
            ValueKind::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns where the key's value was written; `None` if nowhere.
    pub fn origin(&self, key: &str) -> Option<String> {
        self.values.get(key).and_then(origin_of)
    }

    /// Returns the key with its section's name.
    pub fn full(&self, key: &str) -> String {
        match (self.name.as_str(), key) {
            ("", key) => key.to_owned(),
            (name, "") => name.to_owned(),
            (name, key) => format!("{name}.{key}"),
        }
    }

    /// Reports that the key's value, or for "" the whole table, is wrong; `reason` says what would be right.
    pub fn refuse<T>(&mut self, key: &str, reason: impl Into<String>) -> Option<T> {
        let written = self.values.get(key).filter(|_| !self.secrets.contains(&key));
        let problem = Problem {
            key: self.full(key),
            value: written.and_then(|value| shown(key, value)),
            origin: self.origin(key).or_else(|| self.origin.clone()),
            reason: reason.into(),
        };
        self.report.problems.push(problem);
        None
    }

    /// Lists a value that is in effect, in TOML.
    pub fn list(&mut self, key: &str, value: impl Into<String>, origin: String) {
        let setting = Setting { key: self.full(key), value: value.into(), origin };
        self.report.settings.push(setting);
    }

    /// Makes a relative path absolute. In a file it is relative to that file's folder; from the environment or `--set` to the
    /// working directory. `prefix` is the text before the path.
    pub fn resolve(&mut self, key: &str, prefix: &str) {
        let folder = match self.file_of(key) {
            Some(file) => self.report.environment.working_directory.join(file.parent().unwrap_or(&file)),
            None => self.report.environment.working_directory.clone(),
        };
        // A folder whose name is not UTF-8 can't be shown.
        if let (Some(Value { kind: ValueKind::String(text), .. }), Some(folder)) =
            (self.values.get_mut(key), folder.to_str())
        {
            *text = absolute(text, prefix, folder);
        }
    }

    /// Hides the key's value from messages.
    pub fn hide(&mut self, key: &'static str) {
        self.secrets.push(key);
        self.warn_if_exposed(key);
    }

    /// Warns if every user of this machine can read the place where the key's value was written.
    pub fn warn_if_exposed(&mut self, key: &str) {
        if self.origin(key).is_some_and(|origin| origin == COMMAND_LINE) {
            let reason = "every user of this machine can read the command line (ps): put the secret into a file that \
                          only the daemon can read, or into the environment";
            self.warn(key, reason.to_owned());
        } else if let Some(file) = self.file_of(key) {
            self.warn_if_readable(key, &file);
        }
    }

    /// Warns if every user of this machine can read the file with the secret.
    pub fn warn_if_readable(&mut self, key: &str, file: &Path) {
        if let Some(mode) = mode_if_open_to_all(file) {
            let file = file.display();
            self.warn(
                key,
                format!("every user of this machine can read {file} (mode {mode:04o}): chmod o= {file}"),
            );
        }
    }

    fn warn(&mut self, key: &str, reason: String) {
        self.report.warnings.push(Problem::without_value(self.full(key), self.origin(key), reason));
    }

    /// Returns the configuration file, if the key's value was written there.
    fn file_of(&self, key: &str) -> Option<PathBuf> {
        let (file, origin) = (self.report.file.clone()?, self.origin(key)?);
        origin.starts_with(&format!("{}, line ", file.display())).then_some(file)
    }

    /// Refuses unknown keys without quoting their values: one may be a secret whose key is misspelled.
    fn refuse_unknown_keys(&mut self) {
        let unknown = self.values.iter().filter(|(key, _)| !self.known.contains(&key.as_str()));
        let problems = unknown.map(|(key, value)| {
            let hint = match did_you_mean(key, &self.known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("it has {}", self.known.join(", ")),
            };
            let reason = format!("{} has no such key; {hint}", self.title);
            Problem::without_value(self.full(key), origin_of(value), reason)
        });
        self.report.problems.extend(problems.collect::<Vec<_>>());
    }

    /// Forgets all written values, for a table whose keys can't be known.
    pub fn clear(&mut self) {
        self.values.clear();
    }
}

fn complete(values: &mut Map<String, Value>, defaults: Map<String, Value>) {
    for (key, default) in defaults {
        match values.get_mut(&key) {
            None => drop(values.insert(key, default)),
            Some(Value { kind: ValueKind::Table(values), .. }) => {
                if let ValueKind::Table(defaults) = default.kind {
                    complete(values, defaults);
                }
            }
            Some(_) => {}
        }
    }
}

/// Puts `folder` before the path after `prefix` if the path is relative. With an empty folder the path stays relative, and is
/// refused later.
fn absolute(text: &str, prefix: &str, folder: &str) -> String {
    match text.strip_prefix(prefix) {
        Some(path) if !path.is_empty() && !path.starts_with('/') && !folder.is_empty() => {
            format!("{prefix}{}/{}", folder.trim_end_matches('/'), path.trim_start_matches("./"))
        }
        _ => text.to_owned(),
    }
}

/// Returns the known word that is most similar to the given one, if one is similar enough.
pub(super) fn did_you_mean<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Uses clap's measure and threshold, so that a misspelled key is treated like a misspelled flag.
    let likeness = |candidate: &&str| strsim::jaro(word, candidate);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.7).then_some(best)
}

/// Returns where a value was written; for a table, where its first value was.
pub(super) fn origin_of(value: &Value) -> Option<String> {
    if let Some(origin) = value.origin() {
        return Some(origin.to_owned());
    }
    match &value.kind {
        ValueKind::Table(values) => {
            let first = values.iter().min_by_key(|(key, _)| key.as_str())?;
            origin_of(first.1)
        }
        ValueKind::Array(values) => values.first().and_then(origin_of),
        _ => None,
    }
}

/// Keys whose values no message shows, whatever is wrong with them: each is a secret, or where people put one by mistake.
const NEVER_SHOWN: [&str; 6] = ["key", "password", "secret", "secrets", "auth", "username"];

/// Returns what a message may show of a value, in TOML.
fn shown(key: &str, value: &Value) -> Option<String> {
    match &value.kind {
        _ if NEVER_SHOWN.contains(&key) => None,
        // The path of a file begins with "/". Anything else may be the secret itself.
        ValueKind::String(text) if key.ends_with("_file") && !text.starts_with('/') => None,
        ValueKind::String(text) if key.ends_with("url") => Some(quoted(&redacted(text))),
        ValueKind::String(text) if key == "path" => Some(quoted(&redacted_query(text))),
        ValueKind::String(text) => Some(quoted(text)),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
        // With its point: 1.0 is not 1.
        ValueKind::Float(number) => Some(format!("{number:?}")),
        other => Some(other.to_string()),
    }
}

/// Quotes a string as TOML and JSON do, and cuts it to fit into a line.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    serde_json::Value::from(text).to_string()
}

/// Removes from a URL everything that may be secret: user and password, query, fragment.
///
/// Works on the text, because an invalid URL must be shown too.
pub(super) fn redacted(url: &str) -> String {
    // Looks for the last "@" first, because a password may contain "?", "#" and "/".
    let (start, rest) = match url.rfind('@') {
        Some(at) => match url[..at].find(':') {
            Some(colon) if url[colon + 1..].starts_with("//") => {
                (format!("{}://***", &url[..colon]), &url[at..])
            }
            Some(colon) => (format!("{}:***", &url[..colon]), &url[at..]),
            None => ("***".to_owned(), &url[at..]),
        },
        None => (String::new(), url),
    };
    match rest.find(['?', '#']) {
        Some(end) => format!("{start}{}?***", &rest[..end]),
        None => format!("{start}{rest}"),
    }
}

/// Hides the values of a path's query, which may be secret, except for the place of the PIN ID.
pub(super) fn redacted_query(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !value.contains("{pinId}") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(shown).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_the_values_of_its_query_except_the_pin_id() {
        for (path, expected) in [
            ("/2fa/1/pin/{pinId}/status", "/2fa/1/pin/{pinId}/status"),
            ("/logs?apikey=secret&id={pinId}&verbose", "/logs?apikey=***&id={pinId}&verbose"),
        ] {
            assert_eq!(redacted_query(path), expected);
        }
    }

    #[test]
    fn a_url_is_shown_without_its_user_password_query_and_fragment() {
        let table = [
            ("a plain one is shown whole", "https://a.example:1/b", "https://a.example:1/b"),
            ("user and password are hidden", "https://u:p@a.example/b", "https://***@a.example/b"),
            ("whatever the password has in it", "https://u:p/?#@:x@a.example", "https://***@a.example"),
            ("without slashes too", "postgres:u:p@a", "postgres:***@a"),
            ("without a scheme too", "u@a", "***@a"),
            ("a query is hidden", "https://a.example/b?token=c", "https://a.example/b?***"),
            ("so is a fragment", "https://a.example/b#c", "https://a.example/b?***"),
            ("a mail address in the query hides more", "https://a/b?c=d@e", "https://***@e"),
        ];
        for (title, url, expected) in table {
            assert_eq!(redacted(url), expected, "{title}");
        }
    }

    #[test]
    fn a_key_is_suggested_only_if_it_is_similar() {
        let known = ["max_interval", "initial_interval", "deadline"];
        let table = [
            ("a letter too many", "max_intervall", Some("max_interval")),
            ("a hyphen for an underscore", "max-interval", Some("max_interval")),
            ("two letters in each other's place", "daedline", Some("deadline")),
            ("something else altogether", "foo", None),
        ];
        for (title, word, expected) in table {
            assert_eq!(did_you_mean(word, &known), expected, "{title}");
        }
    }

    #[test]
    fn a_long_value_is_cut_to_fit_a_line() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"é".repeat(300)).chars().count(), 203);
    }

    #[test]
    fn a_relative_path_is_resolved_against_the_folder_and_an_absolute_one_is_kept() {
        for (prefix, text, expected) in [
            ("", "./api-key", "/home/me/api-key"),
            ("", "keys/api", "/home/me/keys/api"),
            ("", "../api", "/home/me/../api"),
            ("", "/etc/api", "/etc/api"),
            ("", "", ""),
            ("sqlite:", "sqlite:pinwatch.db", "sqlite:/home/me/pinwatch.db"),
            ("sqlite:", "sqlite:/var/p.db", "sqlite:/var/p.db"),
            ("sqlite:", "postgres://h/d", "postgres://h/d"),
        ] {
            assert_eq!(absolute(text, prefix, "/home/me"), expected);
        }
        assert_eq!(absolute("api-key", "", ""), "api-key");
    }
}
