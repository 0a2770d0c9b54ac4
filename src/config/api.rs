//! `[api]`: where the API is, who we are to it, and how hard we may lean on it.
//!
//! Promises: the URL can't lead a key to another host or over an open line, there is exactly one way in which
//! credentials are given, and no message has a part of them. Must not know: HTTP.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::secret;
use super::section::{Section, quoted};
use super::sources::Environment;
use super::wire::{Count, Flag, Secret, Span, Text};

/// `[api]`
#[derive(Debug, Clone)]
pub struct Api {
    /// Scheme, host and port alone: the path of a gateway stands in `path`.
    pub base_url: Url,
    /// Path template with `{pinId}`.
    pub path: String,
    pub credentials: Credentials,
    /// For a whole poll, from connecting to the last byte.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// How many polls may run at once.
    pub concurrency: usize,
    /// Polls a second; `None` is no limit.
    pub rate: Option<NonZeroU32>,
}

/// How the daemon shows the API who it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// `Authorization: App <key>`
    App(SecretString),
    /// `Authorization: Basic …`
    Basic { username: String, password: SecretString },
}

/// The keys that give credentials, in the order in which messages name them.
const CREDENTIALS: [&str; 5] = ["key", "key_file", "username", "password", "password_file"];

const WAYS: &str = "api.key_file (a file with the key), api.key (the key itself), or api.username with \
                    api.password_file or api.password; or systemd's LoadCredential=api-key:/its/path, which \
                    is found by itself as $CREDENTIALS_DIRECTORY/api-key";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    base_url: Text,
    path: Text,
    key: Option<Secret>,
    key_file: Option<Text>,
    username: Option<Text>,
    password: Option<Secret>,
    password_file: Option<Text>,
    timeout: Span,
    connect_timeout: Span,
    concurrency: Count,
    rate: Count,
    allow_plain_http: Flag,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            base_url: "https://api.infobip.com".into(),
            path: "/2fa/1/pin/{pinId}/status".into(),
            key: None,
            key_file: None,
            username: None,
            password: None,
            password_file: None,
            timeout: Span(Duration::from_secs(10)),
            connect_timeout: Span(Duration::from_secs(5)),
            concurrency: Count(64),
            rate: Count(0),
            allow_plain_http: Flag(false),
        }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section, environment: &Environment) -> Option<Api> {
    let wire: Wire = section.read();
    let base_url = base_url(&mut section, &wire);
    let path = path(&mut section, wire.path.0.clone());
    let credentials = credentials(&mut section, &wire, environment);
    let least = Duration::from_millis(1);
    let timeout = section.duration("timeout", wire.timeout, least..=Duration::from_secs(600));
    let connect_timeout =
        section.duration("connect_timeout", wire.connect_timeout, least..=Duration::from_secs(600));
    let concurrency = section.count("concurrency", wire.concurrency, 1..=10_000);
    let rate = section.count("rate", wire.rate, 0..=1_000_000);
    section.show("allow_plain_http", wire.allow_plain_http.0.to_string());
    Some(Api {
        base_url: base_url?,
        path: path?,
        credentials: credentials?,
        timeout,
        connect_timeout,
        concurrency,
        rate: u32::try_from(rate).ok().and_then(NonZeroU32::new),
    })
}

fn base_url(section: &mut Section, wire: &Wire) -> Option<Url> {
    let url = section.url("base_url", &wire.base_url, wire.allow_plain_http.0)?;
    if url.query().is_some() {
        section.refuse("base_url", "must have no query (?…)");
        return None;
    }
    // One place for the path: joined out of two, it would be a riddle which "/" counts.
    if url.path() != "/" {
        section
            .refuse("base_url", "must end with the host or port; what comes behind it belongs into api.path");
        return None;
    }
    Some(url)
}

fn path(section: &mut Section, path: String) -> Option<String> {
    section.show("path", quoted(&path));
    let reason = if !path.starts_with('/') {
        "must begin with /"
    } else if path.matches("{pinId}").count() != 1 {
        "must have {pinId} in it, once, where the PIN ID goes"
    // "//host" and "/\host" would be another host, which would get the key.
    } else if path.starts_with("//") || path.contains('\\') {
        "must be a path alone, without // at its beginning and without \\"
    } else if path.replace("{pinId}", "").contains(|c: char| !c.is_ascii_graphic() || "?#{}<>\"`".contains(c))
    {
        "must have no ? # { } and no spaces beside {pinId}, and no characters that a URL would encode"
    } else if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        "must have no . and .. in it"
    } else {
        return Some(path);
    };
    section.refuse("path", reason);
    None
}

fn credentials(section: &mut Section, wire: &Wire, environment: &Environment) -> Option<Credentials> {
    let given: Vec<&str> = CREDENTIALS.into_iter().filter(|key| section.has(key)).collect();
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
            basic(section, wire, "password", password)
        }
        ["username", "password_file"] => {
            let path = &wire.password_file.as_ref()?.0;
            let password = from_file(section, "password_file", path)?;
            section.show_from("password", format!("set (from password_file {path})"), "password_file");
            basic(section, wire, "password_file", password)
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
            let shown = format!("set (from {})", path.display());
            section.show_origin("key", shown, "$CREDENTIALS_DIRECTORY".to_owned());
            checked_key(section, "key", key).map(Credentials::App)
        }
        Err(error) => {
            refuse_all(section, format!("can't use the credential {}: {error}", path.display()));
            None
        }
    }
}

/// Refuses what is no single key's fault.
fn refuse_all(section: &mut Section, reason: String) {
    section.refuse("", reason);
}

pub(super) fn from_file(section: &mut Section, key: &str, path: &str) -> Option<SecretString> {
    let path = section.absolute_path(key, path)?;
    match secret::read(Path::new(&path)) {
        Ok(secret) => Some(secret),
        Err(error) => {
            section.refuse(key, format!("can't use this file: {error}"));
            None
        }
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
fn basic(section: &mut Section, wire: &Wire, from: &str, password: SecretString) -> Option<Credentials> {
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
