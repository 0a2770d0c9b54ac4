//! Tests the time limits of a connection with tokio's paused clock. No test asks the store, which uses real time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::operations::testing::services;
use crate::places::User;

const PING: &[u8] = b"{\"op\":\"ping\"}\n";

const SECOND: Duration = Duration::from_secs(1);

/// Returns a client, the task that serves it, and the services.
async fn connected() -> (UnixStream, JoinHandle<()>, Services) {
    let folder = tempfile::tempdir().unwrap();
    let services = services(folder.path(), 0).await;
    let (client, stream) = UnixStream::pair().unwrap();
    let place = services.places.take(User::Other(7)).unwrap();
    let serving = {
        let services = services.clone();
        tokio::spawn(async move { serve(stream, &services, place).await })
    };
    tokio::time::pause();
    (client, serving, services)
}

/// Returns what the client reads up to the end, and how long that takes.
async fn rest(client: &mut UnixStream) -> (String, Duration) {
    let (begun, mut read) = (Instant::now(), String::new());
    client.read_to_string(&mut read).await.unwrap();
    (read, begun.elapsed())
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_message_and_frees_its_place() {
    let (mut client, serving, services) = connected().await;
    client.write_all(PING).await.unwrap();
    let (read, took) = rest(&mut client).await;
    assert_eq!(read.lines().count(), 1, "the answer to its ping: {read}");
    assert_eq!(took.as_secs(), IDLE_TIMEOUT.as_secs());
    serving.await.unwrap();
    assert_eq!(services.places.count(), 0);
}

#[tokio::test]
async fn a_client_that_sometimes_sends_a_request_is_not_idle() {
    let (mut client, _serving, _) = connected().await;
    let mut answer = [0; 1024];
    for _ in 0..5 {
        client.write_all(PING).await.unwrap();
        assert!(client.read(&mut answer).await.unwrap() > 0);
        sleep(IDLE_TIMEOUT - SECOND).await;
    }
}

#[tokio::test]
async fn a_line_has_a_time_limit_even_while_its_bytes_arrive() {
    for begin in [&b"x"[..], b"{\"op\":\"ping\"}\n{"] {
        let (client, _serving, _) = connected().await;
        let (mut reader, mut writer) = client.into_split();
        writer.write_all(begin).await.unwrap();
        let begun = Instant::now();
        let writing = tokio::spawn(async move {
            while writer.write_all(b" ").await.is_ok() {
                sleep(SECOND).await;
            }
        });
        let mut read = String::new();
        reader.read_to_string(&mut read).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LINE_TIMEOUT.as_secs());
        assert!(read.lines().last().unwrap().contains("\"timeout\""), "{read}");
        writing.abort();
        tokio::time::resume();
    }
}

#[tokio::test]
async fn each_line_of_a_slow_sequence_has_its_own_time_limit() {
    let (mut client, _serving, _) = connected().await;
    let mut answer = [0; 1024];
    client.write_all(&PING[..5]).await.unwrap();
    for _ in 0..5 {
        sleep(LINE_TIMEOUT - SECOND).await;
        // The end of one line and the beginning of the next.
        client.write_all(&[&PING[5..], &PING[..5]].concat()).await.unwrap();
        let length = client.read(&mut answer).await.unwrap();
        assert!(
            answer[..length].starts_with(b"{\"ok\":true"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_once_when_its_place_is_needed() {
    let (mut client, serving, services) = connected().await;
    sleep(IDLE_TIMEOUT / 2).await;
    let others: Vec<_> = (0..6).map(|_| services.places.take(User::Other(7)).unwrap()).collect();
    assert_eq!(rest(&mut client).await, (String::new(), Duration::ZERO));
    serving.await.unwrap();
    assert_eq!(services.places.count(), others.len());
}
