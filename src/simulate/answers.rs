//! The bytes of the answers: delivery arrays, and errors in both of the vendor's shapes.
//!
//! What can be written beforehand is, so that an ordinary answer costs no allocation of its body. Knows the
//! wire format and nothing of lives or faults.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use super::life::{FinalForm, Known, Told};
use crate::outcome::{CallStatus, SmsStatus};

/// What the simulated API says of a status that isn't documented.
const UNDOCUMENTED_DESCRIPTION: &str = "Message read by the recipient";

const SMS: usize = SmsStatus::ALL.len();
const STATUSES: usize = SMS + CallStatus::ALL.len() + 1;
const FORMS: usize = 3;

/// Arrays of one delivery, for every status in every form.
pub struct Answers {
    single: Vec<Bytes>,
}

impl Answers {
    pub fn new() -> Self {
        let sms = SmsStatus::ALL.iter().copied().map(Known::Sms);
        let calls = CallStatus::ALL.iter().copied().map(Known::Call);
        let mut single = vec![Bytes::new(); STATUSES * FORMS];
        for status in sms.chain(calls).chain([Known::Undocumented]) {
            for form in [FinalForm::Bool, FinalForm::Text, FinalForm::Absent] {
                let told = Told { status, form };
                single[index(told)] = Bytes::from(format!("[{}]", object(told)));
            }
        }
        Self { single }
    }

    /// The array of these deliveries, as JSON.
    pub fn array(&self, mut told: impl Iterator<Item = Told>) -> Bytes {
        let Some(first) = told.next() else { return Bytes::from_static(b"[]") };
        let first = &self.single[index(first)];
        let Some(second) = told.next() else { return first.clone() };
        let mut all = BytesMut::with_capacity(first.len() * 3);
        all.put_slice(&first[..first.len() - 1]);
        for next in std::iter::once(second).chain(told) {
            let next = &self.single[index(next)];
            all.put_u8(b',');
            all.put_slice(&next[1..next.len() - 1]);
        }
        all.put_u8(b']');
        all.freeze()
    }
}

/// Its place among [`Answers::single`].
fn index(told: Told) -> usize {
    // The enums stand in the order of their `ALL`.
    let status = match told.status {
        Known::Sms(sms) => sms as usize,
        Known::Call(call) => SMS + call as usize,
        Known::Undocumented => STATUSES - 1,
    };
    status * FORMS + told.form as usize
}

/// A delivery, its fields in the order of the vendor's example.
fn object(told: Told) -> String {
    let status = told.status.status();
    let is_final = told.status.is_final();
    let final_status = match told.form {
        FinalForm::Bool => format!(r#","finalStatus":{is_final}"#),
        FinalForm::Text => format!(r#","finalStatus":"{is_final}""#),
        FinalForm::Absent => String::new(),
    };
    let status_text = json!(status.as_str());
    let description = json!(status.description().unwrap_or(UNDOCUMENTED_DESCRIPTION));
    format!(r#"{{"status":{status_text},"description":{description}{final_status}}}"#)
}

/// A 200 with this JSON.
pub fn json(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error as the vendor words it: 429 in the newer flat shape, all others in the older nested one.
pub fn error(status: StatusCode, text: &str) -> Response<Body> {
    let name = status.canonical_reason().unwrap_or("Error");
    let body = if status == StatusCode::TOO_MANY_REQUESTS {
        json!({
            "errorCode": "E429",
            "description": text,
            "action": "Adjust the rate of requests.",
            "violations": [],
            "resources": [],
        })
    } else {
        let id = match status {
            StatusCode::NOT_FOUND => "RESOURCE_NOT_FOUND".to_owned(),
            StatusCode::INTERNAL_SERVER_ERROR => "GENERAL_ERROR".to_owned(),
            _ => name.to_ascii_uppercase().replace(' ', "_"),
        };
        json!({"requestError": {"serviceException": {"messageId": id, "text": text}}})
    };
    let mut response = json(body.to_string());
    *response.status_mut() = status;
    response
}

/// A 429 that says when to come back.
pub fn throttled(retry_after: HeaderValue) -> Response<Body> {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "Too many requests.");
    response.headers_mut().insert(RETRY_AFTER, retry_after);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(told: &[Told]) -> String {
        String::from_utf8(Answers::new().array(told.iter().copied()).to_vec()).unwrap()
    }

    fn told(status: Known, form: FinalForm) -> Told {
        Told { status, form }
    }

    #[test]
    fn arrays_of_no_one_and_several_deliveries_are_those_of_the_reference() {
        let delivered = told(Known::Sms(SmsStatus::Delivered), FinalForm::Bool);
        let waiting = told(Known::Sms(SmsStatus::WaitingDelivery), FinalForm::Text);
        let call = told(Known::Call(CallStatus::Undefined), FinalForm::Absent);
        let one =
            r#"{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}"#;
        let two = r#"{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":"false"}"#;
        let three = r#"{"status":"UNDEFINED","description":"Request is undefined."}"#;
        assert_eq!(text(&[]), "[]");
        assert_eq!(text(&[delivered]), format!("[{one}]"));
        assert_eq!(text(&[delivered, waiting, call]), format!("[{one},{two},{three}]"));
    }

    #[test]
    fn every_status_in_every_form_is_in_its_own_place() {
        let answers = Answers::new();
        let distinct: std::collections::HashSet<_> = answers.single.iter().collect();
        assert_eq!(distinct.len(), STATUSES * FORMS);
        let is_json = |bytes: &Bytes| serde_json::from_slice::<Vec<serde_json::Value>>(bytes).is_ok();
        assert!(answers.single.iter().all(is_json));
    }
}
