//! A proxy before the server: it counts statements, can be cut at a commit, and can lead to another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens at the next COMMIT.
#[derive(Clone, Copy)]
pub enum Cut {
    /// It passes, and its answer does not.
    AfterCommit = 1,
    /// It is lost.
    BeforeCommit = 2,
    /// It is on its way until [`Line::release`]; meanwhile the node sees the line as cut.
    CommitHeld = 3,
}

#[derive(Clone)]
pub struct Line {
    pub port: u16,
    to: Arc<AtomicU16>,
    cut: Arc<AtomicU8>,
    asked: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    released: Arc<Notify>,
    deaf: Arc<AtomicBool>,
}

/// The port of a line that leads nowhere.
const NOWHERE: u16 = 0;

/// A commit that is on its way.
type Held = Option<(Vec<u8>, OwnedWriteHalf)>;

impl Line {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(AtomicU16::new(server)),
            cut: Arc::default(),
            asked: Arc::default(),
            opened: Arc::default(),
            released: Arc::default(),
            deaf: Arc::default(),
        };
        let ours = line.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                ours.opened.fetch_add(1, Ordering::Relaxed);
                let to = ours.to.load(Ordering::Relaxed);
                if to != NOWHERE {
                    let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    tokio::spawn(ours.clone().join(client, server));
                }
            }
        });
        line
    }

    pub fn cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::Relaxed);
    }

    /// From now on connections lead there.
    pub fn move_to(&self, server: u16) {
        self.to.store(server, Ordering::Relaxed);
    }

    /// From now on connections are closed as soon as they are opened.
    pub fn close(&self) {
        self.move_to(NOWHERE);
    }

    /// From now on no long answer is read to its end, as if the process were suspended.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// How many connections were opened since the last call.
    pub fn opened(&self) -> usize {
        self.opened.swap(0, Ordering::Relaxed)
    }

    /// What was on its way arrives.
    pub fn release(&self) {
        self.released.notify_one();
    }

    /// How many statements were executed since the last call.
    pub fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    async fn join(self, client: TcpStream, server: TcpStream) {
        let ((from, mut back), (mut answers, to)) = (client.into_split(), server.into_split());
        let held = tokio::select! {
            held = self.pass(from, to) => held,
            () = self.answer(&mut answers, &mut back) => None,
        };
        drop(back);
        if let Some((message, mut to)) = held {
            self.released.notified().await;
            to.write_all(&message).await.unwrap();
        }
    }

    async fn answer(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
        let mut bytes = [0; 16 * 1024];
        loop {
            let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
            if count == bytes.len() && self.deaf.load(Ordering::Relaxed) {
                std::future::pending().await
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }

    /// Passes messages on, https://www.postgresql.org/docs/current/protocol-message-formats.html
    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Held {
        let mut start = true;
        loop {
            // The first message of a connection has no type.
            let mut message = vec![0; if start { 4 } else { 5 }];
            if from.read_exact(&mut message).await.is_err() {
                if self.deaf.load(Ordering::Relaxed) {
                    // A process that is stopped closes nothing.
                    std::future::pending().await
                }
                return None;
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
            let cut = if is_commit { self.cut.swap(0, Ordering::Relaxed) } else { 0 };
            if cut == Cut::CommitHeld as u8 {
                return Some((message, to));
            }
            if cut != Cut::BeforeCommit as u8 {
                to.write_all(&message).await.unwrap();
            }
            if cut != 0 {
                // A close is read by the server behind the commit.
                return None;
            }
        }
    }
}
