//! SIGHUP: a reload happens completely or not at all.

use std::fs;

use rustix::process::Signal;
use wiremock::matchers::header;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::service::daemon::{Daemon, Start, ask, place};

const DELIVERED: &str =
    r#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}]"#;

/// An API that takes one key, and delivers at once.
async fn api(key: &str) -> MockServer {
    let server = MockServer::start().await;
    let delivered = ResponseTemplate::new(200).set_body_raw(DELIVERED, "application/json");
    Mock::given(header("Authorization", format!("App {key}"))).respond_with(delivered).mount(&server).await;
    Mock::given(wiremock::matchers::any())
        .respond_with(ResponseTemplate::new(401))
        .with_priority(9)
        .mount(&server)
        .await;
    server
}

fn config(server: &MockServer, key: &str, more: &str) -> String {
    let uri = server.uri();
    format!(
        "api.base_url = \"{uri}\"\napi.key = \"{key}\"\nschedule.initial_interval = \"10ms\"\n{more}\n\
         [[sink]]\ntype = \"file\"\npath = \"FOLDER/outcomes\"\n"
    )
}

/// Runs the blocking part of a test beside the API.
async fn run_blocking(test: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_a_new_key_ends_the_pause_at_once_and_no_pin_is_given_up() {
    let server = api("good").await;
    run_blocking(move || {
        let daemon =
            Daemon::start(&place(), Start { config: &config(&server, "bad", ""), ..Start::default() });
        daemon.notifications_until("READY=1");
        ask(&daemon.socket(), "A1");
        daemon.until_logged("the API refuses the credentials");
        daemon.configure(&config(&server, "good", ""));
        daemon.reload();
        daemon.wait_for_line("outcomes", "\"pinId\":\"A1\"");
        daemon.until_logged("the credentials");
        assert!(!daemon.log().contains("good") && !daemon.log().contains("\"bad\""));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_an_invalid_configuration_changes_nothing_and_says_why() {
    let server = api("good").await;
    run_blocking(move || {
        let daemon =
            Daemon::start(&place(), Start { config: &config(&server, "good", ""), ..Start::default() });
        daemon.notifications_until("READY=1");
        daemon.configure(&config(&server, "bad", "schedule.max_interval = \"never\""));
        daemon.reload();
        daemon.until_logged("was not reloaded");
        daemon.until_logged("schedule.max_interval");
        // With a sink that can't be opened, the new key is not used either.
        daemon.configure(&format!(
            "{}[[sink]]\nname = \"other\"\ntype = \"file\"\npath = \"FOLDER/missing/x\"\n",
            config(&server, "bad", "")
        ));
        daemon.reload();
        daemon.until_logged("missing/x");
        ask(&daemon.socket(), "A1");
        daemon.wait_for_line("outcomes", "\"pinId\":\"A1\"");
        assert!(!daemon.log().contains("refuses the credentials"), "{}", daemon.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_moves_and_removes_sinks_without_losing_an_outcome() {
    let server = api("good").await;
    run_blocking(move || {
        let one = config(&server, "good", "");
        let added = "[[sink]]\nname = \"second\"\ntype = \"file\"\npath = \"FOLDER/second\"\n";
        let daemon = Daemon::start(&place(), Start { config: &one, ..Start::default() });
        daemon.notifications_until("READY=1");
        let submit = |pin: &str| ask(&daemon.socket(), &format!("{{\"op\":\"wait\",\"pinId\":\"{pin}\"}}"));
        ask(&daemon.socket(), "A1");
        submit("A1");

        daemon.configure(&format!("{one}{added}"));
        daemon.reload();
        ask(&daemon.socket(), "A2");
        submit("A2");
        daemon.wait_for_line("second", "\"pinId\":\"A2\"");

        daemon.wait_for_line("outcomes", "\"pinId\":\"A2\"");

        daemon.configure(&one.replace("FOLDER/outcomes", "FOLDER/moved"));
        daemon.reload();
        ask(&daemon.socket(), "A3");
        submit("A3");
        daemon.wait_for_line("moved", "\"pinId\":\"A3\"");
        let lines = |file: &str| {
            let text = fs::read_to_string(daemon.path(file)).unwrap();
            let pins: Vec<_> = text.lines().map(|line| line.split('"').nth(9).unwrap().to_owned()).collect();
            pins.join(" ")
        };
        assert_eq!(lines("outcomes"), "A1 A2");
        assert_eq!(lines("moved"), "A3");
        assert_eq!(lines("second"), "A2");
        for text in ["sink second added", "sink file changed", "sink second removed"] {
            daemon.until_logged(text);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_schedule_and_log_level_and_names_keys_that_need_a_restart() {
    let server = api("good").await;
    run_blocking(move || {
        let slow = config(&server, "good", "schedule.deadline = \"1h\"").replace("10ms", "1h").replace(
            "schedule.initial_interval",
            "schedule.max_interval = \"2h\"\nschedule.initial_interval",
        );
        let daemon = Daemon::start(&place(), Start { config: &slow, ..Start::default() });
        daemon.notifications_until("READY=1");
        let fast = config(
            &server,
            "good",
            "log.level = \"debug\"\nintake.max_connections = 7\nstore.retention = \"1d\"\nschedule.deadline = \"2h\"",
        );
        daemon.configure(&fast);
        daemon.reload();
        ask(&daemon.socket(), "A1");
        daemon.wait_for_line("outcomes", "\"pinId\":\"A1\"");
        daemon.until_logged("a PIN has its outcome");
        let log = daemon.log();
        assert!(log.contains("intake.max_connections, store.retention"), "{log}");
        assert!(log.contains("only after a restart"), "{log}");
        assert!(log.contains("schedule.deadline"), "{log}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reopens_a_renamed_file_even_if_the_configuration_is_invalid() {
    let server = api("good").await;
    run_blocking(move || {
        let good = config(&server, "good", "");
        let daemon = Daemon::start(&place(), Start { config: &good, ..Start::default() });
        daemon.notifications_until("READY=1");
        ask(&daemon.socket(), "A1");
        daemon.wait_for_line("outcomes", "\"pinId\":\"A1\"");
        let path = daemon.path("outcomes");
        fs::rename(&path, daemon.path("outcomes.1")).unwrap();
        daemon.configure("this is no TOML");
        daemon.reload();
        daemon.until_logged("was not reloaded");
        ask(&daemon.socket(), "A2");
        daemon.wait_for_line("outcomes", "\"pinId\":\"A2\"");
        assert!(!fs::read_to_string(&path).unwrap().contains("A1"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_works_while_a_reload_waits_for_a_sink() {
    let server = api("good").await;
    // It takes a request, and never answers.
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    run_blocking(move || {
        let uri = format!("http://{}", endpoint.local_addr().unwrap());
        let hook = format!("[[sink]]\ntype = \"webhook\"\nurl = \"{uri}\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n");
        let with_hook = format!("{}{hook}", config(&server, "good", ""));
        let mut daemon = Daemon::start(&place(), Start { config: &with_hook, ..Start::default() });
        daemon.notifications_until("READY=1");
        ask(&daemon.socket(), "A1");
        let (_request, _) = endpoint.accept().unwrap();
        daemon.configure(&config(&server, "good", ""));
        daemon.signal(Signal::HUP);
        daemon.notifications_until("RELOADING=1");
        daemon.signal(Signal::TERM);
        let told = daemon.notifications_until("STOPPING=1");
        assert!(!told.iter().any(|told| told.contains("READY=1")), "the stop waited for the reload: {told:?}");
        // A second signal ends it at once.
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended(), Some(1));
        daemon.until_logged("by a second signal");
    })
    .await;
}
