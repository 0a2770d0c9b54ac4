//! The presets of `[api]`: files that describe an API, in `config/presets/` of the source.
//!
//! The default preset is [`DEFAULT`], whose values are also the defaults of `[api]`. Must not know what the values mean.

use std::path::Path;

use config::{Map, Value, ValueKind};

use super::section::Section;
use super::toml_file;

/// A description of one API, as a TOML file.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    pub name: &'static str,
    /// The keys of `[api]`, with `[answer]` for `[api.answer]`.
    pub toml: &'static str,
}

/// Embeds the file of a preset.
macro_rules! preset {
    ($name:literal) => {
        Preset { name: $name, toml: include_str!(concat!("../../config/presets/", $name, ".toml")) }
    };
}

/// Every preset; the first is the default.
pub static PRESETS: [Preset; 5] = [
    preset!("infobip-2fa-pin"),
    preset!("infobip-sms-logs"),
    preset!("twilio-message"),
    preset!("vonage-verify"),
    preset!("sinch-verification"),
];

/// The preset that applies if the configuration names none.
pub static DEFAULT: &Preset = &PRESETS[0];

/// The origin of a default value.
pub(super) const BY_DEFAULT: &str = "default";

impl Preset {
    /// Returns the preset with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// What it describes, in one line: the first of its file.
    pub fn summary(&self) -> &'static str {
        self.toml.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// Its values; their origin is the preset and the line, and for the default preset "default".
    fn values(&self) -> Map<String, Value> {
        // The files are part of the program, and a test reads each.
        let values =
            toml_file::parse(Path::new(&format!("preset {}", self.name)), self.toml).unwrap_or_default();
        if self == DEFAULT {
            values.into_iter().map(|(key, value)| (key, by_default(value))).collect()
        } else {
            values
        }
    }
}

/// Marks a value, and everything in it, as a default.
fn by_default(value: Value) -> Value {
    let kind = match value.kind {
        ValueKind::Table(values) => {
            ValueKind::Table(values.into_iter().map(|(key, value)| (key, by_default(value))).collect())
        }
        kind => kind,
    };
    Value::new(Some(&BY_DEFAULT.to_owned()), kind)
}

impl Section<'_> {
    /// Reads the name of a preset, and fills in the preset's values where none is written.
    pub fn preset(&mut self, key: &'static str) -> Option<&'static Preset> {
        let choices: Vec<_> = PRESETS.iter().map(|preset| (preset.name, preset)).collect();
        let preset = self.choice(key, DEFAULT.name, &choices)?;
        self.complete(preset.values());
        Some(preset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_toml_and_begins_with_its_summary() {
        for preset in &PRESETS {
            let values = toml_file::parse(Path::new(preset.name), preset.toml).unwrap();
            let keys: Vec<_> = ["base_url", "path", "auth", "answer"]
                .into_iter()
                .filter(|key| values.contains_key(*key))
                .collect();
            assert_eq!(keys.len(), values.len(), "{}", preset.name);
            assert!(preset.toml.starts_with("# ") && preset.summary().len() > 20, "{}", preset.name);
            assert!(preset.toml.contains("\n# https://"), "{} names no page of its vendor", preset.name);
        }
    }
}
