//! Every status that the vendor documents, and one that it doesn't.

use serde_json::{Value, json};

use crate::support::{Place, Simulated};

/// The vendor's tables: status, description, final, delivered.
const SMS: [(&str, &str, bool, Option<bool>); 14] = [
    ("MESSAGE_ACCEPTED", "Message accepted", true, None),
    ("MESSAGE_NOT_SENT", "Message not sent", false, Some(false)),
    ("MESSAGE_NOT_DELIVERED", "Message sent, not delivered", true, Some(false)),
    ("MESSAGE_WAITING_DELIVERY", "Message sent, waiting for delivery", false, None),
    ("MESSAGE_DELIVERED", "Message sent and delivered", true, Some(true)),
    ("MESSAGE_NETWORK_NOT_ALLOWED", "Message not sent, network not allowed", true, Some(false)),
    ("MESSAGE_NETWORK_NOT_AVAILABLE", "Message not sent, bulk or gateway offline", true, Some(false)),
    (
        "MESSAGE_INVALID_DESTINATION_ADDRESS",
        "Message not sent, invalid destination address",
        true,
        Some(false),
    ),
    ("MESSAGE_DELIVERY_UNKNOWN", "Message delivery unknown", true, None),
    ("INVALID_SOURCE_ADDRESS", "Message not sent, invalid source address", true, Some(false)),
    ("NOT_ENOUGH_CREDITS", "Message not sent, not enough credits", true, Some(false)),
    ("MESSAGE_REJECTED", "Message rejected", true, Some(false)),
    ("MESSAGE_EXPIRED", "Message expired", true, Some(false)),
    ("SYSTEM_ERROR", "System error", true, Some(false)),
];
const CALLS: [(&str, bool, Option<bool>); 11] = [
    ("BAD_REQUEST", true, Some(false)),
    ("PROCESSING", false, None),
    ("PROCESSED", true, Some(true)),
    ("ANSWERED_MACHINE", true, Some(true)),
    ("ERROR", true, Some(false)),
    ("ERROR_NOT_ENOUGH_CREDITS", true, Some(false)),
    ("ERROR_NETWORK_NOT_AVAILABLE", true, Some(false)),
    ("ERROR_ROUTE_NOT_AVAILABLE", true, Some(false)),
    ("ERROR_USER_BUSY", true, Some(false)),
    ("ERROR_NO_ANSWER", true, Some(false)),
    ("UNDEFINED", false, None),
];

#[test]
fn each_of_the_25_documented_statuses_is_reported_and_ends_a_pin_if_it_is_final() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let sms =
        SMS.iter().map(|(status, text, is_final, delivered)| (*status, Some(*text), *is_final, *delivered));
    let calls = CALLS.iter().map(|(status, is_final, delivered)| (*status, None, *is_final, *delivered));
    let rows: Vec<_> = sms.chain(calls).collect();
    for (status, ..) in &rows {
        let request = json!({"op": "submit", "pinId": format!("sim-{status}-1"), "deadline": "2s"});
        assert_eq!(client.op(&request)["state"], "accepted");
    }
    for (status, description, is_final, delivered) in rows {
        let outcome = client.outcome(&format!("sim-{status}-1"));
        assert_eq!(outcome["outcome"], if is_final { "final" } else { "deadline" }, "{outcome}");
        assert_eq!(outcome["status"], status);
        assert_eq!(outcome["delivered"], json!(delivered.filter(|_| is_final)), "{status}");
        if let Some(description) = description {
            assert_eq!(outcome["description"], description);
        }
        let deliveries =
            json!([{"status": status, "description": outcome["description"], "finalStatus": is_final}]);
        assert_eq!(outcome["deliveries"], deliveries);
    }
}

#[test]
fn an_undocumented_status_is_kept_unchanged() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-unknown-1");
    let outcome = client.outcome("sim-unknown-1");
    assert_eq!((&outcome["outcome"], &outcome["status"]), (&json!("final"), &json!("MESSAGE_READ")));
    assert_eq!(outcome["delivered"], Value::Null);
}
