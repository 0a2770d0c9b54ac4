//! Disconnects a client that does not read what it is sent.
//!
//! Promises that a write fails once the client has taken less than [`LEAST`] in [`TIMEOUT`] although more was ready, in
//! whatever small pieces it reads. What it sends counts as what it takes: a client may send a long body before it reads the
//! answers to its beginning. It stands between TLS and the socket, where all that is sent passes. Must not know HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How much a client takes at least in [`TIMEOUT`]: some 4 KiB a second, less than any modem.
pub const LEAST: usize = 64 * 1024;

/// How long a client may take for that.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// A stream whose other end has to keep reading.
#[derive(Debug)]
pub struct Pace<S> {
    stream: S,
    /// Since the first write that had to wait; `None` once everything was taken.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// How much was taken since then, or since [`LEAST`] was last complete.
    taken: usize,
    end: Pin<Box<Sleep>>,
}

impl Waiting {
    /// Counts bytes that were read or written.
    fn progress(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= LEAST {
            self.taken = 0;
            self.end.as_mut().reset(Instant::now() + TIMEOUT);
        }
    }
}

impl<S> Pace<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, waiting: None }
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match (&written, &mut self.waiting) {
            (Poll::Ready(Ok(count)), Some(waiting)) => waiting.progress(*count),
            (Poll::Ready(_), _) => {}
            (Poll::Pending, waiting) => {
                let new = || Waiting { taken: 0, end: Box::pin(sleep(TIMEOUT)) };
                let waiting = waiting.get_or_insert_with(new);
                ready!(waiting.end.as_mut().poll(context));
                let reason = "the client does not read what it is sent";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
            }
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pace<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The writer flushes once everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pace<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(waiting) = &mut self.waiting {
            waiting.progress(buffer.filled().len() - before);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Writes this many bytes to a client that reads `piece` bytes every second; returns how long that took.
    async fn written(bytes: usize, piece: usize) -> io::Result<Duration> {
        let (mut client, server) = duplex(1024);
        let reading = tokio::spawn(async move {
            let mut read = vec![0; piece];
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if piece > 0 && client.read_exact(&mut read).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let mut server = Pace::new(server);
        let written = async {
            server.write_all(&vec![b'x'; bytes]).await?;
            server.flush().await
        };
        let written = written.await.map(|()| begun.elapsed());
        reading.abort();
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_too_little_is_cut_off_and_a_slow_one_is_not() {
        for piece in [0, 1, 1000, LEAST / 15 - 100] {
            let cut = written(16 * LEAST, piece).await.unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::TimedOut, "{piece}");
        }
        let slow = LEAST / 15 + 500;
        assert!(written(16 * LEAST, slow).await.unwrap() > 10 * TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_cut_off_while_it_sends_its_body_before_it_reads() {
        let (client, server) = duplex(1024);
        let (mut client_reads, mut client_sends) = tokio::io::split(client);
        let (mut reads, mut writes) = tokio::io::split(Pace::new(server));
        let reading = tokio::spawn(async move {
            let mut body = vec![0; 1024];
            while reads.read(&mut body).await.is_ok_and(|count| count > 0) {}
        });
        let answering = tokio::spawn(async move { writes.write_all(&[b'x'; 4096]).await });
        for _ in 0..10 {
            client_sends.write_all(&vec![b'x'; 2 * LEAST]).await.unwrap();
            tokio::time::sleep(TIMEOUT * 2 / 3).await;
        }
        assert!(!answering.is_finished());
        tokio::time::sleep(TIMEOUT * 2).await;
        assert!(answering.is_finished(), "it neither sends nor reads");
        assert_eq!(answering.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(client_reads.read_u8().await.is_ok());
        reading.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_two_answers_does_not_count() {
        let (mut client, server) = duplex(64);
        let mut server = Pace::new(server);
        for _ in 0..5 {
            let reading = async {
                tokio::time::sleep(TIMEOUT / 2).await;
                client.read_exact(&mut [0; 100]).await.unwrap();
            };
            let writing = async {
                server.write_all(&[b'x'; 100]).await.unwrap();
                server.flush().await.unwrap();
            };
            tokio::join!(reading, writing);
        }
    }
}
