//! The outcome: how a PIN ended, and the record of it that every sink gets.
//!
//! Promises one JSON shape, the same in every sink. Pure data: knows nothing of polls, stores or sinks.

mod status;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use status::{CallStatus, SmsStatus, Status, Weight};

use crate::pin::PinId;

/// One SMS or call of a PIN, as the API last told it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    pub status: Status,
    /// What the API said; where it said nothing, the vendor's table.
    pub description: Option<Arc<str>>,
    /// The answer's `finalStatus`; where it is absent, the vendor's table.
    pub final_status: bool,
}

/// The deliveries of one answer, shared between the PINs that got the same.
pub type Deliveries = Arc<[Delivery]>;

/// Why a PIN ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All that `schedule.completion` asks for is final.
    Final,
    /// Still not final when its time was up.
    Deadline,
    /// The API did not know it, past `schedule.not_found_grace`.
    NotFound,
    /// The API refused this PIN.
    Rejected,
    /// The submitter withdrew it.
    Cancelled,
}

impl Ending {
    /// Every ending, in the order of the contract.
    pub const ALL: [Self; 5] = [Self::Final, Self::Deadline, Self::NotFound, Self::Rejected, Self::Cancelled];

    /// Its name in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Deadline => "deadline",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the schedule knows of a PIN's end. The store adds what it alone has: `seq`, `id`, and what the
/// submitter gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub pin: PinId,
    pub ending: Ending,
    /// The last answer's deliveries; none if no answer ever had any.
    pub deliveries: Option<Deliveries>,
    /// What the API said when it refused the PIN.
    pub error: Option<String>,
    /// Polls by this process.
    pub polls: u32,
    pub finished_at: Timestamp,
}

/// What the submitter gave, as the store kept it.
#[derive(Debug, Clone)]
pub struct Submission {
    pub reference: Option<String>,
    /// JSON, as it was submitted.
    pub metadata: Option<Box<RawValue>>,
    pub submitted_at: Timestamp,
}

/// The delivery that decides a PIN: delivered before accepted before unknown before pending before failed;
/// among equals the last, which is the newest.
///
/// Only final deliveries can decide an ending by `final`; at every other ending all that were seen can.
pub fn deciding(deliveries: &[Delivery], ending: Ending) -> Option<&Delivery> {
    deliveries
        .iter()
        .filter(|delivery| delivery.final_status || ending != Ending::Final)
        .max_by_key(|delivery| delivery.status.weight())
}

/// The outcome as one line of JSON, without the newline: the shape fixed in the contract.
pub fn record(seq: i64, id: Uuid, verdict: &Verdict, submission: &Submission) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Record<'a> {
        seq: i64,
        id: Uuid,
        pin_id: &'a PinId,
        outcome: Ending,
        status: Option<&'a Status>,
        description: Option<&'a str>,
        delivered: Option<bool>,
        deliveries: &'a [Delivery],
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a RawValue>,
        submitted_at: String,
        finished_at: String,
        polls: u32,
    }

    let deliveries: &[Delivery] = verdict.deliveries.as_deref().unwrap_or_default();
    let decider = deciding(deliveries, verdict.ending);
    serde_json::to_string(&Record {
        seq,
        id,
        pin_id: &verdict.pin,
        outcome: verdict.ending,
        status: decider.map(|delivery| &delivery.status),
        description: decider.and_then(|delivery| delivery.description.as_deref()),
        // What is not final can still change.
        delivered: decider
            .filter(|delivery| delivery.final_status)
            .and_then(|delivery| delivery.status.delivered()),
        deliveries,
        error: verdict.error.as_deref(),
        reference: submission.reference.as_deref(),
        metadata: submission.metadata.as_deref(),
        submitted_at: rfc3339(submission.submitted_at),
        finished_at: rfc3339(verdict.finished_at),
        polls: verdict.polls,
    })
    .expect("a struct of strings, numbers and checked JSON always serializes")
}

/// A time as the contract writes it: RFC 3339, UTC, milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(status: &str, final_status: bool) -> Delivery {
        let status = Status::from_wire(status);
        let description = status.description().map(Into::into);
        Delivery { status, description, final_status }
    }

    fn verdict(ending: Ending, deliveries: &[Delivery]) -> Verdict {
        Verdict {
            pin: "9C81".parse().unwrap(),
            ending,
            deliveries: (!deliveries.is_empty()).then(|| deliveries.into()),
            error: None,
            polls: 4,
            finished_at: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
        }
    }

    fn submission() -> Submission {
        Submission { reference: None, metadata: None, submitted_at: "2026-01-02T03:04:05Z".parse().unwrap() }
    }

    fn decided(ending: Ending, deliveries: &[Delivery]) -> serde_json::Value {
        let line = record(1, Uuid::nil(), &verdict(ending, deliveries), &submission());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        serde_json::json!([value["status"], value["delivered"]])
    }

    #[test]
    fn the_record_is_the_one_of_the_contract() {
        let submission = Submission {
            reference: Some("order-42".into()),
            metadata: Some(RawValue::from_string(r#"{"b":1,"a":[1.50]}"#.into()).unwrap()),
            ..submission()
        };
        let verdict = verdict(Ending::Final, &[delivery("MESSAGE_DELIVERED", true)]);
        assert_eq!(
            record(42, Uuid::nil(), &verdict, &submission),
            r#"{"seq":42,"id":"00000000-0000-0000-0000-000000000000","pinId":"9C81","outcome":"final","status":"MESSAGE_DELIVERED","description":"Message sent and delivered","delivered":true,"deliveries":[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}],"reference":"order-42","metadata":{"b":1,"a":[1.50]},"submittedAt":"2026-01-02T03:04:05.000Z","finishedAt":"2026-01-02T03:04:05.678Z","polls":4}"#
        );
    }

    #[test]
    fn delivered_decides_before_accepted_before_unknown_before_failed() {
        let failed = delivery("MESSAGE_EXPIRED", true);
        let unknown = delivery("MESSAGE_DELIVERY_UNKNOWN", true);
        let accepted = delivery("MESSAGE_ACCEPTED", true);
        let delivered = delivery("ANSWERED_MACHINE", true);
        let mut all = vec![delivered, accepted, unknown, failed];
        for expected in [
            serde_json::json!(["ANSWERED_MACHINE", true]),
            serde_json::json!(["MESSAGE_ACCEPTED", null]),
            serde_json::json!(["MESSAGE_DELIVERY_UNKNOWN", null]),
            serde_json::json!(["MESSAGE_EXPIRED", false]),
        ] {
            assert_eq!(decided(Ending::Final, &all), expected);
            all.remove(0);
        }
    }

    #[test]
    fn what_is_not_final_decides_only_when_the_time_is_up() {
        let resent = [delivery("MESSAGE_EXPIRED", true), delivery("MESSAGE_WAITING_DELIVERY", false)];
        assert_eq!(decided(Ending::Final, &resent), serde_json::json!(["MESSAGE_EXPIRED", false]));
        assert_eq!(decided(Ending::Deadline, &resent), serde_json::json!(["MESSAGE_WAITING_DELIVERY", null]));
        assert_eq!(decided(Ending::Deadline, &[]), serde_json::json!([null, null]));
    }
}
