//! The API's client: sends one GET for one PIN.
//!
//! Promises what the module `poll` does about time, memory and secrets. Built once and then shared: a poll on a kept connection
//! allocates the URL and what hyper needs. Must not know schedules.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::http::response::Parts;
use hyper::{Request, Uri};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, DATE, HOST, HeaderMap, HeaderValue, USER_AGENT,
};
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::names_another;
use super::connections::{Connections, Doubt, LONGEST_REST, Route};
use super::content::plain;
use super::error::{ClientError, PLACEHOLDER};
use super::failure::{Failure, NoAnswer};
use super::http1::{Found, Resting, Strayed};
use super::retry_after::http_date;
use super::secrets::Secrets;
use super::strays::{Stray, Strays};
use super::{Connection, Meaning};
use crate::config::{Api, Credentials};
use crate::pin::PinId;

/// How much longer than its slowest answer a connection is watched before a final answer from it is trusted.
const MARGIN: Duration = Duration::from_millis(5);

/// All but RFC 3986's unreserved characters. PIN IDs contain only those now; if more are allowed later, they still can't become
/// part of the URL's structure.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Asks the API about PINs. Clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    api: Api,
    connections: RwLock<Arc<Connections>>,
    strays: Strays,
    /// Endings that are not believed yet.
    watched: AtomicUsize,
    /// `https://host:port`, without a path.
    origin: Box<str>,
    /// The path before the PIN ID, and after it with the query.
    path: AroundPin,
    /// The headers of every request.
    headers: HeaderMap,
    /// `host:port`; HTTP/2 has it in another place.
    host: HeaderValue,
    /// What no text may repeat if the API or a proxy echoes the request.
    secrets: Secrets,
    /// The limit for the whole poll: connecting, a second try, the body.
    timeout: Duration,
}

/// A path before the PIN ID, and after it.
type AroundPin = (Box<str>, Box<str>);

/// A whole answer.
struct Answer {
    meaning: Meaning,
    /// Its connection, if it is HTTP/1 and may be reused.
    resting: Option<Resting>,
    doubt: Doubt,
}

impl Client {
    /// Creates a client for the configured API; makes no connection yet.
    ///
    /// # Errors
    /// The URL or the credentials can't be put into a request, or the system has no CA certificates.
    pub fn new(api: &Api) -> Result<Self, ClientError> {
        Self::with(api, Strays::default())
    }

    /// Creates a client that replaces this one, and keeps what this one learned about the host if it is the same.
    ///
    /// # Errors
    /// As for [`Client::new`].
    pub fn renewed(&self, api: &Api) -> Result<Self, ClientError> {
        let is_same = self.0.api.base_url.origin() == api.base_url.origin();
        Self::with(api, if is_same { Strays::like(&self.0.strays) } else { Strays::default() })
    }

    fn with(api: &Api, strays: Strays) -> Result<Self, ClientError> {
        let (url, path) = url_parts(&api.base_url, &api.path)?;
        let origin = url.origin().ascii_serialization();
        let uri: Uri = origin.parse().map_err(|_| ClientError::BaseUrl)?;
        let authority = uri.authority().ok_or(ClientError::BaseUrl)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ClientError::BaseUrl)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pinwatch/", env!("CARGO_PKG_VERSION"))));
        headers.insert(AUTHORIZATION, authorization(&api.credentials)?);
        Ok(Self(Arc::new(Inner {
            api: api.clone(),
            connections: RwLock::new(Arc::new(Connections::new(api, &uri)?)),
            strays,
            watched: AtomicUsize::new(0),
            origin: origin.into(),
            path,
            headers,
            host,
            secrets: Secrets::new(&api.credentials),
            timeout: api.timeout,
        })))
    }

    /// Replaces all connections, for ever, before any gets older than `api.pool_max_age`: the client follows an API that moved,
    /// and new machines behind a load balancer get their share. Running polls end on the old connections.
    pub async fn renew_connections(self) {
        loop {
            let renewal = Instant::now() + self.0.api.pool_max_age;
            while Instant::now() < renewal {
                sleep_until(renewal.min(Instant::now() + LONGEST_REST)).await;
                self.0.connections().close_idle(&self.0.strays);
            }
            let inner = self.0.clone();
            // Reads the system's certificates anew, which takes some milliseconds.
            let renewed = tokio::task::spawn_blocking(move || inner.new_connections()).await;
            match renewed {
                Ok(Ok(connections)) => {
                    *self.0.connections.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(connections)
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the old connections are kept, because they can't be renewed")
                }
                Err(failure) => tracing::error!(%failure, "the connections are kept; this is a bug"),
            }
        }
    }

    /// Asks about one PIN. Ends within `api.timeout`, and always with a meaning.
    pub async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        let meaning = self.0.poll(pin, connection).await;
        self.0.secrets.removed_from(meaning)
    }

    /// The answers without a request, if any came within the last hour.
    pub fn strays(&self) -> Option<Stray> {
        self.0.strays.recent()
    }

    /// Sends one request for a diagnosis: returns the status and the server's time.
    pub async fn look(&self, pin: &PinId) -> Result<(u16, Option<Timestamp>), String> {
        let until = Instant::now() + self.0.timeout;
        let head = match timeout_at(until, self.0.ask(pin, Connection::New)).await {
            Ok(Ok((head, ..))) => head,
            Ok(Err(NoAnswer::Failed(text) | NoAnswer::NotSent(text))) => return Err(text),
            Err(_) => return Err(self.0.time_out("answer")),
        };
        let date = head.headers.get(DATE).and_then(|date| http_date(date.as_bytes()));
        Ok((head.status.as_u16(), date))
    }
}

