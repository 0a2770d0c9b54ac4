//! `[api]`: where the API is, who we are to it, and how hard we may lean on it.
//!
//! Promises: the URL can't lead a key to another host or over an open line. Must not know: HTTP, or how
//! credentials are found.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::credentials::{self, Credentials, Given};
use super::section::{Section, quoted};
use super::sources::Environment;
use super::wire::{Count, Flag, Secret, Span, Text};

/// `[api]`
#[derive(Debug, Clone)]
pub struct Api {
    /// Its own path, if it has one, goes before `path`.
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
    /// No connection gets older, so that a moved API is followed.
    pub pool_max_age: Duration,
    /// Certificates to trust beside the system's; absolute, PEM.
    pub ca_file: Option<PathBuf>,
}

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
    pool_max_age: Span,
    ca_file: Option<Text>,
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
            pool_max_age: Span(Duration::from_secs(5 * 60)),
            ca_file: None,
            allow_plain_http: Flag(false),
        }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section, environment: &Environment) -> Option<Api> {
    let wire: Wire = section.read();
    let base_url = base_url(&mut section, &wire);
    let path = path(&mut section, wire.path.0.clone());
    let given = Given {
        key: wire.key,
        key_file: wire.key_file,
        username: wire.username,
        password: wire.password,
        password_file: wire.password_file,
    };
    let credentials = credentials::check(&mut section, given, environment);
    let least = Duration::from_millis(1);
    let timeout = section.duration("timeout", wire.timeout, least..=Duration::from_secs(600));
    let connect_timeout =
        section.duration("connect_timeout", wire.connect_timeout, least..=Duration::from_secs(600));
    let concurrency = section.count("concurrency", wire.concurrency, 1..=10_000);
    let rate = section.count("rate", wire.rate, 0..=1_000_000);
    let pool_max_age = section.duration(
        "pool_max_age",
        wire.pool_max_age,
        Duration::from_secs(1)..=Duration::from_secs(86_400),
    );
    let ca_file = wire.ca_file.map(|path| {
        section.show("ca_file", quoted(&path.0));
        section.absolute_path("ca_file", &path.0)
    });
    section.show("allow_plain_http", wire.allow_plain_http.0.to_string());
    Some(Api {
        base_url: base_url?,
        path: path?,
        credentials: credentials?,
        timeout,
        connect_timeout,
        concurrency,
        rate: u32::try_from(rate).ok().and_then(NonZeroU32::new),
        pool_max_age,
        ca_file: match ca_file {
            Some(path) => Some(path?),
            None => None,
        },
    })
}

