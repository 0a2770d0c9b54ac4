//! Room for what clients of the API have not sent or not read yet.
//!
//! Promises that memory is charged to a client before it is allocated and until it is freed. All requests with tokens
//! of one name share one room. Must not know requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The room of one name, in bytes.
pub const CLIENT_ROOM: usize = 16 * 1024 * 1024;

/// How long a request waits for room.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The room of one client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientRoom(Arc<Semaphore>);

impl Default for ClientRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CLIENT_ROOM)))
    }
}

/// Other requests of the client have taken its room, and did not give it back in time.
#[derive(Debug)]
pub struct NoRoom;

/// Room for this many bytes. Dropping it gives it back.
#[derive(Debug)]
pub struct Charge(OwnedSemaphorePermit);

impl ClientRoom {
    /// Waits for room for at most this many bytes.
    ///
    /// # Errors
    /// There is none for [`TIMEOUT`].
    pub async fn take(&self, most: usize) -> Result<Charge, NoRoom> {
        timeout(TIMEOUT, self.wait(most)).await.map_err(|_| NoRoom)
    }

    /// As [`ClientRoom::take`], without a time limit.
    pub async fn wait(&self, most: usize) -> Charge {
        let permits = most.min(CLIENT_ROOM) as u32;
        Charge(self.0.clone().acquire_many_owned(permits).await.expect("nobody closes the room"))
    }
}

impl Charge {
    /// These bytes, which keep as much of the room as they need until they are sent.
    pub fn hold(self, bytes: impl Into<Vec<u8>>) -> Bytes {
        let mut bytes = bytes.into();
        bytes.shrink_to_fit();
        let Self(mut permit) = self;
        let permit = permit.split(bytes.len()).unwrap_or(permit);
        hold(bytes, permit)
    }
}

/// These bytes, with what is to be dropped when they are.
pub fn hold(bytes: impl AsRef<[u8]> + Send + 'static, charge: impl Send + 'static) -> Bytes {
    struct Held<B, C>(B, C);
    impl<B: AsRef<[u8]>, C> AsRef<[u8]> for Held<B, C> {
        fn as_ref(&self) -> &[u8] {
            self.0.as_ref()
        }
    }
    Bytes::from_owner(Held(bytes, charge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_occupies_memory_until_it_is_sent_and_the_wait_for_memory_is_limited() {
        let room = ClientRoom::default();
        let charge = room.take(CLIENT_ROOM).await.unwrap();
        assert!(room.take(1).await.is_err());
        let answer = charge.hold("12345");
        let rest = room.take(CLIENT_ROOM - 5).await.unwrap();
        assert!(room.take(1).await.is_err());
        let part = answer.slice(1..2);
        drop(answer);
        assert!(room.take(1).await.is_err(), "a part of it is still there");
        drop((part, rest));
        assert!(room.take(usize::MAX).await.is_ok());
    }
}
