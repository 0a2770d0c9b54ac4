//! Frames as users see them, and rules that hold for every frame.

use std::path::Path;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};
use tokio::time::Instant;
use unicode_width::UnicodeWidthStr;

use super::draw::{body, draw};
use super::keys::HELP;
use super::state::{Known, Point, Sort, State, Update};
use crate::text::is_harmful;

fn now() -> jiff::Timestamp {
    "2026-01-02T14:02:17Z".parse().unwrap()
}

/// The state after these answers of the daemon.
fn state(stats: &Value, pins: &[Value], is_all: bool) -> State {
    let mut state = State::new(Path::new("/run/pinwatch/pinwatch.sock"), true);
    let stats: crate::protocol::stats::Stats = serde_json::from_value(stats.clone()).unwrap();
    let sinks = stats.sinks.iter().map(|(name, sink)| (name.clone(), sink.read().unwrap())).collect();
    let known = Known { stats, sinks, at: Instant::now() };
    state.take_at(Update::Stats(Box::new(known)), now());
    let pins = pins.iter().map(|pin| serde_json::from_value(pin.clone()).unwrap()).collect();
    let at = now() - Duration::from_secs(42);
    state.take_at(Update::Pins { pins, is_all, at }, now());
    state
}

fn sink(behind: i64, trouble: &Value) -> Value {
    let oldest = (behind > 0).then_some("2026-01-02T13:57:00.000Z");
    json!({"configured": true, "delivered": 90_526, "cursor": 900, "behind": behind, "oldestUndelivered": oldest, "retrying": 0, "deadLetters": 0,
        "closed": false, "trouble": trouble})
}

fn healthy() -> State {
    let stats = json!({
        "version": "0.1.0", "inFlight": 1204, "due": 3, "polling": 12, "finishing": 0, "rate": 50.0,
        "verdict": {"level": "good", "summary": "All well: 1,204 PINs in flight, noticed 2.1 s after they are final", "further": []},
        "polls": {"total": 481_220, "understood": 481_001, "unavailable": 219},
        "outcomes": {"final": 90_312, "deadline": 211, "not_found": 0, "rejected": 0, "cancelled": 7},
        "pollsPerPin": 5.3, "finalNoticeDelay": 2.1, "newestSeq": 900,
        "sinks": {"file": sink(0, &Value::Null), "billing": sink(4, &Value::Null), "stdout": sink(0, &Value::Null)},
    });
    let pin = |n: u64| {
        json!({"pinId": format!("9C817C6F8AF3D48F9FE553282AF{n:05}"), "submittedAt": format!("2026-01-02T13:{n:02}:00.000Z"),
            "deadlineAt": "2026-01-04T14:00:00.000Z", "polls": 40 - n, "lastStatus": "MESSAGE_WAITING_DELIVERY",
            "nextPollAt": format!("2026-01-02T14:{:02}:30.000Z", 3 + n), "reference": format!("order-{n}")})
    };
    let mut state = state(&stats, &(0..40).map(pin).collect::<Vec<_>>(), false);
    state.points.clear();
    for n in 0..100_u32 {
        let wave = f64::from(n % 20);
        let polls = (n != 30).then_some(12.0 + wave);
        state.points.push_back(Point { in_flight: 1000.0 + wave * 10.2, polls, ended: Some(wave / 4.0) });
    }
    state
}

fn unhealthy() -> State {
    let trouble = json!({"since": "2026-01-02T13:57:00.000Z", "what": "503 Service Unavailable: \u{1b}[31mred\u{202e} alert\r\n"});
    let mut closed = sink(
        2210,
        &json!({"since": "2026-01-02T12:02:00.000Z", "what": "/var/log/pinwatch/results.ndjson is another file than before"}),
    );
    closed["closed"] = true.into();
    closed["deadLetters"] = 3.into();
    let mut open = sink(12, &trouble);
    open["openSince"] = "2026-01-02T13:57:00.000Z".into();
    open["nextAttempt"] = "2026-01-02T14:02:29.500Z".into();
    let stats = json!({
        "version": "0.1.0", "inFlight": 1_000_000, "due": 981_442, "polling": 1, "rate": null,
        "verdict": {"level": "bad", "summary": "No PIN has been accepted for 4m: the store can't be written: no space left on device. Every write is tried again by itself",
            "further": ["Polling has been paused for 2m 5s: the API refuses the key. Next probe in 12s. Check api.key, api.key_file or api.username, then reload",
                "The sink file has taken no outcomes for 2h: it is another file", "The sink hook has taken no outcomes for 5m: 503", "No PIN is accepted: 1000000 PINs are in flight",
                "The sink hook has 3 dead letters. See: pinwatch dead-letters list --sink hook"]},
        "sinks": {"hook": open, "results": closed, "stdout": sink(0, &Value::Null)},
    });
    let pin = json!({"pinId": "short", "submittedAt": "2026-01-01T13:00:00.000Z", "deadlineAt": "2026-01-03T13:00:00.000Z", "polls": 61,
        "lastStatus": "MADE\u{1b}]0;UP\u{7}", "nextPollAt": null, "reference": "order \u{202e}42 日本語"});
    let mut state = state(&stats, &[pin], true);
    state.points =
        std::iter::repeat_n(Point { in_flight: 1e6, polls: Some(0.0), ended: Some(0.0) }, 30).collect();
    state
}

