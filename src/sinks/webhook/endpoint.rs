//! The endpoint: one signed POST, and what became of it.
//!
//! Promises that every try ends within the configured time-out and in exactly one [`Answer`], that it reads a
//! few KiB of an answer at most, and that what is secret goes to the configured host and nowhere else: the URL
//! (whose path or query may be a token) and the signing secrets are in no error, and redirects are not
//! followed. Knows neither the rules of delivery nor the store.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Request, Response, Url, redirect};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::request::{BadSecret, Message, Signer};
use super::response::{Answer, MAX_BODY};
use super::state::Rules;
use crate::config::{Webhook, WebhookFormat};
use crate::poll::failure::{detail, failure_text};
use crate::store::Outcome;

/// How long a kept connection may be idle: less than Node's and uvicorn's 5 s, so that it is we who close it.
/// A POST on a connection that the server has just closed is a failed try.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// HTTP/2 has one connection for all deliveries: if its other end vanishes without a word, only a ping finds out.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the body of an answer is waited for: it only makes an error text better, and a connection reusable.
const BODY_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no delivering to an endpoint as it is configured. Has no secrets.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error(transparent)]
    Secret(#[from] BadSecret),
    #[error("the HTTP client can't be set up: {0}")]
    Client(String),
}

/// Where outcomes are delivered.
pub struct Endpoint {
    http: reqwest::Client,
    url: Url,
    signer: Signer,
    timeout: Duration,
    format: WebhookFormat,
    pub(super) rules: Rules,
}

impl Endpoint {
    /// The endpoint that is configured; makes no connection, for it need not be there yet.
    ///
    /// # Errors
    /// A secret can't sign, or the system has no CA certificates.
    pub fn new(webhook: &Webhook) -> Result<Self, SetupError> {
        let Webhook { url, secrets, timeout, concurrency, max_age, format, batch } = webhook;
        // Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("pinwatch/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .gzip(false)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(*concurrency)
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
        if url.scheme() == "http" {
            // A proxy would see a plain request. No TLS either, then, so that a system without CA certificates
            // can do it.
            builder = builder.no_proxy().tls_certs_only([]);
        }
        Ok(Self {
            http: builder.build().map_err(|error| SetupError::Client(detail(&error)))?,
            url: url.clone(),
            signer: Signer::new(secrets)?,
            timeout: *timeout,
            format: *format,
            rules: Rules { concurrency: *concurrency, batch: *batch, max_age: *max_age },
        })
    }

    /// Tries once to deliver these outcomes; `now` dates the request.
    pub(super) async fn deliver(&self, outcomes: &[Outcome], now: Timestamp) -> Answer {
        let message = match Message::of(outcomes, self.format, self.rules.batch > 1) {
            Ok(message) => message,
            Err(bad) => return Answer::Refused(bad.to_string()),
        };
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = message.headers(&self.signer, now.as_second());
        *request.body_mut() = Some(message.body.into());

        let deadline = Instant::now() + self.timeout;
        let mut response = match timeout_at(deadline, self.http.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Answer::none(failure_text(&error)),
            Err(_) => {
                let timeout = humantime::format_duration(self.timeout);
                return Answer::none(format!("time-out: no answer within {timeout}"));
            }
        };
        // What the status says stands, whatever becomes of the body.
        let body = beginning(&mut response, deadline.min(Instant::now() + BODY_PATIENCE)).await;
        let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.as_bytes());
        Answer::of(response.status(), retry_after, &body, now)
    }
}

/// As much of a body as comes in time and is wanted. A whole one leaves the connection fit for reuse.
async fn beginning(response: &mut Response, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() <= MAX_BODY
        && let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await
    {
        let room = (MAX_BODY + 1).saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    body
}
