//! Any answer, described in any way: the first line has up to five pointers and four lists of statuses, all with tabs between them; the
//! rest is the body. No panic; one short line where the answer can't be read; and a delivery is final, or delivered, only where a
//! reader that knows nothing of ours finds the flag or the status that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pinwatch::config::{Answer, Treatment};
use pinwatch::json_pointer::Pointer;
use pinwatch::outcome::MAX_KEPT;
use pinwatch::poll::{MAX_BODY, MAX_DESCRIPTION, MAX_STATUS, MAX_TEXT, Meaning};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

pub fn check(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (first, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let Ok(first) = str::from_utf8(first) else { return };
    let mut fields = first.split('\t');
    let Some(described) = described(&mut fields) else { return };
    let now = Timestamp::from_second(1_767_355_200).expect("a time of this century");
    for code in [StatusCode::OK, StatusCode::BAD_REQUEST] {
        match Meaning::of(Some(&described), code, &HeaderMap::new(), Ok(body), now) {
            Meaning::Deliveries(deliveries) => {
                assert!(body.len() <= MAX_BODY && deliveries.len() <= MAX_KEPT);
                for delivery in &deliveries {
                    let status = delivery.status.as_str();
                    assert!(
                        !status.is_empty()
                            && status.len() <= MAX_STATUS
                            && !status.contains(char::is_control)
                    );
                    let description = delivery.description.as_deref().unwrap_or_default();
                    assert!(
                        description.chars().count() <= MAX_DESCRIPTION + 1
                            && !description.contains(char::is_control)
                    );
                    let listed = described.statuses.get(status);
                    assert!(
                        !delivery.final_status
                            || listed.is_some_and(|found| found.is_final())
                            || has_flag(&described, body)
                    );
                    assert_eq!(
                        delivery.status.delivered() == Some(true),
                        listed == Some(&Treatment::Delivered)
                    );
                }
            }
            Meaning::Unreadable(text) | Meaning::Rejected(text) => {
                assert!(
                    !text.is_empty() && !text.contains(char::is_control) && text.chars().count() <= MAX_TEXT
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What the first line describes; `None` if a pointer is none.
fn described<'f>(fields: &mut impl Iterator<Item = &'f str>) -> Option<Answer> {
    let mut pointer = || fields.next().unwrap_or_default().parse::<Pointer>().ok();
    let (deliveries, id, status, description, is_final) =
        (pointer()?, pointer()?, pointer()?, pointer()?, pointer()?);
    let optional = |pointer: Pointer| Some(pointer).filter(|pointer| !pointer.as_str().is_empty());
    let treatments = [Treatment::Waiting, Treatment::Final, Treatment::Delivered, Treatment::Failed];
    let mut statuses = BTreeMap::new();
    for (list, treatment) in fields.zip(treatments) {
        statuses.extend(list.split(',').map(|status| (Arc::from(status), treatment)));
    }
    let (id, description, is_final) = (optional(id), optional(description), optional(is_final));
    Some(Answer { deliveries, id, status, description, is_final, statuses })
}

/// Whether any delivery has the flag, by serde_json's own pointers.
fn has_flag(described: &Answer, body: &[u8]) -> bool {
    let Some(is_final) = &described.is_final else { return false };
    // What serde_json can't hold (too deep) was read all the same; nothing is compared then.
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return true };
    let is_true = |delivery: &Value| {
        delivery.pointer(is_final.as_str()).is_some_and(|flag| {
            flag.as_bool()
                .unwrap_or_else(|| flag.as_str().is_some_and(|text| text.trim().eq_ignore_ascii_case("true")))
        })
    };
    match body.pointer(described.deliveries.as_str()) {
        Some(Value::Array(deliveries)) => deliveries.iter().any(is_true),
        Some(delivery) => is_true(delivery),
        None => false,
    }
}
