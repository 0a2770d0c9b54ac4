//! Every preset, with bodies modelled on its vendor's documented examples.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, PRESETS};
use crate::json_pointer::BYTES_READ;
use crate::outcome::{CallStatus, SmsStatus};

const PIN: &str = "3f9a0c6d";

/// `[api.answer]` of a preset, with these keys set.
fn described(preset: &str, sets: &[&str]) -> Answer {
    let name = format!("api.preset={preset}");
    let credentials: &[&str] =
        if preset.starts_with("infobip") { &["api.key=k"] } else { &["api.username=u", "api.password=p"] };
    // One key that is set makes the default preset's reader this one.
    let sets =
        [&[&*name, "api.answer.id="][..usize::from(preset == "infobip-2fa-pin") + 1], credentials, sets]
            .concat();
    Config::of_sets(&sets).unwrap().api.answer.unwrap()
}

fn read(by: &Answer, body: &Value) -> Result<Vec<(String, bool, Option<bool>)>, String> {
    let row =
        |d: Delivery| (d.status.to_string(), d.final_status, d.status.delivered().filter(|_| d.final_status));
    deliveries(by, body.to_string().as_bytes()).map(|deliveries| deliveries.into_iter().map(row).collect())
}

/// The only delivery's `(final, delivered)`.
fn only(by: &Answer, body: &Value) -> (bool, Option<bool>) {
    let read = read(by, body).unwrap();
    assert_eq!(read.len(), 1, "{read:?}");
    (read[0].1, read[0].2)
}

fn unreadable(by: &Answer, body: &Value) -> String {
    read(by, body).unwrap_err()
}

const WAITING: (bool, Option<bool>) = (false, None);
const DELIVERY_UNKNOWN: (bool, Option<bool>) = (true, None);
const DELIVERED: (bool, Option<bool>) = (true, Some(true));
const FAILED: (bool, Option<bool>) = (true, Some(false));

