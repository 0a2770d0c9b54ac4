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

use super::api::from_file;
use super::check::YEAR;
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
    section.show("allow_plain_http", wire.allow_plain_http.0.to_string());
    Some(Webhook { url: url?, secrets: secrets?, timeout, concurrency, max_age, format: format?, batch })
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
