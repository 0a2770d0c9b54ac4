//! The API's client against servers that behave and servers that don't: wiremock for whole answers, a raw
//! socket for what wiremock can't do. No test looks at how long anything took.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pinwatch::config::{Api, Credentials};
use pinwatch::pin::PinId;
use pinwatch::poll::{Client, MAX_BODY, Meaning};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use wiremock::matchers::{any, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const GOOD: &str =
    r#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}]"#;

/// `GOOD`, compressed with gzip.
const GOOD_GZIP: &str = "H4sIAAAAAAACA4uuViouSSwpLVayUvJ1DQ52dHeNd3H18QxzDXJ1UdJRSkktTi7KLCjJzM8DqUgtLk5MT1UoTs0rUUjMS1FISc3JLEstSk0BKk3LzEvMCYYaVlJUmlobCwAaJoKbXgAAAA==";

/// An array with a MiB of white space, compressed with gzip.
const BOMB_GZIP: &str = "H4sIAAAAAAACA+3BQREAAAwCoCrr5a1/DUP4BXIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKMvior2lAIAEAA=";

/// Long enough that no healthy poll runs into it, on the slowest machine.
const AMPLE: Duration = Duration::from_secs(30);

/// For polls that have to run into it.
const SHORT: Duration = Duration::from_millis(200);

fn api(base_url: &str) -> Api {
    Api {
        base_url: base_url.parse().unwrap(),
        path: "/2fa/1/pin/{pinId}/status".to_owned(),
        credentials: Credentials::App("hunter2".into()),
        timeout: AMPLE,
        connect_timeout: AMPLE,
        concurrency: 64,
        rate: None,
    }
}

fn pin() -> PinId {
    "9C817C6F8AF3D48F9FE553282AFA2B67".parse().unwrap()
}

async fn poll(api: &Api) -> Meaning {
    Client::new(api).unwrap().poll(&pin()).await
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

async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

// ---- whole answers ----

#[tokio::test]
async fn a_poll_is_one_get_with_the_app_key_and_the_usual_headers() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/2fa/1/pin/9C817C6F8AF3D48F9FE553282AFA2B67/status"))
        .and(header("authorization", "App hunter2"))
        .and(header("accept", "application/json"))
        .and(header("accept-encoding", "gzip"))
        .and(header("user-agent", concat!("pinwatch/", env!("CARGO_PKG_VERSION"))))
        .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
        .expect(1)
        .mount(&server)
        .await;
    assert_delivered(&poll(&api(&server.uri())).await);
}

#[tokio::test]
async fn a_user_name_and_password_are_sent_as_basic_authentication() {
    let server = MockServer::start().await;
    Mock::given(header("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="))
        .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
        .mount(&server)
        .await;
    let credentials = Credentials::Basic { username: "Aladdin".into(), password: "open sesame".into() };
    assert_delivered(&poll(&Api { credentials, ..api(&server.uri()) }).await);
}

#[tokio::test]
async fn the_base_urls_own_path_is_kept_and_every_pin_id_stays_one_segment() {
    let server = MockServer::start().await;
    for id in ["a.b_c-1", "...", "-", &"x".repeat(128)] {
        Mock::given(path(format!("/gateway/v2/2fa/1/pin/{id}/status")))
            .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
            .expect(1)
            .mount(&server)
            .await;
        let client = Client::new(&api(&format!("{}/gateway/v2/", server.uri()))).unwrap();
        assert_delivered(&client.poll(&id.parse().unwrap()).await);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_goes_nowhere_else() {
    let elsewhere = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).expect(0).mount(&elsewhere).await;
    for code in [301, 302, 303, 307, 308] {
        let location = format!("{}/?token=hunter2", elsewhere.uri());
        let server = answering(ResponseTemplate::new(code).insert_header("location", location)).await;
        let meaning = poll(&api(&server.uri())).await;
        assert_unavailable(&meaning, &format!("redirects are not followed (to {})", elsewhere.uri()));
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn every_kind_of_answer_arrives_with_its_meaning() {
    let body = r#"{"requestError":{"serviceException":{"messageId":"SOME_ID","text":"Some text"}}}"#;
    let said = |name: &str| format!("{name}: SOME_ID: Some text");
    for (code, expected) in [
        (204, Meaning::Unreadable("204 No Content where 200 was due".into())),
        (400, Meaning::Rejected(said("400 Bad Request"))),
        (401, Meaning::Unauthorized(401)),
        (403, Meaning::Unauthorized(403)),
        (404, Meaning::NotFound),
        (408, Meaning::Unavailable(said("408 Request Timeout"))),
        (410, Meaning::Rejected(said("410 Gone"))),
        (425, Meaning::Unavailable(said("425 Too Early"))),
        (429, Meaning::Throttled(Duration::from_secs(7))),
        (500, Meaning::Unavailable(said("500 Internal Server Error"))),
        (503, Meaning::Unavailable(said("503 Service Unavailable"))),
    ] {
        let answer = ResponseTemplate::new(code).insert_header("retry-after", "7");
        let answer = if code == 204 { answer } else { answer.set_body_string(body) };
        assert_eq!(poll(&api(&answering(answer).await.uri())).await, expected);
    }
}

#[tokio::test]
async fn an_html_page_with_a_200_is_unreadable() {
    let server = answering(ResponseTemplate::new(200).set_body_string("<html>Log in</html>")).await;
    assert_unreadable(&poll(&api(&server.uri())).await, "expected value");
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let body = BASE64.decode(GOOD_GZIP).unwrap();
    let gzip =
        |body| ResponseTemplate::new(200).insert_header("content-encoding", "gzip").set_body_bytes(body);
    assert_delivered(&poll(&api(&answering(gzip(body.clone())).await.uri())).await);

    let half = body[..body.len() / 2].to_vec();
    assert_unreadable(&poll(&api(&answering(gzip(half)).await.uri())).await, "cut off");
    let broken = b"not gzip at all".to_vec();
    assert_unreadable(&poll(&api(&answering(gzip(broken)).await.uri())).await, "cut off");
}

#[tokio::test]
async fn a_body_over_64_kib_is_unreadable_compressed_or_not() {
    let padded = |n: usize| ResponseTemplate::new(200).set_body_string(format!("[]{}", " ".repeat(n - 2)));
    let largest = answering(padded(MAX_BODY)).await;
    assert_eq!(poll(&api(&largest.uri())).await, Meaning::Deliveries(vec![]));
    let too_large = answering(padded(MAX_BODY + 1)).await;
    assert_unreadable(&poll(&api(&too_large.uri())).await, "over 64 KiB");

    let bomb = ResponseTemplate::new(200)
        .insert_header("content-encoding", "gzip")
        .set_body_bytes(BASE64.decode(BOMB_GZIP).unwrap());
    assert_unreadable(&poll(&api(&answering(bomb).await.uri())).await, "over 64 KiB");
}

// ---- connections ----

/// A server whose every connection, counted from 0, is handled by `handle`; gives its base URL and the count
/// of connections so far.
async fn stub<F, T>(handle: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(usize, TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(count.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    (url, connections)
}

/// Reads one request; false if the client has closed the connection.
async fn request(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
    }
    true
}

async fn answer_good(stream: &mut TcpStream) {
    answer(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GOOD}", GOOD.len())).await;
}

/// The client may have gone away already, which is its right.
async fn answer(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Closes with a RST.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// Until the client closes.
async fn hang(mut stream: TcpStream) {
    while request(&mut stream).await {}
}

#[tokio::test]
async fn polls_share_a_kept_connection() {
    let (url, connections) = stub(|_, mut stream| async move {
        while request(&mut stream).await {
            answer_good(&mut stream).await;
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    for _ in 0..20 {
        assert_delivered(&client.poll(&pin()).await);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answers_that_refuse_keep_their_connection_too() {
    let (url, connections) = stub(|_, mut stream| async move {
        while request(&mut stream).await {
            answer(&mut stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>").await;
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    for _ in 0..5 {
        assert_eq!(client.poll(&pin()).await, Meaning::NotFound);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_no_failed_poll() {
    let (url, _) = stub(|_, mut stream| async move {
        request(&mut stream).await;
        answer_good(&mut stream).await;
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    for _ in 0..10 {
        assert_delivered(&client.poll(&pin()).await);
    }
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_the_next_request_is_no_failed_poll() {
    for by_reset in [true, false] {
        let (url, connections) = stub(move |n, mut stream| async move {
            request(&mut stream).await;
            answer_good(&mut stream).await;
            if n == 0 {
                // The request has been written: hyper alone can't know that it may be sent again.
                request(&mut stream).await;
                if by_reset {
                    reset(stream);
                }
            } else {
                hang(stream).await;
            }
        })
        .await;
        let client = Client::new(&api(&url)).unwrap();
        assert_delivered(&client.poll(&pin()).await);
        assert_delivered(&client.poll(&pin()).await);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn many_dead_kept_connections_fail_no_poll_either() {
    const KEPT: usize = 8;
    // Answers only when all are connected, so that there are as many connections as polls.
    let barrier = Arc::new(Barrier::new(KEPT));
    let (url, connections) = stub(move |n, mut stream| {
        let barrier = barrier.clone();
        async move {
            request(&mut stream).await;
            if n < KEPT {
                barrier.wait().await;
                answer_good(&mut stream).await;
                request(&mut stream).await;
                reset(stream);
            } else {
                answer_good(&mut stream).await;
                hang(stream).await;
            }
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    let mut first = tokio::task::JoinSet::new();
    for _ in 0..KEPT {
        let client = client.clone();
        first.spawn(async move { client.poll(&pin()).await });
    }
    first.join_all().await.iter().for_each(assert_delivered);
    assert_eq!(connections.load(Ordering::SeqCst), KEPT);
    for _ in 0..KEPT {
        assert_delivered(&client.poll(&pin()).await);
    }
}

#[tokio::test]
async fn a_server_that_resets_every_connection_is_unavailable_after_two_tries() {
    let (url, connections) = stub(|_, mut stream| async move {
        request(&mut stream).await;
        reset(stream);
    })
    .await;
    assert_unavailable(&poll(&api(&url)).await, "connection lost");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_not_http_is_unavailable() {
    for nonsense in ["SSH-2.0-OpenSSH_9.9\r\n\r\n", "HTTP/1.1 99999 Far out\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let (url, _) = stub(move |_, mut stream| async move {
            request(&mut stream).await;
            answer(&mut stream, nonsense).await;
        })
        .await;
        assert_unavailable(&poll(&api(&url)).await, "connection lost: ");
    }
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let (url, _) = stub(|_, mut stream| async move {
        request(&mut stream).await;
        answer(&mut stream, "HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    })
    .await;
    assert_unavailable(&poll(&api(&url)).await, "connection lost: ");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_unavailable(&poll(&api(&url)).await, "connect: connection refused");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_unavailable() {
    // A label of more than 63 characters is refused before any name server is asked.
    let url = format!("http://{}.invalid", "x".repeat(64));
    assert_unavailable(&poll(&api(&url)).await, "DNS: ");
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_time_out() {
    let (url, connections) = stub(|_, stream| hang(stream)).await;
    let meaning = poll(&Api { timeout: SHORT, ..api(&url) }).await;
    assert_unavailable(&meaning, "time-out: no answer within 200ms");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_trickles_in_is_a_time_out() {
    let (url, _) = stub(|_, mut stream| async move {
        request(&mut stream).await;
        answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n").await;
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let meaning = poll(&Api { timeout: SHORT, ..api(&url) }).await;
    assert_unavailable(&meaning, "time-out: no whole answer within 200ms");
}

#[tokio::test]
async fn a_status_code_that_says_enough_needs_no_body() {
    for (head, expected) in [
        ("429 Too Many Requests\r\nretry-after: 5", Meaning::Throttled(Duration::from_secs(5))),
        ("404 Not Found", Meaning::NotFound),
        ("401 Unauthorized", Meaning::Unauthorized(401)),
        ("400 Bad Request", Meaning::Rejected("400 Bad Request".into())),
        ("503 Service Unavailable", Meaning::Unavailable("503 Service Unavailable".into())),
    ] {
        for stalls in [true, false] {
            let (url, _) = stub(move |_, mut stream| async move {
                request(&mut stream).await;
                answer(&mut stream, &format!("HTTP/1.1 {head}\r\ncontent-length: 9\r\n\r\n{{")).await;
                if stalls {
                    hang(stream).await;
                }
            })
            .await;
            assert_eq!(poll(&Api { timeout: SHORT, ..api(&url) }).await, expected);
        }
    }
}

#[tokio::test]
async fn a_body_shorter_than_it_says_is_unreadable() {
    for by_reset in [true, false] {
        let (url, connections) = stub(move |_, mut stream| async move {
            request(&mut stream).await;
            let length = GOOD.len() + 1;
            answer(&mut stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{GOOD}")).await;
            if by_reset {
                reset(stream);
            }
        })
        .await;
        let meaning = poll(&api(&url)).await;
        // A reset can overtake the head, too; then there was no answer.
        if by_reset && matches!(meaning, Meaning::Unavailable(_)) {
            continue;
        }
        assert_unreadable(&meaning, "the body is cut off: ");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off_and_its_connection_closed() {
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let (url, _) = stub(move |_, mut stream| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            request(&mut stream).await;
            answer(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("2000\r\n{}\r\n", " ".repeat(0x2000));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            gone.send(()).unwrap();
        }
    })
    .await;
    assert_unreadable(&poll(&api(&url)).await, "over 64 KiB");
    is_gone.await.unwrap();
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_read() {
    let (url, _) = stub(|_, mut stream| async move {
        request(&mut stream).await;
        answer(&mut stream, &format!("HTTP/1.0 200 OK\r\n\r\n{GOOD}")).await;
    })
    .await;
    assert_delivered(&poll(&api(&url)).await);
}

// ---- TLS ----

#[tokio::test]
async fn a_handshake_that_stalls_is_a_time_out_while_connecting() {
    let (url, _) = stub(|_, stream| hang(stream)).await;
    let url = url.replace("http:", "https:");
    let meaning = poll(&Api { connect_timeout: SHORT, ..api(&url) }).await;
    assert_unavailable(&meaning, "time-out while connecting");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_named_as_that() {
    let (url, connections) = stub(|_, mut stream| async move {
        answer(&mut stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        hang(stream).await;
    })
    .await;
    assert_unavailable(&poll(&api(&url.replace("http:", "https:"))).await, "TLS: ");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_before_the_key_is_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        // Ends with the client's alert.
        while tls.complete_io(&mut stream).is_ok() {}
        let mut received = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tls.reader(), &mut received);
        received
    });
    assert_unavailable(&poll(&api(&url)).await, "TLS: invalid peer certificate: UnknownIssuer");
    assert_eq!(server.join().unwrap(), b"");
}
