//! `--all` with filters: a preview, a question, parts; by the real commands on a real daemon, and where a part waits, on a
//! scripted one.

use std::io::{Read, Write};
use std::process::Stdio;

use predicates::prelude::*;
use predicates::str::contains;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::dead_letters::{NOWHERE, dead, finish_offline, kill, start};
use super::fake::Fake;
use crate::process::terminal::terminal;
use crate::support::{Child, Client, Daemon, Place, code, program, until};

/// A daemon whose sink got the outcome of a PIN with each of these references, as far as there is one; their `seq` begin at 1.
fn delivered(references: &[Option<&str>]) -> (Place, Daemon) {
    let place = Place::new(NOWHERE);
    let daemon = start(&place, &["results"]);
    finish(&daemon, references);
    place.lines("results", references.len());
    (place, daemon)
}

fn finish(daemon: &Daemon, references: &[Option<&str>]) {
    let mut client = daemon.client();
    for (n, reference) in references.iter().enumerate() {
        let pin = format!("P{}", n + 1);
        client.op(&json!({"op": "submit", "pinId": pin, "reference": reference}));
        assert_eq!(client.op(&json!({"op": "cancel", "pinId": pin}))["state"], "cancelled");
    }
}

/// As [`delivered`], but these outcomes are dead letters.
fn with_dead(references: &[Option<&str>], seqs: impl IntoIterator<Item = i64>) -> (Place, Daemon) {
    let (place, daemon) = delivered(references);
    daemon.terminate();
    kill(&place, "results", seqs);
    let daemon = start(&place, &["results"]);
    (place, daemon)
}

/// The sum of what the parts say.
fn sum(lines: &[Value]) -> u64 {
    lines.iter().map(|line| line["count"].as_u64().unwrap()).sum()
}

#[test]
fn outcomes_that_match_are_delivered_again_and_no_others() {
    let (place, _daemon) =
        delivered(&[Some("order-41"), Some("Order-42"), None, Some("order-5"), Some("order-43")]);
    let replay = |filter: &[&str]| {
        place.pinwatch(&[&["replay", "--sink", "results", "--all", "--yes"], filter].concat()).assert()
    };
    replay(&["--reference", "order-4*"])
        .code(0)
        .stdout("{\"sink\":\"results\",\"count\":2}\n")
        .stderr("this affects 2 outcomes: reference order-4*\n");
    let lines = place.lines("results", 7);
    assert_eq!(lines[5..], [lines[0].clone(), lines[4].clone()]);
    for nothing in [
        &["--reference", "order-"][..],
        &["--state", "final"],
        &["--status", "MESSAGE_DELIVERED"],
        &["--older-than", "1h"],
        &["--older-than", "2020-01-01T00:00:00Z"],
        &["--newer-than", "2999-01-01T00:00:00Z"],
    ] {
        let mut zero = replay(nothing).code(0).stdout("{\"sink\":\"results\",\"count\":0}\n");
        zero = zero.stderr(contains("this affects 0 outcomes: "));
        drop(zero);
    }
    replay(&["--state", "cancelled", "--newer-than", "2020-01-01T00:00:00Z", "--reference", "order-5"])
        .code(0)
        .stdout("{\"sink\":\"results\",\"count\":1}\n");
    place.lines("results", 8);
    replay(&[]).code(0).stderr("this affects 5 outcomes: no filter\n");
    place.lines("results", 13);
    replay(&["--state", "in_flight"]).code(2).stderr(contains("a PIN in flight has no outcome yet"));
    replay(&["--sink", "results"]).code(2);
}

#[test]
fn dead_letters_that_match_are_listed_delivered_again_and_dropped_and_no_others() {
    let (place, _daemon) =
        with_dead(&[Some("a-1"), Some("b-2"), Some("a-3"), Some("b-4"), Some("a-5")], [1, 2, 3, 4]);
    assert_eq!(dead(&place, &["--reference", "a*"]), [1, 3]);
    assert_eq!(dead(&place, &["--reference", "a*", "--limit", "1"]), [1]);
    assert_eq!(dead(&place, &["--reference", "a*", "--after", "results/1"]), [3]);
    assert_eq!(dead(&place, &["--state", "final"]), [0; 0]);
    assert_eq!(dead(&place, &["--state", "cancelled", "--sink", "results"]), [1, 2, 3, 4]);
    let all = |command: &'static str, reference: &'static str| {
        let letters =
            ["dead-letters", command, "--sink", "results", "--all", "--yes", "--reference", reference];
        place.pinwatch(&letters).assert().code(0)
    };
    all("replay", "a-*")
        .stdout("{\"sink\":\"results\",\"count\":2}\n")
        .stderr("this affects 2 dead letters of the sink results: reference a-*\n");
    let lines = place.lines("results", 7);
    assert_eq!(lines[5..], [lines[0].clone(), lines[2].clone()]);
    all("drop", "b-2").stdout("{\"sink\":\"results\",\"count\":1}\n");
    all("drop", "b-2").stdout("{\"sink\":\"results\",\"count\":0}\n");
    assert_eq!(dead(&place, &[]), [4]);
    assert_eq!(place.ask(&["show", "P2"])[0]["sinks"][0]["state"], "dropped");
    place.lines("results", 7);
}

