//! Stray answers on kept connections: they must not end another PIN.

use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::stub::{answer, answer_good, request, stub};
use super::*;

/// Of a stray answer with a 200; `GOOD` is what every PIN should get.
const WRONG: &str = r#"[{"status":"MESSAGE_EXPIRED","finalStatus":true}]"#;

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Stray answers that a server may send.
fn strays() -> [String; 5] {
    [
        ok(WRONG),
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
        // Half of one, before and after its head.
        "HTTP/1.1 200 OK\r\ncontent-len".to_owned(),
        ok(WRONG)[..50].to_owned(),
    ]
}

/// Polls until the client has seen a stray answer; every poll must get the right answer.
async fn until_seen(client: &Client) {
    for _ in 0..100 {
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        rest().await;
        if client.strays().is_some() {
            return;
        }
    }
    panic!("no stray answer was seen");
}

#[tokio::test]
async fn a_stray_answer_never_becomes_the_answer_for_another_pin() {
    for stray in strays() {
        for at_once in [true, false] {
            let sent = stray.clone();
            let (url, _) = stub(move |_, mut stream| {
                let stray = sent.clone();
                async move {
                    while request(&mut stream).await {
                        if at_once {
                            answer(&mut stream, &format!("{}{stray}", ok(GOOD))).await;
                        } else {
                            answer_good(&mut stream).await;
                            tokio::task::yield_now().await;
                            answer(&mut stream, &stray).await;
                        }
                    }
                }
            })
            .await;
            let client = Client::new(&api(&url)).unwrap();
            until_seen(&client).await;
            for _ in 0..20 {
                assert_delivered(&client.poll(&pin(), Connection::Kept).await);
            }
        }
    }
}

