//! Filters over HTTP: of outcomes, of dead letters, and of what is delivered again or dropped.

use serde_json::{Value, json};

use super::client::{Api, JSON};
use crate::support::{Place, until};

/// A daemon with three outcomes, of which the first two are dead letters of its file sink.
fn with_dead() -> Api {
    let api = Api::start();
    for (pin, reference) in
        [("sim-delivered-1", "a-1"), ("sim-delivered-2", "b-2"), ("sim-delivered-3", "a-3")]
    {
        let body = json!({"pinId": pin, "reference": reference}).to_string();
        assert_eq!(api.post("/v1/pins", JSON, body).status, 202);
        let outcome = format!("/v1/pins/{pin}/outcome?wait=1m");
        assert_eq!(api.get(&outcome).status, 200);
    }
    until("the sink has them", || (api.served.place.records().len() == 3).then_some(()));
    let dead = "INSERT INTO delivery (sink, seq, dead, tries, error) \
                SELECT 'file', seq, 1, 3, '410 Gone' FROM outcome ORDER BY seq LIMIT 2";
    api.pruned(dead)
}

fn pins(items: &[Value]) -> Vec<&str> {
    items.iter().filter_map(|item| item["pinId"].as_str()).collect()
}

fn written(place: &Place) -> Vec<String> {
    place.records().iter().map(|record| record["pinId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn outcomes_that_match_are_sent_and_positions_move_past_the_others() {
    let api = with_dead();
    let ask = |query: &str| {
        let mut lines = api.get(&format!("/v1/outcomes?{query}")).lines();
        let end = lines.pop().unwrap();
        assert_eq!(end["end"], true, "{end}");
        (lines, end["position"].as_str().unwrap().to_owned())
    };
    let (lines, end) = ask("referencePrefix=a-");
    assert_eq!(pins(&lines), ["sim-delivered-1", "sim-delivered-3"]);
    let (lines, first) = ask("referencePrefix=a-&limit=1");
    assert_eq!(pins(&lines), ["sim-delivered-1"]);
    assert_eq!(pins(&ask(&format!("referencePrefix=a-&after={first}")).0), ["sim-delivered-3"]);
    assert_eq!(ask("reference=a").1, end, "past all that do not match");
    assert_eq!(pins(&ask("sink=file").0), ["sim-delivered-1", "sim-delivered-2"]);
    assert_eq!(
        pins(&ask("sink=file&state=final&status=MESSAGE_DELIVERED&reference=b-2").0),
        ["sim-delivered-2"]
    );
    assert_eq!(ask("olderThan=2020-01-01T00:00:00Z").0, [Value::Null; 0]);
    assert_eq!(ask("newerThan=2020-01-01T00:00:00%2B02:00").0.len(), 3);

    let events = api.stream("GET", "/v1/outcomes?reference=b-2", &[("accept", "text/event-stream")], "");
    let (mut events, mut seen) = (events, Vec::new());
    while seen.last().is_none_or(|line| *line != format!("id: {end}")) {
        seen.push(events.line().unwrap());
    }
    let records: Vec<_> = seen.iter().filter(|line| line.starts_with("data: ")).collect();
    assert!(records.len() == 1 && records[0].contains("sim-delivered-2"), "{seen:#?}");

    for (query, status) in [
        ("state=in_flight", 422),
        ("state=gone", 422),
        ("olderThan=soon", 422),
        ("reference=a&reference=b", 422),
        ("reference=%00", 422),
        ("sink=none", 404),
    ] {
        let refused = api.get(&format!("/v1/outcomes?{query}"));
        assert_eq!(refused.status, status, "{query}: {refused:?}");
    }
}

#[test]
fn finished_pins_are_listed_by_the_sink_that_does_not_have_their_outcome() {
    let api = with_dead();
    let page = api.get("/v1/pins?state=finished&sink=file").json();
    assert_eq!(pins(page["pins"].as_array().unwrap()), ["sim-delivered-1", "sim-delivered-2"]);
    assert_eq!(api.get("/v1/pins?sink=file").code(), "invalid_request");
    assert_eq!(api.get("/v1/pins?state=finished&sink=none").code(), "not_found");
}

#[test]
fn dead_letters_that_match_are_listed_delivered_again_and_dropped() {
    let api = with_dead();
    let list = |query: &str| api.get(&format!("/v1/dead-letters?{query}")).json()["deadLetters"].clone();
    assert_eq!(pins(list("referencePrefix=a").as_array().unwrap()), ["sim-delivered-1"]);
    assert_eq!(
        pins(list("sink=file&status=MESSAGE_DELIVERED&limit=1").as_array().unwrap()),
        ["sim-delivered-1"]
    );
    assert_eq!(list("state=rejected"), json!([]));
    let post = |path: &str, body: Value| api.post(path, JSON, body.to_string()).json();
    let filter = json!({"referencePrefix": "a-"});
    let replayed = post("/v1/dead-letters/replay", json!({"sink": "file", "filter": filter}));
    assert_eq!(replayed, json!({"ok": true, "count": 1}));
    until("it comes again", || (written(&api.served.place).len() == 4).then_some(()));
    assert_eq!(written(&api.served.place)[3], "sim-delivered-1");
    // Until that is on the disk, another replay of it would be the same one.
    let lacking = || api.get("/v1/outcomes?sink=file").lines();
    until("the daemon has noted it", || (pins(&lacking()) == ["sim-delivered-2"]).then_some(()));
    let drop = || post("/v1/dead-letters/drop", json!({"sink": "file", "all": true}));
    assert_eq!((drop(), drop()), (json!({"ok": true, "count": 1}), json!({"ok": true, "count": 0})));
    assert_eq!(list(""), json!([]));
    let replayed = post("/v1/sinks/file/replay", json!({"filter": filter}));
    assert_eq!(replayed, json!({"ok": true, "count": 2}));
    until("they come again", || (written(&api.served.place).len() == 6).then_some(()));
    for (path, body) in [
        ("/v1/sinks/file/replay", json!({"filter": {}})),
        ("/v1/sinks/file/replay", json!({"filter": {"sink": "file"}})),
        ("/v1/sinks/file/replay", json!({"all": true, "pinId": "sim-delivered-1"})),
        ("/v1/dead-letters/drop", json!({"sink": "file", "filter": {"state": "in_flight"}})),
        ("/v1/dead-letters/replay", json!({"sink": "file", "all": true, "after": "nonsense"})),
    ] {
        assert_eq!(api.post(path, JSON, body.to_string()).code(), "invalid_request", "{path} {body}");
    }
    let what = "reference a-*";
    until("the log has the filter", || api.served.daemon.log().contains(what).then_some(()));
}

#[test]
fn pins_in_flight_that_match_are_cancelled_and_no_others() {
    let api = Api::start();
    for (pin, reference) in [("sim-waiting-1", "a-1"), ("sim-waiting-2", "b-2"), ("sim-waiting-3", "a-3")] {
        let body = json!({"pinId": pin, "reference": reference}).to_string();
        assert_eq!(api.post("/v1/pins", JSON, body).status, 202);
    }
    let cancel = |body: Value| api.post("/v1/pins/cancel", JSON, body.to_string());
    let in_flight = |query: &str| api.get(&format!("/v1/pins?{query}")).json()["pins"].clone();
    for body in [
        json!({}),
        json!({"filter": {}}),
        json!({"filter": {"state": "finished"}}),
        json!({"filter": {"sink": "file"}}),
        json!({"filter": {"refrence": "a-1"}}),
    ] {
        assert_eq!(cancel(body.clone()).code(), "invalid_request", "{body}");
    }
    // The status of a PIN is known once it was polled.
    let waiting = "status=MESSAGE_WAITING_DELIVERY";
    until("all were polled", || (in_flight(waiting).as_array().unwrap().len() == 3).then_some(()));
    let none = json!({"filter": {"referencePrefix": "a-", "status": "MESSAGE_DELIVERED"}});
    assert_eq!(cancel(none).json(), json!({"ok": true, "count": 0}));
    let some = json!({"filter": {"referencePrefix": "a-", "status": "MESSAGE_WAITING_DELIVERY"}});
    assert_eq!(cancel(some.clone()).json(), json!({"ok": true, "count": 2}));
    assert_eq!(cancel(some).json(), json!({"ok": true, "count": 0}));
    assert_eq!(pins(in_flight("").as_array().unwrap()), ["sim-waiting-2"]);
    let ended = api.get("/v1/pins?state=cancelled").json();
    assert_eq!(pins(ended["pins"].as_array().unwrap()).len(), 2);
    assert_eq!(cancel(json!({"all": true})).json(), json!({"ok": true, "count": 1}));
}

#[test]
fn a_letter_that_died_after_the_preview_is_left_alone() {
    // The PINs have ended, and the last try is in the year 2100.
    let api = with_dead().pruned("UPDATE delivery SET last_try_at = 4102444800000");
    let post = |path: &str, body: Value| api.post(path, JSON, body.to_string()).json();
    for (older, expected) in [("2099-01-01T00:00:00Z", 0), ("2101-01-01T00:00:00Z", 2)] {
        let body = json!({"sink": "file", "filter": {"olderThan": older}});
        let dropped = post("/v1/dead-letters/drop", body);
        assert_eq!(dropped, json!({"ok": true, "count": expected}), "{older}");
    }
}
