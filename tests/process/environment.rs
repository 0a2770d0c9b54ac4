//! Invalid environment variables: reported or ignored, never a panic.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::{Place, Simulated, program, run_to_end};

#[test]
fn an_invalid_number_of_threads_is_reported() {
    for threads in ["0", "-1", "x", "", "1.5", "99999999999999999999"] {
        let place = Place::new("http://127.0.0.1:9");
        let mut command = place.command();
        command.env("TOKIO_WORKER_THREADS", threads);
        let ended = run_to_end(command);
        assert_eq!(ended.code, Some(2), "{threads:?}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with(&format!("error: TOKIO_WORKER_THREADS={threads} ")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("from 1 to"), "{}", ended.stderr);
    }
}

#[test]
fn a_daemon_with_one_thread_runs() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let mut command = place.command();
    command.env("TOKIO_WORKER_THREADS", "1");
    let daemon = place.start_by(command);
    daemon.client().submit("sim-delivered-1");
    daemon.all_records(1);
    daemon.terminate();
}

/// Variables that our libraries read, with values that they can't use.
const NONSENSE: [(&str, &[u8]); 24] = [
    ("RUST_LOG", b"[[["),
    ("RUST_BACKTRACE", b"\xff"),
    ("RUST_MIN_STACK", b"x"),
    ("NO_COLOR", b"\xff"),
    ("TERM", b"\xff"),
    ("COLUMNS", b"0"),
    ("LINES", b"x"),
    ("TZ", b":::/nowhere"),
    ("LANG", b"\xff.x"),
    ("TMPDIR", b"/nowhere"),
    ("HOME", b""),
    ("XDG_RUNTIME_DIR", b"relative"),
    ("HTTP_PROXY", b"://["),
    ("HTTPS_PROXY", b"\xff"),
    ("ALL_PROXY", b"x:y:z"),
    ("NO_PROXY", b"[,,*"),
    ("NOTIFY_SOCKET", b"relative"),
    ("WATCHDOG_USEC", b"x"),
    ("WATCHDOG_PID", b"x"),
    ("LISTEN_FDS", b"x"),
    ("LISTEN_PID", b"x"),
    ("JOURNAL_STREAM", b"x"),
    ("PGPORT", b"x"),
    ("SQLITE_TMPDIR", b"/nowhere"),
];

#[test]
fn invalid_environment_variables_of_libraries_stop_neither_daemon_nor_clients() {
    let api = Simulated::start();
    let place = Place::new(&api.base_url());
    let mut command = place.command();
    let nonsense = || NONSENSE.iter().map(|(name, value)| (name, OsStr::from_bytes(value)));
    // Requests go straight to this machine, whatever a proxy's variable says.
    command.envs(nonsense()).env("NO_PROXY", "127.0.0.1");
    let daemon = place.start_by(command);
    daemon.client().submit("sim-delivered-1");
    daemon.all_records(1);
    let asks: [&[&str]; 5] =
        [&["--help"], &["submit", "--help"], &["stats"], &["schedule"], &["show", "sim-delivered-1"]];
    for arguments in asks {
        let mut command = program();
        command.args(arguments).envs(nonsense());
        if arguments[arguments.len() - 1] != "--help" {
            command.arg("--socket").arg(daemon.place.socket());
        }
        let ended = run_to_end(command);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    }
    let place = daemon.terminate();
    assert!(!place.stderr().contains("panicked"), "{}", place.stderr());
}
