//! `/v1` of `[http]`: the operations of the local socket over HTTP, for programs with a token.
//!
//! Promises that a request is answered only with a valid token of the right scope; that a 202 means durable; and that what a
//! client has not sent or not read yet is bounded and charged to it. Requests and answers are those of
//! [`protocol`](crate::protocol), and `operations/` makes the answers; errors are [`Problem`]s. `docs/openapi.json` describes
//! it for programs, `docs/http-api.md` for people. Must not know connections, TLS or hosts.

mod admin;
mod audit;
mod call;
mod ndjson;
mod outcomes;
mod pins;
mod submit;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, any, on};
use tokio::sync::watch;

use self::audit::Audit;
use super::admission::{Admission, MAX_API_REQUESTS};
use super::failures::Failures;
use super::problem::Problem;
use super::tasks::Tasks;
use super::tokens::{Client, Scope, Tokens};
use crate::metrics::{self, HttpRefusal};
use crate::operations::shutting_down;
use crate::services::Services;

/// The tokens in force; `None` if `http.tokens_file` is not set.
pub type CurrentTokens = watch::Receiver<Option<Arc<Tokens>>>;

/// What the handlers need.
pub struct Api {
    services: Services,
    tokens: CurrentTokens,
    /// Tasks that outlive their handlers; their owner awaits them.
    tasks: Tasks,
    failures: Failures,
    audit: Audit,
}

/// A path, and the scopes that may use it besides [`Scope::Admin`].
#[cfg(test)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub scopes: &'static [Scope],
}

macro_rules! routes {
    ($($method:ident $path:literal [$($scope:ident),*] $handler:path;)*) => {
        /// Every route.
        #[cfg(test)]
        pub const ROUTES: &[Route] = &[
            $(Route { method: stringify!($method), path: $path, scopes: &[$(Scope::$scope),*] }),*
        ];

        fn routes() -> Router<Arc<Api>> {
            Router::new()
                $(.route($path, on(MethodFilter::$method, $handler).route_layer(from_fn(
                    |request: Request, next: Next| for_scopes(&[$(Scope::$scope),*], request, next)
                ))))*
        }
    };
}

routes! {
    POST "/v1/pins" [Submit] submit::submit;
    GET "/v1/pins" [Read] pins::list;
    POST "/v1/pins/cancel" [] pins::cancel_matching;
    GET "/v1/pins/{pinId}" [Read] pins::show;
    DELETE "/v1/pins/{pinId}" [] pins::cancel;
    GET "/v1/pins/{pinId}/outcome" [Submit, Read] pins::outcome;
    GET "/v1/outcomes" [Read] outcomes::outcomes;
    GET "/v1/stats" [Read] admin::stats;
    GET "/v1/schedule" [Read] admin::schedule;
    GET "/v1/nodes" [Read] admin::nodes;
    GET "/v1/dead-letters" [Read] admin::dead_letters;
    POST "/v1/dead-letters/replay" [] admin::replay_dead;
    POST "/v1/dead-letters/drop" [] admin::drop_dead;
    POST "/v1/sinks/{name}/replay" [] admin::replay;
    DELETE "/v1/sinks/{name}" [] admin::forget_sink;
    GET "/v1/openapi.json" [Read] openapi;
}

impl Api {
    pub fn new(services: Services, tokens: CurrentTokens, tasks: Tasks, failures: Failures) -> Arc<Self> {
        Arc::new(Self { services, tokens, tasks, failures, audit: Audit::default() })
    }

    /// Logs what is due of the sums of submits. To be called about every second.
    pub fn upkeep(&self) {
        self.audit.log_due();
    }

    /// Logs what was not logged yet.
    pub fn finish(&self) {
        self.audit.log_all();
    }

    /// Returns the client that the token belongs to, or why the token is not valid.
    fn client(&self, tokens: &Tokens, headers: &HeaderMap) -> Result<Client, (HttpRefusal, Problem)> {
        let missing = |detail| (HttpRefusal::NoToken, Problem::unauthorized(detail, false));
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (Some(value), None) => value,
            (None, _) => {
                return Err(missing(
                    "send a token: \"Authorization: Bearer …\"; \"pinwatch token new\" makes one",
                ));
            }
            (Some(_), Some(_)) => return Err(missing("send one Authorization header, not several")),
        };
        let token = value.to_str().ok().and_then(|value| value.split_once(' '));
        let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return Err(missing("the header Authorization is not \"Bearer\" and a token"));
        };
        tokens.client(token.trim()).cloned().ok_or_else(|| {
            let detail =
                "nobody has this token: is it in http.tokens_file, and was the daemon reloaded since?";
            (HttpRefusal::WrongToken, Problem::unauthorized(detail, true))
        })
    }
}

/// The router of `/v1` and all below it.
pub fn router(api: Arc<Api>) -> Router {
    let admission = Admission::new(MAX_API_REQUESTS, |full| Problem::crowded(&full).into_response());
    let mut router = routes();
    for other in ["/v1", "/v1/", "/v1/{*other}"] {
        router = router.route(other, any(unknown));
    }
    router
        .route_layer(from_fn_with_state(api.clone(), guard))
        .route_layer(from_fn_with_state(admission, Admission::admit))
        .with_state(api)
}

async fn unknown() -> Problem {
    Problem::not_found("there is no such path; GET /v1/openapi.json describes those that there are")
}

/// Lets requests with a valid token pass, and makes problems of what the router refuses by itself.
async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let tokens = api.tokens.borrow().clone();
    let Some(tokens) = tokens else {
        let detail = "the API is off: http.tokens_file is not set, so nobody has a token";
        return Problem::not_found(detail).into_response();
    };
    let client = match api.client(&tokens, request.headers()) {
        Ok(client) => client,
        Err((reason, problem)) => {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
            let wait = api.failures.count(peer, reason.as_str());
            metrics::http_refused(if wait.is_some() { HttpRefusal::TooMany } else { reason });
            let problem =
                wait.map_or(problem, |wait| Problem::too_many_failures(wait.as_secs_f64().ceil() as u64));
            return problem.into_response();
        }
    };
    if api.services.stop.is_cancelled() {
        return Problem::from(shutting_down()).into_response();
    }
    request.extensions_mut().insert(client);
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        return Problem::method_not_allowed(response.headers().get(ALLOW)).into_response();
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets clients pass that have one of these scopes, or may do everything.
async fn for_scopes(scopes: &'static [Scope], request: Request, next: Next) -> Response {
    let scope = request.extensions().get::<Client>().map(|client| client.scope);
    match scope {
        Some(scope) if scope == Scope::Admin || scopes.contains(&scope) => next.run(request).await,
        Some(scope) => {
            metrics::http_refused(HttpRefusal::Scope);
            let needed = if scopes.is_empty() { &[Scope::Admin] } else { scopes };
            Problem::forbidden(scope, needed).into_response()
        }
        None => Problem::internal().into_response(),
    }
}

/// `GET /v1/openapi.json`
async fn openapi(call: call::Call) -> Result<Response, Problem> {
    call.check()?;
    const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(call::JSON))], DOCUMENT).into_response())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
