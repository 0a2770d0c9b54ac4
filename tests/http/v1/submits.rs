//! Submitting over HTTP: many lines, broken bodies, slow clients, a full store and a daemon that dies.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::client::{Api, JSON, NDJSON, Stream, chunk};
use crate::http::served::connect;
use crate::support::{json as parse, until, until_true};

const LINES: (&str, &str) = ("content-type", NDJSON);

fn line(pin: &str) -> String {
    format!("{{\"pinId\":\"{pin}\"}}\n")
}

fn waiting(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("sim-waiting-{number}")).collect()
}

#[test]
fn a_client_may_send_100_000_lines_before_it_reads_while_others_are_served() {
    let api = Api::start();
    let pins = waiting(100_000);
    let body: String = pins.iter().map(|pin| line(pin)).collect();
    // All of it is written before anything is read.
    let stream = api.stream("POST", "/v1/pins", &[LINES], &body);
    assert_eq!(api.get("/v1/stats").status, 200);
    assert_eq!(api.served.get("/metrics").status, 200);
    let response = stream.rest();
    assert!(response.status == 202 && response.is_whole);
    assert_eq!(response.headers["content-type"], NDJSON);
    let lines = response.lines();
    assert_eq!(lines.len(), pins.len());
    for (answer, pin) in lines.iter().zip(&pins) {
        assert_eq!(*answer, json!({"ok": true, "pinId": pin, "state": "accepted"}));
    }
    assert_eq!(api.served.daemon.client().stats()["inFlight"], pins.len());
    until_true("the log sums them", || {
        let said = api.served.daemon.log();
        said.lines().any(|line| line.contains("PINs were submitted over HTTP") && line.contains("boss"))
    });
}

#[test]
fn each_line_is_answered_when_it_is_durable_even_if_lines_arrive_in_pieces() {
    let api = Api::start();
    let mut connection = api.begin("POST", "/v1/pins", &[LINES], "transfer-encoding: chunked\r\n");
    let write = |connection: &mut std::net::TcpStream, text: &str| {
        connection.write_all(chunk(text).as_bytes()).expect("it takes more");
    };
    write(&mut connection, "{\"pinId\":\"sim-");
    write(&mut connection, "waiting-1\"}\n\n  \n{\"pin");
    let mut answers = Stream::read(connection);
    assert_eq!(answers.status, 202);
    assert_eq!(parse(&answers.line().unwrap())["state"], "accepted");
    write(answers.connection(), "Id\":\"sim-waiting-1\"}\nno JSON\n{\"pinId\":\".\"}\n\u{e9}\n");
    assert_eq!(parse(&answers.line().unwrap())["state"], "duplicate");
    let code = |line: &str| parse(line)["error"]["code"].as_str().unwrap().to_owned();
    assert_eq!(code(&answers.line().unwrap()), "invalid_json");
    assert_eq!(code(&answers.line().unwrap()), "invalid_pin_id");
    assert_eq!(code(&answers.line().unwrap()), "invalid_json");
    write(answers.connection(), &"x".repeat(64 * 1024 + 1));
    assert_eq!(code(&answers.line().unwrap()), "line_too_long");
    // The rest of that line, and a last one whose newline is missing.
    write(answers.connection(), "xx\n{\"pinId\":\"sim-waiting-2\",\"reference\":\"r\"}");
    answers.connection().write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(
        parse(&answers.line().unwrap()),
        json!({"ok": true, "pinId": "sim-waiting-2", "state": "accepted"})
    );
    assert!(answers.rest().is_whole);
    assert_eq!(api.get("/v1/pins/sim-waiting-2").json()["pin"]["reference"], "r");
}

#[test]
fn an_incomplete_line_at_the_end_of_a_broken_body_is_not_submitted() {
    let api = Api::start();
    // A shorter body than was announced, and one with a chunk that is none.
    for (length, end) in [("content-length: 1000\r\n", ""), ("transfer-encoding: chunked\r\n", "x\r\n")] {
        let mut connection = api.begin("POST", "/v1/pins", &[LINES], length);
        let text = "{\"pinId\":\"sim-waiting-1\"}\n{\"pinId\":\"sim-waiting-2\"}";
        let text = if end.is_empty() { text.to_owned() } else { chunk(text) };
        connection.write_all((text + end).as_bytes()).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        // A client that breaks off may get no answer.
        if let Some(stream) = Stream::try_read(connection) {
            let lines: Vec<Value> = stream.rest().body.lines().map(parse).collect();
            assert!(lines.iter().all(|line| line["pinId"] != "sim-waiting-2"), "{lines:?}");
        }
    }
    until_true("the whole line was taken", || api.get("/v1/pins/sim-waiting-1").status == 200);
    assert_eq!(api.get("/v1/pins/sim-waiting-2").status, 404);
}