fn frame(state: &State, columns: u16, rows: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state, now())).unwrap();
    terminal
}

macro_rules! shows {
    ($name:literal, $state:expr, $columns:literal x $rows:literal) => {
        insta::assert_snapshot!(
            concat!($name, "-", $columns, "x", $rows),
            frame(&$state, $columns, $rows).backend()
        );
    };
}

#[test]
fn a_healthy_daemon_fills_terminals_of_every_size() {
    shows!("healthy", healthy(), 80 x 24);
    shows!("healthy", healthy(), 120 x 40);
    shows!("healthy", healthy(), 60 x 20);
}

#[test]
fn top_shows_the_problem_of_an_unhealthy_daemon_first() {
    shows!("unhealthy", unhealthy(), 80 x 24);
    shows!("unhealthy", unhealthy(), 120 x 40);
    shows!("unhealthy", unhealthy(), 60 x 20);
}

#[test]
fn top_shows_whether_the_daemon_is_gone_or_idle_and_whether_a_filter_is_on() {
    let mut gone = healthy();
    let why = "the daemon closed the connection before it had answered; see its log".to_owned();
    gone.take_at(Update::Lost(why), now() - Duration::from_secs(5));
    shows!("gone", gone, 80 x 24);
    let summary = "All well: ready for PINs, and none was submitted since the start. To submit one: pinwatch submit PIN_ID";
    let idle = json!({"version": "0.1.0", "verdict": {"level": "good", "summary": summary, "further": []}, "sinks": {"file": sink(0, &Value::Null)}});
    shows!("idle", state(&idle, &[], true), 80 x 24);
    let mut filtered = healthy();
    (filtered.filter, filtered.is_typing, filtered.is_paused, filtered.sort) =
        ("r-3".into(), true, true, Sort::NextPoll);
    shows!("filtered", filtered, 80 x 24);
    let mut help = healthy();
    help.shows_help = true;
    shows!("help", help, 80 x 24);
}

#[test]
fn no_line_is_wider_than_the_terminal_or_has_control_characters() {
    for state in [healthy(), unhealthy(), State::new(Path::new("/a\u{1b}[2J"), true)] {
        for (columns, rows) in
            (1..140).flat_map(|columns| [(columns, 1), (columns, 5), (columns, 24), (columns, 60)])
        {
            let lines = body(&state, now(), columns, rows);
            assert!(lines.len() <= rows, "{columns} x {rows}");
            for line in lines {
                let text = line.to_string();
                assert!(
                    text.width() <= columns.max(2) && !text.contains(is_harmful),
                    "{columns} x {rows}: {text:?}"
                );
            }
            frame(&state, columns as u16, rows as u16);
        }
    }
}

#[test]
fn without_colour_the_screen_has_the_same_text() {
    let mut state = unhealthy();
    let with = frame(&state, 80, 24).backend().to_string();
    state.has_color = false;
    let without = frame(&state, 80, 24);
    assert_eq!(without.backend().to_string(), with);
    assert!(
        without
            .backend()
            .buffer()
            .content
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
}

#[test]
fn every_key_of_the_bottom_line_is_in_the_help() {
    let bottom = frame(&healthy(), 80, 24).backend().to_string();
    let bottom = bottom.lines().last().unwrap_or_default().to_owned();
    for key in ["q", "p", "s", "/", "r", "?"] {
        assert!(
            bottom.contains(&format!("{key} ")) && HELP.iter().any(|(other, _)| *other == key),
            "{key}: {bottom}"
        );
    }
}

#[test]
fn rates_are_shown_per_second_and_not_across_a_gap() {
    let mut state = State::new(Path::new("/s"), true);
    let begun = Instant::now();
    let mut say = |seconds: u64, polls: u64| {
        let stats = serde_json::from_value(json!({"polls": {"total": polls}})).unwrap();
        let known = Known { stats, sinks: Vec::new(), at: begun + Duration::from_secs(seconds) };
        state.take_at(Update::Stats(Box::new(known)), now());
        let rate = state.newest().unwrap().polls;
        if seconds == 4 {
            state.take_at(Update::Lost("gone".into()), now());
        }
        rate
    };
    // The daemon was restarted, and the new one counts from zero.
    assert_eq!(
        [say(0, 100), say(2, 120), say(4, 130), say(5, 500), say(6, 501), say(7, 3)],
        [None, Some(10.0), Some(5.0), None, Some(1.0), None]
    );
}
