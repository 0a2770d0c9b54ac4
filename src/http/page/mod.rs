//! The status page at `/`, and what can be found and done there.
//!
//! Promises that without a token only numbers are shown, and those only to clients on this machine; that a form changes something
//! only if it was made by this page for the visitor's session; and that no text runs as a script: the page has one script, which
//! it serves itself, and [`POLICY`] forbids all others. Complete without the script, which only keeps it current.
//! Operations are those of `operations/`. Must not know connections, TLS or hosts.

#![allow(clippy::result_large_err, reason = "who is refused gets a whole response, once per request")]

mod actions;
mod charts;
mod find;
mod form;
mod jobs;
mod live;
mod session;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, RawQuery, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderName, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ring::digest::{SHA256, digest};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::find::Query;
use self::form::{Form, is_same_origin};
use self::jobs::Jobs;
use self::live::Live;
use self::session::{LIFETIME, Sessions, Visitor};
use self::view::{Assets, Frame};
use super::admission::Admission;
use super::failures::Failures;
use super::history::{History, Span};
use super::peer;
use super::tasks::Tasks;
use super::tokens::Scope;
use super::v1::CurrentTokens;
use crate::metrics::{self, HttpRefusal};
use crate::operations::{self, Failure, in_time};
use crate::pin::PinId;
use crate::protocol::{Code, show};
use crate::services::Services;

/// What a browser may load for a page: its style and script from here, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Requests that are answered at once, open pages included.
const MOST: usize = 256;

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
    jobs: Jobs,
    assets: Assets,
    has_tls: bool,
}

/// The client of a request.
enum Asker {
    Visitor(Visitor),
    /// Somebody on this machine, who may see numbers.
    Local,
    Stranger,
}

impl Page {
    /// Its jobs run among `tasks`; wrong tokens count in `failures`, together with those of `/v1`.
    pub fn new(
        services: Services,
        history: History,
        tokens: CurrentTokens,
        tasks: Tasks,
        failures: Failures,
        has_tls: bool,
    ) -> Arc<Self> {
        let assets =
            Assets { style: versioned("style", "css", STYLE), script: versioned("live", "js", SCRIPT) };
        let live = Live::new(services.clone(), history);
        let (sessions, jobs) = (Sessions::default(), Jobs::new(services.clone(), tasks));
        Arc::new(Self { services, tokens, sessions, failures, live, jobs, assets, has_tls })
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

    /// A page that the script keeps current.
    fn live_page(&self, visitor: &Visitor, title: &str, contents: maud::Markup) -> Response {
        let frame = Frame { assets: &self.assets, visitor: Some(visitor), has_tokens: true, is_live: true };
        html(StatusCode::OK, frame.page(title, contents))
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

    /// Returns the visitor who sent a form, if this page made the form for the visitor's session.
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
        .route("/pins/cancel", post(actions::cancel))
        .route("/pins/replay", post(actions::replay_or_drop))
        .route("/actions", get(actions::overview).post(actions::begin))
        .route("/actions/cancel", get(actions::preview_cancel))
        .route("/actions/dead-letters", get(actions::preview_dead_letters))
        .route("/actions/stop", post(actions::stop))
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
                view::message("No numbers", &format!("The numbers are not available: {why}")),
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
    let (watched, cookies) = (page.clone(), headers);
    let may_see = move || !matches!(watched.asker(peer, &cookies), Asker::Stranger);
    let body = page.live.stream(span(query), page.services.stop.clone(), may_see);
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
        let Some(wait) = wait else {
            let why = "Nobody has this token: is it in http.tokens_file, and was the daemon reloaded since?";
            return page.ask_for_token(Some(why));
        };
        let seconds = wait.as_secs() + 1;
        let why = format!("There were too many wrong tokens. Try again in {seconds} s.");
        let contents = view::login(Some(&why));
        let mut response = page.page(StatusCode::TOO_MANY_REQUESTS, None, "Log in · pinwatch", contents);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        return response;
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

/// `GET /pins`: one PIN (`pin`), what a search finds, or the empty search.
async fn find(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Asker::Visitor(visitor) = page.asker(peer, &headers) else { return page.ask_for_token(None) };
    let form = Form::parse(&query.unwrap_or_default());
    if let Some(pin) = form.get("pin") {
        return page.one(&visitor, pin).await;
    }
    let query = Query::of(&form);
    let show = |contents| page.page(StatusCode::OK, Some(&visitor), "Find · pinwatch", contents);
    if query.is_empty() {
        return show(view::pins::search(&query));
    }
    // A text that can be a PIN ID can be a reference too.
    if let Some(pin) = query.pin() {
        match in_time(operations::show(&page.services, show::Request::Pin(pin.clone()))).await {
            Ok(_) => return see_other(&format!("/pins?pin={pin}"), None),
            Err(Failure::Refused(refusal)) if refusal.code == Code::NotFound => {}
            Err(failure) => return page.refused(&visitor, failure),
        }
    }
    match query.look(&page.services).await {
        Ok(parts) => show(view::pins::found(&query, &parts, &visitor, page.services.clock.wall())),
        Err(failure) => page.refused(&visitor, failure),
    }
}

impl Page {
    /// A PIN's history.
    async fn one(&self, visitor: &Visitor, pin: &str) -> Response {
        let pin = match pin.trim().parse::<PinId>() {
            Ok(pin) => pin,
            Err(error) => return self.failed(visitor, &error.to_string()),
        };
        let found = in_time(operations::show(&self.services, show::Request::Pin(pin.clone()))).await;
        match found.map(|answer| answer.pin.read()) {
            Ok(Ok(found)) => {
                let contents = view::pins::pin(&found, visitor, self.services.clock.wall());
                self.page(StatusCode::OK, Some(visitor), &format!("{pin} · pinwatch"), contents)
            }
            Ok(Err(_)) => self.failed(visitor, "what the store has of this PIN can't be read"),
            Err(failure) => self.refused(visitor, failure),
        }
    }

    fn refused(&self, visitor: &Visitor, failure: Failure) -> Response {
        let (status, what) = match failure {
            Failure::Refused(refusal) if refusal.code == Code::NotFound => {
                (StatusCode::NOT_FOUND, refusal.message.into_owned())
            }
            Failure::Refused(refusal) if refusal.code == Code::InvalidRequest => {
                (StatusCode::BAD_REQUEST, refusal.message.into_owned())
            }
            Failure::Refused(refusal) => (StatusCode::SERVICE_UNAVAILABLE, refusal.message.into_owned()),
            Failure::ClientGone => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".to_owned()),
        };
        self.page(status, Some(visitor), "pinwatch", view::message("Not possible", &what))
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
    fn the_sessions_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("a=b; pinwatch-session=abc-_; c=d"));
        assert_eq!(cookie(&headers), Some("abc-_"));
        headers.insert(COOKIE, HeaderValue::from_static("other=abc"));
        assert_eq!(cookie(&headers), None);
    }
}
