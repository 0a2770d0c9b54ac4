//! Queues log lines for standard error, in a bounded queue with a writer thread.
//!
//! Promises that logging never waits. Standard error is often a pipe, and a write to a pipe that nobody reads blocks the thread
//! for ever. A line that finds the queue full is dropped and counted, and the count is logged once the queue has room. Replaces
//! tracing-appender, which bounds lines and not bytes, reports no drops, and brings a date library for file rotation.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::metrics;

/// The most bytes that may be queued: some thousands of lines.
const MOST: usize = 1024 * 1024;

/// The sending end of the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogQueue {
    entries: Sender<Entry>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Queued bytes, including those of the line that is being written.
    waiting: AtomicUsize,
    /// Lines that were dropped and not yet reported.
    lost: AtomicU64,
}

impl Counts {
    fn lose_a_line(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        metrics::log_line_lost();
    }
}

#[derive(Debug)]
enum Entry {
    Line(Box<[u8]>),
    /// Asks the thread to confirm when all lines before this are written.
    Flush(Sender<()>),
}

impl LogQueue {
    /// Starts the thread that writes to `out`. When the thread has written a line after a loss and the queue has room, it calls
    /// `report` with the number of lost lines.
    ///
    /// # Errors
    /// The system can't start a thread.
    pub fn start(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (entries, receiver) = mpsc::channel();
        let counts = Arc::<Counts>::default();
        let queue = Self { entries, counts: counts.clone() };
        // Nobody joins it: at the end of the process it may be blocked in a write.
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_out(&receiver, out, &counts, report))?;
        Ok(queue)
    }

    /// Queues a line, which ends with its newline, or drops it if there is no room.
    pub fn add(&self, line: &[u8]) {
        let before = self.counts.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if before + line.len() > MOST || self.entries.send(Entry::Line(line.into())).is_err() {
            self.counts.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.counts.lose_a_line();
        }
    }

    /// Waits until all lines so far are written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, is_done) = mpsc::channel();
        if self.entries.send(Entry::Flush(done)).is_ok() {
            // Lines that are not written by then are lost, and nothing can report them any more.
            let _ = is_done.recv_timeout(limit);
        }
    }
}

/// The log's formatter writes a whole line at a time.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

fn write_out(entries: &Receiver<Entry>, mut out: impl Write, counts: &Counts, report: impl Fn(u64)) {
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let written = out.write_all(&line);
                let left = counts.waiting.fetch_sub(line.len(), Ordering::Relaxed) - line.len();
                if written.is_err() {
                    counts.lose_a_line();
                } else if left < MOST / 2 {
                    let lost = counts.lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        report(lost);
                    }
                }
            }
            Entry::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_ENOUGH: Duration = Duration::from_secs(60);

    /// Blocks until the other end of the channel is dropped, then fails the given number of times, then keeps all lines.
    struct Reader {
        reads: Receiver<()>,
        failures: usize,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.reads.recv();
            if let Some(fewer) = self.failures.checked_sub(1) {
                self.failures = fewer;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue, the end of the channel whose drop starts the reading, the written lines, and the reports.
    fn queue(failures: usize) -> (LogQueue, Sender<()>, Receiver<Vec<u8>>, Receiver<u64>) {
        let ((read, reads), (taken, lines), (report, reports)) =
            (mpsc::channel(), mpsc::channel(), mpsc::channel());
        let queue = LogQueue::start(Reader { reads, failures, taken }, move |lost| {
            let _ = report.send(lost);
        });
        (queue.unwrap(), read, lines, reports)
    }

    #[test]
    fn a_log_reader_that_does_not_read_delays_nobody_and_lost_lines_are_reported_once() {
        let (queue, read, lines, reports) = queue(0);
        let line = [b'x'; 1024];
        let room = MOST / line.len();
        (0..room + 7).for_each(|_| queue.add(&line));
        // The wait ends although nothing can be written.
        queue.flush(Duration::ZERO);
        drop(read);
        queue.flush(LONG_ENOUGH);
        assert_eq!(lines.try_iter().count(), room);
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [7]);
        queue.add(&line);
        queue.flush(LONG_ENOUGH);
        assert_eq!((lines.try_iter().count(), reports.try_iter().count()), (1, 0));
    }

    #[test]
    fn lost_lines_are_reported_after_the_next_line_that_is_written() {
        let (queue, read, lines, reports) = queue(3);
        drop(read);
        (0..3).for_each(|_| queue.add(b"lost\n"));
        queue.flush(LONG_ENOUGH);
        assert_eq!(reports.try_iter().count(), 0);
        queue.add(b"written\n");
        queue.flush(LONG_ENOUGH);
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), [b"written\n"]);
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [3]);
    }
}
