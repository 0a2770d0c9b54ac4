//! Signals of the kernel and of users: none of them makes the daemon end without an orderly stop.

use std::fs::{self, OpenOptions};
use std::io::Write;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::json;

use crate::support::{Place, Simulated, code, pins, until, until_true};

#[test]
fn the_file_size_limit_is_handled_as_a_full_disk_until_it_is_lifted() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    client.submit("sim-delivered-1");
    daemon.all_records(1);
    let limit = |size| {
        let limit = Rlimit { current: size, maximum: None };
        prlimit(Some(daemon.pid()), Resource::Fsize, limit).unwrap();
    };
    // The result file and the log are shorter than that, the database is not.
    limit(Some(8192));
    let refused = until("the store is full", || {
        let pin = format!("sim-delivered-full-{}", client.stats()["inFlight"]);
        let answer = client.op(&json!({"op": "submit", "pinId": pin, "metadata": "x".repeat(40_000)}));
        (answer["ok"] == false).then_some(answer)
    });
    assert_eq!(code(&refused), "store_unavailable");
    until_true("the trouble is reported", || client.stats()["store"]["trouble"].is_object());
    limit(None);
    until_true("PINs are taken again", || {
        client.op(&json!({"op": "submit", "pinId": "sim-delivered-2"}))["ok"] == true
    });
    assert_eq!(client.outcome("sim-delivered-2")["outcome"], "final");
    daemon.terminate();
}

#[test]
fn the_file_size_limit_leaves_no_incomplete_line_in_the_result_file() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    let mut client = daemon.client();
    let long = "x".repeat(20_000);
    let submit = |client: &mut crate::support::Client, pin: &str| {
        let answer = client.op(&json!({"op": "submit", "pinId": pin, "metadata": long}));
        assert_eq!(answer["state"], "accepted", "{answer}");
    };
    submit(&mut client, "sim-delivered-1");
    daemon.all_records(1);
    // A sparse file makes the result file large at once: only that is beyond the limit.
    let results = OpenOptions::new().append(true).open(daemon.place.results()).unwrap();
    let size = 64 * 1024 * 1024;
    results.set_len(size - 1).unwrap();
    (&results).write_all(b"\n").unwrap();
    let limit = |size| {
        let limit = Rlimit { current: size, maximum: None };
        prlimit(Some(daemon.pid()), Resource::Fsize, limit).unwrap();
    };
    limit(Some(size + 100));
    submit(&mut client, "sim-delivered-2");
    let trouble = until("the sink's trouble", || {
        Some(client.stats()["sinks"]["file"]["trouble"]["what"].as_str()?.to_owned())
    });
    assert!(trouble.contains("File too large"), "{trouble}");
    limit(None);
    until_true("the line is there", || {
        let file = fs::read(daemon.place.results()).unwrap();
        let line = file[usize::try_from(size).unwrap()..].strip_suffix(b"\n");
        line.is_some_and(|line| {
            serde_json::from_slice::<serde_json::Value>(line).unwrap()["pinId"] == "sim-delivered-2"
        })
    });
    daemon.terminate();
}

#[test]
fn signals_without_a_meaning_do_not_end_the_daemon() {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    for signal in [Signal::USR1, Signal::USR2, Signal::XFSZ, Signal::PIPE] {
        daemon.signal(signal);
    }
    let mut client = daemon.client();
    client.submit_all(&pins(3).iter().map(|pin| format!("sim-delivered-{pin}")).collect::<Vec<_>>());
    daemon.all_records(3);
    daemon.terminate();
}

#[test]
fn the_cpu_time_limit_causes_an_orderly_stop_even_if_its_signal_is_repeated() {
    let daemon = Place::new("http://127.0.0.1:9").never_due().start();
    daemon.client().submit("A");
    daemon.signal(Signal::XCPU);
    until_true("the stop has begun", || daemon.place.stderr().contains("stopping"));
    // It may have ended by now.
    let _ = rustix::process::kill_process(daemon.pid(), Signal::XCPU);
    let (status, place) = daemon.end();
    assert!(status.success(), "{status}");
    assert!(place.stderr().contains("SIGXCPU"), "{}", place.stderr());
}

#[test]
fn a_reload_requested_during_the_start_happens_after_it() {
    let place = Place::new("http://127.0.0.1:9").never_due();
    let (file, text) =
        (place.path("pinwatch.toml"), fs::read_to_string(place.path("pinwatch.toml")).unwrap());
    // The start waits for the end of this file; a reload finds the ordinary one.
    fs::remove_file(&file).unwrap();
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let command = place.command();
    let configuring = std::thread::spawn(move || {
        // Opens when the daemon has opened it.
        let mut fifo = OpenOptions::new().write(true).open(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(&file, &text).unwrap();
        let daemon = rustix::process::Pid::from_raw(reader_of(&fifo)).unwrap();
        rustix::process::kill_process(daemon, Signal::HUP).unwrap();
        fifo.write_all(text.as_bytes()).unwrap();
    });
    let daemon = place.start_by(command);
    configuring.join().unwrap();
    until_true("the reload", || daemon.place.stderr().contains("the configuration was reloaded"));
    daemon.terminate();
}

/// The process that reads this FIFO, beside our own.
fn reader_of(fifo: &fs::File) -> i32 {
    use std::os::unix::fs::MetadataExt;
    let fifo = fifo.metadata().unwrap();
    let is_it = |path: std::path::PathBuf| {
        fs::metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (fifo.dev(), fifo.ino()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let reads = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        *pid != std::process::id() && files.map(|entry| entry.path()).any(is_it)
    };
    i32::try_from(pids.find(reads).expect("the daemon has opened its configuration")).unwrap()
}
