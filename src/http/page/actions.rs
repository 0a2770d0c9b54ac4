//! The actions of a visitor with the scope `admin`: on one PIN at once, on many after a preview, by a job.
//!
//! Promises that nothing changes unless a page of this visitor's session sent the form ([`Page::sender`]), and that the log names
//! the token of the visitor who changes something.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use tokio::time::{Duration, Instant};
use tracing::info;

use super::find::Query;
use super::form::Form;
use super::jobs::{Action, TooMany};
use super::session::Visitor;
use super::{Asker, Page, see_other, view};
use crate::http::tokens::Scope;
use crate::metrics::{self, HttpRefusal};
use crate::operations::{self, Failure, cancelled_state, in_time};
use crate::pin::PinId;
use crate::protocol::{Code, count, drop, replay};

/// How long a preview may count. After that it shows the count so far as "at least".
const COUNTING: Duration = Duration::from_secs(5);

const TITLE: &str = "Actions · pinwatch";

impl Page {
    /// The visitor, if it is an administrator.
    fn admin(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<Visitor, Response> {
        match self.asker(peer, headers) {
            Asker::Visitor(visitor) => self.only_admin(visitor),
            _ => Err(self.ask_for_token(None)),
        }
    }

    /// The administrator who sent a form, and the form.
    async fn admins_form(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Visitor, Form), Response> {
        let form = Form::read(body).await.map_err(IntoResponse::into_response)?;
        let visitor = self.only_admin(self.sender(peer, headers, &form)?)?;
        Ok((visitor, form))
    }

    fn only_admin(&self, visitor: Visitor) -> Result<Visitor, Response> {
        if visitor.client.scope == Scope::Admin {
            return Ok(visitor);
        }
        metrics::http_refused(HttpRefusal::Scope);
        let text = "This needs a token with the scope admin.";
        let contents = view::message("Not allowed", text);
        Err(self.page(StatusCode::FORBIDDEN, Some(&visitor), TITLE, contents))
    }

    /// The dead letters of each sink that has some.
    async fn dead_letters(&self) -> Result<Vec<(String, u64)>, Failure> {
        let now = self.live.now().await.map_err(|why| Code::StoreUnavailable.because(why))?;
        let dead = now.sinks.into_iter().map(|(name, sink)| (name, sink.dead_letters.max(0).unsigned_abs()));
        Ok(dead.filter(|(_, count)| *count > 0).collect())
    }

    /// Returns how many PINs an action is about, and whether there may be more.
    async fn count(&self, query: &Query) -> Result<(u64, bool), Failure> {
        let (filter, began) = (query.filter()?, Instant::now());
        let (mut sum, mut after) = (0, None);
        loop {
            let request = count::Request { filter: filter.clone(), after, ..Default::default() };
            let answer = in_time(operations::count(&self.services, request)).await?;
            sum += answer.count;
            if answer.next.is_none() || began.elapsed() >= COUNTING {
                return Ok((sum, answer.next.is_some()));
            }
            after = answer.next;
        }
    }
}

/// `POST /pins/cancel`
pub async fn cancel(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, form) = page.admins_form(peer, &headers, body).await?;
    let pin = pin(&page, &visitor, &form)?;
    let record =
        operations::cancel(&page.services, &pin).await.map_err(|failure| page.refused(&visitor, failure))?;
    let state = cancelled_state(&record);
    info!(token = %visitor.client.name, %pin, state = state.as_str(), "a PIN was withdrawn on the status page");
    Ok(see_other(&format!("/pins?pin={pin}"), None))
}

/// `POST /pins/replay`: delivers one PIN's outcome to a sink again, or drops its dead letter.
pub async fn replay_or_drop(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, form) = page.admins_form(peer, &headers, body).await?;
    let (pin, sink) = (pin(&page, &visitor, &form)?, form.get("sink").unwrap_or_default().to_owned());
    let pin_id = Some(pin.clone());
    let is_drop = form.get("do") == Some("drop");
    let answer = if is_drop {
        operations::drop(&page.services, drop::Request { sink: sink.clone(), pin_id, ..Default::default() })
            .await
    } else {
        let request = replay::Request { sink: sink.clone(), pin_id, ..Default::default() };
        operations::replay(&page.services, request).await
    };
    let count = answer.map_err(|failure| page.refused(&visitor, failure))?.count;
    let what = if is_drop { "dropped" } else { "replayed" };
    info!(token = %visitor.client.name, %pin, sink, count, "an outcome was {what} on the status page");
    Ok(see_other(&format!("/pins?pin={pin}"), None))
}

