//! `[api]`: the API's URL, the credentials for it, what its answers look like, and the limits for polling it.
//!
//! Promises that the URL sends a key neither to another host nor over an unencrypted connection. Must not know HTTP or how
//! credentials are found.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::answer::Answer;
use super::credentials::Credentials;
use super::preset::Preset;
use super::read::{DAY, MILLISECOND, MINUTE, SECOND, text_of};
use super::section::{Section, quoted, redacted_query, section};

section! {
    /// `[api]`
    pub struct Api {
        /// The preset, which supplies the keys that the configuration does not give.
        pub preset: &'static Preset = preset(),
        /// If it has a path, `path` is appended to that.
        pub base_url: Url = url("https://api.infobip.com"),
        /// Path and query, with `{pinId}` once, and with `{username}` at most once.
        pub path: String = request_path("/2fa/1/pin/{pinId}/status"),
        pub auth: Auth = parsed("App {key}", auth),
        pub credentials: Credentials = credentials(),
        /// How answers are read; `None` means as the default preset's, which have a reader of their own.
        pub answer: Option<Answer> = answer(),
        /// The time limit of a whole poll, from connecting to the last byte.
        pub timeout: Duration = duration("10s", MILLISECOND..=10 * MINUTE),
        pub connect_timeout: Duration = duration("5s", MILLISECOND..=10 * MINUTE),
        /// How many polls may run at once.
        pub concurrency: usize = count(64, 1..=10_000),
        /// The most polls per second; `None` means no limit.
        pub rate: Option<NonZeroU32> = rate(),
        /// The greatest age of a connection, so that the daemon follows an API that moves to other addresses.
        pub pool_max_age: Duration = duration("5m", SECOND..=DAY),
        /// Certificates to trust in addition to the system's: an absolute path of a PEM file.
        pub ca_file: Option<PathBuf> = optional_path(),
    }
}

/// How the key is sent. A user name with a password is always sent as `Basic`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// The scheme before the key: `Authorization: Bearer <key>`.
    Key { scheme: String },
    /// Only a user name with a password is sent.
    Basic,
}

impl Api {
    /// Reads the section, and checks that its keys fit together.
    pub(super) fn checked(section: &mut Section) -> Option<Self> {
        let api = Self::read(section)?;
        if api.base_url.query().is_some() {
            return section.refuse("base_url", "must have no query (?…)");
        }
        // If base_url contains the part of api.path before the PIN ID, such as /2fa/1/pin/, it is the URL of a whole request.
        let before = api.path.split(['{', '?']).next().unwrap_or_default();
        let own = api.base_url.path().to_ascii_lowercase();
        let is_request = own.contains("%7bpinid%7d") || own.contains("/2fa/");
        if is_request || (before.len() > 1 && format!("{own}/").contains(before)) {
            let origin = api.base_url.origin().ascii_serialization();
            return section.refuse(
                "base_url",
                format!(
                    "must be the API's address alone, {origin:?}; api.path is appended to it for each PIN"
                ),
            );
        }
        if api.path.contains("{username}") {
            match &api.credentials {
                Credentials::Key(_) => {
                    return section.refuse("path", "has {username} in it, so api.username must be given");
                }
                Credentials::Basic { username, .. } if matches!(&**username, "." | "..") => {
                    return section
                        .refuse("username", "must not be . or .., because it is a part of api.path");
                }
                Credentials::Basic { .. } => {}
            }
        }
        Some(api)
    }
}

impl Section<'_> {
    fn request_path(&mut self, key: &'static str, default: &str) -> Option<String> {
        self.read(key, default, |written| {
            let text = text_of(written)?;
            Ok((path(text)?, quoted(&redacted_query(text))))
        })
    }

    fn rate(&mut self, key: &'static str) -> Option<Option<NonZeroU32>> {
        self.count(key, 0, 0..=1_000_000).map(|rate| u32::try_from(rate).ok().and_then(NonZeroU32::new))
    }
}

fn path(path: &str) -> Result<String, &'static str> {
    let bare = path.replace("{pinId}", "").replacen("{username}", "", 1);
    let before_query = path.split('?').next().unwrap_or_default();
    if !path.starts_with('/') {
        Err("must begin with /")
    } else if path.matches("{pinId}").count() != 1 {
        Err("must have {pinId} in it, once, where the PIN ID goes")
    // "//host" and "/\host" would name another host, which would get the key.
    } else if path.starts_with("//") || path.contains('\\') {
        Err("must be a path alone, without // at its beginning and without \\")
    } else if bare.matches('?').count() > 1
        || bare.contains(|c: char| !c.is_ascii_graphic() || "#{}<>\"'`".contains(c))
    {
        Err(
            "must have at most one ?, no # { } and no spaces besides {pinId} and {username}, and no characters that a \
             URL would encode",
        )
    } else if before_query.split('/').any(|segment| matches!(segment, "." | "..")) {
        Err("must have no . and .. in it")
    } else {
        Ok(path.to_owned())
    }
}

