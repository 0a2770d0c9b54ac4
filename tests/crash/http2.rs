//! The crash test over HTTP/2 and TLS: connections that submit by NDJSON and by single POSTs, killed with -9 in the middle.
//!
//!     PINWATCH_CRASH_HTTP2_ROUNDS=100 PINWATCH_CRASH_SEED=7 cargo test --test integration crash::http2 -- --nocapture

use std::collections::HashSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::number;
use crate::http::v1::client::{Api, JSON, NDJSON};
use crate::support::{Authority, json, until_true};

/// PINs of a round.
const PINS: usize = 20_000;

/// Connections; every second one sends NDJSON, the others single POSTs.
const CONNECTIONS: usize = 4;

/// POSTs of one connection that wait for their answers at once.
const AT_ONCE: usize = 25;

#[test]
fn every_202_over_http_2_has_its_outcome_whenever_the_daemon_is_killed() {
    let rounds = number("PINWATCH_CRASH_HTTP2_ROUNDS").unwrap_or(2);
    let seed = number("PINWATCH_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("crash test over HTTP/2: {rounds} kills, PINWATCH_CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("of the server");
    let mut api = Api::with_tls(folder.path(), authority.certify("localhost", 2090), &[]);
    let runtime = Runtime::new().unwrap();
    let mut promised = HashSet::new();
    for round in 0..rounds {
        let client = Client::new(&authority, &api);
        let acked = client.acked.clone();
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let pins = (0..PINS / CONNECTIONS).map(|n| format!("sim-delivered-{round}-{connection}-{n}"));
                runtime.spawn(client.clone().submit(pins.collect(), connection % 2 == 0))
            })
            .collect();
        let enough = random.usize(1..PINS / 2);
        until_true("so many are promised", || acked.load(Ordering::Relaxed) >= enough);
        api.served.daemon.signal(Signal::KILL);
        let before = promised.len();
        for client in clients {
            promised.extend(runtime.block_on(client).unwrap());
        }
        println!("  killed after {enough}, {} were promised", promised.len() - before);
        assert!(promised.len() < before + PINS, "the kill came in the middle");
        api.served.restart();
    }
    let mut client = api.served.daemon.client();
    until_true("all are finished", || client.stats()["inFlight"] == 0);
    let outbox = client.outbox();
    let finished: Vec<String> =
        outbox.iter().map(|record| json(record)["pinId"].as_str().unwrap().to_owned()).collect();
    let each: HashSet<_> = finished.iter().collect();
    assert_eq!(each.len(), finished.len(), "a PIN has two outcomes; seed {seed}");
    let lost: Vec<_> = promised.iter().filter(|pin| !each.contains(pin)).collect();
    assert!(lost.is_empty(), "{} of {} are lost, seed {seed}: {:?}", lost.len(), promised.len(), lost[0]);
}

/// A client that submits to one daemon until that dies.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    tls: TlsConnector,
    token: String,
    /// PINs that were promised to all clones.
    acked: Arc<AtomicUsize>,
}

impl Client {
    fn new(authority: &Authority, api: &Api) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Self { address: api.address(), tls, token: api.submit.clone(), acked: Arc::default() }
    }

    /// Submits these PINs on one connection; gives those that were promised.
    async fn submit(self, pins: Vec<String>, as_lines: bool) -> Vec<String> {
        let Some(sender) = self.connect().await else { return Vec::new() };
        if as_lines {
            return self.lines(sender, &pins).await;
        }
        let posts = stream::iter(pins).map(|pin| self.post(sender.clone(), pin)).buffer_unordered(AT_ONCE);
        posts.filter_map(async |promised| promised).collect().await
    }

    /// `None` where the daemon is dead already.
    async fn connect(&self) -> Option<SendRequest<Bytes>> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let stream = self.tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.ok()?;
        tokio::spawn(async move {
            // It ends with the daemon.
            let _ = connection.await;
        });
        Some(sender)
    }

    fn request(&self, content_type: &str) -> axum::http::Request<()> {
        let request = axum::http::Request::post("https://localhost/v1/pins");
        let request = request.header("authorization", format!("Bearer {}", self.token));
        request.header("content-type", content_type).body(()).unwrap()
    }

    /// Submits a PIN by a POST of its own; gives it back if there was a 202.
    async fn post(&self, sender: SendRequest<Bytes>, pin: String) -> Option<String> {
        let mut sender = sender.ready().await.ok()?;
        let (answer, mut body) = sender.send_request(self.request(JSON), false).ok()?;
        body.send_data(line(&pin).into(), true).ok()?;
        let answer = answer.await.ok()?;
        // The status alone is the promise; the rest may be lost with the daemon.
        assert_eq!(answer.status(), 202);
        self.acked.fetch_add(1, Ordering::Relaxed);
        Some(pin)
    }

    /// Submits PINs as the lines of one body; gives those whose answers came.
    async fn lines(&self, sender: SendRequest<Bytes>, pins: &[String]) -> Vec<String> {
        let Ok(mut sender) = sender.ready().await else { return Vec::new() };
        let Ok((answer, body)) = sender.send_request(self.request(NDJSON), false) else { return Vec::new() };
        let lines: String = pins.iter().map(|pin| line(pin)).collect();
        let reading = async {
            let Ok(answer) = answer.await else { return Vec::new() };
            assert_eq!(answer.status(), 202);
            self.answers(answer.into_body()).await
        };
        let (promised, _) = tokio::join!(reading, send(body, lines.into()));
        assert!(pins.starts_with(&promised), "answers come in the order of the lines");
        promised
    }

    /// Reads answers, whole lines of them, until the body ends or the daemon does.
    async fn answers(&self, mut body: RecvStream) -> Vec<String> {
        let (mut promised, mut text) = (Vec::new(), Vec::new());
        while let Some(Ok(piece)) = body.data().await {
            let _ = body.flow_control().release_capacity(piece.len());
            text.extend_from_slice(&piece);
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let rest = text.split_off(whole);
            for line in std::str::from_utf8(&text).unwrap().lines() {
                let answer = json(line);
                assert_eq!(answer["ok"], true, "{answer}");
                promised.push(answer["pinId"].as_str().unwrap().to_owned());
                self.acked.fetch_add(1, Ordering::Relaxed);
            }
            text = rest;
        }
        promised
    }
}

fn line(pin: &str) -> String {
    format!("{{\"pinId\":\"{pin}\"}}\n")
}

/// Sends a body as the daemon makes room for it; `None` where it died.
async fn send(mut stream: SendStream<Bytes>, mut body: Bytes) -> Option<()> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
        let piece = body.split_to(room.min(body.len()));
        stream.send_data(piece, body.is_empty()).ok()?;
    }
    Some(())
}
