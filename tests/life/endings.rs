//! The five endings, and that nothing else ends a PIN.

use std::time::Duration;

use pinwatch::simulate::{LifeSettings, Settings};
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Mock, Place, Simulated, delivery, until, until_true};

#[test]
fn a_pin_ends_when_it_is_final_and_is_polled_no_more() {
    let api = Mock::start();
    let done = ResponseTemplate::new(200).set_body_json([delivery("MESSAGE_DELIVERED", true)]);
    let open = ResponseTemplate::new(200).set_body_json([delivery("MESSAGE_WAITING_DELIVERY", false)]);
    api.answers("DONE", done);
    api.answers("OPEN", open);
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("DONE");
    let outcome = client.outcome("DONE");
    assert_eq!((&outcome["outcome"], &outcome["polls"]), (&json!("final"), &json!(1)));
    // Another PIN is still polled meanwhile.
    client.submit("OPEN");
    until_true("many polls", || api.requests_for("OPEN") > 20);
    assert_eq!(api.requests_for("DONE"), 1);
    client.op(&json!({"op": "cancel", "pinId": "OPEN"}));
    let polls = api.requests_for("OPEN");
    client.submit("sim-as-a-clock");
    until_true("many polls", || api.requests_for("sim-as-a-clock") > 10);
    assert!(api.requests_for("OPEN") <= polls + 1, "one may have been under way");
}

#[test]
fn a_pin_that_is_not_final_at_its_deadline_ends_with_its_last_deliveries() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let seen = json!([{
        "status": "MESSAGE_WAITING_DELIVERY",
        "description": "Message sent, waiting for delivery",
        "finalStatus": false,
    }]);
    for (pin, status, delivered, deliveries) in [
        ("sim-waiting-1", json!("MESSAGE_WAITING_DELIVERY"), Value::Null, seen),
        ("sim-none-1", Value::Null, Value::Null, json!([])),
        ("sim-503-1", Value::Null, Value::Null, json!([])),
        ("sim-malformed-1", Value::Null, Value::Null, json!([])),
        ("sim-404-1", Value::Null, Value::Null, json!([])),
    ] {
        client.op(&json!({"op": "submit", "pinId": pin, "deadline": "700ms"}));
        let outcome = client.outcome(pin);
        assert_eq!(outcome["outcome"], "deadline", "{outcome}");
        assert_eq!(outcome["status"], status, "{pin}");
        assert_eq!(outcome["delivered"], delivered, "{pin}");
        assert_eq!(outcome["deliveries"], deliveries, "{pin}");
        assert!(outcome["polls"].as_u64().unwrap() >= 1, "{outcome}");
        let time = |member: &str| outcome[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let lived = time("finishedAt").duration_since(time("submittedAt"));
        // The wall clock is not the one that was waited by.
        assert!(lived.as_millis() >= 650, "not before: {outcome}");
    }
}

#[test]
fn at_its_deadline_a_pin_is_polled_one_last_time() {
    let api = Simulated::start();
    // The deadline is long before the first interval is over.
    let daemon = Place::new(&api.base_url()).never_due().start();
    let mut client = daemon.client();
    client.op(&json!({"op": "submit", "pinId": "sim-delivered-1", "deadline": "300ms"}));
    client.op(&json!({"op": "submit", "pinId": "sim-waiting-1", "deadline": "300ms"}));
    let delivered = client.outcome("sim-delivered-1");
    assert_eq!((&delivered["outcome"], &delivered["polls"]), (&json!("final"), &json!(1)));
    let waiting = client.outcome("sim-waiting-1");
    assert_eq!((&waiting["outcome"], &waiting["polls"]), (&json!("deadline"), &json!(1)));
    assert_eq!(waiting["status"], "MESSAGE_WAITING_DELIVERY");
}

#[test]
fn the_deadline_of_the_configuration_is_for_pins_without_one() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).set("schedule.deadline", "500ms").start();
    let mut client = daemon.client();
    client.submit("sim-waiting-1");
    client.op(&json!({"op": "submit", "pinId": "sim-waiting-2", "deadline": "1h"}));
    assert_eq!(client.outcome("sim-waiting-1")["outcome"], "deadline");
    assert_eq!(client.op(&json!({"op": "show", "pinId": "sim-waiting-2"}))["pin"]["state"], "in_flight");
}

#[test]
fn a_404_ends_a_pin_only_after_the_grace() {
    let api = Simulated::with(Settings { known_after: Duration::from_millis(300), ..Settings::default() });
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    assert_eq!(client.outcome("sim-delivered-1")["outcome"], "final", "within the grace it may still come");
    assert!(api.counts().not_found > 0);

    let daemon = daemon.terminate().set("schedule.not_found_grace", "200ms").start();
    let mut client = daemon.client();
    client.submit("sim-404-1");
    let outcome = client.outcome("sim-404-1");
    assert_eq!(outcome["outcome"], "not_found");
    assert_eq!((&outcome["status"], &outcome["delivered"]), (&Value::Null, &Value::Null));
    assert!(outcome["polls"].as_u64().unwrap() >= 1, "{outcome}");
}

