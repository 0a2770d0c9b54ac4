//! The API's client: sends a GET for one PIN, and repeats it on a new connection if the first connection was lost or its answer
//! is doubtful.
//!
//! Promises what the module `poll` does about time, memory and secrets. Built once and then shared: a poll on a kept connection
//! allocates the URL and what hyper needs. Must not know schedules.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Meaning;
use super::connections::{Connections, Doubt, LONGEST_REST, Route};
use super::content::plain;
use super::error::ClientError;
use super::failure::Failure;
use super::http1::{Found, Resting, Strayed};
use super::mapped::Field;
use super::secrets::Secrets;
use super::strays::{Stray, Strays};
use super::{answer, mapped};
use crate::config::{Api, Auth, Credentials};
use crate::http_client::retry_after::http_date;
use crate::http_client::{Connection, USER_AGENT as OUR_NAME};
use crate::pin::PinId;

/// Why an answer about another PIN is unreadable.
const NAMES_ANOTHER: &str = "the answer names another PIN";

/// How much longer than its slowest answer a connection is watched before a final answer from it is trusted.
const MARGIN: Duration = Duration::from_millis(5);

/// All but RFC 3986's unreserved characters. PIN IDs contain only those now; if more are allowed later, they still can't become
/// part of the URL's structure.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Asks the API about PINs. Clones share their settings and their connections.
#[derive(Clone)]
pub struct Client(Arc<watch::Sender<Arc<Session>>>);

/// Settings that a [`Client`] does not use yet.
pub struct Prepared(Session);

/// Settings, and the connections made with them.
struct Session {
    api: Api,
    connections: Connections,
    strays: Arc<Strays>,
    /// How many endings are not believed yet.
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
}

/// The answer to a diagnosis.
pub struct Look {
    pub status: u16,
    /// The server's time.
    pub date: Option<Timestamp>,
    pub meaning: Meaning,
    /// How each field of a 200 was read.
    pub fields: Vec<Field>,
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
        let session = Session::new(api, Arc::default())?;
        Ok(Self(Arc::new(watch::Sender::new(Arc::new(session)))))
    }

    /// Prepares new settings. Keeps what this client learned about the host if the host stays the same.
    ///
    /// # Errors
    /// As for [`Client::new`].
    pub fn prepare(&self, api: &Api) -> Result<Prepared, ClientError> {
        let current = self.current();
        let is_same = current.api.base_url.origin() == api.base_url.origin();
        let strays = if is_same { current.strays.clone() } else { Arc::default() };
        Session::new(api, strays).map(Prepared)
    }

    /// Uses these settings and new connections for all polls that begin from now on. A running poll ends with those it began
    /// with.
    pub fn change(&self, Prepared(session): Prepared) {
        self.0.send_replace(Arc::new(session));
    }

    /// Replaces all connections again and again, before any gets older than `api.pool_max_age`: the client follows an API that
    /// moved, and new machines behind a load balancer get their share. Running polls end on the old connections.
    pub async fn renew_connections(self) {
        let mut changes = self.0.subscribe();
        loop {
            let session = changes.borrow_and_update().clone();
            tokio::select! {
                () = session.close_idle_until_old() => {}
                // Never an error: `self` holds the sender.
                _ = changes.changed() => continue,
            }
            let (client, old) = (self.clone(), session.clone());
            // Reads the system's certificates again, which takes some milliseconds.
            match tokio::task::spawn_blocking(move || client.prepare(&old.api)).await {
                Ok(Ok(Prepared(renewed))) => {
                    _ = self.0.send_if_modified(|current| {
                        // A reload may have come first.
                        let is_same = Arc::ptr_eq(current, &session);
                        if is_same {
                            *current = Arc::new(renewed);
                        }
                        is_same
                    })
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        %error,
                        "the connections to the API can't be renewed, so the old ones are used; tried again after \
                         api.pool_max_age"
                    )
                }
                Err(failure) => tracing::error!(
                    %failure,
                    "the connections to the API can't be renewed, so the old ones are used; this is a bug"
                ),
            }
        }
    }

    /// Asks about one PIN. Ends within `api.timeout`, and always with a meaning.
    pub async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        let session = self.current();
        let meaning = session.poll(pin, connection).await;
        session.secrets.removed_from(meaning)
    }

    /// The answers without a request, if any came within the last hour.
    pub fn strays(&self) -> Option<Stray> {
        self.current().strays.recent()
    }

    /// Sends one request for a diagnosis.
    ///
    /// # Errors
    /// There was no answer within `api.timeout`; the text says why.
    pub async fn look(&self, pin: &PinId) -> Result<Look, String> {
        let session = self.current();
        let asked = timeout(session.api.timeout, async {
            let (head, body, mut route) = session.ask(pin, Connection::New).await?;
            Ok::<_, Failure>((head, route.body(body).await))
        });
        let (head, body) =
            asked.await.map_err(|_| session.time_out("answer"))?.map_err(|failure| failure.reason())?;
        let date = head.headers.get(DATE).and_then(|date| http_date(date.as_bytes()));
        let body = body.and_then(|body| plain(&head.headers, body));
        let (meaning, fields) = session.explain(pin, &head, body);
        Ok(Look { status: head.status.as_u16(), date, meaning, fields })
    }

    fn current(&self) -> Arc<Session> {
        self.0.borrow().clone()
    }
}