fn base_url(section: &mut Section, wire: &Wire) -> Option<Url> {
    let url = section.url("base_url", &wire.base_url, wire.allow_plain_http.0)?;
    if url.query().is_some() {
        section.refuse("base_url", "must have no query (?…)");
        return None;
    }
    // What stands before the PIN ID in api.path, such as /2fa/1/pin/: a whole request URL has it already.
    let before = wire.path.0.split_once("{pinId}").map_or("", |(before, _)| before);
    let own = url.path().to_ascii_lowercase();
    let is_request = own.contains("%7bpinid%7d") || own.contains("/2fa/");
    if is_request || (before.len() > 1 && format!("{own}/").contains(before)) {
        let origin = url.origin().ascii_serialization();
        section.refuse(
            "base_url",
            format!("must be the API's address alone, {origin:?}; api.path is put behind it for each PIN"),
        );
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

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};
    use super::*;

    #[test]
    fn the_url_leads_to_the_api_and_over_a_closed_line() {
        table(&[
            ("https is taken", "api.base_url = \"https://x.api.infobip.com\"", ""),
            ("a port is taken", "api.base_url = \"https://x.api.infobip.com:8443/\"", ""),
            (
                "plain http is refused",
                "api.base_url = \"http://a.example\"",
                "api.base_url: must begin with https",
            ),
            (
                "and taken if it is allowed",
                "api.base_url = \"http://a.example\"\napi.allow_plain_http = true",
                "",
            ),
            ("plain http to localhost is taken", "api.base_url = \"http://localhost:8080\"", ""),
            ("plain http to 127.0.0.0/8 is taken", "api.base_url = \"http://127.9.9.9:1\"", ""),
            ("plain http to ::1 is taken", "api.base_url = \"http://[::1]:1\"", ""),
            (
                "a name that only begins like it is not",
                "api.base_url = \"http://localhost.example\"",
                "api.base_url: ",
            ),
            ("nor an address that does", "api.base_url = \"http://127.0.0.1.example\"", "api.base_url: "),
            (
                "another scheme is refused",
                "api.base_url = \"ftp://a.example\"",
                "api.base_url: must begin with",
            ),
            ("no URL is refused", "api.base_url = \"a.example\"", "api.base_url: must be a URL"),
            ("no host is refused", "api.base_url = \"https://\"", "api.base_url: must be a URL"),
            (
                "a user is refused",
                "api.base_url = \"https://u@a.example\"",
                "api.base_url: must have no user",
            ),
            (
                "a query is refused",
                "api.base_url = \"https://a.example/?a=1\"",
                "api.base_url: must have no query",
            ),
            (
                "a fragment is refused",
                "api.base_url = \"https://a.example/#a\"",
                "api.base_url: must have no frag",
            ),
            ("a path is taken", "api.base_url = \"https://a.example/b/\"", ""),
            (
                "a whole request URL is refused",
                "api.base_url = \"https://a.example/2fa/1/pin/{pinId}/status\"",
                "api.base_url: must be the API's address alone, \"https://a.example\"",
            ),
            (
                "the beginning of one too",
                "api.base_url = \"https://a.example/2fa/1/pin\"",
                "api.base_url: must be the API's address alone",
            ),
            (
                "and what api.path says in other words",
                "api.base_url = \"https://a.example/v3/logs\"\napi.path = \"/v3/logs/{pinId}\"",
                "api.base_url: must be the API's address alone",
            ),
        ]);
    }

    #[test]
    fn the_path_has_the_pin_id_once_and_stays_at_its_host() {
        table(&[
            ("a gateway's path is taken", "api.path = \"/infobip/2fa/1/pin/{pinId}/status\"", ""),
            ("a relative path is refused", "api.path = \"2fa/{pinId}\"", "api.path: must begin with /"),
            ("a path without the ID is refused", "api.path = \"/2fa/{id}\"", "api.path: must have {pinId}"),
            ("one with two IDs too", "api.path = \"/{pinId}/{pinId}\"", "api.path: must have {pinId}"),
            ("two slashes would name a host", "api.path = \"//evil/{pinId}\"", "api.path: must be a path"),
            ("so would a backslash", "api.path = '/\\evil/{pinId}'", "api.path: must be a path"),
            ("a query is refused", "api.path = \"/a?b={pinId}\"", "api.path: must have no ?"),
            ("a space is refused", "api.path = \"/a b/{pinId}\"", "api.path: must have no ?"),
            ("dots would climb", "api.path = \"/../{pinId}\"", "api.path: must have no . and .."),
        ]);
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        table(&[
            ("no time at all is refused", "api.timeout = \"0s\"", "api.timeout: must be at least 1ms"),
            ("a bare number is refused", "api.timeout = 10", "api.timeout: must be a duration with its unit"),
            (
                "nothing at once is refused",
                "api.concurrency = 0",
                "api.concurrency: must be a whole number from 1",
            ),
            (
                "a part of a poll is refused",
                "api.concurrency = 1.5",
                "api.concurrency: must be a whole number",
            ),
            ("fewer than none is refused", "api.rate = -1", "api.rate: must be a whole number, 0 or more"),
            ("true is no number", "api.rate = true", "api.rate: must be a whole number"),
            (
                "a number is not true",
                "api.allow_plain_http = 1",
                "api.allow_plain_http: must be true or false",
            ),
        ]);
        assert_eq!(load("").unwrap().api.rate, None);
        assert_eq!(load("api.rate = 50").unwrap().api.rate, NonZeroU32::new(50));
    }
}
