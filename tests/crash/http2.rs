//! Submits over HTTP/2 and TLS, and a daemon that is killed with -9 in the middle of them.
//!
//!     PINWATCH_CRASH_HTTP2_ROUNDS=50 cargo test --test integration crash::http2 -- --nocapture

use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use reqwest::{Certificate, Client, StatusCode, Version};
use rustix::process::Signal;
use serde_json::Value;

use super::number;
use crate::http::v1::client::{Api, JSON, NDJSON};
use crate::support::{Authority, json as parse, until_true};

/// Submits of a round: a third single, a third in arrays, a third as lines of one request.
const SUBMITS: usize = 20_000;

/// Requests that are open at once on the one connection.
const STREAMS: usize = 64;

const IN_ARRAY: usize = 50;

#[test]
fn every_202_over_http_2_has_its_outcome_after_a_kill_9_under_20_000_submits() {
    let rounds = number("PINWATCH_CRASH_HTTP2_ROUNDS").unwrap_or(2) as usize;
    let seed = number("PINWATCH_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("crash test over HTTP/2: {rounds} kills, PINWATCH_CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("of the server");
    let (certificate, key) = authority.certify("localhost", 2090);
    let files = [("tls_cert", certificate), ("tls_key", key)].map(|(setting, pem)| {
        let file = folder.path().join(setting);
        fs::write(&file, pem).unwrap();
        format!("http.{setting}={}", file.display())
    });
    let mut api = Api::with(&files.each_ref().map(String::as_str));
    let mut promised = HashSet::new();
    for round in 0..rounds {
        let client = http2_client(&api, &authority);
        let kill_at = 500 + random.usize(..SUBMITS / 2);
        let submits = Submits::new(&api, client, round, kill_at);
        runtime.block_on(async {
            let singles = join_all((0..STREAMS).map(|_| submits.send_singles()));
            let arrays = join_all((0..4).map(|_| submits.send_arrays()));
            tokio::join!(singles, arrays, submits.send_lines());
        });
        let acked = submits.acked.into_inner().unwrap();
        assert!(acked.len() >= kill_at, "killed after {kill_at} acks, but {} were counted", acked.len());
        promised.extend(acked);
        api.served.restart();
    }
    let mut client = api.served.daemon.client();
    until_true("all are finished", || client.stats()["inFlight"] == 0);
    let finished: Vec<String> =
        client.outbox().iter().map(|record| parse(record)["pinId"].as_str().unwrap().to_owned()).collect();
    let each: HashSet<_> = finished.iter().collect();
    assert_eq!(each.len(), finished.len(), "a PIN has two outcomes");
    let lost: Vec<_> = promised.iter().filter(|pin| !each.contains(pin)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {:?}", lost.len(), promised.len(), lost.first());
}

/// The submits of one round, and what was acknowledged of them.
struct Submits<'a> {
    api: &'a Api,
    client: Client,
    round: usize,
    /// After how many acks the daemon is killed.
    kill_at: usize,
    /// The number of the next PIN of each kind of request.
    next_single: AtomicUsize,
    next_array: AtomicUsize,
    acked: Mutex<HashSet<String>>,
}

impl<'a> Submits<'a> {
    fn new(api: &'a Api, client: Client, round: usize, kill_at: usize) -> Self {
        let (next_single, next_array) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { api, client, round, kill_at, next_single, next_array, acked: Mutex::default() }
    }

    fn item(&self, kind: &str, number: usize) -> String {
        format!("{{\"pinId\":\"sim-delivered-{}-{kind}-{number}\"}}", self.round)
    }

    /// Submits PINs one by one, until all are taken or the daemon is dead.
    async fn send_singles(&self) {
        loop {
            let number = self.next_single.fetch_add(1, Ordering::Relaxed);
            if number >= SUBMITS / 3 {
                return;
            }
            let Some(answer) = self.post(JSON, self.item("one", number)).await else { return };
            self.count(&[parse(&answer)]);
        }
    }

    async fn send_arrays(&self) {
        loop {
            let first = self.next_array.fetch_add(IN_ARRAY, Ordering::Relaxed);
            if first >= SUBMITS / 3 {
                return;
            }
            let items: Vec<_> = (first..first + IN_ARRAY).map(|number| self.item("array", number)).collect();
            let Some(answer) = self.post(JSON, format!("[{}]", items.join(","))).await else { return };
            self.count(parse(&answer).as_array().unwrap());
        }
    }

    /// Submits lines in one request, and counts each line of the answer as it comes.
    async fn send_lines(&self) {
        let body: String = (0..SUBMITS / 3).map(|number| self.item("line", number) + "\n").collect();
        let Ok(mut response) = self.request(NDJSON, body).send().await else { return };
        assert_eq!((response.status(), response.version()), (StatusCode::ACCEPTED, Version::HTTP_2));
        let mut unread = Vec::new();
        while let Ok(Some(bytes)) = response.chunk().await {
            unread.extend_from_slice(&bytes);
            let whole = unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let lines: Vec<u8> = unread.drain(..whole).collect();
            let answers: Vec<_> = std::str::from_utf8(&lines).unwrap().lines().map(parse).collect();
            self.count(&answers);
        }
    }

    fn request(&self, content_type: &str, body: String) -> reqwest::RequestBuilder {
        let url = format!("https://localhost:{}/v1/pins", self.api.address().port());
        self.client.post(url).bearer_auth(&self.api.submit).header("content-type", content_type).body(body)
    }

    /// The whole body of a 202; `None` if the daemon ended first.
    async fn post(&self, content_type: &str, body: String) -> Option<String> {
        let response = self.request(content_type, body).send().await.ok()?;
        assert_eq!((response.status(), response.version()), (StatusCode::ACCEPTED, Version::HTTP_2));
        response.text().await.ok()
    }

    /// Counts acks, and kills the daemon once there are enough.
    fn count(&self, answers: &[Value]) {
        let mut acked = self.acked.lock().unwrap();
        let before = acked.len();
        for answer in answers {
            assert_eq!(answer["ok"], true, "{answer}");
            acked.insert(answer["pinId"].as_str().unwrap().to_owned());
        }
        if (before..acked.len()).contains(&self.kill_at) {
            self.api.served.daemon.signal(Signal::KILL);
        }
    }
}

/// A client that trusts the server's authority, and speaks HTTP/2 where the server offers it.
fn http2_client(api: &Api, authority: &Authority) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .tls_certs_only([Certificate::from_pem(authority.pem.as_bytes()).unwrap()])
        .resolve("localhost", api.address())
        .no_proxy()
        .build()
        .unwrap()
}
