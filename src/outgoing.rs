//! Queues the answers of a connection: a client may write a million lines before it reads one answer.
//!
//! Guarantees that an answer reserves its room before it is built, and that the reservation is as large as the
//! answer. Each connection has room for one answer of the largest size. Small answers may also use a room that all
//! connections share, so that a client can send many requests ahead. A client without room is not read from until it
//! reads; one that reads nothing for [`STALL`] is disconnected. Must not know what an answer says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memchr::memchr;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::operations::Failure;
use crate::protocol::MAX_ANSWER;

/// Answers to submits are queued in pieces of about this size, in bytes.
pub const PIECE: usize = 64 * 1024;

/// An answer of at most this many bytes is small.
pub const SMALL: usize = 4 * 1024;

/// The room that small answers share, in bytes: enough for about three million answers to a submit.
const SHARED_ROOM: usize = 256 * 1024 * 1024;

/// What a waiting answer takes besides its own bytes, for its queue entry and the allocator, in bytes.
const OVERHEAD: usize = 128;

/// How long a client may leave its answers unread before it is disconnected.
pub const STALL: Duration = Duration::from_secs(300);

/// How long a disconnected client may take to read the reason.
const LAST_TIMEOUT: Duration = Duration::from_secs(30);

/// The room that all connections share. Cheap to clone.
#[derive(Clone)]
pub struct SharedRoom(Arc<Semaphore>);

impl Default for SharedRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED_ROOM)))
    }
}

/// The sending end of a connection's queue of answers.
pub struct Outgoing {
    own: Arc<Semaphore>,
    shared: SharedRoom,
    chunks: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

/// The client is gone or was disconnected.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::ClientGone
    }
}

/// Room reserved for an answer that is not built yet.
#[must_use]
pub struct Room(OwnedSemaphorePermit);

impl Outgoing {
    /// Makes a queue; [`write_out`] takes the answers from the receiving end.
    pub fn new(shared: SharedRoom) -> (Self, Incoming) {
        // The channel itself is unbounded, but each chunk holds a permit for its bytes.
        let (chunks, receiver) = mpsc::unbounded_channel();
        (Self { own: Arc::new(Semaphore::new(MAX_ANSWER)), shared, chunks }, Incoming(receiver))
    }

    /// Waits for room for an answer of at most `most` bytes. An answer of up to [`PIECE`] takes the connection's own
    /// room or the shared one, whichever is free first; a larger one needs the connection's own.
    pub async fn room(&self, most: usize) -> Result<Room, Gone> {
        let size = permits(most.saturating_add(OVERHEAD));
        let permit = tokio::select! {
            biased;
            permit = self.own.clone().acquire_many_owned(size) => permit,
            // Another client may have filled the shared room without reading for minutes.
            permit = self.shared.0.clone().acquire_many_owned(size), if most <= PIECE => permit,
            () = self.chunks.closed() => return Err(Gone),
        };
        permit.map(Room).map_err(|_| Gone)
    }

    /// Queues an answer and returns the unused part of its room. Moves a small answer to the shared room if it fits
    /// there, so that the next answer need not wait until this one is read.
    pub fn send(&self, Room(mut room): Room, answer: impl Into<Vec<u8>>) -> Result<(), Gone> {
        let mut answer = answer.into();
        answer.shrink_to_fit();
        let size = permits(answer.len() + OVERHEAD);
        let shared = || self.shared.0.clone().try_acquire_many_owned(size).ok();
        let permit = if answer.len() <= SMALL { shared() } else { None };
        let permit = permit.or_else(|| room.split(size as usize)).unwrap_or(room);
        self.chunks.send((answer.into(), permit)).map_err(|_| Gone)
    }

    /// Waits until the client is gone or was disconnected.
    pub async fn closed(&self) {
        self.chunks.closed().await;
    }
}

/// Collects small answers and queues them in pieces.
pub struct Pieces<'a> {
    outgoing: &'a Outgoing,
    room: Option<Room>,
    bytes: Vec<u8>,
}

impl<'a> Pieces<'a> {
    pub fn new(outgoing: &'a Outgoing) -> Self {
        Self { outgoing, room: None, bytes: Vec::new() }
    }

    /// Adds the answer that `write` appends, which is little longer than [`SMALL`] at most.
    pub async fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Gone> {
        if self.bytes.len() > PIECE - 2 * SMALL {
            self.flush()?;
        }
        if self.room.is_none() {
            self.room = Some(self.outgoing.room(PIECE).await?);
        }
        write(&mut self.bytes);
        Ok(())
    }

    /// Queues the collected answers.
    pub fn flush(&mut self) -> Result<(), Gone> {
        match self.room.take() {
            Some(room) => self.outgoing.send(room, std::mem::take(&mut self.bytes)),
            None => Ok(()),
        }
    }
}

/// Returns the permits for this many bytes; an answer larger than the room takes all of it.
fn permits(bytes: usize) -> u32 {
    bytes.min(MAX_ANSWER) as u32
}

/// The receiving end of a connection's queue of answers.
pub struct Incoming(mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>);

