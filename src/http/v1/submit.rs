//! `POST /v1/pins`: one PIN as an object, or many as an array or as NDJSON.
//!
//! Promises that nothing of an array is submitted if one of its items is wrong, and that 202 means that every PIN is
//! durable.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde_json::value::RawValue;

use super::Api;
use super::call::{Call, JSON, NDJSON, json};
use super::ndjson;
use crate::http::problem::Problem;
use crate::http::room::{Charge, hold};
use crate::operations;
use crate::outgoing::{PIECE, SMALL};
use crate::pin::PinId;
use crate::protocol::{self, Code, MAX_ANSWER, MAX_LINE, Refusal, parse_fields, submit::Request};
use crate::store::Submitted;
use crate::submits::{BATCH, at_capacity, forget_most, large_answer, write_submitted};

/// The most items of an array.
const MAX_ITEMS: usize = 10_000;

/// `POST /v1/pins`
pub async fn submit(State(api): State<Arc<Api>>, call: Call, body: Body) -> Result<Response, Problem> {
    call.query.end()?;
    if call.content_type(&[JSON, NDJSON])? == NDJSON {
        call.accepts(&[NDJSON])?;
        return ndjson::submit(api, call.client, body).await;
    }
    call.accepts(&[JSON])?;
    let charge = call.client.room.take(call.most()? + 2 * SMALL).await?;
    let json = call.read(body).await?;
    match json.trim_ascii_start().as_bytes().first() {
        Some(b'[') => many(api, call, charge, &json).await,
        Some(_) => one(api, call, charge, &json).await,
        None => Err(Problem::invalid_json("the body is empty: send an object, or an array of objects")),
    }
}

async fn one(api: Arc<Api>, call: Call, charge: Charge, text: &str) -> Result<Response, Problem> {
    if text.len() > MAX_LINE {
        return Err(too_long("a PIN with all that belongs to it"));
    }
    let request: Request = parse_fields(text)?;
    let pin = request.pin_id.clone();
    let states = operations::submit(&api.services, vec![request], Some(call.client.name.shared())).await?;
    let Some(state) = states.into_iter().next() else { return Err(Problem::internal()) };
    let mut line = Vec::new();
    let charge = match state {
        Submitted::AtCapacity => return Err(at_capacity(&pin).into()),
        Submitted::Finished(None) => {
            drop(charge);
            let charge = call.client.room.take(MAX_ANSWER).await?;
            line = large_answer(&api.services, &pin).await.map_err(|_| Problem::internal())?;
            charge
        }
        state => {
            write_submitted(&pin, &state, &mut line);
            charge
        }
    };
    api.audit.submitted(&call.client.name, 1);
    Ok(json(StatusCode::ACCEPTED, charge.hold(line)))
}

async fn many(api: Arc<Api>, call: Call, charge: Charge, text: &str) -> Result<Response, Problem> {
    let mut requests: VecDeque<_> = read_items(text)?.into();
    let mut answers = VecDeque::with_capacity(requests.len());
    // The refusal of the first PIN that was not accepted.
    let mut refused: Option<Refusal> = None;
    let mut taken = 0;
    while !requests.is_empty() {
        let batch: Vec<Request> = requests.drain(..BATCH.min(requests.len())).collect();
        let pins: Vec<_> = batch.iter().map(|request| request.pin_id.clone()).collect();
        match operations::submit(&api.services, batch, Some(call.client.name.shared())).await {
            Ok(mut states) => {
                forget_most(&mut states);
                for (pin, state) in pins.into_iter().zip(states) {
                    if state == Submitted::AtCapacity {
                        refused.get_or_insert_with(|| at_capacity(&pin));
                    } else {
                        taken += 1;
                    }
                    answers.push_back((pin, Ok(state)));
                }
            }
            Err(refusal) => {
                answers.extend(pins.into_iter().map(|pin| (pin, Err(refusal.clone()))));
                refused.get_or_insert(refusal);
            }
        }
    }
    api.audit.submitted(&call.client.name, taken);
    let answers = |open: String, close| Answers { api, charge: Arc::new(charge), open, answers, close };
    Ok(match refused {
        None => {
            let body = answers("[".to_owned(), "]\n").into_body();
            (StatusCode::ACCEPTED, [(CONTENT_TYPE, HeaderValue::from_static(JSON))], body).into_response()
        }
        Some(refusal) => {
            let problem = Problem::from(refusal);
            let open = problem.open_json() + ",\"results\":[";
            problem.with_body(answers(open, "]}\n").into_body())
        }
    })
}

/// Reads every item before any is submitted.
fn read_items(text: &str) -> Result<Vec<Request>, Problem> {
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| Problem::invalid_json(error.to_string()))?;
    if items.len() > MAX_ITEMS {
        let message =
            format!("an array has at most {MAX_ITEMS} items: send NDJSON, which may have any length");
        return Err(Problem::too_large(message));
    }
    let item = |(index, item): (usize, &RawValue)| {
        if item.get().len() > MAX_LINE {
            return Err(too_long(&format!("item {index}")));
        }
        parse_fields(item.get()).map_err(|Refusal { code, message }: Refusal| {
            code.because(format!("item {index}: {message}")).into()
        })
    };
    items.into_iter().enumerate().map(item).collect()
}

fn too_long(what: &str) -> Problem {
    Code::LineTooLong.because(format!("{what} has at most {} KiB", MAX_LINE / 1024)).into()
}

/// The answers to an array, built piece by piece as the client reads them.
struct Answers {
    api: Arc<Api>,
    /// Room of the client, until all is sent.
    charge: Arc<Charge>,
    open: String,
    answers: VecDeque<(PinId, Result<Submitted, Refusal>)>,
    close: &'static str,
}

impl Answers {
    fn into_body(self) -> Body {
        Body::from_stream(unfold(Some(self), async |answers| {
            let mut answers = answers?;
            let piece = answers.next_piece().await;
            let charge = answers.charge.clone();
            let rest = (!answers.close.is_empty()).then_some(answers);
            Some((Ok::<Bytes, Infallible>(hold(piece, charge)), rest))
        }))
    }

    /// Each answer is a line, with the comma before the next.
    async fn next_piece(&mut self) -> Vec<u8> {
        let mut piece = std::mem::take(&mut self.open).into_bytes();
        while piece.len() < PIECE - 2 * SMALL {
            let Some((pin, state)) = self.answers.pop_front() else {
                piece.extend_from_slice(std::mem::take(&mut self.close).as_bytes());
                break;
            };
            match state {
                Ok(Submitted::Finished(None)) => {
                    // `Gone` can't happen here: a client that hangs up drops this body.
                    piece.extend(large_answer(&self.api.services, &pin).await.unwrap_or_default());
                }
                Ok(state) => write_submitted(&pin, &state, &mut piece),
                Err(refusal) => piece.extend_from_slice(protocol::refused(&refusal).as_bytes()),
            }
            if !self.answers.is_empty() {
                piece.push(b',');
            }
        }
        piece
    }
}