#[test]
fn a_pin_that_the_api_no_longer_knows_ends_with_its_last_deliveries() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(200).set_body_json([delivery("MESSAGE_NOT_SENT", false)]));
    let daemon = Place::new(&api.base_url()).set("schedule.not_found_grace", "200ms").start();
    let mut client = daemon.client();
    client.submit("A");
    until_true("a status", || {
        client.op(&json!({"op": "show", "pinId": "A"}))["pin"]["lastStatus"] == "MESSAGE_NOT_SENT"
    });
    api.answers_all(ResponseTemplate::new(404));
    let outcome = client.outcome("A");
    assert_eq!((&outcome["outcome"], &outcome["status"]), (&json!("not_found"), &json!("MESSAGE_NOT_SENT")));
    assert_eq!(outcome["deliveries"], json!([delivery("MESSAGE_NOT_SENT", false)]));
}

#[test]
fn a_pin_that_the_api_refuses_ends_with_the_apis_message() {
    let api = Mock::start();
    let said = json!({"requestError": {"serviceException": {
        "messageId": "BAD_REQUEST", "text": "The \"pinId\" is \u{1b}[31mno PIN's; é €",
    }}});
    api.answers("NESTED", ResponseTemplate::new(400).set_body_json(said));
    let said = json!({"errorCode": "E405", "description": "Gone for good", "action": "Stop."});
    api.answers("FLAT", ResponseTemplate::new(410).set_body_json(said));
    api.answers("HTML", ResponseTemplate::new(422).set_body_string("<html>no</html>"));
    let daemon = Place::new(&api.base_url()).set("schedule.not_found_grace", "200ms").start();
    let mut client = daemon.client();
    for (pin, error) in [
        ("NESTED", "400 Bad Request: BAD_REQUEST: The \"pinId\" is [31mno PIN's; é €"),
        ("FLAT", "410 Gone: E405: Gone for good"),
        ("HTML", "422 Unprocessable Entity"),
    ] {
        client.submit(pin);
        let outcome = client.outcome(pin);
        assert_eq!(outcome["outcome"], "rejected");
        assert_eq!(outcome["error"], error);
        assert!(outcome["polls"].as_u64() >= Some(3), "{outcome}");
        assert_eq!(outcome["polls"], json!(api.requests_for(pin)));
    }
}

#[test]
fn a_cancelled_pin_keeps_its_last_deliveries() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-waiting-1");
    until("a status", || {
        let shown = client.op(&json!({"op": "show", "pinId": "sim-waiting-1"}));
        (shown["pin"]["lastStatus"] == "MESSAGE_WAITING_DELIVERY").then_some(())
    });
    let outcome = client.op(&json!({"op": "cancel", "pinId": "sim-waiting-1"}))["outcome"].take();
    assert_eq!(
        (&outcome["outcome"], &outcome["status"]),
        (&json!("cancelled"), &json!("MESSAGE_WAITING_DELIVERY"))
    );
    assert_eq!(outcome["delivered"], Value::Null, "it may still arrive");
}

#[test]
fn every_pin_has_exactly_one_outcome_despite_any_faults_of_the_api() {
    // Not so many that most polls get no answer: then only probes would go out, which is another test's.
    let rates = [
        "500=0.05",
        "503=0.05",
        "408=0.03",
        "malformed=0.1",
        "html=0.05",
        "empty=0.05",
        "cut=0.05",
        "close=0.05",
        "stall=0.01",
    ];
    let faults = rates.iter().map(|rate| rate.parse().unwrap()).collect();
    let api = Simulated::with(Settings { faults, ..Settings::default() });
    let daemon = Place::new(&api.base_url()).set("api.timeout", "500ms").start();
    let mut client = daemon.client();
    let pins: Vec<String> = (0..200).map(|n| format!("sim-100ms-{n}")).collect();
    client.submit_all(&pins);
    let records = daemon.all_records(200);
    let mut ended: Vec<_> =
        records.iter().map(|record| record["pinId"].as_str().unwrap().to_owned()).collect();
    ended.sort();
    let mut expected = pins.clone();
    expected.sort();
    assert_eq!(ended, expected);
    for record in &records {
        assert_eq!((&record["outcome"], &record["status"]), (&json!("final"), &json!("MESSAGE_DELIVERED")));
    }
    let counts = api.counts();
    assert!(counts.server_errors > 0 && counts.spoiled > 0, "there were faults: {counts}");
}

#[test]
fn simulated_pins_end_once_each_with_the_simulated_outcome() {
    let life = LifeSettings {
        median: Duration::from_millis(200),
        sigma: 0.8,
        seed: 7,
        unknown_share: 0.05,
        ..LifeSettings::default()
    };
    let api = Simulated::with(Settings { life, ..Settings::default() });
    let daemon = Place::new(&api.base_url()).set("schedule.deadline", "5s").start();
    let mut client = daemon.client();
    let pins: Vec<String> = (0..500).map(|n| format!("{n:032X}")).collect();
    client.submit_all(&pins);
    let records = daemon.all_records(500);
    let ended: std::collections::HashSet<_> =
        records.iter().map(|record| record["pinId"].as_str().unwrap()).collect();
    assert_eq!(ended.len(), 500);
    for record in &records {
        let finals = record["deliveries"].as_array().unwrap().iter().all(|one| one["finalStatus"] == true);
        match record["outcome"].as_str().unwrap() {
            "final" => assert!(finals && record["status"].is_string(), "{record}"),
            "deadline" => assert!(!finals || record["deliveries"] == json!([]), "{record}"),
            _ => panic!("{record}"),
        }
    }
    until_true("it knows of none in flight", || client.stats()["inFlight"] == 0);
}
