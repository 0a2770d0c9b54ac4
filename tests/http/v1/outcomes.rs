//! Outcomes as pages and as events, from any position, without gap or duplicate.

use std::thread;

use fastrand::Rng;
use serde_json::{Value, json};

use super::client::{Api, JSON, Stream};
use crate::support::json as parse;

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

/// An event, or another part of the stream.
#[derive(Debug, Default)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

/// The next event; `None` at the end of the stream, also in the middle of one.
fn event(stream: &mut Stream) -> Option<Event> {
    let mut event = Event::default();
    loop {
        let line = stream.line()?;
        match line.split_once(": ") {
            Some(("id", id)) => event.id = Some(id.to_owned()),
            Some(("event", name)) => event.name = name.to_owned(),
            Some(("data", data)) => event.data = data.to_owned(),
            _ if line.is_empty() => return Some(event),
            _ => {}
        }
    }
}

fn seqs(records: &[Value]) -> Vec<i64> {
    records.iter().map(|record| record["seq"].as_i64().unwrap()).collect()
}

#[test]
fn pages_of_any_length_have_every_outcome_once() {
    let api = Api::start();
    let pins: Vec<_> = (0..700).map(|number| format!("sim-delivered-{number}")).collect();
    api.served.finish(&pins.iter().map(String::as_str).collect::<Vec<_>>());
    let all = api.get("/v1/outcomes").lines();
    assert_eq!(all.len(), 701);
    assert!(seqs(&all[..700]).is_sorted_by(|a, b| a < b));
    for limit in [1, 255, 256, 257, 700, 701] {
        let (mut read, mut after) = (Vec::new(), String::new());
        loop {
            let mut page = api.get(&format!("/v1/outcomes?limit={limit}{after}")).lines();
            let end = page.pop().unwrap();
            assert!(end["end"] == true && page.len() <= limit, "{end}");
            if page.is_empty() {
                break;
            }
            after = format!("&after={}", end["position"].as_str().unwrap());
            read.extend(page);
            // Pages of one would take long.
            if limit == 1 && read.len() == 3 {
                break;
            }
        }
        assert_eq!(read[..], all[..if limit == 1 { 3 } else { 700 }], "limit {limit}");
    }
    let newest = api.get("/v1/outcomes?last=3").lines();
    assert_eq!(newest[..3], all[697..700]);
    assert_eq!(api.get("/v1/outcomes?last=0").lines().len(), 1);
}

#[test]
fn a_broken_stream_of_events_continues_without_gap_or_duplicate() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let api = Api::start();
    let pins: Vec<_> = (0..2000).map(|number| format!("sim-delivered-{number}")).collect();
    let begun = api.get("/v1/outcomes?last=0").lines()[0]["position"].as_str().unwrap().to_owned();
    thread::scope(|scope| {
        scope.spawn(|| {
            for pins in pins.chunks(50) {
                let items: Vec<_> = pins.iter().map(|pin| json!({"pinId": pin}).to_string()).collect();
                assert_eq!(api.post("/v1/pins", JSON, format!("[{}]", items.join(","))).status, 202);
            }
        });
        let (mut read, mut last_id, mut connections) = (Vec::new(), begun.clone(), 0);
        while read.len() < pins.len() {
            // A browser repeats the same `after` when it reconnects; the header takes precedence.
            let headers = [EVENTS, ("last-event-id", last_id.as_str())];
            let mut stream = api.stream("GET", &format!("/v1/outcomes?after={begun}"), &headers, "");
            assert_eq!(stream.headers["content-type"], "text/event-stream");
            connections += 1;
            let first = event(&mut stream).unwrap();
            assert!(first.id.is_some() && first.data.is_empty(), "{first:?}");
            for _ in 0..random.usize(1..400) {
                if read.len() == pins.len() {
                    break;
                }
                let Some(event) = event(&mut stream) else { panic!("it ended") };
                if event.data.is_empty() {
                    continue;
                }
                assert_eq!(event.name, "outcome");
                read.push(parse(&event.data));
                last_id = event.id.unwrap();
            }
            // The connection breaks in the middle of an event.
            drop(stream);
        }
        assert!(connections > 3);
        let all = api.get("/v1/outcomes?limit=10000").lines();
        assert_eq!(seqs(&read), seqs(&all[..pins.len()]));
    });
}

#[test]
fn a_stream_sends_its_position_first_so_that_a_reconnect_misses_nothing() {
    let api = Api::start();
    api.served.finish(&["sim-delivered-1"]);
    let mut stream = api.stream("GET", "/v1/outcomes?last=0", &[EVENTS], "");
    let position = event(&mut stream).unwrap().id.unwrap();
    drop(stream);
    api.served.finish(&["sim-delivered-2"]);
    let mut stream = api.stream("GET", "/v1/outcomes?last=0", &[EVENTS, ("last-event-id", &position)], "");
    event(&mut stream).unwrap();
    assert_eq!(parse(&event(&mut stream).unwrap().data)["pinId"], "sim-delivered-2");
}

#[test]
fn a_reader_is_told_which_outcomes_retention_removed_before_it_read_them() {
    let api = Api::start();
    api.served.finish(&["sim-delivered-1", "sim-delivered-2"]);
    let mut api = api.pruned("DELETE FROM outcome WHERE seq <= 1; UPDATE history SET pruned_to = 1");
    let lines = api.get("/v1/outcomes?after=p0").lines();
    assert_eq!(lines[0], json!({"ok": true, "removed": {"from": 1, "to": 1}}), "{lines:?}");
    assert_eq!((lines.len(), &lines[1]["seq"]), (3, &json!(2)));
    let mut stream = api.stream("GET", "/v1/outcomes?after=p0", &[EVENTS], "");
    event(&mut stream).unwrap();
    let removed = event(&mut stream).unwrap();
    assert_eq!((removed.name.as_str(), parse(&removed.data)), ("removed", json!({"from": 1, "to": 1})));
    let next = event(&mut stream).unwrap();
    assert_eq!((parse(&next.data)["seq"].clone(), next.id.as_deref()), (json!(2), Some("p2")));
    // Without a position there is nothing to miss.
    assert_eq!(api.get("/v1/outcomes").lines()[0]["seq"], 2);
    drop(stream);
    api = api.pruned("DELETE FROM outcome; UPDATE history SET pruned_to = 2");
    let mut stream = api.stream("GET", "/v1/outcomes?after=p0", &[EVENTS], "");
    event(&mut stream).unwrap();
    let removed = event(&mut stream).unwrap();
    assert_eq!(
        (removed.name.as_str(), removed.id.as_deref()),
        ("removed", Some("p2")),
        "who goes on is not told again"
    );
}
