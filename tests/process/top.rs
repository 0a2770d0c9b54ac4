//! `pinwatch top` in a real terminal: it shows the daemon, survives its end, and restores the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use super::terminal::terminal;
use crate::support::{Child, Daemon, Place, Simulated, program, run_to_end, until, until_true};

const COLUMNS: usize = 100;
const ROWS: usize = 30;

/// The text that a terminal shows, and all bytes that it received.
#[derive(Default)]
struct Shown {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The bytes of an escape sequence that is not complete.
    sequence: Option<String>,
    all: String,
}

impl Shown {
    /// Understands what `top` writes: text, and moves to a row and column. Other sequences change no text.
    fn take(&mut self, c: char) {
        self.all.push(c);
        if let Some(sequence) = &mut self.sequence {
            sequence.push(c);
            if !c.is_ascii_alphabetic() {
                return;
            }
            let sequence = self.sequence.take().unwrap_or_default();
            if let Some(place) = sequence.strip_prefix('[').and_then(|rest| rest.strip_suffix('H')) {
                let mut numbers = place.split(';').map(|number| number.parse().unwrap_or(1_usize) - 1);
                (self.row, self.column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            }
            if sequence == "[2J" {
                self.cells.clear();
            }
        } else if c == '\u{1b}' {
            self.sequence = Some(String::new());
        } else if !c.is_control() {
            self.cells.resize(ROWS.max(self.row + 1), vec![' '; COLUMNS]);
            if let Some(cell) = self.cells[self.row].get_mut(self.column) {
                *cell = c;
            }
            self.column += 1;
        }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
    }
}

/// A running `pinwatch top`.
struct Top {
    process: Child,
    keys: File,
    theirs: File,
    shown: Arc<Mutex<Shown>>,
}

impl Top {
    fn start(daemon: &Daemon) -> Self {
        let (ours, theirs) = terminal();
        let (ws_row, ws_col) = (ROWS as u16, COLUMNS as u16);
        tcsetwinsize(&ours, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut command = program();
        command.arg("top").env("PINWATCH_SOCKET", daemon.place.socket()).env("TERM", "xterm");
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        command.stderr(theirs.try_clone().unwrap());
        let process = Child::spawn(command);
        let (keys, shown) = (ours.try_clone().unwrap(), Arc::new(Mutex::new(Shown::default())));
        let screen = shown.clone();
        thread::spawn(move || read(ours, &screen));
        Self { process, keys, theirs, shown }
    }

    #[track_caller]
    fn shows(&self, what: &str) {
        until_true(&format!("top shows {what:?}"), || self.text().contains(what));
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap().text()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal echoes and reads lines, as it did before.
    fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for its end; the terminal must be as it was before.
    #[track_caller]
    fn ends(mut self) {
        let status = until("the end of top", || self.process.ended());
        assert_eq!(status.code(), Some(0), "{}", self.text());
        assert!(self.is_restored());
        let all = || self.shown.lock().unwrap().all.clone();
        until_true("the first screen and the cursor are back", || {
            let all = all();
            let left = all.rfind("\u{1b}[?1049l");
            left > all.rfind("\u{1b}[?1049h") && all.rfind("\u{1b}[?25h") > all.rfind("\u{1b}[?25l")
        });
    }
}

fn read(mut from: File, shown: &Mutex<Shown>) {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    // The read fails once the other end is closed.
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
        let whole = match std::str::from_utf8(&bytes) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8(bytes.drain(..whole).collect()).unwrap();
        text.chars().for_each(|c| shown.lock().unwrap().take(c));
    }
}

fn daemon(api: &Simulated) -> Daemon {
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    for pin in ["sim-none-1", "sim-none-2"] {
        client.submit(pin);
    }
    daemon
}

#[test]
fn top_shows_a_daemon_obeys_keys_and_leaves_the_terminal_as_it_was() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    let mut top = Top::start(&daemon);
    top.shows("GOOD: All well: 2 PINs in flight");
    top.shows("sim-none-2");
    assert!(!top.is_restored(), "keys are read one by one");
    top.press("/none-1\r");
    until_true("the other PIN is filtered out", || !top.text().contains("sim-none-2"));
    top.press("?");
    top.shows("this help");
    top.press("q");
    top.ends();
}

#[test]
fn a_killed_or_interrupted_top_restores_the_terminal() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    for end in [Some(Signal::TERM), Some(Signal::INT), Some(Signal::HUP), None] {
        let mut top = Top::start(&daemon);
        top.shows("sim-none-1");
        match end {
            Some(signal) => top.process.signal(signal),
            // Ctrl-C, which is a key like others here.
            None => top.press("\u{3}"),
        }
        top.ends();
    }
}

#[test]
fn top_reports_that_the_daemon_was_killed_and_continues_with_the_next_one() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    let mut top = Top::start(&daemon);
    top.shows("GOOD: All well: 2 PINs in flight");
    let place = daemon.kill9();
    top.shows("GONE: No connection for");
    let daemon = place.start();
    daemon.client().submit("sim-none-3");
    top.shows("GOOD: All well: 3 PINs in flight");
    top.press("r");
    top.shows("sim-none-3");
    top.press("q");
    top.ends();
}

#[test]
fn one_frame_is_plain_text_or_one_line_of_json() {
    let api = Simulated::start();
    let daemon = daemon(&api);
    let once = |more: &[&str]| {
        let mut command = program();
        command.args(["top", "--once"]).args(more).env("PINWATCH_SOCKET", daemon.place.socket());
        let ended = run_to_end(command);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        ended.stdout
    };
    let text = once(&[]);
    assert!(text.contains("GOOD: All well: 2 PINs in flight") && text.contains("sim-none-1"), "{text}");
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let line: Value = serde_json::from_str(&once(&["--json"])).unwrap();
    assert_eq!(line["stats"]["inFlight"], 2);
    assert!(line["pollsPerSecond"].is_number(), "{line}");
    daemon.client().submit("sim-delivered-1");
    daemon.all_records(1);
    until_true("the file sink counts it", || {
        let line: Value = serde_json::from_str(&once(&["--json"])).unwrap();
        line["stats"]["sinks"]["file"]["delivered"] == 1
    });
}

#[test]
fn without_a_terminal_top_says_what_to_do_instead() {
    let mut command = program();
    command.arg("top").env("PINWATCH_SOCKET", "/no/such/socket");
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("--once"), "{}", ended.stderr);
}
