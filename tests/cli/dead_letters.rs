//! Dead letters, replays and removed sinks, with the real daemon and the real commands. What a sink refused
//! is written into the store through the library while no daemon runs.

use std::time::Duration;

use crate::support::{Daemon, Place, until};
use jiff::{SignedDuration, Timestamp};
use pinwatch::clock::Clock;
use pinwatch::outcome::{Ending, Verdict};
use pinwatch::store::{self, Committed, Failed, NewPin, Progress, Writer};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

/// Nothing listens there: the only outcomes are those of `cancel`.
pub const NOWHERE: &str = "http://127.0.0.1:9";

pub fn start(place: &Place, sinks: &[&str]) -> Daemon {
    place.clone().file_sinks(sinks).start()
}

/// Submits and cancels PINs one by one, so that their `seq` is known.
#[track_caller]
fn finish(place: &Place, pins: &[&str]) {
    for pin in pins {
        place.ask(&["submit", pin, "--again"]);
        assert_eq!(place.ask(&["cancel", pin])[0]["state"], "cancelled");
    }
}

/// Runs `work` on the store while no daemon runs.
fn offline<T>(place: &Place, work: impl AsyncFnOnce(&Writer) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, connection) =
            store::open_sqlite(&place.store(), &Clock::system()).await.unwrap().load(|_| {}).await.unwrap();
        // Nothing receives the notices of commits.
        let (committed, _) = tokio::sync::mpsc::channel::<Committed>(1);
        let (writer, task) = Writer::new(connection, committed, usize::MAX);
        let task = tokio::spawn(task.run());
        let done = work(&writer).await;
        writer.flush().await.unwrap();
        drop(writer);
        assert_eq!(task.await.unwrap(), 0);
        store.close().await;
        done
    })
}

/// Submits and ends many PINs at once.
pub fn finish_offline(place: &Place, count: usize, metadata: Option<&str>) {
    let (now, metadata) = (Timestamp::now(), metadata.map(|json| serde_json::from_str(json).unwrap()));
    let new = |n: usize| NewPin {
        pin: format!("PIN-{n}").parse().unwrap(),
        reference: None,
        metadata: metadata.clone(),
        submitted_at: now.into(),
        deadline_at: now,
        submitter: None,
        again: false,
    };
    offline(place, async |writer| {
        let pins: Vec<_> = (0..count).map(new).collect();
        let ids: Vec<_> = pins.iter().map(|new| new.pin.clone()).collect();
        writer.submit(pins).await.unwrap();
        for pin in ids {
            let (ending, deliveries, error) = (Ending::Final, None, None);
            let verdict = Verdict { pin, ending, deliveries, error, polls: 1, finished_at: now.into() };
            while writer.try_finish(verdict.clone()).is_err() {
                writer.room().await;
            }
        }
    });
}

/// Turns these outcomes into dead letters of a sink.
pub fn kill(place: &Place, sink: &str, seqs: impl IntoIterator<Item = i64>) {
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap().into());
    let failed = seqs.into_iter().map(|seq| Failed {
        seq,
        dead: true,
        tries: 3,
        first_try_at: at("2026-01-02T03:04:05Z"),
        last_try_at: at("2026-01-02T03:05:05Z"),
        error: Some("410 Gone".into()),
    });
    let progress = Progress { sink: sink.into(), failed: failed.collect(), ..Progress::default() };
    offline(place, async |writer| writer.advance(progress).await);
}

/// The `seq` of each dead letter.
#[track_caller]
pub fn dead(place: &Place, args: &[&str]) -> Vec<i64> {
    let letters = place.ask(&[&["dead-letters", "list"], args].concat());
    // The last line says whether there are more.
    letters.iter().filter_map(|letter| letter["seq"].as_i64()).collect()
}

