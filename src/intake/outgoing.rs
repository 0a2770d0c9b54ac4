//! Answers on their way out: a client may write a million lines before it reads one, so they are kept here.
//!
//! Bounded twice: each connection has a little room of its own, which nobody can take from it, and all share
//! a large one. Who finds both full is not read from until it reads. A client that reads nothing for
//! [`STALL`] is cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memchr::memchr;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Room of its own, in bytes: larger than any one answer but `tail`'s and `list`'s, which come in pieces.
const OWN_ROOM: u32 = 256 * 1024;

/// Room that all connections share, in bytes: about three million answers to a submit.
const SHARED_ROOM: u32 = 256 * 1024 * 1024;

/// How long a client may leave its answers unread before it is cut.
pub const STALL: Duration = Duration::from_secs(300);

/// How long it then has to read why.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// The shared room. Cheap to clone.
#[derive(Clone)]
pub struct SharedRoom(Arc<Semaphore>);

impl Default for SharedRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED_ROOM as usize)))
    }
}

/// Where a connection puts its answers, in order.
pub struct Outgoing {
    own: Arc<Semaphore>,
    shared: SharedRoom,
    chunks: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

/// The other side is gone, or was cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Outgoing {
    /// Where answers go in, and what [`write_out`] takes them from.
    pub fn new(shared: SharedRoom) -> (Self, Incoming) {
        // Unbounded in chunks, but each holds a permit for its bytes.
        let (chunks, receiver) = mpsc::unbounded_channel();
        (Self { own: Arc::new(Semaphore::new(OWN_ROOM as usize)), shared, chunks }, Incoming(receiver))
    }

    /// Queues bytes behind those before; waits where there is no room.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let size = size(&bytes);
        // Whichever is free first: others may have filled the shared room, and not read for minutes.
        let permit = tokio::select! {
            biased;
            permit = self.own.clone().acquire_many_owned(size) => permit,
            permit = self.shared.0.clone().acquire_many_owned(size) => permit,
            () = self.chunks.closed() => return Err(Gone),
        };
        let permit = permit.map_err(|_| Gone)?;
        self.chunks.send((bytes, permit)).map_err(|_| Gone)
    }

    /// Queues bytes that can be fetched again, within the connection's own room: no faster than they are read.
    pub async fn send_paced(&self, bytes: Bytes) -> Result<(), Gone> {
        let permit = tokio::select! {
            permit = self.own.clone().acquire_many_owned(size(&bytes)) => permit.map_err(|_| Gone)?,
            () = self.chunks.closed() => return Err(Gone),
        };
        self.chunks.send((bytes, permit)).map_err(|_| Gone)
    }

    /// Waits until the other side is gone or was cut.
    pub async fn closed(&self) {
        self.chunks.closed().await;
    }
}

/// A chunk larger than the room takes all of it.
fn size(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(OWN_ROOM)
}

/// Answers that wait to be written.
pub struct Incoming(mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>);

/// Writes answers out until there are no more, or the other side is gone or stalls. One that stalled is told
/// so, with `last_line`, should it read again within [`LAST_PATIENCE`].
pub async fn write_out(
    mut incoming: Incoming,
    mut to: impl AsyncWrite + Unpin,
    last_line: &[u8],
) -> Result<(), Stalled> {
    while let Some((mut bytes, permit)) = incoming.0.recv().await {
        while !bytes.is_empty() {
            match timeout(STALL, to.write_buf(&mut bytes)).await {
                // Who hung up does not want its answers.
                Ok(Ok(0) | Err(_)) => return Ok(()),
                Ok(Ok(_)) => {}
                Err(_) => {
                    // All that waits goes, but for the line that was begun.
                    drop((incoming, permit));
                    let begun = memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1);
                    let farewell = [&bytes[..begun], last_line].concat();
                    let _ = timeout(LAST_PATIENCE, to.write_all(&farewell)).await;
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

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_and_frees_its_room() {
        let shared = SharedRoom::default();
        let (outgoing, incoming) = Outgoing::new(shared.clone());
        let (ours, _theirs) = duplex(64);
        let writing = tokio::spawn(write_out(incoming, ours, b"cut\n"));
        for _ in 0..10 {
            outgoing.send(vec![b'x'; OWN_ROOM as usize].into()).await.unwrap();
        }
        assert!(writing.await.unwrap().is_err());
        assert_eq!(outgoing.send(Bytes::from_static(b"x")).await, Err(Gone));
        drop(outgoing);
        assert_eq!(shared.0.available_permits(), SHARED_ROOM as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_cut_is_told_behind_the_line_that_it_was_reading() {
        let (outgoing, incoming) = Outgoing::new(SharedRoom::default());
        let (ours, mut theirs) = duplex(16);
        let writing = tokio::spawn(write_out(incoming, ours, b"cut\n"));
        for line in ["one\n", "a line that is long\ntwo\n", "three\n"] {
            outgoing.send(Bytes::from_static(line.as_bytes())).await.unwrap();
        }
        outgoing.closed().await;
        let mut read = String::new();
        theirs.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "one\na line that is long\ncut\n");
        assert!(writing.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_shared_room_is_full_others_still_get_answers() {
        let shared = SharedRoom::default();
        let (hog, _unread) = Outgoing::new(shared.clone());
        while shared.0.available_permits() > 0 {
            hog.send(vec![b'x'; OWN_ROOM as usize].into()).await.unwrap();
        }
        let (polite, incoming) = Outgoing::new(shared);
        let (ours, mut theirs) = duplex(64);
        let writing = tokio::spawn(write_out(incoming, ours, b"cut\n"));
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).await.map(|_| read.len())
        });
        // More than its own room holds at once, and it reads.
        for _ in 0..8 {
            polite.send(vec![b'x'; OWN_ROOM as usize].into()).await.unwrap();
        }
        drop(polite);
        assert_eq!(reading.await.unwrap().unwrap(), 8 * OWN_ROOM as usize);
        writing.await.unwrap().unwrap();
    }
}
