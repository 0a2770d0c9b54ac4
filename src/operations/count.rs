//! Answers `count`: how many PINs, outcomes or dead letters match a filter.
//!
//! Looks at a bounded number of rows per request, whatever matches: the answer's `next` says where the rest begins.

use super::dead_letters::{Letters, each_letter};
use super::failure::Failure;
use super::matching::{each_outcome, in_flight, with_status};
use crate::protocol::count::{Answer, Of, Request};
use crate::protocol::filter::About;
use crate::protocol::{Code, MAX_PAGE};
use crate::services::Services;
use crate::store::{Position, SCAN};

/// Counts what matches in the next part.
pub async fn count(
    services: &Services,
    Request { of, sink, filter, after }: Request,
) -> Result<Answer, Failure> {
    if sink.is_some() && of != Of::DeadLetters {
        let message = "\"sink\" goes with \"of\":\"dead_letters\"; for outcomes it is a member of \"filter\"";
        return Err(Code::InvalidRequest.because(message).into());
    }
    let (after, mut count) = (after.as_deref(), 0);
    let next = match of {
        Of::InFlight => {
            filter.check(About::InFlight)?;
            let found = in_flight(services, &filter, after, SCAN).await?;
            count = with_status(services, &filter, &found).await?.len() as u64;
            found.next
        }
        Of::Outcomes => {
            filter.check(About::Outcomes)?;
            let one_more = |_, _: &Position| {
                count += 1;
                Ok(true)
            };
            each_outcome(services, &filter, after, one_more).await?
        }
        Of::DeadLetters => {
            let one_more = |_, _: &str| {
                count += 1;
                Ok(true)
            };
            let wanted = Letters { sink, filter, ..Letters::default() };
            each_letter(services, &wanted, after, MAX_PAGE, one_more).await?
        }
    };
    Ok(Answer { count, next })
}
