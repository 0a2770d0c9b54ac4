//! Who may see and change what, tested by single requests without a browser.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::http::v1::client::{Api, Response};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Asks as a browser with this cookie.
pub fn ask(
    api: &Api,
    method: &str,
    path: &str,
    cookie: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let no_token = ("authorization", "none");
    let headers = [&[no_token, ("cookie", cookie), FORM], headers].concat();
    api.ask(method, path, &headers, body)
}

pub fn log_in(api: &Api, token: &str) -> (Response, String) {
    let response = ask(api, "POST", "/login", "", &[OWN], &format!("token={token}"));
    let cookie = response.headers.get("set-cookie").cloned().unwrap_or_default();
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    (response, cookie)
}

/// The token that the forms of a session have.
pub fn form_token(api: &Api, cookie: &str) -> String {
    let page = ask(api, "GET", "/", cookie, &[], "").body;
    let (_, rest) = page.split_once("name=\"form\" value=\"").expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn every_page_has_strict_security_headers_and_no_inline_code() {
    let api = Api::start();
    for path in ["/", "/login", "/pins?pin=x", "/nothing-here"] {
        let response = ask(&api, "GET", path, "", &[], "");
        if path == "/nothing-here" {
            assert_eq!(response.status, 404);
            continue;
        }
        let expected = BTreeMap::from([
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
        ]);
        for (name, value) in expected {
            assert_eq!(response.headers[name], value, "{path}");
        }
        let policy = &response.headers["content-security-policy"];
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        for forbidden in [" style=", " onclick=", "<script>", "http://", "https://"] {
            assert!(!response.body.contains(forbidden), "{path} has {forbidden}");
        }
    }
}

#[test]
fn the_files_of_a_page_have_its_hash_in_their_names_and_never_change() {
    let api = Api::start();
    let page = ask(&api, "GET", "/", "", &[], "").body;
    let files: Vec<_> =
        page.split('"').filter(|text| text.ends_with(".css") || text.ends_with(".js")).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let response = ask(&api, "GET", file, "", &[], "");
        assert_eq!(response.status, 200);
        assert!(response.headers["cache-control"].contains("immutable"));
        assert!(response.body.len() < 15_000, "{file}");
    }
}

#[test]
fn without_a_session_the_page_shows_numbers_but_no_pins() {
    let api = Api::start();
    api.served.finish(&["sim-delivered-1"]);
    let page = ask(&api, "GET", "/", "", &[], "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("All well") && !page.body.contains("sim-delivered"), "{}", page.body);
    for cookie in ["", "pinwatch-session=", "pinwatch-session=guess", "other=1"] {
        let found = ask(&api, "GET", "/pins?pin=sim-delivered-1", cookie, &[], "");
        assert_eq!(found.status, 401);
        assert!(!found.body.contains("delivered-1"));
    }
    let refused = ask(&api, "POST", "/pins/cancel", "", &[OWN], "pin=sim-delivered-1&form=x");
    assert_eq!(refused.status, 401);
}

#[test]
fn a_session_needs_a_token_that_may_read_and_its_cookie_is_protected() {
    let api = Api::start();
    let (response, cookie) = log_in(&api, &api.read);
    assert_eq!((response.status, response.headers["location"].as_str()), (303, "/"));
    let given = &response.headers["set-cookie"];
    for part in ["HttpOnly", "SameSite=Strict", "Max-Age=28800", "Path=/"] {
        assert!(given.contains(part), "{given}");
    }
    assert!(!given.contains(&api.read), "the cookie is not the token");
    api.served.finish(&["sim-delivered-1"]);
    let found = ask(&api, "GET", "/pins?pin=sim-delivered-1", &cookie, &[], "");
    assert!(found.status == 200 && found.body.contains("MESSAGE_DELIVERED"), "{found:?}");
    assert!(!found.body.contains("Cancel this PIN"));
    let (response, _) = log_in(&api, &api.submit);
    assert!(response.status == 401 && response.body.contains("only submit"), "{response:?}");
    let (response, _) = log_in(&api, "pinwatch_wrong");
    assert!(response.status == 401 && response.body.contains("Nobody has this token"), "{response:?}");
}

#[test]
fn a_form_works_only_from_the_page_of_an_administrators_session() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    assert_eq!(client.submit("sim-waiting-1"), "accepted");
    let (_, boss) = log_in(&api, &api.admin);
    let (_, reader) = log_in(&api, &api.read);
    let (of_boss, of_reader) = (form_token(&api, &boss), form_token(&api, &reader));
    let cancel = |cookie: &str, token: &str, site: (&str, &str)| {
        let body = format!("pin=sim-waiting-1&form={token}");
        ask(&api, "POST", "/pins/cancel", cookie, &[site], &body).status
    };
    assert_eq!(cancel(&boss, &of_boss, ("sec-fetch-site", "cross-site")), 403);
    assert_eq!(cancel(&boss, &of_boss, ("sec-fetch-site", "same-site")), 403);
    assert_eq!(cancel(&boss, &of_boss, ("origin", "http://evil.example")), 403);
    assert_eq!(cancel(&boss, &of_boss, ("x-nothing", "1")), 403);
    assert_eq!(cancel(&boss, &of_reader, OWN), 403);
    assert_eq!(cancel(&boss, "", OWN), 403);
    assert_eq!(cancel(&reader, &of_reader, OWN), 403);
    assert_eq!(client.stats()["inFlight"], 1);
    assert_eq!(cancel(&boss, &of_boss, OWN), 303);
    assert_eq!(client.stats()["inFlight"], 0);
}

