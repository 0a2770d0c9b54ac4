use axum::body::Bytes;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::admission::Admission;
use super::super::pace::TIMEOUT;
use super::*;
use crate::places::{Places, Rules, User};

const RULES: Rules = Rules { all: 1, share: 1, reserved: 0, idle: Duration::from_millis(100) };

/// A server connection over a pipe, with its client.
struct Served {
    client: DuplexStream,
    places: Places,
    stop: CancellationToken,
    /// Completes with the connection, and returns how long that took.
    took: tokio::task::JoinHandle<Duration>,
}

/// Serves a client over a pipe with a buffer of `bytes`.
fn served(bytes: usize, router: Router) -> Served {
    let (client, server) = duplex(bytes);
    let (places, stop) = (Places::new(RULES), CancellationToken::new());
    let place = places.take(User::Other(0)).unwrap();
    let ending = stop.clone();
    let took = tokio::spawn(async move {
        let begun = Instant::now();
        let front = Front { router, tls: None, hosts: Hosts::default(), tasks: Tasks::new() };
        let peer = "192.0.2.1:1".parse().unwrap();
        talk(Pace::new(server), peer, None, Activity::new(place), &front, ending).await;
        begun.elapsed()
    });
    Served { client, places, stop, took }
}

fn large() -> Router {
    Router::new().route("/", get(async || "x".repeat(1 << 20)))
}

fn small() -> Router {
    Router::new().route("/", get(async || "small"))
}

