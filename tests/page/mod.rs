//! The status page: in a real Chromium, and its requests one by one.

mod access;
mod actions;
mod browser;
mod hostile;
mod jobs;
mod looks;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;

use self::browser::{Browser, Window};
use crate::http::v1::client::Api;
use crate::support::not_run::not_run;
use crate::support::{Client, until_true};

/// Texts that try to run as a script, to break out of their element, or to change how text around them reads.
const HOSTILE: [&str; 6] = [
    "<script>document.title='hacked'</script>",
    "\"><img src=x onerror=\"document.title='hacked'\">",
    "'-alert(1)-' javascript:document.title='hacked'",
    "\u{202e}delivered\u{2066} \u{200b}\u{feff}",
    "</textarea></style></title><svg onload=document.title='hacked'>",
    "loooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooong",
];

fn address(api: &Api, path: &str) -> String {
    format!("http://{}{path}", api.address())
}

fn log_in(browser: &Browser, api: &Api, token: &str) {
    browser.open(&address(api, "/login"));
    browser.fill("input[name=token]", token);
    browser.click("main button");
    browser.until_text("nav", |text| text.contains("Log out"));
}

fn submit(client: &mut Client, pin: &str, reference: &str) {
    let answer = client.op(&json!({"op": "submit", "pinId": pin, "reference": reference}));
    assert_eq!(answer["state"], "accepted", "{answer}");
}

#[test]
fn an_open_page_updates_its_numbers_also_after_a_restart_of_the_daemon() {
    let mut api = Api::start();
    let port = api.address().port();
    let Some(browser) = Browser::start(Window::DEFAULT) else { return };
    browser.open(&address(&api, "/"));
    assert!(browser.text(".verdict").contains("All well"), "{}", browser.text(".verdict"));
    assert!(browser.text(".tiles").contains("In flight\n0"));
    let mut client = api.served.daemon.client();
    for number in 0..3 {
        submit(&mut client, &format!("sim-waiting-{number}"), "order-1");
    }
    browser.until_text(".tiles", |text| text.contains("In flight\n3"));
    assert!(browser.text("#charts").contains("PINs and polls, by the PIN's age"));

    api.served.daemon.signal(Signal::KILL);
    browser.until_text("#lost", |text| text.contains("No connection to the daemon since"));
    assert!(browser.text(".tiles").contains("In flight\n3"), "the last numbers stay");
    api.served.restart_at(port);
    until_true("the page is live again", || browser.has("#lost[hidden]"));
    submit(&mut api.served.daemon.client(), "sim-waiting-9", "order-2");
    browser.until_text(".tiles", |text| text.contains("In flight\n4"));
}

#[test]
fn without_javascript_the_same_numbers_are_shown() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    for number in 0..3 {
        submit(&mut client, &format!("sim-waiting-{number}"), "order-1");
    }
    let Some(browser) = Browser::start(Window { has_script: false, ..Window::DEFAULT }) else { return };
    browser.open(&address(&api, "/"));
    assert!(browser.text(".tiles").contains("In flight\n3"), "{}", browser.text(".tiles"));
    assert!(browser.text(".verdict").contains("All well: 3 PINs in flight"));
    assert!(browser.text("main").contains("Without JavaScript"));
    submit(&mut client, "sim-waiting-9", "order-1");
    browser.open(&address(&api, "/"));
    assert!(browser.text(".tiles").contains("In flight\n4"));
    log_in(&browser, &api, &api.admin);
}

#[test]
fn an_administrator_finds_and_cancels_pins_with_hostile_references() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    for (number, reference) in HOSTILE.iter().enumerate() {
        submit(&mut client, &format!("sim-waiting-{number}"), reference);
    }
    let Some(browser) = Browser::start(Window { width: 400, ..Window::DEFAULT }) else { return };
    log_in(&browser, &api, &api.admin);
    for (number, hostile) in HOSTILE.iter().enumerate() {
        browser.open(&address(&api, "/"));
        browser.fill("#find", &format!("sim-waiting-{number}"));
        browser.click("form.find button");
        let timeline = browser.until_text(".timeline", |text| text.contains("Submitted"));
        assert!(timeline.contains("reference"), "{timeline}");
        assert_eq!(browser.overflow(), 0, "the layout breaks at {hostile:?}");
        assert_ne!(browser.run("return document.title"), "hacked");
        assert!(!timeline.contains('\u{202e}'), "{timeline}");
    }
    browser.click("button.danger");
    let timeline = browser.until_text(".timeline", |text| text.contains("Ended"));
    assert!(timeline.contains("Ended: cancelled"), "{timeline}");
    assert_eq!(client.stats()["inFlight"], HOSTILE.len() - 1);
    let said = api.served.daemon.log();
    assert!(said.contains("a PIN was withdrawn on the status page") && said.contains("boss"), "{said}");
    assert!(!said.contains(&api.admin), "the token is not in the log");
}

