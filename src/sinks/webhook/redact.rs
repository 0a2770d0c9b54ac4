//! Removes from a receiver's text what pinwatch sent to it: frameworks often quote a failed request in their error pages.
//!
//! Promises that no path or query value of the URL, no secret, no value of a configured header, no signature, no PIN ID and no
//! data that the submitter attached to the PIN stays in the text, whether the receiver wrote it plainly, as JSON, as a URL or as
//! HTML, even if the text was cut off within it. Two exceptions keep such texts readable: a path segment, a query value or a part
//! of a header's value of fewer than 4 bytes stays, and any value of fewer than 8 is replaced only where it is a whole word.
//! Pure. Must not know what the text is for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::config::Headers;
use crate::redact::{decoded, normal, without};
use crate::store::Outcome;

/// A shorter path segment or query value of the URL, or part of a header, is no secret: `v1`, `api`.
const SHORTEST_SECRET: usize = 4;

/// Below this length only whole words are replaced. A PIN ID may be one letter.
const LONG: usize = 8;

/// What no text of the endpoint may repeat, whatever the request was.
pub struct Redactor {
    secrets: Vec<SecretString>,
}

impl Redactor {
    pub fn new(url: &Url, signing: &[SecretString], headers: &Headers) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        let query = url.query().unwrap_or_default();
        secrets.extend([format!("{}?{query}", url.path()), url.path().to_owned(), query.to_owned()]);
        secrets.extend(url.path().split('/').map(str::to_owned));
        for parameter in query.split('&') {
            let value = parameter.split_once('=').map_or(parameter, |(_, value)| value);
            secrets.extend([value.to_owned(), value.replace('+', " ")]);
        }
        headers.iter().for_each(|(_, value)| secrets.extend(parts(value.expose_secret())));
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        // A whole value counts, however short it is.
        secrets.extend(headers.iter().map(|(_, value)| value.expose_secret().to_owned()));
        for secret in signing {
            let secret = secret.expose_secret();
            secrets.extend([secret, secret.trim_start_matches("whsec_")].map(str::to_owned));
        }
        let secrets = secrets.iter().map(|secret| normal(secret).into()).collect();
        Self { secrets }
    }

    /// The receiver's text about a request for this outcome with this signature, without secrets; `None` if the body is not text.
    pub fn clean(&self, said: &[u8], outcome: &Outcome, signature: Option<&str>) -> Option<String> {
        let text = decoded(text(said)?);
        let (pin, given) = (outcome.pin.as_str(), given(outcome));
        // `v1,BASE64`, once for each secret.
        let signatures = signature.unwrap_or_default().split([' ', ',']).filter(|part| part.len() >= LONG);
        let of_request: Vec<String> =
            signatures.chain([pin]).chain(given.iter().map(String::as_str)).map(normal).collect();
        let fixed = self.secrets.iter().map(ExposeSecret::expose_secret);
        Some(without(&text, fixed.chain(of_request.iter().map(String::as_str)), LONG))
    }
}

/// What a receiver may quote alone of a header's value: the token of `Bearer TOKEN`, user and password of `Basic …`, the values
/// of `a=1; b="2"`.
fn parts(value: &str) -> Vec<String> {
    let is_scheme = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let (scheme, rest) = value.split_once(' ').filter(|(word, _)| is_scheme(word)).unwrap_or(("", value));
    let mut parts = vec![rest.trim().to_owned()];
    if scheme.eq_ignore_ascii_case("basic")
        && let Ok(Ok(user)) = BASE64.decode(rest.trim()).map(String::from_utf8)
    {
        parts.extend(user.split_once(':').map(|(_, password)| password.to_owned()));
        parts.push(user);
    }
    for part in rest.split([' ', ',', ';']) {
        let value = part.split_once('=').map_or(part, |(_, value)| value);
        parts.extend([part, value].map(|part| part.trim_matches(['"', '=']).to_owned()));
    }
    parts
}

/// The text of a body that may be cut off within a character; `None` for other encodings, in which no secret would be found.
fn text(body: &[u8]) -> Option<&str> {
    let text = match str::from_utf8(body) {
        Ok(text) => text,
        Err(error) if error.error_len().is_some() => return None,
        Err(error) => str::from_utf8(body.get(..error.valid_up_to())?).ok()?,
    };
    (!text.contains('\0')).then_some(text)
}

