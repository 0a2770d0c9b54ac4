//! Parses the body of a 200, as the default preset's API writes it: the deliveries of one PIN. `mapped.rs` reads those of others.
//!
//! Promises to understand an answer whole or not at all, because a guess could end a PIN wrongly. An unreadable answer costs one
//! interval; a missing delivery could make "all are final" true too early, and an outcome is published only once.
//!
//! Pure. Bounded by [`MAX_BODY`], [`MAX_DELIVERIES`], [`MAX_STATUS`] and [`MAX_DESCRIPTION`]; unknown fields are skipped, and
//! serde_json skips them without recursion. Must not know connections or schedules.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http_client::harmless;
use crate::outcome::{Delivery, Status};
use crate::pin::PinId;
use crate::text::{bounded, is_harmful};

/// The largest body that is read, in bytes, after decompression.
pub const MAX_BODY: usize = 64 * 1024;

/// The most deliveries of an answer. An answer with more is refused and not cut, for the reason above.
pub const MAX_DELIVERIES: usize = 256;

/// The longest status, in bytes; the vendor's longest has 35. A longer one is refused, because a truncated status is another
/// status.
pub const MAX_STATUS: usize = 128;

/// The longest description, in characters; a longer one is cut, because no decision depends on it.
pub const MAX_DESCRIPTION: usize = 512;

/// The deliveries in a 200's body, in its order.
///
/// # Errors
/// What is wrong with the body, as a short text that is safe to log.
pub(super) fn deliveries(body: &[u8]) -> Result<Vec<Delivery>, String> {
    if body.len() > MAX_BODY {
        return Err(format!("the body is over {} KiB", MAX_BODY / 1024));
    }
    if body.trim_ascii().is_empty() {
        return Err("the body is empty".to_owned());
    }
    if body.trim_ascii_start().starts_with(b"[") {
        let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(fault)?;
        if elements.len() > MAX_DELIVERIES {
            return Err(format!("more than {MAX_DELIVERIES} deliveries"));
        }
        return elements.into_iter().map(|element| Fields::of(element)?.delivery()).collect();
    }
    let alone = Fields::of(serde_json::from_slice(body).map_err(fault)?)?;
    let delivery = alone.delivery()?;
    // Gateways report their own failures as `{"status":"error"}` with a 200.
    if matches!(delivery.status, Status::Unknown(_)) && alone.is_final()?.is_none() {
        return Err(
            "an object alone, with an unknown status and without finalStatus, is no delivery".to_owned()
        );
    }
    Ok(vec![delivery])
}

/// serde_json's messages can quote the body.
pub(super) fn fault(error: serde_json::Error) -> String {
    harmless(&error.to_string())
}

/// Whether the body names a different PIN as its subject. The API's own answers name none.
pub(super) fn names_another(body: &[u8], pin: &PinId) -> bool {
    if memmem::find(body, b"pinId").is_none() {
        return false;
    }
    let names = |value: &serde_json::Value| {
        value
            .get("pinId")
            .and_then(|named| named.as_str())
            .is_some_and(|named| !named.eq_ignore_ascii_case(pin.as_str()))
    };
    match serde_json::from_slice(body) {
        Ok(serde_json::Value::Array(deliveries)) => deliveries.iter().any(names),
        Ok(value) => names(&value),
        Err(_) => false,
    }
}

