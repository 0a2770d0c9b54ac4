//! The API's client: one GET for one PIN.
//!
//! Promises what the module `poll` does about time, memory and secrets. Built once and then shared: a poll
//! that finds a kept connection allocates the URL and what reqwest needs.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, Request, Response, StatusCode, Url, redirect};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::time::timeout;

use super::answer::MAX_BODY;
use super::content::{plain, too_large};
use super::failure::{NoAnswer, detail, failure_text, lost_connection};
use super::resolve::Resolver;
use super::retry_after::http_date;
use super::secrets::Secrets;
use super::{Connection, Meaning};
use crate::config::{Api, Credentials};
use crate::pin::PinId;

/// How long a kept connection may be idle. Under what load balancers commonly allow (60 s, some 30 s), so
/// that it is nearly always we who close it.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/2 has one connection for all polls: if its other end vanishes without a word, only a ping finds out.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// As much of `api.ca_file` is read, in bytes; the system's whole bundle has a quarter of a megabyte.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// Where the PIN ID stands in `api.path`.
const PLACEHOLDER: &str = "{pinId}";

/// All but RFC 3986's unreserved characters. Every character of a PIN ID is one of those now; should more be
/// allowed some day, they still can't become part of the URL's structure.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Asks the API about PINs. Clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    api: Api,
    connections: RwLock<Arc<Connections>>,
    /// The URL of some PIN: a copy of it with another path costs a fraction of reading one from text.
    url: Url,
    /// Its path before the PIN ID, and after it.
    path: AroundPin,
    /// What no text may repeat, should the API or a proxy say back what it got.
    secrets: Secrets,
    /// For the whole poll: connecting, a second try, the body.
    timeout: Duration,
}

/// A path before the PIN ID, and after it.
type AroundPin = (Box<str>, Box<str>);

/// The connections in use; those before may still have polls that are under way.
struct Connections {
    kept: reqwest::Client,
    /// Keeps none: for the second try of a poll whose kept connection turned out to be dead.
    fresh: reqwest::Client,
}

/// Why no client can be made of a configuration. The texts have no secrets.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("api.path must begin with / and have {PLACEHOLDER} once, and is {0:?}")]
    Path(String),
    #[error("api.base_url must be http:// or https:// with a host, and without user, query or fragment")]
    BaseUrl,
    #[error("{0} has a character that no HTTP header can hold")]
    Credentials(&'static str),
    #[error("api.username has a colon, which Basic authentication can't express")]
    UsernameWithColon,
    #[error("api.ca_file {} can't be used: {reason}", path.display())]
    CaFile { path: PathBuf, reason: String },
    #[error("the HTTP client can't be set up: {0}")]
    Setup(String),
}

impl Client {
    /// A client for the API that is configured; makes no connection yet.
    ///
    /// # Errors
    /// The URL or the credentials can't be put into a request, or the system has no CA certificates.
    pub fn new(api: &Api) -> Result<Self, ClientError> {
        let (url, path) = url_parts(&api.base_url, &api.path)?;
        let connections = Connections::new(api)?;
        Ok(Self(Arc::new(Inner {
            api: api.clone(),
            connections: RwLock::new(Arc::new(connections)),
            url,
            path,
            secrets: Secrets::new(&api.credentials),
            timeout: api.timeout,
        })))
    }

    /// Replaces all connections, for ever, before any gets older than `api.pool_max_age`: an API that moved is
    /// followed, and a load balancer's new machines get their part. Polls that are under way end on the old ones.
    pub async fn renew_connections(self) {
        loop {
            tokio::time::sleep(self.0.api.pool_max_age).await;
            let api = self.0.api.clone();
            // Reads the system's certificates anew, which takes some milliseconds.
            let renewed = tokio::task::spawn_blocking(move || Connections::new(&api)).await;
            match renewed {
                Ok(Ok(connections)) => {
                    *self.0.connections.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(connections)
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the connections are kept, for they can't be renewed")
                }
                Err(failure) => tracing::error!(%failure, "the connections are kept; this is a bug"),
            }
        }
    }