/// A preset's body for a status, and what each documented status means. docs/presets.md has the same tables.
type Documented = (&'static str, fn(&str) -> Value, &'static [(&'static str, (bool, Option<bool>))]);

const DOCUMENTED: [Documented; 4] = [
    (
        "infobip-sms-logs",
        sms_logs,
        &[
            ("PENDING_WAITING_DELIVERY", WAITING),
            ("PENDING_ENROUTE", WAITING),
            ("PENDING_ACCEPTED", WAITING),
            ("DELIVERED_TO_OPERATOR", WAITING),
            ("DELIVERED_TO_HANDSET", DELIVERED),
            ("EXPIRED_DLR_UNKNOWN", DELIVERY_UNKNOWN),
            ("EXPIRED_EXPIRED", FAILED),
            ("UNDELIVERABLE_REJECTED_OPERATOR", FAILED),
            ("UNDELIVERABLE_NOT_DELIVERED", FAILED),
            ("UNDELIVERABLE_NOT_SENT", FAILED),
            ("UNDELIVERABLE_REJECTED_PLATFORM", FAILED),
            ("NO_ANSWER", FAILED),
            ("BUSY", FAILED),
            ("CANCELLED", FAILED),
            ("SIGNALS_BLOCKED", FAILED),
            ("REJECTED", FAILED),
            ("REJECTED_NETWORK", FAILED),
            ("REJECTED_PREFIX_MISSING", FAILED),
            ("REJECTED_DND", FAILED),
            ("REJECTED_SOURCE", FAILED),
            ("REJECTED_NOT_ENOUGH_CREDITS", FAILED),
            ("REJECTED_SENDER", FAILED),
            ("REJECTED_DESTINATION_BLOCKLISTED", FAILED),
            ("REJECTED_PREPAID_PACKAGE_EXPIRED", FAILED),
            ("REJECTED_DESTINATION_NOT_REGISTERED", FAILED),
            ("REJECTED_ROUTE_NOT_AVAILABLE", FAILED),
            ("REJECTED_FLOODING_FILTER", FAILED),
            ("REJECTED_SYSTEM_ERROR", FAILED),
            ("REJECTED_DUPLICATE_MESSAGE_ID", FAILED),
            ("REJECTED_INVALID_UDH", FAILED),
            ("REJECTED_MESSAGE_TOO_LONG", FAILED),
            ("REJECTED_DESTINATION", FAILED),
            ("MISSING_TO", FAILED),
        ],
    ),
    (
        "twilio-message",
        twilio,
        &[
            ("accepted", WAITING),
            ("scheduled", WAITING),
            ("queued", WAITING),
            ("sending", WAITING),
            ("sent", WAITING),
            ("receiving", WAITING),
            ("partially_delivered", WAITING),
            ("received", DELIVERY_UNKNOWN),
            ("delivered", DELIVERED),
            ("read", DELIVERED),
            ("undelivered", FAILED),
            ("failed", FAILED),
            ("canceled", FAILED),
        ],
    ),
    (
        "vonage-verify",
        vonage,
        &[
            ("IN PROGRESS", WAITING),
            ("SUCCESS", DELIVERY_UNKNOWN),
            ("FAILED", DELIVERY_UNKNOWN),
            ("EXPIRED", DELIVERY_UNKNOWN),
            ("CANCELLED", DELIVERY_UNKNOWN),
        ],
    ),
    (
        "sinch-verification",
        sinch,
        &[
            ("PENDING", WAITING),
            ("SUCCESSFUL", DELIVERY_UNKNOWN),
            ("FAIL", DELIVERY_UNKNOWN),
            ("DENIED", DELIVERY_UNKNOWN),
            ("ABORTED", DELIVERY_UNKNOWN),
            ("ERROR", DELIVERY_UNKNOWN),
        ],
    ),
];

fn sms_logs(status: &str) -> Value {
    json!({"results": [{
        "bulkId": "06479ba3-5977-47f6-9346-fee0369bc76b", "messageId": PIN, "to": "41793026727",
        "sentAt": "2015-02-23T17:40:31.773+0100", "doneAt": "2015-02-23T17:40:31.787+0100",
        "price": {"pricePerMessage": 0.01, "currency": "EUR"},
        "status": {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": status, "description": "about it"},
        "error": {"groupId": 0, "groupName": "OK", "id": 0, "name": "NO_ERROR", "description": "No Error", "permanent": false}
    }]})
}

fn twilio(status: &str) -> Value {
    json!({"account_sid": "AC01", "api_version": "2010-04-01", "body": "Hi there", "direction": "outbound-api",
        "error_code": null, "error_message": null, "num_segments": "1", "price": null, "sid": PIN, "status": status})
}

fn vonage(status: &str) -> Value {
    json!({"request_id": PIN, "account_id": "abcdef01", "status": status, "number": "447700900000",
        "price": "0.10000000", "currency": "EUR", "sender_id": "mySenderId", "date_submitted": "2020-01-01 12:00:00",
        "checks": [{"date_received": "2020-01-01 12:00:00", "code": "987654", "status": "VALID", "ip_address": "123.0.0.255"}],
        "events": [{"type": "abc123"}]})
}

fn sinch(status: &str) -> Value {
    json!({"id": PIN, "method": "sms", "status": status, "reason": "Fraud", "reference": "12345", "source": "intercepted",
        "identity": {"type": "number", "endpoint": "+11235551234"}})
}

#[test]
fn every_documented_status_of_every_preset_has_its_documented_meaning() {
    for (preset, body, statuses) in DOCUMENTED {
        let by = described(preset, &[]);
        for (status, expected) in statuses {
            assert_eq!(only(&by, &body(status)), *expected, "{preset}: {status}");
        }
        let expected: Vec<_> = statuses.iter().map(|(status, _)| *status).collect();
        let unlisted: Vec<_> = by.statuses.keys().filter(|status| !expected.contains(&&***status)).collect();
        assert!(unlisted.is_empty(), "{preset} lists what no document has: {unlisted:?}");
        // Nothing is assumed of what the vendor may add.
        assert_eq!(only(&by, &body("TELEPORTED")), WAITING, "{preset}");
    }
    let tried: Vec<_> = DOCUMENTED.iter().map(|(preset, ..)| *preset).collect();
    assert_eq!(tried, PRESETS.iter().skip(1).map(|preset| preset.name).collect::<Vec<_>>());
}

#[test]
fn the_documents_table_of_statuses_is_that_of_the_presets() {
    let page = include_str!("../../docs/presets.md");
    for (preset, _, statuses) in DOCUMENTED {
        let (_, section) = page
            .split_once(&format!("### `{preset}`"))
            .unwrap_or_else(|| panic!("no section about {preset}"));
        let section = section.split("\n### ").next().unwrap();
        let rows: BTreeMap<String, &str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.rsplit_once(" | "))
            .flat_map(|(names, means)| {
                names.split(',').map(move |name| (name.trim_matches([' ', '`']).to_owned(), means))
            })
            .collect();
        for (status, means) in statuses {
            let means = match *means {
                WAITING => "not final",
                DELIVERED => "final, delivered",
                FAILED => "final, not delivered",
                _ => "final, `delivered` is null",
            };
            assert_eq!(rows.get(*status), Some(&means), "{preset}: {status}");
        }
        assert_eq!(rows.len(), statuses.len(), "{preset}");
    }
}

#[test]
fn the_file_of_the_default_preset_agrees_with_its_own_reader() {
    let by = described("infobip-2fa-pin", &[]);
    let names = SmsStatus::ALL
        .iter()
        .map(|status| status.wire())
        .chain(CallStatus::ALL.iter().map(|status| status.wire()));
    let names: Vec<&str> = names.collect();
    assert_eq!(by.statuses.len(), names.len());
    for name in names.into_iter().chain(["MESSAGE_TELEPORTED"]) {
        for rest in [
            "",
            r#","finalStatus":true"#,
            r#","finalStatus":"False""#,
            r#","finalStatus":null,"description":"x""#,
        ] {
            let body = format!(r#"[{{"status":"{name}"{rest}}}]"#);
            let (own, mapped) =
                (answer::deliveries(body.as_bytes()).unwrap(), deliveries(&by, body.as_bytes()).unwrap());
            assert_eq!(mapped[0].final_status, own[0].final_status, "{body}");
            if mapped[0].final_status && own[0].status.weight() != Weight::Pending {
                assert_eq!(mapped[0].status.delivered(), own[0].status.delivered(), "{body}");
            }
        }
    }
}

#[test]
fn several_deliveries_are_read_in_their_order() {
    let by = described("infobip-sms-logs", &[]);
    let mut body = sms_logs("PENDING_ENROUTE");
    let second = sms_logs("DELIVERED_TO_HANDSET")["results"][0].clone();
    body["results"].as_array_mut().unwrap().push(second);
    let rows = read(&by, &body).unwrap();
    assert_eq!(rows[0], ("PENDING_ENROUTE".to_owned(), false, None));
    assert_eq!(rows[1], ("DELIVERED_TO_HANDSET".to_owned(), true, Some(true)));
    assert_eq!(read(&by, &json!({"results": []})), Ok(vec![]));
}

#[test]
fn an_answer_that_matches_no_pointer_is_unreadable_and_names_the_pointer() {
    let logs = described("infobip-sms-logs", &[]);
    for (body, named) in [
        (json!({"messages": []}), r#"nothing is at api.answer.deliveries = "/results""#),
        (json!([]), r#"nothing is at api.answer.deliveries = "/results""#),
        (
            json!({"results": "none"}),
            r#"api.answer.deliveries = "/results": is neither an array nor an object"#,
        ),
        (json!({"results": null}), "is neither an array nor an object"),
        (
            json!({"results": [{"messageId": PIN, "state": "x"}]}),
            r#"nothing is at api.answer.status = "/status/name""#,
        ),
        (
            json!({"results": [{"messageId": PIN, "status": {"name": null}}]}),
            "nothing is at api.answer.status",
        ),
        (
            json!({"results": [{"messageId": PIN, "status": {"name": []}}]}),
            "an object or an array stands where",
        ),
        (json!({"results": [{"messageId": PIN, "status": {"name": ""}}]}), "is no status"),
        (json!({"results": [{"messageId": PIN, "status": {"name": "a\u{202e}b"}}]}), "is no status"),
        (
            json!({"results": [{"messageId": PIN, "status": {"name": "x".repeat(MAX_STATUS + 1)}}]}),
            "is no status",
        ),
        (json!({"results": [{"status": {"name": "BUSY"}}]}), r#"nothing is at api.answer.id = "/messageId""#),
        (json!({"results": [sms_logs("BUSY")["results"][0], {}]}), "nothing is at"),
    ] {
        let fault = unreadable(&logs, &body);
        assert!(fault.contains(named), "{body}: {fault}");
    }
    // A gateway's own report, and an API that reports an error in a 200.
    let verify = described("vonage-verify", &[]);
    assert!(unreadable(&verify, &json!({"status": "SUCCESS"})).contains("nothing is at api.answer.id"));
    let unknown =
        unreadable(&verify, &json!({"request_id": "", "status": "101", "error_text": "No response found"}));
    assert!(unknown.ends_with("it says: 101: No response found"), "{unknown}");
}

#[test]
fn an_explicit_flag_wins_over_the_lists() {
    let by =
        described("sinch-verification", &["api.answer.final=/done", "api.answer.delivered_statuses=SENT"]);
    let body = |status: &str, done: Value| json!({"id": PIN, "status": status, "done": done});
    for (status, done, expected) in [
        ("SENT", json!(false), WAITING),
        ("SENT", json!(true), DELIVERED),
        ("SENT", json!(null), DELIVERED),
        ("SENT", json!(" False "), WAITING),
        ("PENDING", json!("TRUE"), DELIVERY_UNKNOWN),
        ("PENDING", json!(""), WAITING),
        ("TELEPORTED", json!(true), DELIVERY_UNKNOWN),
        ("TELEPORTED", json!(null), WAITING),
    ] {
        assert_eq!(only(&by, &body(status, done.clone())), expected, "{status} {done}");
    }
    for neither in [json!(1), json!("yes"), json!([]), json!({})] {
        assert!(read(&by, &body("SENT", neither.clone())).is_err(), "{neither}");
    }
}

#[test]
fn a_number_or_a_boolean_is_compared_as_the_answer_writes_it() {
    let lists = [
        "api.answer.delivered_statuses=0, true, 1.50",
        "api.answer.failed_statuses=0.0,-0,1e3",
        "api.answer.id=",
    ];
    let by = described("vonage-verify", &lists);
    for (written, expected) in [
        ("0", DELIVERED),
        ("\"0\"", DELIVERED),
        ("0.0", FAILED),
        ("\"0.0\"", FAILED),
        ("-0", FAILED),
        ("1e3", FAILED),
        ("1000", WAITING),
        ("1.50", DELIVERED),
        ("1.5", WAITING),
        ("true", DELIVERED),
        ("\"true\"", DELIVERED),
        ("false", WAITING),
        ("\"\\u0030\"", DELIVERED),
    ] {
        let got = deliveries(&by, format!(r#"{{"status":{written}}}"#).as_bytes()).unwrap();
        let got = (got[0].final_status, got[0].status.delivered().filter(|_| got[0].final_status));
        assert_eq!(got, expected, "{written}");
    }
}

#[test]
fn an_answer_about_another_pin_is_found() {
    let pin: PinId = PIN.parse().unwrap();
    for (preset, body, _) in DOCUMENTED {
        let by = described(preset, &[]);
        let body = body("x").to_string();
        let upper = body.replace(PIN, &PIN.to_uppercase());
        assert!(
            !names_another(&by, body.as_bytes(), &pin) && !names_another(&by, upper.as_bytes(), &pin),
            "{preset}"
        );
        assert!(names_another(&by, body.replace(PIN, "3f9a0c6e").as_bytes(), &pin), "{preset}");
        assert!(!names_another(&by, body.replace(PIN, "").as_bytes(), &pin), "{preset}");
    }
    // All logs of the account, because something has dropped the query.
    let mut all = sms_logs("BUSY");
    let mut other = all["results"][0].clone();
    other["messageId"] = "another".into();
    all["results"].as_array_mut().unwrap().push(other);
    assert!(names_another(&described("infobip-sms-logs", &[]), all.to_string().as_bytes(), &pin));
    // Without a pointer, as with the default preset.
    let by = described("infobip-2fa-pin", &[]);
    assert!(names_another(&by, br#"[{"pinId":"another","status":"x"}]"#, &pin));
}

#[test]
fn size_number_and_depth_are_bounded() {
    let by = described("infobip-sms-logs", &["api.answer.id="]);
    let many =
        |n: usize| format!(r#"{{"results":[{}]}}"#, vec![r#"{"status":{"name":"BUSY"}}"#; n].join(","));
    assert_eq!(deliveries(&by, many(MAX_DELIVERIES).as_bytes()).unwrap().len(), MAX_DELIVERIES);
    assert!(deliveries(&by, many(MAX_DELIVERIES + 1).as_bytes()).unwrap_err().contains("more than 256"));
    let large = format!("{}{}", many(1), " ".repeat(MAX_BODY));
    assert_eq!(deliveries(&by, large.as_bytes()), Err("the body is over 64 KiB".to_owned()));
    let nested = format!(
        r#"{{"results":{{"status":{{"name":"BUSY"}},"x":{}{}}}}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    assert_eq!(deliveries(&by, nested.as_bytes()).unwrap().len(), 1);
    for broken in [
        "[".repeat(60_000),
        r#"{"results":"#.repeat(6_000),
        many(1)[..20].to_owned(),
        "<html>".to_owned(),
        " ".to_owned(),
    ] {
        assert!(deliveries(&by, broken.as_bytes()).is_err());
    }
    assert!(deliveries(&by, b"{\"results\":[{\"status\":{\"name\":\"\xff\"}}]}").is_err());
}

#[test]
fn the_bytes_read_grow_in_proportion_to_the_body() {
    // /results, /messageId, /status/name and /status/description have six parts together.
    const PARTS: usize = 6;
    let by = described("infobip-sms-logs", &[]);
    let one = sms_logs("BUSY")["results"][0].to_string();
    for count in [1, 8, 64, 128] {
        let body = format!(r#"{{"results":[{}]}}"#, vec![&*one; count].join(","));
        let before = BYTES_READ.get();
        assert_eq!(deliveries(&by, body.as_bytes()).unwrap().len(), count);
        let read = BYTES_READ.get() - before;
        assert!(read >= body.len() && read <= PARTS * body.len(), "{count}: {read} of {}", body.len());
    }
}

#[test]
fn explain_describes_every_field_of_an_answer() {
    let by = described("infobip-sms-logs", &[]);
    let lines = |body: &Value| -> Vec<(bool, String)> {
        explain(&by, body.to_string().as_bytes())
            .into_iter()
            .map(|field| (field.is_well, field.what))
            .collect()
    };
    let well = |what: &str| (true, what.to_owned());
    assert_eq!(
        lines(&sms_logs("DELIVERED_TO_HANDSET")),
        [
            well(r#"api.answer.deliveries = "/results": 1 delivery"#),
            well(&format!(r#"api.answer.id = "/messageId": "{PIN}""#)),
            well(
                r#"api.answer.status = "/status/name": "DELIVERED_TO_HANDSET", which is in delivered_statuses"#
            ),
            well(r#"api.answer.description = "/status/description": "about it""#),
            well("DELIVERED_TO_HANDSET: final and delivered"),
        ]
    );
    let changed = json!({"results": [{"messageId": PIN, "state": "DONE"}]});
    let ill: Vec<_> =
        lines(&changed).into_iter().filter(|(is_well, _)| !is_well).map(|(_, what)| what).collect();
    assert_eq!(ill[0], r#"api.answer.status = "/status/name": nothing"#);
    assert!(lines(&json!({"messages": []}))[0].1.contains("nothing is at api.answer.deliveries"));
    let unlisted = lines(&sms_logs("TELEPORTED"));
    assert!(unlisted[2].1.ends_with("no list, so it is not final without a flag"), "{unlisted:?}");
}

proptest! {
    #[test]
    fn a_delivery_is_final_or_delivered_only_by_a_flag_or_a_listed_status(
        status in "[A-Z]{1,3}", flag in prop::option::of(any::<bool>()), list in 0..5usize,
    ) {
        let lists = ["waiting_statuses", "final_statuses", "delivered_statuses", "failed_statuses"];
        let mut sets: Vec<String> = lists.iter().map(|key| format!("api.answer.{key}=")).collect();
        if let Some(set) = sets.get_mut(list) {
            set.push_str(&status);
        }
        let sets: Vec<&str> = sets.iter().map(String::as_str).chain(["api.answer.final=/done"]).collect();
        let by = described("sinch-verification", &sets);
        let (is_final, delivered) = only(&by, &json!({"id": PIN, "status": status, "done": flag}));
        prop_assert_eq!(is_final, flag.unwrap_or((1..4).contains(&list)));
        prop_assert_eq!(delivered, match list { 2 if is_final => Some(true), 3 if is_final => Some(false), _ => None });
    }
}