/// Opens connections of every known kind of slow client.
fn bad_clients(api: &Api) -> Vec<TcpStream> {
    let json = [("content-type", JSON)];
    let partly = |what: &str| {
        let mut stream = connect(api.address());
        stream.write_all(what.as_bytes()).unwrap();
        stream
    };
    let body = |headers: &[(&str, &str)], length: &str, part: &str| {
        let mut stream = api.begin("POST", "/v1/pins", headers, length);
        stream.write_all(part.as_bytes()).unwrap();
        stream
    };
    let hundred_thousand: String = (0..100_000).map(|number| line(&format!("sim-many-{number}"))).collect();
    let mut all = Vec::new();
    for _ in 0..20 {
        // Slowloris: a head that does not end, with and without a token.
        all.push(partly("POST /v1/pins HTTP/1.1\r\nhost: localhost\r\nx-a: "));
        all.push(partly(&format!(
            "GET /v1/stats HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n",
            api.read
        )));
        // The first half of a body, of each kind.
        all.push(body(&json, "content-length: 100\r\n", "{\"pinId\":"));
        all.push(body(&[LINES], "content-length: 1000000\r\n", "{\"pinId\":"));
        all.push(body(&[LINES], "transfer-encoding: chunked\r\n", "fff\r\n{"));
        // An HTTP/2 connection that begins and says no more.
        all.push(partly("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    }
    // A hundred thousand lines whose answers nobody reads.
    let length = format!("content-length: {}\r\n", hundred_thousand.len());
    all.push(body(&[LINES], &length, &hundred_thousand));
    all
}

#[test]
fn others_are_served_while_slow_clients_of_every_kind_stay_connected() {
    let api = Api::start();
    let slow = bad_clients(&api);
    // A head that is too long is refused at once.
    let huge = [("x-huge", "x".repeat(1 << 20))];
    let huge: Vec<_> = huge.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let refused = api.try_ask("GET", "/v1/stats", &huge, "");
    assert!(refused.is_none_or(|answer| answer.status == 431), "it was served");
    // The slow ones have the administrator's token, and use up the room that its name has.
    let [submitter, reader] = [&api.submit, &api.read].map(|token| format!("Bearer {token}"));
    for number in 0..20 {
        let headers = [("authorization", submitter.as_str()), ("content-type", JSON)];
        let response = api.ask("POST", "/v1/pins", &headers, line(&format!("sim-waiting-{number}")));
        assert_eq!(response.status, 202, "{response:?}");
        assert_eq!(api.ask("GET", "/v1/stats", &[("authorization", &reader)], "").status, 200);
        assert_eq!(api.served.get("/metrics").status, 200);
        assert_eq!(api.served.get("/healthz").status, 200);
    }
    // None of them had ended meanwhile: the others did not wait for that.
    let open = slow.iter().filter(|stream| is_open(stream)).count();
    assert_eq!(open, slow.len(), "some were closed, so this test shows less than it says");
}

/// Whether the server has neither closed nor reset a connection. Bytes that wait to be read do not count.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.peek(&mut [0]) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn submits_beyond_max_in_flight_get_503_with_the_result_of_each() {
    let api = Api::with(&["intake.max_in_flight=2"]);
    let post = |kind, body: &str| api.post("/v1/pins", kind, body);
    let items: Vec<_> = waiting(3).iter().map(|pin| line(pin)).collect();
    let partly = post(JSON, &format!("[{}]", items.join(",")));
    assert_eq!((partly.status, partly.code().as_str()), (503, "at_capacity"));
    assert!(partly.headers["retry-after"].parse::<u64>().is_ok_and(|seconds| seconds > 0));
    let results = partly.json()["results"].clone();
    let states: Vec<_> = results.as_array().unwrap().iter().map(|answer| answer["state"].clone()).collect();
    assert_eq!(states, [json!("accepted"), json!("accepted"), Value::Null], "{results}");
    assert_eq!(results[2]["error"]["code"], "at_capacity");
    let one = post(JSON, &line("sim-waiting-9"));
    assert_eq!((one.status, one.code().as_str()), (503, "at_capacity"));
    let lines = post(NDJSON, &line("sim-waiting-9"));
    assert_eq!((lines.status, lines.code().as_str()), (503, "at_capacity"));
    // One of them is known already.
    let mixed = post(NDJSON, &(line("sim-waiting-0") + &line("sim-waiting-9")));
    assert_eq!(mixed.status, 202, "{mixed:?}");
    assert_eq!(mixed.lines()[0]["state"], "duplicate");
    assert_eq!(mixed.lines()[1]["error"]["code"], "at_capacity");
}

#[test]
fn a_daemon_that_stops_answers_503_and_ends_streams() {
    let mut api = Api::with(&["shutdown_grace=60s", "api.timeout=60s"]);
    let mut lines = api.begin("POST", "/v1/pins", &[LINES], "transfer-encoding: chunked\r\n");
    lines.write_all(chunk(&line("sim-stall-1")).as_bytes()).unwrap();
    let mut lines = Stream::read(lines);
    assert_eq!(parse(&lines.line().unwrap())["state"], "accepted");
    let events = api.stream("GET", "/v1/outcomes", &[("accept", "text/event-stream")], "");
    let wait = api.begin("GET", "/v1/pins/sim-stall-1/outcome?wait=5m", &[], "");
    api.served.until("pinwatch_polls_in_flight", 1.0);
    api.served.daemon.signal(Signal::TERM);
    let problem = until("it stops", || Some(api.get("/v1/stats")).filter(|answer| answer.status == 503));
    assert_eq!(problem.code(), "shutting_down");
    assert!(problem.headers.contains_key("retry-after"));
    assert_eq!(parse(&lines.line().unwrap())["error"]["code"], "shutting_down");
    assert!(lines.rest().is_whole && events.rest().is_whole);
    let wait = Stream::read(wait).rest();
    assert_eq!((wait.status, wait.code().as_str()), (503, "shutting_down"));
    api.served.daemon.signal(Signal::TERM);
    api.served.daemon.wait();
}

#[test]
fn every_202_has_its_outcome_after_a_kill_9_in_the_middle_of_submits() {
    let rounds = 3;
    let mut api = Api::start();
    let mut promised = HashSet::new();
    for round in 0..rounds {
        let pins = |what: &str| -> Vec<String> {
            (0..20_000).map(|n| format!("sim-delivered-{round}-{what}-{n}")).collect()
        };
        let (streamed, single, listed) = (pins("lines"), pins("one"), pins("array"));
        let newest = |api: &Api| {
            api.served.daemon.try_client().and_then(|mut client| client.stats()["newestSeq"].as_i64())
        };
        let enough = newest(&api).unwrap() + 1000;
        let body: String = streamed.iter().map(|pin| line(pin)).collect();
        let answered = thread::scope(|scope| {
            let lines = scope.spawn(|| {
                let stream =
                    api.begin("POST", "/v1/pins", &[LINES], &format!("content-length: {}\r\n", body.len()));
                let mut writing = stream.try_clone().unwrap();
                let body = &body;
                scope.spawn(move || writing.write_all(body.as_bytes()));
                let mut answered = Vec::new();
                if let Some(mut stream) = Stream::try_read(stream) {
                    answered.extend(std::iter::from_fn(|| stream.line()));
                }
                answered
            });
            let singles = scope.spawn(|| {
                let answers = single.iter().map_while(|pin| try_post(&api, &line(pin)));
                answers.collect::<Vec<_>>()
            });
            let arrays = scope.spawn(|| {
                let answers = listed.chunks(100).map_while(|pins| {
                    let items: Vec<_> = pins.iter().map(|pin| line(pin)).collect();
                    try_post(&api, &format!("[{}]", items.join(",")))
                });
                answers.collect::<Vec<_>>()
            });
            // In the middle of all three.
            until_true("some were taken", || newest(&api).is_some_and(|seq| seq >= enough));
            api.served.daemon.signal(Signal::KILL);
            [lines, singles, arrays].map(|client| client.join().unwrap())
        });
        let [lines, singles, arrays] = answered;
        let answers = lines.iter().chain(&singles).map(|line| parse(line));
        let in_arrays = arrays.iter().flat_map(|array| parse(array).as_array().unwrap().clone());
        for answer in answers.chain(in_arrays) {
            assert_eq!(answer["ok"], true, "{answer}");
            promised.insert(answer["pinId"].as_str().unwrap().to_owned());
        }
        api.served.restart();
    }
    assert!(promised.len() > 1000, "{} PINs were acked", promised.len());
    let mut client = api.served.daemon.client();
    // Some 50,000 PINs, whose end takes minutes on a loaded machine.
    let mut in_flight = || client.stats()["inFlight"].as_u64().unwrap();
    let mut left = in_flight();
    while left > 0 {
        left = until("more are finished", || Some(in_flight()).filter(|now| *now < left));
    }
    let finished: Vec<String> =
        client.outbox().iter().map(|record| parse(record)["pinId"].as_str().unwrap().to_owned()).collect();
    let each = finished.iter().collect::<HashSet<_>>();
    assert_eq!(each.len(), finished.len(), "a PIN has two outcomes");
    let lost: Vec<_> = promised.iter().filter(|pin| !each.contains(pin)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {:?}", lost.len(), promised.len(), lost.first());
}

/// The body of a 202; `None` where the daemon ended first.
fn try_post(api: &Api, body: &str) -> Option<String> {
    let response = api.try_ask("POST", "/v1/pins", &[("content-type", JSON)], body)?;
    (response.status == 202 && response.is_whole).then_some(response.body)
}