    /// Asks about one PIN. Ends within `api.timeout`, and always with a meaning.
    pub async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        self.0.poll(pin, connection).await
    }

    /// One request, for a person who wants to know whether it works: the status, and what time it is there.
    pub async fn look(&self, pin: &PinId) -> Result<(u16, Option<Timestamp>), String> {
        let answer = timeout(self.0.timeout, self.0.ask(pin, Connection::New)).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(NoAnswer::Failed(text) | NoAnswer::NotSent(text))) => return Err(text),
            Err(_) => return Err(self.0.time_out("answer")),
        };
        let date = response.headers().get(DATE).and_then(|date| http_date(date.as_bytes()));
        Ok((response.status().as_u16(), date))
    }
}

impl Inner {
    fn connections(&self) -> Arc<Connections> {
        // Each write is whole in itself, so a panic elsewhere leaves nothing half-done.
        self.connections.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        // One timer for all of it; the head stays here if it is the body that comes too late.
        let mut head = None;
        let asking = async {
            let response = head.insert(self.ask(pin, connection).await?);
            Ok(whole_body(response).await)
        };
        let asked = timeout(self.timeout, asking).await;
        let (response, body) = match (head, asked) {
            (Some(response), Ok(Ok(body))) => (response, body),
            (_, Ok(Err(no_answer))) => return NoAnswer::into(no_answer),
            (None, _) => return Meaning::Unavailable(self.time_out("answer")),
            (Some(response), Err(_)) if response.status() == StatusCode::OK => {
                return Meaning::Unavailable(self.time_out("whole answer"));
            }
            // What the status code says stands without the body.
            (Some(response), Err(_)) => (response, Err("the body did not come in time".to_owned())),
        };
        let status = response.status();
        let body = body.and_then(|body| plain(response.headers(), body));
        let body = body.as_deref().map_err(String::as_str);
        self.secrets.removed_from(Meaning::of(status, response.headers(), body, Timestamp::now()))
    }

    /// One request, or two: a kept connection that the server had closed is nobody's failure. hyper tries
    /// again by itself if it notices before it has written; if it notices later, it can't know that a GET
    /// may be sent twice. We do, and on a new connection, since the next kept one may be just as dead.
    ///
    /// A new connection that dies before it answers is tried again too, for reqwest doesn't tell which it was.
    async fn ask(&self, pin: &PinId, connection: Connection) -> Result<Response, NoAnswer> {
        let connections = self.connections();
        if connection == Connection::New {
            return Ok(connections.fresh.execute(self.request(pin)).await?);
        }
        let first = match connections.kept.execute(self.request(pin)).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !lost_connection(&first) {
            return Err(first.into());
        }
        tracing::debug!(error = failure_text(&first), "lost a connection; asking on a new one");
        Ok(connections.fresh.execute(self.request(pin)).await?)
    }

    fn request(&self, pin: &PinId) -> Request {
        let (before, after) = &self.path;
        let mut path = String::with_capacity(before.len() + pin.as_str().len() + after.len());
        path.push_str(before);
        path.extend(utf8_percent_encode(pin.as_str(), ESCAPED));
        path.push_str(after);
        let mut url = self.url.clone();
        url.set_path(&path);
        Request::new(Method::GET, url)
    }

    fn time_out(&self, of: &str) -> String {
        format!("time-out: no {of} within {}", humantime::format_duration(self.timeout))
    }
}