impl Session {
    fn new(api: &Api, strays: Arc<Strays>) -> Result<Self, ClientError> {
        let origin = api.base_url.origin().ascii_serialization();
        let path = around_pin(api).ok_or_else(|| ClientError::Path(api.path.clone()))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        headers.insert(AUTHORIZATION, authorization(api)?);
        Ok(Self {
            api: api.clone(),
            connections: Connections::new(api, &origin)?,
            strays,
            watched: AtomicUsize::new(0),
            path,
            headers,
            host: HeaderValue::from_str(api.base_url.authority()).map_err(|_| ClientError::Host)?,
            origin: origin.into(),
            secrets: Secrets::new(&api.credentials),
        })
    }

    /// Waits until its connections are as old as they may get. Closes those that have been idle for too long meanwhile.
    async fn close_idle_until_old(&self) {
        let old = Instant::now() + self.api.pool_max_age;
        while Instant::now() < old {
            sleep_until(old.min(Instant::now() + LONGEST_REST)).await;
            self.connections.close_idle(&self.strays);
        }
    }

    async fn poll(&self, pin: &PinId, connection: Connection) -> Meaning {
        let until = Instant::now() + self.api.timeout;
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
            self.connections.keep(resting, &self.strays);
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

    /// The meaning of one answer, or of the failure to get one.
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
            (_, Ok(Err(failure))) => return nothing(Failure::into(failure)),
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
        if body.is_ok_and(|body| self.names_another(body, pin)) {
            self.strays.note();
            let meaning = Meaning::Unreadable(NAMES_ANOTHER.to_owned());
            let doubt = if doubt == Doubt::Reused { Doubt::Strayed } else { doubt };
            return Answer { meaning, resting: None, doubt };
        }
        let described = self.api.answer.as_ref();
        let meaning = Meaning::of(described, head.status, &head.headers, body, Timestamp::now());
        Answer { meaning, resting, doubt }
    }

    fn names_another(&self, body: &[u8], pin: &PinId) -> bool {
        match &self.api.answer {
            None => answer::names_another(body, pin),
            Some(described) => mapped::names_another(described, body, pin),
        }
    }

    /// The meaning of an answer, and how each of its fields was read; without credentials in any text.
    fn explain(&self, pin: &PinId, head: &Parts, body: Result<Bytes, String>) -> (Meaning, Vec<Field>) {
        let body = body.as_deref().map_err(String::as_str);
        let described = self.api.answer.as_ref();
        let meaning = Meaning::of(described, head.status, &head.headers, body, Timestamp::now());
        let meaning = match body {
            Ok(body) if self.names_another(body, pin) => Meaning::Unreadable(NAMES_ANOTHER.to_owned()),
            _ => meaning,
        };
        let mut fields = match (described, body, &meaning) {
            (Some(described), Ok(body), _) if head.status == StatusCode::OK => {
                mapped::explain(described, body)
            }
            (None, _, Meaning::Deliveries(deliveries)) => deliveries.iter().map(mapped::read_as).collect(),
            _ => Vec::new(),
        };
        for field in &mut fields {
            field.what = self.secrets.removed_from_text(std::mem::take(&mut field.what));
        }
        (self.secrets.removed_from(meaning), fields)
    }

