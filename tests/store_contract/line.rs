//! A line to the server that reads along: it counts what is asked, and can be cut at a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What happens at the next COMMIT.
#[derive(Clone, Copy)]
pub enum Cut {
    /// It passes, and its answer does not.
    AfterCommit = 1,
    /// It is lost.
    BeforeCommit = 2,
}

#[derive(Clone)]
pub struct Line {
    pub port: u16,
    cut: Arc<AtomicU8>,
    asked: Arc<AtomicUsize>,
}

impl Line {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line =
            Self { port: listener.local_addr().unwrap().port(), cut: Arc::default(), asked: Arc::default() };
        let ours = line.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let ((from, mut back), (mut answers, to)) = (client.into_split(), server.into_split());
                let line = ours.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = line.pass(from, to) => {}
                        _ = tokio::io::copy(&mut answers, &mut back) => {}
                    }
                });
            }
        });
        line
    }

    pub fn cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::Relaxed);
    }

    /// How many statements were carried out since this was asked last.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// Passes messages on, https://www.postgresql.org/docs/current/protocol-message-formats.html
    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut start = true;
        loop {
            // The first message of a connection has no type.
            let mut message = vec![0; if start { 4 } else { 5 }];
            if from.read_exact(&mut message).await.is_err() {
                return;
            }
            let (kind, length) = message.split_at(message.len() - 4);
            let kind = kind.first().copied();
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let head = message.len();
            message.resize(head + length - 4, 0);
            from.read_exact(&mut message[head..]).await.unwrap();
            start = false;
            if matches!(kind, Some(b'Q' | b'E')) {
                self.asked.fetch_add(1, Ordering::Relaxed);
            }
            let is_commit = kind == Some(b'Q') && message[head..].starts_with(b"COMMIT");
            match self.cut.load(Ordering::Relaxed) {
                1 if is_commit => {
                    self.cut.store(0, Ordering::Relaxed);
                    to.write_all(&message).await.unwrap();
                    // A close is read by the server behind the commit.
                    return;
                }
                2 if is_commit => return self.cut.store(0, Ordering::Relaxed),
                _ => to.write_all(&message).await.unwrap(),
            }
        }
    }
}
