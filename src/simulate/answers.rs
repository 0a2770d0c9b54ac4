//! Builds the bodies of answers: delivery arrays, and errors in both of the vendor's formats.
//!
//! Knows the wire format. Must not know lives or faults.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde_json::json;

use super::life::{FinalForm, Reported};

/// The description that the simulated API gives for an undocumented status.
const UNDOCUMENTED_DESCRIPTION: &str = "Message read by the recipient";

/// Returns these deliveries as a JSON array.
pub fn array(deliveries: impl Iterator<Item = Reported>) -> Bytes {
    let objects: Vec<String> = deliveries.map(object).collect();
    format!("[{}]", objects.join(",")).into()
}

/// Returns a delivery as JSON, with its fields in the order of the vendor's example.
fn object(reported: Reported) -> String {
    let status = reported.status.status();
    let is_final = reported.status.is_final();
    let final_status = match reported.form {
        FinalForm::Bool => format!(r#","finalStatus":{is_final}"#),
        FinalForm::Text => format!(r#","finalStatus":"{is_final}""#),
        FinalForm::Absent => String::new(),
    };
    let status_text = json!(status.as_str());
    let description = json!(status.description().unwrap_or(UNDOCUMENTED_DESCRIPTION));
    format!(r#"{{"status":{status_text},"description":{description}{final_status}}}"#)
}

/// Makes a 200 response with this JSON.
pub fn json(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Makes an error response as the vendor words it: 429 in the newer flat format, all others in the older nested
/// format.
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

/// Makes a 429 response with this `Retry-After`.
pub fn throttled(retry_after: HeaderValue) -> Response<Body> {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "Too many requests.");
    response.headers_mut().insert(RETRY_AFTER, retry_after);
    response
}

#[cfg(test)]
mod tests {
    use super::super::life::Known;
    use super::*;
    use crate::outcome::{CallStatus, SmsStatus};

    fn text(reported: &[Reported]) -> String {
        String::from_utf8(array(reported.iter().copied()).to_vec()).unwrap()
    }

    fn reported(status: Known, form: FinalForm) -> Reported {
        Reported { status, form }
    }

    #[test]
    fn arrays_of_zero_one_and_three_deliveries_have_the_documented_form() {
        let delivered = reported(Known::Sms(SmsStatus::Delivered), FinalForm::Bool);
        let waiting = reported(Known::Sms(SmsStatus::WaitingDelivery), FinalForm::Text);
        let call = reported(Known::Call(CallStatus::Undefined), FinalForm::Absent);
        let one =
            r#"{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}"#;
        let two = r#"{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":"false"}"#;
        let three = r#"{"status":"UNDEFINED","description":"Request is undefined."}"#;
        assert_eq!(text(&[]), "[]");
        assert_eq!(text(&[delivered]), format!("[{one}]"));
        assert_eq!(text(&[delivered, waiting, call]), format!("[{one},{two},{three}]"));
    }
}