/// The data that the submitter attached to the PIN: the reference, and every name, text and number of the metadata.
fn given(outcome: &Outcome) -> Vec<String> {
    let mut given = Vec::new();
    let mut rest: Vec<Value> = match serde_json::from_str(&outcome.record) {
        Ok(Value::Object(mut record)) => {
            ["reference", "metadata"].into_iter().filter_map(|field| record.remove(field)).collect()
        }
        _ => Vec::new(),
    };
    while let Some(value) = rest.pop() {
        match value {
            Value::String(text) => given.push(text),
            Value::Number(number) => given.push(number.to_string()),
            Value::Array(values) => rest.extend(values),
            Value::Object(fields) => {
                for (name, value) in fields {
                    given.push(name);
                    rest.push(value);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers() -> Headers {
        let sink = r#"sink=[{type="webhook", url="https://h.example", headers={
            Authorization="Basic dXNlcjpvcGVuIHNlc2FtZQ==", X-Token="Bearer 0123456789abcdef", Cookie="sid=\"s3ss10n\"; a=b",
            X-Env="qa", X-Path="/a b/c+d"}}]"#;
        let sink = sink.split_whitespace().collect::<Vec<_>>().join(" ");
        match crate::config::Config::of_sets(&["api.key=key", &sink]).unwrap().sinks.remove(0).kind {
            crate::config::SinkKind::Webhook(webhook) => webhook.headers,
            other => panic!("{other:?}"),
        }
    }

    fn clean(said: &str) -> String {
        let url = "https://h.example/v1/services/T0%2BK3N/in?token=hunter2&to=a%2Fb+c".parse().unwrap();
        let record = r#"{"seq":1,"id":"0193e6a0-0000-7000-8000-000000000001","pinId":"9C817C6F","reference":"order \"é\"",
            "metadata":{"phone":"+44 7700 900123","n":[4711,true,null]},"status":"MESSAGE_DELIVERED"}"#;
        let outcome = Outcome { seq: 1, pin: "9C817C6F".parse().unwrap(), record: record.into() };
        Redactor::new(&url, &[SECRET.into()], &headers())
            .clean(said.as_bytes(), &outcome, Some(SIGNATURE))
            .unwrap()
    }

    #[test]
    fn ordinary_words_of_the_receiver_are_kept() {
        for said in [
            "no such order: v1 is gone",
            r#"{"error":"bad"}"#,
            "100% of \\x & nothing & more; &#; &#x;",
            "é\\u12",
        ] {
            assert_eq!(clean(said), said);
        }
    }

    #[test]
    fn sent_values_are_removed_in_every_encoding() {
        for (said, expected) in [
            (
                "POST https://h.example/v1/services/T0%2BK3N/in?token=hunter2 failed",
                "POST https://h.example***?token=*** failed",
            ),
            ("no T0+K3N here", "no *** here"),
            ("no t0%2bk3n here", "no *** here"),
            (r"no T0\u002BK3N here", "no *** here"),
            (r"no T0\\u002bK3N here", "no *** here"),
            ("no T0&#43;K3N, no T0&#x2B;K3N", "no ***, no ***"),
            ("token=hunter2, to=a/b c, to=a%2Fb+c", "token=***, to=***, to=***"),
            (r#"{"path":"\/v1\/services\/T0+K3N\/in"}"#, r#"{"path":"***"}"#),
            ("hunter22 is another", "hunter22 is another"),
            ("pin 9c817c6f of order \\\"\\u00e9\\\"", "pin *** of ***"),
            ("phone +44 7700 900123 and 4711", "*** *** and ***"),
            (SIGNATURE, "v1,***"),
            ("g0hM9SsE%2BOTPJTGt%2FtmIKtSyZlE3uFJELVlNIOLJ1OE%3D", "***"),
            (SECRET, "***"),
            ("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "***"),
        ] {
            assert_eq!(clean(said), expected, "{said}");
        }
    }

    #[test]
    fn header_values_and_their_parts_are_removed() {
        for (said, expected) in [
            ("bad Authorization: Basic dXNlcjpvcGVuIHNlc2FtZQ==", "bad Authorization: ***"),
            ("bad dXNlcjpvcGVuIHNlc2FtZQ", "bad ***"),
            ("wrong password open sesame", "wrong password ***"),
            ("want Bearer, wrong token 0123456789ABCDEF", "want Bearer, wrong token ***"),
            (r#"{"header":"Bearer 0123456789abcdef"}"#, r#"{"header":"***"}"#),
            ("no session s3ss10n", "no session ***"),
            ("not in qa, of quality", "not in ***, of quality"),
            (r#"{"path":"\/a b\/c%2Bd"}"#, r#"{"path":"***"}"#),
        ] {
            assert_eq!(clean(said), expected, "{said}");
        }
    }

    #[test]
    fn the_beginning_of_a_secret_at_the_end_of_a_cut_text_is_removed() {
        assert_eq!(clean("the token is hunte"), "the token is ***");
        assert_eq!(clean("signed g0hM9SsE+OTPJT"), "signed ***");
    }

    #[test]
    fn an_answer_that_is_not_text_is_not_quoted() {
        let url = "https://h.example/".parse().unwrap();
        let outcome = Outcome { seq: 1, pin: "A".parse().unwrap(), record: "{}".into() };
        let clean = |said: &[u8]| Redactor::new(&url, &[], &Headers::default()).clean(said, &outcome, None);
        assert_eq!(clean(b"\x1f\x8b\x08"), None);
        assert_eq!(clean(b"h\0u\0n\0"), None);
        assert_eq!(clean("cut in é".as_bytes().split_last().unwrap().1).as_deref(), Some("cut in "));
        assert_eq!(clean(b"a plan for A").as_deref(), Some("*** plan for ***"));
    }

    proptest! {
        #[test]
        fn no_text_reveals_a_token_or_causes_a_panic(before: String, after: String, said: Vec<u8>) {
            let text = clean(&format!("{before} hunter2 {after}"));
            prop_assert!(!text.contains(" hunter2 "), "{text}");
            let url = "https://h.example/hook/secret-token".parse().unwrap();
            let outcome = Outcome { seq: 1, pin: "A".parse().unwrap(), record: "{}".into() };
            let _ = Redactor::new(&url, &[], &headers()).clean(&said, &outcome, None);
        }
    }
}
