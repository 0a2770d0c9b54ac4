//! `[[sink]]` of `type = "webhook"`: where outcomes are sent, how they are signed, and what else a receiver asks for.
//!
//! Promises that every secret is one that Standard Webhooks allows, and that no message contains a part of it. A webhook holds
//! what its files contain, so two webhooks differ if a file has changed. Must not know HTTP or how a signature is computed.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config::ValueKind;
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::headers::Headers;
use super::read::{DAY, MILLISECOND, MINUTE, SECOND, YEAR, text_of};
use super::section::{Section, section};
use crate::http_client::tls::Identity;

const FORMATS: [(&str, WebhookFormat); 2] =
    [("record", WebhookFormat::Record), ("cloudevents", WebhookFormat::CloudEvents)];

section! {
    /// `type = "webhook"`
    #[derive(PartialEq)]
    pub struct Webhook {
        pub url: Url = url(""),
        pub secrets: SigningSecrets = signing_secrets(),
        /// The time limit of a whole request, from connecting to the last byte.
        pub timeout: Duration = duration("10s", MILLISECOND..=10 * MINUTE),
        /// How many requests may run at once.
        pub concurrency: usize = count(8, 1..=1_000),
        /// How long an outcome is retried before it becomes a dead letter.
        pub max_age: Duration = duration("24h", SECOND..=YEAR),
        pub format: WebhookFormat = choice("record", &FORMATS),
        /// The most outcomes in one request; 1 sends a record, more sends an array of records.
        pub batch: usize = count(1, 1..=1_000),
        /// How old a connection may get before it is replaced.
        pub pool_max_age: Duration = duration("5m", SECOND..=DAY),
        /// Additional headers of every request.
        pub headers: Headers = headers("headers_file"),
        /// Certificates of authorities to trust in addition to the system's.
        pub ca_file: Vec<CertificateDer<'static>> = authorities(),
        /// The certificate by which the receiver, or a gateway before it, recognises pinwatch.
        pub client_cert: Option<Arc<Identity>> = identity("client_key"),
    }
}

/// The signing secrets, the newest first: several while one is replaced, none for unsigned requests. Each is kept as written:
/// `whsec_` and the base64 of 24 to 64 bytes.
#[derive(Debug, Clone, Default)]
pub struct SigningSecrets(Vec<SecretString>);

impl Deref for SigningSecrets {
    type Target = [SecretString];

    fn deref(&self) -> &[SecretString] {
        &self.0
    }
}

impl From<Vec<SecretString>> for SigningSecrets {
    fn from(secrets: Vec<SecretString>) -> Self {
        Self(secrets)
    }
}

impl PartialEq for SigningSecrets {
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(ExposeSecret::expose_secret).eq(other.iter().map(ExposeSecret::expose_secret))
    }
}

/// The body of a webhook request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    Record,
    CloudEvents,
}

impl Section<'_> {
    fn signing_secrets(&mut self, list: &'static str) -> Option<SigningSecrets> {
        let given = self.given(&["secret", "secret_file", list]);
        let secrets = match given[..] {
            [] => {
                self.list("secret", "none, requests are not signed", "default".to_owned());
                Vec::new()
            }
            ["secrets"] => {
                self.hide(list);
                self.read(list, "", |written| {
                    let secrets = secret_list(written)?;
                    let shown = format!("set ({} secrets)", secrets.len());
                    Ok((secrets, shown))
                })?
            }
            [_] => vec![self.secret("secret", "secret_file", check_secret)?],
            _ => return self.refuse("", format!("must have one of {}, not several", given.join(", "))),
        };
        Some(SigningSecrets(secrets))
    }
}

fn secret_list(written: &ValueKind) -> Result<Vec<SecretString>, String> {
    let not_a_list = || "must be a list of strings, [\"…\", \"…\"]".to_owned();
    let ValueKind::Array(list) = written else { return Err(not_a_list()) };
    if list.is_empty() {
        return Err("must have at least one secret in it, the newest first".to_owned());
    }
    let secret = |value: &config::Value| {
        let text = text_of(&value.kind).map_err(|_| not_a_list())?;
        check_secret(text)?;
        Ok(text.into())
    };
    list.iter().map(secret).collect()
}

