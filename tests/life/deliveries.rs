//! PINs with several deliveries: which ones must be final, and which one decides.

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Mock, Place, delivery, until_true};

fn answer(deliveries: &[Value]) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(deliveries)
}

#[test]
fn by_default_a_pin_is_final_when_all_its_deliveries_are() {
    let api = Mock::start();
    let expired = delivery("MESSAGE_EXPIRED", true);
    api.answers_all(answer(&[expired.clone(), delivery("PROCESSING", false)]));
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("A");
    until_true("many polls", || api.requests() > 10);
    let shown = client.op(&json!({"op": "show", "pinId": "A"}));
    assert_eq!(
        (&shown["pin"]["state"], &shown["pin"]["lastStatus"]),
        (&json!("in_flight"), &json!("PROCESSING"))
    );

    let both = [expired, delivery("PROCESSED", true)];
    api.answers_all(answer(&both));
    let outcome = client.outcome("A");
    assert_eq!((&outcome["outcome"], &outcome["status"]), (&json!("final"), &json!("PROCESSED")));
    assert_eq!((&outcome["delivered"], &outcome["description"]), (&json!(true), &json!("about PROCESSED")));
    assert_eq!(outcome["deliveries"], json!(both));
}

#[test]
fn with_any_a_pin_is_final_when_one_of_its_deliveries_is() {
    let api = Mock::start();
    let mixed = [
        delivery("MESSAGE_WAITING_DELIVERY", false),
        delivery("MESSAGE_EXPIRED", true),
        delivery("PROCESSING", false),
    ];
    api.answers("MIXED", answer(&mixed));
    api.answers(
        "OPEN",
        answer(&[delivery("MESSAGE_WAITING_DELIVERY", false), delivery("PROCESSING", false)]),
    );
    let daemon = Place::new(&api.base_url()).set("schedule.completion", "any").start();
    let mut client = daemon.client();
    client.submit("OPEN");
    client.submit("MIXED");
    let outcome = client.outcome("MIXED");
    assert_eq!((&outcome["outcome"], &outcome["polls"]), (&json!("final"), &json!(1)));
    // One of the final deliveries decides.
    assert_eq!((&outcome["status"], &outcome["delivered"]), (&json!("MESSAGE_EXPIRED"), &json!(false)));
    assert_eq!(outcome["deliveries"], json!(mixed));
    assert_eq!(client.op(&json!({"op": "show", "pinId": "OPEN"}))["pin"]["state"], "in_flight");
}

#[test]
fn delivered_decides_before_accepted_before_unknown_before_failed() {
    let api = Mock::start();
    let of_all =
        |statuses: &[&str]| answer(&statuses.iter().map(|status| delivery(status, true)).collect::<Vec<_>>());
    let rows: [(&[&str], &str, Value); 5] = [
        (&["MESSAGE_DELIVERED", "MESSAGE_ACCEPTED", "ERROR"], "MESSAGE_DELIVERED", json!(true)),
        (
            &["MESSAGE_EXPIRED", "MESSAGE_DELIVERY_UNKNOWN", "MESSAGE_ACCEPTED"],
            "MESSAGE_ACCEPTED",
            Value::Null,
        ),
        (&["MESSAGE_DELIVERY_UNKNOWN", "MESSAGE_EXPIRED"], "MESSAGE_DELIVERY_UNKNOWN", Value::Null),
        (&["MESSAGE_EXPIRED", "ERROR_USER_BUSY"], "ERROR_USER_BUSY", json!(false)),
        (&["ERROR_USER_BUSY", "ANSWERED_MACHINE", "MESSAGE_EXPIRED"], "ANSWERED_MACHINE", json!(true)),
    ];
    for (n, (statuses, ..)) in rows.iter().enumerate() {
        api.answers(&format!("PIN-{n}"), of_all(statuses));
    }
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    for (n, (_, status, delivered)) in rows.iter().enumerate() {
        client.submit(&format!("PIN-{n}"));
        let outcome = client.outcome(&format!("PIN-{n}"));
        assert_eq!((&outcome["status"], &outcome["delivered"]), (&json!(status), delivered), "{outcome}");
    }
}

#[test]
fn final_status_counts_in_every_form_and_the_table_decides_without_it() {
    let api = Mock::start();
    let rows = [
        ("TEXT", r#"[{"status":"MESSAGE_DELIVERED","finalStatus":"True"}]"#, "final"),
        ("OBJECT", r#"{"status":"MESSAGE_DELIVERED","finalStatus":true,"price":{"n":1}}"#, "final"),
        ("ABSENT", r#"[{"status":"ERROR_NO_ANSWER"}]"#, "final"),
        ("NULL", r#"[{"status":"MESSAGE_REJECTED","finalStatus":null}]"#, "final"),
        ("NEWER", r#"[{"status":"MESSAGE_TELEPORTED","finalStatus":true}]"#, "final"),
        ("AGAINST", r#"[{"status":"MESSAGE_DELIVERED","finalStatus":"false"}]"#, "deadline"),
        ("OPEN", r#"[{"status":"UNDEFINED"}]"#, "deadline"),
        ("UNSURE", r#"[{"status":"MESSAGE_TELEPORTED"}]"#, "deadline"),
        ("HALF", r#"[{"status":"MESSAGE_DELIVERED","finalStatus":true},{"status":"#, "deadline"),
    ];
    for (pin, body, _) in rows {
        api.answers(pin, ResponseTemplate::new(200).set_body_raw(body, "application/json"));
    }
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    for (pin, ..) in rows {
        client.op(&json!({"op": "submit", "pinId": pin, "deadline": "2s"}));
    }
    for (pin, _, ending) in rows {
        assert_eq!(client.outcome(pin)["outcome"], ending, "{pin}");
    }
}
