//! The client's end of the local socket: one line out, one line in, in order.
//!
//! Promises that a line from the daemon is bounded, that waits for quick answers are limited, and that [`Client::pipeline`] reads
//! and writes at the same time with a bounded number of requests in flight, so a million PINs need no more memory than a
//! thousand. Must not know terminals or exit statuses.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::paths::{self, PathError};
use crate::protocol::{self, Code, Operation, Raw, Refusal, ping, tail};

/// The longest line that is read, in bytes. A newer daemon may send longer lines than this version.
const MAX_ANSWER: usize = 8 * protocol::MAX_ANSWER;

/// How long the daemon may take to answer a request that waits only for its disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The most unanswered requests in a pipeline. Enough for the daemon to commit many PINs at once.
const WINDOW: usize = 4096;

/// How long to retry if the daemon has no free connection, or its queue of new connections is full.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// The pause between two such tries; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A ping is sent after this time without a request, because the daemon closes connections that are idle for 5 minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error(
        "no daemon at {}: there is no such socket; start it (\"pinwatch run\", or \"systemctl start pinwatch\"), or say with --socket where it is",
        .0.display()
    )]
    NotFound(PathBuf),
    #[error(
        "no daemon at {}: the socket is there, but nobody listens on it; start the daemon (\"pinwatch run\", or \"systemctl start pinwatch\")",
        .0.display()
    )]
    Refused(PathBuf),
    #[error(
        "not allowed to use {}: add yourself to group pinwatch (\"sudo usermod -aG pinwatch $USER\", then log in again)",
        .0.display()
    )]
    PermissionDenied(PathBuf),
    #[error("the daemon at {} is not trusted, and nothing was sent to it: {problem}", path.display())]
    Untrusted { path: PathBuf, problem: PathError },
    #[error("the daemon at {} takes no more connections now: {refusal}", path.display())]
    Full { path: PathBuf, refusal: Refusal },
    #[error(transparent)]
    Greeting(#[from] ClientError),
    #[error("can't connect to {}: {error}", path.display())]
    Other { path: PathBuf, error: io::Error },
}

/// What can go wrong on a connection.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("the daemon closed the connection before it had answered; see its log")]
    Closed,
    #[error("the connection to the daemon broke: {0}")]
    Broken(#[source] io::Error),
    #[error("the daemon has not answered for {} s; see its log, and \"systemctl status pinwatch\"", ANSWER_WITHIN.as_secs())]
    Silent,
    #[error("the daemon sent a line of over {} MiB; is it pinwatch that listens at this socket?", MAX_ANSWER >> 20)]
    TooLong,
    #[error("the daemon sent what this version of pinwatch can't read ({problem}): {line}")]
    Unreadable { line: String, problem: String },
    #[error("the daemon refused: {0}")]
    Refused(#[from] Refusal),
}

impl ClientError {
    /// Whether the daemon has ended or is about to end, so that the client should reconnect.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Closed | Self::Broken(_) => true,
            Self::Refused(refusal) => refusal.is_temporary(),
            Self::Silent | Self::TooLong | Self::Unreadable { .. } => false,
        }
    }

    /// Whether the daemon is connected but did not answer in time.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Silent)
    }
}

/// One connection to the daemon.
pub struct Client {
    lines: Lines,
    writer: OwnedWriteHalf,
}