/// Checks a secret by Standard Webhooks, "Signature scheme": 24 to 64 bytes, in base64 after the prefix `whsec_`.
fn check_secret(secret: &str) -> Result<(), &'static str> {
    let encoded = secret.strip_prefix("whsec_");
    let decoded = encoded.and_then(|encoded| STANDARD.decode(encoded).ok()).map(Zeroizing::new);
    let is_right = decoded.is_some_and(|bytes| (24..=64).contains(&bytes.len()));
    is_right.then_some(()).ok_or(
        "must be \"whsec_\" and the base64 of 24 to 64 random bytes, as Standard Webhooks has it; \
         `echo whsec_$(head -c 32 /dev/urandom | base64)` makes one",
    )
}

#[cfg(test)]
mod tests {
    use super::super::sink::SinkKind;
    use super::super::testing::{load, table};
    use super::*;

    /// A webhook sink with these additional keys.
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
    fn the_url_of_a_webhook_is_required_and_must_use_https() {
        let url = |url: &str| format!("[[sink]]\ntype = \"webhook\"\nurl = \"{url}\"\n");
        table(&[
            ("https with a query is taken", &url("https://h.example/a?b=c"), ""),
            ("plain http to this machine is taken", &url("http://127.0.0.1:1/a"), ""),
            (
                "plain http is refused, with the key that allows it",
                &url("http://h.example"),
                "sink[0].url: must begin with https://, because anybody on the way can read http://; \
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
    fn secrets_must_have_the_standard_webhooks_form_and_be_given_in_one_way() {
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
    fn tls_files_are_checked_when_the_configuration_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let signed = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (cert, key) =
            (write("cert", &signed.cert.pem()), write("key", &signed.signing_key.serialize_pem()));
        let (others, text) = (write("other", &other.signing_key.serialize_pem()), write("text", "hunter2"));
        let ca = |path: &str| with(&format!("ca_file = {path:?}"));
        let client = |cert: &str, key: &str| with(&format!("client_cert = {cert:?}\nclient_key = {key:?}"));
        table(&[
            ("authorities are taken", &ca(&cert), ""),
            (
                "a missing file is refused",
                &ca("/no/ca"),
                "sink[0].ca_file: can't use this file: No such file",
            ),
            (
                "so is another file",
                &ca(&text),
                "sink[0].ca_file: can't use this file: it has no certificate in PEM",
            ),
            ("and a relative path", &ca("ca.pem"), "sink[0].ca_file: must be the absolute path"),
            ("a certificate and its key are taken", &client(&cert, &key), ""),
            (
                "no certificate without its key",
                &with(&format!("client_cert = {cert:?}")),
                "sink[0].client_cert: must have the other half with it: add sink[0].client_key",
            ),
            (
                "nor the other way round",
                &with(&format!("client_key = {key:?}")),
                "sink[0].client_key: must have the other half with it: add sink[0].client_cert",
            ),
            (
                "a missing certificate is refused",
                &client("/no/c", &key),
                "sink[0].client_cert: can't use this file",
            ),
            (
                "a missing key is",
                &client(&cert, "/no/k"),
                "sink[0].client_key: can't use this file: No such file",
            ),
            (
                "a key that is none is",
                &client(&cert, &text),
                "sink[0].client_key: can't use this file: it has no private key in PEM",
            ),
            (
                "and the key of another certificate",
                &client(&cert, &others),
                "sink[0].client_key: can't use this file with sink[0].client_cert",
            ),
        ]);
        let before = webhook(&client(&cert, &key));
        assert_eq!(before, webhook(&client(&cert, &key)));
        write("key", &other.signing_key.serialize_pem());
        write("cert", &other.cert.pem());
        assert_ne!(before, webhook(&client(&cert, &key)), "the files have changed, and not their names");
    }

    #[test]
    fn webhook_settings_outside_their_ranges_are_refused() {
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