#[test]
fn a_session_ends_by_logging_out_and_with_its_token() {
    let api = Api::start();
    let (_, cookie) = log_in(&api, &api.admin);
    let body = format!("form={}", form_token(&api, &cookie));
    assert_eq!(ask(&api, "POST", "/logout", &cookie, &[OWN], &body).status, 303);
    assert_eq!(ask(&api, "GET", "/pins?pin=x", &cookie, &[], "").status, 401);

    let (_, cookie) = log_in(&api, &api.admin);
    assert_eq!(ask(&api, "GET", "/pins?pin=x", &cookie, &[], "").status, 404);
    let (_, line) = crate::http::v1::client::new_token("other", pinwatch::http::tokens::Scope::Read);
    crate::http::v1::client::write_private(&api.tokens_file(), &line);
    api.served.daemon.signal(rustix::process::Signal::HUP);
    crate::support::until_true("the token is no longer in force", || {
        ask(&api, "GET", "/pins?pin=x", &cookie, &[], "").status == 401
    });
}

/// Logs in from another address of this machine; gives the status.
fn log_in_from_elsewhere(api: &Api, token: &str) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(api.address()).await.unwrap();
        let (address, body) = (api.address(), format!("token={token}"));
        let request = format!(
            "POST /login HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nsec-fetch-site: same-origin\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    })
}

#[test]
fn who_guesses_tokens_is_told_to_wait_here_and_at_v1_and_a_valid_token_passes_from_anywhere() {
    let api = Api::start();
    for _ in 0..10 {
        assert_eq!(log_in(&api, "pinwatch_guess").0.status, 401);
    }
    let (refused, _) = log_in(&api, "pinwatch_guess");
    assert_eq!(refused.status, 429);
    assert!(refused.headers["retry-after"].parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
    let guess = ("authorization", "Bearer pinwatch_guess");
    assert_eq!(api.ask("GET", "/v1/stats", &[guess], "").status, 429, "they count together");
    assert_eq!(log_in_from_elsewhere(&api, "pinwatch_guess"), 401, "another address may still guess");
    assert_eq!(log_in_from_elsewhere(&api, &api.read), 303);
    assert_eq!(log_in(&api, &api.admin).0.status, 303, "also from where somebody guesses");
    assert_eq!(log_in(&api, "pinwatch_guess").0.status, 429, "which forgives no guess");
}

#[test]
fn a_visitor_who_guesses_tokens_must_wait_and_a_large_form_is_refused() {
    let api = Api::start();
    let wrong = || log_in(&api, "pinwatch_guess").0;
    for _ in 0..10 {
        wrong();
    }
    assert!(wrong().body.contains("too many wrong tokens"));
    let large = ask(&api, "POST", "/login", "", &[OWN], &format!("token={}", "x".repeat(20_000)));
    assert_eq!(large.status, 413);
}
