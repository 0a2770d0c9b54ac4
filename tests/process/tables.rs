//! Tables on a terminal of 80 columns: nothing is wider, `--wide` shows everything, and so does output to programs.

use super::terminal::shown_in;
use crate::support::{Daemon, Place, Simulated, change, program, run_to_end};

/// As long as Infobip's; the simulator derives its outcome from the name.
const FINISHED: &str = "sim-delivered-AF3D48F9FE553282AF";
const IN_FLIGHT: &str = "sim-waiting-8F3D48F9FE553282AFA2";

const ERROR: &str =
    "the endpoint answered 410 Gone, \u{65e5}\u{672c}\u{8a9e} and much more text than has room";

const TABLES: &[&[&str]] = &[
    &["list"],
    &["show", FINISHED],
    &["show", IN_FLIGHT],
    &["tail"],
    &["wait", FINISHED],
    &["submit", FINISHED, "--wait"],
    &["submit", IN_FLIGHT],
    &["cancel", FINISHED],
    &["sinks", "list"],
    &["dead-letters", "list"],
    &["dead-letters", "show", FINISHED],
    &["stats"],
    &["schedule"],
    &["nodes"],
];

/// A daemon with a PIN in flight, an outcome and a dead letter, all with long values.
fn daemon(api: &Simulated) -> Daemon {
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let reference = "a reference that is quite long, as those of some people are, and then a little longer";
    for pin in [FINISHED, IN_FLIGHT] {
        let metadata = format!(r#"{{"a":"{}"}}"#, "x".repeat(300));
        let request =
            format!(r#"{{"op":"submit","pinId":"{pin}","reference":"{reference}","metadata":{metadata}}}"#);
        assert_eq!(client.ask(request)["state"], "accepted");
    }
    client.outcome(FINISHED);
    daemon.all_records(1);
    drop(client);
    let place = daemon.terminate();
    let dead =
        format!("INSERT INTO delivery (sink, seq, dead, tries, error) VALUES ('file', 1, 1, 3, '{ERROR}')");
    change(&place.store(), &dead);
    place.start()
}

#[track_caller]
fn shown(daemon: &Daemon, columns: u16, arguments: &[&str]) -> String {
    let mut command = program();
    command.args(arguments).env("PINWATCH_SOCKET", daemon.place.socket());
    let (text, status) = shown_in(columns, command);
    assert_eq!(status, Some(0), "{arguments:?}: {text}");
    text
}

/// The columns that a terminal gives a line of these tests.
fn width(line: &str) -> usize {
    line.chars().map(|c| if ('\u{4e00}'..='\u{9fff}').contains(&c) { 2 } else { 1 }).sum()
}

#[test]
fn tables_fit_the_terminal_and_important_columns_are_complete() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    for columns in [80, 100, 50] {
        for arguments in TABLES {
            let text = shown(&daemon, columns, arguments);
            for line in text.lines() {
                assert!(width(line) <= usize::from(columns), "{arguments:?} in {columns}: {line:?}");
            }
            if let Some(pin) = [FINISHED, IN_FLIGHT].iter().find(|pin| arguments.contains(pin)) {
                assert!(text.contains(*pin), "{arguments:?} in {columns}: {text}");
            }
            if std::env::var_os("SHOW_TABLES").is_some() {
                eprintln!("--- {columns}: pinwatch {}\n{text}", arguments.join(" "));
            }
        }
    }
    // What one asks about is all there, over several lines.
    let shown = shown(&daemon, 80, &["dead-letters", "show", FINISHED]);
    let joined = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains(ERROR), "{shown}");
}

#[test]
fn tables_with_wide_or_without_a_terminal_are_complete() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    let cut = shown(&daemon, 80, &["dead-letters", "list"]);
    assert!(cut.contains('…') && !cut.contains(ERROR), "{cut}");
    for arguments in TABLES {
        let text = shown(&daemon, 80, &[*arguments, &["--wide"]].concat());
        assert!(!text.contains('…'), "{arguments:?}: {text}");
    }
    let wide = shown(&daemon, 80, &["dead-letters", "list", "--wide"]);
    assert!(wide.contains(ERROR) && wide.contains("OUTCOME"), "{wide}");
    let mut piped = program();
    piped.args(["dead-letters", "list"]).env("PINWATCH_SOCKET", daemon.place.socket()).env("COLUMNS", "80");
    assert!(run_to_end(piped).stdout.contains(ERROR));
}

#[test]
fn a_cut_table_names_the_option_that_shows_all() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    let told = |arguments: &[&str]| {
        let (ours, theirs) = super::terminal::terminal();
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&ours, size).unwrap();
        let errors = daemon.place.path("errors");
        let mut command = program();
        command.args(arguments).env("PINWATCH_SOCKET", daemon.place.socket());
        command.stdout(theirs).stderr(std::fs::File::create(&errors).unwrap());
        let mut process = crate::support::Child::spawn(command);
        crate::support::until("its end", || process.ended());
        drop(ours);
        std::fs::read_to_string(errors).unwrap()
    };
    let hint = "cut to fit the terminal: --wide shows all\n";
    for cut in [&["dead-letters", "list"][..], &["tail"], &["wait", FINISHED]] {
        assert_eq!(told(cut), hint, "{cut:?}");
        assert_eq!(told(&[cut, &["--wide"]].concat()), "", "{cut:?}");
        assert_eq!(told(&[cut, &["--json"]].concat()), "", "{cut:?}");
    }
    assert_eq!(told(&["sinks", "list"]), "", "it has room");
}