#[test]
fn all_without_a_terminal_and_without_yes_is_refused_and_changes_nothing() {
    let (place, daemon) = with_dead(&[Some("a"), Some("b")], [1]);
    daemon.client().submit("WAITS");
    for command in [
        &["cancel", "--all"][..],
        &["replay", "--sink", "results", "--all"],
        &["dead-letters", "replay", "--sink", "results", "--all", "--reference", "a"],
        &["dead-letters", "drop", "--sink", "results", "--all"],
    ] {
        place
            .pinwatch(command)
            .assert()
            .code(2)
            .stderr(contains("there is no terminal to ask on: add --yes"));
    }
    assert_eq!(place.ask(&["show", "WAITS"])[0]["state"], "in_flight");
    assert_eq!(dead(&place, &[]), [1]);
    place.lines("results", 2);
}

#[test]
fn cancel_shows_how_many_it_affects_with_yes_too() {
    let (place, daemon) = delivered(&[]);
    let mut client = daemon.client();
    for n in 0..3 {
        let reference = format!("order-{n}");
        client.op(&json!({"op": "submit", "pinId": format!("P{n}"), "reference": reference}));
    }
    let cancel = |filter: &[&str]| place.pinwatch(&[&["cancel", "--all", "--yes"], filter].concat()).assert();
    cancel(&["--reference", "order-1"])
        .code(0)
        .stdout("{\"count\":1}\n")
        .stderr("this affects 1 PIN in flight: reference order-1\n");
    cancel(&["--older-than", "2020-01-01T00:00:00Z"]).code(0).stdout("{\"count\":0}\n");
    cancel(&["--older-than", "2999-01-01T00:00:00Z", "--newer-than", "2020-01-01T00:00:00Z"])
        .code(0)
        .stdout("{\"count\":2}\n")
        .stderr(contains("this affects 2 PINs in flight: before 2999-01-01T00:00:00Z, since 2020-01-01"));
}

#[test]
fn a_part_that_is_repeated_does_no_harm() {
    const MANY: usize = 1200;
    let place = Place::new(NOWHERE);
    finish_offline(&place, MANY, None);
    let daemon = start(&place, &["results"]);
    place.lines("results", MANY);
    daemon.terminate();
    kill(&place, "results", 1..=MANY as i64);
    let daemon = start(&place, &["results"]);
    let mut client = daemon.client();
    let counted = client.op(&json!({"op": "count", "of": "dead_letters", "sink": "results"}));
    assert_eq!(counted, json!({"ok": true, "count": MANY}));

    let first = json!({"op": "drop", "sink": "results", "filter": {"state": "final"}});
    let part = client.op(&first);
    assert_eq!((&part["count"], &part["next"]), (&json!(500), &json!("results/500")));
    assert_eq!(client.op(&first)["count"], 500, "it has nothing left to drop but what the next part would");
    let rest = client.op(&json!({"op": "drop", "sink": "results", "all": true, "after": part["next"]}));
    assert_eq!(rest, json!({"ok": true, "count": 200}));
    assert_eq!(client.op(&first), json!({"ok": true, "count": 0}));
    place.lines("results", MANY);

    // The same part twice: what it delivers again may come twice, under its id, and nothing else comes.
    let first = json!({"op": "replay", "sink": "results", "all": true});
    let part = client.op(&first);
    assert_eq!((&part["count"], &part["next"]), (&json!(500), &json!("p500")));
    assert_eq!(client.op(&first), part);
    until("all is delivered", || (place.ask(&["sinks", "list"])[0]["retrying"] == 0).then_some(()));
    let text = std::fs::read_to_string(place.sink_file("results")).unwrap();
    let mut times = vec![0; MANY + 1];
    for line in text.lines() {
        times[serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap() as usize] += 1;
    }
    assert!(times[1..=500].iter().all(|times| (2..=3).contains(times)), "{times:?}");
    assert!(times[501..].iter().all(|times| *times == 1), "{times:?}");

    let lines = place.ask(&["replay", "--sink", "results", "--all", "--yes", "--state", "final"]);
    assert_eq!((lines.len(), sum(&lines)), (3, MANY as u64), "three parts");
}