impl Client {
    /// Connects to the daemon at `path`, after checking that the process that listens there may be the daemon. Retries for a
    /// while if there are too many connections.
    ///
    /// # Errors
    /// Nobody listens there, permission is denied, the process is not trusted (see [`paths::check_server`]), it has no free
    /// connection, or it is not the daemon.
    pub async fn connect(path: &Path) -> Result<Self, ConnectError> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut client = Self::open(path, started).await?;
            // A ping shows whether the daemon accepts the connection. The first real request must not be lost with it.
            match client.ask(&ping::Request {}).await {
                Err(ClientError::Refused(refusal)) if refusal.code == Code::AtCapacity => {
                    if started.elapsed() >= BUSY_FOR {
                        return Err(ConnectError::Full { path: path.to_owned(), refusal });
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                // The daemon is stopping: the next request reports that better.
                Ok(_) | Err(ClientError::Refused(_) | ClientError::Closed | ClientError::Broken(_)) => {
                    return Ok(client);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn open(path: &Path, started: Instant) -> Result<Self, ConnectError> {
        let stream = loop {
            match UnixStream::connect(path).await {
                // The kernel's queue for the socket is full; a busy daemon empties it in a moment.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && started.elapsed() < BUSY_FOR => {
                    sleep(Duration::from_millis(20)).await;
                }
                other => break other,
            }
        };
        let stream = stream.map_err(|error| {
            let path = path.to_owned();
            match error.kind() {
                io::ErrorKind::NotFound => ConnectError::NotFound(path),
                io::ErrorKind::ConnectionRefused => ConnectError::Refused(path),
                io::ErrorKind::PermissionDenied => ConnectError::PermissionDenied(path),
                _ => ConnectError::Other { path, error },
            }
        })?;
        let peer =
            stream.peer_cred().map_err(|error| ConnectError::Other { path: path.to_owned(), error })?;
        paths::check_server(path, peer.uid())
            .map_err(|problem| ConnectError::Untrusted { path: path.to_owned(), problem })?;
        let (reader, writer) = stream.into_split();
        Ok(Self { lines: Lines::new(reader), writer })
    }

    /// Sends one request and reads its answer.
    pub async fn ask<R: Operation>(&mut self, request: &R) -> Result<R::Answer, ClientError> {
        let sent = self.send(request).await;
        // Read even if sending failed: the daemon may have said why it closed the connection.
        match self.lines.read_due().await {
            Ok(()) => parse::<R>(self.lines.line()),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// Sends a request whose answer lines are read by [`Self::tailed`].
    pub async fn send(&mut self, request: &impl Operation) -> Result<(), ClientError> {
        self.writer.write_all(&protocol::request(request)).await.map_err(ClientError::Broken)
    }

    /// Reads the next line of a tail that follows, and waits for it without limit. Returns its meaning and its bytes. Nothing is
    /// lost if the future is dropped half-way.
    pub async fn tailed(&mut self) -> Result<(tail::Line, &[u8]), ClientError> {
        self.lines.read().await?;
        self.lines.tailed()
    }

    /// Reads the next line of a tail that does not follow, so the line must come soon.
    pub async fn tailed_due(&mut self) -> Result<(tail::Line, &[u8]), ClientError> {
        self.lines.read_due().await?;
        self.lines.tailed()
    }

    /// Returns the position after all outcomes so far.
    pub async fn newest_position(&mut self) -> Result<tail::Start, ClientError> {
        self.send(&tail::Request {
            from: None,
            last: Some(0),
            follow: false,
            positions: false,
            filter: Default::default(),
        })
        .await?;
        loop {
            if let (tail::Line::Notice(tail::Answer::End { position, .. }), _) = self.tailed_due().await? {
                return Ok(tail::Start::Position(position));
            }
        }
    }

    /// Whether a line can be read without waiting.
    pub fn has_next(&self) -> bool {
        self.lines.has_next()
    }

    /// Sends all `requests` and passes each answer with its request's tag to `on_answer`. Its last argument is true if the next
    /// answer has not arrived yet, so this is a good moment to flush the output.
    ///
    /// Sends requests without waiting for answers until [`WINDOW`] are unanswered. Flushes them if the next request is not
    /// available yet (somebody types them). If that takes long, pings keep the connection open.
    pub async fn pipeline<T, E>(
        &mut self,
        requests: impl Stream<Item = (T, Vec<u8>)>,
        mut on_answer: impl FnMut(T, &[u8], bool) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<ClientError>,
    {
        let Self { lines, writer } = self;
        let (pending, mut unanswered) = mpsc::channel(WINDOW);
        let write = async move {
            let mut requests = pin!(requests);
            let mut out = BufWriter::with_capacity(64 << 10, writer);
            loop {
                let request = match requests.next().now_or_never() {
                    Some(request) => Ok(request),
                    None => {
                        out.flush().await?;
                        timeout(KEEP_ALIVE, requests.next()).await
                    }
                };
                let (tag, line) = match request {
                    Ok(Some((tag, line))) => (Some(tag), line),
                    Ok(None) => break,
                    Err(_) => (None, protocol::request(&ping::Request {})),
                };
                let room = match pending.try_reserve() {
                    Ok(room) => room,
                    Err(_) => {
                        out.flush().await?;
                        // The receiver is dropped only if reading failed, and that error is reported.
                        let Ok(room) = pending.reserve().await else { break };
                        room
                    }
                };
                room.send(tag);
                out.write_all(&line).await?;
            }
            out.flush().await
        };
        let read = async {
            while let Some(tag) = unanswered.recv().await {
                lines.read_due().await?;
                match tag {
                    Some(tag) => on_answer(tag, lines.line(), !lines.has_next())?,
                    None => parse::<ping::Request>(lines.line()).map(drop)?,
                }
            }
            Ok::<_, E>(())
        };
        // Reading ends with an error, or when writing has ended and all requests are answered. If writing fails, reading
        // continues: the daemon's remaining answers still matter.
        let (mut write, mut read) = (pin!(write.fuse()), pin!(read));
        let mut written = Ok(());
        loop {
            tokio::select! {
                biased;
                result = &mut read => {
                    result?;
                    return written.map_err(|error| ClientError::Broken(error).into());
                }
                result = &mut write => written = result,
            }
        }
    }
}

/// Parses the answer to a request, or the refusal.
pub fn parse<R: Operation>(line: &[u8]) -> Result<R::Answer, ClientError> {
    let answer = protocol::read_answer(line).map_err(|error| unreadable(line, &error))?;
    Ok(answer?)
}

/// Parses a part of an answer.
pub fn read<T: DeserializeOwned>(part: &Raw<T>) -> Result<T, ClientError> {
    read_as(part)
}

/// Parses a part of an answer as another type that the same JSON has.
pub fn read_as<T, U: DeserializeOwned>(part: &Raw<T>) -> Result<U, ClientError> {
    serde_json::from_str(part.get()).map_err(|error| unreadable(part.get().as_bytes(), &error))
}

/// The error for JSON that can't be parsed as expected; quotes its beginning, on one line.
fn unreadable(line: &[u8], error: &serde_json::Error) -> ClientError {
    let shown = String::from_utf8_lossy(&line[..line.len().min(200)]);
    ClientError::Unreadable { line: shown.escape_debug().to_string(), problem: error.to_string() }
}

/// Reads lines from the daemon. Lines are bounded, and none is lost if a read is cancelled half-way.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    /// Whether `line` is complete, so that the next read begins a new one.
    is_complete: bool,
}

impl Lines {
    fn new(reader: OwnedReadHalf) -> Self {
        Self { reader: BufReader::with_capacity(64 << 10, reader), line: Vec::new(), is_complete: false }
    }

    /// Reads a line within the time limit.
    async fn read_due(&mut self) -> Result<(), ClientError> {
        timeout(ANSWER_WITHIN, self.read()).await.unwrap_or(Err(ClientError::Silent))
    }

    /// Reads a line, without a time limit.
    async fn read(&mut self) -> Result<(), ClientError> {
        if self.is_complete {
            self.line.clear();
            self.is_complete = false;
        }
        while !self.is_complete {
            let available = self.reader.fill_buf().await.map_err(ClientError::Broken)?;
            if available.is_empty() {
                // A last line without its newline is incomplete, and counts as not sent.
                return Err(ClientError::Closed);
            }
            let newline = memchr::memchr(b'\n', available);
            let taken = newline.map_or(available.len(), |end| end + 1);
            if self.line.len() + taken > MAX_ANSWER {
                return Err(ClientError::TooLong);
            }
            self.line.extend_from_slice(&available[..newline.unwrap_or(taken)]);
            self.reader.consume(taken);
            self.is_complete = newline.is_some();
        }
        Ok(())
    }

    /// The line that was read last.
    fn line(&self) -> &[u8] {
        &self.line
    }

    /// The line that was read last, parsed as a line of a tail.
    fn tailed(&self) -> Result<(tail::Line, &[u8]), ClientError> {
        let line = tail::Line::parse(&self.line).map_err(|error| unreadable(&self.line, &error))?;
        Ok((line?, &self.line))
    }

    fn has_next(&self) -> bool {
        memchr::memchr(b'\n', self.reader.buffer()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pings_keep_the_connection_open_while_nobody_types_a_pin() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = ours.into_split();
        let mut client = Client { lines: Lines::new(reader), writer };
        let daemon = tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let (mut lines, mut asked, mut line) = (BufReader::new(reader), Vec::new(), String::new());
            while lines.read_line(&mut line).await.unwrap() > 0 {
                writer.write_all(b"{\"ok\":true,\"version\":\"1\"}\n").await.unwrap();
                asked.push(std::mem::take(&mut line));
            }
            asked
        });
        let typed = futures_util::stream::iter(["A\n", "B\n"]).then(|line| async move {
            sleep(KEEP_ALIVE * 5 / 2).await;
            (line, line.as_bytes().to_vec())
        });
        let mut answered = Vec::new();
        let done = client.pipeline(typed, |tag, _, _| {
            answered.push(tag);
            Ok::<_, ClientError>(())
        });
        done.await.unwrap();
        drop(client);
        assert_eq!(answered, ["A\n", "B\n"], "nobody hears of the pings");
        let ping = String::from_utf8(protocol::request(&ping::Request {})).unwrap();
        assert_eq!(daemon.await.unwrap(), [&ping, &ping, "A\n", &ping, &ping, "B\n"]);
    }
}
