//! Forms and queries, and whether a page of this daemon sent them. Must not know what they are for.

use axum::body::Body;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use reqwest::Url;
use tokio::time::{Duration, timeout};

/// The largest form, in bytes, and how long it may take to come.
const MAX_FORM: usize = 16 * 1024;
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// The fields of a form, or of a query.
pub struct Form(Vec<(String, String)>);

impl Form {
    /// # Errors
    /// The form is too large or too slow.
    pub async fn read(body: Body) -> Result<Self, StatusCode> {
        let body = timeout(FORM_TIMEOUT, Limited::new(body, MAX_FORM).collect()).await;
        let body =
            body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        Ok(Self::parse(&String::from_utf8_lossy(&body.to_bytes())))
    }

    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// Whether a page of this daemon sent a form. A browser says so in `Sec-Fetch-Site`; an old one, or one that reads the page over
/// plain HTTP from another machine, in `Origin`.
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(origin) = text(ORIGIN).and_then(|origin| Url::parse(origin).ok()) else { return false };
    let Some(host) = text(HOST) else { return false };
    let authority = origin.host_str().map(|name| match origin.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    });
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_form_of_another_site_is_refused() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect()
        };
        for (given, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://h:1"), ("host", "h:1")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://h:1"), ("host", "h:1")], true),
            (&[("origin", "https://h"), ("host", "h")], true),
            (&[("origin", "http://h:2"), ("host", "h:1")], false),
            (&[("origin", "null"), ("host", "h:1")], false),
            (&[("host", "h:1")], false),
        ] {
            assert_eq!(is_same_origin(&headers(given)), expected, "{given:?}");
        }
    }
}
