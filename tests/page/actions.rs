//! Find, and act on one PIN or on all that match.

use super::access::{OWN, ask, form_token, log_in};
use super::browser::{Browser, Window};
use super::{HOSTILE, address, submit};
use crate::http::v1::client::Api;
use crate::support::{until, until_true};

/// The value of a hidden field of a form.
#[track_caller]
pub fn hidden(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{name}: {page}"));
    rest.split('"').next().unwrap().to_owned()
}

/// Waits until no action runs; gives the page of all.
#[track_caller]
pub fn ended(api: &Api, cookie: &str) -> String {
    until("the action has ended", || {
        let page = ask(api, "GET", "/actions", cookie, &[], "").body;
        (!page.contains("data-running")).then_some(page)
    })
}

#[test]
fn pins_are_found_by_their_reference_and_cancelled_together_in_a_browser() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    for number in 0..70 {
        submit(&mut client, &format!("sim-waiting-{number}"), &format!("order-4-{number}"));
    }
    submit(&mut client, "sim-waiting-other", "invoice-1");
    let Some(browser) = Browser::start(Window::DEFAULT) else { return };
    super::log_in(&browser, &api, &api.admin);
    browser.fill("#find", "invoice-1");
    browser.click("form.find button");
    browser.until_text("main", |text| text.contains("sim-waiting-other") && !text.contains("order-4-"));
    browser.click("tbody a");
    browser.until_text(".timeline", |text| text.contains("reference invoice-1"));
    browser.open(&address(&api, "/pins"));
    browser.fill("#find", "order-4*");
    browser.click("form.find button");
    browser.until_text("main", |text| text.contains("Next page"));
    browser.click("button.danger");
    let asked = browser.until_text(".confirm", |text| text.contains("This affects"));
    assert!(asked.contains("This affects 70 PINs.") && asked.contains("reference order-4*"), "{asked}");
    submit(&mut client, "sim-waiting-later", "order-4-later");
    assert_eq!(client.stats()["inFlight"], 72, "nothing happens before it is confirmed");
    browser.click("button.danger");
    browser.until_text("#jobs", |text| text.contains("done") && text.contains("70 of 70 PINs"));
    assert_eq!(client.stats()["inFlight"], 2, "what came after the count is left alone");
    let said = api.served.daemon.log();
    assert!(said.contains("a job was begun on the status page token=boss job=1"), "{said}");
}

#[test]
fn hostile_references_and_searches_run_no_script() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    for (number, reference) in HOSTILE.iter().enumerate() {
        submit(&mut client, &format!("sim-waiting-{number}"), reference);
    }
    let Some(browser) = Browser::start(Window { width: 500, ..Window::DEFAULT }) else { return };
    super::log_in(&browser, &api, &api.admin);
    browser.open(&address(&api, "/pins?state=in_flight"));
    let list = browser.until_text("main", |text| text.contains("sim-waiting-0"));
    assert!(!list.contains('\u{202e}'), "{list}");
    assert_eq!(browser.overflow(), 0);
    for text in HOSTILE {
        let query = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        for path in ["/pins", "/actions/cancel"] {
            browser.open(&address(&api, &format!("{path}?text={query}")));
            let shown = browser.text("main");
            assert!(
                shown.contains("sim-waiting-") || shown.contains("This affects 1 PIN."),
                "{text}: {shown}"
            );
            assert_ne!(browser.run("return document.title"), "hacked", "{text}");
            assert_eq!(browser.overflow(), 0, "{text}");
        }
    }
}

#[test]
fn an_action_needs_a_preview_and_an_administrator_and_follows_its_filter() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    for number in 0..3 {
        submit(&mut client, &format!("sim-waiting-{number}"), "order-1");
    }
    submit(&mut client, "sim-waiting-9", "order-2");
    let (_, boss) = log_in(&api, &api.admin);
    let (_, reader) = log_in(&api, &api.read);
    for path in ["/actions", "/actions/cancel?text=order-1"] {
        assert_eq!(ask(&api, "GET", path, &reader, &[], "").status, 403);
    }
    let preview = ask(&api, "GET", "/actions/cancel?text=order-1", &boss, &[], "").body;
    assert!(preview.contains("<strong>3 PINs</strong>"), "{preview}");
    let body = |token: &str| {
        let [at, count] = ["counted_at", "count"].map(|name| hidden(&preview, name).replace(':', "%3A"));
        format!("form={token}&do=cancel&text=order-1&counted_at={at}&count={count}")
    };
    let begin = |cookie: &str, body: &str| ask(&api, "POST", "/actions", cookie, &[OWN], body).status;
    let (of_boss, of_reader) = (form_token(&api, &boss), form_token(&api, &reader));
    assert_eq!(begin(&reader, &body(&of_reader)), 403);
    assert_eq!(begin(&boss, &body(&of_reader)), 403);
    assert_eq!(begin(&boss, &format!("form={of_boss}&do=cancel&text=order-1")), 400);
    assert_eq!(begin(&boss, &format!("form={of_boss}&do=everything&count=1")), 400);
    assert_eq!(client.stats()["inFlight"], 4);
    assert_eq!(begin(&boss, &body(&of_boss)), 303);
    let page = ended(&api, &boss);
    assert!(page.contains("<strong>3</strong> of 3 PINs"), "{page}");
    assert_eq!(client.stats()["inFlight"], 1);
    assert_eq!(ask(&api, "GET", "/pins?older=soon", &boss, &[], "").status, 400);
}

#[test]
fn all_dead_letters_of_a_sink_are_replayed_or_dropped_after_a_preview() {
    let api = Api::start();
    let pins: Vec<_> = (0..3).map(|number| format!("sim-delivered-{number}")).collect();
    api.served.finish(&pins.iter().map(String::as_str).collect::<Vec<_>>());
    let dead = "INSERT INTO delivery (sink, seq, dead, tries, error) \
                VALUES ('file', 1, 1, 3, '410'), ('file', 2, 1, 3, '410'), ('file', 3, 1, 3, '410')";
    let api = api.pruned(dead);
    let mut client = api.served.daemon.client();
    let (_, boss) = log_in(&api, &api.admin);
    let overview = ask(&api, "GET", "/actions", &boss, &[], "").body;
    assert!(overview.contains("3 outcomes that it gave up"), "{overview}");
    // One by its PIN, then the others.
    let form = form_token(&api, &boss);
    let one = format!("form={form}&pin=sim-delivered-0&sink=file&do=drop");
    assert_eq!(ask(&api, "POST", "/pins/replay", &boss, &[OWN], &one).status, 303);
    assert_eq!(client.stats()["sinks"]["file"]["deadLetters"], 2);
    let preview = ask(&api, "GET", "/actions/dead-letters?sink=file&do=replay", &boss, &[], "").body;
    assert!(preview.contains("<strong>2 dead letters</strong>"), "{preview}");
    let at = hidden(&preview, "counted_at").replace(':', "%3A");
    let body = format!("form={form}&do=replay&sink=file&counted_at={at}&count=2");
    assert_eq!(ask(&api, "POST", "/actions", &boss, &[OWN], &body).status, 303);
    let page = ended(&api, &boss);
    assert!(page.contains("<strong>2</strong> of 2 dead letters"), "{page}");
    until_true("none is left", || client.stats()["sinks"]["file"]["deadLetters"] == 0);
    until_true("the file has them again", || {
        api.served.place.all_results().concat().matches("\"sim-delivered-").count() >= 5
    });
}
