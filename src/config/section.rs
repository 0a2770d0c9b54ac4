//! One table of the configuration on its way from what was written to what the program uses.
//!
//! A section is read into its wire type (unknown keys and wrong types are found here, all of them), then its
//! file looks at the values with the help of `check.rs`. Promises: whatever is refused is reported with its
//! full key and origin, whatever is used is listed for `check-config`, and a secret is in neither. Must not
//! know: which sections there are, or where the values were read.

use std::path::PathBuf;

use config::{ConfigError as ReadError, Map, Value, ValueKind};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor, value};

use super::Setting;
use super::error::Problem;
use super::sources::COMMAND_LINE;

/// Keys whose values no message shows, in whatever section.
const SECRETS: [&str; 4] = ["key", "password", "secret", "secrets"];

/// What the checks have found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub problems: Vec<Problem>,
    /// Secrets that others can read.
    pub warnings: Vec<Problem>,
    /// The configuration file and its mode, if every user of this machine can read it.
    pub open_file: Option<(PathBuf, u32)>,
    pub settings: Vec<Setting>,
}

/// One table: `[api]`, one `[[sink]]`, or the top level, whose name is empty.
pub(super) struct Section<'a> {
    name: String,
    title: String,
    origin: Option<String>,
    values: Map<String, Value>,
    report: &'a mut Report,
    problems_before: usize,
}

impl<'a> Section<'a> {
    /// `value` is the merged table, if anything was written into it.
    pub fn new(name: impl Into<String>, value: Option<Value>, report: &'a mut Report) -> Self {
        let name = name.into();
        let problems_before = report.problems.len();
        let origin = value.as_ref().and_then(Value::origin).map(str::to_owned);
        let values = match value.map(|value| value.kind) {
            None | Some(ValueKind::Nil) => Map::new(),
            Some(ValueKind::Table(values)) => values,
            Some(_) => {
                let reason = format!("must be a section, written [{name}] with its keys below");
                let problem = Problem { key: name.clone(), value: None, origin: origin.clone(), reason };
                report.problems.push(problem);
                Map::new()
            }
        };
        let title = if name.is_empty() { "the top level".to_owned() } else { format!("[{name}]") };
        Self { name, title, origin, values, report, problems_before }
    }

    /// Reads the table into its wire type. What can't be read is reported, and its default stands in for it,
    /// so that the checks may go on and find more.
    pub fn read<W: DeserializeOwned + Default>(&mut self) -> W {
        self.read_part(&[])
    }

    /// As `read`, for a table that has more keys than this wire type.
    pub fn read_part<W: DeserializeOwned + Default>(&mut self, others: &[&str]) -> W {
        let names = field_names::<W>();
        self.refuse_unknown_keys(&[names, others].concat());
        SECRETS.iter().filter(|key| names.contains(key)).for_each(|key| self.warn_if_exposed(key));
        let mut values = self.values.clone();
        values.retain(|key, _| names.contains(&key.as_str()));
        loop {
            match W::deserialize(Value::from(values.clone())) {
                Ok(wire) => return wire,
                Err(error) => {
                    let (key, reason) = locate(error);
                    if values.remove(&key).is_none() {
                        self.refuse(&key, reason);
                        return W::default();
                    }
                    self.refuse(&key, reason);
                }
            }
        }
    }

    /// What messages call this table; `[name]` unless it is set.
    pub fn call(&mut self, title: String) {
        self.title = title;
    }

    /// Whether the key was written anywhere.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether nothing in this section was refused yet: checks of one key against another wait for that.
    pub fn is_clean(&self) -> bool {
        self.report.problems.len() == self.problems_before
    }