    /// Sends one request, or two: a kept connection that the server had closed is not a failure. The second goes out on a new
    /// connection, because the next kept one may be just as dead. A new connection that dies before it answers is retried too,
    /// unless a new one was demanded: the API may be restarting.
    async fn ask(&self, pin: &PinId, connection: Connection) -> Result<(Parts, Incoming, Route), Failure> {
        let first = match connection {
            Connection::New => self.connections.new_route().await,
            Connection::Kept => self.connections.route(&self.strays).await,
        };
        let sent = match first {
            Ok(route) => self.send(pin, route).await,
            Err(failure) => Err(failure),
        };
        match sent {
            Err(failure @ Failure::Lost(_)) if connection == Connection::Kept => {
                tracing::debug!(error = failure.text(), "lost a connection; polling on a new one");
                self.send(pin, self.connections.new_route().await?).await
            }
            sent => sent,
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

    /// HTTP/1 sends only the path and the query (RFC 9112, section 3.2.1).
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
        format!("time-out: no {of} within {}", humantime::format_duration(self.api.timeout))
    }
}

/// The path of a request, the base URL's own before `path`, around the PIN ID. The configuration has checked both; `None` only if
/// hyper refuses the URL, or if it leads to another place.
fn around_pin(api: &Api) -> Option<AroundPin> {
    // Every PIN ID will stand where the sample does.
    const SAMPLE: &str = "9C817C6F8AF3D48F9FE553282AFA2B67";
    let base = api.base_url.as_str().trim_end_matches('/');
    let username = match &api.credentials {
        Credentials::Basic { username, .. } => utf8_percent_encode(username, ESCAPED).to_string(),
        Credentials::Key(_) => String::new(),
    };
    let path = api.path.replace("{pinId}", SAMPLE).replace("{username}", &username);
    let url = Url::parse(&format!("{base}{path}")).ok()?;
    let is_other = url.origin() != api.base_url.origin() || url.fragment().is_some();
    if is_other || url.as_str().parse::<Uri>().is_err() {
        return None;
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", url.path());
    let (before, after) = path.split_once(SAMPLE)?;
    (!after.contains(SAMPLE)).then(|| (before.into(), after.into()))
}

/// The `Authorization` header, marked as a secret: reqwest shows it in no `Debug`, and HTTP/2 puts it into no
/// compression table.
fn authorization(api: &Api) -> Result<HeaderValue, ClientError> {
    let text = match (&api.auth, &api.credentials) {
        (Auth::Key { scheme }, Credentials::Key(key)) => format!("{scheme} {}", key.expose_secret()),
        (_, Credentials::Basic { username, password }) => {
            format!("Basic {}", BASE64.encode(format!("{username}:{}", password.expose_secret())))
        }
        // The configuration has refused this.
        (Auth::Basic, Credentials::Key(_)) => return Err(ClientError::Key),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| ClientError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn api(base_url: &str, path: &str, credentials: Credentials) -> Api {
        let api = Config::of_sets(&["api.key=key"]).unwrap().api;
        Api { base_url: base_url.parse().unwrap(), path: path.to_owned(), credentials, ..api }
    }

    fn app(key: &str) -> Credentials {
        Credentials::Key(key.into())
    }

    fn url_of(base_url: &str, path: &str, pin: &str) -> Result<String, ClientError> {
        let client = Client::new(&api(base_url, path, app("key")))?;
        Ok(client.current().uri(&pin.parse().unwrap(), true))
    }

    #[test]
    fn the_path_is_appended_to_the_path_of_the_base_url() {
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
    }

    #[test]
    fn the_pin_id_and_the_user_name_are_escaped_in_the_path_and_the_query() {
        let user = |name: &str| Credentials::Basic { username: name.to_owned(), password: "p".into() };
        for (path, username, expected) in [
            ("/logs?messageId={pinId}", "u", "http://h/x/logs?messageId=a.b_c-1"),
            ("/logs?a=b&id={pinId}&c=d", "u", "http://h/x/logs?a=b&id=a.b_c-1&c=d"),
            ("/{username}/{pinId}.json", "AC01", "http://h/x/AC01/a.b_c-1.json"),
            ("/{username}/{pinId}", "../a?b#c&d é", "http://h/x/..%2Fa%3Fb%23c%26d%20%C3%A9/a.b_c-1"),
            ("/l?u={username}&id={pinId}", "a&id=7", "http://h/x/l?u=a%26id%3D7&id=a.b_c-1"),
        ] {
            let client = Client::new(&api("http://h/x", path, user(username))).unwrap();
            assert_eq!(client.current().uri(&"a.b_c-1".parse().unwrap(), true), expected);
        }
    }

    /// It is moved some five times before it runs. That took a sixth of a poll's CPU time when it had 11 KB.
    #[test]
    fn the_future_of_a_poll_takes_less_than_3_kb() {
        let client = Client::new(&api("http://h", "/{pinId}", app("key"))).unwrap();
        let pin = "A1".parse().unwrap();
        let size = size_of_val(&client.poll(&pin, Connection::Kept));
        assert!(size < 3000, "the future of a poll has {size} bytes");
    }

    #[test]
    fn a_path_without_a_place_for_the_pin_is_refused() {
        for path in
            ["", "/", "/pin", "pin/{pinId}", "/{pinId}/{pinId}", "@evil/{pinId}", "/x#{pinId}", "/{pinId}#x"]
        {
            assert!(matches!(url_of("http://h", path, "A1"), Err(ClientError::Path(_))), "{path}");
        }
    }

    #[test]
    fn no_secret_is_shown_by_debug_or_by_an_error() {
        let client = Client::new(&api("http://h", "/{pinId}", app("hunter2"))).unwrap();
        let request = client.current().request(&"A1".parse().unwrap(), false);
        assert!(request.headers().contains_key(AUTHORIZATION));
        assert!(!format!("{request:?}").contains("hunter2"));

        let error = Client::new(&api("http://h", "/{pinId}", app("hunter2\n"))).err().unwrap();
        assert!(!format!("{error}{error:?}").contains("hunter2"));
    }

    #[test]
    fn the_authorization_header_is_a_secret_of_both_kinds() {
        let basic = Credentials::Basic { username: "Aladdin".into(), password: "open sesame".into() };
        for (credentials, expected) in
            [(app("k-1"), "App k-1"), (basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
        {
            let value = authorization(&api("http://h", "/{pinId}", credentials)).unwrap();
            assert_eq!((value.to_str().unwrap(), value.is_sensitive()), (expected, true));
        }
    }
}
