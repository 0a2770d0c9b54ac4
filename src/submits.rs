//! Submits of one client that go to the store together, and the lines that answer them.
//!
//! Promises a line for each submit, in their order, and that no line is built before there is room for it. For the local
//! socket and for HTTP; must not know how submits come in.

use crate::operations::{Failure, outcome_of};
use crate::outgoing::{Gone, Outgoing, Pieces};
use crate::pin::PinId;
use crate::protocol::submit::write_answer;
use crate::protocol::{self, Code, MAX_ANSWER, Refusal, State};
use crate::services::Services;
use crate::store::{Record, Submitted};

/// The most submits that go to the store together.
pub const BATCH: usize = 4096;

/// The most submits that go to the store together, in bytes of their lines; slightly exceeded by the last line.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// Queues one answer for each submit: its own result, or the same refusal for all.
pub async fn answer(
    services: &Services,
    outgoing: &Outgoing,
    ids: &[PinId],
    result: Result<Vec<Submitted>, Refusal>,
) -> Result<(), Gone> {
    let mut pieces = Pieces::new(outgoing);
    match result {
        Ok(mut states) => {
            forget_most(&mut states);
            for (pin, state) in ids.iter().zip(&states) {
                if let Submitted::Finished(None) = state {
                    pieces.flush()?;
                    let room = outgoing.room(MAX_ANSWER).await?;
                    outgoing.send(room, large_answer(services, pin).await?)?;
                } else {
                    pieces.add(|out| write_submitted(pin, state, out)).await?;
                }
            }
        }
        Err(refusal) => {
            let line = protocol::refused(&refusal);
            for _ in ids {
                pieces.add(|out| out.extend_from_slice(line.as_bytes())).await?;
            }
        }
    }
    pieces.flush()
}

/// Returns the answer to a submit of a finished PIN, with its record read from the store, or the refusal if that fails.
pub async fn large_answer(services: &Services, pin: &PinId) -> Result<Vec<u8>, Gone> {
    match outcome_of(services, pin).await {
        Ok(outcome) => Ok(line(pin, State::Finished, &outcome.record)),
        Err(Failure::Refused(refusal)) => Ok(protocol::refused(&refusal).into()),
        Err(Failure::ClientGone) => Err(Gone),
    }
}

/// Keeps the first records, up to [`BATCH_BYTES`], and drops the others, which are read again when their turn comes.
/// While the client does not read, kept records use memory that does not count as its answers.
pub fn forget_most(states: &mut [Submitted]) {
    let mut bytes = 0;
    for state in states {
        if let Submitted::Finished(Some(record)) = state {
            bytes += record.len();
            if bytes > BATCH_BYTES {
                *state = Submitted::Finished(None);
            }
        }
    }
}

/// Appends the line that answers a submit.
pub fn write_submitted(pin: &PinId, state: &Submitted, out: &mut Vec<u8>) {
    match state {
        Submitted::Accepted => write_answer(pin, State::Accepted, None, out),
        Submitted::Duplicate => write_answer(pin, State::Duplicate, None, out),
        Submitted::Finished(record) => write_answer(pin, State::Finished, record.as_deref(), out),
        Submitted::AtCapacity => out.extend_from_slice(protocol::refused(&at_capacity(pin)).as_bytes()),
    }
}

/// The refusal of a PIN when `intake.max_in_flight` PINs are in flight.
pub fn at_capacity(pin: &PinId) -> Refusal {
    Code::AtCapacity.because(format!(
        "PIN {pin} was not accepted: the limit of PINs in flight is reached (intake.max_in_flight)"
    ))
}

/// The answer to a submit or a cancel of a PIN that has this outcome.
pub fn line(pin: &PinId, state: State, record: &Record) -> Vec<u8> {
    let mut line = Vec::new();
    write_answer(pin, state, Some(record), &mut line);
    line
}
