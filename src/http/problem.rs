//! Why the API refuses a request: `application/problem+json` (RFC 9457), with the socket's code as `code`.
//!
//! Promises one status for each code, `Retry-After` with each 429 and 503, and that no problem has a token or a secret in
//! it. Pure: knows neither the operations nor who asks.

use std::borrow::Cow;
use std::fmt::Display;

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::room::NoRoom;
use super::tokens::Scope;
use crate::operations::Failure;
use crate::places::Full;
use crate::protocol::{Code, Refusal};
use crate::text::json_line;

pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The `Retry-After`, in seconds, of a refusal that depends on the daemon's present state.
const RETRY_LATER: u64 = 5;

/// Codes that only HTTP has.
pub const UNAUTHORIZED: &str = "unauthorized";
pub const FORBIDDEN: &str = "forbidden";
pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
pub const NOT_ACCEPTABLE: &str = "not_acceptable";
pub const CONFLICT: &str = "conflict";
pub const TOO_LARGE: &str = "too_large";
pub const UNSUPPORTED_MEDIA_TYPE: &str = "unsupported_media_type";
pub const TOO_MANY_FAILURES: &str = "too_many_failures";

/// All of them.
pub const CODES: [&str; 8] = [
    UNAUTHORIZED,
    FORBIDDEN,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    CONFLICT,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    TOO_MANY_FAILURES,
];

/// Why a request is refused.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// The members of a problem.
#[derive(Serialize)]
struct Members<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), header: None }
    }

    fn with(mut self, name: HeaderName, value: impl Display) -> Self {
        self.header = HeaderValue::from_str(&value.to_string()).ok().map(|value| Box::new((name, value)));
        self
    }

    /// No token, more than one, or one that nobody has.
    pub fn unauthorized(detail: &'static str, is_wrong: bool) -> Self {
        let challenge = if is_wrong {
            r#"Bearer realm="pinwatch", error="invalid_token""#
        } else {
            r#"Bearer realm="pinwatch""#
        };
        Self::new(StatusCode::UNAUTHORIZED, UNAUTHORIZED, detail).with(WWW_AUTHENTICATE, challenge)
    }

    /// A token of another scope; `needed` is any that would do.
    pub fn forbidden(has: Scope, needed: &[Scope]) -> Self {
        let needed: Vec<_> = needed.iter().map(|scope| scope.as_str()).collect();
        let detail = format!("this token has the scope {has}; this needs {}", needed.join(" or "));
        let challenge =
            format!(r#"Bearer realm="pinwatch", error="insufficient_scope", scope="{}""#, needed.join(" "));
        Self::new(StatusCode::FORBIDDEN, FORBIDDEN, detail).with(WWW_AUTHENTICATE, challenge)
    }

    /// A peer that showed too many wrong tokens.
    pub fn too_many_failures(seconds: u64) -> Self {
        let detail = "too many requests without a valid token came from this address within a minute";
        Self::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_FAILURES, detail).with(RETRY_AFTER, seconds.max(1))
    }

    /// Too many requests are being answered.
    pub fn crowded(full: &Full) -> Self {
        let whose = if matches!(full, Full::Share { .. }) { "of this address" } else { "in all" };
        Code::AtCapacity.because(format!("too many requests {whose} are being answered")).into()
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Code::NotFound.because(detail).into()
    }

    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Code::InvalidRequest.because(detail).into()
    }

    pub fn invalid_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Code::InvalidJson.because(detail).into()
    }

    /// `allowed` is the value of `Allow`.
    pub fn method_not_allowed(allowed: Option<&HeaderValue>) -> Self {
        let detail = "this path has other methods: see the header Allow";
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, METHOD_NOT_ALLOWED, detail);
        Self { header: allowed.map(|allowed| Box::new((ALLOW, allowed.clone()))), ..problem }
    }

    pub fn not_acceptable(offered: &[&str]) -> Self {
        let detail = format!("the header Accept excludes what there is: {}", offered.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, NOT_ACCEPTABLE, detail)
    }

    pub fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, detail)
    }

    pub fn unsupported_media_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_MEDIA_TYPE, detail)
    }

    pub fn too_slow(detail: impl Into<Cow<'static, str>>) -> Self {
        Code::Timeout.because(detail).into()
    }

    /// A bug; the log says more.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "this is a bug in pinwatch; its log says more",
        )
    }

    /// 409 instead of 422: the request is valid, but does not fit the present state.
    pub fn or_conflict(self) -> Self {
        self.instead(StatusCode::CONFLICT, CONFLICT.into())
    }

    fn instead(self, status: StatusCode, code: Cow<'static, str>) -> Self {
        if self.status == StatusCode::UNPROCESSABLE_ENTITY { Self { status, code, ..self } } else { self }
    }

    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the JSON without its closing brace, so that the caller can add members.
    pub fn open_json(&self) -> String {
        let members = Members {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: &self.code,
        };
        let json = serde_json::to_string(&members).expect("a struct of strings always serializes");
        let mut json = json_line(json).into_owned();
        json.pop();
        json
    }

    /// A response with this body.
    pub fn with_body(self, body: impl IntoResponse) -> Response {
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_LATER.into());
        }
        if let Some(header) = self.header {
            let (name, value) = *header;
            headers.insert(name, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let json = self.open_json() + "}\n";
        self.with_body(json)
    }
}

impl From<Refusal> for Problem {
    fn from(Refusal { code, message }: Refusal) -> Self {
        let status = match &code {
            Code::InvalidJson => StatusCode::BAD_REQUEST,
            Code::InvalidRequest | Code::InvalidPinId => StatusCode::UNPROCESSABLE_ENTITY,
            Code::NotFound | Code::UnknownOp => StatusCode::NOT_FOUND,
            // Over HTTP the client is the slow one: a wait whose time is up is no problem.
            Code::Timeout => StatusCode::REQUEST_TIMEOUT,
            Code::Removed => StatusCode::GONE,
            Code::LineTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Code::AtCapacity | Code::ShuttingDown | Code::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, code: code.to_string().into(), detail: message, header: None }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            // Nobody reads it.
            Failure::ClientGone => Self::internal(),
        }
    }
}

impl From<NoRoom> for Problem {
    fn from(_: NoRoom) -> Self {
        let detail = "other requests with tokens of this name have more unread answers or bodies under way than may be";
        Code::AtCapacity.because(detail).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_every_503_says_when_to_try_again() {
        for code in Code::ALL {
            let problem = Problem::from(code.clone().because("\u{2028}why"));
            let status = problem.status();
            assert!(status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{code}");
            let json: serde_json::Value =
                serde_json::from_str(&(problem.open_json() + "}")).expect("it is JSON");
            let title = status.canonical_reason();
            assert_eq!(
                (json["status"].as_u64(), json["title"].as_str()),
                (Some(status.as_u16().into()), title)
            );
            assert_eq!(
                (json["code"].as_str(), json["detail"].as_str()),
                (Some(&*code.to_string()), Some("\u{2028}why"))
            );
            let response = problem.into_response();
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status.is_server_error());
            assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        }
    }
}
