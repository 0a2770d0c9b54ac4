//! A server on a raw socket, for behaviour that no normal HTTP server has.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::GOOD;

/// A server whose every connection, counted from 0, is handled by `handle`; gives its base URL and the count
/// of connections so far.
pub async fn stub<F, T>(handle: F) -> (String, Arc<AtomicUsize>)
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
pub async fn request(stream: &mut TcpStream) -> bool {
    request_from(stream).await
}

pub async fn request_from(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
    }
    true
}

pub async fn answer_good(stream: &mut TcpStream) {
    answer(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GOOD}", GOOD.len())).await;
}

/// The client may have disconnected already.
pub async fn answer(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Closes with a RST.
pub fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// Until the client closes.
pub async fn hang(mut stream: TcpStream) {
    while request(&mut stream).await {}
}
