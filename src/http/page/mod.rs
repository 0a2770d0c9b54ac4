//! The status page at `/`, and what can be found and done there.
//!
//! Promises that without a token only numbers are shown, and those only to clients on this machine; that a form changes something
//! only if it was made by this page for the visitor's session; and that no text runs as a script: the page has one script, which
//! it serves itself, and [`POLICY`] forbids all others. Complete without the script, which only keeps it current.
//! Operations are those of `operations/`. Must not know connections, TLS or hosts.

mod charts;
mod live;
mod session;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, RawQuery, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, Limited};
use reqwest::Url;
use ring::digest::{SHA256, digest};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::live::Live;
use self::session::{LIFETIME, Sessions, Visitor};
use self::view::{Assets, Frame};
use super::admission::Admission;
use super::failures::Failures;
use super::history::{History, Span};
use super::peer;
use super::tokens::Scope;
use super::v1::CurrentTokens;
use crate::metrics::{self, HttpRefusal};
use crate::operations::{self, Failure, cancelled_state, in_time};
use crate::pin::PinId;
use crate::protocol::{Code, show};
use crate::services::Services;

/// What a browser may load for a page: its style and script from here, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Requests that are answered at once, open pages included.
const MOST: usize = 256;

/// The largest form, in bytes, and how long it may take to come.
const MAX_FORM: usize = 4096;
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

const COOKIE_NAME: &str = "pinwatch-session";

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// What the handlers need.
pub struct Page {
    services: Services,
    tokens: CurrentTokens,
    sessions: Sessions,
    failures: Failures,
    live: Live,
    assets: Assets,
    has_tls: bool,
}

/// Who asks.
enum Asker {
    Visitor(Visitor),
    /// Somebody on this machine, who may see numbers.
    Local,
    Stranger,
}

impl Page {
    pub fn new(services: Services, history: History, tokens: CurrentTokens, has_tls: bool) -> Arc<Self> {
        let assets =
            Assets { style: versioned("style", "css", STYLE), script: versioned("live", "js", SCRIPT) };
        let live = Live::new(services.clone(), history);
        let (sessions, failures) = (Sessions::default(), Failures::default());
        Arc::new(Self { services, tokens, sessions, failures, live, assets, has_tls })
    }

    /// Renders what open pages show, until the stop.
    pub async fn keep_current(self: Arc<Self>, stop: CancellationToken) {
        self.live.keep_current(stop).await;
    }

    fn asker(&self, peer: SocketAddr, headers: &HeaderMap) -> Asker {
        let tokens = self.tokens.borrow().clone();
        let visitor = tokens.and_then(|tokens| self.sessions.visitor(cookie(headers)?, &tokens));
        match visitor {
            Some(visitor) => Asker::Visitor(visitor),
            None if peer::is_loopback(peer.ip()) => Asker::Local,
            None => Asker::Stranger,
        }
    }

    fn has_tokens(&self) -> bool {
        self.tokens.borrow().is_some()
    }

    fn page(
        &self,
        status: StatusCode,
        visitor: Option<&Visitor>,
        title: &str,
        contents: maud::Markup,
    ) -> Response {
        let frame = Frame { assets: &self.assets, visitor, has_tokens: self.has_tokens(), is_live: false };
        html(status, frame.page(title, contents))
    }

    /// Asks for a token, because without one nothing more is shown.
    fn ask_for_token(&self, why: Option<&str>) -> Response {
        if !self.has_tokens() {
            let text =
                "Other machines are shown nothing without a token, and there are none: set http.tokens_file.";
            return self.page(StatusCode::FORBIDDEN, None, "pinwatch", view::message("Not shown", text));
        }
        self.page(StatusCode::UNAUTHORIZED, None, "Log in · pinwatch", view::login(why))
    }

    /// Who sent a form, if it is one of this page's own for the visitor.
    fn sender(&self, peer: SocketAddr, headers: &HeaderMap, form: &Form) -> Result<Visitor, Response> {
        let forged = |what| {
            self.page(StatusCode::FORBIDDEN, None, "Refused · pinwatch", view::message("Refused", what))
        };
        if !is_same_origin(headers) {
            return Err(forged("The form was not sent by this page. Nothing was changed."));
        }
        let Asker::Visitor(visitor) = self.asker(peer, headers) else { return Err(self.ask_for_token(None)) };
        if !form.get("form").is_some_and(|token| visitor.made(token)) {
            return Err(forged(
                "The form is not of this session: go back, reload the page and try again. Nothing was changed.",
            ));
        }
        Ok(visitor)
    }
}

