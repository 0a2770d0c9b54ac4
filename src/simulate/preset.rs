//! The APIs that the simulator can stand in for: the path, the authentication and the answers of each, as the vendor documents
//! them.
//!
//! Written from the vendors' pages, not from `config/presets`: a mistake there must not be repeated here. Must not know lives,
//! except for what they report.

use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::answers;
use super::life::{Known, Reported};
use crate::outcome::Weight;

/// An API, by the name of its preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    #[value(name = "infobip-2fa-pin")]
    Infobip2faPin,
    InfobipSmsLogs,
    TwilioMessage,
    VonageVerify,
    SinchVerification,
}

/// What a vendor's status says, for vendors that have fewer statuses than a life.
enum Stage {
    Waiting,
    Delivered,
    Failed,
    /// It will not change, and nobody knows whether the message was delivered.
    Unknown,
    /// A status that the vendor does not document.
    Undocumented(String),
}

impl Preset {
    /// The name of the preset.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The path of a request, with `{pinId}` once, and with `{username}` if it contains the user name.
    pub fn path(self) -> &'static str {
        match self {
            Self::Infobip2faPin => "/2fa/1/pin/{pinId}/status",
            Self::InfobipSmsLogs => "/sms/3/logs?messageId={pinId}",
            Self::TwilioMessage => "/2010-04-01/Accounts/{username}/Messages/{pinId}.json",
            Self::VonageVerify => "/verify/search/json?request_id={pinId}",
            Self::SinchVerification => "/verification/v1/verifications/id/{pinId}",
        }
    }

    /// Whether the API takes a user name and a password, and no key.
    pub fn is_basic(self) -> bool {
        !matches!(self, Self::Infobip2faPin | Self::InfobipSmsLogs)
    }

    /// The body of the answer for a PIN with these deliveries. APIs that report one message report the last.
    pub fn body(self, pin: &str, deliveries: impl Iterator<Item = Reported>) -> Bytes {
        if self == Self::Infobip2faPin {
            return answers::array(deliveries);
        }
        let last = deliveries.last().map(|reported| stage(reported.status));
        let body = match self {
            Self::Infobip2faPin | Self::InfobipSmsLogs => sms_logs(pin, last),
            Self::TwilioMessage => twilio(pin, last.unwrap_or(Stage::Waiting)),
            Self::VonageVerify => vonage(pin, last.unwrap_or(Stage::Waiting)),
            Self::SinchVerification => sinch(pin, last.unwrap_or(Stage::Waiting)),
        };
        body.to_string().into()
    }
}

fn stage(status: Known) -> Stage {
    let status = match status {
        Known::Undocumented => return Stage::Undocumented(status.status().to_string()),
        known => known.status(),
    };
    match status.weight() {
        Weight::Delivered => Stage::Delivered,
        Weight::Failed => Stage::Failed,
        _ if status.is_final_by_table() => Stage::Unknown,
        _ => Stage::Waiting,
    }
}

/// `GET /sms/3/logs`
fn sms_logs(pin: &str, stage: Option<Stage>) -> Value {
    let Some(stage) = stage else { return json!({"results": []}) };
    let (group_id, group, id, name, description) = match &stage {
        Stage::Waiting => (1, "PENDING", 7, "PENDING_ENROUTE", "Message sent to next instance"),
        Stage::Delivered => (3, "DELIVERED", 5, "DELIVERED_TO_HANDSET", "Message delivered to handset"),
        Stage::Failed => (2, "UNDELIVERABLE", 9, "UNDELIVERABLE_NOT_DELIVERED", "Message sent not delivered"),
        Stage::Unknown => (4, "EXPIRED", 29, "EXPIRED_DLR_UNKNOWN", "Message expired, delivery unknown"),
        Stage::Undocumented(status) => (3, "DELIVERED", 999, &**status, "Message read by the recipient"),
    };
    json!({"results": [{
        "bulkId": "06479ba3-5977-47f6-9346-fee0369bc76b",
        "messageId": pin,
        "to": "41793026727",
        "sentAt": "2026-02-23T17:40:31.773+0100",
        "messageCount": 1,
        "price": {"pricePerMessage": 0.01, "currency": "EUR"},
        "status": {"groupId": group_id, "groupName": group, "id": id, "name": name, "description": description},
        "error": {"groupId": 0, "groupName": "OK", "id": 0, "name": "NO_ERROR", "description": "No Error", "permanent": false},
    }]})
}

/// `GET /2010-04-01/Accounts/{AccountSid}/Messages/{Sid}.json`
fn twilio(pin: &str, stage: Stage) -> Value {
    let (status, code, message) = match stage {
        Stage::Waiting => ("sent".to_owned(), Value::Null, Value::Null),
        // Twilio has no status for a delivery that nobody knows of.
        Stage::Delivered | Stage::Unknown => ("delivered".to_owned(), Value::Null, Value::Null),
        Stage::Failed => ("undelivered".to_owned(), json!(30003), json!("Unreachable destination handset")),
        Stage::Undocumented(status) => (status, Value::Null, Value::Null),
    };
    json!({
        "account_sid": "demo",
        "api_version": "2010-04-01",
        "body": "Your code is 1234",
        "direction": "outbound-api",
        "error_code": code,
        "error_message": message,
        "num_segments": "1",
        "sid": pin,
        "status": status,
        "to": "+15558675310",
    })
}

/// `GET /verify/search/json`
fn vonage(pin: &str, stage: Stage) -> Value {
    let status = match stage {
        Stage::Waiting => "IN PROGRESS".to_owned(),
        Stage::Delivered => "SUCCESS".to_owned(),
        Stage::Failed => "EXPIRED".to_owned(),
        Stage::Unknown => "CANCELLED".to_owned(),
        Stage::Undocumented(status) => status,
    };
    json!({
        "request_id": pin,
        "account_id": "abcdef01",
        "status": status,
        "number": "447700900000",
        "price": "0.10000000",
        "currency": "EUR",
        "sender_id": "mySenderId",
        "date_submitted": "2026-01-01 12:00:00",
        "checks": [],
        "events": [{"type": "sms", "id": "0A00000012345678"}],
    })
}

/// `GET /verification/v1/verifications/id/{id}`
fn sinch(pin: &str, stage: Stage) -> Value {
    let (status, reason) = match stage {
        Stage::Waiting => ("PENDING".to_owned(), None),
        Stage::Delivered => ("SUCCESSFUL".to_owned(), None),
        Stage::Failed => ("FAIL".to_owned(), Some("Expired")),
        Stage::Unknown => ("ERROR".to_owned(), Some("Network error or number unreachable")),
        Stage::Undocumented(status) => (status, None),
    };
    let mut body = json!({"id": pin, "method": "sms", "status": status, "identity": {"type": "number", "endpoint": "+46700000000"}});
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;

    #[test]
    fn every_preset_of_the_configuration_can_be_simulated() {
        let simulated: Vec<_> = Preset::value_variants().iter().map(|preset| preset.name()).collect();
        assert_eq!(simulated, PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>());
    }
}
