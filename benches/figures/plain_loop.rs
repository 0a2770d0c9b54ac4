//! Measures what polling costs without pinwatch: a loop that polls by reqwest and parses the answers.
//!
//! It has the same connections, headers and answers as the daemon, on one thread, in a process of its own, but no timers, store,
//! limits or error handling.

use reqwest::Certificate;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::daemon::KEY;

/// The program's first argument when it runs as the loop.
pub const MODE: &str = "--plain-loop";

/// Requests at once, as many as the daemon's `api.concurrency`.
const CONNECTIONS: usize = 64;

/// The PINs that are polled in turn.
const PINS: usize = 100_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    status: String,
    description: String,
    final_status: bool,
}

/// Polls until it is killed. Trusts servers with a certificate of this authority.
pub fn run(base: &str, authority: &str) {
    rustls::crypto::ring::default_provider().install_default().expect("none is installed yet");
    let authority = std::fs::read(authority).expect("a certificate");
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(AUTHORIZATION, format!("App {KEY}").parse().expect("a header"));
    let client = reqwest::Client::builder()
        .user_agent("plain-loop/1")
        .default_headers(headers)
        .no_proxy()
        .tls_certs_only([Certificate::from_pem(&authority).expect("a certificate")])
        .build()
        .expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let loops: Vec<_> = (0..CONNECTIONS)
            .map(|first| tokio::spawn(ask_for_ever(client.clone(), base.to_owned(), first)))
            .collect();
        for asking in loops {
            asking.await.expect("a loop without end");
        }
    });
}

async fn ask_for_ever(client: reqwest::Client, base: String, first: usize) {
    for n in (first..PINS).step_by(CONNECTIONS).cycle() {
        let request = client.get(format!("{base}/2fa/1/pin/{n:032X}/status"));
        let answer = request.send().await.expect("an answer").bytes().await.expect("a body");
        let deliveries: Vec<Delivery> = serde_json::from_slice(&answer).expect("JSON");
        for Delivery { status, description, final_status } in deliveries {
            assert!(!final_status && !status.is_empty() && !description.is_empty());
        }
    }
}