#[test]
fn a_request_looks_at_some_ten_thousand_rows_and_says_where_the_rest_begins() {
    const MANY: usize = 10_300;
    let place = Place::new(NOWHERE);
    finish_offline(&place, MANY, None);
    kill(&place, "results", 1..=MANY as i64);
    // The sink comes later, and begins behind them.
    let file =
        format!("[{{type=\"file\",name=\"results\",path={:?},from=\"now\"}}]", place.sink_file("results"));
    let daemon = place.clone().set("sink", &file).start();
    let mut client = daemon.client();
    let none = json!({"referencePrefix": "nobody's"});
    for request in [
        json!({"op": "count", "of": "outcomes"}),
        json!({"op": "count", "of": "dead_letters"}),
        json!({"op": "drop", "sink": "results"}),
        json!({"op": "replay", "sink": "results"}),
        json!({"op": "replay", "sink": "results", "dead": true}),
    ] {
        let mut part = request.clone();
        part["filter"] = none.clone();
        let first = client.op(&part);
        assert_eq!(first["count"], 0, "{request}");
        part["after"] = first["next"].clone();
        assert!(part["after"].is_string(), "{request}: {first}");
        assert_eq!(client.op(&part), json!({"ok": true, "count": 0}), "{request}");
    }
    let mut total = 0;
    let mut request = json!({"op": "count", "of": "dead_letters", "sink": "results"});
    while !request["after"].is_null() || total == 0 {
        let part = client.op(&request);
        total += part["count"].as_u64().unwrap();
        request["after"] = part["next"].clone();
    }
    assert_eq!(total, MANY as u64);
}

#[test]
fn a_filter_that_matches_all_must_say_so_and_stands_alone() {
    let (_place, daemon) = with_dead(&[Some("a")], [1]);
    let mut client = daemon.client();
    for wrong in [
        json!({"op": "replay", "sink": "results"}),
        json!({"op": "replay", "sink": "results", "filter": {}}),
        json!({"op": "drop", "sink": "results", "filter": {}, "all": false}),
        json!({"op": "drop", "sink": "results", "after": "results/1"}),
        json!({"op": "drop", "sink": "results", "pinId": "P1", "all": true}),
        json!({"op": "drop", "sink": "results", "pinId": "P1", "filter": {"reference": "a"}}),
        json!({"op": "replay", "sink": "results", "from": 1, "to": 1, "filter": {"reference": "a"}}),
        json!({"op": "replay", "sink": "results", "filter": {"sink": "results"}}),
        json!({"op": "replay", "sink": "results", "filter": {"state": "in_flight"}}),
        json!({"op": "replay", "sink": "results", "all": true, "after": "results/1"}),
        json!({"op": "drop", "sink": "results", "all": true, "after": "p1"}),
        json!({"op": "dead_letters", "filter": {"sink": "results"}}),
        json!({"op": "count", "sink": "results"}),
        json!({"op": "count", "of": "outcomes", "sink": "results"}),
        json!({"op": "count", "of": "outcomes", "filter": {"state": "in_flight"}}),
        json!({"op": "count", "of": "everything"}),
        json!({"op": "count", "filter": {"sink": "results"}}),
        json!({"op": "cancel_matching", "filter": {"sink": "results"}}),
    ] {
        assert_eq!(code(&client.op(&wrong)), "invalid_request", "{wrong}");
    }
    for unknown in [
        json!({"op": "drop", "sink": "none", "all": true}),
        json!({"op": "count", "of": "dead_letters", "sink": "none"}),
        json!({"op": "count", "of": "outcomes", "filter": {"sink": "none"}}),
        json!({"op": "list", "filter": {"sink": "none", "state": "finished"}}),
        json!({"op": "tail", "last": 1, "filter": {"sink": "none"}}),
    ] {
        assert_eq!(code(&client.op(&unknown)), "not_found", "{unknown}");
    }
    assert_eq!(client.op(&json!({"op": "count", "of": "dead_letters"}))["count"], 1);
}

