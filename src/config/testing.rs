//! Helpers for the sections' table tests: make a configuration from a few lines of TOML.

use std::path::Path;

use config::{Map, Value, ValueKind};

use super::section::{Report, Section};
use super::{Config, toml_file};

/// Loads a file of these lines; adds an API key if the lines have none. Each refusal is `key: reason`.
pub(super) fn load(text: &str) -> Result<Config, Vec<String>> {
    let mut values = toml_file::parse(Path::new("test.toml"), text).unwrap();
    let api = values.entry("api".to_owned()).or_insert_with(|| Map::<String, Value>::new().into());
    if let ValueKind::Table(api) = &mut api.kind
        && !["key", "key_file", "username", "password", "password_file"]
            .iter()
            .any(|key| api.contains_key(*key))
    {
        api.insert("key".to_owned(), "0123".into());
    }
    let mut report = Report::default();
    let config = Section::read_table("", Some(values.into()), &mut report, Config::read);
    let refusals: Vec<String> =
        report.problems.iter().map(|problem| format!("{}: {}", problem.key, problem.reason)).collect();
    if refusals.is_empty() { Ok(config.expect("refused without a problem")) } else { Err(refusals) }
}

/// Checks a table. Each row is a sentence, some lines of TOML, and the beginning of the only refusal; `""` if the lines are
/// accepted.
pub(super) fn table(rows: &[(&str, &str, &str)]) {
    for (title, text, expected) in rows {
        match (load(text), *expected) {
            (Ok(_), "") => {}
            (Ok(_), expected) => panic!("{title}: was taken, not refused with {expected:?}"),
            (Err(refusals), "") => panic!("{title}: was refused: {refusals:?}"),
            (Err(refusals), expected) => {
                assert!(
                    refusals.len() == 1 && refusals[0].starts_with(expected),
                    "{title}: {refusals:#?} instead of {expected:?}"
                );
            }
        }
    }
}
