//! What the table tests of the sections share: a configuration out of a few lines of TOML.

use std::path::Path;

use config::{Map, Value, ValueKind};

use super::section::{Report, Section};
use super::{Config, toml_file};

/// Checks a file of these lines; an API key is put in if the lines have none. Each refusal is `key: reason`.
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

/// Each row is a sentence, some lines of TOML, and how the only refusal begins; `""` if the lines are taken.
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
