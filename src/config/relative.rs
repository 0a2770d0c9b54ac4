//! Relative paths in a configuration: those in a file are meant from that file's folder, those in the environment or in
//! `--set` from the working directory.
//!
//! Promises that every later check sees absolute paths, so that the daemon does not depend on where it was started. Knows
//! which keys hold paths, and no more of what they mean. Reads nothing from the disk.

use std::path::Path;

use config::{Map, Value, ValueKind};

/// The keys that hold a path.
const PATHS: [&str; 6] =
    ["api.key_file", "api.password_file", "api.ca_file", "intake.socket", "sink.path", "sink.secret_file"];

/// The key that holds a path behind `sqlite:`.
const STORE: (&str, &str) = ("store.url", "sqlite:");

/// Makes the relative paths of one layer absolute. An empty `base` leaves them as they are, to be refused.
pub(super) fn resolve(layer: &mut Map<String, Value>, base: &Path) {
    if base.as_os_str().is_empty() {
        return;
    }
    for (key, value) in layer.iter_mut() {
        match &mut value.kind {
            ValueKind::Table(section) => resolve_section(key, section, base),
            ValueKind::Array(sinks) => {
                for sink in sinks {
                    if let ValueKind::Table(sink) = &mut sink.kind {
                        resolve_section(key, sink, base);
                    }
                }
            }
            ValueKind::String(text) => resolve_text(key, text, base),
            _ => {}
        }
    }
}

fn resolve_section(section: &str, keys: &mut Map<String, Value>, base: &Path) {
    for (key, value) in keys.iter_mut() {
        if let ValueKind::String(text) = &mut value.kind {
            resolve_text(&format!("{section}.{key}"), text, base);
        }
    }
}

fn resolve_text(key: &str, text: &mut String, base: &Path) {
    let prefix = if key == STORE.0 { STORE.1 } else { "" };
    let is_path = PATHS.contains(&key) || key == STORE.0;
    let Some(path) = text.strip_prefix(prefix).filter(|path| is_path && !path.is_empty()) else { return };
    // The base is UTF-8, or the configuration could not show the path.
    if let Some(base) = base.to_str().filter(|_| !path.starts_with('/')) {
        let path = path.trim_start_matches("./");
        *text = format!("{prefix}{}/{path}", base.trim_end_matches('/'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(key: &str, text: &str) -> String {
        let mut text = text.to_owned();
        resolve_text(key, &mut text, Path::new("/home/me"));
        text
    }

    #[test]
    fn a_relative_path_is_meant_from_the_base_and_an_absolute_one_stays() {
        for (key, text, expected) in [
            ("api.key_file", "./api-key", "/home/me/api-key"),
            ("api.key_file", "keys/api", "/home/me/keys/api"),
            ("api.key_file", "../api", "/home/me/../api"),
            ("api.key_file", "/etc/api", "/etc/api"),
            ("api.key_file", "", ""),
            ("store.url", "sqlite:pinwatch.db", "sqlite:/home/me/pinwatch.db"),
            ("store.url", "sqlite:/var/p.db", "sqlite:/var/p.db"),
            ("store.url", "postgres://h/d", "postgres://h/d"),
            ("sink.url", "example", "example"),
        ] {
            assert_eq!(resolved(key, text), expected, "{key}");
        }
    }
}
