//! `/healthz` and `/readyz` of healthy and unhealthy daemons.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::http::served::{Served, get, submit};
use crate::support::{Daemon, Place, Simulated, json, until};

#[test]
fn a_healthy_daemon_is_alive_and_ready() {
    let served = Served::start();
    served.finish(&["sim-delivered-1"]);
    let answer = served.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"alive\":true,\"reasons\":[]}\n"));
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert_eq!(served.ready(), (200, json(r#"{"status":"ready","reasons":[]}"#)));
}

#[test]
fn with_a_wrong_key_readyz_is_degraded_and_pins_are_still_accepted() {
    let served = Served::with(&["api.key=wrong"]);
    submit(&mut served.daemon.client(), "sim-delivered-1");
    let numbers = served.until(r#"pinwatch_brake{reason="unauthorized"}"#, 1.0);
    assert!(numbers.value(r#"pinwatch_polls_total{class="unauthorized"}"#) >= 1.0);
    assert_eq!(numbers.value(r#"pinwatch_brake{reason="throttled"}"#), 0.0);
    let (status, ready) = served.ready();
    assert_eq!((status, &ready["status"]), (200, &json(r#""degraded""#)), "{ready}");
    assert_eq!(ready["reasons"][0]["code"], "unauthorized", "{ready}");
    assert_eq!(served.get("/healthz").status, 200);
    assert_eq!(submit(&mut served.daemon.client(), "sim-delivered-2"), "accepted");
}

#[test]
fn after_one_stray_answer_connections_are_not_reused_for_an_hour_and_health_says_so() {
    let (base_url, connections) = strays();
    let served = Served::with(&[&format!("api.base_url={base_url}")]);
    assert_eq!(served.daemon.client().stats()["strayAnswers"], serde_json::Value::Null);
    served.finish(&["A"]);
    let (status, ready) = served.ready();
    assert_eq!((status, &ready["status"]), (200, &json(r#""degraded""#)), "{ready}");
    let reason = &ready["reasons"][0];
    assert_eq!(reason["code"], "stray_answers", "{ready}");
    let told = served.daemon.client().stats()["strayAnswers"].clone();
    assert_eq!((&told["since"], &told["until"]), (&reason["since"], &reason["until"]));
    let pins: Vec<String> = (0..20).map(|n| format!("B{n}")).collect();
    served.finish(&pins.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(connections.load(Ordering::SeqCst) > 20, "each has a connection of its own");
    // After all those, the log would have a second line.
    let said = until("it is logged", || Some(served.daemon.log()).filter(|said| said.contains("asked for")));
    assert_eq!(said.matches("an answer that nobody asked for").count(), 1, "{said}");
    let answers: Vec<_> = pins
        .iter()
        .map(|pin| served.daemon.client().ask(format!(r#"{{"op":"wait","pinId":"{pin}","timeout":"60s"}}"#)))
        .collect();
    assert!(answers.iter().all(|answer| answer["outcome"]["status"] == "MESSAGE_DELIVERED"), "{answers:?}");
}

/// An API that sends each answer twice, and the second one tells of another status; its connections are counted.
fn strays() -> (String, Arc<AtomicUsize>) {
    let body = |status| format!(r#"[{{"status":"{status}","finalStatus":true}}]"#);
    let answer = |body: String| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let both = answer(body("MESSAGE_DELIVERED")) + &answer(body("MESSAGE_EXPIRED"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, both) = (stream.unwrap(), both.clone());
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" && stream.write_all(both.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    (base_url, connections)
}

#[test]
fn a_full_intake_is_not_ready() {
    let served = Served::with(&["intake.max_in_flight=1"]);
    let mut client = served.daemon.client();
    submit(&mut client, "sim-waiting-1");
    assert_eq!(client.ask("sim-waiting-2")["error"]["code"], "at_capacity");
    let (status, ready) = served.ready();
    assert_eq!((status, &ready["status"]), (503, &json(r#""not_ready""#)), "{ready}");
    assert_eq!(ready["reasons"][0]["code"], "at_capacity", "{ready}");
    assert_eq!(served.numbers().value(r#"pinwatch_submits_total{result="at_capacity"}"#), 1.0);
}

#[test]
fn with_an_unwritable_store_the_daemon_is_alive_but_not_ready() {
    let served = Served::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = SqliteConnectOptions::new().filename(served.place.store());
    let mut other = runtime.block_on(options.connect()).expect("the database can be opened");
    let mut execute = |sql: &'static str| {
        runtime.block_on(async { sqlx::query(sql).execute(&mut other).await.expect("it is carried out") });
    };
    execute("BEGIN IMMEDIATE");
    // A submit waits for the database for seconds; health requests are answered meanwhile.
    until("health is answered while a submit waits", || {
        let mut client = served.daemon.client();
        let submit = std::thread::spawn(move || client.ask("sim-delivered-1"));
        let answered = ["/healthz", "/readyz", "/metrics"].iter().cycle().take(60).filter(|path| {
            let status = served.get(path).status;
            assert!(status == 200 || **path == "/readyz", "{path} says {status}");
            !submit.is_finished()
        });
        let meanwhile = answered.count();
        assert_eq!(submit.join().expect("it is answered")["error"]["code"], "store_unavailable");
        (meanwhile >= 30).then_some(())
    });
    assert_eq!(served.daemon.client().ask("sim-delivered-1")["error"]["code"], "store_unavailable");
    let numbers = served.numbers();
    assert_eq!(numbers.value("pinwatch_store_failing"), 1.0);
    assert!(numbers.value("pinwatch_store_commit_failures_total") >= 1.0);
    let (status, ready) = served.ready();
    assert_eq!((status, &ready["status"]), (503, &json(r#""not_ready""#)), "{ready}");
    let reasons = ready["reasons"].as_array().expect("reasons");
    let failing = reasons.iter().find(|reason| reason["code"] == "store_failing");
    assert!(failing.is_some_and(|reason| reason["since"].is_string()), "{ready}");
    assert_eq!(served.get("/healthz").status, 200, "a restart would mend nothing");

    execute("ROLLBACK");
    until("it is ready, though nobody submits", || (served.ready().0 == 200).then_some(()));
    assert_eq!(served.numbers().value("pinwatch_store_failing"), 0.0);
}

#[test]
fn a_stopping_daemon_is_alive_but_not_ready_until_it_ends() {
    let mut served = Served::with(&["shutdown_grace=60s", "api.timeout=60s"]);
    submit(&mut served.daemon.client(), "sim-stall-1");
    served.until("pinwatch_polls_in_flight", 1.0);
    served.daemon.signal(Signal::TERM);
    let ready = until("it stops", || {
        let (status, ready) = served.ready();
        (status == 503).then_some(ready)
    });
    assert_eq!(ready["status"], "not_ready", "{ready}");
    assert_eq!(ready["reasons"][0]["code"], "stopping", "{ready}");
    assert_eq!(served.get("/healthz").status, 200);
    assert_eq!(served.numbers().value("pinwatch_polls_in_flight"), 1.0);
    served.daemon.signal(Signal::TERM);
    served.daemon.wait();
}

#[test]
fn a_stop_does_not_wait_for_idle_http_connections() {
    let served = Served::start();
    let _idle = crate::http::served::connect(served.address);
    served.finish(&["sim-delivered-1"]);
    served.daemon.terminate();
    assert_eq!(served.place.all_results().concat().lines().count(), 1);
}

#[test]
fn unknown_paths_are_404_and_other_methods_are_405() {
    let served = Served::start();
    for path in ["/metrics/", "/../metrics", "/debug"] {
        assert_eq!(served.get(path).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let request = format!(
            "{method} /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let answer = crate::http::served::send(served.address, &request).expect("it is answered");
        assert_eq!(answer.status, 405, "{method}");
    }
}

#[test]
fn no_port_is_open_unless_http_listen_is_set() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let daemon = place.start();
    assert_eq!(listening(daemon.pid()), Vec::<String>::new());
    assert!(!daemon.log().contains("HTTP"), "{}", daemon.log());
    let served = Served::start();
    assert_eq!(listening(served.daemon.pid()).len(), 1, "the test sees what listens");
}

/// The TCP sockets that a process listens at.
fn listening(pid: rustix::process::Pid) -> Vec<String> {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("Linux tells the open files");
    let sockets: Vec<_> = links
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect();
    let tables = read(format!("/proc/{pid}/net/tcp")) + &read(format!("/proc/{pid}/net/tcp6"));
    let own = tables.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // 0A is "listening"; the tenth field is the inode.
        fields.get(3) == Some(&"0A")
            && fields.get(9).is_some_and(|inode| sockets.contains(&format!("socket:[{inode}]")))
    });
    own.map(str::to_owned).collect()
}

#[test]
fn an_address_that_other_machines_reach_is_refused_unless_it_is_allowed() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    place.configure("[http]\nlisten = \"0.0.0.0:0\"\n");
    let mut refused = place.spawn();
    assert_eq!(refused.wait().code(), Some(2), "{}", refused.log());
    assert!(refused.log().contains("http.allow_remote"), "{}", refused.log());
    assert!(!place.store().exists(), "nothing was opened");

    place.configure("allow_remote = true\n");
    place.start().terminate();
}

#[test]
fn an_address_in_use_is_named_and_the_start_fails() {
    let served = Served::start();
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    place.configure(&format!("[http]\nlisten = \"{}\"\n", served.address));
    let mut second: Daemon = place.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    let address = served.address.to_string();
    assert!(second.log().contains(&address) && second.log().contains("http.listen"), "{}", second.log());
    assert!(get(served.address, "/healthz").is_some_and(|answer| answer.status == 200));
}
