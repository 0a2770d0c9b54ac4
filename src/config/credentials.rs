//! The credentials of `[api]`: who the daemon is to the API.
//!
//! Promises: there is exactly one way in which they are given, they fit a header, and no message has a part of
//! them. Must not know: headers beyond their characters.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::secret;
use super::section::{Section, quoted};
use super::sources::Environment;
use super::wire::{Secret, Text};

/// How the daemon shows the API who it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// `Authorization: App <key>`
    App(SecretString),
    /// `Authorization: Basic …`
    Basic { username: String, password: SecretString },
}

impl Credentials {
    /// Whether these are the same, for a reload to tell.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::App(a), Self::App(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Basic { username: a, password: p }, Self::Basic { username: b, password: q }) => {
                a == b && p.expose_secret() == q.expose_secret()
            }
            _ => false,
        }
    }
}

/// The keys that give credentials, in the order in which messages name them.
const KEYS: [&str; 5] = ["key", "key_file", "username", "password", "password_file"];

const WAYS: &str = "api.key_file (a file with the key), api.key (the key itself), or api.username with \
                    api.password_file or api.password; or systemd's LoadCredential=api-key:/its/path, which \
                    is found by itself as $CREDENTIALS_DIRECTORY/api-key";

/// What was written of them.
pub(super) struct Given {
    pub key: Option<Secret>,
    pub key_file: Option<Text>,
    pub username: Option<Text>,
    pub password: Option<Secret>,
    pub password_file: Option<Text>,
}

/// Checks the keys of `[api]` that give credentials, and reads the file that one of them names; `None` if they are
/// of no use, which is reported then.
pub(super) fn check(section: &mut Section, wire: Given, environment: &Environment) -> Option<Credentials> {
    let given: Vec<&str> = KEYS.into_iter().filter(|key| section.has(key)).collect();
    match given[..] {
        [] => from_systemd(section, environment),
        ["key"] => {
            let key = wire.key.as_ref()?.0.clone();
            section.show("key", "set");
            checked_key(section, "key", key).map(Credentials::App)
        }
        ["key_file"] => {
            let path = &wire.key_file.as_ref()?.0;
            let key = from_file(section, "key_file", path)?;
            section.show_from("key", format!("set (from key_file {path})"), "key_file");
            checked_key(section, "key_file", key).map(Credentials::App)
        }
        ["username", "password"] => {
            let password = wire.password.as_ref()?.0.clone();
            section.show("password", "set");
            basic(section, &wire, "password", password)
        }
        ["username", "password_file"] => {
            let path = &wire.password_file.as_ref()?.0;
            let password = from_file(section, "password_file", path)?;
            section.show_from("password", format!("set (from password_file {path})"), "password_file");
            basic(section, &wire, "password_file", password)
        }
        ["username"] => {
            section.refuse(
                "username",
                format!("has no password with it: add api.password_file or api.password, or give {WAYS}"),
            );
            None
        }
        ["password" | "password_file"] => {
            section.refuse(given[0], format!("has no user name with it: add api.username, or give {WAYS}"));
            None
        }
        _ => {
            let named: Vec<String> = given
                .iter()
                .map(|key| match section.origin(key) {
                    Some(origin) => format!("api.{key} ({origin})"),
                    None => format!("api.{key}"),
                })
                .collect();
            let named = named.join(" and ");
            refuse_all(
                section,
                format!("credentials are given in exactly one way, and here are {named}; give {WAYS}"),
            );
            None
        }
    }
}

/// The credential that systemd passes, if nothing is configured.
fn from_systemd(section: &mut Section, environment: &Environment) -> Option<Credentials> {
    let path: Option<PathBuf> =
        environment.path("CREDENTIALS_DIRECTORY").map(|folder| folder.join("api-key"));
    let Some(path) = path.filter(|path| path.exists()) else {
        refuse_all(section, format!("there are no credentials; give {WAYS}"));
        return None;
    };
    match secret::read(&path) {
        Ok(key) => {
            warn_if_open(section, "key", &path);
            let shown = format!("set (from {})", path.display());
            section.show_origin("key", shown, "$CREDENTIALS_DIRECTORY".to_owned());
            checked_key(section, "key", key).map(Credentials::App)
        }
        Err(error) => {
            refuse_all(
                section,
                format!(
                    "can't use the credential {}: {error}. Is the key in the file that LoadCredential= of the unit names \
                 (/etc/pinwatch/api-key)?",
                    path.display()
                ),
            );
            None
        }
    }
}

/// Refuses what is no single key's fault.
fn refuse_all(section: &mut Section, reason: String) {
    section.refuse("", reason);
}

/// Reads the secret out of the file that `key` names.
pub(super) fn from_file(section: &mut Section, key: &str, path: &str) -> Option<SecretString> {
    let path = section.absolute_path(key, path)?;
    match secret::read(&path) {
        Ok(secret) => {
            warn_if_open(section, key, &path);
            Some(secret)
        }
        Err(error) => {
            section.refuse(key, format!("can't use this file: {error}"));
            None
        }
    }
}