#[test]
fn a_hostile_value_of_a_filter_is_only_data() {
    const HOSTILE: [&str; 6] =
        ["'; DROP TABLE delivery; --", "\" OR 1=1 --", "%", "_", "\\", "a\u{1b}[31m\r\nb"];
    let references: Vec<_> = HOSTILE.iter().copied().map(Some).chain([Some("plain")]).collect();
    let (place, daemon) = with_dead(&references, 1..=7);
    let mut client = daemon.client();
    for (n, hostile) in HOSTILE.iter().enumerate() {
        for of in ["outcomes", "dead_letters"] {
            let count = |client: &mut Client, filter| {
                client.op(&json!({"op": "count", "of": of, "filter": filter}))["count"].clone()
            };
            assert_eq!(count(&mut client, json!({"reference": hostile})), 1, "{hostile}");
            assert_eq!(count(&mut client, json!({"referencePrefix": hostile})), 1, "{hostile}");
            assert_eq!(count(&mut client, json!({"status": hostile})), 0, "{hostile}");
        }
        let sink = json!({"op": "list", "filter": {"state": "finished", "sink": hostile}});
        assert_eq!(code(&client.op(&sink)), "not_found");
        let drop = ["dead-letters", "drop", "--sink", "results", "--all", "--yes", "--reference", hostile];
        let done = place.pinwatch(&drop).assert().code(0).stdout("{\"sink\":\"results\",\"count\":1}\n");
        let stderr = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(stderr.lines().count() == 1 && !stderr.contains('\u{1b}'), "{stderr:?}");
        assert_eq!(dead(&place, &[]), (n as i64 + 2..=7).collect::<Vec<_>>());
    }
}

#[test]
fn list_and_tail_show_the_outcomes_that_a_sink_does_not_have() {
    let (place, daemon) = with_dead(&[Some("a"), Some("b"), Some("c")], [1, 3]);
    let pins = |args: &[&str]| -> Vec<String> {
        let lines = place.ask(args);
        lines.iter().map(|line| line["pinId"].as_str().unwrap().to_owned()).collect()
    };
    let list = ["list", "--state", "finished", "--sink", "results"];
    assert_eq!(pins(&list), ["P1", "P3"]);
    assert_eq!(pins(&["tail", "--sink", "results"]), ["P1", "P3"]);
    assert_eq!(pins(&[&list[..], &["--reference", "c"]].concat()), ["P3"]);
    place.ask(&["dead-letters", "drop", "--sink", "results", "P1"]);
    assert_eq!(pins(&list), ["P3"], "who dropped it does not miss it");
    place.ask(&["dead-letters", "replay", "--sink", "results", "P3"]);
    until("it is delivered", || pins(&list).is_empty().then_some(()));
    place
        .pinwatch(&["list", "--sink", "results"])
        .assert()
        .code(2)
        .stderr(contains("a PIN in flight has none yet: give --state finished, or an ending"));
    for args in [&["list", "--state", "finished", "--sink", "none"][..], &["tail", "--sink", "none"]] {
        place
            .pinwatch(args)
            .assert()
            .code(1)
            .stderr(contains("there is no sink \"none\"; there are: results"));
    }
    daemon.terminate();
    // A new sink, which begins at the oldest outcome, and at which nobody listens.
    let file = format!("{{type=\"file\",name=\"results\",path={:?}}}", place.sink_file("results"));
    let hook = "{type=\"webhook\",name=\"hook\",url=\"http://127.0.0.1:9\",from=\"oldest\"}";
    let _daemon = place.clone().set("sink", &format!("[{file},{hook}]")).start();
    assert_eq!(pins(&["list", "--state", "finished", "--sink", "hook"]), ["P1", "P2", "P3"]);
    assert_eq!(pins(&list), [""; 0]);
}

/// The program on a terminal, which it has for questions, and what it writes there.
struct Asked {
    process: Child,
    terminal: std::fs::File,
    seen: String,
}

impl Asked {
    fn begin(place: &Place, args: &[&str]) -> Self {
        let (ours, theirs) = terminal();
        let mut command = program();
        command.args(args).arg("--socket").arg(place.socket());
        command.stdin(theirs.try_clone().unwrap()).stdout(Stdio::null()).stderr(theirs);
        Self { process: Child::spawn(command), terminal: ours, seen: String::new() }
    }