impl Inner {
    fn connections(&self) -> Arc<Connections> {
        // Each write is complete in itself, so a panic elsewhere leaves no partial state.
        self.connections.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn new_connections(&self) -> Result<Connections, ClientError> {
        let host = self.origin.parse().map_err(|_| ClientError::BaseUrl)?;
        Connections::new(&self.api, &host)
    }

    async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        let until = Instant::now() + self.timeout;
        let Answer { meaning, mut resting, mut doubt } = self.answer(pin, connection, until).await;
        if doubt == Doubt::Reused && meaning.may_end() {
            // The right answer follows a stray one, unless the connection ends first.
            let found = match &mut resting {
                Some(resting) => self.watch(resting, until).await,
                None => Found::Closed,
            };
            if found == Found::Stray {
                self.strays.note();
            }
            if found != Found::Nothing {
                (resting, doubt) = (None, Doubt::Strayed);
            }
        }
        if let Some(resting) = resting.filter(|_| connection == Connection::Kept) {
            self.connections().keep(resting, &self.strays);
        }
        let has_strayed =
            doubt == Doubt::Strayed || (doubt == Doubt::Reused && self.strays.recent().is_some());
        if has_strayed { self.answer(pin, Connection::New, until).await.meaning } else { meaning }
    }

    /// Returns what follows an answer. Does not wait while half of all polls are already waiting, so that an API that is polled
    /// as fast as it can answer is not polled less.
    async fn watch(&self, connection: &mut Resting, until: Instant) -> Found {
        let watched = self.watched.fetch_add(1, Ordering::Relaxed);
        let found = if watched < self.api.concurrency.div_ceil(2) {
            timeout_at(until, connection.watch(MARGIN)).await.unwrap_or(Found::Closed)
        } else {
            connection.look()
        };
        self.watched.fetch_sub(1, Ordering::Relaxed);
        found
    }

    /// The meaning of one answer, or of none.
    async fn answer(&self, pin: &PinId, connection: Connection, until: Instant) -> Answer {
        // One timer covers everything; the head is kept here in case the body is late.
        let mut head = None;
        let asking = async {
            let (parts, body, mut route) = self.ask(pin, connection).await?;
            head = Some(parts);
            let body = route.body(body).await;
            Ok((body, route))
        };
        let nothing = |meaning| Answer { meaning, resting: None, doubt: Doubt::None };
        let asked = timeout_at(until, asking).await;
        let (head, body, route) = match (head, asked) {
            (Some(head), Ok(Ok((body, route)))) => (head, body, Some(route)),
            (_, Ok(Err(no_answer))) => return nothing(NoAnswer::into(no_answer)),
            (None, _) => return nothing(Meaning::Unavailable(self.time_out("answer"))),
            (Some(head), Err(_)) if head.status == StatusCode::OK => {
                return nothing(Meaning::Unavailable(self.time_out("whole answer")));
            }
            // The meaning of the status code stands without the body.
            (Some(head), Err(_)) => (head, Err("the body did not come in time".to_owned()), None),
        };
        let doubt = route.as_ref().map_or(Doubt::None, Route::doubt);
        let (resting, doubt) = match route.filter(|_| body.is_ok()).map(Route::into_resting) {
            Some(Ok(resting)) => (resting, doubt),
            Some(Err(Strayed)) => {
                self.strays.note();
                (None, if doubt == Doubt::Reused { Doubt::Strayed } else { doubt })
            }
            None => (None, doubt),
        };
        let body = body.and_then(|body| plain(&head.headers, body));
        let body = body.as_deref().map_err(String::as_str);
        if body.is_ok_and(|body| names_another(body, pin)) {
            self.strays.note();
            let meaning = Meaning::Unreadable("the answer names another PIN".to_owned());
            let doubt = if doubt == Doubt::Reused { Doubt::Strayed } else { doubt };
            return Answer { meaning, resting: None, doubt };
        }
        let meaning = Meaning::of(head.status, &head.headers, body, Timestamp::now());
        Answer { meaning, resting, doubt }
    }