fn warn_if_open(section: &mut Section, key: &str, path: &Path) {
    if let Some(mode) = secret::mode_if_open_to_all(path) {
        let path = path.display();
        section.warn(
            key,
            format!("every user of this machine can read {path} (mode {mode:04o}): chmod o= {path}"),
        );
    }
}

/// What may stand in `Authorization: App …`: printable ASCII without spaces.
fn checked_key(section: &mut Section, from: &str, key: SecretString) -> Option<SecretString> {
    let text = key.expose_secret();
    let reason = if text.is_empty() {
        "the key is empty"
    } else if text.starts_with("App ") {
        "the key must stand alone, without \"App \" before it"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "the key has a character in it that no key has: a space, an end of line or one that isn't ASCII"
    } else {
        return Some(key);
    };
    section.refuse(from, reason);
    None
}

/// What may stand in `Authorization: Basic …` (RFC 7617, section 2).
fn basic(section: &mut Section, wire: &Given, from: &str, password: SecretString) -> Option<Credentials> {
    let username = wire.username.as_ref()?.0.clone();
    section.show("username", quoted(&username));
    if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
        section.refuse("username", "must not be empty, and must have no : and no control characters in it");
        return None;
    }
    let text = password.expose_secret();
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        section.refuse(from, "the password must not be empty, and must have no control characters in it");
        return None;
    }
    Some(Credentials::Basic { username, password })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::api;
    use super::super::section::Report;
    use super::super::testing::table;
    use super::*;

    #[test]
    fn credentials_are_given_in_exactly_one_way() {
        table(&[
            ("a key is enough", "api.key = \"0123-abc\"", ""),
            ("a user and a password are", "api = {username = \"u\", password = \"p ä\"}", ""),
            (
                "a user alone isn't",
                "api.username = \"u\"",
                "api.username: has no password with it: add api.password_file",
            ),
            (
                "nor is a password",
                "api.password = \"p\"",
                "api.password: has no user name with it: add api.username",
            ),
            (
                "nor is a file with one",
                "api.password_file = \"/p\"",
                "api.password_file: has no user name with it: add api.username",
            ),
            (
                "a key and a file with it are one too many, and both are named",
                "api = {key = \"a\", key_file = \"/b\"}",
                "api: credentials are given in exactly one way, and here are api.key (test.toml, line 1) and \
                 api.key_file (test.toml, line 1); give api.key_file",
            ),
            (
                "a key and a user are",
                "api = {key = \"a\", username = \"b\", password = \"c\"}",
                "api: credentials",
            ),
            (
                "a missing file is refused",
                "api.key_file = \"/nowhere/key\"",
                "api.key_file: can't use this file",
            ),
            (
                "a relative file is refused",
                "api.key_file = \"key\"",
                "api.key_file: must be the absolute path",
            ),
            ("an empty key is refused", "api.key = \"\"", "api.key: the key is empty"),
            ("a number is no key", "api.key = 12345", "api.key: must be a string"),
            (
                "a key with an end of line is refused",
                "api.key = \"a\\nb\"",
                "api.key: the key has a character",
            ),
            ("one with an umlaut too", "api.key = \"ä\"", "api.key: the key has a character"),
            ("the scheme isn't part of it", "api.key = \"App 0123\"", "api.key: the key must stand alone"),
            ("a colon would end the user", "api = {username = \"a:b\", password = \"c\"}", "api.username: "),
            ("a password may not be empty", "api = {username = \"a\", password = \"\"}", "api.password: "),
        ]);
    }

    #[test]
    fn the_credential_of_systemd_is_found_only_if_nothing_is_configured() {
        let folder = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), folder.path().into())]);
        let environment = Environment { variables, ..Environment::default() };
        let check = |value: Option<config::Value>| {
            let mut report = Report::default();
            let api = api::check(Section::new("api", value, &mut report), &environment);
            (api.map(|api| api.credentials), report.problems)
        };

        let (none, problems) = check(None);
        assert!(none.is_none());
        for way in ["api.key_file", "api.key ", "api.username", "api.password_file", "LoadCredential=api-key"]
        {
            assert!(problems[0].reason.contains(way), "{way} isn't in {}", problems[0]);
        }

        std::fs::write(folder.path().join("api-key"), "from-systemd\n").unwrap();
        let (found, _) = check(None);
        assert!(matches!(found, Some(Credentials::App(key)) if key.expose_secret() == "from-systemd"));

        let configured = config::Map::from([("key".to_owned(), "configured")]);
        let (found, _) = check(Some(config::Value::from(configured)));
        assert!(matches!(found, Some(Credentials::App(key)) if key.expose_secret() == "configured"));

        std::fs::write(folder.path().join("api-key"), "").unwrap();
        let (_, problems) = check(None);
        assert!(problems[0].reason.contains("api-key: it is empty. Is the key in"), "{}", problems[0]);
    }
}