impl Connections {
    fn new(api: &Api) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(AUTHORIZATION, authorization(&api.credentials)?);
        let certificates = certificates(api.ca_file.as_deref())?;
        // Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let build = |kept: usize| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("pinwatch/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                .redirect(redirect::Policy::none())
                .referer(false)
                // It would copy each request to have it for a second try, and `ask` makes a new one for its own.
                .retry(reqwest::retry::never().max_retries_per_request(0))
                .dns_resolver(Resolver::default())
                .connect_timeout(api.connect_timeout)
                .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                .pool_max_idle_per_host(kept)
                .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
                .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
            if api.base_url.scheme() == "http" {
                // A proxy would see the key of a plain request, and the key goes to one host only. No TLS
                // either, then, so that a system without CA certificates can do it.
                builder = builder.no_proxy().tls_certs_only([]);
            } else if !certificates.is_empty() {
                builder = builder.tls_certs_merge(certificates.clone());
            }
            builder.build().map_err(|error| ClientError::Setup(detail(&error)))
        };
        Ok(Self { kept: build(api.concurrency)?, fresh: build(0)? })
    }
}

/// The certificates of `api.ca_file`.
fn certificates(path: Option<&Path>) -> Result<Vec<Certificate>, ClientError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let unusable = |reason: String| ClientError::CaFile { path: path.to_owned(), reason };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unusable(error.to_string()))?;
    file.take(MAX_CA_FILE).read_to_end(&mut pem).map_err(|error| unusable(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(detail(&error)))?;
    if certificates.is_empty() {
        return Err(unusable("it has no certificate in PEM (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(certificates)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.0.url.as_str())
            .field("path", &self.0.path)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

/// The URL of a sample, and its path before and after the PIN ID: `path` is put behind the base URL's own.
fn url_parts(base: &Url, path: &str) -> Result<(Url, AroundPin), ClientError> {
    let has_user = !base.username().is_empty() || base.password().is_some();
    if !matches!(base.scheme(), "http" | "https")
        || !base.has_host()
        || has_user
        || base.query().is_some()
        || base.fragment().is_some()
    {
        return Err(ClientError::BaseUrl);
    }
    let refused = || ClientError::Path(path.to_owned());
    let (before, after) =
        path.split_once(PLACEHOLDER).filter(|(_, after)| !after.contains(PLACEHOLDER)).ok_or_else(refused)?;
    if !before.starts_with('/') {
        return Err(refused());
    }
    let before = format!("{}{before}", base.as_str().trim_end_matches('/'));
    // Where the sample ends up is where every PIN ID will: in the path, at the same host.
    let sample = "9C817C6F8AF3D48F9FE553282AFA2B67";
    let url = Url::parse(&format!("{before}{sample}{after}")).map_err(|_| refused())?;
    if url.origin() != base.origin() {
        return Err(refused());
    }
    let (before, after) = url.path().split_once(sample).ok_or_else(refused)?;
    if after.contains(sample) {
        return Err(refused());
    }
    let parts = (before.into(), after.into());
    Ok((url, parts))
}

/// The `Authorization` header, marked as a secret: reqwest shows it in no `Debug`, and HTTP/2 puts it into no
/// compression table.
fn authorization(credentials: &Credentials) -> Result<HeaderValue, ClientError> {
    let (text, name) = match credentials {
        Credentials::App(key) => (format!("App {}", key.expose_secret()), "api.key"),
        Credentials::Basic { username, .. } if username.contains(':') => {
            return Err(ClientError::UsernameWithColon);
        }
        Credentials::Basic { username, password } => {
            let pair = BASE64.encode(format!("{username}:{}", password.expose_secret()));
            (format!("Basic {pair}"), "api.username")
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| ClientError::Credentials(name))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The whole body, or what went wrong with it. Never holds more than [`MAX_BODY`] and one chunk.
async fn whole_body(response: &mut Response) -> Result<Bytes, String> {
    let cut_off = |error: reqwest::Error| format!("the body is cut off or broken: {}", detail(&error));
    if response.content_length().is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    // Nearly every body comes in one chunk, and then is not copied.
    let first = response.chunk().await.map_err(cut_off)?.unwrap_or_default();
    let mut whole = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(cut_off)? {
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        if whole.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        whole.extend_from_slice(&chunk);
    }
    match whole.is_empty() {
        true if first.len() > MAX_BODY => Err(too_large()),
        true => Ok(first),
        false => Ok(whole.freeze()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(base_url: &str, path: &str, credentials: Credentials) -> Api {
        Api {
            base_url: base_url.parse().unwrap(),
            path: path.to_owned(),
            credentials,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            concurrency: 64,
            rate: None,
            pool_max_age: Duration::from_secs(300),
            ca_file: None,
        }
    }

    fn app(key: &str) -> Credentials {
        Credentials::App(key.into())
    }

    fn url_of(base_url: &str, path: &str, pin: &str) -> Result<String, ClientError> {
        let client = Client::new(&api(base_url, path, app("key")))?;
        Ok(client.0.request(&pin.parse().unwrap()).url().to_string())
    }

    #[test]
    fn the_path_is_put_behind_the_base_urls_own() {
        let path = "/2fa/1/pin/{pinId}/status";
        for (base, expected) in [
            ("http://h", "http://h/2fa/1/pin/a.b_c-1/status"),
            ("http://h/", "http://h/2fa/1/pin/a.b_c-1/status"),
            ("http://h:8080/infobip/v%201/", "http://h:8080/infobip/v%201/2fa/1/pin/a.b_c-1/status"),
            ("http://[::1]:1/x", "http://[::1]:1/x/2fa/1/pin/a.b_c-1/status"),
        ] {
            assert_eq!(url_of(base, path, "a.b_c-1").unwrap(), expected);
        }
        assert_eq!(url_of("http://h", "/{pinId}", "...").unwrap(), "http://h/...");
        assert_eq!(url_of("http://h", "/pin/{pinId}?v=2", "A1").unwrap(), "http://h/pin/A1?v=2");
    }

    #[test]
    fn a_path_without_a_place_for_the_pin_is_refused() {
        for path in [
            "",
            "/",
            "/pin",
            "pin/{pinId}",
            "/{pinId}/{pinId}",
            "@evil/{pinId}",
            "/x#{pinId}",
            "/x?p={pinId}",
        ] {
            assert!(matches!(url_of("http://h", path, "A1"), Err(ClientError::Path(_))), "{path}");
        }
    }

    #[test]
    fn a_base_url_that_cannot_be_one_is_refused() {
        for base in ["ftp://h", "mailto:x", "http://u:p@h", "http://u@h", "http://h/?a=b", "http://h/#f"] {
            assert!(matches!(url_of(base, "/{pinId}", "A1"), Err(ClientError::BaseUrl)), "{base}");
        }
    }

    #[test]
    fn no_secret_is_shown_by_debug_or_by_an_error() {
        let client = Client::new(&api("http://h", "/{pinId}", app("hunter2"))).unwrap();
        let connections = client.0.connections();
        let Connections { kept, fresh } = &*connections;
        assert!(!format!("{client:?}{kept:?}{fresh:?}").contains("hunter2"));

        let bad = [
            app("hunter2\n"),
            Credentials::Basic { username: "hunter2:".into(), password: "hunter2".into() },
        ];
        for credentials in bad {
            let error = Client::new(&api("http://h", "/{pinId}", credentials)).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("hunter2"));
        }
        let error = Client::new(&api("http://u:hunter2@h", "/{pinId}", app("k"))).unwrap_err();
        assert!(!format!("{error}{error:?}").contains("hunter2"));
    }

    #[test]
    fn the_authorization_header_is_a_secret_of_both_kinds() {
        let basic = Credentials::Basic { username: "Aladdin".into(), password: "open sesame".into() };
        for (credentials, expected) in
            [(app("k-1"), "App k-1"), (basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
        {
            let value = authorization(&credentials).unwrap();
            assert_eq!((value.to_str().unwrap(), value.is_sensitive()), (expected, true));
        }
    }
}