impl Incoming {
    /// Returns the next answers and their room, which is kept until they are sent; `None` if there are no more.
    pub async fn next(&mut self) -> Option<(Bytes, OwnedSemaphorePermit)> {
        self.0.recv().await
    }
}

/// Writes answers until there are no more, or the client is gone or stalls. Sends `last_line` to a client that
/// stalled and reads again within [`LAST_TIMEOUT`].
pub async fn write_out(
    mut incoming: Incoming,
    mut to: impl AsyncWrite + Unpin,
    last_line: &[u8],
) -> Result<(), Stalled> {
    while let Some((mut bytes, permit)) = incoming.0.recv().await {
        while !bytes.is_empty() {
            match timeout(STALL, to.write_buf(&mut bytes)).await {
                // A client that hung up needs no more answers.
                Ok(Ok(0) | Err(_)) => return Ok(()),
                Ok(Ok(_)) => {}
                Err(_) => {
                    // Drops all waiting answers except the rest of the line that is partly written.
                    drop((incoming, permit));
                    let begun = memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1);
                    let farewell = [&bytes[..begun], last_line].concat();
                    let _ = timeout(LAST_TIMEOUT, to.write_all(&farewell)).await;
                    return Err(Stalled);
                }
            }
        }
        drop(permit);
    }
    let _ = timeout(STALL, to.shutdown()).await;
    Ok(())
}

/// The client left its answers unread for [`STALL`].
#[derive(Debug, thiserror::Error)]
#[error("the client left its answers unread for {} s", STALL.as_secs())]
pub struct Stalled;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// Reserves room for an answer and queues it.
    async fn answer(outgoing: &Outgoing, answer: Vec<u8>) {
        let room = outgoing.room(answer.len()).await.unwrap();
        outgoing.send(room, answer).unwrap();
    }

    /// Fills the shared room from one connection that does not read.
    async fn fill(shared: &SharedRoom) -> (Outgoing, Incoming) {
        let (hog, unread) = Outgoing::new(shared.clone());
        while shared.0.available_permits() > PIECE + OVERHEAD {
            answer(&hog, vec![b'x'; PIECE]).await;
        }
        (hog, unread)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_disconnected_and_frees_its_memory() {
        let shared = SharedRoom::default();
        let (outgoing, incoming) = Outgoing::new(shared.clone());
        let (ours, _theirs) = duplex(64);
        let writing = tokio::spawn(write_out(incoming, ours, b"cut\n"));
        for _ in 0..100 {
            answer(&outgoing, vec![b'x'; PIECE]).await;
        }
        assert!(writing.await.unwrap().is_err());
        assert!(outgoing.room(1).await.and_then(|room| outgoing.send(room, "x")).is_err());
        assert_eq!(shared.0.available_permits(), SHARED_ROOM);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disconnected_client_gets_the_reason_after_the_line_that_it_was_reading() {
        let (outgoing, incoming) = Outgoing::new(SharedRoom::default());
        let (ours, mut theirs) = duplex(16);
        let writing = tokio::spawn(write_out(incoming, ours, b"cut\n"));
        for line in ["one\n", "a line that is long\ntwo\n", "three\n"] {
            answer(&outgoing, line.into()).await;
        }
        outgoing.closed().await;
        let mut read = String::new();
        theirs.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "one\na line that is long\ncut\n");
        assert!(writing.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn other_clients_still_get_answers_when_the_shared_memory_is_full() {
        let shared = SharedRoom::default();
        let _hog = fill(&shared).await;
        let (polite, incoming) = Outgoing::new(shared);
        let (ours, mut theirs) = duplex(64);
        let writing = tokio::spawn(write_out(incoming, ours, b"cut\n"));
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).await.map(|_| read.len())
        });
        // Together larger than the connection's own room; this client reads.
        for size in [MAX_ANSWER, PIECE, MAX_ANSWER, SMALL, MAX_ANSWER] {
            answer(&polite, vec![b'x'; size]).await;
        }
        drop(polite);
        assert_eq!(reading.await.unwrap().unwrap(), 3 * MAX_ANSWER + PIECE + SMALL);
        writing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_large_answer_and_many_small_ones_of_a_client_may_wait() {
        let shared = SharedRoom::default();
        let (outgoing, mut unread) = Outgoing::new(shared.clone());
        for _ in 0..100_000 {
            let room = outgoing.room(MAX_ANSWER).await.unwrap();
            outgoing.send(room, "small\n").unwrap();
        }
        assert_eq!(outgoing.own.available_permits(), MAX_ANSWER, "its own room is free for a large one");
        let room = outgoing.room(MAX_ANSWER).await.unwrap();
        outgoing.send(room, vec![b'x'; SMALL + 1]).unwrap();
        let second = outgoing.room(MAX_ANSWER);
        assert!(timeout(STALL / 2, second).await.is_err(), "the next is not even begun");
        // Answers that are not large are still queued.
        answer(&outgoing, vec![b'x'; PIECE]).await;
        for _ in 0..100_002 {
            assert!(unread.0.recv().await.is_some());
        }
        let free = (outgoing.own.available_permits(), shared.0.available_permits());
        assert_eq!(free, (MAX_ANSWER, SHARED_ROOM), "all room comes back");
    }
}