/// A folder in which a daemon delivered these PINs to its only sink, and was stopped.
fn after(pins: &[&str]) -> Place {
    let place = Place::new(NOWHERE);
    let daemon = start(&place, &["results"]);
    finish(&place, pins);
    place.lines("results", pins.len());
    daemon.terminate();
    place
}

#[test]
fn list_show_and_stats_report_dead_letters() {
    let place = after(&["A", "B", "C"]);
    kill(&place, "results", [1, 3]);
    let _daemon = start(&place, &["results"]);
    let letters = place.ask(&["dead-letters", "list", "--sink", "results"]);
    let outcome: Value = serde_json::from_str(&place.lines("results", 3)[0]).unwrap();
    let first = json!({"sink": "results", "seq": 1, "pinId": "A", "tries": 3, "since": "2026-01-02T03:04:05.000Z",
                       "lastTryAt": "2026-01-02T03:05:05.000Z", "error": "410 Gone", "outcome": outcome});
    assert_eq!((letters.len(), &letters[0], &letters[1]["pinId"]), (2, &first, &json!("C")));
    for which in
        [&["A"][..], &["--seq", "1"], &["A", "--sink", "results"], &["--seq", "1", "--sink", "results"]]
    {
        assert_eq!(place.ask(&[&["dead-letters", "show"], which].concat()), std::slice::from_ref(&first));
    }
    for none in [&["B"][..], &["--seq", "2"]] {
        place
            .pinwatch(&[&["dead-letters", "show"], none].concat())
            .assert()
            .code(1)
            .stdout(contains("not_found"));
    }
    assert_eq!(dead(&place, &["--limit", "1"]), [1]);
    assert_eq!(dead(&place, &["--after", "results/1"]), [3]);
    let state = &place.ask(&["show", "A"])[0]["sinks"][0];
    assert_eq!(
        (&state["state"], &state["tries"], &state["lastError"]),
        (&json!("dead_letter"), &json!(3), &json!("410 Gone"))
    );
    let sinks = place.ask(&["sinks", "list"]);
    assert_eq!(
        (&sinks[0]["name"], &sinks[0]["configured"], &sinks[0]["deadLetters"]),
        (&json!("results"), &json!(true), &json!(2))
    );
}

#[test]
fn a_replayed_dead_letter_is_delivered_unchanged_and_exactly_once_over_a_restart() {
    let place = after(&["A", "B", "C"]);
    kill(&place, "results", [1, 3]);
    let daemon = start(&place, &["results"]);
    let replay =
        |which: &[&str]| place.ask(&[&["dead-letters", "replay", "--sink", "results"], which].concat());
    assert_eq!(replay(&["A"]), [json!({"sink": "results", "pinId": "A", "count": 1})]);
    let lines = place.lines("results", 4);
    assert_eq!(lines[3], lines[0]);
    assert_eq!(dead(&place, &[]), [3]);
    place
        .pinwatch(&["dead-letters", "replay", "--sink", "results", "A", "--json"])
        .assert()
        .code(1)
        .stderr(contains("PIN A: no dead letter of this sink"));
    assert_eq!(replay(&["--all", "--yes"]), [json!({"sink": "results", "count": 1})]);
    let lines = place.lines("results", 5);
    assert_eq!(lines[4], lines[2]);
    assert_eq!(dead(&place, &[]), [0; 0]);
    daemon.terminate();

    let daemon = start(&place, &["results"]);
    finish(&place, &["D"]);
    let lines = place.lines("results", 6);
    assert!(lines[5].starts_with("{\"seq\":4,"), "{}", lines[5]);
    daemon.terminate();
    place.lines("results", 6);
}

#[test]
fn replaying_a_pin_with_two_outcomes_replays_the_dead_letter_first() {
    let place = after(&["A", "A"]);
    kill(&place, "results", [1]);
    let _daemon = start(&place, &["results"]);
    assert_eq!(place.ask(&["dead-letters", "replay", "--sink", "results", "A"])[0]["count"], 1);
    let lines = place.lines("results", 3);
    assert_eq!(lines[2], lines[0]);
    // Without a dead letter, the newest outcome is meant.
    assert_eq!(place.ask(&["replay", "--sink", "results", "A"])[0]["count"], 1);
    let lines = place.lines("results", 4);
    assert_eq!(lines[3], lines[1]);
}

