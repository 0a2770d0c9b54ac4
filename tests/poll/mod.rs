//! The API client against good and bad servers: wiremock for complete answers, a raw
//! socket for what wiremock can't do. No test looks at how long anything took.

mod answers;
mod connections;
mod local;
mod network;
mod strays;
mod stub;
mod tls;

use std::time::Duration;

use pinwatch::config::{Api, Config, Credentials};
use pinwatch::pin::PinId;
use pinwatch::poll::{Client, Connection, Meaning};

const GOOD: &str =
    r#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}]"#;

/// Long enough that no healthy poll reaches it, even on the slowest machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// For polls that must time out.
const SHORT_TIMEOUT: Duration = Duration::from_millis(200);

fn api(base_url: &str) -> Api {
    let base_url = format!("api.base_url={base_url}");
    let ample =
        ["api.timeout", "api.connect_timeout"].map(|key| format!("{key}={}s", LONG_TIMEOUT.as_secs()));
    let sets = [base_url.as_str(), "api.allow_plain_http=true", "api.key=hunter2", &ample[0], &ample[1]];
    Config::of_sets(&sets).unwrap().api
}

fn pin() -> PinId {
    "9C817C6F8AF3D48F9FE553282AFA2B67".parse().unwrap()
}

/// Waits as long as a kept connection is idle between two polls.
async fn rest() {
    pass(Duration::from_secs(1)).await;
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn poll(api: &Api) -> Meaning {
    Client::new(api).unwrap().poll(&pin(), Connection::Kept).await
}

#[track_caller]
fn assert_delivered(meaning: &Meaning) {
    let Meaning::Deliveries(deliveries) = meaning else { panic!("{meaning:?}") };
    assert_eq!((deliveries.len(), deliveries[0].status.as_str()), (1, "MESSAGE_DELIVERED"));
}

#[track_caller]
fn assert_unavailable(meaning: &Meaning, text: &str) {
    let Meaning::Unavailable(said) = meaning else { panic!("{meaning:?}") };
    assert!(said.contains(text), "{said}");
    // Neither the key nor the URL, whose host and path are configuration and may be private.
    assert!(!said.contains("hunter2") && !said.contains("/2fa/"), "{said}");
}

#[track_caller]
fn assert_unreadable(meaning: &Meaning, text: &str) {
    let Meaning::Unreadable(said) = meaning else { panic!("{meaning:?}") };
    assert!(said.contains(text), "{said}");
}
