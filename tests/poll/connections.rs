//! Kept, lost, stalled and broken connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use super::stub::{answer, answer_good, hang, request, reset, stub};
use super::*;

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
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        rest().await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_busy_client_uses_its_connections_in_turn_and_opens_no_more_than_allowed() {
    for at_once in [1, 20] {
        let (url, connections) = stub(|_, mut stream| async move {
            while request(&mut stream).await {
                answer_good(&mut stream).await;
            }
        })
        .await;
        let client = Client::new(&Api { concurrency: at_once, ..api(&url) }).unwrap();
        let pin = pin();
        for _ in 0..200 / at_once {
            let burst = (0..at_once).map(|_| client.poll(&pin, Connection::Kept));
            futures_util::future::join_all(burst).await.iter().for_each(assert_delivered);
        }
        let allowed = (2 * at_once).max(32);
        assert!(connections.load(Ordering::SeqCst) <= allowed, "{connections:?}, and {allowed} are allowed");
    }
}

#[tokio::test]
async fn connections_are_renewed_so_that_an_api_that_moved_is_followed() {
    let (url, connections) = stub(|_, mut stream| async move {
        while request(&mut stream).await {
            answer_good(&mut stream).await;
        }
    })
    .await;
    let client = Client::new(&Api { pool_max_age: SHORT_TIMEOUT, ..api(&url) }).unwrap();
    let renewing = tokio::spawn(client.clone().renew_connections());
    while connections.load(Ordering::SeqCst) < 3 {
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
    }
    renewing.abort();
}

#[tokio::test]
async fn a_refusal_keeps_its_connection_open() {
    let (url, connections) = stub(|_, mut stream| async move {
        while request(&mut stream).await {
            answer(&mut stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>").await;
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    for _ in 0..5 {
        assert_eq!(client.poll(&pin(), Connection::Kept).await, Meaning::NotFound);
        rest().await;
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
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        rest().await;
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
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        rest().await;
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn many_dead_kept_connections_are_no_failed_poll() {
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
                while request(&mut stream).await {
                    answer_good(&mut stream).await;
                }
            }
        }
    })
    .await;
    let client = Client::new(&api(&url)).unwrap();
    let mut first = tokio::task::JoinSet::new();
    for _ in 0..KEPT {
        let client = client.clone();
        first.spawn(async move { client.poll(&pin(), Connection::Kept).await });
    }
    first.join_all().await.iter().for_each(assert_delivered);
    assert_eq!(connections.load(Ordering::SeqCst), KEPT);
    rest().await;
    for _ in 0..KEPT {
        assert_delivered(&client.poll(&pin(), Connection::Kept).await);
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
async fn an_answer_that_is_not_http_means_unavailable() {
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
async fn an_endless_response_head_is_cut_off() {
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
    let meaning = poll(&Api { timeout: SHORT_TIMEOUT, ..api(&url) }).await;
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
    let meaning = poll(&Api { timeout: SHORT_TIMEOUT, ..api(&url) }).await;
    assert_unavailable(&meaning, "time-out: no whole answer within 200ms");
}

#[tokio::test]
async fn a_status_code_that_needs_no_body_counts_even_if_the_body_stalls() {
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
            assert_eq!(poll(&Api { timeout: SHORT_TIMEOUT, ..api(&url) }).await, expected);
        }
    }
}

#[tokio::test]
async fn a_body_shorter_than_its_content_length_is_unreadable() {
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
        assert_unreadable(&meaning, "the body is cut off or broken: ");
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