#[test]
fn a_dropped_dead_letter_is_not_delivered_but_its_outcome_can_be_replayed() {
    let place = after(&["A", "B", "C"]);
    kill(&place, "results", [1, 2, 3]);
    let daemon = start(&place, &["results"]);
    let drop = |which: &[&str]| {
        place.ask(&[&["dead-letters", "drop", "--sink", "results"], which].concat())[0]["count"].clone()
    };
    assert_eq!(drop(&["B"]), 1);
    assert_eq!(dead(&place, &[]), [1, 3]);
    assert_eq!(drop(&["--seq=1"]), 1);
    assert_eq!(drop(&["--all", "--yes"]), 1);
    assert_eq!(drop(&["--all", "--yes"]), 0);
    assert_eq!(dead(&place, &[]), [0; 0]);
    place
        .pinwatch(&["dead-letters", "drop", "--sink", "results", "B", "never"])
        .assert()
        .code(1)
        .stderr(contains("PIN B: no dead letter").and(contains("PIN never was never submitted")));
    daemon.terminate();
    let _daemon = start(&place, &["results"]);
    let state = || place.ask(&["show", "B"])[0]["sinks"][0].clone();
    assert_eq!(state()["state"], "dropped");
    let since: Timestamp = state()["since"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(since) < SignedDuration::from_mins(10), "since {since}");
    assert_eq!(place.ask(&["replay", "--sink", "results", "B"])[0]["count"], 1);
    let lines = place.lines("results", 4);
    assert_eq!(lines[3], lines[1]);
    until("it is told as delivered", || (state()["state"] == "delivered").then_some(()));
}

#[test]
fn a_range_is_replayed_in_order_and_an_empty_range_is_reported() {
    let place = after(&["A", "B", "C", "D"]);
    let _daemon = start(&place, &["results"]);
    let replay = |from: &str, to: &str| {
        place.pinwatch(&["replay", "--sink", "results", "--from", from, "--to", to]).assert()
    };
    replay("2", "3").code(0).stdout("{\"sink\":\"results\",\"from\":2,\"to\":3,\"count\":2}\n");
    let lines = place.lines("results", 6);
    assert_eq!(lines[4..], lines[1..3]);
    replay("5", "900").code(1).stderr(contains("seq 5 to 900: nothing to replay"));
    finish(&place, &["E"]);
    place.lines("results", 7);
}

#[test]
fn a_kill_during_a_replay_loses_nothing_and_repeats_only_replayed_outcomes() {
    // More than one batch of a dispatcher.
    const MANY: usize = 600;
    let place = Place::new(NOWHERE);
    finish_offline(&place, MANY, None);
    let daemon = start(&place, &["results"]);
    place.lines("results", MANY);
    place.ask(&["replay", "--sink", "results", "--from", "1", "--to", &(MANY - 1).to_string()]);
    // Dropping it is a kill -9 at any moment.
    drop(daemon);

    let daemon = start(&place, &["results"]);
    until("the end of the replay", || (place.ask(&["sinks", "list"])[0]["retrying"] == 0).then_some(()));
    daemon.terminate();
    let text = std::fs::read_to_string(place.sink_file("results")).unwrap();
    let mut times = vec![0; MANY + 1];
    for line in text.lines() {
        times[serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap() as usize] += 1;
    }
    assert_eq!(times[MANY], 1);
    assert!(times[1..MANY].iter().all(|times| (2..=3).contains(times)), "{times:?}");
}