#[test]
fn forms_of_other_sites_change_nothing() {
    let api = Api::start();
    submit(&mut api.served.daemon.client(), "sim-waiting-1", "order-1");
    let Some(browser) = Browser::start(Window::DEFAULT) else { return };
    log_in(&browser, &api, &api.admin);
    // A page of another origin of the same site, which is sent the session's cookie too.
    let target = address(&api, "/pins/cancel");
    let form = format!(
        "<form method=post action=\"{target}\"><input name=pin value=sim-waiting-1><input name=form value=x></form>\
         <script>document.forms[0].submit()</script>"
    );
    let (evil, asked) = serve(form);
    browser.open(&format!("http://{evil}/"));
    browser.until_text("main", |text| text.contains("Nothing was changed"));
    assert!(asked.load(Ordering::SeqCst) > 0);
    // And one that fetches in the background.
    browser.open(&format!("http://{evil}/none"));
    let fetched = browser.run_async(&format!(
        "const done = arguments[arguments.length - 1];
         fetch('{target}', {{method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams({{pin: 'sim-waiting-1'}})}})
           .then(() => done('sent'), (error) => done(String(error)));"
    ));
    assert!(fetched.is_string());
    // Nor can it read the page.
    let read = browser.run_async(&format!(
        "const done = arguments[arguments.length - 1];
         fetch('{}', {{credentials: 'include'}}).then((answer) => answer.text()).then(done, () => done('blocked'));",
        address(&api, "/")
    ));
    assert_eq!(read, "blocked");
    assert_eq!(api.served.daemon.client().stats()["inFlight"], 1, "it was not cancelled");
}

#[test]
fn no_page_of_another_origin_shows_it_in_a_frame() {
    let api = Api::start();
    let Some(browser) = Browser::start(Window::DEFAULT) else { return };
    let (evil, asked) = serve(format!(
        "<iframe src=\"{}\"></iframe><iframe srcdoc=\"<p class=verdict>another frame</p>\"></iframe>",
        address(&api, "/")
    ));
    browser.open(&format!("http://{evil}/"));
    assert!(asked.load(Ordering::SeqCst) > 0);
    let shown = |number| browser.in_frame(number, |frame| frame.has(".verdict"));
    until_true("the other frame is shown", || shown(1));
    assert!(!shown(0), "the status page is not");
    assert_eq!(browser.in_frame(0, |frame| frame.run("return location.protocol")), "chrome-error:");
}

/// Serves one page at `/` and an empty one elsewhere; counts the requests.
fn serve(page: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            count.fetch_add(1, Ordering::SeqCst);
            let body = if request[..read].starts_with(b"GET / ") { page.as_str() } else { "" };
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (address, asked)
}

/// axe-core's script, which npm brings; `None` if it can't.
fn axe() -> Option<String> {
    const PACKAGE: &str = "axe-core@4.10.3";
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        fs::create_dir_all(&folder).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        let installed = npm.arg(&folder).arg(PACKAGE).output();
        if !installed.is_ok_and(|output| output.status.success()) {
            not_run("the accessibility of the status page", "npm, with axe-core");
            return None;
        }
    }
    Some(fs::read_to_string(script).unwrap())
}

#[test]
fn axe_finds_no_serious_accessibility_problem_in_either_theme() {
    let Some(axe) = axe() else { return };
    let api = Api::with(&[
        "sink=[{type=\"webhook\",url=\"http://127.0.0.1:9/\",secret=\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"}]",
    ]);
    let mut client = api.served.daemon.client();
    submit(&mut client, "sim-delivered-1", "order-1");
    submit(&mut client, "sim-waiting-1", "order-2");
    until_true("the sink is in trouble", || client.stats()["verdict"]["level"] == "warning");
    for is_dark in [false, true] {
        let Some(browser) = Browser::start(Window { is_dark, ..Window::DEFAULT }) else { return };
        log_in(&browser, &api, &api.admin);
        let theme = browser.run("return matchMedia('(prefers-color-scheme: dark)').matches");
        assert_eq!(theme, is_dark);
        for path in [
            "/",
            "/?span=day",
            "/pins?pin=sim-delivered-1",
            "/pins?pin=sim-waiting-1",
            "/pins?text=order-*",
            "/actions",
            "/actions/cancel?text=order-*",
            "/login",
        ] {
            browser.open(&address(&api, path));
            let found = browser.run_async(&format!(
                "{axe}; const done = arguments[arguments.length - 1];
                 axe.run(document).then((result) => done(result.violations
                   .filter((one) => one.impact === 'serious' || one.impact === 'critical')
                   .map((one) => `${{one.id}}: ${{one.nodes.map((node) => node.html).join(' ')}}`)));"
            ));
            assert_eq!(found, json!([]), "{path}, dark: {is_dark}");
        }
    }
}
