//! `[[sink]]` of `type = "webhook"`: to whom outcomes are sent, and how they are signed.
//!
//! Promises: every secret is one that Standard Webhooks allows, and no message has a part of it. Must not
//! know: HTTP, or how a signature is made.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::check::YEAR;
use super::credentials::from_file;
use super::section::Section;
use super::wire::{Count, Flag, Secret, Secrets, Span, Text};

/// `type = "webhook"`
#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: Url,
    /// Signing secrets, the newest first; several while they are rotated, none for unsigned. Each is as it was
    /// written: `whsec_` and base64 of 24 to 64 bytes.
    pub secrets: Vec<SecretString>,
    /// For a whole request, from connecting to the last byte.
    pub timeout: Duration,
    /// How many requests may run at once.
    pub concurrency: usize,
    /// How old an outcome gets before it is given up and becomes a dead letter.
    pub max_age: Duration,
    pub format: WebhookFormat,
    /// Outcomes in one request; 1 sends a record, more sends an array of records.
    pub batch: usize,
    /// How old a connection may get before it is replaced.
    pub pool_max_age: Duration,
}

impl PartialEq for Webhook {
    fn eq(&self, other: &Self) -> bool {
        let Self { url, secrets, timeout, concurrency, max_age, format, batch, pool_max_age } = self;
        let same_secrets = secrets.len() == other.secrets.len()
            && secrets.iter().zip(&other.secrets).all(|(a, b)| a.expose_secret() == b.expose_secret());
        same_secrets
            && *url == other.url
            && (*timeout, *concurrency, *max_age) == (other.timeout, other.concurrency, other.max_age)
            && (*format, *batch, *pool_max_age) == (other.format, other.batch, other.pool_max_age)
    }
}

/// The body of a webhook request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    Record,
    CloudEvents,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    url: Option<Text>,
    secret: Option<Secret>,
    secret_file: Option<Text>,
    secrets: Option<Secrets>,
    timeout: Span,
    concurrency: Count,
    max_age: Span,
    format: Text,
    batch: Count,
    pool_max_age: Span,
    allow_plain_http: Flag,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            secret_file: None,
            secrets: None,
            timeout: Span(Duration::from_secs(10)),
            concurrency: Count(8),
            max_age: Span(Duration::from_secs(24 * 60 * 60)),
            format: "record".into(),
            batch: Count(1),
            pool_max_age: Span(Duration::from_secs(5 * 60)),
            allow_plain_http: Flag(false),
        }
    }
}

/// Reads and checks what a webhook has beside the `common` keys of a sink; `None` if it is of no use, which is
/// reported then.
pub(super) fn check(section: &mut Section, common: &[&str]) -> Option<Webhook> {
    let wire: Wire = section.read_part(common);
    let url = url(section, &wire);
    let secrets = secrets(section, &wire);
    let timeout =
        section.duration("timeout", wire.timeout, Duration::from_millis(1)..=Duration::from_secs(600));
    let concurrency = section.count("concurrency", wire.concurrency, 1..=1_000);
    let max_age = section.duration("max_age", wire.max_age, Duration::from_secs(1)..=YEAR);
    let formats = [("record", WebhookFormat::Record), ("cloudevents", WebhookFormat::CloudEvents)];
    let format = section.choice("format", &wire.format, &formats);
    let batch = section.count("batch", wire.batch, 1..=1_000);
    let pool_max_age = section.duration(
        "pool_max_age",
        wire.pool_max_age,
        Duration::from_secs(1)..=Duration::from_secs(86_400),
    );
    section.show("allow_plain_http", wire.allow_plain_http.0.to_string());
    Some(Webhook {
        url: url?,
        secrets: secrets?,
        timeout,
        concurrency,
        max_age,
        format: format?,
        batch,
        pool_max_age,
    })
}

fn url(section: &mut Section, wire: &Wire) -> Option<Url> {
    match &wire.url {
        Some(url) => section.url("url", url, wire.allow_plain_http.0),
        None => {
            if !section.has("url") {
                section.refuse("url", "must be given: the URL that outcomes are sent to");
            }
            None
        }
    }
}

fn secrets(section: &mut Section, wire: &Wire) -> Option<Vec<SecretString>> {
    let keys = ["secret", "secret_file", "secrets"];
    let given: Vec<&str> = keys.into_iter().filter(|key| section.has(key)).collect();
    let (key, secrets, shown) = match given[..] {
        [] => {
            section.show("secret", "none, requests are not signed");
            return Some(Vec::new());
        }
        ["secret"] => ("secret", vec![wire.secret.as_ref()?.0.clone()], "set".to_owned()),
        ["secrets"] => {
            let secrets = wire.secrets.as_ref()?.0.clone();
            let shown = format!("set ({} secrets)", secrets.len());
            ("secrets", secrets, shown)
        }
        ["secret_file"] => {
            let path = &wire.secret_file.as_ref()?.0;
            let secret = from_file(section, "secret_file", path)?;
            ("secret_file", vec![secret], format!("set (from secret_file {path})"))
        }
        _ => {
            section.refuse("", format!("must have one of {}, not several", given.join(", ")));
            return None;
        }
    };
    section.show_from(if key == "secrets" { key } else { "secret" }, shown, key);
    if secrets.is_empty() {
        section.refuse(key, "must have at least one secret in it, the newest first");
        return None;
    }
    if !secrets.iter().all(is_signing_secret) {
        section.refuse(
            key,
            "must be \"whsec_\" and the base64 of 24 to 64 random bytes, as Standard Webhooks has it; \
             `echo whsec_$(head -c 32 /dev/urandom | base64)` makes one",
        );
        return None;
    }
    Some(secrets)
}

