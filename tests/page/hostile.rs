//! Texts of the API and of a receiver that try to be more than texts, in a real browser.

use serde_json::json;
use wiremock::ResponseTemplate;

use super::browser::{Browser, Window};
use super::{HOSTILE, address, log_in, submit};
use crate::http::v1::client::Api;
use crate::support::{Mock, until_true};

/// Texts of the API beside [`HOSTILE`]: without a space, with characters that end texts elsewhere, that are wide, or that join.
fn more() -> [String; 5] {
    [
        "x".repeat(120),
        "W".repeat(500),
        "end\0of\u{85}all\u{2028}lines\r\n\tand \u{1b}[31mmore".to_owned(),
        "👩‍👩‍👧‍👦🏳️‍🌈".repeat(4),
        "e\u{301}\u{336}\u{489}".repeat(40),
    ]
}

/// No script ran, nothing is wider than the window, and no character changes how others read.
#[track_caller]
fn is_harmless(browser: &Browser, path: &str) {
    assert_ne!(browser.run("return document.title"), "hacked", "{path}");
    assert_eq!(browser.overflow(), 0, "{path} is too wide");
    let active = "return [...document.querySelectorAll('main script, main img, main iframe, main [onload], main [onerror]')]\
                  .map((one) => one.outerHTML)";
    assert_eq!(browser.run(active), json!([]), "{path}");
    let text = browser.text("main");
    let harmful = ['\u{202e}', '\u{2066}', '\u{200b}', '\0', '\u{1b}', '\u{2028}'];
    assert!(!text.contains(harmful), "{path}: {text:?}");
}

#[test]
fn hostile_texts_of_the_api_and_of_a_receiver_run_no_script_and_break_no_layout() {
    let texts: Vec<String> = HOSTILE.iter().map(|text| (*text).to_owned()).chain(more()).collect();
    let (api, receiver) = (Mock::start(), Mock::start());
    for (number, text) in texts.iter().enumerate() {
        // An answer whose status is longer than any, or has control characters, is not understood at all.
        let status =
            if text.len() > 128 || text.contains(['\0', '\u{202e}']) { "MESSAGE_OTHER" } else { text };
        let delivery = |is_final| json!([{"status": status, "description": text, "finalStatus": is_final}]);
        let answer = |is_final| ResponseTemplate::new(200).set_body_json(delivery(is_final));
        api.answers(&format!("waiting-{number}"), answer(false));
        api.answers(&format!("final-{number}"), answer(true));
        let error = json!({"requestError": {"serviceException": {"messageId": text, "text": text}}});
        api.answers(&format!("refused-{number}"), ResponseTemplate::new(400).set_body_json(error));
    }
    for (pin, status) in [("waiting-long", "S".repeat(10_000)), ("waiting-control", more()[2].clone())] {
        let answer = json!([{"status": status, "description": "D".repeat(10_000), "finalStatus": false}]);
        api.answers(pin, ResponseTemplate::new(200).set_body_json(answer));
    }
    receiver.answers_all(ResponseTemplate::new(503).set_body_string(texts.join(" ") + &"R".repeat(10_000)));
    let sinks = format!(
        "sink=[{{type=\"webhook\",url=\"{}/hook\",secret=\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"}}]",
        receiver.base_url()
    );
    let base_url = format!("api.base_url={}", api.base_url());
    let daemon = Api::with(&[&base_url, &sinks, "schedule.not_found_grace=10m"]);
    let mut client = daemon.served.daemon.client();
    let kinds = ["waiting", "final", "refused"];
    let mut pins: Vec<String> =
        (0..texts.len()).flat_map(|number| kinds.map(|kind| format!("{kind}-{number}"))).collect();
    pins.extend(["waiting-long", "waiting-control"].map(str::to_owned));
    for pin in &pins {
        submit(&mut client, pin, "order-1");
    }
    for pin in &pins {
        until_true(&format!("{pin} is answered"), || {
            let shown = &client.op(&json!({"op": "show", "pinId": pin}))["pin"];
            if pin.starts_with("final") {
                shown["state"] == "finished"
            } else {
                !shown["lastAnswer"].is_null()
            }
        });
    }
    until_true("the receiver refuses", || !client.stats()["sinks"]["webhook"]["openSince"].is_null());

    let Some(browser) = Browser::start(Window { width: 360, ..Window::DEFAULT }) else { return };
    log_in(&browser, &daemon, &daemon.admin);
    for pin in &pins {
        let path = format!("/pins?pin={pin}");
        browser.open(&address(&daemon, &path));
        let timeline = browser.until_text(".timeline", |text| text.contains("Submitted"));
        assert!(timeline.contains("Ended: final") == pin.starts_with("final"), "{timeline}");
        is_harmless(&browser, &path);
    }
    for path in ["/", "/?span=day", "/pins?state=in_flight", "/pins?state=finished", "/actions"] {
        browser.open(&address(&daemon, path));
        is_harmless(&browser, path);
        browser.resize(1920);
        is_harmless(&browser, path);
        browser.resize(360);
    }
    browser.open(&address(&daemon, "/"));
    let verdict = browser.text(".verdict");
    assert!(verdict.contains("The sink webhook has taken no outcomes"), "{verdict}");
    for text in &texts {
        let status = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/pins?status={status}");
        browser.open(&address(&daemon, &path));
        is_harmless(&browser, &path);
    }
}