/// One delivery as the API writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    description: Option<&'a RawValue>,
    #[serde(borrow)]
    final_status: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn of(element: &'a RawValue) -> Result<Self, String> {
        // An array of the fields' values would be read too.
        if !element.get().starts_with('{') {
            return Err("expected a delivery, which is an object".to_owned());
        }
        serde_json::from_str(element.get()).map_err(fault)
    }

    fn delivery(&self) -> Result<Delivery, String> {
        let Some(status) = self.status else { return Err("a delivery without a status".to_owned()) };
        let status = match text_of(status)? {
            None => return Err("a delivery's status is no string".to_owned()),
            Some(text) if text.is_empty() => return Err("a delivery with an empty status".to_owned()),
            Some(text) if text.len() > MAX_STATUS => {
                return Err(format!("a delivery's status is over {MAX_STATUS} bytes"));
            }
            Some(text) if text.chars().any(is_harmful) => {
                return Err("a delivery's status has control characters".to_owned());
            }
            Some(text) => Status::from_wire(&text),
        };
        // No decision depends on it, so a description of another type invalidates no answer.
        let description = self.description.map(text_of).transpose()?.flatten().and_then(|text| clean(&text));
        let description = description.or_else(|| status.description().map(Arc::from));
        let final_status = self.is_final()?.unwrap_or_else(|| status.is_final_by_table());
        Ok(Delivery { status, description, final_status })
    }

    /// What `finalStatus` says, as a truth value or its name; `None` if it says nothing.
    fn is_final(&self) -> Result<Option<bool>, String> {
        let Some(written) = self.final_status else { return Ok(None) };
        let text = text_of(written)?.unwrap_or(Cow::Borrowed(written.get()));
        match text.trim() {
            "" => Ok(None),
            text if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            text if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            _ => Err("a delivery's finalStatus is neither true nor false".to_owned()),
        }
    }
}

/// A string; `None` for a value of another type.
pub(super) fn text_of(value: &RawValue) -> Result<Option<Cow<'_, str>>, String> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    if !value.get().starts_with('"') {
        return Ok(None);
    }
    serde_json::from_str(value.get()).map(|Text(text)| Some(text)).map_err(fault)
}

