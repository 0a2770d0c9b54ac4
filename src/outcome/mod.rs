//! The outcome: how a PIN ended, and the record of it that every sink gets.
//!
//! Promises one JSON shape, the same in every sink. Pure data: knows nothing of polls, stores or sinks.

mod record;
mod status;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use record::{Metadata, Record};
pub use status::{CallStatus, SmsStatus, Status, Weight};

use crate::clock::Dated;
use crate::pin::PinId;

/// One SMS or call of a PIN, as the API last reported it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    pub status: Status,
    /// The answer's description; if it has none, the one in the vendor's table.
    pub description: Option<Arc<str>>,
    /// The answer's `finalStatus`; if it has none, the value in the vendor's table.
    pub final_status: bool,
}

/// The deliveries of one answer. PINs with equal answers share them.
pub type Deliveries = Arc<[Delivery]>;

/// Why a PIN ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every delivery that `schedule.completion` requires is final.
    Final,
    /// The PIN reached its deadline without a final status.
    Deadline,
    /// The API did not know the PIN, and `schedule.not_found_grace` was over.
    NotFound,
    /// The API refused this PIN.
    Rejected,
    /// The submitter withdrew it.
    Cancelled,
}

impl Ending {
    /// Every ending, in the order of `docs/protocol.md`.
    pub const ALL: [Self; 5] = [Self::Final, Self::Deadline, Self::NotFound, Self::Rejected, Self::Cancelled];

    /// The ending's name in the record.
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

/// What the schedule knows about a PIN's end. The store adds `seq`, `id` and what the submitter sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub pin: PinId,
    pub ending: Ending,
    /// The deliveries of the last answer; none if no answer ever had any.
    pub deliveries: Option<Deliveries>,
    /// The API's error message, if it refused the PIN.
    pub error: Option<String>,
    /// How many polls this process made for the PIN.
    pub polls: u32,
    pub finished_at: Dated,
}

/// What the submitter sent, as the store keeps it.
#[derive(Debug, Clone)]
pub struct Submission {
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
    pub submitted_at: Timestamp,
    /// The name of the token it was submitted with; `None` if it came over the socket.
    pub submitter: Option<String>,
}

/// The delivery that decides a PIN. Delivered precedes accepted, then unknown, then pending, then failed; among equals
/// the last, which is the newest, decides.
///
/// With the ending `final` only final deliveries can decide; with every other ending any delivery can.
pub fn deciding(deliveries: &[Delivery], ending: Ending) -> Option<&Delivery> {
    deliveries
        .iter()
        .filter(|delivery| delivery.final_status || ending != Ending::Final)
        .max_by_key(|delivery| delivery.status.weight())
}

/// Whether the delivery that decides reached somebody; `None` if nobody can know. A status that is not final can still
/// change, so it counts as unknown.
fn delivered(decider: Option<&Delivery>) -> Option<bool> {
    decider.filter(|delivery| delivery.final_status).and_then(|delivery| delivery.status.delivered())
}

/// The most deliveries of one answer that are kept, in memory and in the record. Infobip sends one for each SMS or call
/// of a PIN, so only a few. The limit protects memory from a faulty API, because every PIN in flight keeps its
/// deliveries.
pub const MAX_KEPT: usize = 16;

/// The most bytes that the statuses and descriptions of the kept deliveries have together. The up to three deliveries
/// that decide are kept in any case.
pub const MAX_KEPT_TEXT: usize = 4096;