    /// Reports the key's value as wrong; `reason` says what would be right.
    pub fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        let given = self.values.get(key);
        let problem = Problem {
            key: self.full(key),
            value: given.and_then(|value| shown(key, value)),
            origin: given.map_or_else(|| self.origin.clone(), origin_of),
            reason: reason.into(),
        };
        self.report.problems.push(problem);
    }

    /// Warns that others can read the secret that the key gives or names.
    pub fn warn(&mut self, key: &str, reason: impl Into<String>) {
        let (key, origin) = (self.full(key), self.origin(key));
        self.report.warnings.push(Problem { key, value: None, origin, reason: reason.into() });
    }

    /// Warns if the secret stands where every user of this machine can read it.
    pub fn warn_if_exposed(&mut self, key: &str) {
        let Some(origin) = self.origin(key) else { return };
        if origin == COMMAND_LINE {
            let reason = "every user of this machine can read the command line (ps): put the secret into a file that \
                          only the daemon can read, or into the environment";
            self.warn(key, reason);
        } else if let Some((path, mode)) = &self.report.open_file
            && origin.starts_with(&format!("{}, line ", path.display()))
        {
            let path = path.display();
            let reason =
                format!("every user of this machine can read this file (mode {mode:04o}): chmod o= {path}");
            self.warn(key, reason);
        }
    }

    /// Lists the value that is used, as TOML would write it. A caller with a secret lists "set" instead.
    pub fn show(&mut self, key: &str, value: impl Into<String>) {
        self.show_from(key, value, key);
    }

    /// As `show`, where the value comes from what another key says.
    pub fn show_from(&mut self, key: &str, value: impl Into<String>, from: &str) {
        let origin = self.origin(from).unwrap_or_else(|| "default".to_owned());
        self.show_origin(key, value, origin);
    }

    /// As `show`, where the value comes from no key at all.
    pub fn show_origin(&mut self, key: &str, value: impl Into<String>, origin: String) {
        let setting = Setting { key: self.full(key), value: value.into(), origin };
        self.report.settings.push(setting);
    }

    /// Where the key's value was written; `None` if nowhere.
    pub fn origin(&self, key: &str) -> Option<String> {
        self.values.get(key).and_then(origin_of)
    }

    /// The key with its section's name.
    pub fn full(&self, key: &str) -> String {
        match (self.name.as_str(), key) {
            ("", key) => key.to_owned(),
            (name, "") => name.to_owned(),
            (name, key) => format!("{name}.{key}"),
        }
    }

    /// An unknown key is refused without its value: it may be a secret with a typing error in its name.
    fn refuse_unknown_keys(&mut self, known: &[&str]) {
        let unknown: Vec<String> =
            self.values.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            let origin = self.values.remove(&key).as_ref().and_then(origin_of);
            let reason = no_such_key(&self.title, &key, known);
            self.report.problems.push(Problem { key: self.full(&key), value: None, origin, reason });
        }
    }
}

/// The names of a wire type's fields, which serde's derive hands to whoever deserializes it: one list, the
/// struct itself.
pub(super) fn field_names<W: DeserializeOwned>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, value::Error> {
            *self.0 = fields;
            Err(de::Error::custom("only the names were wanted"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            Err(de::Error::custom("not a struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // It always fails: the names are all that is wanted of it.
    let _ = W::deserialize(Names(&mut names));
    names
}

/// What to say of a key that isn't there: the one that was probably meant, else all that there are.
pub(super) fn no_such_key(title: &str, key: &str, known: &[&str]) -> String {
    match did_you_mean(key, known) {
        Some(meant) => format!("{title} has no such key; did you mean {meant}?"),
        None => format!("{title} has no such key; it has {}", known.join(", ")),
    }
}

/// The known word that is most like the given one, if one is like enough.
pub(super) fn did_you_mean<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // clap's measure and threshold, so that a typing error in a flag and in a key are treated alike.
    let likeness = |candidate: &&str| strsim::jaro(word, candidate);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.7).then_some(best)
}

/// Where a value was written; for a table, where the first of its values was.
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

/// What a message may show of a value, as TOML would write it.
fn shown(key: &str, value: &Value) -> Option<String> {
    if SECRETS.contains(&key) {
        return None;
    }
    match &value.kind {
        // A name of a file begins with "/". Whatever else stands there may be the secret itself.
        ValueKind::String(text) if key.ends_with("_file") && !text.starts_with('/') => None,
        ValueKind::String(text) if key.ends_with("url") => Some(quoted(&redacted(text))),
        ValueKind::String(text) => Some(quoted(text)),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
        other => Some(other.to_string()),
    }
}

/// A string as TOML and JSON write it, cut to what fits a line.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    serde_json::Value::from(text).to_string()
}

/// A URL without what may be secret in it: user and password, query, fragment.
///
/// It works on the text, because a URL with a mistake in it must be shown too.
pub(super) fn redacted(url: &str) -> String {
    // The last "@" first, wherever it is: a password may have "?", "#" and "/" in it.
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

/// The key that an error of deserializing is about, and its bare message.
fn locate(error: ReadError) -> (String, String) {
    match error {
        ReadError::At { error, key: Some(key), .. } => (top_key(&key), error.to_string()),
        ReadError::Type { key: Some(key), expected, .. } => (top_key(&key), format!("must be {expected}")),
        other => (String::new(), other.to_string()),
    }
}

/// `secrets[1]` is a part of `secrets`.
fn top_key(key: &str) -> String {
    key.split(['[', '.']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
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
    fn a_suggestion_is_made_only_where_one_is_close() {
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
}