fn auth(text: &str) -> Result<Auth, &'static str> {
    // The characters of a scheme: RFC 9110, section 5.6.2.
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    match text.strip_suffix(" {key}") {
        Some(scheme) if is_token(scheme) && !scheme.eq_ignore_ascii_case("basic") => {
            Ok(Auth::Key { scheme: scheme.to_owned() })
        }
        None if text == "Basic" => Ok(Auth::Basic),
        _ => Err(
            "must be a scheme before the key, such as \"App {key}\", \"Bearer {key}\" or \"AccessKey {key}\"; or \
                  \"Basic\", with api.username and api.password_file",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::preset::PRESETS;
    use super::super::testing::{load, table};
    use super::super::toml_file;
    use super::*;

    #[test]
    fn the_base_url_must_be_the_apis_and_use_https() {
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
    fn the_path_must_contain_the_pin_id_once_and_must_not_name_another_host() {
        table(&[
            ("a gateway's path is taken", "api.path = \"/infobip/2fa/1/pin/{pinId}/status\"", ""),
            ("a relative path is refused", "api.path = \"2fa/{pinId}\"", "api.path: must begin with /"),
            ("a path without the ID is refused", "api.path = \"/2fa/{id}\"", "api.path: must have {pinId}"),
            ("one with two IDs too", "api.path = \"/{pinId}/{pinId}\"", "api.path: must have {pinId}"),
            ("two slashes would name a host", "api.path = \"//evil/{pinId}\"", "api.path: must be a path"),
            ("so would a backslash", "api.path = '/\\evil/{pinId}'", "api.path: must be a path"),
            ("the ID may be in a query", "api.path = \"/a?b=c&d={pinId}\"", ""),
            ("a query begins once", "api.path = \"/a?b?c={pinId}\"", "api.path: must have at most one ?"),
            ("a fragment is not sent", "api.path = \"/a#{pinId}\"", "api.path: must have at most one ?"),
            ("a space is refused", "api.path = \"/a b/{pinId}\"", "api.path: must have at most one ?"),
            (
                "so is another placeholder",
                "api.path = \"/{key}/{pinId}\"",
                "api.path: must have at most one ?",
            ),
            ("dots would climb", "api.path = \"/../{pinId}\"", "api.path: must have no . and .."),
            (
                "a user name in it must be given",
                "api.path = \"/{username}/{pinId}\"",
                "api.path: has {username} in it",
            ),
            (
                "dots in a user name would climb",
                "api = {path = \"/{username}/{pinId}\", username = \"..\", password = \"p\"}",
                "api.username: must not be . or ..",
            ),
            (
                "the whole request with a query is no base URL",
                "api = {base_url = \"https://a.example/v3/logs\", path = \"/v3/logs?id={pinId}\"}",
                "api.base_url: must be the API's address alone",
            ),
        ]);
    }

    #[test]
    fn the_key_is_sent_with_a_scheme_and_a_user_name_with_basic() {
        let way = "api: auth is \"Basic\"";
        table(&[
            ("a scheme is taken", "api.auth = \"Bearer {key}\"", ""),
            ("another one too", "api.auth = \"AccessKey {key}\"", ""),
            (
                "a key without a place is not",
                "api.auth = \"Bearer\"",
                "api.auth: must be a scheme before the key",
            ),
            ("nor a scheme that ends the line", "api.auth = \"A\\nB {key}\"", "api.auth: must be a scheme"),
            ("nor is a key in place of {key}", "api.auth = \"Bearer 0123\"", "api.auth: must be a scheme"),
            ("nor Basic with a key", "api.auth = \"Basic {key}\"", "api.auth: must be a scheme"),
            ("Basic takes no key", "api = {auth = \"Basic\", key = \"k\"}", way),
            ("a preset may say so", "api.preset = \"vonage-verify\"", way),
            ("Basic takes a user name", "api = {auth = \"Basic\", username = \"u\", password = \"p\"}", ""),
            (
                "and needs its password",
                "api = {auth = \"Basic\", username = \"u\"}",
                "api.username: has no password",
            ),
        ]);
        let auth = |text: &str| load(text).unwrap().api.auth;
        assert_eq!(auth(""), Auth::Key { scheme: "App".to_owned() });
        assert_eq!(auth("api.auth = \"Bearer {key}\""), Auth::Key { scheme: "Bearer".to_owned() });
    }

    #[test]
    fn the_default_presets_file_has_the_defaults() {
        let of_file = toml_file::parse(Path::new("test.toml"), PRESETS[0].toml).unwrap();
        let text = |key: &str| of_file[key].to_string();
        let api = load("").unwrap().api;
        assert_eq!(text("base_url").parse::<Url>().unwrap(), api.base_url);
        assert_eq!((text("path"), text("auth")), (api.path, "App {key}".to_owned()));
    }

    #[test]
    fn numbers_outside_their_ranges_are_refused() {
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
            ("fewer than none is refused", "api.rate = -1", "api.rate: must be a whole number from 0"),
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