/// The router of `/` and what belongs to it.
pub fn router(page: Arc<Page>) -> Router {
    let admission = Admission::new(MOST, |_| {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [("retry-after", "5")],
            "too many pages are open: try again later\n",
        )
            .into_response()
    });
    Router::new()
        .route("/", get(status))
        .route("/live", get(live))
        .route("/login", get(login_form).post(login))
        .route("/logout", post(logout))
        .route("/pins", get(find))
        .route("/pins/cancel", post(cancel))
        .route(&page.assets.style.clone(), get(async || asset("text/css; charset=utf-8", STYLE)))
        .route(&page.assets.script.clone(), get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .layer(from_fn(protect))
        .layer(from_fn_with_state(admission, Admission::admit))
        .with_state(page)
}

/// Adds the headers that keep other sites and other people away.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// `GET /`
async fn status(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let visitor = match page.asker(peer, &headers) {
        Asker::Visitor(visitor) => Some(visitor),
        Asker::Local => None,
        Asker::Stranger => return page.ask_for_token(None),
    };
    let now = match page.live.now().await {
        Ok(now) => now,
        Err(why) => {
            return page.page(
                StatusCode::SERVICE_UNAVAILABLE,
                visitor.as_ref(),
                "pinwatch",
                live::unavailable(&why),
            );
        }
    };
    let (numbers, charts) = (page.live.numbers(&now), page.live.charts(span(query), &now).await);
    let has_tokens = page.has_tokens();
    let frame = Frame { assets: &page.assets, visitor: visitor.as_ref(), has_tokens, is_live: true };
    let contents = view::status(&numbers, &charts, visitor.as_ref(), has_tokens);
    html(StatusCode::OK, frame.page("Status · pinwatch", contents))
}