    /// Reads until it has written this.
    fn until_it_says(&mut self, what: &str) {
        let mut bytes = [0; 1000];
        while !self.seen.contains(what) {
            let read = self.terminal.read(&mut bytes).unwrap_or_else(|_| panic!("it ended: {}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    fn end(mut self) -> Option<i32> {
        until("its end", || self.process.ended()).code()
    }
}

#[test]
fn on_a_terminal_only_yes_begins() {
    let (place, _daemon) = with_dead(&[Some("a"), Some("b")], [1, 2]);
    for (answer, exit, left) in [("y\n", 1, vec![1, 2]), ("\n", 1, vec![1, 2]), ("yes\n", 0, vec![2])] {
        let args = ["dead-letters", "drop", "--sink", "results", "--all", "--reference", "a"];
        let mut asked = Asked::begin(&place, &args);
        asked.until_it_says("this affects 1 dead letter of the sink results: reference a");
        asked.until_it_says("drop them all, so that the sink results never gets them? Type yes:");
        asked.terminal.write_all(answer.as_bytes()).unwrap();
        if exit == 1 {
            asked.until_it_says("nothing is changed");
        }
        assert_eq!(asked.end(), Some(exit), "{answer:?}");
        assert_eq!(dead(&place, &[]), left, "{answer:?}");
    }
}

/// What `replay --all --yes` says and how it ends, if it is interrupted while its second part waits, and that part is then
/// answered or not.
fn interrupted(is_answered: bool) -> (String, Option<i32>) {
    let (waits, is_waiting) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let fake = Fake::new(move |socket| {
        let mut client = socket.accept();
        client
            .expect(json!({"op": "count", "of": "outcomes", "filter": {}}))
            .say(json!({"ok": true, "count": 1000, "next": "p9"}))
            .expect(json!({"op": "count", "of": "outcomes", "filter": {}, "after": "p9"}))
            .say(json!({"ok": true, "count": 300}));
        let first = client.hear().unwrap();
        assert_eq!((&first["op"], &first["all"], first.get("after")), (&json!("replay"), &json!(true), None));
        assert!(first["filter"]["olderThan"].is_string(), "what ends meanwhile is left alone: {first}");
        client.say(json!({"ok": true, "count": 500, "next": "p500"}));
        assert_eq!(client.hear().unwrap()["after"], "p500");
        waits.send(()).unwrap();
        may_go_on.recv().unwrap();
        if is_answered {
            client.say(json!({"ok": true, "count": 250, "next": "p750"}));
        }
        assert_eq!(client.hear(), None, "it asks for nothing more");
    });
    let mut command = program();
    command.args(["replay", "--sink", "hook", "--all", "--yes", "--socket"]).arg(fake.socket());
    let stderr = fake.dir().join("stderr");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&stderr).unwrap());
    let mut process = Child::spawn(command);
    is_waiting.recv().unwrap();
    process.signal(Signal::INT);
    if is_answered {
        go_on.send(()).unwrap();
    }
    let status = until("its end", || process.ended());
    let _ = go_on.send(());
    let said = std::fs::read_to_string(stderr).unwrap();
    fake.join();
    (said, status.code())
}

#[test]
fn an_interrupt_stops_after_the_part_under_way_and_says_how_many_are_done() {
    let (said, status) = interrupted(true);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("stopped: 750 outcomes: delivered again from now on; the rest is untouched"),
        "{said}"
    );
}

#[test]
fn an_interrupt_stops_while_a_part_waits_and_says_how_many_are_done_before_it() {
    let (said, status) = interrupted(false);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("which may still be done; before it: 500 outcomes: delivered again"), "{said}");
}

#[test]
fn a_part_that_fails_says_how_many_are_done_before_it() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.hear().unwrap();
        client.say(json!({"ok": true, "count": 700}));
        client.hear().unwrap();
        client.say(json!({"ok": true, "count": 500, "next": "hook/500"}));
        client.hear().unwrap();
        client.say(super::fake::error("store_unavailable"));
    });
    super::pinwatch(&["dead-letters", "drop", "--sink", "hook", "--all", "--yes", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(1)
        .stderr(contains("500 dead letters: dropped before this failed").and(contains("says the fake")));
    fake.join();
}

#[test]
fn no_more_pins_are_withdrawn_than_were_shown_although_more_match_by_then() {
    let fake = Fake::new(|socket| {
        let mut client = socket.accept();
        client.hear().unwrap();
        client.say(json!({"ok": true, "count": 3}));
        assert_eq!(client.hear().unwrap()["limit"], 3);
        client.say(json!({"ok": true, "count": 2, "next": "P2"}));
        assert_eq!(client.hear().unwrap()["limit"], 1);
        client.say(json!({"ok": true, "count": 1, "next": "P9"}));
        assert_eq!(client.hear(), None, "it asks for nothing more");
    });
    super::pinwatch(&["cancel", "--all", "--yes", "--status", "SENT", "--socket"])
        .arg(fake.socket())
        .assert()
        .code(0)
        .stdout("{\"count\":2}\n{\"count\":1}\n");
    fake.join();
}