/// A router whose only answer has a body that ends when the test says so.
fn streaming() -> (Router, Arc<Notify>) {
    let end = Arc::new(Notify::new());
    let told = end.clone();
    let router = Router::new().route(
        "/",
        get(async move || {
            let pieces = futures_util::stream::unfold(Some(told), |told| async move {
                let told = told?;
                told.notified().await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b"end")), None))
            });
            Body::from_stream(pieces)
        }),
    );
    (router, end)
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Reads until this text arrives.
async fn until(client: &mut DuplexStream, text: &str) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&read).contains(text) {
        let count = client.read(&mut byte).await.unwrap();
        assert!(count > 0, "it ended after {}", String::from_utf8_lossy(&read));
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_or_its_request_byte_by_byte_is_cut_off_in_time() {
    for bytes in ["", "G", "PRI * HTTP/2.0\r\n"] {
        let mut served = served(64, small());
        let sending = tokio::spawn(async move {
            for byte in bytes.bytes() {
                served.client.write_all(&[byte]).await.unwrap();
            }
            while !bytes.is_empty() && served.client.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
            served.client
        });
        let took = served.took.await.unwrap();
        // What begins like HTTP/2 and is not is refused at once.
        assert!(took <= HEAD_LIMIT + Duration::from_millis(1), "{bytes:?}: {took:?}");
        assert!(!bytes.is_empty() || took >= HEAD_LIMIT);
        sending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_request_may_begin_late_but_must_arrive_in_time() {
    let mut served = served(1 << 16, small());
    for wait in [Duration::ZERO, IDLE_LIMIT - HEAD_LIMIT] {
        sleep(wait).await;
        served.client.write_all(REQUEST).await.unwrap();
        until(&mut served.client, "small").await;
    }
    sleep(IDLE_LIMIT / 2).await;
    let begun = Instant::now();
    let mut served_bytes = 0;
    while served.client.write_all(b"G").await.is_ok() {
        served_bytes += 1;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(
        served_bytes > 5 && begun.elapsed() <= HEAD_LIMIT + Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    served.took.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_so_that_the_client_notices() {
    let mut served = served(1 << 16, small());
    served.client.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    served.client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"small"));
    assert_eq!(served.took.await.unwrap().as_secs(), IDLE_LIMIT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_its_answer_byte_by_byte_is_cut_off_in_time() {
    // A small buffer, so that the answer waits for its reader.
    let mut served = served(64, large());
    served.client.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    while served.client.read(&mut byte).await.is_ok_and(|count| count > 0) {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(served.took.await.unwrap().as_secs(), TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_connection_carries_many_requests_and_each_is_checked_for_its_host() {
    let mut served = served(1 << 16, small());
    served.client.write_all(&[REQUEST, REQUEST].concat()).await.unwrap();
    until(&mut served.client, "small").await;
    until(&mut served.client, "small").await;
    served.client.write_all(b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n").await.unwrap();
    let refused = until(&mut served.client, "http.hosts").await;
    assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
    served.client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    served.client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"small"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_huge_head_is_refused() {
    let mut served = served(1 << 20, small());
    let huge = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    served.client.write_all(huge.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    served.client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_keeps_its_connection_open_until_it_ends() {
    let (router, end) = streaming();
    let mut served = served(1 << 16, router);
    served.client.write_all(REQUEST).await.unwrap();
    until(&mut served.client, "\r\n\r\n").await;
    sleep(10 * IDLE_LIMIT).await;
    assert!(served.places.take(User::Other(1)).is_err(), "it is busy");
    end.notify_one();
    until(&mut served.client, "0\r\n\r\n").await;
    sleep(RULES.idle).await;
    assert!(served.places.take(User::Other(1)).is_ok(), "it is idle, and gives way");
    served.took.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_idle_connections_and_completes_running_answers() {
    let mut idle = served(1 << 16, small());
    idle.client.write_all(REQUEST).await.unwrap();
    until(&mut idle.client, "small").await;
    idle.stop.cancel();
    assert_eq!(idle.took.await.unwrap(), Duration::ZERO);

    let (router, end) = streaming();
    let mut busy = served(1 << 16, router);
    busy.client.write_all(REQUEST).await.unwrap();
    until(&mut busy.client, "\r\n\r\n").await;
    busy.stop.cancel();
    sleep(Duration::from_secs(1)).await;
    end.notify_one();
    let mut rest = Vec::new();
    busy.client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(busy.took.await.unwrap().as_secs(), 1);
}

/// An HTTP/2 client.
async fn http2(client: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

fn request() -> Request<()> {
    Request::get("http://localhost/").body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn over_http_2_concurrent_requests_are_answered_and_keep_the_connection_busy() {
    let (router, end) = streaming();
    let Served { client, places, took, .. } = served(1 << 16, router);
    let mut sender = http2(client).await;
    let answers = [(); 2].map(|()| sender.send_request(request(), true).unwrap().0);
    let mut bodies = Vec::new();
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        bodies.push(answer.into_body());
    }
    for body in &mut bodies {
        sleep(2 * IDLE_LIMIT).await;
        assert!(places.take(User::Other(1)).is_err(), "it is busy");
        end.notify_one();
        assert_eq!(body.data().await.unwrap().unwrap(), "end");
    }
    sleep(RULES.idle).await;
    assert!(places.take(User::Other(1)).is_ok(), "it is idle, and gives way");
    took.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_connection_without_requests_is_closed() {
    let Served { client, took, .. } = served(1 << 16, small());
    let mut sender = http2(client).await;
    let answer = sender.send_request(request(), true).unwrap().0.await.unwrap();
    drop(answer);
    let took = took.await.unwrap();
    assert!(took >= IDLE_LIMIT && took <= 2 * IDLE_LIMIT, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_slow_client_gets_a_large_answer_completely() {
    let Served { client, .. } = served(1 << 20, large());
    let mut sender = http2(client).await;
    let answer = sender.send_request(request(), true).unwrap().0.await.unwrap();
    assert_eq!(answer.headers()["content-length"], "1048576");
    let (mut body, mut read) = (answer.into_body(), 0);
    while let Some(piece) = body.data().await {
        let length = piece.unwrap().len();
        read += length;
        // Some 5 KiB a second.
        sleep(Duration::from_millis(length as u64 / 5)).await;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(read, 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn over_http_2_unread_answers_count_for_the_share_of_their_peer() {
    let admission = Admission::new(6, |_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    let router = Router::new().route("/", get(async || "x".repeat(20_000)));
    let router = router.layer(from_fn_with_state(admission, Admission::admit));
    let Served { client, .. } = served(1 << 20, router);
    let mut builder = h2::client::Builder::new();
    let (mut sender, connection) =
        builder.initial_window_size(0).handshake::<_, Bytes>(client).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    // A peer has a third.
    for expected in [200, 200, 503] {
        sender = sender.ready().await.unwrap();
        let answer = sender.send_request(request(), true).unwrap().0.await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
        std::mem::forget(answer);
    }
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_client_that_does_not_read_its_answer_is_cut_off_in_time() {
    let pieces = Router::new().route(
        "/",
        get(async || {
            let piece = Bytes::from(vec![b'x'; 1 << 16]);
            let pieces = std::iter::repeat_n(piece, 100).map(Ok::<_, Infallible>);
            Body::from_stream(futures_util::stream::iter(pieces))
        }),
    );
    for router in [pieces, large()] {
        let Served { client, took, .. } = served(1 << 20, router);
        let mut sender = http2(client).await;
        // The body is kept, and not read.
        let _answer = sender.send_request(request(), true).unwrap().0.await.unwrap();
        assert_eq!(took.await.unwrap().as_secs(), TIMEOUT.as_secs());
    }
}

/// An HTTP/2 client that sends arbitrary frames.
struct Frames(Vec<u8>);

impl Frames {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    /// `GET http://localhost/`, as HPACK has it.
    const GET: &[u8] = b"\x82\x86\x84\x41\x09localhost";

    /// The preface, and empty settings.
    fn new() -> Self {
        Self(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        self.0.extend_from_slice(&length.to_be_bytes()[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload);
    }

    fn get(&mut self, stream: u32) {
        self.frame(Self::HEADERS, Self::END_STREAM | Self::END_HEADERS, stream, Self::GET);
    }

    /// Sends the frames, and returns the kind, stream and payload of each received frame until the connection ends.
    async fn send(self, client: DuplexStream) -> Vec<(u8, u32, Vec<u8>)> {
        let (mut reads, mut writes) = tokio::io::split(client);
        let sending = tokio::spawn(async move {
            // A client that is cut off can't send the rest.
            let _ = writes.write_all(&self.0).await;
            writes
        });
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        let _ = reads.read_to_end(&mut bytes).await;
        drop(sending.await.unwrap());
        let mut rest = &bytes[..];
        while let Some((head, more)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, more)) = more.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push((head[3], stream, payload.to_vec()));
            rest = more;
        }
        frames
    }
}

/// The error code of the daemon's GOAWAY, which says why it ends the connection.
fn goaway_reason(frames: &[(u8, u32, Vec<u8>)]) -> Option<h2::Reason> {
    const GOAWAY: u8 = 7;
    let (.., payload) = frames.iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?).into())
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_client_that_keeps_cancelling_requests_is_cut_off_at_once() {
    let Served { client, took, .. } = served(1 << 20, small());
    let mut frames = Frames::new();
    for request in 0..10_000 {
        frames.get(2 * request + 1);
        frames.frame(Frames::RST_STREAM, 0, 2 * request + 1, &8_u32.to_be_bytes());
    }
    let came = frames.send(client).await;
    assert_eq!(goaway_reason(&came), Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert_eq!(took.await.unwrap(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_head_that_does_not_end_is_cut_off_at_once() {
    let Served { client, took, .. } = served(1 << 20, small());
    let mut frames = Frames::new();
    frames.frame(Frames::HEADERS, Frames::END_STREAM, 1, Frames::GET);
    for _ in 0..10_000 {
        frames.frame(Frames::CONTINUATION, 0, 1, b"\0\x01x\x01y");
    }
    let came = frames.send(client).await;
    assert_eq!(goaway_reason(&came), Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert_eq!(took.await.unwrap(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_head_that_stops_in_the_middle_is_cut_off_in_time() {
    let Served { client, took, .. } = served(1 << 20, small());
    let mut frames = Frames::new();
    frames.frame(Frames::HEADERS, Frames::END_STREAM, 1, &Frames::GET[..5]);
    frames.send(client).await;
    assert_eq!(took.await.unwrap(), HEAD_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn over_http_2_a_huge_head_is_refused_and_the_next_request_is_answered() {
    let Served { client, .. } = served(1 << 20, small());
    let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    for (size, expected) in [(MAX_HEAD, 431), (10, 200), (2 * MAX_HEAD, 431), (10, 200)] {
        sender = sender.ready().await.unwrap();
        let request = Request::get("http://localhost/").header("x", "x".repeat(size)).body(()).unwrap();
        let answer = sender.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{size} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn over_http_2_more_requests_at_once_than_the_limit_are_refused_and_the_others_answered() {
    let (router, end) = streaming();
    let Served { client, took, .. } = served(1 << 20, router);
    let mut frames = Frames::new();
    let requests = MAX_STREAMS + 20;
    for request in 0..requests {
        frames.get(2 * request + 1);
    }
    let ending = tokio::spawn(async move {
        for _ in 0..MAX_STREAMS {
            sleep(Duration::from_secs(1)).await;
            end.notify_one();
        }
    });
    let came = frames.send(client).await;
    let of = |kind| came.iter().filter(|(other, ..)| *other == kind).collect::<Vec<_>>();
    assert_eq!(of(Frames::HEADERS).len(), MAX_STREAMS as usize, "that many are answered");
    let refused = of(Frames::RST_STREAM);
    assert!(!refused.is_empty() && refused.iter().all(|(.., why)| why[..] == 7_u32.to_be_bytes()));
    ending.await.unwrap();
    took.await.unwrap();
}