/// Reduces an answer's deliveries to [`MAX_KEPT`] and [`MAX_KEPT_TEXT`]. Keeps those that decide and the newest, in
/// their order: which one decides, and whether any or all are final, stays the same.
pub fn kept(mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let text = |delivery: &Delivery| {
        delivery.status.as_str().len() + delivery.description.as_ref().map_or(0, |text| text.len())
    };
    if deliveries.len() <= MAX_KEPT && deliveries.iter().map(text).sum::<usize>() <= MAX_KEPT_TEXT {
        return deliveries;
    }
    let newest_open = deliveries.iter().rposition(|delivery| !delivery.final_status);
    let deciders = [Ending::Final, Ending::Deadline].map(|ending| {
        let decider = deciding(&deliveries, ending)?;
        deliveries.iter().rposition(|delivery| std::ptr::eq(delivery, decider))
    });
    let mut keep: Vec<usize> = deciders.into_iter().chain([newest_open]).flatten().collect();
    keep.sort_unstable();
    keep.dedup();
    let mut bytes: usize = keep.iter().map(|at| text(&deliveries[*at])).sum();
    for (at, delivery) in deliveries.iter().enumerate().rev() {
        bytes += if keep.contains(&at) { 0 } else { text(delivery) };
        if keep.len() == MAX_KEPT || bytes > MAX_KEPT_TEXT {
            break;
        }
        if !keep.contains(&at) {
            keep.push(at);
        }
    }
    let mut at = 0..;
    deliveries.retain(|_| at.next().is_some_and(|at| keep.contains(&at)));
    deliveries.shrink_to_fit();
    deliveries
}

/// The record of an outcome, in the shape that `docs/protocol.md` fixes ("Outcome record").
pub fn record(seq: i64, id: Uuid, verdict: &Verdict, submission: &Submission) -> Record {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
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
        metadata: Option<&'a Metadata>,
        submitted_at: String,
        finished_at: String,
        polls: u32,
    }

    let deliveries: &[Delivery] = verdict.deliveries.as_deref().unwrap_or_default();
    let decider = deciding(deliveries, verdict.ending);
    let json = serde_json::to_string(&Shape {
        seq,
        id,
        pin_id: &verdict.pin,
        outcome: verdict.ending,
        status: decider.map(|delivery| &delivery.status),
        description: decider.and_then(|delivery| delivery.description.as_deref()),
        delivered: delivered(decider),
        deliveries,
        error: verdict.error.as_deref(),
        reference: submission.reference.as_deref(),
        metadata: submission.metadata.as_ref(),
        submitted_at: rfc3339(submission.submitted_at),
        finished_at: rfc3339(verdict.finished_at.wall),
        polls: verdict.polls,
    })
    .expect("a struct of strings, numbers and checked JSON always serializes");
    Record::from(json)
}

