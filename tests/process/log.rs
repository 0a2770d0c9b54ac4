//! The log: it delays nothing, and no text from outside breaks its lines.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use rustix::process::Signal;

use super::full_pipe;
use super::terminal::terminal;
use crate::support::{Place, Simulated, pins, run_to_end, until, until_true};

/// Delivered PINs, under new IDs each time.
fn delivered(round: usize) -> Vec<String> {
    pins(50).into_iter().map(|pin| format!("sim-delivered-{round}-{pin}")).collect()
}

#[test]
fn a_log_that_nobody_reads_stops_neither_polls_nor_a_stop() {
    let api = Simulated::start();
    for format in ["text", "json", "journald"] {
        let place = Place::new(&api.base_url()).set("log.level", "trace").set("log.format", format);
        let command = place.command();
        let (reader, writer) = full_pipe();
        let daemon = place.start_with(command, std::process::Stdio::null(), writer);
        daemon.client().submit_all(&delivered(0));
        daemon.all_records(50);
        daemon.terminate();
        drop(reader);
    }
}

#[test]
fn lost_log_lines_are_counted_and_reported_when_the_log_is_read_again() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).set("log.level", "trace").set("log.format", "json");
    let command = place.command();
    let (reader, writer) = full_pipe();
    let daemon = place.start_with(command, std::process::Stdio::null(), writer);
    let mut client = daemon.client();
    let mut round = 0;
    until_true("lines are lost", || {
        client.submit_all(&delivered(round));
        round += 1;
        client.stats()["logLinesLost"].as_u64().unwrap() > 0
    });
    let reading = thread::spawn(move || {
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.find(|line| line.contains("lines of the log were lost"))
    });
    // Each line that is written now can be the one that the report follows.
    until_true("it is reported", || {
        client.stats();
        reading.is_finished()
    });
    let line = reading.join().unwrap().unwrap();
    let report: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(report["lost"].as_u64().unwrap() > 0, "{line}");
    assert_eq!(report["level"], "WARN");
    daemon.terminate();
}

#[test]
fn a_failed_start_ends_even_if_nobody_reads_its_error() {
    let place = Place::new("http://127.0.0.1:9").set("log.level", "trace");
    fs::write(place.store(), "no database").unwrap();
    let (_reader, writer) = full_pipe();
    let mut command = place.command();
    command.stdout(std::process::Stdio::null()).stderr(writer);
    let mut process = crate::support::Child::spawn(command);
    let status = until("its end", || process.ended());
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_second_signal_ends_a_daemon_whose_standard_output_and_log_nobody_reads() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).set("log.level", "trace");
    let sinks = format!(
        r#"[{{type="stdout",from="oldest"}},{{type="file",path={:?},from="oldest"}}]"#,
        place.results()
    );
    let place = place.set("sink", &sinks);
    let command = place.command();
    let ((_out, stdout), (_err, stderr)) = (full_pipe(), full_pipe());
    let daemon = place.start_with(command, stdout, stderr);
    daemon.client().submit_all(&delivered(0));
    // The sink that nobody reads delays no other one.
    daemon.all_records(50);
    daemon.signal(Signal::TERM);
    until_true("the stop has begun", || !daemon.place.socket().exists());
    daemon.signal(Signal::TERM);
    let (status, _place) = daemon.end();
    assert_eq!(status.code(), Some(1), "{status}");
}

#[test]
fn a_standard_output_that_nobody_reads_delays_a_stop_no_longer_than_the_limit() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url()).set("sink", r#"[{type="stdout",from="oldest"}]"#);
    let command = place.command();
    let (mut out, stdout) = full_pipe();
    let stderr = fs::File::create(place.path("stderr")).unwrap();
    let daemon = place.start_with(command, stdout, stderr);
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    client.outcome("sim-delivered-1");
    let place = daemon.terminate();
    assert!(place.stderr().contains("did not end in time"), "{}", place.stderr());

    // Nothing is lost: the next daemon writes it.
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let written = rest.contains("sim-delivered-1");
    let daemon = place.start();
    until_true("the outcome", || {
        written || fs::read_to_string(daemon.place.path("stdout")).unwrap().contains("sim-delivered-1")
    });
    daemon.terminate();
}

/// A PostgreSQL server that refuses everybody with a message that contains a newline and a colour code.
fn hostile_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut startup).unwrap();
            let fields = "SFATAL\0VFATAL\0C28000\0Mno\u{1b}[31m\nerror: forged\u{202e}\u{9b}2J\0\0";
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            stream.write_all(&[b"E", &length[..], fields.as_bytes()].concat()).unwrap();
        }
    });
    format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")
}

#[test]
fn the_message_of_a_database_is_one_harmless_line_in_the_error_of_a_start() {
    let place = Place::new("http://127.0.0.1:9").set("store.url", &hostile_server());
    let ended = place.refusal();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("forged")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.stderr);
    assert!(
        lines[0].starts_with("error: ") && lines[0].contains("no\\u{1b}[31m\\nerror: forged"),
        "{}",
        lines[0]
    );
    assert!(!ended.stderr.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{}", ended.stderr);
}

#[test]
fn the_log_has_colours_on_a_terminal_unless_no_color_is_set() {
    for (no_color, has_colours) in
        [(None, true), (Some(""), true), (Some("1"), false), (Some("false"), false)]
    {
        let place = Place::new("http://127.0.0.1:9").set("schedule.deadline", "1h");
        let mut command = place.command();
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        let (ours, theirs) = terminal();
        let daemon = place.start_with(command, std::process::Stdio::null(), theirs);
        let mut line = String::new();
        BufReader::new(ours).read_line(&mut line).unwrap();
        assert_eq!(line.contains('\u{1b}'), has_colours, "NO_COLOR={no_color:?}: {line:?}");
        drop(daemon.kill9());
    }
}

#[test]
fn an_invalid_argument_is_quoted_without_control_characters() {
    let mut command = crate::support::program();
    command.args(["wait", "a\u{1b}[31m\u{202e}b"]);
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(2));
    assert!(!ended.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", ended.stderr);
}
