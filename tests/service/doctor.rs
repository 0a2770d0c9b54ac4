//! `pinwatch doctor` finds each mistake and says what to do.

use std::path::Path;

use serde_json::Value;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::service::daemon::{Daemon, Start, configure, place};
use crate::support::{Ended, Place, program, run_to_end};

/// What it finds, by check, and its exit status.
async fn doctor(config: String) -> (Vec<(String, bool, String)>, Option<i32>) {
    tokio::task::spawn_blocking(move || {
        let place = Place::of("");
        configure(&place, &config);
        let ended = run_doctor(&place.config());
        let lines = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        // The last line can be an error.
        let findings = lines.filter(|line: &Value| line["check"].is_string()).map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            (text("check"), finding["ok"].as_bool().unwrap(), text("what"))
        });
        (findings.collect(), ended.code)
    })
    .await
    .unwrap()
}

fn run_doctor(config: &Path) -> Ended {
    let mut command = program();
    command.arg("doctor").arg("--config").arg(config);
    run_to_end(command)
}

fn of<'a>(findings: &'a [(String, bool, String)], check: &str) -> (bool, &'a str) {
    let found = findings.iter().find(|(name, ..)| name == check);
    let (_, is_well, what) = found.unwrap_or_else(|| panic!("no {check} in {findings:?}"));
    (*is_well, what)
}

async fn api(status: u16, date: &str) -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(status).insert_header("Date", date);
    Mock::given(wiremock::matchers::any()).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_wrong_key_a_wrong_clock_and_a_missing_daemon() {
    let server = api(401, "Sun, 06 Nov 1994 08:49:37 GMT").await;
    let (found, status) = doctor(format!("api.base_url = \"{}\"\napi.key = \"hunter2\"", server.uri())).await;
    assert_eq!(status, Some(1));
    assert!(of(&found, "configuration").0);
    assert!(matches!(of(&found, "api"), (false, what) if what.contains("refuses the credentials (401)")));
    assert!(matches!(of(&found, "clock"), (false, what) if what.contains("set-ntp")));
    assert!(matches!(of(&found, "daemon"), (false, what) if what.contains("start it")));
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_an_unreachable_host_and_an_unwritable_sink() {
    let config = "api.base_url = \"http://127.0.0.1:9\"\napi.key = \"k\"\n\
                  [[sink]]\ntype = \"file\"\npath = \"FOLDER/missing/outcomes\"\n";
    let (found, status) = doctor(config.to_owned()).await;
    assert_eq!(status, Some(1));
    assert!(matches!(of(&found, "api"), (false, what) if what.contains("can't be reached")));
    assert!(matches!(of(&found, "sink"), (false, what) if what.contains("install -d")));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_exits_2_for_an_invalid_configuration() {
    assert_eq!(doctor("api.kee = \"k\"".to_owned()).await.1, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_reports_that_all_is_well() {
    // A PIN that nobody has is 404, which shows that the key is taken. wiremock dates its answers itself.
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any()).respond_with(ResponseTemplate::new(404)).mount(&server).await;
    let config = format!("api.base_url = \"{}\"\napi.key = \"k\"\n", server.uri());
    let daemon = Daemon::start(&place(), Start { config: &config, ..Start::default() });
    tokio::task::spawn_blocking(move || {
        daemon.notifications_until("READY=1");
        let ended = run_doctor(&daemon.path("pinwatch.toml"));
        let found = ended.stdout;
        assert_eq!(ended.code, Some(0), "{found}");
        assert!(!found.contains("\"ok\":false") && found.lines().count() >= 4, "{found}");
    })
    .await
    .unwrap();
}
