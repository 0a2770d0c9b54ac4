//! What an administrator asks: numbers, nodes, dead letters, repeated deliveries and sinks.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use tracing::info;

use super::Api;
use super::call::Call;
use crate::http::problem::Problem;
use crate::operations::{self, in_time};
use crate::pin::PinId;
use crate::protocol::filter::Filter;
use crate::protocol::{dead_letters as letters, drop, forget_sink as forget, replay as replay_to};

/// Which outcomes: the newest of a PIN, those from one `seq` to another, or those that match.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Which {
    pin_id: Option<PinId>,
    from: Option<i64>,
    to: Option<i64>,
    #[serde(default)]
    filter: Filter,
    #[serde(default)]
    all: bool,
    after: Option<String>,
}

/// `GET /v1/stats`
pub async fn stats(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Problem> {
    call.check()?;
    call.reply(in_time(operations::stats(&api.services))).await
}

/// `GET /v1/schedule`
pub async fn schedule(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Problem> {
    call.check()?;
    call.reply(in_time(operations::schedule(&api.services))).await
}

/// `GET /v1/nodes`
pub async fn nodes(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Problem> {
    call.check()?;
    call.reply(in_time(operations::nodes(&api.services))).await
}

/// `GET /v1/dead-letters`
pub async fn dead_letters(State(api): State<Arc<Api>>, mut call: Call) -> Result<Response, Problem> {
    let query = &mut call.query;
    let mut filter = query.filter()?;
    let request = letters::Request {
        // The sink that has the dead letters.
        sink: filter.sink.take(),
        pin_id: query.pin()?,
        from: query.number("from", 0..=i64::MAX)?,
        to: query.number("to", 0..=i64::MAX)?,
        after: query.text("after")?,
        limit: query.limit()?,
        filter,
    };
    call.check()?;
    call.reply(in_time(operations::dead_letters(&api.services, request))).await
}

/// `POST /v1/dead-letters/replay`
pub async fn replay_dead(State(api): State<Arc<Api>>, call: Call, body: Body) -> Result<Response, Problem> {
    let drop::Request { sink, pin_id, from, to, filter, all, after } = call.object("replay", body).await?;
    replayed(&api, &call, replay_to::Request { sink, pin_id, from, to, dead: true, filter, all, after }).await
}

/// `POST /v1/dead-letters/drop`
pub async fn drop_dead(State(api): State<Arc<Api>>, call: Call, body: Body) -> Result<Response, Problem> {
    let request: drop::Request = call.object("drop", body).await?;
    let (sink, which) =
        (request.sink.clone(), shown(&request.pin_id, request.from, request.to, &request.filter));
    let answer = operations::drop(&api.services, request).await?;
    info!(token = %call.client.name, sink, which, count = answer.count, "dead letters were dropped over HTTP");
    call.reply(async { Ok(answer) }).await
}

/// `POST /v1/sinks/{name}/replay`
pub async fn replay(State(api): State<Arc<Api>>, call: Call, body: Body) -> Result<Response, Problem> {
    let sink = call.path("name")?.to_owned();
    let Which { pin_id, from, to, filter, all, after } = call.object("replay", body).await?;
    replayed(&api, &call, replay_to::Request { sink, pin_id, from, to, dead: false, filter, all, after })
        .await
}

/// `DELETE /v1/sinks/{name}`
pub async fn forget_sink(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Problem> {
    let sink = call.path("name")?.to_owned();
    call.check()?;
    let forgotten = operations::forget_sink(&api.services, forget::Request { sink: sink.clone() }).await;
    // Only one that is configured is refused.
    let answer = forgotten.map_err(|failure| Problem::from(failure).or_conflict())?;
    info!(token = %call.client.name, sink, "a sink was forgotten over HTTP");
    call.reply(async { Ok(answer) }).await
}

async fn replayed(api: &Api, call: &Call, request: replay_to::Request) -> Result<Response, Problem> {
    let (sink, only_dead) = (request.sink.clone(), request.dead);
    let which = shown(&request.pin_id, request.from, request.to, &request.filter);
    let answer = operations::replay(&api.services, request).await?;
    info!(
        token = %call.client.name,
        sink,
        which,
        only_dead,
        count = answer.count,
        "outcomes are delivered again, as was asked for over HTTP"
    );
    call.reply(async { Ok(answer) }).await
}

/// Which outcomes were meant, for the log.
fn shown(pin: &Option<PinId>, from: Option<i64>, to: Option<i64>, filter: &Filter) -> String {
    match (pin, from, to) {
        (Some(pin), ..) => format!("PIN {pin}"),
        (None, Some(from), Some(to)) => format!("seq {from} to {to}"),
        _ => filter.to_string(),
    }
}
