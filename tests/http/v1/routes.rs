//! Every route of `/v1` with valid and invalid requests, by every scope.

use serde_json::{Value, json};

use super::client::{Api, JSON, NDJSON};
use crate::support::{json as parse, until};

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

#[test]
fn every_route_answers_as_the_socket_does() {
    let api = Api::start();
    let submit = |body: &str| api.post("/v1/pins", JSON, body);
    let accepted = submit(r#"{"pinId":"sim-delivered-1","reference":"order-42","metadata":{"user":7}}"#);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(accepted.json(), json!({"ok": true, "pinId": "sim-delivered-1", "state": "accepted"}));
    assert_eq!(accepted.headers["cache-control"], "no-store");

    let outcome = api.get("/v1/pins/sim-delivered-1/outcome?wait=60s");
    assert_eq!((outcome.status, outcome.headers["content-type"].as_str()), (200, JSON), "{outcome:?}");
    let record = outcome.json()["outcome"].clone();
    assert_eq!((&record["reference"], &record["metadata"]), (&json!("order-42"), &json!({"user": 7})));
    let again = submit(r#"{"pinId":"sim-delivered-1"}"#).json();
    assert_eq!((&again["state"], &again["outcome"]), (&json!("finished"), &record));

    let many = submit(r#"[{"pinId":"sim-waiting-1"},{"pinId":"sim-waiting-2"},{"pinId":"sim-waiting-1"}]"#);
    assert_eq!(many.status, 202, "{many:?}");
    let states: Vec<_> =
        many.json().as_array().unwrap().iter().map(|answer| answer["state"].clone()).collect();
    assert_eq!(states, ["accepted", "accepted", "duplicate"]);
    let none = submit("[]");
    assert_eq!((none.status, none.json()), (202, json!([])));

    let waiting = api.get("/v1/pins/sim-waiting-1/outcome");
    assert_eq!(waiting.status, 202);
    assert_eq!(waiting.json(), json!({"ok": true, "pinId": "sim-waiting-1", "state": "in_flight"}));
    for (pin, state) in [("sim-waiting-1", "in_flight"), ("sim-delivered-1", "finished")] {
        let show = api.get(&format!("/v1/pins/{pin}")).json();
        assert_eq!(
            (&show["pin"]["state"], &show["pin"]["submittedBy"]),
            (&json!(state), &json!("boss")),
            "{show}"
        );
    }
    let mut socket = api.served.daemon.client();
    socket.submit("sim-waiting-3");
    assert_eq!(
        socket.op(&json!({"op": "show", "pinId": "sim-waiting-3"}))["pin"]["submittedBy"],
        Value::Null
    );
    let page = api.get("/v1/pins?limit=1").json();
    assert_eq!(page["pins"][0]["pinId"], "sim-waiting-1", "{page}");
    let next = page["next"].as_str().unwrap();
    let page = api.get(&format!("/v1/pins?limit=1&after={}", next.replace('@', "%40"))).json();
    assert_eq!(page["pins"][0]["pinId"], "sim-waiting-2", "{page}");
    let cancelled = api.ask("DELETE", "/v1/pins/sim-waiting-1", &[], "").json();
    assert_eq!(
        (&cancelled["state"], &cancelled["outcome"]["outcome"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert_eq!(api.ask("DELETE", "/v1/pins/sim-delivered-1", &[], "").json()["state"], "finished");

    let outcomes = api.get("/v1/outcomes");
    assert_eq!(outcomes.headers["content-type"], NDJSON);
    let lines = outcomes.lines();
    assert_eq!((lines.len(), &lines[0], &lines[2]["end"]), (3, &record, &json!(true)), "{outcomes:?}");

    assert!(api.get("/v1/stats").json()["stats"]["inFlight"].is_number());
    assert_eq!(api.get("/v1/schedule").json()["schedule"]["adapt"], "off");
    assert_eq!(api.get("/v1/nodes").json(), json!({"ok": true, "shared": false, "nodes": []}));
    assert_eq!(api.get("/v1/dead-letters?sink=file").json(), json!({"ok": true, "deadLetters": []}));
    let which = r#"{"sink":"file","from":0,"to":9}"#;
    assert_eq!(api.post("/v1/dead-letters/replay", JSON, which).json(), json!({"ok": true, "count": 0}));
    assert_eq!(api.post("/v1/dead-letters/drop", JSON, which).json(), json!({"ok": true, "count": 0}));
    let replay = || api.post("/v1/sinks/file/replay", JSON, r#"{"pinId":"sim-delivered-1"}"#);
    until("the sink has had it once", || (replay().json()["count"] == 1).then_some(()));
    let forget = api.ask("DELETE", "/v1/sinks/file", &[], "");
    assert_eq!((forget.status, forget.code().as_str()), (409, "conflict"));
    assert_eq!(api.get("/v1/openapi.json").json(), parse(DOCUMENT));

    for path in ["/v1/stats", "/v1/outcomes", "/v1/pins/sim-delivered-1", "/v1/openapi.json"] {
        let head = api.ask("HEAD", path, &[], "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    let said = api.served.daemon.log();
    for what in [
        "a PIN was withdrawn over HTTP",
        "outcomes are delivered again",
        "dead letters were dropped over HTTP",
    ] {
        until(what, || {
            api.served
                .daemon
                .log()
                .lines()
                .any(|line| line.contains(what) && line.contains("boss"))
                .then_some(())
        });
    }
    assert!(![&api.admin, &api.read, &api.submit].iter().any(|token| said.contains(token.as_str())));
}

/// Method, path, headers and body of a request, and the status and code of its problem.
type Bad<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[test]
fn every_kind_of_invalid_request_gets_its_problem_code() {
    let api = Api::start();
    let item = |length: usize| format!("{{\"pinId\":\"P\",\"reference\":\"{}\"}}", "x".repeat(length));
    let json_body = ("content-type", JSON);
    let long = "x".repeat((1 << 20) + 1);
    let many = format!("[{}1]", "1,".repeat(10_000));
    let table: &[Bad] = &[
        ("GET", "/v1", &[], "", 404, "not_found"),
        ("GET", "/v1/", &[], "", 404, "not_found"),
        ("GET", "/v1/nothing", &[], "", 404, "not_found"),
        ("GET", "/v1/pins/", &[], "", 404, "not_found"),
        ("GET", "/v1/pins/unknown", &[], "", 404, "not_found"),
        ("GET", "/v1/pins/unknown/outcome", &[], "", 404, "not_found"),
        ("DELETE", "/v1/pins/unknown", &[], "", 404, "not_found"),
        ("GET", "/v1/pins/a%20b", &[], "", 422, "invalid_pin_id"),
        ("GET", "/v1/pins/a%2Fb", &[], "", 422, "invalid_pin_id"),
        ("GET", "/v1/pins/%ff", &[], "", 422, "invalid_request"),
        ("PUT", "/v1/pins", &[], "", 405, "method_not_allowed"),
        ("GET", "/v1/pins?limit=0", &[], "", 422, "invalid_request"),
        ("GET", "/v1/pins?limit=1&limit=2", &[], "", 422, "invalid_request"),
        ("GET", "/v1/pins?after=unknown", &[], "", 422, "invalid_request"),
        ("GET", "/v1/outcomes?last=1&after=p1", &[], "", 422, "invalid_request"),
        ("GET", "/v1/pins?olderThan=2026-11-28T14:00:00+02:00", &[], "", 422, "invalid_request"),
        ("GET", "/v1/pins?aftre=x", &[], "", 422, "invalid_request"),
        ("GET", "/v1/stats?x", &[], "", 422, "invalid_request"),
        ("GET", "/v1/pins/P/outcome?wait=30", &[], "", 422, "invalid_request"),
        ("GET", "/v1/pins/P/outcome?wait=6m", &[], "", 422, "invalid_request"),
        ("GET", "/v1/outcomes?after=7", &[], "", 422, "invalid_request"),
        ("GET", "/v1/outcomes?limit=10001", &[], "", 422, "invalid_request"),
        ("GET", "/v1/outcomes?limit=1", &[("accept", "text/event-stream")], "", 422, "invalid_request"),
        (
            "GET",
            "/v1/outcomes",
            &[("accept", "text/event-stream"), ("last-event-id", "x")],
            "",
            422,
            "invalid_request",
        ),
        ("GET", "/v1/outcomes", &[("accept", JSON)], "", 406, "not_acceptable"),
        ("GET", "/v1/stats", &[("accept", "text/html, application/json;q=0")], "", 406, "not_acceptable"),
        ("GET", "/v1/dead-letters?sink=none", &[], "", 404, "not_found"),
        ("GET", "/v1/dead-letters?pinId=%20", &[], "", 422, "invalid_pin_id"),
        ("POST", "/v1/pins", &[], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/pins", &[("content-type", "text/plain")], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/pins", &[json_body, ("content-encoding", "gzip")], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/pins", &[json_body, ("accept", NDJSON)], "{}", 406, "not_acceptable"),
        ("POST", "/v1/pins", &[json_body], "", 400, "invalid_json"),
        ("POST", "/v1/pins", &[json_body], "{", 400, "invalid_json"),
        ("POST", "/v1/pins", &[json_body], "[{]", 400, "invalid_json"),
        ("POST", "/v1/pins", &[json_body], "7", 422, "invalid_request"),
        ("POST", "/v1/pins", &[json_body], "{}", 422, "invalid_request"),
        ("POST", "/v1/pins", &[json_body], r#"{"pinId":"P","x":1}"#, 422, "invalid_request"),
        ("POST", "/v1/pins", &[json_body], r#"{"pinId":"."}"#, 422, "invalid_pin_id"),
        ("POST", "/v1/pins?x=1", &[json_body], r#"{"pinId":"P"}"#, 422, "invalid_request"),
        ("POST", "/v1/pins", &[json_body], &item(1 << 16), 413, "line_too_long"),
        ("POST", "/v1/pins", &[json_body], &format!("[{}]", item(1 << 16)), 413, "line_too_long"),
        ("POST", "/v1/pins", &[json_body], &long, 413, "too_large"),
        ("POST", "/v1/pins", &[json_body], &many, 413, "too_large"),
        ("POST", "/v1/dead-letters/replay", &[json_body], r#"{"sink":"file"}"#, 422, "invalid_request"),
        ("POST", "/v1/dead-letters/drop", &[json_body], r#"{"sink":"none","pinId":"P"}"#, 404, "not_found"),
        ("POST", "/v1/sinks/file/replay", &[json_body], r#"{"from":2,"to":1}"#, 422, "invalid_request"),
        ("POST", "/v1/sinks/file/replay", &[json_body], r#"{"pinId":"unknown"}"#, 404, "not_found"),
        ("POST", "/v1/sinks/none/replay", &[json_body], r#"{"from":1,"to":1}"#, 404, "not_found"),
        ("DELETE", "/v1/sinks/none", &[], "", 404, "not_found"),
    ];
    for (method, path, headers, body, status, code) in table {
        let response = api.ask(method, path, headers, body);
        let shown = format!("{method} {path} {headers:?} {body:.40}");
        assert_eq!(response.status, *status, "{shown}: {response:?}");
        assert_eq!(response.code(), *code, "{shown}: {response:?}");
    }
    let allowed = api.ask("PUT", "/v1/pins", &[], "").headers["allow"].clone();
    let mut allowed: Vec<_> = allowed.split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[test]
fn an_array_with_one_invalid_item_is_refused_as_a_whole_and_the_item_is_named() {
    let api = Api::start();
    let problem =
        api.post("/v1/pins", JSON, r#"[{"pinId":"sim-waiting-1"},{"pinId":"sim-waiting-2","x":1}]"#);
    assert_eq!(problem.code(), "invalid_request");
    assert!(problem.json()["detail"].as_str().unwrap().starts_with("item 1: "), "{problem:?}");
    assert_eq!(api.get("/v1/pins").json()["pins"], json!([]));
}

#[test]
fn each_scope_may_use_exactly_the_routes_that_the_openapi_document_lists() {
    let api = Api::start();
    let document = parse(DOCUMENT);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
        {
            let allowed = operation["security"].as_array().unwrap().iter();
            let allowed: Vec<&Value> = allowed.flat_map(|one| one["token"].as_array().unwrap()).collect();
            for scope in ["submit", "read", "admin"] {
                let bearer = format!("bearer {}", api.token(scope));
                let path = path.replace("{pinId}", "unknown").replace("{name}", "unknown");
                let response =
                    api.ask(&method.to_ascii_uppercase(), &path, &[("authorization", &bearer)], "");
                let is_allowed = allowed.iter().any(|allowed| *allowed == scope);
                assert_eq!(response.status != 403, is_allowed, "{scope} {method} {path}: {response:?}");
                if !is_allowed {
                    assert_eq!(response.code(), "forbidden");
                    assert!(response.headers["www-authenticate"].contains("insufficient_scope"));
                }
            }
            let none = api.ask(&method.to_ascii_uppercase(), path, &[("authorization", "Basic eDp5")], "");
            assert!(matches!(none.status, 401 | 429), "{none:?}");
        }
    }
    let refused = |reason| format!("pinwatch_http_refused_total{{reason=\"{reason}\"}}");
    let numbers = api.served.numbers();
    assert!(numbers.value(&refused("scope")) > 10.0 && numbers.value(&refused("no_token")) > 1.0);
}

#[test]
fn a_peer_that_guesses_tokens_must_wait_and_a_valid_token_still_works() {
    let api = Api::start();
    let guess = |value: &str| api.ask("GET", "/v1/stats", &[("authorization", value)], "");
    let missing = api.ask("GET", "/v1/stats", &[("authorization", "")], "");
    assert_eq!((missing.status, missing.code().as_str()), (401, "unauthorized"));
    assert_eq!(missing.headers["www-authenticate"], "Bearer realm=\"pinwatch\"");
    for _ in 0..9 {
        let wrong = guess("Bearer pinwatch_wrong");
        assert_eq!(wrong.status, 401);
        assert!(wrong.headers["www-authenticate"].contains("invalid_token"));
    }
    let limited = guess("Bearer pinwatch_wrong");
    assert_eq!((limited.status, limited.code().as_str()), (429, "too_many_failures"));
    assert!((1..=60).contains(&limited.headers["retry-after"].parse::<u64>().unwrap()));
    assert_eq!(api.get("/v1/stats").status, 200);
    until("the log has one line of it", || {
        (api.served.daemon.times_logged("had no valid token") == 1).then_some(())
    });
    assert!(!api.served.daemon.log().contains("pinwatch_wrong"));
}

#[test]
fn without_a_tokens_file_there_is_no_api_and_the_answer_says_why() {
    let served = crate::http::served::Served::start();
    let answer = served.get("/v1/stats");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("http.tokens_file"), "{}", answer.body);
}