/// `GET /live`
async fn live(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if matches!(page.asker(peer, &headers), Asker::Stranger) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body = page.live.stream(span(query), page.services.stop.clone());
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// `GET /login`
async fn login_form(State(page): State<Arc<Page>>) -> Response {
    if !page.has_tokens() {
        return page.ask_for_token(None);
    }
    page.page(StatusCode::OK, None, "Log in · pinwatch", view::login(None))
}

/// `POST /login`
async fn login(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_same_origin(&headers) {
        return page.page(
            StatusCode::FORBIDDEN,
            None,
            "Refused · pinwatch",
            view::message("Refused", "The form was not sent by this page."),
        );
    }
    let form = match Form::read(body).await {
        Ok(form) => form,
        Err(status) => return status.into_response(),
    };
    let tokens = page.tokens.borrow().clone();
    let given = form.get("token").unwrap_or_default().trim().to_owned();
    let found = tokens.as_ref().and_then(|tokens| tokens.identify(&given));
    let Some((id, client)) = found else {
        metrics::http_refused(HttpRefusal::WrongToken);
        let wait = page.failures.count(peer.ip(), "wrong_token");
        let why = match wait {
            Some(wait) => format!("There were too many wrong tokens. Try again in {} s.", wait.as_secs() + 1),
            None => "Nobody has this token: is it in http.tokens_file, and was the daemon reloaded since?"
                .to_owned(),
        };
        return page.ask_for_token(Some(&why));
    };
    if client.scope == Scope::Submit {
        metrics::http_refused(HttpRefusal::Scope);
        return page.ask_for_token(Some(
            "This token may only submit PINs. The page needs one with the scope read or admin.",
        ));
    }
    let Some(cookie) = page.sessions.begin(id) else {
        return page.ask_for_token(Some("The system gives no random numbers, so nobody can log in."));
    };
    info!(token = %client.name, peer = %peer.ip(), "somebody has logged in to the status page");
    see_other("/", Some(&page.cookie(&cookie, LIFETIME)))
}

/// `POST /logout`
async fn logout(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = match Form::read(body).await {
        Ok(form) => form,
        Err(status) => return status.into_response(),
    };
    if let Err(refused) = page.sender(peer, &headers, &form) {
        return refused;
    }
    if let Some(cookie) = cookie(&headers) {
        page.sessions.end(cookie);
    }
    see_other("/", Some(&page.cookie("", Duration::ZERO)))
}

/// `GET /pins?pin=…`
async fn find(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Asker::Visitor(visitor) = page.asker(peer, &headers) else { return page.ask_for_token(None) };
    let given = Form::parse(&query.unwrap_or_default()).get("pin").unwrap_or_default().trim().to_owned();
    let pin = match given.parse::<PinId>() {
        Ok(pin) => pin,
        Err(error) => {
            return page.page(
                StatusCode::BAD_REQUEST,
                Some(&visitor),
                "Find · pinwatch",
                view::message("This is no PIN ID", &error.to_string()),
            );
        }
    };
    let found = in_time(operations::show(&page.services, show::Request { pin_id: pin.clone() })).await;
    match found.map(|answer| answer.pin.read()) {
        Ok(Ok(found)) => {
            let contents = view::pin(&found, &visitor, page.services.clock.wall());
            page.page(StatusCode::OK, Some(&visitor), &format!("{pin} · pinwatch"), contents)
        }
        Ok(Err(_)) => page.failed(&visitor, "what the store has of this PIN can't be read"),
        Err(failure) => page.refused(&visitor, failure),
    }
}

/// `POST /pins/cancel`
async fn cancel(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = match Form::read(body).await {
        Ok(form) => form,
        Err(status) => return status.into_response(),
    };
    let visitor = match page.sender(peer, &headers, &form) {
        Ok(visitor) => visitor,
        Err(refused) => return refused,
    };
    if visitor.client.scope != Scope::Admin {
        metrics::http_refused(HttpRefusal::Scope);
        return page.failed(&visitor, "only a token with the scope admin may cancel PINs");
    }
    let Some(pin) = form.get("pin").and_then(|pin| pin.parse::<PinId>().ok()) else {
        return page.failed(&visitor, "the form names no PIN");
    };
    match operations::cancel(&page.services, &pin).await {
        Ok(record) => {
            let state = cancelled_state(&record);
            info!(token = %visitor.client.name, %pin, state = state.as_str(), "a PIN was withdrawn on the status page");
            see_other(&format!("/pins?pin={pin}"), None)
        }
        Err(failure) => page.refused(&visitor, failure),
    }
}

impl Page {
    fn refused(&self, visitor: &Visitor, failure: Failure) -> Response {
        let (status, what) = match failure {
            Failure::Refused(refusal) if refusal.code == Code::NotFound => {
                (StatusCode::NOT_FOUND, refusal.message.into_owned())
            }
            Failure::Refused(refusal) => (StatusCode::SERVICE_UNAVAILABLE, refusal.message.into_owned()),
            Failure::ClientGone => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".to_owned()),
        };
        self.page(status, Some(visitor), "pinwatch", view::message("Not found or not possible now", &what))
    }

    fn failed(&self, visitor: &Visitor, what: &str) -> Response {
        self.page(StatusCode::BAD_REQUEST, Some(visitor), "pinwatch", view::message("Not possible", what))
    }

    fn cookie(&self, value: &str, lifetime: Duration) -> String {
        let secure = if self.has_tls { "; Secure" } else { "" };
        let age = lifetime.as_secs();
        format!("{COOKIE_NAME}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
    }
}

/// The fields of a form, or of a query.
struct Form(Vec<(String, String)>);

impl Form {
    async fn read(body: Body) -> Result<Self, StatusCode> {
        let body = timeout(FORM_TIMEOUT, Limited::new(body, MAX_FORM).collect()).await;
        let body =
            body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        Ok(Self::parse(&String::from_utf8_lossy(&body.to_bytes())))
    }

    fn parse(text: &str) -> Self {
        let mut url = Url::parse("http://localhost/").expect("it is a URL");
        url.set_query(Some(text));
        Self(url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn span(query: Option<String>) -> Span {
    match Form::parse(&query.unwrap_or_default()).get("span") {
        Some("day") => Span::Day,
        _ => Span::Hour,
    }
}

/// The cookie of a session.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs =
        cookies.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// Whether a page of this daemon sent a form. A browser says so in `Sec-Fetch-Site`; an old one, or one that reads the page over plain
/// HTTP from another machine, in `Origin`.
fn is_same_origin(headers: &HeaderMap) -> bool {
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

fn html(status: StatusCode, page: String) -> Response {
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

fn see_other(location: &str, cookie: Option<&str>) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response();
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok()) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// A file that never changes under its address.
fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")], text)
        .into_response()
}

/// The address of a file, which changes with its contents.
fn versioned(name: &str, ending: &str, text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let version: String = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("/{name}-{version}.{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_small_and_the_policy_allows_no_other() {
        assert!(SCRIPT.len() < 15_000);
        assert!(POLICY.starts_with("default-src 'none'") && !POLICY.contains("unsafe"));
    }

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

    #[test]
    fn the_sessions_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("a=b; pinwatch-session=abc-_; c=d"));
        assert_eq!(cookie(&headers), Some("abc-_"));
        headers.insert(COOKIE, HeaderValue::from_static("other=abc"));
        assert_eq!(cookie(&headers), None);
    }
}