/// `GET /actions`
pub async fn overview(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let visitor = page.admin(peer, &headers)?;
    // Shows the running actions even if the dead letters can't be read.
    let dead = page.dead_letters().await.unwrap_or_default();
    let contents = view::actions::overview(&dead, &page.jobs.all(), &visitor, page.services.clock.wall());
    Ok(page.live_page(&visitor, TITLE, contents))
}

/// `GET /actions/cancel`: says how many PINs match, and asks.
pub async fn preview_cancel(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let visitor = page.admin(peer, &headers)?;
    let query = Query::of(&Form::parse(&query.unwrap_or_default()));
    let counted_at = page.services.clock.wall();
    let counted = page.count(&query).await;
    let (count, is_more) = counted.map_err(|failure| page.refused(&visitor, failure))?;
    let filter = query.filter().map_err(|refusal| page.refused(&visitor, refusal.into()))?;
    let action = Action::Cancel(filter);
    Ok(preview(&page, &visitor, &action, (count, is_more), counted_at, &query.hidden()))
}

/// `GET /actions/dead-letters`: says how many dead letters a sink has, and asks.
pub async fn preview_dead_letters(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let visitor = page.admin(peer, &headers)?;
    let form = Form::parse(&query.unwrap_or_default());
    let action = action(&form).map_err(|failure| page.refused(&visitor, failure))?;
    let dead = page.dead_letters().await.map_err(|failure| page.refused(&visitor, failure))?;
    let sink = form.get("sink").unwrap_or_default();
    let count = dead.iter().find(|(name, _)| name == sink).map_or(0, |(_, count)| *count);
    let fields = html! { input type="hidden" name="sink" value=(sink); };
    Ok(preview(&page, &visitor, &action, (count, false), page.services.clock.wall(), &fields))
}

fn preview(
    page: &Page,
    visitor: &Visitor,
    action: &Action,
    (count, is_more): (u64, bool),
    counted_at: Timestamp,
    fields: &Markup,
) -> Response {
    let fields = html! {
        (fields)
        input type="hidden" name="count" value=(count);
        @if is_more { input type="hidden" name="is_more" value="yes"; }
    };
    let contents = view::actions::confirm(action, count, is_more, counted_at, &fields, visitor);
    page.page(StatusCode::OK, Some(visitor), TITLE, contents)
}

/// `POST /actions`: begins a job.
pub async fn begin(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, form) = page.admins_form(peer, &headers, body).await?;
    let action = action(&form).map_err(|failure| page.refused(&visitor, failure))?;
    let counted_at = form.get("counted_at").and_then(|at| at.parse().ok());
    let (Some(counted_at), Some(count)) =
        (counted_at, form.get("count").and_then(|count| count.parse().ok()))
    else {
        return Err(page.failed(&visitor, "the form has no preview: start again"));
    };
    let counted = (count, form.get("is_more").is_none());
    match page.jobs.begin(action, &visitor.client.name, counted, counted_at) {
        Ok(()) => Ok(see_other("/actions", None)),
        Err(TooMany) => Err(page.failed(&visitor, "too many actions run already: wait for one, or stop one")),
    }
}

/// `POST /actions/stop`
pub async fn stop(
    State(page): State<Arc<Page>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, form) = page.admins_form(peer, &headers, body).await?;
    if let Some(job) = form.get("job").and_then(|job| job.parse().ok()) {
        page.jobs.stop(job);
        info!(token = %visitor.client.name, job, "a job was stopped on the status page");
    }
    Ok(see_other("/actions", None))
}

/// What a form asks for.
fn action(form: &Form) -> Result<Action, Failure> {
    let sink = || form.get("sink").unwrap_or_default().to_owned();
    match form.get("do") {
        Some("cancel") => Ok(Action::Cancel(Query::of(form).filter()?)),
        Some("replay") => Ok(Action::Replay { sink: sink() }),
        Some("drop") => Ok(Action::Drop { sink: sink() }),
        _ => Err(Code::InvalidRequest.because("the form names no action").into()),
    }
}

fn pin(page: &Page, visitor: &Visitor, form: &Form) -> Result<PinId, Response> {
    let pin = form.get("pin").and_then(|pin| pin.parse().ok());
    pin.ok_or_else(|| page.failed(visitor, "the form names no PIN"))
}
