//! The outcome that `pinwatch doctor --send-test` sends: no PIN has it, and no store.
//!
//! Promises a record like every outcome's, with `"test":true` before its fields. Must not know how it is sent.

use jiff::Timestamp;
use uuid::Uuid;

use crate::outcome::{Ending, Record, Submission, Verdict, record};
use crate::pin::{InvalidPinId, PinId};
use crate::store::Outcome;

/// A PIN ID that no account has.
const NOBODYS: &str = "pinwatch-test";

/// An outcome that says that it is a test. It is `cancelled`, which has the least consequences at a receiver that does not look
/// for the mark.
///
/// # Errors
/// Only by a bug: the PIN ID is valid.
pub fn outcome(now: Timestamp) -> Result<Outcome, InvalidPinId> {
    let pin: PinId = NOBODYS.parse()?;
    let verdict = Verdict {
        pin: pin.clone(),
        ending: Ending::Cancelled,
        deliveries: None,
        error: None,
        polls: 0,
        finished_at: now.into(),
    };
    let submission = Submission { reference: None, metadata: None, submitter: None, submitted_at: now };
    let record = record(0, Uuid::now_v7(), &verdict, &submission);
    Ok(Outcome { seq: 0, pin, record: Record::from(record.replacen('{', r#"{"test":true,"#, 1)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_delivery_is_a_record_that_is_marked_as_a_test() {
        let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let record = outcome(now).unwrap().record;
        let mut fields: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_ne!(
            fields["id"],
            serde_json::from_str::<serde_json::Value>(&outcome(now).unwrap().record).unwrap()["id"]
        );
        fields.as_object_mut().unwrap().shift_remove("id").unwrap();
        let expected = r#"{"test":true,"seq":0,"pinId":"pinwatch-test","outcome":"cancelled","status":null,"description":null,"delivered":null,"deliveries":[],"submittedAt":"2026-01-02T03:04:05.678Z","finishedAt":"2026-01-02T03:04:05.678Z","polls":0}"#;
        assert_eq!(fields.to_string(), expected);
    }
}