#[test]
fn dead_letters_with_large_outcomes_come_in_pages_that_a_client_can_read() {
    const MANY: usize = 90;
    let place = Place::new(NOWHERE);
    finish_offline(&place, MANY, Some(&format!("\"{}\"", "x".repeat(60_000))));
    let daemon = start(&place, &["results"]);
    place.lines("results", MANY);
    daemon.terminate();
    kill(&place, "results", 1..=MANY as i64);
    let _daemon = start(&place, &["results"]);
    assert_eq!(dead(&place, &[]), (1..=MANY as i64).collect::<Vec<_>>());
}

#[test]
fn a_removed_sink_can_be_forgotten_and_retention_then_removes_its_outcomes() {
    let place = Place::new(NOWHERE);
    let daemon = start(&place, &["old", "results"]);
    finish(&place, &["A"]);
    place.lines("old", 1);
    place.lines("results", 1);
    daemon.terminate();
    let daemon = start(&place, &["results"]);
    finish(&place, &["B", "C"]);
    place.lines("results", 3);
    daemon.terminate();
    // As retention does.
    let prune = || {
        let later = Clock::system().steady().after(Duration::from_secs(3600));
        offline(&place, async |writer| writer.prune(later).await.unwrap())
    };
    assert_eq!(prune(), 1, "only what both sinks have");

    let daemon = start(&place, &["results"]);
    let sinks = place.ask(&["sinks", "list"]);
    let told: Vec<_> = sinks
        .iter()
        .map(|sink| json!([sink["name"], sink["configured"], sink["cursor"], sink["behind"]]))
        .collect();
    assert_eq!(told, [json!(["results", true, 3, 0]), json!(["old", false, 1, 2])]);
    for (args, code, problem) in [
        (
            &["replay", "--sink", "old", "B"][..],
            1,
            "\"old\" is not configured any more: nothing can be delivered to it",
        ),
        (
            &["dead-letters", "replay", "--sink", "old", "--all", "--yes"],
            1,
            "\"old\" is not configured any more",
        ),
        (&["replay", "--sink", "odl", "B"], 1, "there is no sink \"odl\"; there are: old, results"),
        (&["dead-letters", "list", "--sink", "odl"], 1, "there is no sink \"odl\""),
        (&["sinks", "forget", "odl"], 1, "there is no sink \"odl\""),
        (&["sinks", "forget", "results"], 1, "\"results\" is configured: take it out of the configuration"),
    ] {
        place.pinwatch(args).assert().code(code).stderr(contains(problem));
    }
    assert_eq!(place.ask(&["sinks", "forget", "old"]), [json!({"sink": "old", "forgotten": true})]);
    assert_eq!(place.ask(&["sinks", "list"]).len(), 1);
    daemon.terminate();
    assert_eq!(prune(), 2, "nobody lacks them any more");
}

#[test]
fn a_dead_letter_keeps_its_outcome_from_retention_until_it_is_dropped() {
    let place = after(&["A", "B"]);
    kill(&place, "results", [1]);
    let prune = || {
        let later = Clock::system().steady().after(Duration::from_secs(3600));
        offline(&place, async |writer| writer.prune(later).await.unwrap())
    };
    assert_eq!(prune(), 1);
    let daemon = start(&place, &["results"]);
    assert_eq!(place.ask(&["dead-letters", "show", "A"])[0]["outcome"]["seq"], 1);
    // Retention removed the newest outcome; its seq is still the last one that was used.
    use std::io::{BufRead, Write};
    let mut socket = std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(b"{\"op\":\"tail\",\"last\":0}\n").unwrap();
    let mut line = String::new();
    std::io::BufReader::new(socket).read_line(&mut line).unwrap();
    assert_eq!(line, "{\"ok\":true,\"end\":true,\"next\":3,\"position\":\"p2\"}\n");
    place.ask(&["dead-letters", "drop", "--sink", "results", "A"]);
    daemon.terminate();
    assert_eq!(prune(), 1);
}
