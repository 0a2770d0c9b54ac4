//! The whole program: PINs go in at the socket, and signed outcomes come out. Its API and its endpoint run on other threads,
//! so the tests can wait for it.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pinwatch::simulate::{Settings, Simulator};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Client, Daemon, Place, until};
use crate::webhook::bench::SECRET;
use crate::webhook::receiver::{Answers, Echoes, Receiver, Request};
use crate::webhook::signatures::assert_all_good;

/// Where a daemon polls this simulator and delivers to this endpoint.
fn place(simulator: &Simulator, url: &str) -> Place {
    Place::of(&format!(
        "api.base_url = {base:?}\napi.key = \"demo-key\"\nschedule.initial_interval = \"50ms\"\n\
         intake.socket = \"FOLDER/pinwatch.sock\"\nstore.url = \"sqlite:FOLDER/pinwatch.db\"\n\
         http.listen = \"127.0.0.1:0\"\n[[sink]]\ntype = \"webhook\"\nurl = {url:?}\nsecret = {SECRET:?}\n",
        base = simulator.base_url(),
    ))
}

/// What `/readyz` answers.
fn readyz(daemon: &Daemon) -> String {
    let mut stream = TcpStream::connect(daemon.http_address()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks for `stats` until they hold this of the sink, and gives them.
fn until_stats(client: &mut Client, holds: impl Fn(&Value) -> bool) -> String {
    until("the sink is as it has to be", || {
        let stats = client.stats();
        holds(&stats["sinks"]["webhook"]).then(|| stats.to_string())
    })
}

async fn simulator() -> Simulator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Simulator::start(Settings::default(), listener).unwrap()
}

fn pins(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("sim-delivered-{number}")).collect()
}

fn pins_of(requests: &[Request]) -> HashSet<String> {
    requests.iter().map(|request| request.json()["pinId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_pin_is_delivered_as_a_signed_outcome_exactly_once_over_a_stop() {
    let simulator = simulator().await;
    let receiver = Receiver::start(|_, _| Answers(200)).await;
    let daemon = place(&simulator, &receiver.url()).start();
    daemon.client().submit_all(&pins(0..20));
    receiver.wait_for(20).await;
    let daemon = daemon.terminate().start();
    daemon.client().submit_all(&pins(20..40));
    let requests = receiver.wait_for(40).await;
    assert_eq!(pins_of(&requests), pins(0..40).into_iter().collect());
    assert!(requests.iter().all(|request| request.json()["delivered"] == true));
    assert_all_good(&requests, SECRET);
    daemon.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_started_without_its_endpoint_delivers_later_and_logs_no_secret() {
    let simulator = simulator().await;
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{addr}/hook?token=hunter2");
    let daemon = place(&simulator, &url).start();
    daemon.client().submit_all(&pins(0..20));

    let daemon = daemon.kill9().start();
    daemon.client().submit_all(&pins(20..40));
    let receiver = Receiver::start_at(addr, |n, _| Answers(if n == 0 { 404 } else { 200 })).await;
    // The first one is refused, and sent again.
    let requests = receiver.wait_for(41).await;
    assert_eq!(
        pins_of(&requests),
        pins(0..40).into_iter().collect(),
        "what was accepted before the kill is there, too"
    );
    let said = daemon.terminate().stderr();
    for secret in ["hunter2", SECRET, SECRET.trim_start_matches("whsec_"), "demo-key"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_the_endpoint_echoes_is_in_no_log_health_or_stats() {
    let simulator = simulator().await;
    let refuses_all = Arc::new(AtomicBool::new(true));
    let still = refuses_all.clone();
    let script = move |_, request: &Request| {
        let refused = still.load(Ordering::SeqCst) || request.json()["pinId"] == "sim-delivered-0";
        if refused { Echoes(404) } else { Answers(200) }
    };
    let receiver = Receiver::start(script).await;
    let daemon = place(&simulator, &receiver.url()).start();
    let mut client = daemon.client();
    client.submit_all(&pins(0..40));
    let in_trouble = until_stats(&mut client, |sink| sink["trouble"].is_object());
    assert!(in_trouble.contains(r#""deadLetters":0"#), "{in_trouble}");
    let ready = readyz(&daemon);
    assert!(ready.contains(r#""404 Not Found""#), "{ready}");

    refuses_all.store(false, Ordering::SeqCst);
    for number in 40.. {
        // It is a dead letter once it is refused before and after another is accepted.
        client.submit_all(&pins(number..number + 1));
        let delivered = |sink: &Value| sink["trouble"].is_null() && sink["behind"] == 0;
        let stats = until_stats(&mut client, delivered);
        if stats.contains(r#""deadLetters":1"#) {
            break;
        }
    }
    let shown = client.ask_line(r#"{"op":"show","pinId":"sim-delivered-0"}"#);
    assert!(shown.contains("404 Not Found: POST *** HTTP/1.1"), "{shown}");
    drop(client);
    let said = daemon.terminate().stderr();
    assert!(said.contains("dead letters"), "{said}");
    let requests = receiver.requests();
    let signatures = requests.iter().map(|request| &request.headers["webhook-signature"][3..]);
    let secrets: Vec<&str> = ["hunter2", SECRET, &SECRET[6..]].into_iter().chain(signatures).collect();
    for told in [&in_trouble, &ready, &shown, &said] {
        assert_eq!(secrets.iter().find(|secret| told.contains(**secret)), None, "{told}");
    }
    for told in [&in_trouble, &ready, &said] {
        assert!(!told.contains("sim-delivered-"), "{told}");
    }
}