/// A description that is safe on a terminal; `None` if nothing is left of it.
pub(super) fn clean(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    // Nearly every description is short and plain; it is copied once.
    let is_plain = text.len() <= MAX_DESCRIPTION && text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    let text: Arc<str> = if is_plain { text.into() } else { bounded(text, MAX_DESCRIPTION).into() };
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The deliveries as (status, description, final), or the fault.
    fn read(body: &str) -> Result<Vec<(String, Option<String>, bool)>, String> {
        deliveries(body.as_bytes()).map(|deliveries| {
            let row =
                |d: Delivery| (d.status.to_string(), d.description.map(|d| d.to_string()), d.final_status);
            deliveries.into_iter().map(row).collect()
        })
    }

    fn is_final(body: &str) -> bool {
        read(body).unwrap()[0].2
    }

    fn description(body: &str) -> Option<String> {
        read(body).unwrap().remove(0).1
    }

    fn row(status: &str, description: &str, is_final: bool) -> (String, Option<String>, bool) {
        (status.to_owned(), Some(description.to_owned()), is_final)
    }

    #[test]
    fn the_deliveries_of_the_documented_answer_are_read_in_order() {
        let body = r#"[ {"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true},
          {"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":false} ]"#;
        assert_eq!(
            read(body).unwrap(),
            [
                row("MESSAGE_DELIVERED", "Message sent and delivered", true),
                row("MESSAGE_WAITING_DELIVERY", "Message sent, waiting for delivery", false),
            ]
        );
    }

    #[test]
    fn a_single_object_is_one_delivery_and_an_empty_array_is_none() {
        let one = r#" {"finalStatus":"TRUE","status":"PROCESSED","price":{"deep":[[[{}]]]},"id":1e400} "#;
        assert_eq!(
            read(one).unwrap(),
            [row("PROCESSED", "Request is successfully processed and answered by human.", true)]
        );
        assert_eq!(read(" [ ] "), Ok(vec![]));
    }

    #[test]
    fn a_body_that_names_another_pin_is_recognised() {
        let pin = "9C817C6F".parse().unwrap();
        for (body, expected) in [
            (r#"[{"status":"A"}]"#, false),
            (r#"[{"pinId":"9c817c6f","status":"A"}]"#, false),
            (r#"[{"pinId":7,"status":"A"}]"#, false),
            (r#"[{"status":"pinId"#, false),
            (r#"{"pinId":"9C817C60","status":"A"}"#, true),
            (r#"[{"pinId":"9C817C6F"},{"pinId":"9C817C60"}]"#, true),
        ] {
            assert_eq!(names_another(body.as_bytes(), &pin), expected, "{body}");
        }
    }

    #[test]
    fn a_status_report_of_a_gateway_is_not_read_as_a_delivery() {
        for report in [
            r#"{"status":"error"}"#,
            r#"{"status":"error","finalStatus":null}"#,
            r#"{"status":"error","finalStatus":" "}"#,
            r#"{"status":"ok","message":"alive"}"#,
            r#"{"status":"UP","description":"healthy"}"#,
        ] {
            assert!(read(report).unwrap_err().contains("is no delivery"), "{report}");
        }
        // A documented status, a `finalStatus` or an array each make the body an answer.
        for (answer, expected) in [
            (r#"{"status":"ERROR"}"#, true),
            (r#"{"status":"error","finalStatus":false}"#, false),
            (r#"{"status":"error","finalStatus":"true"}"#, true),
            (r#"[{"status":"error"}]"#, false),
        ] {
            assert_eq!(is_final(answer), expected, "{answer}");
        }
    }

    #[test]
    fn final_status_is_read_as_a_boolean_or_as_true_or_false_in_any_case() {
        for (value, expected) in [
            ("true", true),
            ("false", false),
            (r#""true""#, true),
            (r#""True""#, true),
            (r#"" FALSE ""#, false),
            (r#""tr\u0075e""#, true),
        ] {
            // The answer's own word wins over the table, both ways.
            for status in ["MESSAGE_EXPIRED", "PROCESSING", "MESSAGE_TELEPORTED"] {
                let body = format!(r#"[{{"status":"{status}","finalStatus":{value}}}]"#);
                assert_eq!(is_final(&body), expected, "{body}");
            }
        }
    }

    #[test]
    fn the_vendors_table_decides_where_final_status_is_absent() {
        for (status, expected) in [
            ("MESSAGE_DELIVERED", true),
            ("MESSAGE_NOT_SENT", false),
            ("PROCESSING", false),
            ("ERROR_NO_ANSWER", true),
            ("UNDEFINED", false),
            ("MESSAGE_TELEPORTED", false),
        ] {
            for rest in ["", r#","finalStatus":null"#, r#","finalStatus":"""#, r#","finalstatus":true"#] {
                assert_eq!(
                    is_final(&format!(r#"[{{"status":"{status}"{rest}}}]"#)),
                    expected,
                    "{status}{rest}"
                );
            }
        }
    }

    #[test]
    fn the_description_of_the_api_takes_precedence_over_the_vendors_table() {
        let of =
            |value: &str| description(&format!(r#"{{"status":"MESSAGE_EXPIRED","description":{value}}}"#));
        assert_eq!(of(r#""Too late""#).as_deref(), Some("Too late"));
        for nothing in ["null", r#""""#, r#""  ""#, "7", "[1]", r#"{"en":"x"}"#, "false"] {
            assert_eq!(of(nothing).as_deref(), Some("Message expired"), "{nothing}");
        }
        assert_eq!(description(r#"[{"status":"MESSAGE_TELEPORTED"}]"#), None);
    }

    #[test]
    fn a_description_is_cut_and_cannot_write_on_a_terminal() {
        let of =
            |value: &str| description(&format!(r#"[{{"status":"A","description":"{value}"}}]"#)).unwrap();
        assert_eq!(of(r"a\u001b[31mb\r\nc\u202ed"), "a [31mb c d");
        assert_eq!(of(&"é".repeat(MAX_DESCRIPTION)), "é".repeat(MAX_DESCRIPTION));
        let cut = of(&"é".repeat(MAX_DESCRIPTION + 1));
        assert_eq!((cut.chars().count(), cut.ends_with("é…")), (MAX_DESCRIPTION, true));
    }

    #[test]
    fn an_answer_with_one_unreadable_delivery_is_completely_unreadable() {
        let good = r#"{"status":"MESSAGE_DELIVERED","finalStatus":true}"#;
        for (bad, fault) in [
            ("{}", "without a status"),
            (r#"{"finalStatus":true}"#, "without a status"),
            (r#"{"status":null,"finalStatus":true}"#, "without a status"),
            (r#"{"status":""}"#, "empty status"),
            (r#"{"status":7}"#, "no string"),
            (r#"{"status":["MESSAGE_DELIVERED"]}"#, "no string"),
            (r#"{"status":"A\u0000"}"#, "control characters"),
            (r#"{"status":"A","finalStatus":"maybe"}"#, "neither true nor false"),
            (r#"{"status":"A","finalStatus":1}"#, "neither true nor false"),
            (r#"["MESSAGE_DELIVERED","sent",true]"#, "expected a delivery"),
            ("null", "expected a delivery"),
            (r#""MESSAGE_DELIVERED""#, "expected a delivery"),
        ] {
            let error = read(&format!("[{good},{bad}]")).unwrap_err();
            assert!(error.contains(fault), "{bad}: {error}");
        }
    }

    #[test]
    fn a_body_that_is_not_an_answer_is_unreadable() {
        for (body, fault) in [
            ("", "empty"),
            (" \r\n", "empty"),
            ("null", "expected a delivery"),
            ("true", "expected a delivery"),
            (r#""MESSAGE_DELIVERED""#, "expected a delivery"),
            (r#"[{"status":"MESSAGE_DELIV"#, "EOF"),
            (r#"[{"status":"A"}] []"#, "trailing"),
            ("<html>", "expected value"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(fault), "{body}: {error}");
        }
        assert!(deliveries(b"[{\"status\":\"\xff\"}]").is_err());
    }

    #[test]
    fn size_count_and_depth_are_bounded() {
        let many = |n: usize| format!("[{}]", vec![r#"{"status":"A"}"#; n].join(","));
        assert_eq!(read(&many(MAX_DELIVERIES)).unwrap().len(), MAX_DELIVERIES);
        assert!(read(&many(MAX_DELIVERIES + 1)).unwrap_err().contains("more than 256 deliveries"));

        let long = |n: usize| format!(r#"[{{"status":"{}"}}]"#, "A".repeat(n));
        assert_eq!(read(&long(MAX_STATUS)).unwrap().len(), 1);
        assert!(read(&long(MAX_STATUS + 1)).unwrap_err().contains("over 128 bytes"));

        let padded = |n: usize| format!("[]{}", " ".repeat(n - 2));
        assert_eq!(read(&padded(MAX_BODY)), Ok(vec![]));
        assert!(read(&padded(MAX_BODY + 1)).unwrap_err().contains("over 64 KiB"));

        for deep in
            ["[".repeat(60_000), r#"{"a":"#.repeat(12_000), format!(r#"{{"status":{}"#, "[".repeat(60_000))]
        {
            assert!(read(&deep).is_err());
        }
    }

    #[test]
    fn a_fault_does_not_repeat_control_characters_of_the_body() {
        let error = read("[\"\u{7f}\\u001b[2J\\r\\nfaked log line\"]").unwrap_err();
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert!(error.chars().count() <= crate::http_client::MAX_TEXT);
    }

    proptest! {
        #[test]
        fn deliveries_in_every_documented_form_are_read_back_unchanged(
            rows in prop::collection::vec(("[A-Z_]{1,40}", any::<bool>(), any::<bool>()), 0..20),
        ) {
            let list: Vec<_> = rows.iter().map(|(status, is_final, as_text)| {
                let flag = if *as_text { serde_json::json!(is_final.to_string()) } else { serde_json::json!(is_final) };
                serde_json::json!({"status": status, "finalStatus": flag})
            }).collect();
            let got = read(&serde_json::to_string(&list).unwrap()).unwrap();
            let got: Vec<_> = got.into_iter().map(|(status, _, is_final)| (status, is_final)).collect();
            let due: Vec<_> = rows.into_iter().map(|(status, is_final, _)| (status, is_final)).collect();
            prop_assert_eq!(got, due);
        }

        #[test]
        fn a_truncated_body_is_never_read_as_fewer_deliveries(cut in 1usize..70) {
            let body = br#"[{"status":"MESSAGE_DELIVERED","finalStatus":true},{"status":"ERROR"}]"#;
            prop_assert!(deliveries(&body[..cut.min(body.len() - 1)]).is_err());
        }
    }
}
