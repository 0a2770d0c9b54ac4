//! PINs one by one, and those in flight.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tracing::info;

use super::Api;
use super::call::{Call, json};
use crate::http::problem::Problem;
use crate::http::room::Charge;
use crate::operations::{self, Failure, cancelled_state, in_time, outcome_of, unreadable};
use crate::outgoing::SMALL;
use crate::pin::PinId;
use crate::protocol::filter::About;
use crate::protocol::submit::write_answer;
use crate::protocol::{
    self, Code, MAX_ANSWER, Raw, Refusal, State as PinState, cancel_matching as cancel_matching_pins,
    list as list_pins, show as show_pin, wait,
};
use crate::store::Record;
use crate::submits::line;

/// The longest `wait`.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// `GET /v1/pins`
pub async fn list(State(api): State<Arc<Api>>, mut call: Call) -> Result<Response, Problem> {
    let query = &mut call.query;
    let request =
        list_pins::Request { limit: query.limit()?, after: query.text("after")?, filter: query.filter()? };
    request.filter.check(About::Either)?;
    call.check()?;
    call.reply(in_time(operations::list(&api.services, request))).await
}

/// `GET /v1/pins/{pinId}`
pub async fn show(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Problem> {
    let pin_id = call.pin()?;
    call.check()?;
    call.reply(in_time(operations::show(&api.services, show_pin::Request::Pin(pin_id)))).await
}

/// `GET /v1/pins/{pinId}/outcome`
pub async fn outcome(State(api): State<Arc<Api>>, mut call: Call) -> Result<Response, Problem> {
    let pin_id = call.pin()?;
    let timeout = call.query.duration("wait", MAX_WAIT)?.unwrap_or_default();
    call.check()?;
    let request = wait::Request { pin_id: pin_id.clone(), timeout: Some(timeout) };
    // If the client hangs up, its handler ends too.
    match operations::wait(&api.services, request, pending()).await {
        Ok(wait::Answer { pin_id, outcome }) => {
            let (charge, record) = with_room(&api, &call, &pin_id, outcome.get().into()).await?;
            let outcome = Raw::from_json(&record).map_err(|error| Problem::from(unreadable(error)))?;
            let answer = protocol::answer(&wait::Answer { pin_id, outcome });
            Ok(json(StatusCode::OK, charge.hold(answer)))
        }
        Err(Failure::Refused(Refusal { code: Code::Timeout, .. })) => {
            let mut answer = Vec::new();
            write_answer(&pin_id, PinState::InFlight, None, &mut answer);
            Ok(json(StatusCode::ACCEPTED, answer.into()))
        }
        Err(failure) => Err(failure.into()),
    }
}

/// `DELETE /v1/pins/{pinId}`
pub async fn cancel(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Problem> {
    let pin = call.pin()?;
    call.check()?;
    let record = operations::cancel(&api.services, &pin).await?;
    let state = cancelled_state(&record);
    info!(token = %call.client.name, %pin, state = state.as_str(), "a PIN was withdrawn over HTTP");
    let (charge, record) = with_room(&api, &call, &pin, record).await?;
    Ok(json(StatusCode::OK, charge.hold(line(&pin, state, &record))))
}

/// `POST /v1/pins/cancel`
pub async fn cancel_matching(
    State(api): State<Arc<Api>>,
    call: Call,
    body: Body,
) -> Result<Response, Problem> {
    let request: cancel_matching_pins::Request = call.object("cancel", body).await?;
    let filter = request.filter.to_string();
    let answer = operations::cancel_matching(&api.services, request).await?;
    info!(token = %call.client.name, filter, count = answer.count, "PINs were withdrawn over HTTP");
    call.reply(async { Ok(answer) }).await
}

/// Takes room for a record. A large one is not kept until there is room, but read again then.
async fn with_room(api: &Api, call: &Call, pin: &PinId, record: Record) -> Result<(Charge, Record), Problem> {
    if record.len() <= SMALL {
        return Ok((call.client.room.take(2 * SMALL).await?, record));
    }
    drop(record);
    let charge = call.client.room.take(MAX_ANSWER).await?;
    let outcome = in_time(outcome_of(&api.services, pin)).await?;
    Ok((charge, outcome.record))
}