#[tokio::test]
async fn a_stray_answer_that_comes_after_the_next_request_ends_no_pin() {
    for together in [true, false] {
        let (url, connections) = stub(move |_, mut stream| async move {
            request(&mut stream).await;
            // Slow, so that the client knows how long an answer may take.
            tokio::time::sleep(SHORT_TIMEOUT).await;
            answer_good(&mut stream).await;
            request(&mut stream).await;
            if together {
                answer(&mut stream, &format!("{}{}", ok(WRONG), ok(GOOD))).await;
            } else {
                answer(&mut stream, &ok(WRONG)).await;
                tokio::task::yield_now().await;
                answer(&mut stream, &ok(GOOD)).await;
            }
            while request(&mut stream).await {}
        })
        .await;
        let client = Client::new(&api(&url)).unwrap();
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        rest().await;
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        assert!(client.strays().is_some());
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn an_answer_that_names_another_pin_is_ignored() {
    let other = ok(r#"[{"pinId":"ANOTHER","status":"MESSAGE_EXPIRED","finalStatus":true}]"#);
    let (url, _) = stub(move |n, mut stream| {
        let other = other.clone();
        async move {
            request(&mut stream).await;
            answer_good(&mut stream).await;
            // The second answer of the first connection.
            if n == 0 && request(&mut stream).await {
                answer(&mut stream, &other).await;
            }
            while request(&mut stream).await {}
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    assert_delivered(&client.poll(&pin(), Connection::Kept).await);
    rest().await;
    assert_delivered(&client.poll(&pin(), Connection::Kept).await);
    assert!(client.strays().is_some());
}

#[tokio::test]
async fn an_ending_is_asked_for_again_if_its_connection_closes_right_afterwards() {
    let (url, connections) = stub(|n, mut stream| async move {
        request(&mut stream).await;
        answer_good(&mut stream).await;
        if n == 0 {
            request(&mut stream).await;
            answer(&mut stream, &ok(WRONG)).await;
        } else {
            while request(&mut stream).await {}
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    assert_delivered(&client.poll(&pin(), Connection::Kept).await);
    rest().await;
    assert_delivered(&client.poll(&pin(), Connection::Kept).await);
    // That is no stray answer: servers close connections.
    assert_eq!((client.strays(), connections.load(Ordering::SeqCst)), (None, 2));
}

#[tokio::test]
async fn after_one_stray_answer_connections_are_not_reused_for_an_hour() {
    let (url, connections) = stub(|n, mut stream| async move {
        while request(&mut stream).await {
            answer_good(&mut stream).await;
            if n == 0 {
                answer(&mut stream, &ok(WRONG)).await;
            }
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    until_seen(&client).await;
    let ask_five_times = async || {
        let before = connections.load(Ordering::SeqCst);
        for _ in 0..5 {
            assert_delivered(&client.poll(&pin(), Connection::Kept).await);
            rest().await;
        }
        connections.load(Ordering::SeqCst) - before
    };
    assert_eq!(ask_five_times().await, 5);
    // A reload that leaves the host as it is.
    let before = client.strays();
    client.change(client.prepare(&api(&url)).unwrap());
    assert_eq!(client.strays(), before);
    pass(Duration::from_secs(59 * 60)).await;
    assert_eq!(ask_five_times().await, 5);
    pass(Duration::from_secs(60)).await;
    assert_eq!((client.strays(), ask_five_times().await), (None, 1));
}

#[tokio::test]
async fn connections_to_another_host_are_reused_despite_earlier_stray_answers() {
    let (url, _) = stub(|_, mut stream| async move {
        while request(&mut stream).await {
            answer_good(&mut stream).await;
            answer(&mut stream, &ok(WRONG)).await;
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    until_seen(&client).await;
    client.change(client.prepare(&api("http://127.0.0.1:9")).unwrap());
    assert_eq!(client.strays(), None);
}

#[tokio::test]
async fn a_stray_answer_over_tls_is_noticed() {
    for stray in strays() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(signed.cert.pem().as_bytes()).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        // Without HTTP/2.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let stray = stray.clone();
                std::thread::spawn(move || {
                    let mut byte = [0];
                    let mut read = Vec::new();
                    while matches!(stream.read(&mut byte), Ok(1)) {
                        read.push(byte[0]);
                        if read.ends_with(b"\r\n\r\n") {
                            // Two records of TLS, sent at once.
                            let mut records = stream.conn.writer();
                            let _ = records.write_all(ok(GOOD).as_bytes());
                            let _ = records.write_all(stray.as_bytes());
                            let _ = stream.flush();
                        }
                    }
                });
            }
        });
        let client = Client::new(&Api { ca_file: Some(ca.path().to_owned()), ..api(&url) }).unwrap();
        until_seen(&client).await;
    }
}

/// For `docs/operations.md`, "Stray answers": how many of 4,000 PINs end wrongly.
#[tokio::test]
#[ignore = "takes minutes, and has no result that is right or wrong"]
async fn figures() {
    const PINS: usize = 4000;
    const AT_ONCE: usize = 32;
    println!("after    of answers   wrong endings of {PINS}   connections");
    for every in [1, 100] {
        for after in [0, 1, 5, 20, 100] {
            let after = Duration::from_millis(after);
            let (url, connections) = stub(move |_, stream| strays_after(stream, after, every)).await;
            let client = Client::new(&Api { concurrency: AT_ONCE, ..api(&url) }).unwrap();
            let mut polls = JoinSet::new();
            let (mut asked, mut wrong) = (0, 0);
            while asked < PINS || !polls.is_empty() {
                while asked < PINS && polls.len() < AT_ONCE {
                    let (client, pin) = (client.clone(), format!("P{asked}").parse::<PinId>().unwrap());
                    polls.spawn(async move { client.poll(&pin, Connection::Kept).await });
                    asked += 1;
                }
                let meaning = polls.join_next().await.unwrap().unwrap();
                let Meaning::Deliveries(deliveries) = meaning else { continue };
                wrong += usize::from(deliveries[0].status.as_str() != "MESSAGE_DELIVERED");
            }
            let connections = connections.load(Ordering::SeqCst);
            println!("{after:>6?}   {:>8} %   {wrong:>26}   {connections:>11}", 100 / every);
        }
    }
}

/// Answers take 20 ms. After every `every`th, a stray one follows after `after`.
async fn strays_after(stream: TcpStream, after: Duration, every: u32) {
    let (mut read, write) = tokio::io::split(stream);
    let write = Arc::new(tokio::sync::Mutex::new(write));
    while super::stub::request_from(&mut read).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = write.lock().await.write_all(ok(GOOD).as_bytes()).await;
        if fastrand::u32(..every) == 0 {
            let write = write.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = write.lock().await.write_all(ok(WRONG).as_bytes()).await;
            });
        }
    }
}
