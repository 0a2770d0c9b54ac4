//! The credentials of `[api]`.
//!
//! Promises that they are given in exactly one way, that they fit into a header, and that no message contains a part of them.
//! Must not know more about headers than which characters they allow.

use secrecy::{ExposeSecret, SecretString};

use super::secret;
use super::section::Section;

/// How the daemon authenticates to the API.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The scheme of `api.auth`, then the key: `Authorization: App <key>`
    Key(SecretString),
    /// `Authorization: Basic …`
    Basic { username: String, password: SecretString },
}

impl Credentials {
    /// Whether both are the same; a reload asks this.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(a), Self::Key(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Basic { username: a, password: p }, Self::Basic { username: b, password: q }) => {
                a == b && p.expose_secret() == q.expose_secret()
            }
            _ => false,
        }
    }
}

/// The keys for credentials, in the order in which messages name them.
const KEYS: [&str; 5] = ["key", "key_file", "username", "password", "password_file"];

const WAYS: &str = "api.key_file (a file with the key), api.key (the key itself), or api.username with \
                    api.password_file or api.password; or systemd's LoadCredential=api-key:/its/path, which \
                    is found by itself as $CREDENTIALS_DIRECTORY/api-key";

impl Section<'_> {
    /// Reads the credentials from the keys, from the file that one of them names, or from systemd.
    pub fn credentials(&mut self, _: &'static str) -> Option<Credentials> {
        let given = self.given(&KEYS);
        let has_key = !given.iter().any(|key| matches!(*key, "username" | "password" | "password_file"));
        if has_key && self.text("auth") == Some("Basic") {
            let by = self.origin("auth").map(|origin| format!(" ({origin})")).unwrap_or_default();
            return self.refuse(
                "",
                format!("auth is \"Basic\"{by}: give api.username with api.password_file or api.password, and no key"),
            );
        }
        match given[..] {
            [] => self.credentials_from_systemd(),
            ["key"] | ["key_file"] => self.secret("key", "key_file", check_key).map(Credentials::Key),
            ["username", "password"] | ["username", "password_file"] => {
                let password = self.secret("password", "password_file", check_password);
                let username = self.parsed("username", "", username);
                Some(Credentials::Basic { username: username?, password: password? })
            }
            ["username"] => self.refuse(
                "username",
                format!("has no password with it: add api.password_file or api.password, or give {WAYS}"),
            ),
            ["password" | "password_file"] => {
                self.refuse(given[0], format!("has no user name with it: add api.username, or give {WAYS}"))
            }
            _ => {
                let origin = |key| self.origin(key).map(|origin| format!(" ({origin})")).unwrap_or_default();
                let named: Vec<String> =
                    given.iter().map(|key| format!("api.{key}{}", origin(key))).collect();
                let named = named.join(" and ");
                self.refuse(
                    "",
                    format!("credentials are given in exactly one way, and here are {named}; give {WAYS}"),
                )
            }
        }
    }

    /// Reads the credential that systemd passes, if no key is given.
    fn credentials_from_systemd(&mut self) -> Option<Credentials> {
        let folder = self.report.environment.path("CREDENTIALS_DIRECTORY");
        let Some(path) = folder.map(|folder| folder.join("api-key")).filter(|path| path.exists()) else {
            let is_misnamed = self.report.environment.variables.contains_key("PINWATCH_API_KEY");
            let hint = if is_misnamed {
                " (PINWATCH_API_KEY is not read: write PINWATCH__API__KEY, with two underscores each)"
            } else {
                ""
            };
            return self.refuse("", format!("there are no credentials{hint}; give {WAYS}"));
        };
        let key = match secret::read(&path) {
            Ok(key) => key,
            Err(error) => {
                let path = path.display();
                return self.refuse(
                    "",
                    format!(
                        "can't use the credential {path}: {error}. Is the key in the file that LoadCredential= of the \
                         unit names (/etc/pinwatch/api-key)?"
                    ),
                );
            }
        };
        self.warn_if_readable("key", &path);
        self.list("key", format!("set (from {})", path.display()), "$CREDENTIALS_DIRECTORY".to_owned());
        match check_key(key.expose_secret()) {
            Ok(()) => Some(Credentials::Key(key)),
            Err(reason) => self.refuse("key", reason),
        }
    }
}

/// Checks that the header `Authorization` can carry the key: printable ASCII without spaces.
fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        Err("the key is empty")
    } else if ["App ", "Bearer ", "AccessKey ", "Basic "].iter().any(|scheme| key.starts_with(scheme)) {
        Err("the key must stand alone, without \"App \" or another scheme before it")
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("the key has a character in it that no key has: a space, an end of line or one that isn't ASCII")
    } else {
        Ok(())
    }
}

/// Checks that the user name may be used in `Authorization: Basic …` (RFC 7617, section 2).
fn username(username: &str) -> Result<String, &'static str> {
    if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
        return Err("must not be empty, and must have no : and no control characters in it");
    }
    Ok(username.to_owned())
}

fn check_password(password: &str) -> Result<(), &'static str> {
    if password.is_empty() || password.contains(|c: char| c.is_control()) {
        return Err("the password must not be empty, and must have no control characters in it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::api::Api;
    use super::super::environment::Environment;
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
    fn a_variable_with_single_underscores_is_named_in_the_error() {
        let variables = BTreeMap::from([("PINWATCH_API_KEY".to_owned(), "geheim".into())]);
        let environment = Environment { variables, ..Environment::default() };
        let mut report = Report { environment, ..Report::default() };
        assert!(Section::read_table("api", None, &mut report, Api::checked).is_none());
        let said = report.problems[0].to_string();
        assert!(said.contains("write PINWATCH__API__KEY") && !said.contains("geheim"), "{said}");
    }

    #[test]
    fn the_credential_of_systemd_is_used_only_if_none_is_configured() {
        let folder = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), folder.path().into())]);
        let environment = Environment { variables, ..Environment::default() };
        let check = |value: Option<config::Value>| {
            let mut report = Report { environment: environment.clone(), ..Report::default() };
            let api = Section::read_table("api", value, &mut report, Api::checked);
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
        assert!(matches!(found, Some(Credentials::Key(key)) if key.expose_secret() == "from-systemd"));

        let configured = config::Map::from([("key".to_owned(), "configured")]);
        let (found, _) = check(Some(config::Value::from(configured)));
        assert!(matches!(found, Some(Credentials::Key(key)) if key.expose_secret() == "configured"));

        std::fs::write(folder.path().join("api-key"), "").unwrap();
        let (_, problems) = check(None);
        assert!(problems[0].reason.contains("api-key: it is empty. Is the key in"), "{}", problems[0]);
    }
}
