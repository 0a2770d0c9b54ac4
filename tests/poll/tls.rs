//! TLS failures, and HTTP/2 if both sides support it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::stub::{answer, hang, stub};
use super::*;

type Stream = StreamOwned<ServerConnection, std::net::TcpStream>;

/// A TLS server for one connection, with a certificate for `localhost` that it has signed itself: its base
/// URL, that certificate as PEM, and its thread.
fn server<T: Send + 'static>(
    serve: impl FnOnce(Stream) -> T + Send + 'static,
) -> (String, String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = signed.cert.pem();
    let thread = std::thread::spawn(move || {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (stream, _) = listener.accept().unwrap();
        serve(StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream))
    });
    (url, pem, thread)
}

#[tokio::test]
async fn a_handshake_that_stalls_is_a_time_out_while_connecting() {
    let (url, _) = stub(|_, stream| hang(stream)).await;
    let url = url.replace("http:", "https:");
    let meaning = poll(&Api { connect_timeout: SHORT_TIMEOUT, ..api(&url) }).await;
    assert_unavailable(&meaning, "time-out while connecting");
}

#[tokio::test]
async fn a_server_without_tls_is_reported_as_a_tls_error() {
    let (url, connections) = stub(|_, mut stream| async move {
        answer(&mut stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        hang(stream).await;
    })
    .await;
    assert_unavailable(&poll(&api(&url.replace("http:", "https:"))).await, "TLS: ");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_before_the_key_is_sent() {
    let (url, _, server) = server(|mut stream| {
        let mut received = Vec::new();
        // Ends with the client's alert.
        let _ = stream.read_to_end(&mut received);
        received
    });
    assert_unavailable(&poll(&api(&url)).await, "TLS: invalid peer certificate: UnknownIssuer");
    assert_eq!(server.join().unwrap(), b"");
}

#[tokio::test]
async fn polls_share_one_http2_connection_and_trust_a_configured_private_ca() {
    let (url, pem, server) = server(serve_http2);
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(pem.as_bytes()).unwrap();
    let client = Client::new(&Api { ca_file: Some(ca.path().to_owned()), ..api(&url) }).unwrap();
    let pin = pin();
    let (one, two, three) = tokio::join!(
        client.poll(&pin, Connection::Kept),
        client.poll(&pin, Connection::Kept),
        client.poll(&pin, Connection::Kept)
    );
    [one, two, three, client.poll(&pin, Connection::Kept).await].iter().for_each(assert_delivered);
    drop(client);
    // Off this thread: it is the one that closes the connection.
    let requests = tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
    assert_eq!(requests, 4);
}

#[test]
fn an_invalid_ca_file_is_named_before_any_connection_is_opened() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"not a certificate").unwrap();
    for path in [file.path(), std::path::Path::new("/nowhere/ca.pem")] {
        let api = Api { ca_file: Some(path.to_owned()), ..api("https://localhost") };
        let refused = Client::new(&api).err().unwrap().to_string();
        assert!(refused.contains("api.ca_file") && refused.contains(path.to_str().unwrap()), "{refused}");
    }
}

/// A minimal HTTP/2 server (RFC 9113) that answers every request; returns how many there were.
fn serve_http2(mut stream: Stream) -> usize {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const ACK_OR_END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    // HPACK's static table has `:status: 200` at 8.
    const STATUS_200: &[u8] = &[0x88];

    fn frame(kind: u8, flags: u8, of: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &of, payload].concat()
    }

    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    stream.write_all(&frame(SETTINGS, 0, [0; 4], &[])).unwrap();
    let mut requests = 0;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let [a, b, c, kind, flags, of @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).unwrap();
        let reply = match (kind, flags & ACK_OR_END_STREAM) {
            (HEADERS, _) => {
                requests += 1;
                let head = frame(HEADERS, END_HEADERS, of, STATUS_200);
                [head, frame(DATA, ACK_OR_END_STREAM, of, GOOD.as_bytes())].concat()
            }
            (SETTINGS, 0) => frame(SETTINGS, ACK_OR_END_STREAM, of, &[]),
            _ => continue,
        };
        if stream.write_all(&reply).is_err() {
            break;
        }
    }
    requests
}