/// Standard Webhooks, "Signature scheme": between 24 and 64 bytes, base64 behind the prefix `whsec_`.
fn is_signing_secret(secret: &SecretString) -> bool {
    let Some(encoded) = secret.expose_secret().strip_prefix("whsec_") else { return false };
    let decoded = STANDARD.decode(encoded).map(Zeroizing::new);
    decoded.is_ok_and(|bytes| (24..=64).contains(&bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::super::sink::SinkKind;
    use super::super::testing::{load, table};
    use super::*;

    /// A webhook with these keys too.
    fn with(keys: &str) -> String {
        format!("[[sink]]\ntype = \"webhook\"\nurl = \"https://h.example/a\"\n{keys}")
    }

    fn secret(bytes: usize) -> String {
        format!("whsec_{}", STANDARD.encode(vec![7; bytes]))
    }

    fn webhook(text: &str) -> Webhook {
        match load(text).unwrap().sinks.remove(0).kind {
            SinkKind::Webhook(webhook) => webhook,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_url_is_given_and_closed_to_listeners() {
        let url = |url: &str| format!("[[sink]]\ntype = \"webhook\"\nurl = \"{url}\"\n");
        table(&[
            ("https with a query is taken", &url("https://h.example/a?b=c"), ""),
            ("plain http to this machine is taken", &url("http://127.0.0.1:1/a"), ""),
            (
                "plain http is refused, with the key that allows it",
                &url("http://h.example"),
                "sink[0].url: must begin with https://, because over http:// everybody on the way reads along; \
                 sink[0].allow_plain_http = true",
            ),
            (
                "and taken if it is allowed",
                &[&url("http://h.example"), "allow_plain_http = true"].concat(),
                "",
            ),
            ("a user is refused", &url("https://u:p@h.example"), "sink[0].url: must have no user"),
            ("no URL at all is refused", "[[sink]]\ntype = \"webhook\"", "sink[0].url: must be given"),
        ]);
    }

    #[test]
    fn secrets_are_those_of_standard_webhooks_and_given_in_one_way() {
        let one = |bytes| with(&format!("secret = \"{}\"", secret(bytes)));
        table(&[
            ("24 bytes are taken", &one(24), ""),
            ("64 bytes are taken", &one(64), ""),
            ("23 are refused", &one(23), "sink[0].secret: must be \"whsec_\""),
            ("65 are refused", &one(65), "sink[0].secret: must be \"whsec_\""),
            ("the prefix is needed", &with("secret = \"AAAA\""), "sink[0].secret: must be \"whsec_\""),
            ("the rest is base64", &with("secret = \"whsec_?\""), "sink[0].secret: must be \"whsec_\""),
            ("a list is a list", &with("secrets = \"a\""), "sink[0].secrets: must be a list of strings"),
            ("of strings", &with("secrets = [1]"), "sink[0].secrets: must be a list of strings"),
            ("with one at least", &with("secrets = []"), "sink[0].secrets: must have at least one"),
            (
                "one way is enough",
                &with("secret = \"a\"\nsecret_file = \"/b\""),
                "sink[0]: must have one of secret, secret_file, not several",
            ),
            (
                "a missing file is refused",
                &with("secret_file = \"/no/b\""),
                "sink[0].secret_file: can't use this",
            ),
        ]);
        assert!(webhook(&with("")).secrets.is_empty());
        let rotated = webhook(&with(&format!("secrets = [\"{}\", \"{}\"]", secret(32), secret(24))));
        assert_eq!(rotated.secrets[0].expose_secret(), secret(32));
        assert_eq!(rotated.secrets.len(), 2);
    }

    #[test]
    fn numbers_and_words_stay_within_what_makes_sense() {
        table(&[
            ("a thousand in a batch are taken", &with("batch = 1000"), ""),
            (
                "more are refused",
                &with("batch = 1001"),
                "sink[0].batch: must be a whole number from 1 to 1000",
            ),
            ("none are refused", &with("batch = 0"), "sink[0].batch: must be a whole number from 1"),
            (
                "no concurrency is refused",
                &with("concurrency = 0"),
                "sink[0].concurrency: must be a whole number",
            ),
            ("no age is refused", &with("max_age = \"0s\""), "sink[0].max_age: must be at least 1s"),
            (
                "connections live a second at least",
                &with("pool_max_age = \"1ms\""),
                "sink[0].pool_max_age: must be at least 1s",
            ),
            ("and a day at most", &with("pool_max_age = \"1day\""), ""),
            ("another format is refused", &with("format = \"xml\""), "sink[0].format: must be \"record\" or"),
        ]);
        assert_eq!(webhook(&with("format = \"cloudevents\"")).format, WebhookFormat::CloudEvents);
    }
}