/// Formats a time as in records and answers: RFC 3339, UTC, milliseconds.
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
            finished_at: "2026-01-02T03:04:05.678901Z".parse::<Timestamp>().unwrap().into(),
        }
    }

    fn submission() -> Submission {
        Submission {
            reference: None,
            metadata: None,
            submitted_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            submitter: None,
        }
    }

    fn decided(ending: Ending, deliveries: &[Delivery]) -> serde_json::Value {
        let line = record(1, Uuid::nil(), &verdict(ending, deliveries), &submission());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        serde_json::json!([value["status"], value["delivered"]])
    }

    #[test]
    fn a_record_has_exactly_the_documented_form() {
        let submission = Submission {
            reference: Some("order-42".into()),
            metadata: serde_json::from_str("{ \"b\": 1,\r\n\"a\": [1.50], \"c\": \"\u{2028}\" }").unwrap(),
            ..submission()
        };
        let verdict = verdict(Ending::Final, &[delivery("MESSAGE_DELIVERED", true)]);
        assert_eq!(
            &*record(42, Uuid::nil(), &verdict, &submission),
            r#"{"seq":42,"id":"00000000-0000-0000-0000-000000000000","pinId":"9C81","outcome":"final","status":"MESSAGE_DELIVERED","description":"Message sent and delivered","delivered":true,"deliveries":[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}],"reference":"order-42","metadata":{"b":1,"a":[1.50],"c":"\u2028"},"submittedAt":"2026-01-02T03:04:05.000Z","finishedAt":"2026-01-02T03:04:05.678Z","polls":4}"#
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
    fn a_delivery_that_is_not_final_decides_only_at_the_deadline() {
        let resent = [delivery("MESSAGE_EXPIRED", true), delivery("MESSAGE_WAITING_DELIVERY", false)];
        assert_eq!(decided(Ending::Final, &resent), serde_json::json!(["MESSAGE_EXPIRED", false]));
        assert_eq!(decided(Ending::Deadline, &resent), serde_json::json!(["MESSAGE_WAITING_DELIVERY", null]));
        assert_eq!(decided(Ending::Deadline, &[]), serde_json::json!([null, null]));
    }

    #[test]
    fn a_pin_that_ends_with_a_status_in_progress_is_not_called_undelivered() {
        let not_sent = [delivery("MESSAGE_NOT_SENT", true)];
        assert_eq!(decided(Ending::Final, &not_sent), serde_json::json!(["MESSAGE_NOT_SENT", false]));
        for status in ["MESSAGE_WAITING_DELIVERY", "PROCESSING"] {
            let last = [delivery(status, true)];
            assert_eq!(decided(Ending::Final, &last), serde_json::json!([status, null]));
            assert_eq!(decided(Ending::Deadline, &last), serde_json::json!([status, null]));
        }
    }

    #[test]
    fn of_very_many_deliveries_the_deciding_and_the_newest_ones_are_kept() {
        let waiting = |n: usize| Delivery {
            description: Some(format!("about {n}").into()),
            ..delivery("MESSAGE_WAITING_DELIVERY", false)
        };
        let few: Vec<_> = (0..MAX_KEPT).map(waiting).collect();
        assert_eq!(kept(few.clone()), few);
        let mut many: Vec<_> = (0..256).map(waiting).collect();
        many[3] = delivery("MESSAGE_DELIVERED", true);
        let kept = kept(many.clone());
        assert_eq!((kept.len(), &kept[0]), (MAX_KEPT, &many[3]));
        assert_eq!(kept[1..], many[256 - MAX_KEPT + 1..]);
    }

    proptest::proptest! {
        #[test]
        fn the_kept_deliveries_are_bounded_and_decide_as_all_of_them_would(
            rows in proptest::collection::vec((0..8usize, proptest::bool::ANY, 0..600usize), 0..60),
        ) {
            let statuses = ["MESSAGE_DELIVERED", "MESSAGE_ACCEPTED", "UNDEFINED", "MESSAGE_TELEPORTED",
                "MESSAGE_WAITING_DELIVERY", "PROCESSING", "MESSAGE_EXPIRED", "SYSTEM_ERROR"];
            let all: Vec<Delivery> = rows.iter().enumerate().map(|(n, (status, is_final, length))| Delivery {
                // Makes each description unique.
                description: Some(format!("{n:0length$}").into()),
                ..delivery(statuses[*status], *is_final)
            }).collect();
            let kept = kept(all.clone());
            let is_final = |d: &Delivery| d.final_status;
            proptest::prop_assert_eq!(kept.iter().all(is_final), all.iter().all(is_final));
            proptest::prop_assert_eq!(kept.iter().any(is_final), all.iter().any(is_final));
            for ending in Ending::ALL {
                proptest::prop_assert_eq!(deciding(&kept, ending), deciding(&all, ending));
            }
            proptest::prop_assert_eq!(kept.last(), if kept.len() > 3 { all.last() } else { kept.last() });
            let mut order = all.iter();
            proptest::prop_assert!(kept.iter().all(|one| order.any(|other| one == other)));
            let bytes: usize = kept.iter().map(|d| d.status.as_str().len() + d.description.as_ref().map_or(0, |d| d.len())).sum();
            proptest::prop_assert!(kept.len() <= MAX_KEPT && (bytes <= MAX_KEPT_TEXT || kept.len() <= 3));
            proptest::prop_assert!(all.len() > MAX_KEPT || bytes > MAX_KEPT_TEXT / 2 || kept == all);
        }
    }
}