    /// Sends one request, or two: a kept connection that the server had closed is not a failure. The second goes out on a new
    /// connection, because the next kept one may be just as dead. A new connection that dies before it answers is retried too:
    /// the API may be restarting.
    async fn ask(&self, pin: &PinId, connection: Connection) -> Result<(Parts, Incoming, Route), NoAnswer> {
        let connections = self.connections();
        let first = match connection {
            Connection::New => connections.new_route().await,
            Connection::Kept => connections.route(&self.strays).await,
        };
        let sent = match first {
            Ok(route) => self.send(pin, route).await,
            Err(failure) => Err(failure),
        };
        match sent {
            Err(failure @ Failure::Lost(_)) if connection == Connection::Kept => {
                tracing::debug!(error = failure.text(), "lost a connection; polling on a new one");
                Ok(self.send(pin, connections.new_route().await?).await?)
            }
            sent => Ok(sent?),
        }
    }

    async fn send(&self, pin: &PinId, mut route: Route) -> Result<(Parts, Incoming, Route), Failure> {
        let response = route.send(self.request(pin, route.is_http2())).await?;
        let (head, body) = response.into_parts();
        Ok((head, body, route))
    }

    fn request(&self, pin: &PinId, by_http2: bool) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        // `Client::new` tried it with another PIN ID, and all of them use the same characters.
        *request.uri_mut() = self.uri(pin, by_http2).parse().unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        if !by_http2 {
            request.headers_mut().insert(HOST, self.host.clone());
        }
        request
    }

    /// HTTP/1 sends only the path (RFC 9112, section 3.2.1).
    fn uri(&self, pin: &PinId, is_whole: bool) -> String {
        let (before, after) = &self.path;
        let origin = if is_whole { &*self.origin } else { "" };
        let mut uri = String::with_capacity(origin.len() + before.len() + pin.as_str().len() + after.len());
        uri.push_str(origin);
        uri.push_str(before);
        uri.extend(utf8_percent_encode(pin.as_str(), ESCAPED));
        uri.push_str(after);
        uri
    }

    fn time_out(&self, of: &str) -> String {
        format!("time-out: no {of} within {}", humantime::format_duration(self.timeout))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("origin", &self.0.origin)
            .field("path", &self.0.path)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

/// The URL of a sample, and its path before and after the PIN ID: `path` is appended to the base URL's own.
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
    // Every PIN ID will stand where the sample does: in the path, at the same host.
    let sample = "9C817C6F8AF3D48F9FE553282AFA2B67";
    let url = Url::parse(&format!("{before}{sample}{after}")).map_err(|_| refused())?;
    if url.origin() != base.origin() {
        return Err(refused());
    }
    let (before, after) = url.path().split_once(sample).ok_or_else(refused)?;
    // hyper is stricter than the URL standard; this finds what it refuses.
    if after.contains(sample) || url.as_str().parse::<Uri>().is_err() {
        return Err(refused());
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let parts = (before.into(), format!("{after}{query}").into());
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
        Ok(client.0.uri(&pin.parse().unwrap(), true))
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
        let request = client.0.request(&"A1".parse().unwrap(), false);
        assert!(request.headers().contains_key(AUTHORIZATION));
        assert!(!format!("{client:?}{request:?}").contains("hunter2"));

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
